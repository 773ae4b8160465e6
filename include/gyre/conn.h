/* SPDX-License-Identifier: MIT
 * Stream connections: TCP and unix, accepted or made with gyre_connect().
 *
 * Life: (connecting →) open → closing → closed. `on_open` first, then `on_data`, `on_drain`, `on_eof` as things happen,
 * `on_close` exactly once and last; after it the pointer is dead (keep a gyre_conn_id to outlive it). A connection that
 * never opened (connect failed) gets `on_close` alone.
 *
 * Reading is a pull. In `on_data` the bytes lie in the receive buffer itself; take what you want, leave the rest. What
 * is left is copied into the connection's elastic buffer and stays, in order, before the bytes that come next.
 * `on_data` comes again for leftovers when new bytes arrive or gyre_conn_wake() asks for it. At `read_max_bytes` of
 * leftovers receiving stops until some are taken.
 *
 * Writing queues; what one turn of the loop queued leaves as one gathered send. Above `write_high_bytes` the
 * connection is congested, and `on_drain` comes when it falls to `write_low_bytes`. A write that would pass
 * `write_max_bytes` is refused whole with -EAGAIN. */
#ifndef GYRE_CONN_H
#define GYRE_CONN_H

#include <gyre/base.h>
#include <gyre/buf.h>
#include <gyre/loop.h>
#include <gyre/sockopt.h>
#include <sys/socket.h>
#include <sys/uio.h>

