/* SPDX-License-Identifier: MIT
 * Framing: the same frames however the stream is cut, errors where there is no frame, and no work done twice. */
#include "fixture.h"

#include "stream/conn.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- what a test sends and what must come out ---- */

enum { STREAM_MAX = 1 << 20, FRAMES_MAX = 4096 };

/* The bytes of a stream, and where in `payload` each of its frames ends. */
struct expected {
    const struct gyre_framer *framer;
    uint8_t *stream, *payload;
    size_t stream_len, payload_len, ends[FRAMES_MAX];
    unsigned count;
    unsigned came; /* frames compared so far */
    bool pull;
};

static void expect_init(struct expected *x, const struct gyre_framer *framer)
{
    *x = (struct expected){.framer = framer, .stream = malloc(STREAM_MAX), .payload = malloc(STREAM_MAX)};
    cr_assert(x->stream != NULL && x->payload != NULL);
}

static void expect_fini(struct expected *x)
{
    free(x->stream);
    free(x->payload);
}

static void add(uint8_t *to, size_t *at, const void *data, size_t len)
{
    cr_assert_leq(*at + len, STREAM_MAX);
    if (len > 0)
        memcpy(to + *at, data, len);
    *at += len;
}

/* A frame that looks like this on the wire, and comes out as that. */
static void expect(struct expected *x, const void *wire, size_t wire_len, const void *payload, size_t len)
{
    add(x->stream, &x->stream_len, wire, wire_len);
    add(x->payload, &x->payload_len, payload, len);
    cr_assert_lt(x->count, FRAMES_MAX);
    x->ends[x->count++] = x->payload_len;
}

static void expect_text(struct expected *x, const char *wire, const char *payload)
{
    expect(x, wire, strlen(wire), payload, strlen(payload));
}

static void compare(struct expected *x, struct gyre_slice frame)
{
    cr_assert_lt(x->came, x->count, "a frame too many, of %zu bytes", frame.len);
    size_t start = x->came > 0 ? x->ends[x->came - 1] : 0, len = x->ends[x->came] - start;
    cr_assert_eq(frame.len, len, "frame %u is %zu bytes long, not %zu", x->came, frame.len, len);
    cr_assert_not_null(frame.data);
    cr_assert(memcmp(frame.data, x->payload + start, len) == 0, "frame %u has other bytes", x->came);
    x->came++;
}

static void on_frame(struct end *e, struct gyre_slice frame)
{
    compare(e->api->user, frame);
}

static void pull_all(struct end *e)
{
    struct expected *x = e->api->user;
    struct gyre_slice frame;
    int err;
    while ((err = gyre_frame_next(&frame, e->c, x->framer)) == 0)
        compare(x, frame);
    cr_assert_eq(err, -EAGAIN, "%s", gyre_err_name(err));
}

static const struct script push_script = {.frame = on_frame};
static const struct script pull_script = {.data = pull_all};

/* Send the stream in pieces of a random size up to `piece_max`, and see that its frames come out. */
static void run_pieces(struct api *api, struct expected *x, struct env_rng *rng, uint32_t piece_max)
{
    struct peer peer;
    struct gyre_listener_options options = {.conn = {.framer = x->pull ? NULL : x->framer}};
    api->user = x;
    x->came = 0;
    if (api->listener != NULL)
        gyre_listener_close(api->listener);
    api_listen(api, x->pull ? &pull_script : &push_script, &options);
    struct end *e = peer_open(api, &peer);
    for (size_t at = 0; at < x->stream_len;) {
        size_t piece = 1 + env_rng_below(rng, piece_max), left = x->stream_len - at;
        piece = piece < left ? piece : left;
        peer_send_raw(&peer, x->stream + at, piece);
        at += piece;
        if (env_rng_below(rng, 2) == 0)
            api_turn(api);
    }
    peer_close(&peer);
    api_until(api, e->closes == 1);
    cr_assert_eq(x->came, x->count, "%u of %u frames came", x->came, x->count);
    cr_assert_eq(e->reason, GYRE_CLOSE_EOF);
}

/* ---- each kind, cut at every place ---- */

