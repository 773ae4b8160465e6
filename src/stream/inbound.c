/* SPDX-License-Identifier: MIT
 * Receiving: from an event to the handler; pausing, resuming, waking. How the handler reads is in read.c.
 *
 * The normal course: the multishot receive brings a buffer, it becomes a segment at the end of the inbound queue, and
 * on_data takes what it wants of it in place. What is left is copied into a chunk, and the buffer goes back.
 *
 * What can go wrong: the receive ends without a buffer (-ENOBUFS): the connection waits on the starved list, first come
 * first served, until buffers are free; if the user holds them all, it receives into a chunk instead. The receive
 * ends for other reasons (a full completion queue): it is armed again. After the peer's end a reset may follow, which
 * no receive would tell: a poll waits for it. */
#include "conn.h"

#include <errno.h>
#include <poll.h>
#include <string.h>

enum {
    STARVED_PER_TURN = 16, /* receives into chunks per turn when every receive buffer is held */
    FAMINE_NS = 10000000,  /* until the next try when there is no memory for chunks either */
};

static bool wants_bytes(const struct gyre_conn *c)
{
    if ((c->flags & (GYRE_CF_CONNECTED | GYRE_CF_EOF)) != GYRE_CF_CONNECTED)
        return false;
    if (c->state == GYRE_CONN_OPEN)
        return !(c->flags & (GYRE_CF_PAUSED | GYRE_CF_BLOCKED | GYRE_CF_TURN_OVER)) &&
               (c->in.bytes < c->profile->options.read_max_bytes ||
                (c->extra != NULL && c->in.bytes < c->extra->frame.need));
    return c->state == GYRE_CONN_CLOSING || c->state == GYRE_CONN_LINGERING;
}

/* After a failed send one by one: each tries at once, and a dead socket always answers. A receive that stays armed was
 * seen never to end there (Linux 6.18, io_uring: the send had taken the socket's error). */
static void submit_recv(struct gyre_conn *c, unsigned hints)
{
    unsigned how = c->flags & GYRE_CF_SEND_FAILED ? 0 : GYRE_OPF_MULTI | hints;
    c->recv.kind = GYRE_OP_RECV;
    c->recv.flags = (uint16_t)(GYRE_OPF_POOL | how);
    c->recv.u.recv.pool = &c->loop->pool;
    c->recv.u.recv.len = 0;
    if (GYRE_UNLIKELY(c->extra != NULL))
        c->extra->read_from_ns = gyre__loop_now(c->loop);
    gyre__op_submit(c->loop, &c->recv);
}

/* ---- after the peer's end ---- */

/* Nothing comes any more but a reset. While there are bytes to be taken it would come too early. */
static bool wants_watch(const struct gyre_conn *c)
{
    const unsigned flags = GYRE_CF_EOF_TOLD | GYRE_CF_SHUT | GYRE_CF_SEND_FAILED | GYRE_CF_HUNG_UP;
    return c->recv.state == GYRE_OPS_IDLE && (c->flags & flags) == GYRE_CF_EOF_TOLD && c->in.tail == NULL;
}

static void watch(struct gyre_conn *c)
{
    c->recv.kind = GYRE_OP_POLL;
    c->recv.flags = 0;
    c->recv.u.poll.events = 0;
    gyre__op_submit(c->loop, &c->recv);
}

/* A unix socket hangs up when its peer closes, which TCP would not tell: that alone is no error. Nor is an entry of the
 * error queue, which would end each poll at once. Linux says EPIPE of a reset that comes after FIN. */
static void hung_up(struct gyre_conn *c, int res)
{
    struct gyre__backend *be = c->loop->be;
    gyre__conn_settle_later(c);
    if (c->state != GYRE_CONN_OPEN || res == -ECANCELED)
        return;
    c->flags |= GYRE_CF_HUNG_UP;
    int err = res < 0 ? res : be->ops->sock->error(be, c->f.fd);
    if (err == -EPIPE || (err == 0 && (res & POLLHUP) && (c->f.flags & GYRE_FDF_INET)))
        err = -ECONNRESET;
    if (err != 0)
        gyre__conn_end(c, GYRE_CLOSE_ERROR, err);
}

void gyre__conn_update_recv(struct gyre_conn *c)
{
    if (GYRE_UNLIKELY(c->state == GYRE_CONN_OPEN && (c->flags & GYRE_CF_EOF))) {
        if (wants_watch(c))
            watch(c);
    } else if (!wants_bytes(c)) {
        if (c->recv.state == GYRE_OPS_INFLIGHT && c->state == GYRE_CONN_OPEN)
            gyre__count(&c->loop->be->stats.read_limits, c->in.bytes >= c->profile->options.read_max_bytes);
        gyre__conn_unstarve(c);
        gyre__op_cancel(c->loop, &c->recv);
    } else if (c->recv.state == GYRE_OPS_IDLE && !(c->flags & GYRE_CF_STARVED)) {
        submit_recv(c, 0);
    }
}

