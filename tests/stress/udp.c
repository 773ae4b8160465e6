/* SPDX-License-Identifier: MIT
 * Datagram sockets that other threads send with and close, while an engine of three loops serves.
 *
 * Three kinds of sockets: the engine's servers, which answer from the receive buffer; talkers, one on each loop, bound
 * and open to the end; and clients, connected, which other threads close and which are followed by the next. Writers
 * know all of them only by their ids, of which those of clients are stale sooner or later. Each byte that comes must be
 * one that was sent, and in its place.
 *
 * In every second engine the writers come to their end first. Then each datagram that a lasting socket was to send must
 * be in its counters: sent, refused, failed or dropped. In the others the engine is stopped while they write. */
#include "stress.h"

#include <errno.h>
#include <sched.h>
#include <sys/socket.h>

enum {
    LOOPS = 3,
    WRITERS = 3,
    ENGINES = 6,
    SENDS = 4000, /* of each writer */
    IDS = 32,
    CLIENTS = 8, /* on each loop */
    SIZE_MAX_SENT = 1400,
    HEAD = 8, /* what it is, and its key */
    ASK = 1,
    ANSWER = 2, /* is not answered itself */
};

struct stage;

/* A socket that is there to the end, and what was asked of it. */
struct lasting {
    struct stage *stage;
    struct gyre_udp_id id;
    bool answers;
    struct sockaddr_storage address;
    socklen_t address_len;
    atomic_ulong accepted; /* sends, of writers and as answers */
    struct gyre_udp_counts stats;
    atomic_bool closed;
};

struct stage {
    struct gyre_engine *engine;
    struct gyre_loop *loops[LOOPS];
    char address[128]; /* of the servers */
    struct lasting servers[LOOPS], talkers[LOOPS];
    unsigned server_count;
    pthread_mutex_t lock; /* of the ids of clients: an id is three words */
    struct gyre_udp_id ids[IDS];
    unsigned id_count;
    atomic_uint boots;
    atomic_bool begun, end;
    atomic_ulong opened, closed, received, answered, tried, writes;
    unsigned round;
};

static atomic_ulong total_received, total_writes, total_clients;

static void fill(uint8_t *bytes, size_t len, uint8_t what, uint32_t key)
{
    memset(bytes, 0, HEAD);
    bytes[0] = what;
    memcpy(bytes + 4, &key, sizeof key);
    stress_fill(bytes + HEAD, len - HEAD, key, 0);
}

static bool is_whole(const uint8_t *bytes, size_t len)
{
    uint32_t key;
    if (len < HEAD || (bytes[0] != ASK && bytes[0] != ANSWER))
        return false;
    memcpy(&key, bytes + 4, sizeof key);
    return stress_is(bytes + HEAD, len - HEAD, key, 0);
}

/* ---- lasting sockets ---- */

/* The servers have one `user`: which of them it is says the loop. */
static struct lasting *lasting_of(struct gyre_udp *u)
{
    struct lasting *all = gyre_udp_user(u);
    struct stage *st = all->stage;
    for (unsigned i = 0; i < LOOPS; i++)
        if (gyre_udp_loop(u) == st->loops[i])
            return &all[i];
    MUST(false);
    return NULL;
}

/* Only what asks is answered, and not what comes from a server: sockets that share an address would answer themselves.
 */
static void on_lasting_datagram(struct gyre_udp *u, const struct gyre_datagram *d)
{
    struct lasting *s = lasting_of(u);
    struct lasting *first = &s->stage->servers[0];
    MUST(is_whole(d->data.data, d->data.len));
    (void)atomic_fetch_add(&s->stage->received, 1);
    if (!s->answers || d->data.data[0] != ASK || d->peer == NULL ||
        (d->peer_len == first->address_len && memcmp(d->peer, &first->address, d->peer_len) == 0))
        return;
    int err = gyre_udp_reply(u, d, d->data.data, d->data.len);
    MUST(err == 0 || err == -EAGAIN);
    (void)atomic_fetch_add(&s->accepted, 1);
    (void)atomic_fetch_add(&s->stage->answered, 1);
}

