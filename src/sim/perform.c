/* SPDX-License-Identifier: MIT
 * What one request does when it is its turn: one event, or it waits on. */
#include "world.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

/* How many of the bytes to send are watched. A huge send moves in many small parts, each with an event. */
enum { CONTENT_MAX = 65536 };

/* Whether its cancel has got through. */
static bool is_cancelled(const struct sim_req *req)
{
    return req->cancelled && req->held == 0;
}

/* A cancel and the result race. In chaos either may win, when quiet the cancel does. */
static bool cancel_wins(struct sim_backend *be, const struct sim_req *req)
{
    if (!is_cancelled(req))
        return false;
    return be->sim->opt.profile == GYRE_SIM_QUIET || gyre__sim_below(be->sim, 2) == 0;
}

static bool finish(struct gyre__event *ev, int32_t res)
{
    ev->res = res;
    return true;
}

/* Whether a multi operation goes on after this event. */
static bool goes_on(struct sim_backend *be, const struct gyre__op *op, bool one)
{
    struct gyre_sim *sim = be->sim;
    if (!(op->flags & GYRE_OPF_MULTI) || one)
        return false;
    if (!gyre__sim_chance(sim, sim->opt.more_dropped_permille))
        return true;
    sim->counts.mores_dropped++;
    return false;
}

/* ---- Accept ---- */

/* The error drawn for this accept, or 0. */
static int accept_fault(struct sim_sock *s)
{
    struct gyre_sim *sim = s->sim;
    if (gyre__sim_chance(sim, sim->opt.accept_emfile_permille)) {
        sim->counts.accepts_failed++;
        return -EMFILE;
    }
    if (s->family == AF_UNIX || !gyre__sim_chance(sim, sim->opt.accept_aborted_permille))
        return 0;
    sim->counts.accepts_failed++;
    struct sim_sock *lost = gyre__sim_accept(s);
    gyre__sim_stream_leave(lost, true);
    lost->state = SIM_FRESH;
    gyre__sim_sock_destroy(lost);
    return -ECONNABORTED;
}

static bool perform_accept(struct sim_backend *be, struct sim_req *req, struct gyre__event *ev)
{
    struct sim_sock *s = req->sock;
    if (s->state != SIM_LISTENING)
        return finish(ev, -EINVAL);
    if (s->queue_first == NULL || cancel_wins(be, req))
        return is_cancelled(req) ? finish(ev, -ECANCELED) : false;
    int fd = accept_fault(s);
    if (fd == 0)
        fd = gyre__sim_fd_install(s->queue_first);
    if (fd < 0)
        return finish(ev, fd);
    (void)gyre__sim_accept(s);
    if (goes_on(be, req->op, be->one_accept))
        ev->flags |= GYRE_EV_MORE;
    return finish(ev, fd);
}

/* ---- Connect ---- */

static bool perform_connect(struct sim_req *req, struct gyre__event *ev)
{
    struct sim_sock *s = req->sock;
    const struct gyre__op *op = req->op;
    if (!req->started) {
        if (is_cancelled(req))
            return finish(ev, -ECANCELED);
        int err = gyre__sim_sock_connect(s, op->u.connect.addr, op->u.connect.len);
        if (err != 0)
            return finish(ev, err);
    }
    if (!s->connect_done)
        return is_cancelled(req) ? finish(ev, -ECANCELED) : false;
    s->connect_done = false;
    return finish(ev, s->err_connect);
}

/* ---- Receive ---- */

/* How many of the bytes that are there a receive gets. */
static uint32_t recv_size(struct sim_backend *be, const struct sim_sock *s, uint32_t room)
{
    struct gyre_sim *sim = be->sim;
    uint64_t here = gyre__sim_stream_inbound(s);
    uint32_t len = here < room ? (uint32_t)here : room;
    if (len < 2 || !gyre__sim_chance(sim, sim->opt.recv_short_permille))
        return len;
    sim->counts.recvs_short++;
    return 1 + (uint32_t)gyre__sim_below(sim, len - 1);
}

static bool no_bufs(struct sim_backend *be, struct gyre__event *ev)
{
    be->sim->counts.enobufs++;
    gyre__count(&be->base.stats.enobufs, 1);
    return finish(ev, -ENOBUFS);
}

