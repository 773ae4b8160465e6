/* SPDX-License-Identifier: MIT
 * Tasks posted to a loop: any thread pushes, the loop's thread takes all. A stack by compare-and-swap; taking reverses
 * it, so tasks of one thread run in the order posted. */
#ifndef GYRE_CORE_TASK_H
#define GYRE_CORE_TASK_H

#include <gyre/loop.h>

#include <stdatomic.h>

struct gyre__task {
    struct gyre__task *next;
    gyre_task_fn *run;
    void *user;
    bool embedded; /* part of a larger allocation that `run` frees */
};

struct gyre__tasks {
    _Atomic(struct gyre__task *) top;
    _Atomic(uint32_t) count;
    _Atomic(uint64_t) refused; /* since the beginning */
    uint32_t count_max;
};

/* Returns 0, or -EAGAIN if `count_max` wait already. Thread: any. */
int gyre__tasks_push(struct gyre__tasks *tasks, struct gyre__task *task);

/* The same in two steps, for who must know beforehand that all of several queues have room: keep a place (returns 0 or
 * -EAGAIN), then fill it, or give it back with gyre__tasks_done(). Thread: any. */
int gyre__tasks_reserve(struct gyre__tasks *tasks);
void gyre__tasks_push_reserved(struct gyre__tasks *tasks, struct gyre__task *task);

/* The same for tasks that must not be lost, which there are few of: not held to the limit. */
void gyre__tasks_push_always(struct gyre__tasks *tasks, struct gyre__task *task);

/* All waiting tasks, oldest first. Thread: the loop's. */
struct gyre__task *gyre__tasks_take(struct gyre__tasks *tasks);

/* A task was run, or a place is not needed. */
static inline void gyre__tasks_done(struct gyre__tasks *tasks)
{
    atomic_fetch_sub_explicit(&tasks->count, 1, memory_order_relaxed);
}

#endif