static void on_lasting_close(struct gyre_udp *u, int err)
{
    struct lasting *s = lasting_of(u);
    MUST(err == 0 || err == GYRE_ESHUTDOWN || err == GYRE_ETIMEOUT);
    gyre_udp_stats(&s->stats, u);
    MUST(!atomic_exchange(&s->closed, true));
}

static const struct gyre_udp_handlers lasting = {.on_datagram = on_lasting_datagram, .on_close = on_lasting_close};

static void note_lasting(struct lasting *s, struct gyre_udp *u)
{
    s->id = gyre_udp_id_of(u);
    MUST(gyre_udp_local_address(&s->address, &s->address_len, u) == 0);
}

/* ---- clients ---- */

static void open_client(struct gyre_loop *loop, struct stage *st);

static void on_client_datagram(struct gyre_udp *u, const struct gyre_datagram *d)
{
    struct stage *st = gyre_udp_user(u);
    MUST(is_whole(d->data.data, d->data.len));
    if (atomic_fetch_add(&st->received, 1) % 256 == 255)
        MUST(gyre_udp_close(u) == 0);
}

static void on_client_close(struct gyre_udp *u, int err)
{
    struct stage *st = gyre_udp_user(u);
    MUST(err == 0 || err == GYRE_ESHUTDOWN || err == GYRE_ETIMEOUT);
    (void)atomic_fetch_add(&st->closed, 1);
    open_client(gyre_udp_loop(u), st);
}

static const struct gyre_udp_handlers client = {.on_datagram = on_client_datagram, .on_close = on_client_close};

/* Until the loop says that it is ending, or nobody is there to be connected to. */
static void open_client(struct gyre_loop *loop, struct stage *st)
{
    uint8_t hello[64];
    struct gyre_udp *u;
    const struct gyre_udp_options options = {.user = st, .send_queue_max_count = 64};
    int err = gyre_udp_connect(&u, loop, st->address, &client, &options);
    MUST(err == 0 || err == GYRE_ESHUTDOWN || err == -ECONNREFUSED);
    if (err != 0)
        return;
    uint32_t key = (uint32_t)atomic_fetch_add(&st->opened, 1);
    fill(hello, sizeof hello, ASK, key);
    MUST(gyre_udp_send(u, hello, sizeof hello) == 0);
    (void)pthread_mutex_lock(&st->lock);
    st->ids[st->id_count++ % IDS] = gyre_udp_id_of(u);
    (void)pthread_mutex_unlock(&st->lock);
}

static void start_clients(struct gyre_loop *loop, void *user)
{
    struct stage *st = user;
    for (int i = 0; i < CLIENTS; i++)
        open_client(loop, st);
    (void)atomic_fetch_add(&st->boots, 1);
}

static void on_boot(struct gyre_engine *engine)
{
    struct stage *st = gyre_engine_user(engine);
    MUST(gyre_engine_post_all(engine, start_clients, NULL, st) == 0);
    atomic_store(&st->begun, true);
}

static const struct gyre_engine_handlers handlers = {.on_boot = on_boot};

/* ---- other threads ---- */

static struct lasting *any_lasting(struct stage *st, uint64_t *seed)
{
    uint64_t which = stress_random(seed) % (LOOPS + st->server_count);
    return which < LOOPS ? &st->talkers[which] : &st->servers[which - LOOPS];
}

static void count_write(struct stage *st, atomic_ulong *accepted, int err)
{
    MUST(err == 0 || err == -EAGAIN);
    if (err != 0)
        return;
    (void)atomic_fetch_add(&st->writes, 1);
    if (accepted != NULL)
        (void)atomic_fetch_add(accepted, 1);
}

