/* SPDX-License-Identifier: MIT
 * Promise 3: events of one op come in order. The streams compare every byte with the one due at its place, so an event
 * out of order, lost or doubled shows at once. */
#include "stream.h"

/* Send `bytes` from a to b, receive them with the given flags, and see the end come after the last one. */
static void transfer(struct seam *s, uint64_t bytes, uint32_t out_size, uint32_t in_size, unsigned flags)
{
    struct stream ends[2];
    stream_pair(s, &ends[0], &ends[1], 10);
    stream_sizes(&ends[0], out_size, 16);
    stream_sizes(&ends[1], 16, in_size);
    stream_receive(&ends[1], flags);
    stream_send(&ends[0], bytes);
    stream_finish(&ends[0]);
    seam_until(s, ends[1].eof);
    cr_assert_eq(ends[0].sent, bytes);
    cr_assert_eq(ends[1].got, bytes, "%llu bytes came of %llu", (unsigned long long)ends[1].got,
                 (unsigned long long)bytes);
    stream_close(&ends[0]);
    stream_close(&ends[1]);
}

/* One multi receive over a pool with room to spare. */
TRANSPORT_TEST(order, multi_receive)
{
    struct seam s;
    seam_open(&s, p);
    seam_pool(&s, 4096, 16, 64);
    transfer(&s, 1 << 20, 30011, 0, GYRE_OPF_MULTI | GYRE_OPF_POOL);
    seam_close(&s);
}

/* The same through two buffers: it ends with -ENOBUFS again and again, and goes on where it was. */
TRANSPORT_TEST(order, multi_receive_through_enobufs)
{
    struct seam s;
    seam_open(&s, p);
    seam_pool(&s, 512, 2, 2);
    transfer(&s, 300000, 30011, 0, GYRE_OPF_MULTI | GYRE_OPF_POOL);
    seam_close(&s);
}

/* Through one buffer. */
TRANSPORT_TEST(order, multi_receive_through_one_buffer)
{
    struct seam s;
    seam_open(&s, p);
    seam_pool(&s, 1000, 1, 1);
    transfer(&s, 200000, 50000, 0, GYRE_OPF_MULTI | GYRE_OPF_POOL);
    seam_close(&s);
}

/* Events taken out one by one, so that a multi receive is held up in the middle. */
TRANSPORT_TEST(order, multi_receive_one_event_at_a_time)
{
    struct seam s;
    seam_open(&s, p);
    seam_pool(&s, 256, 8, 8);
    s.cap = 1;
    transfer(&s, 150000, 30011, 0, GYRE_OPF_MULTI | GYRE_OPF_POOL);
    seam_close(&s);
}

/* A completion queue so small that it overflows. */
TRANSPORT_TEST(order, multi_receive_with_tiny_queues)
{
    struct seam s;
    seam_open_config(&s, p, (struct gyre__backend_config){.ops_max = 2, .sq_entries = 2, .cq_entries = 4});
    seam_pool(&s, 256, 128, 128);
    s.cap = 3;
    transfer(&s, 200000, 60000, 0, GYRE_OPF_MULTI | GYRE_OPF_POOL);
    seam_close(&s);
}

/* One receive per event, from the pool; with the hint that nothing is ready, and without. */
TRANSPORT_TEST(order, single_receives_from_the_pool)
{
    struct seam s;
    seam_open(&s, p);
    seam_pool(&s, 2048, 4, 4);
    transfer(&s, 1 << 19, 30011, 0, GYRE_OPF_POOL);
    transfer(&s, 1 << 19, 30011, 0, GYRE_OPF_POOL | GYRE_OPF_POLL_FIRST);
    transfer(&s, 1 << 19, 30011, 0, GYRE_OPF_POOL | GYRE_OPF_MULTI | GYRE_OPF_POLL_FIRST);
    seam_close(&s);
}

/* Into a buffer of one's own, of sizes that divide nothing. A full buffer does not mean an empty socket, nor does one
 * not full mean that the end was seen. */
TRANSPORT_TEST(order, receives_into_own_buffers)
{
    static const uint32_t sizes[] = {1, 7, 333, 4096, 65536};
    struct seam s;
    seam_open(&s, p);
    for (unsigned i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        transfer(&s, sizes[i] * 50 + 3, sizes[i] * 3, sizes[i], 0);
        transfer(&s, sizes[i] * 50 + 3, sizes[i] * 3, sizes[i], GYRE_OPF_POLL_FIRST);
    }
    seam_close(&s);
}

/* Single bytes sent one by one come out in order, however they are gathered. */
TRANSPORT_TEST(order, single_bytes)
{
    struct seam s;
    seam_open(&s, p);
    seam_pool(&s, 64, 8, 8);
    transfer(&s, 3000, 1, 0, GYRE_OPF_MULTI | GYRE_OPF_POOL);
    transfer(&s, 3000, 1, 5, 0);
    seam_close(&s);
}

/* Receiving is paused (cancelled) and resumed at random while the bytes come. */
TRANSPORT_TEST(order, through_pause_and_resume)
{
    struct seam s;
    struct stream ends[2];
    struct env_rng rng;
    env_rng_init(&rng, 31);
    seam_open(&s, p);
    seam_pool(&s, 700, 3, 6);
    stream_pair(&s, &ends[0], &ends[1], 20);
    stream_sizes(&ends[0], 5003, 16);
    stream_send(&ends[0], 400000);
    stream_finish(&ends[0]);
    stream_receive(&ends[1], GYRE_OPF_MULTI | GYRE_OPF_POOL);
    uint64_t end_ns = env_now_ns() + 40 * (uint64_t)SEAM_MS(1000);
    while (!ends[1].eof) {
        if (env_rng_below(&rng, 3) == 0)
            stream_pause(&ends[1]);
        seam_turn_before(&s, end_ns, "the end of the stream", __FILE__, __LINE__);
        if (seam_idle(ends[1].recv) && !ends[1].eof)
            stream_receive(&ends[1], env_rng_below(&rng, 2) ? GYRE_OPF_MULTI | GYRE_OPF_POOL : GYRE_OPF_POOL);
    }
    cr_assert_eq(ends[1].got, 400000);
    stream_close(&ends[0]);
    stream_close(&ends[1]);
    seam_close(&s);
}
