/* SPDX-License-Identifier: MIT
 * The seam. What io_uring, epoll, kqueue and the simulator each provide.
 *
 * The seam speaks completions. io_uring gives them; the readiness backends make them by waiting and then doing the
 * system call. Core cannot tell which.
 *
 * What every backend promises (tests/contract holds each to it):
 *
 *  1. submit() neither fails nor calls back. Whatever goes wrong is an event.
 *  2. An op yields exactly one last event, the one without GYRE_EV_MORE. Only GYRE_OPF_MULTI ops yield others before
 *     it. A multi op may end at any event, whatever its result: with data, with a descriptor, with an error.
 *  3. Events of one op come in order. Nothing else is ordered, not even two sends on one socket; so core keeps one send
 *     and one receive in flight per stream. Of several datagrams submitted together a backend may reorder only those
 *     that did not fit the socket's send buffer.
 *  4. Until its last event an op, its buffer, its address and its descriptor stay valid; the backend may touch them at
 *     any moment.
 *  5. cancel() is a request. The op still yields its last event: -ECANCELED, or its real result if that came first (a
 *     send that had moved some bytes says how many). Events already on their way arrive. No byte received is lost.
 *  6. Nothing calls core. Events leave through wait(), by value, and only there.
 *  7. A send's buffer is free for reuse after the last event, not before.
 *  8. -ENOBUFS ends a GYRE_OPF_POOL op that found its pool exhausted, and no byte is lost. Core submits it again when
 *     buffers are free, not on a timer. A GYRE_EV_BUF buffer is the receiver's from the event until
 *     gyre__bufpool_release().
 *  9. Whether a descriptor blocks is the backend's affair: io_uring must have it blocking, or -EAGAIN comes out;
 *     readiness must not. A listening socket (GYRE_FDF_LISTEN) never blocks, because other processes may have its file,
 *     and what they make of the mode must not keep wait() from returning. Core does no I/O itself. With GYRE_FDF_SHARED
 *     an ACCEPT that waits keeps no other process from a connection, nor does its cancel.
 * 10. One thread uses a backend at a time: the one that creates it until the first wait(), from then on the one that
 *     waits. wake() alone may be called from any other, and from a signal handler.
 * 11. The end of a stream (RECV res 0) comes after all its data, ends the op, and carries no buffer. A socket tells an
 *     error once: after a reset that a send was told of, RECV may be told the end.
 * 12. No descriptor starves: whatever one peer sends, the others' events come within a bounded number of waits.
 * 13. A RECVMSG event is one datagram, an empty one too, in a buffer of its own; what does not fit is cut off and
 *     flagged. An error that the network reported ends the op and not the socket. SENDMSG on a GYRE_FDF_DGRAM
 *     descriptor is one datagram and goes whole or fails; with GYRE_OPF_DONTWAIT it fails with -EAGAIN where it would
 *     wait.
 * 14. With GYRE_FDF_PIPE on its descriptor a RECV of MULTI and POOL may take an empty pipe in place of a buffer, and
 *     fills it once: the pipe's bytes are those of one event, in their place in the stream. Where there is no pipe it
 *     takes buffers; -ENOBUFS stays what it is. A SPLICE moves bytes out of one; those it does not tell of are still
 *     in it, unless it fails: an error is told even where some bytes were moved before. Neither raises a signal or
 *     waits. A backend whose sockets have no pipes knows neither.
 * 15. A POLL ends when something it asks for holds, be that since long before it was submitted, or hang-up or error; a
 *     foreign descriptor has one at a time and no other op; a stream whose end has come may have one that asks for
 *     nothing, in place of a receive, costs nothing until it ends, and may end with the socket's error. What `res`
 *     names was true at some time in between: others use the descriptor too, and have perhaps taken what there was.
 *     What it does not name may be true all the same. Where urgent data cannot be waited for, POLLPRI ends it with
 *     -EOPNOTSUPP. */
#ifndef GYRE_SEAM_BACKEND_H
#define GYRE_SEAM_BACKEND_H

#include "count.h"
#include "op.h"

#include <gyre/base.h>
#include <gyre/sockopt.h>

#include <netinet/in.h>

struct gyre__backend;
struct gyre__pipe;
struct gyre_sim;

/* An address as the kernel takes it. */
struct gyre__addr {
    struct sockaddr_storage ss;
    socklen_t len;
};

