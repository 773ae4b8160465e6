/* SPDX-License-Identifier: MIT
 * Stream connections over TCP and unix sockets, accepted by a listener or made with gyre_connect().
 *
 * States: (connecting →) open → closing → closed. `on_open` runs first. Then `on_data`, `on_drain` and `on_eof` run as
 * events occur. `on_close` runs exactly once, as the last callback. If connecting failed, only `on_close` runs. Do not
 * use the pointer to a connection after its `on_close` has returned. A gyre_conn_id
 * (conn_id.h) may outlive it.
 *
 * Reading. In `on_data` the received bytes lie in the receive buffer. Consume the bytes you want and leave the rest.
 * The rest is copied into a buffer of the connection, and bytes received later follow in order. `on_data` runs again
 * when new bytes arrive or after gyre_conn_wake(). When `read_max_bytes` bytes are unread, receiving stops until you
 * consume some of them.
 *
 * Writing. Writes are queued. All writes of one loop turn leave as one gathered send. Above `write_high_bytes` the
 * connection is congested. When the queue falls to `write_low_bytes`, `on_drain` runs. A write that would exceed
 * `write_max_bytes` fails with -EAGAIN and queues nothing.
 *
 * Who consumes what (a failed call consumes nothing):
 *
 *   call                        | consumes        | result                           | valid until
 *   ----------------------------+-----------------+----------------------------------+------------------------
 *   gyre_conn_inbound()         | no              | number of unread bytes           |
 *   gyre_conn_peek()            | no              | one view                         | A
 *   gyre_conn_peekv()           | no              | several views                    | A
 *   gyre_conn_find()            | no              | an offset                        |
 *   gyre_conn_copy()            | no              | bytes copied to your memory      |
 *   gyre_conn_next()            | yes             | one view                         | B
 *   gyre_conn_read()            | yes             | bytes copied to your memory      |
 *   gyre_conn_discard()         | yes             | nothing                          |
 *   gyre_conn_forward()         | yes             | bytes moved to a send queue      |
 *   gyre_buf_hold()             | yes             | one view, held                   | gyre_buf_release()
 *   gyre_frame_next(), on_frame | the whole frame | one view of the payload          | the callback returns
 *
 *   A: the callback returns, or the next call that consumes bytes of this connection or closes it.
 *   B: the callback returns, or the next call that reads from this connection or closes it.
 *
 * What closes what. "Sent": queued output is sent first. "Dropped": queued output is lost, the `done` callbacks of the
 * writes get the error, and gyre_conn_unsent() counts the bytes. "Discarded": unread input is lost. "FIN", "RST": what
 * the library sends on TCP. "Time limit": the idle, read, write or lifetime limit.
 *
 *   event                           | queued output | unread input | callbacks; reason and err of on_close
 *   --------------------------------+---------------+--------------+---------------------------------------------------
 *   peer's FIN, with on_eof         | kept          | kept         | on_eof; the connection stays open
 *   peer's FIN, no on_eof           | sent, FIN     | discarded    | on_close: GYRE_CLOSE_EOF, 0
 *   gyre_conn_shutdown()            | sent, FIN     | kept         | none; receiving continues
 *   shutdown and peer's FIN, on_eof | sent, FIN     | kept         | on_eof, all read, then on_close: GYRE_CLOSE_EOF, 0
 *   receiving fails (peer's RST)    | dropped       | discarded    | on_close: GYRE_CLOSE_ERROR, -ECONNRESET or -errno
 *   peer's RST after its FIN        | dropped       | kept         | all read; on_close: GYRE_CLOSE_ERROR, -ECONNRESET
 *   sending fails while receiving   | dropped       | kept         | on_data until the peer's end, then as the next row
 *   sending fails otherwise         | dropped       | discarded    | on_close: GYRE_CLOSE_ERROR, -errno of the send
 *   gyre_conn_close()               | sent, FIN     | discarded    | on_close: GYRE_CLOSE_USER, 0
 *   gyre_conn_abort()               | dropped, RST  | discarded    | on_close: GYRE_CLOSE_ABORT, 0
 *   time limit, with on_timeout     | kept          | kept         | on_timeout; the connection stays open
 *   time limit, no on_timeout       | dropped, RST  | discarded    | on_close: GYRE_CLOSE_TIMEOUT, GYRE_ETIMEOUT
 *   linger, close or lifetime limit | dropped, RST  | discarded    | closing: GYRE_CLOSE_TIMEOUT, GYRE_ETIMEOUT
 *   connect limit                   | dropped       | none         | on_close: GYRE_CLOSE_CONNECT, GYRE_ETIMEOUT
 *   connecting fails                | dropped       | none         | on_close: GYRE_CLOSE_CONNECT, the error
 *   accepted, on_socket fails       | none          | none         | on_close: GYRE_CLOSE_ERROR, error of on_socket
 *   invalid frame                   | sent, FIN     | discarded    | on_bad_frame, on_close: GYRE_CLOSE_ERROR, its err
 *   reading a queued file fails     | dropped, RST  | discarded    | on_close: GYRE_CLOSE_ERROR, GYRE_EFILE or -errno
 *   gyre_conn_detach()              | sent          | kept         | its `done` instead of on_close
 *   gyre_conn_close_reset()         | sent, RST     | discarded    | on_close: GYRE_CLOSE_USER, 0
 *   gyre_engine_drain(), while busy | kept          | kept         | on_drain_begin; the connection stays open
 *   gyre_engine_drain(), once idle  | sent, FIN     | none         | on_close: GYRE_CLOSE_SHUTDOWN, 0
 *   drain deadline, engine stopped  | dropped, RST  | discarded    | on_close: GYRE_CLOSE_SHUTDOWN, GYRE_ESHUTDOWN
 *   gyre_loop_destroy()             | dropped, RST  | discarded    | on_close: GYRE_CLOSE_SHUTDOWN, GYRE_ESHUTDOWN
 *   gyre_loop_stop(), no engine     | kept          | kept         | none; the connection stays open
 *   gyre_listener_close()           | kept          | kept         | none; the connection stays open
 *
 *   A graceful close sends FIN and waits for the peer's FIN, at most `linger_timeout_ns` without progress. If the peer
 *   has acknowledged everything, its RST ends the close cleanly, too. While closing, only `done` callbacks and on_close
 *   run. An event that drops output also ends a graceful close or a detach early. No other event affects these two.
 *
 * Limits and what happens at each. An idle, linger or connect limit of 25 days or more never passes.
 *
 *   limit                     | default; range           | at the limit
 *   --------------------------+--------------------------+-----------------------------------------------------------
 *   read_max_bytes            | 1 MiB; to 1 GiB          | receiving stops until bytes are consumed. One receive may
 *                             |                          | exceed the limit. So may a frame, up to `frame_max_bytes`
 *   frame_max_bytes (frame.h) | 1 MiB; to 1 GiB          | GYRE_EFRAME, on_bad_frame
 *   turn_max_bytes            | 0: none                  | receiving stops until the next loop turn
 *   write_high_bytes          | 256 KiB; to write_max    | congested: gyre_conn_forward() stops; writes still succeed
 *   write_low_bytes           | high / 4; to write_high  | on_drain after congestion or a refused write; connections
 *                             |                          | that forward to this one receive again
 *   write_max_bytes           | 16 MiB; to 1 GiB         | the write fails with -EAGAIN, and on_drain follows. A longer
 *                             |                          | write fails with -EMSGSIZE. Files, forwarded bytes: no limit
 *   time limits (see above)   | 0: none                  | on_timeout; GYRE_CLOSE_TIMEOUT without this handler
 *   linger_timeout_ns         | 30 s                     | GYRE_CLOSE_TIMEOUT
 *   close_timeout_ns          | 10 min + 1 s per 16 KiB  | GYRE_CLOSE_TIMEOUT, even if the peer reads slowly
 *   connect_timeout_ns        | 30 s                     | GYRE_CLOSE_CONNECT, GYRE_ETIMEOUT
 *   conns_max of a loop       | 1048576                  | connecting fails with GYRE_ECONNS; accepting pauses
 *   conns_max of a listener   | 0: none                  | accepting pauses: clients wait in the backlog
 *   conns_max of an engine    | 0: none                  | accepting pauses; connecting still works
 *   buf_count_max (loop.h)    | 1024; to 16384           | bytes are received into heap memory. With more than 3/4 in
 *                             |                          | use, held and forwarded bytes are copied
 *   tasks_max (loop.h)        | 65536                    | calls that post to the loop fail with -EAGAIN
 *
 * Common errors. A function whose list of errors says "common" can return these errors. A call that returns one of
 * them had no effect.
 *   GYRE_ECLOSED: `c` is NULL, closing, closed or being detached
 *   GYRE_ETHREAD: the calling thread is not the loop's
 *   -ENOMEM: out of memory */
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

