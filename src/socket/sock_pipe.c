/* SPDX-License-Identifier: MIT
 * Pipes that bytes go through from socket to socket without being looked at: splice(2).
 *
 * The normal course: an empty pipe is filled from one socket, which moves references to the kernel's own pages, and
 * drained into another. It is filled once and then drained, and filled only if bytes are known to wait.
 *
 * Three traps. Whatever its flags say, splice(2) waits if the socket is in blocking mode (seen on Linux 6.18.44). Bytes
 * that wait are moved without that; to drain into a socket it must not block. And splice(2) raises SIGPIPE where the
 * peer is gone, with no flag against it, even after it has moved some bytes: the signal is blocked meanwhile, and one
 * that the call has raised is taken away, but none that was pending before. And an error that it meets after some bytes
 * is lost, see drain(). */
#include "sock.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <unistd.h>

#ifdef SPLICE_F_MOVE

enum { SIZE_MIN = 64 << 10 }; /* with less a call moves too little to be worth it */

static void close_both(struct gyre__pipe *p)
{
    (void)close(p->read_fd);
    (void)close(p->write_fd);
    *p = (struct gyre__pipe){.read_fd = -1, .write_fd = -1};
}

static int pipe_open(struct gyre__backend *be, struct gyre__pipe *out, uint32_t size_bytes)
{
    int fds[2];
    (void)be;
    if (pipe2(fds, O_CLOEXEC | O_NONBLOCK) != 0)
        return -errno;
    struct gyre__pipe p = {.read_fd = fds[0], .write_fd = fds[1]};
    /* Refused where this user's pipes have too many pages already. What there is may do. */
    (void)fcntl(p.write_fd, F_SETPIPE_SZ, (int)size_bytes);
    if (fcntl(p.write_fd, F_GETPIPE_SZ) < SIZE_MIN) {
        close_both(&p);
        return -ENOBUFS;
    }
    *out = p;
    return 0;
}

static int64_t pipe_read(struct gyre__backend *be, const struct gyre__pipe *p, void *buf, size_t len)
{
    ssize_t n;
    (void)be;
    do
        n = read(p->read_fd, buf, len);
    while (n < 0 && errno == EINTR);
    return n >= 0 ? n : -errno;
}

static void pipe_close(struct gyre__backend *be, struct gyre__pipe *p)
{
    (void)be;
    close_both(p);
}

const struct gyre__pipe_ops gyre__pipe_system = {.open = pipe_open, .read = pipe_read, .close = pipe_close};

uint32_t gyre__pipe_waiting(int fd)
{
    int bytes = 0;
    return ioctl(fd, FIONREAD, &bytes) == 0 && bytes > 0 ? (uint32_t)bytes : 0;
}

static int32_t move(int from, int to, size_t len)
{
    ssize_t n;
    do
        n = splice(from, NULL, to, NULL, len, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
    while (n < 0 && errno == EINTR);
    return n >= 0 ? (int32_t)n : -errno;
}

int32_t gyre__pipe_fill(const struct gyre__pipe *p, int fd)
{
    return move(fd, p->write_fd, GYRE_PIPE_BYTES);
}

/* Take away a SIGPIPE that is pending for this thread. Returns whether there was one. */
static bool take_signal(const sigset_t *sigpipe)
{
    const struct timespec none = {.tv_sec = 0};
    int number;
    do
        number = sigtimedwait(sigpipe, NULL, &none);
    while (number < 0 && errno == EINTR);
    return number >= 0;
}

/* A call that stops short has met -EAGAIN, or an error that it takes from the socket and keeps to itself: a receive
 * would find the end of the stream. The signal gives that away, or the next call, to which only -EPIPE is left. */
static int32_t drain(const struct gyre__pipe *p, int fd, uint32_t len, const sigset_t *sigpipe)
{
    uint32_t moved = 0;
    int32_t n = 1;
    bool raised = false;
    while (moved < len && n > 0 && !raised) {
        n = move(p->read_fd, fd, len - moved);
        moved += n > 0 ? (uint32_t)n : 0;
        if (moved < len && n != -EAGAIN && sigpipe != NULL)
            raised = take_signal(sigpipe);
    }
    if (moved == 0)
        return n;
    if (raised && n > 0)
        return -EPIPE;
    if (n < 0 && n != -EAGAIN)
        return n == -EPIPE ? -ECONNRESET : n;
    return (int32_t)moved;
}

int32_t gyre__pipe_drain(const struct gyre__pipe *p, int fd, uint32_t len)
{
    sigset_t sigpipe, before, pending;
    (void)sigemptyset(&sigpipe);
    (void)sigemptyset(&pending);
    (void)sigaddset(&sigpipe, SIGPIPE);
    (void)pthread_sigmask(SIG_BLOCK, &sigpipe, &before);
    if (sigismember(&before, SIGPIPE))
        (void)sigpending(&pending);
    int32_t n = drain(p, fd, len, sigismember(&pending, SIGPIPE) ? NULL : &sigpipe);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    return n;
}

#else

uint32_t gyre__pipe_waiting(int fd)
{
    (void)fd;
    return 0;
}

int32_t gyre__pipe_fill(const struct gyre__pipe *p, int fd)
{
    (void)p;
    (void)fd;
    return -ENOSYS;
}

int32_t gyre__pipe_drain(const struct gyre__pipe *p, int fd, uint32_t len)
{
    (void)p;
    (void)fd;
    (void)len;
    return -ENOSYS;
}

#endif
