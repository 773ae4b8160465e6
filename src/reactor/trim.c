/* SPDX-License-Identifier: MIT
 * Giving the memory of a burst back.
 *
 * Receive buffers come into being as a burst needs them, and would keep their memory for ever. So a turn that leaves
 * more of them than are worth keeping in cache starts a timer, and when it fires, those that nobody needed meanwhile
 * give their pages back. What a steady load uses is needed within every interval, so it is never touched and there is
 * no system call. A loop that has gone idle is woken twice at most: once for what the end of the burst did not need,
 * and once for what nobody has needed since. What cannot go even then, because the kernel has it, is not waited for. */
#include "trim.h"

void gyre__trim_begin(struct gyre_loop *l)
{
    if (l->buf_keep_ns == INT64_MAX || l->phase == GYRE_PHASE_ENDING || gyre__timer_is_set(&l->trim_timer))
        return;
    gyre__wheel_start(&l->wheel, &l->trim_timer, l->now_ns + (uint64_t)l->buf_keep_ns);
}

void gyre__trim_on_timer(struct gyre__loop_timer *t)
{
    struct gyre_loop *l = GYRE_CONTAINER(t, struct gyre_loop, trim_timer);
    struct gyre__bufpool *pool = &l->pool;
    unsigned before = pool->nfree;
    bool quiet = pool->low == pool->nfree; /* none was taken or came back since the last look */
    if (l->be->ops->pool_trim != NULL)
        l->be->ops->pool_trim(l->be, pool);
    gyre__count(&l->be->stats.bufs_trimmed, gyre__bufpool_trim(pool, pool->nfree - before));
    l->trim_left = quiet ? gyre__bufpool_surplus(pool) : 0;
}
