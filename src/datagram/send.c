/* SPDX-License-Identifier: MIT
 * Sending datagrams.
 *
 * The normal course: the end of a turn submits what the turn queued, up to a window of sends, with GYRE_OPF_DONTWAIT:
 * they leave together, those to one receiver even as one (run.c). What is beyond the window waits in the queue, in
 * order.
 *
 * What can go wrong: the socket's buffer is full (-EAGAIN): those that met it go back to their places in the queue, and
 * from then on one is sent at a time, which waits, until it has gone. After that two are tried at once, and with each
 * that goes one more, so that where there is room for few not many are tried in vain. On a unix socket order is a
 * promise, and the receiver is another process that makes room at any moment: there a connected socket has one send in
 * flight. One that names its receiver would not be told of room, so it does not wait at all, and the error is the
 * user's.
 *
 * The network's errors are told to whichever call comes next, and that may be a send, which then did not take place: it
 * is tried once more. If it fails again in the same way the error was its own, and is told once. */
#include "item.h"

#include <errno.h>
#include <string.h>

enum { V4_MAX = 65507, V6_MAX = 65527 };

/* ---- the queue ---- */

static bool is_unix(const struct gyre_udp *u)
{
    return u->family == AF_UNIX;
}

static uint32_t window(const struct gyre_udp *u)
{
    bool ordered = is_unix(u) && (u->flags & GYRE_UDPF_CONNECTED);
    return (u->flags & GYRE_UDPF_BLOCKED) || ordered ? 1 : u->window;
}

static void submit(struct gyre_udp *u, struct gyre__udp_item *s)
{
    bool waits = (u->flags & GYRE_UDPF_BLOCKED) || (is_unix(u) && (u->flags & GYRE_UDPF_CONNECTED));
    s->next = NULL;
    *u->flying_tail = s;
    u->flying_tail = &s->next;
    u->sending++;
    s->op.kind = GYRE_OP_SENDMSG;
    s->op.flags = waits ? 0 : GYRE_OPF_DONTWAIT;
    s->op.f = &u->f;
    s->op.done = GYRE_DONE_UDP_SENT;
    s->op.u.msg.hdr = &s->hdr;
    gyre__op_submit(u->loop, &s->op);
}

/* They end nearly always in the order of submission. */
static void landed(struct gyre_udp *u, struct gyre__udp_item *s)
{
    struct gyre__udp_item **at = &u->flying;
    while (*at != s)
        at = &(*at)->next;
    *at = s->next;
    if (*at == NULL)
        u->flying_tail = at;
    u->sending--;
}

void gyre__udp_flush(struct gyre_udp *u)
{
    while (u->head != NULL && u->sending < window(u)) {
        struct gyre__udp_item *s = u->head;
        u->head = s->next;
        if (u->head == NULL)
            u->tail = &u->head;
        else
            gyre__udp_gather(u, s);
        submit(u, s);
    }
}

static void push(struct gyre_udp *u, struct gyre__udp_item *s)
{
    s->seq = u->send_seq++;
    s->next = NULL;
    *u->tail = s;
    u->tail = &s->next;
    u->out_count++;
    u->out_bytes += s->iov.iov_len;
}

/* Back to its place: before all that were queued after it. */
static void put_back(struct gyre_udp *u, struct gyre__udp_item *s)
{
    struct gyre__udp_item **at = &u->head;
    while (*at != NULL && (*at)->seq < s->seq)
        at = &(*at)->next;
    s->next = *at;
    *at = s;
    if (s->next == NULL)
        u->tail = &s->next;
}

static void forget(struct gyre_udp *u, struct gyre__udp_item *s)
{
    u->out_count--;
    u->out_bytes -= s->iov.iov_len;
    gyre__udp_free_send(u->loop, s);
}

void gyre__udp_drop_queue(struct gyre_udp *u)
{
    while (u->head != NULL) {
        struct gyre__udp_item *s = u->head;
        u->head = s->next;
        gyre__count(&u->stats.send_dropped, s->pieces);
        forget(u, s);
    }
    u->tail = &u->head;
}

void gyre__udp_cancel_sends(struct gyre_udp *u)
{
    for (struct gyre__udp_item *s = u->flying; s != NULL; s = s->next)
        gyre__op_cancel(u->loop, &s->op);
}

void gyre__udp_tell_drain(struct gyre_udp *u)
{
    const struct gyre_udp_options *o = &u->options;
    if (!(u->flags & GYRE_UDPF_DRAIN_OWED) || u->state != GYRE_UDP_OPEN ||
        u->out_count > o->send_queue_max_count / 2 || u->out_bytes > o->send_queue_max_bytes / 2)
        return;
    u->flags &= ~(unsigned)GYRE_UDPF_DRAIN_OWED;
    if (u->handlers->on_drain != NULL)
        u->handlers->on_drain(u);
}

