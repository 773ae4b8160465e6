/* SPDX-License-Identifier: MIT
 * Listening for stream connections: addresses, limits, and how accepted connections are spread over the loops. */
#ifndef GYRE_LISTENER_H
#define GYRE_LISTENER_H

#include <gyre/conn.h>

#ifdef __cplusplus
extern "C" {
#endif

struct gyre_engine;

/* How a listener chooses the loop of an accepted connection. With GYRE_BALANCE_KERNEL every loop accepts for itself
 * and pauses at its own conns_max. With GYRE_BALANCE_ROUND_ROBIN and the values after it, loop 0 accepts and hands
 * connections over to the other loops. Loop 0 passes over a loop that has reached its conns_max. */
enum gyre_balance {
    GYRE_BALANCE_AUTO = 0, /* GYRE_BALANCE_KERNEL if possible (TCP with several loops), otherwise ROUND_ROBIN */
    GYRE_BALANCE_KERNEL,   /* one listening socket per loop with SO_REUSEPORT (socket(7)); the kernel chooses */
    GYRE_BALANCE_ROUND_ROBIN, /* each loop in turn */
    GYRE_BALANCE_LEAST_CONNS, /* the loop with the fewest connections; in turn among equals */
    GYRE_BALANCE_SOURCE_HASH, /* the same loop for the same client IP, whatever its port; unix peers: in turn */
    GYRE_BALANCE_RANDOM,      /* a random loop; see `seed` */
    GYRE_BALANCE_CUSTOM       /* the loop that `choose` returns */
};

/* What to do with an accepted connection. */
enum gyre_accept_verdict {
    GYRE_ACCEPT_YES = 0, /* keep the connection */
    GYRE_ACCEPT_NO,   /* close the connection */
    GYRE_ACCEPT_RESET /* close the connection with RST, which leaves no state behind on this side */
};

/* Decides whether to keep the connection from `peer`. Called before a gyre_conn exists. Return an enum
 * gyre_accept_verdict. Runs on the accepting loop; with GYRE_BALANCE_KERNEL all loops may call the filter at the same
 * time. `peer` is borrowed until the filter returns. */
typedef int gyre_accept_filter_fn(struct gyre_listener *listener, const struct sockaddr *peer, socklen_t peer_len,
                                  void *user);

/* Chooses the loop for the connection from `peer`. Return the index of the loop. If the index is out of range,
 * gyre_stats.balance_errors is incremented and the next loop in round-robin order is used. Runs on loop 0; not called
 * if there is only one loop. `peer` is borrowed until the function returns. */
typedef uint32_t gyre_balance_fn(struct gyre_listener *listener, const struct sockaddr *peer, socklen_t peer_len,
                                 void *user);

/* Called once on a loop, when all sockets of the listener are closed: after gyre_listener_close(), or because the loops
 * end. The address is then free again, unless another process or gyre_listener_dup_fd() has duplicates of a socket. */
typedef void gyre_listener_closed_fn(void *user);

/* The limits on accepting, and what happens at each:
 *
 *   limit                             what happens when it is reached
 *   gyre_listener_options.conns_max   accepting pauses; clients wait in the backlog
 *   gyre_engine_options.conns_max     accepting pauses; clients wait in the backlog
 *   gyre_loop_options.conns_max       the connection goes to the next loop with room, with GYRE_BALANCE_KERNEL, too;
 *                                     if there is none, accepting pauses
 *   descriptors, memory               accepting pauses for 10 ms, doubled each time up to 1 s, or until a connection of
 *                                     the accepting loop closes; logged at most once a second
 *   backlog                           the kernel does not complete further connections (listen(2))
 *
 * After a pause for conns_max, accepting resumes at once when a connection on the accepting loop closes, and within
 * 100 ms when a connection on another loop closes. There are never more connections than the limit. If several loops
 * accept in the same instant, the surplus is closed at once (counted, gyre_stats.refused). */

struct gyre_listener_options {
    enum gyre_balance balance; /* 0: GYRE_BALANCE_AUTO; GYRE_BALANCE_KERNEL is for TCP only */
    uint32_t backlog;     /* backlog of listen(2); 0: 4096; at most 1048576; Linux cuts it to net.core.somaxconn */
    bool share_port;      /* let other processes listen on the same TCP port (SO_REUSEPORT); false: the port must be
                             free */
    bool v6_only;         /* "tcp://[::]:80" accepts no IPv4, as with "tcp6://"; default: false */
    uint32_t unix_mode;   /* permission bits of the unix socket file from the first moment, such as 0660; needs a child
                             process, which ends with the call; 0: set by umask(2); at most 0777 */
    uint32_t conns_max;   /* limit on open connections of this listener (see the table above); 0: no limit */
    uint32_t defer_accept_s; /* TCP_DEFER_ACCEPT: seconds that a client without data stays in the kernel; 0: off; at
                                most 3600; TCP only */
    uint32_t fastopen_queue; /* TCP_FASTOPEN: limit on pending clients that sent data with their SYN; 0: off; at most
                                1048576; TCP only */
    const char *device;      /* SO_BINDTODEVICE: accept only what arrives on this network device; borrowed during the
                                call; NULL: any; TCP only */
    gyre_accept_filter_fn *filter;      /* NULL: keep every connection */
    gyre_balance_fn *choose;            /* required with GYRE_BALANCE_CUSTOM; must be NULL otherwise */
    gyre_listener_closed_fn *on_closed; /* NULL: no callback */
    void *user;                         /* passed to these three callbacks, and returned by gyre_listener_user() */
    uint64_t seed;        /* seed of GYRE_BALANCE_RANDOM and GYRE_BALANCE_SOURCE_HASH: a different seed gives a
                             different distribution; default: 0 */
    struct gyre_conn_options conn; /* options of each accepted connection; the last field */
};

/* Listen on `address` with all loops of an engine. `*out` receives the listener; `out` may be NULL. The address is one
 * of:
 *
 *   "tcp://127.0.0.1:7000"   this IPv4 address
 *   "tcp://[::1]:7000"       this IPv6 address
 *   "tcp://:7000"            every address, IPv4 and IPv6
 *   "tcp4://…", "tcp6://…"   the same, for one family only
 *   "tcp://127.0.0.1:0"      any free port; gyre_listener_address() returns the chosen port
 *   "tcp://localhost:7000"   127.0.0.1, or with "tcp6://" ::1
 *   "tcp://name:7000"        one address of the host name: the first IPv4 address, or if there is none, the first. The
 *                            name is looked up during the call, which blocks. Not in a callback of the loop or engine.
 *   "unix:///run/x.sock"     a unix socket. A leftover socket file that nobody listens on is replaced. When the
 *                            listener closes, its file is removed, unless the socket was duplicated with
 *                            gyre_listener_dup_fd() and is still open elsewhere.
 *   "unix://@name"           an abstract unix name (Linux)
 *
 * The listener is returned borrowed and is valid until the engine is destroyed. After gyre_listener_close(), the
 * listener is valid only until its sockets and its last connection are closed. `handlers` are borrowed as long as the
 * listener is valid.
 *
 * May be called before the engine runs and while the engine runs. When the call returns 0, the address is bound and
 * clients can connect. While the engine runs, each loop starts to accept in its next turn. If a loop cannot start to
 * accept because memory is short, the loop logs a warning and tries again, with the pauses of the table above.
 *
 * Returns 0, or an error, and then nothing stays open:
 *   -EINVAL          `engine` or `address` is NULL
 *   GYRE_EADDRESS    `address` is not a stream address (for UDP use gyre_engine_listen_udp()), or it has a name other
 *                    than localhost and the call is made in a callback
 *   GYRE_ENONAME, GYRE_ENAMESERVER
 *                    the name does not exist, or could not be looked up
 *   GYRE_EPATHLEN    the unix path is empty or too long
 *   GYRE_EHANDLERS   `handlers` is NULL or lacks on_data (with a framer, on_frame)
 *   GYRE_EOPTION     an option is out of range; GYRE_BALANCE_KERNEL or an option marked "TCP only" is set for a unix
 *                    address; or `choose` is set without GYRE_BALANCE_CUSTOM, or the other way round
 *   -EOPNOTSUPP      the system does not have `defer_accept_s`, `fastopen_queue`, `device` or an option in `conn`
 *   -E2BIG           an option is set that this library does not know
 *   -EADDRINUSE      the port is in use, or another socket listens on the unix path. After a process that used io_uring
 *                    was killed, this error lasts some milliseconds: the kernel closes its sockets late.
 *   -EEXIST          the unix path exists and is not a socket
 *   -ENOENT          the directory of the unix path does not exist
 *   -EADDRNOTAVAIL   no interface has the address
 *   -EAFNOSUPPORT    the system does not support the address family
 *   -EACCES          no permission for the port or the unix path
 *   -ENODEV, -EPERM  `device` does not exist, or its use is not permitted
 *   -EMFILE          out of descriptors
 *   -ENOMEM          out of memory
 *   GYRE_ESHUTDOWN   the engine is draining or stopping
 *   GYRE_ESTATE      the engine has run
 *   GYRE_EFORK       the engine belongs to the parent process
 *   -errno           another error of the system, or the error that conn.on_socket returned
 * Thread: any. */
#define gyre_engine_listen(out, engine, address, handlers, ...)                                                        \
    gyre_engine_listen_sized((out), (engine), (address), (handlers),                                                   \
                             GYRE_LAST_ARGUMENT_IS_OPTIONS_OR_NULL(struct gyre_listener_options, __VA_ARGS__),         \
                             sizeof(struct gyre_conn_options))
GYRE_API int gyre_engine_listen_sized(struct gyre_listener **out, struct gyre_engine *engine, const char *address,
                                      const struct gyre_conn_handlers *handlers,
                                      const struct gyre_listener_options *options, size_t size_bytes,
                                      size_t conn_size_bytes);

/* Listen with all loops of an engine on `fd`, a socket that already listens. The socket may come from a parent process
 * or from a service manager. A service manager passes descriptors from 3 on; LISTEN_FDS holds their count.
 *
 * On success the listener takes `fd`. `fd` becomes close-on-exec and non-blocking, with every backend. Processes that
 * share the socket see the change of the blocking mode. On error `fd` stays open and belongs to the caller. `fd` may
 * then already be close-on-exec and non-blocking and have some of the options. Several loops and processes may accept
 * on one socket, on different backends, too.
 *
 * The options `backlog`, `share_port`, `v6_only`, `unix_mode`, `defer_accept_s`, `fastopen_queue` and `device` have no
 * effect. GYRE_BALANCE_AUTO means GYRE_BALANCE_ROUND_ROBIN. The file of a unix socket is not removed. `out` may be
 * NULL; see gyre_engine_listen() for the listener and `handlers`.
 *
 * Returns 0, or:
 *   GYRE_ESOCKTYPE   `fd` is not a listening stream socket of TCP or unix
 *   -EBADF           `fd` is not open
 *   GYRE_EOPTION     as gyre_engine_listen(), or `balance` is GYRE_BALANCE_KERNEL, which needs one socket per loop
 *   -EINVAL          `engine` is NULL
 *   GYRE_EHANDLERS, -E2BIG, -EOPNOTSUPP, -ENOMEM, GYRE_ESHUTDOWN, GYRE_ESTATE, GYRE_EFORK   as gyre_engine_listen()
 *   -errno           another error of the system, such as a refused option in `conn`
 * Thread: any. */
#define gyre_engine_listen_fd(out, engine, fd, handlers, ...)                                                          \
    gyre_engine_listen_fd_sized((out), (engine), (fd), (handlers),                                                     \
                                GYRE_LAST_ARGUMENT_IS_OPTIONS_OR_NULL(struct gyre_listener_options, __VA_ARGS__),      \
                                sizeof(struct gyre_conn_options))
GYRE_API int gyre_engine_listen_fd_sized(struct gyre_listener **out, struct gyre_engine *engine, int fd,
                                         const struct gyre_conn_handlers *handlers,
                                         const struct gyre_listener_options *options, size_t size_bytes,
                                         size_t conn_size_bytes);

/* Listen with a single loop. The calls do what gyre_engine_listen() and gyre_engine_listen_fd() do. The listener is
 * valid until gyre_listener_close() was called and its last connection has closed, at the latest until the loop is
 * destroyed.
 *
 * Returns 0, or an error as gyre_engine_listen() or gyre_engine_listen_fd(). GYRE_ESTATE and GYRE_EFORK do not occur.
 * These errors differ:
 *   -EINVAL         `loop` or `address` is NULL
 *   GYRE_ETHREAD    the calling thread is not the loop's, or the loop belongs to the parent process
 *   GYRE_ESHUTDOWN  the loop is draining or being destroyed
 * Thread: the loop's. */
#define gyre_loop_listen(out, loop, address, handlers, ...)                                                            \
    gyre_loop_listen_sized((out), (loop), (address), (handlers),                                                       \
                           GYRE_LAST_ARGUMENT_IS_OPTIONS_OR_NULL(struct gyre_listener_options, __VA_ARGS__),           \
                           sizeof(struct gyre_conn_options))
GYRE_API int gyre_loop_listen_sized(struct gyre_listener **out, struct gyre_loop *loop, const char *address,
                                    const struct gyre_conn_handlers *handlers,
                                    const struct gyre_listener_options *options, size_t size_bytes,
                                    size_t conn_size_bytes);
#define gyre_loop_listen_fd(out, loop, fd, handlers, ...)                                                              \
    gyre_loop_listen_fd_sized((out), (loop), (fd), (handlers),                                                         \
                              GYRE_LAST_ARGUMENT_IS_OPTIONS_OR_NULL(struct gyre_listener_options, __VA_ARGS__),        \
                              sizeof(struct gyre_conn_options))
GYRE_API int gyre_loop_listen_fd_sized(struct gyre_listener **out, struct gyre_loop *loop, int fd,
                                       const struct gyre_conn_handlers *handlers,
                                       const struct gyre_listener_options *options, size_t size_bytes,
                                       size_t conn_size_bytes);

/* Stop accepting for good and close the listening sockets. Accepted connections stay open. Until the sockets are closed
 * the library may accept more connections, for which `filter`, on_open and the other handlers run. Clients that wait in
 * the backlog are accepted first, unless the listener is paused or full. If another process or loop has the socket,
 * too, they stay in the backlog for that one. Sockets on other loops, and sockets that are
 * accepting at this moment, are closed in the next turn of their loop. `on_closed` runs when all sockets are closed.
 * The listener becomes invalid when its sockets and its last connection are closed, which may be before this call
 * returns. A second call does nothing until the engine or the loop listens again, because the memory of an invalid
 * listener may then be reused. NULL is allowed.
 *
 * Returns 0, or:
 *   GYRE_ETHREAD  the listener belongs to one loop, and the calling thread is not the loop's
 *   GYRE_EFORK    the listener belongs to the parent process
 * Thread: any for a listener of an engine; the loop's for a listener of one loop. */
GYRE_API int gyre_listener_close(struct gyre_listener *listener);

/* Pause and resume accepting. Other loops than the caller's pause and resume in their next turn. While the listener is
 * paused, clients wait in the backlog until the backlog is full. Connections that were already accepted when the pause
 * began are still served. Calls are not counted: one gyre_listener_resume() ends the pause after any number of
 * gyre_listener_pause().
 *
 * Return 0, or:
 *   GYRE_ESTATE   the listener is closed
 *   GYRE_ETHREAD  the listener belongs to one loop, and the calling thread is not the loop's
 *   GYRE_EFORK    the listener belongs to the parent process
 *   -EINVAL       `listener` is NULL
 * Thread: as gyre_listener_close(). */
GYRE_API int gyre_listener_pause(struct gyre_listener *listener);
GYRE_API int gyre_listener_resume(struct gyre_listener *listener);

/* Return the `user` of the listener's options, its index, and its engine. The index is the number of listeners that the
 * engine had opened before this one; 0 for a listener of one loop. The engine is NULL for a listener of one loop.
 * Thread: any. */
GYRE_API void *gyre_listener_user(const struct gyre_listener *listener);
GYRE_API uint32_t gyre_listener_index(const struct gyre_listener *listener);
GYRE_API struct gyre_engine *gyre_listener_engine(const struct gyre_listener *listener);

/* Returns the number of open connections of the listener, including those that are being handed over to their loop. The
 * number may change at any moment. Thread: any. */
GYRE_API uint32_t gyre_listener_conn_count(const struct gyre_listener *listener);

/* Hand the listening sockets to another process, for a restart without refused connections.
 *
 * gyre_listener_socket_count() returns the number of listening sockets: one, or with GYRE_BALANCE_KERNEL one per loop;
 * 0 when the listener is closed.
 *
 * gyre_listener_dup_fd() duplicates the listening socket at `index`. The duplicate is close-on-exec, non-blocking and
 * owned by the caller. The socket keeps listening until all its descriptors are closed. A client that connects while no
 * process is accepting waits until a process accepts. Returns the descriptor, or:
 *   -EINVAL      no socket at `index`, or `listener` is NULL
 *   GYRE_ESTATE  the listener is closed
 *   -EMFILE      out of descriptors
 *   -EOPNOTSUPP  not supported on the simulator
 * Thread: any, while no other thread closes the listener. */
GYRE_API uint32_t gyre_listener_socket_count(const struct gyre_listener *listener);
GYRE_API int gyre_listener_dup_fd(const struct gyre_listener *listener, uint32_t index);

/* Returns the address that the listener is bound to, in the form that gyre_engine_listen() takes, such as
 * "tcp://127.0.0.1:40123". Port 0 is replaced by the chosen port. Borrowed until the listener becomes invalid.
 * Thread: any. */
GYRE_API const char *gyre_listener_address(const struct gyre_listener *listener);

#ifdef __cplusplus
}
#endif

#endif
