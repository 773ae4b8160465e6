/* SPDX-License-Identifier: MIT
 * Calls from other threads and from signal handlers. The loop runs on the test's thread, in gyre_loop_run() where
 * others have to wake it. */
#include "fixture.h"

#include <errno.h>
#include <gyre/stats.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>

static void start(struct api *api, const struct backend_param *p)
{
    api_init(api, p);
    api_open(api);
}

static void run(struct api *api)
{
    api->in_turn = true;
    cr_assert_eq(gyre_loop_run(api->loop), 0);
    api->in_turn = false;
}

enum { POSTERS = 4, POSTS = 3000 };

struct poster {
    struct api *api;
    pthread_t thread;
    unsigned next; /* number expected */
    _Atomic(unsigned) *left;
    struct post {
        struct poster *poster;
        unsigned number;
    } posts[POSTS];
};

static void on_task(struct gyre_loop *loop, void *user)
{
    const struct post *post = user;
    struct poster *poster = post->poster;
    api_enter(poster->api);
    cr_assert_eq(loop, poster->api->loop);
    cr_assert(gyre_loop_is_current(loop));
    cr_assert_eq(post->number, poster->next, "task %u came when %u was due", post->number, poster->next);
    poster->next++;
    if (atomic_fetch_sub(poster->left, 1) == 1)
        gyre_loop_stop(loop);
    api_leave(poster->api);
}

static void *post_all(void *arg)
{
    struct poster *poster = arg;
    for (unsigned i = 0; i < POSTS; i++) {
        poster->posts[i] = (struct post){poster, i};
        int err;
        while ((err = gyre_loop_post(poster->api->loop, on_task, &poster->posts[i])) == -EAGAIN)
            ;
        if (err != 0)
            abort();
    }
    return NULL;
}

/* Tasks of four threads: none lost, each thread's in its order. */
REAL_TEST(api_thread, post_from_many)
{
    static struct poster posters[POSTERS];
    struct api api;
    _Atomic(unsigned) left = POSTERS * POSTS;
    start(&api, p);
    for (unsigned i = 0; i < POSTERS; i++) {
        posters[i].api = &api;
        posters[i].left = &left;
        cr_assert_eq(pthread_create(&posters[i].thread, NULL, post_all, &posters[i]), 0);
    }
    run(&api);
    for (unsigned i = 0; i < POSTERS; i++) {
        cr_assert_eq(pthread_join(posters[i].thread, NULL), 0);
        cr_assert_eq(posters[i].next, POSTS);
    }
    cr_assert_eq(api_stats(&api).tasks, POSTERS * POSTS);
    api_close(&api);
}

static void count_task(struct gyre_loop *loop, void *user)
{
    unsigned *count = user;
    (void)loop;
    ++*count;
}

/* At tasks_max the next is refused; those that wait are run, and then there is room again. */
BACKEND_TEST(api_thread, tasks_max)
{
    struct api api;
    unsigned count = 0;
    api_init(&api, p);
    api.options.tasks_max = 10;
    api_open(&api);
    for (unsigned i = 0; i < 10; i++)
        cr_assert_eq(gyre_loop_post(api.loop, count_task, &count), 0);
    cr_assert_eq(gyre_loop_post(api.loop, count_task, &count), -EAGAIN);
    cr_assert_eq(count, 0, "a task from inside of gyre_loop_post");
    api_until(&api, count == 10);
    cr_assert_eq(gyre_loop_post(api.loop, count_task, &count), 0);
    api_destroy_loop(&api); /* tasks still posted are run first */
    cr_assert_eq(count, 11);
    api_close(&api);
}

static void post_again(struct gyre_loop *loop, void *user)
{
    unsigned *count = user;
    if (++*count < 100)
        cr_assert_eq(gyre_loop_post(loop, post_again, user), 0);
}

