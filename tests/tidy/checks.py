# SPDX-License-Identifier: MIT
"""The checks that need no compiler. Each takes a tree (source.py) and returns its findings, one line of text each,
empty when all is well. Every message ends with what to do instead.
"""

import os
import re
import socket

import shape
import source

LIMITS = {"function": 60, "file": 500, "columns": 120, "README": 80}

# Whom each room of src may know besides itself; src/README.md draws them. `layers` holds the includes to it, `graph`
# the symbols too. A room that is not here does not exist.
MATERIALS = {"base", "seam", "buffer", "socket"}
ON_A_LOOP = MATERIALS | {"loop"}
ROOMS = {
    "base": set(),
    "seam": {"base"},
    "buffer": {"base", "seam"},
    "socket": {"base", "seam"},
    "uring": MATERIALS,
    "readiness": MATERIALS,
    "epoll_fallback": MATERIALS | {"readiness"},
    "kqueue_fallback": MATERIALS | {"readiness"},
    "sim": MATERIALS,
    "loop": {"base", "seam", "buffer"},
    "stream": ON_A_LOOP,
    "datagram": ON_A_LOOP,
    "watch": {"base", "seam", "loop"},
    "work": {"base", "seam", "loop"},
    "resolve": {"base", "socket", "loop"},
    "listen": ON_A_LOOP | {"stream", "resolve"},
    "connect": ON_A_LOOP | {"stream", "resolve"},
}
ROOMS["reactor"] = set(ROOMS)  # the conductor knows all players, the backends among them
ROOMS["engine"] = set(ROOMS)
ROOMS["metrics"] = {"base", "seam", "loop", "engine"}

# The headers by which other rooms know a room. All of base's are; those of a room that is not here are its own.
FACES = {
    "seam": {"backend.h", "op.h", "fdq.h"},
    "buffer": {"seg.h", "bufpool.h", "buf.h", "pipes.h"},
    "socket": {"addr.h", "control.h", "path.h", "prepare.h"},
    "readiness": {"poller.h"},
    "sim": {"world.h"},
    "loop": {"loop.h", "set.h"},
    "stream": {"conn.h"},
    "datagram": {"udp.h"},
    "watch": {"watch.h"},
    "work": {"pool.h"},
    "resolve": {"resolve.h"},
    "listen": {"listener.h", "handover.h"},
    "connect": {"connect.h"},
    "reactor": {"reactor.h", "backends.h"},
}
BACKENDS = {"uring", "readiness", "epoll_fallback", "kqueue_fallback"}

# A kernel's or a library's header and the only room of src that includes it; None: nobody does.
FOREIGN = [
    (re.compile(r"^liburing"), "uring"),
    (re.compile(r"^linux/io_uring"), "uring"),
    (re.compile(r"^sys/epoll\.h$"), "epoll_fallback"),
    (re.compile(r"^sys/event\.h$"), "kqueue_fallback"),
    (re.compile(r"^openssl/"), None),
]

MEMORY = "gyre__alloc, gyre__resize and gyre__free of base/mem.h"
LOGGING = "gyre__log of base/log.h"
BOUNDED = "snprintf, memcpy or the length you know"
RETURNING = "return an error; GYRE_CHECK of base/check.h for corruption"
WAITING = "a timer, a condition, or the event you wait for"

# Calls, where they are banned, the files they are allowed in all the same, and what to use.
BANNED = [
    ("malloc calloc realloc free aligned_alloc posix_memalign strdup strndup", ("src/",), {"src/base/mem.c"}, MEMORY),
    ("printf puts putchar fprintf vprintf vfprintf fputs perror", ("src/",), {"src/base/log.c", "src/base/check.h"},
     LOGGING),
    ("strerror", ("src/",), {"src/base/err.c"}, "gyre_err_text, which is safe with threads"),
    ("getenv", ("src/",), {"src/reactor/backends.c", "src/listen/inherited.c"}, "an option"),  # LISTEN_FDS
    ("secure_getenv", ("src/",), {"src/reactor/backends.c", "src/uring/probe.c"}, "an option"),
    ("exit abort", ("src/",), {"src/base/check.h"}, RETURNING),
    ("_exit", ("src/",), {"src/base/check.h", "src/socket/bind_mode.c"}, RETURNING), # a child process of its own
    ("assert", ("src/",), set(), "GYRE_ASSERT of base/check.h"),
    ("rand srand random", ("src/",), set(), "a seeded generator of your own; a run must be repeatable"),
    ("strcpy strcat sprintf vsprintf gets strtok alloca", ("src/", "include/", "examples/", "bench/", "tests/"), set(),
     BOUNDED),
    ("usleep sleep", ("src/", "include/", "examples/", "tests/"), set(), WAITING),
]

