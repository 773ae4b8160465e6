/* SPDX-License-Identifier: MIT
 * The receive buffers of a loop: setting them up, taking them down, releasing the memory of those that nobody needs,
 * and making events of what one call received into several. */
#include "bufpool.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef MAP_NORESERVE
#define MAP_NORESERVE 0
#endif

#define MARK UINT32_MAX /* in `refs` of a free buffer, while give_back() looks for neighbours */

enum { FIRST_MIN = 16, L2_DEFAULT = 1 << 20 };

static size_t pool_bytes(const struct gyre__bufpool *pool)
{
    return (size_t)pool->stride * pool->count_max;
}

#ifdef _SC_LEVEL2_CACHE_SIZE
static long l2_cache_bytes(void)
{
    long bytes = sysconf(_SC_LEVEL2_CACHE_SIZE);
    return bytes > 0 ? bytes : L2_DEFAULT;
}
#else
static long l2_cache_bytes(void)
{
    return L2_DEFAULT;
}
#endif

uint32_t gyre__bufpool_first(uint32_t size_bytes)
{
    uint32_t half = (uint32_t)l2_cache_bytes() / 2 / size_bytes;
    return half > FIRST_MIN ? half : FIRST_MIN;
}

int gyre__bufpool_init(struct gyre__bufpool *pool, const struct gyre_mem *mem, uint32_t size_bytes, uint32_t first,
                       uint32_t count_max)
{
    GYRE_ASSERT(count_max > 0 && count_max < UINT16_MAX && size_bytes > 0);
    *pool = (struct gyre__bufpool){.mem = mem, .size = size_bytes, .count_max = (uint16_t)count_max};
    for (unsigned i = 0; i < GYRE_PIPES_MAX; i++)
        pool->pipes[i] = (struct gyre__pipe){.read_fd = -1, .write_fd = -1};
    pool->first = (uint16_t)(first < count_max ? first : count_max);
    pool->stride = gyre__bufpool_stride(size_bytes);
    if (!gyre__bufpool_fits(size_bytes, count_max))
        return -ENOMEM;
    pool->free = gyre__alloc_many(mem, count_max, sizeof *pool->free);
    pool->refs = gyre__alloc_many(mem, count_max, sizeof *pool->refs);
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

void gyre__bufpool_fini(struct gyre__bufpool *pool)
{
    GYRE_ASSERT(pool->pipe_count == 0);
    if (pool->base != NULL)
        (void)munmap(pool->base, pool_bytes(pool));
    gyre__free(pool->mem, pool->free);
    gyre__free(pool->mem, pool->refs);
    memset(pool, 0, sizeof *pool);
}

/* The pages that lie within the buffers `from` to `to` - 1. What is beyond the last one that ever was is untouched. */
static void give_back_run(const struct gyre__bufpool *pool, unsigned from, unsigned to)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t begin = ((size_t)from * pool->stride + page - 1) & ~(page - 1);
    size_t end = ((size_t)to * pool->stride + (to == pool->count ? page - 1 : 0)) & ~(page - 1);
    /* Linux takes the pages at once, but refuses locked memory, which then stays; elsewhere it may take its time. */
    if (begin < end)
        (void)madvise(pool->base + begin, end - begin, MADV_DONTNEED);
}

/* Of the `count` lowest on the stack, neighbours together: they share pages, and it saves calls. */
static void give_back(struct gyre__bufpool *pool, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        pool->refs[pool->free[i]] = MARK;
    for (unsigned from = 0, to; from < pool->count; from = to + 1) {
        for (to = from; to < pool->count && pool->refs[to] == MARK; to++)
            pool->refs[to] = 0;
        if (to > from)
            give_back_run(pool, from, to);
    }
}

unsigned gyre__bufpool_trim(struct gyre__bufpool *pool, unsigned extra)
{
    unsigned clean = gyre__bufpool_clean(pool), surplus = gyre__bufpool_surplus(pool);
    unsigned cold = pool->low + extra - clean;
    GYRE_ASSERT(pool->low + extra <= pool->nfree);
    unsigned count = cold < surplus ? cold : surplus;
    if (count < GYRE_BUF_TRIM_MIN || count < gyre__bufpool_resident(pool) / 4) /* a load that varies is no burst */
        count = 0;
    else
        give_back(pool, clean + count);
    pool->clean = (uint16_t)(clean + count);
    pool->low = pool->nfree;
    return count;
}

void gyre__bufpool_deal_out(struct gyre__bufpool *pool, const uint16_t *bufs, unsigned count, int64_t res,
                            struct gyre__op *op, uint16_t flags, struct gyre__event *out)
{
    const int64_t size = pool->size;
    int64_t left = res;
    for (unsigned i = 0; i < count && left > 0; i++, left -= size)
        out[i] =
            (struct gyre__event){.op = op, .res = (int32_t)(left < size ? left : size), .flags = flags, .buf = bufs[i]};
    for (; count > 0 && res <= (int64_t)(count - 1) * size; count--)
        gyre__bufpool_untake(pool, bufs[count - 1]);
}
