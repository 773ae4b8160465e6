/* SPDX-License-Identifier: MIT
 * Options of the kernel's sockets: which number of the system's each of ours has, and the few that are no integer.
 *
 * A row that the system lacks stays empty, which is -EOPNOTSUPP. So is what a kernel answers for an option that the
 * kind of socket, or that kernel, does not know. */
#include "seam/backend.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>

struct row {
    int level;
    int name;
};

static const struct row rows[GYRE_SOCKOPT_END] = {
    [GYRE_SOCKOPT_NODELAY] = {IPPROTO_TCP, TCP_NODELAY},
#ifdef TCP_QUICKACK
    [GYRE_SOCKOPT_QUICKACK] = {IPPROTO_TCP, TCP_QUICKACK},
#endif
#ifdef TCP_CORK
    [GYRE_SOCKOPT_CORK] = {IPPROTO_TCP, TCP_CORK},
#endif
#ifdef TCP_NOTSENT_LOWAT
    [GYRE_SOCKOPT_NOTSENT_LOWAT_BYTES] = {IPPROTO_TCP, TCP_NOTSENT_LOWAT},
#endif
#ifdef TCP_USER_TIMEOUT
    [GYRE_SOCKOPT_USER_TIMEOUT_MS] = {IPPROTO_TCP, TCP_USER_TIMEOUT},
#endif
    [GYRE_SOCKOPT_MAX_SEGMENT_BYTES] = {IPPROTO_TCP, TCP_MAXSEG},
    [GYRE_SOCKOPT_KEEPALIVE] = {SOL_SOCKET, SO_KEEPALIVE},
#ifdef TCP_KEEPIDLE
    [GYRE_SOCKOPT_KEEPALIVE_IDLE_S] = {IPPROTO_TCP, TCP_KEEPIDLE},
#elif defined(TCP_KEEPALIVE)
    [GYRE_SOCKOPT_KEEPALIVE_IDLE_S] = {IPPROTO_TCP, TCP_KEEPALIVE},
#endif
#ifdef TCP_KEEPINTVL
    [GYRE_SOCKOPT_KEEPALIVE_INTERVAL_S] = {IPPROTO_TCP, TCP_KEEPINTVL},
    [GYRE_SOCKOPT_KEEPALIVE_COUNT] = {IPPROTO_TCP, TCP_KEEPCNT},
#endif
    [GYRE_SOCKOPT_LINGER_S] = {SOL_SOCKET, SO_LINGER},
    [GYRE_SOCKOPT_RECV_BUFFER_BYTES] = {SOL_SOCKET, SO_RCVBUF},
    [GYRE_SOCKOPT_SEND_BUFFER_BYTES] = {SOL_SOCKET, SO_SNDBUF},
#ifdef SO_PRIORITY
    [GYRE_SOCKOPT_PRIORITY] = {SOL_SOCKET, SO_PRIORITY},
#endif
#ifdef SO_MARK
    [GYRE_SOCKOPT_MARK] = {SOL_SOCKET, SO_MARK},
#endif
    [GYRE_SOCKOPT_TRAFFIC_CLASS] = {IPPROTO_IP, IP_TOS},
#ifdef IP_TRANSPARENT
    [GYRE_SOCKOPT_TRANSPARENT] = {IPPROTO_IP, IP_TRANSPARENT},
#endif
#ifdef IP_FREEBIND
    [GYRE_SOCKOPT_FREEBIND] = {IPPROTO_IP, IP_FREEBIND},
#endif
#ifdef IP_BIND_ADDRESS_NO_PORT
    [GYRE_SOCKOPT_BIND_NO_PORT] = {IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT},
#endif
#ifdef SO_INCOMING_CPU
    [GYRE_SOCKOPT_INCOMING_CPU] = {SOL_SOCKET, SO_INCOMING_CPU},
#endif
#ifdef SO_BUSY_POLL
    [GYRE_SOCKOPT_BUSY_POLL_US] = {SOL_SOCKET, SO_BUSY_POLL},
#endif
#ifdef SO_PREFER_BUSY_POLL
    [GYRE_SOCKOPT_PREFER_BUSY_POLL] = {SOL_SOCKET, SO_PREFER_BUSY_POLL},
#endif
#ifdef SO_COOKIE
    [GYRE_SOCKOPT_COOKIE] = {SOL_SOCKET, SO_COOKIE},
#endif
};

