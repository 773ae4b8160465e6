/* SPDX-License-Identifier: MIT
 * Walking the connections of one loop. */
#include "conn.h"

#include <errno.h>
#include <string.h>

static bool is_there(const struct gyre_conn *c)
{
    return c->state == GYRE_CONN_OPEN || c->state == GYRE_CONN_CONNECTING;
}

/* The table of slabs may move, and grow, while `fn` runs; a slab never moves, and no connection leaves its slot before
 * the end of the turn. */
int64_t gyre__conns_walk(struct gyre_loop *l, gyre_each_fn *fn, void *user)
{
    int64_t called = 0;
    for (uint32_t s = 0; s < l->conns->slab_count; s++)
        for (uint32_t i = 0; i < GYRE_CONNS_PER_SLAB; i++) {
            struct gyre_conn *c = &l->conns->slabs[s][i];
            if (!is_there(c))
                continue;
            called++;
            if (!fn(c, user))
                return called;
        }
    return called;
}

int64_t gyre_loop_each_conn(struct gyre_loop *l, gyre_each_fn *fn, void *user)
{
    if (l == NULL || fn == NULL)
        return -EINVAL;
    return gyre__loop_allows(l) ? gyre__conns_walk(l, fn, user) : GYRE_ETHREAD;
}
