/* SPDX-License-Identifier: MIT
 * Random conversations over the seam, on the simulated network at its worst: clients and servers send and receive at
 * random sizes, stop and go on, cancel, half-close, close and reset, and every byte that arrives is compared with what
 * was sent there.
 *
 * Everything is drawn from the seed, so a failure is replayed by GYRE_SIM_SEED=n in the environment; GYRE_SIM_SEEDS=n
 * runs so many seeds instead of 2000 (give the program a larger --timeout then). */
#include "sim_ends.h"

#include <stdio.h>
#include <stdlib.h>

enum { SEEDS = 2000, ROUNDS_MAX = 2000000 };

static struct gyre_sim_counts totals; /* what all runs together have met */

static struct gyre_sim_options draw_options(struct world *w)
{
    struct gyre_sim_options o = {.seed = seed_now};
    w->calm = one_in(w, 3);
    if (w->calm) {
        o.reset_permille = o.connect_timeout_permille = o.connect_unreachable_permille = GYRE_SIM_NEVER;
        o.accept_aborted_permille = GYRE_SIM_NEVER;
    }
    if (one_in(w, 3))
        o.profile = GYRE_SIM_QUIET;
    if (one_in(w, 4))
        o.delay_max_ns = one_in(w, 2) ? GYRE_SIM_NO_DELAY : 1 + env_rng_next(&w->rng) % 100000000;
    if (one_in(w, 3))
        o.send_buffer_bytes = 1 + env_rng_below(&w->rng, 400);
    if (one_in(w, 3))
        o.recv_buffer_bytes = 1 + env_rng_below(&w->rng, 400);
    if (one_in(w, 8))
        o.more_dropped_permille = o.cancel_late_permille = o.enobufs_permille = 500;
    if (!w->calm && one_in(w, 8))
        o.connect_timeout_permille = o.connect_unreachable_permille = o.accept_aborted_permille = 100;
    if (one_in(w, 8))
        o.accept_emfile_permille = 300;
    if (!w->calm && one_in(w, 8))
        o.reset_permille = 30;
    return o;
}

static void open_world(struct world *w)
{
    static const char *const addresses[] = {"tcp://127.0.0.1:0", "tcp://[::1]:0", "unix:///s", "unix://@s"};
    const char *off = one_in(w, 5) ? "multishot_recv,multishot_accept" : NULL;
    sim_core_open(&w->core[0], draw_options(w), off);
    w->core[1] = (struct sim_core){.sim = w->core[0].sim, .cap = SIM_BATCH};
    w->core[1].be = sim_backend_open(w->core[0].sim, &w->core[0].mem.mem, NULL);
    w->client = &w->core[0];
    w->server = one_in(w, 2) ? &w->core[0] : &w->core[1];
    for (int i = 0; i < 2; i++) {
        uint32_t size = 1 + env_rng_below(&w->rng, 900);
        w->core[i].cap = one_in(w, 3) ? 1 + env_rng_below(&w->rng, 4) : SIM_BATCH;
        cr_assert_eq(gyre__bufpool_init(&w->pool[i], &w->core[0].mem.mem, size, BUFS, BUFS), 0);
        cr_assert_eq(w->core[i].be->ops->pool_add(w->core[i].be, &w->pool[i]), 0);
    }
    w->addr = sim_listen(w->server, &w->listener, addresses[env_rng_below(&w->rng, 4)]);
    w->accept.on_event = on_accept;
    w->accept.user = w;
    for (uint32_t n = 1 + env_rng_below(&w->rng, CLIENTS_MAX); n > 0; n--)
        new_client(w);
}

static void resume(struct world *w)
{
    for (unsigned i = 0; i < w->count; i++) {
        w->acts += w->ends[i].paused;
        w->ends[i].paused = false;
    }
}

/* One look at everything. Returns false once nothing can happen any more. */
static bool round_of(struct world *w)
{
    w->acts = 0;
    if (sim_op_idle(&w->accept))
        sim_accept(w->server, &w->accept, &w->listener, one_in(w, 2) ? GYRE_OPF_MULTI : 0);
    int events = sim_turn(&w->core[0], 0) + sim_turn(&w->core[1], 0);
    for (unsigned i = 0; i < w->count; i++)
        act(&w->ends[i]);
    if (events > 0 || w->acts > 0)
        return true;
    if (gyre_sim_step(w->core[0].sim) || !gyre_sim_idle(w->core[0].sim))
        return true;
    /* Those that only did not feel like it are asked again. */
    for (unsigned i = 0; i < w->count; i++)
        if (w->ends[i].open && !w->ends[i].closing && sim_op_idle(&w->ends[i].send) && !w->ends[i].shut &&
            w->ends[i].send_err == 0)
            return true;
    resume(w);
    return w->acts > 0;
}

