/* SPDX-License-Identifier: MIT
 * What gnet, gev and evio let other threads do with a connection: wake it, close it and be told, look at what is
 * attached to it and at what waits to be sent; and moving it from one loop to another. The engine is on threads of its
 * own, and the test's threads are none of its. */
#include "rig.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { LOOPS = 3, ROUNDS = 60, THREADS = 4 };

static struct gyre_conn_id newest; /* written before `known`, read after it */
static _Atomic(unsigned) known, datas, done_calls, late_calls;
static _Atomic(int) done_err, closes_before_done;

static void learn(struct gyre_conn *c)
{
    newest = gyre_conn_id_of(c);
    rig_on_open(c);
    atomic_fetch_add(&known, 1);
}

static void listen_with(struct rig *r, const struct backend_param *p, const struct gyre_conn_handlers *handlers)
{
    const struct gyre_listener_options options = {.balance = GYRE_BALANCE_ROUND_ROBIN};
    rig_open(r, p, LOOPS);
    int err = gyre_engine_listen(&r->listener, r->engine, rig_tcp, handlers, &options);
    cr_assert_eq(err, 0, "%s", gyre_err_name(err));
    rig_run(r);
}

/* A client whose connection is the newest. */
static int client(const struct rig *r)
{
    unsigned before = atomic_load(&known);
    int fd = rig_client(gyre_listener_address(r->listener));
    await(atomic_load(&known) > before);
    return fd;
}

/* ---- Waking ---- */

static void say_that_it_was_woken(struct gyre_conn *c)
{
    cr_assert(gyre_loop_is_current(gyre_conn_loop(c)));
    cr_assert_eq(gyre_conn_inbound(c), 0);
    cr_assert_eq(gyre_conn_discard(c, SIZE_MAX), 0);
    atomic_fetch_add(&datas, 1);
    cr_assert_eq(gyre_conn_write(c, "woken", 5), 0);
}

/* A client that says nothing: each wake of another thread is an on_data, which finds nothing and may answer. */
REAL_TEST(gnet_threads, woken)
{
    static const struct gyre_conn_handlers handlers = {
        .on_open = learn, .on_data = say_that_it_was_woken, .on_close = rig_on_close};
    struct rig r;
    char got[5];
    listen_with(&r, p, &handlers);
    int fd = client(&r);
    cr_assert(!gyre_loop_is_current(newest.loop));
    for (unsigned i = 1; i <= 20; i++) {
        cr_assert_eq(gyre_conn_id_wake(newest), 0);
        cr_assert_eq(rig_receive(fd, got, 5), 5);
        cr_assert_eq(memcmp(got, "woken", 5), 0);
        cr_assert_eq(atomic_load(&datas), i, "%u wakes were %u calls", i, atomic_load(&datas));
    }
    (void)close(fd);
    await(r.closes == 1);
    cr_assert_eq(gyre_conn_id_wake(newest), 0, "a wake of one that is gone is nothing");
    rig_stop(&r);
    cr_assert_eq(atomic_load(&datas), 20);
}

static _Atomic(bool) go, enough;

static void *wake_it(void *arg)
{
    const struct gyre_conn_id *id = arg;
    while (!atomic_load(&go))
        (void)sched_yield();
    while (!atomic_load(&enough)) {
        int err = gyre_conn_id_wake(*id);
        cr_assert(err == 0 || err == -EAGAIN, "%s", gyre_err_name(err));
    }
    return NULL;
}

static void count_data(struct gyre_conn *c)
{
    cr_assert_eq(gyre_conn_close_reason(c), GYRE_CLOSE_NONE, "on_data of a connection that is closing");
    (void)gyre_conn_discard(c, SIZE_MAX);
    atomic_fetch_add(&datas, 1);
}

/* Wakes of one thread race with the close of another and with the client's leaving: one on_close each, and nothing
 * after it; what comes too late reaches nobody else. */
