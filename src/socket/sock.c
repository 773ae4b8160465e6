/* SPDX-License-Identifier: MIT
 * The kernel's sockets: making, binding, tuning. Everything here is fast and synchronous; what can block is an
 * operation of the seam.
 *
 * A unix path is replaced only if it is a socket that nobody listens on (or, for datagrams, is bound to): connect() to
 * it is refused. Two processes that start on one path at the same moment are not told apart from that: one that has
 * bound and not yet called listen() refuses too. Who needs that serialises start-up with a lock of its own, as for any
 * unix socket. */
#include "sock.h"
#include "bind_mode.h"

#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#ifdef SOCK_CLOEXEC
int gyre__sock_new(int family, int type, int mode)
{
    int fd = socket(family, type | SOCK_CLOEXEC | mode, 0);
    return fd >= 0 ? fd : -errno;
}
#else
int gyre__sock_new(int family, int type, int mode)
{
    (void)mode;
    int fd = socket(family, type, 0);
    if (fd < 0)
        return -errno;
    (void)fcntl(fd, F_SETFD, FD_CLOEXEC);
    return fd;
}
#define SOCK_NONBLOCK 0
#endif

static int set_option(int fd, int level, int name, int value)
{
    return setsockopt(fd, level, name, &value, sizeof value) == 0 ? 0 : -errno;
}

static int bind_to(int fd, const struct gyre__addr *addr)
{
    return bind(fd, (const struct sockaddr *)&addr->ss, addr->len) == 0 ? 0 : -errno;
}

int gyre__sock_open(struct gyre__backend *be, int family)
{
    (void)be;
    return gyre__sock_new(family, SOCK_STREAM, 0);
}

/* Whether a stale socket file may go. Returns 0 if the path is free now, or why it is not. */
static int clear_unix_path(const struct gyre__addr *addr, int type)
{
    const struct sockaddr_un *un = (const struct sockaddr_un *)&addr->ss;
    struct stat st;
    if (un->sun_path[0] == '\0' || lstat(un->sun_path, &st) != 0)
        return 0;
    if (!S_ISSOCK(st.st_mode))
        return -EEXIST;

    int probe = gyre__sock_new(AF_UNIX, type, SOCK_NONBLOCK);
    if (probe < 0)
        return probe;
    int err = connect(probe, (const struct sockaddr *)&addr->ss, addr->len) == 0 ? 0 : errno;
    (void)close(probe);
    if (err != ECONNREFUSED)
        return -EADDRINUSE;
    return unlink(un->sun_path) == 0 || errno == ENOENT ? 0 : -errno;
}

int gyre__sock_bind_unix(int fd, int type, const struct gyre__addr *addr, uint32_t unix_mode)
{
    const struct sockaddr_un *un = (const struct sockaddr_un *)&addr->ss;
    int err = clear_unix_path(addr, type);
    if (err != 0)
        return err;
    if (unix_mode != 0 && un->sun_path[0] != '\0')
        return gyre__sock_bind_with_mode(fd, addr, unix_mode);
    return bind_to(fd, addr);
}

#ifdef SO_REUSEPORT_LB
enum { REUSEPORT = SO_REUSEPORT_LB }; /* FreeBSD's SO_REUSEPORT lets several bind, but one gets all connections */
#else
enum { REUSEPORT = SO_REUSEPORT };
#endif

#ifdef SO_BINDTODEVICE
/* A name that is too long is no device's. (The kernel cuts it, and might find another.) */
static int set_device(int fd, const char *device)
{
    if (strnlen(device, IFNAMSIZ) == IFNAMSIZ)
        return -ENODEV;
    return setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, device, (socklen_t)strlen(device)) == 0 ? 0 : -errno;
}
#else
static int set_device(int fd, const char *device)
{
    (void)fd;
    (void)device;
    return -EOPNOTSUPP;
}
#endif

#ifdef TCP_DEFER_ACCEPT
static int set_defer_accept(int fd, uint32_t seconds)
{
    return set_option(fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, (int)seconds);
}
#else
static int set_defer_accept(int fd, uint32_t seconds)
{
    (void)fd;
    (void)seconds;
    return -EOPNOTSUPP;
}
#endif

