/* SPDX-License-Identifier: MIT
 * io_uring: the seam's own shape, so this file is mostly translation.
 *
 * Normal course: submit() writes an entry into the submission ring and nothing else. wait() posts receive buffers, then
 * hands over everything and waits in one io_uring_enter, and turns completions into events. The ring is created
 * disabled, by any thread; the first wait() enables it, which makes its thread the only one that may enter it.
 *
 * The completion ring full: the kernel keeps what does not fit, in order, ends multishot ops, and sets a flag; entering
 * for events flushes it. Completions left over because the caller's array was full stay in the ring for the next
 * wait().
 *
 * Waking: a multishot poll of an eventfd stays armed in the ring. `woken` is set by the first wake() and cleared when
 * its completion is seen, so that wakes before the loop looks cost no system call. Both sides exchange: either the
 * waker finds the flag cleared and writes, or the loop that clears it sees all that the waker did before. */
#include "await.h"
#include "completion.h"
#include "direct.h"
#include "queue.h"
#include "splice.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stddef.h>
#include <unistd.h>

#define TIMEOUT_MAX_NS (INT64_C(86400) * 1000000000) /* longer ones overflow inside the kernel */
#define RETRY_NS       (INT64_C(10) * 1000000)       /* how soon to offer again what the kernel refused */

enum { SKIPS_MAX = 16, UNENTERED_MAX = 16 };

/* --- operations --- */

/* A one-shot receive is tried first, but into a buffer of the pool only if there are posted ones. */
static void submit_recv(const struct gyre__uring *u, struct gyre__op *op)
{
    bool pool = op->flags & GYRE_OPF_POOL;
    if (pool && (op->flags & GYRE_OPF_MULTI))
        gyre__direct_prepare(u, op);
    else if ((op->flags & GYRE_OPF_POLL_FIRST) || (pool && !(u->use & GYRE_URING_MULTISHOT_RECV)))
        gyre__await_begin(op);
}

static void uring_submit(struct gyre__backend *be, struct gyre__op *op)
{
    struct gyre__uring *u = gyre__uring_of(be);
    GYRE_ASSERT(((uintptr_t)op & ~(uintptr_t)GYRE_URING_ADDR_MASK) == 0);
    op->next = NULL;
    op->flags &= GYRE_OPF_OWNER;
    switch ((enum gyre__op_kind)op->kind) {
    case GYRE_OP_RECV:
        submit_recv(u, op);
        break;
    case GYRE_OP_SEND:
    case GYRE_OP_SENDMSG:
        if (op->flags & GYRE_OPF_POLL_FIRST)
            gyre__await_begin(op);
        else if (gyre__direct_send(u, op))
            return;
        break;
    case GYRE_OP_SPLICE:
        if (gyre__splice_try(u, op))
            return;
        gyre__await_begin(op);
        break;
    case GYRE_OP_RECVMSG:
        if (!(u->use & GYRE_URING_MULTISHOT_RECV))
            op->flags |= GYRE_UOP_WAITS;
        break;
    case GYRE_OP_POLL:
        if (!(op->f->flags & GYRE_FDF_FOREIGN)) /* a stream's, after its end, which holds for ever */
            op->f->be.ur.odd = true;
        gyre__await_begin(op);
        break;
    case GYRE_OP_CONNECT:
        if (gyre__uring_connects_now(op)) {
            gyre__uring_connect(u, op);
            return;
        }
        break;
    case GYRE_OP_ACCEPT:
    case GYRE_OP_READ:
        break;
    }
    (void)gyre__uring_put_or_wait(u, op);
}

static void uring_cancel(struct gyre__backend *be, struct gyre__op *op)
{
    struct gyre__uring *u = gyre__uring_of(be);
    GYRE_ASSERT(op->state == GYRE_OPS_CANCELLING);
    u->cancel_tries = 0;
    if (op->next != NULL)
        return; /* it waits in a list: gyre__uring_submit_late() sees its state, or has its cancel already */
    if (op->flags & (GYRE_UOP_MADE | GYRE_UOP_ENDING))
        return; /* the kernel has nothing of it, or was asked already */
    gyre__uring_ask_end(u, op);
}

/* --- waiting --- */

