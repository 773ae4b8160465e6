/* SPDX-License-Identifier: MIT
 * Datagram sockets: UDP over IPv4 and IPv6, and unix datagrams.
 *
 * Addresses.
 *
 *   udp://127.0.0.1:7000      UDP over IPv4
 *   udp://[::1]:7000          UDP over IPv6
 *   udp://:7000               every local address, IPv4 and IPv6
 *   udp4://…, udp6://…        that family only
 *   unixgram:///run/x.sock    unix datagrams, a path
 *   unixgram://@name          unix datagrams, an abstract name (Linux)
 *
 * Binding to port 0 chooses a free port. gyre_udp_address() returns the resolved address.
 *
 * Receiving. The loop calls `on_datagram` once for each datagram. The bytes lie in the loop's receive buffer and are
 * not copied. The longest datagram that fits is `buf_size_bytes` of the loop minus 48 to 176 bytes, which hold the
 * address and control data. With the default this is more than 16 KiB. A longer datagram is truncated, marked
 * `truncated` and counted. To receive datagrams of up to 64 KiB, set `buf_size_bytes` to 65792 or more.
 *
 * Sending. A send queues the datagram. The datagrams queued in one turn of the loop leave together at its end.
 * Consecutive datagrams of equal length (up to 1452 bytes) to one receiver leave as one send, which the kernel splits
 * (UDP_SEGMENT, Linux). The queue is bounded: if it is full, a send fails with -EAGAIN and `on_drain` follows.
 *
 * Order. Datagrams leave in the order in which they were queued, with one exception: if the socket's send buffer in the
 * kernel overflows, UDP datagrams on io_uring may overtake each other. Loopback and most networks never overflow it.
 * The network may still lose, repeat and reorder UDP datagrams. The kernel does none of this to unix datagrams.
 *
 * Network errors. `on_error` reports them, for example the ICMP "port unreachable" of a connected socket. The socket
 * stays open. */
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

/* A received datagram. Everything it points to is borrowed until on_datagram returns. */
struct gyre_datagram {
    struct gyre_slice data;       /* the payload; may be empty (len 0) */
    const struct sockaddr *peer;  /* the sender's address. NULL: a unix socket without a name. On an IPv6 socket that
                                     also receives IPv4, an IPv4 sender is a mapped address (::ffff:192.0.2.1) */
    socklen_t peer_len;
    const struct sockaddr *local; /* with `pktinfo`: the destination address, port 0; otherwise NULL */
    socklen_t local_len;
    uint32_t interface;           /* with `pktinfo`: index of the receiving interface; otherwise 0 */
    uint32_t segment_bytes;       /* with GYRE_UDP_GRO_WHOLE: `data` holds several datagrams of this size, and the last
                                     may be shorter; 0: `data` is one datagram */
    uint8_t traffic_class;        /* with `ecn`: the TOS byte or traffic class; its low two bits are ECN */
    bool truncated;               /* the datagram was longer than the buffer; the rest is lost */
};

/* Callbacks of a socket. `on_datagram` is required. The struct is borrowed, is usually static and const, and must
 * outlive the sockets that use it. All callbacks run on the socket's loop. */
struct gyre_udp_handlers {
    void (*on_datagram)(struct gyre_udp *u, const struct gyre_datagram *d);
    void (*on_drain)(struct gyre_udp *u); /* a send failed with -EAGAIN, and the queue is now at most half full */
    /* A datagram could not be sent, or the network reported an error for an earlier datagram: -ECONNREFUSED,
     * -EHOSTUNREACH, -EMSGSIZE, -EPERM, …. On a unix socket -EAGAIN means that the receiver's queue was full. The
     * socket stays open. */
    void (*on_error)(struct gyre_udp *u, int err);
    /* The last callback of the socket. `err` is:
     *   0              gyre_udp_close() or gyre_udp_abort() was called, or gyre_engine_drain() closed the socket after
     *                  all queued datagrams were sent
     *   GYRE_ETIMEOUT  `linger_timeout_ns` passed after gyre_udp_close() or gyre_engine_drain() before all queued
     *                  datagrams were sent
     *   GYRE_ESHUTDOWN the engine was stopped, the time of gyre_engine_drain() passed, or the loop was destroyed
     *   otherwise      the error that broke the socket */
    void (*on_close)(struct gyre_udp *u, int err);
};

