/* SPDX-License-Identifier: MIT
 * An engine: N loops, each on a thread of its own, listeners, and the way accepted connections are spread over them.
 * All loops of an engine have the same backend. */
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

enum { GYRE_LOOPS_PER_CORE = UINT16_MAX }; /* as many loops as this process may use processors */

/* What an engine calls, on the loops named. All optional. */
struct gyre_engine_handlers {
    void (*on_boot)(struct gyre_engine *engine);     /* every loop is about to serve; on the first loop */
    void (*on_shutdown)(struct gyre_engine *engine); /* after the last on_close; on the thread in gyre_engine_run() */
    /* On each loop, when it begins to serve and then so many nanoseconds after it returned as it says; negative: never
     * again, which for one ticker in all is what the loops but gyre_engine_loop(engine, 0) return. It goes on while the
     * engine drains. */
    int64_t (*on_tick)(struct gyre_engine *engine, struct gyre_loop *loop);
};

struct gyre_engine_options {
    uint32_t loops;                               /* 0: one; GYRE_LOOPS_PER_CORE; at most 1024 */
    const struct gyre_engine_handlers *handlers;  /* borrowed until the engine is destroyed */
    const struct gyre_loop_options *loop;         /* for every loop; copied, what it points to is borrowed */
    void *user;
    /* The engine's threads are called NAME-1, NAME-2, …, cut to 15 bytes, and those of its pool NAME-work-0, …; copied;
     * NULL: "gyre". The thread in gyre_engine_run() keeps its name. */
    const char *name;
    /* Each loop's thread may run on one processor only, while the engine runs: loop i on the (i modulo count)-th of
     * `cpus`, or, if only `pin` is set, of those that the thread in gyre_engine_run() may use. Copied. */
    const uint32_t *cpus;
    uint32_t cpu_count; /* at most 1024 */
    bool pin;
    uint32_t work_threads;   /* of the engine's pool (work.h); 0: 4; at most 256 */
    uint32_t work_queue_max; /* jobs waiting at most; 0: 1024; at most 1048576 */
    /* Accept no more while so many connections are open on all loops, those made with gyre_connect() included, which
     * themselves are not refused; 0: no such limit. See gyre_listener_options.conns_max. */
    uint32_t conns_max;
};

/* Make an engine with its loops. Returns owned; free with gyre_engine_destroy(). With io_uring a blocking
 * call with a time limit on the calling thread was seen to end with EINTR soon after; repeat it, as after a signal.
 * Returns 0, or: GYRE_EOPTION; else as gyre_loop_create(). Thread: any. */
#define gyre_engine_create(out, ...)                                                                                   \
    gyre_engine_create_sized((out), (__VA_ARGS__), sizeof(struct gyre_engine_options), sizeof(struct gyre_loop_options))
GYRE_API int gyre_engine_create_sized(struct gyre_engine **out, const struct gyre_engine_options *options,
                                      size_t size_bytes, size_t loop_size_bytes);

/* Free it and its loops; not while it runs. NULL is allowed. Thread: the one that ran it, or that made it if it never
 * ran. */
GYRE_API void gyre_engine_destroy(struct gyre_engine *engine);

/* Serve on this thread (the first loop) and loops - 1 others until gyre_engine_stop() or gyre_engine_drain().
 * Returns 0, or: GYRE_ESTATE if it ran before; -EAGAIN if a thread could not be made; -EINVAL if one of `cpus` does not
 * exist or may not be used; -EOPNOTSUPP if the system cannot pin threads; -errno if a backend is lost; GYRE_EOPTION for
 * several loops on a simulation, which gyre_sim_run() runs.
 * Thread: one. */
GYRE_API int gyre_engine_run(struct gyre_engine *engine);

/* End gyre_engine_run(): stop accepting, abort what is open (on_close with GYRE_ESHUTDOWN), return.
 * With NULL, as a signal may find it, nothing happens. Async-signal-safe. Thread: any. */
GYRE_API void gyre_engine_stop(struct gyre_engine *engine);

/* End gyre_engine_run() gently: stop accepting, close every connection gracefully (what was queued is sent), and after
 * `timeout_ns` stop. NULL as above. Async-signal-safe. Thread: any. */
GYRE_API void gyre_engine_drain(struct gyre_engine *engine, int64_t timeout_ns);

/* Its loops, borrowed, and what its options gave as `user`. Thread: any. */
GYRE_API uint32_t gyre_engine_loop_count(const struct gyre_engine *engine);
GYRE_API struct gyre_loop *gyre_engine_loop(const struct gyre_engine *engine, uint32_t index); /* NULL: out of range */
GYRE_API void *gyre_engine_user(const struct gyre_engine *engine);

