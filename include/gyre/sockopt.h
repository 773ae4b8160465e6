/* SPDX-License-Identifier: MIT
 * Socket options of a connection: set and read while the connection is open. Options that are useful or needed before
 * the connection exists (buffers, keepalive, transparent, mark, …) are also in gyre_conn_options. Accepted connections
 * inherit the options of the listener.
 *
 * All functions here return 0, or:
 *   -EOPNOTSUPP: the system or this kind of socket does not have the option. Most options are for TCP. The simulator
 *     has the integer options only.
 *   -errno: the system refused the value; -EPERM: root or CAP_NET_ADMIN is needed
 *   -EINVAL: a pointer is NULL, the option does not exist, or the value does not fit
 *   GYRE_ECLOSED: `c` is NULL or closed
 *   GYRE_ETHREAD: the calling thread is not the loop's
 * Thread: the connection's loop. */
#ifndef GYRE_SOCKOPT_H
#define GYRE_SOCKOPT_H

#include <gyre/base.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

struct gyre_conn;

/* Integer options. These are switches, set to 0 or 1 and read as 0 or 1: NODELAY, QUICKACK, CORK, KEEPALIVE,
 * TRANSPARENT, FREEBIND, BIND_NO_PORT, PREFER_BUSY_POLL. Ranges and defaults that are not given here are those of the
 * system. Setting a privileged option needs root or CAP_NET_ADMIN. */
enum gyre_sockopt {
    GYRE_SOCKOPT_NODELAY = 1,          /* TCP_NODELAY; on, unless the options set `nagle` */
    GYRE_SOCKOPT_QUICKACK,             /* TCP_QUICKACK: acknowledge at once; the kernel may switch it off again */
    GYRE_SOCKOPT_CORK,                 /* TCP_CORK: send full segments only; gyre_conn_cork() needs no kernel support */
    GYRE_SOCKOPT_NOTSENT_LOWAT_BYTES,  /* TCP_NOTSENT_LOWAT: limit on bytes that the kernel accepts and has not sent */
    GYRE_SOCKOPT_USER_TIMEOUT_MS,      /* TCP_USER_TIMEOUT: fail when sent data is not acknowledged for this time */
    GYRE_SOCKOPT_MAX_SEGMENT_BYTES,    /* TCP_MAXSEG; reading returns the size in use */
    GYRE_SOCKOPT_KEEPALIVE,            /* SO_KEEPALIVE; see gyre_conn_set_keepalive() */
    GYRE_SOCKOPT_KEEPALIVE_IDLE_S,     /* TCP_KEEPIDLE */
    GYRE_SOCKOPT_KEEPALIVE_INTERVAL_S, /* TCP_KEEPINTVL */
    GYRE_SOCKOPT_KEEPALIVE_COUNT,      /* TCP_KEEPCNT: a number of probes */
    /* SO_LINGER: -1: off. 0: even gyre_conn_close() ends in a reset and drops what the peer has not acknowledged. Other
     * values fail with GYRE_EOPTION, because the kernel would block the loop. Use linger_timeout_ns instead. */
    GYRE_SOCKOPT_LINGER_S,
    GYRE_SOCKOPT_RECV_BUFFER_BYTES, /* SO_RCVBUF, limited by the system; on Linux reading returns twice the value */
    GYRE_SOCKOPT_SEND_BUFFER_BYTES, /* SO_SNDBUF, as SO_RCVBUF */
    GYRE_SOCKOPT_PRIORITY,             /* SO_PRIORITY: 0 to 6 without privilege */
    GYRE_SOCKOPT_MARK,                 /* SO_MARK: 32 bits, for routing and filtering; privileged */
    GYRE_SOCKOPT_TRAFFIC_CLASS,        /* IP_TOS, with IPv6 IPV6_TCLASS: 0 to 255; upper six bits: the DSCP */
    GYRE_SOCKOPT_TRANSPARENT,          /* IP_TRANSPARENT; privileged; has an effect only before binding */
    GYRE_SOCKOPT_FREEBIND,             /* IP_FREEBIND; has an effect only before binding */
    GYRE_SOCKOPT_BIND_NO_PORT,         /* IP_BIND_ADDRESS_NO_PORT; has an effect only before binding */
    GYRE_SOCKOPT_INCOMING_CPU,         /* SO_INCOMING_CPU: reading returns the processor that receives the packets */
    GYRE_SOCKOPT_BUSY_POLL_US,         /* SO_BUSY_POLL: how long to poll the device before sleeping; privileged */
    GYRE_SOCKOPT_COOKIE,               /* SO_COOKIE: read only; a number that no other socket of the system ever has */
    GYRE_SOCKOPT_PREFER_BUSY_POLL,     /* SO_PREFER_BUSY_POLL: hold interrupts off while polling; privileged */
    GYRE_SOCKOPT_END /* not an option */
};

