/* SPDX-License-Identifier: MIT
 * Urgent tasks: ahead of all others, in order among themselves, bounded, and unable to keep anything from its turn. */
#include "fixture.h"

#include <errno.h>
#include <gyre/stats.h>
#include <gyre/timer.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

enum { NOTES = 64 };

/* What ran, in order: numbers, those of urgent tasks from 100 on. */
struct notebook {
    struct api *api;
    unsigned count;
    unsigned notes[NOTES];
};

struct note {
    struct notebook *book;
    unsigned number;
    struct note *next; /* posted as urgent when this one runs */
};

static void take_note(struct gyre_loop *loop, void *user)
{
    const struct note *note = user;
    struct notebook *book = note->book;
    api_enter(book->api);
    cr_assert_lt(book->count, NOTES);
    book->notes[book->count++] = note->number;
    if (note->next != NULL)
        cr_assert_eq(gyre_loop_post_urgent(loop, take_note, note->next), 0);
    api_leave(book->api);
}

static void expect(const struct notebook *book, const unsigned *numbers, unsigned count)
{
    cr_assert_eq(book->count, count);
    for (unsigned i = 0; i < count; i++)
        cr_assert_eq(book->notes[i], numbers[i], "%u ran where %u was due", book->notes[i], numbers[i]);
}

/* Posted last, run first; both kinds in the order of posting. */
BACKEND_TEST(api_urgent, before_all_others)
{
    static const unsigned order[] = {100, 101, 102, 0, 1, 2, 3, 4};
    struct api api;
    struct notebook book = {.api = &api};
    struct note notes[8];
    api_init(&api, p);
    api_open(&api);
    for (unsigned i = 0; i < 8; i++) {
        notes[i] = (struct note){&book, i < 5 ? i : 100 + i - 5, NULL};
        cr_assert_eq((i < 5 ? gyre_loop_post : gyre_loop_post_urgent)(api.loop, take_note, &notes[i]), 0);
    }
    cr_assert_eq(book.count, 0, "a task from inside of a post");
    cr_assert_eq(gyre_loop_timeout_ns(api.loop), 0, "the loop would wait");
    api_turn_now(&api);
    expect(&book, order, 8);
    cr_assert_eq(api_stats(&api).tasks, 8);
    cr_assert_eq(api_stats(&api).urgent_tasks, 3);
    api_close(&api);
}

/* One that comes while others run goes before the rest of them; one that comes from an urgent one is next but for those
 * before it. */
BACKEND_TEST(api_urgent, before_the_rest)
{
    static const unsigned order[] = {0, 100, 101, 1, 102, 2};
    struct api api;
    struct notebook book = {.api = &api};
    struct note second = {&book, 101, NULL}, first = {&book, 100, &second}, third = {&book, 102, NULL};
    struct note notes[3] = {{&book, 0, &first}, {&book, 1, &third}, {&book, 2, NULL}};
    api_init(&api, p);
    api_open(&api);
    for (unsigned i = 0; i < 3; i++)
        cr_assert_eq(gyre_loop_post(api.loop, take_note, &notes[i]), 0);
    api_turn_now(&api);
    expect(&book, order, 6);
    api_close(&api);
}

/* Each kind is refused at its own limit alone, which is counted; what waits when the loop is destroyed is run. */
BACKEND_TEST(api_urgent, limits)
{
    static const unsigned order[] = {100, 101, 102, 0, 1};
    struct api api;
    struct notebook book = {.api = &api};
    struct note urgent[4], other[3];
    api_init(&api, p);
    api.options.tasks_max = 2;
    api.options.urgent_tasks_max = 3;
    api_open(&api);
    for (unsigned i = 0; i < 3; i++) {
        other[i] = (struct note){&book, i, NULL};
        cr_assert_eq(gyre_loop_post(api.loop, take_note, &other[i]), i < 2 ? 0 : -EAGAIN);
    }
    for (unsigned i = 0; i < 4; i++) {
        urgent[i] = (struct note){&book, 100 + i, NULL};
        cr_assert_eq(gyre_loop_post_urgent(api.loop, take_note, &urgent[i]), i < 3 ? 0 : -EAGAIN);
    }
    cr_assert_eq(gyre_loop_post_urgent(NULL, take_note, NULL), -EINVAL);
    cr_assert_eq(gyre_loop_post_urgent(api.loop, NULL, NULL), -EINVAL);
    struct gyre_stats stats = api_stats(&api);
    cr_assert_eq(stats.tasks_waiting, 5);
    cr_assert_eq(stats.tasks_refused, 1);
    cr_assert_eq(stats.urgent_tasks_refused, 1);
    api_until(&api, book.count == 5);
    expect(&book, order, 5);
    cr_assert_eq(api_stats(&api).tasks_waiting, 0);
    cr_assert_eq(gyre_loop_post(api.loop, take_note, &other[2]), 0);
    cr_assert_eq(gyre_loop_post_urgent(api.loop, take_note, &urgent[3]), 0);
    api_destroy_loop(&api);
    cr_assert_eq(book.count, 7);
    cr_assert_eq(book.notes[5], 103);
    cr_assert_eq(book.notes[6], 2);
    api_close(&api);
}

static void post_while_destroyed(struct gyre_loop *loop, void *user)
{
    *(int *)user = gyre_loop_post_urgent(loop, take_note, NULL);
}

