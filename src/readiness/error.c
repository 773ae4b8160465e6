/* SPDX-License-Identifier: MIT
 * Errors that a poller told of.
 *
 * kqueue has a socket's error in the event. A BSD leaves it to the next call too, but libkqueue takes it from the
 * socket, which then shows no more than an end, or nothing at all. So it is kept until a call fails, and takes the
 * place of a result that says less. */
#include "poller.h"

#include "base/mem.h"

#include <errno.h>

enum { ROOM_FIRST = 256 };

/* Without memory for it there is still the flag; see error_of(). */
void gyre__error_keep(struct gyre__kept_errors *all, const struct gyre_mem *mem, struct gyre__fd *f, int32_t err)
{
    uint32_t fd = (uint32_t)f->fd, room = all->room > 0 ? all->room : ROOM_FIRST;
    while (room <= fd)
        room *= 2;
    if (room > all->room) {
        uint8_t *by_fd = gyre__resize_many(mem, all->by_fd, 0, room, sizeof *by_fd);
        if (by_fd != NULL)
            *all = (struct gyre__kept_errors){.by_fd = by_fd, .room = room};
    }
    if (fd < all->room)
        all->by_fd[fd] = (uint8_t)(err <= UINT8_MAX ? err : ECONNRESET);
    f->be_flags |= GYRE_RDF_FAILED;
}

static int32_t error_of(const struct gyre__kept_errors *all, const struct gyre__fd *f)
{
    uint32_t fd = (uint32_t)f->fd;
    return fd < all->room ? all->by_fd[fd] : ECONNRESET; /* which it nearly always is */
}

/* Whether a call's result says less than an error that is known of the socket. */
static bool says_less(const struct gyre__op *op, int32_t res)
{
    switch ((enum gyre__op_kind)op->kind) {
    case GYRE_OP_CONNECT:
        return res == GYRE_BLOCKED || res == -ECONNRESET;
    case GYRE_OP_RECV:
        return res == GYRE_BLOCKED || res == 0;
    case GYRE_OP_RECVMSG:
        return res == GYRE_BLOCKED;
    case GYRE_OP_SEND:
    case GYRE_OP_SENDMSG:
    case GYRE_OP_SPLICE:
        return res == -EPIPE;
    case GYRE_OP_POLL:
        return true;
    case GYRE_OP_ACCEPT:
    case GYRE_OP_READ:
        break;
    }
    return false;
}

unsigned gyre__error_tell(const struct gyre__kept_errors *all, struct gyre__op *op, struct gyre__event *ev, unsigned n)
{
    struct gyre__fd *f = op->f;
    int32_t res = n > 0 ? ev->res : GYRE_BLOCKED;
    if (says_less(op, res)) {
        *ev = (struct gyre__event){.op = op, .res = -error_of(all, f)};
        if (op->kind == GYRE_OP_CONNECT)
            f->be_flags |= GYRE_RDF_READABLE; /* a receive fails at once, as perform.c has it */
    } else if (res >= 0 || res == -ENOBUFS || res == GYRE_BLOCKED) {
        return n;
    }
    f->be_flags &= (uint8_t)~GYRE_RDF_FAILED;
    return n > 0 ? n : 1;
}
