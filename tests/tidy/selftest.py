# SPDX-License-Identifier: MIT
"""Every check on small trees: bad ones, for each of which it must say the words given, and good ones, on which it must
be silent. A check that could not fail would be worth nothing.
"""

import contextlib
import io
import subprocess
import tempfile
from pathlib import Path

import checks
import compiled
import driver_test
import graph
import shape

OPENING = "/* SPDX-License-Identifier: MIT\n * What this file is, in a sentence. */\n"
RATCHET = "tests/tidy/ratchet.txt"
PARITY_TESTS = ("REAL_TEST(s, one)\n{\n}\nTest(s, two, .timeout = 5)\n{\n}\nBACKENDS_TEST_OF(list, s, four)\n{\n}\n"
                "ParameterizedTest(struct x *p, s, five, .timeout = 5)\n{\n}\n")
LONG_LINES = "".join(f"    x += {n};\n" for n in range(58))


def c_file(code=""):
    return OPENING + code


# check, name of the case, the tree, and what it must say; None: nothing.
CASES = [
    ("layers", "a loop includes a backend", {"src/loop/loop.c": '#include "uring/uring.h"'}, "not for src/loop"),
    ("layers", "a backend includes a connection", {"src/epoll_fallback/epoll.c": '#include "stream/conn.h"'},
     "not for src/epoll_fallback"),
    ("layers", "one backend includes another", {"src/uring/uring.c": '#include "readiness/poller.h"'},
     "not for src/uring"),
    ("layers", "a comment between # and include", {"src/uring/uring.c": '# /* x */ include "stream/conn.h"'},
     "not for src/uring"),
    ("layers", "a backend includes the interface", {"src/uring/uring.c": "#include <gyre/conn.h>"}, "a backend knows"),
    ("layers", "liburing outside its room", {"src/loop/loop.c": "#include <liburing.h>"}, "only src/uring"),
    ("layers", "liburing in a public header", {"include/gyre/loop.h": "#include <liburing.h>"}, "only src/uring"),
    ("layers", "epoll outside its room", {"src/readiness/perform.c": "#include <sys/epoll.h>"},
     "only src/epoll_fallback"),
    ("layers", "kqueue outside its room", {"src/socket/sock.c": "#include <sys/event.h>"}, "only src/kqueue_fallback"),
    ("layers", "openssl outside its room", {"src/stream/conn.c": "#include <openssl/ssl.h>"}, "nobody does"),
    ("layers", "an example looks inside", {"examples/echo.c": '#include "stream/conn.h"'}, "only its own files"),
    ("layers", "a platform asked for in the wrong file", {"src/stream/conn.c": "#ifdef __linux__\n#endif"}, "platform"),
    ("layers", "a room nobody knows", {"src/misc/misc.c": "int x;"}, "no room"),
    ("layers", "a header that a room keeps for itself", {"src/stream/conn.c": '#include "socket/sock.h"'},
     "not a face of its room"),
    ("layers", "a room to come", {"src/connect/dial.c": '#include "tls/context.h"'}, "not for src/connect"),
    ("layers", "a name is looked up by whom makes connections", {"src/stream/conn.c": '#include "resolve/resolve.h"'},
     "not for src/stream"),
    ("layers", "what is allowed", {
        "src/loop/loop.c": '#include "loop.h"\n#include "seam/op.h"\n#include <gyre/loop.h>\n#include <errno.h>',
        "src/loop/loop.h": "", "src/seam/op.h": "", "src/sim/sim.c": '#include "socket/addr.h"\n#include <gyre/sim.h>',
        "src/uring/uring.c": '#include "seam/backend.h"\n#include <liburing.h>\n/* #include "stream/conn.h" */',
        "src/epoll_fallback/epoll.c": '#include "readiness/poller.h"\n#include <sys/epoll.h>',
        "examples/echo.c": '#include "example.h"\n#include <gyre.h>', "examples/support/example.h": "",
        "tests/unit/x.c": '#include "stream/conn.h"'}, None),
    ("conditions", "#if in a function", {"src/core/a.c": "int f(void)\n{\n# ifdef X\n g();\n# endif\n}\n"}, "inside f"),
    ("conditions", "what is allowed", {
        "src/core/a.c": "#if X\nint f(void)\n{\n    return g(/*\n#if */);\n}\n#else\nint f(void)\n{\n}\n#endif\n",
        "tests/unit/a.c": "int f(void)\n{\n#if X\n#endif\n}\n"}, None),
    ("statics", "a function of two files", {
        "src/loop/a.c": "static int f(int x)\n{\n}\n", "src/loop/b.c": "static struct s *\nf(void)\n{\n}\n"},
     "src/loop/b.c:1: f is static in src/loop/a.c too"),
    ("statics", "a function of a header and of a file", {
        "src/loop/a.h": "static inline int f(int x)\n{\n}\n", "src/loop/b.c": "static int f(void)\n{\n}\n"},
     "f is static in src/loop/a.h too"),
    ("statics", "a table of two files", {
        "src/loop/a.c": "static const char *const t[] = {g(1)};\n", "src/loop/b.c": "static struct s t[N][4];\n"},
     "t is static in src/loop/a.c too"),
    ("statics", "one that looks public", {"src/loop/a.c": "static int gyre_f(void)\n{\n}\n"}, "looks public"),
    ("statics", "what is allowed", {
        "src/loop/a.c": "static int f(void);\nstatic int f(void)\n{\n    static int x;\n}\nint g(void)\n{\n}\n",
        "src/loop/b.c": "int g(void)\n{\n    static int x = 1;\n}\nstatic int gyre__f(void)\n{\n}\n",
        "src/seam/a.c": "static int f(void)\n{\n}\n", "tests/unit/a.c": "static int f(void)\n{\n}\n",
        "tests/unit/b.c": "static int f(void)\n{\n}\n"}, None),
    ("sizes", "a function of 61 lines", {"src/core/a.c": f"int f(void)\n{{\n{LONG_LINES}}}\n"}, "f: 61 lines"),
    ("sizes", "a long function in extern C", {"include/a.h": f'extern "C" {{\nint f(void)\n{{\n{LONG_LINES}}}\n}}\n'},
     "f: 61 lines"),
    ("sizes", "a long test", {"tests/unit/a.c": f"Test(a, b, .init = c)\n{{\n{LONG_LINES}}}\n"}, "Test: 61 lines"),
    ("sizes", "a long Python function", {"bench/a.py": "def f():\n" + "    x = 1\n" * 60}, "f: 61 lines"),
    ("sizes", "a file of 501 lines", {"bench/a.c": "\n" * 501}, "501 lines, more than 500"),
    ("sizes", "a line of 121 columns", {"include/a.h": "x" * 121}, "121 columns"),
    ("sizes", "braces that do not balance", {"src/core/a.c": "int f(void) {\n#if X\n if (a) {\n#endif\n}\n"},
     "do not balance"),
    ("sizes", "an exception that has grown", {"src/core/a.c": "\n" * 520, RATCHET: "src/core/a.c 510"},
     "grown from 510"),
    ("sizes", "an exception that has shrunk", {"src/core/a.c": "\n" * 505, RATCHET: "src/core/a.c 510"},
     "write 505 there"),
    ("sizes", "an exception no longer needed", {"src/core/a.c": "", RATCHET: "src/core/a.c 510"}, "take it out"),
    ("sizes", "what is allowed", {
        "src/core/a.c": "static const struct x t[] = {\n" + "    {1},\n" * 90 + "};\nint f(void)\n{\n"
                        + LONG_LINES[LONG_LINES.index("\n") + 1:] + "}\n" + "x" * 119 + "…\n",
        "src/core/b.c": "\n" * 510, RATCHET: "src/core/b.c 510 # a reason"}, None),
    ("banned", "malloc in the library", {"src/stream/conn.c": "p = malloc(4);"}, "gyre__alloc"),
    ("banned", "free in a backend", {"src/uring/a.c": "(free)(p); free (p);"}, "gyre__free"),
    ("banned", "printf in the library", {"src/stream/conn.c": 'printf("x");'}, "gyre__log"),
    ("banned", "strerror outside its file", {"src/sim/sim.c": "strerror(1)"}, "gyre_err_text"),
    ("banned", "the environment", {"src/loop/loop.c": 'getenv("X")'}, "an option"),
    ("banned", "abort", {"src/loop/loop.c": "abort();"}, "GYRE_CHECK"),
    ("banned", "assert", {"src/loop/loop.c": "assert(x);"}, "GYRE_ASSERT"),
    ("banned", "rand", {"src/sim/sim.c": "rand()"}, "repeatable"),
    ("banned", "strcpy in an example", {"examples/a.c": "strcpy(a, b);"}, "snprintf"),
    ("banned", "sprintf in a benchmark", {"bench/a.c": "sprintf(a, b);"}, "snprintf"),
    ("banned", "a sleep in a test", {"tests/api/a.c": "usleep(1);"}, "a timer"),
    ("banned", "a typedef'd struct", {"include/gyre/a.h": "typedef struct a a;"}, "write struct"),
    ("banned", "what is allowed", {
        "src/base/mem.c": "free(p); realloc(p, 1);", "src/base/log.c": "fprintf(stderr, x);",
        "src/stream/conn.c": 'gyre__free(m, p); pool->free(1); ops.free(2); /* free() */ s = "malloc(1)";',
        "examples/a.c": 'printf("x"); p = malloc(1); exit(1);', "bench/a.c": "nanosleep(a, b);"}, None),
    ("counting", "an increment", {"src/core/a.c": "l->be->stats.ops++;"}, "gyre__count"),
    ("counting", "an increment in front", {"src/core/a.c": "++l->be->stats.ops;"}, "gyre__count"),
    ("counting", "a sum", {"src/uring/a.c": "stats->calls += 2;"}, "gyre__count"),
    ("counting", "an assignment", {"src/sim/a.c": "be->base.stats.enters = 0;"}, "gyre__count"),
    ("counting", "what is allowed", {
        "src/core/a.c": "gyre__count(&l->be->stats.ops, 1); if (s->stats.ops == 1) n = s->stats.ops + 1;",
        "tests/unit/a.c": "s.be->stats.turns++;"}, None),
    ("opening", "no licence", {"src/core/a.c": "/* What it is, in words. */"}, "SPDX"),
    ("opening", "no sentence", {"tests/unit/a.h": "/* SPDX-License-Identifier: MIT\n */\n"}, "no sentence"),
    ("opening", "an empty file", {"bench/a.c": ""}, "SPDX"),
    ("opening", "what is asked", {"src/core/a.c": c_file("int x;")}, None),
    ("documented", "no comment", {"include/gyre/a.h": "int x;\n\nGYRE_API int gyre_a(void);\n"}, "gyre_a has no"),
    ("documented", "a neighbour's comment", {
        "include/gyre/a.h": "GYRE_API int gyre_a(void); /* this */\nGYRE_API int gyre_b(void);\n"}, "gyre_b has no"),
    ("documented", "comments of each kind", {
        "include/gyre/a.h": "/* Does it.\n * Gives 0. */\nGYRE_API int\ngyre_a(int x);\nGYRE_API int gyre_b(void);\n\n"
                            "struct x;\n/* Own. */\nGYRE_API int gyre_e(void);\n\n"
                            "GYRE_API int gyre_c(void); /* short */\n\n/* ---- Group ---- */\n\n"
                            "GYRE_API struct gyre_d gyre_d(void);\n"}, None),
    ("tags", "a function named as a struct", {
        "include/gyre/a.h": "struct gyre_a {\n    int x;\n};\n", "include/gyre/b.h": "GYRE_API void\ngyre_a(void);\n"},
     "include/gyre/b.h:1: gyre_a is also struct gyre_a"),
    ("tags", "a function named as an enum", {"include/a.h": "enum gyre_a { A };\nGYRE_API enum gyre_a gyre_a(void);\n"},
     "also enum gyre_a"),
    ("tags", "a macro named as a struct that is only declared", {
        "include/a.h": "struct gyre_a;\n# define gyre_a(x) gyre_a_sized((x), 1)\n"}, "a.h:2: gyre_a is also struct"),
    ("tags", "a function with a body named as a union", {
        "include/a.h": "union gyre_a { int x; };\nstatic inline int gyre_a(void)\n{\n}\n"}, "also union gyre_a"),
    ("tags", "what is allowed", {
        "include/a.h": "/* struct gyre_b */ struct gyre_a { int gyre_b; };\n#define gyre_c (struct gyre_d)\n"
                       "GYRE_API struct gyre_a gyre_a_of(struct gyre_c *gyre_c);\nGYRE_API void gyre_b(void);\n",
        "src/core/a.c": "struct gyre_b { int x; };"}, None),
    ("shape", "what it fills in comes last", {
        "include/a.h": "struct gyre_a;\nGYRE_API int gyre_a_get(struct gyre_a *a, int *out);\n"},
     "a.h:2: gyre_a_get: what"),
    ("shape", "a buffer after the object", {
        "include/a.h": "struct gyre_a;\nGYRE_API int gyre_a_read(struct gyre_a *a, void *dst, size_t len);\n"},
     "void *dst"),
    ("shape", "user before the result", {"include/a.h": "typedef void gyre_a_fn(void *user, int err);\n"},
     "`user` is last"),
    ("shape", "a handler's user", {
        "include/a.h": "struct gyre_a {\n    void (*on_a)(void *user, int err);\n};\n"}, "on_a: `user` is last"),
    ("shape", "options with a field put between", {
        "tests/interop/older/a.h": "struct gyre_a_options {\n    int x;\n    int y;\n};\n",
        "include/a.h": "struct gyre_a_options {\n    int x;\n    int z;\n    int y;\n};\n"}, "began with other fields"),
    ("shape", "options that have grown before those nested in them", {
        "tests/interop/older/a.h": "struct gyre_a_options {\n    int x;\n    struct gyre_b_options b;\n};\n",
        "include/a.h": "struct gyre_a_options {\n    int x;\n    int y;\n    struct gyre_b_options b;\n};\n"}, None),
    ("shape", "what is allowed", {
        "include/a.h": "struct gyre_a;\nstruct gyre_b {\n    int x;\n};\n"
                       "typedef int gyre_a_fn(struct gyre_a *a, void *user);\n"
                       "GYRE_API int gyre_a_get(struct gyre_b *out, char *text, size_t size, const struct gyre_a *a);\n"
                       "GYRE_API int gyre_a_do(struct gyre_a *a, gyre_a_fn *fn, void *user,\n"
                       "                       const struct gyre_b_options *options, size_t size_bytes);\n"}, None),
    ("rooms", "a room without a page", {"src/core/a.c": ""}, "src/core: no README.md"),
    ("rooms", "tests without a page", {"tests/unit/a.c": ""}, "tests/unit: no README.md"),
    ("rooms", "bench without a page", {"bench/a.c": ""}, "bench: no README.md"),
    ("rooms", "a page too long", {"examples/README.md": "# x\n" * 81}, "81 lines"),
    ("rooms", "a page without a title", {"examples/README.md": "x\n"}, "no title"),
    ("rooms", "what is asked", {"src/core/a.c": "", "src/core/README.md": "# src/core\n", "src/libgyre.map": ""}, None),
    ("names", "one that is in a comment alone", {
        "README.md": "See\n`gyre_fly()`", "include/gyre/a.h": "/* gyre_fly */ int gyre_flee(void);"}, "README.md:2"),
    ("names", "the beginning of one", {"README.md": "gyre_fl", "src/core/a.c": "int gyre_flee;"}, "gyre_fl is nowhere"),
    ("names", "a beginning that none has", {"src/core/README.md": "GYRE_F…", "src/core/a.c": "GYRE_G"}, "GYRE_F is"),
    ("names", "what is allowed", {
        "README.md": "`gyre_a()`, GYRE_A_…, `gyre_a*`, `GYRE_ENV=1`, gyre_lib, gyre/a.h, libgyre_x",
        "include/gyre/a.h": "int gyre_a(void);\nenum { GYRE_A_B };\n", "src/core/a.c": 'f("GYRE_ENV")',
        "CMakeLists.txt": "add_library(gyre_lib)"}, None),
    ("parity", "no table", {"tests/api/a.c": ""}, "is not there"),
    ("parity", "a table without rows", {"tests/api/PARITY.md": "| x | y | test |\n| --- | --- | --- |\n"}, "no rows"),
    ("parity", "a test that is gone", {
        "tests/api/PARITY.md": "| x | y | `a.c: s/gone` |", "tests/api/a.c": PARITY_TESTS}, "s/gone: no such test"),
    ("parity", "a test of another file", {
        "tests/api/PARITY.md": "| x | y | `b.c: s/one` |", "tests/api/a.c": PARITY_TESTS,
        "tests/api/b.c": "/* TEST(s, one) */"}, "s/one: no such test"),
    ("parity", "a row without a test", {"tests/api/PARITY.md": "| x | y | |"}, "no test; name one"),
    ("parity", "what is asked", {
        "tests/api/PARITY.md": "# x\n\n| x | y | test |\n| --- | --- | --- |\n| x | y | `a.c: s/one`, `a.c: s/two` |\n"
                               "| x | y | `unit/b.c: s/three` |\n| x | y | `a.c: s/four`, `a.c: s/five` |\n"
                               "| x | y | not owed: nobody asked |\n| x | y | missing: too much |\n"
                               "| x | y | untested: no such machine |\n",
        "tests/api/a.c": PARITY_TESTS, "tests/unit/b.c": "BACKENDS_TEST_OF(list, s, three)\n{\n}\n"}, None),
    ("marks", "work left over", {"src/core/a.c": "/* TO" "DO: later */"}, "open an issue"),
    ("marks", "with a number", {"src/core/a.c": "/* TO" "DO (#12): later */\n/* UNTESTED: no such card */"}, None),
    ("words", "somebody's home", {"bench/README.md": "run /ho" "me/me/x"}, "belongs to a machine"),
    ("words", "what is allowed", {"src/core/a.c": '"unix:///run/x.sock" /tmp/x /usr/share a/root/b'}, None),
]

