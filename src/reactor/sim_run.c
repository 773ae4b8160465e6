/* SPDX-License-Identifier: MIT
 * Driving several loops on one simulation: all in turn without waiting, and when none has anything to do, on to
 * whatever comes next, on the network or on the loops' timers. */
#include "sim/world.h"

#include <errno.h>
#include <gyre/loop.h>

/* One turn of each. Returns 1 if something happened or waits, 0 if not, or an error. */
static int run_all(struct gyre_sim *sim, struct gyre_loop *const *loops, size_t count)
{
    uint64_t before = sim->activity;
    bool busy = false;
    for (size_t i = 0; i < count; i++) {
        int more = gyre_loop_run_nowait(loops[i]);
        if (more < 0)
            return more;
        busy |= more > 0;
    }
    return busy || sim->activity != before || gyre__sim_pending(sim);
}

static bool go_on(struct gyre_sim *sim, struct gyre_loop *const *loops, size_t count)
{
    uint64_t next_ns = gyre__sim_due_next_ns(sim);
    for (size_t i = 0; i < count; i++) {
        int64_t timeout_ns = gyre_loop_timeout_ns(loops[i]);
        if (timeout_ns >= 0 && sim->now_ns + (uint64_t)timeout_ns < next_ns)
            next_ns = sim->now_ns + (uint64_t)timeout_ns;
    }
    if (next_ns == SIM_NEVER_NS)
        return false;
    gyre__sim_clock_to(sim, next_ns);
    return true;
}

int gyre_sim_run(struct gyre_sim *sim, struct gyre_loop *const *loops, size_t count, uint64_t rounds_max,
                 gyre_sim_until_fn *until, void *user)
{
    for (uint64_t round = 0; round < rounds_max; round++) {
        uint64_t before = sim->activity;
        if (until != NULL && until(user))
            return 0;
        int busy = run_all(sim, loops, count);
        if (busy < 0)
            return busy;
        if (busy > 0 || sim->activity != before || go_on(sim, loops, count))
            continue;
        if (until == NULL || until(user))
            return 0;
        return -EDEADLK;
    }
    return -ETIMEDOUT;
}
