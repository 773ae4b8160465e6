/* SPDX-License-Identifier: MIT
 * Posted tasks: in order per thread, each once, and never more waiting than allowed. */
#include "loop/task.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

enum { THREADS = 4, PER_THREAD = 50000, CAP = 64 };

struct numbered {
    struct gyre__task task;
    unsigned thread;
    unsigned number;
};

/* Taken in the order pushed, all at once, and then none. */
Test(task, in_order)
{
    struct gyre__tasks tasks = {.count_max = 10};
    struct gyre__task t[10];
    cr_assert_null(gyre__tasks_take(&tasks));
    for (int i = 0; i < 10; i++)
        cr_assert_eq(gyre__tasks_push(&tasks, &t[i]), 0);
    struct gyre__task *at = gyre__tasks_take(&tasks);
    for (int i = 0; i < 10; i++, at = at->next)
        cr_assert_eq(at, &t[i]);
    cr_assert_null(at);
    cr_assert_null(gyre__tasks_take(&tasks));
}

/* The limit holds for what was pushed and not yet run, taken or not; a refused task is not in the list. */
Test(task, the_limit_counts_what_has_not_run)
{
    struct gyre__tasks tasks = {.count_max = 3};
    struct gyre__task t[5];
    for (int i = 0; i < 3; i++)
        cr_assert_eq(gyre__tasks_push(&tasks, &t[i]), 0);
    cr_assert_eq(gyre__tasks_push(&tasks, &t[3]), -EAGAIN);
    struct gyre__task *at = gyre__tasks_take(&tasks);
    cr_assert_eq(gyre__tasks_push(&tasks, &t[3]), -EAGAIN, "taken, but none has run");
    gyre__tasks_done(&tasks);
    cr_assert_eq(gyre__tasks_push(&tasks, &t[3]), 0);
    cr_assert_eq(gyre__tasks_push(&tasks, &t[4]), -EAGAIN);
    int count = 0;
    for (; at != NULL; at = at->next)
        count++;
    cr_assert_eq(count, 3);
    at = gyre__tasks_take(&tasks);
    cr_assert_eq(at, &t[3]);
    cr_assert_null(at->next);
}

/* One by one, in the order pushed, also those that are pushed meanwhile; whether any wait is known before. */
Test(task, one_by_one)
{
    struct gyre__tasks tasks = {.count_max = 4};
    struct gyre__task t[4];
    cr_assert(!gyre__tasks_any(&tasks));
    cr_assert_null(gyre__tasks_next(&tasks));
    for (int i = 0; i < 2; i++)
        cr_assert_eq(gyre__tasks_push(&tasks, &t[i]), 0);
    cr_assert(gyre__tasks_any(&tasks));
    cr_assert_eq(gyre__tasks_next(&tasks), &t[0]);
    for (int i = 2; i < 4; i++)
        cr_assert_eq(gyre__tasks_push(&tasks, &t[i]), 0);
    for (int i = 1; i < 4; i++) {
        cr_assert(gyre__tasks_any(&tasks));
        cr_assert_eq(gyre__tasks_next(&tasks), &t[i]);
    }
    cr_assert(!gyre__tasks_any(&tasks));
    cr_assert_null(gyre__tasks_next(&tasks));
}

/* With a limit of none every push is refused, and nothing is counted for good. */
Test(task, no_room_at_all)
{
    struct gyre__tasks tasks = {.count_max = 0};
    struct gyre__task t;
    for (int i = 0; i < 100; i++)
        cr_assert_eq(gyre__tasks_push(&tasks, &t), -EAGAIN);
    cr_assert_eq(atomic_load(&tasks.count), 0);
    cr_assert_null(gyre__tasks_take(&tasks));
}

static struct gyre__tasks shared = {.count_max = CAP};
static struct numbered made[THREADS][PER_THREAD];

static void *push_all(void *arg)
{
    unsigned thread = (unsigned)(uintptr_t)arg;
    for (unsigned i = 0; i < PER_THREAD; i++) {
        struct numbered *n = &made[thread][i];
        n->thread = thread;
        n->number = i;
        while (gyre__tasks_push(&shared, &n->task) == -EAGAIN)
            ; /* the limit is reached: the other side runs some */
    }
    return NULL;
}

/* Threads that push against the limit while another takes: each task arrives once, those of one thread in order, and
 * there are never more under way than the limit allows. */
Test(task, many_threads)
{
    pthread_t threads[THREADS];
    unsigned next[THREADS] = {0}, total = 0;
    for (unsigned i = 0; i < THREADS; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, push_all, (void *)(uintptr_t)i), 0);
    while (total < THREADS * PER_THREAD) {
        unsigned batch = 0;
        for (struct gyre__task *t = gyre__tasks_take(&shared), *after; t != NULL; t = after) {
            const struct numbered *n = (struct numbered *)t;
            after = t->next;
            cr_assert_eq(n->number, next[n->thread], "thread %u: task %u came in place of %u", n->thread, n->number,
                         next[n->thread]);
            next[n->thread]++;
            batch++;
            gyre__tasks_done(&shared);
        }
        cr_assert_leq(batch, CAP, "more waited than the limit allows");
        total += batch;
    }
    for (unsigned i = 0; i < THREADS; i++)
        cr_assert_eq(pthread_join(threads[i], NULL), 0);
    cr_assert_eq(atomic_load(&shared.count), 0);
    cr_assert_null(gyre__tasks_take(&shared));
}