HEADERS = [
    ("a header that lacks an include", "size_t x;\n", True),
    ("a header without a guard", "struct x { int a; };\n", True),
    ("a header that is not C++", "#ifndef A\n#define A\nint f(int class);\n#endif\n", True),
    ("a header that stands alone", "#ifndef A\n#define A\nint f(int a);\n#endif\n", False),
]

# A header with one call with options. The first line is what makes it strict, or not.
CHECKED = (f"#define {shape.LAST}(type, ...) \\\n    __VA_ARGS__, _Generic((__VA_ARGS__), const type *: sizeof(type), "
          "type *: sizeof(type), void *: sizeof(type))\n")
LAX = f"#define {shape.LAST}(type, ...) __VA_ARGS__, sizeof(type)\n"
COMMA = f"#define {shape.LAST}(type, ...) (__VA_ARGS__), sizeof(type)\n"
CALL = ("#include <stddef.h>\n#define GYRE_API\n#ifdef __cplusplus\n" + LAX + "#else\n{}#endif\n"
        "struct gyre_a_options {{\n    int x;\n    int y;\n}};\nstruct gyre_b_options {{\n    int x;\n    int y;\n}};\n"
        + "".join(f"#define gyre_{n}(out, ...) \\\n    gyre_{n}_sized((out), {shape.LAST}(struct gyre_{n}_options, "
                  f"__VA_ARGS__))\nGYRE_API int gyre_{n}_sized(int *out, const struct gyre_{n}_options *options, "
                  "size_t size_bytes);\n" for n in "ab"))
