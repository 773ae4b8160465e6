/* SPDX-License-Identifier: MIT
 * Receiving datagrams: from an event to on_datagram.
 *
 * The normal course: one RECVMSG stays armed and brings a buffer for each datagram, which the handler reads in place;
 * then the buffer goes back, unless a reply that is on its way or the user holds it.
 *
 * What can go wrong: the receive ends without a buffer (-ENOBUFS) or without memory: the socket waits on the starved
 * list. It ends with one of the few errors that are the socket's own: so does the socket. Any other error was reported
 * by the network: on_error, and the receive is armed again, after many errors in a row with a pause. Datagrams that
 * were under way when the user paused are kept, whole buffers, and come first on resume. */
#include "udp.h"
#include "buffer/buf.h"

#include <errno.h>
#include <string.h>

enum {
    FAMINE_NS = 10000000,
    ERRORS_IN_A_ROW = 64, /* with no datagram between: a pause before the next receive, in case that they do not end */
};

static bool wants_datagrams(const struct gyre_udp *u)
{
    return u->state == GYRE_UDP_OPEN && !(u->flags & GYRE_UDPF_PAUSED) && u->in.tail == NULL;
}

void gyre__udp_update_recv(struct gyre_udp *u)
{
    if (!wants_datagrams(u)) {
        gyre__udp_unstarve(u);
        gyre__op_cancel(u->loop, &u->recv);
        return;
    }
    if (u->recv.state != GYRE_OPS_IDLE || (u->flags & GYRE_UDPF_STARVED))
        return;
    u->recv.kind = GYRE_OP_RECVMSG;
    u->recv.flags = GYRE_OPF_MULTI | GYRE_OPF_POOL;
    u->recv.u.recvmsg.pool = &u->loop->pool;
    u->recv.u.recvmsg.room = &u->room;
    gyre__op_submit(u->loop, &u->recv);
}

/* ---- out of buffers ---- */

static void starve(struct gyre_udp *u)
{
    u->flags |= GYRE_UDPF_STARVED;
    u->starved_next = u->loop->udps->starved;
    u->loop->udps->starved = u;
}

void gyre__udp_unstarve(struct gyre_udp *u)
{
    struct gyre_udp **at = &u->loop->udps->starved;
    if (!(u->flags & GYRE_UDPF_STARVED))
        return;
    while (*at != u)
        at = &(*at)->starved_next;
    *at = u->starved_next;
    u->flags &= ~(unsigned)GYRE_UDPF_STARVED;
}

/* Buffers are given back in turns of the loop, and each turn looks here; so nothing needs to wake it. */
void gyre__udps_feed_starved(struct gyre_loop *l)
{
    if (gyre__bufpool_unheld(&l->pool) == 0 || gyre__timer_is_set(&l->famine_timer))
        return;
    while (l->udps->starved != NULL) {
        struct gyre_udp *u = l->udps->starved;
        gyre__udp_unstarve(u);
        gyre__count(&l->be->stats.rearms, 1);
        gyre__udp_update_recv(u);
    }
}

/* ---- delivering ---- */

static void deliver(struct gyre_udp *u, const struct gyre__dgram *in, const struct gyre__dgram_info *info,
                    struct gyre_slice data, bool truncated, uint32_t segment_bytes)
{
    sa_family_t family = info->local.sa.sa_family; /* AF_UNSPEC: not told */
    socklen_t local_len = family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
    const struct gyre_datagram d = {
        .data = data,
        .peer = in->name,
        .peer_len = in->name_len,
        .local = family != AF_UNSPEC ? &info->local.sa : NULL,
        .local_len = family != AF_UNSPEC ? local_len : 0,
        .interface = info->interface,
        .segment_bytes = segment_bytes,
        .traffic_class = info->traffic_class,
        .truncated = truncated,
    };
    uint64_t count = segment_bytes > 0 ? (data.len + segment_bytes - 1) / segment_bytes : 1;
    gyre__count(&u->loop->be->stats.datagrams_in, count);
    gyre__count(&u->stats.received, count);
    gyre__count(&u->stats.received_bytes, data.len);
    gyre__count(&u->stats.truncated, truncated);
    u->now = &d;
    u->now_info = info;
    u->handlers->on_datagram(u, &d);
    u->now = NULL;
    u->now_info = NULL;
}

/* The datagrams of one buffer, from byte `*skip` on. Returns false if the user paused before all were told; then
 * `*skip` is where to go on. */
