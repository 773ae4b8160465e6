/* SPDX-License-Identifier: MIT
 * Bulk streams: wait on the ring, then receive and send with calls of our own.
 *
 * A multishot receive writes into buffers that were posted before, one after the other; on streams that fill buffer
 * after buffer that pushes the bytes out of the cache before they are sent on. Such a stream does better with a
 * multishot poll that stays armed in the ring, and receives of several buffers at a time into the hottest ones, made
 * just before their bytes are looked at. Core sees no difference: the op stays the same, and so do its events.
 *
 * Normal course: each receive moves a score, up where it filled its buffer and down where it did not. When the score of
 * a multishot receive reaches SCORE_DIRECT, the kernel is asked to end it, and its last completion starts the poll in
 * its place. A completion of the poll puts the descriptor into the queue of those believed readable. Each wait() serves
 * that queue until TURN_BYTES have come in. When the score is back at zero the poll is ended and a multishot receive
 * takes its place again.
 *
 * A poll reports edges: one completion for each arrival. So a descriptor leaves the queue when a call said EAGAIN, or
 * on TCP when one brought less than there was room for, which has emptied the socket; but not after a hang-up, an error
 * or urgent data was reported, for the end may follow the bytes with no edge of its own.
 *
 * Ending: the op's last event leaves when the poll's last completion is there, and not before. The result waits in
 * be.ur.res meanwhile.
 *
 * Kernels without multishot receive (before Linux 6.0) have all streams served so, and no buffer is posted.
 *
 * Sends of many bytes are tried at once in submit(), while these are in the cache. What came of it waits in `done` for
 * the next wait(). A send that would block is left to the ring. */
#include "direct.h"

#include "await.h"
#include "splice.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/uio.h>

enum {
    BUFS_MAX = 16,               /* receive buffers of one call */
    TURN_BYTES = 32 * 1024,      /* received bytes after which a turn ends: what the first-level cache holds */
    SCORE_MAX = 8,
    SCORE_DIRECT = 4,
    SHOTS_SAFE = 32,             /* receives that Linux makes in a row before it puts the rest off */
    SHOTS_SETTLED = 255,         /* one found nothing behind it: from here on every arrival is told */
    SEND_BYTES_MIN = 24 * 1024,  /* smaller sends go with the batch */
};

/* ---- The queue of descriptors believed readable. ---- */

static void enqueue(struct gyre__uring *u, struct gyre__fd *f)
{
    if (f->be_flags & GYRE_UF_QUEUED)
        return;
    f->be_flags |= GYRE_UF_QUEUED;
    gyre__fdq_push(&u->readable, f);
}

static struct gyre__fd *dequeue(struct gyre__uring *u)
{
    struct gyre__fd *f = gyre__fdq_pop(&u->readable);
    f->be_flags &= (uint8_t)~GYRE_UF_QUEUED;
    return f;
}

static void unqueue(struct gyre__uring *u, struct gyre__fd *f)
{
    if (!(f->be_flags & GYRE_UF_QUEUED))
        return;
    gyre__fdq_remove(&u->readable, f);
    f->be_flags &= (uint8_t)~GYRE_UF_QUEUED;
}

/* ---- From multishot to poll and back. ---- */

static void score(struct gyre__fd *f, bool filled)
{
    unsigned now = f->be.ur.score + (filled ? 2u : 0u);
    if (!filled && now > 0)
        now--;
    f->be.ur.score = (uint8_t)(now < SCORE_MAX ? now : SCORE_MAX);
}

static bool wants_direct(const struct gyre__uring *u, const struct gyre__fd *f)
{
    if (!(u->use & GYRE_URING_MULTISHOT_RECV))
        return true;
    return (u->use & GYRE_URING_DIRECT) && (f->be.ur.score >= SCORE_DIRECT || (f->flags & GYRE_FDF_PIPE));
}

void gyre__direct_prepare(const struct gyre__uring *u, struct gyre__op *op)
{
    struct gyre__fd *f = op->f;
    f->be.ur.op = op;
    if (wants_direct(u, f))
        f->be_flags |= GYRE_UF_DIRECT;
}

