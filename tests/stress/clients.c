/* SPDX-License-Identifier: MIT
 * The client's side, from many threads: engines that connect for others, connections that change loops, reconnectors.
 *
 * One engine echoes. Another, without a listener, connects for three threads. Each connection sends a stream of its own
 * and compares what comes back; on the way its descriptor is detached twice and adopted on another loop, with bytes in
 * flight. Every loop has a reconnector, which threads start and stop while the listener it wants comes and goes. The
 * second round stops the engine in the middle: whatever was asked for must still be told of, exactly once. */
#include "stress.h"

#include <errno.h>
#include <sched.h>

enum { LOOPS = 4, CALLERS = 3, EACH = 400, AT_ONCE = 64, BYTES_MAX = 60000, MOVES = 2, FLAPS = 12 };

struct stage {
    struct gyre_engine *server, *client;
    struct gyre_listener *listener;
    char address[128], flapping[128];
    bool abrupt;
    atomic_ulong asked, told, refused, ended, moved, cut;
    atomic_ulong kept_opens, kept_closes;
    atomic_uint boots;
    atomic_bool end;
};

/* One connection's journey, which goes from loop to loop with its descriptor. */
struct one {
    struct stage *st;
    uint32_t key;
    size_t len, got;
    unsigned moves;
    int fd;
};

static struct stage *stage;

/* ---- the echo ---- */

static void on_server_data(struct gyre_conn *c)
{
    int64_t n = gyre_conn_forward(c, c, SIZE_MAX);
    /* A client that is cut may reset while its bytes are still here: then the echo's send has failed, and says so. */
    MUST(n >= 0 || n == -ECONNRESET || n == -EPIPE);
}

static const struct gyre_conn_handlers echo = {.on_data = on_server_data};

/* ---- connections ---- */

static void end_one(struct one *o)
{
    (void)atomic_fetch_add(&o->st->ended, 1);
    free(o);
}

static void take(struct one *o, struct gyre_conn *c)
{
    uint8_t data[4096];
    for (size_t n; (n = gyre_conn_read(data, sizeof data, c)) > 0;) {
        MUST(stress_is(data, n, o->key, o->got));
        o->got += n;
    }
    MUST(o->got <= o->len);
}

static void land(struct gyre_loop *loop, void *user);

static void on_detached(struct gyre_conn *c, int fd, void *user)
{
    struct one *o = user;
    uint32_t next = (o->key + o->moves) % LOOPS;
    take(o, c);
    o->fd = fd;
    o->moves++;
    (void)atomic_fetch_add(&o->st->moved, 1);
    MUST(gyre_loop_post(gyre_engine_loop(o->st->client, next), land, o) == 0);
}

static void on_data(struct gyre_conn *c)
{
    struct one *o = gyre_conn_user(c);
    take(o, c);
    if (o->got == o->len)
        MUST(gyre_conn_close(c) == 0);
    else if (o->moves < MOVES && o->got > o->len / (MOVES + 1) * (o->moves + 1))
        MUST(gyre_conn_detach(c, on_detached, o) == 0);
}

static void on_close(struct gyre_conn *c, int err)
{
    struct one *o = gyre_conn_user(c);
    MUST((err == 0 && o->got == o->len) || o->st->abrupt);
    (void)atomic_fetch_add(&o->st->cut, err != 0);
    end_one(o);
}

static const struct gyre_conn_handlers travelling = {.on_data = on_data, .on_close = on_close};

static void land(struct gyre_loop *loop, void *user)
{
    struct one *o = user;
    const struct gyre_conn_options options = {.user = o};
    struct gyre_conn *c;
    int err = gyre_conn_adopt_fd(&c, loop, o->fd, &travelling, &options);
    if (err != 0) {
        MUST(err == GYRE_ESHUTDOWN && o->st->abrupt);
        (void)close(o->fd);
        end_one(o);
    } else if (o->got == o->len) {
        MUST(gyre_conn_close(c) == 0);
    }
}

