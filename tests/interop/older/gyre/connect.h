/* SPDX-License-Identifier: MIT
 * <gyre/connect.h> as programs were compiled with it when the interface got its shape, without the comments. */
#ifndef GYRE_CONNECT_H
#define GYRE_CONNECT_H
#include <gyre/conn.h>
#ifdef __cplusplus
extern "C" {
#endif
struct gyre_engine;
#define gyre_connect(out, loop, address, handlers, ...)                                                                \
    gyre_connect_sized((out), (loop), (address), (handlers),                                                           \
                       GYRE_LAST_ARGUMENT_IS_OPTIONS_OR_NULL(struct gyre_conn_options, __VA_ARGS__))
GYRE_API int gyre_connect_sized(struct gyre_conn **out, struct gyre_loop *loop, const char *address,
                                const struct gyre_conn_handlers *handlers, const struct gyre_conn_options *options,
                                size_t size_bytes);
typedef void gyre_connected_fn(struct gyre_loop *loop, struct gyre_conn *c, int err, void *user);
#define gyre_engine_connect(engine, address, handlers, done, user, ...)                                                \
    gyre_engine_connect_sized((engine), (address), (handlers), (done), (user),                                         \
                              GYRE_LAST_ARGUMENT_IS_OPTIONS_OR_NULL(struct gyre_conn_options, __VA_ARGS__))
GYRE_API int gyre_engine_connect_sized(struct gyre_engine *engine, const char *address,
                                       const struct gyre_conn_handlers *handlers, gyre_connected_fn *done, void *user,
                                       const struct gyre_conn_options *options, size_t size_bytes);
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
