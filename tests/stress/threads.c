/* SPDX-License-Identifier: MIT
 * Everything that any thread may call, called by many at once while an engine of four loops serves.
 *
 * The engine echoes to clients that live in it, too. Writer threads know connections only by their ids, of which most
 * are stale sooner or later: they write with completions, wake, close, and post tasks. Each completion must come once,
 * and say success or a reason that the header names. The engine is stopped or drained in the middle of it, by several
 * threads, and torn down; what was posted before the end has run by then. Then the next engine. */
#include "stress.h"

#include <errno.h>
#include <sched.h>

enum { LOOPS = 4, WRITERS = 3, STOPPERS = 2, CONNS = 24, ENGINES = 20, IDS = 64, BURST = 64 };

struct stage {
    struct gyre_engine *engine;
    struct gyre_listener *listener[2];
    char address[2][128];
    atomic_uint boots;
    /* Ids of connections, open once and perhaps gone. Behind a lock, because an id is three words. */
    pthread_mutex_t lock;
    struct gyre_conn_id ids[IDS];
    unsigned id_count;
    atomic_bool end;       /* writers must stop before the engine is destroyed: ids need their loop */
    atomic_ulong accepted, completed, succeeded; /* writes from other threads */
    atomic_ulong posted, run;                    /* tasks */
    atomic_ulong opened, closed, datas;
    unsigned round;
};

static atomic_ulong total_writes, total_tasks, total_conns;

/* What shared pointers point to. */
static atomic_ulong shared_things[16];

static struct stage *stage_of(struct gyre_loop *loop)
{
    return gyre_loop_user(loop);
}

static void remember(struct stage *st, struct gyre_conn *c)
{
    (void)pthread_mutex_lock(&st->lock);
    st->ids[st->id_count++ % IDS] = gyre_conn_id_of(c);
    (void)pthread_mutex_unlock(&st->lock);
}

static bool pick(struct stage *st, uint64_t *seed, struct gyre_conn_id *id)
{
    (void)pthread_mutex_lock(&st->lock);
    unsigned count = st->id_count < IDS ? st->id_count : IDS;
    if (count > 0)
        *id = st->ids[stress_random(seed) % count];
    (void)pthread_mutex_unlock(&st->lock);
    return count > 0;
}

/* ---- connections ---- */

static void on_open(struct gyre_conn *c)
{
    struct stage *st = stage_of(gyre_conn_loop(c));
    (void)atomic_fetch_add(&st->opened, 1);
    if (atomic_load(&st->opened) % 4 != 0)
        MUST(gyre_conn_share(c, &shared_things[0]) == 0);
    remember(st, c);
}

static void on_server_data(struct gyre_conn *c)
{
    (void)atomic_fetch_add(&stage_of(gyre_conn_loop(c))->datas, 1);
    (void)gyre_conn_forward(c, c, SIZE_MAX);
}

static void on_client_data(struct gyre_conn *c)
{
    struct stage *st = stage_of(gyre_conn_loop(c));
    (void)gyre_conn_discard(c, SIZE_MAX);
    if (atomic_fetch_add(&st->datas, 1) % 64 == 63)
        (void)gyre_conn_abort(c);
}

static void connect_one(struct gyre_loop *loop);

static void on_server_close(struct gyre_conn *c, int err)
{
    (void)err;
    (void)atomic_fetch_add(&stage_of(gyre_conn_loop(c))->closed, 1);
}

/* A client that is gone is followed by the next one, until the loop says that it is ending. */
static void on_client_close(struct gyre_conn *c, int err)
{
    struct gyre_loop *loop = gyre_conn_loop(c);
    (void)err;
    (void)atomic_fetch_add(&stage_of(loop)->closed, 1);
    connect_one(loop);
}

static const struct gyre_conn_handlers server = {.on_open = on_open, .on_data = on_server_data,
                                                 .on_close = on_server_close};
static const struct gyre_conn_handlers client = {.on_open = on_open, .on_data = on_client_data,
                                                 .on_close = on_client_close};

static void connect_one(struct gyre_loop *loop)
{
    struct stage *st = stage_of(loop);
    struct gyre_conn *c;
    int err = gyre_connect(&c, loop, st->address[atomic_load(&st->opened) % 2], &client, NULL);
    MUST(err == 0 || err == GYRE_ESHUTDOWN);
    if (err == 0)
        MUST(gyre_conn_write(c, "hello", 5) == 0);
}