/* Why a connection ended. on_close gets the error. The table above says which events lead to which reason. */
enum gyre_close_reason {
    GYRE_CLOSE_NONE = 0, /* still open */
    GYRE_CLOSE_USER,     /* gyre_conn_close(), all output delivered; err 0 */
    GYRE_CLOSE_EOF,      /* the peer sent FIN; there is no on_eof, or this side has sent FIN, too; err 0 */
    GYRE_CLOSE_ABORT,    /* gyre_conn_abort(); err 0 */
    GYRE_CLOSE_ERROR,    /* the socket failed or the peer sent an invalid frame; err is the cause */
    GYRE_CLOSE_CONNECT,  /* connecting failed; err is the cause */
    GYRE_CLOSE_TIMEOUT,  /* a time limit was exceeded; err GYRE_ETIMEOUT */
    GYRE_CLOSE_SHUTDOWN  /* the loop drained, all output delivered: err 0; or it stopped: err GYRE_ESHUTDOWN */
};

/* The time limits that a connection can exceed. */
enum gyre_timeout_kind {
    GYRE_TIMEOUT_NONE = 0, /* no limit was exceeded */
    GYRE_TIMEOUT_IDLE,
    GYRE_TIMEOUT_READ,
    GYRE_TIMEOUT_WRITE,
    GYRE_TIMEOUT_LIFETIME,
    GYRE_TIMEOUT_LINGER, /* only in on_close */
    GYRE_TIMEOUT_CONNECT /* only in on_close */
};

