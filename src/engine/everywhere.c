/* SPDX-License-Identifier: MIT
 * What is done to every connection of a loop, and on every loop of an engine.
 *
 * A call for all loops is one allocation: a task for each loop, posted all or nothing, and a count of those still to
 * come. The loop that brings it to zero tells the user and frees it.
 *
 * A broadcast adds the bytes, which all connections borrow. Each loop counts the sends of its own connections without
 * atomics; only when they are all over does it touch the count that the loops share. */
#include "stream/conn.h"

#include <errno.h>
#include <string.h>

enum { BROADCAST_MAX = 1 << 30 };

/* ---- one loop ---- */

static bool is_there(const struct gyre_conn *c)
{
    return c->state == GYRE_CONN_OPEN || c->state == GYRE_CONN_CONNECTING;
}

/* The table of slabs may move, and grow, while `fn` runs; a slab never moves, and no connection leaves its slot before
 * the end of the turn. */
static int64_t walk(struct gyre_loop *l, gyre_each_fn *fn, void *user)
{
    int64_t called = 0;
    for (uint32_t s = 0; s < l->conn_slab_count; s++)
        for (uint32_t i = 0; i < GYRE_CONNS_PER_SLAB; i++) {
            struct gyre_conn *c = &l->conn_slabs[s][i];
            if (!is_there(c))
                continue;
            called++;
            if (!fn(c, user))
                return called;
        }
    return called;
}

int64_t gyre_loop_each_conn(struct gyre_loop *l, gyre_each_fn *fn, void *user)
{
    if (l == NULL || fn == NULL)
        return -EINVAL;
    return gyre__loop_allows(l) ? walk(l, fn, user) : GYRE_ETHREAD;
}

/* ---- every loop ---- */

struct everywhere;

/* One loop's part. */
struct part {
    struct gyre__task task;
    struct everywhere *all;
    uint64_t refs; /* broadcast: sends not over, and one while the loop is being walked */
};

/* What the last loop does at the end. */
typedef void finish_fn(struct everywhere *all);

struct everywhere {
    struct gyre_engine *engine;
    const struct gyre_mem *mem;
    finish_fn *finish;
    gyre_task_fn *task;
    gyre_each_fn *each;
    gyre_all_done_fn *done;
    void *user;
    _Atomic(uint32_t) left; /* loops that have not done their part */
    uint32_t count;

    /* Of a broadcast. */
    struct gyre_broadcast_options options;
    _Atomic(uint32_t) holders; /* loops on which the bytes are still being sent, and one until finish() */
    _Atomic(uint64_t) queued, skipped, aborted, failed;
    const uint8_t *data;
    uint32_t len;

    struct part parts[]; /* one a loop; a broadcast's bytes follow */
};

static struct everywhere *make(struct gyre_engine *engine, gyre_task_fn *run, finish_fn *finish, size_t extra_bytes)
{
    uint32_t count = gyre_engine_loop_count(engine);
    const struct gyre_mem *mem = gyre_engine_loop(engine, 0)->mem;
    struct everywhere *all = gyre__resize(mem, NULL, sizeof *all + count * sizeof(struct part) + extra_bytes);
    if (all == NULL)
        return NULL;
    *all = (struct everywhere){.engine = engine, .mem = mem, .finish = finish, .count = count};
    atomic_store(&all->left, count);
    for (uint32_t i = 0; i < count; i++) {
        all->parts[i] = (struct part){.all = all};
        all->parts[i].task = (struct gyre__task){.run = run, .user = &all->parts[i], .embedded = true};
    }
    return all;
}

/* Keep a place on every loop, then fill them all. */
static int post(struct everywhere *all)
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

static void part_over(struct everywhere *all)
{
    if (atomic_fetch_sub_explicit(&all->left, 1, memory_order_acq_rel) == 1)
        all->finish(all);
}

static void finish_post(struct everywhere *all)
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
    struct everywhere *all = ((struct part *)user)->all;
    all->task(l, all->user);
    part_over(all);
}

