/* SPDX-License-Identifier: MIT
 * Reading the counters of an engine from other threads while it serves.
 *
 * Four loops echo to clients that live in them. Two readers copy the counters of each loop, of all, and the text for
 * Prometheus, over and over: no counter may go back, no bucket lose what it had. At the end what was queued was sent or
 * dropped, to the byte, and nothing is left in any gauge. */
#include "stress.h"

#include <sched.h>

enum { LOOPS = 4, READERS = 2, CLIENTS = 32, READS = 400, TEXT_MAX = 1 << 18, PIECE = 3000, ROUNDS_MAX = 20 };

struct stage {
    struct gyre_engine *engine;
    char address[128];
    atomic_ulong seen;    /* bytes that handlers saw */
    atomic_ulong readers; /* done */
};

static const char piece[PIECE];

static struct stage *stage_of(const struct gyre_conn *c)
{
    return gyre_loop_user(gyre_conn_loop(c));
}

static void connect_one(struct gyre_loop *loop, void *user);

static void on_server_data(struct gyre_conn *c)
{
    (void)atomic_fetch_add(&stage_of(c)->seen, gyre_conn_inbound(c));
    (void)gyre_conn_forward(c, c, SIZE_MAX);
}

/* Ask again; after some rounds a new connection takes over. */
static void on_client_data(struct gyre_conn *c)
{
    (void)atomic_fetch_add(&stage_of(c)->seen, gyre_conn_inbound(c));
    (void)gyre_conn_discard(c, SIZE_MAX);
    uintptr_t rounds = (uintptr_t)gyre_conn_user(c);
    gyre_conn_set_user(c, (void *)(rounds + 1)); /* a number */
    if (rounds == ROUNDS_MAX)
        (void)gyre_conn_close(c);
    else
        MUST(gyre_conn_write(c, piece, 1 + rounds * 100) == 0);
}

static void on_client_close(struct gyre_conn *c, int err)
{
    (void)err;
    connect_one(gyre_conn_loop(c), stage_of(c));
}

static const struct gyre_conn_handlers server = {.on_data = on_server_data};
static const struct gyre_conn_handlers client = {.on_data = on_client_data, .on_close = on_client_close};

static void connect_one(struct gyre_loop *loop, void *user)
{
    const struct stage *st = user;
    struct gyre_conn *c;
    int err = gyre_connect(&c, loop, st->address, &client, NULL);
    MUST(err == 0 || err == GYRE_ESHUTDOWN);
    if (err == 0)
        MUST(gyre_conn_write(c, "hello", 5) == 0);
}

static void on_boot(struct gyre_engine *engine)
{
    for (uint32_t i = 0; i < CLIENTS; i++)
        MUST(gyre_loop_post(gyre_engine_loop(engine, i % LOOPS), connect_one, gyre_engine_user(engine)) == 0);
}

static const struct gyre_engine_handlers handlers = {.on_boot = on_boot};

/* ---- readers ---- */

static void check_rising(const struct gyre_stats *before, const struct gyre_stats *now)
{
#define COUNTER(field, name, text) MUST(now->field >= before->field);
#define GAUGE(field, name, text) MUST(now->field < UINT64_C(1) << 40);
#define HISTOGRAM(field, name, first, last, unit, text)                                                                \
    MUST(now->field.sum >= before->field.sum);                                                                         \
    for (int i = 0; i < GYRE_HISTOGRAM_BUCKETS; i++)                                                                   \
        MUST(now->field.buckets[i] >= before->field.buckets[i]);
    GYRE_STATS(COUNTER, GAUGE, HISTOGRAM)
#undef COUNTER
#undef GAUGE
#undef HISTOGRAM
}

static void *read_on(void *arg)
{
    struct stage *st = arg;
    struct gyre_stats now, before[LOOPS], all = {0};
    char *text = calloc(1, TEXT_MAX);
    MUST(text != NULL);
    memset(before, 0, sizeof before);
    for (int reads = 0; reads < READS || all.bytes_in < 1000000; reads++) {
        for (uint32_t i = 0; i < LOOPS; i++) {
            gyre_loop_stats(&now, gyre_engine_loop(st->engine, i));
            check_rising(&before[i], &now);
            before[i] = now;
        }
        gyre_engine_stats(&now, st->engine);
        check_rising(&all, &now);
        all = now;
        int64_t len = gyre_engine_prometheus(text, TEXT_MAX, st->engine, NULL, 0);
        MUST(len > 0 && len < TEXT_MAX && strlen(text) == (size_t)len);
        (void)sched_yield();
    }
    free(text);
    if (atomic_fetch_add(&st->readers, 1) == READERS - 1)
        (void)gyre_engine_drain(st->engine, &(struct gyre_drain_options){.deadline_ns = INT64_C(2000000000)});
    return NULL;
}

/* ---- the round ---- */

static void check_end(const struct stage *st, const struct gyre_stats *s)
{
    MUST(s->conns == 0 && s->bytes_outbound == 0 && s->bufs_held == 0 && s->starved == 0 && s->tasks_waiting == 0);
    MUST(s->bytes_queued == s->bytes_out + s->bytes_dropped);
    MUST(s->bytes_in >= atomic_load(&st->seen)); /* what comes while closing, handlers do not see */
    MUST(s->bytes_in == s->recv_bytes.sum);
    MUST(s->events == s->turn_events.sum);
    MUST(s->closed >= s->accepted + s->connected);
}

static void round_of(const char *backend)
{
    double start = stress_seconds();
    struct stage *st = calloc(1, sizeof *st);
    MUST(st != NULL);
    const struct gyre_loop_options loop = {.backend = backend, .user = st};
    const struct gyre_engine_options options = {.loops = LOOPS, .handlers = &handlers, .loop = loop, .user = st};
    struct gyre_listener *listener;
    struct gyre_stats s;
    pthread_t readers[READERS];
    MUST(gyre_engine_create(&st->engine, &options) == 0);
    MUST(gyre_engine_listen(&listener, st->engine, "tcp://127.0.0.1:0", &server, NULL) == 0);
    (void)snprintf(st->address, sizeof st->address, "%s", gyre_listener_address(listener));
    for (int i = 0; i < READERS; i++)
        readers[i] = stress_thread(read_on, st);
    MUST(gyre_engine_run(st->engine) == 0);
    for (int i = 0; i < READERS; i++)
        (void)pthread_join(readers[i], NULL);
    gyre_engine_stats(&s, st->engine);
    check_end(st, &s);
    printf("%s: %llu connections, %llu bytes, %d readings and more by %d readers, %.1f s\n", backend,
           (unsigned long long)s.accepted, (unsigned long long)s.bytes_in, READS, READERS, stress_seconds() - start);
    gyre_engine_destroy(st->engine);
    free(st);
}

int main(int argc, char **argv)
{
    return stress_main(argc, argv, round_of);
}
