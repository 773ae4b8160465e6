/* SPDX-License-Identifier: MIT
 * The engine: its loops and their threads.
 *
 * The normal course: create makes every loop; run starts a thread for each but the first, calls on_boot, and serves the
 * first itself; stop or drain reaches every loop; each ends on its own thread; run joins them and calls on_shutdown.
 *
 * What can go wrong: io_uring works for the first loops but not for one (limits): then all loops get the next backend.
 * A thread cannot be made, or a loop loses its backend: all loops are ended and run says why. */
#include "conn.h"
#include "listener.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { LOOPS_MAX = 1024, ENGINE_MAGIC = 0x656e6769 };

enum engine_state { ENGINE_NEW = 0, ENGINE_RUNNING, ENGINE_OVER };

struct gyre_engine {
    uint32_t magic;
    uint32_t loop_count;
    struct gyre_loop **loops;
    pthread_t *threads;
    pthread_mutex_t gate; /* held while threads are being started */
    struct gyre_listener *listeners;
    const struct gyre_engine_handlers *handlers;
    const struct gyre_mem *mem;
    void *user;
    _Atomic(int) state;
    _Atomic(int) err; /* the first of a loop */
};

#ifdef __linux__
static uint32_t processors(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0)
        return (uint32_t)CPU_COUNT(&set);
    return 1;
}
#else
static uint32_t processors(void)
{
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n > 0 ? (uint32_t)n : 1;
}
#endif

static void destroy_loops(struct gyre_engine *engine)
{
    for (uint32_t i = 0; i < engine->loop_count; i++) {
        gyre_loop_destroy(engine->loops[i]);
        engine->loops[i] = NULL;
    }
}

/* All loops on one backend: what the first gets, the others must get. */
static int create_loops(struct gyre_engine *engine, const struct gyre_loop_options *options)
{
    struct gyre_loop_options each = *options;
    for (uint32_t i = 0; i < engine->loop_count; i++) {
        int err = gyre_loop_create(&engine->loops[i], &each);
        if (err != 0) {
            destroy_loops(engine);
            return err;
        }
        engine->loops[i]->engine = engine;
        engine->loops[i]->index = i;
        engine->loops[i]->report = engine->loops[0]->report;
        if (each.sim == NULL)
            each.backend = engine->loops[0]->report.backend;
    }
    return 0;
}

/* With auto, io_uring for some loops only is given up for epoll: rings are charged to the limit on locked memory. (If
 * not even the first loop has it, choosing the backend has seen to that.) */
static int create_loops_or_fall_back(struct gyre_engine *engine, const struct gyre_loop_options *options)
{
    struct gyre_loop_options fallback = *options;
    int err = create_loops(engine, options);
    bool automatic = options->sim == NULL && gyre__backend_is_auto(options->backend);
    if (err != -ENOMEM || !automatic || gyre__backend_find("epoll") == NULL)
        return err;
    fallback.backend = "epoll";
    int second = create_loops(engine, &fallback);
    if (second != 0)
        return err;
    for (uint32_t i = 0; i < engine->loop_count; i++)
        (void)snprintf(engine->loops[i]->report.reason, sizeof engine->loops[i]->report.reason,
                       "no io_uring: no memory for %u loops (if it is locked memory, raise ulimit -l); "
                       "the next best that works",
                       engine->loop_count);
    return 0;
}

int gyre_engine_create_sized(struct gyre_engine **out, const struct gyre_engine_options *options, size_t size_bytes,
                             size_t loop_size_bytes)
{
    struct gyre_engine_options o;
    struct gyre_loop_options loop;
    int err = out == NULL ? -EINVAL : gyre__options_copy(&o, sizeof o, options, size_bytes);
    if (err == 0)
        err = gyre__options_copy(&loop, sizeof loop, o.loop, loop_size_bytes);
    if (err != 0)
        return err;
    const struct gyre_mem *mem = loop.mem != NULL ? loop.mem : &gyre__mem_system;
    uint32_t count = o.loops == 0 ? 1 : o.loops == GYRE_LOOPS_PER_CORE ? processors() : o.loops;
    if (count > LOOPS_MAX)
        return GYRE_EOPTION;

    struct gyre_engine *engine = gyre__alloc(mem, sizeof *engine);
    if (engine == NULL)
        return -ENOMEM;
    engine->magic = ENGINE_MAGIC;
    (void)pthread_mutex_init(&engine->gate, NULL);
    engine->loop_count = count;
    engine->handlers = o.handlers;
    engine->mem = mem;
    engine->user = o.user;
    engine->loops = gyre__alloc(mem, count * sizeof(struct gyre_loop *));
    engine->threads = gyre__alloc(mem, count * sizeof(pthread_t));
    err = engine->loops == NULL || engine->threads == NULL ? -ENOMEM : create_loops_or_fall_back(engine, &loop);
    if (err == 0) {
        *out = engine;
        return 0;
    }
    gyre__free(mem, engine->threads);
    gyre__free(mem, engine->loops);
    gyre__free(mem, engine);
    return err;
}

