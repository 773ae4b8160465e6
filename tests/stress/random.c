/* SPDX-License-Identifier: MIT
 * Every call of the interface in random order, from handlers and from other threads, until time is up.
 *
 * An engine of three loops serves and connects to itself. Each tick and each handler makes a few random calls on the
 * objects of its loop (random_calls.h), and three threads make those that any thread may make. Then the engine is
 * stopped or drained in the middle of it, and another one begins. What must hold whatever is called: the engine ends,
 * each connection that opened closes once, each call that owes a callback gets one, and no sanitizer finds anything.
 *
 * GYRE_STRESS_SECONDS: for each backend, default 20. GYRE_STRESS_SEED: of the first engine; each prints its own. */
#include "random_calls.h"

#include <fcntl.h>

enum { LOOPS = 3, THREADS = 3, IDS = 64, ENGINE_S = 2 };

struct stage {
    struct gyre_engine *engine;
    struct gyre_listener *listeners[2];
    struct tally tally;
    struct shop shops[LOOPS];
    pthread_mutex_t lock; /* of the ids */
    struct gyre_conn_id ids[IDS];
    struct gyre_udp_id udp_ids[IDS];
    unsigned id_count, udp_id_count;
    atomic_bool over;
    atomic_uint cleared; /* loops */
    uint64_t seed; /* does not change once there are threads */
};

static struct stage *stage;

/* ---- Handlers ---- */

static void note_id(struct gyre_conn_id id)
{
    MUST(pthread_mutex_lock(&stage->lock) == 0);
    stage->ids[stage->id_count++ % IDS] = id;
    MUST(pthread_mutex_unlock(&stage->lock) == 0);
}

static void on_open(struct gyre_conn *c)
{
    struct shop *s = shop_of(gyre_conn_loop(c));
    (void)atomic_fetch_add(&s->tally->opened, 1);
    gyre_conn_set_user(c, s);
    note_id(gyre_conn_id_of(c));
    if (gyre_conn_listener(c) != NULL)
        add_conn(s, c);
    if (below(s, 2))
        touch(s, c);
}

static void on_event(struct gyre_conn *c)
{
    struct shop *s = shop_of(gyre_conn_loop(c));
    touch(s, c);
    if (below(s, 4) == 0)
        act(s);
    if (below(s, 3) == 0)
        (void)gyre_conn_forward(c, c, SIZE_MAX);
}

static void on_eof(struct gyre_conn *c)
{
    struct shop *s = shop_of(gyre_conn_loop(c));
    touch(s, c);
    if (below(s, 2) == 0)
        (void)gyre_conn_close(c);
}

/* A connection that was being detached ends here if its loop did: then the callback is not owed. */
static void on_close(struct gyre_conn *c, int err)
{
    struct shop *s = shop_of(gyre_conn_loop(c));
    (void)err;
    MUST(gyre_conn_close_reason(c) != GYRE_CLOSE_NONE);
    (void)gyre_conn_unsent(c);
    if (gyre_conn_user(c) == &s->conn_count)
        on_reported(0, s->tally);
    if (gyre_conn_user(c) != NULL)
        (void)atomic_fetch_add(&s->tally->closed, 1);
    remove_conn(s, c);
}

static const struct gyre_conn_handlers random_conn = {.on_open = on_open, .on_data = on_event, .on_drain = on_event,
                                                      .on_eof = on_eof, .on_timeout = on_eof, .on_close = on_close};

static void on_datagram(struct gyre_udp *u, const struct gyre_datagram *d)
{
    struct shop *s = shop_of(gyre_udp_loop(u));
    struct gyre_buf **buf = &s->bufs[below(s, BUFS)];
    struct gyre_slice view;
    switch (below(s, 6)) {
    case 0: (void)gyre_udp_reply(u, d, d->data.data, d->data.len / 2); return;
    case 1: act(s); return;
    case 2:
        MUST(gyre_buf_release(*buf) == 0);
        if (s->over || gyre_udp_hold(buf, &view, u, d) != 0)
            *buf = NULL;
        return;
    case 3:
        MUST(pthread_mutex_lock(&stage->lock) == 0);
        stage->udp_ids[stage->udp_id_count++ % IDS] = gyre_udp_id_of(u);
        MUST(pthread_mutex_unlock(&stage->lock) == 0);
        return;
    default: return;
    }
}

