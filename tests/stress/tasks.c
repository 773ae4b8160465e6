/* SPDX-License-Identifier: MIT
 * Tasks of both kinds, posted by threads and by tasks to the loops of an engine, which is destroyed under them.
 *
 * A steady thread posts in rounds: an urgent task, then two others, and waits for these. Because the urgent one waited
 * already when the others came in, it must have run before them; so few wait at once that no bound of a turn is met.
 * Then flooding threads take over, which post both kinds as fast as the queues take them, until refused. Of each
 * thread and kind the order must hold, and what was accepted must run, once, also what was left over when the engine
 * stopped. */
#include "stress.h"

#include <errno.h>
#include <sched.h>

enum { LOOPS = 2, STEADY = 3, FLOODERS = 3, ROUNDS = 300, POSTS = 4000, ENGINES = 8, REFUSALS = 4 };

struct post {
    struct lane *lane;
    unsigned number;
};

/* What one thread posts of one kind to one loop. */
struct lane {
    struct crowd *crowd;
    unsigned next;    /* expected, on the loop alone */
    unsigned posted;  /* by the thread alone; read when it has ended */
    atomic_uint run;
    struct post posts[POSTS];
};

struct crowd {
    struct gyre_engine *engine;
    atomic_uint boots, chained, chained_run;
    atomic_ulong refused;
    struct lane lanes[FLOODERS][LOOPS][2];
};

struct steady {
    struct crowd *crowd;
    struct gyre_loop *loop;
    unsigned urgent, others; /* run, on the loop alone */
    atomic_uint seen;        /* of the others */
};

static unsigned long total_run, total_refused;

/* ---- in rounds ---- */

static void run_urgent(struct gyre_loop *loop, void *user)
{
    struct steady *s = user;
    (void)loop;
    MUST(s->others == 2 * s->urgent);
    s->urgent++;
}

static void run_other(struct gyre_loop *loop, void *user)
{
    struct steady *s = user;
    (void)loop;
    s->others++;
    MUST(s->urgent == (s->others + 1) / 2); /* of this round, too */
    atomic_store(&s->seen, s->others);
}

static void *be_steady(void *arg)
{
    struct steady *s = arg;
    for (unsigned i = 1; i <= ROUNDS; i++) {
        MUST(gyre_loop_post_urgent(s->loop, run_urgent, s) == 0);
        MUST(gyre_loop_post(s->loop, run_other, s) == 0);
        MUST(gyre_loop_post(s->loop, run_other, s) == 0);
        while (atomic_load(&s->seen) < 2 * i)
            (void)sched_yield();
    }
    return NULL;
}

/* ---- in floods ---- */

static void run_chained(struct gyre_loop *loop, void *user)
{
    struct crowd *crowd = user;
    (void)loop;
    (void)atomic_fetch_add(&crowd->chained_run, 1);
}

/* Some go on to the other loop. */
static void run_post(struct gyre_loop *loop, void *user)
{
    const struct post *post = user;
    struct lane *lane = post->lane;
    struct crowd *crowd = lane->crowd;
    MUST(post->number == lane->next);
    lane->next++;
    (void)atomic_fetch_add(&lane->run, 1);
    if (post->number % 16 != 0)
        return;
    struct gyre_loop *first = gyre_engine_loop(crowd->engine, 0), *second = gyre_engine_loop(crowd->engine, 1);
    (void)atomic_fetch_add(&crowd->chained, 1);
    int err = gyre_loop_post_urgent(loop == first ? second : first, run_chained, crowd);
    MUST(err == 0 || err == -EAGAIN || err == GYRE_ESHUTDOWN);
    if (err != 0)
        (void)atomic_fetch_sub(&crowd->chained, 1);
}

struct flooder {
    struct crowd *crowd;
    unsigned index;
};

