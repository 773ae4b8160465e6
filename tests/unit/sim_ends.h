/* SPDX-License-Identifier: MIT
 * Clients and servers of random conversations over the seam: each end draws what it does next, and compares every byte
 * that arrives with what was sent. */
#ifndef GYRE_TEST_SIM_ENDS_H
#define GYRE_TEST_SIM_ENDS_H

#include "sim_core.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/uio.h>

enum {
    CLIENTS_MAX = 8,
    ENDS_MAX = 2 * CLIENTS_MAX,
    OUT_MAX = 3000,
    IN_MAX = 2000,
    BUFS = 6,
};

static uint64_t seed_now; /* for messages */

#define HOLDS(cond, ...)                          \
    do {                                          \
        if (!(cond))                              \
            broken(__LINE__, #cond, __VA_ARGS__); \
    } while (0)

static inline void broken(int line, const char *what, const char *format, ...)
    __attribute__((format(printf, 3, 4), noreturn));

static inline void broken(int line, const char *what, const char *format, ...)
{
    char text[256];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);
    cr_assert_fail("line %d: not %s: %s. Replay with GYRE_SIM_SEED=%llu", line, what, text,
                   (unsigned long long)seed_now);
    abort();
}

/* How an end means to end. */
enum plan {
    PLAN_FINISH, /* send all, FIN, read to the end, close */
    PLAN_CLOSE,  /* close somewhere in the middle */
    PLAN_RESET,  /* the same with RST */
};

/* One end of a connection. The first byte it sends is its key, the rest the key's pattern. */
struct end {
    struct world *w;
    struct sim_core *c;
    struct gyre__fd f;
    struct sim_op send, recv, connect;
    struct end *peer; /* once its first byte was seen */
    struct iovec iov[3];
    struct msghdr hdr;
    uint8_t out[OUT_MAX];
    uint8_t in[IN_MAX];
    uint8_t key;
    bool open;
    bool connecting;
    bool paused;
    bool shut;
    bool eof;
    bool closing;
    bool cut_short; /* it ended otherwise than by PLAN_FINISH */
    enum plan plan;
    uint32_t goal;
    uint32_t enough; /* bytes after which PLAN_CLOSE and PLAN_RESET strike */
    uint32_t sent;
    uint32_t got;
    int send_err;
    int recv_err;
};

struct world {
    struct env_rng rng;
    struct sim_core core[2];
    struct sim_core *server;
    struct sim_core *client;
    struct gyre__bufpool pool[2];
    struct gyre__fd listener;
    struct gyre__addr addr;
    struct sim_op accept;
    struct end ends[ENDS_MAX];
    unsigned count;
    unsigned acts; /* things done since last looked at */
    bool calm;     /* no end means harm, nor does the network */
};

/* How ends have ended, in all runs together. */
static unsigned finished, ended_in_reset, cut_off;

static inline bool one_in(struct world *w, uint32_t n)
{
    return env_rng_below(&w->rng, n) == 0;
}

static inline uint8_t stream_byte(uint8_t key, uint32_t offset)
{
    uint8_t byte = key;
    if (offset > 0)
        env_pattern_fill(&byte, 1, key, offset);
    return byte;
}

static inline void fill(struct end *e, uint8_t *out, uint32_t offset, uint32_t len)
{
    if (len == 0)
        return;
    env_pattern_fill(out, len, e->key, offset);
    out[0] = stream_byte(e->key, offset);
}

static inline struct end *end_of_key(struct world *w, uint8_t key)
{
    for (unsigned i = 0; i < w->count; i++)
        if (w->ends[i].key == key)
            return &w->ends[i];
    return NULL;
}

/* ---- Receiving ---- */

static inline void check_bytes(struct end *e, const uint8_t *data, uint32_t len)
{
    HOLDS(!e->eof && e->recv_err == 0, "key %u: data after the end", e->key);
    if (e->got == 0) {
        e->peer = end_of_key(e->w, data[0]);
        HOLDS(e->peer != NULL && e->peer != e, "key %u: first byte %u", e->key, data[0]);
        e->peer->peer = e;
    }
    HOLDS(e->got + len <= e->peer->sent + OUT_MAX, "key %u: %u bytes, %u were sent", e->key, e->got + len,
          e->peer->sent);
    uint32_t skip = e->got == 0 ? 1 : 0;
    int64_t bad = env_pattern_check(data + skip, len - skip, e->peer->key, e->got + skip);
    HOLDS(bad < 0, "key %u: byte %lld after %u is wrong", e->key, (long long)bad, e->got);
    e->got += len;
}

