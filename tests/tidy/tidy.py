#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""One check of the tree's order, or the proof that each check can fail.

    tidy.py CHECK --root DIRECTORY          findings on standard output; exits with 1 if there are any
    tidy.py headers --cc CC --cxx CXX …         likewise: options
    tidy.py symbols --shared libgyre.so --archive libgyre.a --uring ON …
    tidy.py graph --uring ON --objects OBJECT.o …
    tidy.py circles --uring ON --objects OBJECT.o …
    tidy.py self-test --cc CC --cxx CXX …
"""

import argparse
import sys
from pathlib import Path

import checks
import compiled
import graph
import selftest
import shape
import source


def findings(args):
    tree = source.read_tree(args.root)
    if not any(source.is_c(path) for path in tree):
        return [f"{args.root}: no C files; is this the tree?"]
    if args.check == "headers":
        return compiled.check_headers(tree, compiled.c_and_cxx(args.cc, args.cxx))
    if args.check == "blocks":
        return compiled.check_blocks(tree, compiled.c_and_cxx(args.cc, args.cxx), Path(args.root, "include"))
    if args.check == "options":
        return shape.check_options(tree, compiled.c_and_cxx(args.cc, args.cxx))
    if args.check == "symbols":
        return compiled.check_symbols(tree, args.shared, args.archive, args.uring == "ON")
    if args.check == "graph":
        return graph.check_graph(tree, graph.read_objects(args.objects), args.uring == "ON")
    if args.check == "circles":
        return graph.check_circles(tree, graph.read_objects(args.objects), args.uring == "ON")
    if args.check == "words":
        return checks.check_words(tree, args.root)
    return checks.CHECKS[args.check](tree)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("check", choices=[*checks.CHECKS, "headers", "blocks", "options", "symbols",
                                          "graph", "circles", "self-test"])
    parser.add_argument("--root", default=".")
    parser.add_argument("--cc", default="cc")
    parser.add_argument("--cxx", default="c++")
    parser.add_argument("--shared")
    parser.add_argument("--archive")
    parser.add_argument("--uring", choices=["ON", "OFF"], default="ON")
    parser.add_argument("--objects", nargs="+", default=[])
    args = parser.parse_args()
    if args.check == "self-test":
        return selftest.run(args.cc, args.cxx, args.root)
    found = findings(args)
    for line in found:
        print(line)
    if found:
        print(f"tidy: {args.check}: {len(found)} found", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
