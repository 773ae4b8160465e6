/* SPDX-License-Identifier: MIT
 * Opening datagram sockets: bound, connected, one for each loop of an engine, from elsewhere; multicast groups.
 *
 * What can go wrong on the way is returned, and what was opened is closed again; what came from elsewhere is not. */
#include "udp.h"
#include "base/options.h"
#include "base/refuse.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>
#include <sys/un.h>

enum {
    QUEUE_BYTES_DEFAULT = 1 << 20,
    QUEUE_BYTES_MAX = 1 << 30,
    QUEUE_COUNT_DEFAULT = 1024,
    QUEUE_COUNT_MAX = 1 << 20,
    UNIX_MODE_MAX = 0777,
};

static const int64_t linger_default_ns = INT64_C(1000000000);

/* What opening has been asked to do. */
struct plan {
    struct gyre__address address; /* zero for a socket that comes from elsewhere */
    struct gyre__address local; /* of a connected one */
    bool has_local;
    struct gyre_udp_options options;
    const struct gyre_udp_handlers *handlers;
};

/* ---- options ---- */

static int complete(struct gyre_udp_options *o)
{
    if (o->send_queue_max_bytes == 0)
        o->send_queue_max_bytes = QUEUE_BYTES_DEFAULT;
    if (o->send_queue_max_count == 0)
        o->send_queue_max_count = QUEUE_COUNT_DEFAULT;
    if (o->linger_timeout_ns == 0)
        o->linger_timeout_ns = linger_default_ns;
    const struct gyre__range ranges[] = {
        {"send_queue_max_bytes", o->send_queue_max_bytes, 1, QUEUE_BYTES_MAX},
        {"send_queue_max_count", o->send_queue_max_count, 1, QUEUE_COUNT_MAX},
        {"linger_timeout_ns", o->linger_timeout_ns, 0, INT64_MAX},
        {"unix_mode", o->unix_mode, 0, UNIX_MODE_MAX},
        {"recv_buffer_bytes", o->recv_buffer_bytes, 0, INT32_MAX},
        {"send_buffer_bytes", o->send_buffer_bytes, 0, INT32_MAX},
        {"multicast_interface", o->multicast_interface, 0, INT32_MAX},
        {"gro", (int)o->gro, 0, GYRE_UDP_GRO_WHOLE},
    };
    return gyre__check_ranges(ranges, sizeof ranges / sizeof ranges[0]);
}

static int make_plan(struct plan *plan, const struct gyre_loop *l, const char *address,
                     const struct gyre_udp_handlers *handlers, const struct gyre_udp_options *options, size_t size)
{
    *plan = (struct plan){.handlers = handlers};
    struct gyre_udp_options *o = &plan->options;
    int err = address != NULL ? gyre__addr_parse_dgram(&plan->address, address) : 0;
    if (err == 0)
        err = gyre__options_copy(o, sizeof *o, options, size);
    if (err == 0)
        err = complete(o);
    if (err == 0 && o->source_address != NULL) {
        plan->has_local = true;
        err = gyre__addr_parse_dgram(&plan->local, o->source_address);
    }
    if (err != 0)
        return err;
    if (handlers == NULL || handlers->on_datagram == NULL)
        return GYRE_EHANDLERS;
    if (o->gro != GYRE_UDP_GRO_OFF && l->pool.size < GYRE_UDP_GRO_BUF_MIN)
        return gyre__refuse("gro needs buf_size_bytes of at least %u; the loop has %u", (unsigned)GYRE_UDP_GRO_BUF_MIN,
                            (unsigned)l->pool.size);
    return 0;
}

static int refuse_source(void)
{
    return gyre__refuse("source_address is set; it is for gyre_udp_connect() only");
}

static int set(struct gyre_loop *l, int fd, int family, enum gyre__sock_option option, int value)
{
    return l->be->ops->sock->dgram_set(l->be, fd, family, option, value);
}

