/* SPDX-License-Identifier: MIT
 * Confining a process, and trying an engine in one. */
#include "sandbox.h"
#include "server.h"

#include <errno.h>
#include <grp.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CHILD_SECONDS = 60, NOBODY = 65534, IO_URING_SETUP = 425, IO_URING_ENTER = 426, IO_URING_REGISTER = 427 };

/* Newer machines have only the others. */
#ifndef SYS_epoll_wait
#define SYS_epoll_wait SYS_epoll_pwait
#endif

enum { EPOLL_PWAIT2 = 441 };

/* One filter per system call: the strictest answer of all filters counts. The numbers are those of every machine. */
static bool forbid(unsigned number, uint32_t action)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, action),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    const struct sock_fprog filter = {.len = sizeof code / sizeof code[0], .filter = code};
    return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter, 0, 0) == 0;
}

static bool filter_calls(const struct confinement *c)
{
    uint32_t action = c->deny_errno == DENY_KILL
                          ? (uint32_t)SECCOMP_RET_KILL_PROCESS
                          : (uint32_t)SECCOMP_RET_ERRNO | ((uint32_t)c->deny_errno & SECCOMP_RET_DATA);
    if (c->deny == 0)
        return true;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
        return false;
    return (!(c->deny & DENY_SETUP) || forbid(IO_URING_SETUP, action)) &&
           (!(c->deny & DENY_ENTER) || forbid(IO_URING_ENTER, action)) &&
           (!(c->deny & DENY_REGISTER) || forbid(IO_URING_REGISTER, action)) &&
           (!(c->deny & DENY_WAIT) ||
            (forbid(SYS_epoll_wait, action) && forbid(SYS_epoll_pwait, action) && forbid(EPOLL_PWAIT2, action)));
}

static bool limit(int resource, unsigned long value)
{
    struct rlimit l = {.rlim_cur = value, .rlim_max = value};
    return setrlimit(resource, &l) == 0;
}

/* Dropping root drops all capabilities; whether this process may be looked at (by a leak check) stays as it was. */
static bool become_nobody(void)
{
    if (getuid() != 0)
        return true;
    return setgroups(0, NULL) == 0 && setgid(NOBODY) == 0 && setuid(NOBODY) == 0 && prctl(PR_SET_DUMPABLE, 1) == 0;
}

bool confine(const struct confinement *c)
{
    if (c->env != NULL ? setenv("GYRE_BACKEND", c->env, 1) != 0 : unsetenv("GYRE_BACKEND") != 0)
        return false;
    if (c->limit_memlock && !limit(RLIMIT_MEMLOCK, c->memlock))
        return false;
    if (c->nofile > 0 && !limit(RLIMIT_NOFILE, c->nofile))
        return false;
    return (!c->nobody || become_nobody()) && filter_calls(c);
}

static void try_engine(struct verdict *out, const char *backend, uint32_t loops)
{
    struct gyre_loop_options options = {.backend = backend};
    struct server s;
    const char *wrong;
    out->err = server_start(&s, &options, loops);
    if (out->err != 0) {
        if (atomic_load(&s.mem.blocks) != 0 || open_descriptors() != s.fds_before)
            (void)snprintf(out->wrong, sizeof out->wrong, "after %s: %ld blocks and %d descriptors left",
                           gyre_err_name(out->err), atomic_load(&s.mem.blocks), open_descriptors() - s.fds_before);
        return;
    }
    gyre_loop_backend(&out->report, gyre_engine_loop(s.engine, loops - 1));
    wrong = server_check(&s);
    out->serves = wrong == NULL;
    const char *after = server_stop(&s);
    if (wrong != NULL || after != NULL)
        (void)snprintf(out->wrong, sizeof out->wrong, "%s; %s", wrong != NULL ? wrong : "served",
                       after != NULL ? after : "ended well");
}

void sandbox_try(struct verdict *out, const struct confinement *c, const char *backend, uint32_t loops)
{
    struct verdict *shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    *out = (struct verdict){.status = -1};
    if (shared == MAP_FAILED)
        return;
    pid_t child = fork();
    if (child == 0) {
        (void)alarm(CHILD_SECONDS);
        shared->confined = confine(c);
        if (shared->confined)
            try_engine(shared, backend, loops);
        _exit(0);
    }
    int status = -1;
    if (child > 0 && waitpid(child, &status, 0) == child)
        *out = *shared;
    out->status = status;
    /* `report.backend` is static text, so it means the same in parent and child. */
    (void)munmap(shared, sizeof *shared);
}

bool sandbox_has_uring(void)
{
    struct verdict v;
    sandbox_try(&v, &(struct confinement){.env = NULL}, "io_uring", 1);
    return v.serves;
}
