/* SPDX-License-Identifier: MIT
 * Which of io_uring works here: the words for features, and a trial.
 *
 * Version numbers are not asked: distributions carry features back and sandboxes take them away. setup.c tries the best
 * flags first and gives up one after the other. Then the trial, once per process, carries bytes through a throwaway
 * ring and this backend's own functions: everything that the library will rely on has happened once before it relies on
 * it. The trial also finds filters that allow setup and forbid the rest. explain.c puts a failure into words. */
#include "ring.h"
#include "base/clock.h"

#include <errno.h>
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* --- words --- */

static const struct {
    uint32_t bit;
    const char *word;
} words[] = {
#define WORD(name, bit_number, text) {GYRE_URING_##name, text},
    GYRE_URING_FEATURES(WORD)
#undef WORD
};

enum { WORDS = sizeof words / sizeof words[0] };

static uint32_t bit_of(const char *word, size_t len)
{
    for (size_t i = 0; i < WORDS; i++)
        if (strlen(words[i].word) == len && memcmp(words[i].word, word, len) == 0)
            return words[i].bit;
    return 0;
}

static uint32_t parse(const char *list, const char *from, const struct gyre_log *log)
{
    uint32_t bits = 0;
    while (list != NULL && *list != '\0') {
        size_t len = strcspn(list, ", ");
        uint32_t bit = bit_of(list, len);
        if (bit == 0 && len > 0)
            gyre__log_line(log, GYRE_LOG_WARN, "%s: \"%.*s\" is no io_uring feature that can be left out", from,
                           len < 40 ? (int)len : 40, list);
        bits |= bit;
        list += len + (list[len] != '\0');
    }
    return bits;
}

uint32_t gyre__uring_off(const struct gyre__backend_config *cfg)
{
    return parse(cfg->off, "the option naming io_uring features to leave out", cfg->log) |
           parse(secure_getenv("GYRE_URING_OFF"), "GYRE_URING_OFF", cfg->log);
}

void gyre__uring_feature_words(uint32_t use, char *out, size_t size)
{
    size_t used = 0;
    if (size > 0)
        out[0] = '\0';
    for (size_t i = 0; i < WORDS; i++) {
        if (!(use & words[i].bit) || used >= size)
            continue;
        int n = snprintf(out + used, size - used, "%s%s", used > 0 ? "," : "", words[i].word);
        used += n > 0 ? (size_t)n : 0;
    }
}

/* --- the trial --- */

enum { TRIAL_BUFS = 2, TRIAL_BUF_SIZE = 64, TRIAL_BYTES = 200, TRIAL_WAITS = 20 };

#define TRIAL_WAIT_NS (INT64_C(100) * 1000000)

/* A throwaway loop: it plays the part of core. */
struct trial {
    struct gyre__backend *be;
    struct gyre__bufpool pool;
    struct gyre__fd near, far;
    struct gyre__op recv, send;
    int32_t recv_last, send_last; /* results of the last events */
    uint16_t held[TRIAL_BUFS];
    unsigned nheld;
    unsigned got; /* bytes received */
    bool more;    /* a receive went on after an event */
};

static void trial_submit(struct trial *t, struct gyre__op *op)
{
    op->state = GYRE_OPS_INFLIGHT;
    op->f->inflight++;
    t->be->ops->submit(t->be, op);
}

static void trial_event(struct trial *t, const struct gyre__event *ev)
{
    if (ev->flags & GYRE_EV_BUF) {
        gyre__bufpool_receive(&t->pool, ev->buf);
        t->held[t->nheld++] = ev->buf;
        t->got += (unsigned)ev->res;
    }
    if (ev->flags & GYRE_EV_MORE) {
        t->more = true;
        return;
    }
    *(ev->op == &t->recv ? &t->recv_last : &t->send_last) = ev->res;
    ev->op->state = GYRE_OPS_IDLE;
    ev->op->f->inflight--;
    ev->op->gen++;
}

static void trial_release(struct trial *t)
{
    while (t->nheld > 0)
        gyre__bufpool_release(&t->pool, t->held[--t->nheld]);
}

