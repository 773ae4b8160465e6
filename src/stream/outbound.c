/* SPDX-License-Identifier: MIT
 * Sending: from the queue to the kernel, one gathered send in flight at a time.
 *
 * The normal course: writes of a turn queue up; settling submits one SEND (a single segment) or SENDMSG (several); its
 * event drops what the kernel took, and settling submits the rest. Two sends in flight could swap bytes (promise 3 in
 * seam/backend.h). Where a backend would only call send(2) later, settling calls it, and there is no event.
 *
 * What can go wrong: the send fails. What is queued can never leave, so it is dropped and counted; receiving goes on to
 * its end, because the peer may have answered before it closed. */
#include "conn.h"
#include "shared.h"

#include <errno.h>
#include <string.h>

enum {
    IOV_PER_SEND = 64,
    SEND_BYTES_MAX = 256 << 10, /* of one send: on a slow peer a larger one hides its progress from the linger time */
    WATCHED_BYTES_MAX = 32 << 10, /* the same if a time limit goes by what sends tell */
    SEND_NOW_MAX = 32 << 10, /* of one call of our own: bulk, which often blocks, is left to the backend */
    SENDVS_KEPT = 256,
};

/* What a gathered send points to until its last event. */
struct gyre__sendv {
    struct gyre__sendv *next;
    size_t bytes;
    struct msghdr hdr;
    struct iovec iov[IOV_PER_SEND];
};

static struct gyre__sendv *take_sendv(struct gyre_loop *l)
{
    struct gyre__sendv *v = l->conns->free_sendv;
    if (v == NULL)
        return gyre__alloc(l->mem, sizeof *v);
    l->conns->free_sendv = v->next;
    l->conns->free_sendv_count--;
    return v;
}

static void give_sendv(struct gyre_loop *l, struct gyre__sendv *v)
{
    if (l->conns->free_sendv_count >= SENDVS_KEPT) {
        gyre__free(l->mem, v);
        return;
    }
    v->next = l->conns->free_sendv;
    l->conns->free_sendv = v;
    l->conns->free_sendv_count++;
}

void gyre__conns_free_sendvs(struct gyre__conns *conns, const struct gyre_mem *mem)
{
    while (conns->free_sendv != NULL) {
        struct gyre__sendv *v = conns->free_sendv;
        conns->free_sendv = v->next;
        gyre__free(mem, v);
    }
}

/* How much one send takes. What waits in the kernel is not enough to go by: often it is the same whenever it is looked
 * at, because as much is let in as was read. */
static size_t send_max(const struct gyre_conn *c)
{
    return gyre__limits_watch_sends(c) ? WATCHED_BYTES_MAX : SEND_BYTES_MAX;
}

/* Point `v` at the front of the queue, at most `max` bytes of it. */
static void gather(struct gyre__sendv *v, const struct gyre__segq *q, size_t max)
{
    struct gyre__seg *seg = gyre__segq_head(q);
    size_t bytes = 0;
    uint16_t n = 0; /* msg_iovlen is a size_t here and an int there */
    while (n < IOV_PER_SEND && bytes < max) {
        size_t part = seg->len < max - bytes ? seg->len : max - bytes;
        v->iov[n++] = (struct iovec){.iov_base = seg->data, .iov_len = part};
        bytes += part;
        if (seg == q->tail || seg->next->kind >= GYRE_SEG_FILE)
            break;
        seg = seg->next;
    }
    memset(&v->hdr, 0, sizeof v->hdr);
    v->hdr.msg_iov = v->iov;
    v->hdr.msg_iovlen = n;
    v->bytes = bytes;
}

/* The first segment with bytes; empty ones before it (a borrowed piece of length 0, a file that was read) are done. */
static const struct gyre__seg *head_to_send(struct gyre_conn *c)
{
    struct gyre__seg *head = gyre__segq_head(&c->out);
    while (GYRE_UNLIKELY(head != NULL && head->len == 0 && !gyre__file_has_more(head))) {
        gyre__seg_free(&c->loop->segs, gyre__segq_pop(&c->out), 0);
        head = gyre__segq_head(&c->out);
    }
    return head;
}