REAL_TEST(gnet_threads, woken_and_closed)
{
    static const struct gyre_conn_handlers handlers = {
        .on_open = learn, .on_data = count_data, .on_close = rig_on_close};
    struct rig r;
    listen_with(&r, p, &handlers);
    for (unsigned i = 1; i <= ROUNDS; i++) {
        pthread_t thread;
        struct gyre_conn_id id;
        int fd = client(&r);
        id = newest;
        atomic_store(&go, false);
        atomic_store(&enough, false);
        cr_assert_eq(pthread_create(&thread, NULL, wake_it, &id), 0);
        cr_assert_eq(send(fd, "x", 1, MSG_NOSIGNAL), 1);
        atomic_store(&go, true);
        if (i % 3 != 0)
            cr_assert_eq(i % 3 == 1 ? gyre_conn_id_close(id) : gyre_conn_id_abort(id), 0);
        (void)close(fd);
        await(r.closes == i);
        atomic_store(&enough, true);
        cr_assert_eq(pthread_join(thread, NULL), 0);
    }
    rig_stop(&r);
    cr_assert_eq(r.closes, ROUNDS);
}

/* ---- Closing, and being told ---- */

static void closed(int err, void *user)
{
    struct rig *r = user;
    cr_assert(gyre_loop_is_current(newest.loop), "told on another thread");
    atomic_store(&closes_before_done, (int)atomic_load(&r->closes));
    atomic_store(&done_err, err);
    atomic_fetch_add(&done_calls, 1);
}

static void discard(struct gyre_conn *c)
{
    (void)gyre_conn_discard(c, SIZE_MAX);
}

/* What was written before is delivered, then comes the end; `done` comes on the loop, after on_close, and for one that
 * is gone says so. */
REAL_TEST(gnet_threads, closed_and_told)
{
    static const struct gyre_conn_handlers handlers = {.on_open = learn, .on_data = discard, .on_close = rig_on_close};
    static uint8_t data[100000], got[sizeof data];
    struct rig r;
    listen_with(&r, p, &handlers);
    for (unsigned i = 0; i < LOOPS; i++) {
        int fd = client(&r);
        env_pattern_fill(data, sizeof data, 3, 0);
        cr_assert_eq(gyre_conn_id_write(newest, data, sizeof data, NULL, NULL), 0);
        memset(data, 0, sizeof data);
        cr_assert_eq(gyre_conn_id_close_then(newest, closed, &r), 0);
        cr_assert_eq(rig_receive(fd, got, sizeof got), sizeof got);
        cr_assert_eq(env_pattern_check(got, sizeof got, 3, 0), -1);
        cr_assert_eq(rig_receive(fd, got, 1), 0, "no end");
        (void)close(fd);
        await(atomic_load(&done_calls) == 2 * i + 1);
        cr_assert_eq(atomic_load(&done_err), 0);
        cr_assert_eq(atomic_load(&closes_before_done), (int)i + 1, "done before on_close");
        cr_assert_eq(gyre_conn_id_close_then(newest, closed, &r), 0);
        await(atomic_load(&done_calls) == 2 * i + 2);
        cr_assert_eq(atomic_load(&done_err), GYRE_ESTALE);
    }
    rig_stop(&r);
}

/* ---- What is attached to it ---- */

/* A thing with an owner: the connection's, or whoever exchanged it for another. */
struct thing {
    _Atomic(unsigned) uses;
};

enum { THINGS = 64 };
static struct thing things[THINGS];
static _Atomic(unsigned) attached, detached;

static void *_Atomic last_shared; /* what the connection had when it closed */

static void share_first(struct gyre_conn *c)
{
    cr_assert_eq(gyre_conn_share(c, &things[0]), 0);
    atomic_fetch_add(&attached, 1);
    learn(c);
}

static void release(struct gyre_conn *c, int err)
{
    struct thing *t = gyre_conn_shared(c);
    cr_assert(t >= things && t < things + THINGS);
    atomic_store(&last_shared, t);
    atomic_fetch_add(&detached, 1);
    rig_on_close(c, err);
}