static void cut_everywhere(struct backend_param *p, struct expected *x)
{
    struct api api;
    struct peer peer;
    struct gyre_listener_options options = {.conn = {.framer = x->framer}};
    api_init(&api, p);
    api.user = x;
    api_open(&api);
    api_listen(&api, &push_script, &options);
    for (size_t cut = 0; cut <= x->stream_len; cut++) {
        struct end *e = peer_open(&api, &peer);
        x->came = 0;
        peer_send_raw(&peer, x->stream, cut);
        api_until(&api, api_stats(&api).bytes_in % x->stream_len == cut % x->stream_len);
        peer_send_raw(&peer, x->stream + cut, x->stream_len - cut);
        api_until(&api, x->came == x->count);
        cr_assert_eq(gyre_conn_inbound(e->c), 0, "%zu bytes are left", gyre_conn_inbound(e->c));
        peer_close(&peer);
        api_until(&api, e->closes == 1);
    }
    expect_fini(x);
    api_close(&api);
}

BACKEND_TEST(api_frame, lines_stripped)
{
    struct gyre_framer framer;
    struct expected x;
    cr_assert_eq(gyre_framer_init_line(&framer, 0, 0), 0);
    expect_init(&x, &framer);
    expect_text(&x, "one\n", "one");
    expect_text(&x, "\n", "");
    expect_text(&x, "two\r\n", "two");
    expect_text(&x, "\r\n", "");
    expect_text(&x, "a\rb\r\r\n", "a\rb\r");
    cut_everywhere(p, &x);
}

BACKEND_TEST(api_frame, lines_kept)
{
    struct gyre_framer framer;
    struct expected x;
    cr_assert_eq(gyre_framer_init_line(&framer, GYRE_FRAME_KEEP, 0), 0);
    expect_init(&x, &framer);
    expect_text(&x, "one\n", "one\n");
    expect_text(&x, "\r\n", "\r\n");
    expect_text(&x, "\n", "\n");
    cut_everywhere(p, &x);
}

/* A delimiter that begins again inside itself. */
BACKEND_TEST(api_frame, delimiter_of_repeats)
{
    struct gyre_framer framer;
    struct expected x;
    cr_assert_eq(gyre_framer_init_delimiter(&framer, "aabaaa", 6, 0, 0), 0);
    expect_init(&x, &framer);
    expect_text(&x, "aabaabaaa", "aab");
    expect_text(&x, "aabaaa", "");
    expect_text(&x, "xaaaaabaaa", "xaaa");
    expect_text(&x, "aabaabaabaaa", "aabaab");
    cut_everywhere(p, &x);
}

BACKEND_TEST(api_frame, fixed_length)
{
    struct gyre_framer framer;
    struct expected x;
    cr_assert_eq(gyre_framer_init_fixed(&framer, 5), 0);
    expect_init(&x, &framer);
    expect_text(&x, "12345", "12345");
    expect_text(&x, "abcde", "abcde");
    expect_text(&x, "\n\r\n\r\n", "\n\r\n\r\n");
    cut_everywhere(p, &x);
}

/* The field counts itself and the two bytes before it. */
BACKEND_TEST(api_frame, length_in_the_middle)
{
    struct gyre_framer framer;
    struct expected x;
    const struct gyre_length_field field = {
        .offset = 2, .width = 3, .adjustment = -5, .strip = 2, .little_endian = true};
    cr_assert_eq(gyre_framer_init_length(&framer, &field, 0), 0);
    expect_init(&x, &framer);
    expect(&x, "ab\x08\0\0xyz", 8, "\x08\0\0xyz", 6);
    expect(&x, "cd\x05\0\0", 5, "\x05\0\0", 3);
    expect(&x, "ef\x09\0\0\n\n\n\n", 9, "\x09\0\0\n\n\n\n", 7);
    cut_everywhere(p, &x);
}

/* ---- random streams in random pieces ---- */

static void put_number(uint8_t *to, uint32_t width, bool little_endian, uint64_t value)
{
    for (uint32_t i = 0; i < width; i++)
        to[i] = (uint8_t)(value >> 8 * (little_endian ? i : width - 1 - i));
}

/* A random length field and a stream of frames with it, built here without the library's encoder. */
static void random_lengths(struct expected *x, struct gyre_framer *framer, struct env_rng *rng)
{
    static const uint32_t widths[] = {1, 2, 3, 4, 8};
    uint8_t wire[5000];
    struct gyre_length_field field = {.offset = env_rng_below(rng, 20),
                                      .width = widths[env_rng_below(rng, 5)],
                                      .little_endian = env_rng_below(rng, 2) == 0};
    uint32_t head = field.offset + field.width;
    field.adjustment = (int64_t)env_rng_below(rng, 2) * -(int64_t)head;
    field.strip = env_rng_below(rng, head + 1);
    cr_assert_eq(gyre_framer_init_length(framer, &field, 0), 0);
    expect_init(x, framer);
    while (x->stream_len < 200000 && x->count < 500) {
        uint32_t body = env_rng_below(rng, field.width == 1 ? 200 : 4000);
        for (uint32_t i = 0; i < head + body; i++)
            wire[i] = (uint8_t)env_rng_next(rng);
        put_number(wire + field.offset, field.width, field.little_endian,
                   (uint64_t)((int64_t)body - field.adjustment));
        expect(x, wire, head + body, wire + field.strip, head + body - field.strip);
    }
}

