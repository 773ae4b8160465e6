/* SPDX-License-Identifier: MIT
 * Connections whose socket comes from elsewhere.
 *
 * The normal course: the descriptor is looked at, the options are set on it, and a connection in state CONNECTING is
 * made around it. Settling opens it at the end of the turn. What can go wrong is returned, and the descriptor stays the
 * caller's. */
#include "connect.h"
#include "socket/addr.h"
#include "socket/prepare.h"

#include <errno.h>

/* Whether the descriptor is one that a connection can be made of. */
static int inspect(struct gyre_loop *l, int fd, unsigned *how)
{
    struct gyre__sock_info info;
    int err = gyre__addr_inspect(l->be, fd, &info);
    if (err != 0)
        return err;
    *how = info.family != AF_UNIX ? GYRE_FDF_INET : 0;
    return info.stream && info.connected ? 0 : GYRE_ESOCKTYPE;
}

/* On failure the descriptor stays the caller's. */
static int adopt(struct gyre_conn **out, struct gyre_loop *l, int fd, struct gyre__profile *profile, unsigned how)
{
    struct gyre_conn *c;
    int err = gyre__options_apply(l->be, fd, &profile->options, how != 0);
    if (err == 0)
        err = gyre__conn_new(&c, l, fd, profile, how | GYRE_CONN_FOREIGN);
    if (err != 0)
        return err;
    c->flags |= GYRE_CF_CONNECTED;
    gyre__count(&l->be->stats.adopted, 1);
    gyre__conn_settle_later(c); /* which opens it */
    *out = c;
    return 0;
}

int gyre_conn_adopt_fd_sized(struct gyre_conn **out, struct gyre_loop *l, int fd,
                             const struct gyre_conn_handlers *handlers, const struct gyre_conn_options *options,
                             size_t size_bytes)
{
    struct gyre_conn *c;
    struct gyre__profile *profile;
    unsigned how = 0;
    int err = gyre__loop_may_connect(l);
    if (err == 0)
        err = inspect(l, fd, &how);
    if (err == 0)
        err = gyre__profile_new(&profile, l->mem, handlers, options, size_bytes);
    if (err != 0)
        return err;
    profile->refs = 1;
    err = adopt(&c, l, fd, profile, how);
    if (err != 0) {
        gyre__free(l->mem, profile);
        return err;
    }
    if (out != NULL)
        *out = c;
    return 0;
}
