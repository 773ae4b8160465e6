/* SPDX-License-Identifier: MIT
 * A unix socket's file with a mode of its own from the moment that it is there.
 *
 * bind(2) makes the file with what umask(2) leaves of 0777. The umask is the process's, so that other threads would
 * feel a change; and chmod(2) afterwards would find whatever somebody has put in the place of the file meanwhile. So a
 * helper process calls bind: it has the descriptor, and a umask of its own. The call waits for it, a fraction of a
 * millisecond. */
#include "bind_mode.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

struct order {
    const struct gyre__addr *addr;
    int fd;
    mode_t mode;
};

/* In the helper. Returns errno, or 0. */
static int carry_out(void *arg)
{
    const struct order *order = arg;
    (void)umask(~order->mode & 0777);
    return bind(order->fd, (const struct sockaddr *)&order->addr->ss, order->addr->len) == 0 ? 0 : errno;
}

#ifdef CLONE_VFORK
/* It has our memory and descriptors, and this thread stands still meanwhile. It ends without a signal, and no wait() of
 * the program finds it. */
static pid_t start(struct order *order)
{
    _Alignas(64) char stack[16384];
    return clone(carry_out, stack + sizeof stack, CLONE_VM | CLONE_VFORK | CLONE_FILES, order);
}
#define WAIT_FLAGS __WALL
#else
static pid_t start(struct order *order)
{
    pid_t pid = fork();
    if (pid == 0)
        _exit(carry_out(order));
    return pid;
}
#define WAIT_FLAGS 0
#endif

int gyre__sock_bind_with_mode(int fd, const struct gyre__addr *addr, uint32_t mode)
{
    struct order order = {.addr = addr, .fd = fd, .mode = (mode_t)mode};
    sigset_t all, before;
    int status = 0, err = 0;
    (void)sigfillset(&all); /* or the program's handlers would run in the helper, too */
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    pid_t pid = start(&order);
    if (pid < 0)
        err = -errno;
    while (pid > 0 && err == 0 && waitpid(pid, &status, WAIT_FLAGS) != pid)
        err = errno == EINTR ? 0 : -errno;
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (err != 0)
        return err;
    return WIFEXITED(status) ? -WEXITSTATUS(status) : -EIO;
}
