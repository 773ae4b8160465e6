/* SPDX-License-Identifier: MIT
 * Listeners added, paused, resumed, counted and closed by several threads while connections come and go, and an engine
 * of four loops serves; meanwhile other threads walk over the connections and send to all of them.
 *
 * A few places hold a listener each, of any kind of balance, with limits or without. Steering one is allowed to many
 * threads at once, so a place has a lock that they share; closing and replacing it takes the lock alone. Clients live
 * in the engine and go to any place, that of a listener which is paused, full or just closed too. What was added must
 * be told as closed, once; what was asked of all loops must have been done on each; what opened must close. */
#include "stress.h"

#include <errno.h>
#include <sched.h>

enum { LOOPS = 4, PLACES = 6, STEERERS = 3, CLIENTS = 6, ENGINES = 6, CONNS = 400, WALKS = 150, ADDED = 60 };

struct stage;

/* What became of one listener. */
struct life {
    struct stage *stage;
    atomic_uint closed;
};

struct place {
    pthread_rwlock_t lock;
    struct gyre_listener *listener;
    char address[128];
};

struct stage {
    struct gyre_engine *engine;
    const char *backend;
    struct place places[PLACES];
    atomic_bool end;
    atomic_uint boots;
    atomic_ulong added, told_closed, steered;
    atomic_ulong opened, closed, served;
    atomic_ulong walks, walks_done, parts, visited;
    atomic_ulong names;
    unsigned round;
};

static atomic_ulong total_conns, total_listeners, total_steered, total_walks;

static struct stage *stage_of(struct gyre_conn *c)
{
    return gyre_loop_user(gyre_conn_loop(c));
}

/* ---- connections ---- */

static void on_server_open(struct gyre_conn *c)
{
    (void)atomic_fetch_add(&stage_of(c)->opened, 1);
}

static void on_server_data(struct gyre_conn *c)
{
    (void)gyre_conn_forward(c, c, SIZE_MAX);
}

static void on_server_close(struct gyre_conn *c, int err)
{
    (void)err;
    (void)atomic_fetch_add(&stage_of(c)->closed, 1);
}

static const struct gyre_conn_handlers server = {
    .on_open = on_server_open, .on_data = on_server_data, .on_close = on_server_close};

static void connect_one(struct gyre_loop *loop, struct stage *st);

static void on_client_open(struct gyre_conn *c)
{
    (void)gyre_conn_write(c, "hello", 5);
}

/* It ends with the first that comes, its own or what was sent to all. */
static void on_client_data(struct gyre_conn *c)
{
    struct stage *st = stage_of(c);
    (void)gyre_conn_discard(c, SIZE_MAX);
    MUST((atomic_fetch_add(&st->served, 1) % 4 == 0 ? gyre_conn_abort(c) : gyre_conn_close(c)) == 0);
}

static void on_client_close(struct gyre_conn *c, int err)
{
    (void)err;
    connect_one(gyre_conn_loop(c), stage_of(c));
}

static const struct gyre_conn_handlers client = {
    .on_open = on_client_open, .on_data = on_client_data, .on_close = on_client_close};

/* To a place that has a listener, as it seems; by the time the connection arrives it may be closed. */
static void connect_one(struct gyre_loop *loop, struct stage *st)
{
    static atomic_uint turn;
    char address[128] = "tcp://127.0.0.1:1";
    struct gyre_conn *c;
    for (unsigned tries = 0; tries < PLACES; tries++) {
        struct place *p = &st->places[atomic_fetch_add(&turn, 1) % PLACES];
        if (pthread_rwlock_tryrdlock(&p->lock) != 0)
            continue;
        bool there = p->listener != NULL;
        if (there)
            memcpy(address, p->address, sizeof address);
        (void)pthread_rwlock_unlock(&p->lock);
        if (there)
            break;
    }
    int err = gyre_connect(&c, loop, address, &client, NULL);
    MUST(err == 0 || err == GYRE_ESHUTDOWN);
}

static void start_clients(struct gyre_loop *loop, void *user)
{
    struct stage *st = user;
    for (int i = 0; i < CLIENTS; i++)
        connect_one(loop, st);
    (void)atomic_fetch_add(&st->boots, 1);
}

static void on_boot(struct gyre_engine *engine)
{
    MUST(gyre_engine_post_all(engine, start_clients, NULL, gyre_engine_user(engine)) == 0);
}

static const struct gyre_engine_handlers handlers = {.on_boot = on_boot};

/* ---- steering listeners ---- */

static void on_listener_closed(void *user)
{
    struct life *life = user;
    MUST(atomic_fetch_add(&life->closed, 1) == 0);
    (void)atomic_fetch_add(&life->stage->told_closed, 1);
    free(life);
}

