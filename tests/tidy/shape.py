# SPDX-License-Identifier: MIT
"""The shape of the public interface: the order of parameters, and what the calls with options compile and refuse."""

import os
import re
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import source

LAST = "GYRE_LAST_ARGUMENT_IS_OPTIONS_OR_NULL"


def headers_of(tree):
    return {path: text for path, text in tree.items() if path.startswith("include/") and path.endswith(".h")}


def without_directives(code):
    return re.sub(r"^[ \t]*#(?:[^\n]|\\\n)*", "", code, flags=re.MULTILINE)


def split(text):
    """The arguments or parameters of a list, split at the commas that stand in no brackets."""
    parts, depth, start = [], 0, 0
    for at, letter in enumerate(text):
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and depth == 0:
            parts.append(text[start:at])
            start = at + 1
    return [" ".join(part.split()) for part in [*parts, text[start:]]]


def signatures(code):
    """Name, parameters and place of every function, type of a function, and pointer to a function."""
    kinds = (r"GYRE_API[^;()]*?\b(\w+)\s*\(", r"typedef\s[^;()]*?\b(\w+)\s*\(", r"\(\*(\w+)\)\s*\(")
    for kind in kinds:
        for match in re.finditer(kind, code):
            end, depth = match.end(), 1
            while depth:
                depth += (code[end] == "(") - (code[end] == ")")
                end += 1
            yield match.group(1), split(code[match.end():end - 1]), source.line_of(code, match.start())


def opaque_structs(codes):
    """The structs that headers only declare: a pointer to one is an object, not memory to fill in."""
    declared = {name for code in codes for name in re.findall(r"\bstruct (\w+);", code)}
    return declared - {name for code in codes for name in re.findall(r"\bstruct (\w+)\s*\{", code)}


def fills_in(parameter, opaque):
    """Whether the call writes to the memory that the parameter points to."""
    if "*" not in parameter or parameter.startswith("const ") or "_fn *" in parameter or "[" in parameter:
        return False
    kind, name = re.match(r"(.*?)(\w+)$", parameter).groups()
    if kind.count("*") > 1:
        return "const *" not in kind
    struct = re.match(r"struct (\w+) \*", kind)
    if struct:
        return struct.group(1) not in opaque
    return kind.strip() != "void *" or name in ("out", "dst", "buf", "old")


def order(name, parameters, opaque):
    """What is wrong with the order of the parameters, or None."""
    if any("const char *format" in parameter for parameter in parameters):
        return None
    fills = [fills_in(parameter, opaque) for parameter in parameters]
    first = 0
    while first < len(fills) and (fills[first] or first > 0 and re.match(r"(size_t|int) \w+$", parameters[first])):
        first += 1
    if any(fills[first:]):
        return f"{name}: what it fills in comes first: {parameters[first + fills[first:].index(True)]}"
    users = [at for at, parameter in enumerate(parameters) if parameter == "void *user"]
    after = parameters[users[0] + 1:] if users else []
    if any(not re.search(r"_options \*options$|size_bytes$", parameter) for parameter in after):
        return f"{name}: `user` is last, or before the options"
    return None


OLDER = "tests/interop/older/"


def options_of(tree, folder):
    """The fields of each struct of options in the headers of a folder, without the nested options, which are last."""
    found = {}
    for path, text in tree.items():
        if path.startswith(folder) and path.endswith(".h"):
            code = without_directives(source.blank_comments(text))
            for match in re.finditer(r"struct (\w+_options|gyre_keepalive) \{(.*?)\n\};", code, re.DOTALL):
                fields = [" ".join(field.split()) for field in match.group(2).split(";") if field.strip()]
                found[match.group(1)] = [field for field in fields if not re.match(r"struct \w+_options \w+$", field)]
    return found


def check_growth(tree):
    """Options of today begin with the fields they had in the headers that programs may be compiled with."""
    today = options_of(tree, "include/")
    return [f"{OLDER}: struct {name} began with other fields: {fields}; append new ones, or break it and say so"
            for name, fields in options_of(tree, OLDER).items() if today.get(name, [])[:len(fields)] != fields]