/* Whether it goes back to the queue. */
static bool goes_back(struct gyre_udp *u, struct gyre__udp_item *s, int res)
{
    if (u->state == GYRE_UDP_ENDING)
        return false;
    if (res == -EAGAIN && !is_unix(u)) {
        u->flags |= GYRE_UDPF_BLOCKED;
        u->window = 1;
        return true;
    }
    bool others = s->run == NULL ? !gyre__udp_is_sockets(res) : res == -ECONNREFUSED;
    if (res >= 0 || res == -ECANCELED || !others || is_unix(u) || s->met != 0)
        return false;
    s->met = (int16_t)res;
    return true;
}

static void tell_error(struct gyre_udp *u, int err)
{
    if (u->state == GYRE_UDP_OPEN && u->handlers->on_error != NULL)
        u->handlers->on_error(u, err);
}

/* Its first try met an error, and the second one did not: that was of an earlier datagram. A refused connection, which
 * is no send's own, was told at once. */
static void tell_met(struct gyre_udp *u, int met, int res)
{
    if (met == 0 || met == -ECONNREFUSED || met == res)
        return;
    gyre__count(&u->stats.errors, 1);
    tell_error(u, met);
}

static void note_sent(struct gyre_udp *u, const struct gyre__udp_item *s, int res)
{
    if (res >= 0) {
        u->window += u->window < GYRE_UDP_WINDOW;
        gyre__count(&u->stats.sent, s->pieces);
        gyre__count(&u->stats.sent_bytes, (uint64_t)res);
        gyre__count(&u->loop->be->stats.datagrams_out, s->pieces);
    } else if (res == -ECANCELED || (res == -EAGAIN && u->state == GYRE_UDP_ENDING)) {
        gyre__count(&u->stats.send_dropped, s->pieces);
    } else {
        gyre__count(&u->stats.send_errors, s->pieces);
    }
}

/* Whether that may be an error of the run, and not of the datagrams in it. */
static bool is_of_run(int err)
{
    return err == -EINVAL || err == -EIO || err == -EMSGSIZE || err == -EOPNOTSUPP || err == -ENOPROTOOPT;
}

/* A run is over. One that failed goes back, to be sent one by one: then each has its own error, if it was not the run
 * that could not be sent. Returns whether the user is to be told of `res`. */
static bool run_sent(struct gyre_udp *u, struct gyre__udp_item *s, int res)
{
    bool over = res >= 0 || res == -ECANCELED || u->state == GYRE_UDP_ENDING;
    bool back = !over && goes_back(u, s, res);
    struct gyre__udp_item *first = s, *next;
    if (over)
        note_sent(u, s, res);
    else if (is_of_run(res))
        gyre__udp_doubt_cutting(u);
    for (struct gyre__udp_item *rest = gyre__udp_scatter(u, s); s != NULL; s = next) {
        next = rest;
        rest = next != NULL ? next->next : NULL;
        s->alone = !over && !back;
        if (s->alone && s == first && !is_of_run(res))
            s->met = (int16_t)res;
        if (over)
            forget(u, s);
        else
            put_back(u, s);
    }
    bool told = !over && res == -ECONNREFUSED; /* of an earlier one */
    gyre__count(&u->stats.errors, told);
    return over || told;
}

/* The kernel was to cut `s` and could not. Returns false if there is no memory to do it here. */
static bool cut_here(struct gyre_udp *u, struct gyre__udp_item *s)
{
    struct gyre__udp_item *piece = gyre__udp_cut(u->loop, s), *next;
    if (piece == NULL)
        return false;
    for (; piece != NULL; piece = next) { /* from the last one on, each goes before those of the same number */
        next = piece->next;
        u->out_count++;
        u->out_bytes += piece->iov.iov_len;
        put_back(u, piece);
    }
    forget(u, s);
    return true;
}

/* The same for one datagram, or for what the kernel cuts. */
static bool one_sent(struct gyre_udp *u, struct gyre__udp_item *s, int res)
{
    if (s->pieces > 1 && is_of_run(res) && u->state != GYRE_UDP_ENDING) {
        gyre__udp_doubt_cutting(u);
        if (cut_here(u, s))
            return false;
    }
    if (goes_back(u, s, res)) {
        put_back(u, s);
        gyre__count(&u->stats.errors, res == -ECONNREFUSED);
        return res == -ECONNREFUSED;
    }
    int met = s->met;
    note_sent(u, s, res);
    forget(u, s);
    tell_met(u, met, res);
    return true;
}