/* A random delimiter of few letters, and payloads of the same that end where it is there for the first time. */
static void random_delimiters(struct expected *x, struct gyre_framer *framer, struct env_rng *rng)
{
    uint8_t delimiter[GYRE_DELIMITER_MAX], wire[4096];
    size_t len = 1 + env_rng_below(rng, env_rng_below(rng, 2) == 0 ? 3 : GYRE_DELIMITER_MAX);
    bool keep = env_rng_below(rng, 2) == 0;
    for (size_t i = 0; i < len; i++)
        delimiter[i] = (uint8_t)('a' + env_rng_below(rng, 2));
    cr_assert_eq(gyre_framer_init_delimiter(framer, delimiter, len, keep ? GYRE_FRAME_KEEP : 0, 0), 0);
    expect_init(x, framer);
    while (x->count < 300) {
        size_t n = 0, body = env_rng_below(rng, 300);
        while (n < len || memcmp(wire + n - len, delimiter, len) != 0) { /* the plain way to find it */
            size_t i = (n - body) % 64;
            wire[n] = n >= body + 64 && i < len ? delimiter[i] : 'c';
            if (n < body)
                wire[n] = (uint8_t)('a' + env_rng_below(rng, 2));
            n++;
        }
        expect(x, wire, n, wire, keep ? n : n - len);
    }
}

BACKEND_TEST(api_frame, random_streams_in_random_pieces)
{
    struct api api;
    struct env_rng rng;
    env_rng_init(&rng, 77);
    api_init(&api, p);
    api.options.buf_size_bytes = 1024;
    api_open(&api);
    for (unsigned round = 0; round < 24; round++) {
        struct gyre_framer framer;
        struct expected x;
        if (round % 2 == 0)
            random_lengths(&x, &framer, &rng);
        else
            random_delimiters(&x, &framer, &rng);
        x.pull = round % 4 >= 2;
        run_pieces(&api, &x, &rng, round % 3 == 0 ? 64 : round % 3 == 1 ? 1500 : 60000);
        run_pieces(&api, &x, &rng, STREAM_MAX); /* in one piece as far as the socket takes it */
        expect_fini(&x);
    }
    api_close(&api);
}

/* Random bytes are frames or errors, and nothing worse. */
BACKEND_TEST(api_frame, random_bytes)
{
    struct api api;
    struct env_rng rng;
    struct peer peer;
    uint8_t bytes[3000];
    const struct script script = {.data = end_ignore};
    env_rng_init(&rng, 78);
    api_start(&api, p, &script);
    struct end *e = peer_open(&api, &peer);
    for (unsigned round = 0; round < 300; round++) {
        struct gyre_framer framer;
        struct gyre_slice frame;
        struct expected x;
        if (round % 2 == 0)
            random_lengths(&x, &framer, &rng);
        else
            random_delimiters(&x, &framer, &rng);
        expect_fini(&x);
        size_t len = 1 + env_rng_below(&rng, sizeof bytes), before = gyre_conn_inbound(e->c);
        for (size_t i = 0; i < len; i++)
            bytes[i] = (uint8_t)env_rng_next(&rng);
        peer_send_raw(&peer, bytes, len);
        api_until(&api, gyre_conn_inbound(e->c) == before + len);
        int err = 0;
        unsigned char sum = 0;
        while (err == 0) {
            before = gyre_conn_inbound(e->c);
            err = gyre_frame_next(&frame, e->c, &framer);
            for (size_t i = 0; err == 0 && i < frame.len; i++)
                sum ^= frame.data[i];
            cr_assert_eq(err == 0, gyre_conn_inbound(e->c) < before, "a frame takes bytes, and nothing else does");
        }
        cr_assert(err == -EAGAIN || err == GYRE_EFRAME, "%s %u", gyre_err_name(err), sum);
        if (gyre_conn_inbound(e->c) > 100000)
            (void)gyre_conn_discard(e->c, SIZE_MAX);
    }
    peer_close(&peer);
    api_close(&api);
}
