/* SPDX-License-Identifier: MIT
 * Random calls on the objects of one loop, for random.c: connections, and with each of them everything else that lives
 * on a loop. A shop is what one loop's thread knows; nobody else touches it. */
#ifndef GYRE_STRESS_RANDOM_CALLS_H
#define GYRE_STRESS_RANDOM_CALLS_H

#include "stress.h"

#include <fcntl.h>
#include <sys/uio.h>

enum { CONNS = 64, UDPS = 4, TIMERS = 6, WATCHES = 3, BUFS = 12, RECONNECTORS = 2, TEXT = 20000, FILE_BYTES = 90000 };

/* What must be even at the end, of all loops and threads together. */
struct tally {
    atomic_long opened, closed;     /* on_open and on_close of the same connections */
    atomic_long promised, reported; /* calls that owe a callback, and those callbacks */
    atomic_ulong calls;
};

struct shop {
    struct gyre_engine *engine;
    struct gyre_loop *loop;
    struct tally *tally;
    uint64_t random;
    const char *addresses[2];
    int file, pipe[2];
    bool over; /* nothing new that has to be released by hand */
    unsigned conn_count;
    struct gyre_conn *conns[CONNS];
    struct gyre_udp *udps[UDPS];
    struct gyre_timer *timers[TIMERS];
    struct gyre_watch *watches[WATCHES];
    struct gyre_buf *bufs[BUFS];
    struct gyre_reconnector *reconnectors[RECONNECTORS];
};

static const uint8_t text[TEXT];
static const struct gyre_conn_handlers random_conn;
static const struct gyre_udp_handlers random_udp;

static inline struct shop *shop_of(struct gyre_loop *loop)
{
    return gyre_loop_user(loop);
}

static inline uint32_t below(struct shop *s, uint32_t n)
{
    return (uint32_t)(stress_random(&s->random) % n);
}

/* ---- What is owed ---- */

static inline void on_reported(int err, void *user)
{
    struct tally *tally = user;
    (void)err;
    (void)atomic_fetch_add(&tally->reported, 1);
}

/* Before the call: its callback may come on another thread before it returns. */
static inline void *promise(struct tally *tally)
{
    (void)atomic_fetch_add(&tally->promised, 1);
    return tally;
}

static inline void promised(struct tally *tally, int err)
{
    if (err != 0)
        (void)atomic_fetch_sub(&tally->promised, 1);
}

/* ---- Connections ---- */

static inline void add_conn(struct shop *s, struct gyre_conn *c)
{
    if (s->conn_count < CONNS)
        s->conns[s->conn_count++] = c;
}

static inline void remove_conn(struct shop *s, struct gyre_conn *c)
{
    for (unsigned i = 0; i < s->conn_count; i++)
        if (s->conns[i] == c) {
            s->conns[i] = s->conns[--s->conn_count];
            return;
        }
}

static inline void on_detached(struct gyre_conn *c, int fd, void *user)
{
    struct shop *s = shop_of(gyre_conn_loop(c));
    struct gyre_conn *again;
    (void)atomic_fetch_add(&s->tally->closed, gyre_conn_user(c) != NULL);
    on_reported(0, user);
    if (below(s, 2) == 0 && gyre_conn_adopt_fd(&again, s->loop, fd, &random_conn, NULL) == 0)
        add_conn(s, again);
    else
        MUST(close(fd) == 0);
}

/* A detached connection ends by on_close instead if the loop ends; then the callback is not owed. */
static inline void detach(struct shop *s, struct gyre_conn *c)
{
    if (below(s, 8) != 0)
        return;
    int err = gyre_conn_detach(c, on_detached, promise(s->tally));
    promised(s->tally, err);
    if (err == 0) {
        remove_conn(s, c);
        gyre_conn_set_user(c, gyre_conn_user(c) != NULL ? &s->conn_count : NULL); /* detaching: see on_close */
    }
}