struct gyre__listen_config {
    uint32_t backlog;
    uint32_t unix_mode; /* 0: as umask says */
    bool share;         /* SO_REUSEPORT before bind: others, of this user, may be bound there already */
    bool share_later;   /* SO_REUSEPORT between bind and listen: the address must be free, others may follow */
    bool v6_only;
    /* Of TCP; nothing on the simulator, which has neither a handshake to defer nor devices. */
    uint32_t defer_accept_s; /* TCP_DEFER_ACCEPT; 0: not set */
    uint32_t fastopen_queue; /* TCP_FASTOPEN; 0: not set */
    const char *device;      /* SO_BINDTODEVICE; NULL: any */
};

/* What a descriptor is that somebody else opened. */
struct gyre__sock_info {
    int family;     /* AF_INET, AF_INET6, AF_UNIX, or another that is of no use here */
    bool stream;    /* SOCK_STREAM */
    bool dgram;     /* SOCK_DGRAM */
    bool dual;      /* of AF_INET6: carries IPv4, too */
    bool listening;
    bool connected;
};

/* Options of a socket, as gyre/sockopt.h has them. -EOPNOTSUPP: the system, or this kind of socket, has it not; -ERANGE
 * as there; else what the system refused with. */
struct gyre__sockopt_ops {
    int (*set)(struct gyre__backend *be, int fd, enum gyre_sockopt option, int64_t value);
    int (*get)(struct gyre__backend *be, int fd, enum gyre_sockopt option, int64_t *out);
    int (*set_congestion)(struct gyre__backend *be, int fd, const char *name);
    int (*congestion)(struct gyre__backend *be, int fd, char *out, size_t size);
    int (*tcp_info)(struct gyre__backend *be, int fd, struct gyre_tcp_info *out);
    int (*credentials)(struct gyre__backend *be, int fd, struct gyre_credentials *out);
    int (*original)(struct gyre__backend *be, int fd, struct gyre__addr *out); /* before it was redirected to here */
};

/* Pipes for what GYRE_FDF_PIPE and GYRE_OP_SPLICE move. */
struct gyre__pipe_ops {
    /* A pipe for up to `size_bytes`, or less if the system grants no more. Returns 0, or -errno; -ENOBUFS if that is
     * too little to be of use. */
    int (*open)(struct gyre__backend *be, struct gyre__pipe *out, uint32_t size_bytes);
    int64_t (*read)(struct gyre__backend *be, const struct gyre__pipe *p, void *buf, size_t len); /* bytes, or -errno */
    void (*close)(struct gyre__backend *be, struct gyre__pipe *p); /* what is in it is lost */
};

/* Options of a datagram socket, in our words; each takes an int. */
enum gyre__sock_option {
    GYRE_SOCK_RECV_BUF = 1, /* bytes */
    GYRE_SOCK_SEND_BUF,
    GYRE_SOCK_SHARE_PORT,    /* SO_REUSEPORT */
    GYRE_SOCK_REUSE_ADDRESS, /* SO_REUSEADDR */
    GYRE_SOCK_V6_ONLY,
    GYRE_SOCK_BROADCAST,
    GYRE_SOCK_TTL, /* of what is sent to one receiver; hop limit with IPv6 */
    GYRE_SOCK_TRAFFIC_CLASS,
    GYRE_SOCK_MULTICAST_TTL,
    GYRE_SOCK_MULTICAST_LOOP,
    GYRE_SOCK_MULTICAST_INTERFACE, /* index */
    GYRE_SOCK_PKTINFO,             /* control data say where each datagram was sent to */
    GYRE_SOCK_ECN,                 /* and its traffic class */
    GYRE_SOCK_GRO,                 /* datagrams in a row may come as one, control data tell their size */
    GYRE_SOCK_GSO,                 /* whether a send may be cut into datagrams by the kernel: 0 asks, nothing is set */
};

/* Making, tuning and trying sockets: fast, synchronous, the same for every backend but the simulator, whose descriptors
 * are not the kernel's. All return -errno on failure. */
