/* SPDX-License-Identifier: MIT
 * Bulk that is forwarded goes from socket to socket within the kernel where the backend can, and nobody can tell: not
 * by the bytes, not by the ends, not by what a handler sees that begins to look.
 *
 * On the simulator, and where the system has no splice(2), the same tests hold with nothing spliced. */
#include "fixture.h"

#include "loop/loop.h"

#include <errno.h>
#include <gyre/stats.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>

/* A pair of connections that forward to each other: e->user is the other one. With `look` set the bytes are no longer
 * forwarded but taken, one way or another. */
typedef size_t look_fn(struct end *e);

static look_fn *look;

static void forward_on(struct end *e)
{
    const struct end *other = e->user;
    if (other == NULL || other->c == NULL || look != NULL) {
        while (look != NULL && gyre_conn_inbound(e->c) > 0) {
            size_t n = look(e);
            cr_assert_gt(n, 0);
            e->got += n;
        }
        return;
    }
    int64_t n = gyre_conn_forward(e->c, other->c, SIZE_MAX);
    cr_assert(n >= 0 || n == GYRE_ECLOSED || n == -EPIPE || n == -ECONNRESET, "forward: %s", gyre_err_name((int)n));
    e->got += n > 0 ? (uint64_t)n : 0;
}

static void pass_eof_on(struct end *e)
{
    const struct end *other = e->user;
    if (other != NULL && other->c != NULL)
        (void)gyre_conn_shutdown(other->c);
    else
        (void)gyre_conn_close(e->c);
}

static const struct script relay = {.data = forward_on, .eof = pass_eof_on};

static uint64_t spliced(const struct api *api)
{
    return api_stats(api).bytes_spliced;
}

/* Random sizes and pauses in both directions, and the end of each. */
BACKEND_TEST(api_splice, bit_exact_both_ways)
{
    struct api api;
    struct peer a, b;
    struct end *ea, *eb;
    struct env_rng rng;
    env_rng_init(&rng, 5);
    api_start(&api, p, &relay);
    peer_relay_open(&api, &a, &b, &ea, &eb);
    peer_relay_warm_up(&api, &a, &b);
    peer_relay_warm_up(&api, &b, &a);
    uint64_t goal = a.sent + (api.is_sim ? MIB(1) : MIB(48));
    while (a.sent < goal) {
        static const uint32_t most[] = {100, 20000, 70000, 1 << 20};
        (void)peer_send_some(&a, 1 + env_rng_below(&rng, most[env_rng_below(&rng, 4)]));
        if (env_rng_below(&rng, 3) > 0)
            (void)peer_send_some(&b, 1 + env_rng_below(&rng, most[env_rng_below(&rng, 4)]));
        if (env_rng_below(&rng, 3) > 0)
            (void)peer_recv_some(&b, 1 + env_rng_below(&rng, most[env_rng_below(&rng, 4)]));
        if (env_rng_below(&rng, 4) > 0)
            (void)peer_recv_some(&a, env_rng_below(&rng, 8) > 0 ? SIZE_MAX : 5000);
        for (unsigned turns = env_rng_below(&rng, 4); turns > 0; turns--)
            api_turn_now(&api);
        if (api.is_sim)
            api_turn(&api);
    }
    peer_shutdown(&a);
    peer_expect(&b, a.sent);
    peer_until_end(&b);
    peer_expect(&a, b.sent);
    peer_relay_warm_up(&api, &b, &a); /* the other half goes on */
    peer_shutdown(&b);
    peer_until_end(&a);
    cr_assert(a.eof && b.eof);
    api_until(&api, ea->closes == 1 && eb->closes == 1);
    cr_assert_eq(ea->err, 0);
    cr_assert_eq(eb->err, 0);
    peer_close(&a);
    peer_close(&b);
    api_close(&api);
}

/* ---- a handler that begins to look ---- */

static void expect_right(const struct end *e, const void *data, size_t len)
{
    cr_assert_eq(env_pattern_check(data, len, e->key_in, e->got), -1, "wrong bytes after %llu",
                 (unsigned long long)e->got);
}

static size_t look_peek(struct end *e)
{
    struct gyre_slice s;
    cr_assert_eq(gyre_conn_peek(&s, e->c, 0), 0);
    expect_right(e, s.data, s.len);
    return gyre_conn_discard(e->c, s.len);
}

static size_t look_next(struct end *e)
{
    struct gyre_slice s;
    size_t here = gyre_conn_inbound(e->c);
    cr_assert_eq(gyre_conn_next(&s, e->c, here < 777 ? here : 777), 0);
    expect_right(e, s.data, s.len);
    return s.len;
}

static size_t look_read(struct end *e)
{
    uint8_t bytes[3000];
    size_t n = gyre_conn_read(bytes, sizeof bytes, e->c);
    expect_right(e, bytes, n);
    return n;
}

static size_t look_copy(struct end *e)
{
    uint8_t bytes[3000];
    size_t n = gyre_conn_copy(bytes, sizeof bytes, e->c, 0);
    expect_right(e, bytes, n);
    return gyre_conn_discard(e->c, n);
}

