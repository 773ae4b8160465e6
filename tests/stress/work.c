/* SPDX-License-Identifier: MIT
 * The pool under load: threads and loops submit, others call off what was submitted, by names that are stale sooner or
 * later, until the pool is destroyed in the middle of it. Every job that was accepted is told once, on its loop, and
 * either ran once or was called off; none is told of before it ran. */
#include "stress.h"

#include <errno.h>
#include <gyre/work.h>
#include <sched.h>

enum { LOOPS = 3, SUBMITTERS = 3, JOBS = 4000, ROUNDS = 6, QUEUE = 200 };

struct job {
    struct crowd *crowd;
    struct gyre_loop *loop;
    _Atomic(unsigned) ran, told;
    unsigned plain; /* not atomic: written by the work, read when told */
};

struct crowd {
    struct gyre_engine *engine;
    struct gyre_pool *pool;
    struct job jobs[SUBMITTERS][JOBS];
    _Atomic(unsigned) accepted, refused, told, called_off, flagged;
    _Atomic(unsigned) boots;
    _Atomic(bool) end;
    _Atomic(uint64_t) last; /* the name that was given last: slot and generation */
    unsigned round;
};

static int work(struct gyre_work *w, void *user)
{
    struct job *job = user;
    job->plain = 42;
    (void)atomic_fetch_add(&job->ran, 1);
    if (gyre_work_cancelled(w))
        (void)atomic_fetch_add(&job->crowd->flagged, 1);
    return 5;
}

static void on_done(struct gyre_loop *loop, int result, void *user)
{
    struct job *job = user;
    struct crowd *crowd = job->crowd;
    MUST(loop == job->loop);
    MUST(result == 5 || result == -ECANCELED);
    MUST(atomic_load(&job->ran) == (result == 5 ? 1 : 0));
    MUST(job->plain == (result == 5 ? 42 : 0));
    (void)atomic_fetch_add(&job->told, 1);
    (void)atomic_fetch_add(&crowd->called_off, result == -ECANCELED);
    (void)atomic_fetch_add(&crowd->told, 1);
}

static unsigned total, off; /* with one backend */

struct submitter {
    struct crowd *crowd;
    unsigned index;
};

static void *submit(void *arg)
{
    struct submitter *s = arg;
    struct crowd *crowd = s->crowd;
    uint64_t seed = s->index + 17 * crowd->round;
    for (unsigned i = 0; i < JOBS; i++) {
        struct job *job = &crowd->jobs[s->index][i];
        struct gyre_work_id id;
        job->crowd = crowd;
        job->loop = gyre_engine_loop(crowd->engine, (uint32_t)(stress_random(&seed) % LOOPS));
        int err;
        while ((err = gyre_pool_submit(&id, crowd->pool, job->loop, work, on_done, job)) == -EAGAIN) {
            (void)atomic_fetch_add(&crowd->refused, 1);
            (void)sched_yield();
        }
        MUST(err == 0);
        (void)atomic_fetch_add(&crowd->accepted, 1);
        atomic_store(&crowd->last, (uint64_t)id.slot << 32 | id.generation);
        if (stress_random(&seed) % 8 == 0)
            MUST(gyre_pool_cancel(crowd->pool, id) != -EINVAL);
    }
    return NULL;
}

static void *meddle(void *arg)
{
    struct crowd *crowd = arg;
    while (!atomic_load(&crowd->end)) {
        uint64_t last = atomic_load(&crowd->last);
        struct gyre_work_id id = {.slot = (uint32_t)(last >> 32), .generation = (uint32_t)last};
        int result = gyre_pool_cancel(crowd->pool, id);
        MUST(result == 0 || result == 1 || result == GYRE_ESTALE);
        (void)sched_yield();
    }
    return NULL;
}

static void on_boot(struct gyre_engine *engine)
{
    struct crowd *crowd = gyre_engine_user(engine);
    (void)atomic_fetch_add(&crowd->boots, 1);
}

static const struct gyre_engine_handlers handlers = {.on_boot = on_boot};

static void *run(void *arg)
{
    MUST(gyre_engine_run(arg) == 0);
    return NULL;
}

static void check(const struct crowd *crowd)
{
    MUST(atomic_load(&crowd->told) == atomic_load(&crowd->accepted));
    for (unsigned s = 0; s < SUBMITTERS; s++)
        for (unsigned i = 0; i < JOBS; i++)
            MUST(atomic_load(&crowd->jobs[s][i].told) == 1);
}

static void one_crowd(const char *backend, unsigned round)
{
    struct crowd *crowd = calloc(1, sizeof *crowd);
    MUST(crowd != NULL);
    const struct gyre_loop_options loop = {.backend = backend};
    const struct gyre_engine_options options = {.loops = LOOPS, .handlers = &handlers, .loop = loop, .user = crowd};
    const struct gyre_pool_options pool = {.threads = 3, .queue_max = QUEUE};
    struct submitter submitters[SUBMITTERS];
    pthread_t threads[SUBMITTERS];
    crowd->round = round;
    MUST(gyre_engine_create(&crowd->engine, &options) == 0);
    MUST(gyre_pool_create(&crowd->pool, &pool) == 0);
    pthread_t runner = stress_thread(run, crowd->engine);
    while (atomic_load(&crowd->boots) == 0)
        (void)sched_yield();
    pthread_t meddler = stress_thread(meddle, crowd);
    for (unsigned i = 0; i < SUBMITTERS; i++) {
        submitters[i] = (struct submitter){crowd, i};
        threads[i] = stress_thread(submit, &submitters[i]);
    }
    for (unsigned i = 0; i < SUBMITTERS; i++)
        (void)pthread_join(threads[i], NULL);
    atomic_store(&crowd->end, true);
    (void)pthread_join(meddler, NULL);
    gyre_pool_destroy(crowd->pool); /* jobs are queued, running, and on their way to their loops */
    gyre_engine_stop(crowd->engine);
    (void)pthread_join(runner, NULL);
    gyre_engine_destroy(crowd->engine);
    check(crowd);
    total += atomic_load(&crowd->told);
    off += atomic_load(&crowd->called_off);
    free(crowd);
}

static void round_of(const char *backend)
{
    total = off = 0;
    for (unsigned i = 0; i < ROUNDS; i++)
        one_crowd(backend, i);
    printf("%s: %u jobs told, %u of them called off\n", backend, total, off);
}

int main(int argc, char **argv)
{
    return stress_main(argc, argv, round_of);
}