/* Whether the kernel may join consecutive datagrams from one sender into one receive (UDP_GRO, Linux). Joining needs
 * receive buffers of at least 65792 bytes (`buf_size_bytes` of the loop), because shorter ones would truncate the
 * joined datagrams. With smaller buffers, opening fails with GYRE_EOPTION. */
enum gyre_udp_gro {
    GYRE_UDP_GRO_OFF = 0,
    GYRE_UDP_GRO_SPLIT, /* on_datagram is called once for each datagram */
    GYRE_UDP_GRO_WHOLE  /* on_datagram is called once for all joined datagrams, with `segment_bytes` set */
};

/* Options of a socket. If the system refuses an option, opening fails with the system's errno. */
struct gyre_udp_options {
    uint32_t send_queue_max_bytes; /* limit on queued bytes that the kernel has not taken; 0: 1 MiB; at most 1 GiB */
    uint32_t send_queue_max_count; /* limit on queued datagrams; 0: 1024; at most 1048576 */
    uint32_t recv_buffer_bytes;    /* SO_RCVBUF; 0: the system's default; at most INT32_MAX */
    uint32_t send_buffer_bytes;    /* SO_SNDBUF; 0: the system's default; at most INT32_MAX */
    int64_t linger_timeout_ns;     /* limit on the time to send queued datagrams after gyre_udp_close(); 0: 1 s;
                                      not negative */
    const char *device;            /* interface name (SO_BINDTODEVICE); borrowed during the call; NULL: any */
    const char *source_address;    /* gyre_udp_connect() only: the address to bind to before connecting; borrowed during
                                      the call; NULL: the system chooses */
    uint32_t multicast_interface;  /* index of the interface for sent multicast. If `address` is a multicast group, the
                                      socket joins the group on this interface. 0: the system chooses; at most
                                      INT32_MAX */
    uint32_t unix_mode;            /* permission bits of the unix socket file, such as 0660; 0: as umask(2) says; at
                                      most 0777 */
    uint8_t ttl;                   /* TTL (IPv4) or hop limit (IPv6) of sent datagrams; 0: the system's default */
    uint8_t multicast_ttl;         /* the same for multicast; 0: the system's default, which is 1 */
    uint8_t traffic_class;         /* TOS byte or traffic class of sent datagrams; its low two bits are ECN; 0: the
                                      system's default */
    bool no_multicast_loop;        /* members of the group on this machine do not receive what this socket sends */
    bool share_port;               /* SO_REUSEPORT: other sockets of this user may bind the same port */
    bool reuse_address;            /* SO_REUSEADDR: for several members of one multicast group on one port */
    bool broadcast;                /* allow sending to broadcast addresses */
    bool pktinfo;                  /* report the destination address of each datagram; replies leave from it */
    bool ecn;                      /* report the traffic class of each datagram */
    bool start_paused;             /* start as if gyre_udp_pause() had been called */
    enum gyre_udp_gro gro;
    void *user;                    /* initial value of gyre_udp_user() */
    bool no_runs;                  /* send each datagram on its own: never join datagrams for one receiver */
};

/* ---- Opening ---- */

/* Open a socket on `loop`, bind it to `address` and start to receive.
 *
 * `*out` receives the socket, borrowed: the socket is valid until its on_close returns. `out` may be NULL. `handlers`
 * is borrowed for the same time. `options` is copied; NULL options mean all defaults. If `address` is a multicast
 * group, the socket also joins that group. A leftover unix socket file that no socket is bound to is replaced. When
 * the socket closes, its socket file is unlinked.
 *
 * Returns 0, or an error; then no callback runs:
 *   GYRE_EADDRESS   `address` does not parse
 *   GYRE_EPATHLEN   the unix path is empty or too long
 *   GYRE_EHANDLERS  `handlers` or `on_datagram` is NULL
 *   GYRE_EOPTION    an option is out of range; `source_address` is set; the loop's receive buffers are too small for
 *                   `gro`, or for the addresses and control data of a datagram
 *   GYRE_ETHREAD    called on a thread that is not the loop's
 *   GYRE_ESHUTDOWN  the loop is draining or being destroyed
 *   -EINVAL         `loop` or `address` is NULL
 *   -E2BIG          an option is set that this library does not know
 *   -EADDRINUSE     another socket is bound to the address
 *   -EADDRNOTAVAIL  the address is not one of this machine's
 *   -EAFNOSUPPORT   the system does not support the address family
 *   -EACCES         no permission for the port or the path
 *   -EEXIST         the path exists and is not a socket
 *   -ENOENT         the directory of the path does not exist
 *   -ENODEV, -EPERM  `device` does not exist, or its use is not permitted
 *   -EMFILE, -ENFILE  out of descriptors
 *   -ENOMEM         out of memory
 *   -EOPNOTSUPP     the system, or this kind of socket, does not have one of the options
 *   -errno          another error of the system, such as a refused option
 * Thread: the loop's. */