def check_shape(tree):
    """Out parameters first and `user` last, in functions, types of functions, and handlers; options that only grow."""
    codes = {path: without_directives(source.blank_comments(text)) for path, text in headers_of(tree).items()}
    opaque = opaque_structs(codes.values())
    found = check_growth(tree)
    for path, code in codes.items():
        for name, parameters, line in signatures(code):
            wrong = order(name, parameters, opaque)
            if wrong:
                found.append(f"{path}:{line}: {wrong}")
    return found


# ---- Calls with options ----


def option_calls(tree):
    """For each macro that takes options: its name, its other arguments as null of their type, its options' struct and
    the fields of that."""
    macro = re.compile(r"#define (\w+)\(([^)]*)\.\.\.\)\s*\\\s*(\w+_sized)\((.*?)" + LAST + r"\(struct (\w+)",
                       re.DOTALL)
    code = "\n".join(source.blank_comments(text) for text in headers_of(tree).values())
    for match in macro.finditer(code):
        name, words, function, _, struct = match.groups()
        if function != name + "_sized":
            continue
        count = len([word for word in words.split(",") if word.strip()])
        declared = re.search(r"GYRE_API[^;]*?\b" + function + r"\(([^;]*)\);", code).group(1)
        types = [re.sub(r"\w+$", "", parameter).strip() for parameter in split(declared)[:count]]
        fields = re.findall(r"^ {4}[\w ]+?[ *](\w+)(?:\[\w+\])?;", re.search(
            r"struct " + struct + r" \{(.*?)^\};", code, re.DOTALL | re.MULTILINE).group(1), re.MULTILINE)
        yield name, [f"({kind})0" for kind in types], struct, fields


def tries(tree):
    """Each program: its text, its language, whether it compiles, and what it is about. What must compile is in one
    program for each language."""
    good, programs = {"c": [], "c++": []}, []
    calls = list(option_calls(tree))
    structs = sorted({struct for _, _, struct, _ in calls})
    for name, arguments, struct, fields in calls:
        other = structs[struct == structs[0]]
        bad = [("&other", "with the options of another call")]
        if name == calls[0][0] or len(arguments) == 1:
            bad += [(None, "with the last argument left out"), ("{null}, 1", "with an argument too many")]
        for language, null, zero in (("c", "NULL", "{0}"), ("c++", "nullptr", "{}")):
            call = f"(void){name}({', '.join(arguments)}, {{}});"
            good[language] += [call.format(null), f"{{ static const struct {struct} o = {zero}; {call.format('&o')} }}"]
            for last, about in bad:
                text = call.format(last.format(null=null)) if last else call.replace(", {}", "")
                text = f"static struct {other} other; void f(void) {{ (void)&other; {text} }}"
                programs.append((text, language, False, f"{name} {about}"))
        literal = ", ".join(f".{field} = 0" for field in fields[:2])
        good["c"].append(f"(void){name}({', '.join(arguments)}, &(struct {struct}){{{literal}}});")
    for language, calls_of in good.items():
        programs.append(("void f(void) { " + "\n".join(calls_of) + " }", language, True, "all that must compile"))
    return programs


def check_options(tree, compilers):
    """Each macro with options: what must compile does, what must not does not, and says what is wanted."""
    programs = tries(tree)
    if len(programs) < 3:
        return ["include: no call with options"]
    commands = {"c": compilers[0], "c++": compilers[1]}
    with tempfile.TemporaryDirectory() as folder:
        for path, text in headers_of(tree).items():
            place = Path(folder, path.removeprefix("include/"))
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text, encoding="utf-8")

        def attempt(program):
            text, language, compiles, about = program
            done = subprocess.run([*commands[language], "-fsyntax-only", "-w", "-I", folder, "-"], check=False,
                                  input="#include <gyre.h>\nvoid f(void);\n" + text, capture_output=True, text=True,
                                  env={**os.environ, "LC_ALL": "C"})
            if (done.returncode == 0) != compiles:
                return f"{about}, as {language}: {'does not compile' if compiles else 'compiles'}\n{done.stderr}"
            if not compiles and LAST not in done.stderr and "too many arguments" not in done.stderr:
                return f"{about}, as {language}: the error does not name {LAST}\n{done.stderr}"
            return None

        with ThreadPoolExecutor(2) as pool:
            return [wrong for wrong in pool.map(attempt, programs) if wrong]