struct meddler {
    struct gyre_conn_id id;
    unsigned number;
    unsigned gone;
};

/* Look at it and exchange it until the connection is gone. */
static void *meddle(void *arg)
{
    struct meddler *m = arg;
    for (unsigned i = 0;; i++) {
        void *ptr = NULL, *old = NULL;
        int64_t queued = gyre_conn_id_outbound(m->id);
        cr_assert(queued >= 0 || queued == GYRE_ESTALE);
        int err = gyre_conn_id_shared(&ptr, m->id);
        if (err == GYRE_ESTALE)
            break;
        struct thing *t = ptr;
        cr_assert(err == 0 && t >= things && t < things + THINGS);
        atomic_fetch_add(&t->uses, 1);
        err = gyre_conn_id_set_shared(&old, m->id, &things[(m->number * 17 + i) % THINGS]);
        if (err == GYRE_ESTALE)
            break;
        cr_assert_eq(err, 0);
        atomic_fetch_add(&detached, 1); /* the one that was there is ours */
        atomic_fetch_add(&attached, 1);
        cr_assert((struct thing *)old >= things && (struct thing *)old < things + THINGS);
    }
    m->gone = 1;
    cr_assert_eq(gyre_conn_id_outbound(m->id), GYRE_ESTALE);
    return NULL;
}

/* Four threads use and exchange the pointer while bytes go to and fro and the connection ends: each pointer that was
 * attached is released once, by the thread that took it out or in on_close. */
REAL_TEST(gnet_threads, attached)
{
    static const struct gyre_conn_handlers handlers = {
        .on_open = share_first, .on_data = rig_on_data, .on_close = release};
    struct rig r;
    listen_with(&r, p, &handlers);
    for (unsigned i = 1; i <= 20; i++) {
        pthread_t threads[THREADS];
        struct meddler m[THREADS];
        int fd = client(&r);
        for (unsigned k = 0; k < THREADS; k++) {
            m[k] = (struct meddler){.id = newest, .number = k};
            cr_assert_eq(pthread_create(&threads[k], NULL, meddle, &m[k]), 0);
        }
        for (unsigned k = 0; k < 10; k++)
            rig_ping(fd);
        (void)close(fd);
        await(r.closes == i);
        for (unsigned k = 0; k < THREADS; k++) {
            cr_assert_eq(pthread_join(threads[k], NULL), 0);
            cr_assert_eq(m[k].gone, 1);
        }
        cr_assert_eq(atomic_load(&attached), atomic_load(&detached), "%u attached, %u released",
                     atomic_load(&attached), atomic_load(&detached));
    }
    rig_stop(&r);
}

/* ---- From one loop to another ---- */

/* A connection on its journey, and the bytes that were received and not answered where it left. */
struct luggage {
    int fd;
    size_t len;
    uint8_t data[4096];
};

static _Atomic(unsigned) seen_on[LOOPS], moves;

static void answer_or_move(struct gyre_conn *c);

static const struct gyre_conn_handlers travellers = {
    .on_open = learn, .on_data = answer_or_move, .on_close = rig_on_close};

static unsigned index_of(const struct gyre_loop *loop)
{
    for (uint32_t i = 0; i < LOOPS; i++)
        if (gyre_engine_loop(rig->engine, i) == loop)
            return i;
    cr_assert_fail("not a loop of the engine");
    return 0;
}

static void arrive(struct gyre_loop *loop, void *user)
{
    struct luggage *l = user;
    struct gyre_conn *c;
    int err = gyre_conn_adopt_fd(&c, loop, l->fd, &travellers, NULL);
    cr_assert_eq(err, 0, "%s", gyre_err_name(err));
    cr_assert_eq(gyre_conn_loop(c), loop);
    cr_assert_eq(gyre_conn_write(c, l->data, l->len), 0);
    atomic_fetch_add(&moves, 1);
    free(l);
}