/* A multishot receive that is armed on a socket where more than 32 buffers' worth waits is put off by the kernel in the
 * middle, and after the last byte waits for an arrival: the end of a unix stream, or a reset, that was there already is
 * never told (Linux 6.18.44). Armed again it finds that at once. With less, or later, nothing is lost. Kernels that do
 * not say whether there is more go on until they find nothing, and lose nothing either. */
static bool may_miss_end(struct gyre__fd *f, bool more)
{
    uint8_t shots = f->be.ur.shots;
    if (shots == SHOTS_SETTLED)
        return false;
    if (!more)
        f->be.ur.shots = SHOTS_SETTLED;
    else if (shots < SHOTS_SAFE)
        f->be.ur.shots++;
    return !more && shots == SHOTS_SAFE;
}

void gyre__direct_received(struct gyre__uring *u, struct gyre__op *op, uint32_t bytes, bool more)
{
    struct gyre__fd *f = op->f;
    bool again = may_miss_end(f, more);
    score(f, bytes >= u->bufs.pool->size);
    if (!(again || wants_direct(u, f)) || op->state != GYRE_OPS_INFLIGHT || (f->be_flags & GYRE_UF_ENDING))
        return;
    f->be_flags |= GYRE_UF_ENDING;
    gyre__uring_ask_end(u, op);
}

bool gyre__direct_takes_over(struct gyre__uring *u, struct gyre__op *op, struct gyre__event *ev)
{
    struct gyre__fd *f = op->f;
    if (!(f->be_flags & GYRE_UF_ENDING))
        return false;
    f->be_flags &= (uint8_t)~GYRE_UF_ENDING;
    if (op->state != GYRE_OPS_INFLIGHT || (ev->res <= 0 && ev->res != -ECANCELED && ev->res != -ENOBUFS))
        return false;
    if (wants_direct(u, f))
        f->be_flags |= GYRE_UF_DIRECT;
    else if (ev->res == -ENOBUFS)
        return false;
    (void)gyre__uring_put_or_wait(u, op);
    ev->flags |= GYRE_EV_MORE;
    return true;
}

/* The op is over with the poll: what remains is its last event. */
static void last_event(struct gyre__uring *u, struct gyre__op *op, int32_t res, struct gyre__event *ev)
{
    struct gyre__fd *f = op->f;
    unqueue(u, f);
    f->be_flags = 0;
    *ev = (struct gyre__event){.op = op, .res = res};
}

/* The poll has ended without being asked, or to make room for a multishot receive. */
static void go_on(struct gyre__uring *u, struct gyre__op *op, int32_t res)
{
    struct gyre__fd *f = op->f;
    if ((f->be_flags & GYRE_UF_BACK) || (res < 0 && res != -ECANCELED)) {
        unqueue(u, f);
        f->be_flags = 0;
        f->be.ur.score = 0;
    } else {
        enqueue(u, f);
    }
    (void)gyre__uring_put_or_wait(u, op);
}

bool gyre__direct_polled(struct gyre__uring *u, struct gyre__op *op, const struct io_uring_cqe *cqe,
                         struct gyre__event *ev)
{
    struct gyre__fd *f = op->f;
    if (cqe->res > 0 && (cqe->res & (POLLRDHUP | POLLHUP | POLLERR | POLLPRI)))
        f->be_flags |= GYRE_UF_ODD;
    if (cqe->res > 0 && (cqe->res & (POLLRDHUP | POLLHUP | POLLERR)))
        f->be_flags |= GYRE_UF_HUNG;
    if (cqe->flags & IORING_CQE_F_MORE) {
        enqueue(u, f);
        return false;
    }
    u->batch.armed--;
    if (GYRE_UNLIKELY(op->next != NULL))
        gyre__uring_late_unlink(u, &u->cancels, op);
    if (f->be_flags & GYRE_UF_ENDING) {
        last_event(u, op, f->be.ur.res, ev);
        return true;
    }
    if (op->state == GYRE_OPS_CANCELLING) {
        last_event(u, op, -ECANCELED, ev);
        return true;
    }
    go_on(u, op, cqe->res);
    return false;
}

void gyre__direct_forget(struct gyre__uring *u, const struct gyre__op *op)
{
    struct gyre__fd *f = op->f;
    if (op->kind != GYRE_OP_RECV || f->be_flags == 0 || f->be.ur.op != op)
        return;
    unqueue(u, f);
    f->be_flags = 0;
}