/* The end of the stream, with no error before it: then everything must be here. */
static inline void check_end(struct end *e)
{
    struct end *p = e->peer;
    if (e->send_err != 0 || p == NULL)
        return;
    if (!p->cut_short && p->send_err == 0)
        HOLDS(e->got == p->sent && p->sent == p->goal, "key %u: end after %u, %u were sent of %u", e->key, e->got,
              p->sent, p->goal);
}

static inline void on_recv(struct sim_op *o, const struct gyre__event *ev)
{
    struct end *e = o->user;
    e->w->acts++;
    if (ev->res > 0) {
        bool pooled = ev->flags & GYRE_EV_BUF;
        uint8_t *data = pooled ? gyre__bufpool_data(o->op.u.recv.pool, ev->buf) : e->in;
        check_bytes(e, data, (uint32_t)ev->res);
        if (pooled)
            gyre__bufpool_release(o->op.u.recv.pool, ev->buf);
    } else if (ev->res == 0) {
        check_end(e);
        e->eof = true;
    } else if (ev->res != -ENOBUFS && ev->res != -ECANCELED) {
        HOLDS(ev->res == -ECONNRESET || ev->res == -EPIPE, "key %u: receiving ended with %d", e->key, ev->res);
        e->recv_err = ev->res;
    }
}

static inline void start_recv(struct end *e)
{
    struct gyre__bufpool *pool = &e->w->pool[e->c - e->w->core];
    e->w->acts++;
    switch (env_rng_below(&e->w->rng, 3)) {
    case 0:
        sim_recv(e->c, &e->recv, &e->f, e->in, 1 + env_rng_below(&e->w->rng, IN_MAX));
        break;
    case 1:
        sim_recv_pool(e->c, &e->recv, &e->f, pool, 0);
        break;
    default:
        sim_recv_pool(e->c, &e->recv, &e->f, pool, GYRE_OPF_MULTI);
        break;
    }
}

/* ---- Sending ---- */

static inline void on_send(struct sim_op *o, const struct gyre__event *ev)
{
    struct end *e = o->user;
    e->w->acts++;
    memset(e->out, 0xee, sizeof e->out); /* it is ours again */
    if (ev->res > 0) {
        e->sent += (uint32_t)ev->res;
        HOLDS(e->sent <= e->goal, "key %u: more bytes left than there were", e->key);
    } else if (ev->res != -ECANCELED) {
        HOLDS(ev->res == -EPIPE || ev->res == -ECONNRESET, "key %u: sending ended with %d", e->key, ev->res);
        e->send_err = ev->res;
    }
}

static inline void start_send(struct end *e)
{
    struct world *w = e->w;
    uint32_t left = e->goal - e->sent;
    uint32_t len = 1 + env_rng_below(&w->rng, left < OUT_MAX ? left : OUT_MAX);
    w->acts++;
    fill(e, e->out, e->sent, len);
    if (one_in(w, 2)) {
        sim_send(e->c, &e->send, &e->f, e->out, len);
        return;
    }
    uint32_t first = env_rng_below(&w->rng, len + 1);
    uint32_t second = env_rng_below(&w->rng, len - first + 1);
    e->iov[0] = (struct iovec){e->out, first};
    e->iov[1] = (struct iovec){e->out + first, second};
    e->iov[2] = (struct iovec){e->out + first + second, len - first - second};
    e->hdr = (struct msghdr){.msg_iov = e->iov, .msg_iovlen = 3};
    e->send.op.u.msg.hdr = &e->hdr;
    sim_submit(e->c, &e->send, &e->f, GYRE_OP_SENDMSG, 0);
}

/* ---- The life of an end ---- */

