/* SPDX-License-Identifier: MIT
 * Writing: every way of it, in order, within the marks, and what a borrowed piece is told. */
#include "fixture.h"

#include <errno.h>
#include <gyre/stats.h>
#include <stdlib.h>
#include <string.h>

static void greet(struct end *e)
{
    end_put(e, 1000);
}

/* What is written in on_open is the first the peer gets. */
TRANSPORT_TEST(api_write, in_on_open)
{
    struct api api;
    struct peer peer;
    const struct script script = {.open = greet};
    api_start(&api, p, &script);
    (void)peer_open(&api, &peer);
    peer_expect(&peer, 1000);
    peer_close(&peer);
    api_close(&api);
}

/* Writes of one turn leave as one gathered send. */
BACKEND_TEST(api_write, one_send_per_turn)
{
    struct api api;
    struct peer peer;
    api_init(&api, p);
    api.quiet_sim = true;
    api_open(&api);
    api_listen(&api, NULL, NULL);
    struct end *e = peer_open(&api, &peer);
    uint64_t sends = api_stats(&api).sends;
    for (unsigned i = 0; i < 40; i++)
        end_put(e, 100);
    cr_assert_eq(gyre_conn_outbound(e->c), 4000);
    peer_expect(&peer, 4000);
    cr_assert_eq(api_stats(&api).sends, sends + 1);
    cr_assert_eq(gyre_conn_outbound(e->c), 0);
    peer_close(&peer);
    api_close(&api);
}

/* Between cork and uncork nothing leaves, however many turns pass; then it leaves at once. */
TRANSPORT_TEST(api_write, cork)
{
    struct api api;
    struct peer peer;
    api_start(&api, p, NULL);
    struct end *e = peer_open(&api, &peer);
    gyre_conn_cork(e->c);
    for (unsigned i = 0; i < 10; i++) {
        end_put(e, 10);
        api_turn(&api);
    }
    api_watch(&api, MS(10));
    cr_assert_eq(peer_recv_some(&peer, 1), 0, "corked bytes have left");
    cr_assert_eq(gyre_conn_outbound(e->c), 100);
    uint64_t sends = api_stats(&api).sends;
    gyre_conn_uncork(e->c);
    peer_expect(&peer, 100);
    cr_assert_geq(api_stats(&api).sends, sends + 1);
    /* Closing uncorks. */
    gyre_conn_cork(e->c);
    end_put(e, 50);
    cr_assert_eq(gyre_conn_close(e->c), 0);
    peer_expect(&peer, 150);
    peer_until_end(&peer);
    cr_assert(peer.eof);
    peer_close(&peer);
    api_until(&api, e->closes == 1);
    cr_assert_eq(e->reason, GYRE_CLOSE_USER);
    api_close(&api);
}

/* Shutting down uncorks as well: what was queued before it must leave. */
BACKEND_TEST(api_write, shutdown_while_corked)
{
    struct api api;
    struct peer peer;
    const struct script script = {.eof = end_ignore};
    api_start(&api, p, &script);
    struct end *e = peer_open(&api, &peer);
    gyre_conn_cork(e->c);
    end_put(e, 50);
    cr_assert_eq(gyre_conn_shutdown(e->c), 0);
    gyre_conn_uncork(e->c);
    peer_expect(&peer, 50);
    peer_until_end(&peer);
    cr_assert(peer.eof);
    peer_close(&peer);
    api_close(&api);
}

/* All ways of writing, mixed at random, are one stream in the order of the calls. */
TRANSPORT_TEST(api_write, order_of_all_ways)
{
    enum { ROUNDS = 300, REFS = 64 };
    static uint8_t refs[ROUNDS][4096];
    struct api api;
    struct peer peer;
    struct env_rng rng;
    unsigned expected_sents = 0;
    env_rng_init(&rng, 5);
    api_start(&api, p, NULL);
    struct end *e = peer_open(&api, &peer);
    for (unsigned i = 0; i < ROUNDS; i++) {
        size_t len = 1 + env_rng_below(&rng, 4096);
        struct iovec iov[3];
        env_pattern_fill(refs[i], len, e->key_out, e->put);
        iov[0] = (struct iovec){refs[i], len / 3};
        iov[1] = (struct iovec){refs[i] + len / 3, len / 3};
        iov[2] = (struct iovec){refs[i] + len / 3 * 2, len - len / 3 * 2};
        switch (env_rng_below(&rng, 5)) {
        case 0:
            cr_assert_eq(gyre_conn_write(e->c, refs[i], len), 0);
            memset(refs[i], 0, len);
            break;
        case 1:
            cr_assert_eq(gyre_conn_writev(e->c, iov, 3), 0);
            memset(refs[i], 0, len);
            break;
        case 2:
            cr_assert_eq(gyre_conn_write_ref(e->c, refs[i], len, end_on_sent, e), 0);
            expected_sents++;
            break;
        case 3:
            gyre_conn_cork(e->c);
            cr_assert_eq(gyre_conn_write_ref(e->c, refs[i], len, NULL, NULL), 0);
            break;
        default:
            gyre_conn_uncork(e->c);
            cr_assert_eq(gyre_conn_write(e->c, refs[i], len), 0);
            api_turn(&api);
            break;
        }
        e->put += len;
        (void)peer_recv_some(&peer, 3000);
    }
    gyre_conn_uncork(e->c);
    peer_expect(&peer, e->put);
    api_until(&api, e->sents == expected_sents);
    cr_assert_eq(e->sent_errs, 0);
    api_watch(&api, MS(5));
    cr_assert_eq(e->sents, expected_sents);
    peer_close(&peer);
    api_close(&api);
}

