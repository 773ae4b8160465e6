/* SPDX-License-Identifier: MIT
 * Options of a connection's socket, set and read while it is open. What must be set before there is a connection
 * (buffers, keepalive, transparent, mark, …) is in gyre_conn_options too; those of a listener are inherited by what it
 * accepts.
 *
 * Everything here returns -EOPNOTSUPP where the system or the kind of socket does not have it (most are for TCP, the
 * simulator has the integers alone), the system's -errno where it has it and refuses (-EPERM: root or CAP_NET_ADMIN is
 * needed), GYRE_ECLOSED, GYRE_ETHREAD, or -EINVAL. Thread: the connection's loop. */
#ifndef GYRE_SOCKOPT_H
#define GYRE_SOCKOPT_H

#include <gyre/base.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

struct gyre_conn;

/* Integers; those without a unit are switches, 0 or 1, and read so. */
enum gyre_sockopt {
    GYRE_SOCKOPT_NODELAY = 1,          /* TCP_NODELAY; on, unless the options say `delay` */
    GYRE_SOCKOPT_QUICKACK,             /* TCP_QUICKACK: acknowledge at once; the kernel goes back by itself */
    GYRE_SOCKOPT_CORK,                 /* TCP_CORK: send full segments only; gyre_conn_cork() does without the kernel */
    GYRE_SOCKOPT_NOTSENT_LOWAT_BYTES,  /* TCP_NOTSENT_LOWAT: take no more than so much beyond what is on its way */
    GYRE_SOCKOPT_USER_TIMEOUT_MS,      /* TCP_USER_TIMEOUT: give up when nothing is acknowledged for so long */
    GYRE_SOCKOPT_MAX_SEGMENT_BYTES,    /* TCP_MAXSEG; reads the one in use */
    GYRE_SOCKOPT_KEEPALIVE,            /* SO_KEEPALIVE; see gyre_conn_set_keepalive() */
    GYRE_SOCKOPT_KEEPALIVE_IDLE_S,     /* TCP_KEEPIDLE */
    GYRE_SOCKOPT_KEEPALIVE_INTERVAL_S, /* TCP_KEEPINTVL */
    GYRE_SOCKOPT_KEEPALIVE_COUNT,      /* TCP_KEEPCNT */
    /* SO_LINGER: -1 off; 0: even gyre_conn_close() ends in a reset, and drops what the peer has not acknowledged. Other
     * values are GYRE_EOPTION: the kernel would hold up the loop; linger_timeout_ns does not. */
    GYRE_SOCKOPT_LINGER_S,
    GYRE_SOCKOPT_RECV_BUFFER_BYTES, /* SO_RCVBUF, SO_SNDBUF: cut to the system's limit; Linux reads twice it */
    GYRE_SOCKOPT_SEND_BUFFER_BYTES,
    GYRE_SOCKOPT_PRIORITY,             /* SO_PRIORITY: 0 to 6 without privilege */
    GYRE_SOCKOPT_MARK,                 /* SO_MARK, 32 bits, for routing and filtering; privileged */
    GYRE_SOCKOPT_TOS,                  /* IP_TOS, with IPv6 IPV6_TCLASS: 0 to 255; the upper six bits are the DSCP */
    GYRE_SOCKOPT_TRANSPARENT,          /* IP_TRANSPARENT; privileged; has an effect only before binding */
    GYRE_SOCKOPT_FREEBIND,             /* IP_FREEBIND; has an effect only before binding */
    GYRE_SOCKOPT_BIND_NO_PORT,         /* IP_BIND_ADDRESS_NO_PORT; has an effect only before binding */
    GYRE_SOCKOPT_INCOMING_CPU,         /* SO_INCOMING_CPU: reads the processor that its packets come in on */
    GYRE_SOCKOPT_BUSY_POLL_US,         /* SO_BUSY_POLL: poll the device so long before sleeping; privileged */
    GYRE_SOCKOPT_COOKIE,               /* SO_COOKIE: reads a number that no other socket of the system ever has */
    GYRE_SOCKOPT_PREFER_BUSY_POLL,     /* SO_PREFER_BUSY_POLL: hold interrupts off while it is polled; privileged */
    GYRE_SOCKOPT_END /* not an option */
};