#define gyre_udp_open(out, loop, address, handlers, ...)                                                               \
    gyre_udp_open_sized((out), (loop), (address), (handlers),                                                          \
                        GYRE_LAST_ARGUMENT_IS_OPTIONS_OR_NULL(struct gyre_udp_options, __VA_ARGS__))
GYRE_API int gyre_udp_open_sized(struct gyre_udp **out, struct gyre_loop *loop, const char *address,
                                 const struct gyre_udp_handlers *handlers, const struct gyre_udp_options *options,
                                 size_t size_bytes);

/* Open a socket on `loop` that exchanges datagrams with `address` only. The socket receives only datagrams from
 * `address`. gyre_udp_send() and gyre_udp_reply() send to `address`. `on_error` reports the errors of the network.
 *
 * Connecting sends nothing to the peer. On Linux a unix socket gets a name of its own, so that the peer can answer; on
 * other systems it has no name unless `source_address` gives one. `*out`, `handlers` and `options` are as in
 * gyre_udp_open().
 *
 * Returns 0, or the errors of gyre_udp_open() (`source_address` is allowed here), or:
 *   -ECONNREFUSED   unix: the path exists, but no socket is bound to it
 *   -ENOENT         unix: the path does not exist
 *   -ENETUNREACH    there is no route to `address`
 *   -EAFNOSUPPORT   `source_address` is of another family than `address`
 * Thread: the loop's. */
#define gyre_udp_connect(out, loop, address, handlers, ...)                                                            \
    gyre_udp_connect_sized((out), (loop), (address), (handlers),                                                       \
                           GYRE_LAST_ARGUMENT_IS_OPTIONS_OR_NULL(struct gyre_udp_options, __VA_ARGS__))
GYRE_API int gyre_udp_connect_sized(struct gyre_udp **out, struct gyre_loop *loop, const char *address,
                                    const struct gyre_udp_handlers *handlers, const struct gyre_udp_options *options,
                                    size_t size_bytes);

/* Make a socket from an existing UDP or unix datagram descriptor. `fd` may be connected, bound, or neither; in the last
 * case the first send binds it.
 *
 * On success the library takes `fd`. It makes `fd` close-on-exec, and blocking or non-blocking as the backend needs;
 * every process that shares the socket sees the blocking mode change. Datagrams that are already waiting in the socket
 * are received. A unix path is not unlinked.
 *
 * Options that are given are set on the socket. Options set before stay, except that the kernel's joining and splitting
 * of datagrams (UDP_GRO, UDP_SEGMENT) is reset to what `options` say. `share_port`, `reuse_address` and `unix_mode`
 * have no effect.
 *
 * Use this call also for sockets inherited from a parent or a service manager (see gyre_engine_listen_fd()). For an
 * engine, call it with a loop of gyre_engine_loop() before the engine runs. If several sockets are bound to one address
 * with SO_REUSEPORT, give each loop one of the sockets.
 *
 * Returns 0, or an error. On error `fd` stays open and belongs to the caller; some options may be set already:
 *   GYRE_ESOCKTYPE  `fd` is not a UDP or unix datagram socket
 *   GYRE_EHANDLERS, GYRE_EOPTION, GYRE_ETHREAD, GYRE_ESHUTDOWN, -E2BIG, -EMFILE, -ENOMEM, -EOPNOTSUPP, -errno
 *                   as for gyre_udp_open()
 *   -EBADF          `fd` is not open
 *   -EINVAL         `loop` is NULL
 * Thread: the loop's. */
