/* SPDX-License-Identifier: MIT
 * The engine: its loops and their threads.
 *
 * The normal course: create makes every loop; run starts a thread for each but the first, calls on_boot, and serves the
 * first itself; stop or drain reaches every loop; each ends on its own thread; run joins them and calls on_shutdown.
 *
 * What can go wrong: io_uring works for the first loops but not for one (limits): then all loops get the next backend.
 * A thread cannot be made, or a loop loses its backend: all loops are ended and run says why. */
#include "engine.h"
#include "base/options.h"
#include "base/refuse.h"
#include "datagram/udp.h"
#include "listen/listener.h"
#include "reactor/backends.h"
#include "reactor/reactor.h"

#include <errno.h>
#include <gyre/resolve.h>
#include <stdio.h>
#include <string.h>

#define DRAIN_DEADLINE_NS INT64_C(30000000000)
#define DRAIN_QUIET_NS INT64_C(100000000)

enum { LOOPS_MAX = 1024, CPUS_MAX = 1024, ENGINE_MAGIC = 0x656e6769 };

static struct gyre_engine *engine_of(const struct gyre_loop *l)
{
    return GYRE_CONTAINER(l->set, struct gyre_engine, set);
}

static void tick(struct gyre_loop *l)
{
    struct gyre_engine *engine = engine_of(l);
    int64_t delay_ns = engine->handlers->on_tick(engine, l);
    if (delay_ns >= 0)
        gyre__wheel_start(&l->wheel, &l->tick_timer, gyre__loop_clock(l) + (uint64_t)delay_ns);
}

static void stop(struct gyre__set *set)
{
    gyre_engine_stop(GYRE_CONTAINER(set, struct gyre_engine, set));
}

static void destroy_loops(struct gyre_engine *engine)
{
    for (uint32_t i = 0; i < engine->set.count; i++) {
        gyre_loop_destroy(engine->set.loops[i]);
        engine->set.loops[i] = NULL;
    }
}