static void note_overflow(struct gyre__uring *u)
{
    bool over = (IO_URING_READ_ONCE(*u->ring.sq.kflags) & IORING_SQ_CQ_OVERFLOW) != 0;
    if (GYRE_UNLIKELY(over && !u->overflowing))
        gyre__count(&u->base.stats.overflows, 1);
    u->overflowing = over;
}

/* What to make of an enter that failed. Returns 0 or, if the ring is lost, -errno. */
static int cope(struct gyre__uring *u, int err, int64_t timeout_ns)
{
    switch (err) {
    case -EINTR:
    case -ETIME:
        return 0;
    case -EAGAIN: /* out of memory for requests: wait for what is under way, then offer them again */
    case -EBUSY:  /* too many completions not yet looked at */
        if (gyre__uring_completed(u) == 0 && timeout_ns != 0)
            (void)gyre__uring_enter_wait(u, 0, 1, timeout_ns < 0 || timeout_ns > RETRY_NS ? RETRY_NS : timeout_ns, 0);
        return 0;
    case -EBADR: /* UNTESTED: the kernel must run out of memory for it */
        gyre__log_line(
            u->log, GYRE_LOG_ERROR,
            "io_uring: the kernel ran out of memory and dropped completions; some operations will never end");
        return 0;
    default:
        return err;
    }
}

/* Wait for one completion, or for a batch, or let bulk gather (batch.h): with `submit` sends that complete at once on
 * top. The kernel looks at `timeout_ns` when the time to hold out is over. */
static int wait_for_some(struct gyre__uring *u, unsigned submit, int64_t timeout_ns)
{
    struct gyre__batch *b = &u->batch;
    unsigned want = gyre__batch_want(b), most = GYRE_BATCH_ALL_MAX;
    uint32_t hold_us = GYRE_BATCH_HOLD_US;
    if (!(u->use & GYRE_URING_MIN_WAIT))
        return gyre__uring_enter_wait(u, submit, 1, timeout_ns, 0);
    if (gyre__batch_crowded(b)) {
        want = GYRE_BATCH_BULK_WAIT_FOR;
        hold_us = GYRE_BATCH_BULK_HOLD_US;
    } else if (GYRE_UNLIKELY(gyre__batch_tries(b)) && (timeout_ns < 0 || timeout_ns > GYRE_REACH_HOLD_US * 1000LL)) {
        b->reach.trying = true;
        want = GYRE_REACH_ENOUGH;
        most = submit + want;
        hold_us = GYRE_REACH_HOLD_US;
    }
    if (want == 1)
        return gyre__uring_enter_wait(u, submit, 1, timeout_ns, 0);
    unsigned complete = submit + want < most ? submit + want : most;
    b->reach.asked = complete > submit ? complete - submit : 0;
    return gyre__uring_enter_wait(u, submit, complete, timeout_ns, hold_us);
}

/* Submit, and wait unless there are completions already. With more of them than the caller has room for no others are
 * asked for, or a flood would overflow the ring; but now and then they are, or a chain of sends that complete at once
 * would keep receives out. */
static int submit_and_wait(struct gyre__uring *u, unsigned room, int64_t timeout_ns)
{
    unsigned submit = gyre__uring_unsubmitted(u), ready = gyre__uring_completed(u);
    unsigned inside = IO_URING_READ_ONCE(*u->ring.sq.kflags) & (IORING_SQ_CQ_OVERFLOW | IORING_SQ_TASKRUN);
    int r;

    if (ready > 0 && submit == 0 && (ready >= room || inside == 0))
        return 0;
    if (ready >= room && ready >= u->ring.cq.ring_entries / 2 && u->skips < SKIPS_MAX) {
        u->skips++;
        r = gyre__uring_enter(u, submit, 0, 0, NULL);
    } else {
        u->skips = 0;
        r = ready == 0 && timeout_ns != 0 ? wait_for_some(u, submit, timeout_ns)
                                          : gyre__uring_enter_wait(u, submit, 0, timeout_ns, 0);
    }
    return GYRE_LIKELY(r >= 0) ? 0 : cope(u, r, timeout_ns);
}

static void arm_wake(struct gyre__uring *u)
{
    struct io_uring_sqe *sqe = gyre__uring_sqe(u);
    if (sqe == NULL)
        return;
    io_uring_prep_poll_multishot(sqe, u->wake_fd, POLLIN);
    sqe->user_data = GYRE_URING_TAG_WAKE;
    u->wake_armed = true;
}

