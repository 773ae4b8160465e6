/* SPDX-License-Identifier: MIT
 * Bulk that goes through pipes, without memory: when the handler looks, whichever way, at bytes that nobody has looked
 * at; when files, writes and parts go in between; when a connection is detached with bytes in pipes.
 *
 * Two plain sockets with a relay between them, set up with memory and warmed up until the kernel moves the bytes. A
 * look that is refused has taken nothing and is made again. What comes out at the other end is what the relay has
 * accepted, in that order, up to where a connection was closed with -ENOMEM. */
#include "refused.h"
#include "server.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { KEY = 5, KEY_WRITE = 6, KEY_FILE = 7, BATCH = 150000, BATCHES = 3, TURNS = 60, PIECES_MAX = 4096 };

/* What the relay has queued for the other end, one after the other. */
struct piece {
    uint32_t key;
    uint64_t at, len;
};

/* Returns how many bytes it took, or an error: then it has taken none. */
typedef int64_t look_fn(struct gyre_conn *c);

struct relay {
    struct refused *r;
    struct gyre_listener *listener;
    struct gyre_conn *from, *to;
    int in, out; /* the test's sockets */
    bool splices;
    bool keeps;         /* the handler does nothing: bytes stay in their pipes */
    bool mixes;         /* the handler puts other things in between */
    unsigned step;      /* of mixing */
    uint64_t sent;      /* into `in` */
    uint64_t got;       /* of them, what the handler took or forwarded */
    struct piece pieces[PIECES_MAX];
    unsigned count, first; /* of them; the one that comes next out of `out` */
    uint64_t written, filed;
    int file;
    bool file_waits;
    int file_err;
    bool out_ended;
    int closed, close_err;
    unsigned detached;
    int fd; /* that was detached */
};

static struct relay x;

/* ---- the two sockets ---- */

static void feed(size_t most)
{
    static uint8_t bytes[65536];
    while (most > 0) {
        size_t len = most < sizeof bytes ? most : sizeof bytes;
        env_pattern_fill(bytes, len, KEY, x.sent);
        ssize_t n = send(x.in, bytes, len, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n <= 0)
            return; /* it is full, or closed for want of memory */
        x.sent += (uint64_t)n;
        most -= (size_t)n;
    }
}

static void check_piece(const uint8_t *data, size_t len)
{
    while (len > 0) {
        cr_assert_lt(x.first, x.count, "%s: more came than was forwarded", x.r->where);
        struct piece *piece = &x.pieces[x.first % PIECES_MAX];
        size_t part = piece->len < len ? (size_t)piece->len : len;
        cr_assert_eq(env_pattern_check(data, part, piece->key, piece->at), -1, "%s: wrong bytes of stream %u at %llu",
                     x.r->where, piece->key, (unsigned long long)piece->at);
        piece->at += part;
        piece->len -= part;
        x.first += piece->len == 0;
        data += part;
        len -= part;
    }
}

static void drain(void)
{
    static uint8_t bytes[65536];
    ssize_t n;
    while ((n = recv(x.out, bytes, sizeof bytes, MSG_DONTWAIT)) > 0)
        check_piece(bytes, (size_t)n);
    x.out_ended |= n == 0 || (n < 0 && errno != EAGAIN);
}

static void queued(uint32_t key, uint64_t at, uint64_t len)
{
    cr_assert_lt(x.count - x.first, PIECES_MAX);
    x.pieces[x.count++ % PIECES_MAX] = (struct piece){.key = key, .at = at, .len = len};
}

/* ---- the relay ---- */

static bool is_open(const struct gyre_conn *c)
{
    return c != NULL && gyre_conn_close_reason(c) == GYRE_CLOSE_NONE;
}

/* The other end may have been closed for want of memory. */
static bool went(int err)
{
    return x.closed > 0 || !is_open(x.to) || !is_open(x.from) ? err >= 0 : refused_note(x.r, err < 0 ? err : 0) == 0;
}

static void forward(size_t most)
{
    int64_t n = gyre_conn_forward(x.from, x.to, most);
    if (!went((int)n) || n == 0)
        return;
    queued(KEY, x.got, (uint64_t)n);
    x.got += (uint64_t)n;
}