PLATFORM = re.compile(r"^[ \t]*#[ \t]*(?:el)?if.*\b(?:__linux__|__APPLE__|__\w+BSD__|_WIN32|__GLIBC__|GYRE_HAVE_\w+)\b")
PLATFORM_FILES = {"src/reactor/backends.c", "src/socket/sock.c", "src/socket/sockopt.c",
                  "src/base/thread.c", "src/readiness/perform.c"}


def room_of(path):
    parts = path.split("/")
    return parts[1] if len(parts) > 2 and parts[0] == "src" else None


def may_include(tree, path, name):
    """Whether the file at `path` may include "name"."""
    folder, room = path.rsplit("/", 1)[0], room_of(path)
    if f"{folder}/{name}" in tree or name.startswith(f"{room}/"):
        return True
    if path.startswith("examples/") and f"examples/support/{name}" in tree:
        return True
    return room in ROOMS and name.split("/")[0] in ROOMS[room]


def is_inner(room, name):
    """Whether "name" is a header that another room keeps for itself."""
    owner, _, header = name.partition("/")
    return owner not in (room, "base") and owner in ROOMS and header not in FACES.get(owner, ())


def check_layers(tree):
    """Who includes whom, and where a platform is asked for."""
    found = []
    for path, text in tree.items():
        room = room_of(path)
        outside = path.split("/")[0] in ("include", "examples")
        if not source.is_c(path) or not (room or outside):
            continue
        for line, quote, name in source.includes(text):
            place = f"{path}:{line}: includes {name}"
            if quote == '"' and not may_include(tree, path, name):
                found.append(f"{place}; {'only its own files' if outside else 'not for src/' + room} "
                             "(the table is in tests/tidy/checks.py)")
            elif quote == '"' and room and is_inner(room, name):
                found.append(f"{place}; not a face of its room (the list is in tests/tidy/checks.py)")
            if quote == "<" and name.startswith("gyre") and room in BACKENDS:
                found.append(f"{place}; a backend knows seam/backend.h, not the interface")
            found += [f"{place}; {f'only src/{owner}' if owner else 'nobody'} does" for pattern, owner in FOREIGN
                      if pattern.match(name) and room != owner]
        if room and path not in PLATFORM_FILES:
            found += [f"{path}:{number}: asks for a platform; only {', '.join(sorted(PLATFORM_FILES))} may"
                      for number, text_line in enumerate(text.splitlines(), 1) if PLATFORM.match(text_line)]
        if room and room not in ROOMS:
            found.append(f"{path}: src/{room} is no room; add it to the table in tests/tidy/checks.py")
    return found


def check_conditions(tree):
    """No #if inside a function of the library: two functions, or two files."""
    found = []
    for path, text in tree.items():
        if not (source.is_c(path) and path.startswith("src/")):
            continue
        lines = source.blank_comments(text).splitlines()
        for name, first, last in source.c_functions(text):
            found += [f"{path}:{number}: a condition for the compiler inside {name}; write a function for each case"
                      for number in range(first, last + 1)
                      if name and re.match(r"[ \t]*#[ \t]*(?:el|if|endif)", lines[number - 1])]
    return found


OBJECT = re.compile(r"^static\b[^;{(=]*?(\w+)\s*(?:\[[^\]\n]*\]\s*)*(?:=|;)", re.MULTILINE)


