/* SPDX-License-Identifier: MIT
 * The engine's ticker, and its threads: their names and the processors they may run on. */
#include "crew.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>

struct ticks {
    struct crew *crew;
    uint64_t at_ns[CREW_LOOPS_MAX][64];
    _Atomic(unsigned) count[CREW_LOOPS_MAX];
    unsigned stop_at;  /* ticks of the first loop; 0: never */
    unsigned never_at; /* then negative */
    int64_t delay_ns;  /* of loop i: so much more by i milliseconds */
};

static int64_t on_tick(struct gyre_engine *engine, struct gyre_loop *loop)
{
    struct ticks *t = crew_of(engine)->user;
    uint32_t index = crew_loop_index(loop);
    unsigned n = atomic_load(&t->count[index]);
    cr_assert(gyre_loop_is_current(loop));
    cr_assert_lt(n, 64);
    t->at_ns[index][n] = gyre_loop_now_ns(loop);
    atomic_store(&t->count[index], n + 1);
    if (index == 0 && n + 1 == t->stop_at)
        gyre_engine_stop(engine);
    return t->never_at != 0 && n + 1 >= t->never_at ? -1 : t->delay_ns + MS(index);
}

static void check_ticks(const struct ticks *t, uint32_t index)
{
    for (unsigned n = 1; n < atomic_load(&t->count[index]); n++)
        cr_assert_geq((int64_t)(t->at_ns[index][n] - t->at_ns[index][n - 1]), t->delay_ns + MS(index), "early");
}

/* Each loop ticks by itself, with the delay that it says, on its own thread; the first time as it begins to serve. */
REAL_TEST(api_tick, ticks_on_every_loop)
{
    struct crew crew;
    struct ticks t = {.delay_ns = MS(2)};
    crew_init(&crew, p, 3);
    crew.user = &t;
    crew.handlers.on_tick = on_tick;
    crew_open(&crew);
    crew_start(&crew);
    for (uint32_t i = 0; i < 3; i++)
        crew_until(atomic_load(&t.count[i]) >= 8);
    gyre_engine_stop(crew.engine);
    crew_join(&crew);
    for (uint32_t i = 0; i < 3; i++)
        check_ticks(&t, i);
    crew_close(&crew);
}

/* Negative: never again. Stopping from within a tick. */
REAL_TEST(api_tick, ends)
{
    struct crew crew;
    struct ticks t = {.delay_ns = 0, .never_at = 3};
    crew_init(&crew, p, 2);
    crew.user = &t;
    crew.handlers.on_tick = on_tick;
    crew_open(&crew);
    crew_start(&crew);
    crew_until(atomic_load(&t.count[0]) == 3 && atomic_load(&t.count[1]) == 3);
    for (unsigned i = 0; i < 20; i++)
        crew_pause();
    cr_assert_eq(atomic_load(&t.count[0]), 3);
    crew_close(&crew);

    t = (struct ticks){.delay_ns = MS(1), .stop_at = 5};
    crew_init(&crew, p, 2);
    crew.user = &t;
    crew.handlers.on_tick = on_tick;
    crew_open(&crew);
    crew_start(&crew);
    crew_join(&crew);
    cr_assert_eq(crew.result, 0);
    cr_assert_eq(atomic_load(&t.count[0]), 5);
    crew_close(&crew);
}

static int64_t sim_tick(struct gyre_engine *engine, struct gyre_loop *loop)
{
    struct ticks *t = gyre_engine_user(engine);
    unsigned n = atomic_load(&t->count[0]);
    t->at_ns[0][n] = gyre_loop_now_ns(loop);
    atomic_store(&t->count[0], n + 1);
    if (n + 1 == t->stop_at)
        gyre_engine_stop(engine);
    return t->delay_ns;
}

/* On the simulator's clock, to the tick of the wheel. */
Test(api_tick, on_virtual_time)
{
    static const struct gyre_engine_handlers handlers = {.on_tick = sim_tick};
    struct gyre_sim *sim;
    struct gyre_engine *engine;
    struct ticks t = {.delay_ns = MS(1500), .stop_at = 50};
    cr_assert_eq(gyre_sim_create(&sim, NULL), 0);
    uint64_t begin_ns = gyre_sim_now_ns(sim);
    struct gyre_loop_options loop = {.sim = sim};
    cr_assert_eq(
        gyre_engine_create(&engine, &(struct gyre_engine_options){.handlers = &handlers, .loop = loop, .user = &t}), 0);
    cr_assert_eq(gyre_engine_run(engine), 0);
    cr_assert_eq(t.at_ns[0][0], begin_ns, "the first tick waited");
    check_ticks(&t, 0);
    for (unsigned n = 1; n < 50; n++)
        cr_assert_leq(t.at_ns[0][n] - t.at_ns[0][n - 1], (uint64_t)MS(1501), "late");
    gyre_engine_destroy(engine);
    gyre_sim_destroy(sim);
}

/* ---- threads ---- */

struct look {
    cpu_set_t set[CREW_LOOPS_MAX];
    char name[CREW_LOOPS_MAX][16];
    _Atomic(unsigned) done;
};

static void look(struct gyre_loop *loop, void *user)
{
    struct look *l = user;
    uint32_t index = crew_loop_index(loop);
    cr_assert_eq(sched_getaffinity(0, sizeof l->set[index], &l->set[index]), 0);
    (void)pthread_getname_np(pthread_self(), l->name[index], sizeof l->name[index]);
}

static void looked(struct gyre_engine *engine, void *user)
{
    struct look *l = user;
    (void)engine;
    atomic_fetch_add(&l->done, 1);
}

