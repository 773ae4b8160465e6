/* SPDX-License-Identifier: MIT
 * What a connection is: its loop, listener, descriptor and addresses. */
#include "conn.h"

#include <errno.h>

struct gyre_loop *gyre_conn_loop(const struct gyre_conn *c)
{
    return c->loop;
}

struct gyre_listener *gyre_conn_listener(const struct gyre_conn *c)
{
    return c->profile->listener;
}

void *gyre_conn_user(const struct gyre_conn *c)
{
    return c->user;
}

void gyre_conn_set_user(struct gyre_conn *c, void *user)
{
    c->user = user;
}

int gyre_conn_fd(const struct gyre_conn *c)
{
    return c->f.fd;
}

static int address(const struct gyre_conn *c, bool peer, struct sockaddr_storage *out, socklen_t *out_len)
{
    struct gyre_addr addr;
    if (c == NULL)
        return GYRE_ECLOSED;
    if (!gyre__loop_allows(c->loop))
        return GYRE_ETHREAD;
    if (out == NULL || out_len == NULL)
        return -EINVAL;
    struct gyre_backend *be = c->loop->be;
    int err = be->ops->sock->name(be, c->f.fd, peer, &addr);
    if (err != 0)
        return err;
    *out = addr.ss;
    *out_len = addr.len;
    return 0;
}

int gyre_conn_local_address(const struct gyre_conn *c, struct sockaddr_storage *out, socklen_t *out_len)
{
    return address(c, false, out, out_len);
}

int gyre_conn_peer_address(const struct gyre_conn *c, struct sockaddr_storage *out, socklen_t *out_len)
{
    return address(c, true, out, out_len);
}
