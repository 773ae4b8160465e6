/* SPDX-License-Identifier: MIT
 * A loop has one thread, one backend, and its own connections, timers and posted tasks. There are three ways to run a
 * loop: on a thread of your own, inside a foreign loop (fd, timeout, run_nowait), or as one of the loops of an engine
 * (engine.h). */
#ifndef GYRE_LOOP_H
#define GYRE_LOOP_H

#include <gyre/base.h>

#ifdef __cplusplus
extern "C" {
#endif

struct gyre_loop;
struct gyre_resolver;
struct gyre_sim;

struct gyre_loop_options {
    const char *backend;         /* NULL or "auto": the value of the environment variable GYRE_BACKEND, or if that is
                                    not set, the best backend that works here. "io_uring", "epoll" or "kqueue": this
                                    backend, or an error if it does not work */
    const struct gyre_mem *mem;  /* memory hook; borrowed until the loop is destroyed; NULL: malloc */
    const struct gyre_log *log;  /* log hook; borrowed until the loop is destroyed; NULL: standard error */
    struct gyre_sim *sim;        /* run on this simulated network (sim.h) instead of a backend; borrowed until the loop
                                    is destroyed; NULL: none */
    uint32_t ops_max;            /* hint: operations expected in flight; 0: 4096; at most 65536 */
    uint32_t buf_size_bytes;     /* size of one receive buffer; 0: 16896, which fits a TLS record; 256 to 1 MiB */
    uint32_t buf_count;          /* receive buffers posted at first. This many also keep their memory after a burst.
                                    0: as many as fill half of the L2 cache, at least 16; at most buf_count_max */
    uint32_t buf_count_max;      /* limit on receive buffers, whether posted, held or queued; 0: 1024, or buf_count if
                                    that is larger; at most 16384. Address space for buf_count_max buffers is reserved
                                    when the loop is created. On 32-bit systems the space must be below 2 GiB */
    uint32_t conns_max;          /* limit on connections; 0: 1048576; any other value is allowed */
    uint32_t tasks_max;          /* limit on queued tasks, and separately the same limit on delayed tasks; 0: 65536; any
                                    other value is allowed */
    void *user;                  /* returned by gyre_loop_user() */
    /* Busy polling: how long to poll the network devices (NAPI) behind the loop's sockets before sleeping, in
     * microseconds; 0: no busy polling; at most 10000. The loop notices requests sooner and keeps a processor busy.
     * Only the waits in gyre_loop_run() poll. Loopback and unix sockets have no device. Busy polling needs io_uring or
     * epoll on Linux 6.9 or later. Elsewhere, or if the kernel refuses, the loop works without busy polling and logs
     * that (GYRE_LOG_INFO). If the loop polls, the features of its report contain "napi". */
    uint32_t busy_poll_us;
    bool busy_poll_prefer; /* also keep the interrupts of the devices off while polling. The devices need
                              napi_defer_hard_irqs and gro_flush_timeout. Requires `busy_poll_us`. Default: false */
    uint32_t urgent_tasks_max;   /* limit on queued urgent tasks (gyre_loop_post_urgent()); 0: 1024 */
    int64_t buf_keep_ns;         /* after this many nanoseconds without use, a receive buffer beyond `buf_count` returns
                                    its memory to the system; 0: 1 s; INT64_MAX: never; not negative */
    struct gyre_resolver *resolver; /* looks names up for the loop (resolve.h); borrowed until the loop is destroyed;
                                       NULL: one with the default limits, created when it is needed */
};

/* The limits of a loop, and what happens at each:
 *
 *   limit              counts                        when it is reached
 *   conns_max          connections, closing ones     gyre_connect() and gyre_conn_adopt_fd() return GYRE_ECONNS. An
 *                      included                      accepted connection goes to another loop with room (listener.h).
 *                                                    If no loop has room, accepting pauses, and clients wait in the
 *                                                    backlog.
 *   tasks_max          queued tasks, including       posting returns -EAGAIN (counted, gyre_stats.tasks_refused). An
 *                      calls by id and accepted      accepted connection that cannot be handed over is closed.
 *                      connections handed over
 *   tasks_max          delayed tasks, counted        gyre_loop_post_after() returns -EAGAIN
 *                      separately
 *   urgent_tasks_max   queued urgent tasks           gyre_loop_post_urgent() returns -EAGAIN (counted,
 *                                                    gyre_stats.urgent_tasks_refused)
 *   buf_count_max      receive buffers               receiving waits for a buffer and the bytes stay in the kernel
 *                                                    (counted, gyre_stats.enobufs). While queues and handlers hold all
 *                                                    buffers, connections receive into heap memory instead (counted,
 *                                                    gyre_stats.recvs_heap).
 *   ops_max            operations in flight          nothing: the number is a hint
 *
 * The limits of one connection are in conn.h. The limits of a listener are in listener.h. */

/* Create a loop. Returns owned in `*out`; free the loop with gyre_loop_destroy().
 *
 * Returns 0, or:
 *   GYRE_EBACKEND     unknown backend name in the options or in GYRE_BACKEND
 *   GYRE_ENOBACKEND   the backend is not compiled in
 *   GYRE_EOPTION      an option is out of range
 *   -E2BIG            an option is set that this library does not know
 *   -EINVAL           `out` is NULL
 *   -ENOMEM           out of memory
 *   -EMFILE, -ENFILE  out of descriptors
 *   -EPERM, -ENOSYS, …
 *                     a backend asked for by name does not work. With "auto" the next backend is tried instead.
 * Thread: any. The loop then belongs to the first thread that runs it. */
#define gyre_loop_create(out, ...)                                                                                     \
    gyre_loop_create_sized((out), GYRE_LAST_ARGUMENT_IS_OPTIONS_OR_NULL(struct gyre_loop_options, __VA_ARGS__))
GYRE_API int gyre_loop_create_sized(struct gyre_loop **out, const struct gyre_loop_options *options, size_t size_bytes);

/* Close everything on the loop, wait until the kernel has released all of the loop's memory, run the tasks that are
 * still queued or delayed, and free the loop. The on_close of each connection and datagram socket gets GYRE_ESHUTDOWN.
 * Destroy the loop's timers, and each pool with jobs for the loop, before the loop. Do not destroy a loop of an engine:
 * gyre_engine_destroy() does this. NULL is allowed.
 *
 * If the loop's thread has ended, another thread may destroy the loop. With io_uring, connections are then closed
 * without waiting for the kernel, which is logged.
 *
 * Returns 0, or an error, and then the loop stays as it is:
 *   GYRE_ESTATE   called in a callback of this loop
 *   GYRE_ETHREAD  another thread is running the loop
 * Thread: the loop's. */
GYRE_API int gyre_loop_destroy(struct gyre_loop *loop);

/* Run the loop until gyre_loop_stop(). The loop can be run again after the call has returned.
 *
 * Returns 0 when stopped, or:
 *   GYRE_ETHREAD  another thread ran this loop before
 *   GYRE_ESTATE   called in a callback of this loop, or the engine of the loop has ended it
 *   GYRE_EFORK    the loop belongs to the parent process
 *   -EINVAL       `loop` is NULL
 *   -errno        the backend failed and cannot go on
 * Thread: the loop's. */
GYRE_API int gyre_loop_run(struct gyre_loop *loop);

/* Run one turn without waiting: fetch the events that are ready, invoke callbacks, submit operations.
 * Returns 1 if more work is ready now, 0 if not, or an error as gyre_loop_run().
 * Thread: the loop's. */
GYRE_API int gyre_loop_run_nowait(struct gyre_loop *loop);

/* Run the loop inside a foreign loop.
 * gyre_loop_fd() returns a borrowed descriptor that is readable when events are ready; -1 on the simulator. The
 * descriptor is valid until the loop is destroyed.
 * gyre_loop_timeout_ns() returns the nanoseconds until the next timer expires. 0: work is ready now. -1: no timer is
 * set. Ask for the time again before each wait of the foreign loop.
 * Call gyre_loop_run_nowait() when the descriptor is readable, when this time has passed, and after each other call on
 * this loop that you make outside its callbacks: the call may have queued data or an operation.
 * The descriptor works with poll(2), epoll and everything built on them. One combination does not work: a loop on
 * io_uring that watches (gyre_watch_open()) the descriptor of another loop on io_uring is not woken (seen on
 * Linux 6.18).
 * Thread: the loop's. */
GYRE_API int gyre_loop_fd(const struct gyre_loop *loop);
GYRE_API int64_t gyre_loop_timeout_ns(const struct gyre_loop *loop);

/* Make gyre_loop_run() return after the current turn. If the loop is not running, the next gyre_loop_run() returns at
 * once. gyre_loop_run_nowait() is not affected. Connections stay open. On a loop of an engine, this call is
 * gyre_engine_stop(), which aborts connections. NULL does nothing, so a signal handler may run before the loop is
 * created. Async-signal-safe. Do not destroy the loop before this call has returned, even if gyre_loop_run() has.
 * Thread: any, until the loop is destroyed. */
GYRE_API void gyre_loop_stop(struct gyre_loop *loop);

typedef void gyre_task_fn(struct gyre_loop *loop, void *user);

/* Call `task(loop, user)` on the loop's thread. Tasks posted by one thread run in the order of posting.
 *
 * Returns 0, or:
 *   -EINVAL         `loop` or `task` is NULL
 *   -ENOMEM         out of memory
 *   -EAGAIN         `tasks_max` tasks are queued
 *   GYRE_ESHUTDOWN  called by a task that runs while the loop is being destroyed
 *   GYRE_EFORK      the loop belongs to the parent process
 * Thread: any, as long as the loop is not being destroyed. */
GYRE_API int gyre_loop_post(struct gyre_loop *loop, gyre_task_fn *task, void *user);

/* Call `task(loop, user)` on the loop's thread ahead of ordinary tasks. Ordinary tasks are those that gyre_loop_post()
 * posted, and what the library does for other threads: calls by id, and accepted connections that another loop hands
 * over. Urgent tasks posted by one thread run in the order of posting. Urgent tasks posted while ordinary tasks run go
 * ahead of the remaining ordinary tasks. After 1024 urgent tasks a turn always serves up to 1024 ordinary tasks and
 * the I/O.
 *
 * Returns 0, or an error as gyre_loop_post(), except:
 *   -EAGAIN  `urgent_tasks_max` urgent tasks are queued (counted, gyre_stats.urgent_tasks_refused)
 * Thread: any, as long as the loop is not being destroyed. */
GYRE_API int gyre_loop_post_urgent(struct gyre_loop *loop, gyre_task_fn *task, void *user);

/* Call `task(loop, user)` on the loop's thread once, no earlier than `delay_ns` nanoseconds after this call. If the
 * loop is destroyed earlier, the task runs early, during gyre_loop_destroy(). In a task that runs there,
 * gyre_loop_post() returns GYRE_ESHUTDOWN. A delayed task cannot be cancelled. To cancel, use a timer (timer.h).
 *
 * Returns 0, or an error as gyre_loop_post(), with these differences:
 *   -EAGAIN       `tasks_max` delayed tasks are pending, or `tasks_max` tasks are queued and the call is not made in a
 *                 callback of this loop
 *   GYRE_EOPTION  `delay_ns` is negative
 * Thread: any, as long as the loop is not being destroyed. */
GYRE_API int gyre_loop_post_after(struct gyre_loop *loop, int64_t delay_ns, gyre_task_fn *task, void *user);

/* Returns the loop's time: CLOCK_MONOTONIC in nanoseconds, read once per turn. On the simulator the time is virtual.
 * Thread: the loop's. */
GYRE_API uint64_t gyre_loop_now_ns(const struct gyre_loop *loop);

/* Returns the number of connections on the loop, closing ones included. The number may change at any moment.
 * Thread: any. */
GYRE_API uint32_t gyre_loop_conn_count(const struct gyre_loop *loop);

/* Returns the index of the loop in its engine, as for gyre_engine_loop(). 0 for a loop without an engine.
 * Thread: any. */
GYRE_API uint32_t gyre_loop_index(const struct gyre_loop *loop);

/* Get and set the loop's `user` pointer. The initial value is the `user` of the loop's options. All loops of an engine
 * start with the same value. To tell the loops of an engine apart, set a value for each loop before the engine runs, or
 * later on the loop's thread.
 *
 * gyre_loop_set_user() returns 0, or:
 *   GYRE_ETHREAD  called from another thread
 *   -EINVAL       `loop` is NULL
 * Thread: any to get, while no other thread sets; the loop's to set. */
GYRE_API void *gyre_loop_user(const struct gyre_loop *loop);
GYRE_API int gyre_loop_set_user(struct gyre_loop *loop, void *user);

/* Returns whether the caller is on the loop's thread, inside gyre_loop_run() or gyre_loop_run_nowait(). Thread: any. */
GYRE_API bool gyre_loop_is_current(const struct gyre_loop *loop);

/* Write to `*out` which backend this loop has, why, and which kernel features it uses.
 * Thread: any, once the loop was created. */
GYRE_API void gyre_loop_backend(struct gyre_backend_report *out, const struct gyre_loop *loop);

#ifdef __cplusplus
}
#endif

#endif
