/* SPDX-License-Identifier: MIT
 * Two hundred clients in every state that a peer can be in, against an echo, a relay and a framed server.
 *
 * First they act, for a time, while a client that behaves well sends and compares: each of its round trips ends. Now
 * and then all are stopped where they are. Then the loops must come to rest: a few turns a second, next to no processor
 * time, no thread that the kernel made for a ring, and memory that has not grown since the first time.
 *
 * Then one server after the other is stopped, drained or destroyed at a random moment under such clients: each returns
 * soon, every connection that opened has closed, and no memory is left.
 *
 * What is fast depends on the machine and is only printed, but for generous limits. GYRE_STRESS_SECONDS: how long the
 * clients act with each backend, default 4. From 30 on, 100 servers are ended instead of 15, and each must end within a
 * second. GYRE_STRESS_SEED: what is random; printed. */
#include "hostile_clients.h"

#include <dirent.h>
#include <fcntl.h>
#include <gyre/stats.h>
#include <sys/resource.h>

enum {
    LONG_S = 30,            /* GYRE_STRESS_SECONDS of a long run */
    TRIES = 15,             /* servers that are ended */
    TRIES_LONG = 100,
    ANSWER_S = 10,          /* the longest round trip of a good client */
    TRIPS_MIN = 20,         /* that it makes, however slow the machine is */
    ACT_MS = 800,           /* between two stops, with the clients acting */
    WINDOW_MS = 500,        /* of being stopped: so long nothing may move */
    WINDOWS = 30,           /* at most, until nothing does */
    TURNS_PER_S = 20,       /* of each loop, at rest */
    CPU_PERCENT = 20,       /* of one processor, at rest, with all threads of this program */
    MESSAGE_MAX = 4000,
    FILES = 4096,
    MEMORY_MAX = 48 << 20,  /* of the library; the most seen was 14 MB */
    GROWTH_MAX = 96 << 20,  /* of the program, between the first rest and the last */
};

/* ThreadSanitizer keeps memory of its own for every address that was touched. */
#ifdef __SANITIZE_THREAD__
static const bool counts_growth = false;
#else
static const bool counts_growth = true;
#endif

/* AddressSanitizer keeps freed memory for a while, 256 MiB of it by default, which would look like growth. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
    return "quarantine_size_mb=16";
}

/* ---- The client that behaves well ---- */

struct good {
    const struct server *server;
    struct gate *gate;
    atomic_bool over;
    uint64_t random;
    unsigned long trips, count_below_ms[16]; /* by powers of two */
    double slowest_s;
    pthread_t thread;
};

static void exchange(int fd, uint8_t *bytes, size_t len, bool sends)
{
    for (size_t done = 0; done < len;) {
        ssize_t n = sends ? send(fd, bytes + done, len - done, MSG_NOSIGNAL) : recv(fd, bytes + done, len - done, 0);
        MUST(n > 0 || (n < 0 && errno == EINTR)); /* -EAGAIN: ANSWER_S have passed */
        done += n > 0 ? (size_t)n : 0;
    }
}

static void round_trip(struct good *good, int fd, bool framed)
{
    uint8_t sent[4 + MESSAGE_MAX], got[4 + MESSAGE_MAX];
    uint32_t len = 1 + (uint32_t)(stress_random(&good->random) % MESSAGE_MAX), key = (uint32_t)good->random;
    const uint8_t *from = sent + (framed ? 0 : 4);
    size_t all = len + (framed ? 4 : 0);
    double start = stress_seconds();
    sent[0] = sent[1] = 0;
    sent[2] = (uint8_t)(len >> 8);
    sent[3] = (uint8_t)len;
    stress_fill(sent + 4, len, key, 0);
    exchange(fd, (uint8_t *)(uintptr_t)from, all, true);
    exchange(fd, got, all, false);
    MUST(memcmp(from, got, all) == 0);
    double took = stress_seconds() - start;
    unsigned bucket = 0;
    while (bucket < 15 && took * 1000 > (double)(1u << bucket))
        bucket++;
    good->count_below_ms[bucket]++;
    good->slowest_s = took > good->slowest_s ? took : good->slowest_s;
    good->trips++;
}