/* ---- out of buffers ---- */

static void starve(struct gyre_conn *c)
{
    struct gyre_loop *l = c->loop;
    c->flags |= GYRE_CF_STARVED;
    c->recv.next = NULL;
    *l->conns->starved_tail = &c->recv;
    l->conns->starved_tail = &c->recv.next;
    gyre__count(&l->be->stats.starved, 1);
}

void gyre__conn_unstarve(struct gyre_conn *c)
{
    struct gyre_loop *l = c->loop;
    if (!(c->flags & GYRE_CF_STARVED))
        return;
    struct gyre__op **at = &l->conns->starved_head;
    while (*at != &c->recv)
        at = &(*at)->next;
    *at = c->recv.next;
    if (*at == NULL)
        l->conns->starved_tail = at;
    c->flags &= ~(unsigned)GYRE_CF_STARVED;
    gyre__count(&l->be->stats.starved, UINT64_MAX); /* one less */
}

static void submit_heap_recv(struct gyre_conn *c, struct gyre__seg *chunk)
{
    gyre__count(&c->loop->be->stats.recvs_heap, 1);
    c->flags |= GYRE_CF_HEAP_RECV;
    c->recv.kind = GYRE_OP_RECV;
    c->recv.flags = 0;
    c->recv.u.recv.buf = chunk->data;
    c->recv.u.recv.len = chunk->u.chunk.room;
    gyre__op_submit(c->loop, &c->recv);
}

void gyre__conns_feed_starved(struct gyre_loop *l)
{
    unsigned fed = 0, available = gyre__bufpool_unheld(&l->pool);
    while (l->conns->starved_head != NULL && fed < (available > 0 ? available : STARVED_PER_TURN)) {
        struct gyre_conn *c = GYRE_CONTAINER(l->conns->starved_head, struct gyre_conn, recv);
        struct gyre__seg *chunk = available > 0 ? NULL : gyre__seg_chunk(&l->segs, 0);
        if (available == 0 && chunk == NULL) { /* nothing at all is free: do not spin */
            gyre__wheel_start(&l->wheel, &l->famine_timer, l->now_ns + FAMINE_NS);
            return;
        }
        gyre__conn_unstarve(c);
        gyre__count(&l->be->stats.rearms, 1);
        if (chunk != NULL)
            submit_heap_recv(c, chunk);
        else
            submit_recv(c, GYRE_OPF_POLL_FIRST);
        fed++;
    }
}

/* ---- delivering ---- */

/* Copy all that lies in receive buffers. */
static void compact_all(struct gyre_conn *c)
{
    struct gyre__segs *segs = &c->loop->segs;
    struct gyre__segq kept = {.bytes = 0};
    while (c->in.tail != NULL) {
        struct gyre__seg *seg = gyre__segq_pop(&c->in);
        c->loop->conns->compact_steps++;
        if (seg->kind == GYRE_SEG_BUF && gyre__segq_append(&kept, segs, seg->data, seg->len) == 0) {
            gyre__count(&c->loop->be->stats.bytes_copied_in, seg->len);
            gyre__seg_free(segs, seg, 0);
            continue;
        }
        gyre__segq_push(&kept, seg);
    }
    c->in = kept;
}

/* Copy out of receive buffers what the handler left, so that they go back. Without memory for it they stay. Only the
 * newest bytes can lie in one. `before` was the newest segment before they came, if that is known: then nothing but
 * these two is looked at, however many there are. It is still in the queue, unless the newest is alone there. */
static void compact(struct gyre_conn *c, struct gyre__seg *before)
{
    struct gyre__segs *segs = &c->loop->segs;
    struct gyre__seg *newest = c->in.tail;
    if (newest->kind != GYRE_SEG_BUF)
        return;
    if (before == NULL || newest->next == newest || before->kind != GYRE_SEG_CHUNK || before->next != newest) {
        compact_all(c);
        return;
    }
    c->loop->conns->compact_steps++;
    before->next = newest->next;
    c->in.tail = before;
    c->in.bytes -= newest->len;
    if (gyre__segq_append(&c->in, segs, newest->data, newest->len) != 0) {
        gyre__segq_push(&c->in, newest);
        return;
    }
    gyre__count(&c->loop->be->stats.bytes_copied_in, newest->len);
    gyre__seg_free(segs, newest, 0);
}

