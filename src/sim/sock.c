/* SPDX-License-Identifier: MIT
 * The socket operations of core, on descriptors of the simulation. */
#include "world.h"

#include <errno.h>
#include <stddef.h>
#include <netinet/in.h>
#include <sys/un.h>

static struct sim_sock *find(struct gyre__backend *be, int fd)
{
    return gyre__sim_fd_find(((struct sim_backend *)be)->sim, fd);
}

static int new_sock(struct gyre__backend *be, int family, bool dgram)
{
    struct gyre_sim *sim = ((struct sim_backend *)be)->sim;
    if (family != AF_INET && family != AF_INET6 && family != AF_UNIX)
        return -EAFNOSUPPORT;
    struct sim_sock *s = gyre__sim_sock_create(sim, family);
    if (s == NULL)
        return -ENOMEM;
    s->dgram = dgram;
    s->local.len = family == AF_INET    ? sizeof(struct sockaddr_in)
                   : family == AF_INET6 ? sizeof(struct sockaddr_in6)
                                        : offsetof(struct sockaddr_un, sun_path);
    s->local.ss.ss_family = (sa_family_t)family;
    int fd = gyre__sim_fd_install(s);
    if (fd < 0)
        gyre__sim_sock_destroy(s);
    return fd;
}

static int sock_open(struct gyre__backend *be, int family)
{
    return new_sock(be, family, false);
}

static int sock_listen(struct gyre__backend *be, int fd, const struct gyre__addr *addr,
                       const struct gyre__listen_config *cfg)
{
    struct sim_sock *s = find(be, fd);
    return s != NULL ? gyre__sim_listen(s, addr, cfg) : -EBADF;
}

static int sock_bind(struct gyre__backend *be, int fd, const struct gyre__addr *addr, in_port_t port_last)
{
    struct sim_sock *s = find(be, fd);
    return s != NULL ? gyre__sim_bind(s, addr, port_last) : -EBADF;
}

static int sock_inspect(struct gyre__backend *be, int fd, struct gyre__sock_info *out)
{
    const struct sim_sock *s = find(be, fd);
    if (s == NULL)
        return -ENOTSOCK;
    *out = (struct gyre__sock_info){.family = s->family,
                                    .stream = !s->dgram,
                                    .dgram = s->dgram,
                                    .dual = s->family == AF_INET6 && !s->v6_only,
                                    .listening = s->state == SIM_LISTENING,
                                    .connected = s->state == SIM_CONNECTED || (s->dgram && s->dgram_connected)};
    return 0;
}

/* A descriptor of the simulation has one owner. */
static int sock_dup(struct gyre__backend *be, int fd)
{
    (void)be;
    (void)fd;
    return -EOPNOTSUPP;
}

static int sock_device(struct gyre__backend *be, int fd, const char *name)
{
    (void)name;
    return find(be, fd) != NULL ? -EOPNOTSUPP : -EBADF;
}

static int sock_shutdown(struct gyre__backend *be, int fd)
{
    struct sim_sock *s = find(be, fd);
    return s != NULL ? gyre__sim_shutdown(s) : -EBADF;
}

static int sock_set_nodelay(struct gyre__backend *be, int fd)
{
    struct sim_sock *s = find(be, fd);
    if (s == NULL)
        return -EBADF;
    if (s->family == AF_UNIX)
        return -EOPNOTSUPP;
    s->options[GYRE_SOCKOPT_NODELAY] = 1;
    return 0;
}

static int sock_set_reset(struct gyre__backend *be, int fd)
{
    struct sim_sock *s = find(be, fd);
    if (s == NULL)
        return -EBADF;
    s->reset_on_close = true;
    return 0;
}

static int sock_name(struct gyre__backend *be, int fd, bool peer, struct gyre__addr *out)
{
    struct sim_sock *s = find(be, fd);
    if (s == NULL)
        return -EBADF;
    if (!peer) {
        *out = s->local;
        return 0;
    }
    if (s->dgram && s->dgram_connected) {
        *out = s->remote;
        return 0;
    }
    /* Of TCP also while it connects, and when it is over: what Linux can tell (SO_PEERNAME). */
    if (s->dgram || (s->family == AF_UNIX ? s->state != SIM_CONNECTED : s->remote.len == 0))
        return -ENOTCONN;
    *out = s->remote;
    return 0;
}

static int sock_error(struct gyre__backend *be, int fd)
{
    struct sim_sock *s = find(be, fd);
    int err = s != NULL ? s->err : -EBADF;
    if (s != NULL)
        s->err = 0;
    return err;
}

