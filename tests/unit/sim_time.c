/* SPDX-License-Identifier: MIT
 * The simulated network when nothing goes wrong: its options, and its time. */
#include "sim_core.h"

#include <pthread.h>

#define SECOND_NS UINT64_C(1000000000)

/* ---- Options ---- */

/* What is out of range is refused, and so is what a newer header might have asked for. */
Test(sim_faults, options_are_checked)
{
    static const struct gyre_sim_options bad[] = {
        {.recv_short_permille = 1001},         {.loss_permille = UINT16_MAX - 1},
        {.profile = (enum gyre_sim_profile)7}, {.delay_max_ns = 3601 * SECOND_NS},
        {.delay_min_ns = 3601 * SECOND_NS},    {.send_buffer_bytes = (16 << 20) + 1},
        {.recv_buffer_bytes = (16 << 20) + 1}, {.fds_max = (1 << 20) + 1},
    };
    struct gyre_sim *sim = NULL;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        cr_assert_eq(gyre_sim_create(&sim, &bad[i]), GYRE_EOPTION, "options %zu", i);
    struct {
        struct gyre_sim_options options;
        uint64_t newer[2];
    } larger = {.options = {.seed = 5}};
    cr_assert_eq(gyre_sim_create_sized(&sim, &larger.options, sizeof larger), 0);
    cr_assert_eq(gyre_sim_seed(sim), 5);
    gyre_sim_destroy(sim);
    larger.newer[1] = 1;
    cr_assert_eq(gyre_sim_create_sized(&sim, &larger.options, sizeof larger), -E2BIG);
    cr_assert_eq(gyre_sim_create(&sim, NULL), 0);
    cr_assert_eq(gyre_sim_seed(sim), 0);
    gyre_sim_destroy(sim);
    gyre_sim_destroy(NULL);
}

/* A backend without a network says what it needs. */
Test(sim_faults, backend_without_a_network)
{
    struct gyre__backend *be = NULL;
    char why[64] = "";
    struct gyre__backend_config cfg = {.mem = NULL};
    cr_assert_eq(gyre__backend_sim.create(&be, &cfg, why, sizeof why), -EINVAL);
    cr_assert_not_null(strstr(why, "gyre_sim_create"));
}

/* ---- Time ---- */

/* Looking lets no time pass, waiting lets pass what was asked, to the nanosecond. */
Test(sim_faults, waiting_moves_the_clock)
{
    struct sim_core c;
    sim_core_open(&c, SIM_QUIET_OPTIONS, NULL);
    uint64_t start_ns = gyre_sim_now_ns(c.sim);
    cr_assert_eq(c.be->ops->now(c.be), start_ns);
    cr_assert_eq(sim_turn(&c, 0), 0);
    cr_assert_eq(gyre_sim_now_ns(c.sim), start_ns);
    cr_assert_eq(sim_turn(&c, 12345), 0);
    cr_assert_eq(gyre_sim_now_ns(c.sim), start_ns + 12345);
    gyre_sim_advance(c.sim, 55);
    cr_assert_eq(c.be->ops->now(c.be), start_ns + 12400);
    sim_core_close(&c);
}

/* Nothing can ever happen: an endless wait returns, and is counted. */
Test(sim_faults, endless_wait_for_nothing_returns)
{
    struct sim_core c;
    struct gyre__fd a, b;
    struct sim_op o = {.events = 0};
    char byte;
    sim_core_open(&c, SIM_QUIET_OPTIONS, NULL);
    sim_pair(&c, "tcp://127.0.0.1:0", &a, &b);
    cr_assert(gyre_sim_idle(c.sim));
    sim_recv(&c, &o, &a, &byte, 1);
    cr_assert_not(gyre_sim_idle(c.sim), "the receive has yet to be looked at");
    cr_assert_eq(sim_turn(&c, -1), 0);
    cr_assert_eq(sim_counts_of(&c).idle_waits, 1);
    cr_assert(gyre_sim_idle(c.sim));
    cr_assert_not(gyre_sim_step(c.sim));
    sim_cancel(&c, &o);
    cr_assert_not(gyre_sim_idle(c.sim));
    cr_assert_eq(sim_turn(&c, -1), 1);
    cr_assert_eq(o.res, -ECANCELED);
    sim_core_close(&c);
}