static void tell_eof(struct gyre_conn *c)
{
    c->flags |= GYRE_CF_EOF_TOLD;
    if (c->flags & GYRE_CF_SEND_FAILED) {
        gyre__conn_end(c, GYRE_CLOSE_ERROR, c->err);
        return;
    }
    if (c->profile->handlers->on_eof == NULL) {
        gyre__conn_begin_close(c, GYRE_CLOSE_EOF);
        return;
    }
    c->profile->handlers->on_eof(c);
    gyre__conn_settle_later(c); /* if our FIN was sent, settling ends it, as soon as nothing is left to be taken */
}

static void deliver(struct gyre_conn *c, bool fresh, struct gyre__seg *before)
{
    bool due = fresh || (c->flags & (GYRE_CF_WAKE | GYRE_CF_FRAMES)) ||
               ((c->flags & GYRE_CF_DELIVER) && c->in.tail != NULL);
    if (gyre__conn_may_deliver(c)) {
        c->flags &= ~(unsigned)(GYRE_CF_WAKE | GYRE_CF_DELIVER | GYRE_CF_FRAMES);
        if (due) {
            c->profile->on_data(c);
            gyre__segs_settle(&c->loop->segs);
        }
    }
    if ((c->flags & (GYRE_CF_EOF | GYRE_CF_EOF_TOLD | GYRE_CF_FRAMES)) == GYRE_CF_EOF && gyre__conn_may_deliver(c))
        tell_eof(c);
    if (c->state != GYRE_CONN_OPEN && c->state != GYRE_CONN_DETACHING)
        gyre__segq_clear(&c->in, &c->loop->segs, 0);
    else if (c->in.tail != NULL)
        compact(c, before);
}

void gyre__conn_deliver(struct gyre_conn *c, bool fresh)
{
    deliver(c, fresh, NULL);
}

/* The next turn has begun for `c`. Returns false if it has not. */
bool gyre__conn_next_turn(struct gyre_conn *c)
{
    if (c->extra->turn == c->loop->be->stats.turns) {
        gyre__conn_settle_later(c);
        return false;
    }
    c->flags &= ~(unsigned)GYRE_CF_TURN_OVER;
    return true;
}

/* Count what came this turn. Once it is enough receiving stops, and what was on its way by then waits for the next. */
static void deliver_in_turns(struct gyre_conn *c, uint32_t len, struct gyre__seg *before)
{
    struct gyre__extra *extra = gyre__conn_extra(c);
    uint64_t turn = c->loop->be->stats.turns;
    if (c->flags & GYRE_CF_TURN_OVER) {
        c->flags |= GYRE_CF_DELIVER;
        return;
    }
    if (extra != NULL) { /* else there is no memory, and nothing to count with */
        extra->turn_bytes = extra->turn == turn ? extra->turn_bytes + len : len;
        extra->turn = turn;
        if (extra->turn_bytes >= c->profile->options.turn_max_bytes) {
            c->flags |= GYRE_CF_TURN_OVER;
            gyre__conn_settle_later(c);
        }
    }
    deliver(c, true, before);
}

/* The segment of what an event brought, or NULL: nothing, or (err set) no memory for it. */
static struct gyre__seg *received(struct gyre_conn *c, const struct gyre__event *ev, int *err)
{
    struct gyre__segs *segs = &c->loop->segs;
    struct gyre__seg *seg = NULL;
    if (c->flags & GYRE_CF_HEAP_RECV) {
        c->flags &= ~(unsigned)GYRE_CF_HEAP_RECV;
        seg = (struct gyre__seg *)c->recv.u.recv.buf - 1;
        if (ev->res > 0) {
            seg->len = (uint32_t)ev->res;
            seg->u.chunk.room -= seg->len;
            return seg;
        }
        gyre__seg_free(segs, seg, 0);
        return NULL;
    }
    if (GYRE_UNLIKELY(ev->flags & GYRE_EV_PIPE)) {
        seg = gyre__pipe_received(c, ev);
        *err = seg == NULL ? -ENOMEM : 0;
        return seg;
    }
    if (!(ev->flags & GYRE_EV_BUF))
        return NULL;
    gyre__bufpool_receive(&c->loop->pool, ev->buf);
    if (ev->res > 0)
        seg = gyre__seg_new(segs, GYRE_SEG_BUF, gyre__bufpool_data(&c->loop->pool, ev->buf), (uint32_t)ev->res);
    if (seg == NULL) {
        *err = ev->res > 0 ? -ENOMEM : 0;
        gyre__bufpool_release(&c->loop->pool, ev->buf);
        return NULL;
    }
    seg->buf = ev->buf;
    return seg;
}

