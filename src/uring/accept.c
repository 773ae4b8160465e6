/* SPDX-License-Identifier: MIT
 * Accepting on a listening socket that others share.
 *
 * The kernel's own accept waits exclusively: of all that wait on a socket, a connection wakes one. That one may be a
 * loop that is busy (1 of 13 clients was served), or a process that is stopped; or its accept is cancelled, and the
 * wake is lost. So where others accept, too, all wait by a poll, which wakes all of them, and accept with calls of
 * their own. Who comes too late waits again. */
#include "queue.h"

#include <errno.h>
#include <sys/socket.h>

enum { AT_ONCE = 16 }; /* connections for one poll: with as many more waiting, the next one ends at once */

/* Returns a descriptor, which blocks, or -errno. */
static int32_t accept_one(struct gyre__uring *u, int listener)
{
    int fd;
    do {
        gyre__count(&u->base.stats.calls, 1);
        if (!gyre__sock_may_accept(listener))
            return -EAGAIN;
        gyre__count(&u->base.stats.calls, 1);
        fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    } while (fd < 0 && errno == EINTR);
    return fd >= 0 ? fd : -errno;
}

unsigned gyre__uring_accept_polled(struct gyre__uring *u, struct gyre__op *op, struct gyre__event *out, unsigned cap)
{
    unsigned n = 0, most = op->flags & GYRE_OPF_MULTI ? cap < AT_ONCE ? cap : AT_ONCE : 1;
    if (out->res < 0)
        return 1;
    if (op->state == GYRE_OPS_CANCELLING) {
        out->res = -ECANCELED; /* who waits for it is somebody else's */
        return 1;
    }
    while (n < most) {
        int32_t res = accept_one(u, op->f->fd);
        if (res == -EAGAIN)
            break;
        out[n++] = (struct gyre__event){.op = op, .res = res};
        if (res < 0 || !(op->flags & GYRE_OPF_MULTI))
            return n;
        out[n - 1].flags = GYRE_EV_MORE;
    }
    gyre__count(&u->base.stats.rearms_idle, n == 0);
    (void)gyre__uring_put_or_wait(u, op);
    return n;
}

int gyre__uring_accept_now(struct gyre__backend *be, struct gyre__fd *f)
{
    return accept_one(gyre__uring_of(be), f->fd);
}
