/* SPDX-License-Identifier: MIT
 * A loop: one thread, one backend, its connections, timers and posted tasks. Use it alone on a thread of your own, in a
 * foreign loop (fd, timeout, run_nowait), or let an engine (engine.h) run several. */
#ifndef GYRE_LOOP_H
#define GYRE_LOOP_H

#include <gyre/base.h>

#ifdef __cplusplus
extern "C" {
#endif

struct gyre_loop;
struct gyre_sim;

struct gyre_loop_options {
    const char *backend;         /* NULL or "auto": GYRE_BACKEND from the environment, else the best that works here;
                                    else "io_uring", "epoll" or "kqueue", which then must work */
    const struct gyre_mem *mem;  /* borrowed until the loop is destroyed; NULL: malloc */
    const struct gyre_log *log;  /* borrowed until the loop is destroyed; NULL: standard error */
    struct gyre_sim *sim;        /* run on this simulated network (sim.h) instead; borrowed until destroyed */
    uint32_t ops_max;            /* operations to expect in flight, a hint; 0: 4096; at most 65536 */
    uint32_t buf_size_bytes;     /* of one receive buffer; 0: 16896, room for a TLS record; from 256 to 1 MiB */
    uint32_t buf_count;          /* receive buffers posted at first, and that keep their memory after a burst;
                                    0: half of the L2 cache's worth */
    uint32_t buf_count_max;      /* receive buffers at most, posted, held and queued; 0: 1024; at most 16384; their
                                    addresses are reserved: on 32-bit systems less than 2 GiB in all */
    uint32_t conns_max;          /* connections at most; 0: 1048576 */
    uint32_t tasks_max;          /* posted tasks waiting at most; 0: 65536 */
    void *user;                  /* for gyre_loop_user() */
    /* Busy polling: before it sleeps the loop polls for so long the devices (NAPI) that its sockets' data came in on.
     * Requests are seen sooner, a processor is kept busy. Only waits of gyre_loop_run() poll; loopback and unix sockets
     * have no device. On io_uring and epoll from Linux 6.9 on; anywhere else, and where the kernel refuses, the loop
     * works without and logs that (GYRE_LOG_INFO). Where it polls, the report's features have "napi".
     * 0: not; at most 10000. */
    uint32_t busy_poll_us;
    bool busy_poll_prefer; /* hold interrupts off meanwhile, on devices with napi_defer_hard_irqs and
                              gro_flush_timeout set; only with `busy_poll_us` */
    uint32_t urgent_tasks_max;   /* urgent ones waiting at most (gyre_loop_post_urgent()); 0: 1024 */
    int64_t buf_keep_ns;         /* receive buffers beyond `buf_count` that nobody needed for so long give their memory
                                    back to the system; 0: 1 s; INT64_MAX: never */
};

/* Make a loop. Returns owned in `*out`; free with gyre_loop_destroy().
 *
 * Returns 0, or: GYRE_EBACKEND, GYRE_ENOBACKEND; GYRE_EOPTION; -ENOMEM; -EMFILE, -ENFILE; with a backend asked for by
 * name, what kept it from working (-EPERM, -ENOSYS, …). With auto the next backend is tried.
 * Thread: any; the loop then belongs to the first thread that runs it. */
#define gyre_loop_create(out, ...) gyre_loop_create_sized((out), (__VA_ARGS__), sizeof(struct gyre_loop_options))
GYRE_API int gyre_loop_create_sized(struct gyre_loop **out, const struct gyre_loop_options *options, size_t size_bytes);

/* Close everything the loop has (each connection gets its on_close, with GYRE_ESHUTDOWN), wait until the kernel has let
 * go of all its memory, and free it. Tasks still posted are run first. NULL is allowed.
 * Thread: the loop's; not from a callback. */
GYRE_API void gyre_loop_destroy(struct gyre_loop *loop);

/* Serve until gyre_loop_stop(). Returns 0, or: GYRE_ETHREAD if another thread ran this loop before; GYRE_ESTATE from
 * within a callback; -errno if the backend is lost. May be called again after it has returned.
 * Thread: the loop's. */
GYRE_API int gyre_loop_run(struct gyre_loop *loop);

/* One turn without waiting: take what is ready, call back, submit. Returns 1 if more is ready at once, 0 if not, or an
 * error as gyre_loop_run(). Thread: the loop's. */
GYRE_API int gyre_loop_run_nowait(struct gyre_loop *loop);

/* For a foreign loop: a descriptor that polls readable when gyre_loop_run_nowait() has work (borrowed), and after how
 * many nanoseconds it has some without that (0: now; -1: never). Call run_nowait after each call that queued something.
 * It is for poll(2), epoll and what stands on them: a loop on io_uring that watches the descriptor of another one on
 * io_uring (gyre_watch_open()) is not woken by it (seen on Linux 6.18).
 * Thread: the loop's. */
GYRE_API int gyre_loop_fd(const struct gyre_loop *loop);
GYRE_API int64_t gyre_loop_timeout_ns(const struct gyre_loop *loop);

/* Make gyre_loop_run() return after the current turn. Connections stay as they are. On a loop of an engine
 * it is gyre_engine_stop(). With NULL, as a signal may find it, nothing happens. Async-signal-safe.
 * Thread: any. */
GYRE_API void gyre_loop_stop(struct gyre_loop *loop);

typedef void gyre_task_fn(struct gyre_loop *loop, void *user);

/* Have `task(loop, user)` called on the loop's thread, in the order of posting (per posting thread).
 * Returns 0, or: -EINVAL; -ENOMEM; -EAGAIN if `tasks_max` wait; GYRE_ESHUTDOWN from a task that runs while the loop is
 * being destroyed. Thread: any, as long as the loop is not being destroyed. */
GYRE_API int gyre_loop_post(struct gyre_loop *loop, gyre_task_fn *task, void *user);

/* The same ahead of every task that gyre_loop_post() posted and that has not begun, and of what the library itself has
 * to do for other threads: calls by id, accepted connections that come from another loop. Urgent tasks keep the order
 * of posting among themselves (per posting thread). Those that come in while others run go before the rest of them. A
 * turn runs at most 1024 urgent tasks and then, however many more there are, lets 1024 others and the events have
 * their turn.
 * Returns as gyre_loop_post(), but -EAGAIN if `urgent_tasks_max` urgent ones wait (counted,
 * gyre_stats.urgent_tasks_refused). Thread: any, as long as the loop is not being destroyed. */
GYRE_API int gyre_loop_post_urgent(struct gyre_loop *loop, gyre_task_fn *task, void *user);

/* gyre_loop_post() no earlier than `delay_ns` from now. Called exactly once: when the time has come or, early, when the
 * loop is destroyed (gyre_loop_post() then says GYRE_ESHUTDOWN). Delayed tasks are not among those that `tasks_max`
 * counts; of them, too, at most so many wait. For one that can be called off, use a timer (timer.h).
 * Returns as gyre_loop_post(), and GYRE_EOPTION for a negative delay. Thread: any, as long as the loop is not being
 * destroyed. */
GYRE_API int gyre_loop_post_after(struct gyre_loop *loop, int64_t delay_ns, gyre_task_fn *task, void *user);

/* The loop's clock: CLOCK_MONOTONIC in nanoseconds, read once per turn (virtual on the simulator).
 * Thread: the loop's. */
GYRE_API uint64_t gyre_loop_now_ns(const struct gyre_loop *loop);

/* How many connections are open on the loop, those closing included. Thread: any (a moment's value). */
GYRE_API uint32_t gyre_loop_conn_count(const struct gyre_loop *loop);

/* What the options gave as `user`. Thread: any. */
GYRE_API void *gyre_loop_user(const struct gyre_loop *loop);

/* Whether the caller is on the loop's thread, inside its run. Thread: any. */
GYRE_API bool gyre_loop_is_current(const struct gyre_loop *loop);

/* Which backend this loop has, why, and what it uses of the kernel. Thread: any, once the loop was created. */
GYRE_API void gyre_loop_backend(const struct gyre_loop *loop, struct gyre_backend_report *out);

#ifdef __cplusplus
}
#endif

#endif