struct gyre__sock_ops {
    int (*open)(struct gyre__backend *be, int family); /* a stream socket, close-on-exec; returns the descriptor */
    int (*listen)(struct gyre__backend *be, int fd, const struct gyre__addr *addr,
                  const struct gyre__listen_config *cfg);
    /* Give a socket of open() its own address before it connects. With `port_last` it is a port from `addr`'s to that
     * one: no two connections to one peer get the same; -EADDRNOTAVAIL, here or from CONNECT, if none is left. */
    int (*bind)(struct gyre__backend *be, int fd, const struct gyre__addr *addr, in_port_t port_last);
    /* Look at a descriptor that somebody else opened, and make it close-on-exec. -ENOTSOCK if it is no socket. */
    int (*inspect)(struct gyre__backend *be, int fd, struct gyre__sock_info *out);
    int (*dup)(struct gyre__backend *be, int fd); /* another descriptor for the same socket, close-on-exec */
    int (*device)(struct gyre__backend *be, int fd, const char *name); /* of either kind: use that device only */
    int (*shutdown)(struct gyre__backend *be, int fd);                 /* send FIN: SHUT_WR */
    int (*set_nodelay)(struct gyre__backend *be, int fd);
    /* Send RST and drop what is unsent, now or with close(), which must follow; also where another process has the
     * descriptor, too. */
    int (*set_reset)(struct gyre__backend *be, int fd);
    /* Its own address, or the peer's: of TCP also while it connects and when it is over, where the system can tell. */
    int (*name)(struct gyre__backend *be, int fd, bool peer, struct gyre__addr *out);
    /* Send what the socket takes at once. Returns how many bytes (at least 1), -EAGAIN if none, or why it cannot send.
     * No SEND or SENDMSG may be in flight on it. */
    int64_t (*try_send)(struct gyre__backend *be, int fd, const void *data, size_t len);
    int64_t (*unacked)(struct gyre__backend *be, int fd); /* of TCP: bytes sent, not acknowledged; 0 if unknown */
    int (*error)(struct gyre__backend *be, int fd);       /* what it would tell the next call, taken from it; or 0 */
    void (*close)(struct gyre__backend *be, int fd);      /* of a descriptor that was never attached */
    const struct gyre__sockopt_ops *options;
    const struct gyre__pipe_ops *pipe; /* NULL: none */

    /* Datagram sockets, UDP and unix. dgram_bind() replaces a unix path that nobody is bound to; an address of unix
     * without a name asks for any. dgram_connect() is immediate and may be repeated. */
    int (*dgram_open)(struct gyre__backend *be, int family);
    int (*dgram_bind)(struct gyre__backend *be, int fd, const struct gyre__addr *addr, uint32_t unix_mode);
    int (*dgram_connect)(struct gyre__backend *be, int fd, const struct gyre__addr *addr);
    int (*dgram_set)(struct gyre__backend *be, int fd, int family, enum gyre__sock_option option, int value);
    int (*dgram_member)(struct gyre__backend *be, int fd, const struct gyre__addr *group, uint32_t interface,
                        bool join);
    int64_t (*dgram_drops)(struct gyre__backend *be, int fd); /* received and thrown away for want of room; 0 unknown */
};

extern const struct gyre__sockopt_ops gyre__sockopt_system; /* of the kernel's sockets; socket/sockopt.c */
extern const struct gyre__sock_ops gyre__sock_system;       /* the kernel's sockets; socket/system.c */

/* For backends on the kernel's sockets, socket/sock_pipe.c: how many bytes wait to be received (0: unknown); fill an
 * empty pipe from `fd`, where bytes wait; move up to `len` bytes of a pipe into `fd`, which does not block. The latter
 * return bytes, 0 if there are none after all, -EAGAIN if nothing can be moved now, or -errno, whatever was moved
 * before. */
uint32_t gyre__pipe_waiting(int fd);
int32_t gyre__pipe_fill(const struct gyre__pipe *p, int fd);
int32_t gyre__pipe_drain(const struct gyre__pipe *p, int fd, uint32_t len);

/* For backends on the kernel's descriptors, socket/sock.c: a copy, close-on-exec, of a descriptor that can be waited
 * for. Returns it, or -errno or GYRE_EFDTYPE. */
int gyre__sock_copy(int fd);

/* Likewise: whether a connection waits on a listening socket that others may have, too. If so, accept(2) finds one or
 * says EAGAIN, for the socket has been made non-blocking again, if somebody had it block. */
bool gyre__sock_may_accept(int listener);

/* Close a socket of the library's own, without ever waiting for its peer. */
void gyre__sock_close_now(int fd);

/* What it says that a send on a stream failed with `err`: -err, but EPROTOTYPE is what macOS has for a peer that goes
 * away just then, and may say for ever: that is -ECONNRESET. */
int32_t gyre__sock_send_error(int err);

struct gyre__backend_config {
    uint32_t ops_max;    /* how many ops to expect in flight; a hint */
    uint32_t sq_entries; /* io_uring's queue sizes; 0: chosen by the backend */
    uint32_t cq_entries;
    const char *off;     /* kernel features not to use, comma-separated ("defer_taskrun,no_iowait"), or NULL */
    uint32_t busy_poll_us; /* let wait() poll network devices for so long before it sleeps; 0: not */
    bool busy_poll_prefer; /* and hold their interrupts off, if they are set up for it */
    const struct gyre_mem *mem;
    const struct gyre_log *log;
    struct gyre_sim *sim; /* the simulator's network; NULL elsewhere */
};

struct gyre__backend_ops {
    const char *name; /* "io_uring", "epoll", "kqueue", "sim" */
    const struct gyre__sock_ops *sock;

