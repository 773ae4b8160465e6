/* SPDX-License-Identifier: MIT
 * Datagrams: sockets, the way between them, receiving and sending.
 *
 * The normal course: a send makes a packet, which arrives after a delay of its own, so that packets overtake each
 * other, in the queue of the socket that is bound to its address. What can go wrong, by the dice: it is lost, or comes
 * twice. By the rules: the queue is full, and it is thrown away; nobody is bound there, and a sender that is connected
 * is told with -ECONNREFUSED.
 *
 * Unix datagrams have no network: they arrive at once and in order, or the sender waits because UNIX_QUEUE_MAX of them
 * have not been taken. The sends of one socket are performed in the order of submission. */
#include "world.h"

#include <errno.h>
#include <netinet/in.h>
#include <stddef.h>
#include <string.h>
#include <sys/uio.h>
#include <sys/un.h>

enum { UNIX_QUEUE_MAX = 10, QUEUE_BYTES_DEFAULT = 212992, UDP_MAX = 65507, UNIX_MAX = 212960 };

struct sim_packet {
    struct sim_due due;
    struct sim_packet *prev, *next; /* on its way: all of the simulation; then `next` in its receiver's queue */
    struct gyre_sim *sim;
    uint64_t sender; /* its socket's id */
    struct gyre__addr from, to;
    uint32_t len;
    uint8_t data[];
};

/* ---- packets ---- */

static struct sim_packet *new_packet(struct sim_sock *s, const struct gyre__addr *to, uint32_t len)
{
    struct sim_packet *p = gyre__resize_many(s->sim->mem, NULL, sizeof *p, len, 1);
    if (p == NULL)
        return NULL;
    *p = (struct sim_packet){.sim = s->sim, .sender = s->id, .to = *to, .len = len};
    p->from = gyre__sim_source(s, to);
    p->due.kind = SIM_DUE_PACKET;
    return p;
}

static void unlink_packet(struct sim_packet *p)
{
    struct gyre_sim *sim = p->sim;
    if (p->next != NULL)
        p->next->prev = p->prev;
    if (p->prev != NULL)
        p->prev->next = p->next;
    else
        sim->packets = p->next;
    gyre__sim_due_clear(sim, &p->due);
    gyre__sim_due_unreserve(sim, 1);
}

void gyre__sim_packets_free(struct gyre_sim *sim)
{
    while (sim->packets != NULL) {
        struct sim_packet *p = sim->packets;
        unlink_packet(p);
        gyre__free(sim->mem, p);
    }
}

void gyre__sim_dgram_leave(struct sim_sock *s)
{
    while (s->packet_first != NULL) {
        struct sim_packet *p = s->packet_first;
        s->packet_first = p->next;
        gyre__free(s->sim->mem, p);
    }
}

/* ---- who receives ---- */

static bool is_unix(const struct sim_sock *s)
{
    return s->family == AF_UNIX;
}

/* 0: not this one; more: the better. One that is connected to the sender is meant before one that is not. */
static int suits(const struct sim_sock *s, const struct sim_packet *p)
{
    if (!s->dgram || !s->bound)
        return 0;
    int fit = gyre__sim_serves(s, &p->to);
    if (fit == 0 || !s->dgram_connected)
        return fit;
    return gyre__sim_same_address(&s->remote, &p->from) ? fit + 2 : 0;
}

/* Of those that share a port a sender has always the same. */
static struct sim_sock *find_receiver(struct gyre_sim *sim, const struct sim_packet *p)
{
    struct sim_sock *found = NULL;
    uint64_t flow = gyre__sim_hash(0, &p->from.ss, p->from.len), most = 0;
    int best = 1;
    for (struct sim_sock *s = sim->socks; s != NULL; s = s->next) {
        int fit = suits(s, p);
        if (fit < best)
            continue;
        uint64_t weight = gyre__sim_hash(flow, &s->id, sizeof s->id);
        if (found == NULL || fit > best || weight > most) {
            found = s;
            most = weight;
        }
        best = fit;
    }
    return found;
}

