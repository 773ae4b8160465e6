/* SPDX-License-Identifier: MIT
 * An engine has N loops, each on its own thread, and listeners whose accepted connections are spread over the loops
 * (listener.h). All loops of an engine have the same backend. */
#ifndef GYRE_ENGINE_H
#define GYRE_ENGINE_H

#include <gyre/conn_id.h>
#include <gyre/connect.h>
#include <gyre/listener.h>
#include <gyre/udp.h>
#include <gyre/work.h>

#ifdef __cplusplus
extern "C" {
#endif

struct gyre_engine;

/* One loop for each processor that this process may use. A limit on processor time of the control group (cgroups(7))
 * counts: with a limit of 2.5 processors there are at most 3 loops. */
enum { GYRE_LOOPS_PER_CORE = UINT16_MAX };

/* The callbacks of an engine. Each may be NULL. */
struct gyre_engine_handlers {
    void (*on_boot)(struct gyre_engine *engine);     /* called on loop 0, before loop 0 serves; the other loops may
                                                        serve already */
    void (*on_shutdown)(struct gyre_engine *engine); /* called after the last on_close, on the thread that called
                                                        gyre_engine_run() */
    /* Called on each loop when the loop starts. Return the delay in nanoseconds until the next call, or a negative
     * value to stop. For one ticker per engine, return a negative value on every loop except
     * gyre_engine_loop(engine, 0). The calls continue while the engine drains. */
    int64_t (*on_tick)(struct gyre_engine *engine, struct gyre_loop *loop);
};

struct gyre_engine_options {
    uint32_t loops;                               /* number of loops; 0: 1; at most 1024; or GYRE_LOOPS_PER_CORE */
    const struct gyre_engine_handlers *handlers;  /* borrowed until the engine is destroyed; NULL: none */
    void *user;                                   /* returned by gyre_engine_user() */
    /* The engine's threads are named NAME-1, NAME-2, …; the threads of its pool are named NAME-work-0, NAME-work-1, ….
     * NAME is shortened so that 15 bytes suffice. The thread that calls gyre_engine_run() keeps its name. Copied;
     * NULL: "gyre". */
    const char *name;
    /* Processors to pin the threads of the loops to. While the engine runs, loop i runs on cpus[i modulo cpu_count]
     * only. Copied; NULL: no list. */
    const uint32_t *cpus;
    uint32_t cpu_count; /* entries in `cpus`; 0: no list; at most 1024 */
    bool pin;           /* pin without a list: loop i runs on the i-th of the processors that the thread in
                           gyre_engine_run() may use, modulo their number. Default: false, threads are not pinned */
    uint32_t work_threads;   /* threads of the engine's pool (work.h); 0: 4; at most 256 */
    uint32_t work_queue_max; /* limit on jobs queued in the pool; 0: 1024; at most 1048576 */
    /* Limit on open connections of all loops together. At the limit accepting pauses, as with
     * gyre_listener_options.conns_max. Connections made with gyre_connect() count but are never refused for this limit.
     * 0: no limit. */
    uint32_t conns_max;
    struct gyre_loop_options loop; /* options of every loop; what they point to is borrowed until the engine is
                                      destroyed; the last field */
};

/* Create an engine and its loops. Returns owned in `*out`; free the engine with gyre_engine_destroy().
 * If the backend is "auto" and memory runs out while the loops are created on io_uring (locked memory, for example),
 * all loops use epoll.
 * With io_uring, a timed blocking system call made on this thread shortly afterwards may fail with EINTR. Retry it.
 *
 * Returns 0, or:
 *   GYRE_EOPTION  an option of the engine is out of range, or `cpu_count` is not 0 and `cpus` is NULL
 *   otherwise     an error as gyre_loop_create()
 * Thread: any. */
#define gyre_engine_create(out, ...)                                                                                   \
    gyre_engine_create_sized((out),                                                                                    \
                             GYRE_LAST_ARGUMENT_IS_OPTIONS_OR_NULL(struct gyre_engine_options, __VA_ARGS__),           \
                             sizeof(struct gyre_loop_options))
GYRE_API int gyre_engine_create_sized(struct gyre_engine **out, const struct gyre_engine_options *options,
                                      size_t size_bytes, size_t loop_size_bytes);

/* Destroy the engine, its pool, its loops and its listeners. The engine must not be running. NULL is allowed.
 * Thread: the thread that ran the engine. If the engine never ran: the thread that created the engine. */
GYRE_API void gyre_engine_destroy(struct gyre_engine *engine);

/* Run the engine until gyre_engine_stop() or gyre_engine_drain(). Loop 0 runs on the calling thread, every other loop
 * on a thread of its own. An engine can be run once.
 *
 * Returns 0, or:
 *   GYRE_ESTATE   the engine is running or has run
 *   -EAGAIN       a thread could not be created
 *   -EINVAL       a processor in `cpus` does not exist or may not be used; or `engine` is NULL
 *   -EOPNOTSUPP   the system cannot pin threads
 *   GYRE_EOPTION  the engine has several loops on a simulated network; use gyre_sim_run()
 *   GYRE_EFORK    the engine belongs to the parent process
 *   -errno        a backend failed and cannot go on
 * Thread: any one thread. */
GYRE_API int gyre_engine_run(struct gyre_engine *engine);

/* Make gyre_engine_run() return. Accepting stops and open connections are aborted; their on_close gets GYRE_ESHUTDOWN.
 * If the engine does not run yet, gyre_engine_run() returns soon after its start. `engine` NULL does nothing, so a
 * signal handler may call this function before the engine exists. Async-signal-safe.
 * Thread: any, until the engine is destroyed. Do not destroy the engine before this call has returned. */
GYRE_API void gyre_engine_stop(struct gyre_engine *engine);

struct gyre_drain_options {
    int64_t deadline_ns; /* limit on the time of the whole drain; 0: 30 s */
    int64_t spread_ns;   /* the connections are told one after another over this time; 0: all at once */
    int64_t quiet_ns;    /* a connection is idle after so long without a byte in either direction; 0: 100 ms */
};

/* Make gyre_engine_run() return when the work under way is done.
 *   1. Accepting stops. Connections that the kernel has accepted already are served. (Not those on a socket that is
 *      shared with others: they stay in its backlog for the others.)
 *   2. Each open connection is told: its `on_drain_begin` runs (gyre_conn_options). Such a connection stays open until
 *      you close it.
 *   3. A connection without `on_drain_begin` is closed gracefully when it is idle: nothing is queued or unread, nobody
 *      waits for an answer, and no byte has moved for `quiet_ns`. An answer is awaited on an accepted connection while
 *      the peer's bytes came last, and on a connection made with gyre_connect() while yours were written last. So
 *      answers of jobs and of other threads still arrive. If the peer has received everything, but neither sends nor
 *      closes, its end is not waited for.
 *   4. At the deadline the remaining connections are reset, as by gyre_engine_stop(). None gets a FIN, which would make
 *      a truncated answer look complete.
 * Until the deadline, connecting goes on and gyre_connect() works. Reconnectors connect no more. Datagram sockets are
 * closed once their queued data has been sent. Timers, posted tasks and on_tick go on.
 *
 * A second call replaces the options, and its deadline starts anew. gyre_engine_stop() ends a drain at once.
 * Async-signal-safe, unless an option is refused. A signal handler may pass an engine that is NULL.
 *
 * Returns 0, or:
 *   -EINVAL       `engine` is NULL
 *   GYRE_EOPTION  a time is negative
 *   GYRE_EFORK    the engine belongs to the parent process
 *   -E2BIG        an option is set that this library does not know
 * Thread: as gyre_engine_stop(). */
#define gyre_engine_drain(engine, ...)                                                                                 \
    gyre_engine_drain_sized((engine),                                                                                  \
                            GYRE_LAST_ARGUMENT_IS_OPTIONS_OR_NULL(struct gyre_drain_options, __VA_ARGS__))
GYRE_API int gyre_engine_drain_sized(struct gyre_engine *engine, const struct gyre_drain_options *options,
                                     size_t size_bytes);

/* Returns whether the engine drains or stops. Thread: any. Async-signal-safe. */
GYRE_API bool gyre_engine_is_draining(const struct gyre_engine *engine);

/* Return the number of loops, the loop at `index` (borrowed), and the `user` of the options. Thread: any. */
GYRE_API uint32_t gyre_engine_loop_count(const struct gyre_engine *engine);
GYRE_API struct gyre_loop *gyre_engine_loop(const struct gyre_engine *engine, uint32_t index); /* or NULL */
GYRE_API void *gyre_engine_user(const struct gyre_engine *engine);

/* Returns the number of connections on all loops, closing ones included. The number may change at any moment.
 * Thread: any. */
GYRE_API uint64_t gyre_engine_conn_count(const struct gyre_engine *engine);

/* ---- On every loop ---- */

/* Called once, when all loops have done their part, on the loop that finished last. */
typedef void gyre_all_done_fn(struct gyre_engine *engine, void *user);

/* Call `task(loop, user)` once on every loop, then `done(engine, user)` on the loop that finished last. `done` may be
 * NULL. The calls on different loops may run at the same time. On error no loop runs the task. If the engine does not
 * run yet, the tasks run when it does. Tasks that are still queued when the engine ends are run by
 * gyre_engine_destroy().
 *
 * Returns 0, or:
 *   -EINVAL         `engine` or `task` is NULL
 *   -ENOMEM         out of memory
 *   -EAGAIN         `tasks_max` tasks are queued on one of the loops
 *   GYRE_ESHUTDOWN  the engine is being destroyed
 *   GYRE_EFORK      the engine belongs to the parent process
 * Thread: any. */
GYRE_API int gyre_engine_post_all(struct gyre_engine *engine, gyre_task_fn *task, gyre_all_done_fn *done, void *user);

/* Call `fn(c, user)` for every connection of every loop, as gyre_loop_each_conn() does on one loop, then
 * `done(engine, user)` as gyre_engine_post_all(). `fn` runs on the loop of each connection. If `fn` returns false, the
 * walk ends on that loop only.
 * Returns 0, or an error as gyre_engine_post_all(). Thread: any. */
GYRE_API int gyre_engine_each_conn(struct gyre_engine *engine, gyre_each_fn *fn, gyre_all_done_fn *done, void *user);

/* What a broadcast does with a congested connection (gyre_conn_congested()). */
enum gyre_slow {
    GYRE_SLOW_SKIP = 0, /* skip the connection */
    GYRE_SLOW_QUEUE,    /* queue the bytes if `write_max_bytes` allows, otherwise skip the connection */
    GYRE_SLOW_ABORT     /* abort the connection, as gyre_conn_abort() */
};

struct gyre_broadcast_result {
    uint64_t queued;  /* connections on which the bytes were queued */
    uint64_t skipped; /* connections skipped because they were congested or at `write_max_bytes` */
    uint64_t aborted; /* connections aborted by GYRE_SLOW_ABORT */
    uint64_t failed;  /* connections that could not queue: out of memory, `len` above write_max_bytes, shut down
                         by gyre_conn_shutdown(), or a send has failed */
};

struct gyre_broadcast_options {
    enum gyre_slow slow;  /* for congested connections; 0: GYRE_SLOW_SKIP */
    gyre_each_fn *filter; /* returns false to skip a connection; runs on the connection's loop; NULL: skip none */
    /* Called once, on the loop that finished last, after every connection has been visited. NULL: no callback. */
    void (*done)(struct gyre_engine *engine, const struct gyre_broadcast_result *result, void *user);
    void *user; /* passed to `filter` and `done` */
};

/* Queue `len` bytes (1 to 1 GiB), without framing, on every open connection of the engine, including the connection
 * whose handler makes the call. The bytes are copied once for all connections. The copy is freed when the last
 * connection has sent the bytes or is closed. Broadcasts by one thread arrive in order. Broadcasts by several threads
 * may arrive in a different order on each loop.
 *
 * Returns 0, or an error as gyre_engine_post_all(), and:
 *   -EINVAL       `engine` or `data` is NULL, or `len` is out of range
 *   GYRE_EOPTION  `slow` is not one of enum gyre_slow
 *   -E2BIG        an option is set that this library does not know
 * Thread: any. */
#define gyre_engine_broadcast(engine, data, len, ...)                                                                  \
    gyre_engine_broadcast_sized((engine), (data), (len),                                                               \
                                GYRE_LAST_ARGUMENT_IS_OPTIONS_OR_NULL(struct gyre_broadcast_options, __VA_ARGS__))
GYRE_API int gyre_engine_broadcast_sized(struct gyre_engine *engine, const void *data, size_t len,
                                         const struct gyre_broadcast_options *options, size_t size_bytes);

/* Bind a datagram socket on each loop of `engine` to the same `address`. The kernel spreads the senders over the
 * sockets (SO_REUSEPORT). A unix address gets one socket, on loop 0. `ids` is NULL or an array of
 * gyre_engine_loop_count() entries, which get the id of the socket of each loop. For a loop without a socket, the
 * `loop` of the id is NULL.
 *
 * Returns 0, or an error as gyre_udp_open(), and:
 *   GYRE_ESTATE  the engine is running or has run
 *   -EINVAL      `engine` or `address` is NULL
 * Thread: before the engine runs. */
#define gyre_engine_listen_udp(ids, engine, address, handlers, ...)                                                    \
    gyre_engine_listen_udp_sized((ids), (engine), (address), (handlers),                                               \
                                 GYRE_LAST_ARGUMENT_IS_OPTIONS_OR_NULL(struct gyre_udp_options, __VA_ARGS__))
GYRE_API int gyre_engine_listen_udp_sized(struct gyre_udp_id *ids, struct gyre_engine *engine, const char *address,
                                          const struct gyre_udp_handlers *handlers,
                                          const struct gyre_udp_options *options, size_t size_bytes);

/* Get the engine's pool of threads in `*out`, borrowed. The first call creates the pool, with the `work_…` options of
 * the engine. gyre_engine_destroy() destroys the pool.
 *
 * Returns 0, or an error as gyre_pool_create(), and:
 *   GYRE_ESHUTDOWN  the engine is being destroyed
 *   GYRE_EFORK      the engine belongs to the parent process
 * Thread: any. */
GYRE_API int gyre_engine_pool(struct gyre_pool **out, struct gyre_engine *engine);

/* Queue a job in the engine's pool, as gyre_pool_submit(). `done` runs on the calling loop.
 *
 * Returns 0, or an error as gyre_engine_pool() or gyre_pool_submit(), and:
 *   GYRE_ETHREAD  not called in a callback on a loop of this engine
 * Thread: a loop's of the engine, in a callback. */
GYRE_API int gyre_engine_offload(struct gyre_engine *engine, gyre_work_fn *work, gyre_work_done_fn *done, void *user);

#ifdef __cplusplus
}
#endif

#endif
