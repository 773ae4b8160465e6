# SPDX-License-Identifier: MIT
"""Reading the tree, as far as the checks need to understand it.

A tree is a mapping from path to text, so that the self-test can make small bad ones without touching the disk. C is
read without a compiler: comments and literals are blanked out with every line kept in place, and a function is what has
parentheses before its brace at the outermost level.
"""

import ast
import re
from pathlib import Path

FOLDERS = ("src", "include", "examples", "bench", "tests", "scripts", "cmake", ".ci")
TOP_FILES = ("CMakeLists.txt", "CMakePresets.json", "Makefile", "README.md", "CHANGELOG.md")
C_ENDINGS = (".c", ".h", ".cpp")

LITERALS = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.DOTALL)
COMMENTS_OR_STRINGS = re.compile(r'("(?:\\.|[^"\\\n])*")|//[^\n]*|/\*.*?\*/', re.DOTALL)
DIRECTIVE = re.compile(r"^[ \t]*#(?:[^\n\\]|\\.|\\\n)*", re.MULTILINE)
ATTRIBUTE = re.compile(r"__attribute__\s*\(\((?:[^()]|\([^()]*\))*\)\)")
TRANSPARENT = re.compile(r'^(?:namespace\b.*|extern\s*"\s*")$', re.DOTALL)
INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*(["<])([^">]+)[">]', re.MULTILINE)


def read_tree(root):
    """The text of every file that is ours, by its path from `root`."""
    root = Path(root)
    paths = [root / name for name in TOP_FILES]
    for folder in FOLDERS:
        paths += sorted((root / folder).rglob("*"))
    tree = {}
    for path in paths:
        name = path.relative_to(root).as_posix()
        if not path.is_file() or "__pycache__" in name or name.startswith("bench/results/"):
            continue
        try:
            tree[name] = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # a picture or a packet dump
    return tree


def is_c(path):
    return path.endswith(C_ENDINGS)


def is_python(path):
    return path.endswith(".py")


def blank(text):
    """`text` as spaces, its newlines kept."""
    return re.sub(r"[^\n]", " ", text)


def blank_literals(text):
    """C without comments and without what stands between quotes."""
    def keep_quotes(match):
        piece = match.group(0)
        if piece[0] == "/":
            return blank(piece)
        return piece[0] + blank(piece[1:-1]) + piece[-1]
    return LITERALS.sub(keep_quotes, text)


def blank_comments(text):
    return COMMENTS_OR_STRINGS.sub(lambda match: match.group(1) or blank(match.group(0)), text)


def blank_directives(code):
    return DIRECTIVE.sub(lambda match: blank(match.group(0)), code)


def line_of(text, index):
    return text.count("\n", 0, index) + 1


def includes(text):
    """The (line, '"' or '<', name) of each #include."""
    code = blank_comments(text)
    return [(line_of(code, match.start(1)), match.group(1), match.group(2)) for match in INCLUDE.finditer(code)]


def c_functions(text):
    """The (name, first line, last line) of each function body; a name of None says that the braces do not balance."""
    code = blank_directives(blank_literals(text))
    open_braces = []  # True where the brace counts, False for a namespace or extern "C"
    found = []
    start = name = None
    head_from = 0
    for match in re.finditer(r"[{};]", code):
        index, depth = match.start(), sum(open_braces)
        if match.group(0) == ";":
            if depth == 0:
                head_from = index + 1
        elif match.group(0) == "{":
            head = code[head_from:index].strip()
            if depth == 0 and TRANSPARENT.match(head):
                open_braces.append(False)
                head_from = index + 1
                continue
            bare = ATTRIBUTE.sub("", head).strip()
            if depth == 0 and bare.endswith(")"):
                start = line_of(code, head_from + len(code[head_from:index]) - len(code[head_from:index].lstrip()))
                name = re.search(r"(\w+)\s*\(", bare).group(1)
            open_braces.append(True)
        else:
            if not open_braces:
                return found + [(None, line_of(code, index), 0)]
            open_braces.pop()
            if sum(open_braces) == 0:
                if name:
                    found.append((name, start, line_of(code, index)))
                name = None
                head_from = index + 1
    return found + ([(None, line_of(code, len(code)), 0)] if open_braces else [])


def python_functions(text):
    nodes = ast.walk(ast.parse(text))
    return [(node.name, node.lineno, node.end_lineno) for node in nodes
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]


def functions(path, text):
    if is_c(path):
        return c_functions(text)
    return python_functions(text) if is_python(path) else []


def api_functions(tree):
    """The (path, line, name) of each function that the public headers declare."""
    found = []
    for path, text in tree.items():
        if not (path.startswith("include/") and path.endswith(".h")):
            continue
        code = blank_directives(blank_literals(text))
        for match in re.finditer(r"\bGYRE_API\b[^;(]*?\b(\w+)\s*\(", code):
            found.append((path, line_of(code, match.start()), match.group(1)))
    return found