static void check_world(struct world *w)
{
    for (unsigned i = 0; i < w->count; i++) {
        struct end *e = &w->ends[i];
        HOLDS(!e->open, "key %u is stuck: sent %u of %u, got %u, eof %d, errors %d %d", e->key, e->sent, e->goal,
              e->got, e->eof, e->send_err, e->recv_err);
        if (!w->calm)
            continue;
        HOLDS(e->sent == e->goal && e->eof && e->peer != NULL && e->got == e->peer->goal,
              "key %u: sent %u of %u, got %u of %u", e->key, e->sent, e->goal, e->got,
              e->peer != NULL ? e->peer->goal : 0);
    }
}

static void add_counts(const struct gyre_sim *sim)
{
    struct gyre_sim_counts c;
    gyre_sim_stats(&c, sim);
    totals.events += c.events;
    totals.recvs_short += c.recvs_short;
    totals.sends_short += c.sends_short;
    totals.mores_dropped += c.mores_dropped;
    totals.cancels_late += c.cancels_late;
    totals.enobufs += c.enobufs;
    totals.connects_failed += c.connects_failed;
    totals.accepts_failed += c.accepts_failed;
    totals.resets += c.resets;
    totals.losses += c.losses;
}

/* Returns the hash of the run's trace. */
static uint64_t run_seed(uint64_t seed)
{
    static struct world w;
    seed_now = seed;
    memset(&w, 0, sizeof w);
    w.rng.state = seed;
    open_world(&w);
    uint64_t rounds = 0;
    while (round_of(&w))
        HOLDS(++rounds < ROUNDS_MAX, "%u ends after that many rounds", w.count);
    check_world(&w);
    sim_cancel(w.server, &w.accept);
    (void)sim_outcome(w.server, &w.accept);
    sim_close(w.server, &w.listener);
    add_counts(w.core[0].sim);
    uint64_t hash = gyre_sim_trace_hash(w.core[0].sim);
    for (int i = 0; i < 2; i++) {
        w.core[i].be->ops->pool_remove(w.core[i].be, &w.pool[i]);
        HOLDS(gyre__bufpool_available(&w.pool[i]) == BUFS, "%u of %u buffers came back",
              gyre__bufpool_available(&w.pool[i]), BUFS);
        gyre__bufpool_fini(&w.pool[i]);
    }
    HOLDS(w.core[1].inflight == 0, "%u operations in flight", w.core[1].inflight);
    w.core[1].be->ops->destroy(w.core[1].be);
    sim_core_close(&w.core[0]);
    return hash;
}

/* Thousands of them, and between them they have met everything. */
Test(sim_seam_random, conversations)
{
    const char *one = getenv("GYRE_SIM_SEED");
    const char *many = getenv("GYRE_SIM_SEEDS");
    if (one != NULL) {
        uint64_t seed = strtoull(one, NULL, 0);
        printf("seed %llu: trace %016llx\n", (unsigned long long)seed, (unsigned long long)run_seed(seed));
        return;
    }
    uint64_t count = many != NULL ? strtoull(many, NULL, 0) : SEEDS;
    for (uint64_t seed = 1; seed <= count; seed++)
        (void)run_seed(seed);
    (void)fprintf(stderr, "%llu seeds: %llu events, %u ends finished, %u saw a reset, %u were cut off\n",
                  (unsigned long long)count, (unsigned long long)totals.events, finished, ended_in_reset, cut_off);
    if (count < SEEDS)
        return;
    cr_assert_gt(totals.recvs_short, SEEDS);
    cr_assert_gt(totals.sends_short, SEEDS);
    cr_assert_gt(totals.mores_dropped, SEEDS / 10);
    cr_assert_gt(totals.cancels_late, SEEDS / 10);
    cr_assert_gt(totals.enobufs, SEEDS / 10);
    cr_assert_gt(totals.connects_failed, SEEDS / 50);
    cr_assert_gt(totals.accepts_failed, SEEDS / 20);
    cr_assert_gt(totals.resets, SEEDS / 20);
    cr_assert_gt(totals.losses, SEEDS / 10);
    cr_assert_gt(finished, SEEDS);
    cr_assert_gt(ended_in_reset, SEEDS / 20);
    cr_assert_gt(cut_off, SEEDS / 20);
}

/* The same seed gives the same run, though memory lies elsewhere; another seed another. */
Test(sim_seam_random, replays)
{
    void *junk[40];
    unsigned same = 0;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        uint64_t first = run_seed(seed);
        junk[seed - 1] = malloc(100 + (size_t)seed * 77);
        uint64_t again = run_seed(seed);
        cr_assert_eq(first, again, "seed %llu does not replay", (unsigned long long)seed);
        same += first == run_seed(seed + 1);
    }
    cr_assert_eq(same, 0);
    for (int i = 0; i < 40; i++)
        free(junk[i]);
}
