/* SPDX-License-Identifier: MIT
 * Datagram sockets: UDP over IPv4 and IPv6, and unix datagrams.
 *
 * Addresses are written "udp://127.0.0.1:7000", "udp://[::1]:7000", "udp://:7000" (every address, both families),
 * "udp4://…", "udp6://…" (that family only), "unixgram:///run/x.sock", "unixgram://@name". A socket that is bound with
 * port 0 gets a free port.
 *
 * Receiving: each datagram comes as one call of `on_datagram`, in place, in the receive buffer of the loop. One that is
 * longer than a buffer has room for (`buf_size_bytes` of the loop less 64 to 256 bytes: with the default more than
 * 16 KiB) comes cut, marked and counted; for 64 KiB ones give the loop larger buffers.
 *
 * Sending queues. What one turn of the loop queued leaves together; what of it goes to one receiver in a row, of one
 * length up to 1452 bytes, even as one, which the kernel cuts (UDP_SEGMENT, Linux). The queue is bounded: a send that
 * finds it full is refused with -EAGAIN, and `on_drain` follows. Datagrams leave in the order in which they were
 * queued; when the socket's own send buffer overflows, which loopback and most networks never see, one may overtake
 * another on io_uring, UDP only. The network may lose, repeat and reorder UDP anyway; unix datagrams it does not.
 *
 * An error of the network, such as the port unreachable that a connected socket is told of, comes with `on_error`; the
 * socket stays open. */
#ifndef GYRE_UDP_H
#define GYRE_UDP_H

#include <gyre/base.h>
#include <gyre/buf.h>
#include <gyre/loop.h>
#include <sys/socket.h>