static void refuse(struct gyre_sim *sim, const struct sim_packet *p)
{
    for (struct sim_sock *s = sim->socks; s != NULL; s = s->next)
        if (s->id == p->sender && s->dgram_connected) {
            s->err = -ECONNREFUSED;
            gyre__sim_ready(s, SIM_KINDS_OUT | SIM_KIND(GYRE_OP_RECVMSG));
        }
}

static void queue_packet(struct sim_sock *s, struct sim_packet *p)
{
    uint32_t room = s->sim->opt.recv_buffer_bytes > 0 ? s->sim->opt.recv_buffer_bytes : QUEUE_BYTES_DEFAULT;
    if (!is_unix(s) && s->packet_count > 0 && s->packet_bytes + p->len > room) {
        s->drops++;
        gyre__free(s->sim->mem, p);
        return;
    }
    p->next = NULL;
    if (s->packet_first == NULL)
        s->packet_first = p;
    else
        s->packet_last->next = p;
    s->packet_last = p;
    s->packet_count++;
    s->packet_bytes += p->len;
    s->sim->activity++;
    gyre__sim_ready(s, SIM_KIND(GYRE_OP_RECVMSG));
}

static void arrive(struct sim_packet *p)
{
    struct gyre_sim *sim = p->sim;
    struct sim_sock *s = find_receiver(sim, p);
    if (s != NULL) {
        queue_packet(s, p);
        return;
    }
    refuse(sim, p);
    gyre__free(sim->mem, p);
}

void gyre__sim_packet_due(struct sim_due *due)
{
    struct sim_packet *p = GYRE_CONTAINER(due, struct sim_packet, due);
    unlink_packet(p);
    arrive(p);
}

/* ---- binding and connecting ---- */

int gyre__sim_dgram_bind(struct sim_sock *s, const struct gyre__addr *addr)
{
    struct gyre__addr local = *addr;
    if (s->bound)
        return -EINVAL;
    if (is_unix(s) && addr->len <= offsetof(struct sockaddr_un, sun_path)) {
        struct sockaddr_un *un = (struct sockaddr_un *)&local.ss;
        un->sun_family = AF_UNIX;
        memcpy(un->sun_path, "\0sim", 4);
        memcpy(un->sun_path + 4, &s->id, sizeof s->id);
        local.len = offsetof(struct sockaddr_un, sun_path) + 4 + sizeof s->id;
    } else {
        int err = gyre__sim_choose(s, &local);
        if (err != 0)
            return err;
    }
    s->local = local;
    s->bound = true;
    return 0;
}

static int bind_any(struct sim_sock *s)
{
    if (s->bound || is_unix(s))
        return 0;
    return gyre__sim_dgram_bind(s, &s->local);
}

int gyre__sim_dgram_connect(struct sim_sock *s, const struct gyre__addr *addr)
{
    int err = gyre__sim_check_addr(s, (const struct sockaddr *)&addr->ss, addr->len);
    if (err == 0)
        err = bind_any(s);
    if (err != 0)
        return err;
    if (is_unix(s)) {
        struct sim_packet probe = {.from = s->local, .to = *addr};
        if (find_receiver(s->sim, &probe) == NULL)
            return -ECONNREFUSED;
    }
    s->remote = *addr;
    s->local = gyre__sim_source(s, addr);
    s->dgram_connected = true;
    return 0;
}

/* ---- sending ---- */

static uint64_t datagram_size(const struct msghdr *hdr)
{
    uint64_t total = 0;
    for (size_t i = 0; i < (size_t)hdr->msg_iovlen; i++)
        total += hdr->msg_iov[i].iov_len;
    return total;
}

static void gather(struct sim_packet *p, const struct msghdr *hdr)
{
    size_t at = 0;
    for (size_t i = 0; i < (size_t)hdr->msg_iovlen; i++) {
        if (hdr->msg_iov[i].iov_len > 0)
            memcpy(p->data + at, hdr->msg_iov[i].iov_base, hdr->msg_iov[i].iov_len);
        at += hdr->msg_iov[i].iov_len;
    }
}

