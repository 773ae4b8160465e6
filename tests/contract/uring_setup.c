/* SPDX-License-Identifier: MIT
 * Setting up a ring touches no descriptor that it did not open, in whatever way it fails.
 *
 * Each way is tried in a process of its own, twice: with descriptors 0 to 2 closed, so that the ring itself may get one
 * of these numbers, and with files of the program there. */
#ifdef __linux__
#include "fault_mem.h"

#include "reactor/backends.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <gyre/loop.h>
#include <liburing.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { ANY_ARGUMENT = -1, NO_CALL = -1, SQES_OFFSET = 0x10000000 };

/* One way to fail: a system call, of which one argument has (or does not have) a value, gets an error. */
struct way {
    const char *name;
    int call, error, argument;
    uint32_t value;
    bool other; /* the argument has another value */
    int expected;
};

static const struct way ways[] = {
    {"nothing fails", NO_CALL, 0, ANY_ARGUMENT, 0, false, 0},
    {"set-up refuses the flags", SYS_io_uring_setup, EINVAL, ANY_ARGUMENT, 0, false, -EINVAL},
    {"set-up is forbidden", SYS_io_uring_setup, EPERM, ANY_ARGUMENT, 0, false, -EPERM},
    {"no map of the queues", SYS_mmap, EAGAIN, 4, UINT32_MAX, true, -EAGAIN},
    {"no map of the entries", SYS_mmap, ENOMEM, 5, SQES_OFFSET, false, -ENOMEM},
    {"no eventfd", SYS_eventfd2, EMFILE, ANY_ARGUMENT, 0, false, -EMFILE},
    {"no pair of sockets", SYS_socketpair, EMFILE, ANY_ARGUMENT, 0, false, -EMFILE},
    {"registering is forbidden", SYS_io_uring_register, EPERM, ANY_ARGUMENT, 0, false, -EPERM},
    {"no ring of buffers", SYS_io_uring_register, EINVAL, 1, IORING_REGISTER_PBUF_RING, false, -EINVAL},
    {"the ring is not enabled", SYS_io_uring_register, EINVAL, 1, IORING_REGISTER_ENABLE_RINGS, false, -EINVAL},
    {"the ring is not registered", SYS_io_uring_register, EINVAL, 1, IORING_REGISTER_RING_FDS, false, 0},
    {"entering is forbidden", SYS_io_uring_enter, EPERM, ANY_ARGUMENT, 0, false, -EPERM},
    {"entering fails", SYS_io_uring_enter, EINVAL, ANY_ARGUMENT, 0, false, -EINVAL},
};

enum { WAYS = sizeof ways / sizeof ways[0] };

static void deny(const struct way *way)
{
    bool any = way->argument == ANY_ARGUMENT;
    uint32_t low = (uint32_t)offsetof(struct seccomp_data, args) + (any ? 0 : (uint32_t)way->argument * 8);
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)way->call, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, low),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, way->value, way->other && !any, !way->other && !any),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (uint32_t)way->error),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = sizeof code / sizeof code[0], .filter = code};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0)
        _exit(90);
}

/* Files of the program's own at 0 to 2, or nothing there. */
static void take_numbers(bool precious, struct stat *files)
{
    for (int fd = 0; fd < 3; fd++) {
        int file = precious ? memfd_create("precious", MFD_CLOEXEC) : -1;
        if (precious && (dup2(file, fd) != fd || fstat(fd, &files[fd]) != 0))
            _exit(91);
        if (file > 2)
            (void)close(file);
        if (!precious)
            (void)close(fd);
    }
}

static bool still_there(bool precious, const struct stat *files)
{
    struct stat now;
    for (int fd = 0; fd < 3; fd++) {
        bool open = fstat(fd, &now) == 0;
        if (open != precious || (open && (now.st_ino != files[fd].st_ino || now.st_dev != files[fd].st_dev)))
            return false;
    }
    return true;
}

/* What went wrong, as the status of the process: 0 nothing, 1 another error than expected, 2 descriptors 0 to 2 are
 * not as they were, 3 others are not. */