/* Those that are to be set, each with the value it then has. */
static int set_options(struct gyre_loop *l, int fd, int family, const struct gyre_udp_options *o)
{
    const struct {
        bool wanted;
        enum gyre__sock_option option;
        int value;
    } all[] = {
        {o->recv_buffer_bytes != 0, GYRE_SOCK_RECV_BUF, (int)o->recv_buffer_bytes},
        {o->send_buffer_bytes != 0, GYRE_SOCK_SEND_BUF, (int)o->send_buffer_bytes},
        {o->share_port, GYRE_SOCK_SHARE_PORT, 1},
        {o->reuse_address, GYRE_SOCK_REUSE_ADDRESS, 1},
        {o->broadcast, GYRE_SOCK_BROADCAST, 1},
        {o->ttl != 0, GYRE_SOCK_TTL, o->ttl},
        {o->multicast_ttl != 0, GYRE_SOCK_MULTICAST_TTL, o->multicast_ttl},
        {o->traffic_class != 0, GYRE_SOCK_TRAFFIC_CLASS, o->traffic_class},
        {o->no_multicast_loop, GYRE_SOCK_MULTICAST_LOOP, 0},
        {o->multicast_interface != 0, GYRE_SOCK_MULTICAST_INTERFACE, (int)o->multicast_interface},
        {o->pktinfo, GYRE_SOCK_PKTINFO, 1},
        {o->ecn, GYRE_SOCK_ECN, 1},
        {o->gro != GYRE_UDP_GRO_OFF, GYRE_SOCK_GRO, 1},
    };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        int err = all[i].wanted ? set(l, fd, family, all[i].option, all[i].value) : 0;
        if (err != 0)
            return err;
    }
    return o->device != NULL ? l->be->ops->sock->device(l->be, fd, o->device) : 0;
}

/* ---- multicast ---- */

static bool is_group(const struct gyre__addr *addr)
{
    if (addr->ss.ss_family == AF_INET6)
        return IN6_IS_ADDR_MULTICAST(&((const struct sockaddr_in6 *)&addr->ss)->sin6_addr);
    return addr->ss.ss_family == AF_INET &&
           IN_MULTICAST(ntohl(((const struct sockaddr_in *)&addr->ss)->sin_addr.s_addr));
}

static int member(struct gyre_udp *u, const struct sockaddr *group, socklen_t len, uint32_t interface, bool join)
{
    struct gyre__addr addr = {.len = len};
    int err = gyre__udp_usable(u);
    if (err != 0)
        return err;
    if (u->family == AF_UNIX)
        return -EOPNOTSUPP;
    if (group == NULL || len < sizeof(struct sockaddr_in) || len > sizeof addr.ss)
        return GYRE_EADDRESS;
    memcpy(&addr.ss, group, len);
    if (addr.ss.ss_family != u->family && !(addr.ss.ss_family == AF_INET && (u->flags & GYRE_UDPF_DUAL)))
        return -EAFNOSUPPORT;
    if ((addr.ss.ss_family == AF_INET6 && len < sizeof(struct sockaddr_in6)) || !is_group(&addr))
        return GYRE_EADDRESS;
    return u->loop->be->ops->sock->dgram_member(u->loop->be, u->f.fd, &addr, interface, join);
}

int gyre_udp_join(struct gyre_udp *u, const struct sockaddr *group, socklen_t group_len, uint32_t interface)
{
    return member(u, group, group_len, interface, true);
}

int gyre_udp_leave(struct gyre_udp *u, const struct sockaddr *group, socklen_t group_len, uint32_t interface)
{
    return member(u, group, group_len, interface, false);
}

/* ---- opening ---- */

