/* SPDX-License-Identifier: MIT
 * An engine of several loops on the simulated network, all run by one thread: how connections are spread, who is let
 * in, how many, and listeners that pause. What running.c, balance.c and crowd.c see with threads and real sockets, here
 * with a network that delays, cuts short and shuffles, the same each time. */
#include "city.h"

#include <errno.h>
#include <string.h>

/* ---- spreading ---- */

Test(api_sim_engine, in_turn_and_to_the_least)
{
    for (int kind = GYRE_BALANCE_ROUND_ROBIN; kind <= GYRE_BALANCE_LEAST_CONNS; kind++) {
        found(0, 0);
        open_gates("tcp://127.0.0.1:0", (struct gyre_listener_options){.balance = (enum gyre_balance)kind});
        come_and_open(9);
        for (unsigned i = 0; i < LOOPS; i++)
            cr_assert_eq(city.opens[i], 3);
        raze();
    }
}

static bool on_loop_1(struct gyre_conn *c, void *user)
{
    (void)user;
    if (index_of(gyre_conn_loop(c)) == 1)
        cr_assert_eq(gyre_conn_abort(c), 0);
    return true;
}

/* The connections of one loop end: that one gets the next. */
Test(api_sim_engine, least_connections)
{
    found(0, 0);
    open_gates("unix://@city", (struct gyre_listener_options){.balance = GYRE_BALANCE_LEAST_CONNS});
    come_and_open(9);
    cr_assert_eq(gyre_loop_each_conn(city.loops[1], on_loop_1, NULL), 3);
    wanted = 6;
    run_until(all_gone);
    come_and_open(3);
    cr_assert_eq(city.opens[1], 6);
    cr_assert_eq(city.opens[0] + city.opens[2], 6);
    raze();
}

static uint32_t choose(struct gyre_listener *listener, const struct sockaddr *peer, socklen_t len, void *user)
{
    cr_assert(listener == city.listener && user == &city && peer->sa_family == AF_INET && len > 0);
    return city.asked++ % 4; /* 3: there is none */
}

Test(api_sim_engine, as_the_user_says)
{
    struct gyre_stats stats;
    found(0, 0);
    open_gates("tcp://127.0.0.1:0",
               (struct gyre_listener_options){.balance = GYRE_BALANCE_CUSTOM, .choose = choose});
    come_and_open(8);
    cr_assert_eq(city.asked, 8);
    gyre_engine_stats(&stats, city.engine);
    cr_assert_eq(stats.balance_errors, 2);
    raze();
}

/* One host, one loop; another seed, perhaps another. At random, the same seed gives the same. */
Test(api_sim_engine, by_host_and_at_random)
{
    unsigned before[12];
    found(0, 0);
    open_gates("tcp://127.0.0.1:0", (struct gyre_listener_options){.balance = GYRE_BALANCE_SOURCE_HASH});
    come_and_open(9);
    for (unsigned i = 1; i < 9; i++)
        cr_assert_eq(city.order[i], city.order[0]);
    raze();
    for (unsigned round = 0; round < 2; round++) {
        found(0, 0);
        open_gates("tcp://127.0.0.1:0", (struct gyre_listener_options){.balance = GYRE_BALANCE_RANDOM, .seed = 9});
        for (unsigned i = 0; i < 12; i++)
            come_and_open(1);
        cr_assert(round == 0 || memcmp(before, city.order, sizeof before) == 0, "the same seed, another spread");
        memcpy(before, city.order, sizeof before);
        cr_assert(city.opens[0] > 0 && city.opens[1] > 0 && city.opens[2] > 0);
        raze();
    }
}

/* A socket for each loop, and the network chooses. */
Test(api_sim_engine, by_the_kernel)
{
    found(0, 0);
    open_gates("tcp://127.0.0.1:0", (struct gyre_listener_options){.balance = GYRE_BALANCE_KERNEL});
    cr_assert_eq(gyre_listener_socket_count(city.listener), LOOPS);
    cr_assert_eq(gyre_listener_dup_fd(city.listener, 0), -EOPNOTSUPP);
    come_and_open(20);
    for (unsigned i = 0; i < 20; i++)
        expect_echo(i);
    cr_assert(city.opens[0] > 0 && city.opens[1] > 0 && city.opens[2] > 0);
    raze();
}

/* ---- who, and how many ---- */

static int filter(struct gyre_listener *listener, const struct sockaddr *peer, socklen_t len, void *user)
{
    cr_assert(listener == city.listener && user == &city && peer->sa_family == AF_INET && len > 0);
    return (int)(city.asked++ % 3);
}

static bool all_told(void *user)
{
    (void)user;
    unsigned over = 0;
    for (unsigned i = 0; i < city.peer_count; i++) {
        char byte;
        int64_t n = gyre_sim_peer_recv(&byte, 1, city.peers[i]);
        over += n == 0 || n == -ECONNRESET;
    }
    return over == wanted;
}

