/* SPDX-License-Identifier: MIT
 * What many timers and many connections cost the library itself, without a peer that measures along. The one program
 * here that links gyre: it looks at no other server, and its connections are of the simulator, which needs no
 * descriptors. scale.py calls it.
 *
 * usage: gyre-scale timers COUNT | connections COUNT
 *
 * timers: starts COUNT timers within a minute, starts them all again, stops them, on a real loop; then lets COUNT
 * timers expire within ten seconds of a simulated clock. connections: COUNT connections, two ends each, that exchange
 * 1 KiB. Prints one JSON object.
 * Memory is what the library asked its memory hook for, with what the allocator rounds up. */
#include <gyre.h>
#include <gyre/sim.h>

#include <errno.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { COUNT_MAX = 1000000, CONNECTIONS_MAX = 500000, EXCHANGE_BYTES = 1024, AT_ONCE = 256 };

static size_t held_bytes;

/* ---- small things ---- */

static void *counted_resize(void *ptr, size_t size_bytes, void *user)
{
    (void)user;
    size_t before = ptr != NULL ? malloc_usable_size(ptr) : 0;
    if (size_bytes == 0) {
        free(ptr);
        held_bytes -= before;
        return NULL;
    }
    void *made = realloc(ptr, size_bytes);
    if (made != NULL)
        held_bytes += malloc_usable_size(made) - before;
    return made;
}

static const struct gyre_mem counted = {.resize = counted_resize};

static double now_ns(void)
{
    struct timespec ts;
    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
    return (double)ts.tv_sec * 1e9 + (double)ts.tv_nsec;
}

static void need(int err, const char *what)
{
    if (err == 0)
        return;
    (void)fprintf(stderr, "gyre-scale: %s: %s (%s)\n", what, gyre_err_name(err), gyre_err_text(err));
    exit(1);
}

static uint64_t random_below(uint64_t bound)
{
    static uint64_t state = 1;
    state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (state >> 33) % bound;
}

static void open_loops(struct gyre_sim **sim, struct gyre_loop **simulated, struct gyre_loop **real)
{
    const struct gyre_sim_options network = {.seed = 1, .profile = GYRE_SIM_QUIET};
    struct gyre_loop_options options = {.mem = &counted};
    if (real != NULL)
        need(gyre_loop_create(real, &options), "loop");
    need(gyre_sim_create(sim, &network), "simulator");
    options.sim = *sim;
    need(gyre_loop_create(simulated, &options), "loop");
}

/* ---- timers ---- */

static size_t expired;

static void on_expiry(struct gyre_timer *timer, void *user)
{
    (void)timer;
    (void)user;
    expired++;
}

static bool all_expired(void *user)
{
    return expired >= *(size_t *)user;
}

static double start_all(struct gyre_timer **timers, size_t count, uint64_t within_ms)
{
    double from = now_ns();
    for (size_t i = 0; i < count; i++)
        need(gyre_timer_start(timers[i], (int64_t)(1 + random_below(within_ms)) * 1000000, 0), "start");
    return (now_ns() - from) / (double)count;
}

static void make_all(struct gyre_timer **timers, size_t count, struct gyre_loop *loop)
{
    for (size_t i = 0; i < count; i++)
        need(gyre_timer_create(&timers[i], loop, on_expiry, NULL), "timer");
}

