/* SPDX-License-Identifier: MIT
 * <gyre/reconnect.h> as programs were compiled with it when the interface got its shape, without the comments. */
#ifndef GYRE_RECONNECT_H
#define GYRE_RECONNECT_H
#include <gyre/base.h>
#include <gyre/conn.h>
#include <gyre/loop.h>
#ifdef __cplusplus
extern "C" {
#endif
struct gyre_reconnector;
struct gyre_reconnector_handlers {
    void (*on_wait)(struct gyre_reconnector *reconnector, int err, int64_t delay_ns, void *user);
    void (*on_give_up)(struct gyre_reconnector *reconnector, int err, void *user);
};
struct gyre_reconnector_options {
    int64_t delay_min_ns;
    int64_t delay_max_ns;
    int64_t stable_ns;
    uint32_t failures_max;
    uint64_t seed;
    const struct gyre_reconnector_handlers *handlers;
    void *user;
    struct gyre_conn_options conn;
};
#define gyre_reconnector_create(out, loop, address, handlers, ...)                                                     \
    gyre_reconnector_create_sized((out), (loop), (address), (handlers),                                                \
                                  GYRE_LAST_ARGUMENT_IS_OPTIONS_OR_NULL(struct gyre_reconnector_options, __VA_ARGS__), \
                                  sizeof(struct gyre_conn_options))
GYRE_API int gyre_reconnector_create_sized(struct gyre_reconnector **out, struct gyre_loop *loop, const char *address,
                                           const struct gyre_conn_handlers *handlers,
                                           const struct gyre_reconnector_options *options, size_t size_bytes,
                                           size_t conn_size_bytes);
GYRE_API int gyre_reconnector_destroy(struct gyre_reconnector *reconnector);
GYRE_API int gyre_reconnector_start(struct gyre_reconnector *reconnector);
GYRE_API int gyre_reconnector_stop(struct gyre_reconnector *reconnector);
GYRE_API struct gyre_conn *gyre_reconnector_conn(const struct gyre_reconnector *reconnector);
GYRE_API uint32_t gyre_reconnector_failures(const struct gyre_reconnector *reconnector);
#ifdef __cplusplus
}
#endif
#endif