/* A task that posts itself does not keep events from having their turn. */
BACKEND_TEST(api_thread, task_posts_itself)
{
    struct api api;
    unsigned count = 0;
    start(&api, p);
    cr_assert_eq(gyre_loop_post(api.loop, post_again, &count), 0);
    api_until(&api, count == 100);
    api_close(&api);
}

struct remote {
    struct api *api;
    struct gyre_conn_id id;
    _Atomic(unsigned) done, stale, other;
    pthread_t thread;
};

static void on_remote_done(int err, void *user)
{
    struct remote *r = user;
    api_enter(r->api);
    if (err == 0)
        atomic_fetch_add(&r->done, 1);
    else if (err == GYRE_ESTALE || err == GYRE_ECLOSED)
        atomic_fetch_add(&r->stale, 1);
    else
        atomic_fetch_add(&r->other, 1);
    api_leave(r->api);
}

static void *write_by_id(void *arg)
{
    struct remote *r = arg;
    uint8_t data[100];
    for (unsigned i = 0; i < 500; i++) {
        env_pattern_fill(data, sizeof data, 11, i * 100);
        if (gyre_conn_id_write(r->id, data, sizeof data, on_remote_done, r) != 0)
            abort();
        if (gyre_conn_id_wake(r->id) != 0)
            abort();
    }
    if (gyre_conn_id_close(r->id) != 0)
        abort();
    if (gyre_conn_id_write(r->id, "late", 4, on_remote_done, r) != 0)
        abort();
    return NULL;
}

/* Another thread writes by id, wakes, closes; what it wrote before closing is delivered in order, what it writes after
 * is told it is too late. */
REAL_TEST(api_thread, by_id)
{
    struct api api;
    struct peer peer;
    api_start(&api, p, NULL);
    struct end *e = peer_open(&api, &peer);
    struct remote r = {.api = &api, .id = e->id};
    cr_assert_eq(pthread_create(&r.thread, NULL, write_by_id, &r), 0);
    peer_until_end(&peer);
    cr_assert(peer.eof);
    cr_assert_eq(peer.got, 50000);
    peer_close(&peer);
    cr_assert_eq(pthread_join(r.thread, NULL), 0);
    api_until(&api, e->closes == 1 && r.done + r.stale + r.other == 501);
    cr_assert_eq(r.done, 500);
    cr_assert_eq(r.stale, 1);
    /* And by the stale id, with another connection in its place. */
    struct end *second = peer_open(&api, &peer);
    cr_assert_eq(gyre_conn_id_write(r.id, "stale", 5, on_remote_done, &r), 0);
    cr_assert_eq(gyre_conn_id_close(r.id), 0);
    cr_assert_eq(gyre_conn_id_wake(r.id), 0);
    cr_assert_eq(gyre_conn_id_write(r.id, "stale", 5, NULL, NULL), 0);
    cr_assert_eq(r.stale, 1, "done from inside the call");
    api_until(&api, r.stale == 2);
    api_watch(&api, MS(5));
    cr_assert_eq(peer_recv_some(&peer, 1), 0);
    cr_assert_eq(second->closes + second->datas, 0);
    cr_assert_eq(gyre_conn_id_write(r.id, NULL, 5, on_remote_done, &r), -EINVAL);
    peer_close(&peer);
    api_close(&api);
}

/* The same calls on one thread, and a write that the cap refuses is told so. */
BACKEND_TEST(api_thread, by_id_refused)
{
    struct api api;
    struct peer peer;
    static uint8_t data[20000];
    struct gyre_listener_options options = {.conn = {.write_max_bytes = 10000}};
    api_init(&api, p);
    api_open(&api);
    api_listen(&api, NULL, &options);
    struct end *e = peer_open(&api, &peer);
    struct remote r = {.api = &api, .id = e->id};
    cr_assert_eq(gyre_conn_id_write(r.id, data, sizeof data, on_remote_done, &r), 0);
    api_until(&api, r.other == 1);
    cr_assert_eq(gyre_conn_id_write(r.id, data, 0, on_remote_done, &r), 0);
    api_until(&api, r.done == 1);
    peer_close(&peer);
    api_close(&api);
}

