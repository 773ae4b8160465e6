/* SPDX-License-Identifier: MIT
 * How many completions io_uring waits for: src/uring/batch.h, which needs no ring. */
#include "uring/batch.h"

#include <criterion/criterion.h>

/* `waits` waits, each with `receives` receives of `size` bytes. */
static void traffic(struct gyre_batch *b, unsigned waits, unsigned receives, uint32_t size)
{
    for (unsigned w = 0; w < waits; w++) {
        for (unsigned r = 0; r < receives; r++)
            gyre__batch_received(b, size);
        gyre__batch_note(b);
    }
}

/* A loop that has seen nothing, or little, takes what comes. */
Test(uring_batch, quiet_loops_wait_for_one)
{
    struct gyre_batch b = {.armed = 1000};
    cr_assert_eq(gyre__batch_want(&b), 1);
    traffic(&b, 100, 2, 64);
    cr_assert_eq(gyre__batch_want(&b), 1);
}

/* A busy one waits for more than it found before, and never for more than the bound. */
Test(uring_batch, busy_loops_wait_for_some)
{
    struct gyre_batch b = {.armed = 1000};
    traffic(&b, 100, 4, 64);
    cr_assert_geq(gyre__batch_want(&b), 4);
    cr_assert_leq(gyre__batch_want(&b), 4 + GYRE_BATCH_MORE);
    traffic(&b, 100, 500, 64);
    cr_assert_eq(gyre__batch_want(&b), GYRE_BATCH_WAIT_FOR_MAX);
}

/* Few peers are not made to wait for each other. */
Test(uring_batch, waits_for_a_share_of_what_is_armed)
{
    struct gyre_batch b = {.armed = 2 * GYRE_BATCH_SHARE};
    traffic(&b, 100, 8, 64);
    cr_assert_eq(gyre__batch_want(&b), 2);
    b.armed = GYRE_BATCH_SHARE - 1;
    cr_assert_eq(gyre__batch_want(&b), 1);
}

/* Large messages are taken as they come: a batch of them would leave the cache. */
Test(uring_batch, large_messages_are_not_gathered)
{
    struct gyre_batch b = {.armed = 1000};
    traffic(&b, 100, 8, 16384);
    cr_assert_eq(gyre__batch_want(&b), 1);
    traffic(&b, 200, 8, 64);
    cr_assert_gt(gyre__batch_want(&b), 1);
}

/* When the traffic ends the loop soon takes what comes again. */
Test(uring_batch, forgets_within_a_few_waits)
{
    struct gyre_batch b = {.armed = 1000};
    traffic(&b, 100, 12, 64);
    cr_assert_gt(gyre__batch_want(&b), 1);
    traffic(&b, 16, 0, 0);
    cr_assert_eq(gyre__batch_want(&b), 1);
}

/* No rate and no size, however large, makes the averages wrap. */
Test(uring_batch, survives_extremes)
{
    struct gyre_batch b = {.armed = UINT32_MAX};
    traffic(&b, 1000, 4096, 1 << 20);
    cr_assert_eq(gyre__batch_want(&b), 1);
    traffic(&b, 1000, 65536, 1);
    cr_assert_eq(gyre__batch_want(&b), GYRE_BATCH_WAIT_FOR_MAX);
}