static void recv_failed(struct gyre_conn *c, int err)
{
    switch (err) {
    case -ECANCELED:
    case -EAGAIN:
    case -EINTR:
        break;
    case -ENOBUFS:
        if (wants_bytes(c))
            starve(c);
        break;
    default:
        if (c->flags & GYRE_CF_SEND_FAILED)
            err = c->err;
        /* The peer reset instead of closing, but it had everything: that is a clean end. */
        if (c->state == GYRE_CONN_LINGERING && err == -ECONNRESET && (c->f.flags & GYRE_FDF_INET) &&
            gyre__conn_unacked(c) == 0)
            gyre__conn_end(c, (enum gyre_close_reason)c->reason, 0);
        else
            gyre__conn_end(c, GYRE_CLOSE_ERROR, err);
        break;
    }
}

void gyre__conn_on_recv(struct gyre__op *op, const struct gyre__event *ev)
{
    struct gyre_conn *c = GYRE_CONTAINER(op, struct gyre_conn, recv);
    struct gyre_loop *l = c->loop;
    int err = 0;
    if (GYRE_UNLIKELY(op->kind == GYRE_OP_POLL)) {
        hung_up(c, ev->res);
        return;
    }
    struct gyre__seg *seg = received(c, ev, &err);
    if (seg != NULL) {
        gyre__count(&l->be->stats.bytes_in, seg->len);
        gyre__observe(&l->be->stats.recv_bytes, seg->len);
        if (GYRE_LIKELY(c->state == GYRE_CONN_OPEN)) {
            c->active = (uint32_t)l->now_tick;
            c->flags |= GYRE_CF_HEARD;
            if (GYRE_UNLIKELY(c->extra != NULL))
                c->extra->read_from_ns = l->now_ns;
            /* A pipe may be replaced by what was in it, when somebody looks. */
            struct gyre__seg *before = (c->flags & GYRE_CF_PIPED) ? NULL : c->in.tail;
            gyre__segq_push(&c->in, seg);
            if (GYRE_UNLIKELY(c->profile->options.turn_max_bytes != 0))
                deliver_in_turns(c, seg->len, before);
            else
                deliver(c, true, before);
        } else if (c->state == GYRE_CONN_DETACHING) {
            gyre__segq_push(&c->in, seg);
        } else {
            c->flags |= GYRE_CF_HEARD;
            gyre__seg_free(&l->segs, seg, 0); /* closing: the peer's last words are thrown away */
        }
    } else if (ev->res == 0) {
        c->flags |= GYRE_CF_EOF;
        if (c->state == GYRE_CONN_LINGERING && !(c->flags & GYRE_CF_RESET_LAST))
            gyre__conn_end(c, (enum gyre_close_reason)c->reason, 0);
        gyre__conn_deliver(c, false);
    } else if (c->state != GYRE_CONN_ENDING) {
        recv_failed(c, err != 0 ? err : ev->res);
    }

    if (ev->flags & GYRE_EV_MORE) {
        if (GYRE_UNLIKELY(!wants_bytes(c)))
            gyre__conn_update_recv(c);
        return;
    }
    if (c->state == GYRE_CONN_ENDING || c->state == GYRE_CONN_CLOSING || c->state == GYRE_CONN_DETACHING)
        gyre__conn_settle_later(c);
    if (c->recv.state == GYRE_OPS_IDLE && wants_bytes(c) && !(c->flags & GYRE_CF_STARVED)) {
        gyre__count(&l->be->stats.rearms, 1);
        gyre__conn_update_recv(c);
    }
}

/* ---- the user's side: flow ---- */

int gyre_conn_pause(struct gyre_conn *c)
{
    int err = gyre__conn_usable(c);
    if (err != 0)
        return err;
    c->flags |= GYRE_CF_PAUSED;
    gyre__conn_update_recv(c);
    return 0;
}

int gyre_conn_resume(struct gyre_conn *c)
{
    int err = gyre__conn_usable(c);
    if (err != 0 || !(c->flags & GYRE_CF_PAUSED))
        return err;
    c->flags &= ~(unsigned)GYRE_CF_PAUSED;
    c->flags |= GYRE_CF_DELIVER;
    gyre__conn_settle_later(c);
    return 0;
}

int gyre_conn_wake(struct gyre_conn *c)
{
    int err = gyre__conn_usable(c);
    if (err != 0)
        return err;
    c->flags |= GYRE_CF_WAKE;
    gyre__conn_settle_later(c);
    return 0;
}
