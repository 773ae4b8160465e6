/* SPDX-License-Identifier: MIT
 * From outside onto one loop: tasks that run later, closing and aborting by name, walking over the connections. */
#include "fixture.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

static void start(struct api *api, const struct backend_param *p)
{
    api_init(api, p);
    api_open(api);
}

/* ---- delayed tasks ---- */

struct later {
    struct api *api;
    int64_t delay_ns;
    uint64_t posted_ns, ran_ns;
    unsigned *order, number, ran;
    int again; /* what a post from inside says */
};

static void on_later(struct gyre_loop *loop, void *user)
{
    struct later *later = user;
    if (later->api->in_turn)
        api_enter(later->api);
    cr_assert_eq(loop, later->api->loop);
    later->ran++;
    later->ran_ns = api_now_ns(later->api);
    later->number = ++*later->order;
    if (later->api->in_turn)
        api_leave(later->api);
}

/* Posted in one order, run in that of their times, none early; on the simulator's clock to the tick. */
BACKEND_TEST(api_across, delayed_tasks)
{
    static const int64_t delays_ms[] = {40, 0, 7, 100, 7, 1};
    enum { COUNT = sizeof delays_ms / sizeof delays_ms[0] };
    struct later laters[COUNT];
    struct api api;
    unsigned order = 0;
    start(&api, p);
    for (unsigned i = 0; i < COUNT; i++) {
        laters[i] = (struct later){.api = &api, .delay_ns = MS(delays_ms[i]), .order = &order};
        laters[i].posted_ns = api_now_ns(&api);
        cr_assert_eq(gyre_loop_post_after(api.loop, laters[i].delay_ns, on_later, &laters[i]), 0);
        cr_assert_eq(order, 0, "a task from inside of the call");
    }
    api_until(&api, order == COUNT);
    for (unsigned i = 0; i < COUNT; i++) {
        cr_assert_eq(laters[i].ran, 1);
        uint64_t took_ns = laters[i].ran_ns - laters[i].posted_ns;
        cr_assert_geq((int64_t)took_ns, laters[i].delay_ns, "early");
        if (api.is_sim)
            cr_assert_leq((int64_t)took_ns, laters[i].delay_ns + MS(2), "late by the simulator's clock");
        for (unsigned k = 0; k < COUNT; k++)
            if (delays_ms[k] > delays_ms[i] + 2)
                cr_assert_gt(laters[k].number, laters[i].number);
    }
    api_close(&api);
}

static void on_chain(struct gyre_loop *loop, void *user)
{
    struct later *later = user;
    later->ran++;
    later->again = later->ran < 20 ? gyre_loop_post_after(loop, MS(1), on_chain, later) : 0;
}

/* One that posts itself again, from the loop's own thread. */
BACKEND_TEST(api_across, delayed_task_posts_itself)
{
    struct api api;
    struct later later = {.api = &api};
    start(&api, p);
    uint64_t before_ns = api_now_ns(&api);
    cr_assert_eq(gyre_loop_post_after(api.loop, 0, on_chain, &later), 0);
    api_until(&api, later.ran == 20);
    cr_assert_eq(later.again, 0);
    cr_assert_geq(api_now_ns(&api) - before_ns, (uint64_t)MS(19), "early");
    api_close(&api);
}

static void on_end(struct gyre_loop *loop, void *user)
{
    struct later *later = user;
    later->ran++;
    later->again = gyre_loop_post_after(loop, 0, on_end, later);
}

/* What waits when the loop is destroyed is called then, once, whether its timer runs or it is still on its way. */
BACKEND_TEST(api_across, delayed_tasks_at_the_end)
{
    struct api api;
    struct later under_way = {.api = &api}, waits = {.api = &api};
    start(&api, p);
    cr_assert_eq(gyre_loop_post_after(api.loop, MS(3600000), on_end, &waits), 0);
    api_watch(&api, MS(3));
    cr_assert_eq(gyre_loop_post_after(api.loop, MS(3600000), on_end, &under_way), 0);
    cr_assert_eq(waits.ran, 0);
    api_destroy_loop(&api);
    cr_assert_eq(waits.ran, 1);
    cr_assert_eq(under_way.ran, 1);
    cr_assert_eq(waits.again, GYRE_ESHUTDOWN);
    cr_assert_eq(under_way.again, GYRE_ESHUTDOWN);
    api_close(&api);
}