static void depart(struct gyre_conn *c, int fd, void *user)
{
    struct luggage *l = malloc(sizeof *l);
    cr_assert_not_null(l);
    l->fd = fd;
    cr_assert_leq(gyre_conn_inbound(c), sizeof l->data);
    l->len = gyre_conn_read(l->data, sizeof l->data, c);
    cr_assert_eq(gyre_loop_post(user, arrive, l), 0);
}

/* Every message has a place where it is answered: that many loops further. */
static void answer_or_move(struct gyre_conn *c)
{
    struct gyre_slice view;
    unsigned here = index_of(gyre_conn_loop(c));
    atomic_fetch_add(&seen_on[here], 1);
    if (gyre_conn_peek(&view, c, 1) != 0)
        return;
    if (view.data[0] == '>') {
        struct gyre_loop *next = gyre_engine_loop(rig->engine, (here + 1) % LOOPS);
        (void)gyre_conn_discard(c, 1);
        cr_assert_eq(gyre_conn_write(c, "<", 1), 0); /* what is queued leaves from here */
        cr_assert_eq(gyre_conn_detach(c, depart, next), 0);
        return;
    }
    cr_assert_geq(gyre_conn_forward(c, c, SIZE_MAX), 0);
}

/* From loop to loop, around twice, with bytes on the way each time: none is lost, and every loop serves it. */
REAL_TEST(gnet_threads, moved_to_another_loop)
{
    struct rig r;
    char got[8];
    listen_with(&r, p, &travellers);
    int fd = client(&r);
    for (unsigned i = 1; i <= 2 * LOOPS; i++) {
        rig_ping(fd);
        cr_assert_eq(send(fd, ">on the", 7, MSG_NOSIGNAL), 7); /* the rest may come before it leaves, or after */
        cr_assert_eq(send(fd, "way", 3, MSG_NOSIGNAL), 3);
        cr_assert_eq(rig_receive(fd, got, 8), 8);
        cr_assert_eq(memcmp(got, "<on thew", 8), 0, "%.8s", got);
        cr_assert_eq(rig_receive(fd, got, 2), 2);
        cr_assert_eq(memcmp(got, "ay", 2), 0);
        cr_assert_eq(atomic_load(&moves), i);
        await(gyre_engine_conn_count(r.engine) == 1);
    }
    for (unsigned i = 0; i < LOOPS; i++)
        cr_assert_geq(atomic_load(&seen_on[i]), 2, "loop %u saw %u of it", i, atomic_load(&seen_on[i]));
    (void)close(fd);
    await(r.closes == 1);
    rig_stop(&r);
    cr_assert_eq(rig_opened(&r), 2 * LOOPS + 1);
}

/* ---- At the end ---- */

static void too_late(int err, void *user)
{
    struct rig *r = user;
    cr_assert_neq(err, 0, "sent after the end");
    cr_assert_eq(atomic_load(&r->closes), 1);
    atomic_fetch_add(&late_calls, 1);
}

/* Asked for when the engine has ended and is not destroyed yet: each that was accepted is told of once. */
REAL_TEST(gnet_threads, told_at_the_end)
{
    static const struct gyre_conn_handlers handlers = {.on_open = learn, .on_data = discard, .on_close = rig_on_close};
    struct rig r;
    unsigned accepted = 0;
    listen_with(&r, p, &handlers);
    int fd = client(&r);
    gyre_engine_stop(r.engine);
    rig_join(&r);
    for (unsigned i = 0; i < 50; i++) {
        char x = 'x';
        int err = i % 3 == 0   ? gyre_conn_id_write(newest, &x, 1, too_late, &r)
                  : i % 3 == 1 ? gyre_conn_id_writev(newest, &(struct iovec){&x, 1}, 1, too_late, &r)
                               : gyre_conn_id_close_then(newest, too_late, &r);
        cr_assert(err == 0 || err == GYRE_ESHUTDOWN, "%s", gyre_err_name(err));
        accepted += err == 0;
    }
    (void)close(fd);
    rig_close(&r);
    cr_assert_eq(atomic_load(&late_calls), accepted, "%u accepted, %u told of", accepted, atomic_load(&late_calls));
}