static void write_between(void)
{
    uint8_t bytes[3000];
    env_pattern_fill(bytes, sizeof bytes, KEY_WRITE, x.written);
    if (!went(gyre_conn_write(x.to, bytes, sizeof bytes)))
        return;
    queued(KEY_WRITE, x.written, sizeof bytes);
    x.written += sizeof bytes;
}

static void on_file_sent(void *user, int err)
{
    (void)user;
    x.file_waits = false;
    x.file_err = err != 0 ? err : x.file_err;
}

static void file_between(void)
{
    static uint8_t bytes[40000];
    if (x.file_waits)
        return;
    env_pattern_fill(bytes, sizeof bytes, KEY_FILE, x.filed);
    cr_assert_eq(pwrite(x.file, bytes, sizeof bytes, 0), sizeof bytes);
    if (!went(gyre_conn_sendfile(x.to, x.file, 0, sizeof bytes, on_file_sent, NULL)))
        return;
    x.file_waits = true;
    queued(KEY_FILE, x.filed, sizeof bytes);
    x.filed += sizeof bytes;
}

static void on_data(struct gyre_conn *c)
{
    if (c != x.from || x.keeps || !is_open(x.to))
        return;
    if (x.mixes && x.step % 5 == 1)
        write_between();
    if (x.mixes && x.step % 5 == 3)
        file_between();
    x.step++;
    forward(SIZE_MAX);
}

static void on_open(struct gyre_conn *c)
{
    *(x.from == NULL ? &x.from : &x.to) = c;
}

static void on_close(struct gyre_conn *c, int err)
{
    *(c == x.from ? &x.from : &x.to) = NULL;
    x.closed++;
    x.close_err = err != 0 && x.close_err == 0 ? err : x.close_err;
}

static int connect_to_relay(void)
{
    int fd = client_connect(gyre_listener_address(x.listener));
    cr_assert_geq(fd, 0);
    return fd;
}

static bool warm(void)
{
    struct gyre_stats stats;
    gyre_loop_stats(x.r->loop, &stats);
    return stats.bytes_spliced > 0;
}

static void turn(void)
{
    refused_turn(x.r);
    drain();
}

static void open_file(void)
{
    char path[] = "/tmp/gyre-refused-XXXXXX";
    x.file = mkstemp(path);
    cr_assert_geq(x.file, 0);
    (void)unlink(path);
}

/* Both connections, and bulk that is spliced where it can be. */
static void open_relay(struct refused *r)
{
    static const struct gyre_conn_handlers handlers = {.on_open = on_open, .on_data = on_data, .on_close = on_close};
    x = (struct relay){.r = r, .fd = -1};
    x.splices = backends_splices(r->loop);
    cr_assert_eq(gyre_loop_listen(&x.listener, r->loop, "tcp://127.0.0.1:0", &handlers, NULL), 0);
    x.in = connect_to_relay();
    refused_until(r, x.from != NULL);
    x.out = connect_to_relay();
    refused_until(r, x.to != NULL);
    open_file();
    for (unsigned i = 0; i < 2000 && !(i >= 40 && warm()); i++) {
        feed(BATCH);
        turn();
    }
    cr_assert_eq(warm(), x.splices, "%s: spliced: %d", r->where, warm());
    refused_until(r, (drain(), x.got == x.sent && x.first == x.count));
}

/* Several pipes full, that nobody looks at. */
static void fill_pipes(void)
{
    x.keeps = true;
    for (unsigned i = 0; i < BATCHES; i++) {
        feed(BATCH);
        refused_until(x.r, gyre_conn_inbound(x.from) == x.sent - x.got);
    }
}

static void close_relay(struct refused *r)
{
    struct gyre_conn *both[2] = {x.from, x.to};
    for (unsigned i = 0; i < 2; i++)
        if (both[i] != NULL)
            cr_assert_eq(gyre_conn_abort(both[i]), 0);
    (void)close(x.in);
    (void)close(x.out);
    refused_until(r, x.from == NULL && x.to == NULL);
    (void)close(x.file);
    gyre_listener_close(x.listener);
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
    int err = gyre_conn_peek(c, 0, &s);
    return err != 0 ? err : counted(gyre_conn_discard(c, (size_t)checked(s.data, s.len)));
}