def static_names(text):
    """The (line, name) of each function and object that is static to a file."""
    code = source.blank_directives(source.blank_literals(text))
    lines = code.splitlines()
    found = [(first, name) for name, first, last in source.c_functions(text)
             if name and re.search(r"\bstatic\b", "\n".join(lines[first - 1:last]).split("{")[0])]
    return found + [(source.line_of(code, match.start()), match.group(1)) for match in OBJECT.finditer(code)]


def check_statics(tree):
    """A static name is used once per room, so that a profile or a stack trace says where it is; none looks public."""
    found, first = [], {}
    for path, text in sorted(tree.items()):
        room = room_of(path)
        for line, name in static_names(text) if room and source.is_c(path) else ():
            if re.match(r"gyre_[^_]", name):
                found.append(f"{path}:{line}: {name} is static and looks public; call it gyre__ or without gyre")
            other = first.setdefault((room, name), path)
            if other != path:
                found.append(f"{path}:{line}: {name} is static in {other} too; say in the name what it is about")
    return found


def read_ratchet(text):
    """Lines of `path[:function] number`; # begins a comment."""
    entries = {}
    for line in text.splitlines():
        words = line.split("#")[0].split()
        if len(words) == 2:
            entries[words[0]] = int(words[1])
    return entries


def measured(tree):
    """What has a size: its name, where it is, its size, its limit."""
    for path, text in tree.items():
        if not (source.is_c(path) or source.is_python(path) or path.endswith(".sh")):
            continue
        lines = text.splitlines()
        yield path, path, len(lines), LIMITS["file"], "lines"
        for number, line in enumerate(lines, 1):
            if len(line) > LIMITS["columns"]:
                yield f"{path}:{number}", f"{path}:{number}", len(line), LIMITS["columns"], "columns"
        for name, first, last in source.functions(path, text):
            if name is not None:
                yield f"{path}:{name}", f"{path}:{first}: {name}", last - first + 1, LIMITS["function"], "lines"


def check_sizes(tree):
    """Functions, files and lines, with the exceptions of ratchet.txt, which may only shrink."""
    ratchet = read_ratchet(tree.get("tests/tidy/ratchet.txt", ""))
    found, over = [], set()
    for key, place, size, limit, unit in measured(tree):
        if size <= limit:
            continue
        over.add(key)
        if key not in ratchet:
            found.append(f"{place}: {size} {unit}, more than {limit}; split it")
        elif size > ratchet[key]:
            found.append(f"{place}: {size} {unit}, grown from {ratchet[key]}; split it")
        elif size < ratchet[key]:
            found.append(f"{place}: {size} {unit}, fewer than tests/tidy/ratchet.txt says; write {size} there")
    found += [f"tests/tidy/ratchet.txt: {key} is within its limit; take it out" for key in ratchet if key not in over]
    for path, text in tree.items():
        if source.is_c(path):
            found += [f"{path}:{first}: braces do not balance; no #if may hold half a block"
                      for name, first, _ in source.c_functions(text) if name is None]
    return found


def check_banned(tree):
    """Calls that have one home, or none."""
    found = []
    for path, text in tree.items():
        if not source.is_c(path):
            continue
        code = source.blank_directives(source.blank_literals(text)) if path.endswith(".cpp") \
            else source.blank_literals(text)
        for names, where, allowed, instead in BANNED:
            if not path.startswith(where) or path in allowed:
                continue
            pattern = r"(?<![\w.])(?<!->)(" + "|".join(names.split()) + r")\s*\("
            found += [f"{path}:{source.line_of(code, match.start())}: {match.group(1)}() is banned here; use {instead}"
                      for match in re.finditer(pattern, code)]
        found += [f"{path}:{source.line_of(code, match.start())}: a typedef'd struct; write struct at each use"
                  for match in re.finditer(r"\btypedef\s+(?:struct|union|enum)\b", code)]
    return found


