/* SPDX-License-Identifier: MIT
 * Connecting to a name or to a list of addresses.
 *
 * The normal course: the connection is made without a socket, so writes can be queued at once. A name is looked up.
 * Then the addresses race, and the winner's socket becomes the connection's. One time limit, the connection's, holds
 * for all of it.
 *
 * What can go wrong: the lookup fails: on_close gets its error. The connection ends while the lookup is under way: the
 * lookup is forgotten. */
#include "dial.h"
#include "race.h"
#include "resolve/resolve.h"
#include "socket/addr.h"

#include <errno.h>
#include <gyre/connect.h>
#include <stdio.h>
#include <string.h>

static struct gyre__race *race_of(struct gyre__dialing *d)
{
    return GYRE_CONTAINER(d, struct gyre__race, dialing);
}

/* The connection is ENDING. The targets stay, for gyre_conn_connect_error(). */
static void stop(struct gyre__dialing *d)
{
    struct gyre__race *r = race_of(d);
    if (r->lookup != NULL)
        gyre__resolve_forget(r->lookup);
    r->lookup = NULL;
    gyre__race_stop(r);
}

static void release(struct gyre__dialing *d)
{
    struct gyre__race *r = race_of(d);
    const struct gyre_mem *mem = r->conn->loop->mem;
    stop(d);
    gyre__free(mem, r->targets);
    gyre__free(mem, r);
}

/* ---- where to ---- */

static bool allowed(const struct gyre__race *r, int family)
{
    return r->route.family == AF_UNSPEC || r->route.family == family;
}

static int targets_of_name(struct gyre__race *r, const struct sockaddr_storage *addresses, size_t count)
{
    struct gyre__host host;
    r->targets = gyre__alloc_many(r->conn->loop->mem, count, sizeof *r->targets);
    if (r->targets == NULL)
        return -ENOMEM;
    int err = gyre__addr_parse_host(&host, r->text);
    for (size_t i = 0; i < count && err == 0; i++)
        if (allowed(r, addresses[i].ss_family))
            gyre__addr_set(&r->targets[r->count++].addr, &addresses[i], host.port);
    return err == 0 && r->count == 0 ? GYRE_ENONAME : err;
}

static int targets_of_list(struct gyre__race *r)
{
    struct gyre__address item;
    uint32_t count = gyre__addr_list_count(r->text);
    r->targets = gyre__alloc_many(r->conn->loop->mem, count, sizeof *r->targets);
    if (r->targets == NULL)
        return -ENOMEM;
    for (uint32_t i = 0; i < count; i++) {
        int err = gyre__addr_list_item(&item, r->text, i);
        if (err != 0)
            return err;
        if (allowed(r, item.addr.ss.ss_family))
            r->targets[r->count++].addr = item.addr;
    }
    return r->count == 0 ? GYRE_EADDRESS : 0;
}

static void on_resolved(struct gyre_loop *l, int err, const struct sockaddr_storage *addresses, size_t count,
                        void *user)
{
    struct gyre__race *r = user;
    struct gyre_conn *c = r->conn;
    (void)l;
    r->lookup = NULL;
    if (c->state == GYRE_CONN_ENDING)
        return;
    r->err = err == 0 ? targets_of_name(r, addresses, count) : err;
    if (r->err != 0) {
        gyre__conn_end(c, GYRE_CLOSE_CONNECT, r->err);
        return;
    }
    gyre__race_interleave(r->targets, r->count);
    gyre__race_start(r);
}

static int begin(struct gyre__race *r)
{
    struct gyre__host host;
    if (r->route.kind == GYRE_ROUTE_LIST) {
        int err = targets_of_list(r);
        if (err != 0)
            return err;
        gyre__race_interleave(r->targets, r->count);
        gyre__race_start(r);
        return 0;
    }
    int err = gyre__addr_parse_host(&host, r->text);
    const struct gyre__resolve_request request = {.name = host.name, .family = r->route.family, .done = on_resolved,
                                                  .user = r};
    return err != 0 ? err : gyre__resolve(&r->lookup, r->conn->loop, &request);
}

static struct gyre__race *new_race(struct gyre_conn *c, const struct gyre__route *route)
{
    struct gyre__extra *extra = gyre__conn_extra(c);
    size_t len = strlen(route->text) + 1;
    struct gyre__race *r = extra != NULL ? gyre__alloc(c->loop->mem, sizeof *r + len) : NULL;
    if (r == NULL)
        return NULL;
    r->dialing = (struct gyre__dialing){.stop = stop, .free = release};
    r->conn = c;
    r->route = *route;
    r->route.text = r->text;
    memcpy(r->text, route->text, len);
    extra->dialing = &r->dialing;
    return r;
}

int gyre__dial(struct gyre_conn **out, struct gyre_loop *l, const struct gyre__route *route,
               struct gyre__profile *profile, unsigned how)
{
    struct gyre_conn *c;
    int err = gyre__conn_new(&c, l, -1, profile, how);
    if (err != 0)
        return err;
    struct gyre__race *r = new_race(c, route);
    err = r != NULL ? 0 : -ENOMEM;
    if (err == 0) {
        gyre__conn_start_timer(c);
        err = begin(r);
    }
    if (err != 0) {
        gyre__conn_unmake(c);
        return err;
    }
    profile->refs++;
    *out = c;
    return 0;
}

/* ---- what came of it ---- */

struct text {
    char *out;
    size_t size, len;
};

static void add(struct text *text, const char *first, const char *second)
{
    size_t room = text->len < text->size ? text->size - text->len : 0;
    int n = snprintf(room > 0 ? text->out + text->len : NULL, room, "%s%s %s", text->len > 0 ? ", " : "", first,
                     second);
    text->len += n > 0 ? (size_t)n : 0;
}

static void add_target(struct text *text, const struct gyre__addr *addr, const char *what)
{
    char address[GYRE_ADDR_TEXT_MAX];
    gyre__addr_format(addr, address, sizeof address);
    add(text, address, what);
}

static void add_race(struct text *text, const struct gyre__race *r, int err)
{
    if (r->count == 0) {
        add(text, r->text, gyre_err_name(r->err != 0 ? r->err : err));
        return;
    }
    for (uint32_t i = 0; i < r->count; i++) {
        const struct gyre__target *t = &r->targets[i];
        add_target(text, &t->addr, t->err != 0 ? gyre_err_name(t->err) : i < r->next ? "no answer" : "not tried");
    }
}

int64_t gyre_conn_connect_error(char *out, size_t size, const struct gyre_conn *c)
{
    struct text text = {.out = out, .size = size};
    struct gyre__addr addr;
    if (c == NULL)
        return GYRE_ECLOSED;
    if (!gyre__loop_allows(c->loop))
        return GYRE_ETHREAD;
    if (out == NULL && size > 0)
        return -EINVAL;
    if (size > 0)
        out[0] = '\0';
    if (c->reason != GYRE_CLOSE_CONNECT)
        return 0;
    if (c->extra != NULL && c->extra->dialing != NULL)
        add_race(&text, race_of(c->extra->dialing), c->err);
    else if (c->loop->be->ops->sock->name(c->loop->be, c->f.fd, true, &addr) == 0)
        add_target(&text, &addr, gyre_err_name(c->err));
    else
        add(&text, "connecting:", gyre_err_name(c->err));
    return (int64_t)text.len;
}
