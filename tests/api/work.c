/* SPDX-License-Identifier: MIT
 * Work done by a pool of threads: told once, on the loop that was named; called off before it begins or while it runs;
 * limits, and the end. Jobs that must be seen in a certain state wait at a gate that the test opens. */
#include "crew.h"

#include <errno.h>
#include <gyre/work.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

struct job {
    struct api *api;
    int number;
    unsigned *order;      /* of being told */
    _Atomic(int) begun;   /* so often */
    _Atomic(int) *gate;   /* wait until it is not 0 */
    _Atomic(bool) wait_for_cancel, saw_cancel;
    pthread_t thread;
    unsigned told, told_as;
    int result;
    struct gyre_work_id id;
};

static int work(struct gyre_work *w, void *user)
{
    struct job *job = user;
    job->thread = pthread_self();
    atomic_fetch_add(&job->begun, 1);
    while (job->gate != NULL && atomic_load(job->gate) == 0)
        crew_pause();
    while (atomic_load(&job->wait_for_cancel) && !gyre_work_cancelled(w))
        crew_pause();
    atomic_store(&job->saw_cancel, gyre_work_cancelled(w));
    return job->number;
}

static void on_done(struct gyre_loop *loop, int result, void *user)
{
    struct job *job = user;
    api_enter(job->api);
    cr_assert_eq(loop, job->api->loop);
    job->told++;
    job->result = result;
    job->told_as = ++*job->order;
    api_leave(job->api);
}

static void start(struct api *api, const struct backend_param *p, struct gyre_pool **pool,
                  const struct gyre_pool_options *options)
{
    struct gyre_pool_options o = options != NULL ? *options : (struct gyre_pool_options){.threads = 0};
    api_init(api, p);
    api_open(api);
    o.mem = &api->mem.mem;
    cr_assert_eq(gyre_pool_create(pool, &o), 0);
}

/* Many jobs on one thread: each done once, in order, on another thread, its result told once, in order, on the loop. */
BACKEND_TEST(api_work, told_on_the_loop)
{
    enum { JOBS = 500 };
    static struct job jobs[JOBS];
    struct api api;
    struct gyre_pool *pool;
    unsigned order = 0;
    start(&api, p, &pool, &(struct gyre_pool_options){.threads = 1, .queue_max = JOBS});
    for (int i = 0; i < JOBS; i++) {
        jobs[i] = (struct job){.api = &api, .number = i - 5, .order = &order};
        cr_assert_eq(gyre_pool_submit(&jobs[i].id, pool, api.loop, work, on_done, &jobs[i]), 0);
    }
    cr_assert_eq(order, 0, "told from inside of the call");
    api_until(&api, order == JOBS);
    for (int i = 0; i < JOBS; i++) {
        cr_assert_eq(atomic_load(&jobs[i].begun), 1);
        cr_assert_eq(jobs[i].told, 1);
        cr_assert_eq(jobs[i].told_as, i + 1);
        cr_assert_eq(jobs[i].result, i - 5);
        cr_assert(!pthread_equal(jobs[i].thread, pthread_self()));
        cr_assert_eq(gyre_pool_cancel(pool, jobs[i].id), GYRE_ESTALE);
    }
    gyre_pool_destroy(pool);
    api_close(&api);
}

/* The queue is full: refused, nothing called, and room again once one was taken. */
BACKEND_TEST(api_work, full)
{
    enum { ALL = 5 };
    struct job jobs[ALL + 1];
    struct api api;
    struct gyre_pool *pool;
    unsigned order = 0;
    _Atomic(int) gate = 0;
    start(&api, p, &pool, &(struct gyre_pool_options){.threads = 1, .queue_max = ALL - 1});
    for (int i = 0; i < ALL; i++) {
        jobs[i] = (struct job){.api = &api, .number = i, .order = &order, .gate = &gate};
        cr_assert_eq(gyre_pool_submit(NULL, pool, api.loop, work, on_done, &jobs[i]), 0);
        crew_until(atomic_load(&jobs[0].begun) == 1);
    }
    jobs[ALL] = (struct job){.api = &api, .number = ALL, .order = &order};
    for (int i = 0; i < 10; i++)
        cr_assert_eq(gyre_pool_submit(NULL, pool, api.loop, work, on_done, &jobs[ALL]), -EAGAIN);
    atomic_store(&gate, 1);
    crew_until(atomic_load(&jobs[ALL - 1].begun) == 1);
    /* All have run, none is told: they still hold their places. */
    cr_assert_eq(gyre_pool_submit(NULL, pool, api.loop, work, on_done, &jobs[ALL]), -EAGAIN);
    api_until(&api, order == ALL);
    cr_assert_eq(gyre_pool_submit(NULL, pool, api.loop, work, on_done, &jobs[ALL]), 0);
    api_until(&api, order == ALL + 1);
    cr_assert_eq(jobs[ALL].told, 1);
    gyre_pool_destroy(pool);
    api_close(&api);
}

