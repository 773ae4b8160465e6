/* SPDX-License-Identifier: MIT
 * The pool of threads for work that blocks.
 *
 * The normal course of a job: submit takes a free slot and queues it; a thread takes the oldest, runs it, and posts the
 * slot to the job's loop as a task; there the slot is freed and the user told. The slots are all made with the pool, so
 * neither submitting nor telling allocates, and a loop that is slow to be told makes submit refuse.
 *
 * What can go wrong: a job is called off before it begins: it is posted to its loop at once. The pool is destroyed
 * while jobs are on their way to their loops: each holds the pool's memory until it is told of. */
#include "pool.h"
#include "base/options.h"
#include "base/refuse.h"
#include "loop/loop.h"

#include <errno.h>
#include <stdio.h>

enum {
    POOL_MAGIC = 0x706f6f6c,
    THREADS_DEFAULT = 4,
    QUEUE_DEFAULT = 1024,
};

enum work_state {
    WORK_FREE = 0, /* in the list of free slots */
    WORK_QUEUED,   /* in the queue; may be called off */
    WORK_RUNNING,  /* a thread's */
    WORK_TOLD,     /* its loop's, as a task */
};

/* A slot. Under the pool's lock but for `cancelled`; while a thread runs it, only `state` is looked at by others. */
struct gyre_work {
    struct gyre__task task;
    struct gyre_work *next, *prev; /* free: next; queued: both */
    struct gyre_pool *pool;
    struct gyre_loop *loop;
    gyre_work_fn *work;
    gyre_work_done_fn *done;
    void *user;
    int result;
    uint32_t generation;
    enum work_state state;
    _Atomic(bool) cancelled;
};

struct gyre_pool {
    uint32_t magic;
    uint32_t thread_count;
    uint32_t queue_max;
    uint32_t queued;
    uint32_t slot_count;
    uint32_t refs; /* slots in use, and one until it is destroyed */
    uint32_t forks; /* what gyre__forks was when it was made */
    bool stopping;
    const struct gyre_mem *mem;
    pthread_mutex_t lock;
    pthread_cond_t more;
    struct gyre_work *slots, *free;
    struct gyre_work *first, *last; /* the queue */
    pthread_t *threads;
};

static void lock(struct gyre_pool *pool)
{
    (void)pthread_mutex_lock(&pool->lock);
}

static void unlock(struct gyre_pool *pool)
{
    (void)pthread_mutex_unlock(&pool->lock);
}

static void free_pool(struct gyre_pool *pool)
{
    (void)pthread_mutex_destroy(&pool->lock);
    (void)pthread_cond_destroy(&pool->more);
    pool->magic = 0;
    gyre__free(pool->mem, pool->threads);
    gyre__free(pool->mem, pool->slots);
    gyre__free(pool->mem, pool);
}

/* Locked; unlocks. */
static void release(struct gyre_pool *pool)
{
    bool last = --pool->refs == 0;
    unlock(pool);
    if (last)
        free_pool(pool);
}

/* ---- a job, from end to end ---- */

/* On the loop. The slot is free again before the user is told, who may submit the next. */
static void tell(struct gyre_loop *l, void *user)
{
    struct gyre_work *work = user;
    struct gyre_pool *pool = work->pool;
    gyre_work_done_fn *done = work->done;
    void *for_done = work->user;
    int result = work->result;
    lock(pool);
    work->state = WORK_FREE;
    work->next = pool->free;
    pool->free = work;
    release(pool);
    atomic_fetch_sub_explicit(&l->jobs, 1, memory_order_relaxed);
    done(l, result, for_done);
}

/* Locked. To the loop, for which there is always room: there are no more of these than slots. */
static void post(struct gyre_work *work, int result)
{
    work->state = WORK_TOLD;
    work->generation++;
    work->result = result;
    gyre__loop_post_always(work->loop, &work->task, tell, work);
}

/* Locked. */
static void unlink_queued(struct gyre_pool *pool, struct gyre_work *work)
{
    *(work->prev != NULL ? &work->prev->next : &pool->first) = work->next;
    *(work->next != NULL ? &work->next->prev : &pool->last) = work->prev;
    pool->queued--;
}

/* Locked. Returns whether it will not begin. */
static bool call_off(struct gyre_pool *pool, struct gyre_work *work)
{
    if (work->state != WORK_QUEUED) {
        atomic_store(&work->cancelled, true);
        return false;
    }
    unlink_queued(pool, work);
    post(work, -ECANCELED);
    return true;
}

static void *thread_main(void *arg)
{
    struct gyre_pool *pool = arg;
    lock(pool);
    for (;;) {
        struct gyre_work *work = pool->first;
        if (work != NULL) {
            unlink_queued(pool, work);
            work->state = WORK_RUNNING;
            unlock(pool);
            int result = work->work(work, work->user);
            lock(pool);
            post(work, result);
        } else if (pool->stopping) {
            break;
        } else {
            (void)pthread_cond_wait(&pool->more, &pool->lock);
        }
    }
    unlock(pool);
    return NULL;
}

/* ---- making and destroying ---- */

static int complete(struct gyre_pool_options *o)
{
    if (o->threads == 0)
        o->threads = THREADS_DEFAULT;
    if (o->queue_max == 0)
        o->queue_max = QUEUE_DEFAULT;
    if (o->mem == NULL)
        o->mem = &gyre__mem_system;
    if (o->name == NULL)
        o->name = "gyre-work";
    const struct gyre__range ranges[] = {
        {"threads", o->threads, 1, GYRE_POOL_THREADS_MAX},
        {"queue_max", o->queue_max, 1, GYRE_POOL_QUEUE_MAX},
    };
    return gyre__check_ranges(ranges, sizeof ranges / sizeof ranges[0]);
}