OPTIONS = [
    ("all in order", CHECKED, None),
    ("the type is not checked in C", LAX, "gyre_a with the options of another call, as c: compiles"),
    ("an argument too many is a comma", COMMA, "gyre_a with an argument too many, as c: compiles"),
]

TWO_ROOMS = {"base": set(), "loop": {"base"}}
FACE = {"src/base/face.h": "int gyre__f(void);\nint gyre__g(void);\n"}
FINE = {**FACE, "src/base/a.c": "int gyre__f(void)\n{\n    return 1;\n}\n",
        "src/loop/b.h": '#include "base/face.h"\nint gyre__b(void);\n',
        "src/loop/b.c": '#include "b.h"\nint gyre__b(void)\n{\n    return gyre__f();\n}\n'}

# name, the tree, the table of rooms, and what must be said: each tree is compiled
GRAPHS = [
    ("all in order", FINE, TWO_ROOMS, None),
    ("a circle by includes alone", {
        **FINE, "src/base/x.h": '#ifndef X\n#define X\n#include "y.h"\n#endif\n',
        "src/base/y.h": '#ifndef Y\n#define Y\n#include "base/x.h"\n#endif\n', "src/base/x.c": '#include "x.h"\n'},
     TWO_ROOMS, "circle: src/base/x includes y.h of src/base/y; src/base/y includes base/x.h of src/base/x"),
    ("a circle by symbols alone, through a face", {
        **FACE, "src/base/a.c": '#include "face.h"\nint gyre__f(void)\n{\n    return gyre__g();\n}\n',
        "src/base/b.c": '#include "face.h"\nint gyre__g(void)\n{\n    return gyre__f();\n}\n'}, {"base": set()},
     "circle: src/base/a uses gyre__g of src/base/b; src/base/b uses gyre__f of src/base/a"),
    ("a circle of an include and a symbol", {
        "src/base/a.h": "int gyre__f(void);\n", "src/base/b.h": "extern const int gyre__g;\n",
        "src/base/a.c": "extern const int gyre__g;\nint gyre__f(void)\n{\n    return gyre__g;\n}\n",
        "src/base/b.c": '#include "a.h"\n#include "b.h"\nconst int gyre__g = 1;\n'}, {"base": set()},
     "circle: src/base/a"),
    ("a circle of public headers", {
        **FINE, "include/gyre/a.h": "#include <gyre/b.h>\n", "include/gyre/b.h": "#include <gyre/a.h>\n"}, TWO_ROOMS,
     "circle: include/gyre/a includes gyre/b.h"),
    ("an arrow by a symbol alone, past the includes", {
        **FINE, "src/base/c.c": "int gyre__b(void);\nint gyre__c(void)\n{\n    return gyre__b();\n}\n"}, TWO_ROOMS,
     "src/base/c uses gyre__b of src/loop/b; src/base may not know src/loop"),
    ("an arrow by an include alone", FINE, {"base": set(), "loop": set()},
     "src/loop/b includes base/face.h of src/base/face; src/loop may not know src/base"),
    ("a room to come", FINE, {**TWO_ROOMS, "loop": {"base", "tls"}}, "src/tls: in the table"),
    ("a room that is not in the table", FINE, {"base": set()}, "src/loop: is no room"),
    ("a circle in the table", FINE, {"base": {"loop"}, "loop": {"base"}}, "circle of rooms"),
]

