/* SPDX-License-Identifier: MIT
 * Completions made from readiness.
 *
 * Each descriptor is watched once, edge-triggered, and has a queue of waiting ops per direction. A direction is
 * believed ready until a system call says EAGAIN; the next edge brings the belief back. A descriptor with a waiting op
 * in a direction believed ready stands in that direction's run queue. Belief costs at most one wasted call per edge and
 * saves an epoll_ctl() for every op.
 *
 * submit() only queues. A turn, one wait(), is this: first what was cancelled, then the sends and connects, then
 * receives and accepts until about TURN_BYTES have come in. Only if all that gave no event is the poller asked, and
 * what it says is run in the same way. So what is received is answered while its bytes are in the nearest cache, and a
 * batch of requests costs one call of the poller.
 *
 * What can go wrong. A peer that never stops sending would keep the run queue from emptying and the poller from being
 * asked: each descriptor's turn is FD_TURN events, then it goes to the back, and the poller is asked at least every
 * POLL_EVERY turns. Sends could fill every turn: receives that had no room go first in the next one. An op may be
 * cancelled when its last event is on its way already: then it is in no queue, and cancel() leaves it alone. A
 * descriptor may be closed with answers outstanding: there are none, for all the poller's answers of a turn become bits
 * before wait() returns, no callback runs in between, and close() takes the descriptor out of poller and queues. */
#include "readiness.h"

#include "base/check.h"

#include <errno.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <unistd.h>

enum {
    POLL_BATCH = 128,       /* answers taken from the poller at once */
    POLL_EVERY = 16,        /* turns without asking the poller, at most */
    FD_TURN = 16,           /* events of one direction of one descriptor per turn */
    TURN_BYTES = 32 * 1024, /* received bytes after which a turn ends: what the first-level cache holds */
};

/* Where the events of a turn go, and how far it has come. */
struct turn {
    struct gyre__event *out;
    unsigned n, cap;
    uint32_t bytes; /* received */
};

static unsigned op_dir(const struct gyre__op *op)
{
    switch ((enum gyre__op_kind)op->kind) {
    case GYRE_OP_CONNECT:
    case GYRE_OP_SEND:
    case GYRE_OP_SENDMSG:
    case GYRE_OP_SPLICE:
    case GYRE_OP_READ: /* what is read is to be written: not before that can be */
        return GYRE_DIR_WRITE;
    case GYRE_OP_POLL: /* one of both waits for writing, which is what has to be watched for; see raised() */
        return op->u.poll.events & POLLOUT ? GYRE_DIR_WRITE : GYRE_DIR_READ;
    case GYRE_OP_ACCEPT:
    case GYRE_OP_RECV:
    case GYRE_OP_RECVMSG:
        break;
    }
    return GYRE_DIR_READ;
}

/* ---- Queues of ops: circular, held by the last one. ---- */

static void push(struct gyre__op **tail, struct gyre__op *op)
{
    op->next = op;
    if (*tail != NULL) {
        op->next = (*tail)->next;
        (*tail)->next = op;
    }
    *tail = op;
}

/* Returns whether `op` was there. The queues are one or two ops long, for core keeps one op per direction of a stream;
 * those of datagrams to send are longer, and from them the first is taken, but for a cancel. */
static bool unlink_op(struct gyre__op **tail, struct gyre__op *op)
{
    struct gyre__op *prev = *tail;
    if (prev == NULL)
        return false;
    while (prev->next != op) {
        prev = prev->next;
        if (prev == *tail)
            return false;
    }
    prev->next = op->next;
    if (*tail == op)
        *tail = prev == op ? NULL : prev;
    return true;
}

/* ---- Run queues. ---- */

static unsigned queued_bit(unsigned dir)
{
    return (unsigned)GYRE_RDF_QUEUED << dir;
}

static bool can_run(const struct gyre__fd *f, unsigned dir)
{
    return f->be.rd.tail[dir] != NULL && (f->be_flags & (1u << dir));
}

static void run_later(struct gyre__rd *rd, struct gyre__fd *f, unsigned dir)
{
    if (!can_run(f, dir) || (f->be_flags & queued_bit(dir)))
        return;
    f->be_flags |= (uint8_t)queued_bit(dir);
    gyre__fdq_push(&rd->run[dir], f);
}

static struct gyre__fd *run_pop(struct gyre__rd *rd, unsigned dir)
{
    struct gyre__fd *f = gyre__fdq_pop(&rd->run[dir]);
    f->be_flags &= (uint8_t)~queued_bit(dir);
    return f;
}

/* Only for a descriptor that is closed while in the queue, which takes a cancel just before. */
static void run_remove(struct gyre__rd *rd, struct gyre__fd *f, unsigned dir)
{
    if (!(f->be_flags & queued_bit(dir)))
        return;
    gyre__fdq_remove(&rd->run[dir], f);
    f->be_flags &= (uint8_t)~queued_bit(dir);
}

