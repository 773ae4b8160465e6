/* SPDX-License-Identifier: MIT
 * io_uring where it cannot be had, or only in part: what create() returns and says, and that it works again when the
 * cause is gone. And the kernel tiers: with features left out, everything still works.
 *
 * Criterion runs each test in a process of its own, so a filter or a limit set here binds nobody else. */
#ifdef __linux__
#include "reactor/backends.h"
#include "stream.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

struct attempt {
    const struct gyre__backend_ops *ops;
    struct gyre__backend *be;
    int err;
    char why[384];
    char logged[512]; /* the last warning */
};

static void keep_line(enum gyre_log_level level, const char *text, void *user)
{
    struct attempt *at = user;
    (void)level;
    (void)snprintf(at->logged, sizeof at->logged, "%s", text);
}

/* create(), and destroy() if it succeeds. */
static void attempt_with(struct attempt *at, const char *off, const struct gyre_mem *mem)
{
    struct env_mem own;
    env_mem_init(&own);
    *at = (struct attempt){.ops = gyre__backend_find("io_uring")};
    if (at->ops == NULL)
        cr_skip_test("io_uring is not compiled in");
    const struct gyre_log log = {.line = keep_line, .user = at, .level_min = GYRE_LOG_WARN};
    struct gyre__backend_config cfg = {.off = off, .mem = mem != NULL ? mem : &own.mem, .log = &log};
    at->err = at->ops->create(&at->be, &cfg, at->why, sizeof at->why);
    if (at->err == 0)
        at->ops->destroy(at->be);
    cr_assert_eq(atomic_load(&own.blocks), 0, "create() leaks");
    cr_assert(at->err == 0 || at->why[0] != '\0', "failed with %d and no reason", at->err);
}

static struct attempt attempt(void)
{
    struct attempt at;
    attempt_with(&at, NULL, NULL);
    return at;
}

/* From here on the system call fails with `err` in this process. */
static void deny(unsigned call, unsigned err)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | err),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = sizeof code / sizeof code[0], .filter = code};
    cr_assert_eq(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
    cr_assert_eq(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), 0);
}

static void expect(const struct attempt *at, int err, const char *words)
{
    cr_assert_eq(at->err, err, "create() returned %d (%s)", at->err, at->why);
    cr_assert_not_null(strstr(at->why, words), "\"%s\" is not in: %s", words, at->why);
}

/* What containers do by default. */
Test(uring_denied, setup_forbidden, .timeout = 20)
{
    deny(SYS_io_uring_setup, EPERM);
    int before = env_fd_count();
    struct attempt at = attempt();
    expect(&at, -EPERM, "seccomp");
    expect(&at, -EPERM, "io_uring_setup");
    cr_assert_eq(env_fd_count(), before);
}

/* What other sandboxes do. */
Test(uring_denied, setup_hidden, .timeout = 20)
{
    deny(SYS_io_uring_setup, ENOSYS);
    struct attempt at = attempt();
    expect(&at, -ENOSYS, "without io_uring");
}

/* Setup is allowed and the rest is not: only a trial finds that. */
Test(uring_denied, register_forbidden, .timeout = 20)
{
    deny(SYS_io_uring_register, EPERM);
    int before = env_fd_count();
    struct attempt at = attempt();
    expect(&at, -EPERM, "io_uring_register");
    cr_assert_eq(env_fd_count(), before);
}

Test(uring_denied, enter_forbidden, .timeout = 20)
{
    deny(SYS_io_uring_enter, EPERM);
    int before = env_fd_count();
    struct attempt at = attempt();
    expect(&at, -EPERM, "io_uring_enter");
    cr_assert_eq(env_fd_count(), before);
}

/* What SELinux does. */
Test(uring_denied, setup_denied_by_policy, .timeout = 20)
{
    deny(SYS_io_uring_setup, EACCES);
    struct attempt at = attempt();
    expect(&at, -EACCES, "SELinux");
}

/* No descriptors left in the whole system. */
Test(uring_denied, system_out_of_descriptors, .timeout = 20)
{
    deny(SYS_io_uring_setup, ENFILE);
    struct attempt at = attempt();
    expect(&at, -ENFILE, "fs.file-max");
}

