/* SPDX-License-Identifier: MIT
 * io_uring forbidden, in all the ways hosts do it: the engine serves on epoll and says why in words that a person can
 * act on; asked for by name it says so and does not settle for less; and whoever asks for epoll makes no system call of
 * io_uring at all. */
#include "sandbox.h"

#include "reactor/backends.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void need_uring(void)
{
    if (gyre__backend_find("io_uring") == NULL)
        cr_skip_test("io_uring is not compiled in");
    else if (!sandbox_has_uring())
        cr_skip_test("io_uring does not work here even when nobody forbids it");
}

static void expect_serves(const struct verdict *v, const char *backend, const char *what)
{
    cr_assert(WIFEXITED(v->status) && WEXITSTATUS(v->status) == 0, "%s: the process ended with status %#x", what,
              (unsigned)v->status);
    cr_assert(v->confined, "%s: could not be confined", what);
    cr_assert_eq(v->err, 0, "%s: %s", what, gyre_err_name(v->err));
    cr_assert(v->serves && v->wrong[0] == '\0', "%s: %s", what, v->wrong);
    cr_assert_str_eq(v->report.backend, backend, "%s: \"%s\"", what, v->report.reason);
}

static void expect_word(const struct verdict *v, const char *word, const char *what)
{
    cr_assert_not_null(strstr(v->report.reason, word), "%s: \"%s\" is not said in \"%s\"", what, word,
                       v->report.reason);
}

static const struct {
    const char *what;
    unsigned deny;
    int err;
    const char *words[3]; /* what a person needs in order to act */
} table[] = {
    {"setup EPERM", DENY_SETUP, EPERM, {"io_uring_setup", "seccomp", "allow"}},
    {"setup ENOSYS", DENY_SETUP, ENOSYS, {"io_uring_setup", "kernel", "sandbox"}},
    {"setup EACCES", DENY_SETUP, EACCES, {"io_uring_setup", "security module", "policy"}},
    {"setup ENOMEM", DENY_SETUP, ENOMEM, {"io_uring_setup", "memory", "ulimit -l"}},
    {"enter EPERM", DENY_ENTER, EPERM, {"io_uring_enter", "seccomp", "allow"}},
    {"enter ENOSYS", DENY_ENTER, ENOSYS, {"io_uring_enter", "does not exist", "seccomp"}},
    {"enter EACCES", DENY_ENTER, EACCES, {"io_uring_enter", "security module", "policy"}},
    {"register EPERM", DENY_REGISTER, EPERM, {"io_uring_register", "seccomp", "allow"}},
    {"register ENOSYS", DENY_REGISTER, ENOSYS, {"does not exist", "sandbox", "seccomp"}},
    {"all EPERM", DENY_ALL, EPERM, {"io_uring_setup", "seccomp", "allow"}},
    {"all ENOSYS", DENY_ALL, ENOSYS, {"io_uring_setup", "kernel", "sandbox"}},
};

/* A filter forbids one of the calls, or all: epoll serves, and the reason names the call and what to do. */
Test(denied, by_a_filter, .timeout = 100)
{
    need_uring();
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        const struct confinement c = {.deny = table[i].deny, .deny_errno = table[i].err};
        struct verdict v;
        sandbox_try(&v, &c, NULL, 2);
        expect_serves(&v, "epoll", table[i].what);
        for (size_t k = 0; k < 3; k++)
            expect_word(&v, table[i].words[k], table[i].what);
        expect_word(&v, "next best", table[i].what);
    }
}

/* Asked for by name, what stands in the way is returned, nothing else is taken, and nothing is left behind. */
Test(denied, by_a_filter_and_asked_for_by_name, .timeout = 100)
{
    need_uring();
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        struct confinement c = {.deny = table[i].deny, .deny_errno = table[i].err};
        struct verdict v;
        sandbox_try(&v, &c, "io_uring", 2);
        cr_assert_eq(v.err, -table[i].err, "%s: %s", table[i].what, gyre_err_name(v.err));
        cr_assert_str_empty(v.wrong, "%s: %s", table[i].what, v.wrong);
        c.env = "io_uring";
        sandbox_try(&v, &c, NULL, 2);
        cr_assert_eq(v.err, -table[i].err, "%s, asked for by GYRE_BACKEND: %s", table[i].what, gyre_err_name(v.err));
    }
}

