/* SPDX-License-Identifier: MIT
 * Sockets, their descriptors, listening and connecting.
 *
 * A connect takes a round trip. Then it finds a listener with room in its queue: both ends exist, the other one waits
 * in that queue, and bytes may flow before it is accepted. Or it fails: nobody listens; the queue is full (TCP tries
 * again for two minutes, as after a lost SYN; unix says -EAGAIN); or the dice say so.
 *
 * An address is a name, a unix path too: there are no files. So connecting to a path that nobody listens on is refused,
 * whether anybody ever did or not. */
#include "world.h"

#include <errno.h>
#include <netinet/in.h>
#include <stddef.h>
#include <string.h>

enum { CONNECT_TRIES = 7, FDS_FIRST = 64 };

#define SECOND_NS UINT64_C(1000000000)

/* ---- Sockets and descriptors ---- */

struct sim_sock *gyre__sim_sock_create(struct gyre_sim *sim, int family)
{
    if (gyre__sim_due_reserve(sim, 1) != 0)
        return NULL;
    struct sim_sock *s = gyre__alloc(sim->mem, sizeof *s);
    if (s == NULL) {
        gyre__sim_due_unreserve(sim, 1);
        return NULL;
    }
    s->sim = sim;
    s->id = ++sim->socks_made;
    s->fd = -1;
    s->family = family;
    s->due.kind = SIM_DUE_CONNECT;
    s->next = sim->socks;
    if (s->next != NULL)
        s->next->prev = s;
    sim->socks = s;
    return s;
}

static void stop_listening(struct sim_sock *s)
{
    struct sim_sock **at = &s->sim->listeners;
    while (*at != s)
        at = &(*at)->listener_next;
    *at = s->listener_next;
    while (s->queue_first != NULL) {
        struct sim_sock *embryo = gyre__sim_accept(s);
        gyre__sim_stream_leave(embryo, true);
        embryo->state = SIM_FRESH;
        gyre__sim_sock_destroy(embryo);
    }
}

void gyre__sim_sock_destroy(struct sim_sock *s)
{
    struct gyre_sim *sim = s->sim;
    GYRE_CHECK(s->reqs == NULL); /* a descriptor is closed under an operation */
    if (s->state == SIM_LISTENING)
        stop_listening(s);
    if (s->state == SIM_CONNECTED)
        gyre__sim_stream_leave(s, false);
    gyre__sim_dgram_leave(s);
    gyre__sim_due_clear(sim, &s->due);
    gyre__sim_due_unreserve(sim, 1);
    if (s->fd >= 0) {
        uint32_t index = (uint32_t)(s->fd - SIM_FD_FIRST);
        sim->fds[index] = NULL;
        sim->fd_low = index < sim->fd_low ? index : sim->fd_low;
    }
    if (s->next != NULL)
        s->next->prev = s->prev;
    if (s->prev != NULL)
        s->prev->next = s->next;
    else
        sim->socks = s->next;
    gyre__free(sim->mem, s);
}

void gyre__sim_sock_close(struct sim_sock *s)
{
    s->be = NULL;
    s->f = NULL;
    s->orphan = s->watches > 0;
    if (!s->orphan)
        gyre__sim_sock_destroy(s);
}

static int fds_grow(struct gyre_sim *sim)
{
    uint32_t cap = sim->fds_cap > 0 ? 2 * sim->fds_cap : FDS_FIRST;
    struct sim_sock **fds = gyre__resize_many(sim->mem, sim->fds, 0, cap, sizeof(struct sim_sock *));
    if (fds == NULL)
        return -ENOMEM;
    for (uint32_t i = sim->fds_cap; i < cap; i++)
        fds[i] = NULL;
    sim->fds = fds;
    sim->fds_cap = cap;
    return 0;
}

int gyre__sim_fd_install(struct sim_sock *s)
{
    struct gyre_sim *sim = s->sim;
    uint32_t index = sim->fd_low;
    while (index < sim->fds_cap && sim->fds[index] != NULL)
        index++;
    sim->fd_low = index;
    if (index >= sim->opt.fds_max)
        return -EMFILE;
    if (index >= sim->fds_cap && fds_grow(sim) != 0)
        return -ENOMEM;
    sim->fds[index] = s;
    sim->fd_low = index + 1;
    s->fd = SIM_FD_FIRST + (int)index;
    return s->fd;
}

struct sim_sock *gyre__sim_fd_find(const struct gyre_sim *sim, int fd)
{
    if (fd < SIM_FD_FIRST || (uint32_t)(fd - SIM_FD_FIRST) >= sim->fds_cap)
        return NULL;
    return sim->fds[fd - SIM_FD_FIRST];
}

