/* SPDX-License-Identifier: MIT
 * Work that blocks or computes for long, done by a bounded pool of threads; what came out is told on a loop.
 *
 * A job is a function that runs on some thread of the pool, and one that runs on the loop afterwards. The first may
 * touch no object of a loop; what it works on travels in `user`. If it is about a connection, put its gyre_conn_id
 * there: the connection may be gone by then, and gyre_conn_from_id() says so. */
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
    uint32_t threads;           /* 0: 4; at most 256 */
    uint32_t queue_max;         /* jobs waiting for a thread at most; 0: 1024; at most 1048576 */
    const struct gyre_mem *mem; /* borrowed until every job is told of; NULL: malloc */
    const char *name;           /* threads are called NAME-0, NAME-1, …, cut to 15 bytes; copied; NULL: "gyre-work" */
};

/* Make a pool and its threads, which block all signals. Returns owned; free with gyre_pool_destroy().
 * Returns 0, or: -EINVAL; GYRE_EOPTION; -E2BIG; -ENOMEM; -EAGAIN if a thread could not be made. Thread: any. */
#define gyre_pool_create(out, ...) gyre_pool_create_sized((out), (__VA_ARGS__), sizeof(struct gyre_pool_options))
GYRE_API int gyre_pool_create_sized(struct gyre_pool **out, const struct gyre_pool_options *options, size_t size_bytes);

/* Take no more jobs, call off those that have not begun, tell the others (gyre_work_cancelled()), and wait for these to
 * return. What is still to be told comes on the loops afterwards. A pool must be destroyed before the loops that its
 * jobs are told on. NULL is allowed. Thread: any, but not from a job. */
GYRE_API void gyre_pool_destroy(struct gyre_pool *pool);

/* On a thread of the pool. What it returns goes to `done`. */
typedef int gyre_work_fn(struct gyre_work *work, void *user);

/* On the loop, once: `result` is what the work returned, or -ECANCELED if it was called off and never began. */
typedef void gyre_work_done_fn(struct gyre_loop *loop, void *user, int result);

/* A name for a job, by which it is called off; stale once `done` is due. */
struct gyre_work_id {
    uint32_t slot;
    uint32_t generation;
};

/* Have `work` called on a thread of the pool, in the order of submitting, and then `done` on `loop`. `out` may be NULL.
 * Returns 0, or: -EINVAL; -EAGAIN if `queue_max` wait, or as many are under way as wait and run at most (a job is until
 * it is told of); GYRE_ESHUTDOWN if the pool or the loop is being destroyed; then neither is called.
 * Thread: any, jobs included. */
GYRE_API int gyre_pool_submit(struct gyre_work_id *out, struct gyre_pool *pool, struct gyre_loop *loop,
                              gyre_work_fn *work, gyre_work_done_fn *done, void *user);

/* Call a job off. Returns 0 if it will not begin: `done` comes with -ECANCELED. Returns 1 if it runs: from now on
 * gyre_work_cancelled() is true for it, and `done` comes with what it returns. Returns GYRE_ESTALE if it is over, or
 * -EINVAL. Thread: any. */
GYRE_API int gyre_pool_cancel(struct gyre_pool *pool, struct gyre_work_id id);

/* Whether the job was called off while it ran. Thread: the job's. */
GYRE_API bool gyre_work_cancelled(const struct gyre_work *work);

#ifdef __cplusplus
}
#endif

#endif