/* The limit, and what is refused. Delayed tasks do not take the place of others. */
BACKEND_TEST(api_across, delayed_tasks_max)
{
    struct api api;
    unsigned order = 0;
    struct later later = {.api = &api, .order = &order};
    api_init(&api, p);
    api.options.tasks_max = 10;
    api_open(&api);
    cr_assert_eq(gyre_loop_post_after(NULL, 0, on_later, &later), -EINVAL);
    cr_assert_eq(gyre_loop_post_after(api.loop, 0, NULL, &later), -EINVAL);
    cr_assert_eq(gyre_loop_post_after(api.loop, -1, on_later, &later), GYRE_EOPTION);
    for (unsigned i = 0; i < 10; i++)
        cr_assert_eq(gyre_loop_post_after(api.loop, MS(20), on_later, &later), 0);
    cr_assert_eq(gyre_loop_post_after(api.loop, MS(20), on_later, &later), -EAGAIN);
    api_turn(&api);
    cr_assert_eq(gyre_loop_post_after(api.loop, MS(20), on_later, &later), -EAGAIN);
    cr_assert_eq(gyre_loop_post(api.loop, on_later, &later), 0);
    api_until(&api, later.ran == 11);
    cr_assert_eq(gyre_loop_post_after(api.loop, MS(1), on_later, &later), 0);
    api_until(&api, later.ran == 12);
    api_close(&api);
}

struct distant {
    struct api *api;
    struct later laters[200];
    unsigned order;
    _Atomic(bool) posted;
};

static void stop_when_all(struct gyre_loop *loop, void *user)
{
    struct distant *d = user;
    if (atomic_load(&d->posted) && d->order == 200)
        gyre_loop_stop(loop);
    else
        cr_assert_eq(gyre_loop_post_after(loop, MS(1), stop_when_all, d), 0);
}

static void *post_from_afar(void *arg)
{
    struct distant *d = arg;
    for (unsigned i = 0; i < 200; i++) {
        d->laters[i] = (struct later){.api = d->api, .delay_ns = MS(i % 17), .order = &d->order};
        d->laters[i].posted_ns = env_now_ns();
        if (gyre_loop_post_after(d->api->loop, d->laters[i].delay_ns, on_later, &d->laters[i]) != 0)
            return arg;
    }
    atomic_store(&d->posted, true);
    return NULL;
}

/* From another thread, while the loop waits: the time counts from the call. */
REAL_TEST(api_across, delayed_tasks_from_another_thread)
{
    struct api api;
    struct distant d = {.api = &api};
    pthread_t thread;
    void *failed;
    start(&api, p);
    cr_assert_eq(gyre_loop_post(api.loop, stop_when_all, &d), 0);
    cr_assert_eq(pthread_create(&thread, NULL, post_from_afar, &d), 0);
    api.in_turn = true;
    cr_assert_eq(gyre_loop_run(api.loop), 0);
    api.in_turn = false;
    cr_assert_eq(pthread_join(thread, &failed), 0);
    cr_assert_null(failed);
    for (unsigned i = 0; i < 200; i++)
        cr_assert_geq((int64_t)(d.laters[i].ran_ns - d.laters[i].posted_ns), d.laters[i].delay_ns, "early");
    api_close(&api);
}

/* ---- closing by name ---- */

struct told {
    struct api *api;
    struct end *e;
    unsigned times;
    unsigned closes_before;
    int err;
};

static void on_told(int err, void *user)
{
    struct told *told = user;
    api_enter(told->api);
    told->times++;
    told->err = err;
    told->closes_before = told->e->closes;
    api_leave(told->api);
}

/* The peer gets all that was queued and the end; `done` comes after on_close, once to each who asked, then it is
 * stale. */