static size_t look_peekv(struct end *e)
{
    struct iovec iov[4];
    size_t n = 0;
    int count = gyre_conn_peekv(iov, 4, e->c);
    for (int i = 0; i < count; i++) {
        cr_assert_eq(env_pattern_check(iov[i].iov_base, iov[i].iov_len, e->key_in, e->got + n), -1);
        n += iov[i].iov_len;
    }
    return gyre_conn_discard(e->c, n);
}

static size_t look_hold(struct end *e)
{
    struct gyre_buf *buf;
    struct gyre_slice s;
    size_t here = gyre_conn_inbound(e->c);
    cr_assert_eq(gyre_buf_hold(&buf, &s, e->c, here < 20000 ? here : 20000), 0);
    expect_right(e, s.data, s.len);
    gyre_buf_release(buf);
    return s.len;
}

static size_t look_find(struct end *e)
{
    uint8_t needle[8], bytes[64];
    size_t here = gyre_conn_inbound(e->c);
    if (here < 64)
        return look_read(e);
    env_pattern_fill(needle, sizeof needle, e->key_in, e->got + 20);
    cr_assert_eq(gyre_conn_find(e->c, needle, sizeof needle, 0), 20);
    cr_assert_eq(gyre_conn_read(bytes, 64, e->c), 64);
    expect_right(e, bytes, 64);
    return 64;
}

static size_t look_discard(struct end *e)
{
    return gyre_conn_discard(e->c, 1000);
}

static int decode(struct gyre_frame *frame, const struct gyre_framer *framer, struct gyre_conn *c)
{
    (void)framer;
    frame->len = gyre_conn_inbound(c);
    return 0;
}

static size_t look_frame(struct end *e)
{
    static const struct gyre_framer framer = {.decode = decode};
    struct gyre_slice s;
    cr_assert_eq(gyre_frame_next(&s, e->c, &framer), 0);
    expect_right(e, s.data, s.len);
    return s.len;
}

/* Whichever way it looks, the bytes are those of the stream; and the connection is no relay any more. */
BACKEND_TEST(api_splice, handler_looks)
{
    static look_fn *const looks[] = {look_peek, look_next, look_read,    look_copy, look_peekv,
                                     look_hold, look_find, look_discard, look_frame};
    for (unsigned i = 0; i < sizeof looks / sizeof looks[0]; i++) {
        struct api api;
        struct peer a, b;
        struct end *ea, *eb;
        look = NULL;
        api_start(&api, p, &relay);
        peer_relay_open(&api, &a, &b, &ea, &eb);
        peer_relay_warm_up(&api, &a, &b);
        look = looks[i];
        uint64_t copied = api_stats(&api).bytes_copied_in;
        cr_assert_gt(peer_send_some(&a, api.is_sim ? 5000 : 300000), 0); /* at once, to be there as one */
        api_until(&api, ea->got == a.sent);
        if (backends_splices(api.loop))
            cr_assert_geq(api_stats(&api).bytes_copied_in, copied + KIB(32), "nothing was read out of a pipe");
        look = NULL;
        uint64_t before = spliced(&api);
        uint64_t sent = b.got + MIB(2) / (api.is_sim ? 64 : 1);
        for (b.key_in = a.key_out, b.got = a.sent; b.got < sent; api_turn(&api), (void)peer_recv_some(&b, SIZE_MAX))
            (void)peer_send_some(&a, MIB(1));
        peer_expect(&b, a.sent);
        cr_assert_eq(spliced(&api), before, "spliced although the handler has looked");
        peer_close(&a);
        peer_close(&b);
        api_close(&api);
    }
}

static void forward_some(struct end *e)
{
    const struct end *other = e->user;
    if (gyre_conn_inbound(e->c) >= 1000)
        e->got += (uint64_t)gyre_conn_forward(e->c, other->c, 1000);
    if (gyre_conn_inbound(e->c) >= 1000)
        (void)gyre_conn_wake(e->c);
}

static void forward_all_or_some(struct end *e)
{
    if (look != NULL)
        forward_some(e);
    else
        forward_on(e);
}

/* A pipe cannot be cut: its bytes are read out to be forwarded in parts. */
BACKEND_TEST(api_splice, parts)
{
    const struct script script = {.data = forward_all_or_some};
    struct api api;
    struct peer a, b;
    struct end *ea, *eb;
    look = NULL;
    api_start(&api, p, &script);
    peer_relay_open(&api, &a, &b, &ea, &eb);
    peer_relay_warm_up(&api, &a, &b);
    look = look_read;
    peer_send(&a, api.is_sim ? 20000 : 300000);
    peer_expect(&b, a.sent - a.sent % 1000);
    look = NULL;
    peer_close(&a);
    peer_close(&b);
    api_close(&api);
}

/* ---- back-pressure ---- */

/* What can come in beyond the limit before the loop can say that it is reached: a pipe and some buffers; where io_uring
 * receives without being asked, what it had posted: all buffers that were ever needed, at most. */
