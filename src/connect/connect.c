/* SPDX-License-Identifier: MIT
 * Outgoing connections.
 *
 * The normal course: a socket, a connection in state CONNECTING around it, a CONNECT op (in the place of the send op),
 * and on success the same way on as an accepted one. What can go wrong before the op is submitted is returned at once
 * and leaves nothing behind; what goes wrong after it is told by on_close alone. */
#include "connect.h"
#include "dial.h"
#include "socket/addr.h"

#include <errno.h>
#include <string.h>

void gyre__conn_on_connect(struct gyre__op *op, const struct gyre__event *ev)
{
    struct gyre_conn *c = GYRE_CONTAINER(op, struct gyre_conn, send);
    struct gyre_loop *l = c->loop;
    bool is_unix = op->u.connect.addr->sa_family == AF_UNIX;
    if (GYRE_UNLIKELY(ev->res == -EAGAIN && is_unix && c->state != GYRE_CONN_ENDING)) {
        gyre__conn_connect_later(c);
        return;
    }
    struct gyre__addr *to = GYRE_CONTAINER((void *)(uintptr_t)op->u.connect.addr, struct gyre__addr, ss);
    int err = ev->res;
    if (err == 0 && c->state != GYRE_CONN_ENDING && gyre__connect_is_self(l, c->f.fd, to)) {
        err = GYRE_ESELF;
        c->flags |= GYRE_CF_RESET; /* or the port would be taken for a while */
    }
    gyre__free(l->mem, to);
    op->done = GYRE_DONE_SENT;
    if (c->state == GYRE_CONN_ENDING) {
        gyre__conn_settle_later(c);
        return;
    }
    if (err != 0) {
        gyre__conn_end(c, GYRE_CLOSE_CONNECT, err);
        return;
    }
    gyre__count(&l->be->stats.connected, 1);
    gyre__conn_opened(c);
}

/* From here on failures are events. */
static int start_connect(struct gyre_conn *c, const struct gyre__addr *addr)
{
    struct gyre_loop *l = c->loop;
    struct gyre__addr *copy = gyre__alloc(l->mem, sizeof *copy);
    if (copy == NULL)
        return -ENOMEM;
    *copy = *addr;
    c->send.kind = GYRE_OP_CONNECT;
    c->send.flags = 0;
    c->send.done = GYRE_DONE_CONNECT;
    c->send.u.connect.addr = (const struct sockaddr *)&copy->ss;
    c->send.u.connect.len = (uint16_t)copy->len;
    c->send.u.connect.started = false;
    gyre__conn_start_timer(c);
    gyre__op_submit(l, &c->send);
    return 0;
}

int gyre__connect_with(struct gyre_conn **out, struct gyre_loop *l, const struct gyre__route *route,
                       struct gyre__profile *profile, unsigned how)
{
    struct gyre_conn *c;
    if (route->kind != GYRE_ROUTE_ONE)
        return gyre__dial(out, l, route, profile, how);
    int fd = gyre__connect_socket(l, profile, route);
    if (fd < 0) {
        if (how & GYRE_CONN_RESERVED)
            gyre__loop_unreserve(l);
        return fd;
    }
    int err = gyre__conn_new(&c, l, fd, profile, how | (gyre__addr_is_unix(&route->to) ? 0 : GYRE_FDF_INET));
    if (err != 0)
        return err;
    err = start_connect(c, &route->to);
    if (err != 0) {
        gyre__conn_unmake(c);
        return err;
    }
    c->flags |= GYRE_CF_CALLER | GYRE_CF_HEARD; /* it owes nothing so far */
    profile->refs++;
    *out = c;
    return 0;
}

int gyre_connect_sized(struct gyre_conn **out, struct gyre_loop *l, const char *address,
                       const struct gyre_conn_handlers *handlers, const struct gyre_conn_options *options,
                       size_t size_bytes)
{
    struct gyre__profile *profile;
    struct gyre__route route;
    struct gyre_conn *c;
    int err = address == NULL ? -EINVAL : gyre__loop_may_connect(l);
    if (err == 0)
        err = gyre__profile_new(&profile, l->mem, handlers, options, size_bytes);
    if (err != 0)
        return err;
    err = gyre__route_find(&route, address, &profile->options);
    if (err == 0)
        err = gyre__connect_with(&c, l, &route, profile, 0);
    if (err != 0) {
        gyre__free(l->mem, profile);
        return err;
    }
    if (out != NULL)
        *out = c;
    return 0;
}
