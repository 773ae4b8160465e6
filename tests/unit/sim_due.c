/* SPDX-License-Identifier: MIT
 * What happens when: the simulator's heap against a list that is searched from end to end. */
#include "sim_core.h"

#include "sim/world.h"

enum { DUES = 40, STEPS = 20000 };

struct model {
    struct sim_due due[DUES];
    uint64_t order[DUES]; /* when it was set, or 0 */
    uint64_t sets;
};

/* The one that is due first; of those due together the one set first. */
static int first_of(const struct model *m)
{
    int first = -1;
    for (int i = 0; i < DUES; i++) {
        if (m->order[i] == 0)
            continue;
        if (first < 0 || m->due[i].at_ns < m->due[first].at_ns ||
            (m->due[i].at_ns == m->due[first].at_ns && m->order[i] < m->order[first]))
            first = i;
    }
    return first;
}

static void step(struct gyre_sim *sim, struct model *m, struct env_rng *rng)
{
    uint32_t i = env_rng_below(rng, DUES);
    if (env_rng_below(rng, 3) == 0) {
        gyre__sim_due_clear(sim, &m->due[i]);
        m->order[i] = 0;
        return;
    }
    uint64_t at_ns = env_rng_below(rng, 50);
    bool same = m->order[i] != 0 && m->due[i].at_ns == at_ns; /* setting it to what it is leaves its place */
    gyre__sim_due_set(sim, &m->due[i], at_ns);
    m->order[i] = same ? m->order[i] : ++m->sets;
}

/* Setting, moving and clearing at random, the first is always the first. */
Test(sim_due, agrees_with_a_list)
{
    static struct model m;
    struct env_rng rng = {.state = 11};
    struct gyre_sim *sim = NULL;
    cr_assert_eq(gyre_sim_create(&sim, NULL), 0);
    cr_assert_eq(gyre__sim_due_next_ns(sim), SIM_NEVER_NS);
    for (int i = 0; i < DUES; i++)
        cr_assert_eq(gyre__sim_due_reserve(sim, 1), 0);
    for (int n = 0; n < STEPS; n++) {
        step(sim, &m, &rng);
        int first = first_of(&m);
        cr_assert_eq(gyre__sim_due_next_ns(sim), first < 0 ? SIM_NEVER_NS : m.due[first].at_ns);
        if (first >= 0)
            cr_assert_eq(sim->dues.heap[0], &m.due[first], "step %d: not the first", n);
    }
    for (int i = 0; i < DUES; i++)
        gyre__sim_due_clear(sim, &m.due[i]);
    gyre__sim_due_unreserve(sim, DUES);
    gyre_sim_destroy(sim);
}
