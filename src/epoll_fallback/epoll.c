/* SPDX-License-Identifier: MIT
 * epoll, behind the readiness engine.
 *
 * One EPOLL_CTL_ADD for the life of a descriptor, edge-triggered, for reading; one EPOLL_CTL_MOD when writing first
 * blocks. ADD and MOD both look at the descriptor and report what is ready already, so nothing is missed by watching
 * late. The kernel looks again when it hands an answer out, so an answer is never older than the wait that brings it.
 *
 * The eventfd of wake() is never read: being edge-triggered, each write to it is one answer. */
#include "readiness/poller.h"

#include <errno.h>
#include <stddef.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SYS_epoll_pwait2
#define SYS_epoll_pwait2 441
#endif

enum { BATCH_MAX = 128, NS_PER_MS = 1000 * 1000, NS_PER_S = 1000 * 1000 * 1000 };

/* PRI is for knowing that a receive will stop short of urgent data. */
static const uint32_t read_events = EPOLLIN | EPOLLPRI | EPOLLRDHUP | EPOLLET;

/* Linux 6.9, and newer than Debian 12's headers; theirs is struct epoll_params, this is EPIOCSPARAMS. */
struct busy_poll_params {
    uint32_t us;
    uint16_t budget; /* packets at a time; 0: the kernel's choice */
    uint8_t prefer;
    uint8_t zero;
};

#define SET_BUSY_POLL _IOW(0x8A, 0x01, struct busy_poll_params)

/* The time of the system call, which is not the struct timespec of a C library with a 32-bit time_t. */
struct wait_time {
    int64_t s;
    int64_t ns;
};

static int wait_precisely(int fd, struct epoll_event *ev, int cap, int64_t timeout_ns)
{
    struct wait_time ts = {.s = timeout_ns / NS_PER_S, .ns = timeout_ns % NS_PER_S};
    return (int)syscall(SYS_epoll_pwait2, fd, ev, cap, &ts, NULL, (size_t)0);
}

static int ep_open(struct gyre__poller *p)
{
    struct epoll_event ev = {.events = EPOLLIN | EPOLLET, .data.ptr = NULL};
    p->urgent = true;
    p->fd = epoll_create1(EPOLL_CLOEXEC);
    if (p->fd < 0)
        return -errno;
    p->precise = wait_precisely(p->fd, &(struct epoll_event){.events = 0}, 1, 0) == 0; /* Linux 5.11 */
    p->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (p->wake_fd < 0 || epoll_ctl(p->fd, EPOLL_CTL_ADD, p->wake_fd, &ev) != 0)
        return -errno;
    return 0;
}

static void ep_close(struct gyre__poller *p)
{
    if (p->wake_fd >= 0)
        (void)close(p->wake_fd);
    if (p->fd >= 0)
        (void)close(p->fd);
}

static int ep_busy_poll(struct gyre__poller *p, uint32_t us, bool prefer)
{
    struct busy_poll_params params = {.us = us, .prefer = prefer};
    return ioctl(p->fd, SET_BUSY_POLL, &params) == 0 ? 0 : -errno;
}

static int ep_add(struct gyre__poller *p, struct gyre__fd *f)
{
    struct epoll_event ev = {.events = read_events, .data.ptr = f};
    return epoll_ctl(p->fd, EPOLL_CTL_ADD, f->fd, &ev) == 0 ? 0 : -errno;
}

static int ep_watch_write(struct gyre__poller *p, struct gyre__fd *f)
{
    struct epoll_event ev = {.events = read_events | EPOLLOUT, .data.ptr = f};
    return epoll_ctl(p->fd, EPOLL_CTL_MOD, f->fd, &ev) == 0 ? 0 : -errno;
}

/* close() would do, were it not for copies of the descriptor in forked children: those keep it watched. */
static void ep_remove(struct gyre__poller *p, struct gyre__fd *f)
{
    (void)epoll_ctl(p->fd, EPOLL_CTL_DEL, f->fd, NULL);
}

static uint8_t to_bits(uint32_t events)
{
    unsigned bits = 0;
    if (events & (EPOLLIN | EPOLLPRI | EPOLLRDHUP | EPOLLHUP | EPOLLERR))
        bits |= GYRE_RDF_READABLE;
    if (events & (EPOLLOUT | EPOLLHUP | EPOLLERR))
        bits |= GYRE_RDF_WRITABLE;
    if (events & (EPOLLPRI | EPOLLRDHUP | EPOLLHUP | EPOLLERR))
        bits |= GYRE_RDF_ODD;
    return (uint8_t)bits;
}

/* Up, because early would be a busy loop. */
static int to_ms(int64_t ns)
{
    int64_t ms = ns < 0 ? -1 : ns / NS_PER_MS + (ns % NS_PER_MS != 0);
    return ms > INT32_MAX ? INT32_MAX : (int)ms;
}

static int ep_wait(struct gyre__poller *p, struct gyre__ready *out, unsigned cap, int64_t timeout_ns)
{
    struct epoll_event ev[BATCH_MAX];
    int max = cap < BATCH_MAX ? (int)cap : BATCH_MAX;
    int n = p->precise && timeout_ns > 0 ? wait_precisely(p->fd, ev, max, timeout_ns)
                                         : epoll_wait(p->fd, ev, max, to_ms(timeout_ns));
    if (n < 0)
        return -errno;
    for (int i = 0; i < n; i++)
        out[i] = (struct gyre__ready){.f = ev[i].data.ptr, .bits = to_bits(ev[i].events)};
    return n;
}

static void ep_wake(struct gyre__poller *p)
{
    int saved = errno; /* a signal handler's caller must not see it change */
    (void)!write(p->wake_fd, &(uint64_t){1}, sizeof(uint64_t));
    errno = saved;
}

static const char *ep_features(const struct gyre__poller *p)
{
    return p->precise ? "edge-triggered,pwait2,eventfd" : "edge-triggered,eventfd";
}

static const struct gyre__poller_ops poller = {
    .open = ep_open,
    .close = ep_close,
    .busy_poll = ep_busy_poll,
    .add = ep_add,
    .watch_write = ep_watch_write,
    .remove = ep_remove,
    .wait = ep_wait,
    .wake = ep_wake,
    .features = ep_features,
};

extern const struct gyre__backend_ops gyre__backend_epoll;

static int create(struct gyre__backend **out, const struct gyre__backend_config *cfg, char *why, size_t why_size)
{
    return gyre__rd_create(out, cfg, &gyre__backend_epoll, &poller, why, why_size);
}

const struct gyre__backend_ops gyre__backend_epoll = {.name = "epoll", .create = create, GYRE_READINESS_BACKEND};
