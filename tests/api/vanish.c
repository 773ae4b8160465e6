/* SPDX-License-Identifier: MIT
 * Bytes must not vanish: what was received, and what was queued, when a connection ends without an error. */
#include "fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

enum { REQUEST = 300000 };

struct bridge {
    bool ready; /* the destination may be written to */
    struct end *src, *dst;
};

static struct bridge bridge;

/* Forward what there is. The end is passed on once everything was. */
static void pump(struct end *src)
{
    struct end *dst = bridge.dst;
    if (!bridge.ready || src != bridge.src || dst->c == NULL)
        return;
    int64_t n = gyre_conn_forward(src->c, dst->c, SIZE_MAX);
    cr_assert_geq(n, 0, "forward: %s", gyre_err_name((int)n));
    src->got += (uint64_t)n;
    if (src->eofs > 0 && gyre_conn_inbound(src->c) == 0)
        cr_assert_eq(gyre_conn_shutdown(dst->c), 0);
}

static void close_other(struct end *e)
{
    if (e == bridge.src && bridge.dst->c != NULL)
        (void)gyre_conn_close(bridge.dst->c);
}

static const struct script bridging = {.data = pump, .eof = pump, .close = close_other};

/* The client's request and FIN are here, the upstream is not ready yet or does not read. Passing the upstream's end on
 * to the client must not lose the rest of the request. */
static void shut_source(const struct backend_param *p, bool blocked)
{
    struct api api;
    struct peer a, b;
    struct gyre_listener_options options = {.conn = {.write_high_bytes = 20000}};
    api_init(&api, p);
    api_open(&api);
    api_listen(&api, &bridging, &options);
    bridge = (struct bridge){.ready = false};
    peer_relay_open(&api, &a, &b, &bridge.src, &bridge.dst);
    struct end *src = bridge.src;
    peer_send(&a, REQUEST);
    peer_shutdown(&a);
    api_until(&api, src->eofs == 1);
    bridge.ready = blocked;
    if (blocked)
        pump(src);
    cr_assert_eq(gyre_conn_shutdown(src->c), 0);
    api_watch(&api, MS(5));
    bridge.ready = true;
    if (!blocked)
        cr_assert_eq(gyre_conn_wake(src->c), 0);
    peer_until_end(&b);
    cr_assert(b.eof);
    cr_assert_eq(b.got, REQUEST, "%llu of %u bytes came", (unsigned long long)b.got, (unsigned)REQUEST);
    api_until(&api, src->closes == 1);
    cr_assert_eq(src->reason, GYRE_CLOSE_EOF);
    cr_assert_eq(src->err, 0);
    peer_close(&a);
    peer_close(&b);
    api_until(&api, bridge.dst->closes == 1);
    api_close(&api);
}

TRANSPORT_TEST(api_vanish, shutdown_before_the_destination_is_ready)
{
    shut_source(p, false);
}

TRANSPORT_TEST(api_vanish, shutdown_while_forwarding_waits)
{
    shut_source(p, true);
}

/* Both ends came, in either order, and bytes are left: the connection stays until they are taken or given up. */
static void leave_then(const struct backend_param *p, bool shut_first, void (*finish)(struct end *e),
                       enum gyre_close_reason reason)
{
    static const struct script script = {.data = end_ignore, .eof = end_ignore};
    struct api api;
    struct peer peer;
    api_start(&api, p, &script);
    struct end *e = peer_open(&api, &peer);
    if (shut_first) {
        cr_assert_eq(gyre_conn_shutdown(e->c), 0);
        peer_until_end(&peer);
    }
    peer_send(&peer, 5000);
    peer_shutdown(&peer);
    api_until(&api, e->eofs == 1);
    cr_assert_eq(e->left_at_eof, 5000);
    if (!shut_first)
        cr_assert_eq(gyre_conn_shutdown(e->c), 0);
    api_watch(&api, MS(5));
    cr_assert_eq(e->closes, 0, "it ended while 5000 bytes were left");
    if (reason == GYRE_CLOSE_EOF) {
        char some[1000];
        cr_assert_eq(gyre_conn_read(some, sizeof some, e->c), sizeof some);
        e->got += sizeof some;
        api_watch(&api, MS(5));
        cr_assert_eq(e->closes, 0, "it ended while 4000 bytes were left");
    }
    finish(e);
    api_until(&api, e->closes == 1);
    cr_assert_eq(e->reason, reason);
    cr_assert_eq(e->err, 0);
    peer_close(&peer);
    api_close(&api);
}

static void take_all(struct end *e)
{
    cr_assert_eq(end_take(e), 4000);
}

static void hold_all(struct end *e)
{
    struct gyre_buf *buf;
    struct gyre_slice view;
    cr_assert_eq(gyre_buf_hold(&buf, &view, e->c, 4000), 0);
    gyre_buf_release(buf);
}

static void do_close(struct end *e)
{
    cr_assert_eq(gyre_conn_close(e->c), 0);
}

static void do_abort(struct end *e)
{
    cr_assert_eq(gyre_conn_abort(e->c), 0);
}