static bool good_goes_on(const struct good *good)
{
    return !atomic_load(&good->over) || good->trips < TRIPS_MIN;
}

/* A connection of a few round trips, then the next. */
static void *good_run(void *arg)
{
    struct good *good = arg;
    const struct timeval limit = {.tv_sec = ANSWER_S};
    while (good_goes_on(good)) {
        enum service service = (enum service)(stress_random(&good->random) % SERVICES);
        int fd = dial(good->server->addresses[service][stress_random(&good->random) % 2], true);
        MUST(fd >= 0);
        MUST(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) == 0);
        MUST(setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit) == 0);
        for (unsigned i = 0; i < 20 && good_goes_on(good); i++) {
            gate_pass(good->gate);
            round_trip(good, fd, service == FRAMED);
            rest_ms(1);
        }
        (void)close(fd);
    }
    return NULL;
}

static double good_percentile_ms(const struct good *good, double share)
{
    unsigned long count = 0;
    for (unsigned i = 0; i < 16; i++)
        if ((double)(count += good->count_below_ms[i]) >= share * (double)good->trips)
            return (double)(1u << i);
    return 0;
}

/* ---- What the program takes ---- */

static unsigned kernel_workers(void)
{
    unsigned count = 0;
    DIR *dir = opendir("/proc/self/task");
    const struct dirent *entry;
    while (dir != NULL && (entry = readdir(dir)) != NULL) {
        char path[64 + sizeof entry->d_name], name[32] = "";
        (void)snprintf(path, sizeof path, "/proc/self/task/%s/comm", entry->d_name);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
            continue;
        (void)!read(fd, name, sizeof name - 1);
        (void)close(fd);
        count += strncmp(name, "iou-wrk", 7) == 0;
    }
    if (dir != NULL)
        (void)closedir(dir);
    return count;
}

static long resident_bytes(void)
{
    long pages = 0;
    FILE *file = fopen("/proc/self/statm", "re");
    if (file != NULL && fscanf(file, "%*d %ld", &pages) != 1)
        pages = 0;
    if (file != NULL)
        (void)fclose(file);
    return pages * sysconf(_SC_PAGESIZE);
}

