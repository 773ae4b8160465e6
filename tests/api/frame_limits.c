/* SPDX-License-Identifier: MIT
 * Framing at its limits: frames that come byte by byte, that are larger than every buffer, that are none; frames
 * written; framers changed on the way; a framer of the user's own. */
#include "fixture.h"

#include "stream/conn.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- work ---- */

/* Lines, and how much the search has looked at in all. */
struct counting {
    struct gyre_framer lines;
    uint64_t looked_at;
};

static int count_and_decode(struct gyre_frame *frame, const struct gyre_framer *framer, struct gyre_conn *c)
{
    struct counting *counting = framer->user;
    size_t from = (size_t)(frame->state >> 8);
    int err = counting->lines.decode(frame, &counting->lines, c);
    counting->looked_at += (err == -EAGAIN ? (size_t)(frame->state >> 8) : frame->len + frame->drop) - from;
    return err;
}

static void count_bytes(struct end *e, struct gyre_slice frame)
{
    e->n += frame.len;
}

/* A line that comes byte by byte is searched once, and copied a bounded number of times. */
BACKEND_TEST(api_frame, byte_by_byte_is_linear)
{
    enum { LINE = 100000 };
    struct api api;
    struct peer peer;
    struct counting counting = {.looked_at = 0};
    const struct script script = {.frame = count_bytes};
    cr_assert_eq(gyre_framer_init_line(&counting.lines, 0, 0), 0);
    const struct gyre_framer framer = {.decode = count_and_decode, .user = &counting};
    struct gyre_listener_options options = {.conn = {.framer = &framer}};
    api_init(&api, p);
    api.quiet_sim = true;
    api_open(&api);
    api_listen(&api, &script, &options);
    struct end *e = peer_open(&api, &peer);
    for (unsigned i = 0; i < LINE; i++) {
        peer_send_raw(&peer, "x", 1);
        if (i % 4 == 0)
            api_turn_now(&api);
    }
    cr_assert_gt(e->datas + api_stats(&api).events, 1000, "it did not come in pieces");
    peer_send_raw(&peer, "\n", 1);
    api_until(&api, e->frames == 1);
    cr_assert_eq(e->n, LINE);
    cr_assert_eq(counting.looked_at, LINE + 1, "%llu bytes were looked at", (unsigned long long)counting.looked_at);
    cr_assert_leq(api_stats(&api).bytes_copied_in, 2 * (LINE + 1) + KIB(64), "%llu bytes were copied",
                  (unsigned long long)api_stats(&api).bytes_copied_in);
    peer_close(&peer);
    api_close(&api);
}

/* ---- size ---- */

static void check_big(struct end *e, struct gyre_slice frame)
{
    const uint8_t *body = frame.data + 4;
    cr_assert_eq(env_pattern_check(body, frame.len - 4, e->key_in, e->got), -1);
    e->got += frame.len - 4;
}

static void send_framed(struct peer *peer, uint32_t body)
{
    uint8_t *wire = malloc(body + 4);
    cr_assert_not_null(wire);
    for (unsigned i = 0; i < 4; i++)
        wire[i] = (uint8_t)(body >> (24 - 8 * i));
    env_pattern_fill(wire + 4, body, peer->key_out, peer->sent);
    peer->sent += body;
    peer_send_raw(peer, wire, body + 4);
    free(wire);
}

/* Frames larger than read_max_bytes and than all receive buffers together come out whole; what waits is bounded by the
 * frame. */
TRANSPORT_TEST(api_frame, larger_than_all_buffers)
{
    struct api api;
    struct peer peer;
    struct gyre_framer framer;
    const struct script script = {.frame = check_big};
    const struct gyre_length_field field = {.width = 4};
    cr_assert_eq(gyre_framer_init_length(&framer, &field, 0), 0);
    struct gyre_listener_options options = {.conn = {.framer = &framer, .read_max_bytes = 2000}};
    api_init(&api, p);
    api.options.buf_size_bytes = 1024;
    api.options.buf_count = 4;
    api.options.buf_count_max = 8;
    api_open(&api);
    api_listen(&api, &script, &options);
    struct end *e = peer_open(&api, &peer);
    static const uint32_t sizes[] = {1, 1500, 3000, 1024 * 8, 300000, (1 << 20) - 4, 0, 70000};
    for (unsigned i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        send_framed(&peer, sizes[i]);
        api_until(&api, e->frames == i + 1);
    }
    cr_assert_eq(e->got, peer.sent);
    peer_close(&peer);
    api_until(&api, e->closes == 1);
    cr_assert_eq(e->err, 0);
    api_close(&api);
}