/* A borrowed piece of a mebibyte is told once, with 0, when the kernel has all of it and not before. */
TRANSPORT_TEST(api_write, ref_is_told_when_taken)
{
    enum { LEN = 8 << 20 };
    struct api api;
    struct peer peer;
    uint8_t *data = malloc(LEN);
    cr_assert_not_null(data);
    api_start(&api, p, NULL);
    struct end *e = peer_open(&api, &peer);
    env_pattern_fill(data, LEN, e->key_out, 0);
    cr_assert_eq(gyre_conn_write_ref(e->c, data, LEN, end_on_sent, e), 0);
    cr_assert_eq(e->sents, 0);
    api_watch(&api, MS(20));
    cr_assert_eq(e->sents, 0, "8 MiB do not fit into the kernel, but done was called");
    cr_assert_gt(gyre_conn_outbound(e->c), 0);
    peer_expect(&peer, LEN);
    api_until(&api, e->sents == 1);
    cr_assert_eq(e->sent_errs, 0);
    memset(data, 0, LEN);
    free(data);
    peer_close(&peer);
    api_until(&api, e->closes == 1);
    cr_assert_eq(e->sents, 1);
    api_close(&api);
}

/* On abort every borrowed piece is told GYRE_ECLOSED, once, before on_close, and not from inside the call. */
TRANSPORT_TEST(api_write, ref_on_abort)
{
    struct api api;
    struct peer peer;
    static uint8_t data[4 << 20];
    api_start(&api, p, NULL);
    struct end *e = peer_open(&api, &peer);
    env_pattern_fill(data, sizeof data, e->key_out, 0);
    for (unsigned i = 0; i < 3; i++)
        cr_assert_eq(gyre_conn_write_ref(e->c, data, sizeof data, end_on_sent, e), 0);
    api_watch(&api, MS(5));
    unsigned before = e->sents;
    cr_assert_leq(before, 2);
    cr_assert_eq(gyre_conn_abort(e->c), 0);
    cr_assert_eq(e->sents, before, "done came from inside gyre_conn_abort");
    api_until(&api, e->closes == 1);
    cr_assert_eq(e->sents, 3);
    cr_assert_eq(e->sent_errs, 3 - before);
    cr_assert_eq((int64_t)e->n, GYRE_ECLOSED);
    cr_assert_gt(e->unsent, 0);
    peer_close(&peer);
    api_close(&api);
}

/* A peer that goes away without reading: the pieces are told an error, once each. */
BACKEND_TEST(api_write, ref_on_reset)
{
    struct api api;
    struct peer peer;
    static uint8_t data[4 << 20];
    api_start(&api, p, NULL);
    struct end *e = peer_open(&api, &peer);
    env_pattern_fill(data, sizeof data, e->key_out, 0);
    for (unsigned i = 0; i < 3; i++)
        cr_assert_eq(gyre_conn_write_ref(e->c, data, sizeof data, end_on_sent, e), 0);
    api_watch(&api, MS(5));
    peer_reset(&peer);
    api_until(&api, e->closes == 1);
    cr_assert_eq(e->sents, 3);
    cr_assert_geq(e->sent_errs, 1);
    cr_assert_eq(e->reason, GYRE_CLOSE_ERROR);
    cr_assert(e->err == -ECONNRESET || e->err == -EPIPE, "%s", gyre_err_name(e->err));
    api_close(&api);
}