/* The callbacks of a connection. Only `on_data` is required, or `on_frame` with a framer. The struct is borrowed and
 * must outlive its connections; usually it is static and const. All callbacks run on the connection's loop. */
struct gyre_conn_handlers {
    void (*on_open)(struct gyre_conn *c);
    void (*on_data)(struct gyre_conn *c);
    void (*on_drain)(struct gyre_conn *c); /* write_low_bytes reached after congestion or -EAGAIN */
    /* The peer sent FIN, and on_data has run for everything it sent. Writing still works until gyre_conn_shutdown() or
     * gyre_conn_close(). Without this handler the connection is closed gracefully. */
    void (*on_eof)(struct gyre_conn *c);
    /* A time limit was exceeded; gyre_conn_timeout_kind() returns which. The connection stays open and the limit starts
     * again, except the lifetime. Without this handler the connection is aborted with GYRE_CLOSE_TIMEOUT. */
    void (*on_timeout)(struct gyre_conn *c);
    void (*on_close)(struct gyre_conn *c, int err);
    /* With a framer (frame.h), called for each whole frame instead of on_data. The view is valid until on_frame
     * returns. */
    void (*on_frame)(struct gyre_conn *c, struct gyre_slice frame);
    /* The received bytes are not a valid frame. `err` is GYRE_EFRAME, the error of the framer, or -ENOMEM. The handler
     * may write and close, or consume bytes to continue after them. If the handler does neither, or is NULL, the
     * connection is closed gracefully with GYRE_CLOSE_ERROR, and on_close gets `err`. */
    void (*on_bad_frame)(struct gyre_conn *c, int err);
};

/* Settings of a connection, for gyre_connect() or for the connections that a listener accepts. Sizes are in bytes. A
 * value out of range fails with GYRE_EOPTION. The table of limits above says what happens at each limit. */