static double cpu_seconds(void)
{
    struct timespec ts;
    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* ---- Rest ---- */

struct rest {
    double turns_per_s, idle_rearms_per_s, cpu_percent;
    uint64_t conns; /* open meanwhile, the fewest */
};

static struct rest measure(struct server *server)
{
    struct gyre_stats before[LOOPS], after;
    struct rest rest = {.turns_per_s = 0};
    for (unsigned i = 0; i < LOOPS; i++)
        gyre_loop_stats(&before[i], gyre_engine_loop(server->engine, i));
    double start = stress_seconds(), cpu = cpu_seconds();
    rest_ms(WINDOW_MS);
    double took = stress_seconds() - start;
    rest.cpu_percent = 100 * (cpu_seconds() - cpu) / took;
    for (unsigned i = 0; i < LOOPS; i++) {
        gyre_loop_stats(&after, gyre_engine_loop(server->engine, i));
        double turns = (double)(after.turns - before[i].turns) / took;
        double rearms = (double)(after.rearms_idle - before[i].rearms_idle) / took;
        rest.turns_per_s = turns > rest.turns_per_s ? turns : rest.turns_per_s;
        rest.idle_rearms_per_s = rearms > rest.idle_rearms_per_s ? rearms : rest.idle_rearms_per_s;
    }
    return rest;
}

/* Everybody has stopped. What is under way ends, closes that linger give up, and then nothing moves. */
static void come_to_rest(struct server *server, struct rest *worst)
{
    struct rest rest = {.turns_per_s = 0};
    for (unsigned i = 0; i < WINDOWS; i++) {
        rest = measure(server);
        uint64_t conns = gyre_engine_conn_count(server->engine);
        if (rest.turns_per_s <= TURNS_PER_S && rest.cpu_percent <= CPU_PERCENT) {
            worst->turns_per_s = rest.turns_per_s > worst->turns_per_s ? rest.turns_per_s : worst->turns_per_s;
            worst->cpu_percent = rest.cpu_percent > worst->cpu_percent ? rest.cpu_percent : worst->cpu_percent;
            worst->conns = conns < worst->conns ? conns : worst->conns;
            return;
        }
    }
    (void)fprintf(stderr, "no rest: %.0f turns, %.0f idle rearms a second, %.0f %% of a processor\n", rest.turns_per_s,
                  rest.idle_rearms_per_s, rest.cpu_percent);
    MUST(!"the loops do not come to rest");
}

/* ---- Serving ---- */

static void *run_server(void *arg)
{
    struct server *server = arg;
    MUST((server->engine != NULL ? gyre_engine_run(server->engine) : gyre_loop_run(server->loop)) == 0);
    while (server->engine == NULL && !atomic_load(&server->may_go))
        rest_ms(1);
    if (server->engine == NULL)
        MUST(gyre_loop_destroy(server->loop) == 0);
    return NULL;
}

static void act_and_rest(struct server *server, struct gate *gate, double seconds, struct rest *worst, long *growth)
{
    double end = stress_seconds() + seconds;
    for (long first = 0; first == 0 || stress_seconds() < end;) {
        for (unsigned ms = 0; ms < ACT_MS; ms += 50) {
            rest_ms(50);
            MUST(kernel_workers() == 0);
        }
        atomic_store(&gate->shut, true);
        while (atomic_load(&gate->waiting) < 2)
            rest_ms(GATE_MS);
        come_to_rest(server, worst);
        MUST(kernel_workers() == 0);
        long now = resident_bytes();
        first = first == 0 ? now : first;
        *growth = now - first > *growth ? now - first : *growth;
        atomic_store(&gate->shut, false);
        while (atomic_load(&gate->waiting) > 0)
            rest_ms(GATE_MS);
        (void)alarm(STRESS_LIMIT_S);
    }
}

static void serve(const char *backend, double seconds, uint64_t seed)
{
    struct server *server = server_open(backend, true);
    struct gate gate = {.shut = false};
    struct good good = {.server = server, .gate = &gate, .random = seed};
    struct rest worst = {.conns = UINT64_MAX};
    long growth = 0;
    double start = stress_seconds(), cpu = cpu_seconds();
    pthread_t thread = stress_thread(run_server, server);
    struct crowd *crowd = crowd_open(server, &gate, seed);
    good.thread = stress_thread(good_run, &good);
    act_and_rest(server, &gate, seconds, &worst, &growth);
    atomic_store(&good.over, true);
    MUST(pthread_join(good.thread, NULL) == 0);
    for (unsigned state = 0; state < STATES; state++)
        MUST(atomic_load(&crowd->met[state]) > 0);
    unsigned long clients = atomic_load(&crowd->made);
    crowd_close(crowd);
    gyre_engine_stop(server->engine);
    MUST(pthread_join(thread, NULL) == 0);
    gyre_engine_destroy(server->engine);
    double took = stress_seconds() - start;
    printf("%s: %lu clients, %lu connections in %.1f s with %.0f %% of a processor; at rest %lu connections, %.0f "
           "turns a second, %.1f %% of a processor; the library had %.1f MB, the program grew by %.1f MB\n",
           backend, clients, atomic_load(&server->opened), took, 100 * (cpu_seconds() - cpu) / took,
           (unsigned long)worst.conns, worst.turns_per_s, worst.cpu_percent,
           (double)atomic_load(&server->memory_most) / 1e6, (double)growth / 1e6);
    printf("%s: %lu good round trips, half of them within %.0f ms, 99 %% within %.0f ms, the slowest took %.0f ms\n",
           backend, good.trips, good_percentile_ms(&good, 0.5), good_percentile_ms(&good, 0.99),
           good.slowest_s * 1000);
    MUST(good.slowest_s < ANSWER_S);
    MUST(atomic_load(&server->memory_most) < MEMORY_MAX);
    MUST(!counts_growth || growth < GROWTH_MAX);
    server_free(server);
}

/* ---- Ending ---- */

enum way { STOP, DRAIN, DRAIN_THEN_STOP, DESTROY, WAYS };

static const char *const way_names[] = {"stop", "drain", "drain and stop", "loop destroyed"};

/* Returns how long the end takes, less what the drain was given. */
static double end_one(const char *backend, enum way way, uint64_t *random)
{
    struct server *server = server_open(backend, way != DESTROY);
    struct crowd *crowd = crowd_open(server, NULL, stress_random(random));
    pthread_t thread = stress_thread(run_server, server);
    unsigned given_ms = way == DRAIN ? (unsigned)(stress_random(random) % 200) : 0;
    rest_ms((unsigned)(stress_random(random) % 120));
    double start = stress_seconds();
    if (way == DESTROY)
        gyre_loop_stop(server->loop);
    else if (way == STOP)
        gyre_engine_stop(server->engine);
    else
        (void)gyre_engine_drain(server->engine, &(struct gyre_drain_options){
                                                    .deadline_ns = way == DRAIN ? 1 + given_ms * INT64_C(1000000)
                                                                                : INT64_C(60000000000)});
    if (way == DRAIN_THEN_STOP) {
        rest_ms(given_ms = (unsigned)(stress_random(random) % 50));
        gyre_engine_stop(server->engine);
    }
    atomic_store(&server->may_go, true);
    MUST(pthread_join(thread, NULL) == 0);
    gyre_engine_destroy(server->engine);
    double took = stress_seconds() - start - given_ms / 1000.0;
    MUST(kernel_workers() == 0);
    crowd_close(crowd);
    server_free(server);
    return took;
}

static void end_many(const char *backend, bool is_long, uint64_t seed)
{
    double slowest[WAYS] = {0};
    uint64_t random = seed;
    for (unsigned i = 0; i < (is_long ? TRIES_LONG : TRIES); i++) {
        enum way way = (enum way)(i % WAYS);
        double took = end_one(backend, way, &random);
        slowest[way] = took > slowest[way] ? took : slowest[way];
        if (took > (is_long ? 1 : 10))
            (void)fprintf(stderr, "%s: try %u: %s took %.3f s\n", backend, i, way_names[way], took);
        MUST(took <= (is_long ? 1 : 10));
        (void)alarm(STRESS_LIMIT_S);
    }
    printf("%s: %d ends, the slowest:", backend, is_long ? TRIES_LONG : TRIES);
    for (enum way way = STOP; way < WAYS; way++)
        printf("%s %s %.0f ms", way == STOP ? "" : ",", way_names[way], slowest[way] * 1000);
    printf("\n");
}

/* ---- The program ---- */

static uint64_t number_from(const char *name, uint64_t otherwise)
{
    const char *given = getenv(name);
    return given != NULL ? strtoull(given, NULL, 10) : otherwise;
}

static void run(const char *backend)
{
    uint64_t seed = number_from("GYRE_STRESS_SEED", (uint64_t)(stress_seconds() * 1e9));
    uint64_t seconds = number_from("GYRE_STRESS_SECONDS", 4);
    printf("%s: seed %llu\n", backend, (unsigned long long)seed);
    (void)fflush(stdout);
    serve(backend, (double)seconds, seed);
    (void)fflush(stdout);
    end_many(backend, seconds >= LONG_S, seed);
    (void)fflush(stdout);
}

int main(int argc, char **argv)
{
    struct rlimit files;
    MUST(getrlimit(RLIMIT_NOFILE, &files) == 0);
    files.rlim_cur = files.rlim_max < FILES ? files.rlim_max : FILES;
    MUST(setrlimit(RLIMIT_NOFILE, &files) == 0);
    return stress_main(argc, argv, run);
}