/* Run until `op` is over; a receive that ends with data is submitted again. Returns 0 or -errno. */
static int trial_finish(struct trial *t, struct gyre__op *op)
{
    for (int i = 0; i < TRIAL_WAITS; i++) {
        struct gyre__event ev[4];
        int n = t->be->ops->wait(t->be, ev, 4, TRIAL_WAIT_NS);
        if (n < 0)
            return n;
        for (int k = 0; k < n; k++)
            trial_event(t, &ev[k]);
        if (op->state != GYRE_OPS_IDLE)
            continue;
        if (op != &t->recv || t->recv_last <= 0)
            return 0;
        trial_submit(t, op);
    }
    return -ETIME;
}

/* The call that failed when wait() did: the first one enables the ring before it enters it. */
static const char *waiting_call(const struct trial *t)
{
    return gyre__uring_of(t->be)->started ? "io_uring_enter" : "io_uring_register(ENABLE_RINGS)";
}

/* A send and a receive through the ring; the receive stays armed or is armed again, and then finds the pool empty. */
static int trial_receive(struct trial *t, uint32_t use, struct gyre__uring_failure *failure)
{
    static const char bytes[TRIAL_BYTES];
    t->recv = (struct gyre__op){.f = &t->near, .kind = GYRE_OP_RECV, .flags = GYRE_OPF_MULTI | GYRE_OPF_POOL};
    t->recv.u.recv.pool = &t->pool;
    t->send = (struct gyre__op){.f = &t->far, .kind = GYRE_OP_SEND, .u.send = {.buf = bytes, .len = TRIAL_BYTES}};
    trial_submit(t, &t->recv);
    trial_submit(t, &t->send);
    int err = trial_finish(t, &t->recv);
    if (err < 0)
        return gyre__uring_fail(failure, waiting_call(t), err);
    if (t->recv_last != -ENOBUFS || t->got != TRIAL_BUFS * TRIAL_BUF_SIZE)
        return gyre__uring_lacks(failure, "receiving into provided buffers (Linux 5.19)");
    if ((use & GYRE_URING_MULTISHOT_RECV) && !t->more)
        return gyre__uring_lacks(failure, "multishot receive (Linux 6.0)");
    if (t->send.state != GYRE_OPS_IDLE || t->send_last != TRIAL_BYTES)
        return gyre__uring_lacks(failure, "sending");
    return 0;
}

/* Buffers given back, the rest comes, then the end of the stream. */
static int trial_end(struct trial *t, struct gyre__uring_failure *failure)
{
    (void)shutdown(t->far.fd, SHUT_WR);
    for (int i = 0; t->recv_last == -ENOBUFS && i < TRIAL_WAITS; i++) {
        trial_release(t);
        trial_submit(t, &t->recv);
        int err = trial_finish(t, &t->recv);
        if (err < 0)
            return gyre__uring_fail(failure, waiting_call(t), err);
    }
    if (t->got != TRIAL_BYTES)
        return gyre__uring_lacks(failure, "receiving again after the buffers ran out");
    if (t->recv_last != 0)
        return gyre__uring_lacks(failure, "reporting the end of a stream");
    return 0;
}

/* A time-out passes while a receive waits, then the receive is cancelled. */
static int trial_cancel(struct trial *t, struct gyre__uring_failure *failure)
{
    struct gyre__event ev;
    trial_release(t);
    t->recv.f = &t->far;
    trial_submit(t, &t->recv);
    uint64_t before = gyre__clock_ns();
    int n = t->be->ops->wait(t->be, &ev, 1, 1000000);
    if (n != 0 || gyre__clock_ns() - before < 900000)
        return n < 0 ? gyre__uring_fail(failure, waiting_call(t), n)
                     : gyre__uring_lacks(failure, "waiting with a time-out");
    t->recv.state = GYRE_OPS_CANCELLING;
    t->be->ops->cancel(t->be, &t->recv);
    int err = trial_finish(t, &t->recv);
    if (err < 0)
        return gyre__uring_fail(failure, waiting_call(t), err);
    return t->recv_last == -ECANCELED ? 0 : gyre__uring_lacks(failure, "cancelling a receive");
}