static int64_t look_next(struct gyre_conn *c)
{
    struct gyre_slice s;
    size_t here = gyre_conn_inbound(c);
    int err = gyre_conn_next(c, here < 100000 ? here : 100000, &s);
    return err != 0 ? err : checked(s.data, s.len);
}

static int64_t look_read(struct gyre_conn *c)
{
    uint8_t bytes[3000];
    size_t n = gyre_conn_read(c, bytes, sizeof bytes);
    return counted((size_t)checked(bytes, n));
}

static int64_t look_copy(struct gyre_conn *c)
{
    uint8_t bytes[3000];
    size_t n = gyre_conn_copy(c, 0, bytes, sizeof bytes);
    return n == 0 ? -ENOMEM : counted(gyre_conn_discard(c, (size_t)checked(bytes, n)));
}

static int64_t look_peekv(struct gyre_conn *c)
{
    struct iovec iov[2];
    int count = gyre_conn_peekv(c, iov, 2);
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
    return counted((size_t)checked(bytes, gyre_conn_read(c, bytes, len)));
}

static int64_t look_discard(struct gyre_conn *c)
{
    return counted(gyre_conn_discard(c, 1000));
}

static int64_t frame_by(struct gyre_conn *c, const struct gyre_framer *framer)
{
    struct gyre_slice s;
    size_t before = gyre_conn_inbound(c);
    int err = gyre_frame_next(c, framer, &s);
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
static int decode_by_line(const struct gyre_framer *framer, struct gyre_conn *c, struct gyre_frame *frame)
{
    struct gyre_framer line;
    cr_assert_eq(gyre_framer_init_line(&line, 0, framer->frame_max_bytes), 0);
    return line.decode(&line, c, frame);
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
    int err = framer.decode(&framer, c, &frame);
    if (err == -EAGAIN) /* less than a frame is left */
        return look_next(c);
    if (err != 0)
        return err;
    cr_assert_eq(frame.len, expected, "%s: a frame of %zu bytes, not %zu", x.r->where, frame.len, expected);
    return counted((size_t)checked(bytes, gyre_conn_read(c, bytes, frame.len)));
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
    int err = framer.decode(&framer, c, &frame);
    if (err != 0)
        return err;
    cr_assert_eq(frame.len, sizeof bytes, "%s: a frame of %zu bytes", x.r->where, frame.len);
    return counted((size_t)checked(bytes, gyre_conn_read(c, bytes, frame.len)));
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

/* ---- going on ---- */

static void run_relay(unsigned turns, uint64_t goal)
{
    for (unsigned i = 0; i < turns && x.closed == 0 && x.got < goal; i++) {
        if (x.sent < goal)
            feed(BATCH);
        if (is_open(x.from)) /* what was refused is done again */
            (void)gyre_conn_wake(x.from);
        turn();
    }
}

/* Bulk through pipes from the first turn on, files and writes between it. */
static void play_mixed(struct refused *r)
{
    open_relay(r);
    x.mixes = true;
    uint64_t goal = x.sent + 4 * (uint64_t)BATCH;
    refused_begin(r);
    run_relay(TURNS, goal);
    refused_over(r);
    run_relay(20000, goal);
    if (x.closed == 0 && is_open(x.from) && is_open(x.to)) {
        refused_until(r, (drain(), x.got == x.sent && x.first == x.count));
        cr_assert_eq(x.file_err, 0, "%s: a file: %s", r->where, gyre_err_name(x.file_err));
    } else {
        refused_until(r, x.closed > 0);
        cr_assert(r->struck && x.close_err == -ENOMEM, "%s: closed: %s", r->where, gyre_err_name(x.close_err));
    }
    close_relay(r);
}

REAL_TEST(refused_pipes, mixed)
{
    refused_each(p, play_mixed, 3);
}

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