/* The low mark was reached. */
static void drained(struct gyre_conn *c)
{
    c->flags &= ~(unsigned)(GYRE_CF_CONGESTED | GYRE_CF_DRAIN_OWED);
    gyre__forward_serve(c);
    if (c->state == GYRE_CONN_OPEN && c->profile->handlers->on_drain != NULL)
        c->profile->handlers->on_drain(c);
}

static void send_failed(struct gyre_conn *c, int err)
{
    struct gyre_loop *l = c->loop;
    c->flags |= GYRE_CF_SEND_FAILED;
    c->err = err;
    c->unsent = c->out.bytes;
    gyre__count(&l->be->stats.bytes_dropped, c->out.bytes);
    gyre__segq_clear(&c->out, &l->segs, err);
    gyre__forward_release_waiters(c);
    if (c->state != GYRE_CONN_OPEN || !gyre__conn_receives(c))
        gyre__conn_end(c, GYRE_CLOSE_ERROR, err);
    else
        gyre__op_cancel(l, &c->recv); /* its last event arms the next, one-shot; see submit_recv() */
}

/* The kernel took `n` of the `asked` bytes that a send was for. */
static void went(struct gyre_conn *c, size_t n, size_t asked)
{
    struct gyre_loop *l = c->loop;
    bool splice = c->send.kind == GYRE_OP_SPLICE;
    gyre__count(&l->be->stats.sends_short, n < asked);
    gyre__count(&l->be->stats.bytes_out, n);
    c->send.flags = n < asked && !splice ? GYRE_OPF_POLL_FIRST : 0; /* of the next one: the socket is full */
    c->active = (uint32_t)l->now_tick;
    if (splice)
        gyre__pipe_sent(c, (uint32_t)n);
    else
        gyre__segq_consume(&c->out, &l->segs, n, false);
    if (GYRE_UNLIKELY(c->extra != NULL))
        gyre__limits_sent(c);
    if (GYRE_UNLIKELY(c->flags & (GYRE_CF_CONGESTED | GYRE_CF_DRAIN_OWED)) &&
        c->out.bytes <= c->profile->options.write_low_bytes)
        drained(c);
}

/* Call instead of submitting: the bytes are still in the nearest cache, and there is no event to be waited for, which
 * is a turn less. Returns false if the socket takes none now, for a submitted send to wait. */
static bool send_now(struct gyre_conn *c, const struct gyre__seg *head)
{
    struct gyre__backend *be = c->loop->be;
    size_t asked = head->len;
    gyre__count(&be->stats.calls, 1);
    int64_t n = be->ops->sock->try_send(be, c->f.fd, head->data, asked);
    if (n == -EAGAIN)
        return false;
    gyre__count(&be->stats.sends, 1);
    gyre__count(&be->stats.send_pieces, 1);
    c->send.kind = GYRE_OP_SEND;
    if (n >= 0)
        went(c, (size_t)n, asked);
    else
        send_failed(c, (int)n);
    if (GYRE_UNLIKELY(c->flags & GYRE_CF_SHARED))
        gyre__shared_publish(c);
    if (c->out.tail != NULL)
        gyre__conn_settle_later(c);
    return true;
}