static void register_ring_fd(struct gyre__uring *u)
{
    struct io_uring_rsrc_update reg = {.offset = UINT32_MAX, .data = (unsigned)u->ring.ring_fd};
    if (io_uring_register((unsigned)u->ring.ring_fd, IORING_REGISTER_RING_FDS, &reg, 1) != 1) {
        u->use &= ~(uint32_t)GYRE_URING_RING_FD;
        return;
    }
    u->enter_fd = (int)reg.offset;
    u->enter_flags |= IORING_ENTER_REGISTERED_RING;
}

/* The first wait(): from here on the ring belongs to this thread. */
static int start(struct gyre__uring *u)
{
    unsigned workers[2] = {2, 1}; /* reading a file may need one of the first; nothing else needs any */
    int err = io_uring_register((unsigned)u->ring.ring_fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0);
    if (err < 0)
        return err;
    (void)io_uring_register((unsigned)u->ring.ring_fd, IORING_REGISTER_IOWQ_MAX_WORKERS, workers, 2);
    if (u->use & GYRE_URING_RING_FD)
        register_ring_fd(u);
    u->started = true;
    return 0;
}

/* There are events without entering. Whether that will do: the kernel has nothing to be given, but it runs what else is
 * ready only when entered. */
static bool enough(struct gyre__uring *u)
{
    if (gyre__uring_unsubmitted(u) == 0 && u->wake_armed && ++u->unentered < UNENTERED_MAX)
        return true;
    u->unentered = 0;
    return false;
}

/* What calls of our own bring. Who is first changes, and so does who gets the odd place, or one of them, or the ring,
 * could go without for ever. */
static unsigned run_direct(struct gyre__uring *u, struct gyre__event *out, unsigned cap)
{
    unsigned n = u->turns & 1 ? gyre__direct_done(u, out, cap) : gyre__direct_run(u, out, cap);
    return n + (u->turns & 1 ? gyre__direct_run(u, out + n, cap - n) : gyre__direct_done(u, out + n, cap - n));
}

/* Events are of ops that were cancelled before the kernel saw them. */
static unsigned submit_late(struct gyre__uring *u, struct gyre__event *out, unsigned cap)
{
    unsigned n = gyre__uring_submit_late(u, out, cap);
    for (unsigned i = 0; i < n; i++)
        gyre__direct_forget(u, out[i].op);
    return n;
}

static int uring_wait(struct gyre__backend *be, struct gyre__event *out, unsigned cap, int64_t timeout_ns)
{
    struct gyre__uring *u = gyre__uring_of(be);
    unsigned n = 0;

    int err = GYRE_LIKELY(u->started) ? 0 : start(u);
    if (err < 0)
        return err;
    if (timeout_ns > TIMEOUT_MAX_NS)
        timeout_ns = TIMEOUT_MAX_NS;
    u->stuck = false;
    if (GYRE_UNLIKELY(!u->wake_armed))
        arm_wake(u);
    bool paused = u->cancels.first != NULL && u->cancel_tries >= GYRE_URING_CANCELS_AT_ONCE;
    if (GYRE_UNLIKELY(gyre__uring_any_late(u) && !paused))
        n = submit_late(u, out, cap);
    if (GYRE_UNLIKELY(gyre__uring_any_late(u) || !u->wake_armed) && (timeout_ns < 0 || timeout_ns > RETRY_NS))
        timeout_ns = RETRY_NS;
    u->turns++;
    n += run_direct(u, out + n, (cap - n + (u->turns & 1)) / 2); /* the other half is for what the ring brings */
    if (n > 0 && enough(u))
        return (int)n;
    gyre__bufring_fill(&u->bufs);

    err = submit_and_wait(u, cap - n, n > 0 || gyre__direct_any(u) ? 0 : timeout_ns);
    if (err < 0)
        return err;
    note_overflow(u);
    n += gyre__uring_drain(u, out + n, cap - n);
    if (n == 0)
        n = run_direct(u, out, cap);
    if (GYRE_UNLIKELY(u->cancels.first != NULL))
        gyre__uring_cancel_again(u);
    bool flush = !u->wake_armed || (n == 0 && gyre__uring_unsubmitted(u) > 0);
    if (GYRE_UNLIKELY(!u->wake_armed))
        arm_wake(u);
    if (GYRE_UNLIKELY(flush)) /* now: the next wait() may come only when a poll of the ring tells of something */
        (void)gyre__uring_flush(u);
    return (int)n;
}