/* Refused pieces are not borrowed: done does not come for them. */
BACKEND_TEST(api_write, ref_refused)
{
    struct api api;
    struct peer peer;
    static uint8_t data[100];
    const struct script script = {.eof = end_ignore};
    api_start(&api, p, &script);
    struct end *e = peer_open(&api, &peer);
    cr_assert_eq(gyre_conn_write_ref(e->c, NULL, 5, end_on_sent, e), -EINVAL);
    cr_assert_eq(gyre_conn_write(e->c, NULL, 5), -EINVAL);
    cr_assert_eq(gyre_conn_write(e->c, NULL, 0), 0);
    cr_assert_eq(gyre_conn_writev(e->c, NULL, -1), -EINVAL);
    cr_assert_eq(gyre_conn_writev(e->c, NULL, 0), 0);
    struct iovec bad = {NULL, 5};
    cr_assert_eq(gyre_conn_writev(e->c, &bad, 1), -EINVAL);
    cr_assert_eq(gyre_conn_shutdown(e->c), 0);
    cr_assert_eq(gyre_conn_write_ref(e->c, data, 100, end_on_sent, e), -EPIPE);
    cr_assert_eq(gyre_conn_write(e->c, data, 100), -EPIPE);
    struct iovec iov = {data, 100};
    cr_assert_eq(gyre_conn_writev(e->c, &iov, 1), -EPIPE);
    cr_assert_eq(gyre_conn_close(e->c), 0);
    cr_assert_eq(gyre_conn_write_ref(e->c, data, 100, end_on_sent, e), GYRE_ECLOSED);
    cr_assert_eq(gyre_conn_write(e->c, data, 100), GYRE_ECLOSED);
    cr_assert_eq(gyre_conn_writev(e->c, &iov, 1), GYRE_ECLOSED);
    peer_until_end(&peer);
    peer_close(&peer);
    api_until(&api, e->closes == 1);
    cr_assert_eq(e->sents, 0);
    api_close(&api);
}

/* 1024 pieces are allowed, one more is not; both are all or nothing. */
BACKEND_TEST(api_write, writev_limit)
{
    static struct iovec iov[1025];
    static uint8_t data[1025 * 3];
    struct api api;
    struct peer peer;
    api_start(&api, p, NULL);
    struct end *e = peer_open(&api, &peer);
    env_pattern_fill(data, sizeof data, e->key_out, 0);
    for (unsigned i = 0; i < 1025; i++)
        iov[i] = (struct iovec){data + 3 * i, 3};
    cr_assert_eq(gyre_conn_writev(e->c, iov, 1025), -EINVAL);
    cr_assert_eq(gyre_conn_outbound(e->c), 0);
    cr_assert_eq(gyre_conn_writev(e->c, iov, 1024), 0);
    peer_expect(&peer, 3072);
    peer_close(&peer);
    api_close(&api);
}

/* A borrowed piece of no bytes is told like any other, in its turn. */
BACKEND_TEST(api_write, ref_of_nothing)
{
    struct api api;
    struct peer peer;
    static const uint8_t nothing;
    api_start(&api, p, NULL);
    struct end *e = peer_open(&api, &peer);
    cr_assert_eq(gyre_conn_write_ref(e->c, &nothing, 0, end_on_sent, e), 0);
    end_put(e, 10);
    cr_assert_eq(gyre_conn_write_ref(e->c, &nothing, 0, end_on_sent, e), 0);
    peer_expect(&peer, 10);
    api_until(&api, e->sents == 2);
    cr_assert_eq(e->sent_errs, 0);
    uint64_t sends = api_stats(&api).sends;
    api_watch(&api, MS(5));
    cr_assert_eq(api_stats(&api).sends, sends, "nothing is sent over and over");
    peer_close(&peer);
    api_close(&api);
}

/* Above the high mark it is congested until the low one; then on_drain comes, exactly once. */
TRANSPORT_TEST(api_write, marks)
{
    struct api api;
    struct peer peer;
    struct gyre_listener_options options = {
        .conn = {.write_high_bytes = 100000, .write_low_bytes = 20000, .write_max_bytes = MIB(12)}};
    api_init(&api, p);
    api_open(&api);
    api_listen(&api, NULL, &options);
    struct end *e = peer_open(&api, &peer);
    end_put(e, 100000);
    cr_assert(!gyre_conn_congested(e->c), "at the high mark is not above it");
    end_put(e, MIB(10));
    cr_assert(gyre_conn_congested(e->c));
    while (peer.got < e->put) {
        (void)peer_recv_some(&peer, 50000);
        api_turn(&api);
        if (gyre_conn_outbound(e->c) > 100000)
            cr_assert(gyre_conn_congested(e->c));
        if (e->drains == 0)
            cr_assert(gyre_conn_congested(e->c));
        else
            cr_assert_leq(gyre_conn_outbound(e->c), 20000, "drained above the low mark");
    }
    api_watch(&api, MS(5));
    cr_assert_eq(e->drains, 1);
    cr_assert(!gyre_conn_congested(e->c));
    end_put(e, 1000);
    peer_expect(&peer, e->put);
    cr_assert_eq(e->drains, 1, "on_drain without having been congested");
    peer_close(&peer);
    api_close(&api);
}