# Trees for the circles of bench and of Python modules, and what must be said.
CIRCLES = [
    ("none", {
        "bench/a.c": '#include "a.h"\n#include "b.h"\n', "bench/a.h": "", "bench/b.h": "", "bench/b.c": "int b;\n",
        "bench/x.py": "import y\nimport json\n", "bench/y.py": "import json\n", "scripts/y.py": "import x\n"}, None),
    ("of includes", {"bench/a.h": "", "bench/a.c": '#include "b.h"\n', "bench/b.h": '#include "a.h"\n'},
     "circle: bench/a includes b.h"),
    ("through a header of the room above", {
        "bench/a.h": '#include "peers/b.h"\n', "bench/peers/b.h": '#include "a.h"\n'}, "circle: bench/a includes"),
    ("of symbols, the includes in order", {
        "bench/a.h": "int f(void);\nint g(void);\n",
        "bench/a.c": '#include "a.h"\nint f(void)\n{\n    return g();\n}\n',
        "bench/b.c": '#include "a.h"\nint g(void)\n{\n    return f();\n}\n'}, "circle: bench/a uses g of bench/b"),
    ("of modules", {"bench/x.py": "import y\n", "bench/y.py": "from x import f\n"},
     "circle: bench/x.py imports y in line 1 of bench/y.py"),
    ("of modules, inside a function", {
        "tests/tidy/x.py": "import os\nimport y\n", "tests/tidy/y.py": "def f():\n    import x\n"},
     "circle: tests/tidy/x.py imports y in line 2"),
]


