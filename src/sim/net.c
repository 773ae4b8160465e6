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
#include <sys/un.h>

enum { PORT_FIRST = 32768, PORT_LAST = 60999, CONNECT_TRIES = 7, FDS_FIRST = 64 };

#define SECOND_NS UINT64_C(1000000000)

/* ---- Addresses ---- */

/* An internet address, either family: IPv4 as a mapped IPv6 one. */
struct inet {
    uint8_t host[16];
    in_port_t port; /* as on the wire */
    bool v4;
    bool any;
};

static struct inet inet_of(const struct gyre_addr *addr)
{
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
    static const uint8_t zero[16];
    struct inet out = {.port = 0};
    if (addr->ss.ss_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)&addr->ss;
        memcpy(out.host, &in6->sin6_addr, sizeof out.host);
        out.port = in6->sin6_port;
        out.v4 = memcmp(out.host, mapped, sizeof mapped) == 0;
        out.any = memcmp(out.host, zero, sizeof zero) == 0;
        return out;
    }
    const struct sockaddr_in *in = (const struct sockaddr_in *)&addr->ss;
    memcpy(out.host, mapped, sizeof mapped);
    memcpy(out.host + sizeof mapped, &in->sin_addr, 4);
    out.port = in->sin_port;
    out.v4 = true;
    out.any = in->sin_addr.s_addr == 0;
    return out;
}

static void set_port(struct gyre_addr *addr, in_port_t port)
{
    if (addr->ss.ss_family == AF_INET6)
        ((struct sockaddr_in6 *)&addr->ss)->sin6_port = port;
    else
        ((struct sockaddr_in *)&addr->ss)->sin_port = port;
}

/* Connecting to every address means to this host. */
static void any_to_loopback(struct gyre_addr *addr)
{
    if (!inet_of(addr).any)
        return;
    if (addr->ss.ss_family == AF_INET6)
        ((struct sockaddr_in6 *)&addr->ss)->sin6_addr = in6addr_loopback;
    else
        ((struct sockaddr_in *)&addr->ss)->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
}

/* As an IPv6 socket sees an IPv4 address. */
void gyre__sim_map_to_v6(struct gyre_addr *addr)
{
    struct inet inet = inet_of(addr);
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = inet.port};
    memcpy(&in6.sin6_addr, inet.host, sizeof inet.host);
    *addr = (struct gyre_addr){.len = sizeof in6};
    memcpy(&addr->ss, &in6, sizeof in6);
}

void gyre__sim_see_as(struct gyre_addr *addr, int family)
{
    if (family == AF_INET6 && addr->ss.ss_family == AF_INET)
        gyre__sim_map_to_v6(addr);
    if (family != AF_INET || addr->ss.ss_family != AF_INET6)
        return;
    struct inet inet = inet_of(addr);
    struct sockaddr_in in4 = {.sin_family = AF_INET, .sin_port = inet.port};
    memcpy(&in4.sin_addr, inet.host + 12, 4);
    *addr = (struct gyre_addr){.len = sizeof in4};
    memcpy(&addr->ss, &in4, sizeof in4);
}

struct gyre_addr gyre__sim_source(const struct sim_sock *s, const struct gyre_addr *to)
{
    if (s->family == AF_UNIX || !inet_of(&s->local).any)
        return s->local;
    struct gyre_addr from = *to;
    set_port(&from, inet_of(&s->local).port);
    return from;
}

static size_t unix_name_len(const struct gyre_addr *addr)
{
    const struct sockaddr_un *un = (const struct sockaddr_un *)&addr->ss;
    size_t len = addr->len - offsetof(struct sockaddr_un, sun_path);
    return un->sun_path[0] == '\0' ? len : strnlen(un->sun_path, len);
}

