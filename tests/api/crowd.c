/* SPDX-License-Identifier: MIT
 * What reaches every loop of an engine, and every connection: a function on each, a walk, a broadcast. */
#include "crew.h"
#include "rig.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct roll {
    struct crew *crew;
    _Atomic(unsigned) calls[CREW_LOOPS_MAX];
    _Atomic(unsigned) dones, calls_at_done;
};

static unsigned sum(struct roll *roll)
{
    unsigned n = 0;
    for (unsigned i = 0; i < CREW_LOOPS_MAX; i++)
        n += atomic_load(&roll->calls[i]);
    return n;
}

static void call(struct gyre_loop *loop, void *user)
{
    struct roll *roll = user;
    atomic_fetch_add(&roll->calls[crew_loop_index(loop)], 1);
}

static void all_called(struct gyre_engine *engine, void *user)
{
    struct roll *roll = user;
    bool on_a_loop = false;
    for (uint32_t i = 0; i < gyre_engine_loop_count(engine); i++)
        on_a_loop |= gyre_loop_is_current(gyre_engine_loop(engine, i));
    cr_assert(on_a_loop);
    atomic_store(&roll->calls_at_done, sum(roll));
    atomic_fetch_add(&roll->dones, 1);
}

/* Once on each loop, then `done`, once, after all. */
REAL_TEST(api_crowd, posts_to_all)
{
    struct crew crew;
    struct roll roll = {.crew = &crew};
    crew_init(&crew, p, 4);
    crew_open(&crew);
    crew_start(&crew);
    for (unsigned round = 1; round <= 50; round++) {
        cr_assert_eq(gyre_engine_post_all(crew.engine, call, all_called, &roll), 0);
        crew_until(atomic_load(&roll.dones) == round);
        cr_assert_eq(atomic_load(&roll.calls_at_done), 4 * round);
        for (unsigned i = 0; i < 4; i++)
            cr_assert_eq(atomic_load(&roll.calls[i]), round);
    }
    cr_assert_eq(gyre_engine_post_all(crew.engine, call, NULL, &roll), 0);
    crew_until(sum(&roll) == 4 * 51);
    crew_close(&crew);
}

static void hold_up(struct gyre_loop *loop, void *user)
{
    _Atomic(int) *gate = user;
    (void)loop;
    atomic_store(gate, 1);
    while (atomic_load(gate) != 2)
        crew_pause();
}

/* One loop's queue is full: -EAGAIN, and no other loop is called either; nor does the refusal eat a place. */
REAL_TEST(api_crowd, all_or_nothing)
{
    struct crew crew;
    struct roll roll = {.crew = &crew};
    _Atomic(int) gate = 0;
    crew_init(&crew, p, 3);
    crew.loop_options.tasks_max = 5;
    crew_open(&crew);
    crew_start(&crew);
    cr_assert_eq(gyre_loop_post(gyre_engine_loop(crew.engine, 2), hold_up, &gate), 0);
    crew_until(atomic_load(&gate) == 1);
    for (unsigned i = 0; i < 5; i++)
        cr_assert_eq(gyre_loop_post(gyre_engine_loop(crew.engine, 2), call, &roll), 0);
    for (unsigned i = 0; i < 20; i++) {
        cr_assert_eq(gyre_engine_post_all(crew.engine, call, all_called, &roll), -EAGAIN);
        cr_assert_eq(gyre_engine_broadcast(crew.engine, "x", 1, NULL), -EAGAIN);
    }
    atomic_store(&gate, 2);
    crew_until(atomic_load(&roll.calls[2]) == 5);
    cr_assert_eq(sum(&roll), 5);
    crew_until(gyre_engine_post_all(crew.engine, call, all_called, &roll) == 0);
    crew_until(atomic_load(&roll.dones) == 1);
    cr_assert_eq(sum(&roll), 8);
    crew_close(&crew);
}

/* A client that cannot be handed over, because the other loop's queue is full, is closed, and its place there is free
 * again. */
REAL_TEST(api_crowd, refused_hand_over)
{
    struct crew crew;
    struct roll roll = {.crew = &crew};
    _Atomic(int) gate = 0;
    int fds[3];
    unsigned answers = 0;
    crew_init(&crew, p, 2);
    crew.loop_options.tasks_max = 5;
    crew.loop_options.conns_max = 1;
    crew_open(&crew);
    crew_listen(&crew, NULL);
    crew_start(&crew);
    cr_assert_eq(gyre_loop_post(gyre_engine_loop(crew.engine, 1), hold_up, &gate), 0);
    crew_until(atomic_load(&gate) == 1);
    for (unsigned i = 0; i < 5; i++)
        cr_assert_eq(gyre_loop_post(gyre_engine_loop(crew.engine, 1), call, &roll), 0);
    for (unsigned i = 0; i < 2; i++) {
        char byte = 'x';
        fds[i] = rig_client(gyre_listener_address(crew.listener));
        (void)send(fds[i], &byte, 1, MSG_NOSIGNAL);
        answers += recv(fds[i], &byte, 1, 0) == 1;
    }
    cr_assert_eq(answers, 1, "of two clients %u were answered", answers);
    atomic_store(&gate, 2);
    crew_until(atomic_load(&roll.calls[1]) == 5);
    fds[2] = rig_client(gyre_listener_address(crew.listener));
    rig_ping(fds[2]);
    for (unsigned i = 0; i < 3; i++)
        (void)close(fds[i]);
    crew_close(&crew);
}