static void post_next(struct crowd *crowd, struct lane *lane, unsigned loop, bool urgent)
{
    struct post *post = &lane->posts[lane->posted];
    struct gyre_loop *l = gyre_engine_loop(crowd->engine, loop);
    *post = (struct post){lane, lane->posted};
    int err = (urgent ? gyre_loop_post_urgent : gyre_loop_post)(l, run_post, post);
    MUST(err == 0 || err == -EAGAIN);
    if (err == 0)
        lane->posted++;
    else if (atomic_fetch_add(&crowd->refused, 1) % REFUSALS == 0)
        (void)sched_yield();
}

static void *flood(void *arg)
{
    struct flooder *f = arg;
    uint64_t seed = f->index;
    unsigned full = 0;
    while (full == 0) {
        unsigned loop = (unsigned)(stress_random(&seed) % LOOPS);
        bool urgent = stress_random(&seed) % 3 == 0;
        struct lane *lane = &f->crowd->lanes[f->index][loop][urgent];
        post_next(f->crowd, lane, loop, urgent);
        full = lane->posted == POSTS;
    }
    return NULL;
}

/* ---- rounds ---- */

static void on_boot(struct gyre_engine *engine)
{
    struct crowd *crowd = gyre_engine_user(engine);
    (void)atomic_fetch_add(&crowd->boots, 1);
}

static const struct gyre_engine_handlers handlers = {.on_boot = on_boot};

static void *run_engine(void *arg)
{
    MUST(gyre_engine_run(arg) == 0);
    return NULL;
}

static void join_steady(struct crowd *crowd)
{
    struct steady steady[STEADY];
    pthread_t threads[STEADY];
    for (unsigned i = 0; i < STEADY; i++) {
        steady[i] = (struct steady){.crowd = crowd, .loop = gyre_engine_loop(crowd->engine, i % LOOPS)};
        threads[i] = stress_thread(be_steady, &steady[i]);
    }
    for (unsigned i = 0; i < STEADY; i++)
        (void)pthread_join(threads[i], NULL);
}

static void join_flooders(struct crowd *crowd)
{
    struct flooder flooders[FLOODERS];
    pthread_t threads[FLOODERS];
    for (unsigned i = 0; i < FLOODERS; i++) {
        for (unsigned n = 0; n < LOOPS * 2; n++)
            crowd->lanes[i][n / 2][n % 2].crowd = crowd;
        flooders[i] = (struct flooder){crowd, i};
        threads[i] = stress_thread(flood, &flooders[i]);
    }
    for (unsigned i = 0; i < FLOODERS; i++)
        (void)pthread_join(threads[i], NULL);
}

static void check(const struct crowd *crowd)
{
    MUST(atomic_load(&crowd->chained) == atomic_load(&crowd->chained_run));
    for (unsigned i = 0; i < FLOODERS * LOOPS * 2; i++) {
        const struct lane *lane = &crowd->lanes[i / (LOOPS * 2)][i / 2 % LOOPS][i % 2];
        MUST(atomic_load(&lane->run) == lane->posted);
        total_run += lane->posted;
    }
    total_refused += atomic_load(&crowd->refused);
}

static void one_engine(const char *backend)
{
    struct crowd *crowd = calloc(1, sizeof *crowd);
    MUST(crowd != NULL);
    const struct gyre_loop_options loop = {.backend = backend, .tasks_max = 256, .urgent_tasks_max = 64};
    const struct gyre_engine_options options = {.loops = LOOPS, .handlers = &handlers, .loop = loop, .user = crowd};
    MUST(gyre_engine_create(&crowd->engine, &options) == 0);
    pthread_t runner = stress_thread(run_engine, crowd->engine);
    while (atomic_load(&crowd->boots) == 0)
        (void)sched_yield();
    join_steady(crowd);
    join_flooders(crowd);
    gyre_engine_stop(crowd->engine);
    (void)pthread_join(runner, NULL);
    gyre_engine_destroy(crowd->engine);
    check(crowd);
    free(crowd);
}

static void round_of(const char *backend)
{
    total_run = total_refused = 0;
    for (unsigned i = 0; i < ENGINES; i++)
        one_engine(backend);
    printf("%s: %d engines, %lu tasks of a flood run, %lu refused\n", backend, ENGINES, total_run, total_refused);
}

int main(int argc, char **argv)
{
    return stress_main(argc, argv, round_of);
}