static void look_at_all(struct crew *crew, struct look *l)
{
    *l = (struct look){.done = 0};
    crew_start(crew);
    cr_assert_eq(gyre_engine_post_all(crew->engine, look, looked, l), 0);
    crew_until(atomic_load(&l->done) == 1);
}

/* The i-th processor that this process may use. */
static unsigned allowed(unsigned i)
{
    cpu_set_t set;
    cr_assert_eq(sched_getaffinity(0, sizeof set, &set), 0);
    i %= (unsigned)CPU_COUNT(&set);
    for (unsigned cpu = 0;; cpu++)
        if (CPU_ISSET(cpu, &set) && i-- == 0)
            return cpu;
}

static void assert_on(const cpu_set_t *set, unsigned cpu)
{
    cr_assert_eq(CPU_COUNT(set), 1);
    cr_assert(CPU_ISSET(cpu, set), "not on processor %u", cpu);
}

/* Pinned: each loop to the next processor that the process may use; with a list, to the next of the list. Not pinned:
 * wherever. */
REAL_TEST(api_tick, pinned)
{
    static struct look l;
    struct crew crew;
    crew_init(&crew, p, 4);
    crew.options.pin = true;
    crew_open(&crew);
    look_at_all(&crew, &l);
    for (unsigned i = 0; i < 4; i++)
        assert_on(&l.set[i], allowed(i));
    crew_close(&crew);

    uint32_t cpus[2] = {allowed(1), allowed(0)};
    crew_init(&crew, p, 3);
    crew.options.cpus = cpus;
    crew.options.cpu_count = 2;
    crew_open(&crew);
    cpus[0] = cpus[1] = UINT32_MAX; /* copied */
    look_at_all(&crew, &l);
    assert_on(&l.set[0], allowed(1));
    assert_on(&l.set[1], allowed(0));
    assert_on(&l.set[2], allowed(1));
    crew_close(&crew);

    crew_init(&crew, p, 2);
    crew_open(&crew);
    look_at_all(&crew, &l);
    cpu_set_t mine;
    cr_assert_eq(sched_getaffinity(0, sizeof mine, &mine), 0);
    cr_assert(CPU_EQUAL(&l.set[0], &mine));
    cr_assert(CPU_EQUAL(&l.set[1], &mine));
    crew_close(&crew);
}

static cpu_set_t worker_set;

static int look_worker(struct gyre_work *work, void *user)
{
    (void)work;
    (void)user;
    return sched_getaffinity(0, sizeof worker_set, &worker_set);
}

static void worker_looked(struct gyre_loop *loop, int result, void *user)
{
    cr_assert_eq(result, 0);
    (void)user;
    gyre_loop_stop(loop);
}

static void boot_and_offload(struct gyre_engine *engine)
{
    cr_assert_eq(gyre_engine_offload(engine, look_worker, worker_looked, NULL), 0);
}

/* The thread in run is put back as it was; and the pool, though made by a pinned loop, may use every processor. */
REAL_TEST(api_tick, pinned_for_the_run_alone)
{
    struct crew crew;
    cpu_set_t before, after;
    cr_assert_eq(sched_getaffinity(0, sizeof before, &before), 0);
    crew_init(&crew, p, 1);
    crew.options.pin = true;
    crew.handlers.on_boot = boot_and_offload;
    crew_open(&crew);
    cr_assert_eq(gyre_engine_run(crew.engine), 0);
    cr_assert_eq(sched_getaffinity(0, sizeof after, &after), 0);
    cr_assert(CPU_EQUAL(&before, &after));
    cr_assert(CPU_EQUAL(&before, &worker_set));
    crew_close(&crew);
}

/* A processor that there is not: run says so, nothing is served, and all ends well. */
REAL_TEST(api_tick, no_such_processor)
{
    for (uint32_t loops = 1; loops <= 3; loops++) {
        uint32_t cpus[] = {allowed(0), allowed(0), allowed(0)};
        struct crew crew;
        cpus[loops - 1] = 1023;
        crew_init(&crew, p, loops);
        crew.options.cpus = cpus;
        crew.options.cpu_count = loops;
        crew_open(&crew);
        cr_assert_eq(gyre_engine_run(crew.engine), -EINVAL);
        cr_assert_eq(atomic_load(&crew.boots) + atomic_load(&crew.shutdowns), 0);
        crew_close(&crew);
    }
    struct gyre_engine *engine = NULL;
    cr_assert_eq(gyre_engine_create(&engine, &(struct gyre_engine_options){.cpu_count = 1}), GYRE_EOPTION);
    cr_assert_eq(gyre_engine_create(&engine, &(struct gyre_engine_options){.cpu_count = 1025}), GYRE_EOPTION);
    cr_assert_eq(gyre_engine_create(&engine, &(struct gyre_engine_options){.work_threads = 257}), GYRE_EOPTION);
    cr_assert_null(engine);
}

/* The name is the engine's and the number whole, however long; the user's own thread keeps its name. */
REAL_TEST(api_tick, names)
{
    static struct look l;
    struct crew crew;
    crew_init(&crew, p, 3);
    crew.options.name = "a-very-long-name-indeed";
    crew_open(&crew);
    look_at_all(&crew, &l);
    cr_assert_eq(strcmp(l.name[1], "a-very-long-n-1"), 0, "%s", l.name[1]);
    cr_assert_eq(strcmp(l.name[2], "a-very-long-n-2"), 0, "%s", l.name[2]);
    cr_assert_eq(strncmp(l.name[0], "a-very", 6) == 0, 0, "%s", l.name[0]);
    crew_close(&crew);
    crew_init(&crew, p, 2);
    crew_open(&crew);
    look_at_all(&crew, &l);
    cr_assert_eq(strcmp(l.name[1], "gyre-1"), 0, "%s", l.name[1]);
    crew_close(&crew);
}