/* Called off before it begins: it never does, and is told at once; the others go on in order. Called off while it runs:
 * it sees that, and what it returns is told. */
BACKEND_TEST(api_work, called_off)
{
    struct job jobs[4];
    struct api api;
    struct gyre_pool *pool;
    unsigned order = 0;
    start(&api, p, &pool, &(struct gyre_pool_options){.threads = 1});
    for (int i = 0; i < 4; i++) {
        jobs[i] = (struct job){.api = &api, .number = 10 + i, .order = &order, .wait_for_cancel = i == 0};
        cr_assert_eq(gyre_pool_submit(&jobs[i].id, pool, api.loop, work, on_done, &jobs[i]), 0);
    }
    crew_until(atomic_load(&jobs[0].begun) == 1);
    cr_assert_eq(gyre_pool_cancel(pool, jobs[2].id), 0);
    cr_assert_eq(gyre_pool_cancel(pool, jobs[2].id), GYRE_ESTALE);
    cr_assert_eq(jobs[2].told, 0, "told from inside of the call");
    api_until(&api, order == 1);
    cr_assert_eq(jobs[2].result, -ECANCELED);
    cr_assert_eq(gyre_pool_cancel(pool, jobs[0].id), 1);
    api_until(&api, order == 4);
    cr_assert(atomic_load(&jobs[0].saw_cancel));
    cr_assert_eq(jobs[0].result, 10);
    cr_assert_eq(jobs[1].result, 11);
    cr_assert_eq(jobs[3].result, 13);
    cr_assert_eq(atomic_load(&jobs[2].begun), 0);
    cr_assert(!atomic_load(&jobs[1].saw_cancel), "the slot's next job was born cancelled");
    cr_assert_eq(jobs[2].told, 1);
    gyre_pool_destroy(pool);
    api_close(&api);
}

/* A job in the place of one that is over: the old name does not call it off, and it is not born cancelled. */
BACKEND_TEST(api_work, place_used_again)
{
    struct api api;
    struct gyre_pool *pool;
    struct gyre_work_id old = {.slot = 0};
    unsigned order = 0;
    start(&api, p, &pool, &(struct gyre_pool_options){.threads = 1});
    for (int i = 0; i < 4; i++) {
        _Atomic(int) gate = 0;
        struct job job = {
            .api = &api, .number = i, .order = &order, .gate = i % 2 ? &gate : NULL, .wait_for_cancel = i % 2 == 0};
        cr_assert_eq(gyre_pool_submit(&job.id, pool, api.loop, work, on_done, &job), 0);
        crew_until(atomic_load(&job.begun) == 1);
        if (i > 0) {
            cr_assert_eq(job.id.slot, old.slot);
            cr_assert_eq(gyre_pool_cancel(pool, old), GYRE_ESTALE);
        }
        old = job.id;
        if (i % 2 == 0)
            cr_assert_eq(gyre_pool_cancel(pool, job.id), 1);
        atomic_store(&gate, 1);
        api_until(&api, order == (unsigned)i + 1);
        cr_assert_eq(atomic_load(&job.saw_cancel), i % 2 == 0);
        cr_assert_eq(job.result, i);
    }
    gyre_pool_destroy(pool);
    api_close(&api);
}