/* ---- Serving descriptors. ---- */

static bool asks_urgent(const struct gyre__op *op)
{
    return op->kind == GYRE_OP_POLL && (op->u.poll.events & POLLPRI) != 0;
}

/* A call would have blocked. Writing is watched from the first time that this happens, or else each read of a peer on
 * a unix socket would be an edge. Returns whether an event says that watching is impossible. */
static bool blocked(struct gyre__rd *rd, struct gyre__fd *f, unsigned dir, struct gyre__event *ev)
{
    f->be_flags &= (uint8_t) ~(1u << dir);
    if ((f->flags & GYRE_FDF_FOREIGN) && asks_urgent(f->be.rd.tail[dir]->next) && !rd->p.urgent) {
        ev->res = -EOPNOTSUPP;
        return true;
    }
    if (dir == GYRE_DIR_READ || (f->be_flags & GYRE_RDF_WATCHING_WRITE))
        return false;
    int err = rd->poller->watch_write(&rd->p, f);
    if (err == 0) {
        f->be_flags |= GYRE_RDF_WATCHING_WRITE;
        return false;
    }
    /* UNTESTED: the kernel has no memory for a second watch. The belief comes back, or no later op would be tried. */
    f->be_flags |= GYRE_RDF_WRITABLE;
    ev->res = err;
    return true;
}

static bool turn_over(const struct turn *t)
{
    return t->n == t->cap || t->bytes >= TURN_BYTES;
}

/* Send the datagrams that wait on `f`. Returns false if it blocks. */
static bool serve_datagrams(struct gyre__rd *rd, struct gyre__fd *f, struct turn *t, unsigned end)
{
    struct gyre__op *ops[GYRE_DGRAM_BATCH], *last = f->be.rd.tail[GYRE_DIR_WRITE], *op = last->next;
    struct gyre__event *ev = &t->out[t->n];
    unsigned count = 0, max = end - t->n < GYRE_DGRAM_BATCH ? end - t->n : GYRE_DGRAM_BATCH;
    for (bool more = true; more && count < max; op = op->next) {
        ops[count++] = op;
        more = op != last;
    }
    unsigned n = gyre__perform_sendmsgs(ops, count, ev, &rd->base.stats);
    if (n > 0 && ev->res < 0 && ev->res != -EAGAIN)
        f->be_flags &= (uint8_t)~GYRE_RDF_FAILED;
    if (n == 0 && !blocked(rd, f, GYRE_DIR_WRITE, ev))
        return false;
    n = n > 0 ? n : 1;
    for (unsigned i = 0; i < n; i++)
        (void)unlink_op(&f->be.rd.tail[GYRE_DIR_WRITE], ops[i]);
    t->n += n;
    return true;
}

/* How many events one descriptor may have of what is left of the turn. */
static unsigned share(const struct gyre__fd *f, const struct turn *t)
{
    unsigned most = f->flags & GYRE_FDF_DGRAM ? GYRE_DGRAM_BATCH : FD_TURN;
    return t->cap - t->n < most ? t->cap - t->n : most;
}

static void serve(struct gyre__rd *rd, struct gyre__fd *f, unsigned dir, struct turn *t)
{
    unsigned end = t->n + share(f, t);
    while (t->n < end && can_run(f, dir) && !turn_over(t)) {
        if (dir == GYRE_DIR_WRITE && (f->flags & GYRE_FDF_DGRAM)) {
            if (!serve_datagrams(rd, f, t, end))
                return;
            continue;
        }
        struct gyre__op *op = f->be.rd.tail[dir]->next;
        struct gyre__event *ev = &t->out[t->n];
        unsigned n = gyre__perform(op, ev, end - t->n, &rd->base.stats);
        if (GYRE_UNLIKELY(f->be_flags & GYRE_RDF_FAILED))
            n = gyre__error_tell(&rd->errors, op, ev + (n > 0 ? n - 1 : 0), n);
        if (n == 0 && !blocked(rd, f, dir, ev))
            return;
        if (!(ev->flags & GYRE_EV_MORE))
            (void)unlink_op(&f->be.rd.tail[dir], op);
        t->n += n > 0 ? n : 1;
        for (; (op->kind == GYRE_OP_RECV || op->kind == GYRE_OP_RECVMSG) && n > 0; n--, ev++)
            t->bytes += ev->res > 0 ? (uint32_t)ev->res : 0;
    }
}