/* With no memory to lock and no right to lock it nevertheless. On kernels that do not count the rings io_uring
 * works. */
Test(denied, by_the_limit_on_locked_memory)
{
    need_uring();
    if (getuid() != 0)
        cr_skip_test("needs to be root to become nobody");
    const struct confinement c = {.nobody = true, .limit_memlock = true, .memlock = 0};
    struct verdict v;
    sandbox_try(&v, &c, NULL, 2);
    expect_serves(&v, v.report.backend, "RLIMIT_MEMLOCK 0");
    if (strcmp(v.report.backend, "io_uring") == 0)
        cr_skip_test("this kernel does not count rings as locked memory");
    expect_word(&v, "locked memory", "RLIMIT_MEMLOCK 0");
    expect_word(&v, "now 0", "RLIMIT_MEMLOCK 0");
    expect_word(&v, "ulimit -l", "RLIMIT_MEMLOCK 0");
}

/* However much may be locked, enough for no loop, for some or for all: the engine serves, all its loops alike. */
Test(denied, by_every_limit_on_locked_memory, .timeout = 100)
{
    bool on_uring = false, on_epoll = false;
    need_uring();
    if (getuid() != 0)
        cr_skip_test("needs to be root to become nobody");
    for (unsigned long kib = 0; kib <= 8192; kib += kib < 1536 ? 16 : 512) {
        const struct confinement c = {.nobody = true, .limit_memlock = true, .memlock = kib * 1024};
        char what[64];
        struct verdict v;
        (void)snprintf(what, sizeof what, "3 loops with RLIMIT_MEMLOCK %lu KiB", kib);
        sandbox_try(&v, &c, NULL, 3);
        expect_serves(&v, v.report.backend, what);
        on_uring = on_uring || strcmp(v.report.backend, "io_uring") == 0;
        on_epoll = on_epoll || strcmp(v.report.backend, "epoll") == 0;
        if (strcmp(v.report.backend, "epoll") != 0)
            continue;
        expect_word(&v, "locked memory", what);
        expect_word(&v, "ulimit -l", what);
    }
    cr_assert(on_uring, "not even 8 MiB were enough for three loops");
    if (!on_epoll)
        cr_skip_test("this kernel does not count rings as locked memory");
}

/* GYRE_BACKEND=io_uring is io_uring or nothing. */
Test(denied, asked_for_by_the_environment_without_locked_memory)
{
    need_uring();
    if (getuid() != 0)
        cr_skip_test("needs to be root to become nobody");
    struct confinement c = {.nobody = true, .limit_memlock = true, .memlock = 0};
    struct verdict v;
    sandbox_try(&v, &c, "io_uring", 2);
    if (v.err == 0)
        cr_skip_test("this kernel does not count rings as locked memory");
    cr_assert_eq(v.err, -ENOMEM);
    c.env = "io_uring";
    sandbox_try(&v, &c, NULL, 2);
    cr_assert_eq(v.err, -ENOMEM, "%s, on \"%s\": \"%s\"", gyre_err_name(v.err), v.report.backend, v.report.reason);
}

/* Descriptors for epoll but not for io_uring, or for neither: it serves, or it says -EMFILE; never anything else. */
Test(denied, by_the_limit_on_descriptors, .timeout = 100)
{
    unsigned long n = 3;
    for (bool served = false; !served; n++) {
        const struct confinement c = {.nofile = n};
        struct verdict v;
        cr_assert_lt(n, 100, "two loops do not start with a hundred descriptors");
        sandbox_try(&v, &c, NULL, 2);
        cr_assert(WIFEXITED(v.status) && WEXITSTATUS(v.status) == 0, "with %lu: status %#x", n, (unsigned)v.status);
        cr_assert(v.err == 0 || v.err == -EMFILE, "with %lu: %s", n, gyre_err_name(v.err));
        cr_assert(v.err == 0 || v.wrong[0] == '\0', "with %lu: %s", n, v.wrong);
        served = v.err == 0 && v.serves && v.wrong[0] == '\0';
    }
}