Test(api_sim_engine, filter)
{
    struct gyre_stats stats;
    unsigned resets = 0;
    found(0, 0);
    open_gates("tcp://127.0.0.1:0",
               (struct gyre_listener_options){.balance = GYRE_BALANCE_ROUND_ROBIN, .filter = filter});
    for (unsigned i = 0; i < 12; i++)
        (void)come();
    wanted = 8;
    run_until(all_told);
    cr_assert_eq(city.asked, 12);
    cr_assert_eq(city.opened, 4);
    for (unsigned i = 0; i < 12; i++)
        resets += gyre_sim_peer_error(city.peers[i]) == -ECONNRESET;
    cr_assert_eq(resets, 4);
    gyre_engine_stats(&stats, city.engine);
    cr_assert_eq(stats.refused, 8);
    raze();
}

static bool close_it(struct gyre_conn *c, void *user)
{
    (void)user;
    cr_assert_eq(gyre_conn_abort(c), 0);
    return false;
}

/* On that loop, or the next that has one. */
static void close_one_on(unsigned loop)
{
    for (unsigned i = 0; i < LOOPS; i++)
        if (gyre_loop_each_conn(city.loops[(loop + i) % LOOPS], close_it, NULL) == 1)
            return;
}

/* Limits of the listener, of the engine and of each loop: the others wait, and come in as others leave. */
Test(api_sim_engine, limits)
{
    enum { MAX = 6, COUNT = 15 };
    for (unsigned kind = 0; kind < 3; kind++) {
        found(kind == 2 ? MAX / LOOPS : 0, kind == 1 ? MAX : 0);
        open_gates("tcp://127.0.0.1:0", (struct gyre_listener_options){.balance = GYRE_BALANCE_ROUND_ROBIN,
                                                                      .conns_max = kind == 0 ? MAX : 0});
        for (unsigned i = 0; i < COUNT; i++)
            (void)come();
        wanted = MAX;
        run_until(all_open);
        run_for(MS(1000));
        cr_assert_eq(city.opened, MAX, "limit %u: %u are in", kind, city.opened);
        cr_assert_eq(gyre_listener_conn_count(city.listener), MAX);
        for (unsigned i = 1; i < COUNT; i++) {
            close_one_on(i % LOOPS);
            wanted = MAX + i < COUNT ? MAX + i : COUNT;
            run_until(all_open);
            cr_assert_leq(gyre_engine_conn_count(city.engine), MAX);
        }
        close_one_on(0);
        wanted = 0;
        run_until(all_gone);
        cr_assert_eq(city.opened, COUNT);
        raze();
    }
}

Test(api_sim_engine, pause_and_close)
{
    for (int kind = GYRE_BALANCE_KERNEL; kind <= GYRE_BALANCE_ROUND_ROBIN; kind++) {
        found(0, 0);
        open_gates("tcp://127.0.0.1:0", (struct gyre_listener_options){.balance = (enum gyre_balance)kind});
        come_and_open(3);
        cr_assert_eq(gyre_listener_pause(city.listener), 0);
        run_for(MS(500));
        for (unsigned i = 0; i < 5; i++)
            (void)come();
        run_for(MS(500));
        cr_assert_eq(city.opened, 3, "accepted while paused");
        expect_echo(0);
        cr_assert_eq(gyre_listener_resume(city.listener), 0);
        wanted = 8;
        run_until(all_open);
        gyre_listener_close(city.listener);
        run_for(MS(500));
        cr_assert_eq(city.listener_closed, 1);
        cr_assert_eq(gyre_listener_resume(city.listener), GYRE_ESTATE);
        struct gyre_sim_peer *late = come();
        run_for(MS(5000));
        cr_assert_eq(gyre_sim_peer_error(late), -ECONNREFUSED);
        expect_echo(7);
        raze();
    }
}

/* ---- reconnectors ---- */

enum { WAITS = 6 };

struct waits {
    unsigned count;
    int64_t ns[WAITS];
};

static void on_wait(struct gyre_reconnector *r, int err, int64_t delay_ns, void *user)
{
    struct waits *w = user;
    (void)r;
    cr_assert_eq(err, -ECONNREFUSED, "%s", gyre_err_name(err));
    if (w->count < WAITS)
        w->ns[w->count++] = delay_ns;
}

/* On virtual time the loops' clocks say the same, and yet their clients do not all come back at once. */
Test(api_sim_engine, loops_draw_their_own_waits)
{
    static const struct gyre_reconnector_handlers told = {.on_wait = on_wait};
    static const struct gyre_conn_handlers client = {.on_data = on_data};
    struct gyre_reconnector *r[LOOPS];
    struct waits w[LOOPS] = {{.count = 0}};
    found(0, 0);
    for (uint32_t i = 0; i < LOOPS; i++) {
        const struct gyre_reconnector_options options = {
            .delay_min_ns = 1, .delay_max_ns = 1000000, .handlers = &told, .user = &w[i]};
        cr_assert_eq(gyre_reconnector_create(&r[i], city.loops[i], "tcp://127.0.0.1:9", &client, &options), 0);
        cr_assert_eq(gyre_reconnector_start(r[i]), 0);
    }
    run_for(INT64_C(100000000));
    for (uint32_t i = 0; i < LOOPS; i++) {
        cr_assert_eq(w[i].count, WAITS);
        for (uint32_t k = 0; k < i; k++)
            cr_assert_neq(memcmp(w[i].ns, w[k].ns, sizeof w[i].ns), 0, "loop %u waits like loop %u", i, k);
        gyre_reconnector_destroy(r[i]);
    }
    raze();
}
