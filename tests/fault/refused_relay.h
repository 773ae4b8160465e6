/* SPDX-License-Identifier: MIT
 * Two plain sockets with a relay between them, set up with memory and warmed up until the kernel moves the bytes. What
 * comes out at the other end is what the relay has accepted, in that order, up to where a connection was closed with
 * -ENOMEM. */
#ifndef GYRE_TEST_FAULT_REFUSED_RELAY_H
#define GYRE_TEST_FAULT_REFUSED_RELAY_H

#include "refused.h"
#include "server.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

enum { KEY = 5, KEY_WRITE = 6, KEY_FILE = 7, BATCH = 150000, BATCHES = 3, TURNS = 60, PIECES_MAX = 4096 };

/* What the relay has queued for the other end, one after the other. */
struct piece {
    uint32_t key;
    uint64_t at, len;
};

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

static inline void feed(size_t most)
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

static inline void check_piece(const uint8_t *data, size_t len)
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

static inline void drain(void)
{
    static uint8_t bytes[65536];
    ssize_t n;
    while ((n = recv(x.out, bytes, sizeof bytes, MSG_DONTWAIT)) > 0)
        check_piece(bytes, (size_t)n);
    x.out_ended |= n == 0 || (n < 0 && errno != EAGAIN);
}

static inline void queued(uint32_t key, uint64_t at, uint64_t len)
{
    cr_assert_lt(x.count - x.first, PIECES_MAX);
    x.pieces[x.count++ % PIECES_MAX] = (struct piece){.key = key, .at = at, .len = len};
}

/* ---- the relay ---- */

static inline bool is_open(const struct gyre_conn *c)
{
    return c != NULL && gyre_conn_close_reason(c) == GYRE_CLOSE_NONE;
}

/* The other end may have been closed for want of memory. */
static inline bool went(int err)
{
    return x.closed > 0 || !is_open(x.to) || !is_open(x.from) ? err >= 0 : refused_note(x.r, err < 0 ? err : 0) == 0;
}

static inline void forward(size_t most)
{
    int64_t n = gyre_conn_forward(x.from, x.to, most);
    if (!went((int)n) || n == 0)
        return;
    queued(KEY, x.got, (uint64_t)n);
    x.got += (uint64_t)n;
}

static inline void write_between(void)
{
    uint8_t bytes[3000];
    env_pattern_fill(bytes, sizeof bytes, KEY_WRITE, x.written);
    if (!went(gyre_conn_write(x.to, bytes, sizeof bytes)))
        return;
    queued(KEY_WRITE, x.written, sizeof bytes);
    x.written += sizeof bytes;
}

static inline void on_file_sent(int err, void *user)
{
    (void)user;
    x.file_waits = false;
    x.file_err = err != 0 ? err : x.file_err;
}

static inline void file_between(void)
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

static inline void on_data(struct gyre_conn *c)
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

static inline void on_open(struct gyre_conn *c)
{
    *(x.from == NULL ? &x.from : &x.to) = c;
}

static inline void on_close(struct gyre_conn *c, int err)
{
    *(c == x.from ? &x.from : &x.to) = NULL;
    x.closed++;
    x.close_err = err != 0 && x.close_err == 0 ? err : x.close_err;
}

static inline int connect_to_relay(void)
{
    int fd = client_connect(gyre_listener_address(x.listener));
    cr_assert_geq(fd, 0);
    return fd;
}

static inline bool warm(void)
{
    struct gyre_stats stats;
    gyre_loop_stats(&stats, x.r->loop);
    return stats.bytes_spliced > 0;
}

static inline void turn(void)
{
    refused_turn(x.r);
    drain();
}

static inline void open_file(void)
{
    char path[] = "/tmp/gyre-refused-XXXXXX";
    x.file = mkstemp(path);
    cr_assert_geq(x.file, 0);
    (void)unlink(path);
}

/* Both connections, and bulk that is spliced where it can be. */
static inline void open_relay(struct refused *r)
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

static inline void close_relay(struct refused *r)
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

#endif