TRANSPORT_TEST(api_vanish, both_ended_until_taken)
{
    leave_then(p, false, take_all, GYRE_CLOSE_EOF);
    leave_then(p, true, take_all, GYRE_CLOSE_EOF);
}

BACKEND_TEST(api_vanish, both_ended_until_given_up)
{
    leave_then(p, true, hold_all, GYRE_CLOSE_EOF);
    leave_then(p, false, do_close, GYRE_CLOSE_USER);
    leave_then(p, true, do_abort, GYRE_CLOSE_ABORT);
}

static void no_frame(struct end *e, struct gyre_slice frame)
{
    (void)frame;
    cr_assert_fail("a frame that is not whole, of end %p", (void *)e);
}

static void shut(struct end *e)
{
    cr_assert_eq(gyre_conn_shutdown(e->c), 0);
}

/* The beginning of a frame, which nothing can make whole any more, does not keep it. */
BACKEND_TEST(api_vanish, half_a_frame_does_not_hold_the_end)
{
    static const struct script script = {.frame = no_frame, .eof = shut};
    struct gyre_framer framer;
    cr_assert_eq(gyre_framer_init_line(&framer, 0, 1000), 0);
    struct gyre_listener_options options = {.conn = {.framer = &framer}};
    struct api api;
    struct peer peer;
    api_init(&api, p);
    api_open(&api);
    api_listen(&api, &script, &options);
    struct end *e = peer_open(&api, &peer);
    peer_send_raw(&peer, "no line", 7);
    peer_shutdown(&peer);
    api_until(&api, e->closes == 1);
    cr_assert_eq(e->left_at_eof, 7);
    cr_assert_eq(e->reason, GYRE_CLOSE_EOF);
    peer_close(&peer);
    api_close(&api);
}

/* ---- closing while connecting ---- */

enum { PIECE = 3000 };

static uint8_t piece[PIECE];

static size_t queue_write(struct end *e)
{
    end_put(e, PIECE);
    return PIECE;
}

static size_t queue_ref(struct end *e)
{
    cr_assert_eq(gyre_conn_write_ref(e->c, piece, PIECE, end_on_sent, e), 0);
    return PIECE;
}

static size_t queue_empty_ref(struct end *e)
{
    cr_assert_eq(gyre_conn_write_ref(e->c, NULL, 0, end_on_sent, e), 0);
    return 0;
}

static size_t queue_file(struct end *e)
{
    char path[128];
    (void)snprintf(path, sizeof path, "%s/file", e->api->dir);
    int fd = open(path, O_CREAT | O_TRUNC | O_RDWR | O_CLOEXEC, 0600);
    cr_assert_eq(write(fd, piece, PIECE), PIECE);
    cr_assert_eq(gyre_conn_sendfile(e->c, fd, 0, PIECE, end_on_sent, e), 0);
    e->user = (void *)(intptr_t)(fd + 1);
    cr_assert_eq(unlink(path), 0);
    return PIECE;
}

/* What another connection has received. */
static struct end *source;

static size_t queue_forwarded(struct end *e)
{
    cr_assert_eq(gyre_conn_forward(source->c, e->c, SIZE_MAX), PIECE);
    return PIECE;
}

static void close_while_connecting(const struct backend_param *p, size_t (*queue)(struct end *e), unsigned sents)
{
    static const struct script leaving = {.data = end_ignore};
    struct api api;
    struct stage stage;
    struct peer peer, from;
    api_start(&api, p, &leaving);
    stage_open(&api, &stage);
    source = peer_open(&api, &from);
    peer_send(&from, PIECE);
    api_until(&api, gyre_conn_inbound(source->c) == PIECE);
    struct end *e = api_connect(&api, stage.address, NULL, NULL);
    env_pattern_fill(piece, PIECE, e->key_out, 0);
    size_t bytes = queue(e);
    cr_assert_eq(e->opens, 0, "it is open already");
    cr_assert_eq(gyre_conn_close(e->c), 0);
    stage_accept(&stage, &peer, e);
    if (queue == queue_forwarded)
        peer.key_in = from.key_out;
    peer_until_end(&peer);
    cr_assert_eq(peer.got, bytes, "%llu of %zu bytes came", (unsigned long long)peer.got, bytes);
    cr_assert_eq(peer.err, 0);
    peer_close(&peer);
    api_until(&api, e->closes == 1);
    cr_assert_eq(e->reason, GYRE_CLOSE_USER);
    cr_assert_eq(e->err, 0);
    cr_assert_eq(e->unsent, 0);
    cr_assert_eq(e->sents, sents);
    cr_assert_eq(e->sent_errs, 0, "its `done` got an error");
    if (e->user != NULL)
        cr_assert_eq(close((int)(intptr_t)e->user - 1), 0);
    peer_close(&from);
    stage_close(&stage);
    api_close(&api);
}

TRANSPORT_TEST(api_vanish, close_while_connecting_write)
{
    close_while_connecting(p, queue_write, 0);
    close_while_connecting(p, queue_ref, 1);
    close_while_connecting(p, queue_empty_ref, 1);
    close_while_connecting(p, queue_forwarded, 0);
}

TRANSPORT_TEST(api_vanish, close_while_connecting_file)
{
    close_while_connecting(p, queue_file, 1);
}