/* On failure `fd` stays the caller's. */
static int wrap(struct gyre_udp **out, struct gyre_loop *l, int fd, int family, bool dual, const struct plan *plan)
{
    const struct gyre_udp_options *o = &plan->options;
    bool control = o->pktinfo || o->ecn || o->gro != GYRE_UDP_GRO_OFF;
    const struct msghdr room = {.msg_namelen = family == AF_UNIX ? GYRE_UDP_UNIX_NAME_ROOM : GYRE_UDP_NAME_ROOM,
                                .msg_controllen = control ? GYRE_UDP_CONTROL_ROOM : 0};
    if (gyre__dgram_overhead(&room) >= l->pool.size)
        return gyre__refuse("buf_size_bytes of the loop is %u; a datagram's address and control data take %u",
                            (unsigned)l->pool.size, (unsigned)gyre__dgram_overhead(&room));
    int err = gyre__udp_new(out, l, fd, family, plan->handlers, o);
    if (err != 0)
        return err;
    (*out)->room = room;
    if (dual)
        (*out)->flags |= GYRE_UDPF_DUAL;
    return 0;
}

/* A socket with its options set, not yet bound. */
static int make_socket(struct gyre_udp **out, struct gyre_loop *l, const struct plan *plan, int family)
{
    const struct gyre__sock_ops *sock = l->be->ops->sock;
    bool dual = family == AF_INET6 && !plan->address.v6_only;
    int fd = sock->dgram_open(l->be, family);
    if (fd < 0)
        return fd;
    int err = family == AF_INET6 ? set(l, fd, family, GYRE_SOCK_V6_ONLY, !dual) : 0;
    if (err == 0)
        err = set_options(l, fd, family, &plan->options);
    if (err == 0)
        err = wrap(out, l, fd, family, dual, plan);
    if (err != 0)
        sock->close(l->be, fd);
    return err;
}

static int bind_to(struct gyre_udp *u, const struct gyre__addr *addr)
{
    struct gyre__backend *be = u->loop->be;
    int err = be->ops->sock->dgram_bind(be, u->f.fd, addr, u->options.unix_mode);
    if (err == 0)
        err = be->ops->sock->name(be, u->f.fd, false, &u->addr);
    if (err != 0)
        return err;
    gyre__path_remember(&u->path, u->loop->be, &u->addr);
    gyre__addr_format_dgram(&u->addr, u->address, sizeof u->address);
    if (!is_group(addr))
        return 0;
    return be->ops->sock->dgram_member(be, u->f.fd, addr, u->options.multicast_interface, true);
}

static int open_bound(struct gyre_udp **out, struct gyre_loop *l, const struct plan *plan,
                      const struct gyre__addr *addr)
{
    struct gyre_udp *u;
    int err = make_socket(&u, l, plan, addr->ss.ss_family);
    if (err != 0)
        return err;
    err = bind_to(u, addr);
    if (err != 0) {
        gyre__udp_discard(u);
        return err;
    }
    *out = u;
    return 0;
}

/* Every address of both families; without IPv6 on this machine, of IPv4. */
static int open_any(struct gyre_udp **out, struct gyre_loop *l, const struct plan *plan)
{
    int err = open_bound(out, l, plan, &plan->address.addr);
    if (err != -EAFNOSUPPORT || !plan->address.any_host)
        return err;
    struct gyre__addr addr = gyre__addr_any_v4(&plan->address.addr);
    return open_bound(out, l, plan, &addr);
}

/* The other side of a unix socket needs a name to answer to; where the system does not give one, it goes without. */
static int bind_before_connect(struct gyre_udp *u, const struct plan *plan)
{
    struct gyre__addr unnamed = {.len = offsetof(struct sockaddr_un, sun_path)};
    if (plan->has_local)
        return plan->local.addr.ss.ss_family == u->family ? bind_to(u, &plan->local.addr) : -EAFNOSUPPORT;
    if (u->family == AF_UNIX) {
        unnamed.ss.ss_family = AF_UNIX;
        (void)bind_to(u, &unnamed);
    }
    return 0;
}