static bool same_unix_name(const struct gyre_addr *a, const struct gyre_addr *b)
{
    const struct sockaddr_un *un_a = (const struct sockaddr_un *)&a->ss;
    const struct sockaddr_un *un_b = (const struct sockaddr_un *)&b->ss;
    size_t len = unix_name_len(a);
    return len == unix_name_len(b) && memcmp(un_a->sun_path, un_b->sun_path, len) == 0;
}

static void unix_unnamed(struct gyre_addr *out)
{
    *out = (struct gyre_addr){.len = offsetof(struct sockaddr_un, sun_path)};
    out->ss.ss_family = AF_UNIX;
}

/* Whether the address is whole and of the socket's family. Returns 0 or -errno. */
int gyre__sim_check_addr(const struct sim_sock *s, const struct sockaddr *addr, socklen_t len)
{
    size_t least = s->family == AF_INET    ? sizeof(struct sockaddr_in)
                   : s->family == AF_INET6 ? sizeof(struct sockaddr_in6)
                                           : offsetof(struct sockaddr_un, sun_path) + 1;
    if (len < least || len > sizeof(struct sockaddr_storage))
        return -EINVAL;
    if (s->family == AF_UNIX && len > sizeof(struct sockaddr_un))
        return -EINVAL;
    return addr->sa_family == s->family ? 0 : -EAFNOSUPPORT;
}

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
    struct sim_sock **fds = gyre__resize(sim->mem, sim->fds, cap * sizeof(struct sim_sock *));
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

static bool conflicts(const struct sim_sock *l, const struct sim_sock *s, const struct gyre_addr *addr, bool v6_only)
{
    if ((l->family == AF_UNIX) != (addr->ss.ss_family == AF_UNIX))
        return false;
    if (l->family == AF_UNIX)
        return same_unix_name(&l->local, addr);
    struct inet a = inet_of(&l->local);
    struct inet b = inet_of(addr);
    if (a.port != b.port || (l->share && s->share))
        return false;
    if (!a.any && !b.any)
        return memcmp(a.host, b.host, sizeof a.host) == 0;
    if (a.v4 == b.v4)
        return true;
    /* One of each family: they meet if the IPv6 one is for all addresses of both. */
    return a.v4 ? b.any && !v6_only : a.any && !l->v6_only;
}

static bool in_use(const struct sim_sock *s, const struct gyre_addr *addr, bool v6_only)
{
    for (const struct sim_sock *d = s->dgram ? s->sim->socks : NULL; d != NULL; d = d->next)
        if (d->dgram && d->bound && d != s && conflicts(d, s, addr, v6_only))
            return true;
    if (s->dgram)
        return false;
    for (const struct sim_sock *l = s->sim->listeners; l != NULL; l = l->listener_next)
        if (conflicts(l, s, addr, v6_only))
            return true;
    return false;
}

static in_port_t next_port(struct gyre_sim *sim)
{
    uint16_t port = sim->port_next;
    sim->port_next = port == PORT_LAST ? PORT_FIRST : (uint16_t)(port + 1);
    return htons(port);
}

/* A port that nobody listens on, at the host of `addr`. */
static int choose_port(struct sim_sock *s, struct gyre_addr *addr, bool v6_only)
{
    bool share = s->share;
    s->share = false;
    for (int i = PORT_FIRST; i <= PORT_LAST; i++) {
        set_port(addr, next_port(s->sim));
        if (!in_use(s, addr, v6_only)) {
            s->share = share;
            return 0;
        }
    }
    s->share = share;
    return -EADDRINUSE;
}

int gyre__sim_choose(struct sim_sock *s, struct gyre_addr *addr)
{
    int err = gyre__sim_check_addr(s, (const struct sockaddr *)&addr->ss, addr->len);
    if (err != 0)
        return err;
    if (s->family != AF_UNIX && inet_of(addr).port == 0)
        return choose_port(s, addr, s->v6_only);
    return in_use(s, addr, s->v6_only) ? -EADDRINUSE : 0;
}