def check_counting(tree):
    """Counters are added to by count.h alone, or readers on other threads race with it."""
    pattern = re.compile(r"\bstats(?:\.|->)\w+\s*(?:\+\+|--|[-+|]?=(?!=))|(?:\+\+|--)[\w.>-]*\bstats(?:\.|->)\w")
    return [f"{path}:{source.line_of(code, match.start())}: counts by itself; use gyre__count of seam/count.h"
            for path, text in tree.items() if source.is_c(path) and path.startswith("src/")
            for code in [source.blank_literals(text)] for match in pattern.finditer(code)]


def check_opening(tree):
    """Each C file opens with its licence and with what it is."""
    found = []
    for path, text in tree.items():
        if not source.is_c(path):
            continue
        lines = text.splitlines() + ["", ""]
        if lines[0] != "/* SPDX-License-Identifier: MIT":
            found.append(f"{path}:1: does not open with /* SPDX-License-Identifier: MIT")
        elif not re.match(r" \* [A-Z\"'<`]?\w*.*\w+ \w+", lines[1]) and len(lines[1].split()) < 4:
            found.append(f"{path}:2: no sentence that says what the file is")
    return found


def paragraph_above(lines, index):
    """The first line of the paragraph that line `index` is in, and the one above that, or None."""
    while index > 0 and lines[index - 1].strip():
        index -= 1
    above = index - 1
    while above >= 0 and not lines[above].strip():
        above -= 1
    return lines[index], lines[above] if above >= 0 else None


def check_documented(tree):
    """Each public function has its comment, its group's, or one on its own line."""
    found = []
    for path, line, name in source.api_functions(tree):
        lines = tree[path].splitlines()
        first, above = paragraph_above(lines, line - 1)
        before = lines[line - 2] if line > 1 else ""
        in_comment = first.lstrip().startswith(("/*", "*", "typedef")) or before.lstrip().startswith(("/*", "*"))
        under_heading = above is not None and above.startswith("/* ----")
        if not in_comment and not under_heading and "/*" not in lines[line - 1]:
            found.append(f"{path}:{line}: {name} has no comment; say what it does, what it returns, which thread")
    return found


def rooms(tree):
    """The folders that owe a README.md."""
    found = set()
    for path in tree:
        parts = path.split("/")
        if parts[0] in ("src", "tests") and len(parts) > 2:
            found.add("/".join(parts[:2]))
        elif parts[0] in ("bench", "examples"):
            found.add(parts[0])
    return sorted(found)


def check_rooms(tree):
    """Each room has a README.md of one page."""
    found = []
    for room in rooms(tree):
        text = tree.get(f"{room}/README.md")
        if text is None:
            found.append(f"{room}: no README.md; say what it is, what it may include, its one idea")
        elif len(text.splitlines()) > LIMITS["README"]:
            found.append(f"{room}/README.md: {len(text.splitlines())} lines, more than {LIMITS['README']}; cut it")
        elif not text.startswith("# "):
            found.append(f"{room}/README.md:1: no title; open with # and the room's name")
    return found


def check_tags(tree):
    """No function of the interface is named as a struct, union or enum: in C++ it would hide its constructor."""
    headers = {path: source.blank_literals(text) for path, text in tree.items()
               if path.startswith("include/") and path.endswith(".h")}
    tags = {match.group(2): match.group(1) for code in headers.values()
            for match in re.finditer(r"\b(struct|union|enum)\s+(\w+)", code)}
    functions = source.api_functions(tree)
    others = re.compile(r"^[ \t]*#[ \t]*define[ \t]+(\w+)\(|\binline\b[^;{(]*?\b(\w+)\s*\(", re.MULTILINE)
    for path, code in headers.items():
        functions += [(path, source.line_of(code, match.start()), match.group(1) or match.group(2))
                      for match in others.finditer(code)]
    return [f"{path}:{line}: {name} is also {tags[name]} {name}; rename one of them"
            for path, line, name in functions if name in tags]


OURS = re.compile(r"\b(?:gyre|GYRE)_\w+")