static void on_udp_close(struct gyre_udp *u, int err)
{
    struct gyre_udp **place = gyre_udp_user(u);
    (void)err;
    MUST(*place == u);
    *place = NULL;
}

static const struct gyre_udp_handlers random_udp = {.on_datagram = on_datagram, .on_close = on_udp_close};

/* ---- On the loops ---- */

static bool touch_one(struct gyre_conn *c, void *user)
{
    struct shop *s = shop_of(gyre_conn_loop(c));
    (void)user;
    if (below(s, 8) == 0)
        touch(s, c);
    return below(s, 20) != 0;
}

static int work(struct gyre_work *w, void *user)
{
    (void)user;
    return gyre_work_cancelled(w);
}

static void on_worked(struct gyre_loop *loop, int result, void *user)
{
    (void)loop;
    on_reported(result, user);
}

static int64_t on_tick(struct gyre_engine *engine, struct gyre_loop *loop)
{
    struct shop *s = &stage->shops[gyre_loop_index(loop)];
    struct gyre_stats stats;
    s->engine = engine;
    s->loop = loop;
    MUST(gyre_loop_set_user(loop, s) == 0);
    if (atomic_load(&stage->over)) {
        clear_shop(s);
        (void)atomic_fetch_add(&stage->cleared, 1);
        return -1;
    }
    for (unsigned i = 1 + below(s, 30); i > 0; i--)
        act(s);
    if (below(s, 10) == 0)
        (void)gyre_loop_each_conn(loop, touch_one, NULL);
    if (below(s, 10) == 0)
        promised(s->tally, gyre_engine_offload(engine, work, on_worked, promise(s->tally)));
    gyre_loop_stats(&stats, loop);
    return 1 + below(s, 2000000);
}

static const struct gyre_engine_handlers engine_handlers = {.on_tick = on_tick};

/* ---- From other threads ---- */

static void run_task(struct gyre_loop *loop, void *user)
{
    if (shop_of(loop) != NULL && !atomic_load(&stage->over))
        act(shop_of(loop));
    on_reported(0, user);
}

static void on_all_done(struct gyre_engine *engine, void *user)
{
    (void)engine;
    on_reported(0, user);
}

static void run_nothing(struct gyre_loop *loop, void *user)
{
    (void)loop;
    (void)user;
}

static bool go_on(struct gyre_conn *c, void *user)
{
    (void)user;
    return gyre_conn_inbound(c) < 1u << 30;
}

static void on_broadcast(struct gyre_engine *engine, const struct gyre_broadcast_result *result, void *user)
{
    (void)engine;
    (void)result;
    on_reported(0, user);
}

static void on_connected(struct gyre_loop *loop, struct gyre_conn *c, int err, void *user)
{
    if (c != NULL && shop_of(loop) != NULL)
        add_conn(shop_of(loop), c);
    on_reported(err, user);
}