/* ---- Receiving. ---- */

static ssize_t receive(int fd, const struct gyre__bufpool *pool, const uint16_t *bufs, unsigned count)
{
    struct iovec iov[BUFS_MAX];
    const uint16_t pieces = (uint16_t)count; /* fits msg_iovlen, which is a size_t, and an int with musl */
    struct msghdr hdr = {.msg_iov = iov, .msg_iovlen = pieces};
    ssize_t n;
    for (unsigned i = 0; i < count; i++)
        iov[i] = (struct iovec){.iov_base = gyre__bufpool_data(pool, bufs[i]), .iov_len = pool->size};
    do
        n = count == 1 ? recv(fd, iov[0].iov_base, iov[0].iov_len, MSG_DONTWAIT) : recvmsg(fd, &hdr, MSG_DONTWAIT);
    while (GYRE_UNLIKELY(n < 0 && errno == EINTR));
    return n >= 0 ? n : -errno;
}

/* A free buffer, or for a stream of pipes, whose rest is small, one of those posted: going back to multishot for each
 * rest would cost more than the rest. */
static int take_buf(struct gyre__uring *u, const struct gyre__op *op)
{
    int buf = gyre__bufpool_take(op->u.recv.pool);
    if (GYRE_LIKELY(buf != GYRE_BUF_NONE) || !(op->f->flags & GYRE_FDF_PIPE) || gyre__uring_untouched(u) == 0)
        return buf;
    return gyre__bufring_unpost(&u->bufs);
}

/* Receive into several buffers if the last call filled one, an event for each as far as the bytes go. */
static ssize_t receive_in_pool(struct gyre__uring *u, struct gyre__op *op, struct gyre__event *out, unsigned want,
                               uint32_t *room)
{
    struct gyre__bufpool *pool = op->u.recv.pool;
    uint16_t bufs[BUFS_MAX];
    unsigned count = 0;
    for (int buf; count < want && (buf = take_buf(u, op)) != GYRE_BUF_NONE; count++)
        bufs[count] = (uint16_t)buf;
    if (GYRE_UNLIKELY(count == 0))
        return -ENOBUFS;
    *room = count * pool->size;
    gyre__count(&u->base.stats.calls, 1);
    ssize_t res = receive(op->f->fd, pool, bufs, count);
    gyre__bufpool_deal_out(pool, bufs, count, res, op, GYRE_EV_BUF | GYRE_EV_MORE, out);
    return res;
}

/* The op is over with `res`, which is told when the poll has ended too. Returns how many events that makes now. */
static unsigned finish(struct gyre__uring *u, struct gyre__op *op, int32_t res, struct gyre__event *out)
{
    struct gyre__fd *f = op->f;
    if (op->next != NULL) { /* the poll never reached the kernel */
        gyre__uring_late_unlink(u, &u->ops, op);
        last_event(u, op, res, out);
        return 1;
    }
    f->be_flags |= GYRE_UF_ENDING;
    f->be.ur.res = res;
    gyre__uring_ask_end(u, op);
    return 0;
}

/* Let a multishot receive take the place of the poll. */
static void go_back(struct gyre__uring *u, struct gyre__op *op)
{
    struct gyre__fd *f = op->f;
    f->be.ur.score = 0;
    if (op->next == NULL) {
        f->be_flags |= GYRE_UF_BACK;
        gyre__uring_ask_end(u, op);
    } else { /* the poll never reached the kernel */
        f->be_flags = 0;
    }
}

/* Returns whether it made an event. */
static bool serve_pipe(struct gyre__uring *u, struct gyre__op *op, struct gyre__event *out)
{
    bool more = false;
    if (gyre__splice_receive(u, op, out, &more) == 0)
        return false;
    op->f->be_flags |= GYRE_UF_FILLED;
    gyre__batch_bulk(&u->batch, &op->f->be.ur.round);
    score(op->f, true);
    if (more)
        enqueue(u, op->f);
    return true;
}