static void on_connected(struct gyre_loop *loop, struct gyre_conn *c, int err, void *user)
{
    struct one *o = user;
    struct stage *st = o->st;
    (void)atomic_fetch_add(&st->told, 1);
    if (c == NULL) {
        MUST(err == GYRE_ESHUTDOWN && st->abrupt);
        (void)atomic_fetch_add(&st->refused, 1);
        end_one(o);
        return;
    }
    MUST(gyre_conn_loop(c) == loop);
    uint8_t *bytes = malloc(o->len);
    MUST(bytes != NULL);
    stress_fill(bytes, o->len, o->key, 0);
    MUST(gyre_conn_write(c, bytes, o->len) == 0);
    free(bytes);
}

static void *call(void *arg)
{
    struct stage *st = stage;
    uint64_t seed = (uintptr_t)arg + 1;
    for (unsigned i = 0; i < EACH; i++) {
        while (atomic_load(&st->asked) - atomic_load(&st->ended) > AT_ONCE && !atomic_load(&st->end))
            (void)sched_yield();
        struct one *o = calloc(1, sizeof *o);
        MUST(o != NULL);
        *o = (struct one){.st = st, .key = (uint32_t)stress_random(&seed), .fd = -1};
        o->len = 1 + stress_random(&seed) % BYTES_MAX;
        const struct gyre_conn_options options = {.user = o};
        MUST(gyre_engine_connect(st->client, st->address, &travelling, on_connected, o, &options) == 0);
        (void)atomic_fetch_add(&st->asked, 1);
    }
    return NULL;
}

/* ---- reconnectors ---- */

struct keeper {
    struct gyre_reconnector *reconnector;
};

/* It ends at once, one way or the other, and the next follows. */
static void on_kept_open(struct gyre_conn *c)
{
    if (atomic_fetch_add(&stage->kept_opens, 1) % 2 == 0)
        MUST(gyre_conn_abort(c) == 0);
    else
        MUST(gyre_conn_close(c) == 0);
}

static void on_kept_close(struct gyre_conn *c, int err)
{
    (void)c;
    (void)err;
    (void)atomic_fetch_add(&stage->kept_closes, 1);
}

static const struct gyre_conn_handlers keeping = {
    .on_open = on_kept_open, .on_data = on_server_data, .on_close = on_kept_close};

/* Posted by any thread: made at first, then stopped and started. */
static void poke(struct gyre_loop *loop, void *user)
{
    struct keeper *k = user;
    const struct gyre_reconnector_options options = {.delay_min_ns = 200000, .delay_max_ns = 2000000};
    if (k->reconnector == NULL)
        MUST(gyre_reconnector_create(&k->reconnector, loop, stage->flapping, &keeping, &options) == 0);
    else
        gyre_reconnector_stop(k->reconnector);
    int err = gyre_reconnector_start(k->reconnector);
    MUST(err == 0 || err == GYRE_ESHUTDOWN);
}

static void let_go(struct gyre_loop *loop, void *user)
{
    struct keeper *k = user;
    (void)loop;
    gyre_reconnector_destroy(k->reconnector);
    k->reconnector = NULL;
}

/* ---- a round ---- */

static void on_boot(struct gyre_engine *engine)
{
    (void)engine;
    (void)atomic_fetch_add(&stage->boots, 1);
}

static const struct gyre_engine_handlers told = {.on_boot = on_boot};

static void *serve(void *arg)
{
    MUST(gyre_engine_run(arg) == 0);
    return NULL;
}

static struct gyre_engine *engine_new(const char *backend, uint32_t loops)
{
    const struct gyre_loop_options loop = {.backend = backend};
    const struct gyre_engine_options options = {.loops = loops, .handlers = &told, .loop = loop};
    struct gyre_engine *engine;
    MUST(gyre_engine_create(&engine, &options) == 0);
    return engine;
}

