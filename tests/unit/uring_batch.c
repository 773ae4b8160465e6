/* SPDX-License-Identifier: MIT
 * How many completions io_uring waits for: src/uring/batch.h, which needs no ring. */
#include "uring/batch.h"

#include <criterion/criterion.h>

/* `waits` waits, each with `receives` receives of `size` bytes. */
static void traffic(struct gyre__batch *b, unsigned waits, unsigned receives, uint32_t size)
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
    struct gyre__batch b = {.armed = 1000};
    cr_assert_eq(gyre__batch_want(&b), 1);
    traffic(&b, 100, 2, 64);
    cr_assert_eq(gyre__batch_want(&b), 1);
}

/* A busy one waits for more than it found before, and never for more than the bound. */
Test(uring_batch, busy_loops_wait_for_some)
{
    struct gyre__batch b = {.armed = 1000};
    traffic(&b, 100, 4, 64);
    cr_assert_geq(gyre__batch_want(&b), 4);
    cr_assert_leq(gyre__batch_want(&b), 4 + GYRE_BATCH_MORE);
    traffic(&b, 100, 500, 64);
    cr_assert_eq(gyre__batch_want(&b), GYRE_BATCH_WAIT_FOR_MAX);
}

/* Few peers are not made to wait for each other. */
Test(uring_batch, waits_for_a_share_of_what_is_armed)
{
    struct gyre__batch b = {.armed = 2 * GYRE_BATCH_SHARE};
    traffic(&b, 100, 8, 64);
    cr_assert_eq(gyre__batch_want(&b), 2);
    b.armed = GYRE_BATCH_SHARE - 1;
    cr_assert_eq(gyre__batch_want(&b), 1);
}

/* Large messages are taken as they come: a batch of them would leave the cache. */
Test(uring_batch, large_messages_are_not_gathered)
{
    struct gyre__batch b = {.armed = 1000};
    traffic(&b, 100, 8, 16384);
    cr_assert_eq(gyre__batch_want(&b), 1);
    traffic(&b, 200, 8, 64);
    cr_assert_gt(gyre__batch_want(&b), 1);
}

/* When the traffic ends the loop soon takes what comes again. */
Test(uring_batch, forgets_within_a_few_waits)
{
    struct gyre__batch b = {.armed = 1000};
    traffic(&b, 100, 12, 64);
    cr_assert_gt(gyre__batch_want(&b), 1);
    traffic(&b, 16, 0, 0);
    cr_assert_eq(gyre__batch_want(&b), 1);
}

/* No rate and no size, however large, makes the averages wrap. */
Test(uring_batch, survives_extremes)
{
    struct gyre__batch b = {.armed = UINT32_MAX};
    traffic(&b, 1000, 4096, 1 << 20);
    cr_assert_eq(gyre__batch_want(&b), 1);
    traffic(&b, 1000, 65536, 1);
    cr_assert_eq(gyre__batch_want(&b), GYRE_BATCH_WAIT_FOR_MAX);
}

/* `moves` into pipes by `streams` streams in turn, with a wait after each. */
static void bulk(struct gyre__batch *b, uint8_t *seen, unsigned streams, unsigned moves)
{
    for (unsigned m = 0; m < moves; m++) {
        gyre__batch_bulk(b, &seen[m % streams]);
        gyre__batch_note(b);
    }
}

/* Bulk streams are let gather once there are many; a few are not, however much they move. */
Test(uring_batch, many_bulk_streams_gather)
{
    uint8_t seen[200] = {0};
    for (unsigned streams = 1; streams <= 200; streams++) {
        struct gyre__batch b = {.armed = 1000};
        cr_assert_not(gyre__batch_crowded(&b));
        bulk(&b, seen, streams, 20 * GYRE_BATCH_ROUND);
        cr_assert_eq(gyre__batch_crowded(&b), streams >= GYRE_BATCH_CROWD, "%u streams", streams);
    }
}

/* What was a crowd and is one stream now is soon not held up any longer; nor is anybody when no bulk comes. */
Test(uring_batch, a_crowd_that_leaves_holds_up_nobody)
{
    uint8_t seen[64] = {0};
    struct gyre__batch b = {.armed = 1000};
    for (unsigned times = 0; times < 300; times++) {
        bulk(&b, seen, 64, 3 * GYRE_BATCH_ROUND);
        cr_assert(gyre__batch_crowded(&b), "after %u times", times);
        bulk(&b, seen, 1, 2 * GYRE_BATCH_ROUND);
        cr_assert_not(gyre__batch_crowded(&b));
    }
    bulk(&b, seen, 64, 3 * GYRE_BATCH_ROUND);
    traffic(&b, GYRE_BATCH_FRESH, 0, 0);
    cr_assert_not(gyre__batch_crowded(&b));
}