    /* Open, and prove that it works (io_uring: an exchange over a socket pair through the ring). On failure returns
     * -ENOSYS, -EPERM, -EOPNOTSUPP or what else keeps it from running, and writes to `why` a sentence saying what that
     * was and what a person can do about it. Busy polling that cannot be had is no failure: `busy_polls` stays false,
     * and features() has the word "napi" just where it is true. */
    int (*create)(struct gyre__backend **out, const struct gyre__backend_config *cfg, char *why, size_t why_size);
    /* No op may be in flight. Pools still added are removed. */
    void (*destroy)(struct gyre__backend *be);

    /* Take on `f->fd`. Returns 0 or -errno, and then `f` is as before. With GYRE_FDF_FOREIGN, `f->fd` becomes a copy,
     * for close() to close, where the system has copies (the simulator has not: there close() leaves it open); the
     * mode is not touched; GYRE_EFDTYPE if it is of a kind that cannot be waited for, -EINVAL if it is the backend's
     * own. The copy may be made of a descriptor that is attached already. */
    int (*attach)(struct gyre__backend *be, struct gyre__fd *f);
    /* Let go of `f` and close its descriptor. No op may be in flight on it. */
    void (*close)(struct gyre__backend *be, struct gyre__fd *f);
    /* Let go of `f` and leave its descriptor open, in blocking mode, which is returned; `f->fd` is -1. No op may be in
     * flight on it. Not with GYRE_FDF_FOREIGN; with GYRE_FDF_LISTEN it stays non-blocking. */
    int (*detach)(struct gyre__backend *be, struct gyre__fd *f);

    /* Take a connection that waits on `f`, a listening socket on which no op is in flight. Returns the descriptor that
     * an ACCEPT would bring, or -errno: -EAGAIN if none waits. */
    int (*accept_now)(struct gyre__backend *be, struct gyre__fd *f);

    void (*submit)(struct gyre__backend *be, struct gyre__op *op);
    void (*cancel)(struct gyre__backend *be, struct gyre__op *op);

    /* Hand everything submitted to the kernel, then wait for events: at most `timeout_ns`, 0 to look and return, -1 for
     * ever. Writes up to `cap` events and returns how many; 0 on time-out, wake() or signal; -errno only if the backend
     * is lost. May return fewer events than are ready, to keep the bytes of one turn in cache. */
    int (*wait)(struct gyre__backend *be, struct gyre__event *out, unsigned cap, int64_t timeout_ns);
    /* Make the current or next wait() return early. Any thread; async-signal-safe. */
    void (*wake)(struct gyre__backend *be);
    /* A descriptor that polls readable when wait() would find events, once wait() has returned none (until then there
     * may be more that no descriptor tells of); -1 if there is none. */
    int (*pollable)(struct gyre__backend *be);
    /* The clock that timers run by, in nanoseconds, never going back. NULL: CLOCK_MONOTONIC. */
    uint64_t (*now)(struct gyre__backend *be);

    /* Receive buffers for GYRE_OPF_POOL ops. The backend takes buffers with gyre__bufpool_take(), which core gives back
     * with gyre__bufpool_release(). One pool at a time is enough. Returns 0 or -errno. After pool_remove(), for which
     * no op may be in flight on it, the backend owns none of its buffers. */
    int (*pool_add)(struct gyre__backend *be, struct gyre__bufpool *pool);
    void (*pool_remove)(struct gyre__backend *be, struct gyre__bufpool *pool);
    /* Put back on the stack what is posted beyond the use that was made of it since the last call; a backend that
     * cannot take it back posts less from now on. Not while an event of wait() is still to be looked at. NULL: the
     * backend posts nothing ahead. */
    void (*pool_trim)(struct gyre__backend *be, struct gyre__bufpool *pool);

    /* The addresses of a name, in place of the system's: at most `max`, with port 0, of the family or AF_UNSPEC.
     * Returns how many, or GYRE_ENONAME or what else the lookup fails with; `*delay_ns` says after how long. NULL: the
     * system is asked. */
    int (*lookup)(struct gyre__backend *be, struct sockaddr_storage *out, uint32_t max, const char *name, int family,
                  uint64_t *delay_ns);

    /* Which kernel features are in use, comma-separated. */
    void (*features)(struct gyre__backend *be, char *out, size_t size);
};

/* First member of each backend's own struct. */
struct gyre__backend {
    const struct gyre__backend_ops *ops;
    struct gyre_stats stats; /* both sides of the seam count here */
    bool busy_polls;              /* as the config asks; create() sets it */
    bool sends_late;              /* a SEND is a call that the next wait() makes: core may as well call try_send() */
};

#endif