TRANSPORT_TEST(api_across, close_then)
{
    struct api api;
    struct peer peer;
    api_start(&api, p, NULL);
    struct end *e = peer_open(&api, &peer);
    struct told told[3] = {{.api = &api, .e = e}, {.api = &api, .e = e}, {.api = &api, .e = e}};
    end_put(e, 100000);
    cr_assert_eq(gyre_conn_id_close_then(e->id, on_told, &told[0]), 0);
    cr_assert_eq(gyre_conn_id_close_then(e->id, on_told, &told[1]), 0);
    cr_assert_eq(told[0].times, 0, "a callback from inside of the call");
    peer_expect(&peer, 100000);
    peer_until_end(&peer);
    cr_assert(peer.eof);
    peer_close(&peer);
    api_until(&api, told[0].times == 1 && told[1].times == 1);
    cr_assert_eq(told[0].closes_before, 1, "done before on_close");
    cr_assert_eq(told[0].err, 0);
    cr_assert_eq(e->reason, GYRE_CLOSE_USER);
    cr_assert_eq(gyre_conn_id_close_then(e->id, on_told, &told[2]), 0);
    api_until(&api, told[2].times == 1);
    cr_assert_eq(told[2].err, GYRE_ESTALE);
    api_watch(&api, MS(2));
    cr_assert_eq(told[0].times + told[1].times + told[2].times, 3);
    api_close(&api);
}

/* Aborted by name while it lingers: who waits for the close is told what on_close got. Aborting again finds nothing. */
BACKEND_TEST(api_across, abort_by_id)
{
    struct api api;
    struct peer peer;
    api_start(&api, p, NULL);
    struct end *e = peer_open(&api, &peer);
    struct told told = {.api = &api, .e = e};
    cr_assert_eq(gyre_conn_id_close_then(e->id, on_told, &told), 0);
    api_watch(&api, MS(2));
    cr_assert_eq(told.times, 0, "the peer has not closed");
    cr_assert_eq(gyre_conn_id_abort(e->id), 0);
    api_until(&api, told.times == 1);
    cr_assert_eq(told.closes_before, 1);
    cr_assert_eq(told.err, e->err);
    cr_assert_eq(e->reason, GYRE_CLOSE_ABORT);
    peer_until_end(&peer);
    peer_close(&peer);
    cr_assert_eq(gyre_conn_id_abort(e->id), 0);
    api_watch(&api, MS(2));
    api_close(&api);
}

static void keep_fd(struct gyre_conn *c, int fd, void *user)
{
    (void)c;
    *(int *)user = fd;
}

/* A connection that is being detached goes to the user all the same. Who waits for its close is told then that it is
 * gone. */
REAL_TEST(api_across, close_then_while_detaching)
{
    struct api api;
    struct peer peer;
    int fd = -1;
    api_start(&api, p, NULL);
    struct end *e = peer_open(&api, &peer);
    struct told told = {.api = &api, .e = e};
    end_put(e, MIB(8)); /* more than the kernel takes */
    cr_assert_eq(gyre_conn_detach(e->c, keep_fd, &fd), 0);
    cr_assert_eq(gyre_conn_id_close_then(e->id, on_told, &told), 0);
    api_watch(&api, MS(5));
    cr_assert_eq(told.times, 0);
    peer_expect(&peer, MIB(8));
    api_until(&api, fd >= 0);
    e->closes = 1; /* on_close does not come */
    e->c = NULL;
    api_until(&api, told.times == 1);
    cr_assert_eq(told.err, GYRE_ESTALE, "%d", told.err);
    (void)close(fd);
    peer_close(&peer);
    api_close(&api);
}

/* The loop is destroyed before the name is looked up, or while the peer is waited for: `done` comes all the same. */
BACKEND_TEST(api_across, close_then_at_the_end)
{
    struct api api;
    struct peer peers[2];
    api_start(&api, p, NULL);
    struct end *first = peer_open(&api, &peers[0]);
    struct end *second = peer_open(&api, &peers[1]);
    struct told told[2] = {{.api = &api, .e = first}, {.api = &api, .e = second}};
    cr_assert_eq(gyre_conn_id_close_then(first->id, on_told, &told[0]), 0);
    api_watch(&api, MS(2));
    cr_assert_eq(gyre_conn_id_close_then(second->id, on_told, &told[1]), 0);
    api_destroy_loop(&api);
    cr_assert_eq(told[0].times, 1);
    cr_assert_eq(told[0].err, GYRE_ESHUTDOWN);
    cr_assert_eq(told[1].times, 1);
    peer_close(&peers[0]);
    peer_close(&peers[1]);
    api_close(&api);
}

