/* SPDX-License-Identifier: MIT
 * What reaches every loop of an engine on the simulated network: tasks, walks over all connections, broadcasts. */
#include "city.h"

#include <errno.h>
#include <string.h>

static void call(struct gyre_loop *loop, void *user)
{
    cr_assert(gyre_loop_is_current(loop) && user == &city);
    city.calls++;
}

static void done(struct gyre_engine *engine, void *user)
{
    cr_assert(engine == city.engine && user == &city);
    city.dones++;
}

static void on_cast(struct gyre_engine *engine, const struct gyre_broadcast_result *result, void *user)
{
    done(engine, user);
    city.cast = *result;
}

static bool see(struct gyre_conn *c, void *user)
{
    call(gyre_conn_loop(c), user);
    return true;
}

static bool is_done(void *user)
{
    (void)user;
    return city.dones == wanted;
}

static void cast(const void *data, size_t len, enum gyre_slow slow)
{
    const struct gyre_broadcast_options options = {.slow = slow, .done = on_cast, .user = &city};
    wanted = city.dones + 1;
    cr_assert_eq(gyre_engine_broadcast(city.engine, data, len, &options), 0);
    run_until(is_done);
}

Test(api_sim_engine, reaches_all)
{
    char got[16];
    found(0, 0);
    open_gates("tcp://127.0.0.1:0", (struct gyre_listener_options){.balance = GYRE_BALANCE_ROUND_ROBIN});
    come_and_open(7);
    wanted = 1;
    cr_assert_eq(gyre_engine_post_all(city.engine, call, done, &city), 0);
    run_until(is_done);
    cr_assert_eq(city.calls, LOOPS);
    wanted = 2;
    cr_assert_eq(gyre_engine_each_conn(city.engine, see, done, &city), 0);
    run_until(is_done);
    cr_assert_eq(city.calls, LOOPS + 7);
    cast("hello, all", 10, GYRE_SLOW_SKIP);
    cr_assert_eq(city.cast.queued, 7);
    for (unsigned i = 0; i < 7; i++)
        for (size_t at = 0; at < 10;) {
            run_for(MS(1));
            int64_t n = gyre_sim_peer_recv(got + at, sizeof got - at, city.peers[i]);
            cr_assert(n == -EAGAIN || (n > 0 && memcmp(got + at, &"hello, all"[at], (size_t)n) == 0));
            at += n > 0 ? (size_t)n : 0;
        }
    raze();
}

/* Nobody reads: left out, queued up to the limit, aborted. */
Test(api_sim_engine, slow_ones)
{
    static const uint8_t big[50000];
    found(0, 0);
    open_gates("tcp://127.0.0.1:0",
               (struct gyre_listener_options){.balance = GYRE_BALANCE_ROUND_ROBIN,
                                              .conn = {.write_high_bytes = 100000, .write_max_bytes = 400000}});
    come_and_open(6);
    do {
        cast(big, sizeof big, GYRE_SLOW_SKIP);
        run_for(MS(1000));
    } while (city.cast.queued > 0);
    cr_assert_eq(city.cast.skipped, 6);
    cast("x", 1, GYRE_SLOW_QUEUE);
    cr_assert_eq(city.cast.queued, 6);
    do
        cast(big, sizeof big, GYRE_SLOW_QUEUE);
    while (city.cast.queued > 0);
    cr_assert_eq(city.cast.skipped, 6);
    cast("x", 1, GYRE_SLOW_ABORT);
    cr_assert_eq(city.cast.aborted, 6);
    wanted = 0;
    run_until(all_gone);
    raze();
}

/* Threads are not for a simulation. */
Test(api_sim_engine, is_not_run_by_threads)
{
    found(0, 0);
    open_gates("tcp://127.0.0.1:0", (struct gyre_listener_options){.balance = GYRE_BALANCE_ROUND_ROBIN});
    cr_assert_eq(gyre_engine_run(city.engine), GYRE_EOPTION);
    come_and_open(3);
    raze();
}