/* Returns how many events it made. */
static unsigned serve(struct gyre__uring *u, struct gyre__fd *f, struct gyre__event *out, unsigned cap)
{
    struct gyre__op *op = f->be.ur.op;
    uint32_t size = op->u.recv.pool->size, room = 0;
    if (op->state != GYRE_OPS_INFLIGHT || (f->be_flags & (GYRE_UF_ENDING | GYRE_UF_BACK)))
        return 0;
    bool multishot = u->use & GYRE_URING_MULTISHOT_RECV;
    if (GYRE_UNLIKELY(f->flags & GYRE_FDF_PIPE) && (u->use & GYRE_URING_DIRECT) && multishot && serve_pipe(u, op, out))
        return 1;
    unsigned most = cap < BUFS_MAX ? cap : BUFS_MAX;
    unsigned want = f->be_flags & GYRE_UF_FILLED ? gyre__bufpool_share(op->u.recv.pool, most) : 1;
    ssize_t res = receive_in_pool(u, op, out, want, &room);
    if (res == -EAGAIN)
        return 0;
    if (res == -ENOBUFS && u->bufs.posted > 0) { /* where a multishot receive will find them */
        go_back(u, op);
        return 0;
    }
    gyre__count(&u->base.stats.enobufs, res == -ENOBUFS);
    if (res <= 0)
        return finish(u, op, (int32_t)res, out);
    bool filled = (size_t)res >= size;
    f->be_flags = (uint8_t)(filled ? f->be_flags | GYRE_UF_FILLED : f->be_flags & ~GYRE_UF_FILLED);
    score(f, filled);
    if (f->be.ur.score == 0 && multishot && !(f->flags & GYRE_FDF_PIPE)) {
        go_back(u, op);
    } else if ((size_t)res >= room || !(f->flags & GYRE_FDF_INET) || (f->be_flags & GYRE_UF_ODD)) {
        enqueue(u, f);
    }
    return (unsigned)(((size_t)res + size - 1) / size);
}

unsigned gyre__direct_run(struct gyre__uring *u, struct gyre__event *out, unsigned cap)
{
    uint64_t bytes = 0;
    unsigned n = 0;
    for (uint32_t left = gyre__fdq_count(&u->readable); left > 0 && n < cap && bytes < TURN_BYTES; left--) {
        unsigned made = serve(u, dequeue(u), out + n, cap - n);
        for (unsigned i = 0; i < made; i++)
            bytes += out[n + i].res > 0 ? (uint32_t)out[n + i].res : 0;
        n += made;
    }
    return n;
}

/* ---- Sending. ---- */

static bool is_large(const struct gyre__op *op)
{
    size_t bytes = 0;
    if (op->kind == GYRE_OP_SEND)
        return op->u.send.len >= SEND_BYTES_MIN;
    if (op->f->flags & GYRE_FDF_DGRAM)
        return false; /* it would overtake those in the ring */
    for (size_t i = 0; i < (size_t)op->u.msg.hdr->msg_iovlen && bytes < SEND_BYTES_MIN; i++)
        bytes += op->u.msg.hdr->msg_iov[i].iov_len;
    return bytes >= SEND_BYTES_MIN;
}

bool gyre__direct_send(struct gyre__uring *u, struct gyre__op *op)
{
    const int flags = MSG_DONTWAIT | MSG_NOSIGNAL;
    ssize_t n;
    if (!(u->use & GYRE_URING_DIRECT) || u->ndone == GYRE_URING_DONE_MAX || !u->started || !is_large(op))
        return false;
    gyre__count(&u->base.stats.calls, 1);
    do
        n = op->kind == GYRE_OP_SEND ? send(op->f->fd, op->u.send.buf, op->u.send.len, flags)
                                     : sendmsg(op->f->fd, op->u.msg.hdr, flags);
    while (GYRE_UNLIKELY(n < 0 && errno == EINTR));
    if (n < 0 && errno == EAGAIN) {
        gyre__await_begin(op);
        return false;
    }
    gyre__uring_made(u, op, n >= 0 ? (int32_t)n : -errno);
    return true;
}

unsigned gyre__direct_done(struct gyre__uring *u, struct gyre__event *out, unsigned cap)
{
    unsigned n = u->ndone < cap ? u->ndone : cap;
    if (GYRE_LIKELY(n == 0))
        return 0;
    memcpy(out, u->done, n * sizeof *out);
    u->ndone = (uint8_t)(u->ndone - n);
    memmove(u->done, u->done + n, u->ndone * sizeof *out);
    return n;
}