#ifdef TCP_FASTOPEN
static int set_fastopen(int fd, uint32_t queue)
{
    return set_option(fd, IPPROTO_TCP, TCP_FASTOPEN, (int)queue);
}
#else
static int set_fastopen(int fd, uint32_t queue)
{
    (void)fd;
    (void)queue;
    return -EOPNOTSUPP;
}
#endif

static int bind_inet(int fd, const struct gyre__addr *addr, const struct gyre__listen_config *cfg)
{
    int err = set_option(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    if (err == 0 && cfg->share)
        err = set_option(fd, SOL_SOCKET, REUSEPORT, 1);
    if (err == 0 && addr->ss.ss_family == AF_INET6)
        err = set_option(fd, IPPROTO_IPV6, IPV6_V6ONLY, cfg->v6_only);
    if (err == 0 && cfg->device != NULL)
        err = set_device(fd, cfg->device);
    if (err == 0 && cfg->defer_accept_s != 0)
        err = set_defer_accept(fd, cfg->defer_accept_s);
    if (err == 0 && cfg->fastopen_queue != 0)
        err = set_fastopen(fd, cfg->fastopen_queue);
    if (err != 0)
        return err;
    err = bind_to(fd, addr);
    if (err != 0)
        return err;
    /* Not before bind: that would succeed although a stranger of the same user listens there. Not after listen: the
     * socket would stay outside the group among which the kernel shares connections out. */
    return cfg->share_later ? set_option(fd, SOL_SOCKET, REUSEPORT, 1) : 0;
}

int gyre__sock_listen(struct gyre__backend *be, int fd, const struct gyre__addr *addr,
                      const struct gyre__listen_config *cfg)
{
    (void)be;
    bool is_unix = addr->ss.ss_family == AF_UNIX;
    int err = is_unix ? gyre__sock_bind_unix(fd, SOCK_STREAM, addr, cfg->unix_mode) : bind_inet(fd, addr, cfg);
    if (err != 0)
        return err;
    if (listen(fd, (int)cfg->backlog) == 0)
        return 0;
    err = -errno;
    if (is_unix && ((const struct sockaddr_un *)&addr->ss)->sun_path[0] != '\0')
        (void)unlink(((const struct sockaddr_un *)&addr->ss)->sun_path);
    return err;
}

static void set_port(struct gyre__addr *addr, in_port_t port)
{
    if (addr->ss.ss_family == AF_INET6)
        ((struct sockaddr_in6 *)&addr->ss)->sin6_port = htons(port);
    else
        ((struct sockaddr_in *)&addr->ss)->sin_port = htons(port);
}

static in_port_t port_of(const struct gyre__addr *addr)
{
    return ntohs(addr->ss.ss_family == AF_INET6 ? ((const struct sockaddr_in6 *)&addr->ss)->sin6_port
                                                : ((const struct sockaddr_in *)&addr->ss)->sin_port);
}

/* From a place that differs from one descriptor to the next, or every call would try the same ports that are taken. */
static int bind_by_trying(int fd, const struct gyre__addr *addr, in_port_t port_last)
{
    struct gyre__addr at = *addr;
    uint32_t first = port_of(addr), count = port_last - first + 1, start = (uint32_t)fd;
    for (uint32_t i = 0; i < count; i++) {
        set_port(&at, (in_port_t)(first + (start + i) % count));
        int err = bind_to(fd, &at);
        if (err != -EADDRINUSE)
            return err;
    }
    return -EADDRNOTAVAIL;
}

#ifdef __linux__
#ifndef IP_LOCAL_PORT_RANGE
#define IP_LOCAL_PORT_RANGE 51
#endif

/* Whether the kernel would choose there by itself: it does not let a socket's range go beyond its own (ip(7)). */
static bool in_kernels_range(in_port_t first, in_port_t last)
{
    char text[32] = "", *end;
    int fd = open("/proc/sys/net/ipv4/ip_local_port_range", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    ssize_t n = read(fd, text, sizeof text - 1);
    (void)close(fd);
    if (n <= 0)
        return false;
    long low = strtol(text, &end, 10), high = strtol(end, NULL, 10);
    return low > 0 && first >= low && last <= high;
}

/* The kernel chooses the port when it connects and knows the peer: then one port may serve for several peers. */
static int bind_later(int fd, const struct gyre__addr *addr, in_port_t port_last)
{
    struct gyre__addr at = *addr;
    uint32_t range = (uint32_t)port_last << 16 | port_of(addr);
    if (port_last != 0 && !in_kernels_range(port_of(addr), port_last))
        return -ENOPROTOOPT;
    int err = set_option(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1);
    if (err == 0 && port_last != 0)
        err = set_option(fd, IPPROTO_IP, IP_LOCAL_PORT_RANGE, (int)range); /* Linux 6.3 */
    if (err != 0)
        return err;
    set_port(&at, 0);
    return bind_to(fd, &at);
}
#else
static int bind_later(int fd, const struct gyre__addr *addr, in_port_t port_last)
{
    (void)port_last;
    return port_of(addr) == 0 ? bind_to(fd, addr) : -ENOPROTOOPT;
}
#endif

int gyre__sock_bind(struct gyre__backend *be, int fd, const struct gyre__addr *addr, in_port_t port_last)
{
    (void)be;
    if (port_last == 0 && port_of(addr) != 0) { /* this very port, which may have served before */
        int err = set_option(fd, SOL_SOCKET, SO_REUSEADDR, 1);
        return err != 0 ? err : bind_to(fd, addr);
    }
    int err = bind_later(fd, addr, port_last);
    return err == -ENOPROTOOPT ? bind_by_trying(fd, addr, port_last) : err;
}

static bool is_set(int fd, int level, int name, int value)
{
    int is = 0;
    socklen_t len = sizeof is;
    return getsockopt(fd, level, name, &is, &len) == 0 && is == value;
}

int gyre__sock_inspect(struct gyre__backend *be, int fd, struct gyre__sock_info *out)
{
    struct gyre__addr addr = {.len = sizeof addr.ss};
    (void)be;
    if (getsockname(fd, (struct sockaddr *)&addr.ss, &addr.len) != 0)
        return -errno;
    *out = (struct gyre__sock_info){.family = addr.ss.ss_family};
    out->stream = is_set(fd, SOL_SOCKET, SO_TYPE, SOCK_STREAM);
    out->dgram = is_set(fd, SOL_SOCKET, SO_TYPE, SOCK_DGRAM);
    out->dual = out->family == AF_INET6 && is_set(fd, IPPROTO_IPV6, IPV6_V6ONLY, 0);
    out->listening = is_set(fd, SOL_SOCKET, SO_ACCEPTCONN, 1);
    addr.len = sizeof addr.ss;
    out->connected = getpeername(fd, (struct sockaddr *)&addr.ss, &addr.len) == 0;
    return fcntl(fd, F_SETFD, FD_CLOEXEC) == 0 ? 0 : -errno;
}

int gyre__sock_dup(struct gyre__backend *be, int fd)
{
    (void)be;
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    return copy >= 0 ? copy : -errno;
}

int gyre__sock_device(struct gyre__backend *be, int fd, const char *name)
{
    (void)be;
    return name[0] != '\0' ? set_device(fd, name) : -ENODEV; /* none would be any */
}

int gyre__sock_shutdown(struct gyre__backend *be, int fd)
{
    (void)be;
    return shutdown(fd, SHUT_WR) == 0 ? 0 : -errno;
}

int gyre__sock_set_nodelay(struct gyre__backend *be, int fd)
{
    (void)be;
    return set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
}

/* A forked child may have a copy of the descriptor: then close() tells the peer nothing before the child ends. To
 * connect to nobody resets a TCP connection at once on Linux; elsewhere, and on unix sockets, the peer gets an end. */
int gyre__sock_set_reset(struct gyre__backend *be, int fd)
{
    struct linger linger = {.l_onoff = 1};
    const struct sockaddr nobody = {.sa_family = AF_UNSPEC};
    (void)be;
    int err = setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger) == 0 ? 0 : -errno;
    if (connect(fd, &nobody, sizeof nobody) != 0)
        (void)shutdown(fd, SHUT_RDWR);
    return err;
}

#ifdef SO_PEERNAME
/* getpeername(2) knows the peer of a TCP connection neither while it is being made nor when it is over, which is when
 * logs want it. This option does; it wants a buffer of just the address's length, that of the own one. */
static int peer_by_option(int fd, struct gyre__addr *out)
{
    struct sockaddr *sa = (struct sockaddr *)&out->ss;
    out->len = sizeof out->ss;
    if (getsockname(fd, sa, &out->len) != 0)
        return -errno;
    if (sa->sa_family != AF_INET && sa->sa_family != AF_INET6)
        return -ENOTCONN;
    return getsockopt(fd, SOL_SOCKET, SO_PEERNAME, sa, &out->len) == 0 ? 0 : -errno;
}
#else
static int peer_by_option(int fd, struct gyre__addr *out)
{
    (void)fd;
    (void)out;
    return -ENOTCONN;
}
#endif

int gyre__sock_name(struct gyre__backend *be, int fd, bool peer, struct gyre__addr *out)
{
    struct gyre__addr addr = {.len = sizeof addr.ss};
    struct sockaddr *sa = (struct sockaddr *)&addr.ss;
    (void)be;
    int err = (peer ? getpeername(fd, sa, &addr.len) : getsockname(fd, sa, &addr.len)) == 0 ? 0 : -errno;
    if (peer && (err == -ENOTCONN || err == -EINVAL)) /* EINVAL: macOS, of a connection that is over */
        err = peer_by_option(fd, &addr);
    if (err == 0)
        *out = addr;
    return err;
}

#ifdef MSG_NOSIGNAL
enum { TRY_FLAGS = MSG_DONTWAIT | MSG_NOSIGNAL };
#else
enum { TRY_FLAGS = MSG_DONTWAIT }; /* SO_NOSIGPIPE is set by the backend */
#endif

int32_t gyre__sock_send_error(int err)
{
    if (err == EAGAIN || err == EWOULDBLOCK)
        return -EAGAIN;
    return err == EPROTOTYPE ? -ECONNRESET : -err;
}

int gyre__sock_error(struct gyre__backend *be, int fd)
{
    int err = 0;
    socklen_t len = sizeof err;
    (void)be;
    return getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len) == 0 ? -err : -errno;
}