def check_names(tree):
    """Each of our names that a page mentions is one; followed by … or *, or ending with _, it is how one begins."""
    known = set()
    for path, text in tree.items():
        if not path.endswith(".md") and not path.startswith("tests/tidy/"):
            known.update(OURS.findall(source.blank_comments(text) if source.is_c(path) else text))
    found = []
    for path, text in tree.items():
        for match in OURS.finditer(text) if path.endswith(".md") else ():
            name = match.group(0)
            if text[match.end():match.end() + 1] in ("…", "*") or name.endswith("_"):
                exists = any(other.startswith(name) for other in known)
            else:
                exists = name in known
            if not exists:
                found.append(f"{path}:{source.line_of(text, match.start())}: {name} is nowhere in the code; "
                             "write what it is called now")
    return found


PARITY = "tests/api/PARITY.md"


def tests_of(text):
    """The suite/name of each Criterion test in a file: with a list or a parameter in front, or without."""
    found = set()
    for match in re.finditer(r"^\w*(?:TEST|Test)\w*\(([^;{]*?)\)\s*\{", text, re.MULTILINE):
        words = [re.split(r"[\s*]+", word.strip())[-1] for word in match.group(1).split(",") if "=" not in word]
        if len(words) >= 2:
            found.add("/".join(words[-2:]))
    return found


def check_parity(tree):
    """Each row of the table names a test that exists, or says that it is not owed, or why there is none."""
    if PARITY not in tree:
        return [f"{PARITY}: is not there; it says which test proves what"]
    found, rows = [], 0
    for number, line in enumerate(tree[PARITY].splitlines(), 1):
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("|") or set(line) <= set("| -") or cells[-1] in ("test", "here"):
            continue
        rows += 1
        named = re.findall(r"`([^`]*\.c:[^`]*)`", cells[-1])
        if not named and not re.match(r"(not owed|missing|untested): \w", cells[-1]):
            found.append(f"{PARITY}:{number}: no test; name one as `file.c: suite/name`, or say why: "
                         "`not owed: …`, `missing: …`, `untested: …`")
        for name in named:
            file, _, test = name.partition(":")
            path = f"tests/{file}" if "/" in file else f"tests/api/{file}"
            if test.strip() not in tests_of(tree.get(path, "")):
                found.append(f"{PARITY}:{number}: {name}: no such test; write what it is called now")
    return found if rows else [f"{PARITY}: has no rows"]


def check_marks(tree):
    """No work left in a comment without a number; how many branches are marked untested."""
    found, untested = [], 0
    for path, text in tree.items():
        untested += len(re.findall(r"/\* UNTESTED: ", text)) if source.is_c(path) else 0
        for number, line in enumerate(text.splitlines(), 1):
            if re.search(r"\b(?:TO[D]O|FI[X]ME|X[X]X)\b(?! ?\(#\d+\))", line):
                found.append(f"{path}:{number}: work left over; open an issue and write its number as (#1), or do it")
    print(f"{untested} branches are marked UNTESTED")
    return found


def machine_words(root):
    """Patterns for what belongs to a machine and not to the project."""
    patterns = [r"(?<![\w.~-])/(?:root|home|Users|work)/\w"]
    folder, host, home = str(root), socket.gethostname(), os.path.expanduser("~")
    patterns += [re.escape(word) for word in (folder, home) if word.count("/") > 1]
    if len(host) > 5 and not host.startswith("localhost"):
        patterns.append(r"\b" + re.escape(host) + r"\b")
    return re.compile("|".join(patterns))


def check_words(tree, root="/srv/no/such/tree"):
    """No path and no name of the machine it was written on."""
    pattern = machine_words(root)
    return [f"{path}:{number}: {match.group(0)} belongs to a machine; say it without"
            for path, text in tree.items() for number, line in enumerate(text.splitlines(), 1)
            for match in pattern.finditer(line)]


CHECKS = {
    "shape": shape.check_shape,
    "layers": check_layers,
    "conditions": check_conditions,
    "statics": check_statics,
    "sizes": check_sizes,
    "banned": check_banned,
    "counting": check_counting,
    "opening": check_opening,
    "documented": check_documented,
    "tags": check_tags,
    "rooms": check_rooms,
    "names": check_names,
    "parity": check_parity,
    "marks": check_marks,
    "words": check_words,
}