static void on_flapped(void *user)
{
    atomic_store((atomic_bool *)user, true);
}

static struct gyre_listener *listen_at(const char *address, atomic_bool *closed)
{
    struct gyre_listener *l;
    const struct gyre_listener_options options = {.on_closed = closed != NULL ? on_flapped : NULL, .user = closed};
    MUST(gyre_engine_listen(&l, stage->server, address, &echo, &options) == 0);
    return l;
}

/* The listener that the reconnectors want comes and goes; each time it is there, somebody connects. */
static void flap(struct stage *st, struct keeper *keepers)
{
    for (unsigned i = 0; i < FLAPS; i++) {
        atomic_bool closed = false;
        struct gyre_listener *l = listen_at(st->flapping, &closed);
        unsigned long before = atomic_load(&st->kept_opens);
        for (unsigned k = 0; k < LOOPS; k++)
            MUST(gyre_loop_post(gyre_engine_loop(st->client, k), poke, &keepers[k]) == 0);
        while (atomic_load(&st->kept_opens) == before)
            (void)sched_yield();
        gyre_listener_close(l);
        while (!atomic_load(&closed))
            (void)sched_yield();
    }
}

static void check(const char *backend, const struct stage *st)
{
    MUST(st->told == st->asked && st->asked == CALLERS * EACH);
    MUST(st->ended == st->asked);
    MUST(st->kept_opens > 0 && st->kept_opens <= st->kept_closes);
    MUST(st->abrupt || (st->refused == 0 && st->cut == 0 && st->moved > 0));
    printf("%s: %lu connections made for other threads, %lu changes of loop, %lu told of the end, %lu cut; "
           "%lu connections of reconnectors\n",
           backend, st->asked, st->moved, st->refused, st->cut, st->kept_opens);
}

static void once(const char *backend, bool abrupt)
{
    static struct stage stages[8];
    static unsigned used;
    struct stage *st = stage = &stages[used++];
    struct keeper keepers[LOOPS] = {{.reconnector = NULL}};
    pthread_t callers[CALLERS];
    st->abrupt = abrupt;
    st->server = engine_new(backend, 2);
    st->client = engine_new(backend, LOOPS);
    st->listener = listen_at("tcp://127.0.0.1:0", NULL);
    (void)snprintf(st->address, sizeof st->address, "%s", gyre_listener_address(st->listener));
    (void)snprintf(st->flapping, sizeof st->flapping, "unix://@gyre-flap-%d-%u", (int)getpid(), used);
    pthread_t server = stress_thread(serve, st->server), client = stress_thread(serve, st->client);
    while (atomic_load(&st->boots) < 2)
        (void)sched_yield();
    for (uintptr_t i = 0; i < CALLERS; i++)
        callers[i] = stress_thread(call, (void *)i);
    flap(st, keepers);
    for (unsigned k = 0; k < LOOPS; k++)
        MUST(gyre_loop_post(gyre_engine_loop(st->client, k), let_go, &keepers[k]) == 0);
    while (atomic_load(&st->ended) < (abrupt ? EACH / 2 : CALLERS * EACH))
        (void)sched_yield();
    atomic_store(&st->end, true);
    gyre_engine_stop(st->client);
    for (unsigned i = 0; i < CALLERS; i++)
        (void)pthread_join(callers[i], NULL);
    (void)pthread_join(client, NULL);
    gyre_engine_destroy(st->client);
    (void)gyre_engine_drain(st->server, &(struct gyre_drain_options){.deadline_ns = INT64_C(5000000000)});
    (void)pthread_join(server, NULL);
    gyre_engine_destroy(st->server);
    check(backend, st);
}

static void round_with(const char *backend)
{
    once(backend, false);
    once(backend, true);
}

int main(int argc, char **argv)
{
    return stress_main(argc, argv, round_with);
}