/* Destroying waits for what runs, which is told of it, and calls the rest off; the loop hears of all later. */
BACKEND_TEST(api_work, destroyed_with_jobs)
{
    enum { JOBS = 10 };
    struct job jobs[JOBS];
    struct api api;
    struct gyre_pool *pool;
    unsigned order = 0;
    start(&api, p, &pool, &(struct gyre_pool_options){.threads = 2});
    for (int i = 0; i < JOBS; i++) {
        jobs[i] = (struct job){.api = &api, .number = i, .order = &order, .wait_for_cancel = i < 2};
        cr_assert_eq(gyre_pool_submit(NULL, pool, api.loop, work, on_done, &jobs[i]), 0);
    }
    crew_until(atomic_load(&jobs[0].begun) + atomic_load(&jobs[1].begun) == 2);
    gyre_pool_destroy(pool);
    cr_assert_eq(order, 0);
    api_until(&api, order == JOBS);
    for (int i = 0; i < JOBS; i++) {
        cr_assert_eq(jobs[i].told, 1);
        cr_assert_eq(jobs[i].result, i < 2 ? i : -ECANCELED);
        cr_assert_eq(atomic_load(&jobs[i].begun), i < 2);
    }
    api_close(&api);
}

/* Pool, then loop, without a turn between: the loop's destruction tells. */
BACKEND_TEST(api_work, told_at_the_end)
{
    struct job jobs[3];
    struct api api;
    struct gyre_pool *pool;
    unsigned order = 0;
    start(&api, p, &pool, NULL);
    for (int i = 0; i < 3; i++) {
        jobs[i] = (struct job){.api = &api, .number = i, .order = &order};
        cr_assert_eq(gyre_pool_submit(NULL, pool, api.loop, work, on_done, &jobs[i]), 0);
    }
    gyre_pool_destroy(pool);
    api_destroy_loop(&api);
    cr_assert_eq(order, 3);
    api_close(&api);
}

/* A thread of the pool blocks every signal: they are the program's. */
static int blocked(struct gyre_work *w, void *user)
{
    sigset_t set;
    (void)w;
    (void)user;
    (void)sigemptyset(&set);
    (void)pthread_sigmask(SIG_BLOCK, NULL, &set);
    return sigismember(&set, SIGTERM) == 1 && sigismember(&set, SIGUSR1) == 1;
}

BACKEND_TEST(api_work, errors)
{
    struct api api;
    struct gyre_pool *pool = NULL;
    unsigned order = 0;
    struct job job = {.api = &api, .order = &order};
    start(&api, p, &pool, NULL);
    struct gyre_pool *other = NULL;
    cr_assert_eq(gyre_pool_create(NULL, NULL), -EINVAL);
    cr_assert_eq(gyre_pool_create(&other, &(struct gyre_pool_options){.threads = 257}), GYRE_EOPTION);
    cr_assert_eq(gyre_pool_create(&other, &(struct gyre_pool_options){.queue_max = (1 << 20) + 1}), GYRE_EOPTION);
    cr_assert_null(other);
    cr_assert_eq(gyre_pool_submit(NULL, NULL, api.loop, work, on_done, &job), -EINVAL);
    cr_assert_eq(gyre_pool_submit(NULL, pool, NULL, work, on_done, &job), -EINVAL);
    cr_assert_eq(gyre_pool_submit(NULL, pool, api.loop, NULL, on_done, &job), -EINVAL);
    cr_assert_eq(gyre_pool_submit(NULL, pool, api.loop, work, NULL, &job), -EINVAL);
    cr_assert_eq(gyre_pool_cancel(NULL, (struct gyre_work_id){.slot = 0}), -EINVAL);
    cr_assert_eq(gyre_pool_cancel(pool, (struct gyre_work_id){.slot = UINT32_MAX}), -EINVAL);
    cr_assert_eq(gyre_pool_cancel(pool, (struct gyre_work_id){.slot = 0}), GYRE_ESTALE);
    cr_assert_eq(gyre_pool_submit(NULL, pool, api.loop, blocked, on_done, &job), 0);
    api_until(&api, order == 1);
    cr_assert_eq(job.result, 1, "signals are not blocked");
    gyre_pool_destroy(pool);
    gyre_pool_destroy(NULL);
    api_close(&api);
}

/* ---- the engine's pool ---- */

struct errand {
    struct crew *crew;
    struct gyre_loop *loop;
    struct gyre_conn_id id;
    _Atomic(int) *gate;
    _Atomic(int) err; /* of offloading */
    _Atomic(unsigned) begun, done;
    bool conn_there;
    int result;
};

static int run_errand(struct gyre_work *w, void *user)
{
    struct errand *e = user;
    (void)w;
    atomic_store(&e->begun, 1);
    while (e->gate != NULL && atomic_load(e->gate) == 0)
        crew_pause();
    return 7;
}