bool gyre__sim_same_address(const struct gyre_addr *a, const struct gyre_addr *b)
{
    if ((a->ss.ss_family == AF_UNIX) != (b->ss.ss_family == AF_UNIX))
        return false;
    if (a->ss.ss_family == AF_UNIX)
        return same_unix_name(a, b);
    struct inet x = inet_of(a), y = inet_of(b);
    return x.port == y.port && memcmp(x.host, y.host, sizeof x.host) == 0;
}

int gyre__sim_listen(struct sim_sock *s, const struct gyre_addr *addr, const struct gyre_listen_config *cfg)
{
    struct gyre_addr local = *addr;
    if (s->state != SIM_FRESH)
        return -EINVAL;
    int err = gyre__sim_check_addr(s, (const struct sockaddr *)&addr->ss, addr->len);
    if (err != 0)
        return err;
    s->share = cfg->share;
    bool choose = s->family != AF_UNIX && inet_of(addr).port == 0;
    if (choose)
        err = choose_port(s, &local, cfg->v6_only);
    else if (in_use(s, addr, cfg->v6_only))
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

/* 0: does not serve that address; 1: as one of many; 2: as its own. */
int gyre__sim_serves(const struct sim_sock *l, const struct gyre_addr *addr)
{
    if ((l->family == AF_UNIX) != (addr->ss.ss_family == AF_UNIX))
        return 0;
    if (l->family == AF_UNIX)
        return same_unix_name(&l->local, addr) ? 2 : 0;
    struct inet a = inet_of(&l->local);
    struct inet b = inet_of(addr);
    if (a.port != b.port)
        return 0;
    if (memcmp(a.host, b.host, sizeof a.host) == 0)
        return 2;
    return a.any && (a.v4 == b.v4 || (b.v4 && !l->v6_only)) ? 1 : 0;
}

/* Of those that serve the address best, any one. */
static struct sim_sock *find_listener(struct gyre_sim *sim, const struct gyre_addr *addr)
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

static void enqueue(struct sim_sock *listener, struct sim_sock *s)
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
    enqueue(listener, other);
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

int gyre__sim_bind(struct sim_sock *s, const struct gyre_addr *addr, in_port_t port_last)
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
    struct inet own = inet_of(&s->local), peer = inet_of(&s->remote);
    for (const struct sim_sock *o = s->sim->socks; o != NULL; o = o->next) {
        if (o == s || o->family == AF_UNIX || (o->state != SIM_CONNECTING && o->state != SIM_CONNECTED))
            continue;
        struct inet other = inet_of(&o->local), to = inet_of(&o->remote);
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
        set_port(&s->local, next_port(s->sim));
        return 0;
    }
    in_port_t first = ntohs(inet_of(&s->local).port), last = s->port_last != 0 ? s->port_last : first;
    if (inet_of(&s->local).any) {
        s->local = s->remote;
        set_port(&s->local, htons(first));
    }
    if (first == 0) {
        set_port(&s->local, next_port(s->sim));
        return 0;
    }
    for (uint32_t port = first; port <= last; port++) {
        set_port(&s->local, htons((in_port_t)port));
        if (!pair_in_use(s, htons((in_port_t)port)))
            return 0;
    }
    return -EADDRNOTAVAIL;
}

int gyre__sim_connect(struct sim_sock *s, const struct sockaddr *addr, socklen_t len)
{
    struct gyre_sim *sim = s->sim;
    if (s->state == SIM_CONNECTING)
        return -EALREADY;
    if (s->state != SIM_FRESH)
        return s->family == AF_UNIX && s->state == SIM_LISTENING ? -EINVAL : -EISCONN;
    int err = gyre__sim_check_addr(s, addr, len);
    if (err != 0)
        return err;
    s->remote = (struct gyre_addr){.len = len};
    memcpy(&s->remote.ss, addr, len);
    if (s->family == AF_UNIX) {
        unix_unnamed(&s->local);
    } else {
        any_to_loopback(&s->remote);
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
