/* SPDX-License-Identifier: MIT
 * A connection's descriptor, duplicated or handed to the user.
 *
 * The normal course of detaching: what is queued is sent, receiving is cancelled, what it still brings is kept. When
 * nothing is in flight the backend lets go of the descriptor, and the user gets it with the bytes that were not read
 * (leave() in life.c). What can go wrong: the connection fails, or the loop ends, before that. Then on_close runs as
 * ever, and the user is not handed anything. */
#include "conn.h"

#include <errno.h>

int gyre_conn_dup_fd(const struct gyre_conn *c)
{
    int err = gyre__conn_usable(c);
    if (err == 0 && c->f.fd < 0)
        err = -ENOTCONN;
    if (err != 0)
        return err;
    gyre__conn_touch(c);
    return c->loop->be->ops->sock->dup(c->loop->be, c->f.fd);
}

int gyre_conn_detach(struct gyre_conn *c, gyre_detached_fn *done, void *user)
{
    int err = done == NULL ? -EINVAL : gyre__conn_usable(c);
    if (err != 0)
        return err;
    if (c->state != GYRE_CONN_OPEN || c->profile->pinned)
        return GYRE_ESTATE;
    if (c->flags & GYRE_CF_SEND_FAILED)
        return c->err;
    struct gyre__extra *extra = gyre__conn_extra(c);
    if (extra == NULL)
        return -ENOMEM;
    extra->detached = done;
    extra->detached_user = user;
    c->state = GYRE_CONN_DETACHING;
    c->flags &= ~(unsigned)(GYRE_CF_CORKED | GYRE_CF_WAKE);
    c->seen_unacked = 0;
    gyre__forward_forget(c);
    gyre__forward_release_waiters(c);
    gyre__conn_start_timer(c);
    gyre__conn_update_recv(c);
    gyre__conn_settle_later(c);
    return 0;
}
