/* SPDX-License-Identifier: MIT
 * Limits on connections over several loops that accept for themselves: none is passed, whatever comes at one instant,
 * and a loop that is full keeps no client from the others. */
#include "rig.h"

#include <fcntl.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { LOOPS = 2, CLIENTS = 4, ROUNDS = 300, LOOP_MAX = 2 };

static struct {
    _Atomic(unsigned) at_gate; /* loops that have asked the filter */
    _Atomic(unsigned) open, opened, most;
} places;

/* Two loops have accepted before either goes on, if both have a client: then they ask for the last place at once. */
static int meet(struct gyre_listener *listener, const struct sockaddr *peer, socklen_t len, void *user)
{
    uint64_t end_ns = env_now_ns() + (uint64_t)MS(2);
    (void)listener, (void)peer, (void)len, (void)user;
    atomic_fetch_add(&places.at_gate, 1);
    while (atomic_load(&places.at_gate) < LOOPS && env_now_ns() < end_ns)
        ;
    return GYRE_ACCEPT_YES;
}

static void on_open(struct gyre_conn *c)
{
    unsigned open = atomic_fetch_add(&places.open, 1) + 1, most = atomic_load(&places.most);
    (void)c;
    while (open > most && !atomic_compare_exchange_weak(&places.most, &most, open))
        ;
    atomic_fetch_add(&places.opened, 1);
}

static void on_close(struct gyre_conn *c, int err)
{
    (void)c, (void)err;
    atomic_fetch_sub(&places.open, 1);
}

static const struct gyre_conn_handlers counted = {.on_open = on_open, .on_data = rig_on_data, .on_close = on_close};

static void last_place(const struct backend_param *p, bool of_engine)
{
    struct rig r;
    struct gyre_listener_options options = {
        .balance = GYRE_BALANCE_KERNEL, .filter = meet, .conns_max = of_engine ? 0 : 1};
    rig_open_limited(&r, p, LOOPS, 0, of_engine ? 1 : 0);
    cr_assert_eq(gyre_engine_listen(&r.listener, r.engine, rig_tcp, &counted, &options), 0);
    rig_run(&r);
    memset(&places, 0, sizeof places);
    for (unsigned round = 0; round < ROUNDS; round++) {
        int fds[CLIENTS];
        unsigned before = places.opened;
        places.at_gate = 0;
        for (unsigned i = 0; i < CLIENTS; i++)
            fds[i] = rig_client(gyre_listener_address(r.listener));
        await(places.opened > before);
        for (unsigned i = 0; i < CLIENTS; i++)
            (void)close(fds[i]);
        await(places.open == 0);
    }
    cr_assert_eq(places.most, 1, "%u connections were open at once", places.most);
    rig_stop(&r);
}

REAL_TEST(api_places, last_one_is_taken_once)
{
    last_place(p, false);
    last_place(p, true);
}

/* As many clients as there are places, on sockets among which the kernel chooses: all are served. */
REAL_TEST(api_places, of_other_loops_are_used)
{
    enum { MANY = RIG_LOOPS_MAX * LOOP_MAX };
    struct gyre_listener_options options = {.balance = GYRE_BALANCE_KERNEL};
    for (unsigned round = 0; round < 3; round++) {
        struct rig r;
        int fds[MANY];
        rig_open_limited(&r, p, RIG_LOOPS_MAX, LOOP_MAX, 0);
        rig_listen(&r, rig_tcp, &options);
        rig_run(&r);
        for (unsigned i = 0; i < MANY; i++) {
            fds[i] = rig_client(gyre_listener_address(r.listener));
            rig_ping(fds[i]);
        }
        for (unsigned i = 0; i < RIG_LOOPS_MAX; i++)
            cr_assert_eq(r.opens[i], LOOP_MAX);
        for (unsigned i = 0; i < MANY; i++)
            (void)close(fds[i]);
        rig_stop(&r);
    }
}

/* ---- one loop at its limit ---- */

static void at_the_limit(struct api *api, const struct backend_param *p, const struct script *script)
{
    api_init(api, p);
    api->quiet_sim = true;
    api->options.conns_max = 1;
    api_open(api);
    api_listen(api, script, NULL);
}

/* However long a pause takes, and however often the library looks for a place meanwhile, it is one. */
BACKEND_TEST(api_places, a_pause_counts_once)
{
    struct api api;
    struct peer first, second;
    at_the_limit(&api, p, NULL);
    for (unsigned round = 1; round <= 2; round++) {
        (void)peer_open(&api, &first);
        api_until(&api, api_stats(&api).accepts_paused == 1);
        peer_connect(&api, &second, api.address);
        api_watch(&api, MS(350));
        struct gyre_stats stats = api_stats(&api);
        cr_assert_eq(stats.accept_pauses, 2 * round - 1, "%u pauses", (unsigned)stats.accept_pauses);
        cr_assert_eq(stats.accepts_paused, 1);
        unsigned accepted = api.accepted;
        peer_close(&first);
        api_until(&api, api.accepted == accepted + 1);
        api_until(&api, api_stats(&api).accepts_paused == 1);
        cr_assert_eq(api_stats(&api).accept_pauses, 2 * round);
        peer_close(&second);
        api_until(&api, gyre_loop_conn_count(api.loop) == 0);
    }
    api_close(&api);
}

