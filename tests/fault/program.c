/* SPDX-License-Identifier: MIT
 * The built program examples/echo on a host that forbids io_uring: its ready line says epoll and why, it echoes, and a
 * signal ends it well. */
#include "sandbox.h"
#include "server.h"

#include "reactor/backends.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { LINE_MAX_BYTES = 1024, ADDRESS_MAX = 128 };

#ifdef GYRE_TEST_ECHO
static const char *const program = GYRE_TEST_ECHO;
#else
static const char *const program = NULL;
#endif

/* Start it confined. Its ready line comes in `line`. Returns its number. */
static pid_t start(const struct confinement *c, const char *backend, char *line)
{
    int out[2];
    cr_assert_eq(pipe(out), 0);
    pid_t child = fork();
    cr_assert_geq(child, 0);
    if (child == 0) {
        (void)dup2(out[1], STDOUT_FILENO);
        if (confine(c))
            (void)execl(program, "echo", "--loops", "2", "--backend", backend, "tcp://127.0.0.1:0", (char *)NULL);
        _exit(99);
    }
    (void)close(out[1]);
    FILE *from = fdopen(out[0], "r");
    cr_assert_not_null(from);
    line[0] = '\0';
    (void)fgets(line, LINE_MAX_BYTES, from);
    (void)fclose(from);
    return child;
}

static int wait_for(pid_t child)
{
    int status = -1;
    cr_assert_eq(waitpid(child, &status, 0), child);
    return status;
}

static void expect_line(const char *line, const char *word)
{
    cr_assert_not_null(strstr(line, word), "\"%s\" is not in \"%s\"", word, line);
}

static void serve_and_end(pid_t child, const char *line)
{
    char address[ADDRESS_MAX];
    cr_assert_eq(sscanf(line, "listening on %127[^,],", address), 1, "\"%s\"", line);
    int fd = client_connect(address);
    cr_assert_geq(fd, 0, "cannot connect to %s", address);
    const char *wrong = client_echo(fd, 300000, SIZE_MAX, 3);
    cr_assert_null(wrong, "%s", wrong);
    (void)close(fd);
    cr_assert_eq(kill(child, SIGTERM), 0);
    int status = wait_for(child);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "it ended with status %#x", (unsigned)status);
}

Test(program, says_why_it_is_on_epoll, .timeout = 60)
{
    static const struct {
        unsigned deny;
        int err;
        const char *words[2];
    } rows[] = {{DENY_SETUP, EPERM, {"seccomp", "io_uring_setup"}},
                {DENY_SETUP, ENOSYS, {"sandbox", "io_uring_setup"}},
                {DENY_ENTER, EPERM, {"seccomp", "io_uring_enter"}},
                {DENY_REGISTER, EPERM, {"seccomp", "io_uring_register"}}};
    if (program == NULL || gyre__backend_find("io_uring") == NULL)
        cr_skip_test("needs the examples and io_uring built");
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const struct confinement c = {.deny = rows[i].deny, .deny_errno = rows[i].err};
        char line[LINE_MAX_BYTES];
        pid_t child = start(&c, "auto", line);
        expect_line(line, "backend epoll");
        expect_line(line, "no io_uring");
        expect_line(line, rows[i].words[0]);
        expect_line(line, rows[i].words[1]);
        serve_and_end(child, line);
    }
}

/* Asked for io_uring where it is forbidden, it ends with an error and prints no ready line. */
Test(program, does_not_settle_for_less, .timeout = 60)
{
    char line[LINE_MAX_BYTES];
    if (program == NULL || gyre__backend_find("io_uring") == NULL)
        cr_skip_test("needs the examples and io_uring built");
    pid_t child = start(&(struct confinement){.deny = DENY_SETUP, .deny_errno = EPERM}, "io_uring", line);
    int status = wait_for(child);
    cr_assert_str_empty(line);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 1, "status %#x", (unsigned)status);
}

/* With --backend epoll it survives a filter that kills at the first call of io_uring. */
Test(program, makes_no_call_of_io_uring, .timeout = 60)
{
    char line[LINE_MAX_BYTES];
    if (program == NULL)
        cr_skip_test("needs the examples built");
    pid_t child = start(&(struct confinement){.deny = DENY_ALL, .deny_errno = DENY_KILL}, "epoll", line);
    expect_line(line, "backend epoll");
    serve_and_end(child, line);
}