/* An errno that nobody foresaw is reported by name and number. */
Test(uring_denied, setup_fails_somehow, .timeout = 20)
{
    deny(SYS_io_uring_setup, EIO);
    struct attempt at = attempt();
    expect(&at, -EIO, "io_uring_setup failed with EIO (5)");
}

/* A kernel that knows none of the flags, or a filter that says so: the call, its error and the kernel are reported, and
 * its age is not guessed. */
Test(uring_denied, setup_refuses_the_flags, .timeout = 20)
{
    struct utsname system;
    deny(SYS_io_uring_setup, EINVAL);
    struct attempt at = attempt();
    expect(&at, -EINVAL, "io_uring_setup with R_DISABLED, SUBMIT_ALL, CLAMP and CQSIZE failed with EINVAL (22)");
    cr_assert_eq(uname(&system), 0);
    expect(&at, -EINVAL, system.release);
    cr_assert_null(strstr(at.why, "too old"));
}

/* Forbidden after the first ring was made: the trial's outcome is remembered, the ring's own failure is told. */
Test(uring_denied, forbidden_later, .timeout = 20)
{
    struct attempt first = attempt();
    if (first.err != 0)
        cr_skip_test("%s", first.why);
    deny(SYS_io_uring_setup, EPERM);
    struct attempt at = attempt();
    expect(&at, -EPERM, "seccomp");
}

/* The sysctl, as far as it can be had without changing it for the whole machine: a file in its place, in a mount
 * namespace of our own. */
Test(uring_denied, sysctl_is_named, .timeout = 20)
{
    char path[] = "/tmp/gyre-sysctl-XXXXXX";
    if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0)
        cr_skip_test("needs a mount namespace");
    int fd = mkstemp(path);
    cr_assert_geq(fd, 0);
    cr_assert_eq(write(fd, "2\n", 2), 2);
    (void)close(fd);
    int err = mount(path, "/proc/sys/kernel/io_uring_disabled", NULL, MS_BIND, NULL);
    (void)unlink(path);
    if (err != 0)
        cr_skip_test("the kernel has no such sysctl, or it cannot be covered");
    deny(SYS_io_uring_setup, EPERM);
    struct attempt at = attempt();
    expect(&at, -EPERM, "kernel.io_uring_disabled is 2");
}

/* No descriptors left: said so, and not remembered. For each number that is too few, nothing leaks. */
Test(uring_denied, out_of_descriptors, .timeout = 20)
{
    struct rlimit had, limit;
    cr_assert_eq(getrlimit(RLIMIT_NOFILE, &had), 0);
    int next = open("/dev/null", O_RDONLY | O_CLOEXEC);
    cr_assert_geq(next, 0);
    (void)close(next);
    int before = env_fd_count();
    unsigned failures = 0;
    struct attempt at = {.err = -1};
    for (rlim_t free_fds = 0; at.err != 0 && free_fds < 16; free_fds++) {
        limit = (struct rlimit){.rlim_cur = (rlim_t)next + free_fds, .rlim_max = had.rlim_max};
        cr_assert_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
        at = attempt();
        cr_assert_eq(setrlimit(RLIMIT_NOFILE, &had), 0);
        cr_assert_eq(env_fd_count(), before, "a failed create() leaves descriptors");
        if (at.err == 0)
            break;
        expect(&at, -EMFILE, "ulimit -n");
        failures++;
    }
    cr_assert_eq(at.err, 0, "create() does not recover: %s", at.why);
    cr_assert_geq(failures, 3, "it failed only %u times", failures);
}

struct failing_mem {
    struct gyre_mem mem;
    struct env_mem balance;
    unsigned left; /* allocations until they fail */
};

static void *failing_resize(void *ptr, size_t size, void *user)
{
    struct failing_mem *f = user;
    if (size > 0 && f->left-- == 0) {
        f->left = 0;
        return NULL;
    }
    return f->balance.mem.resize(ptr, size, f->balance.mem.user);
}