struct gyre_conn_options {
    uint32_t read_max_bytes;     /* unread bytes at which receiving stops; 0: 1 MiB; at most 1 GiB */
    uint32_t write_high_bytes;   /* congested above this; 0: 256 KiB; at most write_max_bytes */
    uint32_t write_low_bytes;    /* on_drain at or below this; at most write_high_bytes; 0: write_high_bytes / 4 */
    uint32_t write_max_bytes;    /* limit on queued bytes; 0: 16 MiB, or write_high_bytes if more; at most 1 GiB */
    int64_t idle_timeout_ns;     /* limit on the time without a byte in either direction; 0, 25 days or more: none */
    int64_t linger_timeout_ns;   /* limit on the time without progress in a close; 0: 30 s; 25 days or more: none */
    int64_t connect_timeout_ns;  /* limit on the time of connecting; 0: 30 s; 25 days or more: none */
    bool nagle;                  /* leave Nagle's algorithm on; false: TCP_NODELAY is set */
    bool start_paused;           /* as if gyre_conn_pause() were called in on_open */
    void *user;                  /* what gyre_conn_user() returns at first */
    uint32_t turn_max_bytes;     /* approximate limit on bytes received from this connection in one loop turn; 0: no
                                    limit per connection, all together about the size of the CPU cache */
    const struct gyre_framer *framer; /* cuts the input into frames for on_frame; borrowed like the handlers; NULL: the
                                         bytes go to on_data */
    /* Socket options, set before the socket is bound or connected (see sockopt.h). Accepted sockets inherit the options
     * of the listener. If the system refuses an option, listening or connecting returns the error. 0 keeps the default
     * of the system. Options of TCP and IP have no effect on unix sockets. */
    struct gyre_keepalive keepalive;
    int64_t user_timeout_ns;      /* TCP_USER_TIMEOUT, rounded up to milliseconds; at most INT32_MAX milliseconds */
    uint32_t recv_buffer_bytes;   /* SO_RCVBUF; at most INT32_MAX */
    uint32_t send_buffer_bytes;   /* SO_SNDBUF; at most INT32_MAX */
    uint32_t notsent_lowat_bytes; /* TCP_NOTSENT_LOWAT; at most INT32_MAX */
    uint32_t max_segment_bytes;   /* TCP_MAXSEG; at most INT32_MAX */
    uint32_t mark;                /* SO_MARK; privileged */
    uint8_t traffic_class;        /* IP_TOS, IPV6_TCLASS; 0 to 255 */
    bool transparent;             /* IP_TRANSPARENT; privileged */
    bool freebind;                /* IP_FREEBIND */
    /* Limits that start when the connection opens; see gyre_conn_set_read_timeout(). 0: none. */
    int64_t read_timeout_ns;
    int64_t write_timeout_ns;
    int64_t lifetime_ns;
    /* For gyre_connect() over TCP: the source address, such as "tcp://192.0.2.7:0" (borrowed during the call), and the
     * range of source ports. If the address has a port other than 0, that port is used, and no range is allowed. Range
     * 0 to 0: the system chooses. If all ports are taken, the call or on_close reports -EADDRNOTAVAIL, or -EADDRINUSE
     * for a single port. On Linux 6.3 and later, if the range lies within net.ipv4.ip_local_port_range, connections to
     * different peers can use the same port. Otherwise a port of the range serves one connection at a time. */
    const char *source_address;
    uint16_t source_port_first;
    uint16_t source_port_last;
    /* For gyre_connect() over TCP: the only network device to send from, such as "eth1" (SO_BINDTODEVICE). Borrowed
     * during the call. NULL: the routes decide. -ENODEV: there is no device of this name. -EOPNOTSUPP: on the
     * simulator and on systems other than Linux. */
    const char *device;
    /* Called for each socket that the library makes: listening, accepted and connecting. Not called for descriptors
     * that you pass in. NULL: none. */
    gyre_socket_fn *on_socket;
    int64_t close_timeout_ns; /* limit on the time of a whole close; 0: 10 minutes plus 1 s per 16 KiB to deliver */
    int64_t attempt_delay_ns; /* time until the next of several addresses is tried (connect.h); 0: 250 ms; from 10 ms */
    /* The engine drains (gyre_engine_drain()). Called once, from the loop, with an open connection. The connection
     * stays open until you close it, or until the deadline. Finish what is under way, tell the peer if the protocol
     * can, and close. NULL: the library closes the connection when it is idle. */
    void (*on_drain_begin)(struct gyre_conn *c);
};

