/* SPDX-License-Identifier: MIT
 * Receive buffers of one loop.
 *
 * The one idea: a buffer that was just given back is the one to use next, because it is in cache. So the free ones are
 * a stack, and buffers come into being only when the stack is empty, up to a maximum. Each is at any time with exactly
 * one of: the stack, the backend (posted), or receivers, who count references.
 *
 * The address space of all buffers is reserved at once and touched only as they come into being. Neighbours are
 * staggered by two cache lines, or their first lines would all fall into the same sets of the cache.
 *
 * What a burst touched goes back to the system once it is cold. The depth to which the stack never sank since the last
 * look is how many free buffers nobody needed, and those at its bottom are the ones. So takes keep the depth, and
 * nothing else is written down for it. reactor/trim.c decides when to look.
 *
 * A loop also has a few pipes, for bytes that go from socket to socket without being read. The empty pipes are a stack,
 * too. A pipe that is not empty has one owner, and holds only the bytes of that owner. pipes.c opens and closes pipes;
 * stream/splice.c decides when to use them. */
#ifndef GYRE_BUFFER_BUFPOOL_H
#define GYRE_BUFFER_BUFPOOL_H

#include "base/check.h"
#include "base/mem.h"
#include "seam/op.h"

#include <stdbool.h>
#include <stdint.h>

enum {
    GYRE_BUF_NONE = -1,
    GYRE_BUF_STAGGER = 128,
    GYRE_BUF_TRIM_MIN = 8,         /* fewer are not worth a timer and a system call */
    GYRE_PIPES_MAX = 32,           /* of one loop */
};

struct gyre__bufpool {
    uint8_t *base;
    const struct gyre_mem *mem;
    uint16_t *free;     /* stack of indexes */
    uint32_t *refs;     /* by index; 0: on the stack or with the backend */
    uint32_t size;      /* bytes of one buffer */
    uint32_t stride;    /* bytes from one to the next */
    uint16_t count_max; /* never more than this */
    uint16_t count;     /* that have come into being */
    uint16_t nfree;     /* on the stack */
    uint16_t held;      /* with receivers */
    uint16_t held_max;  /* most there were */
    uint16_t first;     /* how many a backend that posts ahead should post at first */
    uint16_t low;       /* fewest on the stack since the last trim */
    uint16_t clean;     /* so many at its bottom had their pages given back; of use: gyre__bufpool_clean() */

    uint8_t pipe_count; /* open; of the others the descriptors are -1 */
    uint8_t pipe_nfree; /* on the stack */
    uint8_t pipe_free[GYRE_PIPES_MAX];
    struct gyre__pipe pipes[GYRE_PIPES_MAX];
};

/* From one buffer of a size to the next. */
static inline uint32_t gyre__bufpool_stride(uint32_t size_bytes)
{
    return (size_bytes + GYRE_BUF_STAGGER + 63) & ~UINT32_C(63);
}

/* Whether `count_max` buffers of a size have room in the address space of this system. */
static inline bool gyre__bufpool_fits(uint32_t size_bytes, uint32_t count_max)
{
    return gyre__fits(0, count_max, gyre__bufpool_stride(size_bytes));
}

/* How many of a size to post at first where the user does not say: half of the second-level cache. */
uint32_t gyre__bufpool_first(uint32_t size_bytes);

/* Returns 0, or -ENOMEM, also for what gyre__bufpool_fits() does not. */
int gyre__bufpool_init(struct gyre__bufpool *pool, const struct gyre_mem *mem, uint32_t size_bytes, uint32_t first,
                       uint32_t count_max);
void gyre__bufpool_fini(struct gyre__bufpool *pool);

static inline uint8_t *gyre__bufpool_data(const struct gyre__bufpool *pool, uint16_t buf)
{
    return pool->base + (size_t)buf * pool->stride;
}

/* How many takes would succeed now. */
static inline unsigned gyre__bufpool_available(const struct gyre__bufpool *pool)
{
    return (unsigned)pool->nfree + (unsigned)(pool->count_max - pool->count);
}

/* How many one call should receive into at most, of `most` that it can: a quarter of those to be had, for there are
 * others. */
static inline unsigned gyre__bufpool_share(const struct gyre__bufpool *pool, unsigned most)
{
    unsigned share = gyre__bufpool_available(pool) / 4;
    return share == 0 ? 1 : share < most ? share : most;
}

