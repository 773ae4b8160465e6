/* SPDX-License-Identifier: MIT
 * Connections opened and closed as fast as they will go, with data in flight, byte-exact.
 *
 * An engine of two loops echoes. Two loops of their own, each on a thread, keep some connections open at any time; each
 * sends a random number of bytes of its own stream and compares what comes back. They end in every way: closed when all
 * is back, half-closed and ended by the other side, closed with the echo still coming, aborted in the middle. A
 * connection that was not to be cut short and lost a byte is a failure, and so is a callback too many or too few. */
#include "stress.h"

#include <errno.h>

enum { CLIENT_LOOPS = 2, AT_ONCE = 48, PER_LOOP = 1500, BYTES_MAX = 40000 };

enum ending {
    END_CLOSE,    /* when all is back */
    END_SHUTDOWN, /* half-close after writing; the other side ends it */
    END_EARLY,    /* close with the echo still coming */
    END_ABORT,    /* in the middle */
    ENDINGS
};

struct crowd {
    struct gyre_loop *loop;
    const char *address[2];
    uint64_t seed;
    uint32_t key;
    unsigned started, ended;
    uint64_t bytes;
};

struct one {
    struct crowd *crowd;
    enum ending ending;
    uint32_t key;
    size_t len, got;
    bool opened, cut; /* ended from here before all was back */
    uint8_t *bytes;
    unsigned given_back;
};

/* ---- the echo ---- */

static atomic_ulong opened, closed;

static void on_server_open(struct gyre_conn *c)
{
    (void)c;
    (void)atomic_fetch_add(&opened, 1);
}

static void on_server_data(struct gyre_conn *c)
{
    MUST(gyre_conn_forward(c, c, SIZE_MAX) >= 0);
}

static void on_server_close(struct gyre_conn *c, int err)
{
    (void)c;
    (void)err;
    (void)atomic_fetch_add(&closed, 1);
}

static const struct gyre_conn_handlers server = {.on_open = on_server_open, .on_data = on_server_data,
                                                 .on_close = on_server_close};

/* ---- clients ---- */

static void on_given_back(int err, void *user)
{
    struct one *o = user;
    o->given_back++;
    MUST(err == 0 || o->cut);
    stress_fill(o->bytes, o->len, ~o->key, 0); /* it is ours again: sent from here on it would be found wrong */
}

static void on_open(struct gyre_conn *c)
{
    struct one *o = gyre_conn_user(c);
    MUST(!o->opened);
    o->opened = true;
}

static void on_data(struct gyre_conn *c)
{
    struct one *o = gyre_conn_user(c);
    struct gyre_slice s;
    MUST(o->opened);
    while (gyre_conn_next(&s, c, 0) == 0 && s.len > 0) {
        MUST(stress_is(s.data, s.len, o->key, o->got));
        o->got += s.len;
        MUST(o->got <= o->len);
        if ((o->ending == END_ABORT || o->ending == END_EARLY) && o->got > o->len / 2) {
            o->cut = true;
            MUST((o->ending == END_ABORT ? gyre_conn_abort(c) : gyre_conn_close(c)) == 0);
            return;
        }
    }
    if (o->ending == END_CLOSE && o->got == o->len)
        MUST(gyre_conn_close(c) == 0);
}

static void start_one(struct crowd *crowd);

static void on_close(struct gyre_conn *c, int err)
{
    struct one *o = gyre_conn_user(c);
    struct crowd *crowd = o->crowd;
    MUST(o->opened);
    MUST(o->given_back == 1);
    MUST(o->cut || (err == 0 && o->got == o->len));
    crowd->bytes += o->got;
    crowd->ended++;
    free(o->bytes);
    free(o);
    start_one(crowd);
    if (crowd->ended == PER_LOOP)
        gyre_loop_stop(crowd->loop);
}

static const struct gyre_conn_handlers client = {.on_open = on_open, .on_data = on_data, .on_close = on_close};

