/* SPDX-License-Identifier: MIT
 * What other threads may see of connections; shared.h says how. */
#include "shared.h"
#include "conn.h"

#include <errno.h>
#include <string.h>

void gyre__shared_init(struct gyre_loop *l)
{
    GYRE_CHECK(pthread_mutex_init(&l->shared.lock, NULL) == 0);
}

void gyre__shared_fini(struct gyre_loop *l)
{
    gyre__free(l->mem, l->shared.cells);
    (void)pthread_mutex_destroy(&l->shared.lock);
}

/* Room for a cell at `slot`. */
static int grow(struct gyre_loop *l, uint32_t slot)
{
    struct gyre__shared *s = &l->shared;
    uint32_t count = atomic_load_explicit(&s->count, memory_order_relaxed), wanted = count > 0 ? count : 64;
    while (wanted <= slot)
        wanted *= 2;
    if (wanted == count)
        return 0;
    struct gyre__cell *cells = gyre__alloc(l->mem, wanted * sizeof *cells);
    if (cells == NULL)
        return -ENOMEM;
    if (count > 0)
        memcpy(cells, s->cells, count * sizeof *cells);
    gyre__free(l->mem, s->cells);
    s->cells = cells;
    atomic_store_explicit(&s->count, wanted, memory_order_release);
    return 0;
}

/* The cell of `id`, locked; NULL, not locked, if there is none. */
static struct gyre__cell *lock_cell(struct gyre_conn_id id)
{
    struct gyre__shared *s = &id.loop->shared;
    if (atomic_load_explicit(&s->count, memory_order_acquire) == 0)
        return NULL;
    (void)pthread_mutex_lock(&s->lock);
    if (id.slot < atomic_load_explicit(&s->count, memory_order_relaxed)) {
        struct gyre__cell *cell = &s->cells[id.slot];
        if (cell->open && cell->generation == id.generation)
            return cell;
    }
    (void)pthread_mutex_unlock(&s->lock);
    return NULL;
}

static void unlock(struct gyre_loop *l)
{
    (void)pthread_mutex_unlock(&l->shared.lock);
}

bool gyre__shared_posted(struct gyre_loop *l, struct gyre_conn_id id, int64_t bytes)
{
    struct gyre__cell *cell = lock_cell(id);
    if (cell == NULL)
        return false;
    cell->posted += bytes;
    unlock(l);
    return true;
}

void gyre__shared_publish(struct gyre_conn *c)
{
    atomic_store_explicit(&c->loop->shared.cells[c->slot].outbound, c->out.bytes, memory_order_relaxed);
}

void gyre__shared_close(struct gyre_conn *c)
{
    struct gyre__shared *s = &c->loop->shared;
    (void)pthread_mutex_lock(&s->lock);
    s->cells[c->slot].open = false;
    (void)pthread_mutex_unlock(&s->lock);
}

/* ---- the user's side ---- */

int gyre_conn_share(struct gyre_conn *c, void *shared)
{
    int err = gyre__conn_usable(c);
    if (err != 0)
        return err;
    struct gyre__shared *s = &c->loop->shared;
    (void)pthread_mutex_lock(&s->lock);
    err = grow(c->loop, c->slot);
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
    struct gyre__shared *s = &c->loop->shared;
    if (!(c->flags & GYRE_CF_SHARED))
        return NULL;
    (void)pthread_mutex_lock(&s->lock);
    void *ptr = s->cells[c->slot].ptr;
    (void)pthread_mutex_unlock(&s->lock);
    return ptr;
}

int gyre_conn_id_shared(struct gyre_conn_id id, void **out)
{
    if (id.loop == NULL || out == NULL)
        return -EINVAL;
    struct gyre__cell *cell = lock_cell(id);
    if (cell == NULL)
        return GYRE_ESTALE;
    *out = cell->ptr;
    unlock(id.loop);
    return 0;
}

int gyre_conn_id_set_shared(struct gyre_conn_id id, void *shared, void **old)
{
    if (id.loop == NULL)
        return -EINVAL;
    struct gyre__cell *cell = lock_cell(id);
    if (cell == NULL)
        return GYRE_ESTALE;
    if (old != NULL)
        *old = cell->ptr;
    cell->ptr = shared;
    unlock(id.loop);
    return 0;
}

int64_t gyre_conn_id_outbound(struct gyre_conn_id id)
{
    if (id.loop == NULL)
        return -EINVAL;
    struct gyre__cell *cell = lock_cell(id);
    if (cell == NULL)
        return GYRE_ESTALE;
    int64_t bytes = cell->posted + (int64_t)atomic_load_explicit(&cell->outbound, memory_order_relaxed);
    unlock(id.loop);
    return bytes;
}