static void call_by_id(struct stage *st, uint64_t *random)
{
    struct tally *t = &st->tally;
    const struct iovec iov[2] = {{(void *)(uintptr_t)text, 100}, {(void *)(uintptr_t)text, 50}};
    void *shared;
    MUST(pthread_mutex_lock(&st->lock) == 0);
    struct gyre_conn_id id = st->ids[stress_random(random) % IDS];
    struct gyre_udp_id udp = st->udp_ids[stress_random(random) % IDS];
    MUST(pthread_mutex_unlock(&st->lock) == 0);
    switch (stress_random(random) % 14) {
    case 0: (void)gyre_conn_id_close(id); return;
    case 1: (void)gyre_conn_id_abort(id); return;
    case 2: promised(t, gyre_conn_id_close_then(id, on_reported, promise(t))); return;
    case 3: (void)gyre_conn_id_wake(id); return;
    case 4: promised(t, gyre_conn_id_writev(id, iov, 2, on_reported, promise(t))); return;
    case 5: promised(t, gyre_conn_id_write_ref(id, text, 3000, on_reported, promise(t))); return;
    case 6: (void)gyre_conn_id_shared(&shared, id); return;
    case 7: (void)gyre_conn_id_set_shared(&shared, id, t); return;
    case 8: (void)gyre_conn_id_outbound(id); return;
    case 9: (void)gyre_udp_id_send(udp, NULL, 0, text, 10); return;
    case 10: (void)gyre_udp_id_close(udp); return;
    default: promised(t, gyre_conn_id_write(id, text, stress_random(random) % 5000, on_reported, promise(t)));
    }
}

static void call_engine(struct stage *st, uint64_t *random, char *page)
{
    struct tally *t = &st->tally;
    struct gyre_loop *loop = gyre_engine_loop(st->engine, (uint32_t)(stress_random(random) % LOOPS));
    struct gyre_listener *listener = st->listeners[stress_random(random) % 2];
    const struct gyre_broadcast_options broadcast = {
        .slow = (enum gyre_slow)(stress_random(random) % 3), .done = on_broadcast, .user = t};
    struct gyre_stats stats;
    switch (stress_random(random) % 12) {
    case 0: promised(t, gyre_loop_post(loop, run_task, promise(t))); return;
    case 1: promised(t, gyre_loop_post_urgent(loop, run_task, promise(t))); return;
    case 2: promised(t, gyre_loop_post_after(loop, 1000000, run_task, promise(t))); return;
    case 3: promised(t, gyre_engine_post_all(st->engine, run_nothing, on_all_done, promise(t))); return;
    case 4: promised(t, gyre_engine_each_conn(st->engine, go_on, on_all_done, promise(t))); return;
    case 5:
        (void)promise(t);
        promised(t, gyre_engine_broadcast(st->engine, text, 200, &broadcast));
        return;
    case 6: (void)gyre_listener_pause(listener); return;
    case 7:
    case 8: (void)gyre_listener_resume(listener); return;
    case 9: gyre_engine_stats(&stats, st->engine); return;
    case 10: MUST(gyre_engine_prometheus(page, 65536, st->engine, NULL, 0) > 0); return;
    default:
        promised(t, gyre_engine_connect(st->engine, gyre_listener_address(listener), &random_conn, on_connected,
                                        promise(t), NULL));
    }
}

static void *call_from_outside(void *arg)
{
    uint64_t random = stage->seed + (uint64_t)(uintptr_t)arg;
    char *page = malloc(65536);
    MUST(page != NULL);
    while (!atomic_load(&stage->over)) {
        for (unsigned i = 0; i < 20; i++) {
            if (stress_random(&random) % 3 == 0)
                call_engine(stage, &random, page);
            else
                call_by_id(stage, &random);
        }
        const struct timespec rest = {.tv_nsec = 500000};
        (void)nanosleep(&rest, NULL);
    }
    free(page);
    return NULL;
}

/* ---- The program ---- */