# declared, exported, archived, the map's patterns, needed, GYRE_WITH_URING, and what must be said
MAP = ["gyre_[!_]*"]
SYMBOLS = [
    ("all agree", {"gyre_a"}, {"gyre_a"}, {"gyre_a", "gyre__b"}, MAP, ["liburing.so.2"], True, None),
    ("declared only", {"gyre_a", "gyre_b"}, {"gyre_a"}, set(), MAP, [], False, "gyre_b: declared"),
    ("an internal name exported", {"gyre_a"}, {"gyre_a", "gyre__b"}, set(), MAP, [], False, "gyre__b: exported"),
    ("an exported name outside the map", {"gyre__a"}, {"gyre__a"}, set(), MAP, [], False, "gyre__a: exported although"),
    ("a map without a pattern", {"gyre_a"}, {"gyre_a"}, set(), [], [], False, "gyre_a: exported although"),
    ("a stray name in the archive", set(), set(), {"helper"}, MAP, [], False, "helper: a global name"),
    ("a private name that looks public", set(), set(), {"gyre_a"}, MAP, [], False, "gyre_a: looks public"),
    ("liburing linked without leave", set(), set(), set(), MAP, ["liburing.so.2"], False, "links liburing"),
    ("liburing not linked", set(), set(), set(), MAP, ["libc.so.6"], True, "does not link"),
]
MAP_TEXT = "/* global: gyre__x; */\nGYRE_0 {\n  global:\n    gyre_[!_]*;\n    other;\n  local:\n    *;\n};\n"