struct trespasser {
    struct api *api;
    struct end *e;
    struct gyre_timer *timer;
    struct gyre_reconnector *reconnector;
    struct gyre_listener *listener;
    struct gyre_buf *buf;
    int errs[32];
    unsigned count;
};

static void *trespass(void *arg)
{
    struct trespasser *t = arg;
    struct gyre_conn *c = t->e->c;
    struct gyre_slice view;
    struct gyre_buf *buf;
    struct gyre_timer *timer;
    static const struct gyre_conn_handlers handlers = {.on_data = (void (*)(struct gyre_conn *))abort};
    int errs[] = {
        gyre_conn_write(c, "x", 1),
        gyre_conn_write_ref(c, "x", 1, NULL, NULL),
        (int)gyre_conn_forward(c, c, 1),
        gyre_conn_pause(c),
        gyre_conn_resume(c),
        gyre_conn_wake(c),
        gyre_conn_shutdown(c),
        gyre_conn_close(c),
        gyre_conn_abort(c),
        gyre_conn_set_idle_timeout(c, 1),
        gyre_buf_hold(&buf, &view, c, 1),
        gyre_timer_create(&timer, t->api->loop, (gyre_timer_fn *)abort, NULL),
        gyre_timer_start(t->timer, 0, 0),
        gyre_timer_stop(t->timer),
        gyre_timer_destroy(t->timer),
        gyre_reconnector_start(t->reconnector),
        gyre_reconnector_stop(t->reconnector),
        gyre_reconnector_destroy(t->reconnector),
        gyre_listener_pause(t->listener),
        gyre_listener_resume(t->listener),
        gyre_listener_close(t->listener),
        gyre_buf_release(t->buf),
        gyre_loop_set_user(t->api->loop, NULL),
        (int)gyre_conn_find(c, "x", 1, 0),
        gyre_connect(NULL, t->api->loop, "tcp://127.0.0.1:1", &handlers, NULL),
        gyre_loop_run_nowait(t->api->loop),
        gyre_loop_run(t->api->loop),
    };
    t->count = sizeof errs / sizeof errs[0];
    for (unsigned i = 0; i < t->count; i++)
        t->errs[i] = errs[i];
    return NULL;
}

static void leave(struct end *e)
{
    (void)e;
}

/* From a wrong thread every call is refused, and does no harm. */
REAL_TEST(api_thread, wrong_thread)
{
    static const struct gyre_conn_handlers handlers = {.on_data = (void (*)(struct gyre_conn *))abort};
    const struct script script = {.data = leave};
    struct gyre_slice view;
    struct api api;
    struct peer peer;
    pthread_t thread;
    api_start(&api, p, &script);
    struct trespasser t = {.api = &api, .e = peer_open(&api, &peer), .listener = api.listener};
    peer_send(&peer, 10);
    api_until(&api, gyre_conn_inbound(t.e->c) == 10);
    cr_assert_eq(gyre_buf_hold(&t.buf, &view, t.e->c, 10), 0);
    cr_assert_eq(gyre_reconnector_create(&t.reconnector, api.loop, "tcp://127.0.0.1:1", &handlers, NULL), 0);
    unsigned datas = t.e->datas;
    cr_assert_eq(gyre_timer_create(&t.timer, api.loop, (gyre_timer_fn *)abort, NULL), 0);
    cr_assert_eq(pthread_create(&thread, NULL, trespass, &t), 0);
    cr_assert_eq(pthread_join(thread, NULL), 0);
    for (unsigned i = 0; i < t.count; i++)
        cr_expect_eq(t.errs[i], GYRE_ETHREAD, "call %u: %s", i, gyre_err_name(t.errs[i]));
    api_watch(&api, MS(5));
    cr_assert_eq(t.e->closes, 0);
    cr_assert_eq(t.e->datas, datas);
    end_put(t.e, 10);
    peer_expect(&peer, 10);
    cr_assert_eq(gyre_timer_destroy(t.timer), 0);
    cr_assert_eq(gyre_reconnector_destroy(t.reconnector), 0);
    cr_assert_eq(gyre_buf_release(t.buf), 0);
    peer_close(&peer);
    api_close(&api);
}