void gyre_engine_destroy(struct gyre_engine *engine)
{
    if (engine == NULL)
        return;
    GYRE_CHECK(engine->magic == ENGINE_MAGIC && atomic_load(&engine->state) != ENGINE_RUNNING);
    /* Ending all before freeing any: loops refer to each other, in what they hand over and in tasks. */
    for (uint32_t i = 0; i < engine->loop_count; i++)
        if (!engine->loops[i]->ended)
            gyre__loop_end(engine->loops[i]);
    for (uint32_t i = 0; i < engine->loop_count; i++)
        gyre__loop_run_late_tasks(engine->loops[i]);
    destroy_loops(engine);
    while (engine->listeners != NULL) {
        struct gyre_listener *listener = engine->listeners;
        engine->listeners = listener->next;
        gyre__listener_free(listener);
    }
    engine->magic = 0;
    gyre__free(engine->mem, engine->threads);
    gyre__free(engine->mem, engine->loops);
    gyre__free(engine->mem, engine);
}

int gyre_engine_listen_sized(struct gyre_listener **out, struct gyre_engine *engine, const char *address,
                             const struct gyre_conn_handlers *handlers, const struct gyre_listener_options *options,
                             size_t size_bytes)
{
    struct gyre_listener *listener;
    if (engine == NULL || address == NULL)
        return -EINVAL;
    if (atomic_load(&engine->state) != ENGINE_NEW)
        return GYRE_ESTATE;
    int err = gyre__listener_open(&listener, engine->loops, engine->loop_count, &engine->listeners, address, handlers,
                                  options, size_bytes);
    if (err == 0 && out != NULL)
        *out = listener;
    return err;
}

/* One loop from start to end, on its thread. */
static void serve(struct gyre_loop *l)
{
    struct gyre_engine *engine = l->engine;
    int none = 0, err = gyre__loop_serve(l);
    if (err != 0) {
        (void)atomic_compare_exchange_strong(&engine->err, &none, err);
        gyre_engine_stop(engine);
    }
    gyre__loop_end(l);
}

static void *thread_main(void *arg)
{
    struct gyre_loop *l = arg;
    (void)pthread_mutex_lock(&l->engine->gate);
    (void)pthread_mutex_unlock(&l->engine->gate);
    serve(l);
    return NULL;
}

/* Threads are started with every signal blocked: handlers run on the thread that called gyre_engine_run(). */
static int start_thread(struct gyre_engine *engine, uint32_t index)
{
    sigset_t all, before;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    int err = pthread_create(&engine->threads[index], NULL, thread_main, engine->loops[index]);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (err == 0)
        gyre__loop_own(engine->loops[index], engine->threads[index]);
    return -err;
}

/* The threads pass the gate when every loop has its owner: before that, none could tell a call from a wrong thread. */
static int start_threads(struct gyre_engine *engine, uint32_t *started)
{
    int err = 0;
    (void)pthread_mutex_lock(&engine->gate);
    gyre__loop_own(engine->loops[0], pthread_self());
    for (*started = 1; err == 0 && *started < engine->loop_count; *started += err == 0)
        err = start_thread(engine, *started);
    (void)pthread_mutex_unlock(&engine->gate);
    return err;
}

static void arm_listeners(struct gyre_engine *engine)
{
    for (struct gyre_listener *listener = engine->listeners; listener != NULL; listener = listener->next)
        for (uint32_t i = 0; i < listener->acceptor_count; i++)
            if (listener->acceptors[i]->listener == listener)
                gyre__acceptor_arm(listener->acceptors[i]);
}

static void boot(struct gyre_engine *engine)
{
    struct gyre_loop *l = engine->loops[0];
    if (engine->handlers == NULL || engine->handlers->on_boot == NULL)
        return;
    (void)gyre__loop_now(l);
    l->inside = true;
    engine->handlers->on_boot(engine);
    l->inside = false;
}

int gyre_engine_run(struct gyre_engine *engine)
{
    int new = ENGINE_NEW;
    uint32_t started;
    if (engine == NULL || engine->magic != ENGINE_MAGIC)
        return -EINVAL;
    if (!atomic_compare_exchange_strong(&engine->state, &new, ENGINE_RUNNING))
        return GYRE_ESTATE;
    arm_listeners(engine);
    int err = start_threads(engine, &started);
    if (err != 0)
        gyre_engine_stop(engine);
    else
        boot(engine);
    serve(engine->loops[0]);
    for (uint32_t i = 1; i < started; i++)
        (void)pthread_join(engine->threads[i], NULL);
    if (err == 0 && engine->handlers != NULL && engine->handlers->on_shutdown != NULL)
        engine->handlers->on_shutdown(engine);
    atomic_store(&engine->state, ENGINE_OVER);
    return err != 0 ? err : atomic_load(&engine->err);
}

void gyre_engine_stop(struct gyre_engine *engine)
{
    for (uint32_t i = 0; i < engine->loop_count; i++)
        gyre__loop_ask(engine->loops[i], GYRE_REQUEST_END);
}

void gyre_engine_drain(struct gyre_engine *engine, int64_t timeout_ns)
{
    for (uint32_t i = 0; i < engine->loop_count; i++) {
        atomic_store(&engine->loops[i]->drain_ns, timeout_ns);
        gyre__loop_ask(engine->loops[i], GYRE_REQUEST_DRAIN);
    }
}

uint32_t gyre_engine_loop_count(const struct gyre_engine *engine)
{
    return engine->loop_count;
}

struct gyre_loop *gyre_engine_loop(const struct gyre_engine *engine, uint32_t index)
{
    return index < engine->loop_count ? engine->loops[index] : NULL;
}

void *gyre_engine_user(const struct gyre_engine *engine)
{
    return engine->user;
}

uint64_t gyre_engine_conn_count(const struct gyre_engine *engine)
{
    uint64_t count = 0;
    for (uint32_t i = 0; i < engine->loop_count; i++)
        count += gyre_loop_conn_count(engine->loops[i]);
    return count;
}