/* All loops on one backend: what the first gets, the others must get. */
static int create_loops(struct gyre_engine *engine, const struct gyre_loop_options *options)
{
    struct gyre_loop_options each = *options;
    for (uint32_t i = 0; i < engine->set.count; i++) {
        int err = gyre_loop_create(&engine->set.loops[i], &each);
        if (err != 0) {
            destroy_loops(engine);
            return err;
        }
        engine->set.loops[i]->set = &engine->set;
        engine->set.loops[i]->index = i;
        engine->set.loops[i]->report = engine->set.loops[0]->report;
        if (each.sim == NULL)
            each.backend = engine->set.loops[0]->report.backend;
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
    for (uint32_t i = 0; i < engine->set.count; i++)
        (void)snprintf(engine->set.loops[i]->report.reason, sizeof engine->set.loops[i]->report.reason,
                       "no io_uring: no memory for %u loops (if it is locked memory, raise ulimit -l); "
                       "the next best that works",
                       engine->set.count);
    return 0;
}

static void free_engine(struct gyre_engine *engine)
{
    (void)pthread_mutex_destroy(&engine->set.gate);
    engine->magic = 0;
    gyre__free(engine->mem, engine->cpus);
    gyre__free(engine->mem, engine->threads);
    gyre__free(engine->mem, engine->set.loops);
    gyre__free(engine->mem, engine);
}

static void keep_options(struct gyre_engine *engine, const struct gyre_engine_options *o, const struct gyre_mem *mem)
{
    engine->handlers = o->handlers;
    engine->mem = mem;
    engine->user = o->user;
    engine->set.conns_max = o->conns_max;
    engine->pin = o->pin || o->cpu_count > 0;
    engine->cpu_count = o->cpu_count;
    (void)snprintf(engine->name, sizeof engine->name, "%s", o->name != NULL ? o->name : "gyre");
    engine->pool_options.threads = o->work_threads;
    engine->pool_options.queue_max = o->work_queue_max;
    engine->pool_options.mem = mem;
}

static int create(struct gyre_engine **out, const struct gyre_engine_options *o)
{
    const struct gyre_loop_options *loop = &o->loop;
    const struct gyre_mem *mem = loop->mem != NULL ? loop->mem : &gyre__mem_system;
    uint32_t count = o->loops == 0 ? 1 : o->loops == GYRE_LOOPS_PER_CORE ? gyre__processors() : o->loops;
    const struct gyre__range ranges[] = {
        {"loops", count, 1, LOOPS_MAX},
        {"cpu_count", o->cpu_count, 0, o->cpus != NULL ? CPUS_MAX : 0},
        {"work_threads", o->work_threads, 0, GYRE_POOL_THREADS_MAX},
        {"work_queue_max", o->work_queue_max, 0, GYRE_POOL_QUEUE_MAX},
    };
    int refused = gyre__check_ranges(ranges, sizeof ranges / sizeof ranges[0]);
    if (refused != 0)
        return refused;
    struct gyre_engine *engine = gyre__alloc(mem, sizeof *engine);
    if (engine == NULL)
        return -ENOMEM;
    engine->magic = ENGINE_MAGIC;
    (void)pthread_mutex_init(&engine->set.gate, NULL);
    engine->set.count = count;
    engine->set.tick = tick;
    engine->set.stop = stop;
    keep_options(engine, o, mem);
    engine->set.loops = gyre__alloc_many(mem, count, sizeof(struct gyre_loop *));
    engine->threads = gyre__alloc_many(mem, count, sizeof(pthread_t));
    engine->cpus = o->cpu_count > 0 ? gyre__alloc_many(mem, o->cpu_count, sizeof *engine->cpus) : NULL;
    bool memory = engine->set.loops != NULL && engine->threads != NULL && (engine->cpus != NULL || o->cpu_count == 0);
    int err = memory ? 0 : -ENOMEM;
    if (err == 0 && engine->cpus != NULL)
        memcpy(engine->cpus, o->cpus, o->cpu_count * sizeof *engine->cpus);
    engine->simulated = loop->sim != NULL;
    if (err == 0)
        err = create_loops_or_fall_back(engine, loop);
    if (err == 0)
        *out = engine;
    else
        free_engine(engine);
    return err;
}

int gyre_engine_create_sized(struct gyre_engine **out, const struct gyre_engine_options *options, size_t size_bytes,
                             size_t loop_size_bytes)
{
    struct gyre_engine_options o;
    int err = out == NULL
                  ? -EINVAL
                  : gyre__options_copy_nested(&o, sizeof o, sizeof o.loop, options, size_bytes, loop_size_bytes);
    return err != 0 ? err : create(out, &o);
}

/* Its jobs are told of when the loops run what was posted to them. */
static void end_pool(struct gyre_engine *engine)
{
    (void)pthread_mutex_lock(&engine->set.gate);
    struct gyre_pool *pool = engine->pool;
    engine->pool = NULL;
    engine->pool_over = true;
    (void)pthread_mutex_unlock(&engine->set.gate);
    gyre_pool_destroy(pool);
}

void gyre_engine_destroy(struct gyre_engine *engine)
{
    if (engine == NULL || gyre__loop_is_forked(engine->set.loops[0]))
        return;
    GYRE_CHECK(engine->magic == ENGINE_MAGIC && atomic_load(&engine->state) != ENGINE_RUNNING);
    end_pool(engine);
    /* Ending all before freeing any: loops refer to each other, in what they hand over and in tasks. */
    for (uint32_t i = 0; i < engine->set.count; i++)
        if (!engine->set.loops[i]->ended)
            gyre__loop_end(engine->set.loops[i]);
    for (uint32_t i = 0; i < engine->set.count; i++)
        gyre__loop_run_late_tasks(engine->set.loops[i]);
    destroy_loops(engine);
    gyre_resolver_destroy(engine->set.resolver);
    while (engine->listeners != NULL) {
        struct gyre_listener *listener = engine->listeners;
        engine->listeners = listener->next;
        gyre__listener_free(listener);
    }
    free_engine(engine);
}

static bool is_ending(const struct gyre_engine *engine)
{
    return atomic_load(&engine->set.loops[0]->request) >= GYRE_REQUEST_DRAIN;
}

int gyre__engine_listen(struct gyre_listener **out, struct gyre_engine *engine, struct gyre__listen_request *request)
{
    struct gyre_listener *listener;
    int err = 0;
    if (gyre__loop_is_forked(engine->set.loops[0]))
        return GYRE_EFORK;
    (void)pthread_mutex_lock(&engine->set.gate);
    request->loops = engine->set.loops;
    request->loop_count = engine->set.count;
    request->index = engine->listeners_made;
    request->engine = engine;
    request->set = &engine->set;
    request->list = &engine->listeners;
    if (atomic_load(&engine->state) == ENGINE_OVER)
        err = GYRE_ESTATE;
    else if (atomic_load(&engine->state) == ENGINE_RUNNING && is_ending(engine))
        err = GYRE_ESHUTDOWN;
    else
        err = gyre__listener_make(&listener, request);
    if (err == 0) {
        engine->listeners_made++;
        if (out != NULL)
            *out = listener;
    }
    (void)pthread_mutex_unlock(&engine->set.gate);
    return err;
}

int gyre_engine_listen_sized(struct gyre_listener **out, struct gyre_engine *engine, const char *address,
                             const struct gyre_conn_handlers *handlers, const struct gyre_listener_options *options,
                             size_t size_bytes, size_t conn_size_bytes)
{
    struct gyre__listen_request request = {
        .address = address, .handlers = handlers, .options = options, .size = size_bytes, .conn_size = conn_size_bytes};
    if (engine == NULL || address == NULL)
        return -EINVAL;
    if (gyre__loop_is_forked(engine->set.loops[0]))
        return GYRE_EFORK;
    int err = gyre__listen_look_up(&request, engine->set.loops, engine->set.count);
    return err != 0 ? err : gyre__engine_listen(out, engine, &request);
}

int gyre_engine_listen_fd_sized(struct gyre_listener **out, struct gyre_engine *engine, int fd,
                                const struct gyre_conn_handlers *handlers, const struct gyre_listener_options *options,
                                size_t size_bytes, size_t conn_size_bytes)
{
    struct gyre__listen_request request = {
        .fds = &fd, .fd_count = 1, .handlers = handlers, .options = options, .size = size_bytes,
        .conn_size = conn_size_bytes};
    return engine == NULL ? -EINVAL : gyre__engine_listen(out, engine, &request);
}

static void begin_ticking(struct gyre_loop *l)
{
    const struct gyre_engine_handlers *handlers = engine_of(l)->handlers;
    if (handlers == NULL || handlers->on_tick == NULL)
        return;
    (void)gyre__loop_now(l);
    gyre__loop_set_inside(l, true);
    tick(l);
    gyre__loop_set_inside(l, false);
}

int gyre_engine_listen_udp_sized(struct gyre_udp_id *ids, struct gyre_engine *engine, const char *address,
                                 const struct gyre_udp_handlers *handlers, const struct gyre_udp_options *options,
                                 size_t size_bytes)
{
    if (engine == NULL || engine->magic != ENGINE_MAGIC || address == NULL)
        return -EINVAL;
    if (gyre__loop_is_forked(engine->set.loops[0]))
        return GYRE_EFORK;
    if (atomic_load(&engine->state) != ENGINE_NEW)
        return GYRE_ESTATE;
    return gyre__udp_listen(ids, engine->set.loops, engine->set.count, address, handlers, options, size_bytes);
}

/* One loop from start to end, on its thread. */
static void serve(struct gyre_loop *l)
{
    struct gyre_engine *engine = engine_of(l);
    int none = 0, err;
    if (atomic_load(&l->request) != GYRE_REQUEST_END)
        begin_ticking(l);
    err = gyre__loop_serve(l);
    if (err != 0) {
        (void)atomic_compare_exchange_strong(&engine->err, &none, err);
        gyre_engine_stop(engine);
    }
    gyre__loop_end(l);
}

static void *thread_main(void *arg)
{
    struct gyre_loop *l = arg;
    (void)pthread_mutex_lock(&l->set->gate);
    (void)pthread_mutex_unlock(&l->set->gate);
    serve(l);
    return NULL;
}

static int pin(const struct gyre_engine *engine, uint32_t index, pthread_t thread)
{
    if (!engine->pin)
        return 0;
    return gyre__thread_pin(thread, engine->cpus != NULL ? engine->cpus[index % engine->cpu_count]
                                                         : gyre__processor(index));
}

/* The thread is there even if it could not be pinned. */
static int start_thread(struct gyre_engine *engine, uint32_t index, uint32_t *started)
{
    pthread_t *thread = &engine->threads[index];
    int err = gyre__thread_start(thread, engine->name, index, thread_main, engine->set.loops[index]);
    if (err != 0)
        return err;
    ++*started;
    gyre__loop_own(engine->set.loops[index], *thread);
    return pin(engine, index, *thread);
}

/* The threads pass the gate, which the caller holds, when every loop has its owner: before that, none could tell a call
 * from a wrong thread. This thread is pinned last, because the others begin with what it may use. */
static int start_threads(struct gyre_engine *engine, uint32_t *started)
{
    int err = 0;
    gyre__loop_own(engine->set.loops[0], pthread_self());
    *started = 1;
    for (uint32_t i = 1; err == 0 && i < engine->set.count; i++)
        err = start_thread(engine, i, started);
    if (engine->pin)
        gyre__affinity_keep(&engine->affinity);
    if (err == 0)
        err = pin(engine, 0, pthread_self());
    return err;
}

static void arm_listeners(struct gyre_engine *engine)
{
    for (struct gyre_listener *listener = engine->listeners; listener != NULL; listener = listener->next)
        for (uint32_t i = 0; i < listener->acceptor_count; i++)
            gyre__acceptor_arm(listener->acceptors[i]);
}

static void boot(struct gyre_engine *engine)
{
    struct gyre_loop *l = engine->set.loops[0];
    if (engine->handlers == NULL || engine->handlers->on_boot == NULL)
        return;
    (void)gyre__loop_now(l);
    gyre__loop_set_inside(l, true);
    engine->handlers->on_boot(engine);
    gyre__loop_set_inside(l, false);
}

int gyre_engine_run(struct gyre_engine *engine)
{
    int new = ENGINE_NEW;
    uint32_t started;
    if (engine == NULL || engine->magic != ENGINE_MAGIC)
        return -EINVAL;
    if (gyre__loop_is_forked(engine->set.loops[0]))
        return GYRE_EFORK;
    if (engine->set.count > 1 && engine->simulated)
        return gyre__refuse("loops is %u on a simulated network; call gyre_sim_run()", engine->set.count);
    (void)pthread_mutex_lock(&engine->set.gate);
    if (!atomic_compare_exchange_strong(&engine->state, &new, ENGINE_RUNNING)) {
        (void)pthread_mutex_unlock(&engine->set.gate);
        return GYRE_ESTATE;
    }
    arm_listeners(engine);
    int err = start_threads(engine, &started);
    (void)pthread_mutex_unlock(&engine->set.gate);
    if (err != 0)
        gyre_engine_stop(engine);
    else
        boot(engine);
    serve(engine->set.loops[0]);
    for (uint32_t i = 1; i < started; i++)
        (void)pthread_join(engine->threads[i], NULL);
    gyre__affinity_restore(&engine->affinity);
    if (err == 0 && engine->handlers != NULL && engine->handlers->on_shutdown != NULL)
        engine->handlers->on_shutdown(engine);
    atomic_store(&engine->state, ENGINE_OVER);
    return err != 0 ? err : atomic_load(&engine->err);
}

void gyre_engine_stop(struct gyre_engine *engine)
{
    for (uint32_t i = 0; engine != NULL && i < engine->set.count; i++)
        gyre__loop_ask(engine->set.loops[i], GYRE_REQUEST_END);
}

/* Nothing here that a signal handler must not call, unless an option is refused. */
int gyre_engine_drain_sized(struct gyre_engine *engine, const struct gyre_drain_options *options, size_t size_bytes)
{
    struct gyre_drain_options o;
    int err = engine == NULL ? -EINVAL : gyre__options_copy(&o, sizeof o, options, size_bytes);
    if (err == 0 && gyre__loop_is_forked(engine->set.loops[0]))
        err = GYRE_EFORK;
    if (err == 0)
        err = gyre__check_not_negative("deadline_ns", o.deadline_ns);
    if (err == 0)
        err = gyre__check_not_negative("spread_ns", o.spread_ns);
    if (err == 0)
        err = gyre__check_not_negative("quiet_ns", o.quiet_ns);
    for (uint32_t i = 0; err == 0 && i < engine->set.count; i++) {
        struct gyre_loop *l = engine->set.loops[i];
        atomic_store(&l->drain.deadline_ns, o.deadline_ns > 0 ? o.deadline_ns : DRAIN_DEADLINE_NS);
        atomic_store(&l->drain.spread_ns, o.spread_ns);
        atomic_store(&l->drain.quiet_ns, o.quiet_ns > 0 ? o.quiet_ns : DRAIN_QUIET_NS);
        atomic_fetch_add(&l->drain.calls, 1);
        gyre__loop_ask(l, GYRE_REQUEST_DRAIN);
    }
    return err;
}

bool gyre_engine_is_draining(const struct gyre_engine *engine)
{
    return is_ending(engine);
}

uint32_t gyre_engine_loop_count(const struct gyre_engine *engine)
{
    return engine->set.count;
}

struct gyre_loop *gyre_engine_loop(const struct gyre_engine *engine, uint32_t index)
{
    return index < engine->set.count ? engine->set.loops[index] : NULL;
}

void *gyre_engine_user(const struct gyre_engine *engine)
{
    return engine->user;
}

uint64_t gyre_engine_conn_count(const struct gyre_engine *engine)
{
    uint64_t count = 0;
    for (uint32_t i = 0; i < engine->set.count; i++)
        count += gyre_loop_conn_count(engine->set.loops[i]);
    return count;
}