static bool deliver_segments(struct gyre_udp *u, const struct gyre__dgram *in, const struct gyre__dgram_info *info,
                             size_t *skip)
{
    uint32_t each = info->segment_bytes;
    while (*skip < in->len && u->state == GYRE_UDP_OPEN) {
        if (u->flags & GYRE_UDPF_PAUSED)
            return false;
        size_t left = in->len - *skip, len = left < each ? left : each;
        struct gyre_slice data = {.data = in->data + *skip, .len = len};
        *skip += len;
        deliver(u, in, info, data, in->truncated && *skip == in->len, 0);
    }
    return true;
}

/* What RECVMSG left in buffer `buf`: `len` bytes. Returns false as deliver_segments(). */
static bool deliver_buffer(struct gyre_udp *u, uint16_t buf, uint32_t len, size_t *skip)
{
    struct gyre__dgram in;
    struct gyre__dgram_info info = {.interface = 0};
    if (gyre__dgram_parse(&in, gyre__bufpool_data(&u->loop->pool, buf), len, &u->room) != 0) {
        gyre__count(&u->stats.dropped, 1);
        return true;
    }
    if (in.control_len > 0)
        gyre__dgram_control(&info, in.control, in.control_len);
    if (u->options.gro == GYRE_UDP_GRO_OFF || info.segment_bytes >= in.len)
        info.segment_bytes = 0;
    u->now_buf = buf;
    if (info.segment_bytes > 0 && u->options.gro == GYRE_UDP_GRO_SPLIT)
        return deliver_segments(u, &in, &info, skip);
    deliver(u, &in, &info, (struct gyre_slice){.data = in.data, .len = in.len}, in.truncated, info.segment_bytes);
    return true;
}

void gyre__udp_deliver_kept(struct gyre_udp *u)
{
    struct gyre__segs *segs = &u->loop->segs;
    while (u->in.tail != NULL && u->state == GYRE_UDP_OPEN && !(u->flags & GYRE_UDPF_PAUSED)) {
        struct gyre__seg *seg = gyre__segq_pop(&u->in); /* closing frees what is in the queue */
        size_t skip = u->in_skip;
        u->in_skip = 0;
        if (!deliver_buffer(u, seg->buf, seg->len, &skip)) {
            gyre__segq_push_front(&u->in, seg);
            u->in_skip = skip;
            return;
        }
        gyre__seg_free(segs, seg, 0);
    }
}

unsigned gyre__udp_drop_kept(struct gyre_udp *u)
{
    unsigned count = 0;
    for (; u->in.tail != NULL; count++)
        gyre__seg_free(&u->loop->segs, gyre__segq_pop(&u->in), 0);
    u->in_skip = 0;
    return count;
}

/* Keep it for resume. There are never more of them than one receive had under way. */
static void keep(struct gyre_udp *u, uint16_t buf, uint32_t len, size_t skip)
{
    struct gyre__bufpool *pool = &u->loop->pool;
    struct gyre__seg *seg = gyre__seg_new(&u->loop->segs, GYRE_SEG_BUF, gyre__bufpool_data(pool, buf), len);
    if (seg == NULL) {
        gyre__count(&u->stats.dropped, 1);
        return;
    }
    seg->buf = buf;
    gyre__bufpool_hold(pool, buf);
    if (u->in.tail == NULL)
        u->in_skip = skip;
    gyre__segq_push(&u->in, seg);
}

static void received(struct gyre_udp *u, const struct gyre__event *ev)
{
    struct gyre__bufpool *pool = &u->loop->pool;
    uint32_t len = (uint32_t)ev->res;
    size_t skip = 0;
    u->errors = 0;
    gyre__bufpool_receive(pool, ev->buf);
    if (u->state != GYRE_UDP_OPEN)
        gyre__count(&u->stats.dropped, 1);
    else if ((u->flags & GYRE_UDPF_PAUSED) || u->in.tail != NULL || !deliver_buffer(u, ev->buf, len, &skip))
        keep(u, ev->buf, len, skip);
    gyre__bufpool_release(pool, ev->buf);
}

/* An error of the socket itself, or of how it is used. Every other one was reported by the network, of some datagram
 * that was sent before: what ICMP tells, and what becomes of it on its way here, is a long list that grows. */
bool gyre__udp_is_sockets(int err)
{
    switch (-err) {
    case EBADF:
    case ENOTSOCK:
    case EINVAL:
    case EFAULT:
    case ENOTCONN:
    case ESHUTDOWN:
    case EPERM: /* of the call */
    case ENOSYS:
        return true;
    default:
        return false;
    }
}