static int open_connected(struct gyre_udp **out, struct gyre_loop *l, const struct plan *plan)
{
    struct gyre_udp *u;
    struct gyre__backend *be = l->be;
    const struct gyre__addr *addr = &plan->address.addr;
    int err = make_socket(&u, l, plan, addr->ss.ss_family);
    if (err != 0)
        return err;
    err = bind_before_connect(u, plan);
    if (err == 0)
        err = be->ops->sock->dgram_connect(be, u->f.fd, addr);
    if (err == 0)
        err = be->ops->sock->name(be, u->f.fd, false, &u->addr);
    if (err != 0) {
        gyre__udp_discard(u);
        return err;
    }
    gyre__addr_format_dgram(&u->addr, u->address, sizeof u->address);
    u->flags |= GYRE_UDPF_CONNECTED;
    *out = u;
    return 0;
}

static int check_loop(const struct gyre_loop *l, bool complete)
{
    if (l == NULL || !complete)
        return -EINVAL;
    if (!gyre__loop_allows(l))
        return GYRE_ETHREAD;
    return l->phase == GYRE_PHASE_SERVING ? 0 : GYRE_ESHUTDOWN;
}

int gyre_udp_open_sized(struct gyre_udp **out, struct gyre_loop *l, const char *address,
                        const struct gyre_udp_handlers *handlers, const struct gyre_udp_options *options,
                        size_t size_bytes)
{
    struct plan plan;
    struct gyre_udp *u;
    int err = check_loop(l, address != NULL);
    if (err == 0)
        err = make_plan(&plan, l, address, handlers, options, size_bytes);
    if (err == 0)
        err = plan.has_local ? refuse_source() : open_any(&u, l, &plan);
    if (err != 0)
        return err;
    gyre__udp_update_recv(u);
    if (out != NULL)
        *out = u;
    return 0;
}

int gyre_udp_connect_sized(struct gyre_udp **out, struct gyre_loop *l, const char *address,
                           const struct gyre_udp_handlers *handlers, const struct gyre_udp_options *options,
                           size_t size_bytes)
{
    struct plan plan;
    struct gyre_udp *u;
    int err = check_loop(l, address != NULL);
    if (err == 0)
        err = make_plan(&plan, l, address, handlers, options, size_bytes);
    if (err == 0)
        err = open_connected(&u, l, &plan);
    if (err != 0)
        return err;
    gyre__udp_update_recv(u);
    if (out != NULL)
        *out = u;
    return 0;
}

/* ---- from elsewhere ---- */

/* Whether the descriptor is one that a socket can be made of. */
static int inspect(struct gyre_loop *l, int fd, struct gyre__sock_info *info)
{
    int err = gyre__addr_inspect(l->be, fd, info);
    return err == 0 && !info->dgram ? GYRE_ESOCKTYPE : err;
}

/* Whoever had it may have asked the kernel to join and to cut, of which a socket that did not ask is not told. */
static void undo_segments(struct gyre_loop *l, int fd, const struct gyre__sock_info *info, const struct plan *plan)
{
    if (info->family == AF_UNIX)
        return;
    (void)set(l, fd, info->family, GYRE_SOCK_GSO, 0);
    if (plan->options.gro == GYRE_UDP_GRO_OFF)
        (void)set(l, fd, info->family, GYRE_SOCK_GRO, 0);
}

/* On failure `fd` stays the caller's. */
static int adopt(struct gyre_udp **out, struct gyre_loop *l, int fd, struct plan *plan)
{
    struct gyre__sock_info info;
    struct gyre__addr addr;
    plan->options.share_port = plan->options.reuse_address = false; /* of no use any more */
    int err = inspect(l, fd, &info);
    if (err == 0)
        err = l->be->ops->sock->name(l->be, fd, false, &addr);
    if (err == 0)
        err = set_options(l, fd, info.family, &plan->options);
    if (err == 0)
        err = wrap(out, l, fd, info.family, info.dual, plan);
    if (err != 0)
        return err;
    undo_segments(l, fd, &info, plan);
    struct gyre_udp *u = *out;
    u->addr = addr;
    gyre__addr_format_dgram(&u->addr, u->address, sizeof u->address);
    if (info.connected)
        u->flags |= GYRE_UDPF_CONNECTED;
    return 0;
}