/* What would pass the cap is refused whole, and on_drain follows. */
TRANSPORT_TEST(api_write, cap)
{
    struct api api;
    struct peer peer;
    static uint8_t data[1 << 20];
    struct gyre_listener_options options = {.conn = {.write_max_bytes = MIB(8)}};
    api_init(&api, p);
    api_open(&api);
    api_listen(&api, NULL, &options);
    struct end *e = peer_open(&api, &peer);
    while (end_try_put(e, 999983) == 0)
        cr_assert_leq(gyre_conn_outbound(e->c), MIB(8));
    size_t queued = gyre_conn_outbound(e->c);
    cr_assert_leq(queued, MIB(8));
    cr_assert_eq(gyre_conn_write_ref(e->c, data, sizeof data, end_on_sent, e), -EAGAIN);
    struct iovec iov[2] = {{data, sizeof data / 2}, {data, sizeof data / 2}};
    cr_assert_eq(gyre_conn_writev(e->c, iov, 2), -EAGAIN);
    cr_assert_eq(gyre_conn_outbound(e->c), queued, "a refused write queued something");
    end_put(e, MIB(8) - queued);
    cr_assert_eq(gyre_conn_outbound(e->c), MIB(8));
    cr_assert_eq(gyre_conn_write(e->c, data, 1), -EAGAIN);
    peer_expect(&peer, e->put);
    api_until(&api, e->drains == 1);
    cr_assert_eq(e->sents, 0);
    peer_close(&peer);
    api_close(&api);
}

/* A write that is refused while little is queued is followed by on_drain as well: nobody else would say when to try
 * again. */
BACKEND_TEST(api_write, refused_below_the_low_mark)
{
    struct api api;
    struct peer peer;
    struct gyre_listener_options options = {.conn = {.write_max_bytes = KIB(64)}};
    api_init(&api, p);
    api_open(&api);
    api_listen(&api, NULL, &options);
    struct end *e = peer_open(&api, &peer);
    gyre_conn_cork(e->c);
    end_put(e, 10000); /* below the low mark, 16 KiB */
    cr_assert_eq(end_try_put(e, 60000), -EAGAIN);
    gyre_conn_uncork(e->c);
    peer_expect(&peer, 10000);
    api_until(&api, e->drains == 1);
    end_put(e, 60000);
    peer_expect(&peer, 70000);
    peer_close(&peer);
    api_close(&api);
}

static void fill_again(struct end *e)
{
    if (e->n++ < 20)
        while (end_try_put(e, 40000) == 0 && !gyre_conn_congested(e->c))
            ;
}

/* A writer that fills up in each on_drain gets an on_drain each time. */
TRANSPORT_TEST(api_write, drain_and_fill)
{
    struct api api;
    struct peer peer;
    const struct script script = {.open = fill_again, .drain = fill_again};
    struct gyre_listener_options options = {.conn = {.write_high_bytes = KIB(128)}};
    api_init(&api, p);
    api_open(&api);
    api_listen(&api, &script, &options);
    struct end *e = peer_open(&api, &peer);
    api_until(&api, (peer_recv_some(&peer, 30000), e->n == 21 && peer.got == e->put));
    cr_assert_eq(e->drains, 20);
    peer_close(&peer);
    api_close(&api);
}

static void write_more_when_sent(int err, void *user)
{
    struct end *e = user;
    api_enter(e->api);
    cr_assert_eq(err, 0);
    e->sents++;
    if (e->sents < 50)
        cr_assert_eq(gyre_conn_write_ref(e->c, "0123456789", 10, write_more_when_sent, e), 0);
    else if (e->sents == 50)
        cr_assert_eq(gyre_conn_close(e->c), 0);
    api_leave(e->api);
}

/* A done function may write and close. */
BACKEND_TEST(api_write, from_done)
{
    struct api api;
    struct peer peer;
    uint8_t data[1000];
    size_t got = 0;
    int64_t n = 0;
    api_start(&api, p, NULL);
    struct end *e = peer_open(&api, &peer);
    cr_assert_eq(gyre_conn_write_ref(e->c, "0123456789", 10, write_more_when_sent, e), 0);
    cr_assert_eq(gyre_conn_write_ref(e->c, "0123456789", 10, NULL, NULL), 0);
    api_until(&api, ((n = peer_recv_raw(&peer, data, sizeof data)) > 0 ? got += (size_t)n : 0, n == 0));
    cr_assert_eq(got, 510);
    peer_close(&peer);
    api_until(&api, e->closes == 1);
    cr_assert_eq(e->sents, 50);
    api_close(&api);
}