static int64_t sock_unacked(struct gyre__backend *be, int fd)
{
    struct sim_sock *s = find(be, fd);
    return s != NULL && s->state == SIM_CONNECTED ? (int64_t)gyre__sim_stream_unacked(s) : 0;
}

static int64_t sock_try_send(struct gyre__backend *be, int fd, const void *data, size_t len)
{
    struct sim_sock *s = find(be, fd);
    if (s == NULL)
        return -EBADF;
    struct gyre_sim *sim = s->sim;
    int err = gyre__sim_send_err(s);
    if (err != 0)
        return err;
    uint32_t room = gyre__sim_stream_room(s), n = len < room ? (uint32_t)len : room;
    if (n > 1 && gyre__sim_chance(sim, sim->opt.send_short_permille)) {
        sim->counts.sends_short++;
        n = 1 + (uint32_t)gyre__sim_below(sim, n - 1);
    }
    if (n == 0)
        return -EAGAIN;
    gyre__sim_stream_put(s, data, n);
    gyre__sim_stream_flush(s);
    return n;
}

static void sock_close(struct gyre__backend *be, int fd)
{
    struct sim_sock *s = find(be, fd);
    if (s == NULL)
        return;
    GYRE_CHECK(s->f == NULL); /* an attached descriptor is the backend's to close */
    gyre__sim_sock_close(s);
}

/* ---- datagrams ---- */

static int dgram_open(struct gyre__backend *be, int family)
{
    return new_sock(be, family, true);
}

static int dgram_bind(struct gyre__backend *be, int fd, const struct gyre__addr *addr, uint32_t unix_mode)
{
    struct sim_sock *s = find(be, fd);
    (void)unix_mode;
    return s != NULL ? gyre__sim_dgram_bind(s, addr) : -EBADF;
}

static int dgram_connect(struct gyre__backend *be, int fd, const struct gyre__addr *addr)
{
    struct sim_sock *s = find(be, fd);
    return s != NULL ? gyre__sim_dgram_connect(s, addr) : -EBADF;
}

/* Those that change nothing here are taken; those that would have to change something are not there. */
static int dgram_set(struct gyre__backend *be, int fd, int family, enum gyre__sock_option option, int value)
{
    struct sim_sock *s = find(be, fd);
    if (s == NULL)
        return -EBADF;
    switch (option) {
    case GYRE_SOCK_SHARE_PORT:
        s->share = value != 0;
        return 0;
    case GYRE_SOCK_V6_ONLY:
        s->v6_only = value != 0;
        return 0;
    case GYRE_SOCK_RECV_BUF:
    case GYRE_SOCK_SEND_BUF:
    case GYRE_SOCK_REUSE_ADDRESS:
    case GYRE_SOCK_BROADCAST:
        return 0;
    case GYRE_SOCK_TTL:
    case GYRE_SOCK_TRAFFIC_CLASS:
    case GYRE_SOCK_MULTICAST_TTL:
    case GYRE_SOCK_MULTICAST_LOOP:
        return family == AF_UNIX ? -EOPNOTSUPP : 0;
    case GYRE_SOCK_MULTICAST_INTERFACE:
    case GYRE_SOCK_PKTINFO:
    case GYRE_SOCK_ECN:
    case GYRE_SOCK_GRO:
    case GYRE_SOCK_GSO:
        break;
    }
    return -EOPNOTSUPP;
}

static int dgram_member(struct gyre__backend *be, int fd, const struct gyre__addr *group, uint32_t interface, bool join)
{
    (void)group;
    (void)interface;
    (void)join;
    return find(be, fd) != NULL ? -EOPNOTSUPP : -EBADF;
}

static int64_t dgram_drops(struct gyre__backend *be, int fd)
{
    struct sim_sock *s = find(be, fd);
    return s != NULL ? (int64_t)s->drops : 0;
}

const struct gyre__sock_ops gyre__sock_sim = {
    .open = sock_open,
    .listen = sock_listen,
    .bind = sock_bind,
    .inspect = sock_inspect,
    .dup = sock_dup,
    .device = sock_device,
    .shutdown = sock_shutdown,
    .set_nodelay = sock_set_nodelay,
    .set_reset = sock_set_reset,
    .name = sock_name,
    .try_send = sock_try_send,
    .unacked = sock_unacked,
    .error = sock_error,
    .close = sock_close,
    .options = &gyre__sockopt_sim,
    .dgram_open = dgram_open,
    .dgram_bind = dgram_bind,
    .dgram_connect = dgram_connect,
    .dgram_set = dgram_set,
    .dgram_member = dgram_member,
    .dgram_drops = dgram_drops,
};
