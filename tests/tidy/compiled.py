# SPDX-License-Identifier: MIT
"""The checks that need a compiler or what it made: headers that stand alone, and the symbols of the libraries."""

import re
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from pathlib import Path

import source

STRICT = ["-Wall", "-Wextra", "-Wshadow", "-Wpedantic", "-Werror", "-fsyntax-only"]


def output(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def compile_alone(include, header, command):
    """The compiler's complaint about a file that includes `header` twice and nothing else, or None."""
    text = f"#include <{header}>\n#include <{header}>\nextern int nothing;\nint nothing;\n"
    done = subprocess.run([*command, *STRICT, "-I", str(include), "-"], input=text, capture_output=True, text=True,
                          check=False)
    return None if done.returncode == 0 else f"include/{header}: not by itself as {' '.join(command)}:\n{done.stderr}"


def check_headers(tree, compilers):
    """Each public header alone, as C11 and as C++17."""
    names = [path.removeprefix("include/") for path in tree if path.startswith("include/") and path.endswith(".h")]
    if not names:
        return ["include: no header"]
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            path = Path(folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(tree[f"include/{name}"], encoding="utf-8")
        with ThreadPoolExecutor(2) as pool:
            jobs = [pool.submit(compile_alone, folder, name, command) for name in names for command in compilers]
            return [job.result() for job in jobs if job.result() is not None]


# What stands around the statements of a header's example.
EXAMPLE = """#include <gyre.h>
static inline bool is_finished(void *user) {{ return user != NULL; }}
int example(void);
int example(void)
{{
    int state = 0;
    (void)state;
{}
    return err;
}}
"""


def code_blocks(tree):
    """The examples in pages (```c) and in the comments of headers (four more spaces, statements): place and program."""
    for path, text in tree.items():
        if path.endswith(".md"):
            for match in re.finditer(r"^```c\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
                yield f"{path}:{source.line_of(text, match.start())}", match.group(1)
        elif path.startswith("include/") and path.endswith(".h"):
            for match in re.finditer(r"(?:^ \*     (?:\S.*;|// .*)\n)+", text, re.MULTILINE):
                lines = [line[3:] for line in match.group(0).splitlines()]
                if len(lines) > 1 and any(line.startswith("    struct ") for line in lines):
                    yield f"{path}:{source.line_of(text, match.start())}", EXAMPLE.format("\n".join(lines))


def check_blocks(tree, compilers, include):
    """Every example in a page or a header compiles without a warning."""
    found, count = [], 0
    for place, program in code_blocks(tree):
        done = subprocess.run([*compilers[0], *STRICT, "-I", str(include), "-"], input=program, capture_output=True,
                              text=True, check=False)
        count += 1
        if done.returncode != 0:
            found.append(f"{place}: the example does not compile:\n{done.stderr}")
    return found if count else ["no example in any page or header"]


def c_and_cxx(c_compiler, cxx_compiler):
    return [[c_compiler, "-std=c11", "-x", "c"], [cxx_compiler, "-std=c++17", "-x", "c++"]]


def defined(nm_output):
    """The names in the output of nm, without versions and without the version nodes themselves."""
    found = set()
    for line in nm_output.splitlines():
        words = line.split()
        if len(words) == 3 and words[1] != "A":
            found.add(words[2].split("@")[0])
    return found


def patterns(map_text):
    """What a symbol map makes global."""
    text = source.blank_comments(map_text)
    return [pattern for part in re.findall(r"global:(.*?)(?:local:|\})", text, re.DOTALL)
            for pattern in re.split(r"[\s;]+", part) if pattern]


def compare_symbols(declared, exported, archived, public, needed, uring):
    """What the headers declare, the shared library exports, the archive defines, the map's patterns make public, the
    shared library links."""
    found = [f"{name}: declared in a public header and not exported; define it, or take it out"
             for name in sorted(declared - exported)]
    found += [f"{name}: exported and in no public header; make it static or call it gyre__"
              for name in sorted(exported - declared)]
    found += [f"{name}: exported although src/libgyre.map does not say so; link with the map, or rename it"
              for name in sorted(exported) if not any(fnmatchcase(name, pattern) for pattern in public)]
    found += [f"{name}: looks public and is in no public header; call it gyre__, or declare it there"
              for name in sorted(archived - declared) if re.match(r"gyre_[^_]", name)]
    found += [f"{name}: a global name of libgyre.a that is not gyre's; make it static or call it gyre__"
              for name in sorted(archived) if not re.match(r"gyre_|__odr_asan", name)]
    links_uring = any(name.startswith("liburing") for name in needed)
    if links_uring != uring:
        found.append(f"libgyre.so {'links' if links_uring else 'does not link'} liburing, and GYRE_WITH_URING says "
                     "otherwise; see cmake/library.cmake")
    return found


def check_symbols(tree, shared, archive, uring):
    """The libraries define what the headers declare, no more and no less."""
    declared = {name for _, _, name in source.api_functions(tree)}
    exported = defined(output("nm", "-D", "--defined-only", shared))
    archived = defined(output("nm", "-g", "--defined-only", archive))
    needed = re.findall(r"\(NEEDED\).*\[(.*)\]", output("readelf", "-d", shared))
    public = patterns(tree.get("src/libgyre.map", ""))
    return compare_symbols(declared, exported, archived, public, needed, uring)
