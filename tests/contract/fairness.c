/* SPDX-License-Identifier: MIT
 * Promise 12: no descriptor starves. While one peer sends as fast as it is read, others send small messages; each must
 * come within a bounded number of waits, counted, not timed. */
#include "stream.h"

enum { PINGERS = 20, ROUNDS = 60, PING = 16 };

struct bound {
    uint64_t worst; /* waits from the event of a ping's send to the last of the pings */
    uint64_t flood; /* bytes meanwhile */
};

/* The flooders are ends[0..1], the pingers follow. */
static struct bound flood_and_ping(struct seam *s, unsigned flags)
{
    static struct stream ends[2 + 2 * PINGERS];
    struct bound found = {0};
    for (unsigned i = 0; i <= PINGERS; i++) {
        stream_pair(s, &ends[2 * i], &ends[2 * i + 1], 2 * i);
        stream_receive(&ends[2 * i + 1], flags);
    }
    stream_send(&ends[0], (uint64_t)1 << 40);
    for (unsigned round = 1; round <= ROUNDS; round++) {
        for (unsigned i = 1; i <= PINGERS; i++)
            stream_send(&ends[2 * i], PING);
        uint64_t start = s->waits;
        for (unsigned due = PINGERS; due > 0;) {
            cr_assert_lt(s->waits - start, 20000, "round %u: %u pings have not come after 20000 waits", round, due);
            (void)seam_turn(s, SEAM_MS(1));
            due = 0;
            for (unsigned i = 1; i <= PINGERS; i++)
                due += ends[2 * i + 1].got < (uint64_t)round * PING;
        }
        if (s->waits - start > found.worst)
            found.worst = s->waits - start;
    }
    found.flood = ends[1].got;
    for (unsigned i = 0; i < 2 + 2 * PINGERS; i++)
        stream_close(&ends[i]);
    return found;
}

/* Waits are dealt out by events of up to SEAM_BATCH; each of the 42 streams has a turn well within this many. */
static uint64_t bound_for(const struct seam *s)
{
    return s->real ? 64 : 2000;
}

TRANSPORT_TEST(fairness, pingers_beside_a_flooder)
{
    static const unsigned kinds[] = {0, GYRE_OPF_POOL | GYRE_OPF_MULTI, GYRE_OPF_POOL};
    for (unsigned k = 0; k < 3; k++) {
        struct seam s;
        seam_open(&s, p);
        seam_pool(&s, 4096, 32, 128);
        struct bound found = flood_and_ping(&s, kinds[k]);
        cr_assert_gt(found.flood, 0, "the flooder starved");
        cr_assert_leq(found.worst, bound_for(&s), "a ping took %llu waits", (unsigned long long)found.worst);
        seam_close(&s);
    }
}

/* With room for one event per wait each stream still has its turn: a few rounds of all that are ready. */
BACKEND_TEST(fairness, pingers_beside_a_flooder_one_event_at_a_time)
{
    struct seam s;
    seam_open(&s, p);
    seam_pool(&s, 4096, 32, 128);
    s.cap = 1;
    struct bound found = flood_and_ping(&s, GYRE_OPF_POOL | GYRE_OPF_MULTI);
    cr_assert_gt(found.flood, 0, "the flooder starved");
    cr_assert_leq(found.worst, 64 * bound_for(&s), "a ping took %llu waits", (unsigned long long)found.worst);
    seam_close(&s);
}

/* A pool of few buffers is shared out too: the flooder does not get all of them for ever. */
BACKEND_TEST(fairness, pingers_beside_a_flooder_with_few_buffers)
{
    struct seam s;
    seam_open(&s, p);
    seam_pool(&s, 1024, 4, 4);
    struct bound found = flood_and_ping(&s, GYRE_OPF_POOL | GYRE_OPF_MULTI);
    cr_assert_gt(found.flood, 0, "the flooder starved");
    cr_assert_leq(found.worst, 16 * bound_for(&s), "a ping took %llu waits", (unsigned long long)found.worst);
    seam_close(&s);
}

/* A crowd that connects does not keep streams from their turn, nor does a flood keep connections from being
 * accepted. */
BACKEND_TEST(fairness, accept_beside_a_flooder)
{
    struct seam s;
    struct stream a, b, c, d;
    uint64_t worst = 0;
    seam_open(&s, p);
    seam_pool(&s, 4096, 16, 64);
    stream_pair(&s, &a, &b, 1);
    stream_receive(&b, GYRE_OPF_POOL | GYRE_OPF_MULTI);
    stream_send(&a, (uint64_t)1 << 40);
    for (int round = 0; round < 50; round++) {
        uint64_t start = s.waits;
        stream_pair(&s, &c, &d, 5);
        worst = s.waits - start > worst ? s.waits - start : worst;
        stream_close(&c);
        stream_close(&d);
    }
    cr_assert_leq(worst, 2 * bound_for(&s), "a connection took %llu waits", (unsigned long long)worst);
    stream_close(&a);
    stream_close(&b);
    seam_close(&s);
}
