/* SPDX-License-Identifier: MIT
 * Writing frames, changing framers on the way, and a framer of the user's own. */
#include "fixture.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* ---- writing ---- */

/* What gyre_frame_write() makes of `data` with `framer`: the bytes a peer gets. */
static void written_is(struct end *e, struct peer *peer, const struct gyre_framer *framer, const void *data, size_t len,
                       const void *wire, size_t wire_len)
{
    uint8_t got[4096];
    size_t n = 0;
    int err = gyre_frame_write(e->c, framer, data, len);
    cr_assert_eq(err, 0, "%s", gyre_err_name(err));
    cr_assert_eq(gyre_conn_outbound(e->c), wire_len);
    while (n < wire_len) {
        int64_t r = -EAGAIN;
        api_until(e->api, (r = peer_recv_raw(peer, got + n, sizeof got - n)) != -EAGAIN);
        cr_assert_gt(r, 0);
        n += (size_t)r;
    }
    cr_assert_eq(n, wire_len);
    cr_assert(memcmp(got, wire, wire_len) == 0);
}

static void refused(struct end *e, const struct gyre_framer *framer, const void *data, size_t len, int expected)
{
    int err = gyre_frame_write(e->c, framer, data, len);
    cr_assert_eq(err, expected, "%s", gyre_err_name(err));
    cr_assert_eq(gyre_conn_outbound(e->c), 0, "something was queued all the same");
}

static void write_delimited(struct end *e, struct peer *peer)
{
    struct gyre_framer lf, crlf, kept, aa;
    cr_assert_eq(gyre_framer_init_line(&lf, 0, 10), 0);
    cr_assert_eq(gyre_framer_init_line(&crlf, GYRE_FRAME_CRLF, 0), 0);
    cr_assert_eq(gyre_framer_init_line(&kept, GYRE_FRAME_KEEP, 0), 0);
    cr_assert_eq(gyre_framer_init_delimiter(&aa, "aab", 3, 0, 0), 0);
    written_is(e, peer, &lf, "hello", 5, "hello\n", 6);
    written_is(e, peer, &lf, NULL, 0, "\n", 1);
    written_is(e, peer, &crlf, "hello\r", 6, "hello\r\r\n", 8);
    written_is(e, peer, &kept, "hello\n", 6, "hello\n", 6);
    written_is(e, peer, &aa, "aa", 2, "aaaab", 5);
    refused(e, &lf, "a\nb", 3, -EINVAL);
    refused(e, &lf, "ab\r", 3, -EINVAL); /* it would come out as "ab" */
    refused(e, &lf, "0123456789", 10, -EMSGSIZE);
    refused(e, &crlf, "ab\n", 3, -EINVAL);
    refused(e, &kept, "ab", 2, -EINVAL);
    refused(e, &kept, "a\nb\n", 4, -EINVAL);
    refused(e, &aa, "caab", 4, -EINVAL);
    cr_assert_eq(gyre_framer_init_delimiter(&aa, "bab", 3, 0, 0), 0);
    refused(e, &aa, "xba", 3, -EINVAL); /* with the delimiter behind it, that begins a byte early */
}

static void write_lengths(struct end *e, struct peer *peer)
{
    struct gyre_framer usual, whole, little, part, fixed;
    char long_data[300] = {0};
    cr_assert_eq(gyre_framer_init_length(&usual, &(struct gyre_length_field){.width = 4, .strip = 4}, 0), 0);
    cr_assert_eq(gyre_framer_init_length(
                     &whole, &(struct gyre_length_field){.offset = 1, .width = 2, .adjustment = -3}, 0), 0);
    cr_assert_eq(gyre_framer_init_length(
                     &little, &(struct gyre_length_field){.width = 1, .strip = 1, .little_endian = true}, 0), 0);
    cr_assert_eq(gyre_framer_init_length(
                     &part,
                     &(struct gyre_length_field){.offset = 4, .width = 2, .strip = 3, .little_endian = true}, 99),
                 0);
    cr_assert_eq(gyre_framer_init_fixed(&fixed, 3), 0);
    written_is(e, peer, &usual, "hello", 5, "\0\0\0\5hello", 9);
    written_is(e, peer, &usual, "", 0, "\0\0\0\0", 4);
    written_is(e, peer, &whole, "m??abc", 6, "m\0\6abc", 6); /* the field is written into the data */
    written_is(e, peer, &little, "ab", 2, "\2ab", 3);
    written_is(e, peer, &part, "x??abc", 6, "\0\0\0x\3\0abc", 9);
    written_is(e, peer, &fixed, "abc", 3, "abc", 3);
    refused(e, &whole, "m?", 2, -EINVAL);
    refused(e, &little, long_data, 256, -EMSGSIZE);
    refused(e, &part, long_data, 100, -EMSGSIZE);
    refused(e, &fixed, "ab", 2, -EINVAL);
    refused(e, &(struct gyre_framer){.decode = fixed.decode}, "ab", 2, -EOPNOTSUPP);
    refused(e, NULL, "ab", 2, -EINVAL);
    refused(e, &usual, NULL, 2, -EINVAL);
    cr_assert_eq(gyre_frame_writev(e->c, &usual, NULL, 1), -EINVAL);
    cr_assert_eq(gyre_frame_writev(e->c, &usual, NULL, -1), -EINVAL);
    cr_assert_eq(gyre_frame_writev(e->c, &usual, &(struct iovec){.iov_base = long_data}, 1023), -EINVAL);
}