/* A line without an end: receiving stops at the limit, the handler's connection is closed with the error. */
BACKEND_TEST(api_frame, endless_line)
{
    struct api api;
    struct peer peer;
    struct gyre_framer framer;
    static char text[MIB(1)];
    const struct script script = {.frame = count_bytes};
    cr_assert_eq(gyre_framer_init_line(&framer, 0, 10000), 0);
    struct gyre_listener_options options = {.conn = {.framer = &framer, .read_max_bytes = 1000}};
    memset(text, 'x', sizeof text);
    api_init(&api, p);
    api_open(&api);
    api_listen(&api, &script, &options);
    struct end *e = peer_open(&api, &peer);
    peer_send_raw(&peer, "first\n", 6);
    api_until(&api, e->frames == 1);
    peer_send_raw(&peer, text, 9999);
    api_until(&api, gyre_conn_inbound(e->c) == 9999);
    peer_send_raw(&peer, text, 1);
    peer_until_end(&peer);
    peer_close(&peer);
    api_until(&api, e->closes == 1);
    cr_assert_eq(e->err, GYRE_EFRAME, "%s", gyre_err_name(e->err));
    cr_assert_eq(e->reason, GYRE_CLOSE_ERROR);
    cr_assert_eq(e->frames, 1);
    api_close(&api);
}

/* A line of just the limit passes, of one more does not: also when it is here as a whole. */
BACKEND_TEST(api_frame, limit_is_exact)
{
    for (unsigned over = 0; over < 2; over++) {
        struct api api;
        struct peer peer;
        struct gyre_framer framer;
        char text[201];
        const struct script script = {.frame = count_bytes};
        cr_assert_eq(gyre_framer_init_line(&framer, 0, 200), 0);
        struct gyre_listener_options options = {.conn = {.framer = &framer}};
        memset(text, 'x', sizeof text);
        text[199 + over] = '\n';
        api_init(&api, p);
        api_open(&api);
        api_listen(&api, &script, &options);
        struct end *e = peer_open(&api, &peer);
        peer_send_raw(&peer, text, 200 + over);
        if (over == 0) {
            api_until(&api, e->frames == 1);
            cr_assert_eq(e->n, 199);
        }
        peer_close(&peer);
        api_until(&api, e->closes == 1);
        cr_assert_eq(e->err, over ? GYRE_EFRAME : 0, "%s", gyre_err_name(e->err));
        cr_assert_eq(e->frames, 1 - over);
        api_close(&api);
    }
}

/* ---- bad frames ---- */

static void answer_and_close(struct end *e, int err)
{
    cr_assert_eq(err, GYRE_EFRAME);
    end_put(e, 100);
    cr_assert_eq(gyre_conn_close(e->c), 0);
}

static void do_nothing(struct end *e, int err)
{
    (void)e;
    cr_assert_eq(err, GYRE_EFRAME);
}

static void skip_one(struct end *e, int err)
{
    cr_assert_eq(err, GYRE_EFRAME);
    cr_assert_eq(gyre_conn_discard(e->c, 1), 1);
}

/* A length that makes no sense (less than the header): the default, an answer, and going on behind it. */
BACKEND_TEST(api_frame, bad_length)
{
    static const struct script scripts[] = {{.frame = count_bytes},
                                            {.frame = count_bytes, .bad_frame = answer_and_close},
                                            {.frame = count_bytes, .bad_frame = do_nothing},
                                            {.frame = count_bytes, .bad_frame = skip_one}};
    const struct gyre_length_field field = {.width = 2, .adjustment = -2, .strip = 2};
    struct gyre_framer framer;
    cr_assert_eq(gyre_framer_init_length(&framer, &field, 1000), 0);
    for (unsigned i = 0; i < 4; i++) {
        struct api api;
        struct peer peer;
        struct gyre_listener_options options = {.conn = {.framer = &framer}};
        api_init(&api, p);
        api_open(&api);
        api_listen(&api, &scripts[i], &options);
        struct end *e = peer_open(&api, &peer);
        peer_send_raw(&peer, "\0\4ab\0\0\4cd", 9); /* at 4 a length of 0; from 5 on it makes sense again */
        if (i == 3) {
            api_until(&api, e->frames == 2);
            cr_assert_eq(e->n, 4);
        } else {
            peer_until_end(&peer);
            cr_assert_eq(e->frames, 1);
            cr_assert_eq(peer.got, i == 1 ? 100 : 0);
        }
        cr_assert_eq(e->bad_frames, i > 0);
        peer_close(&peer);
        api_until(&api, e->closes == 1);
        cr_assert_eq(e->err, i == 0 || i == 2 ? GYRE_EFRAME : 0, "%u: %s", i, gyre_err_name(e->err));
        cr_assert_eq(e->reason, i == 3 ? GYRE_CLOSE_EOF : i == 1 ? GYRE_CLOSE_USER : GYRE_CLOSE_ERROR);
        api_close(&api);
    }
}

static void echo_line(struct end *e, struct gyre_slice frame)
{
    cr_assert_eq(gyre_frame_write(e->c, e->api->user, frame.data, frame.len), 0);
}

