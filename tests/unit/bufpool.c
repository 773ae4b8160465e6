/* SPDX-License-Identifier: MIT
 * The receive buffers: the last one given back is the first one taken, nobody gets one twice, the accounts add up. */
#include "buffer/bufpool.h"

#include "env.h"
#include "fault_mem.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

enum { SIZE = 1024, FIRST = 4, MAX = 32 };

static struct env_mem mem;
static struct gyre__bufpool pool;

static void open_pool(void)
{
    env_mem_init(&mem);
    cr_assert_eq(gyre__bufpool_init(&pool, &mem.mem, SIZE, FIRST, MAX), 0);
}

static void close_pool(void)
{
    gyre__bufpool_fini(&pool);
    cr_assert_eq(atomic_load(&mem.blocks), 0);
}

TestSuite(bufpool, .init = open_pool, .fini = close_pool);

static uint16_t take(void)
{
    int buf = gyre__bufpool_take(&pool);
    cr_assert(buf >= 0 && buf < MAX, "took %d", buf);
    return (uint16_t)buf;
}

/* What was given back last is taken first, through whichever of the two ways it came back. */
Test(bufpool, last_in_first_out)
{
    uint16_t a = take(), b = take(), c = take();
    gyre__bufpool_untake(&pool, a);
    gyre__bufpool_receive(&pool, c);
    gyre__bufpool_release(&pool, c);
    gyre__bufpool_untake(&pool, b);
    cr_assert_eq(take(), b);
    cr_assert_eq(take(), c);
    cr_assert_eq(take(), a);
    cr_assert_eq(pool.count, 3, "with free ones on the stack none came into being");
    gyre__bufpool_untake(&pool, a);
    gyre__bufpool_untake(&pool, b);
    gyre__bufpool_untake(&pool, c);
}

/* There are `count_max`, each handed out once, and then none until one comes back. */
Test(bufpool, never_more_than_the_maximum)
{
    bool seen[MAX] = {false};
    for (unsigned i = 0; i < MAX; i++) {
        uint16_t buf = take();
        cr_assert_not(seen[buf], "buffer %u was handed out twice", buf);
        seen[buf] = true;
    }
    cr_assert_eq(gyre__bufpool_take(&pool), GYRE_BUF_NONE);
    cr_assert_eq(gyre__bufpool_take(&pool), GYRE_BUF_NONE);
    gyre__bufpool_untake(&pool, 7);
    cr_assert_eq(take(), 7);
    cr_assert_eq(gyre__bufpool_take(&pool), GYRE_BUF_NONE);
}

/* Available is what can be taken, unheld what receivers do not have; scarce, when they have more than three
 * quarters. */
Test(bufpool, available_unheld_and_scarce)
{
    for (uint16_t i = 0; i < MAX; i++) {
        cr_assert_eq(gyre__bufpool_available(&pool), (unsigned)MAX - i);
        cr_assert_eq(gyre__bufpool_unheld(&pool), (unsigned)MAX - i);
        cr_assert_eq(gyre__bufpool_scarce(&pool), i > MAX * 3 / 4, "with %u held", i);
        uint16_t buf = take();
        cr_assert_eq(gyre__bufpool_available(&pool), (unsigned)MAX - i - 1);
        cr_assert_eq(gyre__bufpool_unheld(&pool), (unsigned)MAX - i, "with the backend, which may bring it");
        gyre__bufpool_receive(&pool, buf);
        gyre__bufpool_hold(&pool, buf);
    }
    cr_assert_eq(gyre__bufpool_unheld(&pool), 0);
    gyre__bufpool_release(&pool, 3);
    cr_assert_eq(gyre__bufpool_unheld(&pool), 0, "there is another reference");
    gyre__bufpool_release(&pool, 3);
    cr_assert_eq(gyre__bufpool_unheld(&pool), 1);
    cr_assert_eq(gyre__bufpool_available(&pool), 1);
}

/* A buffer with several references comes back with the last of them. */
Test(bufpool, references)
{
    uint16_t buf = take();
    gyre__bufpool_receive(&pool, buf);
    for (int i = 0; i < 1000; i++)
        gyre__bufpool_hold(&pool, buf);
    for (int i = 0; i < 1000; i++) {
        gyre__bufpool_release(&pool, buf);
        cr_assert_eq(pool.nfree, 0, "back on the stack with %d references left", 1000 - i);
    }
    gyre__bufpool_release(&pool, buf);
    cr_assert_eq(pool.nfree, 1);
    cr_assert_eq(take(), buf);
}