static inline void connect_one(struct shop *s)
{
    const struct gyre_conn_options options = {
        .write_high_bytes = 4096 << below(s, 4), .write_max_bytes = 65536, .read_max_bytes = 1024u << below(s, 8),
        .idle_timeout_ns = below(s, 2) * INT64_C(200000000), .lifetime_ns = below(s, 3) * INT64_C(300000000),
        .linger_timeout_ns = 1 + below(s, 300000000), .start_paused = below(s, 16) == 0, .nagle = below(s, 4) == 0};
    struct gyre_conn *c;
    if (s->conn_count < CONNS / 2 && gyre_connect(&c, s->loop, s->addresses[below(s, 2)], &random_conn, &options) == 0)
        add_conn(s, c);
}

static inline void read_some(struct shop *s, struct gyre_conn *c)
{
    struct gyre_slice view;
    struct iovec iov[8];
    uint8_t bytes[512];
    size_t here = gyre_conn_inbound(c), len = here > 0 ? 1 + below(s, (uint32_t)here) : 1;
    struct gyre_buf **buf = &s->bufs[below(s, BUFS)];
    switch (below(s, 8)) {
    case 0: (void)gyre_conn_peek(&view, c, len); return;
    case 1: (void)gyre_conn_peekv(iov, 8, c); return;
    case 2: (void)gyre_conn_next(&view, c, below(s, 2) ? len : 0); return;
    case 3: (void)gyre_conn_read(bytes, sizeof bytes, c); return;
    case 4: (void)gyre_conn_copy(bytes, sizeof bytes, c, len / 2); return;
    case 5: (void)gyre_conn_discard(c, len); return;
    case 6: (void)gyre_conn_find(c, "\0\0", 2, 0); return;
    default:
        MUST(gyre_buf_release(*buf) == 0);
        if (s->over || gyre_buf_hold(buf, &view, c, len) != 0)
            *buf = NULL;
    }
}

static inline void write_some(struct shop *s, struct gyre_conn *c)
{
    size_t len = 1 + below(s, below(s, 4) == 0 ? TEXT : 600);
    const struct iovec iov[2] = {{(void *)(uintptr_t)text, len / 2}, {(void *)(uintptr_t)text, len - len / 2}};
    struct tally *t = s->tally;
    switch (below(s, 8)) {
    case 0:
    case 1: (void)gyre_conn_write(c, text, len); return;
    case 2: (void)gyre_conn_writev(c, iov, 2); return;
    case 3: promised(t, gyre_conn_write_ref(c, text, len, on_reported, promise(t))); return;
    case 4: (void)gyre_conn_try_write(c, text, len); return;
    case 5:
        len = below(s, FILE_BYTES - 1000);
        promised(t, gyre_conn_sendfile(c, s->file, below(s, 999), len, on_reported, promise(t)));
        return;
    case 6:
        if (s->conn_count > 0) /* a reconnector's is not among them */
            (void)gyre_conn_forward(c, s->conns[below(s, s->conn_count)], 1 + below(s, 99999));
        return;
    default: (void)gyre_conn_forward(c, c, SIZE_MAX);
    }
}

