/* SPDX-License-Identifier: MIT
 * The pipes of a loop: opening, closing, and what happens to one when its segment is freed. */
#include "pipes.h"

void gyre__pipes_open(struct gyre_loop *l)
{
    const struct gyre_pipe_ops *ops = l->be->ops->sock->pipe;
    struct gyre_bufpool *pool = &l->pool;
    uint16_t slot = 0;
    if (pool->pipe_nfree > 0 || pool->pipe_count == GYRE_PIPES_MAX)
        return;
    while (pool->pipes[slot].read_fd >= 0)
        slot++;
    if (ops->open(l->be, &pool->pipes[slot], GYRE_PIPE_BYTES) != 0)
        return;
    pool->pipe_count++;
    gyre__bufpool_give_pipe(pool, slot);
}

void gyre__pipes_close(struct gyre_loop *l, uint16_t pipe)
{
    struct gyre_bufpool *pool = &l->pool;
    GYRE_CHECK(pipe < GYRE_PIPES_MAX && pool->pipes[pipe].read_fd >= 0);
    l->be->ops->sock->pipe->close(l->be, &pool->pipes[pipe]);
    pool->pipe_count--;
}

void gyre__pipes_fini(struct gyre_loop *l)
{
    for (int pipe; (pipe = gyre__bufpool_take_pipe(&l->pool)) != GYRE_BUF_NONE;)
        gyre__pipes_close(l, (uint16_t)pipe);
}

void gyre__pipe_free(struct gyre__segs *segs, const struct gyre__seg *seg)
{
    struct gyre_loop *l = GYRE_CONTAINER(segs, struct gyre_loop, segs);
    if (seg->len == 0)
        gyre__bufpool_give_pipe(&l->pool, seg->buf);
    else
        gyre__pipes_close(l, seg->buf);
}