int gyre_engine_post_all(struct gyre_engine *engine, gyre_task_fn *task, gyre_all_done_fn *done, void *user)
{
    if (engine == NULL || task == NULL)
        return -EINVAL;
    struct everywhere *all = make(engine, run_task, finish_post, 0);
    if (all == NULL)
        return -ENOMEM;
    all->task = task;
    all->done = done;
    all->user = user;
    return post(all);
}

static void run_each(struct gyre_loop *l, void *user)
{
    struct everywhere *all = ((struct part *)user)->all;
    (void)walk(l, all->each, all->user);
    part_over(all);
}

int gyre_engine_each_conn(struct gyre_engine *engine, gyre_each_fn *fn, gyre_all_done_fn *done, void *user)
{
    if (engine == NULL || fn == NULL)
        return -EINVAL;
    struct everywhere *all = make(engine, run_each, finish_post, 0);
    if (all == NULL)
        return -ENOMEM;
    all->each = fn;
    all->done = done;
    all->user = user;
    return post(all);
}

/* ---- broadcast ---- */

static void let_go(struct everywhere *all)
{
    if (atomic_fetch_sub_explicit(&all->holders, 1, memory_order_acq_rel) == 1)
        gyre__free(all->mem, all);
}

static void on_sent(void *user, int err)
{
    struct part *part = user;
    (void)err;
    if (--part->refs == 0)
        let_go(part->all);
}

static void count(_Atomic(uint64_t) *counter)
{
    atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
}

static bool send_one(struct gyre_conn *c, void *user)
{
    struct part *part = user;
    struct everywhere *all = part->all;
    const struct gyre_broadcast_options *o = &all->options;
    if (c->state != GYRE_CONN_OPEN || (o->filter != NULL && !o->filter(c, o->user)))
        return true;
    if (gyre_conn_congested(c) && o->slow == GYRE_SLOW_ABORT) {
        (void)gyre_conn_abort(c);
        count(&all->aborted);
        return true;
    }
    if (gyre_conn_congested(c) && o->slow == GYRE_SLOW_SKIP) {
        count(&all->skipped);
        return true;
    }
    int err = gyre_conn_write_ref(c, all->data, all->len, on_sent, part);
    part->refs += err == 0;
    count(err == 0 ? &all->queued : err == -EAGAIN ? &all->skipped : &all->failed);
    return true;
}

static void run_broadcast(struct gyre_loop *l, void *user)
{
    struct part *part = user;
    struct everywhere *all = part->all;
    part->refs = 1;
    (void)walk(l, send_one, part);
    on_sent(part, 0);
    part_over(all);
}

static void finish_broadcast(struct everywhere *all)
{
    struct gyre_broadcast_result result = {
        .queued = atomic_load(&all->queued),
        .skipped = atomic_load(&all->skipped),
        .aborted = atomic_load(&all->aborted),
        .failed = atomic_load(&all->failed),
    };
    struct gyre_engine *engine = all->engine;
    struct gyre_broadcast_options options = all->options;
    let_go(all);
    if (options.done != NULL)
        options.done(engine, &result, options.user);
}

int gyre_engine_broadcast_sized(struct gyre_engine *engine, const void *data, size_t len,
                                const struct gyre_broadcast_options *options, size_t size_bytes)
{
    struct gyre_broadcast_options copy;
    if (engine == NULL || data == NULL || len == 0 || len > BROADCAST_MAX)
        return -EINVAL;
    int err = gyre__options_copy(&copy, sizeof copy, options, size_bytes);
    if (err == 0 && (unsigned)copy.slow > GYRE_SLOW_ABORT)
        err = GYRE_EOPTION;
    if (err != 0)
        return err;
    struct everywhere *all = make(engine, run_broadcast, finish_broadcast, len);
    if (all == NULL)
        return -ENOMEM;
    uint8_t *bytes = (uint8_t *)&all->parts[all->count];
    memcpy(bytes, data, len);
    all->options = copy;
    all->data = bytes;
    all->len = (uint32_t)len;
    atomic_store(&all->holders, all->count + 1);
    return post(all);
}
