/* SPDX-License-Identifier: MIT
 * Bulk that goes through pipes, without memory: when the handler looks, whichever way, at bytes that nobody has looked
 * at, and when a connection is detached with bytes in pipes. A look that is refused has taken nothing and is made
 * again. */
#include "refused_relay.h"

#include <errno.h>
#include <unistd.h>

/* Returns how many bytes it took, or an error: then it has taken none. */
typedef int64_t look_fn(struct gyre_conn *c);

/* Several pipes full, that nobody looks at. */
static void fill_pipes(void)
{
    x.keeps = true;
    for (unsigned i = 0; i < BATCHES; i++) {
        feed(BATCH);
        refused_until(x.r, gyre_conn_inbound(x.from) == x.sent - x.got);
    }
}

/* ---- looking ---- */

static int64_t checked(const void *data, size_t len)
{
    cr_assert_eq(env_pattern_check(data, len, KEY, x.got), -1, "%s: wrong bytes after %llu", x.r->where,
                 (unsigned long long)x.got);
    return (int64_t)len;
}

/* Of the calls that only count. */
static int64_t counted(size_t n)
{
    return n > 0 ? (int64_t)n : -ENOMEM;
}

static int64_t look_peek(struct gyre_conn *c)
{
    struct gyre_slice s;
    int err = gyre_conn_peek(&s, c, 0);
    return err != 0 ? err : counted(gyre_conn_discard(c, (size_t)checked(s.data, s.len)));
}

static int64_t look_next(struct gyre_conn *c)
{
    struct gyre_slice s;
    size_t here = gyre_conn_inbound(c);
    int err = gyre_conn_next(&s, c, here < 100000 ? here : 100000);
    return err != 0 ? err : checked(s.data, s.len);
}

static int64_t look_read(struct gyre_conn *c)
{
    uint8_t bytes[3000];
    size_t n = gyre_conn_read(bytes, sizeof bytes, c);
    return counted((size_t)checked(bytes, n));
}

static int64_t look_copy(struct gyre_conn *c)
{
    uint8_t bytes[3000];
    size_t n = gyre_conn_copy(bytes, sizeof bytes, c, 0);
    return n == 0 ? -ENOMEM : counted(gyre_conn_discard(c, (size_t)checked(bytes, n)));
}

static int64_t look_peekv(struct gyre_conn *c)
{
    struct iovec iov[2];
    int count = gyre_conn_peekv(iov, 2, c);
    return count == 0 ? -ENOMEM : counted(gyre_conn_discard(c, (size_t)checked(iov[0].iov_base, iov[0].iov_len)));
}

static int64_t look_hold(struct gyre_conn *c)
{
    struct gyre_buf *buf;
    struct gyre_slice s;
    size_t here = gyre_conn_inbound(c);
    int err = gyre_buf_hold(&buf, &s, c, here < 20000 ? here : 20000);
    if (err != 0)
        return err;
    (void)checked(s.data, s.len);
    gyre_buf_release(buf);
    return (int64_t)s.len;
}

static int64_t look_find(struct gyre_conn *c)
{
    uint8_t needle[8], bytes[64];
    size_t here = gyre_conn_inbound(c), len = here < sizeof bytes ? here : sizeof bytes;
    env_pattern_fill(needle, sizeof needle, KEY, x.got + 20);
    int64_t at = here < sizeof bytes ? 20 : gyre_conn_find(c, needle, sizeof needle, 0);
    if (at < 0)
        return at;
    cr_assert_eq(at, 20, "%s", x.r->where);
    return counted((size_t)checked(bytes, gyre_conn_read(bytes, len, c)));
}

static int64_t look_discard(struct gyre_conn *c)
{
    return counted(gyre_conn_discard(c, 1000));
}

static int64_t frame_by(struct gyre_conn *c, const struct gyre_framer *framer)
{
    struct gyre_slice s;
    size_t before = gyre_conn_inbound(c);
    int err = gyre_frame_next(&s, c, framer);
    if (err == -EAGAIN) /* less than a frame is left, or no delimiter */
        return look_next(c);
    if (err != 0)
        return err;
    (void)checked(s.data, s.len);
    return (int64_t)(before - gyre_conn_inbound(c));
}

static int64_t look_fixed(struct gyre_conn *c)
{
    struct gyre_framer framer;
    cr_assert_eq(gyre_framer_init_fixed(&framer, 40000), 0);
    return frame_by(c, &framer);
}

/* A framer of the user's that leaves the work to one that is built in. */
static int decode_by_line(struct gyre_frame *frame, const struct gyre_framer *framer, struct gyre_conn *c)
{
    struct gyre_framer line;
    cr_assert_eq(gyre_framer_init_line(&line, 0, framer->frame_max_bytes), 0);
    return line.decode(frame, &line, c);
}

static int64_t look_line(struct gyre_conn *c)
{
    static const struct gyre_framer framer = {.decode = decode_by_line, .frame_max_bytes = 1 << 20};
    return frame_by(c, &framer);
}