#define gyre_udp_adopt_fd(out, loop, fd, handlers, ...)                                                                \
    gyre_udp_adopt_fd_sized((out), (loop), (fd), (handlers),                                                           \
                            GYRE_LAST_ARGUMENT_IS_OPTIONS_OR_NULL(struct gyre_udp_options, __VA_ARGS__))
GYRE_API int gyre_udp_adopt_fd_sized(struct gyre_udp **out, struct gyre_loop *loop, int fd,
                                     const struct gyre_udp_handlers *handlers, const struct gyre_udp_options *options,
                                     size_t size_bytes);

/* An id that names a socket and may outlive it; see gyre_conn_id. */
struct gyre_udp_id {
    struct gyre_loop *loop;
    uint32_t slot;
    uint32_t generation;
};

/* ---- Sending. Thread: the socket's loop. ----
 *
 * The send functions share these errors. On error nothing is queued.
 *   -EAGAIN        the queue would exceed `send_queue_max_bytes` or `send_queue_max_count`; counted (send_refused), and
 *                  on_drain follows
 *   -EMSGSIZE      longer than `send_queue_max_bytes`, or than a UDP datagram can be: 65507 bytes over IPv4, 65527
 *                  over IPv6
 *   -EDESTADDRREQ  no receiver is given and the socket is not connected
 *   -EINVAL        `data` is NULL and `len` is not 0
 *   -ENOMEM        out of memory
 *   GYRE_ECLOSED   the socket is closing, or is NULL
 *   GYRE_ETHREAD   called on a thread that is not the loop's */

/* Queue `len` bytes for the sender of `d`, the datagram that on_datagram is handling. Bytes inside `d->data` are not
 * copied, unless more than three quarters of the loop's `buf_count_max` receive buffers are in use. Other bytes are
 * copied. With `pktinfo` the reply leaves from the address that `d` was sent to. If `d` was sent to a multicast or
 * broadcast address, the system chooses the address.
 *
 * Returns 0, or the errors above and:
 *   -EINVAL        `d` is not the datagram that on_datagram is handling
 *   -EDESTADDRREQ  the sender has no name, and the socket is not connected */
GYRE_API int gyre_udp_reply(struct gyre_udp *u, const struct gyre_datagram *d, const void *data, size_t len);

/* Queue a copy of `len` bytes (0 sends an empty datagram) for the peer of a connected socket. Returns 0, or the errors
 * above. */
GYRE_API int gyre_udp_send(struct gyre_udp *u, const void *data, size_t len);

/* Queue a copy of `len` bytes (0 sends an empty datagram) for the address `to`, which is copied too. An IPv6 socket
 * that also carries IPv4 accepts an IPv4 address.
 *
 * Returns 0, or the errors above and:
 *   GYRE_EADDRESS  `to` is NULL, its length is wrong for its family, or its port is 0
 *   -EAFNOSUPPORT  `to` is of another family than the socket */
GYRE_API int gyre_udp_send_to(struct gyre_udp *u, const struct sockaddr *to, socklen_t to_len, const void *data,
                              size_t len);

/* Queue a copy of `len` bytes as datagrams of `segment_bytes` each; the last one may be shorter. The limits are
 * 64 datagrams and, for `len`, the longest single datagram: 65507 bytes over IPv4, 65527 over IPv6. If `to` is NULL,
 * the datagrams go to the peer of a connected socket. If the kernel can split the bytes (UDP_SEGMENT, Linux), the
 * datagrams cost little more than one datagram and count as one in `send_queue_max_count`. Otherwise the library splits
 * the bytes, and each datagram counts.
 *
 * Returns 0, or the errors of gyre_udp_send_to() and:
 *   -EINVAL    `segment_bytes` is 0
 *   -EMSGSIZE  more than 64 datagrams, more bytes than one datagram can have, or more than the queue can ever hold */
GYRE_API int gyre_udp_send_segments(struct gyre_udp *u, const struct sockaddr *to, socklen_t to_len, const void *data,
                                    size_t len, size_t segment_bytes);