/* Set an option; read an option. Errors as above, and GYRE_EOPTION: the library does not allow the value. */
GYRE_API int gyre_conn_set_sockopt(struct gyre_conn *c, enum gyre_sockopt option, int64_t value);
GYRE_API int gyre_conn_sockopt(int64_t *out, const struct gyre_conn *c, enum gyre_sockopt option);

/* Keepalive: probing a silent peer. The kernel counts whole seconds: times are rounded up, to at least 1 s. */
struct gyre_keepalive {
    int64_t idle_ns;     /* silence before the first probe; 0: no keepalive; at most 32767 s */
    int64_t interval_ns; /* time between probes; 0: a fifth of `idle_ns`; at most 32767 s */
    uint32_t count;      /* unanswered probes before the connection fails with -ETIMEDOUT; 0: 5; at most 127 */
};

/* Set keepalive; read keepalive. Errors as above, and GYRE_EOPTION: a field is out of range. */
GYRE_API int gyre_conn_set_keepalive(struct gyre_conn *c, const struct gyre_keepalive *keepalive);
GYRE_API int gyre_conn_keepalive(struct gyre_keepalive *out, const struct gyre_conn *c);

/* Set or read the name of the congestion control algorithm, such as "cubic" or "bbr" (TCP_CONGESTION). `size` is that
 * of `out` in bytes; 16 are always enough. Errors as above, and
 *   -ENOENT: there is no algorithm of this name
 *   -ERANGE: `size` is too small for the name */
GYRE_API int gyre_conn_set_congestion(struct gyre_conn *c, const char *name);
GYRE_API int gyre_conn_congestion(char *out, size_t size, const struct gyre_conn *c);

/* The state of a TCP connection in the kernel (TCP_INFO). Windows and counters are in segments, not bytes. */
struct gyre_tcp_info {
    uint32_t rtt_us;        /* smoothed round trip time */
    uint32_t rtt_var_us;    /* mean deviation of the round trip time */
    uint32_t rto_us;        /* retransmission timeout */
    uint32_t segment_bytes; /* maximum size of a sent segment */
    uint32_t cwnd;          /* congestion window */
    uint32_t ssthresh;      /* slow start threshold */
    uint32_t unacked;       /* sent and not acknowledged */
    uint32_t lost;          /* segments of `unacked` that are considered lost */
    uint32_t retransmits;   /* consecutive retransmissions without an acknowledgement */
    uint32_t total_retransmits;
    uint32_t last_recv_ms;  /* time since data was last received */
};

/* Read the current state. Errors as above. */
GYRE_API int gyre_conn_tcp_info(struct gyre_tcp_info *out, const struct gyre_conn *c);

/* The peer process of a unix socket at the time it connected or listened (SO_PEERCRED). */
struct gyre_credentials {
    pid_t pid;
    uid_t uid;
    gid_t gid;
};

/* Read the credentials of the peer. Errors as above. */
GYRE_API int gyre_conn_credentials(struct gyre_credentials *out, const struct gyre_conn *c);

/* What a socket is used for. */
enum gyre_socket_purpose {
    GYRE_SOCKET_LISTEN = 1, /* the socket will be bound and will listen */
    GYRE_SOCKET_CONNECT,    /* the socket will be bound, if a source address or port range is given, and connect */
    GYRE_SOCKET_ACCEPT      /* the socket was accepted; on_open runs next */
};

/* Sets options for which the library has no setter. The function is called once for each new socket, after the library
 * has set its own options. `fd` is borrowed until the function returns: only set and read options of `fd`. `user` is
 * gyre_conn_options.user. The function must not call the library.
 *
 * Returns 0 or -errno. (A value above 0 counts as -EINVAL.) On an error the socket is closed. Listening or connecting
 * returns that error. For an accepted socket only on_close runs, with GYRE_CLOSE_ERROR and that error. If allocation
 * fails after the function has run for an accepted socket, the socket is closed and no other callback runs
 * (statistics: accept_errors).
 * Thread: the one that calls the listening function, or the loop that connects or that has the accepted connection. On
 * the simulator the kernel does not know `fd`: system calls fail with -EBADF.
 *
 * TCP_FASTOPEN_CONNECT can be set here. It is not an option of gyre_connect(), because it changes what connecting
 * means. If the kernel has the server's cookie, on_open runs before anything was sent, and the first write makes the
 * connection. Three things follow. A client that waits for the server to speak first waits for ever. A refusal is
 * reported as GYRE_CLOSE_ERROR with -ECONNREFUSED instead of GYRE_CLOSE_CONNECT, and until then a reconnector takes the
 * connection for established. `connect_timeout_ns` does not apply; use gyre_conn_set_read_timeout(). */
typedef int gyre_socket_fn(int fd, enum gyre_socket_purpose purpose, void *user);

#ifdef __cplusplus
}
#endif

#endif