static void start_clients(struct gyre_loop *loop, void *user)
{
    struct stage *st = user;
    MUST(gyre_loop_is_current(loop));
    for (int i = 0; i < CONNS / LOOPS; i++)
        connect_one(loop);
    (void)atomic_fetch_add(&st->boots, 1);
}

static void on_boot(struct gyre_engine *engine)
{
    for (uint32_t i = 0; i < LOOPS; i++)
        MUST(gyre_loop_post(gyre_engine_loop(engine, i), start_clients, gyre_engine_user(engine)) == 0);
}

static const struct gyre_engine_handlers handlers = {.on_boot = on_boot};

/* ---- other threads ---- */

static void on_written(int err, void *user)
{
    struct stage *st = user;
    (void)atomic_fetch_add(&st->completed, 1);
    (void)atomic_fetch_add(&st->succeeded, err == 0);
    MUST(err <= 0);
    MUST(err != GYRE_ETHREAD);
}

static void on_task(struct gyre_loop *loop, void *user)
{
    struct stage *st = user;
    (void)loop;
    (void)atomic_fetch_add(&st->run, 1);
}

static void write_some(struct stage *st, struct gyre_conn_id id, uint64_t *seed)
{
    static const uint8_t lasting[2048];
    uint8_t bytes[2048];
    size_t len = stress_random(seed) % sizeof bytes;
    const struct iovec iov[2] = {{bytes, len / 2}, {bytes + len / 2, len - len / 2}};
    unsigned how = (unsigned)(stress_random(seed) % 3);
    memset(bytes, (int)len, sizeof bytes);
    (void)atomic_fetch_add(&st->accepted, 1);
    int err = how == 0   ? gyre_conn_id_write(id, bytes, len, on_written, st)
              : how == 1 ? gyre_conn_id_writev(id, iov, 2, on_written, st)
                         : gyre_conn_id_write_ref(id, lasting, len, on_written, st);
    MUST(err == 0 || err == -EAGAIN);
    if (err != 0)
        (void)atomic_fetch_sub(&st->accepted, 1);
}

static void post_one(struct stage *st, uint64_t *seed)
{
    (void)atomic_fetch_add(&st->posted, 1);
    int err = gyre_loop_post(gyre_engine_loop(st->engine, (uint32_t)(stress_random(seed) % LOOPS)), on_task, st);
    MUST(err == 0 || err == -EAGAIN);
    if (err != 0)
        (void)atomic_fetch_sub(&st->posted, 1);
}

/* The pointer is always one that somebody set; what is queued is never negative. */
static void share_some(struct gyre_conn_id id, uint64_t *seed)
{
    void *ptr = NULL;
    int err = gyre_conn_id_shared(&ptr, id);
    MUST(err == GYRE_ESTALE || (err == 0 && (atomic_ulong *)ptr >= shared_things));
    if (err == 0)
        (void)atomic_fetch_add((atomic_ulong *)ptr, 1);
    err = gyre_conn_id_set_shared(&ptr, id, &shared_things[stress_random(seed) % 16]);
    MUST(err == GYRE_ESTALE || (err == 0 && (atomic_ulong *)ptr < shared_things + 16));
    int64_t queued = gyre_conn_id_outbound(id);
    MUST(queued == GYRE_ESTALE || queued >= 0);
}

static void *meddle(void *arg)
{
    struct stage *st = arg;
    uint64_t seed = (uint64_t)(uintptr_t)&seed ^ st->round;
    while (!atomic_load(&st->end)) {
        struct gyre_conn_id id;
        for (int i = 0; i < BURST && pick(st, &seed, &id); i++) {
            switch (stress_random(&seed) % 16) {
            case 0:
                (void)gyre_conn_id_close(id);
                break;
            case 1:
            case 2:
                (void)gyre_conn_id_wake(id);
                break;
            case 3:
            case 4:
                post_one(st, &seed);
                break;
            case 5:
                (void)gyre_engine_conn_count(st->engine);
                MUST(!gyre_loop_is_current(id.loop));
                break;
            case 6:
            case 7:
                share_some(id, &seed);
                break;
            default:
                write_some(st, id, &seed);
                break;
            }
        }
        (void)sched_yield();
    }
    return NULL;
}