/* A segment takes its time: it is not there before, and an endless wait goes exactly there. */
Test(sim_faults, segments_take_their_time)
{
    struct sim_core c;
    struct gyre__fd a, b;
    struct sim_op recv = {.events = 0};
    char buf[4];
    sim_core_open(&c, (struct gyre_sim_options){.profile = GYRE_SIM_QUIET, .delay_min_ns = 700, .delay_max_ns = 700},
                  NULL);
    uint64_t start_ns = gyre_sim_now_ns(c.sim);
    sim_pair(&c, "tcp://127.0.0.1:0", &a, &b);
    cr_assert_eq(gyre_sim_now_ns(c.sim), start_ns + 1400, "a connect is a round trip");
    sim_recv(&c, &recv, &b, buf, sizeof buf);
    cr_assert_eq(sim_send_now(&c, &a, "x", 1), 1);
    cr_assert_eq(c.be->ops->sock->unacked(c.be, a.fd), 1);
    cr_assert_eq(sim_turn(&c, 699), 0);
    cr_assert_eq(sim_turn(&c, -1), 1);
    cr_assert_eq(gyre_sim_now_ns(c.sim), start_ns + 2100);
    cr_assert_eq(c.be->ops->sock->unacked(c.be, a.fd), 0);

    /* By hand: a step goes to the FIN, and the receive sees it. */
    sim_recv(&c, &recv, &b, buf, sizeof buf);
    cr_assert_eq(c.be->ops->sock->shutdown(c.be, a.fd), 0);
    gyre_sim_advance(c.sim, 600);
    cr_assert_eq(sim_turn(&c, 0), 0);
    cr_assert(gyre_sim_step(c.sim));
    cr_assert_eq(gyre_sim_now_ns(c.sim), start_ns + 2800);
    cr_assert_eq(sim_turn(&c, 0), 1);
    cr_assert_eq(recv.res, 0);
    sim_core_close(&c);
}

/* Later segments never overtake earlier ones, however long those take; FIN overtakes none. */
Test(sim_faults, segments_stay_in_order)
{
    struct sim_core c;
    struct gyre__fd a, b;
    struct sim_op recv = {.events = 0};
    uint8_t out[400], in[400];
    sim_core_open(&c,
                  (struct gyre_sim_options){.profile = GYRE_SIM_QUIET, .delay_max_ns = SECOND_NS, .loss_permille = 500},
                  NULL);
    env_pattern_fill(out, sizeof out, 3, 0);
    sim_pair(&c, "tcp://127.0.0.1:0", &a, &b);
    for (size_t i = 0; i < sizeof out; i += 4)
        cr_assert_eq(sim_send_now(&c, &a, out + i, 4), 4);
    cr_assert_eq(c.be->ops->sock->shutdown(c.be, a.fd), 0);
    size_t got = 0;
    do {
        sim_recv(&c, &recv, &b, in + got, (uint32_t)(sizeof in - got));
        cr_assert_geq(sim_outcome(&c, &recv), 0);
        got += (size_t)recv.res;
    } while (recv.res > 0 && got < sizeof in);
    cr_assert_eq(got, sizeof in);
    cr_assert_eq(memcmp(in, out, sizeof in), 0);
    cr_assert_gt(sim_counts_of(&c).losses, 20);
    sim_core_close(&c);
}

static void *wake(void *arg)
{
    struct gyre__backend *be = arg;
    be->ops->wake(be);
    return NULL;
}

/* wake() from another thread ends the next wait before any time has passed, and only that one. */
Test(sim_faults, wake_ends_a_wait)
{
    struct sim_core c;
    pthread_t thread;
    sim_core_open(&c, SIM_QUIET_OPTIONS, NULL);
    uint64_t start_ns = gyre_sim_now_ns(c.sim);
    cr_assert_eq(pthread_create(&thread, NULL, wake, c.be), 0);
    cr_assert_eq(pthread_join(thread, NULL), 0);
    cr_assert_not(gyre_sim_idle(c.sim));
    cr_assert_eq(sim_turn(&c, SIM_MS(1)), 0);
    cr_assert_eq(gyre_sim_now_ns(c.sim), start_ns);
    cr_assert_eq(sim_turn(&c, SIM_MS(1)), 0);
    cr_assert_eq(gyre_sim_now_ns(c.sim), start_ns + (uint64_t)SIM_MS(1));
    sim_core_close(&c);
}