/* Hands `fd` to you. You own the descriptor, which is close-on-exec and in blocking mode. (On the simulator only
 * gyre_conn_adopt_fd() accepts the descriptor.) Bytes received but not consumed precede the bytes that you will read
 * from `fd`. Get them from `c` with gyre_conn_peek(), _peekv(), _next(), _discard(), _read() or _copy(), or keep them
 * with gyre_buf_hold(). Do not use `c` after this callback returns. Release here what gyre_conn_share() set. */
typedef void gyre_detached_fn(struct gyre_conn *c, int fd, void *user);

/* Hand the connection's descriptor to the user. From now on no handler runs. `done(c, fd, user)` runs once, from the
 * loop, when the queued output is sent and the kernel uses none of the connection's memory. on_close runs instead of
 * `done` if the connection fails or is aborted, if the loop stops, if a linger, close or lifetime limit passes, or if
 * there is no memory for bytes that came through a pipe (-ENOMEM). Nothing received or queued is lost. After
 * gyre_conn_shutdown(), FIN is sent before `done`. `c` counts against `conns_max` until `done` returns, so
 * gyre_conn_adopt_fd() may fail with GYRE_ECONNS inside `done`. Returns 0. Errors: common, and
 *   GYRE_ESTATE: the connection is still connecting, or belongs to a reconnector
 *   -EINVAL: `done` is NULL
 *   the error of the send, if sending failed and on_close has yet to run
 * Thread: the connection's loop. */
GYRE_API int gyre_conn_detach(struct gyre_conn *c, gyre_detached_fn *done, void *user);

/* Duplicate the connection's descriptor. You own the copy, which is close-on-exec. If the peer closes first, the peer
 * sees the end of this side only when both descriptors are closed. A reset, as by gyre_conn_abort(), also ends the
 * copy. Both descriptors share O_NONBLOCK, which you must not change. Returns the descriptor.
 * Errors: common; -EMFILE: no free descriptor; -EOPNOTSUPP: on the simulator. Thread: the connection's loop. */
GYRE_API int gyre_conn_dup_fd(const struct gyre_conn *c);

/* ---- Reading. Thread: the connection's loop. The table above says what each call consumes. ---- */

/* Return the number of bytes received and not consumed. */
GYRE_API size_t gyre_conn_inbound(const struct gyre_conn *c);

/* Get a view of the first `len` bytes in one piece. Bytes that lie in several pieces are joined first. `len` 0: the
 * first piece, however long it is (data NULL and len 0 if there is none). Returns 0. Errors: common, and
 *   -EAGAIN: fewer than `len` bytes have been received
 *   -EMSGSIZE: as -EAGAIN, but waiting does not help: `len` exceeds `read_max_bytes` */
GYRE_API int gyre_conn_peek(struct gyre_slice *out, struct gyre_conn *c, size_t len);

/* Get views of the received bytes from the front, one for each piece, at most `iov_count`. Returns the number of views.
 * (This call and the following calls that return a count return 0 if memory for bytes from a pipe runs out.) */
GYRE_API int gyre_conn_peekv(struct iovec *iov, int iov_count, struct gyre_conn *c);

/* Get a view of the first `len` bytes in one piece and consume them. Returns 0. Errors as gyre_conn_peek(). */
GYRE_API int gyre_conn_next(struct gyre_slice *out, struct gyre_conn *c, size_t len);

/* Drop up to `len` bytes from the front; SIZE_MAX: all. Returns the number dropped. */
GYRE_API size_t gyre_conn_discard(struct gyre_conn *c, size_t len);

/* Copy up to `len` bytes from the front to `dst` and consume them. Returns the number copied. */
GYRE_API size_t gyre_conn_read(void *dst, size_t len, struct gyre_conn *c);

/* Copy up to `len` bytes to `dst`, starting at offset `from`. Returns the number copied. */
GYRE_API size_t gyre_conn_copy(void *dst, size_t len, struct gyre_conn *c, size_t from);