/* Each descriptor in the queue has at most one go; those not done go to the back. */
static void run(struct gyre__rd *rd, unsigned dir, struct turn *t)
{
    for (uint32_t left = gyre__fdq_count(&rd->run[dir]); left > 0 && !turn_over(t); left--) {
        struct gyre__fd *f = run_pop(rd, dir);
        serve(rd, f, dir, t);
        run_later(rd, f, dir);
        run_later(rd, f, GYRE_DIR_READ); /* a connect changes the belief in reading */
    }
}

static void run_both(struct gyre__rd *rd, struct turn *t)
{
    if (rd->reads_due)
        run(rd, GYRE_DIR_READ, t);
    run(rd, GYRE_DIR_WRITE, t);
    if (!rd->reads_due)
        run(rd, GYRE_DIR_READ, t);
    rd->reads_due = !rd->reads_due && t->bytes == 0 && t->n == t->cap;
}

static void take_cancelled(struct gyre__rd *rd, struct turn *t)
{
    while (rd->cancelled != NULL && t->n < t->cap) {
        struct gyre__op *op = rd->cancelled->next;
        (void)unlink_op(&rd->cancelled, op);
        t->out[t->n++] = (struct gyre__event){.op = op, .res = -ECANCELED};
    }
}

/* The bits that an answer sets. A poll may wait for both directions, and stands in the queue of one. */
static uint8_t raised(const struct gyre__ready *r)
{
    if (GYRE_UNLIKELY(r->f->flags & GYRE_FDF_FOREIGN))
        return GYRE_RDF_READABLE | GYRE_RDF_WRITABLE;
    return r->bits;
}

/* Ask the poller, and turn its answers into bits and places in the run queues. Returns 0 or -errno. */
static int poll_fds(struct gyre__rd *rd, int64_t timeout_ns)
{
    struct gyre__ready ready[POLL_BATCH];
    rd->unpolled = 0;
    gyre__count(&rd->base.stats.enters, 1);
    int got = rd->poller->wait(&rd->p, ready, POLL_BATCH, timeout_ns);
    gyre__observe(&rd->base.stats.enter_completions, got > 0 ? (uint64_t)got : 0);
    for (int i = 0; i < got; i++) {
        struct gyre__fd *f = ready[i].f;
        if (f == NULL) {
            rd->shown = false;
            /* Not a load and a store: what was posted before it was set must be seen by who unsets it. */
            if (atomic_exchange(&rd->woken, false))
                gyre__count(&rd->base.stats.wakes, 1);
            continue;
        }
        f->be_flags |= raised(&ready[i]);
        if (GYRE_UNLIKELY(ready[i].err > 0) && !(f->flags & GYRE_FDF_FOREIGN))
            gyre__error_keep(&rd->errors, rd->mem, f, ready[i].err);
        run_later(rd, f, GYRE_DIR_READ);
        run_later(rd, f, GYRE_DIR_WRITE);
    }
    return got >= 0 || got == -EINTR ? 0 : got;
}

static bool has_work(const struct gyre__rd *rd)
{
    return gyre__fdq_count(&rd->run[GYRE_DIR_READ]) > 0 || gyre__fdq_count(&rd->run[GYRE_DIR_WRITE]) > 0 ||
           rd->cancelled != NULL;
}

/* Returns 0, or -errno. */
static int take_turn(struct gyre__rd *rd, struct turn *t, int64_t timeout_ns)
{
    take_cancelled(rd, t);
    run_both(rd, t);
    bool idle = t->n == 0 && !has_work(rd);
    if (!idle && ++rd->unpolled < POLL_EVERY)
        return 0;
    int err = poll_fds(rd, idle ? timeout_ns : 0);
    if (idle) {
        bool told = has_work(rd);
        run_both(rd, t);
        gyre__count(&rd->base.stats.rearms_idle, told && t->n == 0);
    }
    return err;
}

int gyre__rd_wait(struct gyre__backend *be, struct gyre__event *out, unsigned cap, int64_t timeout_ns)
{
    struct gyre__rd *rd = gyre__rd_of(be);
    struct turn t = {.out = out, .cap = cap};
    GYRE_ASSERT(cap > 0);
    int err = take_turn(rd, &t, timeout_ns);
    if (GYRE_UNLIKELY(rd->pollable && !rd->shown && has_work(rd))) {
        rd->shown = true;
        rd->poller->wake(&rd->p);
    }
    return err != 0 && t.n == 0 ? err : (int)t.n;
}

/* ---- The rest of the table. ---- */

void gyre__rd_submit(struct gyre__backend *be, struct gyre__op *op)
{
    unsigned dir = op_dir(op);
    GYRE_ASSERT(op->state == GYRE_OPS_INFLIGHT && op->f->fd >= 0);
    if (op->kind == GYRE_OP_CONNECT)
        op->u.connect.started = false;
    if (op->kind == GYRE_OP_POLL) /* what was found not to hold before was something else, perhaps */
        op->f->be_flags |= (uint8_t)(1u << dir);
    push(&op->f->be.rd.tail[dir], op);
    run_later(gyre__rd_of(be), op->f, dir);
}

