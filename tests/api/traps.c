/* SPDX-License-Identifier: MIT
 * What servers fall over: buffers that run out, a completion queue that is too small, no descriptors left, a flooder, a
 * storm of connects; and that all of it costs no idle turning. */
#include "fixture.h"

#include "socket/addr.h"

#include <gyre/stats.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { WRITERS = 100, FILES = 128 };

/* A hundred writers share four buffers: no byte is lost, nobody is closed, the loop does not spin. */
BACKEND_TEST(api_traps, buffers_run_out)
{
    static struct peer peers[WRITERS];
    static struct end *ends[WRITERS];
    struct api api;
    api_init(&api, p);
    api.options.buf_count = 2;
    api.options.buf_count_max = 4;
    api.options.buf_size_bytes = 1024;
    api_open(&api);
    api_listen(&api, NULL, NULL);
    for (unsigned i = 0; i < WRITERS; i++)
        ends[i] = peer_open(&api, &peers[i]);
    for (unsigned round = 0; round < 5; round++)
        for (unsigned i = 0; i < WRITERS; i++)
            (void)peer_send_some(&peers[i], 4000);
    for (unsigned i = 0; i < WRITERS; i++)
        api_until(&api, ends[i]->got == peers[i].sent);
    for (unsigned i = 0; i < WRITERS; i++)
        cr_assert_eq(ends[i]->closes, 0);
    cr_assert_leq(api_stats(&api).bufs_max, 4);
    if (!api.is_sim) {
        for (unsigned i = 0; i < 20; i++)
            api_turn_now(&api);
        cr_assert_eq(gyre_loop_timeout_ns(api.loop), -1, "the loop goes on turning though all is done");
    }
    for (unsigned i = 0; i < WRITERS; i++)
        peer_close(&peers[i]);
    api_close(&api);
}

static void hold_one(struct end *e)
{
    struct gyre_slice view;
    struct gyre_buf *buf;
    if (e->user == NULL) {
        size_t len = gyre_conn_inbound(e->c);
        cr_assert_eq(gyre_buf_hold(&buf, &view, e->c, len), 0);
        cr_assert_eq(env_pattern_check(view.data, len, e->key_in, e->got), -1);
        e->got += len;
        e->user = buf;
    }
    (void)end_take(e);
}

/* Handlers that hold more than there are buffers do not keep the others from being served. */
BACKEND_TEST(api_traps, buffers_held)
{
    enum { COUNT = 20 };
    struct peer peers[COUNT];
    struct end *ends[COUNT];
    struct api api;
    const struct script script = {.data = hold_one};
    api_init(&api, p);
    api.options.buf_count = 2;
    api.options.buf_count_max = 4;
    api_open(&api);
    api_listen(&api, &script, NULL);
    for (unsigned i = 0; i < COUNT; i++) {
        ends[i] = peer_open(&api, &peers[i]);
        peer_send(&peers[i], 3000);
    }
    for (unsigned i = 0; i < COUNT; i++)
        api_until(&api, ends[i]->got == 3000);
    for (unsigned i = 0; i < COUNT; i++)
        peer_send(&peers[i], 20000);
    for (unsigned i = 0; i < COUNT; i++)
        api_until(&api, ends[i]->got == 23000);
    cr_assert_leq(api_stats(&api).bufs_max, 4);
    for (unsigned i = 0; i < COUNT; i++) {
        gyre_buf_release(ends[i]->user);
        peer_close(&peers[i]);
    }
    api_close(&api);
}

/* Three hundred connections over a completion queue of eight: every byte comes, in order. */
REAL_TEST(api_traps, tiny_completion_queue)
{
    enum { COUNT = 300 };
    static struct peer peers[COUNT];
    struct api api;
    const struct script echo = {.data = end_forward_back};
    api_init(&api, p);
    api.cq_entries = 8;
    api.options.ops_max = 4;
    api_open(&api);
    api_listen(&api, &echo, NULL);
    for (unsigned i = 0; i < COUNT; i++) {
        (void)peer_open(&api, &peers[i]);
        peers[i].key_in = peers[i].key_out;
    }
    for (unsigned round = 1; round <= 4; round++) {
        for (unsigned i = 0; i < COUNT; i++)
            cr_assert_eq(peer_send_some(&peers[i], 3000), 3000);
        for (unsigned i = 0; i < COUNT; i++)
            peer_expect(&peers[i], round * 3000);
    }
    for (unsigned i = 0; i < COUNT; i++)
        peer_close(&peers[i]);
    api_until(&api, gyre_loop_conn_count(api.loop) == 0);
    api_close(&api);
}

