/* SPDX-License-Identifier: MIT
 * Reading what a loop has counted, from any thread.
 *
 * Counters live in the backend's struct, where both sides of the seam count. What is no counter of ours (buffers of the
 * pool, timers of the wheel) is written there at the end of each turn. A reader copies number by number: no lock, no
 * waiting, and the loop does not notice. */
#include "loop.h"

#include <string.h>

_Static_assert(sizeof(struct gyre_stats) % sizeof(uint64_t) == 0, "nothing but numbers");

void gyre__stats_publish(struct gyre_loop *l)
{
    struct gyre_stats *s = &l->be->stats;
    const struct gyre__bufpool *pool = &l->pool;
    gyre__gauge(&s->bufs_max, pool->count);
    gyre__gauge(&s->bufs_resident, gyre__bufpool_resident(pool));
    gyre__gauge(&s->bufs_held, pool->held);
    gyre__gauge(&s->bufs_held_max, pool->held_max);
    gyre__gauge(&s->bufs_posted, (uint64_t)pool->count - pool->nfree - pool->held);
    gyre__gauge(&s->timers_started, l->wheel.started);
}

/* Whether the caller is the loop's thread: then the end of the turn need not be waited for. */
static bool is_own(const struct gyre_loop *l)
{
    return atomic_load_explicit(&l->owned, memory_order_acquire) && pthread_equal(l->owner, pthread_self());
}

void gyre__stats_read(const struct gyre_loop *l, struct gyre_stats *out)
{
    const uint64_t *from = (const uint64_t *)&l->be->stats;
    uint64_t *to = (uint64_t *)out;
    if (is_own(l))
        gyre__stats_publish((struct gyre_loop *)(uintptr_t)l);
    for (unsigned i = 0; i < sizeof *out / sizeof *to; i++)
        to[i] = __atomic_load_n(&from[i], __ATOMIC_RELAXED);
    out->conns = gyre_loop_conn_count(l);
    out->tasks_waiting = (uint64_t)atomic_load_explicit(&l->tasks.count, memory_order_relaxed) +
                         atomic_load_explicit(&l->urgent.count, memory_order_relaxed);
    out->tasks_refused = atomic_load_explicit(&l->tasks.refused, memory_order_relaxed);
    out->urgent_tasks_refused = atomic_load_explicit(&l->urgent.refused, memory_order_relaxed);
    /* The three were read one after the other: more may have left by then than was queued. */
    uint64_t gone = out->bytes_out + out->bytes_dropped;
    out->bytes_outbound = out->bytes_queued > gone ? out->bytes_queued - gone : 0;
}

void gyre__stats_hand_out(void *out, size_t size_bytes, const struct gyre_stats *stats)
{
    size_t size = size_bytes < sizeof *stats ? size_bytes : sizeof *stats;
    memcpy(out, stats, size);
    memset((char *)out + size, 0, size_bytes - size);
}

void gyre_loop_stats_sized(struct gyre_stats *out, size_t size_bytes, const struct gyre_loop *l)
{
    struct gyre_stats stats;
    gyre__stats_read(l, &stats);
    gyre__stats_hand_out(out, size_bytes, &stats);
}
