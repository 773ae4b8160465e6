/* SPDX-License-Identifier: MIT
 * Bytes that go from socket to socket through pipes: the ring waits, and splice(2) is called directly. The ring's own
 * splice runs on a thread of the kernel's, always.
 *
 * Receiving is a part of direct.c: where a stream that waits by poll is to bring pipes, and enough bytes wait, they are
 * moved into one. That has emptied the socket if as many were moved as waited, unless it stopped at urgent data, which
 * the poll cannot tell (Linux reports POLLPRI with all data); then an ordinary receive goes on. Sending is tried at
 * once in submit(); where there is no room a poll in the ring waits for some.
 *
 * splice(2) waits on a socket in blocking mode, and the ring gives -EAGAIN on one that is not. So a socket's mode is
 * changed before bytes are moved into it, and changed back before anything of it goes into the ring; a relay that only
 * moves bulk never changes back. What is in the ring already and not with the kernel must find it blocking, too: then
 * it is changed for the time of the call only. */
#include "splice.h"

#include <errno.h>

int32_t gyre__splice_receive(struct gyre__uring *u, struct gyre__op *op, struct gyre__event *ev, bool *more)
{
    struct gyre__fd *f = op->f;
    struct gyre__bufpool *pool = op->u.recv.pool;
    if (pool->pipe_nfree == 0 || (f->be_flags & GYRE_UF_HUNG))
        return 0;
    gyre__count(&u->base.stats.calls, 1);
    uint32_t waiting = gyre__pipe_waiting(f->fd);
    if (waiting < GYRE_PIPE_WORTH)
        return 0;
    int pipe = gyre__bufpool_take_pipe(pool);
    gyre__count(&u->base.stats.calls, 1);
    int32_t res = gyre__pipe_fill(&pool->pipes[pipe], f->fd);
    if (res <= 0) {
        gyre__bufpool_give_pipe(pool, (uint16_t)pipe);
        f->flags &= (uint8_t)~GYRE_FDF_PIPE;
        return 0;
    }
    *more = (uint32_t)res < waiting || sockatmark(f->fd) == 1;
    *ev = (struct gyre__event){.op = op, .res = res, .flags = GYRE_EV_PIPE | GYRE_EV_MORE, .buf = (uint16_t)pipe};
    return res;
}

int32_t gyre__splice_once(struct gyre__uring *u, const struct gyre__op *op)
{
    struct gyre__fd *f = op->f;
    gyre__count(&u->base.stats.calls, 1);
    if (!f->be.ur.nonblocking)
        gyre__uring_set_mode(f, true);
    if (GYRE_UNLIKELY(!f->be.ur.nonblocking))
        return -EIO; /* UNTESTED: no socket refuses that */
    int32_t n = gyre__pipe_drain(op->u.splice.pipe, f->fd, op->u.splice.len);
    if (gyre__uring_unsubmitted(u) > 0)
        gyre__uring_set_mode(f, false);
    return n;
}

bool gyre__splice_try(struct gyre__uring *u, struct gyre__op *op)
{
    if (u->ndone == GYRE_URING_DONE_MAX || !u->started)
        return false;
    int32_t n = gyre__splice_once(u, op);
    if (n == -EAGAIN)
        return false;
    gyre__uring_made(u, op, n);
    return true;
}