static uint64_t cpu_ns(void)
{
    struct timespec ts;
    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void stop_loop(struct gyre_timer *timer, void *user)
{
    (void)timer;
    gyre_loop_stop(user);
}

/* Serve in gyre_loop_run() for that long. */
static void serve_for(struct api *api, int64_t ns)
{
    struct gyre_timer *timer;
    cr_assert_eq(gyre_timer_create(&timer, api->loop, stop_loop, api->loop), 0);
    cr_assert_eq(gyre_timer_start(timer, ns, 0), 0);
    api->in_turn = true;
    cr_assert_eq(gyre_loop_run(api->loop), 0);
    api->in_turn = false;
    gyre_timer_destroy(timer);
}

static void no_line(enum gyre_log_level level, const char *text, void *user)
{
    (void)level;
    (void)text;
    ++*(unsigned *)user;
}

/* No descriptors left: who is connected is served, waiting costs next to nothing, few lines are logged, and once there
 * are descriptors again those that waited are accepted. */
REAL_TEST(api_traps, no_descriptors)
{
    struct api api;
    struct peer peer, waiting[5];
    struct gyre__address parsed;
    int fillers[FILES], filled = 0;
    unsigned lines = 0;
    const struct gyre_log log = {.line = no_line, .user = &lines, .level_min = GYRE_LOG_WARN};
    const struct script echo = {.data = end_forward_back};
    api_init(&api, p);
    api.options.log = &log;
    /* io_uring remembers the limit from when the accept was submitted, so it is there from the start. */
    const struct rlimit limit = {FILES, FILES};
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
    api_open(&api);
    api_listen(&api, &echo, NULL);
    (void)peer_open(&api, &peer);
    peer.key_in = peer.key_out;
    cr_assert_eq(gyre__addr_parse(&parsed, api.address), 0);
    for (unsigned i = 0; i < 5; i++) /* their own descriptors they get before the limit */
        waiting[i] = (struct peer){.api = &api, .fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    while ((fillers[filled] = dup(0)) >= 0)
        filled++;
    for (unsigned i = 0; i < 5; i++)
        cr_assert_eq(connect(waiting[i].fd, (struct sockaddr *)&parsed.addr.ss, parsed.addr.len), 0);
    serve_for(&api, MS(50)); /* the first failures */
    uint64_t start_ns = cpu_ns();
    serve_for(&api, MS(1000));
    uint64_t used_ns = cpu_ns() - start_ns;
    cr_assert_leq(used_ns, (uint64_t)MS(50), "%llu ms of processor time to wait a second",
                  (unsigned long long)used_ns / 1000000);
    cr_assert_gt(api_stats(&api).accept_errors, 0);
    cr_assert_leq(lines, 5, "%u lines in a second", lines);
    peer_send(&peer, 5000);
    peer_expect(&peer, 5000);
    while (filled > 0)
        (void)close(fillers[--filled]);
    api_until(&api, api.accepted == 6);
    for (unsigned i = 0; i < 5; i++)
        peer_close(&waiting[i]);
    peer_close(&peer);
    api_close(&api);
}

/* At conns_max the others wait in the backlog until one closes. */
TRANSPORT_TEST(api_traps, conns_max)
{
    struct api api;
    struct peer peers[10];
    api_init(&api, p);
    api.options.conns_max = 4;
    api_open(&api);
    api_listen(&api, NULL, NULL);
    for (unsigned i = 0; i < 10; i++)
        peer_connect(&api, &peers[i], api.address);
    api_until(&api, gyre_loop_conn_count(api.loop) == 4);
    api_watch(&api, MS(20));
    cr_assert_leq(gyre_loop_conn_count(api.loop), 4);
    for (unsigned i = 0; i < 10; i++) {
        peer_close(&peers[i]);
        for (unsigned k = 0; k < 20; k++) {
            api_turn(&api);
            cr_assert_leq(gyre_loop_conn_count(api.loop), 4);
        }
    }
    api_until(&api, gyre_loop_conn_count(api.loop) == 0);
    cr_assert_geq(api.accepted, 4);
    struct peer last;
    (void)peer_open(&api, &last);
    peer_close(&last);
    api_close(&api);
}

/* One that sends as fast as it can does not keep a hundred quiet ones waiting: each ping is answered within a bounded
 * number of turns. */
REAL_TEST(api_traps, flooder)
{
    static struct peer quiet[WRITERS];
    struct peer flood;
    struct api api;
    const struct script echo = {.data = end_forward_back};
    api_start(&api, p, &echo);
    (void)peer_open(&api, &flood);
    flood.key_in = flood.key_out;
    for (unsigned i = 0; i < WRITERS; i++) {
        (void)peer_open(&api, &quiet[i]);
        quiet[i].key_in = quiet[i].key_out;
    }
    for (unsigned round = 1; round <= 10; round++) {
        for (unsigned i = 0; i < WRITERS; i++)
            cr_assert_eq(peer_send_some(&quiet[i], 10), 10);
        unsigned answered = 0, turns = 0;
        for (; answered < WRITERS; turns++) {
            (void)peer_send_some(&flood, MIB(4));
            (void)peer_recv_some(&flood, MIB(4));
            api_turn_now(&api);
            answered = 0;
            for (unsigned i = 0; i < WRITERS; i++) {
                (void)peer_recv_some(&quiet[i], 100);
                answered += quiet[i].got == round * 10;
            }
            cr_assert_lt(turns, 60, "only %u of %u were answered within %u turns", answered, (unsigned)WRITERS, turns);
        }
    }
    for (unsigned i = 0; i < WRITERS; i++)
        peer_close(&quiet[i]);
    peer_close(&flood);
    api_close(&api);
}

/* Five hundred connect at once. */
TRANSPORT_TEST(api_traps, accept_storm)
{
    enum { STORM = 500 };
    static struct peer peers[STORM];
    struct api api;
    api_start(&api, p, NULL);
    for (unsigned i = 0; i < STORM; i++)
        peer_connect(&api, &peers[i], api.address);
    api_until(&api, api.accepted == STORM);
    cr_assert_eq(api_stats(&api).accepted, STORM);
    for (unsigned i = 0; i < STORM; i++)
        peer_close(&peers[i]);
    api_until(&api, api.closed == STORM);
    api_close(&api);
}
