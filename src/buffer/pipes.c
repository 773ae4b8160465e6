/* SPDX-License-Identifier: MIT
 * The pipes of a loop: opening and closing. seg.c returns or closes the pipe of a segment that is freed. */
#include "pipes.h"

void gyre__pipes_open(struct gyre__bufpool *pool, struct gyre__backend *be)
{
    uint16_t slot = 0;
    if (pool->pipe_nfree > 0 || pool->pipe_count == GYRE_PIPES_MAX)
        return;
    while (pool->pipes[slot].read_fd >= 0)
        slot++;
    if (be->ops->sock->pipe->open(be, &pool->pipes[slot], GYRE_PIPE_BYTES) != 0)
        return;
    pool->pipe_count++;
    gyre__bufpool_give_pipe(pool, slot);
}

void gyre__pipes_close(struct gyre__bufpool *pool, struct gyre__backend *be, uint16_t pipe)
{
    GYRE_CHECK(pipe < GYRE_PIPES_MAX && pool->pipes[pipe].read_fd >= 0);
    be->ops->sock->pipe->close(be, &pool->pipes[pipe]);
    pool->pipe_count--;
}

void gyre__pipes_fini(struct gyre__bufpool *pool, struct gyre__backend *be)
{
    for (int pipe; (pipe = gyre__bufpool_take_pipe(pool)) != GYRE_BUF_NONE;)
        gyre__pipes_close(pool, be, (uint16_t)pipe);
}