/* So are the attempts while descriptors are missing. The next time that they are missing is a pause of its own. */
REAL_TEST(api_places, a_pause_for_descriptors_counts_once)
{
    struct api api;
    struct peer peer;
    struct rlimit limit, none;
    api_start(&api, p, NULL);
    cr_assert_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
    none = limit;
    for (unsigned round = 1; round <= 2; round++) {
        uint64_t errors = api_stats(&api).accept_errors;
        int next = dup(STDIN_FILENO);
        cr_assert_eq(close(next), 0);
        cr_assert_eq(gyre_listener_pause(api.listener), 0);
        api_watch(&api, MS(2));
        none.rlim_cur = (rlim_t)next + 1; /* for the peer, and no other */
        cr_assert_eq(setrlimit(RLIMIT_NOFILE, &none), 0);
        cr_assert_eq(gyre_listener_resume(api.listener), 0); /* io_uring has the limit from when it begins to accept */
        peer_connect(&api, &peer, api.address);
        api_watch(&api, MS(150));
        cr_assert_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
        cr_assert_eq(api_stats(&api).accept_pauses, round);
        cr_assert_gt(api_stats(&api).accept_errors, errors + 2);
        api_until(&api, api.accepted == round);
        peer_close(&peer);
        api_until(&api, gyre_loop_conn_count(api.loop) == 0);
    }
    api_close(&api);
}

struct taker {
    struct api *api;
    struct stage *stage;
    struct end *e;
};

/* Takes the loop's last place, which was free when the client was accepted. */
static int take_last(struct gyre_listener *listener, const struct sockaddr *peer, socklen_t len, void *user)
{
    struct taker *t = user;
    (void)listener, (void)peer, (void)len;
    if (t->e == NULL)
        t->e = api_connect(t->api, t->stage->address, NULL, NULL);
    return GYRE_ACCEPT_YES;
}

/* A client that was accepted and finds no place on the loop is closed, and takes no place of the listener with it. */
BACKEND_TEST(api_places, refused_takes_none)
{
    struct api api;
    struct stage stage;
    struct peer first, second;
    struct taker taker = {.api = &api, .stage = &stage};
    const struct gyre_listener_options options = {.conns_max = 1, .filter = take_last, .user = &taker};
    api_init(&api, p);
    api.quiet_sim = true;
    api.options.conns_max = 1;
    api_open(&api);
    stage_open(&api, &stage);
    api_listen(&api, NULL, &options);
    peer_connect(&api, &first, api.address);
    peer_until_end(&first);
    cr_assert_eq(api_stats(&api).refused, 1);
    cr_assert_eq(gyre_listener_conn_count(api.listener), 0);
    cr_assert_eq(gyre_conn_abort(taker.e->c), 0);
    api_until(&api, taker.e->closes == 1);
    (void)peer_open(&api, &second);
    peer_close(&first);
    peer_close(&second);
    stage_close(&stage);
    api_close(&api);
}

static void keep(struct gyre_conn *c, int fd, void *user)
{
    (void)gyre_conn_discard(c, SIZE_MAX);
    *(int *)user = fd;
}

static void detach(struct end *e)
{
    cr_assert_eq(gyre_conn_detach(e->c, keep, e->api->user), 0);
    e->closes = 1;
    e->c = NULL;
}

/* The place of a connection that was detached is used in the same turn, and not when the library looks again, which it
 * does ten times a second. */
REAL_TEST(api_places, of_a_detached_connection_is_used_at_once)
{
    struct api api;
    struct peer first, second;
    const struct script script = {.data = detach};
    int fd = -1;
    at_the_limit(&api, p, &script);
    api.user = &fd;
    (void)peer_open(&api, &first);
    peer_connect(&api, &second, api.address);
    api_until(&api, api_stats(&api).accepts_paused == 1);
    for (uint64_t timers = api_stats(&api).timers; api_stats(&api).timers == timers;)
        api_turn(&api); /* the next look is 100 ms away */
    uint64_t timers = api_stats(&api).timers;
    peer_send(&first, 1);
    api_until(&api, fd >= 0 && api.accepted == 2);
    cr_assert_eq(api_stats(&api).timers, timers, "the place waited for a timer");
    (void)close(fd);
    peer_close(&first);
    peer_close(&second);
    api_until(&api, gyre_loop_conn_count(api.loop) == 0);
    api_close(&api);
}