NM = "0000000000000000 A GYRE_0\n0000000000001139 T gyre_a@@GYRE_0\n                 U malloc@GLIBC_2.2.5\n"


def verdict(name, found, expected):
    """Whether what a check said is what it had to say; complains if not."""
    good = not found if expected is None else any(expected in line for line in found)
    if not good:
        print(f"self-test: {name}: expected {expected or 'silence'}, got {found}")
    return good


def run_headers(cc, cxx):
    for name, text, bad in HEADERS:
        found = compiled.check_headers({"include/a.h": text}, compiled.c_and_cxx(cc, cxx))
        yield verdict(f"headers: {name}", found, "not by itself" if bad else None)
    yield verdict("headers: none at all", compiled.check_headers({}, []), "no header")


def run_options(cc, cxx):
    for name, macro, expected in OPTIONS:
        found = shape.check_options({"include/gyre.h": CALL.format(macro)}, compiled.c_and_cxx(cc, cxx))
        yield verdict(f"options: {name}", found, expected)
    yield verdict("options: none at all", shape.check_options({}, []), "no call with options")


def run_blocks(cc, cxx, root):
    compilers, include = compiled.c_and_cxx(cc, cxx), Path(root, "include")
    header = "/*\n *     struct gyre_loop *loop;\n *     {};\n */\n"
    for name, tree, expected in (
            ("a page's", {"README.md": "```c\nint x = y;\n```\n"}, "README.md:1: the example"),
            ("a header's", {"include/a.h": header.format("int err = gyre_loop_run()")}, "include/a.h:2: the example"),
            ("none at all", {"README.md": "text"}, "no example"),
            ("in order", {"include/a.h": header.format("int err = gyre_loop_create(&loop, NULL)")}, None)):
        yield verdict(f"blocks: {name}", compiled.check_blocks(tree, compilers, include), expected)


