/* SPDX-License-Identifier: MIT
 * What other threads may see of connections; shared.h says how. */
#include "shared.h"
#include "conn.h"

#include <errno.h>
#include <string.h>

int gyre__shared_init(struct gyre_loop *l)
{
    l->shared = gyre__alloc(l->mem, sizeof *l->shared);
    if (l->shared == NULL)
        return -ENOMEM;
    GYRE_CHECK(pthread_mutex_init(&l->shared->lock, NULL) == 0);
    return 0;
}

void gyre__shared_fini(struct gyre_loop *l)
{
    if (l->shared == NULL)
        return;
    gyre__free(l->mem, l->shared->cells);
    (void)pthread_mutex_destroy(&l->shared->lock);
    gyre__free(l->mem, l->shared);
    l->shared = NULL;
}

/* Room for a cell at `slot`. */
int gyre__shared_grow(struct gyre_loop *l, uint32_t slot)
{
    struct gyre__shared *s = l->shared;
    uint32_t count = atomic_load_explicit(&s->count, memory_order_relaxed), wanted = count > 0 ? count : 64;
    while (wanted <= slot)
        wanted *= 2;
    if (wanted == count)
        return 0;
    struct gyre__cell *cells = gyre__alloc_many(l->mem, wanted, sizeof *cells);
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
struct gyre__cell *gyre__cell_lock(struct gyre_conn_id id)
{
    struct gyre__shared *s = id.loop->shared;
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

void gyre__cell_unlock(struct gyre_loop *l)
{
    (void)pthread_mutex_unlock(&l->shared->lock);
}

bool gyre__shared_posted(struct gyre_loop *l, struct gyre_conn_id id, int64_t bytes)
{
    struct gyre__cell *cell = gyre__cell_lock(id);
    if (cell == NULL)
        return false;
    cell->posted += bytes;
    gyre__cell_unlock(l);
    return true;
}

void gyre__shared_publish(struct gyre_conn *c)
{
    atomic_store_explicit(&c->loop->shared->cells[c->slot].outbound, c->out.bytes, memory_order_relaxed);
}

void gyre__shared_close(struct gyre_conn *c)
{
    struct gyre__shared *s = c->loop->shared;
    (void)pthread_mutex_lock(&s->lock);
    s->cells[c->slot].open = false;
    (void)pthread_mutex_unlock(&s->lock);
}