/* A packet goes on its way. Without memory it is lost. */
static void launch(struct sim_packet *p)
{
    struct gyre_sim *sim = p->sim;
    uint64_t span_ns = sim->opt.delay_max_ns - sim->opt.delay_min_ns;
    uint64_t delay_ns = sim->opt.delay_min_ns + (span_ns > 0 ? gyre__sim_below(sim, span_ns + 1) : 0);
    if (delay_ns == 0) {
        arrive(p);
        return;
    }
    if (gyre__sim_due_reserve(sim, 1) != 0) {
        sim->counts.datagrams_lost++;
        gyre__free(sim->mem, p);
        return;
    }
    p->next = sim->packets;
    if (p->next != NULL)
        p->next->prev = p;
    sim->packets = p;
    gyre__sim_due_set(sim, &p->due, sim->now_ns + delay_ns);
}

static int send_udp(struct sim_sock *s, const struct msghdr *hdr, const struct gyre__addr *to, uint32_t len)
{
    struct gyre_sim *sim = s->sim;
    unsigned copies = 1;
    sim->counts.datagrams++;
    if (gyre__sim_chance(sim, sim->opt.loss_permille)) {
        sim->counts.datagrams_lost++;
        return 0;
    }
    if (gyre__sim_chance(sim, sim->opt.duplicate_permille)) {
        sim->counts.datagrams_repeated++;
        copies = 2;
    }
    for (; copies > 0; copies--) {
        struct sim_packet *p = new_packet(s, to, len);
        if (p == NULL)
            return -ENOMEM;
        gather(p, hdr);
        launch(p);
    }
    return 0;
}

/* Returns -EAGAIN if the receiver's queue is full. */
static int send_unix(struct sim_sock *s, const struct msghdr *hdr, const struct gyre__addr *to, uint32_t len)
{
    struct sim_packet *p = new_packet(s, to, len);
    if (p == NULL)
        return -ENOMEM;
    if (!s->bound)
        p->from.len = 0;
    struct sim_sock *receiver = find_receiver(s->sim, p);
    if (receiver == NULL || receiver->packet_count >= UNIX_QUEUE_MAX) {
        gyre__free(s->sim->mem, p);
        return receiver == NULL ? -ECONNREFUSED : -EAGAIN;
    }
    s->sim->counts.datagrams++;
    gather(p, hdr);
    queue_packet(receiver, p);
    return 0;
}

static int send_one(struct sim_sock *s, const struct msghdr *hdr)
{
    struct gyre__addr to = s->remote;
    uint64_t len = datagram_size(hdr);
    if (s->err != 0) {
        int err = s->err;
        s->err = 0;
        return err;
    }
    if (len > (is_unix(s) ? UNIX_MAX : UDP_MAX))
        return -EMSGSIZE;
    if (hdr->msg_name != NULL) {
        int err = gyre__sim_check_addr(s, hdr->msg_name, hdr->msg_namelen);
        if (err != 0)
            return err;
        to = (struct gyre__addr){.len = hdr->msg_namelen};
        memcpy(&to.ss, hdr->msg_name, hdr->msg_namelen);
    } else if (!s->dgram_connected) {
        return is_unix(s) ? -ENOTCONN : -EDESTADDRREQ;
    }
    int err = bind_any(s);
    if (err != 0)
        return err;
    return is_unix(s) ? send_unix(s, hdr, &to, (uint32_t)len) : send_udp(s, hdr, &to, (uint32_t)len);
}

/* Whether one that was submitted before it on the same socket has yet to go. */
static bool has_predecessor(const struct sim_req *req)
{
    for (const struct sim_req *r = req->sock->reqs; r != req; r = r->next)
        if (r->op->kind == GYRE_OP_SENDMSG)
            return true;
    return false;
}