/* Search the received bytes for `needle` (`needle_len` 1 to 64 bytes), starting at offset `from`. Returns the offset of
 * the first occurrence. Errors: common, and
 *   -EAGAIN: `needle` has not been received so far
 *   -EINVAL: `needle` is NULL or `needle_len` is out of range */
GYRE_API int64_t gyre_conn_find(struct gyre_conn *c, const void *needle, size_t needle_len, size_t from);

/* ---- Writing. Thread: the connection's loop. ---- */

/* Queue a copy of `len` bytes, all or nothing. Returns 0. Errors: common, and
 *   -EAGAIN: the queue would exceed `write_max_bytes`; on_drain follows
 *   -EMSGSIZE: `len` alone exceeds `write_max_bytes`
 *   -EPIPE: gyre_conn_shutdown() was called
 *   -EINVAL: `data` is NULL and `len` is not 0
 *   the error of the send, if sending failed and on_close has yet to run */
GYRE_API int gyre_conn_write(struct gyre_conn *c, const void *data, size_t len);

/* Queue a copy of several pieces, all or nothing. Returns 0. Errors as gyre_conn_write(), and
 *   -EINVAL: `iov_count` is not 0 to 1024, or a piece is NULL and has a length */
GYRE_API int gyre_conn_writev(struct gyre_conn *c, const struct iovec *iov, int iov_count);

/* Queue `len` bytes without copying them. Borrows `data` until `done(err, user)` runs: exactly once, from the loop,
 * before on_close. `done` may be NULL for data that is never freed. Returns 0. Errors as gyre_conn_write(). After an
 * error nothing is borrowed and `done` does not run. */
GYRE_API int gyre_conn_write_ref(struct gyre_conn *c, const void *data, size_t len, gyre_sent_fn *done, void *user);

/* Send the bytes at once, as far as the kernel accepts them, without queueing or copying. This works only while nothing
 * is queued, so the order of writes is kept. Pass the remaining bytes to gyre_conn_write(). Returns the number of bytes
 * sent, usually at least 1. Errors as gyre_conn_write(), except
 *   -EAGAIN: the socket is full, not connected yet or corked, or bytes are queued
 *   -errno: the socket failed; on_close follows */
GYRE_API int64_t gyre_conn_try_write(struct gyre_conn *c, const void *data, size_t len);

/* Queue `len` bytes of a regular file, starting at `offset`, in order with other writes. Borrows `fd` until
 * `done(err, user)` runs, as gyre_conn_write_ref() does. The file's position is neither used nor moved. The file is
 * read in pieces of at most 64 KiB as the socket accepts them. Only the piece that was read counts as queued, so
 * `write_max_bytes` and the watermarks do not apply. io_uring reads without blocking the loop. With epoll and kqueue
 * the loop waits for the disk. If the file turns out to be shorter, or cannot be read, the connection is reset: `done`
 * and on_close get GYRE_EFILE or -errno. Returns 0. Errors as gyre_conn_write(), and
 *   -EINVAL: `fd` is not a regular file open for reading
 *   GYRE_EFILE: the file is shorter than `offset + len`
 *   -EBADF: `fd` is not open */
GYRE_API int gyre_conn_sendfile(struct gyre_conn *c, int fd, uint64_t offset, uint64_t len, gyre_sent_fn *done,
                                void *user);

/* Move up to `max_bytes` received bytes of `src` to the send queue of `dst`, without copying where that is cheap. Both
 * must be on the same loop, and may be the same connection. Once `dst` is congested, the other bytes stay with `src`,
 * and `src` stops receiving. When `dst` has drained, `src` receives again and its on_data runs. Pieces are not split at
 * the watermark, so one receive may exceed it. Sources that wait for the same `dst` take turns, with equal shares.
 * Pipes. On Linux, bulk data that goes from one TCP connection to another and is never read stays in the kernel: gyre
 * splices the data through pipes (splice(2)). This needs `turn_max_bytes` 0 on `src`. A loop has up to 32 pipes, each
 * with two descriptors and at most 256 KiB. Bytes in a pipe count like other queued bytes. If a handler reads piped
 * bytes, gyre copies them out, and the connection uses no more pipes. splice(2) has no flag against SIGPIPE. Therefore
 * the loop's thread blocks the signal during splice(2) and removes a pending SIGPIPE with sigtimedwait(2), which a
 * seccomp filter must allow. A SIGPIPE that another process sends at that moment may be lost.
 * Returns the number of bytes moved. Errors: common, for both connections, and
 *   -EPIPE: gyre_conn_shutdown() was called for `dst`
 *   -EXDEV: the connections are on different loops
 *   the error of the send, if sending to `dst` failed and its on_close has yet to run */