/* No two overlap; all bytes of each can be written; and their first lines do not all fall into the same sets. */
Test(bufpool, memory_and_stagger)
{
    const uint8_t *before = NULL;
    for (unsigned i = 0; i < MAX; i++) {
        uint8_t *data = gyre__bufpool_data(&pool, take());
        cr_assert(before == NULL || data >= before + SIZE, "two buffers overlap");
        cr_assert(before == NULL || (size_t)(data - before) % SIZE >= GYRE_BUF_STAGGER, "neighbours are not staggered");
        cr_assert_eq((uintptr_t)data % 64, 0, "a buffer begins within a cache line");
        memset(data, (int)i, SIZE);
        before = data;
    }
    for (unsigned i = 0; i < MAX; i++)
        for (unsigned k = 0; k < SIZE; k++)
            cr_assert_eq(gyre__bufpool_data(&pool, (uint16_t)i)[k], i);
}

/* At any time each buffer is with exactly one of the stack, the backend and the receivers. */
Test(bufpool, accounts_add_up_under_random_use)
{
    enum { FREE, BACKEND, RECEIVED } where[MAX] = {FREE};
    unsigned refs[MAX] = {0}, out = 0, held = 0;
    struct env_rng rng;
    env_rng_init(&rng, 11);
    for (unsigned i = 0; i < 200000; i++) {
        uint16_t b = (uint16_t)env_rng_below(&rng, MAX);
        if (env_rng_below(&rng, 3) == 0) {
            int got = gyre__bufpool_take(&pool);
            cr_assert_eq(got == GYRE_BUF_NONE, out == MAX);
            if (got != GYRE_BUF_NONE) {
                cr_assert_eq(where[got], FREE, "buffer %d was taken while another had it", got);
                where[got] = BACKEND;
                out++;
            }
        } else if (where[b] == BACKEND && env_rng_below(&rng, 2) == 0) {
            gyre__bufpool_untake(&pool, b);
            where[b] = FREE;
            out--;
        } else if (where[b] == BACKEND) {
            gyre__bufpool_receive(&pool, b);
            where[b] = RECEIVED;
            refs[b] = 1;
            held++;
        } else if (where[b] == RECEIVED && env_rng_below(&rng, 3) == 0) {
            gyre__bufpool_hold(&pool, b);
            refs[b]++;
        } else if (where[b] == RECEIVED) {
            gyre__bufpool_release(&pool, b);
            if (--refs[b] == 0) {
                where[b] = FREE;
                out--;
                held--;
            }
        }
        cr_assert_eq(gyre__bufpool_available(&pool), MAX - out);
        cr_assert_eq(gyre__bufpool_unheld(&pool), MAX - held);
        cr_assert_leq(pool.count, MAX);
    }
}

/* How many to post at first is never more than there can be; sizes that are odd work; the largest allowed opens, or is
 * refused where addresses are too short for it. */
Test(bufpool, sizes)
{
    struct gyre__bufpool other;
    cr_assert_eq(gyre__bufpool_init(&other, &mem.mem, 257, 100, 3), 0);
    cr_assert_eq(other.first, 3);
    memset(gyre__bufpool_data(&other, 2), 1, 257);
    gyre__bufpool_fini(&other);
    bool wide = sizeof(size_t) > 4;
    cr_assert_eq(gyre__bufpool_fits(1 << 20, 16384), wide);
    cr_assert_eq(gyre__bufpool_init(&other, &mem.mem, 1 << 20, 16, 16384), wide ? 0 : -ENOMEM, "16 GiB of addresses");
    if (wide) {
        memset(gyre__bufpool_data(&other, 16383), 1, 1 << 20);
        gyre__bufpool_fini(&other);
    }
}

/* Without memory init() says so and leaves nothing behind; fini() of what never opened is nothing. */
Test(bufpool, out_of_memory)
{
    struct fault_mem fault;
    for (long n = 1;; n++) {
        struct gyre__bufpool other;
        fault_mem_init(&fault, n, FAULT_FOREVER);
        int err = gyre__bufpool_init(&other, &fault.mem, SIZE, FIRST, MAX);
        cr_assert_eq(err, fault_mem_struck(&fault) ? -ENOMEM : 0);
        gyre__bufpool_fini(&other);
        cr_assert_eq(atomic_load(&fault.counted.blocks), 0);
        if (!fault_mem_struck(&fault))
            return;
    }
}