/* What waits when the engine is over is called by its destruction; `done`, too. */
REAL_TEST(api_crowd, at_the_end)
{
    struct crew crew;
    struct roll roll = {.crew = &crew};
    crew_init(&crew, p, 2);
    crew_open(&crew);
    crew_start(&crew);
    gyre_engine_stop(crew.engine);
    crew_join(&crew);
    cr_assert_eq(gyre_engine_post_all(crew.engine, call, NULL, &roll), 0);
    cr_assert_eq(gyre_engine_broadcast(crew.engine, "x", 1, NULL), 0);
    cr_assert_eq(sum(&roll), 0);
    crew_close(&crew);
    cr_assert_eq(sum(&roll), 2);
}

static bool see(struct gyre_conn *c, void *user)
{
    struct roll *roll = user;
    cr_assert(gyre_loop_is_current(gyre_conn_loop(c)));
    atomic_fetch_add(&roll->calls[crew_loop_index(gyre_conn_loop(c))], 1);
    return true;
}

static bool see_one(struct gyre_conn *c, void *user)
{
    (void)see(c, user);
    return false;
}

REAL_TEST(api_crowd, walks_over_all)
{
    struct crew crew;
    struct roll all = {.crew = &crew}, one = {.crew = &crew};
    crew_init(&crew, p, 4);
    crew_open(&crew);
    crew_listen(&crew, NULL);
    crew_start(&crew);
    crew_connect(&crew, 24);
    cr_assert_eq(gyre_engine_each_conn(crew.engine, see, all_called, &all), 0);
    cr_assert_eq(gyre_engine_each_conn(crew.engine, see_one, all_called, &one), 0);
    crew_until(atomic_load(&all.dones) == 1 && atomic_load(&one.dones) == 1);
    for (unsigned i = 0; i < 4; i++) {
        cr_assert_eq(atomic_load(&all.calls[i]), atomic_load(&crew.opens_on[i]));
        cr_assert_eq(atomic_load(&one.calls[i]), 1);
    }
    cr_assert_eq(sum(&all), 24);
    crew_close(&crew);
}

/* ---- broadcast ---- */

struct cast {
    struct gyre_broadcast_result result;
    _Atomic(unsigned) dones;
};

static void on_cast(struct gyre_engine *engine, const struct gyre_broadcast_result *result, void *user)
{
    struct cast *cast = user;
    (void)engine;
    cast->result = *result;
    atomic_fetch_add(&cast->dones, 1);
}

static void cast_to_all(struct crew *crew, const void *data, size_t len, enum gyre_slow slow,
                        struct gyre_broadcast_result *out)
{
    struct cast cast = {.dones = 0};
    int err = gyre_engine_broadcast(crew->engine, data, len,
                                    &(struct gyre_broadcast_options){.slow = slow, .done = on_cast, .user = &cast});
    cr_assert_eq(err, 0, "%s", gyre_err_name(err));
    crew_until(atomic_load(&cast.dones) == 1);
    *out = cast.result;
}

/* Everybody gets every message, whole and in order, among the echoes; the copy is the engine's, and one for all. */
REAL_TEST(api_crowd, broadcasts)
{
    enum { CLIENTS = 20, MESSAGES = 30, LEN = 20000 };
    struct crew crew;
    static uint8_t message[LEN], got[MESSAGES * LEN];
    struct gyre_broadcast_result result;
    crew_init(&crew, p, 4);
    crew_open(&crew);
    crew_listen(&crew, &(struct gyre_conn_options){.write_high_bytes = 4 << 20});
    crew_start(&crew);
    crew_connect(&crew, CLIENTS);
    long before = atomic_load(&crew.mem.calls);
    for (unsigned i = 0; i < MESSAGES; i++) {
        env_pattern_fill(message, LEN, 5, (uint64_t)i * LEN);
        cast_to_all(&crew, message, LEN, GYRE_SLOW_SKIP, &result);
        memset(message, 0xee, LEN);
        cr_assert_eq(result.queued, CLIENTS);
        cr_assert_eq(result.skipped + result.aborted + result.failed, 0);
    }
    cr_assert_leq(atomic_load(&crew.mem.calls) - before, MESSAGES + 100, "a copy for each connection");
    for (unsigned i = 0; i < CLIENTS; i++) {
        cr_assert_eq(crew_receive(crew.clients[i], got, sizeof got), sizeof got);
        cr_assert_eq(env_pattern_check(got, sizeof got, 5, 0), -1);
    }
    crew_close(&crew);
}

/* Send big messages until a client that does not read is congested. */
static void congest(struct crew *crew, enum gyre_slow slow, struct gyre_broadcast_result *last)
{
    static const uint8_t big[1 << 18];
    do
        cast_to_all(crew, big, sizeof big, slow, last);
    while (last->queued > 0);
}

