# SPDX-License-Identifier: MIT
"""The graph of the library's files and of its rooms: who includes whom, and whose object file needs what another's
defines. A declaration written by hand instead of an include is an arrow as well, since the linker sees it.

A file is its pair of .c and .h, named without the ending. The same graph of bench's C files, and that of the Python
modules, which import each other, have no rooms; circles are not allowed in them either.
"""

import ast
import re
import subprocess

import checks
import source

BACKENDS = {"uring", "epoll_fallback", "kqueue_fallback"}  # a build may lack these rooms, the others never


def file_of(path):
    return path.rsplit(".", 1)[0]


def is_ours(path):
    return source.is_c(path) and path.startswith(("src/", "include/"))


def is_bench(path):
    return source.is_c(path) and path.startswith("bench/")


def target_of(tree, path, quote, name):
    """The file of the tree that an #include in `path` means, or None."""
    beside = f"{path.rsplit('/', 1)[0]}/{name}"
    room = "bench" if is_bench(path) else "src"
    places = [f"include/{name}"] if quote == "<" else [beside, f"{room}/{name}", f"include/{name}"]
    return next((place for place in places if place in tree), None)


def include_arrows(tree, among=is_ours):
    for path, text in tree.items():
        for _, quote, name in source.includes(text) if among(path) else ():
            target = target_of(tree, path, quote, name)
            if target is not None:
                yield file_of(path), file_of(target), f"includes {name}"


OBJECT_OF = re.compile(r"/(src/\w+/\w+)\.c\.o(?:bj)?$")
BENCH_OBJECT_OF = re.compile(r"/(bench/)(?:CMakeFiles/[\w-]+\.dir/)?((?:peers/)?\w+)\.c\.o(?:bj)?$")


def source_of(path):
    """The file of src or of bench that an object file was made of, or None."""
    found = OBJECT_OF.search(path) or BENCH_OBJECT_OF.search(path)
    return "".join(found.groups()) if found else None


def read_objects(paths):
    """What each object file of src or bench defines and what it needs: {file: (names, names)}. Others are the tests'
    own."""
    objects = {file: (set(), set()) for file in map(source_of, paths) if file}
    listing = subprocess.run(["nm", "-P", "-g", "-A", *paths], capture_output=True, text=True, check=True).stdout \
        if paths else ""
    for line in listing.splitlines():
        path, _, symbol = line.partition(": ")
        file, words = source_of(path), symbol.split()
        if file and len(words) > 1:
            defined, needed = objects[file]
            (needed if words[1] in "Uwv" else defined).add(words[0])
    return objects


def symbol_arrows(objects):
    owner = {name: file for file, (defined, _) in objects.items() for name in defined}
    for file, (_, needed) in objects.items():
        for name in sorted(needed):
            if name in owner:
                yield file, owner[name], f"uses {name}"


def collect(arrows):
    """{file: {file: why}}, an arrow to oneself left out and of several reasons the first kept."""
    graph = {}
    for start, end, why in arrows:
        if start != end:
            graph.setdefault(start, {}).setdefault(end, why)
    return graph


def way(graph, start, end):
    """A shortest way from `start` to `end` of at least one arrow, as a list of nodes, or None."""
    before, edge = {}, [start]
    while edge:
        following = []
        for node in edge:
            for neighbour in sorted(graph.get(node, ())):
                if neighbour not in before:
                    before[neighbour] = node
                    following.append(neighbour)
        if end in before:
            path = [end, before[end]]
            while path[-1] != start:
                path.append(before[path[-1]])
            return path[::-1]
        edge = following
    return None


def circles(graph):
    """A shortest circle through each node that is on one, no node named twice."""
    found, named = [], set()
    for node in sorted(graph):
        path = None if node in named else way(graph, node, node)
        if path is not None:
            found.append(path)
            named.update(path)
    return found


def say_circle(graph, path):
    steps = [f"{start} {graph[start][end]} of {end}" for start, end in zip(path, path[1:])]
    return f"circle: {'; '.join(steps)}; let one of them be told instead of asking"


def room_of_file(file):
    return checks.room_of(f"{file}.c")


def forbidden(graph, table):
    """The arrows between rooms that the table does not list."""
    for start in sorted(graph):
        room = room_of_file(start)
        for end, why in sorted(graph[start].items()):
            other = room_of_file(end)
            if room and other and other != room and other not in table.get(room, ()):
                yield (f"{start} {why} of {end}; src/{room} may not know src/{other} "
                       "(the table is in tests/tidy/checks.py)")


def not_compiled(tree, objects, uring):
    """Sources whose object file was not given. A room of a backend may be missing as a whole."""
    missing = {file_of(path) for path in tree if path.startswith("src/") and path.endswith(".c")} - set(objects)
    seen = {room_of_file(file) for file in objects}
    excused = BACKENDS - seen - ({"uring"} if uring else set())
    return [f"{file}.c: no object file of it was given; build it, or its symbols are not looked at"
            for file in sorted(missing) if room_of_file(file) not in excused]


def table_itself(tree, table):
    """The table names the rooms there are, and no circle of them."""
    there = {checks.room_of(path) for path in tree if source.is_c(path)} - {None}
    found = [f"src/{room}: in the table of tests/tidy/checks.py and not in the tree; take it out"
             for room in sorted((set(table) | set().union(*table.values())) - there)]
    found += [f"src/{room}: is no room; add it to the table in tests/tidy/checks.py"
              for room in sorted(there - set(table))]
    return found + [f"circle of rooms in tests/tidy/checks.py: {' > '.join(path)}; take an arrow out"
                    for path in circles(table)]


def check_graph(tree, objects, uring, table=None):
    """No circle of files, no arrow between rooms that the table does not list, nothing left out."""
    table = checks.ROOMS if table is None else table
    graph = collect([*include_arrows(tree), *symbol_arrows(objects)])
    found = [say_circle(graph, path) for path in circles(graph)]
    return found + [*forbidden(graph, table), *not_compiled(tree, objects, uring), *table_itself(tree, table)]


# ---- bench, and Python ----

def imported(text):
    """The modules that a Python file imports, wherever in it, and the line."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module, node.lineno


def import_arrows(tree):
    """Between the modules of one folder, which find each other there."""
    for path, text in tree.items():
        for name, line in imported(text) if path.endswith(".py") else ():
            target = f"{path.rpartition('/')[0]}/{name}.py"
            if target in tree:
                yield path, target, f"imports {name} in line {line}"


def bench_not_compiled(tree, objects, uring):
    """Files of bench whose object file was not given. Peers may be missing, and without liburing what includes it."""
    for path, text in sorted(tree.items()):
        if not re.fullmatch(r"bench/\w+\.c", path) or file_of(path) in objects:
            continue
        if uring or not any(name == "liburing.h" for _, _, name in source.includes(text)):
            yield f"{path}: no object file of it was given; build it, or its symbols are not looked at"


def check_circles(tree, objects, uring):
    """No circle of the C files of bench, and none of the Python modules."""
    graph = collect([*include_arrows(tree, is_bench), *symbol_arrows(objects)])
    modules = collect(import_arrows(tree))
    found = [say_circle(arrows, path) for arrows in (graph, modules) for path in circles(arrows)]
    return found + list(bench_not_compiled(tree, objects, uring))
