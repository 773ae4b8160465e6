/* SPDX-License-Identifier: MIT
 * The stack of posted tasks. */
#include "task.h"

#include <errno.h>

void gyre__tasks_push_reserved(struct gyre__tasks *tasks, struct gyre__task *task)
{
    task->next = atomic_load_explicit(&tasks->top, memory_order_relaxed);
    while (!atomic_compare_exchange_weak_explicit(&tasks->top, &task->next, task, memory_order_release,
                                                  memory_order_relaxed))
        ;
}

int gyre__tasks_reserve(struct gyre__tasks *tasks)
{
    uint32_t count = atomic_fetch_add_explicit(&tasks->count, 1, memory_order_relaxed);
    if (count < tasks->count_max)
        return 0;
    atomic_fetch_sub_explicit(&tasks->count, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&tasks->refused, 1, memory_order_relaxed);
    return -EAGAIN;
}

int gyre__tasks_push(struct gyre__tasks *tasks, struct gyre__task *task)
{
    int err = gyre__tasks_reserve(tasks);
    if (err == 0)
        gyre__tasks_push_reserved(tasks, task);
    return err;
}

void gyre__tasks_push_always(struct gyre__tasks *tasks, struct gyre__task *task)
{
    atomic_fetch_add_explicit(&tasks->count, 1, memory_order_relaxed);
    gyre__tasks_push_reserved(tasks, task);
}

struct gyre__task *gyre__tasks_take(struct gyre__tasks *tasks)
{
    struct gyre__task *newest, *oldest = NULL;
    if (atomic_load_explicit(&tasks->top, memory_order_relaxed) == NULL)
        return NULL;
    newest = atomic_exchange_explicit(&tasks->top, NULL, memory_order_acquire);
    while (newest != NULL) {
        struct gyre__task *next = newest->next;
        newest->next = oldest;
        oldest = newest;
        newest = next;
    }
    return oldest;
}

bool gyre__tasks_gather(struct gyre__tasks *tasks)
{
    if (tasks->left == NULL)
        tasks->left = gyre__tasks_take(tasks);
    return tasks->left != NULL;
}

struct gyre__task *gyre__tasks_next(struct gyre__tasks *tasks)
{
    if (!gyre__tasks_gather(tasks))
        return NULL;
    struct gyre__task *task = tasks->left;
    tasks->left = task->next;
    return task;
}