static struct gyre_pool *make(const struct gyre_pool_options *o)
{
    struct gyre_pool *pool = gyre__alloc(o->mem, sizeof *pool);
    if (pool == NULL)
        return NULL;
    pool->magic = POOL_MAGIC;
    pool->mem = o->mem;
    pool->queue_max = o->queue_max;
    pool->slot_count = o->queue_max + o->threads;
    pool->refs = 1;
    gyre__forks_watch();
    pool->forks = gyre__forks_now();
    (void)pthread_mutex_init(&pool->lock, NULL);
    (void)pthread_cond_init(&pool->more, NULL);
    pool->slots = gyre__alloc_many(o->mem, pool->slot_count, sizeof *pool->slots);
    pool->threads = gyre__alloc_many(o->mem, o->threads, sizeof *pool->threads);
    if (pool->slots == NULL || pool->threads == NULL) {
        free_pool(pool);
        return NULL;
    }
    for (uint32_t i = pool->slot_count; i-- > 0;) {
        pool->slots[i].pool = pool;
        pool->slots[i].next = pool->free;
        pool->free = &pool->slots[i];
    }
    return pool;
}

int gyre__pool_make(struct gyre_pool **out, const struct gyre_pool_options *options)
{
    struct gyre_pool_options o = *options;
    int err = complete(&o);
    if (err != 0)
        return err;
    struct gyre_pool *pool = make(&o);
    if (pool == NULL)
        return -ENOMEM;
    for (; err == 0 && pool->thread_count < o.threads; pool->thread_count += err == 0)
        err = gyre__thread_start(&pool->threads[pool->thread_count], o.name, pool->thread_count, thread_main, pool);
    if (err != 0) {
        gyre_pool_destroy(pool);
        return err;
    }
    *out = pool;
    return 0;
}

int gyre_pool_create_sized(struct gyre_pool **out, const struct gyre_pool_options *options, size_t size_bytes)
{
    struct gyre_pool_options copy;
    int err = out == NULL ? -EINVAL : gyre__options_copy(&copy, sizeof copy, options, size_bytes);
    return err != 0 ? err : gyre__pool_make(out, &copy);
}

void gyre_pool_destroy(struct gyre_pool *pool)
{
    if (pool == NULL || pool->forks != gyre__forks_now())
        return; /* or it is the parent's, as its threads are */
    GYRE_CHECK(pool->magic == POOL_MAGIC);
    lock(pool);
    pool->stopping = true;
    for (uint32_t i = 0; i < pool->slot_count; i++)
        if (pool->slots[i].state == WORK_QUEUED || pool->slots[i].state == WORK_RUNNING)
            (void)call_off(pool, &pool->slots[i]);
    (void)pthread_cond_broadcast(&pool->more);
    unlock(pool);
    for (uint32_t i = 0; i < pool->thread_count; i++)
        (void)pthread_join(pool->threads[i], NULL);
    lock(pool);
    release(pool);
}

/* ---- the user's side ---- */

/* Locked. */
static struct gyre_work *take_slot(struct gyre_pool *pool)
{
    struct gyre_work *work = pool->queued < pool->queue_max ? pool->free : NULL;
    if (work == NULL)
        return NULL;
    pool->free = work->next;
    pool->refs++;
    work->state = WORK_QUEUED;
    atomic_store(&work->cancelled, false);
    work->next = NULL;
    work->prev = pool->last;
    *(pool->last != NULL ? &pool->last->next : &pool->first) = work;
    pool->last = work;
    pool->queued++;
    return work;
}

int gyre_pool_submit(struct gyre_work_id *out, struct gyre_pool *pool, struct gyre_loop *l, gyre_work_fn *work_fn,
                     gyre_work_done_fn *done, void *user)
{
    if (pool == NULL || l == NULL || work_fn == NULL || done == NULL)
        return -EINVAL;
    GYRE_CHECK(pool->magic == POOL_MAGIC);
    if (pool->forks != gyre__forks_now())
        return GYRE_EFORK;
    if (atomic_load_explicit(&l->closed, memory_order_relaxed))
        return GYRE_ESHUTDOWN;
    lock(pool);
    struct gyre_work *work = pool->stopping ? NULL : take_slot(pool);
    if (work == NULL) {
        int err = pool->stopping ? GYRE_ESHUTDOWN : -EAGAIN;
        unlock(pool);
        return err;
    }
    work->loop = l;
    work->work = work_fn;
    work->done = done;
    work->user = user;
    if (out != NULL)
        *out = (struct gyre_work_id){.slot = (uint32_t)(work - pool->slots), .generation = work->generation};
    atomic_fetch_add_explicit(&l->jobs, 1, memory_order_relaxed);
    (void)pthread_cond_signal(&pool->more);
    unlock(pool);
    return 0;
}

int gyre_pool_cancel(struct gyre_pool *pool, struct gyre_work_id id)
{
    if (pool == NULL || id.slot >= pool->slot_count)
        return -EINVAL;
    GYRE_CHECK(pool->magic == POOL_MAGIC);
    if (pool->forks != gyre__forks_now())
        return GYRE_EFORK;
    lock(pool);
    struct gyre_work *work = &pool->slots[id.slot];
    int result = GYRE_ESTALE;
    if (work->generation == id.generation && (work->state == WORK_QUEUED || work->state == WORK_RUNNING))
        result = call_off(pool, work) ? 0 : 1;
    unlock(pool);
    return result;
}

bool gyre_work_cancelled(const struct gyre_work *work)
{
    return atomic_load(&work->cancelled);
}