void gyre__udp_on_sent(struct gyre__op *op, const struct gyre__event *ev)
{
    struct gyre__udp_item *s = GYRE_CONTAINER(op, struct gyre__udp_item, op);
    struct gyre_udp *u = GYRE_CONTAINER(op->f, struct gyre_udp, f);
    int res = ev->res;
    GYRE_CHECK(u->magic == GYRE_UDP_MAGIC);
    landed(u, s);
    if (!(op->flags & GYRE_OPF_DONTWAIT))
        u->flags &= ~(unsigned)GYRE_UDPF_BLOCKED;
    bool tell = s->run != NULL ? run_sent(u, s, res) : one_sent(u, s, res);
    if (u->state != GYRE_UDP_OPEN || u->head != NULL || (u->flags & GYRE_UDPF_DRAIN_OWED))
        gyre__udp_settle_later(u);
    if (GYRE_UNLIKELY(tell && res < 0 && res != -ECANCELED && (res != -EAGAIN || is_unix(u))))
        tell_error(u, res);
}

/* ---- making one ---- */

/* What to send, and how. */
struct order {
    const struct sockaddr *to; /* NULL: where the socket is connected to */
    socklen_t to_len;
    const uint8_t *data;
    size_t len;
    size_t segment_bytes; /* 0: one datagram; else the kernel cuts */
    const struct gyre_datagram *answers; /* NULL, or what on_datagram is looking at */
};

#ifdef IP_PKTINFO
static void add_source4(struct gyre__udp_item *s, const struct sockaddr_in *local)
{
    struct in_pktinfo info = {.ipi_spec_dst = local->sin_addr};
    gyre__udp_add_control(s, IPPROTO_IP, IP_PKTINFO, &info, sizeof info);
}
#else
static void add_source4(struct gyre__udp_item *s, const struct sockaddr_in *local)
{
    (void)s;
    (void)local;
}
#endif

/* An answer leaves from the address that was asked, unless that is a group's or everybody's. */
static void add_source(struct gyre_udp *u, struct gyre__udp_item *s)
{
    const union gyre__dgram_address *local = &u->now_info->source;
    const struct sockaddr_in6 *in6 = &local->in6;
    if (local->sa.sa_family == AF_INET) {
        add_source4(s, &local->in4);
    } else if (local->sa.sa_family == AF_INET6 && !IN6_IS_ADDR_MULTICAST(&in6->sin6_addr)) {
        struct in6_pktinfo info = {.ipi6_addr = in6->sin6_addr, .ipi6_ifindex = in6->sin6_scope_id};
        gyre__udp_add_control(s, IPPROTO_IPV6, IPV6_PKTINFO, &info, sizeof info);
    }
}

/* Whether the bytes lie in the datagram that is being answered, and may stay there. */
static bool may_stay(const struct gyre_udp *u, const struct order *o)
{
    const struct gyre_datagram *d = o->answers;
    if (d == NULL || o->data < d->data.data || o->len > d->data.len)
        return false;
    return (size_t)(o->data - d->data.data) <= d->data.len - o->len && !gyre__bufpool_scarce(&u->loop->pool);
}

static int add_bytes(struct gyre_udp *u, struct gyre__udp_item *s, const struct order *o)
{
    struct gyre__segs *segs = &u->loop->segs;
    s->iov = (struct iovec){.iov_len = o->len};
    s->hdr.msg_iov = &s->iov;
    s->hdr.msg_iovlen = 1;
    if (o->len == 0)
        return 0;
    if (may_stay(u, o)) {
        s->seg = gyre__seg_new(segs, GYRE_SEG_BUF, (void *)(uintptr_t)o->data, (uint32_t)o->len);
        if (s->seg == NULL)
            return -ENOMEM;
        s->seg->buf = u->now_buf;
        gyre__bufpool_hold(segs->pool, u->now_buf);
    } else {
        s->seg = gyre__seg_chunk(segs, (uint32_t)o->len);
        if (s->seg == NULL)
            return -ENOMEM;
        memcpy(s->seg->data, o->data, o->len);
        s->seg->len = (uint32_t)o->len;
    }
    s->iov.iov_base = s->seg->data;
    return 0;
}

static int make(struct gyre__udp_item **out, struct gyre_udp *u, const struct order *o)
{
    struct gyre__udp_item *s = gyre__udp_new_send(u->loop);
    if (s == NULL)
        return -ENOMEM;
    s->hdr = (struct msghdr){.msg_iov = &s->iov};
    s->pieces = (uint16_t)(o->segment_bytes > 0 ? (o->len + o->segment_bytes - 1) / o->segment_bytes : 1);
    s->run = NULL;
    s->met = 0;
    s->alone = false;
    int err = gyre__udp_place(u, s, o->to, o->to_len);
    s->segment_bytes = (uint16_t)o->segment_bytes;
    if (err == 0 && o->segment_bytes > 0)
        gyre__udp_add_segment_size(s, o->segment_bytes);
    if (err == 0 && o->answers != NULL && u->options.pktinfo)
        add_source(u, s);
    if (err == 0)
        err = add_bytes(u, s, o);
    if (err != 0) {
        gyre__udp_free_send(u->loop, s);
        return err;
    }
    *out = s;
    return 0;
}