/* What was answered to good frames before the bad one still leaves. */
BACKEND_TEST(api_frame, answers_before_the_bad_one_leave)
{
    struct api api;
    struct peer peer;
    struct gyre_framer framer;
    char got[16];
    const struct script script = {.frame = echo_line};
    cr_assert_eq(gyre_framer_init_line(&framer, 0, 5), 0);
    struct gyre_listener_options options = {.conn = {.framer = &framer}};
    api_init(&api, p);
    api.user = &framer;
    api_open(&api);
    api_listen(&api, &script, &options);
    struct end *e = peer_open(&api, &peer);
    peer_send_raw(&peer, "ab\ncd\ntoolong\n", 14);
    size_t n = 0;
    int64_t r = -EAGAIN;
    api_until(&api, (r = peer_recv_raw(&peer, got + n, sizeof got - n), n += r > 0 ? (size_t)r : 0,
                     r == 0 || (r < 0 && r != -EAGAIN)));
    cr_assert_eq(r, 0, "%s", gyre_err_name((int)r));
    cr_assert_eq(n, 6);
    cr_assert(memcmp(got, "ab\ncd\n", 6) == 0);
    peer_close(&peer);
    api_until(&api, e->closes == 1);
    cr_assert_eq(e->err, GYRE_EFRAME);
    api_close(&api);
}

/* ---- waiting ---- */

static void pause_at_third(struct end *e, struct gyre_slice frame)
{
    count_bytes(e, frame);
    if (e->frames == 3)
        cr_assert_eq(gyre_conn_pause(e->c), 0);
}

/* Pausing in on_frame stops the frames at once; all of them, many turns' worth, come before the peer's end does. */
TRANSPORT_TEST(api_frame, paused_then_end)
{
    enum { LINES = 30000, LINE = 21 };
    static char text[LINES * LINE];
    struct api api;
    struct peer peer;
    struct gyre_framer framer;
    const struct script script = {.frame = pause_at_third, .eof = end_ignore};
    cr_assert_eq(gyre_framer_init_line(&framer, 0, 0), 0);
    struct gyre_listener_options options = {.conn = {.framer = &framer}};
    memset(text, 'x', sizeof text);
    for (unsigned i = 0; i < LINES; i++)
        text[(i + 1) * LINE - 1] = '\n';
    api_init(&api, p);
    api_open(&api);
    api_listen(&api, &script, &options);
    struct end *e = peer_open(&api, &peer);
    peer_send_raw(&peer, text, LINE * 10);
    api_until(&api, e->frames == 3);
    api_watch(&api, MS(5));
    cr_assert_eq(e->frames, 3, "frames came while paused");
    e->frames = 4; /* pause no more */
    cr_assert_eq(gyre_conn_resume(e->c), 0);
    cr_assert_eq(e->frames, 4, "a frame from inside of a call");
    peer_send_raw(&peer, text + LINE * 10, sizeof text - LINE * 10);
    peer_shutdown(&peer);
    api_until(&api, e->eofs == 1);
    cr_assert_eq(e->n, LINES * (LINE - 1), "%llu bytes of frames came", (unsigned long long)e->n);
    cr_assert_eq(gyre_conn_close(e->c), 0);
    peer_close(&peer);
    api_close(&api);
}

/* More frames than one turn hands out, all received before: the rest comes in the turns after, without new bytes, and
 * before the peer's end. */
BACKEND_TEST(api_frame, more_than_a_turn_hands_out)
{
    struct api api;
    struct peer peer;
    struct gyre_framer framer;
    static char text[MIB(1) - 1];
    const struct script script = {.frame = count_bytes, .data = end_ignore, .eof = end_ignore};
    cr_assert_eq(gyre_framer_init_fixed(&framer, 1000), 0);
    struct gyre_listener_options options = {.conn = {.read_max_bytes = MIB(2)}};
    api_init(&api, p);
    api_open(&api);
    api_listen(&api, &script, &options);
    struct end *e = peer_open(&api, &peer);
    peer_send_raw(&peer, text, sizeof text);
    api_until(&api, gyre_conn_inbound(e->c) == sizeof text);
    cr_assert_eq(gyre_conn_pause(e->c), 0);
    cr_assert_eq(gyre_conn_set_framer(e->c, &framer), 0);
    peer_shutdown(&peer);
    api_watch(&api, MS(2));
    cr_assert_eq(e->frames, 0, "frames came while paused");
    cr_assert_eq(gyre_conn_resume(e->c), 0);
    api_turn_now(&api);
    cr_assert_leq(e->frames, 600, "%u frames in one turn", e->frames);
    api_until(&api, e->eofs == 1);
    cr_assert_eq(e->frames, sizeof text / 1000);
    cr_assert_eq(e->left_at_eof, sizeof text % 1000, "the part of a frame is still there at the end");
    cr_assert_eq(gyre_conn_close(e->c), 0);
    peer_close(&peer);
    api_close(&api);
}