static int trial_exchange(struct trial *t, uint32_t use, struct gyre__uring_failure *failure)
{
    int err = t->be->ops->pool_add(t->be, &t->pool);
    if (err < 0)
        return gyre__uring_fail(failure, "io_uring_register(PBUF_RING)", err);
    err = trial_receive(t, use, failure);
    if (err == 0)
        err = trial_end(t, failure);
    return err == 0 ? trial_cancel(t, failure) : err;
}

static int trial_run(const struct gyre__backend_ops *ops, const struct gyre__backend_config *cfg, uint32_t *use,
                     struct gyre__uring_failure *failure)
{
    const struct gyre__backend_config small = {.sq_entries = 8, .cq_entries = 16, .mem = cfg->mem, .log = cfg->log};
    struct trial t = {.near = {.fd = -1}, .far = {.fd = -1}};
    struct gyre__uring *u;
    int pair[2];

    int err = gyre__uring_open(&u, ops, &small, *use, failure);
    if (err < 0)
        return err;
    *use = u->use;
    u->use &= ~(uint32_t)GYRE_URING_DIRECT; /* small as they are, these buffers would look like a bulk stream's */
    t.be = &u->base;
    err = gyre__bufpool_init(&t.pool, cfg->mem, TRIAL_BUF_SIZE, TRIAL_BUFS, TRIAL_BUFS);
    if (err == 0 && socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0) {
        t.near.fd = pair[0];
        t.far.fd = pair[1];
        if ((err = t.be->ops->attach(t.be, &t.near)) < 0 || (err = t.be->ops->attach(t.be, &t.far)) < 0)
            err = gyre__uring_fail(failure, "attaching a socket", err);
        else
            err = trial_exchange(&t, *use, failure);
    } else {
        err = gyre__uring_fail(failure, "socketpair", err < 0 ? err : -errno);
    }
    /* After a failure something may be in flight still: the sockets' end ends it, before its memory goes. */
    if (t.near.fd >= 0) {
        (void)shutdown(t.near.fd, SHUT_RDWR);
        (void)close(t.near.fd);
        (void)close(t.far.fd);
    }
    for (int i = 0; t.near.inflight + t.far.inflight > 0 && i < TRIAL_WAITS; i++) {
        struct gyre__event ev;
        if (t.be->ops->wait(t.be, &ev, 1, TRIAL_WAIT_NS) == 1)
            trial_event(&t, &ev);
    }
    trial_release(&t);
    t.be->ops->destroy(t.be);
    if (t.pool.base != NULL)
        gyre__bufpool_fini(&t.pool);
    return err;
}

/* The last trial's outcome, for the same features wanted. */
static struct {
    pthread_mutex_t lock;
    _Atomic(bool) valid;
    uint32_t want, use;
    struct gyre__uring_failure failure;
} last = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* The thread that was at it is not in the child, and would never give the lock back. The outcome is valid or marked. */
static void in_child(void)
{
    (void)pthread_mutex_init(&last.lock, NULL);
}

static void watch_forks(void)
{
    (void)pthread_atfork(NULL, NULL, in_child);
}

static bool passing(int err)
{
    return err == -EMFILE || err == -ENFILE || err == -ENOMEM;
}

int gyre__uring_trial(const struct gyre__backend_ops *ops, const struct gyre__backend_config *cfg, uint32_t *use,
                      struct gyre__uring_failure *failure)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    uint32_t want = *use;
    (void)pthread_once(&once, watch_forks);
    (void)pthread_mutex_lock(&last.lock);
    if (!last.valid || last.want != want) {
        last.valid = false;
        last.failure = (struct gyre__uring_failure){0};
        last.use = want;
        last.want = want;
        int err = trial_run(ops, cfg, &last.use, &last.failure);
        /* UNTESTED: needs Linux 5.19, which has provided buffers and no multishot receive. */
        if (last.failure.lacks && (last.use & GYRE_URING_MULTISHOT_RECV)) {
            last.use &= ~(uint32_t)GYRE_URING_MULTISHOT_RECV;
            last.failure = (struct gyre__uring_failure){0};
            err = trial_run(ops, cfg, &last.use, &last.failure);
        }
        last.valid = !passing(err);
    }
    *use = last.use;
    *failure = last.failure;
    (void)pthread_mutex_unlock(&last.lock);
    return failure->err;
}