/* Whether `count` datagrams of `bytes` in all have room. Returns 0 or an error. */
static int check_room(struct gyre_udp *u, size_t count, size_t bytes)
{
    const struct gyre_udp_options *o = &u->options;
    size_t most = is_unix(u) ? o->send_queue_max_bytes : u->family == AF_INET6 ? V6_MAX : V4_MAX;
    if (bytes > most || bytes > o->send_queue_max_bytes || count > o->send_queue_max_count)
        return -EMSGSIZE;
    if (u->out_count + count <= o->send_queue_max_count && u->out_bytes + bytes <= o->send_queue_max_bytes)
        return 0;
    u->flags |= GYRE_UDPF_DRAIN_OWED;
    gyre__count(&u->stats.send_refused, 1);
    return -EAGAIN;
}

static int send_order(struct gyre_udp *u, const struct order *o)
{
    struct gyre__udp_item *s;
    int err = gyre__udp_usable(u);
    if (err == 0 && o->data == NULL && o->len > 0)
        err = -EINVAL;
    if (err == 0)
        err = check_room(u, 1, o->len);
    if (err == 0)
        err = make(&s, u, o);
    if (err != 0)
        return err;
    push(u, s);
    gyre__udp_settle_later(u);
    return 0;
}

/* ---- the user's side ---- */

int gyre_udp_send(struct gyre_udp *u, const void *data, size_t len)
{
    return send_order(u, &(struct order){.data = data, .len = len});
}

int gyre_udp_send_to(struct gyre_udp *u, const struct sockaddr *to, socklen_t to_len, const void *data, size_t len)
{
    if (to == NULL)
        return u != NULL ? GYRE_EADDRESS : GYRE_ECLOSED;
    return send_order(u, &(struct order){.to = to, .to_len = to_len, .data = data, .len = len});
}

int gyre_udp_reply(struct gyre_udp *u, const struct gyre_datagram *d, const void *data, size_t len)
{
    int err = gyre__udp_usable(u);
    if (err != 0)
        return err;
    if (d == NULL || d != u->now)
        return -EINVAL;
    if (d->peer == NULL && !(u->flags & GYRE_UDPF_CONNECTED))
        return -EDESTADDRREQ;
    struct order o = {.to = d->peer, .to_len = d->peer_len, .data = data, .len = len, .answers = d};
    if (u->flags & GYRE_UDPF_CONNECTED) /* the kernel knows where to, and is quicker without being told */
        o.to = NULL;
    return send_order(u, &o);
}

size_t gyre_udp_outbound(const struct gyre_udp *u)
{
    return u->out_bytes;
}

/* ---- many at once ---- */

/* All or nothing: none is queued before all are made. */
static int send_pieces(struct gyre_udp *u, const struct order *whole, size_t each)
{
    struct gyre__udp_item *first = NULL, **last = &first, *next;
    int err = 0;
    for (size_t at = 0; err == 0 && at < whole->len; at += each) {
        struct order o = *whole;
        o.data = whole->data + at;
        o.len = whole->len - at < each ? whole->len - at : each;
        err = make(last, u, &o);
        if (err == 0) {
            (*last)->next = NULL;
            last = &(*last)->next;
        }
    }
    for (struct gyre__udp_item *s = first; s != NULL; s = next) {
        next = s->next;
        if (err == 0)
            push(u, s);
        else
            gyre__udp_free_send(u->loop, s);
    }
    if (err == 0)
        gyre__udp_settle_later(u);
    return err;
}

int gyre_udp_send_segments(struct gyre_udp *u, const struct sockaddr *to, socklen_t to_len, const void *data,
                           size_t len, size_t segment_bytes)
{
    struct order o = {.to = to, .to_len = to_len, .data = data, .len = len};
    int err = gyre__udp_usable(u);
    if (err != 0)
        return err;
    if (segment_bytes == 0 || (data == NULL && len > 0))
        return -EINVAL;
    if (len <= segment_bytes)
        return send_order(u, &o);
    size_t count = (len + segment_bytes - 1) / segment_bytes;
    if (count > GYRE_UDP_SEGMENTS_MAX || segment_bytes > UINT16_MAX)
        return -EMSGSIZE;
    if (!is_unix(u) && gyre__udp_kernel_cuts(u)) {
        o.segment_bytes = segment_bytes;
        return send_order(u, &o);
    }
    err = check_room(u, count, len);
    return err != 0 ? err : send_pieces(u, &o, segment_bytes);
}