static void uring_wake(struct gyre__backend *be)
{
    struct gyre__uring *u = gyre__uring_of(be);
    uint64_t one = 1;
    if (atomic_exchange_explicit(&u->woken, 1, memory_order_acq_rel) != 0)
        return;
    int saved = errno;
    (void)!write(u->wake_fd, &one, sizeof one);
    errno = saved;
}

static int uring_pollable(struct gyre__backend *be)
{
    return gyre__uring_of(be)->ring.ring_fd;
}

/* --- descriptors and pools --- */

/* Blocking, or -EAGAIN comes out; but a listening socket, which others may have, accepts without. */
static int set_mode(const struct gyre__fd *f)
{
    int wanted = f->flags & GYRE_FDF_LISTEN ? O_NONBLOCK : 0, mode = fcntl(f->fd, F_GETFL);
    if (mode >= 0 && (mode & O_NONBLOCK) == wanted)
        return 0;
    return mode >= 0 && fcntl(f->fd, F_SETFL, mode ^ O_NONBLOCK) == 0 ? 0 : -errno;
}

static int uring_attach(struct gyre__backend *be, struct gyre__fd *f)
{
    struct gyre__uring *u = gyre__uring_of(be);
    int err = gyre__fdq_reserve(&u->readable, u->mem, u->attached + 1);
    if (err != 0)
        return err;
    if (f->flags & GYRE_FDF_FOREIGN) {
        int copy = f->fd == u->ring.ring_fd ? -EINVAL : gyre__sock_copy(f->fd);
        if (copy < 0)
            return copy;
        f->fd = copy;
    } else if (!(f->flags & GYRE_FDF_ACCEPTED)) {
        err = set_mode(f);
        if (err != 0)
            return err;
    }
    f->be_flags = 0;
    f->be.ur.score = 0;
    f->be.ur.nonblocking = false;
    f->be.ur.odd = false;
    f->be.ur.round = 0;
    u->attached++;
    return 0;
}

static void forget(struct gyre__uring *u, const struct gyre__fd *f)
{
    GYRE_ASSERT(f->be_flags == 0); /* or the queue of those believed readable would go on naming it */
    u->attached--;
}

static void uring_close(struct gyre__backend *be, struct gyre__fd *f)
{
    forget(gyre__uring_of(be), f);
    if (f->flags & GYRE_FDF_TOUCHED)
        gyre__sock_close_now(f->fd);
    else
        (void)close(f->fd);
    f->fd = -1;
}

/* As a rule it blocks already. */
static int uring_detach(struct gyre__backend *be, struct gyre__fd *f)
{
    int fd = f->fd;
    forget(gyre__uring_of(be), f);
    if (f->be.ur.nonblocking)
        gyre__uring_set_mode(f, false);
    f->fd = -1;
    return fd;
}

/* What is never posted: for the calls of direct.c, or all where there is no multishot receive. */
static uint16_t pool_reserve(const struct gyre__uring *u, const struct gyre__bufpool *pool)
{
    uint16_t quarter = (uint16_t)(pool->count_max / 4);
    if (!(u->use & GYRE_URING_MULTISHOT_RECV))
        return pool->count_max;
    if (!(u->use & GYRE_URING_DIRECT))
        return 0;
    return quarter < GYRE_DIRECT_RESERVE ? quarter : GYRE_DIRECT_RESERVE;
}

static int uring_pool_add(struct gyre__backend *be, struct gyre__bufpool *pool)
{
    struct gyre__uring *u = gyre__uring_of(be);
    return gyre__bufring_add(&u->bufs, u->ring.ring_fd, pool, pool_reserve(u, pool));
}

static void uring_pool_remove(struct gyre__backend *be, struct gyre__bufpool *pool)
{
    struct gyre__uring *u = gyre__uring_of(be);
    GYRE_ASSERT(u->bufs.pool == pool);
    (void)pool;
    gyre__bufring_remove(&u->bufs, u->ring.ring_fd);
}

static void uring_pool_trim(struct gyre__backend *be, struct gyre__bufpool *pool)
{
    struct gyre__uring *u = gyre__uring_of(be);
    GYRE_ASSERT(u->bufs.pool == pool);
    (void)pool;
    gyre__bufring_trim(&u->bufs, gyre__uring_untouched(u));
}

/* --- life --- */