/* Returns the number of queued bytes that the kernel has not taken yet. */
GYRE_API size_t gyre_udp_outbound(const struct gyre_udp *u);

/* Parse an address of this header, for use with gyre_udp_send_to(). Writes the address to `*out` and its length to
 * `*out_len`.
 *
 * Returns 0, or:
 *   GYRE_EADDRESS  `address` does not parse, or is NULL
 *   GYRE_EPATHLEN  the unix path is empty or too long
 *   -EINVAL        `out` or `out_len` is NULL
 * Thread: any. */
GYRE_API int gyre_udp_parse(struct sockaddr_storage *out, socklen_t *out_len, const char *address);

/* ---- Receiving and closing. Thread: the socket's loop. ----
 *
 * GYRE_ECLOSED here means that the socket is closing or NULL. GYRE_ETHREAD means that the call was made on a thread
 * that is not the loop's. */

/* Keep the bytes of `d`, the datagram that on_datagram is handling, after the handler returns. `*out` receives a buffer
 * that the caller owns. `*view` receives the bytes and is valid until the caller releases `*out` with
 * gyre_buf_release(). The bytes are copied only if more than three quarters of `buf_count_max` receive buffers are in
 * use. A held receive buffer counts against `buf_count_max`.
 *
 * Returns 0, or:
 *   -EINVAL       `d` is not the datagram that on_datagram is handling, or `out` or `view` is NULL
 *   -ENOMEM       out of memory
 *   GYRE_ECLOSED, GYRE_ETHREAD */
GYRE_API int gyre_udp_hold(struct gyre_buf **out, struct gyre_slice *view, struct gyre_udp *u,
                           const struct gyre_datagram *d);

/* Stop and restart receiving. After gyre_udp_pause() returns, on_datagram is not called until gyre_udp_resume().
 * Meanwhile datagrams wait in the kernel's receive buffer as long as it has room. The few datagrams that the loop had
 * already received are delivered first after resume. Returns 0, GYRE_ECLOSED or GYRE_ETHREAD. */
GYRE_API int gyre_udp_pause(struct gyre_udp *u);
GYRE_API int gyre_udp_resume(struct gyre_udp *u);

/* Join or leave the multicast group `group` on the interface with index `interface` (0: the system chooses). The port
 * of `group` is ignored.
 *
 * Returns 0, or:
 *   GYRE_EADDRESS   `group` is not a multicast address, is NULL, or is too short
 *   -EAFNOSUPPORT   `group` is of another family than the socket
 *   -EOPNOTSUPP     the socket is a unix socket
 *   -EADDRINUSE     join: the socket is already a member
 *   -EADDRNOTAVAIL  leave: the socket is not a member
 *   -ENODEV         no such interface
 *   -errno          any other error of the kernel
 *   GYRE_ECLOSED, GYRE_ETHREAD */
GYRE_API int gyre_udp_join(struct gyre_udp *u, const struct sockaddr *group, socklen_t group_len, uint32_t interface);
GYRE_API int gyre_udp_leave(struct gyre_udp *u, const struct sockaddr *group, socklen_t group_len, uint32_t interface);

/* Close the socket. on_datagram is not called any more. Queued datagrams are sent for at most `linger_timeout_ns`; then
 * on_close runs. A second call does nothing. Returns 0 or GYRE_ETHREAD. */
GYRE_API int gyre_udp_close(struct gyre_udp *u);

/* Close the socket at once. Queued datagrams are dropped and on_close follows. Returns 0 or GYRE_ETHREAD. */
GYRE_API int gyre_udp_abort(struct gyre_udp *u);

/* ---- Properties. Thread: the socket's loop. ---- */

/* The counters of a socket: X(field, description). */
#define GYRE_UDP_STATS(X)                                                                                              \
    X(received, "datagrams received, including truncated ones")                                                        \
    X(received_bytes, "bytes of the received datagrams")                                                               \
    X(truncated, "datagrams that were truncated")                                                                      \
    X(dropped, "datagrams received and dropped: while closing, or because memory ran out while paused")                \
    X(kernel_dropped, "datagrams that the kernel dropped because the receive buffer was full (Linux; elsewhere 0)")    \
    X(sent, "datagrams that the kernel accepted")                                                                      \
    X(sent_bytes, "bytes of the sent datagrams")                                                                       \
    X(send_refused, "sends refused because the queue was full")                                                        \
    X(send_errors, "datagrams that could not be sent")                                                                 \
    X(send_dropped, "datagrams queued and dropped when the socket closed")                                             \
    X(errors, "errors that the network reported")