/* Set one, read one. GYRE_EOPTION for a value that the library does not allow. */
GYRE_API int gyre_conn_set_sockopt(struct gyre_conn *c, enum gyre_sockopt option, int64_t value);
GYRE_API int gyre_conn_sockopt(int64_t *out, const struct gyre_conn *c, enum gyre_sockopt option);

/* Probing a silent peer. The kernel counts whole seconds: times are rounded up, to at least one. */
struct gyre_keepalive {
    int64_t idle_ns;     /* silence before the first probe; 0: no keepalive; at most 32767 s */
    int64_t interval_ns; /* between probes; 0: a fifth of `idle_ns`; at most 32767 s */
    uint32_t count;      /* probes without an answer before the connection fails with -ETIMEDOUT; 0: 5; at most 127 */
};

/* Also GYRE_EOPTION if one is out of range. */
GYRE_API int gyre_conn_set_keepalive(struct gyre_conn *c, const struct gyre_keepalive *keepalive);
GYRE_API int gyre_conn_keepalive(struct gyre_keepalive *out, const struct gyre_conn *c);

/* The algorithm of congestion control, such as "cubic" or "bbr" (TCP_CONGESTION). -ENOENT: there is none of that name;
 * -ERANGE: `size` is too small for it; 16 bytes never are. */
GYRE_API int gyre_conn_set_congestion(struct gyre_conn *c, const char *name);
GYRE_API int gyre_conn_congestion(char *out, size_t size, const struct gyre_conn *c);

/* How a TCP connection fares, as the kernel sees it (TCP_INFO). Segments are counted, not bytes. */
struct gyre_tcp_info {
    uint32_t rtt_us;        /* round trip, smoothed */
    uint32_t rtt_var_us;    /* its mean deviation */
    uint32_t rto_us;        /* when what is not acknowledged is sent again */
    uint32_t segment_bytes; /* the largest that is sent */
    uint32_t cwnd;          /* congestion window */
    uint32_t ssthresh;      /* slow start up to here */
    uint32_t unacked;       /* on their way */
    uint32_t lost;          /* of those, held to be lost */
    uint32_t retransmits;   /* in a row of what is on its way, without an answer */
    uint32_t total_retransmits;
    uint32_t last_recv_ms;  /* since data came in */
};

/* What it says now. */
GYRE_API int gyre_conn_tcp_info(struct gyre_tcp_info *out, const struct gyre_conn *c);

/* Who the peer of a unix socket was when it connected or listened (SO_PEERCRED). */
struct gyre_credentials {
    pid_t pid;
    uid_t uid;
    gid_t gid;
};

/* The peer's. */
GYRE_API int gyre_conn_credentials(struct gyre_credentials *out, const struct gyre_conn *c);

/* What a socket is to become. */
enum gyre_socket_purpose {
    GYRE_SOCKET_LISTEN = 1, /* it will be bound, and listen */
    GYRE_SOCKET_CONNECT,    /* it will be bound, if `source_address` or a range of ports is given, and connect */
    GYRE_SOCKET_ACCEPT      /* it was accepted, and on_open comes next */
};

/* For options of sockets that the library has no setter for: called once with each socket, when those that it does
 * have are set. `fd` is borrowed until it returns: set and read options, nothing else. `user` is that of the
 * connection options. The function must not call the library.
 * Returns 0, or -errno (anything above 0 is -EINVAL), and then the socket is closed: listening or connecting returns
 * that error, and what was accepted gets on_close alone, with GYRE_CLOSE_ERROR and that error. What was accepted and
 * shown, and then finds no memory for a connection, is closed without any callback (statistics: accept_errors).
 * Thread: the one that listens, and the loop that connects or has what was accepted. On the simulator `fd` is a number
 * that the kernel does not know, -EBADF.
 *
 * TCP_FASTOPEN_CONNECT is for this, and no option of gyre_connect(), because it changes what connecting means: where
 * the kernel has the server's cookie, on_open comes before anything was sent. The connection is made by the first
 * write, so whoever waits for the server to speak waits in vain; then a refusal is GYRE_CLOSE_ERROR with -ECONNREFUSED
 * in place of GYRE_CLOSE_CONNECT, until when a reconnector takes it for connected, and `connect_timeout_ns` does not
 * apply (gyre_conn_set_read_timeout() does). */
typedef int gyre_socket_fn(int fd, enum gyre_socket_purpose purpose, void *user);

#ifdef __cplusplus
}
#endif

#endif