/* End the poll that waits for wakes, so that nothing is left in the ring when it is closed. False if the ring belongs
 * to another thread; then the end of that thread does it. */
static bool disarm_wake(struct gyre__uring *u)
{
    struct gyre__event unused[16];
    u->enter_fd = u->ring.ring_fd;
    u->enter_flags &= ~IORING_ENTER_REGISTERED_RING;
    u->stuck = false;
    struct io_uring_sqe *sqe = u->wake_armed ? gyre__uring_sqe(u) : NULL;
    if (sqe != NULL)
        gyre__uring_put_cancel(sqe, GYRE_URING_TAG_WAKE, GYRE_URING_TAG_CANCEL);
    for (int i = 0; i < 10; i++) {
        int r = gyre__uring_enter_wait(u, gyre__uring_unsubmitted(u), u->wake_armed ? 1 : 0, RETRY_NS, 0);
        if (r == -EEXIST)
            return false;
        (void)gyre__uring_drain(u, unused, 16);
        if (!u->wake_armed)
            break;
    }
    return true;
}

static void uring_destroy(struct gyre__backend *be)
{
    struct gyre__uring *u = gyre__uring_of(be);
    struct io_uring_rsrc_update reg = {.offset = (uint32_t)u->enter_fd};
    bool registered = (u->enter_flags & IORING_ENTER_REGISTERED_RING) != 0;

    GYRE_ASSERT(!gyre__uring_any_late(u));
    /* The number of a registered ring means something only in the thread that registered it. */
    if (u->started && disarm_wake(u) && registered)
        (void)io_uring_register((unsigned)u->ring.ring_fd, IORING_UNREGISTER_RING_FDS, &reg, 1);
    gyre__bufring_remove(&u->bufs, u->ring.ring_fd);
    gyre__uring_teardown(&u->ring);
    (void)close(u->wake_fd);
    gyre__fdq_fini(&u->readable, u->mem);
    gyre__free(u->mem, u);
}

/* Let waits poll network devices, for as long as the config says. Returns whether they will. */
static bool busy_poll(struct gyre__uring *u, const struct gyre__backend_config *cfg)
{
    struct gyre__io_uring_napi napi = {.busy_poll_us = cfg->busy_poll_us, .prefer_busy_poll = cfg->busy_poll_prefer};
    int err = io_uring_register((unsigned)u->ring.ring_fd, GYRE_IORING_REGISTER_NAPI, &napi, 1);
    if (err < 0)
        gyre__log_line(u->log, GYRE_LOG_DEBUG, "io_uring: asking for busy polling: %s", gyre_err_text(err));
    return err >= 0;
}

static int uring_create(struct gyre__backend **out, const struct gyre__backend_config *cfg, char *why, size_t why_size)
{
    struct gyre__uring_failure failure = {0};
    struct gyre__uring *u = NULL;
    uint32_t may = GYRE_URING_ALL & ~gyre__uring_off(cfg), use = may & ~(uint32_t)GYRE_URING_NAPI;

    int err = gyre__uring_trial(&gyre__backend_uring, cfg, &use, &failure);
    if (err == 0)
        err = gyre__uring_open(&u, &gyre__backend_uring, cfg, use, &failure);
    if (err < 0) {
        gyre__uring_explain(&failure, why, why_size);
        return err;
    }
    if (cfg->busy_poll_us > 0 && (may & GYRE_URING_NAPI) && busy_poll(u, cfg)) {
        u->use |= GYRE_URING_NAPI;
        u->base.busy_polls = true;
    }
    *out = &u->base;
    return 0;
}

static void uring_features(struct gyre__backend *be, char *out, size_t size)
{
    gyre__uring_feature_words(gyre__uring_of(be)->use, out, size);
}

const struct gyre__backend_ops gyre__backend_uring = {
    .name = "io_uring",
    .sock = &gyre__sock_system,
    .create = uring_create,
    .destroy = uring_destroy,
    .attach = uring_attach,
    .close = uring_close,
    .detach = uring_detach,
    .accept_now = gyre__uring_accept_now,
    .submit = uring_submit,
    .cancel = uring_cancel,
    .wait = uring_wait,
    .wake = uring_wake,
    .pollable = uring_pollable,
    .pool_add = uring_pool_add,
    .pool_remove = uring_pool_remove,
    .pool_trim = uring_pool_trim,
    .features = uring_features,
};
