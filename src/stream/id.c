/* SPDX-License-Identifier: MIT
 * Names of connections that outlive them, what other threads may do by name, and sharing a pointer with them.
 *
 * A call from another thread becomes a task on the connection's loop; there the name is looked up, and a stale one
 * finds nothing: the generation of a slot goes up each time a connection leaves it. */
#include "conn.h"
#include "shared.h"

#include <errno.h>
#include <string.h>

struct gyre_conn_id gyre_conn_id_of(const struct gyre_conn *c)
{
    return (struct gyre_conn_id){.loop = c->loop, .slot = c->slot, .generation = c->generation};
}

struct gyre_conn *gyre_conn_from_id(struct gyre_conn_id id)
{
    if (id.loop == NULL || id.slot / GYRE_CONNS_PER_SLAB >= id.loop->conns->slab_count)
        return NULL;
    struct gyre_conn *c = &id.loop->conns->slabs[id.slot / GYRE_CONNS_PER_SLAB][id.slot % GYRE_CONNS_PER_SLAB];
    return c->generation == id.generation && c->state != GYRE_CONN_FREE ? c : NULL;
}

/* ---- write ---- */

struct remote_write {
    struct gyre__task task;
    struct gyre_conn_id id;
    gyre_sent_fn *done;
    void *user;
    size_t len;
    const void *data; /* `copy`, or the user's */
    bool counted;     /* as posted, in what gyre_conn_id_outbound() says */
    uint8_t copy[];
};

static void write_done(int err, void *user)
{
    struct remote_write *w = user;
    if (w->done != NULL)
        w->done(err, w->user);
    gyre__free(w->id.loop->mem, w);
}

static void run_write(struct gyre_loop *l, void *user)
{
    struct remote_write *w = user;
    struct gyre_conn *c = gyre_conn_from_id(w->id);
    if (w->counted)
        (void)gyre__shared_posted(l, w->id, -(int64_t)w->len);
    int err = c == NULL ? GYRE_ESTALE : gyre_conn_write_ref(c, w->data, w->len, write_done, w);
    if (err != 0)
        write_done(err, w);
}

/* With room for `room` bytes; NULL when out of memory. */
static struct remote_write *new_write(struct gyre_conn_id id, size_t room, gyre_sent_fn *done, void *user)
{
    struct remote_write *w = gyre__resize_many(id.loop->mem, NULL, sizeof *w, room, 1);
    if (w == NULL)
        return NULL;
    *w = (struct remote_write){.id = id, .done = done, .user = user, .len = room};
    w->data = w->copy;
    return w;
}

static int post_write(struct remote_write *w)
{
    struct gyre_loop *l = w->id.loop;
    struct gyre_conn_id id = w->id;
    size_t len = w->len;
    bool counted = w->counted = gyre__shared_posted(l, id, (int64_t)len);
    int err = gyre__loop_post_block(l, w, run_write); /* from here on `w` may be gone */
    if (err != 0 && counted)
        (void)gyre__shared_posted(l, id, -(int64_t)len);
    return err;
}

int gyre_conn_id_write(struct gyre_conn_id id, const void *data, size_t len, gyre_sent_fn *done, void *user)
{
    const struct iovec iov = gyre__iov_of(data, len);
    return gyre_conn_id_writev(id, &iov, 1, done, user);
}

int gyre_conn_id_writev(struct gyre_conn_id id, const struct iovec *iov, int iov_count, gyre_sent_fn *done, void *user)
{
    if (id.loop == NULL || !gyre__iov_count_valid(iov, iov_count, GYRE_WRITEV_MAX) ||
        !gyre__iov_pieces_valid(iov, iov_count))
        return -EINVAL;
    struct remote_write *w = new_write(id, gyre__iov_bytes(iov, iov_count), done, user);
    if (w == NULL)
        return -ENOMEM;
    uint8_t *to = w->copy;
    for (int i = 0; i < iov_count; i++) {
        if (iov[i].iov_len > 0)
            memcpy(to, iov[i].iov_base, iov[i].iov_len);
        to += iov[i].iov_len;
    }
    return post_write(w);
}

int gyre_conn_id_write_ref(struct gyre_conn_id id, const void *data, size_t len, gyre_sent_fn *done, void *user)
{
    if (id.loop == NULL || (data == NULL && len > 0))
        return -EINVAL;
    struct remote_write *w = new_write(id, 0, done, user);
    if (w == NULL)
        return -ENOMEM;
    w->data = data;
    w->len = len;
    return post_write(w);
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
    return gyre__loop_post_block(id.loop, r, run_call);
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
    return gyre__loop_post_block(id.loop, w, run_close_then);
}

int gyre_conn_share(struct gyre_conn *c, void *shared)
{
    int err = gyre__conn_usable(c);
    if (err != 0)
        return err;
    struct gyre__shared *s = c->loop->shared;
    (void)pthread_mutex_lock(&s->lock);
    err = gyre__shared_grow(c->loop, c->slot);
    if (err == 0) {
        struct gyre__cell *cell = &s->cells[c->slot];
        if (!(c->flags & GYRE_CF_SHARED))
            *cell = (struct gyre__cell){.generation = c->generation, .open = true};
        cell->ptr = shared;
        c->flags |= GYRE_CF_SHARED;
        gyre__shared_publish(c);
    }
    (void)pthread_mutex_unlock(&s->lock);
    return err;
}

void *gyre_conn_shared(const struct gyre_conn *c)
{
    struct gyre__shared *s = c->loop->shared;
    if (!(c->flags & GYRE_CF_SHARED))
        return NULL;
    (void)pthread_mutex_lock(&s->lock);
    void *ptr = s->cells[c->slot].ptr;
    (void)pthread_mutex_unlock(&s->lock);
    return ptr;
}

int gyre_conn_id_shared(void **out, struct gyre_conn_id id)
{
    if (id.loop == NULL || out == NULL)
        return -EINVAL;
    struct gyre__cell *cell = gyre__cell_lock(id);
    if (cell == NULL)
        return GYRE_ESTALE;
    *out = cell->ptr;
    gyre__cell_unlock(id.loop);
    return 0;
}

int gyre_conn_id_set_shared(void **old, struct gyre_conn_id id, void *shared)
{
    if (id.loop == NULL)
        return -EINVAL;
    struct gyre__cell *cell = gyre__cell_lock(id);
    if (cell == NULL)
        return GYRE_ESTALE;
    if (old != NULL)
        *old = cell->ptr;
    cell->ptr = shared;
    gyre__cell_unlock(id.loop);
    return 0;
}

int64_t gyre_conn_id_outbound(struct gyre_conn_id id)
{
    if (id.loop == NULL)
        return -EINVAL;
    struct gyre__cell *cell = gyre__cell_lock(id);
    if (cell == NULL)
        return GYRE_ESTALE;
    int64_t bytes = cell->posted + (int64_t)atomic_load_explicit(&cell->outbound, memory_order_relaxed);
    gyre__cell_unlock(id.loop);
    return bytes;
}