static int family_of(int fd)
{
    struct sockaddr_storage ss = {.ss_family = AF_UNSPEC};
    socklen_t len = sizeof ss;
    return getsockname(fd, (struct sockaddr *)&ss, &len) == 0 ? ss.ss_family : -errno;
}

/* Whether a socket of that family can have the option at all; some kernels take what has no meaning. */
static bool suits(int family, enum gyre_sockopt option, int level)
{
    bool inet = family == AF_INET || family == AF_INET6;
    return inet || (level == SOL_SOCKET && option != GYRE_SOCKOPT_KEEPALIVE && option != GYRE_SOCKOPT_INCOMING_CPU &&
                    option != GYRE_SOCKOPT_BUSY_POLL_US && option != GYRE_SOCKOPT_PREFER_BUSY_POLL);
}

/* What the failed call said, unknown options made one. */
static int refusal(void)
{
    return errno == ENOPROTOOPT ? -EOPNOTSUPP : -errno;
}

static int row_of(int fd, enum gyre_sockopt option, struct row *out)
{
    *out = rows[option];
    if (out->name == 0)
        return -EOPNOTSUPP;
    int family = family_of(fd);
    if (family < 0)
        return family;
    if (!suits(family, option, out->level))
        return -EOPNOTSUPP;
    if (option == GYRE_SOCKOPT_TRAFFIC_CLASS && family == AF_INET6)
        *out = (struct row){IPPROTO_IPV6, IPV6_TCLASS};
    return 0;
}

static int set_linger(int fd, int64_t seconds)
{
    struct linger linger = {.l_onoff = seconds >= 0, .l_linger = 0};
    return setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger) == 0 ? 0 : refusal();
}

static int sockopt_set(struct gyre__backend *be, int fd, enum gyre_sockopt option, int64_t value)
{
    struct row row;
    int number = (int)value, err = row_of(fd, option, &row);
    (void)be;
    if (err != 0)
        return err;
    if (option == GYRE_SOCKOPT_LINGER_S)
        return set_linger(fd, value);
    if (option == GYRE_SOCKOPT_COOKIE)
        return -EOPNOTSUPP;
    if (setsockopt(fd, row.level, row.name, &number, sizeof number) != 0)
        return refusal();
    /* An IPv6 socket may talk IPv4, and has a second setting for that. */
    if (row.level == IPPROTO_IPV6)
        (void)setsockopt(fd, IPPROTO_IP, IP_TOS, &number, sizeof number);
    return 0;
}

static int get_linger(int fd, int64_t *out)
{
    struct linger linger;
    socklen_t len = sizeof linger;
    if (getsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, &len) != 0)
        return refusal();
    *out = linger.l_onoff != 0 ? linger.l_linger : -1;
    return 0;
}

static bool is_switch(enum gyre_sockopt option)
{
    return option == GYRE_SOCKOPT_NODELAY || option == GYRE_SOCKOPT_QUICKACK || option == GYRE_SOCKOPT_CORK ||
           option == GYRE_SOCKOPT_KEEPALIVE || option == GYRE_SOCKOPT_TRANSPARENT || option == GYRE_SOCKOPT_FREEBIND ||
           option == GYRE_SOCKOPT_BIND_NO_PORT || option == GYRE_SOCKOPT_PREFER_BUSY_POLL;
}

static int sockopt_get(struct gyre__backend *be, int fd, enum gyre_sockopt option, int64_t *out)
{
    union {
        int32_t narrow;
        int64_t wide; /* the cookie */
    } value = {.wide = 0};
    struct row row;
    int err = row_of(fd, option, &row);
    (void)be;
    if (err != 0)
        return err;
    if (option == GYRE_SOCKOPT_LINGER_S)
        return get_linger(fd, out);
    socklen_t len = option == GYRE_SOCKOPT_COOKIE ? sizeof value.wide : sizeof value.narrow;
    if (getsockopt(fd, row.level, row.name, &value, &len) != 0)
        return refusal();
    *out = option == GYRE_SOCKOPT_COOKIE ? value.wide
           : option == GYRE_SOCKOPT_MARK ? (int64_t)(uint32_t)value.narrow
                                         : value.narrow;
    if (is_switch(option))
        *out = *out != 0;
    return 0;
}

#ifdef TCP_CONGESTION
static int set_congestion(struct gyre__backend *be, int fd, const char *name)
{
    (void)be;
    int family = family_of(fd);
    if (family == AF_UNIX)
        return -EOPNOTSUPP;
    return setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name, (socklen_t)strlen(name)) == 0 ? 0 : refusal();
}

