/* SPDX-License-Identifier: MIT
 * The ring of receive buffers that the kernel takes from.
 *
 * Normal course: the kernel uses posted buffers first-in-first-out, so every posted buffer comes round and the posted
 * ones together are what must stay in cache. Therefore few are posted: before each enter they are topped up, hottest
 * first, to a target that starts at pool->first.
 *
 * When receives find none (-ENOBUFS) the target doubles, once for all of a turn, up to all the pool has. It sinks again
 * slowly, by an eighth for every 64 times the target received without another -ENOBUFS: a burst costs a few receives
 * that are armed again, a lasting need keeps what it needs, and what an hour ago was needed does not stay in the way of
 * the cache. When core has seen a quiet while (gyre__bufring_trim) it sinks at once to eight times what was used
 * between two enters, and what is posted beyond it comes off the ring again, for core to give its memory back.
 *
 * The memory of the ring is ours and not the kernel's (IOU_PBUF_RING_MMAP had a use after free in Linux 6.4 to 6.6.4),
 * and whole pages of its own, because the kernel pins them and they must not be copied at fork. */
#include "bufring.h"

#include <sys/mman.h>
#include <unistd.h>

enum { ENTRIES_MAX = 32768, QUIET_FACTOR = 64, ROOM_FACTOR = 8 };

static uint32_t ring_entries(const struct gyre__bufpool *pool)
{
    uint32_t n = 1;
    while (n < pool->count_max && n < ENTRIES_MAX)
        n *= 2;
    return n;
}

static struct io_uring_buf_ring *map_entries(size_t bytes)
{
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED)
        return NULL;
    if (madvise(at, bytes, MADV_DONTFORK) != 0) {
        (void)munmap(at, bytes);
        return NULL;
    }
    return at;
}

static uint16_t target_max(const struct gyre__bufring *b)
{
    uint32_t entries = (uint32_t)b->mask + 1;
    uint16_t most = (uint16_t)(b->pool->count_max - b->reserve);
    return most < entries ? most : (uint16_t)entries;
}

static uint16_t target_min(const struct gyre__bufring *b)
{
    uint16_t first = b->pool->first < target_max(b) ? b->pool->first : target_max(b);
    return first > 0 || target_max(b) == 0 ? first : 1;
}

int gyre__bufring_add(struct gyre__bufring *b, int ring_fd, struct gyre__bufpool *pool, uint16_t reserve)
{
    uint32_t entries = ring_entries(pool);
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t bytes = (entries * sizeof(struct io_uring_buf) + page - 1) & ~(page - 1);

    if (b->pool != NULL)
        return -EBUSY;
    struct io_uring_buf_ring *ring = map_entries(bytes);
    if (ring == NULL)
        return -ENOMEM;
    uint16_t group = (uint16_t)(b->group + 1); /* another each time: nothing left of the last pool can name this one */
    struct io_uring_buf_reg reg = {.ring_addr = (uintptr_t)ring, .ring_entries = entries, .bgid = group};
    int err = io_uring_register((unsigned)ring_fd, IORING_REGISTER_PBUF_RING, &reg, 1);
    if (err < 0) {
        (void)munmap(ring, bytes);
        return err;
    }
    *b = (struct gyre__bufring){
        .pool = pool,
        .ring = ring,
        .ring_bytes = bytes,
        .mask = (uint16_t)(entries - 1),
        .group = group,
        .reserve = reserve,
    };
    b->target = target_min(b);
    return 0;
}

/* What the kernel did not use are the last `posted` entries, for it takes them in order. */
void gyre__bufring_remove(struct gyre__bufring *b, int ring_fd)
{
    struct io_uring_buf_reg reg = {.bgid = b->group};
    if (b->pool == NULL)
        return;
    /* From a thread that may not, this fails, and then closing the ring does it. */
    (void)io_uring_register((unsigned)ring_fd, IORING_UNREGISTER_PBUF_RING, &reg, 1);
    for (; b->posted > 0; b->posted--) {
        b->tail--;
        gyre__bufpool_untake(b->pool, b->ring->bufs[b->tail & b->mask].bid);
    }
    (void)munmap(b->ring, b->ring_bytes);
    *b = (struct gyre__bufring){.group = b->group};
}

static void grow(struct gyre__bufring *b)
{
    uint32_t more = (uint32_t)b->target * 2;
    b->target = more < target_max(b) ? (uint16_t)more : target_max(b);
    b->starved = false;
    b->quiet = 0;
}

static void sink(struct gyre__bufring *b)
{
    uint16_t sunk = (uint16_t)(b->target - (b->target + 7) / 8);
    b->target = sunk > target_min(b) ? sunk : target_min(b);
    b->quiet = 0;
}

void gyre__bufring_fill_slow(struct gyre__bufring *b)
{
    if (b->pool == NULL)
        return;
    if (b->starved)
        grow(b);
    else if (b->quiet > (uint32_t)b->target * QUIET_FACTOR)
        sink(b);
    if (b->posted < b->least)
        b->least = b->posted;
    uint16_t tail = b->tail;
    while (b->posted < b->target) {
        int buf = gyre__bufpool_take(b->pool);
        if (buf == GYRE_BUF_NONE)
            break;
        struct io_uring_buf *entry = &b->ring->bufs[tail & b->mask];
        entry->addr = (uintptr_t)gyre__bufpool_data(b->pool, (uint16_t)buf);
        entry->len = b->pool->size;
        entry->bid = (uint16_t)buf;
        tail++;
        b->posted++;
    }
    b->tail = tail;
    io_uring_smp_store_release(&b->ring->tail, tail);
}

int gyre__bufring_unpost(struct gyre__bufring *b)
{
    b->tail--;
    b->posted--;
    io_uring_smp_store_release(&b->ring->tail, b->tail);
    return b->ring->bufs[b->tail & b->mask].bid;
}

void gyre__bufring_trim(struct gyre__bufring *b, unsigned untouched)
{
    uint16_t least = b->least < b->posted ? b->least : b->posted;
    uint32_t used = b->target > least ? (uint32_t)(b->target - least) : 0;
    uint32_t want = used * ROOM_FACTOR > target_min(b) ? used * ROOM_FACTOR : target_min(b);
    b->least = b->posted;
    if (b->starved)
        return;
    if (want < b->target) {
        b->target = (uint16_t)want;
        b->quiet = 0;
    }
    for (; b->posted > b->target && untouched > 0; untouched--)
        gyre__bufpool_untake(b->pool, (uint16_t)gyre__bufring_unpost(b));
}

void gyre__bufring_return(struct gyre__bufring *b, uint16_t buf)
{
    if (b->pool == NULL || b->posted == 0)
        return;
    gyre__bufring_took(b);
    gyre__bufpool_untake(b->pool, buf);
}