/* Between lasting sockets, anyone to anyone. */
static void write_lasting(struct stage *st, uint64_t *seed, uint8_t *bytes, size_t len)
{
    struct lasting *from = any_lasting(st, seed), *to = any_lasting(st, seed);
    fill(bytes, len, from->answers ? ANSWER : ASK, (uint32_t)stress_random(seed));
    int err = gyre_udp_id_send(from->id, (const struct sockaddr *)&to->address, to->address_len, bytes, len);
    count_write(st, &from->accepted, err);
}

static void write_client(struct stage *st, uint64_t *seed, uint8_t *bytes, size_t len)
{
    struct gyre_udp_id id;
    (void)pthread_mutex_lock(&st->lock);
    unsigned count = st->id_count < IDS ? st->id_count : IDS;
    if (count > 0)
        id = st->ids[stress_random(seed) % count];
    (void)pthread_mutex_unlock(&st->lock);
    if (count == 0)
        return;
    fill(bytes, len, ASK, (uint32_t)stress_random(seed));
    if (stress_random(seed) % 32 == 0) {
        int err = gyre_udp_id_close(id);
        MUST(err == 0 || err == -EAGAIN);
    } else {
        count_write(st, NULL, gyre_udp_id_send(id, NULL, 0, bytes, len));
    }
}

static void *write_all(void *arg)
{
    struct stage *st = arg;
    uint64_t seed = (uint64_t)(uintptr_t)&seed ^ st->round;
    uint8_t bytes[SIZE_MAX_SENT];
    struct sockaddr_storage parsed;
    struct gyre_stats stats;
    socklen_t parsed_len;
    for (int i = 0; i < SENDS && !atomic_load(&st->end); i++) {
        size_t len = HEAD + stress_random(&seed) % (sizeof bytes - HEAD + 1);
        (void)atomic_fetch_add(&st->tried, 1);
        if (stress_random(&seed) % 2 == 0)
            write_lasting(st, &seed, bytes, len);
        else
            write_client(st, &seed, bytes, len);
        if (i % 64 == 0) {
            MUST(gyre_udp_parse(&parsed, &parsed_len, st->address) == 0);
            gyre_loop_stats(&stats, st->loops[i / 64 % LOOPS]);
            (void)sched_yield();
        }
    }
    return NULL;
}

static void nothing(struct gyre_loop *loop, void *user)
{
    (void)loop;
    (void)user;
}

static void tasks_have_run(struct gyre_engine *engine, void *user)
{
    (void)user;
    (void)gyre_engine_drain(engine, &(struct gyre_drain_options){.deadline_ns = INT64_C(10000000000)});
}

/* When nobody writes any more, what was posted has run once a task that follows it has: then the engine drains. */
static void end_gently(struct stage *st)
{
    int err;
    while ((err = gyre_engine_post_all(st->engine, nothing, tasks_have_run, st)) == -EAGAIN)
        (void)sched_yield();
    MUST(err == 0);
}

static void *end_it(void *arg)
{
    struct stage *st = arg;
    pthread_t writers[WRITERS];
    while (!atomic_load(&st->begun)) /* or the writers' tasks would leave no room for that of on_boot() */
        (void)sched_yield();
    for (int i = 0; i < WRITERS; i++)
        writers[i] = stress_thread(write_all, st);
    if (st->round % 2 == 1) {
        while (atomic_load(&st->tried) < WRITERS * SENDS / 2 || atomic_load(&st->boots) < LOOPS)
            (void)sched_yield();
        gyre_engine_stop(st->engine);
        atomic_store(&st->end, true);
    }
    for (int i = 0; i < WRITERS; i++)
        (void)pthread_join(writers[i], NULL);
    if (st->round % 2 == 0)
        end_gently(st);
    return NULL;
}

/* ---- rounds ---- */

