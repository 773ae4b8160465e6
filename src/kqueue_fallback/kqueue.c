/* SPDX-License-Identifier: MIT
 * kqueue, behind the readiness engine.
 *
 * One EV_ADD of the read filter for the life of a descriptor, with EV_CLEAR, which makes it edge-triggered; one EV_ADD
 * of the write filter when writing first blocks. EV_ADD looks at the descriptor and reports what is ready already.
 *
 * A socket error comes in `fflags`. On a BSD the system call that follows reports it too; libkqueue has taken it from
 * the socket by then. So it is passed on, and readiness/error.c tells of it where the call does not.
 * Closing a descriptor removes its filters, also where a forked child holds a copy: a kqueue belongs to one process. */
#include "readiness/poller.h"

#include <sys/types.h>

#include <errno.h>
#include <stddef.h>
#include <sys/event.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum { WAKE_ID = 1, BATCH_MAX = 128, NS_PER_S = 1000 * 1000 * 1000 };

static int kq_open(struct gyre__poller *p)
{
    struct kevent ev;
    p->precise = true;
    p->fd = kqueue();
    if (p->fd < 0)
        return -errno;
    EV_SET(&ev, WAKE_ID, EVFILT_USER, EV_ADD | EV_CLEAR, 0, 0, NULL);
    return kevent(p->fd, &ev, 1, NULL, 0, NULL) == 0 ? 0 : -errno;
}

static void kq_close(struct gyre__poller *p)
{
    if (p->fd >= 0)
        (void)close(p->fd);
}

static int kq_add(struct gyre__poller *p, struct gyre__fd *f)
{
    struct kevent ev;
    EV_SET(&ev, (uintptr_t)f->fd, EVFILT_READ, EV_ADD | EV_CLEAR, 0, 0, f);
    return kevent(p->fd, &ev, 1, NULL, 0, NULL) == 0 ? 0 : -errno;
}

static int kq_watch_write(struct gyre__poller *p, struct gyre__fd *f)
{
    struct kevent ev;
    EV_SET(&ev, (uintptr_t)f->fd, EVFILT_WRITE, EV_ADD | EV_CLEAR, 0, 0, f);
    return kevent(p->fd, &ev, 1, NULL, 0, NULL) == 0 ? 0 : -errno;
}

/* close() would do, were it not for descriptors that stay open. */
static void kq_remove(struct gyre__poller *p, struct gyre__fd *f)
{
    struct kevent ev[2];
    EV_SET(&ev[0], (uintptr_t)f->fd, EVFILT_READ, EV_DELETE, 0, 0, NULL);
    EV_SET(&ev[1], (uintptr_t)f->fd, EVFILT_WRITE, EV_DELETE, 0, 0, NULL);
    (void)kevent(p->fd, ev, f->be_flags & GYRE_RDF_WATCHING_WRITE ? 2 : 1, NULL, 0, NULL);
}

static struct gyre__ready to_ready(const struct kevent *ev)
{
    unsigned bits = ev->filter == EVFILT_WRITE ? GYRE_RDF_WRITABLE : GYRE_RDF_READABLE;
    if (ev->filter == EVFILT_USER)
        return (struct gyre__ready){.f = NULL};
    /* On the write filter EV_EOF may be our own shutdown(), and says nothing about what can be received. */
    if (ev->filter == EVFILT_READ && (ev->flags & (EV_EOF | EV_ERROR)))
        bits |= GYRE_RDF_ODD;
    return (struct gyre__ready){.f = ev->udata, .bits = (uint8_t)bits, .err = (int32_t)ev->fflags};
}

static int kq_wait(struct gyre__poller *p, struct gyre__ready *out, unsigned cap, int64_t timeout_ns)
{
    struct kevent ev[BATCH_MAX];
    struct timespec ts = {.tv_sec = (time_t)(timeout_ns / NS_PER_S), .tv_nsec = (long)(timeout_ns % NS_PER_S)};
    int n = kevent(p->fd, NULL, 0, ev, cap < BATCH_MAX ? (int)cap : BATCH_MAX, timeout_ns < 0 ? NULL : &ts);
    if (n < 0)
        return -errno;
    for (int i = 0; i < n; i++)
        out[i] = to_ready(&ev[i]);
    return n;
}

static void kq_wake(struct gyre__poller *p)
{
    struct kevent ev;
    int saved = errno; /* a signal handler's caller must not see it change */
    EV_SET(&ev, WAKE_ID, EVFILT_USER, 0, NOTE_TRIGGER, 0, NULL);
    (void)kevent(p->fd, &ev, 1, NULL, 0, NULL);
    errno = saved;
}

static const char *kq_features(const struct gyre__poller *p)
{
    (void)p;
    return "edge-triggered,ev_clear,evfilt_user";
}

static const struct gyre__poller_ops poller = {
    .open = kq_open,
    .close = kq_close,
    .add = kq_add,
    .watch_write = kq_watch_write,
    .remove = kq_remove,
    .wait = kq_wait,
    .wake = kq_wake,
    .features = kq_features,
};

extern const struct gyre__backend_ops gyre__backend_kqueue;

static int create(struct gyre__backend **out, const struct gyre__backend_config *cfg, char *why, size_t why_size)
{
    return gyre__rd_create(out, cfg, &gyre__backend_kqueue, &poller, why, why_size);
}

const struct gyre__backend_ops gyre__backend_kqueue = {.name = "kqueue", .create = create, GYRE_READINESS_BACKEND};