static void *destroy_it(void *arg)
{
    struct gyre_loop *loop = arg;
    int err = gyre_loop_destroy(loop);
    gyre_loop_stop(loop);
    return (void *)(intptr_t)err;
}

static void destroy_inside(struct gyre_loop *loop, void *user)
{
    struct trespasser *t = user;
    pthread_t thread;
    void *result;
    t->errs[0] = gyre_loop_destroy(loop);
    cr_assert_eq(pthread_create(&thread, NULL, destroy_it, loop), 0);
    cr_assert_eq(pthread_join(thread, &result), 0);
    t->errs[1] = (int)(intptr_t)result;
}

/* A loop that runs is not destroyed, neither by itself nor by another thread. */
REAL_TEST(api_thread, destroy_refused)
{
    struct api api;
    struct trespasser t = {.count = 0};
    api_start(&api, p, NULL);
    cr_assert_eq(gyre_loop_post(api.loop, destroy_inside, &t), 0);
    run(&api);
    cr_assert_eq(t.errs[0], GYRE_ESTATE);
    cr_assert_eq(t.errs[1], GYRE_ETHREAD);
    api_close(&api);
}

static void *stop_it(void *arg)
{
    gyre_loop_stop(arg);
    return NULL;
}

/* gyre_loop_run() returns when another thread stops it, over and over; connections stay as they are. */
REAL_TEST(api_thread, stop)
{
    struct api api;
    struct peer peer;
    api_start(&api, p, NULL);
    struct end *e = peer_open(&api, &peer);
    for (unsigned i = 0; i < 50; i++) {
        pthread_t thread;
        cr_assert_eq(pthread_create(&thread, NULL, stop_it, api.loop), 0);
        run(&api);
        cr_assert_eq(pthread_join(thread, NULL), 0);
        cr_assert_eq(e->closes, 0);
    }
    cr_assert(!gyre_loop_is_current(api.loop));
    peer_send(&peer, 10);
    api_until(&api, e->got == 10);
    peer_close(&peer);
    api_close(&api);
}

static struct gyre_loop *signalled;

static void on_signal(int number)
{
    (void)number;
    gyre_loop_stop(signalled);
}

/* A signal handler stops it. */
REAL_TEST(api_thread, stop_from_signal)
{
    struct api api;
    struct sigaction action = {.sa_handler = on_signal};
    start(&api, p);
    signalled = api.loop;
    cr_assert_eq(sigaction(SIGALRM, &action, NULL), 0);
    for (unsigned i = 0; i < 5; i++) {
        struct itimerspec soon = {.it_value = {.tv_nsec = 5000000}};
        timer_t timer;
        struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGALRM};
        cr_assert_eq(timer_create(CLOCK_MONOTONIC, &event, &timer), 0);
        cr_assert_eq(timer_settime(timer, 0, &soon, NULL), 0);
        run(&api);
        (void)timer_delete(timer);
    }
    api_close(&api);
}

static void run_inside(struct end *e)
{
    e->n = (uint64_t)(int64_t)gyre_loop_run(e->api->loop);
    cr_assert_eq(gyre_loop_run_nowait(e->api->loop), GYRE_ESTATE);
    (void)end_take(e);
}

/* Running a loop from one of its own callbacks is refused. */
BACKEND_TEST(api_thread, run_inside_a_callback)
{
    struct api api;
    struct peer peer;
    const struct script script = {.data = run_inside};
    api_start(&api, p, &script);
    struct end *e = peer_open(&api, &peer);
    peer_send(&peer, 1);
    api_until(&api, e->got == 1);
    cr_assert_eq((int)(int64_t)e->n, GYRE_ESTATE);
    peer_close(&peer);
    api_close(&api);
}
