/* SPDX-License-Identifier: MIT
 * Why io_uring does not work here, and what can be done about it. */
#include "ring.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include <unistd.h>

#define SYSCTL_PATH "/proc/sys/kernel/io_uring_disabled"

/* The sysctl's value, '0' where there is none: it came with Linux 6.6. */
static char sysctl_disabled(void)
{
    char value = '0';
    int fd = open(SYSCTL_PATH, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return '0';
    if (read(fd, &value, 1) != 1)
        value = '0';
    (void)close(fd);
    return value;
}

/* A soft limit in units of `unit`, for a sentence. */
static const char *limit_words(rlim_t value, rlim_t unit, char *out, size_t size)
{
    if (value == RLIM_INFINITY)
        return "unlimited";
    (void)snprintf(out, size, "%llu", (unsigned long long)(value / unit));
    return out;
}

static void explain_eperm(const char *what, char *why, size_t size)
{
    char value = sysctl_disabled();
    if (value == '0') {
        (void)snprintf(why, size,
                       "%s is forbidden, most likely by a seccomp profile (containers have one by default); allow "
                       "io_uring_setup, io_uring_enter and io_uring_register there",
                       what);
        return;
    }
    (void)snprintf(why, size, "the sysctl kernel.io_uring_disabled is %c; set it to 0%s", value,
                   value == '1' ? ", or put the user into the group that kernel.io_uring_group names" : "");
}

/* Which call failed with which error, and where. The cause is not guessed: a reader who sees the kernel's release and
 * what this backend is made for can tell. */
static void explain_rest(const struct gyre__uring_failure *failure, char *why, size_t size)
{
    struct utsname system = {0};
    char error[64];
    (void)uname(&system);
    (void)snprintf(error, sizeof error, "failed with %s (%d)", gyre_err_name(failure->err), -failure->err);
    (void)snprintf(why, size, "%s %s on %s %s; the io_uring backend is made for Linux 6.1 and newer", failure->what,
                   failure->lacks ? "does not work" : error, system.sysname, system.release);
}

void gyre__uring_explain(const struct gyre__uring_failure *failure, char *why, size_t size)
{
    const char *what = failure->what;
    struct rlimit limit = {0};
    char number[24];
    switch (failure->err) {
    case -EPERM:
        explain_eperm(what, why, size);
        break;
    case -EACCES:
        (void)snprintf(why, size, "%s is denied by a security module such as SELinux; its policy must allow io_uring",
                       what);
        break;
    case -ENOSYS:
        (void)snprintf(why, size,
                       "%s does not exist: the kernel was built without io_uring, or a sandbox (gVisor, a seccomp "
                       "profile) hides it",
                       what);
        break;
    case -ENOMEM:
        (void)getrlimit(RLIMIT_MEMLOCK, &limit);
        (void)snprintf(why, size,
                       "%s: out of memory, or over the limit on locked memory (KiB, now %s): raise it with ulimit -l",
                       what, limit_words(limit.rlim_cur, 1024, number, sizeof number));
        break;
    case -EMFILE:
        (void)getrlimit(RLIMIT_NOFILE, &limit);
        (void)snprintf(why, size, "%s: out of file descriptors (the limit is %s): raise it with ulimit -n", what,
                       limit_words(limit.rlim_cur, 1, number, sizeof number));
        break;
    case -ENFILE:
        (void)snprintf(why, size, "%s: the system is out of file descriptors: raise the sysctl fs.file-max", what);
        break;
    default:
        explain_rest(failure, why, size);
        break;
    }
}