def objects_of(cc, tree, folder):
    """The object files of a tree's sources, laid out as the build does."""
    for path, text in tree.items():
        place = Path(folder, path)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, encoding="utf-8")
    sources = [path for path in tree if path.endswith(".c")]
    for path in sources:
        subprocess.run([cc, "-c", "-w", "-Isrc", "-Iinclude", path, "-o", f"{path}.o"], cwd=folder, check=True)
    return [f"{folder}/{path}.o" for path in sources]


def run_graphs(cc):
    for name, tree, table, expected in GRAPHS:
        with tempfile.TemporaryDirectory() as folder:
            objects = graph.read_objects(objects_of(cc, tree, folder))
        yield verdict(f"graph: {name}", graph.check_graph(tree, objects, True, table), expected)
    lacking = {"src/base/a.c": "", "src/uring/u.c": "", "src/epoll_fallback/e.c": ""}
    table = {"base": set(), "uring": set(), "epoll_fallback": set()}
    base = {"src/base/a": (set(), set())}
    for uring, objects, expected in ((True, {}, "src/base/a.c: no object"), (False, base, None),
                                     (True, base, "src/uring/u.c: no object")):
        yield verdict("graph: no object file", graph.check_graph(lacking, objects, uring, table), expected)


def run_circles(cc):
    for name, tree, expected in CIRCLES:
        with tempfile.TemporaryDirectory() as folder:
            objects = graph.read_objects(objects_of(cc, tree, folder))
        yield verdict(f"circles: {name}", graph.check_circles(tree, objects, True), expected)
    lacking = {"bench/a.c": "", "bench/r.c": "#include <liburing.h>\n", "bench/peers/p.c": ""}
    known = {"bench/a": (set(), set())}
    for uring, objects, expected in ((True, {}, "bench/a.c: no object"), (True, known, "bench/r.c: no object"),
                                     (False, known, None)):
        yield verdict("circles: no object file", graph.check_circles(lacking, objects, uring), expected)
    place = "/build/dev/bench/CMakeFiles/gyre-load.dir/a.c.o"
    yield verdict("circles: where the build puts it", [graph.source_of(place)], "bench/a")


def run(cc, cxx, root):
    results = []
    for check, name, tree, expected in CASES:
        with contextlib.redirect_stdout(io.StringIO()):
            found = checks.CHECKS[check](tree)
        results.append(verdict(f"{check}: {name}", found, expected))
    for name, *given, expected in SYMBOLS:
        results.append(verdict(f"symbols: {name}", compiled.compare_symbols(*given), expected))
    results.append(verdict("symbols: reading nm", sorted(compiled.defined(NM) ^ {"gyre_a"}), None))
    results.append(verdict("symbols: reading the map", compiled.patterns(MAP_TEXT)[2:], None))
    results.append(verdict("symbols: reading the map", compiled.patterns(MAP_TEXT), "other"))
    results += run_headers(cc, cxx)
    results += run_options(cc, cxx)
    results += run_blocks(cc, cxx, root)
    results += run_graphs(cc)
    results += run_circles(cc)
    results += driver_test.run(root, verdict)
    untried = set(checks.CHECKS) - {check for check, _, _, expected in CASES if expected}
    results.append(verdict("a check that no case makes fail", sorted(untried), None))
    print(f"self-test: {sum(results)} cases as they should be, {len(results) - sum(results)} not")
    return 0 if all(results) else 1
