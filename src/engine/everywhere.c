/* SPDX-License-Identifier: MIT
 * What is done on every loop of an engine: a task, or a call for each connection.
 *
 * A call for all loops is one allocation: a task for each loop, posted all or nothing, and a count of those still to
 * come. The loop that brings it to zero tells the user and frees it. broadcast.c adds bytes to it. */
#include "everywhere.h"

#include <errno.h>
#include <string.h>

/* ---- every loop ---- */

struct gyre__everywhere *gyre__everywhere_new(struct gyre_engine *engine, gyre_task_fn *run, gyre__finish_fn *finish,
                                              size_t extra_bytes)
{
    uint32_t count = gyre_engine_loop_count(engine);
    const struct gyre_mem *mem = gyre_engine_loop(engine, 0)->mem;
    size_t bytes = sizeof(struct gyre__everywhere) + count * sizeof(struct gyre__part) + extra_bytes;
    struct gyre__everywhere *all = gyre__resize(mem, NULL, bytes);
    if (all == NULL)
        return NULL;
    *all = (struct gyre__everywhere){.engine = engine, .mem = mem, .finish = finish, .count = count};
    atomic_store(&all->left, count);
    for (uint32_t i = 0; i < count; i++) {
        all->parts[i] = (struct gyre__part){.all = all};
        all->parts[i].task = (struct gyre__task){.run = run, .user = &all->parts[i], .embedded = true};
    }
    return all;
}

int gyre__everywhere_post(struct gyre__everywhere *all)
{
    int err = gyre__loop_is_forked(gyre_engine_loop(all->engine, 0)) ? GYRE_EFORK : 0;
    uint32_t kept = 0;
    for (; err == 0 && kept < all->count; kept++) {
        struct gyre_loop *l = gyre_engine_loop(all->engine, kept);
        bool closed = atomic_load_explicit(&l->closed, memory_order_relaxed);
        err = closed ? GYRE_ESHUTDOWN : gyre__tasks_reserve(&l->tasks);
    }
    if (err != 0) {
        for (kept -= kept > 0; kept-- > 0;) /* the last one was refused */
            gyre__tasks_done(&gyre_engine_loop(all->engine, kept)->tasks);
        gyre__free(all->mem, all);
        return err;
    }
    struct gyre_engine *engine = all->engine; /* once the last is posted, `all` may be gone */
    for (uint32_t i = 0, count = all->count; i < count; i++) {
        struct gyre_loop *l = gyre_engine_loop(engine, i);
        gyre__tasks_push_reserved(&l->tasks, &all->parts[i].task);
        l->be->ops->wake(l->be);
    }
    return 0;
}

void gyre__everywhere_part_over(struct gyre__everywhere *all)
{
    if (atomic_fetch_sub_explicit(&all->left, 1, memory_order_acq_rel) == 1)
        all->finish(all);
}

static void finish_post(struct gyre__everywhere *all)
{
    struct gyre_engine *engine = all->engine;
    gyre_all_done_fn *done = all->done;
    void *user = all->user;
    gyre__free(all->mem, all);
    if (done != NULL)
        done(engine, user);
}

static void run_task(struct gyre_loop *l, void *user)
{
    struct gyre__everywhere *all = ((struct gyre__part *)user)->all;
    all->task(l, all->user);
    gyre__everywhere_part_over(all);
}

int gyre_engine_post_all(struct gyre_engine *engine, gyre_task_fn *task, gyre_all_done_fn *done, void *user)
{
    if (engine == NULL || task == NULL)
        return -EINVAL;
    struct gyre__everywhere *all = gyre__everywhere_new(engine, run_task, finish_post, 0);
    if (all == NULL)
        return -ENOMEM;
    all->task = task;
    all->done = done;
    all->user = user;
    return gyre__everywhere_post(all);
}

static void run_each(struct gyre_loop *l, void *user)
{
    struct gyre__everywhere *all = ((struct gyre__part *)user)->all;
    (void)gyre__conns_walk(l, all->each, all->user);
    gyre__everywhere_part_over(all);
}

int gyre_engine_each_conn(struct gyre_engine *engine, gyre_each_fn *fn, gyre_all_done_fn *done, void *user)
{
    if (engine == NULL || fn == NULL)
        return -EINVAL;
    struct gyre__everywhere *all = gyre__everywhere_new(engine, run_each, finish_post, 0);
    if (all == NULL)
        return -ENOMEM;
    all->each = fn;
    all->done = done;
    all->user = user;
    return gyre__everywhere_post(all);
}