/* ---- Listening ---- */

int gyre__sim_listen(struct sim_sock *s, const struct gyre__addr *addr, const struct gyre__listen_config *cfg)
{
    struct gyre__addr local = *addr;
    if (s->state != SIM_FRESH)
        return -EINVAL;
    int err = gyre__sim_check_addr(s, (const struct sockaddr *)&addr->ss, addr->len);
    if (err != 0)
        return err;
    s->share = cfg->share;
    bool choose = s->family != AF_UNIX && gyre__sim_inet_of(addr).port == 0;
    if (choose)
        err = gyre__sim_choose_port(s, &local, cfg->v6_only);
    else if (gyre__sim_in_use(s, addr, cfg->v6_only))
        err = -EADDRINUSE;
    if (err != 0)
        return err;
    s->share |= cfg->share_later;
    s->local = local;
    s->v6_only = cfg->v6_only;
    s->backlog = cfg->backlog > 0 ? cfg->backlog : 1;
    s->state = SIM_LISTENING;
    struct sim_sock **at = &s->sim->listeners;
    while (*at != NULL)
        at = &(*at)->listener_next;
    s->listener_next = NULL;
    *at = s;
    return 0;
}

/* Of those that serve the address best, any one. */
static struct sim_sock *find_listener(struct gyre_sim *sim, const struct gyre__addr *addr)
{
    struct sim_sock *found = NULL;
    uint64_t count = 0;
    int best = 1;
    for (struct sim_sock *l = sim->listeners; l != NULL; l = l->listener_next) {
        int fit = gyre__sim_serves(l, addr);
        if (fit < best)
            continue;
        count = fit > best ? 1 : count + 1;
        best = fit;
        if (count == 1 || gyre__sim_below(sim, count) == 0)
            found = l;
    }
    return found;
}

struct sim_sock *gyre__sim_accept(struct sim_sock *listener)
{
    struct sim_sock *s = listener->queue_first;
    GYRE_CHECK(s != NULL && listener->queue_count > 0);
    listener->queue_first = s->queue_next;
    if (listener->queue_first == NULL)
        listener->queue_last = NULL;
    listener->queue_count--;
    s->queue_next = NULL;
    return s;
}

static void queue_connection(struct sim_sock *listener, struct sim_sock *s)
{
    if (listener->queue_last != NULL)
        listener->queue_last->queue_next = s;
    else
        listener->queue_first = s;
    listener->queue_last = s;
    listener->queue_count++;
    gyre__sim_ready(listener, SIM_KIND(GYRE_OP_ACCEPT));
}

/* ---- Connecting ---- */

static void finish_connect(struct sim_sock *s, int err)
{
    s->state = err == 0 ? SIM_CONNECTED : SIM_FRESH;
    s->err_connect = err;
    s->connect_done = true;
    s->sim->activity++;
    gyre__sim_ready(s, SIM_KIND(GYRE_OP_CONNECT));
}

/* Make the other end and queue it. */
static int meet(struct sim_sock *s, struct sim_sock *listener)
{
    struct sim_sock *other = gyre__sim_sock_create(s->sim, listener->family);
    if (other == NULL)
        return -ENOMEM;
    if (gyre__sim_stream_create(s, other) != 0) {
        gyre__sim_sock_destroy(other);
        return -ENOMEM;
    }
    other->state = SIM_CONNECTED;
    memcpy(other->options, listener->options, sizeof other->options);
    other->local = s->remote;
    other->remote = s->local;
    if (s->family == AF_INET && listener->family == AF_INET6) {
        gyre__sim_map_to_v6(&other->local);
        gyre__sim_map_to_v6(&other->remote);
    }
    queue_connection(listener, other);
    return 0;
}

void gyre__sim_connect_due(struct sim_sock *s)
{
    struct gyre_sim *sim = s->sim;
    if (s->fault != 0) {
        sim->counts.connects_failed++;
        finish_connect(s, s->fault);
        return;
    }
    struct sim_sock *listener = find_listener(sim, &s->remote);
    if (listener == NULL) {
        finish_connect(s, -ECONNREFUSED);
        return;
    }
    if (listener->queue_count < listener->backlog) {
        finish_connect(s, meet(s, listener));
        return;
    }
    if (s->family == AF_UNIX || ++s->tries == CONNECT_TRIES)
        finish_connect(s, s->family == AF_UNIX ? -EAGAIN : -ETIMEDOUT);
    else
        gyre__sim_due_set(sim, &s->due, sim->now_ns + (SECOND_NS << (s->tries - 1)));
}