/* The bytes on the wire, for each kind, and what is refused. */
BACKEND_TEST(api_frame, written_as_documented)
{
    struct api api;
    struct peer peer;
    api_start(&api, p, NULL);
    struct end *e = peer_open(&api, &peer);
    write_delimited(e, &peer);
    write_lengths(e, &peer);
    peer_close(&peer);
    api_close(&api);
}

struct game {
    struct gyre_framer framer;
    struct env_rng rng;
    uint8_t sent[64][3000];
    size_t lens[64];
    unsigned put, came;
};

static void check_back(struct end *e, struct gyre_slice frame)
{
    struct game *g = e->api->user;
    cr_assert_lt(g->came, g->put);
    cr_assert_eq(frame.len, g->lens[g->came]);
    cr_assert(frame.len == 0 || memcmp(frame.data, g->sent[g->came], frame.len) == 0, "frame %u", g->came);
    g->came++;
}

static void put_frame(struct end *e)
{
    struct game *g = e->api->user;
    size_t len = g->lens[g->put] = env_rng_below(&g->rng, 3000), a = env_rng_below(&g->rng, (uint32_t)len + 1);
    uint8_t *data = g->sent[g->put++];
    for (size_t i = 0; i < len; i++)
        data[i] = (uint8_t)('a' + env_rng_below(&g->rng, 26));
    const struct iovec iov[3] = {{data, a}, {NULL, 0}, {data + a, len - a}};
    cr_assert_eq(gyre_frame_writev(e->c, &g->framer, iov, 3), 0);
}

/* What is written as frames at one end of a relay comes out as the same frames behind it. */
TRANSPORT_TEST(api_frame, written_and_read)
{
    static struct game game;
    struct api api;
    const struct script relay = {.data = end_forward_back}, script = {.frame = check_back};
    for (unsigned kind = 0; kind < 4; kind++) {
        memset(&game, 0, sizeof game);
        env_rng_init(&game.rng, kind);
        cr_assert_eq(kind == 0   ? gyre_framer_init_line(&game.framer, 0, 0)
                     : kind == 1 ? gyre_framer_init_line(&game.framer, GYRE_FRAME_CRLF, 0)
                     : kind == 2 ? gyre_framer_init_delimiter(&game.framer, "A--=", 4, 0, 0)
                                 : gyre_framer_init_length(
                                       &game.framer, &(struct gyre_length_field){.width = 3, .strip = 3}, 0),
                     0);
        struct gyre_conn_options options = {.framer = &game.framer};
        api_start(&api, p, &relay);
        api.user = &game;
        struct end *e = api_connect(&api, api.address, &script, &options);
        api_until(&api, e->opens == 1);
        while (game.put < 64) {
            put_frame(e);
            if (game.put % 3 == 0)
                api_turn(&api);
        }
        api_until(&api, game.came == 64);
        cr_assert_eq(gyre_conn_close(e->c), 0);
        api_until(&api, gyre_loop_conn_count(api.loop) == 0);
        api_close(&api);
    }
}

/* ---- changing ---- */

/* "<length>\n", then so many bytes as a frame, then lines again; "raw" makes the rest bytes. */
static struct gyre_framer line_framer, body_framer;

static void line_or_body(struct end *e, struct gyre_slice frame)
{
    char line[32] = "";
    if (e->n != 0) {
        cr_assert_eq(frame.len, e->n);
        e->got += frame.len;
        e->n = 0;
        cr_assert_eq(gyre_conn_set_framer(e->c, &line_framer), 0);
        return;
    }
    cr_assert_lt(frame.len, sizeof line);
    memcpy(line, frame.data, frame.len);
    if (strcmp(line, "raw") == 0) {
        cr_assert_eq(gyre_conn_set_framer(e->c, NULL), 0);
        return;
    }
    cr_assert_eq(sscanf(line, "%llu", (unsigned long long *)&e->n), 1);
    cr_assert_eq(gyre_framer_init_fixed(&body_framer, (size_t)e->n), 0);
    cr_assert_eq(gyre_conn_set_framer(e->c, &body_framer), 0);
}

