/* SPDX-License-Identifier: MIT
 * Receive buffers give the memory of a burst back: what nobody needed, and never what somebody has. Whether pages are
 * there is asked of the system (mincore), what the pool says of itself is compared with that. */
#include "buffer/bufpool.h"

#include "env.h"

#include <criterion/criterion.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { FIRST = 4, MAX = 64, BURST = 40, SIZE_MAX_HERE = 20000 };

static struct env_mem mem;
static struct gyre__bufpool pool;

static void open_pool(uint32_t size)
{
    env_mem_init(&mem);
    cr_assert_eq(gyre__bufpool_init(&pool, &mem.mem, size, FIRST, MAX), 0);
}

static void close_pool(void)
{
    gyre__bufpool_fini(&pool);
    cr_assert_eq(atomic_load(&mem.blocks), 0);
}

static unsigned pages_per_buffer(void)
{
    return pool.stride / (unsigned)sysconf(_SC_PAGESIZE) + 2;
}

/* How many pages of the pool's address space have memory. */
static unsigned pages(void)
{
    static unsigned char there[MAX * (SIZE_MAX_HERE / 4096 + 2)];
    size_t page = (size_t)sysconf(_SC_PAGESIZE), bytes = (size_t)pool.stride * MAX;
    size_t count = (bytes + page - 1) / page;
    unsigned n = 0;
    cr_assert_leq(count, sizeof there);
    cr_assert_eq(mincore(pool.base, bytes, (void *)there), 0);
    for (size_t i = 0; i < count; i++)
        n += there[i] & 1;
    return n;
}

static void take_many(uint16_t *bufs, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        int buf = gyre__bufpool_take(&pool);
        cr_assert_neq(buf, GYRE_BUF_NONE);
        bufs[i] = (uint16_t)buf;
        memset(gyre__bufpool_data(&pool, bufs[i]), buf + 1, pool.size);
    }
}

/* In the order in which they were taken, so that the last one lies on top. */
static void untake_many(const uint16_t *bufs, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        gyre__bufpool_untake(&pool, bufs[i]);
}

static void check_whole(uint16_t buf)
{
    const uint8_t *data = gyre__bufpool_data(&pool, buf);
    for (unsigned k = 0; k < pool.size; k++)
        cr_assert_eq(data[k], (uint8_t)(buf + 1), "byte %u of buffer %u has changed", k, buf);
}

/* The interval of the burst gives nothing, the quiet one after it all but the first few; those keep what is in them. */
Test(bufpool_trim, what_a_burst_touched)
{
    uint16_t bufs[BURST];
    open_pool(16896);
    take_many(bufs, BURST);
    untake_many(bufs, BURST);
    unsigned touched = pages();
    cr_assert_geq(touched, BURST * 4);
    cr_assert_eq(gyre__bufpool_surplus(&pool), BURST - FIRST);
    cr_assert_eq(gyre__bufpool_trim(&pool, 0), 0, "all were needed since the last look");
    cr_assert_eq(pages(), touched);

    cr_assert_eq(gyre__bufpool_trim(&pool, 0), BURST - FIRST);
    cr_assert_eq(gyre__bufpool_resident(&pool), FIRST);
    cr_assert_eq(gyre__bufpool_surplus(&pool), 0);
    cr_assert_leq(pages(), FIRST * pages_per_buffer());
    for (unsigned i = BURST - FIRST; i < BURST; i++)
        check_whole(bufs[i]);
    cr_assert_eq(gyre__bufpool_trim(&pool, 0), 0, "there is no more");
    close_pool();
}

/* What went comes again when it is needed, as good as new, and goes again. */
Test(bufpool_trim, burst_after_burst)
{
    uint16_t bufs[BURST];
    open_pool(16896);
    for (unsigned round = 0; round < 5; round++) {
        take_many(bufs, BURST);
        cr_assert_eq(gyre__bufpool_resident(&pool), BURST);
        for (unsigned i = 0; i < BURST; i++)
            check_whole(bufs[i]);
        untake_many(bufs, BURST);
        cr_assert_eq(pool.count, BURST, "no others came into being");
        cr_assert_eq(gyre__bufpool_trim(&pool, 0), 0);
        cr_assert_eq(gyre__bufpool_trim(&pool, 0), BURST - FIRST);
        cr_assert_leq(pages(), FIRST * pages_per_buffer());
    }
    close_pool();
}