void gyre__rd_cancel(struct gyre__backend *be, struct gyre__op *op)
{
    struct gyre__rd *rd = gyre__rd_of(be);
    if (unlink_op(&op->f->be.rd.tail[op_dir(op)], op))
        push(&rd->cancelled, op);
}

/* With a copy, a descriptor may be watched several times, and closed by its owner without the poller going on to name
 * one of ours. */
static int copy(const struct gyre__rd *rd, struct gyre__fd *f)
{
    int fd = f->fd == rd->p.fd ? -EINVAL : gyre__sock_copy(f->fd);
    if (fd >= 0)
        f->fd = fd;
    return fd >= 0 ? 0 : fd;
}

/* The poller did not take the copy of `fd`. Returns what to say: -EPERM is epoll's for what is always ready. */
static int uncopy(struct gyre__fd *f, int fd, int err)
{
    (void)close(f->fd);
    f->fd = fd;
    return err == -EPERM || err == -ENODEV ? GYRE_EFDTYPE : err;
}

int gyre__rd_attach(struct gyre__backend *be, struct gyre__fd *f)
{
    struct gyre__rd *rd = gyre__rd_of(be);
    int err = gyre__fdq_reserve(&rd->run[GYRE_DIR_READ], rd->mem, rd->attached + 1);
    if (err == 0)
        err = gyre__fdq_reserve(&rd->run[GYRE_DIR_WRITE], rd->mem, rd->attached + 1);
    int given = f->fd;
    if (err == 0)
        err = f->flags & GYRE_FDF_FOREIGN ? copy(rd, f) : gyre__perform_prepare(f);
    if (err != 0)
        return err;
    f->be.rd.tail[GYRE_DIR_READ] = NULL;
    f->be.rd.tail[GYRE_DIR_WRITE] = NULL;
    /* The first receive of a connection would nearly always be in vain: accepted ones are not readable until the poller
     * says so, which it does at once if they are. Of other descriptors nothing is known, not even that they are
     * connected sockets, and for a call that fails no edge need ever come. */
    f->be_flags = GYRE_RDF_WRITABLE;
    if (!(f->flags & GYRE_FDF_ACCEPTED))
        f->be_flags |= GYRE_RDF_READABLE;
    err = rd->poller->add(&rd->p, f);
    rd->attached += err == 0;
    return err == 0 || !(f->flags & GYRE_FDF_FOREIGN) ? err : uncopy(f, given, err);
}

static void let_go(struct gyre__rd *rd, struct gyre__fd *f)
{
    for (unsigned dir = GYRE_DIR_READ; dir <= GYRE_DIR_WRITE; dir++) {
        GYRE_CHECK(f->be.rd.tail[dir] == NULL);
        run_remove(rd, f, dir);
    }
    rd->poller->remove(&rd->p, f);
    rd->attached--;
}

void gyre__rd_close(struct gyre__backend *be, struct gyre__fd *f)
{
    let_go(gyre__rd_of(be), f);
    if (f->flags & GYRE_FDF_TOUCHED)
        gyre__sock_close_now(f->fd);
    else
        (void)close(f->fd);
    f->fd = -1;
}

int gyre__rd_detach(struct gyre__backend *be, struct gyre__fd *f)
{
    let_go(gyre__rd_of(be), f);
    int fd = f->fd;
    f->fd = -1;
    if (!(f->flags & GYRE_FDF_LISTEN))
        gyre__perform_restore(fd);
    return fd;
}

/* Callers that find the flag set leave it at that: the answer of the one who set it is still to be taken, after which
 * core looks at all that was posted. */
void gyre__rd_wake(struct gyre__backend *be)
{
    struct gyre__rd *rd = gyre__rd_of(be);
    if (!atomic_exchange(&rd->woken, true))
        rd->poller->wake(&rd->p);
}

int gyre__rd_pollable(struct gyre__backend *be)
{
    struct gyre__rd *rd = gyre__rd_of(be);
    rd->pollable = true;
    return rd->p.fd;
}

/* Nothing is posted ahead, so a pool needs no preparing: ops bring theirs along. */
int gyre__rd_pool_add(struct gyre__backend *be, struct gyre__bufpool *pool)
{
    (void)be;
    (void)pool;
    return 0;
}

void gyre__rd_pool_remove(struct gyre__backend *be, struct gyre__bufpool *pool)
{
    (void)be;
    (void)pool;
}

void gyre__rd_features(struct gyre__backend *be, char *out, size_t size)
{
    struct gyre__rd *rd = gyre__rd_of(be);
    (void)snprintf(out, size, "%s%s", rd->poller->features(&rd->p), be->busy_polls ? ",napi" : "");
}
