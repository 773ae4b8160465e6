/* SPDX-License-Identifier: MIT
 * Making connections: to an address, or from a descriptor that is connected already. */
#ifndef GYRE_CONNECT_H
#define GYRE_CONNECT_H

#include <gyre/conn.h>

#ifdef __cplusplus
extern "C" {
#endif

struct gyre_engine;

/* Connect to `address` ("tcp://127.0.0.1:7000", "tcp://[::1]:7000", "unix:///run/x.sock", "unix://@abstract"; a
 * host name is not resolved here) on `loop`. Never blocks. `*out` (may be NULL) is borrowed, like every connection:
 * valid until its on_close. Bytes may be written at once; they leave when the connection is made. Then on_open, or
 * on_close with the reason: -ECONNREFUSED, -ENOENT, -EHOSTUNREACH, …, GYRE_ETIMEOUT.
 *
 * Returns 0, or: GYRE_EADDRESS, GYRE_EPATHLEN, GYRE_EHANDLERS, GYRE_EOPTION, GYRE_ECONNS, GYRE_ETHREAD,
 * GYRE_ESHUTDOWN, -ENOMEM, -EMFILE, -ENFILE. On error no callback comes.
 * Thread: the loop's. */
#define gyre_connect(out, loop, address, handlers, ...)                                                                \
    gyre_connect_sized((out), (loop), (address), (handlers), (__VA_ARGS__), sizeof(struct gyre_conn_options))
GYRE_API int gyre_connect_sized(struct gyre_conn **out, struct gyre_loop *loop, const char *address,
                                const struct gyre_conn_handlers *handlers, const struct gyre_conn_options *options,
                                size_t size_bytes);

typedef void gyre_connected_fn(struct gyre_loop *loop, struct gyre_conn *c, int err, void *user);

/* gyre_connect() on the loop of `engine` that has the fewest connections, in turn among equals. (To have it on the loop
 * of another connection, as a proxy wants, call gyre_connect() with gyre_conn_loop() there.) `done` (may be NULL) comes
 * once on that loop, never from inside this call: with the connection, borrowed and still connecting, as gyre_connect()
 * gives it, or with NULL and the error that would have returned; GYRE_ESHUTDOWN if the engine drains or stops before
 * its turn comes, at the latest from gyre_engine_destroy(). `done` comes before any callback of the connection.
 *
 * Returns 0, or: GYRE_EADDRESS, GYRE_EPATHLEN, GYRE_EHANDLERS, GYRE_EOPTION, -E2BIG, -EINVAL; GYRE_ECONNS if every loop
 * is full; -EAGAIN if too many tasks wait; -ENOMEM; GYRE_ESHUTDOWN. On error `done` does not come.
 * Thread: any, as long as the engine is not being destroyed. */
#define gyre_engine_connect(engine, address, handlers, done, user, ...)                                                \
    gyre_engine_connect_sized((engine), (address), (handlers), (done), (user), (__VA_ARGS__),                          \
                              sizeof(struct gyre_conn_options))
GYRE_API int gyre_engine_connect_sized(struct gyre_engine *engine, const char *address,
                                       const struct gyre_conn_handlers *handlers, gyre_connected_fn *done, void *user,
                                       const struct gyre_conn_options *options, size_t size_bytes);

/* Make a connection of a descriptor that is connected already: TCP, unix, one end of a socketpair(2). Takes `fd` on
 * success, makes it close-on-exec, and blocking or not as the backend needs, which whoever shares it sees. on_open
 * follows, as for any other; bytes may be written before. Nobody else may read or write it.
 *
 * Returns 0, or: GYRE_ESOCKTYPE if it is not a connected stream socket; -EBADF; otherwise as gyre_connect(). On error
 * `fd` stays open and the caller's; options may be set already. Thread: the loop's. */
#define gyre_conn_adopt_fd(out, loop, fd, handlers, ...)                                                               \
    gyre_conn_adopt_fd_sized((out), (loop), (fd), (handlers), (__VA_ARGS__), sizeof(struct gyre_conn_options))
GYRE_API int gyre_conn_adopt_fd_sized(struct gyre_conn **out, struct gyre_loop *loop, int fd,
                                      const struct gyre_conn_handlers *handlers,
                                      const struct gyre_conn_options *options, size_t size_bytes);

#ifdef __cplusplus
}
#endif

#endif