/* Any of a listener's loops may close it, and several may. */
static void close_listeners(struct gyre_loop *loop, void *user)
{
    struct stage *st = user;
    (void)loop;
    gyre_listener_close(st->listener[0]);
    gyre_listener_close(st->listener[1]);
}

static void *end_it(void *arg)
{
    struct stage *st = arg;
    uint64_t seed = (uint64_t)(uintptr_t)&seed ^ st->round;
    while (atomic_load(&st->datas) < 600 || atomic_load(&st->run) < 100)
        (void)sched_yield();
    for (uint32_t i = 0; i < LOOPS && st->round % 2 == 1; i++) {
        int err = gyre_loop_post(gyre_engine_loop(st->engine, i), close_listeners, st);
        MUST(err == 0 || err == -EAGAIN); /* the writers may have filled the queue */
    }
    if (st->round % 3 != 0)
        (void)gyre_engine_drain(st->engine, &(struct gyre_drain_options){
                                                .deadline_ns = 1 + (int64_t)(stress_random(&seed) % 20000000)});
    if (st->round % 3 != 1)
        gyre_engine_stop(st->engine);
    (void)gyre_engine_drain(st->engine, &(struct gyre_drain_options){.deadline_ns = 1000000});
    gyre_engine_stop(st->engine);
    return NULL;
}

/* ---- rounds ---- */

static void listen_on_both(struct stage *st)
{
    char name[64];
    (void)snprintf(name, sizeof name, "unix:///tmp/gyre-stress-%d.sock", (int)getpid());
    for (int i = 0; i < 2; i++) {
        const char *address = i == 0 ? "tcp://127.0.0.1:0" : name;
        MUST(gyre_engine_listen(&st->listener[i], st->engine, address, &server, NULL) == 0);
        (void)snprintf(st->address[i], sizeof st->address[i], "%s", gyre_listener_address(st->listener[i]));
    }
}

static void one_engine(const char *backend, unsigned round)
{
    struct stage *st = calloc(1, sizeof *st);
    MUST(st != NULL);
    const struct gyre_loop_options loop = {.backend = backend, .user = st, .tasks_max = 4096};
    const struct gyre_engine_options options = {.loops = LOOPS, .handlers = &handlers, .loop = loop, .user = st};
    pthread_t writers[WRITERS], stoppers[STOPPERS];
    st->round = round;
    MUST(pthread_mutex_init(&st->lock, NULL) == 0);
    MUST(gyre_engine_create(&st->engine, &options) == 0);
    listen_on_both(st);
    for (int i = 0; i < WRITERS; i++)
        writers[i] = stress_thread(meddle, st);
    for (int i = 0; i < STOPPERS; i++)
        stoppers[i] = stress_thread(end_it, st);
    MUST(gyre_engine_run(st->engine) == 0);
    for (int i = 0; i < STOPPERS; i++)
        (void)pthread_join(stoppers[i], NULL);
    atomic_store(&st->end, true);
    for (int i = 0; i < WRITERS; i++)
        (void)pthread_join(writers[i], NULL);
    MUST(gyre_engine_conn_count(st->engine) == 0);
    gyre_engine_destroy(st->engine);
    MUST(atomic_load(&st->boots) == LOOPS);
    MUST(atomic_load(&st->accepted) == atomic_load(&st->completed));
    MUST(atomic_load(&st->posted) == atomic_load(&st->run));
    MUST(atomic_load(&st->closed) >= atomic_load(&st->opened)); /* those that never opened close too */
    (void)atomic_fetch_add(&total_writes, atomic_load(&st->succeeded));
    (void)atomic_fetch_add(&total_tasks, atomic_load(&st->run));
    (void)atomic_fetch_add(&total_conns, atomic_load(&st->opened));
    (void)pthread_mutex_destroy(&st->lock);
    free(st);
}

static void round_of(const char *backend)
{
    double start = stress_seconds();
    atomic_store(&total_writes, 0);
    atomic_store(&total_tasks, 0);
    atomic_store(&total_conns, 0);
    for (unsigned i = 0; i < ENGINES; i++)
        one_engine(backend, i);
    printf("%s: %d engines of %d loops, %lu connections, %lu writes from other threads, %lu tasks, %.1f s\n", backend,
           ENGINES, LOOPS, atomic_load(&total_conns), atomic_load(&total_writes), atomic_load(&total_tasks),
           stress_seconds() - start);
}

int main(int argc, char **argv)
{
    return stress_main(argc, argv, round_of);
}