static int choose_filter(struct gyre_listener *l, const struct sockaddr *peer, socklen_t len, void *user)
{
    struct life *life = user;
    (void)peer;
    (void)len;
    MUST(gyre_listener_engine(l) == life->stage->engine);
    return atomic_load(&life->stage->opened) % 16 == 15 ? GYRE_ACCEPT_RESET : GYRE_ACCEPT_YES;
}

static uint32_t choose_loop(struct gyre_listener *l, const struct sockaddr *peer, socklen_t len, void *user)
{
    struct life *life = user;
    (void)l;
    (void)peer;
    (void)len;
    return (uint32_t)atomic_load(&life->stage->opened) % LOOPS;
}

/* The lock is held alone. */
static void add(struct stage *st, struct place *p, uint64_t *seed)
{
    enum gyre_balance kind = (enum gyre_balance)(stress_random(seed) % (GYRE_BALANCE_CUSTOM + 1));
    bool local = kind != GYRE_BALANCE_KERNEL && stress_random(seed) % 4 == 0;
    char name[96];
    struct life *life = calloc(1, sizeof *life);
    MUST(life != NULL);
    life->stage = st;
    const struct gyre_listener_options options = {
        .balance = kind,
        .choose = kind == GYRE_BALANCE_CUSTOM ? choose_loop : NULL,
        .filter = stress_random(seed) % 2 == 0 ? choose_filter : NULL,
        .conns_max = stress_random(seed) % 3 == 0 ? 2 : 0,
        .on_closed = on_listener_closed,
        .user = life,
    };
    (void)snprintf(name, sizeof name, "unix:///tmp/gyre-stress-%d-%s-%lu.sock", (int)getpid(), st->backend,
                   atomic_fetch_add(&st->names, 1));
    int err = gyre_engine_listen(&p->listener, st->engine, local ? name : "tcp://127.0.0.1:0", &server, &options);
    if (err != 0) { /* the engine is about to stop, or has */
        MUST(err == GYRE_ESHUTDOWN || err == GYRE_ESTATE);
        p->listener = NULL;
        free(life);
        return;
    }
    (void)atomic_fetch_add(&st->added, 1);
    MUST(gyre_listener_user(p->listener) == life);
    (void)snprintf(p->address, sizeof p->address, "%s", gyre_listener_address(p->listener));
}

/* What many may do at once. Before the engine ends nobody but the holder of the lock closes it, so it says yes. */
static void steer(struct stage *st, struct place *p, uint64_t *seed)
{
    struct gyre_listener *l = p->listener;
    int err = 0;
    switch (stress_random(seed) % 8) {
    case 0:
        err = gyre_listener_pause(l);
        break;
    case 1:
        (void)gyre_listener_socket_count(l);
        break;
    case 2:
        (void)gyre_listener_index(l);
        MUST(strcmp(gyre_listener_address(l), p->address) == 0);
        break;
    case 3:
    case 4:
        MUST(gyre_listener_conn_count(l) < 4096);
        (void)gyre_engine_conn_count(st->engine);
        break;
    default:
        err = gyre_listener_resume(l);
        break;
    }
    MUST(err == 0 || err == GYRE_ESTATE);
    (void)atomic_fetch_add(&st->steered, 1);
}

static void replace(struct stage *st, struct place *p, uint64_t *seed)
{
    (void)pthread_rwlock_wrlock(&p->lock);
    if (p->listener != NULL) {
        gyre_listener_close(p->listener);
        p->listener = NULL;
    } else {
        add(st, p, seed);
    }
    (void)pthread_rwlock_unlock(&p->lock);
}

static void *steer_all(void *arg)
{
    struct stage *st = arg;
    uint64_t seed = (uint64_t)(uintptr_t)&seed ^ st->round;
    while (!atomic_load(&st->end)) {
        struct place *p = &st->places[stress_random(&seed) % PLACES];
        if (stress_random(&seed) % 64 == 0)
            replace(st, p, &seed);
        (void)pthread_rwlock_rdlock(&p->lock);
        for (int i = 0; i < 4 && p->listener != NULL; i++)
            steer(st, p, &seed);
        (void)pthread_rwlock_unlock(&p->lock);
        (void)sched_yield();
    }
    return NULL;
}

/* ---- what reaches all ---- */

static void part_of_walk(struct gyre_loop *loop, void *user)
{
    struct stage *st = user;
    (void)loop;
    (void)atomic_fetch_add(&st->parts, 1);
}

static bool visit(struct gyre_conn *c, void *user)
{
    struct stage *st = user;
    MUST(stage_of(c) == st);
    (void)atomic_fetch_add(&st->visited, 1);
    return atomic_load(&st->visited) % 64 != 63 || gyre_conn_close(c) == 0;
}

static void walk_done(struct gyre_engine *engine, void *user)
{
    struct stage *st = user;
    MUST(engine == st->engine);
    (void)atomic_fetch_add(&st->walks_done, 1);
}