int gyre_udp_adopt_fd_sized(struct gyre_udp **out, struct gyre_loop *l, int fd,
                            const struct gyre_udp_handlers *handlers, const struct gyre_udp_options *options,
                            size_t size_bytes)
{
    struct plan plan;
    struct gyre_udp *u;
    int err = check_loop(l, true);
    if (err == 0)
        err = make_plan(&plan, l, NULL, handlers, options, size_bytes);
    if (err == 0)
        err = plan.has_local ? refuse_source() : adopt(&u, l, fd, &plan);
    if (err != 0)
        return err;
    gyre__udp_update_recv(u);
    if (out != NULL)
        *out = u;
    return 0;
}

int gyre_udp_parse(struct sockaddr_storage *out, socklen_t *out_len, const char *address)
{
    struct gyre__address parsed;
    int err = out == NULL || out_len == NULL ? -EINVAL : gyre__addr_parse_dgram(&parsed, address);
    if (err != 0)
        return err;
    *out = parsed.addr.ss;
    *out_len = parsed.addr.len;
    return 0;
}

/* ---- one for each loop ---- */

/* The first one is bound before SO_REUSEPORT is set on it, so that a port another process has is refused. */
static int open_on_each(struct gyre_udp **opened, struct gyre_loop *const *loops, uint32_t count, struct plan *plan)
{
    bool shared = plan->options.share_port;
    for (uint32_t i = 0; i < count; i++) {
        plan->options.share_port = shared || i > 0;
        int err = i == 0 ? open_any(&opened[0], loops[0], plan)
                         : open_bound(&opened[i], loops[i], plan, &opened[0]->addr);
        if (err == 0 && i == 0 && count > 1 && !shared)
            err = set(loops[0], opened[0]->f.fd, opened[0]->family, GYRE_SOCK_SHARE_PORT, 1);
        if (err == 0)
            continue;
        for (uint32_t k = 0; k <= i; k++)
            if (opened[k] != NULL)
                gyre__udp_discard(opened[k]);
        return err;
    }
    return 0;
}

int gyre__udp_listen(struct gyre_udp_id *ids, struct gyre_loop *const *loops, uint32_t loop_count, const char *address,
                     const struct gyre_udp_handlers *handlers, const struct gyre_udp_options *options,
                     size_t size_bytes)
{
    struct plan plan;
    const struct gyre_mem *mem = loops[0]->mem;
    int err = make_plan(&plan, loops[0], address, handlers, options, size_bytes);
    if (err == 0 && plan.has_local)
        err = refuse_source();
    if (err != 0)
        return err;
    uint32_t count = gyre__addr_is_unix(&plan.address.addr) ? 1 : loop_count;
    struct gyre_udp **opened = gyre__alloc_many(mem, count, sizeof(struct gyre_udp *));
    if (opened == NULL)
        return -ENOMEM;
    err = open_on_each(opened, loops, count, &plan);
    for (uint32_t i = 0; err == 0 && i < count; i++)
        gyre__udp_update_recv(opened[i]);
    for (uint32_t i = 0; err == 0 && ids != NULL && i < loop_count; i++)
        ids[i] = i < count ? gyre_udp_id_of(opened[i]) : (struct gyre_udp_id){.loop = NULL};
    gyre__free(mem, opened);
    return err;
}

/* ---- names across threads ---- */

struct gyre_udp_id gyre_udp_id_of(const struct gyre_udp *u)
{
    return (struct gyre_udp_id){.loop = u->loop, .slot = u->slot, .generation = u->generation};
}