int64_t gyre__sock_try_send(struct gyre__backend *be, int fd, const void *data, size_t len)
{
    ssize_t n;
    (void)be;
    do
        n = send(fd, data, len < INT32_MAX ? len : INT32_MAX, TRY_FLAGS);
    while (n < 0 && errno == EINTR);
    if (n == 0) /* of some bytes: none were taken, and nothing failed */
        return -EAGAIN;
    return n > 0 ? n : gyre__sock_send_error(errno);
}

#ifdef TIOCOUTQ
int64_t gyre__sock_unacked(struct gyre__backend *be, int fd)
{
    int bytes = 0;
    (void)be;
    return ioctl(fd, TIOCOUTQ, &bytes) == 0 ? bytes : 0;
}
#else
int64_t gyre__sock_unacked(struct gyre__backend *be, int fd)
{
    (void)be;
    (void)fd;
    return 0;
}
#endif

/* To poll(2), and to io_uring, what makes nobody wait is always ready: who watched it would be called for ever. */
int gyre__sock_copy(int fd)
{
    struct stat st;
    if (fstat(fd, &st) != 0)
        return -errno;
    if (S_ISREG(st.st_mode) || S_ISDIR(st.st_mode) || S_ISBLK(st.st_mode))
        return GYRE_EFDTYPE;
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    return copy >= 0 ? copy : -errno;
}

bool gyre__sock_may_accept(int listener)
{
    struct pollfd p = {.fd = listener, .events = POLLIN};
    if (poll(&p, 1, 0) == 0)
        return false;
    int mode = fcntl(listener, F_GETFL);
    if (mode >= 0 && !(mode & O_NONBLOCK))
        (void)fcntl(listener, F_SETFL, mode | O_NONBLOCK);
    return true;
}

/* With SO_LINGER and a time, close(2) would wait for the peer, in whatever mode the socket is. An on_socket may have
 * set it, or whoever made an adopted or inherited socket (GYRE_FDF_TOUCHED). With no time it resets, which waits for
 * nobody, and stays. */
void gyre__sock_close_now(int fd)
{
    struct linger linger = {.l_onoff = 0};
    socklen_t len = sizeof linger;
    if (getsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, &len) == 0 && linger.l_onoff != 0 && linger.l_linger != 0) {
        linger.l_onoff = 0;
        (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
    }
    (void)close(fd);
}

void gyre__sock_close(struct gyre__backend *be, int fd)
{
    (void)be;
    gyre__sock_close_now(fd);
}
