/* SPDX-License-Identifier: MIT
 * Writing the same bytes to every connection of an engine.
 *
 * The bytes follow the parts of a call for all loops (everywhere.c), and all connections borrow them. Each loop counts
 * the sends of its own connections without atomics; only when they are all over does it touch the count that the loops
 * share. */
#include "everywhere.h"
#include "base/options.h"
#include "base/refuse.h"

#include <errno.h>
#include <string.h>

enum { BROADCAST_MAX = 1 << 30 };

static void let_go(struct gyre__everywhere *all)
{
    if (atomic_fetch_sub_explicit(&all->holders, 1, memory_order_acq_rel) == 1)
        gyre__free(all->mem, all);
}

static void on_sent(int err, void *user)
{
    struct gyre__part *part = user;
    (void)err;
    if (--part->refs == 0)
        let_go(part->all);
}

static void count(_Atomic(uint64_t) *counter)
{
    atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
}

static bool send_one(struct gyre_conn *c, void *user)
{
    struct gyre__part *part = user;
    struct gyre__everywhere *all = part->all;
    const struct gyre_broadcast_options *o = &all->options;
    if (c->state != GYRE_CONN_OPEN || (o->filter != NULL && !o->filter(c, o->user)))
        return true;
    if (gyre_conn_congested(c) && o->slow == GYRE_SLOW_ABORT) {
        (void)gyre_conn_abort(c);
        count(&all->aborted);
        return true;
    }
    if (gyre_conn_congested(c) && o->slow == GYRE_SLOW_SKIP) {
        count(&all->skipped);
        return true;
    }
    int err = gyre_conn_write_ref(c, all->data, all->len, on_sent, part);
    part->refs += err == 0;
    count(err == 0 ? &all->queued : err == -EAGAIN ? &all->skipped : &all->failed);
    return true;
}

static void run_broadcast(struct gyre_loop *l, void *user)
{
    struct gyre__part *part = user;
    struct gyre__everywhere *all = part->all;
    part->refs = 1;
    (void)gyre__conns_walk(l, send_one, part);
    on_sent(0, part);
    gyre__everywhere_part_over(all);
}

static void finish_broadcast(struct gyre__everywhere *all)
{
    struct gyre_broadcast_result result = {
        .queued = atomic_load(&all->queued),
        .skipped = atomic_load(&all->skipped),
        .aborted = atomic_load(&all->aborted),
        .failed = atomic_load(&all->failed),
    };
    struct gyre_engine *engine = all->engine;
    struct gyre_broadcast_options options = all->options;
    let_go(all);
    if (options.done != NULL)
        options.done(engine, &result, options.user);
}

int gyre_engine_broadcast_sized(struct gyre_engine *engine, const void *data, size_t len,
                                const struct gyre_broadcast_options *options, size_t size_bytes)
{
    struct gyre_broadcast_options copy;
    if (engine == NULL || data == NULL || len == 0 || len > BROADCAST_MAX)
        return -EINVAL;
    int err = gyre__options_copy(&copy, sizeof copy, options, size_bytes);
    if (err == 0)
        err = gyre__check_range("slow", (int)copy.slow, 0, GYRE_SLOW_ABORT);
    if (err != 0)
        return err;
    struct gyre__everywhere *all = gyre__everywhere_new(engine, run_broadcast, finish_broadcast, len);
    if (all == NULL)
        return -ENOMEM;
    uint8_t *bytes = (uint8_t *)&all->parts[all->count];
    memcpy(bytes, data, len);
    all->options = copy;
    all->data = bytes;
    all->len = (uint32_t)len;
    atomic_store(&all->holders, all->count + 1);
    return gyre__everywhere_post(all);
}