static void open_all(struct stage *st, const char *address)
{
    struct gyre_udp_id ids[LOOPS];
    struct gyre_udp *u;
    for (unsigned i = 0; i < LOOPS; i++) {
        st->loops[i] = gyre_engine_loop(st->engine, i);
        st->servers[i] = (struct lasting){.stage = st, .answers = true};
        st->talkers[i] = (struct lasting){.stage = st};
    }
    const struct gyre_udp_options serving = {.user = st->servers}, talking = {.user = st->talkers};
    MUST(gyre_engine_listen_udp(ids, st->engine, address, &lasting, &serving) == 0);
    for (unsigned i = 0; i < LOOPS && ids[i].loop != NULL; i++, st->server_count++)
        note_lasting(&st->servers[i], gyre_udp_from_id(ids[i]));
    (void)snprintf(st->address, sizeof st->address, "%s", gyre_udp_address(gyre_udp_from_id(ids[0])));
    for (unsigned i = 0; i < LOOPS; i++) {
        char own[128];
        (void)snprintf(own, sizeof own, st->server_count < LOOPS ? "%s-talker-%u" : "%s", address, i);
        MUST(gyre_udp_open(&u, st->loops[i], own, &lasting, &talking) == 0);
        note_lasting(&st->talkers[i], u);
    }
}

/* With everything posted before the end, nothing that was to be sent is missing; else at least nothing is invented. */
static void settle_up(const struct stage *st, const struct lasting *s)
{
    const struct gyre_udp_counts *stats = &s->stats;
    uint64_t done = stats->sent + stats->send_refused + stats->send_errors + stats->send_dropped;
    MUST(atomic_load(&s->closed));
    MUST(st->round % 2 == 1 ? done <= atomic_load(&s->accepted) : done == atomic_load(&s->accepted));
}

static void one_engine(const char *backend, unsigned round)
{
    static const char *const udp[] = {"udp://127.0.0.1:0", "udp://[::1]:0"};
    struct stage *st = calloc(1, sizeof *st);
    MUST(st != NULL);
    const struct gyre_loop_options loop = {.backend = backend, .tasks_max = 512};
    const struct gyre_engine_options options = {.loops = LOOPS, .handlers = &handlers, .loop = loop, .user = st};
    char name[64];
    st->round = round;
    (void)snprintf(name, sizeof name, "unixgram://@gyre-stress-udp-%d-%u", (int)getpid(), round);
    MUST(pthread_mutex_init(&st->lock, NULL) == 0);
    MUST(gyre_engine_create(&st->engine, &options) == 0);
    open_all(st, round % 3 == 2 ? name : udp[round % 3]);
    pthread_t ender = stress_thread(end_it, st);
    MUST(gyre_engine_run(st->engine) == 0);
    (void)pthread_join(ender, NULL);
    gyre_engine_destroy(st->engine);
    MUST(atomic_load(&st->opened) == atomic_load(&st->closed));
    MUST(atomic_load(&st->received) > 0 && atomic_load(&st->answered) > 0);
    for (unsigned i = 0; i < LOOPS; i++)
        settle_up(st, &st->talkers[i]);
    for (unsigned i = 0; i < st->server_count; i++)
        settle_up(st, &st->servers[i]);
    (void)atomic_fetch_add(&total_received, atomic_load(&st->received));
    (void)atomic_fetch_add(&total_writes, atomic_load(&st->writes));
    (void)atomic_fetch_add(&total_clients, atomic_load(&st->opened));
    (void)pthread_mutex_destroy(&st->lock);
    free(st);
}

static void round_of(const char *backend)
{
    double start = stress_seconds();
    atomic_store(&total_received, 0);
    atomic_store(&total_writes, 0);
    atomic_store(&total_clients, 0);
    for (unsigned i = 0; i < ENGINES; i++)
        one_engine(backend, i);
    printf("%s: %d engines of %d loops, %lu clients, %lu sends from other threads, %lu datagrams compared, %.1f s\n",
           backend, ENGINES, LOOPS, atomic_load(&total_clients), atomic_load(&total_writes),
           atomic_load(&total_received), stress_seconds() - start);
}

int main(int argc, char **argv)
{
    return stress_main(argc, argv, round_of);
}