static void open_stage(struct stage *st, const char *backend, int file)
{
    char name[64];
    const struct gyre_engine_options options = {
        .loops = LOOPS, .handlers = &engine_handlers, .conns_max = 300, .work_threads = 2,
        .loop = {.backend = backend}};
    const struct gyre_listener_options listening = {
        .conn = {.linger_timeout_ns = 200000000, .write_max_bytes = 65536, .idle_timeout_ns = 1000000000}};
    (void)snprintf(name, sizeof name, "unix:///tmp/gyre-random-%d.sock", (int)getpid());
    MUST(pthread_mutex_init(&st->lock, NULL) == 0);
    MUST(gyre_engine_create(&st->engine, &options) == 0);
    MUST(gyre_engine_listen(&st->listeners[0], st->engine, "tcp://127.0.0.1:0", &random_conn, &listening) == 0);
    MUST(gyre_engine_listen(&st->listeners[1], st->engine, name, &random_conn, &listening) == 0);
    for (unsigned i = 0; i < LOOPS; i++) {
        struct shop *s = &st->shops[i];
        *s = (struct shop){.tally = &st->tally, .random = stress_random(&st->seed), .file = file};
        s->addresses[0] = gyre_listener_address(st->listeners[0]);
        s->addresses[1] = gyre_listener_address(st->listeners[1]);
        MUST(pipe2(s->pipe, O_NONBLOCK | O_CLOEXEC) == 0);
    }
}

static void *end_it(void *arg)
{
    struct stage *st = arg;
    const struct timespec rest = {.tv_sec = ENGINE_S}, moment = {.tv_nsec = 1000000};
    uint64_t random = st->seed ^ ENGINE_S;
    (void)nanosleep(&rest, NULL);
    atomic_store(&st->over, true);
    while (atomic_load(&st->cleared) < LOOPS)
        (void)nanosleep(&moment, NULL);
    if (stress_random(&random) % 2)
        (void)gyre_engine_drain(st->engine, &(struct gyre_drain_options){.deadline_ns = 300000000});
    else
        gyre_engine_stop(st->engine);
    return NULL;
}

static void run_engine(const char *backend, int file, uint64_t seed)
{
    pthread_t threads[THREADS], ender;
    stage = calloc(1, sizeof *stage);
    MUST(stage != NULL);
    stage->seed = seed;
    open_stage(stage, backend, file);
    ender = stress_thread(end_it, stage);
    for (uintptr_t i = 0; i < THREADS; i++)
        threads[i] = stress_thread(call_from_outside, (void *)i);
    MUST(gyre_engine_run(stage->engine) == 0);
    for (unsigned i = 0; i < THREADS; i++)
        MUST(pthread_join(threads[i], NULL) == 0);
    MUST(pthread_join(ender, NULL) == 0);
    gyre_engine_destroy(stage->engine);
    for (unsigned i = 0; i < LOOPS; i++)
        MUST(close(stage->shops[i].pipe[0]) == 0 && close(stage->shops[i].pipe[1]) == 0);
    printf("%s, seed %llu: %lu calls, %ld connections, %ld callbacks owed\n", backend, (unsigned long long)seed,
           atomic_load(&stage->tally.calls), atomic_load(&stage->tally.opened), atomic_load(&stage->tally.promised));
    MUST(stage->tally.opened == stage->tally.closed && stage->tally.opened > 0);
    MUST(stage->tally.promised == stage->tally.reported && stage->tally.promised > 0);
    MUST(pthread_mutex_destroy(&stage->lock) == 0);
    free(stage);
}

static uint64_t number_of(const char *name, uint64_t otherwise)
{
    const char *given = getenv(name);
    return given != NULL ? strtoull(given, NULL, 10) : otherwise;
}

static void run(const char *backend)
{
    uint64_t seed = number_of("GYRE_STRESS_SEED", (uint64_t)(stress_seconds() * 1e9));
    const double seconds = (double)number_of("GYRE_STRESS_SECONDS", 20);
    const double end = stress_seconds() + seconds;
    FILE *file = tmpfile();
    MUST(file != NULL && ftruncate(fileno(file), FILE_BYTES) == 0);
    do {
        (void)alarm(STRESS_LIMIT_S); /* for each engine: a run may be long */
        run_engine(backend, fileno(file), seed);
        (void)fflush(stdout);
        seed = stress_random(&seed);
    } while (stress_seconds() < end);
    (void)fclose(file);
}

int main(int argc, char **argv)
{
    return stress_main(argc, argv, run);
}
