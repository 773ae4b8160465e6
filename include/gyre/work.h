/* SPDX-License-Identifier: MIT
 * A bounded pool of threads for work that blocks or computes for a long time. The result of each job is reported on a
 * loop.
 *
 * A job has two functions. `work` runs on a thread of the pool. `done` runs afterwards on the loop. `work` must not
 * touch any object of a loop; pass its input and output in `user`. If the job is about a connection, put the
 * connection's gyre_conn_id there. If the connection has closed when `done` runs, gyre_conn_from_id() returns NULL. */
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
    uint32_t threads;           /* number of threads; 0: 4; at most 256 */
    uint32_t queue_max;         /* limit on jobs that wait for a thread; 0: 1024; at most 1048576 */
    const struct gyre_mem *mem; /* borrowed until the pool is destroyed and every `done` has run; NULL: malloc */
    const char *name;           /* threads are named NAME-0, NAME-1, …; NAME is shortened so that 15 bytes suffice;
                                   copied; NULL: "gyre-work" */
};

/* Create a pool and start its threads. The threads block all signals. Returns owned in `*out`; free the pool with
 * gyre_pool_destroy().
 *
 * Returns 0, or:
 *   -EINVAL       `out` is NULL
 *   GYRE_EOPTION  an option is out of range
 *   -E2BIG        an option is set that this library does not know
 *   -ENOMEM       out of memory
 *   -EAGAIN       a thread could not be created
 * Thread: any. */
#define gyre_pool_create(out, ...)                                                                                     \
    gyre_pool_create_sized((out), GYRE_LAST_ARGUMENT_IS_OPTIONS_OR_NULL(struct gyre_pool_options, __VA_ARGS__))
GYRE_API int gyre_pool_create_sized(struct gyre_pool **out, const struct gyre_pool_options *options, size_t size_bytes);

/* Destroy the pool: accept no more jobs, cancel the queued jobs, and wait for the running jobs to return. For running
 * jobs, gyre_work_cancelled() becomes true. Each `done` that is still due runs on its loop after this call, so destroy
 * a pool before the loops of its jobs. NULL is allowed.
 * Thread: any, but not from a job. */
GYRE_API void gyre_pool_destroy(struct gyre_pool *pool);

/* The work of a job. Called on a thread of the pool. The return value is passed to `done`. */
typedef int gyre_work_fn(struct gyre_work *work, void *user);

/* The end of a job. Called once, on the loop. `result` is the return value of `work`, or -ECANCELED if the job was
 * cancelled before its start. */
typedef void gyre_work_done_fn(struct gyre_loop *loop, int result, void *user);

/* Identifies a job, for gyre_pool_cancel(). The id becomes stale when `work` has returned, or when the job is cancelled
 * before its start. */
struct gyre_work_id {
    uint32_t slot;
    uint32_t generation;
};

/* Queue a job: call `work(…, user)` on a thread of the pool, then `done(loop, …, user)` on `loop`. Jobs start in the
 * order in which they were submitted. `*out` gets the id of the job; `out` may be NULL. On error neither function is
 * called.
 *
 * Returns 0, or:
 *   -EINVAL         `pool`, `loop`, `work` or `done` is NULL
 *   -EAGAIN         `queue_max` jobs are queued, or `queue_max` + `threads` jobs have not had their `done` callback yet
 *   GYRE_ESHUTDOWN  the pool or the loop is being destroyed
 *   GYRE_EFORK      the pool belongs to the parent process
 * Thread: any, including the threads of the pool. */
GYRE_API int gyre_pool_submit(struct gyre_work_id *out, struct gyre_pool *pool, struct gyre_loop *loop,
                              gyre_work_fn *work, gyre_work_done_fn *done, void *user);

/* Cancel a job.
 *
 * Returns:
 *   0            the job was queued and does not start; `done` gets -ECANCELED
 *   1            the job is running; gyre_work_cancelled() returns true in the job from now on; `done` gets the return
 *                value of `work`
 *   GYRE_ESTALE  the job is over
 *   -EINVAL      `pool` is NULL, or no such id exists
 *   GYRE_EFORK   the pool belongs to the parent process
 * Thread: any. */
GYRE_API int gyre_pool_cancel(struct gyre_pool *pool, struct gyre_work_id id);

/* Returns whether the job was cancelled while it ran. Thread: the job's. */
GYRE_API bool gyre_work_cancelled(const struct gyre_work *work);

#ifdef __cplusplus
}
#endif

#endif