/* A load that needs its buffers in every interval keeps them; when it needs fewer, the rest goes. */
Test(bufpool_trim, steady_use_keeps_its_buffers)
{
    uint16_t bufs[BURST];
    open_pool(16896);
    for (unsigned interval = 0; interval < 100; interval++) {
        unsigned count = BURST - interval % GYRE_BUF_TRIM_MIN; /* a few more or less are no reason for a call */
        take_many(bufs, count);
        untake_many(bufs, count);
        cr_assert_eq(gyre__bufpool_trim(&pool, 0), 0);
    }
    take_many(bufs, 10);
    untake_many(bufs, 10);
    cr_assert_eq(gyre__bufpool_trim(&pool, 0), BURST - 10);
    cr_assert_eq(gyre__bufpool_resident(&pool), 10);
    close_pool();
}

/* What a backend put back, having posted and not needed it, counts as not needed; held buffers are no surplus. */
Test(bufpool_trim, extra_and_held)
{
    uint16_t bufs[BURST];
    open_pool(16896);
    take_many(bufs, BURST);
    for (unsigned i = 0; i < 10; i++)
        gyre__bufpool_receive(&pool, bufs[i]);
    (void)gyre__bufpool_trim(&pool, 0);
    untake_many(bufs + 10, BURST - 10);
    cr_assert_eq(gyre__bufpool_surplus(&pool), BURST - 10 - FIRST);
    cr_assert_eq(gyre__bufpool_trim(&pool, 20), 20);
    cr_assert_eq(gyre__bufpool_resident(&pool), BURST - 20);
    for (unsigned i = 0; i < 10; i++) {
        check_whole(bufs[i]);
        gyre__bufpool_release(&pool, bufs[i]);
    }
    cr_assert_eq(gyre__bufpool_trim(&pool, 0), 10, "those just released had been needed");
    cr_assert_eq(gyre__bufpool_resident(&pool), 10);
    cr_assert_eq(gyre__bufpool_trim(&pool, 0), 0, "six are not worth a call");
    close_pool();
}

/* Random use with looks in between: what is out is never touched, and the account holds against a table. */
static void random_use(uint32_t size, uint64_t seed)
{
    bool out[MAX] = {false};
    unsigned taken = 0, given_back = 0;
    struct env_rng rng;
    open_pool(size);
    env_rng_init(&rng, seed);
    for (unsigned i = 0; i < 20000; i++) {
        unsigned wanted = i % 2000 < 300 ? MAX : 6; /* a burst, then a quieter while */
        uint16_t b = (uint16_t)env_rng_below(&rng, MAX);
        if (taken < wanted && env_rng_below(&rng, 2) == 0) {
            take_many(&b, 1);
            cr_assert_not(out[b]);
            out[b] = true;
            taken++;
        } else if (out[b]) {
            check_whole(b);
            gyre__bufpool_untake(&pool, b);
            out[b] = false;
            taken--;
        }
        if (env_rng_below(&rng, 50) == 0)
            given_back += gyre__bufpool_trim(&pool, 0);
        cr_assert_eq(gyre__bufpool_available(&pool), MAX - taken);
        cr_assert_geq(gyre__bufpool_resident(&pool), taken);
        cr_assert_leq(gyre__bufpool_clean(&pool), pool.nfree);
    }
    cr_assert_gt(given_back, 0);
    for (uint16_t b = 0; b < MAX; b++)
        if (out[b])
            check_whole(b);
    close_pool();
}

Test(bufpool_trim, never_what_is_out)
{
    for (uint64_t seed = 1; seed <= 4; seed++) {
        random_use(16896, seed); /* pages are shared by two neighbours */
        random_use(700, seed);   /* by several */
        random_use(4096 - GYRE_BUF_STAGGER, seed);
    }
}