static void broadcast_done(struct gyre_engine *engine, const struct gyre_broadcast_result *result, void *user)
{
    (void)result;
    walk_done(engine, user);
}

static void *walk_all(void *arg)
{
    static const char text[] = "to everybody";
    struct stage *st = arg;
    while (atomic_load(&st->boots) < LOOPS) /* what nobody runs yet would fill the queues */
        (void)sched_yield();
    for (unsigned long i = 0; !atomic_load(&st->end); i++) {
        const struct gyre_broadcast_options options = {
            .done = broadcast_done, .user = st, .slow = (enum gyre_slow)(i / 3 % 3)};
        int err = i % 3 == 0   ? gyre_engine_post_all(st->engine, part_of_walk, walk_done, st)
                  : i % 3 == 1 ? gyre_engine_each_conn(st->engine, visit, walk_done, st)
                               : gyre_engine_broadcast(st->engine, text, sizeof text, &options);
        MUST(err == 0 || err == -EAGAIN);
        (void)atomic_fetch_add(&st->walks, err == 0);
        (void)sched_yield();
    }
    return NULL;
}

/* ---- rounds ---- */

static void *end_it(void *arg)
{
    struct stage *st = arg;
    while (atomic_load(&st->boots) < LOOPS || atomic_load(&st->opened) < CONNS || atomic_load(&st->walks) < WALKS ||
           atomic_load(&st->added) < ADDED)
        (void)sched_yield();
    if (st->round % 2 == 0)
        gyre_engine_stop(st->engine);
    else
        (void)gyre_engine_drain(st->engine, &(struct gyre_drain_options){.deadline_ns = 5000000});
    return NULL;
}

static void run_all(struct stage *st)
{
    pthread_t steerers[STEERERS], walker, ender;
    uint64_t seed = st->round;
    for (int i = 0; i < PLACES; i++) {
        MUST(pthread_rwlock_init(&st->places[i].lock, NULL) == 0);
        add(st, &st->places[i], &seed);
    }
    for (int i = 0; i < STEERERS; i++)
        steerers[i] = stress_thread(steer_all, st);
    walker = stress_thread(walk_all, st);
    ender = stress_thread(end_it, st);
    MUST(gyre_engine_run(st->engine) == 0);
    (void)pthread_join(ender, NULL);
    atomic_store(&st->end, true);
    for (int i = 0; i < STEERERS; i++)
        (void)pthread_join(steerers[i], NULL);
    (void)pthread_join(walker, NULL);
    MUST(gyre_engine_conn_count(st->engine) == 0);
    gyre_engine_destroy(st->engine);
    for (int i = 0; i < PLACES; i++)
        (void)pthread_rwlock_destroy(&st->places[i].lock);
}

static void one_engine(const char *backend, unsigned round)
{
    struct stage *st = calloc(1, sizeof *st);
    MUST(st != NULL);
    const struct gyre_loop_options loop = {.backend = backend, .user = st, .tasks_max = 4096};
    const struct gyre_engine_options options = {
        .loops = LOOPS, .handlers = &handlers, .loop = loop, .user = st, .conns_max = round % 3 == 1 ? 40 : 0};
    st->round = round;
    st->backend = backend;
    MUST(gyre_engine_create(&st->engine, &options) == 0);
    run_all(st);
    MUST(atomic_load(&st->opened) == atomic_load(&st->closed));
    MUST(atomic_load(&st->added) == atomic_load(&st->told_closed));
    MUST(atomic_load(&st->walks) == atomic_load(&st->walks_done));
    MUST(atomic_load(&st->visited) > 0 && atomic_load(&st->parts) % LOOPS == 0);
    (void)atomic_fetch_add(&total_conns, atomic_load(&st->opened));
    (void)atomic_fetch_add(&total_listeners, atomic_load(&st->added));
    (void)atomic_fetch_add(&total_steered, atomic_load(&st->steered));
    (void)atomic_fetch_add(&total_walks, atomic_load(&st->walks));
    free(st);
}

static void round_of(const char *backend)
{
    double start = stress_seconds();
    atomic_store(&total_conns, 0);
    atomic_store(&total_listeners, 0);
    atomic_store(&total_steered, 0);
    atomic_store(&total_walks, 0);
    for (unsigned i = 0; i < ENGINES; i++)
        one_engine(backend, i);
    printf("%s: %d engines of %d loops, %lu connections, %lu listeners steered %lu times, %lu walks, %.1f s\n", backend,
           ENGINES, LOOPS, atomic_load(&total_conns), atomic_load(&total_listeners), atomic_load(&total_steered),
           atomic_load(&total_walks), stress_seconds() - start);
}

int main(int argc, char **argv)
{
    return stress_main(argc, argv, round_of);
}