#ifdef __cplusplus
extern "C" {
#endif

struct gyre_conn;
struct gyre_framer;
struct gyre_listener;

/* Why a connection ended. The errno behind it, if any, is what on_close gets. */
enum gyre_close_reason {
    GYRE_CLOSE_NONE = 0, /* still open */
    GYRE_CLOSE_USER,     /* gyre_conn_close(), everything delivered; err 0 */
    GYRE_CLOSE_EOF,      /* the peer closed, and there is no on_eof, or our side had shut down before; err 0 */
    GYRE_CLOSE_ABORT,    /* gyre_conn_abort(); err 0 */
    GYRE_CLOSE_ERROR,    /* the socket failed, or the peer sent no frames; err says why */
    GYRE_CLOSE_CONNECT,  /* the connection could not be made; err says why */
    GYRE_CLOSE_TIMEOUT,  /* a time limit passed; err GYRE_ETIMEOUT */
    GYRE_CLOSE_SHUTDOWN  /* the loop drained, everything delivered; err 0. Or it stopped; err GYRE_ESHUTDOWN */
};

/* Time limits, of which one can pass. */
enum gyre_timeout_kind {
    GYRE_TIMEOUT_NONE = 0, /* none has passed */
    GYRE_TIMEOUT_IDLE,
    GYRE_TIMEOUT_READ,
    GYRE_TIMEOUT_WRITE,
    GYRE_TIMEOUT_LIFETIME,
    GYRE_TIMEOUT_LINGER, /* in on_close alone */
    GYRE_TIMEOUT_CONNECT /* likewise */
};

/* What a connection calls. Only `on_data` is needed, or with a framer `on_frame`. Borrowed, usually static and const;
 * must outlive its connections.
 * All run on the connection's loop. */
struct gyre_conn_handlers {
    void (*on_open)(struct gyre_conn *c);
    void (*on_data)(struct gyre_conn *c);
    void (*on_drain)(struct gyre_conn *c); /* congested no more */
    /* The peer will send no more (FIN), and on_data had all it sent. Writing still works until gyre_conn_shutdown() or
     * close. Without this handler the connection is closed gracefully here. */
    void (*on_eof)(struct gyre_conn *c);
    /* A time limit passed; gyre_conn_timeout_kind() says which. Without this handler the connection is aborted with
     * GYRE_CLOSE_TIMEOUT; with it, it stays open and the time starts again (that of the lifetime does not). */
    void (*on_timeout)(struct gyre_conn *c);
    void (*on_close)(struct gyre_conn *c, int err);
    /* With a framer (frame.h), in place of on_data: called for each whole frame; the view is valid until it returns. */
    void (*on_frame)(struct gyre_conn *c, struct gyre_slice frame);
    /* What was received is no frame: GYRE_EFRAME (or what the framer said, or -ENOMEM). May answer and close, or take
     * bytes to go on behind them. If it does neither, and without this handler, the connection is closed gracefully
     * with GYRE_CLOSE_ERROR, and on_close gets the error. */
    void (*on_bad_frame)(struct gyre_conn *c, int err);
};

/* Settings of a connection, given to a listener for what it accepts or to gyre_connect(). Sizes are bytes. */
struct gyre_conn_options {
    uint32_t read_max_bytes;     /* leftovers kept before receiving stops; 0: 1 MiB */
    uint32_t write_high_bytes;   /* congested above this; 0: 256 KiB */
    uint32_t write_low_bytes;    /* on_drain at or below this; 0: a quarter of high */
    uint32_t write_max_bytes;    /* refuse writes above this; 0: 16 MiB; at most 1 GiB */
    int64_t idle_timeout_ns;     /* on_timeout after so long without a byte either way; 0, or 25 days and more: never */
    int64_t linger_timeout_ns;   /* graceful close: abort after this long without progress; 0: 30 s; 25 days: never */
    int64_t connect_timeout_ns;  /* gyre_connect() only; 0: 30 s */
    bool delay;                  /* leave Nagle's algorithm on; else TCP_NODELAY is set */
    bool start_paused;           /* as if gyre_conn_pause() were called in on_open */
    void *user;                  /* gyre_conn_user() from the start */
    uint32_t turn_max_bytes;     /* receive about so much per turn of the loop, then let others go first; 0: a turn
                                    takes in what is there, of all connections together what fits the cache */
    const struct gyre_framer *framer; /* cut into frames and call on_frame for each; borrowed like the handlers; NULL:
                                         bytes for on_data */
    /* Of the socket, set before it is bound or connected; a listener's are inherited by what it accepts. What the
     * system refuses is what listening or connecting returns. Zero leaves the system's; those of TCP and IP do nothing
     * on unix sockets. See sockopt.h. */
    struct gyre_keepalive keepalive;
    int64_t user_timeout_ns;      /* TCP_USER_TIMEOUT, in whole milliseconds, rounded up */
    uint32_t recv_buffer_bytes;   /* SO_RCVBUF */
    uint32_t send_buffer_bytes;   /* SO_SNDBUF */
    uint32_t notsent_lowat_bytes; /* TCP_NOTSENT_LOWAT */
    uint32_t max_segment_bytes;   /* TCP_MAXSEG */
    uint32_t mark;                /* SO_MARK; privileged */
    uint8_t tos;                  /* IP_TOS, IPV6_TCLASS */
    bool transparent;             /* IP_TRANSPARENT; privileged */
    bool freebind;                /* IP_FREEBIND */
    /* As gyre_conn_set_read_timeout() and so on, from when the connection is open; 0: no limit. */
    int64_t read_timeout_ns;
    int64_t write_timeout_ns;
    int64_t lifetime_ns;
    /* Of gyre_connect() over TCP: the address to connect from ("tcp://192.0.2.7:0"; a port other than 0 is that port
     * and no other; borrowed during the call), and a range of ports to choose from, 0: the system's. Where all are
     * taken it is -EADDRNOTAVAIL (for that one port also -EADDRINUSE), returned or told by on_close. On Linux from 6.3
     * a range within net.ipv4.ip_local_port_range serves each peer in full; another range, and elsewhere, all peers
     * together. */
    const char *source_address;
    uint16_t source_port_first;
    uint16_t source_port_last;
    /* Of gyre_connect() over TCP: the network device to leave by and nothing else, such as "eth1" (SO_BINDTODEVICE);
     * borrowed during the call; NULL: as the routes say. -ENODEV: there is none of that name; -EOPNOTSUPP on the
     * simulator and beside Linux. */
    const char *device;
    /* Called for each socket that the library makes: with a listener's options its own and what it accepts. Not for
     * descriptors that are given to it. NULL: none. */
    gyre_socket_fn *on_socket;
};

/* `fd` is the user's from now on, close-on-exec and in blocking mode (on the simulator, good for gyre_conn_adopt_fd()
 * alone). What was received and not taken can still be read from `c` with gyre_conn_peek(), _peekv(), _next(),
 * _discard(), _read(), _copy(), or kept with gyre_buf_hold(), and comes before what `fd` will bring; `c` is dead when
 * this returns. What gyre_conn_share() set is to be released here. */
typedef void gyre_detached_fn(struct gyre_conn *c, int fd, void *user);

/* Give the connection's descriptor back to the user. From now on it has no callbacks but `done(c, fd, user)`, which
 * comes once what was queued is sent and the kernel holds none of its memory; instead of on_close, which comes if the
 * connection ends before that: it fails, is aborted, the loop stops, what is queued makes no progress for
 * `linger_timeout_ns`, or bytes that came through a pipe find no memory (-ENOMEM). Exactly one of the two comes, never
 * from inside this call. Nothing received or queued is lost, the FIN of gyre_conn_shutdown() neither. `c` has its place
 * on the loop until `done` returns: at `conns_max` gyre_conn_adopt_fd() says GYRE_ECONNS in there, and works after it.
 *
 * Returns 0, or: GYRE_ESTATE while it is connecting, or if it is a reconnector's; GYRE_ECLOSED; what broke it, if
 * sending failed before; -EINVAL without `done`; -ENOMEM; GYRE_ETHREAD. Thread: the connection's loop. */
GYRE_API int gyre_conn_detach(struct gyre_conn *c, gyre_detached_fn *done, void *user);

/* Another descriptor for the connection's socket, close-on-exec, the caller's: its peer sees the end only when that is
 * closed too. Whether it blocks is the backend's affair and shared with the loop's own: leave O_NONBLOCK alone.
 * Returns it, or: -EMFILE; GYRE_ECLOSED; GYRE_ETHREAD; -EOPNOTSUPP on the simulator. Thread: the connection's loop. */
GYRE_API int gyre_conn_dup_fd(const struct gyre_conn *c);

/* ---- Reading. Thread: the connection's loop. ---- */

/* Bytes received and not yet taken. */
GYRE_API size_t gyre_conn_inbound(const struct gyre_conn *c);

/* The first `len` bytes as one piece, without taking them; `len` 0 means as many as lie together (data NULL and len 0
 * when there are none). Bytes in several pieces are joined first. The view is valid until the handler returns or the
 * next call that takes bytes or closes.
 * Returns 0, or: -EAGAIN if fewer than `len` are here; -EMSGSIZE if `len` is more than `read_max_bytes` and can never
 * be; -ENOMEM; GYRE_ECLOSED. */
GYRE_API int gyre_conn_peek(struct gyre_conn *c, size_t len, struct gyre_slice *out);

/* All bytes as up to `iov_count` pieces, without joining or taking. Returns how many pieces were filled. (Here and in
 * the next calls that count: 0 also where bytes that came through a pipe, gyre_conn_forward(), find no memory.) */
GYRE_API int gyre_conn_peekv(struct gyre_conn *c, struct iovec *iov, int iov_count);

/* Take the first `len` bytes as one piece: peek and discard in one. The view is valid until the handler returns or the
 * next call that reads or closes. Errors as gyre_conn_peek(). */
GYRE_API int gyre_conn_next(struct gyre_conn *c, size_t len, struct gyre_slice *out);

/* Drop up to `len` bytes from the front (SIZE_MAX: all). Returns how many. */
GYRE_API size_t gyre_conn_discard(struct gyre_conn *c, size_t len);

/* Copy up to `len` bytes from the front into `dst` and take them. Returns how many. */
GYRE_API size_t gyre_conn_read(struct gyre_conn *c, void *dst, size_t len);

/* Copy up to `len` bytes, those behind the first `from`, to `dst` without taking any. Returns how many. */
GYRE_API size_t gyre_conn_copy(const struct gyre_conn *c, size_t from, void *dst, size_t len);

/* Offset of the first occurrence of `needle` (1 to 64 bytes) in the bytes received, looking from `from` on.
 * Returns the offset (0 or more), or -EAGAIN if it is not (yet) there, or -EINVAL, -ENOMEM. */
GYRE_API int64_t gyre_conn_find(const struct gyre_conn *c, const void *needle, size_t needle_len, size_t from);

/* ---- Writing. Thread: the connection's loop. ---- */

/* Queue a copy of `len` bytes. All or nothing.
 * Returns 0, or: -EAGAIN if more than `write_max_bytes` would wait (on_drain follows); -EMSGSIZE if `len` alone is
 * more; what broke the connection, if sending failed before and on_close is still to come; -EPIPE after
 * gyre_conn_shutdown(); GYRE_ECLOSED after close; -EINVAL for NULL data with len > 0; -ENOMEM; GYRE_ETHREAD. */
GYRE_API int gyre_conn_write(struct gyre_conn *c, const void *data, size_t len);

/* The same for several pieces, all or nothing. `iov_count` 0 to 1024, else -EINVAL. */
GYRE_API int gyre_conn_writev(struct gyre_conn *c, const struct iovec *iov, int iov_count);

/* Queue `len` bytes at `data` without copying. Borrows them until `done(user, err)`, which comes exactly once, from the
 * loop, never from within this call; before the connection's on_close. Errors as gyre_conn_write(); on error nothing is
 * borrowed and `done` is not called. `done` may be NULL for data that is never freed. */
GYRE_API int gyre_conn_write_ref(struct gyre_conn *c, const void *data, size_t len, gyre_sent_fn *done, void *user);

/* Send at once what the kernel takes of these bytes, without queueing or copying any. Only when nothing is queued, so
 * the order of all writes holds; what was not taken is best given to gyre_conn_write(), which tells when it left.
 * Returns how many bytes were taken (as a rule at least 1), or: -EAGAIN if none: the socket is full, not yet connected
 * or corked, or bytes are queued; -errno if the socket failed, and then on_close follows; else as gyre_conn_write(). */
GYRE_API int64_t gyre_conn_try_write(struct gyre_conn *c, const void *data, size_t len);

/* Send `len` bytes of a regular file from `offset` on, in order with the other writes. They are read in pieces of at
 * most 64 KiB as the socket takes them, so neither `write_max_bytes` nor the marks apply, and gyre_conn_outbound()
 * counts only what was read. (io_uring reads without blocking the loop; with epoll and kqueue a slow disk makes the
 * loop wait for a piece.) Borrows `fd` until `done(user, err)`, as gyre_conn_write_ref() borrows its bytes; the file's
 * position is not used or moved.
 * If the file turns out shorter or unreadable on the way, the peer cannot get what it was promised: the connection is
 * reset, and `done` and on_close get GYRE_EFILE or -errno.
 * Returns as gyre_conn_write(), and: -EINVAL if `fd` is no regular file open for reading; GYRE_EFILE if the file is
 * shorter than `offset + len`; -EBADF. */
GYRE_API int gyre_conn_sendfile(struct gyre_conn *c, int fd, uint64_t offset, uint64_t len, gyre_sent_fn *done,
                                void *user);

/* Move up to `max_bytes` of what `src` has received to the send queue of `dst`, on the same loop, without copying where
 * that is cheap (`src` and `dst` may be the same). Back-pressure is built in: once `dst` is congested the rest stays
 * with `src`, which stops receiving; when `dst` has drained, `src` receives again and its on_data is called.
 * (A piece is not cut for the mark: it may be passed by one receive.)
 * On Linux a TCP connection whose bulk is always forwarded whole, and not looked at, to another one goes through pipes
 * within the kernel (splice(2)): up to 32 for each loop, two descriptors and at most 256 KiB each, which count like
 * other bytes that wait. Nothing else is to be seen of it; the first look at such bytes ends it for that connection.
 * (Like every way of sending it raises no SIGPIPE. For splice(2), which has no flag against it, the loop's thread keeps
 * the signal blocked meanwhile and takes away what the call raised, by sigtimedwait(2), which a seccomp filter must
 * allow. A SIGPIPE that another process sends in that very moment may be taken along.)
 * Returns how many bytes were moved, or: GYRE_ECLOSED if either is closing; -EPIPE if `dst` was shut down; -EXDEV if
 * they are on different loops; what broke `dst`, if its sending failed before and its on_close is still to come;
 * -ENOMEM; GYRE_ETHREAD. */
GYRE_API int64_t gyre_conn_forward(struct gyre_conn *src, struct gyre_conn *dst, size_t max_bytes);

/* Bytes queued and not yet taken by the kernel, and whether that is above the high mark (until the low one). */
GYRE_API size_t gyre_conn_outbound(const struct gyre_conn *c);
GYRE_API bool gyre_conn_congested(const struct gyre_conn *c);

/* Hold back sending until gyre_conn_uncork(), to gather more. Closing uncorks. The bytes wait here, not in the kernel,
 * so TCP_CORK and MSG_MORE have nothing to add. There is no flush: what a turn queued is handed to the kernel when the
 * turn ends, without being asked. */
GYRE_API void gyre_conn_cork(struct gyre_conn *c);
GYRE_API void gyre_conn_uncork(struct gyre_conn *c);

/* ---- Flow and end. Thread: the connection's loop. ---- */

/* After pause returns there is no on_data or on_eof until resume; bytes received meanwhile come first then, in order.
 * Both may be called any number of times. Return 0, or GYRE_ECLOSED, GYRE_ETHREAD. */
GYRE_API int gyre_conn_pause(struct gyre_conn *c);
GYRE_API int gyre_conn_resume(struct gyre_conn *c);

/* Have on_data called soon even if nothing new arrives. Returns 0, or GYRE_ECLOSED, GYRE_ETHREAD. */
GYRE_API int gyre_conn_wake(struct gyre_conn *c);

/* Send FIN once everything queued has left; receiving goes on. Returns 0, or GYRE_ECLOSED, GYRE_ETHREAD. */
GYRE_API int gyre_conn_shutdown(struct gyre_conn *c);

/* Close gracefully: no further on_data; send what is queued, FIN, throw away what the peer still sends until it closes
 * too, then on_close. Gives up after `linger_timeout_ns` without progress (noticed within twice that), then on_close
 * says GYRE_ETIMEOUT and gyre_conn_unsent() how much did not get through. If the peer's end had come before, it is over
 * when the kernel has taken everything, which it goes on to deliver. A second call does nothing.
 * Returns 0, or GYRE_ETHREAD. */
GYRE_API int gyre_conn_close(struct gyre_conn *c);

/* Close at once: drop what is queued, reset a TCP connection (RST). Returns 0, or GYRE_ETHREAD. */
GYRE_API int gyre_conn_abort(struct gyre_conn *c);

/* For on_close: why, and how many accepted bytes were not delivered: those still queued, plus, on TCP, those sent and
 * not acknowledged when the connection ended. 0 after a clean end. */
GYRE_API enum gyre_close_reason gyre_conn_close_reason(const struct gyre_conn *c);
GYRE_API uint64_t gyre_conn_unsent(const struct gyre_conn *c);

/* Change the idle time (0, or 25 days and more: never); it starts anew. Returns 0, or GYRE_EOPTION, GYRE_ECLOSED,
 * GYRE_ETHREAD; -ENOMEM, and then it stays as it was. */
GYRE_API int gyre_conn_set_idle_timeout(struct gyre_conn *c, int64_t timeout_ns);

/* More limits, each 0 for none, and each starting anew when set; on_timeout says that one has passed. Reading: so long
 * without a byte from the peer, while we receive (not while paused, at `read_max_bytes`, or forwarding to one that is
 * congested), until its end has come. Writing: so long without a byte taken by the kernel, while some are queued, not
 * corked. Lifetime: so long from now, whatever happens; once. They cost no system call, and bytes only store the time.
 * Return 0, or GYRE_EOPTION for a negative time, GYRE_ECLOSED, GYRE_ETHREAD, -ENOMEM, and then the old limit stays. */
GYRE_API int gyre_conn_set_read_timeout(struct gyre_conn *c, int64_t timeout_ns);
GYRE_API int gyre_conn_set_write_timeout(struct gyre_conn *c, int64_t timeout_ns);
GYRE_API int gyre_conn_set_lifetime(struct gyre_conn *c, int64_t lifetime_ns);

/* For on_timeout and on_close: which limit passed last. */
GYRE_API enum gyre_timeout_kind gyre_conn_timeout_kind(const struct gyre_conn *c);

/* ---- What it is. Thread: the connection's loop. ---- */

GYRE_API struct gyre_loop *gyre_conn_loop(const struct gyre_conn *c);
GYRE_API struct gyre_listener *gyre_conn_listener(const struct gyre_conn *c); /* NULL if it was connected */
GYRE_API void *gyre_conn_user(const struct gyre_conn *c);
GYRE_API void gyre_conn_set_user(struct gyre_conn *c, void *user);
/* The descriptor: for getsockopt and the like. Never close, read or write it. */
GYRE_API int gyre_conn_fd(const struct gyre_conn *c);

/* The address of this end or the peer, as getsockname(2) and getpeername(2). Known from before on_open until on_close
 * returns, whatever ended the connection; the peer's of one that could not be made is where it was to go. (Beside Linux
 * the system knows the peer only between on_open and the end, and it is -ENOTCONN before and after; so it is on unix
 * sockets that are not connected yet.) Returns 0, or: -ENOTCONN; -EINVAL; GYRE_ECLOSED for no connection;
 * GYRE_ETHREAD; -errno. On error nothing is set. */
GYRE_API int gyre_conn_local_address(const struct gyre_conn *c, struct sockaddr_storage *out, socklen_t *out_len);
GYRE_API int gyre_conn_peer_address(const struct gyre_conn *c, struct sockaddr_storage *out, socklen_t *out_len);

/* Where the client of an accepted TCP connection meant to go, if the firewall of this machine redirected it here
 * (SO_ORIGINAL_DST, with IPv6 IP6T_SO_ORIGINAL_DST): what a transparent proxy connects to. A connection that is tracked
 * and was not redirected has its own address.
 * Returns 0, or: -ENOENT if the kernel does not track it; -ENOPROTOOPT if it tracks none; -EOPNOTSUPP for unix sockets,
 * on the simulator and beside Linux; GYRE_ECLOSED, GYRE_ETHREAD, -EINVAL. On error `*out` stays as it was. */
GYRE_API int gyre_conn_original_address(const struct gyre_conn *c, struct sockaddr_storage *out, socklen_t *out_len);

/* ---- From other threads ---- */

/* A name for a connection that outlives it. Once it has closed the name is stale for ever: it never reaches another
 * connection (until 2^32 connections have used the same slot). Copy it freely. Its loop must outlive its use. */
struct gyre_conn_id {
    struct gyre_loop *loop;
    uint32_t slot;
    uint32_t generation;
};

/* Thread: the connection's loop. */
GYRE_API struct gyre_conn_id gyre_conn_id_of(const struct gyre_conn *c);

/* The connection, borrowed, or NULL if it is gone. Thread: the loop's. */
GYRE_API struct gyre_conn *gyre_conn_from_id(struct gyre_conn_id id);

/* Queue a copy of `len` bytes on the connection's loop. `done(user, err)` (may be NULL) comes once on that loop:
 * 0 when the kernel took the bytes, GYRE_ESTALE if the connection was gone, or what gyre_conn_write() said.
 * Returns 0, or -ENOMEM, -EINVAL, GYRE_ESHUTDOWN, -EAGAIN if too many tasks wait; then `done` is not called.
 * Thread: any. */
GYRE_API int gyre_conn_id_write(struct gyre_conn_id id, const void *data, size_t len, gyre_sent_fn *done, void *user);

/* The same for several pieces, which are copied as one write. `iov_count` 0 to 1024, else -EINVAL. Thread: any. */
GYRE_API int gyre_conn_id_writev(struct gyre_conn_id id, const struct iovec *iov, int iov_count, gyre_sent_fn *done,
                                 void *user);

/* The same without a copy: borrows `data` until `done`, which comes exactly once on the loop if 0 is returned, whatever
 * becomes of the connection. Thread: any. */
GYRE_API int gyre_conn_id_write_ref(struct gyre_conn_id id, const void *data, size_t len, gyre_sent_fn *done,
                                    void *user);

/* gyre_conn_wake() and gyre_conn_close() on the connection's loop; nothing happens if it is gone.
 * Return 0, or -ENOMEM, -EINVAL, -EAGAIN, GYRE_ESHUTDOWN. Thread: any. */
GYRE_API int gyre_conn_id_wake(struct gyre_conn_id id);
GYRE_API int gyre_conn_id_close(struct gyre_conn_id id);

/* gyre_conn_abort() on the connection's loop; nothing happens if it is gone. Returns as gyre_conn_id_close().
 * Thread: any. */
GYRE_API int gyre_conn_id_abort(struct gyre_conn_id id);

typedef void gyre_closed_fn(void *user, int err);

/* gyre_conn_id_close(), and then `done(user, err)` once on the connection's loop: after its on_close, with what that
 * got; also if the connection was closing already. GYRE_ESTALE: it was gone. -ENOMEM: it was left as it is.
 * Returns as gyre_conn_id_close(), and -EINVAL without `done`; on error `done` is not called. Thread: any. */
GYRE_API int gyre_conn_id_close_then(struct gyre_conn_id id, gyre_closed_fn *done, void *user);

/* ---- All of a loop's ---- */

/* Returns whether to go on. */
typedef bool gyre_each_fn(struct gyre_conn *c, void *user);

/* Call `fn(c, user)`, before it returns, for every connection of the loop that is not closing, still connecting ones
 * included. `fn` may do anything, close and connect too; whether it is called for those that it connects is left open.
 * Returns how many times it was called, or: -EINVAL, GYRE_ETHREAD. Thread: the loop's. */
GYRE_API int64_t gyre_loop_each_conn(struct gyre_loop *loop, gyre_each_fn *fn, void *user);

/* Let other threads see something of the connection by its id: a pointer of yours, and how much is queued. Until this
 * was called, and from just before on_close on, they get GYRE_ESTALE. Called again, it changes the pointer. What the
 * pointer points to is yours: count references, if one thread may still use it when on_close comes on another.
 * Returns 0, or -ENOMEM, GYRE_ECLOSED, GYRE_ETHREAD. Thread: the connection's loop. */
GYRE_API int gyre_conn_share(struct gyre_conn *c, void *shared);

/* The pointer last set, also in on_close, which is where to release it; NULL if there is none. Thread: the connection's
 * loop. */
GYRE_API void *gyre_conn_shared(const struct gyre_conn *c);

/* Get, or change, the shared pointer. What was there before goes to `*old` (may be NULL). What one thread wrote before
 * it set the pointer, another that gets it sees. Return 0, or GYRE_ESTALE, -EINVAL. Thread: any. */
GYRE_API int gyre_conn_id_shared(struct gyre_conn_id id, void **out);
GYRE_API int gyre_conn_id_set_shared(struct gyre_conn_id id, void *shared, void **old);

/* As gyre_conn_outbound(), of a shared connection, together with the bytes that gyre_conn_id_write() and its like have
 * posted since it was shared and the loop has not yet queued. A moment's value. Returns that, or GYRE_ESTALE, -EINVAL.
 * Thread: any. */
GYRE_API int64_t gyre_conn_id_outbound(struct gyre_conn_id id);

#ifdef __cplusplus
}
#endif

#endif