BACKEND_TEST(api_across, by_id_errors)
{
    struct api api;
    struct told told = {.api = &api};
    start(&api, p);
    const struct gyre_conn_id nobody = {.loop = NULL}, stale = {.loop = api.loop, .slot = 12345, .generation = 7};
    cr_assert_eq(gyre_conn_id_abort(nobody), -EINVAL);
    cr_assert_eq(gyre_conn_id_close_then(nobody, on_told, &told), -EINVAL);
    cr_assert_eq(gyre_conn_id_close_then(stale, NULL, &told), -EINVAL);
    told.e = &(struct end){.closes = 0};
    cr_assert_eq(gyre_conn_id_close_then(stale, on_told, &told), 0);
    api_until(&api, told.times == 1);
    cr_assert_eq(told.err, GYRE_ESTALE);
    api_close(&api);
}

/* ---- walking ---- */

enum { WALKED = 150 }; /* more than two slabs */

struct walker {
    struct api *api;
    unsigned calls, stop_at;
    bool close, connect;
    struct gyre_conn *seen[2 * WALKED];
};

static bool on_each(struct gyre_conn *c, void *user)
{
    struct walker *w = user;
    for (unsigned i = 0; i < w->calls; i++)
        cr_assert_neq(w->seen[i], c, "visited twice");
    w->seen[w->calls++] = c;
    if (w->close)
        cr_assert_eq(w->calls % 2 == 0 ? gyre_conn_abort(c) : gyre_conn_close(c), 0);
    if (w->connect && w->calls <= WALKED)
        (void)api_connect(w->api, w->api->address, NULL, NULL);
    return w->calls != w->stop_at;
}

/* Every connection once; as far as asked for; closing and connecting meanwhile. */
BACKEND_TEST(api_across, walks)
{
    struct api api;
    api_start(&api, p, NULL);
    struct walker w = {.api = &api};
    cr_assert_eq(gyre_loop_each_conn(api.loop, on_each, &w), 0);
    for (unsigned i = 0; i < WALKED; i++)
        (void)api_connect(&api, api.address, NULL, NULL);
    api_until(&api, api.accepted == WALKED);
    w = (struct walker){.api = &api};
    cr_assert_eq(gyre_loop_each_conn(api.loop, on_each, &w), 2 * WALKED);
    w = (struct walker){.api = &api, .stop_at = 7};
    cr_assert_eq(gyre_loop_each_conn(api.loop, on_each, &w), 7);
    w = (struct walker){.api = &api, .close = true};
    cr_assert_eq(gyre_loop_each_conn(api.loop, on_each, &w), 2 * WALKED);
    w = (struct walker){.api = &api};
    cr_assert_eq(gyre_loop_each_conn(api.loop, on_each, &w), 0, "one that is closing was visited");
    api_until(&api, gyre_loop_conn_count(api.loop) == 0);
    cr_assert_eq(gyre_loop_each_conn(NULL, on_each, &w), -EINVAL);
    cr_assert_eq(gyre_loop_each_conn(api.loop, NULL, &w), -EINVAL);
    api_close(&api);
}

/* The table of connections grows under the walk. */
BACKEND_TEST(api_across, walks_while_connecting)
{
    struct api api;
    api_start(&api, p, NULL);
    for (unsigned i = 0; i < 50; i++)
        (void)api_connect(&api, api.address, NULL, NULL);
    struct walker w = {.api = &api, .connect = true, .stop_at = WALKED};
    int64_t calls = gyre_loop_each_conn(api.loop, on_each, &w);
    cr_assert_geq(calls, 50);
    cr_assert_leq(calls, WALKED);
    cr_assert_eq(gyre_loop_conn_count(api.loop), 50 + (unsigned)calls);
    api_until(&api, api.accepted == 50 + calls);
    api_close(&api);
}