static void errand_done(struct gyre_loop *loop, int result, void *user)
{
    struct errand *e = user;
    cr_assert_eq(loop, e->loop);
    cr_assert_eq(gyre_loop_is_current(loop), e->crew->running);
    struct gyre_conn *c = gyre_conn_from_id(e->id);
    e->conn_there = c != NULL;
    e->result = result;
    if (c != NULL)
        cr_assert_eq(gyre_conn_write(c, "done", 4), 0);
    atomic_fetch_add(&e->done, 1);
}

static void go(struct gyre_loop *loop, void *user)
{
    struct errand *e = user;
    e->loop = loop;
    atomic_store(&e->err, gyre_engine_offload(e->crew->engine, run_errand, errand_done, e));
}

/* Work asked for on one loop comes back there; a connection that closed meanwhile is not there, and one that is gets
 * its answer. */
REAL_TEST(api_work, engine_offloads)
{
    enum { CLIENTS = 8 };
    struct crew crew;
    struct errand errands[CLIENTS];
    _Atomic(int) gate = 0;
    crew_init(&crew, p, 4);
    crew.options.work_threads = 2;
    crew_open(&crew);
    crew_listen(&crew, NULL);
    crew_start(&crew);
    crew_connect(&crew, CLIENTS);
    for (unsigned i = 0; i < CLIENTS; i++) {
        errands[i] = (struct errand){.crew = &crew, .id = crew.ids[i], .gate = &gate, .err = 1};
        cr_assert_eq(gyre_loop_post(crew.ids[i].loop, go, &errands[i]), 0);
    }
    for (unsigned i = 0; i < CLIENTS; i++)
        crew_until(atomic_load(&errands[i].err) == 0);
    for (unsigned i = 0; i < CLIENTS; i += 2)
        cr_assert_eq(gyre_conn_id_abort(crew.ids[i]), 0);
    crew_until(atomic_load(&crew.closes) == CLIENTS / 2);
    atomic_store(&gate, 1);
    unsigned answers = 0;
    for (unsigned i = 0; i < CLIENTS; i++) {
        crew_until(atomic_load(&errands[i].done) == 1);
        cr_assert_eq(errands[i].result, 7);
        cr_assert_eq(errands[i].conn_there, i % 2 == 1);
    }
    for (unsigned i = 0; i < CLIENTS; i++) {
        char got[4];
        answers += crew_receive(crew.clients[i], got, 4) == 4 && memcmp(got, "done", 4) == 0;
    }
    cr_assert_eq(answers, CLIENTS / 2);
    crew_close(&crew);
}

/* Outside of its loops it cannot know where to come back to. The pool is one, and the engine's end is its end: what
 * waits is called off and told. */
REAL_TEST(api_work, engine_ends)
{
    struct crew crew;
    struct gyre_pool *pool, *again;
    struct errand errands[6];
    _Atomic(int) gate = 0;
    crew_init(&crew, p, 2);
    crew.options.work_threads = 1;
    crew_open(&crew);
    crew_start(&crew);
    cr_assert_eq(gyre_engine_offload(crew.engine, run_errand, errand_done, NULL), GYRE_ETHREAD);
    cr_assert_eq(gyre_engine_offload(NULL, run_errand, errand_done, NULL), -EINVAL);
    cr_assert_eq(gyre_engine_pool(&pool, crew.engine), 0);
    cr_assert_eq(gyre_engine_pool(&again, crew.engine), 0);
    cr_assert_eq(pool, again);
    struct gyre_loop *loop = gyre_engine_loop(crew.engine, 1);
    for (unsigned i = 0; i < 6; i++) {
        errands[i] = (struct errand){.crew = &crew, .gate = &gate, .err = 1};
        cr_assert_eq(gyre_loop_post(loop, go, &errands[i]), 0);
        crew_until(atomic_load(&errands[i].err) == 0);
    }
    crew_until(atomic_load(&errands[0].begun) == 1);
    gyre_engine_stop(crew.engine);
    crew_join(&crew);
    atomic_store(&gate, 1);
    gyre_engine_destroy(crew.engine);
    for (unsigned i = 0; i < 6; i++) {
        cr_assert_eq(atomic_load(&errands[i].done), 1);
        cr_assert(errands[i].result == 7 || errands[i].result == -ECANCELED);
    }
    cr_assert_eq(errands[0].result, 7);
    cr_assert_eq(atomic_load(&crew.mem.blocks), 0);
}