/* How many are not with receivers: those, and what the backend has posted. */
static inline unsigned gyre__bufpool_unheld(const struct gyre__bufpool *pool)
{
    return (unsigned)(pool->count_max - pool->held);
}

/* Whether receivers hold so many that others may soon find none. */
static inline bool gyre__bufpool_scarce(const struct gyre__bufpool *pool)
{
    return pool->held > pool->count_max - pool->count_max / 4;
}

/* How many free buffers have no memory, because it went back and they were not taken since. */
static inline unsigned gyre__bufpool_clean(const struct gyre__bufpool *pool)
{
    return pool->clean < pool->low ? pool->clean : pool->low;
}

/* How many may have memory. */
static inline unsigned gyre__bufpool_resident(const struct gyre__bufpool *pool)
{
    return pool->count - gyre__bufpool_clean(pool);
}

/* How many that receivers do not hold have memory beyond those that are worth keeping in cache. */
static inline unsigned gyre__bufpool_surplus(const struct gyre__bufpool *pool)
{
    unsigned idle = gyre__bufpool_resident(pool) - pool->held;
    return idle > pool->first ? idle - pool->first : 0;
}

/* Give the system back the pages of free buffers that nobody needed since the last call, as far as there is a surplus:
 * those below the stack's lowest depth, and `extra` more, which a backend had posted and did not need. Nothing is done
 * for fewer than a quarter of what has memory. Returns of how many buffers. */
unsigned gyre__bufpool_trim(struct gyre__bufpool *pool, unsigned extra);

/* For backends: the hottest free buffer, now the backend's; GYRE_BUF_NONE if all are out. */
static inline int gyre__bufpool_take(struct gyre__bufpool *pool)
{
    if (pool->nfree > 0) {
        uint16_t buf = pool->free[--pool->nfree];
        if (GYRE_UNLIKELY(pool->nfree < pool->low))
            pool->low = pool->nfree;
        return buf;
    }
    if (pool->count < pool->count_max)
        return pool->count++;
    return GYRE_BUF_NONE;
}

/* For backends: give back a buffer that was taken and not used. */
static inline void gyre__bufpool_untake(struct gyre__bufpool *pool, uint16_t buf)
{
    GYRE_ASSERT(buf < pool->count && pool->refs[buf] == 0);
    pool->free[pool->nfree++] = buf;
}

/* For backends: the pipe emptied last, now the backend's; GYRE_BUF_NONE if there is none. */
static inline int gyre__bufpool_take_pipe(struct gyre__bufpool *pool)
{
    return pool->pipe_nfree > 0 ? pool->pipe_free[--pool->pipe_nfree] : GYRE_BUF_NONE;
}

/* An empty pipe goes back: one that a backend has not used, or that core has emptied. */
static inline void gyre__bufpool_give_pipe(struct gyre__bufpool *pool, uint16_t pipe)
{
    GYRE_CHECK(pipe < GYRE_PIPES_MAX && pool->pipe_nfree < pool->pipe_count);
    pool->pipe_free[pool->pipe_nfree++] = (uint8_t)pipe;
}

/* For core: an event brought the buffer; it has one reference now. */
static inline void gyre__bufpool_receive(struct gyre__bufpool *pool, uint16_t buf)
{
    GYRE_CHECK(buf < pool->count && pool->refs[buf] == 0);
    pool->refs[buf] = 1;
    pool->held++;
    if (GYRE_UNLIKELY(pool->held > pool->held_max))
        pool->held_max = pool->held;
}

static inline void gyre__bufpool_hold(struct gyre__bufpool *pool, uint16_t buf)
{
    GYRE_CHECK(pool->refs[buf] > 0 && pool->refs[buf] < UINT32_MAX - 1);
    pool->refs[buf]++;
}

/* For core: one reference less; the last one puts the buffer on the stack. */
static inline void gyre__bufpool_release(struct gyre__bufpool *pool, uint16_t buf)
{
    GYRE_CHECK(pool->refs[buf] > 0);
    if (--pool->refs[buf] > 0)
        return;
    pool->held--;
    pool->free[pool->nfree++] = buf;
}

/* For backends: one call has received `res` bytes, or an error, into `count` buffers that were taken for it, one after
 * the other. Writes an event of `op` with `flags` for each buffer as far as the bytes go, and gives back the others. */
void gyre__bufpool_deal_out(struct gyre__bufpool *pool, const uint16_t *bufs, unsigned count, int64_t res,
                            struct gyre__op *op, uint16_t flags, struct gyre__event *out);

#endif