/* A task that runs because the loop is being destroyed cannot post another. */
BACKEND_TEST(api_urgent, too_late)
{
    struct api api;
    int err = 0;
    api_init(&api, p);
    api_open(&api);
    cr_assert_eq(gyre_loop_post_urgent(api.loop, post_while_destroyed, &err), 0);
    api_destroy_loop(&api);
    cr_assert_eq(err, GYRE_ESHUTDOWN);
    api_close(&api);
}

/* Tasks that post themselves anew for as long as they live. */
struct flood {
    uint64_t runs[2]; /* of the urgent one, of the other */
    unsigned fired;
    bool over;
};

static void flood_urgent(struct gyre_loop *loop, void *user)
{
    struct flood *flood = user;
    flood->runs[0]++;
    if (!flood->over)
        cr_assert_eq(gyre_loop_post_urgent(loop, flood_urgent, flood), 0);
}

static void flood_other(struct gyre_loop *loop, void *user)
{
    struct flood *flood = user;
    flood->runs[1]++;
    if (!flood->over)
        cr_assert_eq(gyre_loop_post(loop, flood_other, flood), 0);
}

static void on_timer(struct gyre_timer *t, void *user)
{
    struct flood *flood = user;
    (void)t;
    flood->fired++;
}

/* Neither kind keeps the other from its turn for ever, nor connections, nor timers. */
BACKEND_TEST(api_urgent, starves_nobody)
{
    static const struct script echo = {.data = end_forward_back};
    struct api api;
    struct peer peer;
    struct flood flood = {.over = false};
    struct gyre_timer *timer;
    api_start(&api, p, &echo);
    (void)peer_open(&api, &peer);
    cr_assert_eq(gyre_timer_create(&timer, api.loop, on_timer, &flood), 0);
    cr_assert_eq(gyre_loop_post_urgent(api.loop, flood_urgent, &flood), 0);
    cr_assert_eq(gyre_loop_post(api.loop, flood_other, &flood), 0);
    api_turn_now(&api);
    cr_assert(flood.runs[0] > 1 && flood.runs[0] <= 1024, "%llu urgent in a turn", (unsigned long long)flood.runs[0]);
    cr_assert(flood.runs[1] > 1 && flood.runs[1] <= 1024, "%llu in a turn", (unsigned long long)flood.runs[1]);
    flood.over = api.is_sim; /* where time, and the network with it, stands still while the loop is busy */
    peer.key_in = peer.key_out;
    peer_send(&peer, 1000);
    peer_expect(&peer, 1000);
    cr_assert_eq(gyre_timer_start(timer, 0, 0), 0);
    api_until(&api, flood.fired == 1);
    flood.over = true;
    gyre_timer_destroy(timer);
    peer_close(&peer);
    api_close(&api);
}

enum { POSTERS = 4, POSTS = 3000 };

struct poster {
    struct api *api;
    pthread_t thread;
    unsigned next[2]; /* number expected of the others, of the urgent */
    _Atomic(unsigned) *left;
    struct post {
        struct poster *poster;
        unsigned number;
        bool urgent;
    } posts[POSTS];
};

static void on_task(struct gyre_loop *loop, void *user)
{
    const struct post *post = user;
    struct poster *poster = post->poster;
    api_enter(poster->api);
    cr_assert_eq(post->number, poster->next[post->urgent], "task %u came when %u was due", post->number,
                 poster->next[post->urgent]);
    poster->next[post->urgent]++;
    if (atomic_fetch_sub(poster->left, 1) == 1)
        gyre_loop_stop(loop);
    api_leave(poster->api);
}

static void *post_all(void *arg)
{
    struct poster *poster = arg;
    struct gyre_loop *loop = poster->api->loop;
    unsigned numbers[2] = {0, 0};
    for (unsigned i = 0; i < POSTS; i++) {
        bool urgent = i % 3 == 1;
        struct post *post = &poster->posts[i];
        *post = (struct post){poster, numbers[urgent]++, urgent};
        int err;
        while ((err = (urgent ? gyre_loop_post_urgent : gyre_loop_post)(loop, on_task, post)) == -EAGAIN)
            ;
        if (err != 0)
            abort();
    }
    return NULL;
}

/* Of four threads: none lost, each thread's in its order among those of one kind; they wake the loop. */
REAL_TEST(api_urgent, from_many)
{
    static struct poster posters[POSTERS];
    struct api api;
    _Atomic(unsigned) left = POSTERS * POSTS;
    api_init(&api, p);
    api_open(&api);
    for (unsigned i = 0; i < POSTERS; i++) {
        posters[i].api = &api;
        posters[i].left = &left;
        cr_assert_eq(pthread_create(&posters[i].thread, NULL, post_all, &posters[i]), 0);
    }
    api.in_turn = true;
    cr_assert_eq(gyre_loop_run(api.loop), 0);
    api.in_turn = false;
    for (unsigned i = 0; i < POSTERS; i++) {
        cr_assert_eq(pthread_join(posters[i].thread, NULL), 0);
        cr_assert_eq(posters[i].next[0] + posters[i].next[1], POSTS);
    }
    cr_assert_eq(api_stats(&api).urgent_tasks, POSTERS * POSTS / 3);
    api_close(&api);
}