static void count_raw(struct end *e)
{
    e->put += gyre_conn_discard(e->c, SIZE_MAX);
}

BACKEND_TEST(api_frame, framers_change)
{
    static const char wire[] = "5\na\nb\nc3\n\n\n\n10\n0123456789raw\nanything\n2";
    struct api api;
    struct peer peer;
    const struct script script = {.data = count_raw, .frame = line_or_body};
    cr_assert_eq(gyre_framer_init_line(&line_framer, 0, 100), 0);
    struct gyre_listener_options options = {.conn = {.framer = &line_framer}};
    api_init(&api, p);
    api_open(&api);
    api_listen(&api, &script, &options);
    for (size_t cut = 0; cut < sizeof wire; cut++) {
        struct end *e = peer_open(&api, &peer);
        peer_send_raw(&peer, wire, cut);
        api_turn(&api);
        peer_send_raw(&peer, wire + cut, sizeof wire - 1 - cut);
        api_until(&api, e->put == strlen("anything\n2"));
        cr_assert_eq(e->got, 18);
        peer_close(&peer);
        api_until(&api, e->closes == 1);
        cr_assert_eq(e->err, 0);
    }
    api_close(&api);
}

static void take_none(struct gyre_conn *c, struct gyre_slice frame)
{
    (void)c;
    (void)frame;
}

/* Options and calls that make no sense are refused. */
BACKEND_TEST(api_frame, refused_at_set_up)
{
    struct api api;
    struct peer peer;
    const struct script script = {.data = end_ignore};
    const struct gyre_conn_handlers no_data = {.on_frame = take_none};
    struct gyre_framer framer, none = {.user = NULL}, huge;
    struct gyre_slice view;
    cr_assert_eq(gyre_framer_init_line(&framer, 0, 0), 0);
    huge = framer;
    huge.frame_max_bytes = (1u << 30) + 1;
    api_start(&api, p, &script);
    struct end *e = peer_open(&api, &peer);
    const struct gyre_conn_options with = {.framer = &framer}, without = {.framer = &none};
    const struct gyre_conn_options too_long = {.framer = &huge};
    const struct gyre_conn_handlers handlers = {.on_data = gyre_conn_cork}; /* never called */
    cr_assert_eq(gyre_connect(NULL, api.loop, api.address, &handlers, &with), GYRE_EHANDLERS);
    cr_assert_eq(gyre_connect(NULL, api.loop, api.address, &no_data, NULL), GYRE_EHANDLERS);
    cr_assert_eq(gyre_connect(NULL, api.loop, api.address, &no_data, &without), GYRE_EOPTION);
    cr_assert_eq(gyre_connect(NULL, api.loop, api.address, &no_data, &too_long), GYRE_EOPTION);
    cr_assert_eq(gyre_conn_set_framer(e->c, &framer), GYRE_EHANDLERS);
    cr_assert_eq(gyre_conn_set_framer(e->c, &none), GYRE_EOPTION);
    cr_assert_eq(gyre_conn_set_framer(e->c, &huge), GYRE_EOPTION);
    cr_assert_eq(gyre_frame_next(&view, e->c, &none), -EINVAL);
    cr_assert_eq(gyre_frame_next(&view, e->c, NULL), -EINVAL);
    cr_assert_eq(gyre_frame_next(NULL, e->c, &framer), -EINVAL);
    cr_assert_eq(gyre_frame_next(&view, e->c, &huge), GYRE_EOPTION);
    cr_assert_eq(gyre_frame_next(&view, e->c, &framer), -EAGAIN);
    cr_assert_eq(gyre_conn_close(e->c), 0);
    cr_assert_eq(gyre_frame_next(&view, e->c, &framer), GYRE_ECLOSED);
    cr_assert_eq(gyre_frame_write(e->c, &framer, "a", 1), GYRE_ECLOSED);
    cr_assert_eq(gyre_conn_set_framer(e->c, NULL), GYRE_ECLOSED);
    peer_close(&peer);
    api_close(&api);
}

/* ---- the user's own ---- */

