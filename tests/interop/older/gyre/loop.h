/* SPDX-License-Identifier: MIT
 * <gyre/loop.h> as programs were compiled with it when the interface got its shape, without the comments. */
#ifndef GYRE_LOOP_H
#define GYRE_LOOP_H
#include <gyre/base.h>
#ifdef __cplusplus
extern "C" {
#endif
struct gyre_loop;
struct gyre_sim;
struct gyre_loop_options {
    const char *backend;
    const struct gyre_mem *mem;
    const struct gyre_log *log;
    struct gyre_sim *sim;
    uint32_t ops_max;
    uint32_t buf_size_bytes;
    uint32_t buf_count;
    uint32_t buf_count_max;
    uint32_t conns_max;
    uint32_t tasks_max;
    void *user;
    uint32_t busy_poll_us;
    bool busy_poll_prefer;
    uint32_t urgent_tasks_max;
    int64_t buf_keep_ns;
};
#define gyre_loop_create(out, ...)                                                                                     \
    gyre_loop_create_sized((out), GYRE_LAST_ARGUMENT_IS_OPTIONS_OR_NULL(struct gyre_loop_options, __VA_ARGS__))
GYRE_API int gyre_loop_create_sized(struct gyre_loop **out, const struct gyre_loop_options *options, size_t size_bytes);
GYRE_API void gyre_loop_destroy(struct gyre_loop *loop);
GYRE_API int gyre_loop_run(struct gyre_loop *loop);
GYRE_API int gyre_loop_run_nowait(struct gyre_loop *loop);
GYRE_API int gyre_loop_fd(const struct gyre_loop *loop);
GYRE_API int64_t gyre_loop_timeout_ns(const struct gyre_loop *loop);
GYRE_API void gyre_loop_stop(struct gyre_loop *loop);
typedef void gyre_task_fn(struct gyre_loop *loop, void *user);
GYRE_API int gyre_loop_post(struct gyre_loop *loop, gyre_task_fn *task, void *user);
GYRE_API int gyre_loop_post_urgent(struct gyre_loop *loop, gyre_task_fn *task, void *user);
GYRE_API int gyre_loop_post_after(struct gyre_loop *loop, int64_t delay_ns, gyre_task_fn *task, void *user);
GYRE_API uint64_t gyre_loop_now_ns(const struct gyre_loop *loop);
GYRE_API uint32_t gyre_loop_conn_count(const struct gyre_loop *loop);
GYRE_API uint32_t gyre_loop_index(const struct gyre_loop *loop);
GYRE_API void *gyre_loop_user(const struct gyre_loop *loop);
GYRE_API int gyre_loop_set_user(struct gyre_loop *loop, void *user);
GYRE_API bool gyre_loop_is_current(const struct gyre_loop *loop);
GYRE_API void gyre_loop_backend(struct gyre_backend_report *out, const struct gyre_loop *loop);
#ifdef __cplusplus
}
#endif
#endif