/* Try again after a while. */
static void pause_receiving(struct gyre_udp *u)
{
    struct gyre_loop *l = u->loop;
    starve(u);
    if (!gyre__timer_is_set(&l->famine_timer))
        gyre__wheel_start(&l->wheel, &l->famine_timer, l->now_ns + FAMINE_NS);
}

static void recv_failed(struct gyre_udp *u, int err)
{
    struct gyre_loop *l = u->loop;
    if (err == -ECANCELED || err == -EAGAIN || err == -EINTR || u->state != GYRE_UDP_OPEN)
        return;
    if (err == -ENOBUFS || err == -ENOMEM) {
        if (wants_datagrams(u))
            starve(u);
        if (err == -ENOMEM && !gyre__timer_is_set(&l->famine_timer))
            gyre__wheel_start(&l->wheel, &l->famine_timer, l->now_ns + FAMINE_NS);
        return;
    }
    if (gyre__udp_is_sockets(err)) {
        gyre__udp_end(u, err);
        return;
    }
    gyre__count(&u->stats.errors, 1);
    if (u->handlers->on_error != NULL)
        u->handlers->on_error(u, err);
    if (++u->errors >= ERRORS_IN_A_ROW && wants_datagrams(u))
        pause_receiving(u);
}

void gyre__udp_on_recv(struct gyre__op *op, const struct gyre__event *ev)
{
    struct gyre_udp *u = GYRE_CONTAINER(op, struct gyre_udp, recv);
    GYRE_CHECK(u->magic == GYRE_UDP_MAGIC);
    if (ev->flags & GYRE_EV_BUF)
        received(u, ev);
    if (ev->flags & GYRE_EV_MORE)
        return;
    if (ev->res < 0)
        recv_failed(u, ev->res);
    if (u->state != GYRE_UDP_OPEN) {
        gyre__udp_settle_later(u);
        return;
    }
    if (wants_datagrams(u) && u->recv.state == GYRE_OPS_IDLE && !(u->flags & GYRE_UDPF_STARVED))
        gyre__count(&u->loop->be->stats.rearms, 1);
    gyre__udp_update_recv(u);
}

/* ---- holding ---- */

/* The bytes of the datagram as a segment: in place while receive buffers are plenty. */
static struct gyre__seg *detach(struct gyre_udp *u, struct gyre_slice data)
{
    struct gyre__segs *segs = &u->loop->segs;
    struct gyre__seg *seg;
    if (!gyre__bufpool_scarce(segs->pool)) {
        seg = gyre__seg_new(segs, GYRE_SEG_BUF, (void *)(uintptr_t)data.data, (uint32_t)data.len);
        if (seg == NULL)
            return NULL;
        seg->buf = u->now_buf;
        gyre__bufpool_hold(segs->pool, u->now_buf);
        return seg;
    }
    seg = gyre__seg_chunk(segs, (uint32_t)data.len);
    if (seg == NULL)
        return NULL;
    if (data.len > 0)
        memcpy(seg->data, data.data, data.len);
    seg->len = (uint32_t)data.len;
    return seg;
}

int gyre_udp_hold(struct gyre_buf **out, struct gyre_slice *view, struct gyre_udp *u, const struct gyre_datagram *d)
{
    int err = gyre__udp_usable(u);
    if (err != 0)
        return err;
    if (out == NULL || view == NULL || d == NULL || d != u->now)
        return -EINVAL;
    struct gyre__seg *seg = detach(u, d->data);
    if (seg == NULL)
        return -ENOMEM;
    err = gyre__buf_wrap(out, &u->loop->segs, seg);
    if (err != 0) {
        gyre__seg_free(&u->loop->segs, seg, 0);
        return err;
    }
    *view = (struct gyre_slice){.data = seg->data, .len = seg->len};
    return 0;
}

int gyre_udp_pause(struct gyre_udp *u)
{
    int err = gyre__udp_usable(u);
    if (err != 0)
        return err;
    u->flags |= GYRE_UDPF_PAUSED;
    gyre__udp_update_recv(u);
    return 0;
}

int gyre_udp_resume(struct gyre_udp *u)
{
    int err = gyre__udp_usable(u);
    if (err != 0)
        return err;
    u->flags &= ~(unsigned)GYRE_UDPF_PAUSED;
    if (u->in.tail != NULL)
        gyre__udp_settle_later(u); /* what is kept comes first */
    else
        gyre__udp_update_recv(u);
    return 0;
}
