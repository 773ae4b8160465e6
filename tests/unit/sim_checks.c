/* SPDX-License-Identifier: MIT
 * The simulator watches: what breaks the rules of the seam ends the program there and then. */
#include "sim_core.h"

#include <signal.h>

static struct sim_core core;
static struct gyre__fd a, b;
static struct sim_op op;
static char buf[8];

static void open_pair(void)
{
    sim_core_open(&core, SIM_QUIET_OPTIONS, NULL);
    sim_pair(&core, "unix://@x", &a, &b);
}

/* The checks say what they found on standard error; that is theirs, not this suite's output. */
static void quiet(void)
{
    (void)freopen("/dev/null", "w", stderr);
}

TestSuite(sim_checks, .init = quiet);

/* An operation is submitted that is in flight. */
Test(sim_checks, submitted_twice, .signal = SIGABRT)
{
    open_pair();
    sim_recv(&core, &op, &a, buf, sizeof buf);
    core.be->ops->submit(core.be, &op.op);
}

/* An operation is submitted that core has not counted. */
Test(sim_checks, submitted_idle, .signal = SIGABRT)
{
    open_pair();
    op.op.f = &a;
    op.op.kind = GYRE_OP_RECV;
    core.be->ops->submit(core.be, &op.op);
}

/* An operation is submitted on a descriptor that is not attached. */
Test(sim_checks, submitted_on_a_closed_descriptor, .signal = SIGABRT)
{
    open_pair();
    sim_close(&core, &a);
    sim_recv(&core, &op, &a, buf, sizeof buf);
}

/* An operation is cancelled that is over. */
Test(sim_checks, cancelled_idle, .signal = SIGABRT)
{
    open_pair();
    op.op.f = &a;
    core.be->ops->cancel(core.be, &op.op);
}

/* A descriptor is closed under an operation, whatever core has counted. */
Test(sim_checks, closed_under_an_operation, .signal = SIGABRT)
{
    open_pair();
    sim_recv(&core, &op, &a, buf, sizeof buf);
    a.inflight = 0;
    sim_close(&core, &a);
}

/* Bytes change while they are being sent. */
Test(sim_checks, bytes_change_while_sent, .signal = SIGABRT)
{
    open_pair();
    sim_send(&core, &op, &a, buf, sizeof buf);
    buf[3]++;
    (void)sim_outcome(&core, &op);
}

/* The owner takes an operation back that still has events to come. */
Test(sim_checks, given_up_before_its_last_event, .signal = SIGABRT)
{
    open_pair();
    sim_recv(&core, &op, &a, buf, sizeof buf);
    (void)sim_turn(&core, 0);
    op.op.gen++;
    sim_cancel(&core, &op);
    (void)sim_turn(&core, 0);
}

/* A backend is destroyed with an operation in flight. */
Test(sim_checks, destroyed_under_an_operation, .signal = SIGABRT)
{
    open_pair();
    sim_recv(&core, &op, &a, buf, sizeof buf);
    core.be->ops->destroy(core.be);
}

/* The network goes before the loops on it. */
Test(sim_checks, network_destroyed_under_a_backend, .signal = SIGABRT)
{
    open_pair();
    gyre_sim_destroy(core.sim);
}

/* A receive names a pool that was never added. */
Test(sim_checks, receives_into_a_strange_pool, .signal = SIGABRT)
{
    struct gyre__bufpool pool;
    open_pair();
    cr_assert_eq(gyre__bufpool_init(&pool, &core.mem.mem, 64, 1, 1), 0);
    struct sim_op send = {.events = 0};
    sim_send(&core, &send, &b, buf, 1);
    sim_recv_pool(&core, &op, &a, &pool, 0);
    (void)sim_outcome(&core, &op);
}

/* And none of it goes off in the ordinary course. */
Test(sim_checks, nothing_is_wrong)
{
    open_pair();
    struct sim_op send = {.events = 0};
    sim_send(&core, &send, &b, buf, 1);
    sim_recv(&core, &op, &a, buf, sizeof buf);
    cr_assert_eq(sim_outcome(&core, &send), 1);
    cr_assert_eq(sim_outcome(&core, &op), 1);
    sim_close(&core, &a);
    sim_close(&core, &b);
    sim_core_close(&core);
}