#ifdef __cplusplus
extern "C" {
#endif

struct gyre_udp;

/* A datagram as on_datagram gets it. All it points to is borrowed until the handler returns. */
struct gyre_datagram {
    struct gyre_slice data;       /* may be empty: len 0 */
    const struct sockaddr *peer;  /* who sent it; NULL: a unix socket without a name. On an IPv6 socket that carries
                                     IPv4 too, an IPv4 sender is a mapped address (::ffff:192.0.2.1) */
    socklen_t peer_len;
    const struct sockaddr *local; /* with `pktinfo`: where it was sent to, port 0; else NULL */
    socklen_t local_len;
    uint32_t interface;           /* with `pktinfo`: the index of the interface it came in on; else 0 */
    uint32_t segment_bytes;       /* with GYRE_UDP_GRO_WHOLE: `data` is datagrams of this size, the last may be shorter;
                                     0: one datagram */
    uint8_t traffic_class;        /* with `ecn`: the TOS byte or traffic class; its low two bits are ECN */
    bool truncated;               /* it was longer: the rest is lost */
};

/* What a socket calls. Only `on_datagram` is needed. Borrowed, usually static and const; must outlive its sockets. All
 * run on the socket's loop. */
struct gyre_udp_handlers {
    void (*on_datagram)(struct gyre_udp *u, const struct gyre_datagram *d);
    void (*on_drain)(struct gyre_udp *u); /* a send was refused, and now there is room */
    /* A datagram could not be sent, or the network says so of an earlier one: -ECONNREFUSED, -EHOSTUNREACH, -EMSGSIZE,
     * -EPERM, …; unix: -EAGAIN if the receiver's queue was full. The socket stays open. */
    void (*on_error)(struct gyre_udp *u, int err);
    /* The last call. `err` 0 after gyre_udp_close(), GYRE_ETIMEOUT if that gave up on what was queued, GYRE_ESHUTDOWN
     * if the loop ended, else what broke the socket. */
    void (*on_close)(struct gyre_udp *u, int err);
};

/* Datagrams of one sender in a row, which the kernel hands over as one (UDP_GRO, Linux). Needs receive buffers of at
 * least 65792 bytes (`buf_size_bytes` of the loop), or they would come cut: GYRE_EOPTION. */
enum gyre_udp_gro {
    GYRE_UDP_GRO_OFF = 0,
    GYRE_UDP_GRO_SPLIT, /* on_datagram is called for each of them */
    GYRE_UDP_GRO_WHOLE  /* on_datagram gets them as one, with `segment_bytes` */
};

/* Settings of a socket. What the system refuses makes opening fail with its errno. */
struct gyre_udp_options {
    uint32_t send_queue_max_bytes; /* queued and not yet taken by the kernel; 0: 1 MiB; at most 1 GiB */
    uint32_t send_queue_max_count; /* datagrams; 0: 1024; at most 1 Mi */
    uint32_t recv_buf_bytes;       /* SO_RCVBUF; 0: the system's */
    uint32_t send_buf_bytes;       /* SO_SNDBUF; 0: the system's */
    int64_t linger_timeout_ns;     /* gyre_udp_close(): how long what is queued may take; 0: 1 s */
    const char *device;            /* SO_BINDTODEVICE: the name of an interface; copied; NULL: any */
    const char *local;             /* gyre_udp_connect() only: bind to this address first; copied; NULL: any */
    uint32_t multicast_interface;  /* index, to send multicast from and to join with when bound to a group; 0: any */
    uint32_t unix_mode;            /* permission bits of the unix socket file, such as 0660; 0: as umask(2) says */
    uint8_t ttl;                   /* of what is sent, hop limit with IPv6; 0: the system's */
    uint8_t multicast_ttl;         /* 0: the system's, 1 */
    uint8_t traffic_class;         /* TOS or traffic class of what is sent, ECN its low two bits */
    bool no_multicast_loop;        /* what is sent to a group does not come to members on this machine */
    bool share_port;               /* SO_REUSEPORT: other sockets of this user may have the port too */
    bool reuse_address;            /* SO_REUSEADDR: as members of one multicast group do */
    bool broadcast;                /* sending to broadcast addresses is allowed */
    bool pktinfo;                  /* tell where datagrams were sent to; replies leave from there */
    bool ecn;                      /* tell their traffic class */
    bool start_paused;             /* as if gyre_udp_pause() were called */
    enum gyre_udp_gro gro;
    void *user;                    /* gyre_udp_user() from the start */
    bool no_runs;                  /* what goes to one receiver leaves one by one all the same */
};

/* ---- Opening ---- */

/* Bind to `address` on `loop` and receive. Bound to a multicast group, it joins it. `*out` (may be NULL) is borrowed,
 * like every socket: valid until its on_close. A unix path that is left over, a socket nobody is bound to, is replaced;
 * it is unlinked again at the end.
 *
 * Returns 0, or: GYRE_EADDRESS, GYRE_EPATHLEN, GYRE_EHANDLERS, GYRE_EOPTION, GYRE_ETHREAD, GYRE_ESHUTDOWN,
 * -EADDRINUSE, -EADDRNOTAVAIL, -EACCES, -EEXIST (path is not a socket), -EMFILE, -ENFILE, -ENOMEM; -EOPNOTSUPP for an
 * option that this system or this kind of socket does not have; what the kernel said to an option. On error no callback
 * comes.
 * Thread: the loop's. */
#define gyre_udp_open(out, loop, address, handlers, ...)                                                               \
    gyre_udp_open_sized((out), (loop), (address), (handlers), (__VA_ARGS__), sizeof(struct gyre_udp_options))
GYRE_API int gyre_udp_open_sized(struct gyre_udp **out, struct gyre_loop *loop, const char *address,
                                 const struct gyre_udp_handlers *handlers, const struct gyre_udp_options *options,
                                 size_t size_bytes);

/* A socket that talks to `address` alone: only its datagrams are received, gyre_udp_send() needs no address, and the
 * network's errors are told. A unix socket gets a name of its own where the system gives one (Linux), so that the other
 * side can answer. Nothing is exchanged with the other side. Errors as gyre_udp_open(); also -ECONNREFUSED, -ENOENT
 * (unix: nobody is bound there), -ENETUNREACH.
 * Thread: the loop's. */
#define gyre_udp_connect(out, loop, address, handlers, ...)                                                            \
    gyre_udp_connect_sized((out), (loop), (address), (handlers), (__VA_ARGS__), sizeof(struct gyre_udp_options))
GYRE_API int gyre_udp_connect_sized(struct gyre_udp **out, struct gyre_loop *loop, const char *address,
                                    const struct gyre_udp_handlers *handlers, const struct gyre_udp_options *options,
                                    size_t size_bytes);

/* Make a socket of a UDP or unix datagram socket that is there already: connected, bound or neither (then sending
 * binds it). Takes `fd` on success, makes it close-on-exec, and blocking or not as the backend needs, which whoever
 * shares it sees. What the options ask for is set; what was set before stays, but for the kernel's joining and cutting
 * of datagrams. Those about binding (`share_port`, `reuse_address`, `unix_mode`) have no effect; `local` is refused.
 * A unix path is not unlinked. Datagrams that wait in it are received.
 *
 * Sockets inherited from a parent or a service manager (see gyre_engine_listen_fd()) go to an engine in this way, too:
 * before it runs, to gyre_engine_loop(). Several of one address, bound with SO_REUSEPORT, are best spread over its
 * loops.
 *
 * Returns 0, or: GYRE_ESOCKTYPE if it is no such socket; -EBADF; GYRE_EHANDLERS, GYRE_EOPTION, GYRE_ETHREAD,
 * GYRE_ESHUTDOWN, -EMFILE, -ENOMEM; -EOPNOTSUPP, and what the kernel said to an option. On error `fd` stays open and
 * the caller's, with those options that were set by then. Thread: the loop's. */
#define gyre_udp_adopt_fd(out, loop, fd, handlers, ...)                                                                \
    gyre_udp_adopt_fd_sized((out), (loop), (fd), (handlers), (__VA_ARGS__), sizeof(struct gyre_udp_options))
GYRE_API int gyre_udp_adopt_fd_sized(struct gyre_udp **out, struct gyre_loop *loop, int fd,
                                     const struct gyre_udp_handlers *handlers, const struct gyre_udp_options *options,
                                     size_t size_bytes);

/* A name for a socket that outlives it; see gyre_conn_id. */
struct gyre_udp_id {
    struct gyre_loop *loop;
    uint32_t slot;
    uint32_t generation;
};

/* ---- Sending. Thread: the socket's loop. ---- */

/* Answer the datagram that on_datagram is looking at. Bytes that lie in `d->data` are not copied; others are. With
 * `pktinfo` the answer leaves from the address that was asked.
 * Returns as gyre_udp_send_to(); -EINVAL if `d` is not that datagram; -EDESTADDRREQ if its sender has no name. */
GYRE_API int gyre_udp_reply(struct gyre_udp *u, const struct gyre_datagram *d, const void *data, size_t len);

/* Queue a copy of `len` bytes (0 is a datagram too) for the address that a connected socket talks to.
 * Returns 0, or: -EAGAIN if the queue is full (counted; on_drain follows); -EMSGSIZE if no datagram can be that long;
 * -EDESTADDRREQ if the socket is not connected; -EINVAL for NULL data with len > 0; -ENOMEM; GYRE_ECLOSED;
 * GYRE_ETHREAD. */
GYRE_API int gyre_udp_send(struct gyre_udp *u, const void *data, size_t len);

/* The same for `to`, which is copied. On an IPv6 socket that carries IPv4 too, an IPv4 address will do. Also returns
 * GYRE_EADDRESS for an address that is not whole or has port 0, -EAFNOSUPPORT for one of another family. */
GYRE_API int gyre_udp_send_to(struct gyre_udp *u, const struct sockaddr *to, socklen_t to_len, const void *data,
                              size_t len);

/* Queue `len` bytes as datagrams of `segment_bytes` each, the last with what is left. The kernel cuts them where it can
 * (UDP_SEGMENT, Linux), for the cost of little more than one; elsewhere it is done here. At most 64 datagrams, and in
 * all not more than one datagram's maximum. `to` NULL: where a connected socket talks to.
 * Returns as gyre_udp_send_to(); -EINVAL for segment_bytes 0; -EMSGSIZE if it is too much. */
GYRE_API int gyre_udp_send_segments(struct gyre_udp *u, const struct sockaddr *to, socklen_t to_len, const void *data,
                                    size_t len, size_t segment_bytes);

/* Bytes queued and not yet taken by the kernel. */
GYRE_API size_t gyre_udp_outbound(const struct gyre_udp *u);

/* Parse an address of this header once, for gyre_udp_send_to(). Returns 0, or GYRE_EADDRESS, GYRE_EPATHLEN.
 * Thread: any. */
GYRE_API int gyre_udp_parse(struct sockaddr_storage *out, socklen_t *out_len, const char *address);

/* ---- Receiving and end. Thread: the socket's loop. ---- */

/* Keep the datagram that on_datagram is looking at beyond the handler: `*view` is its bytes, valid until
 * gyre_buf_release(*out). Without a copy while receive buffers are plenty, else with one.
 * Returns 0, or: -EINVAL if `d` is not that datagram; -ENOMEM; GYRE_ECLOSED; GYRE_ETHREAD. */
GYRE_API int gyre_udp_hold(struct gyre_buf **out, struct gyre_slice *view, struct gyre_udp *u,
                           const struct gyre_datagram *d);

/* After pause returns there is no on_datagram until resume; datagrams stay with the kernel as long as its buffer has
 * room, and the few that had been received come first then. Return 0, or GYRE_ECLOSED, GYRE_ETHREAD. */
GYRE_API int gyre_udp_pause(struct gyre_udp *u);
GYRE_API int gyre_udp_resume(struct gyre_udp *u);

/* Join or leave a multicast group on an interface (index; 0: the system chooses). The port of `group` does not count.
 * Returns 0, or: GYRE_EADDRESS for what is no group; -EAFNOSUPPORT for one of another family; -EOPNOTSUPP on unix;
 * what the kernel said (-EADDRINUSE: is a member; -EADDRNOTAVAIL: is none; -ENODEV); GYRE_ECLOSED; GYRE_ETHREAD. */
GYRE_API int gyre_udp_join(struct gyre_udp *u, const struct sockaddr *group, socklen_t group_len, uint32_t interface);
GYRE_API int gyre_udp_leave(struct gyre_udp *u, const struct sockaddr *group, socklen_t group_len, uint32_t interface);

/* Close: no further on_datagram; what is queued is sent, for at most `linger_timeout_ns`, then on_close. A second call
 * does nothing. Returns 0, or GYRE_ETHREAD. */
GYRE_API int gyre_udp_close(struct gyre_udp *u);

/* Close at once and drop what is queued. Returns 0, or GYRE_ETHREAD. */
GYRE_API int gyre_udp_abort(struct gyre_udp *u);

/* ---- What it is. Thread: the socket's loop. ---- */

#define GYRE_UDP_STATS(X)                                                                                              \
    X(received, "datagrams received, those cut included")                                                              \
    X(received_bytes, "bytes in them")                                                                                 \
    X(truncated, "datagrams that were cut")                                                                            \
    X(dropped, "datagrams received and thrown away: while closing, or for want of memory while paused")                \
    X(kernel_dropped, "datagrams that the kernel threw away because nobody fetched them in time, if it says")          \
    X(sent, "datagrams that the kernel took")                                                                          \
    X(sent_bytes, "bytes in them")                                                                                     \
    X(send_refused, "sends refused because the queue was full")                                                        \
    X(send_errors, "datagrams that could not be sent")                                                                 \
    X(send_dropped, "datagrams queued and dropped when the socket closed")                                             \
    X(errors, "errors told by the network")

struct gyre_udp_counts {
#define GYRE_UDP_STATS_FIELD(name, text) uint64_t name;
    GYRE_UDP_STATS(GYRE_UDP_STATS_FIELD)
#undef GYRE_UDP_STATS_FIELD
};

/* Copy its counters; in on_close they are final. */
GYRE_API void gyre_udp_stats(const struct gyre_udp *u, struct gyre_udp_counts *out);

GYRE_API struct gyre_loop *gyre_udp_loop(const struct gyre_udp *u); /* borrowed */
GYRE_API void *gyre_udp_user(const struct gyre_udp *u);             /* what the options gave, or set_user */
GYRE_API void gyre_udp_set_user(struct gyre_udp *u, void *user); /* from now on */
/* The descriptor: for getsockopt and the like. Never close, read or write it. */
GYRE_API int gyre_udp_fd(const struct gyre_udp *u);
/* The address it is bound to, as gyre_udp_connect() would take it ("udp://127.0.0.1:40123"). Static to the socket. */
GYRE_API const char *gyre_udp_address(const struct gyre_udp *u);
/* The same as getsockname(2) has it. Returns 0, or: -EINVAL, GYRE_ETHREAD, GYRE_ECLOSED for no socket, -errno. */
GYRE_API int gyre_udp_local_address(const struct gyre_udp *u, struct sockaddr_storage *out, socklen_t *out_len);
/* Of a connected socket, the other side, as getpeername(2). Returns as that, and -ENOTCONN if it is not connected. */
GYRE_API int gyre_udp_peer_address(const struct gyre_udp *u, struct sockaddr_storage *out, socklen_t *out_len);

/* ---- From other threads ---- */

GYRE_API struct gyre_udp_id gyre_udp_id_of(const struct gyre_udp *u); /* Thread: the socket's loop. */
/* The socket, borrowed, or NULL if it is gone. Thread: the loop's. */
GYRE_API struct gyre_udp *gyre_udp_from_id(struct gyre_udp_id id);

/* gyre_udp_send_to() with a copy, or with `to` NULL gyre_udp_send(), on the socket's loop; what that says is lost, but
 * a full queue is counted. Returns 0, or -EINVAL, GYRE_EADDRESS, -ENOMEM, -EAGAIN if too many tasks wait,
 * GYRE_ESHUTDOWN. Thread: any. */
GYRE_API int gyre_udp_id_send(struct gyre_udp_id id, const struct sockaddr *to, socklen_t to_len, const void *data,
                              size_t len);

/* gyre_udp_close() on the socket's loop; nothing happens if it is gone. Returns 0, or -EINVAL, -ENOMEM, -EAGAIN,
 * GYRE_ESHUTDOWN. Thread: any. */
GYRE_API int gyre_udp_id_close(struct gyre_udp_id id);

#ifdef __cplusplus
}
#endif

#endif
