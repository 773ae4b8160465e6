/* SPDX-License-Identifier: MIT
 * <gyre/listener.h> as programs were compiled with it when the interface got its shape, without the comments. */
#ifndef GYRE_LISTENER_H
#define GYRE_LISTENER_H
#include <gyre/conn.h>
#ifdef __cplusplus
extern "C" {
#endif
struct gyre_engine;
enum gyre_balance {
    GYRE_BALANCE_AUTO = 0,
    GYRE_BALANCE_KERNEL,
    GYRE_BALANCE_ROUND_ROBIN,
    GYRE_BALANCE_LEAST_CONNS,
    GYRE_BALANCE_SOURCE_HASH,
    GYRE_BALANCE_RANDOM,
    GYRE_BALANCE_CUSTOM
};
enum gyre_accept_verdict {
    GYRE_ACCEPT_YES = 0,
    GYRE_ACCEPT_NO,
    GYRE_ACCEPT_RESET
};
typedef int gyre_accept_filter_fn(struct gyre_listener *listener, const struct sockaddr *peer, socklen_t peer_len,
                                  void *user);
typedef uint32_t gyre_balance_fn(struct gyre_listener *listener, const struct sockaddr *peer, socklen_t peer_len,
                                 void *user);
typedef void gyre_listener_closed_fn(void *user);
struct gyre_listener_options {
    enum gyre_balance balance;
    uint32_t backlog;
    bool share_port;
    bool v6_only;
    uint32_t unix_mode;
    uint32_t conns_max;
    uint32_t defer_accept_s;
    uint32_t fastopen_queue;
    const char *device;
    gyre_accept_filter_fn *filter;
    gyre_balance_fn *choose;
    gyre_listener_closed_fn *on_closed;
    void *user;
    uint64_t seed;
    struct gyre_conn_options conn;
};
#define gyre_engine_listen(out, engine, address, handlers, ...)                                                        \
    gyre_engine_listen_sized((out), (engine), (address), (handlers),                                                   \
                             GYRE_LAST_ARGUMENT_IS_OPTIONS_OR_NULL(struct gyre_listener_options, __VA_ARGS__),         \
                             sizeof(struct gyre_conn_options))
GYRE_API int gyre_engine_listen_sized(struct gyre_listener **out, struct gyre_engine *engine, const char *address,
                                      const struct gyre_conn_handlers *handlers,
                                      const struct gyre_listener_options *options, size_t size_bytes,
                                      size_t conn_size_bytes);
#define gyre_engine_listen_fd(out, engine, fd, handlers, ...)                                                          \
    gyre_engine_listen_fd_sized((out), (engine), (fd), (handlers),                                                     \
                                GYRE_LAST_ARGUMENT_IS_OPTIONS_OR_NULL(struct gyre_listener_options, __VA_ARGS__),      \
                                sizeof(struct gyre_conn_options))
GYRE_API int gyre_engine_listen_fd_sized(struct gyre_listener **out, struct gyre_engine *engine, int fd,
                                         const struct gyre_conn_handlers *handlers,
                                         const struct gyre_listener_options *options, size_t size_bytes,
                                         size_t conn_size_bytes);
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
GYRE_API int gyre_listener_close(struct gyre_listener *listener);
GYRE_API int gyre_listener_pause(struct gyre_listener *listener);
GYRE_API int gyre_listener_resume(struct gyre_listener *listener);
GYRE_API void *gyre_listener_user(const struct gyre_listener *listener);
GYRE_API uint32_t gyre_listener_index(const struct gyre_listener *listener);
GYRE_API struct gyre_engine *gyre_listener_engine(const struct gyre_listener *listener);
GYRE_API uint32_t gyre_listener_conn_count(const struct gyre_listener *listener);
GYRE_API uint32_t gyre_listener_socket_count(const struct gyre_listener *listener);
GYRE_API int gyre_listener_dup_fd(const struct gyre_listener *listener, uint32_t index);
GYRE_API const char *gyre_listener_address(const struct gyre_listener *listener);
#ifdef __cplusplus
}
#endif
#endif
