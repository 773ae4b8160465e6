/* SPDX-License-Identifier: MIT
 * When io_uring waits for several datagrams: src/uring/reach.h, as batch.h uses it, which needs no ring. */
#include "uring/batch.h"

#include <criterion/criterion.h>

/* One wait as the ring makes it, for what batch.h says: of it come `in_flight` datagrams at most, `per_us` of them in a
 * microsecond, and at once what came while the loop was busy. Returns for how many microseconds was held out. */
static unsigned wait_once(struct gyre__batch *b, unsigned in_flight, double per_us, unsigned at_once)
{
    unsigned hold = 0, came;
    if (gyre__batch_tries(b)) {
        b->reach.trying = true;
        hold = GYRE_REACH_HOLD_US;
    } else if (gyre__batch_want(b) > 1) {
        b->reach.asked = gyre__batch_want(b);
        hold = GYRE_BATCH_HOLD_US;
    }
    came = at_once + (unsigned)(hold * per_us);
    for (unsigned i = 0; i < came && i < in_flight; i++)
        gyre__batch_heard(b, 64);
    gyre__batch_note(b);
    return hold;
}

/* How many of `waits` were held out, trials apart. */
static unsigned held(struct gyre__batch *b, unsigned waits, unsigned in_flight, double per_us, unsigned at_once)
{
    unsigned count = 0;
    for (unsigned i = 0; i < waits; i++)
        count += wait_once(b, in_flight, per_us, at_once) == GYRE_BATCH_HOLD_US;
    return count;
}

/* With many under way most waits are for several, soon, and without end. */
Test(uring_reach, many_under_way)
{
    struct gyre__batch b = {.armed = 1};
    cr_assert_eq(held(&b, GYRE_REACH_PAUSE, 64, 0.22, 3), 0, "before any trial");
    cr_assert_geq(held(&b, 10000, 64, 0.22, 3), 9900);
}

/* With few none is: they would all wait for that. */
Test(uring_reach, few_under_way)
{
    for (unsigned in_flight = 1; in_flight < GYRE_REACH_ENOUGH; in_flight++) {
        struct gyre__batch b = {.armed = 1};
        cr_assert_eq(held(&b, 10000, in_flight, 0.22, in_flight < 4 ? in_flight : 4), 0, "with %u", in_flight);
    }
}

/* Trials become rarer, and a loop that finds little to do makes none at all. */
Test(uring_reach, trials_are_rare)
{
    struct gyre__batch b = {.armed = 1};
    unsigned trials = 0;
    for (unsigned i = 0; i < 100000; i++)
        trials += wait_once(&b, 16, 0.2, 4) == GYRE_REACH_HOLD_US;
    cr_assert_geq(trials, 90);
    cr_assert_leq(trials, 110);
    b = (struct gyre__batch){.armed = 1};
    for (unsigned i = 0; i < 100000; i++)
        cr_assert_eq(wait_once(&b, 64, 0.2, 2), 0);
}

/* What comes by itself, many at a time, is not waited for, and streams make no trial. */
Test(uring_reach, floods_and_streams_are_not_tried)
{
    struct gyre__batch b = {.armed = 1};
    for (unsigned i = 0; i < 10000; i++)
        cr_assert_eq(wait_once(&b, UINT32_MAX, 1, 40), 0);
    b = (struct gyre__batch){.armed = 1000};
    for (unsigned i = 0; i < 10000; i++) {
        for (unsigned k = 0; k < 4; k++)
            gyre__batch_received(&b, 64);
        gyre__batch_note(&b);
        cr_assert(!gyre__batch_tries(&b));
    }
}

/* Peers leave: whether a few are left or half, three waits or the next trial end it. */
Test(uring_reach, ends_when_peers_leave)
{
    for (unsigned left = 1; left < GYRE_REACH_ENOUGH; left++) {
        struct gyre__batch b = {.armed = 1};
        cr_assert_gt(held(&b, 1000, 64, 0.22, 3), 0);
        (void)held(&b, 2000, left, 0.22, left < 4 ? left : 4);
        cr_assert_eq(held(&b, 1000, left, 0.22, left < 4 ? left : 4), 0, "with %u left", left);
    }
}

/* One wait that the machine disturbed ends nothing; three in a row do, and a trial begins it again. */
Test(uring_reach, strikes)
{
    struct gyre__batch b = {.armed = 1};
    (void)held(&b, 1000, 64, 0.22, 3);
    for (unsigned i = 0; i < 10; i++) {
        (void)held(&b, GYRE_REACH_STRIKES - 1, 64, 2, 3);
        cr_assert_eq(wait_once(&b, 64, 0.22, 3), GYRE_BATCH_HOLD_US);
    }
    (void)held(&b, GYRE_REACH_STRIKES, 64, 2, 3);
    cr_assert_eq(wait_once(&b, 64, 0.22, 3), 0);
    cr_assert_gt(held(&b, 3000, 64, 0.22, 3), 1000);
}