static int outcome(int err, int expected, bool precious, const struct stat *files, int before)
{
    if (!still_there(precious, files))
        return 2;
    if (env_fd_count() != before)
        return 3;
    return err == expected ? 0 : 1;
}

static int try_backend(const struct way *way, bool precious)
{
    const struct gyre__backend_ops *ops = gyre__backend_find("io_uring");
    struct env_mem mem;
    struct gyre__backend *be;
    struct stat files[3];
    char why[384];
    env_mem_init(&mem);
    struct gyre__backend_config cfg = {.mem = &mem.mem};
    take_numbers(precious, files);
    int before = env_fd_count();
    if (way->call != NO_CALL)
        deny(way);
    int err = ops->create(&be, &cfg, why, sizeof why);
    if (err == 0)
        ops->destroy(be);
    return outcome(err, way->expected, precious, files, before);
}

/* The loop itself is made, on epoll where io_uring fails. */
static int try_loop(const struct way *way, bool precious)
{
    struct gyre_loop *loop;
    struct stat files[3];
    take_numbers(precious, files);
    int before = env_fd_count();
    if (way->call != NO_CALL)
        deny(way);
    int err = gyre_loop_create(&loop, NULL);
    if (err == 0)
        gyre_loop_destroy(loop);
    bool all_fail = way->call == SYS_eventfd2 || way->call == SYS_socketpair;
    return outcome(all_fail ? 0 : err, 0, precious, files, before);
}

static void each_way(int (*try_it)(const struct way *way, bool precious))
{
    if (gyre__backend_find("io_uring") == NULL)
        cr_skip_test("io_uring is not compiled in");
    for (unsigned i = 0; i < WAYS * 2; i++) {
        int status;
        pid_t child = fork();
        cr_assert_geq(child, 0);
        if (child == 0)
            _exit(try_it(&ways[i / 2], i % 2 == 1));
        cr_assert_eq(waitpid(child, &status, 0), child);
        cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%s, descriptors 0 to 2 %s: status %x",
                  ways[i / 2].name, i % 2 == 1 ? "in use" : "closed", (unsigned)status);
    }
}

Test(uring_setup, closes_only_what_it_opened, .timeout = 60)
{
    each_way(try_backend);
}

Test(uring_setup, of_a_loop_closes_only_what_it_opened, .timeout = 60)
{
    each_way(try_loop);
}

/* Every allocation fails in turn. */
static int try_memory(long allocation, bool precious)
{
    const struct gyre__backend_ops *ops = gyre__backend_find("io_uring");
    struct fault_mem mem;
    struct gyre__backend *be;
    struct stat files[3];
    char why[384];
    fault_mem_init(&mem, allocation, FAULT_ONCE);
    struct gyre__backend_config cfg = {.mem = &mem.mem};
    take_numbers(precious, files);
    int before = env_fd_count();
    int err = ops->create(&be, &cfg, why, sizeof why);
    if (err == 0)
        ops->destroy(be);
    int status = outcome(err, -ENOMEM, precious, files, before);
    return err == 0 && status == 1 ? 100 : status; /* 100: there was no allocation of that number */
}

Test(uring_setup, without_memory_closes_only_what_it_opened, .timeout = 60)
{
    unsigned failures = 0;
    if (gyre__backend_find("io_uring") == NULL)
        cr_skip_test("io_uring is not compiled in");
    for (unsigned i = 0, status = 0; i < 40; i++) {
        pid_t child = fork();
        cr_assert_geq(child, 0);
        if (child == 0)
            _exit(try_memory(i / 2 + 1, i % 2 == 1));
        cr_assert_eq(waitpid(child, (int *)&status, 0), child);
        if (status == 100u << 8)
            break;
        cr_assert_eq(status, 0, "allocation %u: status %x", i / 2 + 1, status);
        failures++;
    }
    cr_assert_geq(failures, 6, "only %u allocations failed", failures);
}
#endif