/* A decoder that is asked before anything has looked. */
static int64_t look_length(struct gyre_conn *c)
{
    static const struct gyre_length_field field = {.width = 1};
    struct gyre_framer framer;
    struct gyre_frame frame = {.skip = 0};
    uint8_t bytes[1 + UINT8_MAX];
    cr_assert_eq(gyre_framer_init_length(&framer, &field, 0), 0);
    env_pattern_fill(bytes, 1, KEY, x.got);
    size_t expected = 1u + bytes[0];
    int err = framer.decode(&frame, &framer, c);
    if (err == -EAGAIN) /* less than a frame is left */
        return look_next(c);
    if (err != 0)
        return err;
    cr_assert_eq(frame.len, expected, "%s: a frame of %zu bytes, not %zu", x.r->where, frame.len, expected);
    return counted((size_t)checked(bytes, gyre_conn_read(bytes, frame.len, c)));
}

static int64_t look_delimiter(struct gyre_conn *c)
{
    enum { AT = 20, LEN = 8 };
    struct gyre_framer framer;
    struct gyre_frame frame = {.skip = 0};
    uint8_t bytes[AT + LEN];
    env_pattern_fill(bytes, sizeof bytes, KEY, x.got);
    cr_assert_eq(gyre_framer_init_delimiter(&framer, bytes + AT, LEN, GYRE_FRAME_KEEP, 1 << 20), 0);
    if (gyre_conn_inbound(c) < sizeof bytes)
        return look_next(c);
    int err = framer.decode(&frame, &framer, c);
    if (err != 0)
        return err;
    cr_assert_eq(frame.len, sizeof bytes, "%s: a frame of %zu bytes", x.r->where, frame.len);
    return counted((size_t)checked(bytes, gyre_conn_read(bytes, frame.len, c)));
}

/* Parts of a pipe can only be forwarded once they are read out. */
static int64_t look_by_parts(struct gyre_conn *c)
{
    int64_t n = gyre_conn_forward(c, x.to, 7000);
    if (n > 0)
        queued(KEY, x.got, (uint64_t)n);
    drain();
    return n == 0 && gyre_conn_congested(x.to) ? -EAGAIN : n;
}

static look_fn *look;

/* Looks at what lies in pipes until a look is refused or nothing is left. */
static void look_at_all(void)
{
    while (is_open(x.from) && gyre_conn_inbound(x.from) > 0) {
        size_t before = gyre_conn_inbound(x.from);
        int64_t n = look(x.from);
        if (n == -EAGAIN) /* the way is full, for now */
            return;
        if (n < 0) {
            (void)refused_note(x.r, (int)n);
            cr_assert_eq(gyre_conn_inbound(x.from), before, "%s: refused, and bytes are gone", x.r->where);
            return;
        }
        cr_assert_eq(gyre_conn_inbound(x.from), before - (size_t)n, "%s", x.r->where);
        x.got += (uint64_t)n;
    }
}

static void play_look(struct refused *r)
{
    open_relay(r);
    fill_pipes();
    refused_begin(r);
    for (unsigned i = 0; i < TURNS && x.got < x.sent; i++) {
        look_at_all();
        turn();
    }
    refused_over(r);
    refused_until(r, (look_at_all(), drain(), x.got == x.sent));
    cr_assert_eq(x.closed, 0, "%s: closed: %s", r->where, gyre_err_name(x.close_err));
    x.keeps = false; /* and what comes now is forwarded as ever */
    feed(BATCH);
    refused_until(r, (drain(), x.got == x.sent && x.first == x.count));
    close_relay(r);
}

#define LOOK(name)                                                                                                     \
    REAL_TEST(refused_pipes, name)                                                                                     \
    {                                                                                                                  \
        look = look_##name;                                                                                            \
        refused_each(p, play_look, 1);                                                                                 \
    }

LOOK(peek)
LOOK(next)
LOOK(read)
LOOK(copy)
LOOK(peekv)
LOOK(hold)
LOOK(find)
LOOK(discard)
LOOK(fixed)
LOOK(line)
LOOK(length)
LOOK(delimiter)
LOOK(by_parts)

/* ---- leaving ---- */

static void on_detached(struct gyre_conn *c, int fd, void *user)
{
    (void)user;
    x.detached++;
    x.fd = fd;
    look_at_all();
    cr_assert_eq(gyre_conn_inbound(c), 0, "%s: handed over, and %zu bytes could not be read", x.r->where,
                 gyre_conn_inbound(c));
    x.from = NULL;
}

/* Either all the bytes can be read when the descriptor is handed over, or it is not, and on_close says -ENOMEM. */
static void play_detach(struct refused *r)
{
    open_relay(r);
    fill_pipes();
    look = look_read; /* which needs no memory of its own */
    refused_begin(r);
    for (unsigned i = 0; i < TURNS && refused_note(r, gyre_conn_detach(x.from, on_detached, NULL)) != 0; i++)
        turn();
    for (unsigned i = 0; i < TURNS && x.detached == 0 && x.closed == 0; i++)
        turn();
    refused_over(r);
    if (x.detached == 0 && x.closed == 0 && is_open(x.from))
        cr_assert_eq(gyre_conn_detach(x.from, on_detached, NULL), 0);
    refused_until(r, x.detached == 1 || x.closed == 1);
    if (x.detached == 1)
        cr_assert_eq(x.got, x.sent, "%s: %llu of %llu bytes", r->where, (unsigned long long)x.got,
                     (unsigned long long)x.sent);
    else
        cr_assert(r->struck && x.close_err == -ENOMEM, "%s: closed: %s", r->where, gyre_err_name(x.close_err));
    if (x.fd >= 0)
        (void)close(x.fd);
    close_relay(r);
}

REAL_TEST(refused_pipes, detach)
{
    refused_each(p, play_detach, 2);
}
