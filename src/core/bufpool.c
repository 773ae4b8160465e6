/* SPDX-License-Identifier: MIT
 * Setting up and taking down the receive buffers of a loop. */
#include "bufpool.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#ifndef MAP_NORESERVE
#define MAP_NORESERVE 0
#endif

static size_t pool_bytes(const struct gyre_bufpool *pool)
{
    return (size_t)pool->stride * pool->count_max;
}

int gyre__bufpool_init(struct gyre_bufpool *pool, const struct gyre_mem *mem, uint32_t size_bytes, uint32_t first,
                       uint32_t count_max)
{
    GYRE_ASSERT(count_max > 0 && count_max < UINT16_MAX && size_bytes > 0);
    *pool = (struct gyre_bufpool){.mem = mem, .size = size_bytes, .count_max = (uint16_t)count_max};
    for (unsigned i = 0; i < GYRE_PIPES_MAX; i++)
        pool->pipes[i] = (struct gyre_pipe){.read_fd = -1, .write_fd = -1};
    pool->first = (uint16_t)(first < count_max ? first : count_max);
    pool->stride = (size_bytes + GYRE_BUF_STAGGER + 63) & ~63u;
    pool->free = gyre__alloc(mem, count_max * sizeof *pool->free);
    pool->refs = gyre__alloc(mem, count_max * sizeof *pool->refs);
    if (pool->free != NULL && pool->refs != NULL) {
        void *base = mmap(NULL, pool_bytes(pool), PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (base != MAP_FAILED) {
            pool->base = base;
            return 0;
        }
    }
    gyre__bufpool_fini(pool);
    return -ENOMEM;
}

void gyre__bufpool_fini(struct gyre_bufpool *pool)
{
    GYRE_ASSERT(pool->pipe_count == 0);
    if (pool->base != NULL)
        (void)munmap(pool->base, pool_bytes(pool));
    gyre__free(pool->mem, pool->free);
    gyre__free(pool->mem, pool->refs);
    memset(pool, 0, sizeof *pool);
}

void gyre__bufpool_deal_out(struct gyre_bufpool *pool, const uint16_t *bufs, unsigned count, int64_t res,
                            struct gyre_op *op, uint16_t flags, struct gyre_event *out)
{
    const int64_t size = pool->size;
    int64_t left = res;
    for (unsigned i = 0; i < count && left > 0; i++, left -= size)
        out[i] = (struct gyre_event){
            .op = op, .res = (int32_t)(left < size ? left : size), .flags = flags, .buf = bufs[i]};
    for (; count > 0 && res <= (int64_t)(count - 1) * size; count--)
        gyre__bufpool_untake(pool, bufs[count - 1]);
}
