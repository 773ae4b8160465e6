/* SPDX-License-Identifier: MIT
 * Tasks posted to a loop: any thread pushes, the loop's thread takes all. A stack by compare-and-swap; taking reverses
 * it, so tasks of one thread run in the order posted. */
#ifndef GYRE_LOOP_TASK_H
#define GYRE_LOOP_TASK_H

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
    struct gyre__task *left; /* taken and not yet handed out, oldest first; the loop's */
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

/* All tasks pushed since the last call, oldest first. Thread: the loop's. */
struct gyre__task *gyre__tasks_take(struct gyre__tasks *tasks);

/* Take what waits, if nothing is left of what was taken before. Returns whether gyre__tasks_next() finds one without
 * taking more. Thread: the loop's. */
bool gyre__tasks_gather(struct gyre__tasks *tasks);

/* The oldest of all that wait, or NULL. Thread: the loop's. */
struct gyre__task *gyre__tasks_next(struct gyre__tasks *tasks);

/* Whether gyre__tasks_next() would find one. Thread: the loop's. */
static inline bool gyre__tasks_any(const struct gyre__tasks *tasks)
{
    return tasks->left != NULL || atomic_load_explicit(&tasks->top, memory_order_relaxed) != NULL;
}

/* A task was run, or a place is not needed. */
static inline void gyre__tasks_done(struct gyre__tasks *tasks)
{
    atomic_fetch_sub_explicit(&tasks->count, 1, memory_order_relaxed);
}

#endif