static bool recv_into_pool(struct sim_backend *be, struct sim_req *req, struct gyre__event *ev)
{
    struct gyre_sim *sim = be->sim;
    struct gyre__bufpool *pool = req->op->u.recv.pool;
    GYRE_CHECK(pool == be->pool);
    if (gyre__sim_chance(sim, sim->opt.enobufs_permille))
        return no_bufs(be, ev);
    int buf = gyre__bufpool_take(pool);
    if (buf == GYRE_BUF_NONE)
        return no_bufs(be, ev);
    be->bufs_taken++;
    uint8_t *data = gyre__bufpool_data(pool, (uint16_t)buf);
    uint32_t len = recv_size(be, req->sock, pool->size);
    (void)gyre__sim_stream_take(req->sock, data, len);
    if (len < pool->size)
        data[len] = SIM_SCRIBBLE; /* whoever reads one byte too many reads that */
    ev->buf = (uint16_t)buf;
    ev->flags |= GYRE_EV_BUF;
    if (goes_on(be, req->op, be->one_recv))
        ev->flags |= GYRE_EV_MORE;
    return finish(ev, (int32_t)len);
}

/* One buffer, so one event: a second would overwrite what the first is about. */
static bool recv_into_own(struct sim_backend *be, struct sim_req *req, struct gyre__event *ev)
{
    const struct gyre__op *op = req->op;
    uint32_t len = recv_size(be, req->sock, op->u.recv.len < INT32_MAX ? op->u.recv.len : INT32_MAX);
    (void)gyre__sim_stream_take(req->sock, op->u.recv.buf, len);
    return finish(ev, (int32_t)len);
}

static bool perform_recv(struct sim_backend *be, struct sim_req *req, struct gyre__event *ev)
{
    struct sim_sock *s = req->sock;
    if (s->state == SIM_CONNECTED && gyre__sim_stream_inbound(s) > 0) {
        if (cancel_wins(be, req))
            return finish(ev, -ECANCELED);
        return (req->op->flags & GYRE_OPF_POOL) ? recv_into_pool(be, req, ev) : recv_into_own(be, req, ev);
    }
    if (cancel_wins(be, req))
        return finish(ev, -ECANCELED);
    int end = gyre__sim_recv_end(s);
    if (end != -EAGAIN)
        return finish(ev, end);
    return is_cancelled(req) ? finish(ev, -ECANCELED) : false;
}

/* ---- Send ---- */

/* The pieces of a send; `one` holds the piece of a plain one. */
static const struct iovec *pieces(const struct gyre__op *op, struct iovec *one, size_t *count)
{
    if (op->kind == GYRE_OP_SENDMSG) {
        *count = (size_t)op->u.msg.hdr->msg_iovlen;
        return op->u.msg.hdr->msg_iov;
    }
    *one = gyre__iov_of(op->u.send.buf, op->u.send.len);
    *count = 1;
    return one;
}

uint64_t gyre__sim_content(const struct gyre__op *op)
{
    struct iovec one;
    size_t count;
    uint64_t hash = 0;
    if (op->kind != GYRE_OP_SEND && op->kind != GYRE_OP_SENDMSG)
        return 0;
    const struct iovec *iov = pieces(op, &one, &count);
    size_t left = CONTENT_MAX;
    for (size_t i = 0; i < count && left > 0; i++) {
        size_t len = iov[i].iov_len < left ? iov[i].iov_len : left;
        hash = gyre__sim_hash(hash, iov[i].iov_base, len);
        left -= len;
    }
    return hash;
}

static uint64_t total_size(const struct iovec *iov, size_t count)
{
    uint64_t total = 0;
    for (size_t i = 0; i < count; i++)
        total += iov[i].iov_len;
    return total < INT32_MAX ? total : INT32_MAX;
}

/* Put `len` bytes into the stream, those after the first `skip`. */
static void put(struct sim_sock *s, const struct iovec *iov, uint64_t skip, uint32_t len)
{
    for (; len > 0; iov++) {
        if (skip >= iov->iov_len) {
            skip -= iov->iov_len;
            continue;
        }
        uint64_t here = iov->iov_len - skip;
        uint32_t run = here < len ? (uint32_t)here : len;
        gyre__sim_stream_put(s, (const uint8_t *)iov->iov_base + skip, run);
        len -= run;
        skip = 0;
    }
    gyre__sim_stream_flush(s);
}

/* How much a send takes now. */
static uint32_t send_size(struct sim_backend *be, uint32_t room, uint64_t left)
{
    struct gyre_sim *sim = be->sim;
    uint32_t len = left < room ? (uint32_t)left : room;
    if (len < 2 || !gyre__sim_chance(sim, sim->opt.send_short_permille))
        return len;
    sim->counts.sends_short++;
    return 1 + (uint32_t)gyre__sim_below(sim, len - 1);
}