/* Nobody reads: soon all are congested, and left out; the bytes that wait are bounded by the mark. With
 * GYRE_SLOW_QUEUE, by write_max_bytes. */
REAL_TEST(api_crowd, slow_ones_are_left_out)
{
    enum { CLIENTS = 4 };
    struct crew crew;
    struct gyre_broadcast_result last;
    crew_init(&crew, p, 2);
    crew_open(&crew);
    crew_listen(&crew, &(struct gyre_conn_options){.write_high_bytes = 1 << 20, .write_max_bytes = 4 << 20});
    crew_start(&crew);
    crew_connect(&crew, CLIENTS);
    congest(&crew, GYRE_SLOW_SKIP, &last);
    cr_assert_eq(last.skipped, CLIENTS);
    cr_assert_leq(atomic_load(&crew.mem.bytes), (long)(CLIENTS * (1 << 20) + (8 << 20)));
    cast_to_all(&crew, "x", 1, GYRE_SLOW_QUEUE, &last);
    cr_assert_eq(last.queued, CLIENTS, "below write_max_bytes they were still to be queued");
    congest(&crew, GYRE_SLOW_QUEUE, &last);
    cr_assert_eq(last.skipped, CLIENTS);
    crew_close(&crew);
}

REAL_TEST(api_crowd, slow_ones_are_aborted)
{
    enum { CLIENTS = 5 };
    struct crew crew;
    struct gyre_broadcast_result last;
    crew_init(&crew, p, 2);
    crew_open(&crew);
    crew_listen(&crew, &(struct gyre_conn_options){.write_high_bytes = 1 << 20});
    crew_start(&crew);
    crew_connect(&crew, CLIENTS);
    congest(&crew, GYRE_SLOW_SKIP, &last);
    cast_to_all(&crew, "x", 1, GYRE_SLOW_ABORT, &last);
    cr_assert_eq(last.aborted, CLIENTS);
    cr_assert_eq(last.queued + last.skipped + last.failed, 0);
    crew_until(atomic_load(&crew.closes) == CLIENTS);
    crew_close(&crew);
}

static bool is_even(struct gyre_conn *c, void *user)
{
    struct crew *crew = user;
    unsigned n = 0;
    (void)pthread_mutex_lock(&crew->lock);
    while (gyre_conn_from_id(crew->ids[n]) != c || crew->ids[n].loop != gyre_conn_loop(c))
        n++;
    (void)pthread_mutex_unlock(&crew->lock);
    return n % 2 == 0;
}

/* The filter chooses; a length beyond what a connection may queue fails. */
REAL_TEST(api_crowd, broadcast_filter_and_errors)
{
    struct crew crew;
    struct gyre_broadcast_result result;
    static uint8_t big[1 << 17];
    crew_init(&crew, p, 1);
    crew_open(&crew);
    crew_listen(&crew, &(struct gyre_conn_options){.write_max_bytes = 1 << 16});
    crew_start(&crew);
    crew_connect(&crew, 10);
    cr_assert_eq(gyre_engine_broadcast(crew.engine, "even", 4,
                                       &(struct gyre_broadcast_options){.filter = is_even, .user = &crew}), 0);
    cast_to_all(&crew, "all", 3, GYRE_SLOW_SKIP, &result);
    unsigned even = 0, odd = 0;
    for (unsigned i = 0; i < 10; i++) {
        char got[8] = "";
        cr_assert_eq(crew_receive(crew.clients[i], got, 3), 3);
        if (memcmp(got, "all", 3) == 0) {
            odd++;
            continue;
        }
        cr_assert_eq(crew_receive(crew.clients[i], got + 3, 4), 4);
        cr_assert_eq(memcmp(got, "evenall", 7), 0);
        even++;
    }
    cr_assert_eq(even, 5);
    cr_assert_eq(odd, 5);
    cast_to_all(&crew, big, sizeof big, GYRE_SLOW_QUEUE, &result);
    cr_assert_eq(result.failed, 10);
    cr_assert_eq(gyre_engine_broadcast(NULL, "x", 1, NULL), -EINVAL);
    cr_assert_eq(gyre_engine_broadcast(crew.engine, NULL, 1, NULL), -EINVAL);
    cr_assert_eq(gyre_engine_broadcast(crew.engine, "x", 0, NULL), -EINVAL);
    cr_assert_eq(gyre_engine_broadcast(crew.engine, "x", ((size_t)1 << 30) + 1, NULL), -EINVAL);
    cr_assert_eq(gyre_engine_broadcast(crew.engine, "x", 1,
                                       &(struct gyre_broadcast_options){.slow = (enum gyre_slow)3}), GYRE_EOPTION);
    cr_assert_eq(gyre_engine_post_all(NULL, call, NULL, NULL), -EINVAL);
    cr_assert_eq(gyre_engine_post_all(crew.engine, NULL, NULL, NULL), -EINVAL);
    cr_assert_eq(gyre_engine_each_conn(crew.engine, NULL, NULL, NULL), -EINVAL);
    crew_close(&crew);
}