/* Connections open on all loops. Thread: any (a moment's value). */
GYRE_API uint64_t gyre_engine_conn_count(const struct gyre_engine *engine);

/* ---- On every loop ---- */

/* Called when all loops have done their part, on the one that was last. */
typedef void gyre_all_done_fn(struct gyre_engine *engine, void *user);

/* Have `task(loop, user)` called once on every loop, at the same time where they run at the same time; `done` (may
 * be NULL) follows. All or nothing. Before the engine runs it waits for that. What the end of the engine finds waiting
 * is called by gyre_engine_destroy().
 * Returns 0, or: -EINVAL; -ENOMEM; -EAGAIN if `tasks_max` wait on one of the loops; GYRE_ESHUTDOWN while the engine is
 * being destroyed. Thread: any. */
GYRE_API int gyre_engine_post_all(struct gyre_engine *engine, gyre_task_fn *task, gyre_all_done_fn *done, void *user);

/* gyre_loop_each_conn() on every loop; `fn` runs on each connection's own, and what it returns holds for that loop.
 * Returns as gyre_engine_post_all(). Thread: any. */
GYRE_API int gyre_engine_each_conn(struct gyre_engine *engine, gyre_each_fn *fn, gyre_all_done_fn *done, void *user);

/* What a broadcast does to a connection that is congested. */
enum gyre_slow {
    GYRE_SLOW_SKIP = 0, /* leave it out */
    GYRE_SLOW_QUEUE,    /* queue all the same, as far as `write_max_bytes` allows; else leave it out */
    GYRE_SLOW_ABORT     /* gyre_conn_abort() */
};

struct gyre_broadcast_result {
    uint64_t queued;  /* connections that the bytes were queued on */
    uint64_t skipped; /* left out because they were slow */
    uint64_t aborted; /* by GYRE_SLOW_ABORT */
    uint64_t failed;  /* out of memory, `len` above write_max_bytes, shut down, or failing already */
};

struct gyre_broadcast_options {
    enum gyre_slow slow;
    gyre_each_fn *filter; /* false: not this one. On each connection's loop; NULL: all */
    /* On the last loop, when every connection was looked at. NULL: not told. */
    void (*done)(struct gyre_engine *engine, const struct gyre_broadcast_result *result, void *user);
    void *user;
};

/* Queue `len` bytes, from 1 to 1 GiB, as they are, on every open connection of the engine, the one whose handler calls
 * included. They are copied once, for all; the copy is freed when the last connection has sent it or is gone. What one
 * thread broadcasts arrives in that order; what several do may be mixed differently from loop to loop.
 * Returns as gyre_engine_post_all(), and -E2BIG, GYRE_EOPTION for a `slow` that there is not. Thread: any. */
#define gyre_engine_broadcast(engine, data, len, ...)                                                                  \
    gyre_engine_broadcast_sized((engine), (data), (len), (__VA_ARGS__), sizeof(struct gyre_broadcast_options))
GYRE_API int gyre_engine_broadcast_sized(struct gyre_engine *engine, const void *data, size_t len,
                                         const struct gyre_broadcast_options *options, size_t size_bytes);

/* Bind a socket on each loop of `engine` to the same `address`; the kernel spreads senders over them (SO_REUSEPORT).
 * A unix address has one socket, on the first loop. `ids` (may be NULL) has room for gyre_engine_loop_count() and gets
 * the socket of each loop, `loop` NULL where there is none. Errors as gyre_udp_open(); GYRE_ESTATE while it runs.
 * Thread: before the engine runs. */
#define gyre_engine_listen_udp(ids, engine, address, handlers, ...)                                                    \
    gyre_engine_listen_udp_sized((ids), (engine), (address), (handlers), (__VA_ARGS__), sizeof(struct gyre_udp_options))
GYRE_API int gyre_engine_listen_udp_sized(struct gyre_udp_id *ids, struct gyre_engine *engine, const char *address,
                                          const struct gyre_udp_handlers *handlers,
                                          const struct gyre_udp_options *options, size_t size_bytes);

/* The engine's own pool, borrowed, made by the first call that needs it with what the engine's options say. Returns as
 * gyre_pool_create(), and GYRE_ESHUTDOWN while the engine is being destroyed, which destroys the pool. Thread: any. */
GYRE_API int gyre_engine_pool(struct gyre_pool **out, struct gyre_engine *engine);

/* gyre_pool_submit() to the engine's pool; `done` comes on the loop that asks. Returns as gyre_engine_pool() and
 * gyre_pool_submit(), and GYRE_ETHREAD outside of a loop of this engine. Thread: a loop's of the engine, in a
 * callback. */
GYRE_API int gyre_engine_offload(struct gyre_engine *engine, gyre_work_fn *work, gyre_work_done_fn *done, void *user);

#ifdef __cplusplus
}
#endif

#endif