GYRE_API int64_t gyre_conn_forward(struct gyre_conn *src, struct gyre_conn *dst, size_t max_bytes);

/* Return the number of bytes queued and not accepted by the kernel yet, and whether the connection is congested: the
 * queue has exceeded write_high_bytes and has not fallen to write_low_bytes since. */
GYRE_API size_t gyre_conn_outbound(const struct gyre_conn *c);
GYRE_API bool gyre_conn_congested(const struct gyre_conn *c);

/* Hold back sending until gyre_conn_uncork(), to gather more. Close, shutdown and detach uncork. The bytes wait in the
 * connection's queue, not in the kernel, so TCP_CORK and MSG_MORE have no further use. There is no flush call: the
 * queue is sent at the end of each loop turn. */
GYRE_API void gyre_conn_cork(struct gyre_conn *c);
GYRE_API void gyre_conn_uncork(struct gyre_conn *c);

/* ---- Flow and end. Thread: the connection's loop. ---- */

/* Stop and resume on_data, on_frame and on_eof. Bytes received during the pause are delivered, in order, after resume.
 * Calls do not nest: one resume ends any number of pauses. Return 0. Errors: common. */
GYRE_API int gyre_conn_pause(struct gyre_conn *c);
GYRE_API int gyre_conn_resume(struct gyre_conn *c);

/* Run on_data soon even if no new bytes arrive. Returns 0. Errors: common. */
GYRE_API int gyre_conn_wake(struct gyre_conn *c);

/* Send FIN when the queued output has left. Receiving continues. Returns 0. Errors: common. */
GYRE_API int gyre_conn_shutdown(struct gyre_conn *c);

/* Close gracefully: send the queued output and FIN, discard what the peer still sends, wait for its FIN, then run
 * on_close. After `linger_timeout_ns` without progress (noticed within twice that time), or `close_timeout_ns` in all,
 * on_close gets GYRE_ETIMEOUT, and gyre_conn_unsent() returns how much was not delivered. If the peer had already sent
 * FIN, the close completes once the kernel has accepted all data; the kernel then delivers it. A connection that is
 * still connecting ends at once if nothing is queued. If output is queued, it is sent after connecting, but on_open
 * does not run. A second call does nothing. Returns 0. Errors: GYRE_ETHREAD. */
GYRE_API int gyre_conn_close(struct gyre_conn *c);

/* Close as gyre_conn_close(), but with a reset (RST) in place of the FIN, once the peer's system has acknowledged all
 * output. The peer cannot take the end for a clean one. On a unix socket the peer sees an ordinary end. A second close
 * of either kind does nothing. Returns 0. Errors: GYRE_ETHREAD. */
GYRE_API int gyre_conn_close_reset(struct gyre_conn *c);

/* Close at once: drop the queued output and reset a TCP connection (RST), even if a child of fork(2) has a copy of the
 * descriptor: on Linux at once, elsewhere when the last copy is closed. Returns 0. Errors: GYRE_ETHREAD. */
GYRE_API int gyre_conn_abort(struct gyre_conn *c);

/* Return whether the connection was told that its engine drains. */
GYRE_API bool gyre_conn_is_draining(const struct gyre_conn *c);

/* For on_close: return the reason, and how many bytes of the output were not delivered: the bytes still queued and,
 * on TCP, the bytes sent but not acknowledged when the connection ended. 0 after a clean end. */
GYRE_API enum gyre_close_reason gyre_conn_close_reason(const struct gyre_conn *c);
GYRE_API uint64_t gyre_conn_unsent(const struct gyre_conn *c);