static inline struct end *new_end(struct world *w, struct sim_core *c)
{
    HOLDS(w->count < ENDS_MAX, "%u ends", w->count);
    struct end *e = &w->ends[w->count++];
    *e = (struct end){.w = w, .c = c, .open = true, .key = (uint8_t)(10 + w->count)};
    e->send.on_event = on_send;
    e->recv.on_event = on_recv;
    e->send.user = e->recv.user = e->connect.user = e;
    e->goal = 1 + env_rng_below(&w->rng, one_in(w, 4) ? 40000 : 3000);
    if (!w->calm && one_in(w, 4))
        e->plan = one_in(w, 2) ? PLAN_CLOSE : PLAN_RESET;
    e->enough = env_rng_below(&w->rng, one_in(w, 2) ? 20000 : 500);
    return e;
}

static inline void begin_close(struct end *e, bool cut_short)
{
    e->w->acts++;
    e->closing = true;
    e->cut_short |= cut_short;
    sim_cancel(e->c, &e->recv);
    sim_cancel(e->c, &e->send);
    sim_cancel(e->c, &e->connect);
}

static inline void finish_close(struct end *e)
{
    if (e->plan == PLAN_RESET)
        (void)e->c->be->ops->sock->set_reset(e->c->be, e->f.fd);
    finished += !e->cut_short && e->eof && e->shut;
    ended_in_reset += e->recv_err != 0 || e->send_err != 0;
    cut_off += e->cut_short;
    sim_close(e->c, &e->f);
    e->w->acts++;
    e->open = false;
}

static inline void act_send(struct end *e)
{
    struct world *w = e->w;
    if (!sim_op_idle(&e->send)) {
        if (one_in(w, 40))
            sim_cancel(e->c, &e->send);
        return;
    }
    if (e->shut || e->send_err != 0 || one_in(w, 4))
        return;
    if (e->sent < e->goal) {
        start_send(e);
        return;
    }
    int err = e->c->be->ops->sock->shutdown(e->c->be, e->f.fd);
    HOLDS(err == 0 || err == -ENOTCONN, "shutdown: %d", err);
    w->acts++;
    e->shut = true;
    e->send_err = err;
}

static inline void act_recv(struct end *e)
{
    struct world *w = e->w;
    if (!sim_op_idle(&e->recv)) {
        if (one_in(w, 30)) {
            e->paused = true;
            sim_cancel(e->c, &e->recv);
        }
        return;
    }
    if (e->paused && one_in(w, 3))
        e->paused = false;
    if (!e->paused && !e->eof && e->recv_err == 0)
        start_recv(e);
}

static inline void act(struct end *e)
{
    if (!e->open)
        return;
    if (e->closing) {
        if (e->f.inflight == 0)
            finish_close(e);
        return;
    }
    if (e->connecting) {
        if (!e->w->calm && one_in(e->w, 200))
            begin_close(e, true);
        return;
    }
    bool strikes = e->plan != PLAN_FINISH && e->sent + e->got >= e->enough;
    bool done = (e->eof || e->recv_err != 0) && (e->shut || e->send_err != 0);
    if (strikes || done) {
        begin_close(e, strikes && !done);
        return;
    }
    act_send(e);
    act_recv(e);
}

/* ---- Connecting ---- */

static inline void on_connect(struct sim_op *o, const struct gyre__event *ev)
{
    struct end *e = o->user;
    e->w->acts++;
    e->connecting = false;
    if (ev->res == 0)
        return;
    HOLDS(ev->res == -ETIMEDOUT || ev->res == -EHOSTUNREACH || ev->res == -ECANCELED || ev->res == -EAGAIN,
          "connect gave %d", ev->res);
    HOLDS(!e->w->calm, "connect gave %d", ev->res);
    if (!e->closing)
        begin_close(e, true);
}

static inline void on_accept(struct sim_op *o, const struct gyre__event *ev)
{
    struct world *w = o->user;
    w->acts++;
    if (ev->res == -EMFILE || ev->res == -ECONNABORTED || ev->res == -ECANCELED)
        return;
    HOLDS(ev->res >= 0, "accept gave %d", ev->res);
    struct end *e = new_end(w, w->server);
    sim_attach(e->c, &e->f, ev->res);
}

static inline void new_client(struct world *w)
{
    struct end *e = new_end(w, w->client);
    sim_open(e->c, &e->f, w->addr.ss.ss_family);
    e->connecting = true;
    e->connect.on_event = on_connect;
    sim_connect(e->c, &e->connect, &e->f, &w->addr);
}

#endif
