/* SPDX-License-Identifier: MIT
 * <gyre/work.h> as programs were compiled with it when the interface got its shape, without the comments. */
#ifndef GYRE_WORK_H
#define GYRE_WORK_H
#include <gyre/base.h>
#include <gyre/loop.h>
#ifdef __cplusplus
extern "C" {
#endif
struct gyre_pool;
struct gyre_work;
struct gyre_pool_options {
    uint32_t threads;
    uint32_t queue_max;
    const struct gyre_mem *mem;
    const char *name;
};
#define gyre_pool_create(out, ...)                                                                                     \
    gyre_pool_create_sized((out), GYRE_LAST_ARGUMENT_IS_OPTIONS_OR_NULL(struct gyre_pool_options, __VA_ARGS__))
GYRE_API int gyre_pool_create_sized(struct gyre_pool **out, const struct gyre_pool_options *options, size_t size_bytes);
GYRE_API void gyre_pool_destroy(struct gyre_pool *pool);
typedef int gyre_work_fn(struct gyre_work *work, void *user);
typedef void gyre_work_done_fn(struct gyre_loop *loop, int result, void *user);
struct gyre_work_id {
    uint32_t slot;
    uint32_t generation;
};
GYRE_API int gyre_pool_submit(struct gyre_work_id *out, struct gyre_pool *pool, struct gyre_loop *loop,
                              gyre_work_fn *work, gyre_work_done_fn *done, void *user);
GYRE_API int gyre_pool_cancel(struct gyre_pool *pool, struct gyre_work_id id);
GYRE_API bool gyre_work_cancelled(const struct gyre_work *work);
#ifdef __cplusplus
}
#endif
#endif