static inline void set_some(struct shop *s, struct gyre_conn *c)
{
    const int64_t ns = below(s, 3) * INT64_C(50000000);
    int64_t value;
    char name[16];
    struct gyre_tcp_info info;
    struct gyre_keepalive keepalive;
    struct sockaddr_storage addr;
    socklen_t addr_len;
    enum gyre_sockopt option = (enum gyre_sockopt)(1 + below(s, GYRE_SOCKOPT_END));
    switch (below(s, 14)) {
    case 0: (void)gyre_conn_set_idle_timeout(c, ns); return;
    case 1: (void)gyre_conn_set_read_timeout(c, ns); return;
    case 2: (void)gyre_conn_set_write_timeout(c, ns); return;
    case 3: (void)gyre_conn_set_lifetime(c, 10 * ns); return;
    case 4: (void)gyre_conn_sockopt(&value, c, option); return;
    case 5: (void)gyre_conn_set_sockopt(c, GYRE_SOCKOPT_NODELAY, below(s, 2)); return;
    case 6: (void)gyre_conn_tcp_info(&info, c); return;
    case 7: (void)gyre_conn_keepalive(&keepalive, c); return;
    case 8: (void)gyre_conn_congestion(name, sizeof name, c); return;
    case 9: (void)gyre_conn_local_address(&addr, &addr_len, c); return;
    case 10: (void)gyre_conn_peer_address(&addr, &addr_len, c); return;
    case 11: (void)gyre_conn_share(c, s->tally); return;
    case 12: MUST(gyre_conn_from_id(gyre_conn_id_of(c)) == c || gyre_conn_close_reason(c) != GYRE_CLOSE_NONE); return;
    default: (void)(gyre_conn_shared(c) != NULL && gyre_conn_congested(c) && gyre_conn_outbound(c) > 0);
    }
}

static inline void steer(struct shop *s, struct gyre_conn *c)
{
    int fd;
    switch (below(s, 24)) {
    case 0: (void)gyre_conn_shutdown(c); return;
    case 1: (void)gyre_conn_close(c); return;
    case 2: (void)gyre_conn_abort(c); return;
    case 3: detach(s, c); return;
    case 4:
        fd = gyre_conn_dup_fd(c);
        MUST(fd < 0 || close(fd) == 0);
        return;
    case 5:
    case 6: (void)gyre_conn_pause(c); return;
    case 7: gyre_conn_cork(c); return;
    case 8:
    case 9:
    case 10: gyre_conn_uncork(c); return;
    case 11:
    case 12: (void)gyre_conn_wake(c); return;
    default: (void)gyre_conn_resume(c);
    }
}

/* One call about `c`, which may be any of the loop's. */
static inline void touch(struct shop *s, struct gyre_conn *c)
{
    (void)atomic_fetch_add(&s->tally->calls, 1);
    switch (below(s, 4)) {
    case 0: read_some(s, c); return;
    case 1: write_some(s, c); return;
    case 2: set_some(s, c); return;
    default: steer(s, c);
    }
}

/* ---- What else lives on a loop ---- */

static inline void on_timer(struct gyre_timer *timer, void *user)
{
    struct shop *s = user;
    if (below(s, 4) == 0)
        MUST(gyre_timer_stop(timer) == 0 && !gyre_timer_is_active(timer));
    if (s->conn_count > 0)
        touch(s, s->conns[below(s, s->conn_count)]);
}

static inline void turn_timer(struct shop *s)
{
    struct gyre_timer **timer = &s->timers[below(s, TIMERS)];
    if (*timer == NULL)
        MUST(gyre_timer_create(timer, s->loop, on_timer, s) == 0);
    else if (below(s, 5) == 0) {
        MUST(gyre_timer_destroy(*timer) == 0);
        *timer = NULL;
    } else
        MUST(gyre_timer_start(*timer, below(s, 5000000), below(s, 3) * INT64_C(1000000)) == 0);
}

static inline void on_watched(struct gyre_watch *watch, unsigned events, int err, void *user)
{
    struct shop *s = user;
    char byte;
    if (err != 0) {
        for (unsigned i = 0; i < WATCHES; i++)
            if (s->watches[i] == watch)
                s->watches[i] = NULL;
        return;
    }
    if (events & GYRE_WATCH_READABLE)
        (void)!read(s->pipe[0], &byte, 1);
}

