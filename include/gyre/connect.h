/* SPDX-License-Identifier: MIT
 * Making connections: to an address, or from a descriptor that is already connected.
 *
 * Connect errors. The calls below return 0 or one of these. After an error no callback runs.
 *   GYRE_EADDRESS: the address, or `source_address`, does not parse, or their families differ
 *   GYRE_EPATHLEN: the unix socket path is empty or too long
 *   GYRE_EHANDLERS: `handlers` is NULL or lacks a required handler
 *   GYRE_EOPTION: an option is out of range or does not fit the address
 *   GYRE_ECONNS: `conns_max` connections are open
 *   GYRE_ETHREAD: the calling thread is not the loop's
 *   GYRE_EFORK: the loop belongs to the parent process
 *   GYRE_ESHUTDOWN: the loop is draining or stopping
 *   -EAGAIN: too many names are being looked up (limits of the resolver)
 *   -E2BIG: an option is set that this library does not know
 *   -EINVAL: a required argument is NULL
 *   -ENOMEM, -EMFILE, -ENFILE: out of memory or descriptors
 *   -errno: the system refused a socket option, the device or the source address; or the error of `on_socket` */
#ifndef GYRE_CONNECT_H
#define GYRE_CONNECT_H

#include <gyre/conn.h>

#ifdef __cplusplus
extern "C" {
#endif

struct gyre_engine;

/* Connect to `address` on `loop`, without blocking. Addresses: "tcp://example.org:80", "tcp://127.0.0.1:7000",
 * "tcp://[::1]:7000", "unix:///run/x.sock", "unix://@abstract". "tcp4://" and "tcp6://" restrict the family. `*out`
 * (may be NULL) receives the connection, borrowed, valid until its on_close returns. You may write at once. When the
 * connection is established, on_open runs and the bytes are sent. If connecting fails, on_close runs with the error:
 * -ECONNREFUSED, -ENOENT, -EHOSTUNREACH, another -errno, GYRE_ESELF, an error of a lookup (resolve.h), or GYRE_ETIMEOUT
 * after `connect_timeout_ns`. While the backlog of the listener is full, connecting is tried until that time has
 * passed, on unix sockets, too. (FreeBSD and macOS report -ECONNREFUSED for a full unix backlog.)
 *
 * Several addresses. A host name is looked up by the loop's resolver; the loop is not blocked. Instead of a name there
 * may be a list of up to 64 IP addresses, such as "tcp://192.0.2.1:80,[2001:db8::1]:80". The addresses are tried as in
 * RFC 8305: IPv6 and IPv4 take turns, beginning with the family of the first address. The next address is tried when an
 * attempt fails, or when `attempt_delay_ns` has passed without an answer. Attempts in flight go on meanwhile. The first
 * that succeeds becomes the connection, and the other sockets are closed. `connect_timeout_ns` limits the lookup and
 * all attempts together. If all attempts fail, on_close gets the error of the first address. Until it is established,
 * such a connection has no socket: gyre_conn_fd() returns -1, and calls about its socket return -ENOTCONN. `on_socket`
 * runs for each attempt. A `source_address` restricts the family.
 *
 * A TCP connection may reach itself: if nothing listens on a local port, the system may choose this port as the source.
 * Such a connection is refused with GYRE_ESELF.
 * Returns 0 or a connect error. Thread: the loop's. */
#define gyre_connect(out, loop, address, handlers, ...)                                                                \
    gyre_connect_sized((out), (loop), (address), (handlers),                                                           \
                       GYRE_LAST_ARGUMENT_IS_OPTIONS_OR_NULL(struct gyre_conn_options, __VA_ARGS__))
GYRE_API int gyre_connect_sized(struct gyre_conn **out, struct gyre_loop *loop, const char *address,
                                const struct gyre_conn_handlers *handlers, const struct gyre_conn_options *options,
                                size_t size_bytes);

/* Write to `out` why connecting failed: each address and its error, such as "tcp://[2001:db8::1]:80 ECONNREFUSED,
 * tcp://192.0.2.1:80 no answer". An address that was not tried before the time limit passed is "not tried". A name that
 * could not be looked up is there with its error. The text is cut to `size` bytes and always terminated. Call it in
 * on_close; at other times, and if connecting did not fail, the text is empty.
 * Returns the length of the whole text, which may be `size` or more. Errors: GYRE_ECLOSED: `c` is NULL; GYRE_ETHREAD;
 * -EINVAL: `out` is NULL and `size` is not 0. Thread: the connection's loop. */
GYRE_API int64_t gyre_conn_connect_error(char *out, size_t size, const struct gyre_conn *c);

typedef void gyre_connected_fn(struct gyre_loop *loop, struct gyre_conn *c, int err, void *user);

/* Connect on the loop of `engine` that has the fewest connections. Loops with equally few take turns. (To connect on
 * the loop of another connection, as a proxy does, call gyre_connect() with gyre_conn_loop() instead.) `done` (may be
 * NULL) runs once on the chosen loop, never inside this call, and before any other callback of the connection. `c` is
 * the connection, borrowed and still connecting, and `err` is 0. If gyre_connect() fails on that loop, `c` is NULL and
 * `err` is the error. If the engine drains or stops first, `c` is NULL and `err` is GYRE_ESHUTDOWN. `done` runs in
 * gyre_engine_destroy() at the latest.
 *
 * Returns 0 or a connect error; after an error `done` does not run. For this call:
 *   GYRE_ECONNS: every loop has `conns_max` connections
 *   GYRE_ESHUTDOWN: the engine is being destroyed
 *   -EAGAIN: `tasks_max` tasks are queued on the loop
 * Thread: any, while the engine is not being destroyed. */
#define gyre_engine_connect(engine, address, handlers, done, user, ...)                                                \
    gyre_engine_connect_sized((engine), (address), (handlers), (done), (user),                                         \
                              GYRE_LAST_ARGUMENT_IS_OPTIONS_OR_NULL(struct gyre_conn_options, __VA_ARGS__))
GYRE_API int gyre_engine_connect_sized(struct gyre_engine *engine, const char *address,
                                       const struct gyre_conn_handlers *handlers, gyre_connected_fn *done, void *user,
                                       const struct gyre_conn_options *options, size_t size_bytes);

/* Make a connection from `fd`, a descriptor that is already connected: TCP, unix, or one end of a socketpair(2). `*out`
 * is set as by gyre_connect(). on_open runs later, from the loop. You may write before on_open. On success gyre owns
 * `fd`. gyre makes the descriptor close-on-exec, and blocking or non-blocking as the backend needs. Duplicates of `fd`
 * share that blocking mode. Nobody else may read or write the socket.
 *
 * Returns 0 or an error: a connect error or one of these. After an error `fd` stays open and yours, but some of its
 * socket options may have been set.
 *   GYRE_ESOCKTYPE: `fd` is not a connected stream socket
 *   -EBADF: `fd` is not open
 * Thread: the loop's. */
#define gyre_conn_adopt_fd(out, loop, fd, handlers, ...)                                                               \
    gyre_conn_adopt_fd_sized((out), (loop), (fd), (handlers),                                                          \
                             GYRE_LAST_ARGUMENT_IS_OPTIONS_OR_NULL(struct gyre_conn_options, __VA_ARGS__))
GYRE_API int gyre_conn_adopt_fd_sized(struct gyre_conn **out, struct gyre_loop *loop, int fd,
                                      const struct gyre_conn_handlers *handlers,
                                      const struct gyre_conn_options *options, size_t size_bytes);

#ifdef __cplusplus
}
#endif

#endif