/* Every allocation fails in turn, until none is left to fail. */
Test(uring_denied, out_of_memory, .timeout = 20)
{
    struct attempt at = {.err = -1};
    unsigned failures = 0;
    int before = env_fd_count();
    for (unsigned n = 0; at.err != 0 && n < 20; n++) {
        struct failing_mem f = {.left = n};
        env_mem_init(&f.balance);
        f.mem = (struct gyre_mem){.resize = failing_resize, .user = &f};
        attempt_with(&at, NULL, &f.mem);
        cr_assert_eq(atomic_load(&f.balance.blocks), 0, "allocation %u failed, and a block leaks", n);
        cr_assert_eq(env_fd_count(), before);
        if (at.err == 0)
            break;
        expect(&at, -ENOMEM, "ulimit -l");
        failures++;
    }
    cr_assert_eq(at.err, 0, "%s", at.why);
    cr_assert_geq(failures, 3);
}

/* One exchange, large enough for buffers to run out, and both ends closed. */
static void exchange(struct gyre__backend_config cfg, const char *without)
{
    struct backend_param p = {.backend = "io_uring", .transport = TRANSPORT_TCP4};
    struct seam s;
    struct stream a, b;
    char features[384];
    if (gyre__backend_find(p.backend) == NULL)
        cr_skip_test("io_uring is not compiled in");
    cfg.ops_max = 256;
    seam_open_config(&s, &p, cfg);
    s.ops->features(s.be, features, sizeof features);
    cr_assert_null(strstr(features, without), "%s is in use: %s", without, features);
    seam_pool(&s, 1024, 4, 16);
    for (int round = 0; round < 3; round++) {
        stream_pair(&s, &a, &b, 1);
        stream_receive(&a, GYRE_OPF_POOL | GYRE_OPF_MULTI);
        stream_receive(&b, GYRE_OPF_POOL | GYRE_OPF_MULTI);
        stream_send(&a, 300000);
        stream_send(&b, 200000);
        stream_finish(&a);
        seam_until(&s, b.eof && b.got == 300000 && a.got == 200000);
        s.ops->wake(s.be);
        (void)seam_turn(&s, -1);
        stream_close(&a);
        stream_close(&b);
    }
    cr_assert_eq(s.be->stats.stale, 0);
    seam_close(&s);
}

static const char *const tiers[] = {
    "no_sqarray",
    "defer_taskrun",
    "single_issuer",
    "taskrun_flag",
    "no_iowait",
    "ring_fd",
    "multishot_accept",
    "multishot_recv",
    "no_sqarray,no_iowait",                                               /* Linux 6.1 */
    "no_sqarray,no_iowait,ring_fd,defer_taskrun",                         /* 6.0 */
    "no_sqarray,no_iowait,ring_fd,single_issuer,multishot_recv",          /* 5.19 */
    "no_sqarray,ring_fd,single_issuer,coop_taskrun,multishot_recv",       /* no help with task work at all */
    "defer_taskrun,coop_taskrun,multishot_accept,multishot_recv,ring_fd", /* nearly nothing */
};

enum { TIERS = sizeof tiers / sizeof tiers[0] };

/* Each tier by the config and by the environment. */
Test(uring_denied, tiers, .timeout = 60)
{
    char first[32];
    for (unsigned i = 0; i < TIERS; i++) {
        size_t len = strcspn(tiers[i], ",");
        cr_assert_lt(len, sizeof first);
        memcpy(first, tiers[i], len);
        first[len] = '\0';
        exchange((struct gyre__backend_config){.off = tiers[i]}, first);
        cr_assert_eq(setenv("GYRE_URING_OFF", tiers[i], 1), 0);
        exchange((struct gyre__backend_config){.off = NULL}, first);
        cr_assert_eq(unsetenv("GYRE_URING_OFF"), 0);
    }
}

/* The smallest rings, with and without what hides their smallness. */
Test(uring_denied, smallest_rings, .timeout = 60)
{
    for (unsigned i = 0; i < TIERS; i++)
        exchange((struct gyre__backend_config){.off = tiers[i], .sq_entries = 1, .cq_entries = 2}, "no such feature");
}

/* A word that is none is said to be none, and the rest counts. */
Test(uring_denied, unknown_word_is_warned_of, .timeout = 20)
{
    struct attempt at;
    attempt_with(&at, "ring_fd,warp_drive,no_iowait", NULL);
    cr_assert_eq(at.err, 0, "%s", at.why);
    cr_assert_not_null(strstr(at.logged, "\"warp_drive\""), "the log says: %s", at.logged);
    cr_assert_null(strstr(at.logged, "ring_fd"));
}
#endif