static void measure_timers(size_t count)
{
    struct gyre_sim *sim;
    struct gyre_loop *simulated, *real;
    struct gyre_timer **timers = calloc(count, sizeof *timers);
    if (timers == NULL)
        need(-ENOMEM, "timers");
    open_loops(&sim, &simulated, &real);
    size_t before = held_bytes;
    make_all(timers, count, real);
    double bytes = (double)(held_bytes - before) / (double)count;
    double start = start_all(timers, count, 60000), again = start_all(timers, count, 60000), from = now_ns();
    for (size_t i = 0; i < count; i++)
        gyre_timer_stop(timers[i]);
    double stop = (now_ns() - from) / (double)count;
    for (size_t i = 0; i < count; i++)
        gyre_timer_destroy(timers[i]);

    make_all(timers, count, simulated);
    (void)start_all(timers, count, 10000);
    from = now_ns();
    need(gyre_sim_run(sim, &simulated, 1, 10000000, all_expired, &count), "run");
    double expire = (now_ns() - from) / (double)count;
    for (size_t i = 0; i < count; i++)
        gyre_timer_destroy(timers[i]);
    printf("{\"timers\": %zu, \"bytes\": %.1f, \"start_ns\": %.1f, \"again_ns\": %.1f, \"stop_ns\": %.1f, "
           "\"expire_ns\": %.1f}\n",
           count, bytes, start, again, stop, expire);
    gyre_loop_destroy(real);
    gyre_loop_destroy(simulated);
    gyre_sim_destroy(sim);
    free(timers);
}

/* ---- connections ---- */

static size_t wanted, begun, answered;
static char address[64];
static const char question[EXCHANGE_BYTES];

static void echo(struct gyre_conn *c)
{
    (void)gyre_conn_forward(c, c, SIZE_MAX);
}

static const struct gyre_conn_handlers server = {.on_data = echo};

static void begin(struct gyre_loop *loop);

static void ask(struct gyre_conn *c)
{
    need(gyre_conn_write(c, question, sizeof question), "write");
}

static void listen_to(struct gyre_conn *c)
{
    if (gyre_conn_inbound(c) < EXCHANGE_BYTES)
        return;
    (void)gyre_conn_discard(c, SIZE_MAX);
    answered++;
    begin(gyre_conn_loop(c));
}

static const struct gyre_conn_handlers client = {.on_open = ask, .on_data = listen_to};

static void begin(struct gyre_loop *loop)
{
    const struct gyre_conn_options options = {.idle_timeout_ns = INT64_C(3600000000000)};
    if (begun == wanted)
        return;
    begun++;
    need(gyre_connect(NULL, loop, address, &client, &options), "connect");
}

static bool all_answered(void *user)
{
    (void)user;
    return answered >= wanted;
}

static void measure_connections(size_t count)
{
    const struct gyre_listener_options options = {.conn = {.idle_timeout_ns = INT64_C(3600000000000)}};
    struct gyre_sim *sim;
    struct gyre_loop *loop;
    struct gyre_listener *listener;
    wanted = count;
    open_loops(&sim, &loop, NULL);
    need(gyre_loop_listen(&listener, loop, "tcp://127.0.0.1:0", &server, &options), "listen");
    (void)snprintf(address, sizeof address, "%s", gyre_listener_address(listener));
    size_t before = held_bytes;
    double from = now_ns();
    for (size_t i = 0; i < AT_ONCE; i++)
        begin(loop);
    need(gyre_sim_run(sim, &loop, 1, 1000000000, all_answered, NULL), "run");
    double each_ns = (now_ns() - from) / (double)count;
    printf("{\"connections\": %zu, \"ends\": %u, \"bytes_per_pair\": %.1f, \"ns_per_pair\": %.0f}\n", count,
           (unsigned)gyre_loop_conn_count(loop), (double)(held_bytes - before) / (double)count, each_ns);
    gyre_loop_destroy(loop);
    gyre_sim_destroy(sim);
}

int main(int argc, char **argv)
{
    char *end = NULL;
    bool timers = argc == 3 && strcmp(argv[1], "timers") == 0;
    bool connections = argc == 3 && strcmp(argv[1], "connections") == 0;
    long count = timers || connections ? strtol(argv[2], &end, 10) : 0;
    if (count < 1 || count > (timers ? COUNT_MAX : CONNECTIONS_MAX) || *end != '\0') {
        (void)fprintf(stderr, "usage: gyre-scale timers COUNT | connections COUNT (1 to %d timers, %d connections)\n",
                      COUNT_MAX, CONNECTIONS_MAX);
        return 2;
    }
    if (timers)
        measure_timers((size_t)count);
    else
        measure_connections((size_t)count);
    return 0;
}
