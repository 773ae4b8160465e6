/* SPDX-License-Identifier: MIT
 * Names of connections that outlive them, and what other threads may do by name.
 *
 * A call from another thread becomes a task on the connection's loop; there the name is looked up, and a stale one
 * finds nothing: the generation of a slot goes up each time a connection leaves it. */
#include "conn.h"

#include <errno.h>
#include <string.h>

struct gyre_conn_id gyre_conn_id(const struct gyre_conn *c)
{
    return (struct gyre_conn_id){.loop = c->loop, .slot = c->slot, .generation = c->generation};
}

struct gyre_conn *gyre_conn_from_id(struct gyre_conn_id id)
{
    if (id.loop == NULL || id.slot / GYRE_CONNS_PER_SLAB >= id.loop->conn_slab_count)
        return NULL;
    struct gyre_conn *c = &id.loop->conn_slabs[id.slot / GYRE_CONNS_PER_SLAB][id.slot % GYRE_CONNS_PER_SLAB];
    return c->generation == id.generation && c->state != GYRE_CONN_FREE ? c : NULL;
}

/* ---- write ---- */

struct remote_write {
    struct gyre__task task;
    struct gyre_conn_id id;
    gyre_sent_fn *done;
    void *user;
    size_t len;
    uint8_t data[];
};

static void write_done(void *user, int err)
{
    struct remote_write *w = user;
    if (w->done != NULL)
        w->done(w->user, err);
    gyre__free(w->id.loop->mem, w);
}

static void run_write(struct gyre_loop *l, void *user)
{
    struct remote_write *w = user;
    struct gyre_conn *c = gyre_conn_from_id(w->id);
    (void)l;
    int err = c == NULL ? GYRE_ESTALE : gyre_conn_write_ref(c, w->data, w->len, write_done, w);
    if (err != 0)
        write_done(w, err);
}

int gyre_conn_id_write(struct gyre_conn_id id, const void *data, size_t len, gyre_sent_fn *done, void *user)
{
    if (id.loop == NULL || (data == NULL && len > 0))
        return -EINVAL;
    struct remote_write *w = gyre__resize(id.loop->mem, NULL, sizeof *w + len);
    if (w == NULL)
        return -ENOMEM;
    *w = (struct remote_write){.id = id, .done = done, .user = user, .len = len};
    w->task = (struct gyre__task){.run = run_write, .user = w, .embedded = true};
    if (len > 0)
        memcpy(w->data, data, len);
    int err = gyre__loop_post_task(id.loop, &w->task);
    if (err != 0)
        gyre__free(id.loop->mem, w);
    return err;
}

/* ---- wake and close ---- */

struct remote_call {
    struct gyre__task task;
    struct gyre_conn_id id;
    int (*call)(struct gyre_conn *c);
};

static void run_call(struct gyre_loop *l, void *user)
{
    struct remote_call *r = user;
    struct gyre_conn *c = gyre_conn_from_id(r->id);
    int (*call)(struct gyre_conn *) = r->call;
    gyre__free(l->mem, r);
    if (c != NULL)
        (void)call(c); /* closing already: nothing to do */
}

static int call_by_id(struct gyre_conn_id id, int (*call)(struct gyre_conn *c))
{
    if (id.loop == NULL)
        return -EINVAL;
    struct remote_call *r = gyre__alloc(id.loop->mem, sizeof *r);
    if (r == NULL)
        return -ENOMEM;
    *r = (struct remote_call){.id = id, .call = call};
    r->task = (struct gyre__task){.run = run_call, .user = r, .embedded = true};
    int err = gyre__loop_post_task(id.loop, &r->task);
    if (err != 0)
        gyre__free(id.loop->mem, r);
    return err;
}

int gyre_conn_id_wake(struct gyre_conn_id id)
{
    return call_by_id(id, gyre_conn_wake);
}

int gyre_conn_id_close(struct gyre_conn_id id)
{
    return call_by_id(id, gyre_conn_close);
}

int gyre_conn_id_abort(struct gyre_conn_id id)
{
    return call_by_id(id, gyre_conn_abort);
}

/* ---- close, and tell ---- */

struct gyre__closed_waiter {
    struct gyre__task task;
    struct gyre__closed_waiter *next;
    struct gyre_conn_id id;
    gyre_closed_fn *done;
    void *user;
};

void gyre__tell_closed(struct gyre_loop *l, struct gyre__closed_waiter *waiters, int err)
{
    while (waiters != NULL) {
        struct gyre__closed_waiter *w = waiters;
        gyre_closed_fn *done = w->done;
        void *user = w->user;
        waiters = w->next;
        gyre__free(l->mem, w);
        done(user, err);
    }
}

static void run_close_then(struct gyre_loop *l, void *user)
{
    struct gyre__closed_waiter *w = user;
    struct gyre_conn *c = gyre_conn_from_id(w->id);
    struct gyre__extra *extra = c != NULL ? gyre__conn_extra(c) : NULL;
    if (extra == NULL) {
        gyre__tell_closed(l, w, c == NULL ? GYRE_ESTALE : -ENOMEM);
        return;
    }
    w->next = extra->closed_waiters;
    extra->closed_waiters = w;
    (void)gyre_conn_close(c);
}

int gyre_conn_id_close_then(struct gyre_conn_id id, gyre_closed_fn *done, void *user)
{
    if (id.loop == NULL || done == NULL)
        return -EINVAL;
    struct gyre__closed_waiter *w = gyre__alloc(id.loop->mem, sizeof *w);
    if (w == NULL)
        return -ENOMEM;
    *w = (struct gyre__closed_waiter){.id = id, .done = done, .user = user};
    w->task = (struct gyre__task){.run = run_close_then, .user = w, .embedded = true};
    int err = gyre__loop_post_task(id.loop, &w->task);
    if (err != 0)
        gyre__free(id.loop->mem, w);
    return err;
}