/* Draw what will become of it, and how long that takes. */
static uint64_t connect_delay_ns(struct sim_sock *s)
{
    struct gyre_sim *sim = s->sim;
    s->fault = 0;
    if (s->family == AF_UNIX)
        return 0;
    if (gyre__sim_chance(sim, sim->opt.connect_timeout_permille)) {
        s->fault = -ETIMEDOUT;
        return SECOND_NS + gyre__sim_below(sim, 19 * SECOND_NS);
    }
    if (gyre__sim_chance(sim, sim->opt.connect_unreachable_permille)) {
        s->fault = -EHOSTUNREACH;
        return gyre__sim_below(sim, 3 * SECOND_NS);
    }
    return gyre__sim_delay_ns(sim) + gyre__sim_delay_ns(sim);
}

int gyre__sim_bind(struct sim_sock *s, const struct gyre__addr *addr, in_port_t port_last)
{
    if (s->state != SIM_FRESH || s->family == AF_UNIX)
        return -EINVAL;
    int err = gyre__sim_check_addr(s, (const struct sockaddr *)&addr->ss, addr->len);
    if (err != 0)
        return err;
    s->local = *addr;
    s->local_given = true;
    s->port_last = port_last;
    return 0;
}

static bool pair_in_use(const struct sim_sock *s, in_port_t port)
{
    struct sim_inet own = gyre__sim_inet_of(&s->local), peer = gyre__sim_inet_of(&s->remote);
    for (const struct sim_sock *o = s->sim->socks; o != NULL; o = o->next) {
        if (o == s || o->family == AF_UNIX || (o->state != SIM_CONNECTING && o->state != SIM_CONNECTED))
            continue;
        struct sim_inet other = gyre__sim_inet_of(&o->local), to = gyre__sim_inet_of(&o->remote);
        if (other.port == port && to.port == peer.port && memcmp(other.host, own.host, sizeof own.host) == 0 &&
            memcmp(to.host, peer.host, sizeof peer.host) == 0)
            return true;
    }
    return false;
}

/* The end's own address, once the peer's is known. Returns 0 or -EADDRNOTAVAIL. */
static int choose_local(struct sim_sock *s)
{
    if (!s->local_given) {
        s->local = s->remote;
        gyre__sim_set_port(&s->local, gyre__sim_next_port(s->sim));
        return 0;
    }
    in_port_t first = ntohs(gyre__sim_inet_of(&s->local).port), last = s->port_last != 0 ? s->port_last : first;
    if (gyre__sim_inet_of(&s->local).any) {
        s->local = s->remote;
        gyre__sim_set_port(&s->local, htons(first));
    }
    if (first == 0) {
        gyre__sim_set_port(&s->local, gyre__sim_next_port(s->sim));
        return 0;
    }
    for (uint32_t port = first; port <= last; port++) {
        gyre__sim_set_port(&s->local, htons((in_port_t)port));
        if (!pair_in_use(s, htons((in_port_t)port)))
            return 0;
    }
    return -EADDRNOTAVAIL;
}

int gyre__sim_sock_connect(struct sim_sock *s, const struct sockaddr *addr, socklen_t len)
{
    struct gyre_sim *sim = s->sim;
    if (s->state == SIM_CONNECTING)
        return -EALREADY;
    if (s->state != SIM_FRESH)
        return s->family == AF_UNIX && s->state == SIM_LISTENING ? -EINVAL : -EISCONN;
    int err = gyre__sim_check_addr(s, addr, len);
    if (err != 0)
        return err;
    s->remote = (struct gyre__addr){.len = len};
    memcpy(&s->remote.ss, addr, len);
    if (s->family == AF_UNIX) {
        gyre__sim_unix_unnamed(&s->local);
    } else {
        gyre__sim_any_to_loopback(&s->remote);
        err = choose_local(s);
        if (err != 0)
            return err;
    }
    s->state = SIM_CONNECTING;
    s->connect_done = false;
    s->tries = 0;
    uint64_t delay_ns = connect_delay_ns(s);
    if (delay_ns == 0)
        gyre__sim_connect_due(s);
    else
        gyre__sim_due_set(sim, &s->due, sim->now_ns + delay_ns);
    return 0;
}

int gyre__sim_shutdown(struct sim_sock *s)
{
    if (s->state != SIM_CONNECTED)
        return -ENOTCONN;
    if (s->family != AF_UNIX && (s->dead || gyre__sim_stream_over(s)))
        return -ENOTCONN;
    gyre__sim_stream_fin(s);
    s->shut = true;
    return 0;
}