static size_t one_turn(const struct api *api)
{
    const struct gyre__bufpool *pool = &api->loop->pool;
    bool unasked = strcmp(api->backend, "io_uring") == 0 && !backends_splices(api->loop);
    return unasked ? (size_t)pool->size * pool->count : KIB(256);
}

/* A slow reader: what waits for it is bounded, and all of it comes. */
BACKEND_TEST(api_splice, slow_reader)
{
    struct api api;
    struct peer a, b;
    struct end *ea, *eb;
    api_start(&api, p, &relay);
    peer_relay_open(&api, &a, &b, &ea, &eb);
    peer_relay_warm_up(&api, &a, &b);
    int fds = env_fd_count();
    peer_relay_fill(&api, &a, eb);
    cr_assert_leq(gyre_conn_outbound(eb->c), KIB(256) + KIB(256));
    cr_assert_leq(gyre_conn_inbound(ea->c), MIB(1) + one_turn(&api));
    cr_assert_leq(env_fd_count(), fds + 2 * 8, "many pipes for one connection");
    for (uint64_t goal = a.sent + (api.is_sim ? KIB(100) : MIB(8)); a.sent < goal; api_turn(&api)) {
        (void)peer_send_some(&a, MIB(1));
        (void)peer_recv_some(&b, 30000);
        cr_assert_leq(gyre_conn_outbound(eb->c), KIB(256) + KIB(256));
    }
    peer_shutdown(&a);
    peer_expect(&b, a.sent);
    peer_until_end(&b);
    cr_assert(b.eof);
    peer_close(&b);
    peer_close(&a);
    api_close(&api);
}

/* With bytes in pipes: one side is aborted, the destination's peer resets, the loop goes. Nothing stays open. */
BACKEND_TEST(api_splice, ends_with_full_pipes)
{
    for (unsigned how = 0; how < 5; how++) {
        struct api api;
        struct peer a, b;
        struct end *ea, *eb;
        api_start(&api, p, &relay);
        peer_relay_open(&api, &a, &b, &ea, &eb);
        peer_relay_warm_up(&api, &a, &b);
        peer_relay_fill(&api, &a, eb);
        if (how == 0)
            cr_assert_eq(gyre_conn_abort(eb->c), 0);
        if (how == 1)
            cr_assert_eq(gyre_conn_abort(ea->c), 0);
        if (how == 2)
            peer_reset(&b);
        if (how == 3)
            peer_reset(&a);
        if (how < 3)
            api_until(&api, (how == 1 ? ea : eb)->closes == 1);
        else
            api_watch(&api, MS(5));
        if (how == 1) { /* what was forwarded still leaves */
            peer_expect(&b, ea->got);
            cr_assert_eq(gyre_conn_close(eb->c), 0);
            peer_until_end(&b);
            cr_assert(b.eof);
        }
        api_destroy_loop(&api);
        peer_close(&a);
        peer_close(&b);
        api_close(&api);
    }
}

/* ---- what the process notices ---- */

static volatile sig_atomic_t signals;

static void on_signal(int number)
{
    (void)number;
    signals++;
}

/* The peer goes away again and again while bytes are being moved to it: no SIGPIPE comes, and none is left pending. */
REAL_TEST(api_splice, no_sigpipe)
{
    sigset_t pending;
    const struct sigaction counted = {.sa_handler = on_signal};
    cr_assert_eq(sigaction(SIGPIPE, &counted, NULL), 0);
    for (unsigned round = 0; round < 20; round++) {
        struct api api;
        struct peer a, b;
        struct end *ea, *eb;
        api_start(&api, p, &relay);
        peer_relay_open(&api, &a, &b, &ea, &eb);
        peer_relay_warm_up(&api, &a, &b);
        (void)peer_send_some(&a, MIB(1));
        for (unsigned i = 0; i < round % 4; i++)
            api_turn_now(&api);
        if (round % 2 > 0)
            peer_reset(&b);
        else
            peer_close(&b);
        for (unsigned i = 0; i < 10; i++) {
            (void)peer_send_some(&a, MIB(1));
            api_turn_now(&api);
        }
        api_until(&api, eb->closes == 1);
        peer_close(&a);
        api_close(&api);
    }
    cr_assert_eq(sigpending(&pending), 0);
    cr_assert(!sigismember(&pending, SIGPIPE));
    cr_assert_eq(signals, 0);
}

/* No descriptors for pipes: bytes go the ordinary way. */
REAL_TEST(api_splice, no_descriptors)
{
    struct api api;
    struct peer a, b;
    struct end *ea, *eb;
    struct rlimit limit, none;
    api_start(&api, p, &relay);
    peer_relay_open(&api, &a, &b, &ea, &eb);
    cr_assert_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
    none = limit;
    none.rlim_cur = 0;
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &none), 0);
    while (a.sent < MIB(4)) {
        (void)peer_send_some(&a, MIB(1));
        api_turn_now(&api);
        (void)peer_recv_some(&b, SIZE_MAX);
    }
    peer_expect(&b, a.sent);
    cr_assert_eq(spliced(&api), 0);
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
    peer_relay_warm_up(&api, &a, &b); /* and when there are some, through pipes */
    peer_close(&a);
    peer_close(&b);
    api_close(&api);
}