/* Change the idle limit (0: none) and restart it. Returns 0. Errors: common; GYRE_EOPTION: the time is negative. */
GYRE_API int gyre_conn_set_idle_timeout(struct gyre_conn *c, int64_t timeout_ns);

/* Change a limit (0: none) and restart it. on_timeout runs when the limit is exceeded.
 *   read: the time without a byte from the peer, until its FIN. The time does not count while the connection is paused,
 *     has `read_max_bytes` unread, or forwards to a congested connection.
 *   write: the time without a byte accepted by the kernel or taken by the peer, while bytes are queued and not corked.
 *     Noticed within 1.25 times that time. A peer that takes 32 KiB within that time does not exceed the limit.
 *   lifetime: the time from this call, also while closing; exceeded only once
 * Receiving and sending do not restart a timer: they only record the time. Return 0. Errors: common, and
 *   GYRE_EOPTION: the time is negative */
GYRE_API int gyre_conn_set_read_timeout(struct gyre_conn *c, int64_t timeout_ns);
GYRE_API int gyre_conn_set_write_timeout(struct gyre_conn *c, int64_t timeout_ns);
GYRE_API int gyre_conn_set_lifetime(struct gyre_conn *c, int64_t lifetime_ns);

/* For on_timeout and on_close: return which limit was exceeded last. */
GYRE_API enum gyre_timeout_kind gyre_conn_timeout_kind(const struct gyre_conn *c);

/* ---- Properties. Thread: the connection's loop. ---- */

GYRE_API struct gyre_loop *gyre_conn_loop(const struct gyre_conn *c);
GYRE_API struct gyre_listener *gyre_conn_listener(const struct gyre_conn *c); /* NULL if not accepted by a listener */
GYRE_API void *gyre_conn_user(const struct gyre_conn *c);
GYRE_API void gyre_conn_set_user(struct gyre_conn *c, void *user);
/* The descriptor, for getsockopt(2) and the like. Never close, read or write it. */
GYRE_API int gyre_conn_fd(const struct gyre_conn *c);

/* Get the local or the peer's address, as getsockname(2) and getpeername(2). Available from before on_open until
 * on_close returns. If connecting failed, the peer address is the address that was tried. On systems other than Linux
 * the peer address is available only while the connection is open. The peer address of a unix socket is available once
 * the socket is connected. Return 0. Errors: GYRE_ECLOSED: `c` is NULL; GYRE_ETHREAD; and
 *   -ENOTCONN: the address is not available now
 *   -EINVAL: an out parameter is NULL; -errno: the error of the system call */
GYRE_API int gyre_conn_local_address(struct sockaddr_storage *out, socklen_t *out_len, const struct gyre_conn *c);
GYRE_API int gyre_conn_peer_address(struct sockaddr_storage *out, socklen_t *out_len, const struct gyre_conn *c);

/* Get the original destination of an accepted TCP connection that this machine's firewall redirected
 * (SO_ORIGINAL_DST, with IPv6 IP6T_SO_ORIGINAL_DST). A transparent proxy connects to that address. If the connection
 * is tracked but not redirected, the result is the local address. Returns 0. Errors: GYRE_ECLOSED, GYRE_ETHREAD, and
 *   -ENOENT: the kernel does not track this connection
 *   -ENOPROTOOPT: the kernel tracks no connections
 *   -EOPNOTSUPP: a unix socket, the simulator, or a system other than Linux
 *   -EINVAL: an out parameter is NULL */
GYRE_API int gyre_conn_original_address(struct sockaddr_storage *out, socklen_t *out_len, const struct gyre_conn *c);

/* ---- All connections of a loop ---- */

/* Return false to stop. */
typedef bool gyre_each_fn(struct gyre_conn *c, void *user);

/* Call `fn(c, user)`, during this call, for every connection of the loop that is open or connecting. `fn` may call
 * anything, also close and connect. Whether `fn` is called for connections made during the call is not specified.
 * Returns the number of calls. Errors: -EINVAL: an argument is NULL; GYRE_ETHREAD. Thread: the loop's. */
GYRE_API int64_t gyre_loop_each_conn(struct gyre_loop *loop, gyre_each_fn *fn, void *user);

#ifdef __cplusplus
}
#endif

#endif