static inline void turn_watch(struct shop *s)
{
    struct gyre_watch **watch = &s->watches[below(s, WATCHES)];
    if (*watch == NULL) {
        if (gyre_watch_open(watch, s->loop, s->pipe[0], GYRE_WATCH_READABLE, on_watched, s) != 0)
            *watch = NULL;
    } else if (below(s, 3) == 0) {
        MUST(gyre_watch_close(*watch) == 0);
        *watch = NULL;
    } else
        MUST(gyre_watch_set(*watch, below(s, 2) ? GYRE_WATCH_READABLE : 0) == 0);
    (void)!write(s->pipe[1], "x", 1);
}

static inline void turn_udp(struct shop *s)
{
    struct gyre_udp **u = &s->udps[below(s, UDPS)], *other = s->udps[below(s, UDPS)];
    struct sockaddr_storage to;
    socklen_t to_len;
    if (*u == NULL) {
        const struct gyre_udp_options options = {.send_queue_max_bytes = 30000, .user = u, .pktinfo = below(s, 2)};
        if (gyre_udp_open(u, s->loop, "udp://127.0.0.1:0", &random_udp, &options) != 0)
            *u = NULL;
        return;
    }
    if (other == NULL || gyre_udp_local_address(&to, &to_len, other) != 0)
        return;
    switch (below(s, 12)) {
    case 0: (void)gyre_udp_close(*u); return;
    case 1: (void)gyre_udp_abort(*u); return;
    case 2: (void)gyre_udp_pause(*u); return;
    case 3: (void)gyre_udp_resume(*u); return;
    case 4: (void)gyre_udp_send_segments(*u, (struct sockaddr *)&to, to_len, text, 3000, 700); return;
    case 5: (void)gyre_udp_send(*u, text, 1); return;
    case 6: MUST(gyre_udp_from_id(gyre_udp_id_of(*u)) == *u || gyre_udp_outbound(*u) < 1u << 30); return;
    default: (void)gyre_udp_send_to(*u, (struct sockaddr *)&to, to_len, text, below(s, 1400));
    }
}

static inline void turn_reconnector(struct shop *s)
{
    static const struct gyre_reconnector_options options = {.delay_min_ns = 1000000, .delay_max_ns = 20000000};
    struct gyre_reconnector **r = &s->reconnectors[below(s, RECONNECTORS)];
    if (*r == NULL) {
        MUST(gyre_reconnector_create(r, s->loop, s->addresses[0], &random_conn, &options) == 0);
        (void)gyre_reconnector_start(*r);
    } else if (below(s, 10) == 0) {
        MUST(gyre_reconnector_destroy(*r) == 0);
        *r = NULL;
    } else if (below(s, 2) == 0)
        MUST(gyre_reconnector_stop(*r) == 0 && gyre_reconnector_failures(*r) < UINT32_MAX);
    else
        (void)gyre_reconnector_start(*r);
}

/* A random call of any kind. */
static inline void act(struct shop *s)
{
    if (s->over)
        return;
    switch (below(s, 24)) {
    case 0: turn_timer(s); return;
    case 1: turn_watch(s); return;
    case 2:
    case 3: turn_udp(s); return;
    case 4: turn_reconnector(s); return;
    case 5:
    case 6: connect_one(s); return;
    default:
        if (s->conn_count > 0)
            touch(s, s->conns[below(s, s->conn_count)]);
    }
}

/* Before the loop ends, on it. What is not released by hand goes with the loop. */
static inline void clear_shop(struct shop *s)
{
    s->over = true;
    for (unsigned i = 0; i < BUFS; i++)
        MUST(gyre_buf_release(s->bufs[i]) == 0);
    for (unsigned i = 0; i < TIMERS; i++)
        MUST(gyre_timer_destroy(s->timers[i]) == 0);
    for (unsigned i = 0; i < RECONNECTORS; i++)
        if (s->reconnectors[i] != NULL)
            MUST(gyre_reconnector_destroy(s->reconnectors[i]) == 0);
    memset(s->bufs, 0, sizeof s->bufs);
    memset(s->timers, 0, sizeof s->timers);
    memset(s->reconnectors, 0, sizeof s->reconnectors);
}

#endif