/* Netstrings: "5:hello,". */
static int decode_netstring(struct gyre_frame *frame, const struct gyre_framer *framer, struct gyre_conn *c)
{
    char digits[8] = "";
    size_t len = 0;
    int64_t colon = gyre_conn_find(c, ":", 1, 0);
    (void)framer;
    if (colon < 0)
        return gyre_conn_inbound(c) > 6 ? GYRE_EFRAME : -EAGAIN;
    if (colon == 0 || colon > 6 || gyre_conn_copy(digits, (size_t)colon, c, 0) != (size_t)colon)
        return GYRE_EFRAME;
    for (int64_t i = 0; i < colon; i++) {
        if (digits[i] < '0' || digits[i] > '9')
            return GYRE_EFRAME;
        len = len * 10 + (size_t)(digits[i] - '0');
    }
    frame->skip = (size_t)colon + 1;
    frame->len = len;
    frame->drop = 1;
    frame->need = frame->skip + len + 1;
    return gyre_conn_inbound(c) < frame->need ? -EAGAIN : 0;
}

static int encode_netstring(const struct gyre_framer *framer, struct gyre_conn *c, const struct iovec *iov,
                            int iov_count)
{
    char head[16];
    (void)framer;
    if (iov_count != 1)
        return -EINVAL;
    int n = snprintf(head, sizeof head, "%zu:", iov[0].iov_len);
    const struct iovec all[3] = {{head, (size_t)n}, iov[0], {(void *)(uintptr_t) ",", 1}};
    return gyre_conn_writev(c, all, 3);
}

static void echo_netstring(struct end *e, struct gyre_slice frame)
{
    cr_assert_eq(gyre_frame_write(e->c, e->api->user, frame.data, frame.len), 0);
}

static int decode_nonsense(struct gyre_frame *frame, const struct gyre_framer *framer, struct gyre_conn *c)
{
    const size_t *which = framer->user;
    (void)c;
    frame->skip = *which == 1 ? SIZE_MAX : 0;
    frame->len = *which == 2 ? 11 : 0;
    frame->drop = *which == 3 ? SIZE_MAX : 0;
    frame->need = *which == 4 ? SIZE_MAX : 0;
    return *which == 4 ? -EAGAIN : 0;
}

BACKEND_TEST(api_frame, own_framer)
{
    static const char text[] = "5:hello,0:,12:hello, world,3:\0\n:,";
    static const struct gyre_framer framer = {
        .decode = decode_netstring, .encode = encode_netstring, .frame_max_bytes = 5000};
    struct api api;
    struct peer peer;
    char got[64];
    const struct script script = {.frame = echo_netstring};
    struct gyre_listener_options options = {.conn = {.framer = &framer}};
    api_init(&api, p);
    api.user = (void *)(uintptr_t)&framer;
    api_open(&api);
    api_listen(&api, &script, &options);
    struct end *e = peer_open(&api, &peer);
    for (size_t i = 0; i < sizeof text - 1; i++) {
        peer_send_raw(&peer, text + i, 1);
        api_turn(&api);
    }
    api_until(&api, e->frames == 4);
    for (size_t n = 0; n < sizeof text - 1;) {
        int64_t r = -EAGAIN;
        api_until(&api, (r = peer_recv_raw(&peer, got + n, sizeof got - n)) != -EAGAIN);
        cr_assert_gt(r, 0);
        n += (size_t)r;
    }
    cr_assert(memcmp(got, text, sizeof text - 1) == 0);
    peer_send_raw(&peer, "5000:", 5); /* longer than the limit, header and comma counted */
    peer_until_end(&peer);
    peer_close(&peer);
    api_until(&api, e->closes == 1);
    cr_assert_eq(e->err, GYRE_EFRAME);
    api_close(&api);
}

/* A decoder that describes what cannot be is told so, and nothing is taken. */
BACKEND_TEST(api_frame, own_framer_gone_wrong)
{
    struct api api;
    struct peer peer;
    struct gyre_slice view;
    size_t which = 0;
    const struct script script = {.data = end_ignore};
    const struct gyre_framer framer = {.decode = decode_nonsense, .user = &which};
    api_start(&api, p, &script);
    struct end *e = peer_open(&api, &peer);
    peer_send(&peer, 10);
    api_until(&api, gyre_conn_inbound(e->c) == 10);
    for (; which < 4; which++)
        cr_assert_eq(gyre_frame_next(&view, e->c, &framer), -EINVAL, "%zu", which);
    cr_assert_eq(gyre_frame_next(&view, e->c, &framer), GYRE_EFRAME);
    cr_assert_eq(gyre_conn_inbound(e->c), 10);
    cr_assert_eq(end_take(e), 10);
    peer_close(&peer);
    api_close(&api);
}