static void start_one(struct crowd *crowd)
{
    if (crowd->started == PER_LOOP)
        return;
    struct one *o = calloc(1, sizeof *o);
    MUST(o != NULL);
    o->crowd = crowd;
    o->ending = (enum ending)(stress_random(&crowd->seed) % ENDINGS);
    o->len = 1 + (size_t)(stress_random(&crowd->seed) % BYTES_MAX);
    o->key = crowd->key++;
    o->bytes = malloc(o->len);
    MUST(o->bytes != NULL);
    stress_fill(o->bytes, o->len, o->key, 0);

    const struct gyre_conn_options options = {.user = o};
    struct gyre_conn *c;
    size_t copied = (size_t)(stress_random(&crowd->seed) % o->len);
    MUST(gyre_connect(&c, crowd->loop, crowd->address[crowd->started % 2], &client, &options) == 0);
    MUST(gyre_conn_write(c, o->bytes, copied) == 0);
    MUST(gyre_conn_write_ref(c, o->bytes + copied, o->len - copied, on_given_back, o) == 0);
    if (o->ending == END_SHUTDOWN)
        MUST(gyre_conn_shutdown(c) == 0);
    crowd->started++;
}

static void *run_crowd(void *arg)
{
    struct crowd *crowd = arg;
    for (int i = 0; i < AT_ONCE; i++)
        start_one(crowd);
    MUST(gyre_loop_run(crowd->loop) == 0);
    MUST(gyre_loop_conn_count(crowd->loop) == 0);
    gyre_loop_destroy(crowd->loop);
    return NULL;
}

static void *run_engine(void *arg)
{
    MUST(gyre_engine_run(arg) == 0);
    return NULL;
}

static void round_of(const char *backend)
{
    const struct gyre_loop_options loop = {.backend = backend};
    const struct gyre_engine_options options = {.loops = 2, .loop = loop};
    struct gyre_engine *engine;
    struct gyre_listener *tcp, *local;
    struct crowd crowds[CLIENT_LOOPS];
    pthread_t threads[CLIENT_LOOPS];
    char name[64];
    uint64_t bytes = 0;
    double start = stress_seconds();
    atomic_store(&opened, 0);
    atomic_store(&closed, 0);
    (void)snprintf(name, sizeof name, "unix://@gyre-churn-%d", (int)getpid());
    MUST(gyre_engine_create(&engine, &options) == 0);
    MUST(gyre_engine_listen(&tcp, engine, "tcp://127.0.0.1:0", &server, NULL) == 0);
    MUST(gyre_engine_listen(&local, engine, name, &server, NULL) == 0);
    pthread_t running = stress_thread(run_engine, engine);
    for (uint32_t i = 0; i < CLIENT_LOOPS; i++) {
        crowds[i] = (struct crowd){.address = {gyre_listener_address(tcp), gyre_listener_address(local)},
                                   .seed = i + 1, .key = i * PER_LOOP};
        MUST(gyre_loop_create(&crowds[i].loop, &loop) == 0);
        threads[i] = stress_thread(run_crowd, &crowds[i]);
    }
    for (int i = 0; i < CLIENT_LOOPS; i++) {
        (void)pthread_join(threads[i], NULL);
        bytes += crowds[i].bytes;
    }
    (void)gyre_engine_drain(engine, &(struct gyre_drain_options){.deadline_ns = INT64_C(20000000000)});
    (void)pthread_join(running, NULL);
    gyre_engine_destroy(engine);
    MUST(atomic_load(&opened) == atomic_load(&closed));
    MUST(atomic_load(&opened) == CLIENT_LOOPS * PER_LOOP);
    printf("%s: %lu connections, %.1f MB compared, %.1f s\n", backend, atomic_load(&closed), (double)bytes / 1e6,
           stress_seconds() - start);
}

int main(int argc, char **argv)
{
    return stress_main(argc, argv, round_of);
}