bool gyre__sim_perform_sendmsg(struct sim_backend *be, struct sim_req *req, struct gyre__event *ev)
{
    struct gyre_sim *sim = be->sim;
    const struct msghdr *hdr = req->op->u.msg.hdr;
    bool cancelled = req->cancelled && req->held == 0;
    if (!cancelled && has_predecessor(req))
        return false;
    ev->res = -ECANCELED;
    if (!cancelled) {
        bool full = !is_unix(req->sock) && gyre__sim_chance(sim, sim->opt.send_short_permille);
        sim->counts.sends_short += full;
        ev->res = full ? -EAGAIN : send_one(req->sock, hdr);
    }
    if (ev->res == -EAGAIN && !(req->op->flags & GYRE_OPF_DONTWAIT)) {
        req->again = !is_unix(req->sock); /* a unix receiver that takes one wakes it */
        return false;
    }
    if (ev->res == 0)
        ev->res = (int32_t)datagram_size(hdr);
    gyre__sim_ready(req->sock, SIM_KINDS_OUT); /* the next one's turn */
    return true;
}

/* ---- receiving ---- */

static int32_t fill(const struct sim_sock *s, const struct sim_packet *p, const struct gyre__op *op, uint8_t *buf)
{
    const struct msghdr *room = op->u.recvmsg.room;
    size_t overhead = sizeof(struct gyre__dgram_head) + room->msg_namelen + room->msg_controllen;
    size_t here = op->u.recvmsg.pool->size - overhead, len = p->len < here ? p->len : here;
    struct gyre__addr from = p->from;
    gyre__sim_see_as(&from, s->family);
    struct gyre__dgram_head head = {.name_len = from.len, .payload_len = (uint32_t)len};
    if (len < p->len)
        head.flags = MSG_TRUNC;
    memset(buf, SIM_SCRIBBLE, overhead);
    memcpy(buf, &head, sizeof head);
    memcpy(buf + sizeof head, &from.ss, from.len < room->msg_namelen ? from.len : room->msg_namelen);
    memcpy(buf + overhead, p->data, len);
    if (len < here)
        buf[overhead + len] = SIM_SCRIBBLE;
    return (int32_t)(overhead + len);
}

/* Those that wait for room with this one. */
static void tell_room(struct gyre_sim *sim)
{
    for (struct sim_sock *s = sim->socks; s != NULL; s = s->next)
        if (s->dgram && is_unix(s))
            gyre__sim_ready(s, SIM_KINDS_OUT);
}

static struct sim_packet *take_packet(struct sim_sock *s)
{
    struct sim_packet *p = s->packet_first;
    s->packet_first = p->next;
    s->packet_count--;
    s->packet_bytes -= p->len;
    if (is_unix(s))
        tell_room(s->sim);
    return p;
}

bool gyre__sim_perform_recvmsg(struct sim_backend *be, struct sim_req *req, struct gyre__event *ev, bool goes_on)
{
    struct sim_sock *s = req->sock;
    struct gyre__bufpool *pool = req->op->u.recvmsg.pool;
    bool cancelled = req->cancelled && req->held == 0;
    GYRE_CHECK(pool == be->pool);
    ev->res = cancelled ? -ECANCELED : s->err;
    if (ev->res != 0) {
        s->err = cancelled ? s->err : 0;
        return true;
    }
    if (s->packet_first == NULL)
        return false;
    bool none = gyre__sim_chance(be->sim, be->sim->opt.enobufs_permille);
    int buf = none ? GYRE_BUF_NONE : gyre__bufpool_take(pool);
    if (buf == GYRE_BUF_NONE) {
        be->sim->counts.enobufs++;
        gyre__count(&be->base.stats.enobufs, 1);
        ev->res = -ENOBUFS;
        return true;
    }
    be->bufs_taken++;
    struct sim_packet *p = take_packet(s);
    ev->res = fill(s, p, req->op, gyre__bufpool_data(pool, (uint16_t)buf));
    ev->buf = (uint16_t)buf;
    ev->flags = (uint16_t)(GYRE_EV_BUF | (goes_on && p->len > 0 ? GYRE_EV_MORE : 0));
    gyre__free(be->sim->mem, p);
    return true;
}
