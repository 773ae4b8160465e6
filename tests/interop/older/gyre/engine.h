/* SPDX-License-Identifier: MIT
 * <gyre/engine.h> as programs were compiled with it when the interface got its shape, without the comments. */
#ifndef GYRE_ENGINE_H
#define GYRE_ENGINE_H
#include <gyre/connect.h>
#include <gyre/listener.h>
#include <gyre/udp.h>
#include <gyre/work.h>
#ifdef __cplusplus
extern "C" {
#endif
struct gyre_engine;
enum { GYRE_LOOPS_PER_CORE = UINT16_MAX };
struct gyre_engine_handlers {
    void (*on_boot)(struct gyre_engine *engine);
    void (*on_shutdown)(struct gyre_engine *engine);
    int64_t (*on_tick)(struct gyre_engine *engine, struct gyre_loop *loop);
};
struct gyre_engine_options {
    uint32_t loops;
    const struct gyre_engine_handlers *handlers;
    void *user;
    const char *name;
    const uint32_t *cpus;
    uint32_t cpu_count;
    bool pin;
    uint32_t work_threads;
    uint32_t work_queue_max;
    uint32_t conns_max;
    struct gyre_loop_options loop;
};
#define gyre_engine_create(out, ...)                                                                                   \
    gyre_engine_create_sized((out),                                                                                    \
                             GYRE_LAST_ARGUMENT_IS_OPTIONS_OR_NULL(struct gyre_engine_options, __VA_ARGS__),           \
                             sizeof(struct gyre_loop_options))
GYRE_API int gyre_engine_create_sized(struct gyre_engine **out, const struct gyre_engine_options *options,
                                      size_t size_bytes, size_t loop_size_bytes);
GYRE_API void gyre_engine_destroy(struct gyre_engine *engine);
GYRE_API int gyre_engine_run(struct gyre_engine *engine);
GYRE_API void gyre_engine_stop(struct gyre_engine *engine);
GYRE_API void gyre_engine_drain(struct gyre_engine *engine, int64_t timeout_ns);
GYRE_API uint32_t gyre_engine_loop_count(const struct gyre_engine *engine);
GYRE_API struct gyre_loop *gyre_engine_loop(const struct gyre_engine *engine, uint32_t index);
GYRE_API void *gyre_engine_user(const struct gyre_engine *engine);
GYRE_API uint64_t gyre_engine_conn_count(const struct gyre_engine *engine);
typedef void gyre_all_done_fn(struct gyre_engine *engine, void *user);
GYRE_API int gyre_engine_post_all(struct gyre_engine *engine, gyre_task_fn *task, gyre_all_done_fn *done, void *user);
GYRE_API int gyre_engine_each_conn(struct gyre_engine *engine, gyre_each_fn *fn, gyre_all_done_fn *done, void *user);
enum gyre_slow {
    GYRE_SLOW_SKIP = 0,
    GYRE_SLOW_QUEUE,
    GYRE_SLOW_ABORT
};
struct gyre_broadcast_result {
    uint64_t queued;
    uint64_t skipped;
    uint64_t aborted;
    uint64_t failed;
};
struct gyre_broadcast_options {
    enum gyre_slow slow;
    gyre_each_fn *filter;
    void (*done)(struct gyre_engine *engine, const struct gyre_broadcast_result *result, void *user);
    void *user;
};
#define gyre_engine_broadcast(engine, data, len, ...)                                                                  \
    gyre_engine_broadcast_sized((engine), (data), (len),                                                               \
                                GYRE_LAST_ARGUMENT_IS_OPTIONS_OR_NULL(struct gyre_broadcast_options, __VA_ARGS__))
GYRE_API int gyre_engine_broadcast_sized(struct gyre_engine *engine, const void *data, size_t len,
                                         const struct gyre_broadcast_options *options, size_t size_bytes);
#define gyre_engine_listen_udp(ids, engine, address, handlers, ...)                                                    \
    gyre_engine_listen_udp_sized((ids), (engine), (address), (handlers),                                               \
                                 GYRE_LAST_ARGUMENT_IS_OPTIONS_OR_NULL(struct gyre_udp_options, __VA_ARGS__))
GYRE_API int gyre_engine_listen_udp_sized(struct gyre_udp_id *ids, struct gyre_engine *engine, const char *address,
                                          const struct gyre_udp_handlers *handlers,
                                          const struct gyre_udp_options *options, size_t size_bytes);
GYRE_API int gyre_engine_pool(struct gyre_pool **out, struct gyre_engine *engine);
GYRE_API int gyre_engine_offload(struct gyre_engine *engine, gyre_work_fn *work, gyre_work_done_fn *done, void *user);
#ifdef __cplusplus
}
#endif
#endif