/* ---- The environment. ---- */

Test(environment, names_a_backend)
{
    static const char *const names[] = {"epoll", "kqueue", "io_uring"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const struct confinement c = {.env = names[i]};
        struct verdict v;
        if (gyre__backend_find(names[i]) == NULL || (strcmp(names[i], "io_uring") == 0 && !sandbox_has_uring()))
            continue;
        sandbox_try(&v, &c, NULL, 2);
        expect_serves(&v, names[i], names[i]);
        expect_word(&v, "GYRE_BACKEND", names[i]);
        sandbox_try(&v, &c, "auto", 1);
        expect_serves(&v, names[i], "the option says auto");
    }
}

Test(environment, leaves_it_to_auto)
{
    static const char *const names[] = {"", "auto"};
    struct verdict plain, v;
    sandbox_try(&plain, &(struct confinement){.env = NULL}, NULL, 1);
    expect_serves(&plain, plain.report.backend, "without GYRE_BACKEND");
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        sandbox_try(&v, &(struct confinement){.env = names[i]}, NULL, 1);
        expect_serves(&v, plain.report.backend, names[i]);
    }
}

Test(environment, names_none)
{
    static const char *const names[] = {"uring", "EPOLL", "epoll ", " epoll", "select", "io_uring,epoll", "sim", "0"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const struct confinement c = {.env = names[i]};
        struct verdict v;
        sandbox_try(&v, &c, NULL, 1);
        cr_assert_eq(v.err, GYRE_EBACKEND, "\"%s\": %s", names[i], gyre_err_name(v.err));
        cr_assert_str_empty(v.wrong);
        sandbox_try(&v, &c, "epoll", 1);
        expect_serves(&v, "epoll", "the option wins over a variable that names nothing");
        expect_word(&v, "program", names[i]);
        sandbox_try(&v, &(struct confinement){.env = NULL}, names[i], 1);
        cr_assert_eq(v.err, GYRE_EBACKEND, "asked for by name, \"%s\": %s", names[i], gyre_err_name(v.err));
    }
}

Test(environment, does_not_override_an_option)
{
    struct verdict v;
    sandbox_try(&v, &(struct confinement){.env = "epoll"}, "kqueue", 1);
    expect_serves(&v, "kqueue", "GYRE_BACKEND=epoll and the option kqueue");
    sandbox_try(&v, &(struct confinement){.env = "io_uring", .deny = DENY_ALL, .deny_errno = DENY_KILL}, "epoll", 2);
    expect_serves(&v, "epoll", "GYRE_BACKEND=io_uring and the option epoll");
}

/* ---- No call at all. ---- */

/* A filter kills the process at its first call of io_uring. First that it does; then that epoll makes none. */
Test(denied, by_death)
{
    const struct confinement deadly = {.deny = DENY_ALL, .deny_errno = DENY_KILL};
    const struct confinement deadly_env = {.deny = DENY_ALL, .deny_errno = DENY_KILL, .env = "epoll"};
    struct verdict v;
    if (gyre__backend_find("io_uring") != NULL) {
        sandbox_try(&v, &deadly, "io_uring", 1);
        cr_assert(WIFSIGNALED(v.status) && WTERMSIG(v.status) == SIGSYS, "the filter does not kill: status %#x",
                  (unsigned)v.status);
    }
    sandbox_try(&v, &deadly, "epoll", 2);
    expect_serves(&v, "epoll", "the option epoll");
    sandbox_try(&v, &deadly_env, NULL, 2);
    expect_serves(&v, "epoll", "GYRE_BACKEND=epoll");
}