static int congestion(struct gyre__backend *be, int fd, char *out, size_t size)
{
    char name[17] = "";
    socklen_t len = sizeof name - 1;
    (void)be;
    if (getsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name, &len) != 0)
        return refusal();
    size_t needed = strlen(name) + 1;
    if (needed > size)
        return -ERANGE;
    memcpy(out, name, needed);
    return 0;
}
#else
static int set_congestion(struct gyre__backend *be, int fd, const char *name)
{
    (void)be;
    (void)fd;
    (void)name;
    return -EOPNOTSUPP;
}

static int congestion(struct gyre__backend *be, int fd, char *out, size_t size)
{
    (void)be;
    (void)fd;
    (void)out;
    (void)size;
    return -EOPNOTSUPP;
}
#endif

#if defined(TCP_INFO) && defined(__linux__)
static int tcp_info(struct gyre__backend *be, int fd, struct gyre_tcp_info *out)
{
    struct tcp_info info = {.tcpi_state = 0};
    socklen_t len = sizeof info;
    (void)be;
    if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) != 0)
        return refusal();
    *out = (struct gyre_tcp_info){
        .rtt_us = info.tcpi_rtt,
        .rtt_var_us = info.tcpi_rttvar,
        .rto_us = info.tcpi_rto,
        .segment_bytes = info.tcpi_snd_mss,
        .cwnd = info.tcpi_snd_cwnd,
        .ssthresh = info.tcpi_snd_ssthresh,
        .unacked = info.tcpi_unacked,
        .lost = info.tcpi_lost,
        .retransmits = info.tcpi_retransmits,
        .total_retransmits = info.tcpi_total_retrans,
        .last_recv_ms = info.tcpi_last_data_recv,
    };
    return 0;
}
#else
static int tcp_info(struct gyre__backend *be, int fd, struct gyre_tcp_info *out)
{
    (void)be;
    (void)fd;
    (void)out;
    return -EOPNOTSUPP;
}
#endif

#ifdef SO_PEERCRED
static int credentials(struct gyre__backend *be, int fd, struct gyre_credentials *out)
{
    struct ucred ucred;
    socklen_t len = sizeof ucred;
    (void)be;
    if (family_of(fd) != AF_UNIX) /* of a TCP socket Linux says that nobody is there */
        return -EOPNOTSUPP;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &ucred, &len) != 0)
        return refusal();
    *out = (struct gyre_credentials){.pid = ucred.pid, .uid = ucred.uid, .gid = ucred.gid};
    return 0;
}
#else
static int credentials(struct gyre__backend *be, int fd, struct gyre_credentials *out)
{
    (void)be;
    (void)fd;
    (void)out;
    return -EOPNOTSUPP;
}
#endif

#ifdef __linux__
/* Both are this number, in headers of netfilter that define much else. */
enum { ORIGINAL_DST = 80 };

/* An IPv6 socket may talk IPv4, and then that part of the firewall has redirected it. */
static int original(struct gyre__backend *be, int fd, struct gyre__addr *out)
{
    struct gyre__addr addr = {.len = sizeof addr.ss};
    const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)&addr.ss;
    (void)be;
    if (getsockname(fd, (struct sockaddr *)&addr.ss, &addr.len) != 0)
        return -errno;
    if (addr.ss.ss_family != AF_INET && addr.ss.ss_family != AF_INET6)
        return -EOPNOTSUPP;
    bool v6 = addr.ss.ss_family == AF_INET6 && !IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr);
    addr.len = v6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
    memset(&addr.ss, 0, sizeof addr.ss);
    if (getsockopt(fd, v6 ? IPPROTO_IPV6 : IPPROTO_IP, ORIGINAL_DST, &addr.ss, &addr.len) != 0)
        return -errno;
    *out = addr;
    return 0;
}
#else
static int original(struct gyre__backend *be, int fd, struct gyre__addr *out)
{
    (void)be;
    (void)fd;
    (void)out;
    return -EOPNOTSUPP;
}
#endif

const struct gyre__sockopt_ops gyre__sockopt_system = {
    .set = sockopt_set,
    .get = sockopt_get,
    .set_congestion = set_congestion,
    .congestion = congestion,
    .tcp_info = tcp_info,
    .credentials = credentials,
    .original = original,
};