void gyre__conn_flush(struct gyre_conn *c)
{
    struct gyre_loop *l = c->loop;
    if (c->out.tail == NULL || c->send.state != GYRE_OPS_IDLE || !(c->flags & GYRE_CF_CONNECTED) ||
        (c->flags & (GYRE_CF_CORKED | GYRE_CF_SEND_FAILED)))
        return;
    const struct gyre__seg *head = head_to_send(c);
    if (GYRE_UNLIKELY(head == NULL && c->extra != NULL))
        c->extra->writing = false; /* the last of it, a file or an empty piece, needed no sending any more */
    if (head == NULL || c->state == GYRE_CONN_ENDING) /* a `done` of an empty piece may have aborted it */
        return;
    if (GYRE_UNLIKELY(head->kind == GYRE_SEG_FILE)) {
        gyre__file_read(c, head);
        return;
    }
    if (GYRE_UNLIKELY(head->kind == GYRE_SEG_PIPE)) {
        gyre__pipe_send(c, head);
        return;
    }
    bool several = head != c->out.tail && head->next->kind < GYRE_SEG_FILE;
    if (l->be->sends_late && !several && head->len <= SEND_NOW_MAX && send_now(c, head))
        return;
    size_t max = send_max(c);
    struct gyre__sendv *v = several ? take_sendv(l) : NULL;
    if (v != NULL) {
        gather(v, &c->out, max);
        gyre__count(&l->be->stats.sends_gathered, v->hdr.msg_iovlen > 1);
        gyre__count(&l->be->stats.send_pieces, (uint64_t)v->hdr.msg_iovlen);
        c->send.kind = GYRE_OP_SENDMSG;
        c->send.u.msg.hdr = &v->hdr;
    } else {
        c->send.kind = GYRE_OP_SEND;
        c->send.u.send.buf = head->data;
        c->send.u.send.len = head->len < max ? head->len : (uint32_t)max;
        gyre__count(&l->be->stats.send_pieces, 1);
    }
    gyre__count(&l->be->stats.sends, 1);
    gyre__op_submit(l, &c->send);
}

void gyre__conn_on_sent(struct gyre__op *op, const struct gyre__event *ev)
{
    struct gyre_conn *c = GYRE_CONTAINER(op, struct gyre_conn, send);
    struct gyre_loop *l = c->loop;
    if (GYRE_UNLIKELY(op->kind == GYRE_OP_READ)) {
        gyre__file_on_read(c, ev->res);
        return;
    }
    size_t asked = op->kind == GYRE_OP_SEND ? op->u.send.len : op->u.splice.len;
    if (op->kind == GYRE_OP_SENDMSG) {
        struct gyre__sendv *v = GYRE_CONTAINER(op->u.msg.hdr, struct gyre__sendv, hdr);
        asked = v->bytes;
        give_sendv(l, v);
    }
    if (ev->res >= 0)
        went(c, (size_t)ev->res, asked);
    else if (c->state != GYRE_CONN_ENDING && ev->res != -EAGAIN && ev->res != -EINTR)
        send_failed(c, ev->res);
    if (GYRE_UNLIKELY(c->flags & GYRE_CF_SHARED))
        gyre__shared_publish(c);
    /* The usual case, everything sent and nothing else to do, needs no settling. */
    if (c->out.tail != NULL || c->state != GYRE_CONN_OPEN || (c->flags & GYRE_CF_SHUT))
        gyre__conn_settle_later(c);
}

/* ---- the user's side ---- */

int64_t gyre_conn_try_write(struct gyre_conn *c, const void *data, size_t len)
{
    int err = gyre__conn_may_queue(c, 0);
    if (err != 0)
        return err;
    if (len == 0)
        return 0;
    if (data == NULL)
        return -EINVAL;
    if (c->out.tail != NULL || c->send.state != GYRE_OPS_IDLE ||
        (c->flags & (GYRE_CF_CONNECTED | GYRE_CF_CORKED)) != GYRE_CF_CONNECTED)
        return -EAGAIN;
    struct gyre__backend *be = c->loop->be;
    int64_t n = be->ops->sock->try_send(be, c->f.fd, data, len);
    if (n > 0) {
        gyre__count(&be->stats.bytes_queued, (uint64_t)n);
        gyre__count(&be->stats.bytes_out, (uint64_t)n);
        gyre__conn_note_active(c);
        c->flags &= ~(unsigned)GYRE_CF_HEARD;
    } else if (n != -EAGAIN) {
        send_failed(c, (int)n);
    }
    return n;
}