static bool perform_send(struct sim_backend *be, struct sim_req *req, struct gyre__event *ev)
{
    struct sim_sock *s = req->sock;
    struct iovec one;
    size_t count;
    const struct iovec *iov = pieces(req->op, &one, &count);
    uint64_t total = total_size(iov, count);
    if (cancel_wins(be, req))
        return finish(ev, req->moved > 0 ? (int32_t)req->moved : -ECANCELED);
    /* With bytes moved the error is for the next send. */
    if (req->moved > 0 && (s->shut || s->dead))
        return finish(ev, (int32_t)req->moved);
    int err = gyre__sim_send_err(s);
    if (err != 0 || total == 0)
        return finish(ev, err);
    uint32_t room = gyre__sim_stream_room(s);
    uint64_t left = total - req->moved;
    /* Not for every few bytes of room. */
    if (room < left && room < s->stream->pipe[s->side].send_max / 4 + 1) {
        if (!is_cancelled(req))
            return false;
        return finish(ev, req->moved > 0 ? (int32_t)req->moved : -ECANCELED);
    }
    uint32_t len = send_size(be, room, left);
    put(s, iov, req->moved, len);
    req->moved += len;
    /* A send that took a part may end, or go on until a cancel or an error tells how far it got. */
    if (len < left && be->sim->opt.profile == GYRE_SIM_CHAOS && gyre__sim_below(be->sim, 2) == 0) {
        req->again = true;
        return false;
    }
    return finish(ev, (int32_t)req->moved);
}

/* ---- Read ---- */

/* Files are the system's, and do not change while they are read. */
static bool perform_read(struct sim_backend *be, struct sim_req *req, struct gyre__event *ev)
{
    struct gyre_sim *sim = be->sim;
    const struct gyre__op_read *r = req->op->u.read;
    uint32_t len = r->len;
    if (cancel_wins(be, req))
        return finish(ev, -ECANCELED);
    if (len > 1 && gyre__sim_chance(sim, sim->opt.recv_short_permille))
        len = 1 + (uint32_t)gyre__sim_below(sim, len - 1);
    ssize_t n = pread(r->fd, r->buf, len, (off_t)r->offset);
    return finish(ev, n >= 0 ? (int32_t)n : -errno);
}

/* ---- Poll ---- */

/* What poll(2) would say. */
static unsigned conditions(const struct sim_sock *s)
{
    if (s->dgram)
        return (s->packet_first != NULL || s->err != 0 ? POLLIN : 0u) | (s->err != 0 ? POLLERR : 0u) | POLLOUT;
    switch ((enum sim_state)s->state) {
    case SIM_CONNECTED:
        return gyre__sim_stream_poll(s);
    case SIM_LISTENING:
        return s->queue_first != NULL ? POLLIN : 0u;
    case SIM_CONNECTING:
        return 0;
    case SIM_FRESH:
        break;
    }
    return POLLOUT | POLLHUP | (s->connect_done ? POLLIN | POLLERR : 0u);
}

static bool perform_poll(struct sim_backend *be, struct sim_req *req, struct gyre__event *ev)
{
    uint32_t asked = req->op->u.poll.events;
    if (asked & POLLPRI) /* nothing is urgent here */
        return finish(ev, -EOPNOTSUPP);
    uint32_t holds = conditions(req->sock) & (asked | POLLHUP | POLLERR);
    if (holds != 0 && !cancel_wins(be, req))
        return finish(ev, (int32_t)holds);
    return is_cancelled(req) ? finish(ev, -ECANCELED) : false;
}

bool gyre__sim_perform(struct sim_backend *be, struct sim_req *req, struct gyre__event *ev)
{
    switch ((enum gyre__op_kind)req->op->kind) {
    case GYRE_OP_ACCEPT:
        return perform_accept(be, req, ev);
    case GYRE_OP_CONNECT:
        return perform_connect(req, ev);
    case GYRE_OP_RECV:
        return perform_recv(be, req, ev);
    case GYRE_OP_SEND:
        return perform_send(be, req, ev);
    case GYRE_OP_SENDMSG:
        return req->sock->dgram ? gyre__sim_perform_sendmsg(be, req, ev) : perform_send(be, req, ev);
    case GYRE_OP_RECVMSG:
        return gyre__sim_perform_recvmsg(be, req, ev, goes_on(be, req->op, be->one_recv));
    case GYRE_OP_READ:
        return perform_read(be, req, ev);
    case GYRE_OP_POLL:
        return perform_poll(be, req, ev);
    case GYRE_OP_SPLICE: /* our sockets have no pipes */
        break;
    }
    return finish(ev, -EOPNOTSUPP);
}
