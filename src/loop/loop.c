/* SPDX-License-Identifier: MIT
 * The record of a loop: its clock, its owner, posting to it, places for connections. src/reactor turns it. */
#include "loop.h"
#include "set.h"
#include "base/clock.h"
#include "buffer/buf.h"

#include <errno.h>
#include <string.h>

uint64_t gyre__loop_clock(const struct gyre_loop *l)
{
    return l->be->ops->now != NULL ? l->be->ops->now(l->be) : gyre__clock_ns();
}

void gyre__loop_look_at_clock(struct gyre_loop *l)
{
    l->now_ns = gyre__loop_clock(l);
    l->now_tick = (l->now_ns - l->wheel.origin_ns + (uint64_t)GYRE_TICK_NS - 1) / (uint64_t)GYRE_TICK_NS;
}

uint64_t gyre__loop_now(struct gyre_loop *l)
{
    if (!gyre__loop_is_inside(l))
        gyre__loop_look_at_clock(l);
    return l->now_ns;
}

/* ---- stopping ---- */

void gyre__loop_ask(struct gyre_loop *l, enum gyre__loop_request request)
{
    if (gyre__loop_is_forked(l))
        return; /* the wake would reach the parent's */
    int now = atomic_load(&l->request);
    while (now < (int)request && !atomic_compare_exchange_weak(&l->request, &now, (int)request))
        ;
    l->be->ops->wake(l->be);
}

/* ---- the user's side ---- */

void gyre__loop_own(struct gyre_loop *l, pthread_t owner)
{
    if (atomic_load_explicit(&l->owned, memory_order_acquire))
        return;
    l->owner = owner;
    atomic_store_explicit(&l->owned, true, memory_order_release);
}

int gyre_loop_fd(const struct gyre_loop *l)
{
    return l->be->ops->pollable(l->be);
}

static int push(struct gyre_loop *l, struct gyre__tasks *tasks, struct gyre__task *task)
{
    if (gyre__loop_is_forked(l))
        return GYRE_EFORK;
    if (atomic_load_explicit(&l->closed, memory_order_relaxed))
        return GYRE_ESHUTDOWN;
    int err = gyre__tasks_push(tasks, task);
    if (err == 0)
        l->be->ops->wake(l->be);
    return err;
}

int gyre__loop_post_block(struct gyre_loop *l, void *block, gyre_task_fn *run)
{
    struct gyre__task *task = block;
    *task = (struct gyre__task){.run = run, .user = block, .embedded = true};
    int err = push(l, &l->tasks, task);
    if (err != 0)
        gyre__free(l->mem, block);
    return err;
}

void gyre__loop_post_always(struct gyre_loop *l, struct gyre__task *task, gyre_task_fn *run, void *user)
{
    *task = (struct gyre__task){.run = run, .user = user, .embedded = true};
    gyre__tasks_push_always(&l->tasks, task);
    l->be->ops->wake(l->be);
}

static int post(struct gyre_loop *l, struct gyre__tasks *tasks, gyre_task_fn *run, void *user)
{
    struct gyre__task *task = gyre__alloc(l->mem, sizeof *task);
    if (task == NULL)
        return -ENOMEM;
    task->run = run;
    task->user = user;
    int err = push(l, tasks, task);
    if (err != 0)
        gyre__free(l->mem, task);
    return err;
}

int gyre_loop_post(struct gyre_loop *l, gyre_task_fn *run, void *user)
{
    return l == NULL || run == NULL ? -EINVAL : post(l, &l->tasks, run, user);
}

int gyre_loop_post_urgent(struct gyre_loop *l, gyre_task_fn *run, void *user)
{
    return l == NULL || run == NULL ? -EINVAL : post(l, &l->urgent, run, user);
}

uint64_t gyre_loop_now_ns(const struct gyre_loop *l)
{
    return l->now_ns;
}

uint32_t gyre_loop_conn_count(const struct gyre_loop *l)
{
    return (uint32_t)atomic_load_explicit(&l->conn_load, memory_order_relaxed);
}

/* ---- places ---- */

static bool set_limits(const struct gyre_loop *l)
{
    return GYRE_UNLIKELY(l->set != NULL && l->set->conns_max != 0);
}

static void set_came(struct gyre_loop *l)
{
    if (set_limits(l))
        atomic_fetch_add_explicit(&l->set->conns, 1, memory_order_relaxed);
}

static void set_gone(struct gyre_loop *l)
{
    if (set_limits(l))
        atomic_fetch_sub_explicit(&l->set->conns, 1, memory_order_relaxed);
}

/* No two loops get the last place. */
static bool set_admits(struct gyre_loop *l)
{
    if (!set_limits(l))
        return true;
    uint32_t now = atomic_load_explicit(&l->set->conns, memory_order_relaxed);
    while (now < l->set->conns_max)
        if (atomic_compare_exchange_weak_explicit(&l->set->conns, &now, now + 1, memory_order_relaxed,
                                                  memory_order_relaxed))
            return true;
    return false;
}

static void give_place_back(struct gyre_loop *l)
{
    atomic_fetch_sub_explicit(&l->conn_load, GYRE_PLACE_RESERVED, memory_order_relaxed);
}

static bool reserve(struct gyre_loop *l)
{
    uint64_t load = atomic_fetch_add_explicit(&l->conn_load, GYRE_PLACE_RESERVED, memory_order_relaxed);
    if ((uint32_t)load + (uint32_t)(load >> 32) < l->conns_max)
        return true;
    give_place_back(l);
    return false;
}

bool gyre__loop_reserve(struct gyre_loop *l)
{
    if (!reserve(l))
        return false;
    set_came(l);
    return true;
}

bool gyre__loop_reserve_accepted(struct gyre_loop *l)
{
    if (!reserve(l))
        return false;
    if (set_admits(l))
        return true;
    give_place_back(l);
    return false;
}

void gyre__loop_unreserve(struct gyre_loop *l)
{
    give_place_back(l);
    set_gone(l);
}

void gyre__loop_conn_came(struct gyre_loop *l, bool reserved)
{
    atomic_fetch_add_explicit(&l->conn_load, reserved ? 1 - GYRE_PLACE_RESERVED : 1, memory_order_relaxed);
    if (!reserved)
        set_came(l);
}

void gyre__loop_conn_gone(struct gyre_loop *l)
{
    atomic_fetch_sub_explicit(&l->conn_load, 1, memory_order_relaxed);
    set_gone(l);
}

/* ---- more of the user's side ---- */

void *gyre_loop_user(const struct gyre_loop *l)
{
    return l->user;
}

int gyre_loop_set_user(struct gyre_loop *l, void *user)
{
    if (l == NULL)
        return -EINVAL;
    if (!gyre__loop_allows(l))
        return GYRE_ETHREAD;
    l->user = user;
    return 0;
}

uint32_t gyre_loop_index(const struct gyre_loop *l)
{
    return l->index;
}

/* Here and not in `buffer`, which does not know of threads. */
int gyre_buf_release(struct gyre_buf *buf)
{
    if (buf == NULL)
        return 0;
    if (!gyre__loop_allows(GYRE_CONTAINER(buf->segs, struct gyre_loop, segs)))
        return GYRE_ETHREAD;
    gyre__buf_free(buf);
    return 0;
}

bool gyre_loop_is_current(const struct gyre_loop *l)
{
    return atomic_load_explicit(&l->owned, memory_order_acquire) && gyre__loop_allows(l) && gyre__loop_is_inside(l);
}

void gyre_loop_backend(struct gyre_backend_report *out, const struct gyre_loop *l)
{
    *out = l->report;
}