struct gyre_udp_counts {
#define GYRE_UDP_STATS_FIELD(name, text) uint64_t name;
    GYRE_UDP_STATS(GYRE_UDP_STATS_FIELD)
#undef GYRE_UDP_STATS_FIELD
};

/* Copy the socket's counters to `*out`. In on_close they are final. */
GYRE_API void gyre_udp_stats(struct gyre_udp_counts *out, const struct gyre_udp *u);

GYRE_API struct gyre_loop *gyre_udp_loop(const struct gyre_udp *u); /* the socket's loop, borrowed */
GYRE_API void *gyre_udp_user(const struct gyre_udp *u);             /* `user` of the options, or of set_user */
GYRE_API void gyre_udp_set_user(struct gyre_udp *u, void *user); /* replaces the user pointer */
/* The descriptor, borrowed, for getsockopt(2) and the like. Do not close, read or write it. */
GYRE_API int gyre_udp_fd(const struct gyre_udp *u);
/* The address the socket is bound to, in the form that gyre_udp_connect() takes ("udp://127.0.0.1:40123"). Borrowed:
 * valid as long as the socket. */
GYRE_API const char *gyre_udp_address(const struct gyre_udp *u);
/* Get the socket's own address, as getsockname(2) returns it. Writes it to `*out` and its length to `*out_len`.
 * Returns 0, or:
 *   -EINVAL       `out` or `out_len` is NULL
 *   GYRE_ETHREAD  called on a thread that is not the loop's
 *   GYRE_ECLOSED  `u` is NULL
 *   -errno        the kernel's error */
GYRE_API int gyre_udp_local_address(struct sockaddr_storage *out, socklen_t *out_len, const struct gyre_udp *u);
/* Get the peer's address of a connected socket, as getpeername(2) returns it. Returns as gyre_udp_local_address(), and
 * -ENOTCONN if the socket is not connected. */
GYRE_API int gyre_udp_peer_address(struct sockaddr_storage *out, socklen_t *out_len, const struct gyre_udp *u);

/* ---- From other threads ---- */

GYRE_API struct gyre_udp_id gyre_udp_id_of(const struct gyre_udp *u); /* the socket's id. Thread: the socket's loop. */
/* Returns the socket, borrowed, or NULL if it is gone. Thread: the loop's. */
GYRE_API struct gyre_udp *gyre_udp_from_id(struct gyre_udp_id id);

/* Call gyre_udp_send_to() on the socket's loop, or gyre_udp_send() if `to` is NULL. `to` and the `len` bytes at `data`
 * are copied before this function returns. The result of that call is not reported; a full queue is counted
 * (send_refused). If the socket is gone by then, nothing happens.
 *
 * Returns 0, or:
 *   -EINVAL         `id.loop` is NULL, or `data` is NULL and `len` is not 0
 *   GYRE_EADDRESS   `to_len` is 0 or longer than any address
 *   -ENOMEM         out of memory
 *   -EAGAIN         `tasks_max` tasks are queued on the loop
 *   GYRE_ESHUTDOWN  the loop is being destroyed
 *   GYRE_EFORK      the loop belongs to the parent process
 * Thread: any, until the loop is destroyed. */
GYRE_API int gyre_udp_id_send(struct gyre_udp_id id, const struct sockaddr *to, socklen_t to_len, const void *data,
                              size_t len);

/* Call gyre_udp_close() on the socket's loop. If the socket is gone by then, nothing happens.
 * Returns 0, -EINVAL if `id.loop` is NULL, or -ENOMEM, -EAGAIN, GYRE_ESHUTDOWN or GYRE_EFORK as gyre_udp_id_send().
 * Thread: any, until the loop is destroyed. */
GYRE_API int gyre_udp_id_close(struct gyre_udp_id id);

#ifdef __cplusplus
}
#endif

#endif
