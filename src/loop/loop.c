/* SPDX-License-Identifier: MIT
 * The loop: making one, its turn, ending.
 *
 * Ending is the part with rules. Nothing is freed while the kernel may touch it: acceptors and connections are asked to
 * cancel what they have in flight, and the loop turns until the last event of each has come; only then does the
 * backend go, and then the memory. */
#include "loop.h"
#include "stream/conn.h"
#include "connect/connect.h"
#include "listen/listener.h"
#include "datagram/udp.h"
#include "watch/watch.h"

#include <errno.h>
#include <string.h>
#include <time.h>

enum {
    OPS_DEFAULT = 4096,
    OPS_MAX = 65536,
    BUF_SIZE_DEFAULT = 16384 + 512, /* 16 KiB messages and TLS records (RFC 8446, 5.2) leave room: then a receive was
                                       short, which tells readiness that the socket is empty */
    BUF_SIZE_MIN = 256,
    BUF_SIZE_MAX = 1 << 20,
    BUF_COUNT_MAX_DEFAULT = 1024,
    BUF_KEEP_NS_DEFAULT = 1000000000,
    BUF_COUNT_LIMIT = 16384,
    CONNS_MAX_DEFAULT = 1 << 20,
    TASKS_MAX_DEFAULT = 65536,
    BUSY_POLL_US_MAX = 10000, /* Linux takes no more for a ring */
    URGENT_MAX_DEFAULT = GYRE_TASKS_PER_TURN, /* then a turn runs all that wait when it begins */
};

static const char lost_text[] = "the loop's backend failed and cannot go on";

uint64_t gyre__loop_clock(const struct gyre_loop *l)
{
    struct timespec ts;
    if (l->be->ops->now != NULL)
        return l->be->ops->now(l->be);
    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * UINT64_C(1000000000) + (uint64_t)ts.tv_nsec;
}

static void look_at_clock(struct gyre_loop *l)
{
    l->now_ns = gyre__loop_clock(l);
    l->now_tick = (l->now_ns - l->wheel.origin_ns + (uint64_t)GYRE_TICK_NS - 1) / (uint64_t)GYRE_TICK_NS;
}

uint64_t gyre__loop_now(struct gyre_loop *l)
{
    if (!l->inside)
        look_at_clock(l);
    return l->now_ns;
}

/* ---- whose operations, whose timers ---- */

static void end_one(struct gyre_conn *c)
{
    gyre__conn_end(c, GYRE_CLOSE_SHUTDOWN, GYRE_ESHUTDOWN);
}

static void on_drain_over(struct gyre__timer *t)
{
    struct gyre_loop *l = GYRE_CONTAINER(t, struct gyre_loop, drain_timer);
    gyre__conns_each(l, end_one);
    gyre__udps_each(l, gyre__udp_shut);
}

/* The turn it wakes does the rest. */
static void on_famine_over(struct gyre__timer *t)
{
    (void)t;
}

static gyre__done_fn *const done_fns[GYRE_DONES] = {
    [GYRE_DONE_RECV] = gyre__conn_on_recv,
    [GYRE_DONE_SENT] = gyre__conn_on_sent,
    [GYRE_DONE_CONNECT] = gyre__conn_on_connect,
    [GYRE_DONE_ACCEPT] = gyre__acceptor_on_accept,
    [GYRE_DONE_UDP_RECV] = gyre__udp_on_recv,
    [GYRE_DONE_UDP_SENT] = gyre__udp_on_sent,
    [GYRE_DONE_WATCH] = gyre__watch_on_poll,
};

static gyre__timer_fire_fn *const fire_fns[GYRE_TIMERS] = {
    [GYRE_TIMER_CONN] = gyre__conn_on_timer,
    [GYRE_TIMER_USER] = gyre__timer_expired,
    [GYRE_TIMER_LATER] = gyre__timer_later_over,
    [GYRE_TIMER_ACCEPTOR] = gyre__acceptor_on_timer,
    [GYRE_TIMER_DRAIN] = on_drain_over,
    [GYRE_TIMER_FAMINE] = on_famine_over,
    [GYRE_TIMER_TICK] = gyre__loop_tick,
    [GYRE_TIMER_UDP] = gyre__udp_on_timer,
    [GYRE_TIMER_LIMITS] = gyre__conn_on_limit,
    [GYRE_TIMER_RECONNECT] = gyre__reconnector_on_timer,
    [GYRE_TIMER_TRIM] = gyre__trim_on_timer,
};

/* ---- making ---- */

/* Check options and fill in the defaults. */
static int complete(struct gyre_loop_options *o)
{
    if (o->ops_max == 0)
        o->ops_max = OPS_DEFAULT;
    if (o->buf_size_bytes == 0)
        o->buf_size_bytes = BUF_SIZE_DEFAULT;
    if (o->buf_count_max == 0)
        o->buf_count_max = o->buf_count > BUF_COUNT_MAX_DEFAULT ? o->buf_count : BUF_COUNT_MAX_DEFAULT;
    if (o->conns_max == 0)
        o->conns_max = CONNS_MAX_DEFAULT;
    if (o->tasks_max == 0)
        o->tasks_max = TASKS_MAX_DEFAULT;
    if (o->urgent_tasks_max == 0)
        o->urgent_tasks_max = URGENT_MAX_DEFAULT;
    if (o->buf_keep_ns == 0)
        o->buf_keep_ns = BUF_KEEP_NS_DEFAULT;
    if (o->mem == NULL)
        o->mem = &gyre__mem_system;
    if (o->log == NULL)
        o->log = &gyre__log_system;
    if (o->ops_max > OPS_MAX || o->buf_size_bytes < BUF_SIZE_MIN || o->buf_size_bytes > BUF_SIZE_MAX ||
        o->buf_count_max > BUF_COUNT_LIMIT || o->buf_count > o->buf_count_max || o->buf_keep_ns < 0)
        return GYRE_EOPTION;
    if (o->busy_poll_us > BUSY_POLL_US_MAX || (o->busy_poll_prefer && o->busy_poll_us == 0))
        return GYRE_EOPTION;
    if (o->buf_count == 0) {
        o->buf_count = gyre__bufpool_first(o->buf_size_bytes);
        if (o->buf_count > o->buf_count_max)
            o->buf_count = o->buf_count_max;
    }
    return 0;
}

static void init(struct gyre_loop *l, const struct gyre_loop_options *o)
{
    l->magic = GYRE_LOOP_MAGIC;
    gyre__forks_watch();
    l->forks = gyre__forks_now();
    l->mem = o->mem;
    l->log = o->log;
    l->user = o->user;
    l->conns_max = o->conns_max;
    l->tasks.count_max = o->tasks_max;
    l->urgent.count_max = o->urgent_tasks_max;
    l->buf_keep_ns = o->buf_keep_ns;
    l->settle_tail = &l->settle_head;
    l->starved_tail = &l->starved_head;
    l->udps.settle_tail = &l->udps.settle_head;
    l->famine_timer.kind = GYRE_TIMER_FAMINE;
    l->drain_timer.kind = GYRE_TIMER_DRAIN;
    l->tick_timer.kind = GYRE_TIMER_TICK;
    l->trim_timer.kind = GYRE_TIMER_TRIM;
    gyre__shared_init(l);
}

static int open_backend(struct gyre_loop *l, const struct gyre_loop_options *o, const struct gyre_backend_config *tune)
{
    struct gyre_backend_config config = tune != NULL ? *tune : (struct gyre_backend_config){.ops_max = 0};
    config.ops_max = o->ops_max;
    config.mem = o->mem;
    config.log = o->log;
    config.sim = o->sim;
    config.busy_poll_us = o->busy_poll_us;
    config.busy_poll_prefer = o->busy_poll_prefer;
    int err = gyre__backend_open(&l->be, o->backend, &config, &l->report);
    if (err != 0) {
        gyre__log(l->log, GYRE_LOG_WARN, "no backend: %s", l->report.reason);
        return err;
    }
    l->be->ops->features(l->be, l->report.features, sizeof l->report.features);
    if (o->busy_poll_us > 0 && !l->be->busy_polls)
        gyre__log(l->log, GYRE_LOG_INFO,
                  "no busy polling: %s cannot do it here (io_uring and epoll can, from Linux 6.9)", l->report.backend);
    err = gyre__bufpool_init(&l->pool, l->mem, o->buf_size_bytes, o->buf_count, o->buf_count_max);
    if (err == 0) {
        err = l->be->ops->pool_add(l->be, &l->pool);
        if (err == 0)
            return 0;
        gyre__bufpool_fini(&l->pool);
    }
    l->be->ops->destroy(l->be);
    return err;
}

int gyre__loop_create(struct gyre_loop **out, const struct gyre_loop_options *options,
                      const struct gyre_backend_config *tune)
{
    struct gyre_loop_options o = *options;
    int err = complete(&o);
    if (err != 0)
        return err;
    struct gyre_loop *l = gyre__alloc(o.mem, sizeof *l);
    if (l == NULL)
        return -ENOMEM;
    init(l, &o);
    err = open_backend(l, &o, tune);
    if (err != 0) {
        gyre__shared_fini(l);
        gyre__free(o.mem, l);
        return err;
    }
    gyre__segs_init(&l->segs, l->mem, &l->pool);
    gyre__wheel_init(&l->wheel, gyre__loop_clock(l), fire_fns);
    look_at_clock(l);
    gyre__log(l->log, GYRE_LOG_DEBUG, "backend %s (%s)", l->report.backend, l->report.reason);
    *out = l;
    return 0;
}

int gyre_loop_create_sized(struct gyre_loop **out, const struct gyre_loop_options *options, size_t size_bytes)
{
    struct gyre_loop_options copy;
    int err = out == NULL ? -EINVAL : gyre__options_copy(&copy, sizeof copy, options, size_bytes);
    return err != 0 ? err : gyre__loop_create(out, &copy, NULL);
}

/* ---- a turn ---- */

static void dispatch(const struct gyre_event *ev)
{
    struct gyre_op *op = ev->op;
    GYRE_CHECK(op->state != GYRE_OPS_IDLE);
    if (!(ev->flags & GYRE_EV_MORE)) {
        op->state = GYRE_OPS_IDLE;
        op->gen++;
        op->f->inflight--;
    }
    done_fns[op->done](op, ev); /* may submit, cancel, close; may free what is idle */
}

void gyre__op_abandon(struct gyre_op *op)
{
    if (op->state != GYRE_OPS_IDLE)
        dispatch(&(struct gyre_event){.op = op, .res = -ECANCELED});
}

static bool has_work(const struct gyre_loop *l)
{
    bool starved = l->starved_head != NULL && !gyre__timer_is_active(&l->famine_timer);
    return l->settle_head != NULL || l->udps.settle_head != NULL || starved || gyre__tasks_any(&l->urgent) ||
           gyre__tasks_any(&l->tasks);
}

static int64_t until_timer(const struct gyre_loop *l, int64_t timeout_ns, uint64_t clock_ns)
{
    int64_t timer_ns = gyre__wheel_timeout(&l->wheel, clock_ns);
    if (timer_ns < 0)
        return timeout_ns;
    return timeout_ns < 0 || timer_ns < timeout_ns ? timer_ns : timeout_ns;
}

/* How long to wait at most. Before a turn that may wait, the clock is read, which tells how long the last one took. */
static int64_t next_wait(struct gyre_loop *l, int64_t timeout_ns)
{
    if (timeout_ns == 0 || has_work(l))
        return 0;
    uint64_t clock_ns = gyre__loop_clock(l);
    gyre__observe(&l->be->stats.turn_ns, clock_ns - l->now_ns);
    return until_timer(l, timeout_ns, clock_ns);
}

/* Run the oldest task of `from`. Returns whether there was one. */
static bool run_task(struct gyre_loop *l, struct gyre__tasks *from)
{
    struct gyre__task *task = gyre__tasks_next(from);
    if (task == NULL)
        return false;
    gyre_task_fn *run = task->run;
    void *user = task->user;
    if (!task->embedded)
        gyre__free(l->mem, task);
    gyre__tasks_done(from);
    gyre__count(&l->be->stats.tasks, 1);
    run(l, user);
    return true;
}

/* The urgent ones are looked for before each of the others, because one may come while those run; and after the others
 * were taken, or one that comes in between might be overtaken by one that was posted after it. Each kind has a bound of
 * its own: neither keeps the other, or events, waiting for ever. */
static void run_tasks(struct gyre_loop *l)
{
    unsigned urgent = 0;
    for (unsigned others = 0; others < GYRE_TASKS_PER_TURN; others++) {
        bool any = gyre__tasks_gather(&l->tasks);
        while (urgent < GYRE_TASKS_PER_TURN && run_task(l, &l->urgent)) {
            urgent++;
            gyre__count(&l->be->stats.urgent_tasks, 1);
        }
        if (!any)
            return;
        (void)run_task(l, &l->tasks);
    }
}

int gyre__loop_turn(struct gyre_loop *l, int64_t timeout_ns)
{
    struct gyre_backend *be = l->be;
    int n = be->ops->wait(be, l->events, GYRE_EVENTS_PER_WAIT, next_wait(l, timeout_ns));
    if (n < 0) {
        gyre__log(l->log, GYRE_LOG_ERROR, "%s: %s", lost_text, gyre_err_text(n));
        return n;
    }
    look_at_clock(l);
    uint64_t asked = be->stats.ops + be->stats.cancels;
    gyre__count(&be->stats.turns, 1);
    gyre__count(&be->stats.events, (uint64_t)n);
    gyre__observe(&be->stats.turn_events, (uint64_t)n);
    for (int i = 0; i < n; i++)
        dispatch(&l->events[i]);
    gyre__count(&be->stats.timers, gyre__wheel_advance(&l->wheel, l->now_ns));
    run_tasks(l);
    gyre__conns_settle(l);
    gyre__udps_settle(l);
    gyre__segs_settle(&l->segs);
    if (GYRE_UNLIKELY(l->starved_head != NULL && !gyre__timer_is_active(&l->famine_timer)))
        gyre__loop_feed_starved(l);
    gyre__trim_look(l, n > 0);
    gyre__stats_publish(l);
    l->maybe_more = n > 0 || be->stats.ops + be->stats.cancels != asked;
    return 0;
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

static void shut_one(struct gyre_conn *c)
{
    if (c->state == GYRE_CONN_CONNECTING)
        gyre__conn_end(c, GYRE_CLOSE_SHUTDOWN, GYRE_ESHUTDOWN);
    else
        gyre__conn_begin_close(c, GYRE_CLOSE_SHUTDOWN);
}

static void begin_drain(struct gyre_loop *l)
{
    int64_t limit_ns = atomic_load(&l->drain_ns);
    l->phase = GYRE_PHASE_DRAINING;
    gyre__acceptors_close(l);
    gyre__conns_each(l, shut_one);
    gyre__udps_each(l, gyre__udp_drain);
    gyre__wheel_start(&l->wheel, &l->drain_timer, gyre__loop_clock(l) + (uint64_t)(limit_ns > 0 ? limit_ns : 0));
}

/* Whether serving is over. */
static bool serve_request(struct gyre_loop *l)
{
    switch ((enum gyre__loop_request)atomic_load_explicit(&l->request, memory_order_relaxed)) {
    case GYRE_REQUEST_NONE:
        return false;
    case GYRE_REQUEST_RETURN: {
        int now = GYRE_REQUEST_RETURN;
        return atomic_compare_exchange_strong(&l->request, &now, GYRE_REQUEST_NONE);
    }
    case GYRE_REQUEST_DRAIN:
        if (l->phase == GYRE_PHASE_SERVING)
            begin_drain(l);
        return gyre_loop_conn_count(l) == 0 && l->acceptors_open == 0 && l->udps.open == 0;
    case GYRE_REQUEST_END:
        return true;
    }
    return true;
}

int gyre__loop_serve(struct gyre_loop *l)
{
    int err = 0;
    (void)gyre__loop_now(l);
    l->inside = true;
    while (err == 0 && !serve_request(l))
        err = gyre__loop_turn(l, -1);
    l->inside = false;
    return err;
}

void gyre__loop_end(struct gyre_loop *l)
{
    int err = 0;
    (void)gyre__loop_now(l);
    l->inside = true;
    l->phase = GYRE_PHASE_ENDING;
    gyre__wheel_stop(&l->wheel, &l->drain_timer);
    gyre__wheel_stop(&l->wheel, &l->tick_timer);
    gyre__wheel_stop(&l->wheel, &l->trim_timer);
    gyre__acceptors_close(l);
    gyre__conns_each(l, end_one);
    gyre__udps_each(l, gyre__udp_shut);
    gyre__watches_end(l);
    while (err == 0 && (gyre_loop_conn_count(l) > 0 || l->acceptors_open > 0 || l->settle_head != NULL ||
                        l->udps.open > 0 || l->watches.count > 0))
        err = gyre__loop_turn(l, -1);
    if (err != 0) {
        gyre__acceptors_abandon(l);
        gyre__conns_abandon(l);
        gyre__udps_abandon(l);
        gyre__watches_abandon(l);
    }
    l->inside = false;
    l->ended = true;
}

void gyre__loop_run_late_tasks(struct gyre_loop *l)
{
    atomic_store(&l->closed, true);
    l->owner = pthread_self(); /* who destroys it: its tasks may call what the loop's thread may */
    atomic_store_explicit(&l->owned, true, memory_order_release);
    do
        run_tasks(l);
    while (gyre__tasks_any(&l->urgent) || gyre__tasks_any(&l->tasks));
    gyre__laters_run(l);
    gyre__segs_settle(&l->segs);
}

void gyre_loop_destroy(struct gyre_loop *l)
{
    if (l == NULL || gyre__loop_is_forked(l))
        return;
    GYRE_CHECK(l->magic == GYRE_LOOP_MAGIC && !l->inside);
    if (!l->ended)
        gyre__loop_end(l);
    gyre__loop_run_late_tasks(l);
    GYRE_CHECK(atomic_load(&l->jobs) == 0); /* a pool must be destroyed before the loops it tells */
    gyre__pipes_fini(l);
    l->be->ops->pool_remove(l->be, &l->pool);
    l->be->ops->destroy(l->be);
    gyre__loop_free_sendvs(l);
    gyre__segs_fini(&l->segs);
    gyre__shared_fini(l);
    gyre__acceptors_fini(l);
    gyre__conns_fini(l);
    gyre__udps_fini(l);
    gyre__watches_fini(l);
    gyre__bufpool_fini(&l->pool);
    l->magic = 0;
    gyre__free(l->mem, l);
}

/* ---- the user's side ---- */

void gyre__loop_own(struct gyre_loop *l, pthread_t owner)
{
    if (atomic_load_explicit(&l->owned, memory_order_acquire))
        return;
    l->owner = owner;
    atomic_store_explicit(&l->owned, true, memory_order_release);
}

/* The first thread that runs a loop owns it. */
static int enter(struct gyre_loop *l)
{
    if (l == NULL || l->magic != GYRE_LOOP_MAGIC)
        return -EINVAL;
    if (gyre__loop_is_forked(l))
        return GYRE_EFORK;
    if (!gyre__loop_allows(l))
        return GYRE_ETHREAD;
    if (l->inside || l->ended)
        return GYRE_ESTATE;
    if (!atomic_load_explicit(&l->owned, memory_order_acquire)) {
        gyre__loop_own(l, pthread_self());
        gyre__acceptors_arm(l); /* an engine's, which waited for somebody to run them */
    }
    return 0;
}

int gyre_loop_run(struct gyre_loop *l)
{
    int err = enter(l);
    return err != 0 ? err : gyre__loop_serve(l);
}

int gyre_loop_run_nowait(struct gyre_loop *l)
{
    int err = enter(l);
    if (err != 0)
        return err;
    l->inside = true;
    err = gyre__loop_turn(l, 0);
    l->inside = false;
    return err != 0 ? err : gyre_loop_timeout_ns(l) == 0;
}

int gyre_loop_fd(const struct gyre_loop *l)
{
    return l->be->ops->pollable(l->be);
}

int64_t gyre_loop_timeout_ns(const struct gyre_loop *l)
{
    return l->maybe_more || has_work(l) ? 0 : until_timer(l, -1, gyre__loop_clock(l));
}

void gyre_loop_stop(struct gyre_loop *l)
{
    if (l == NULL)
        return;
    if (l->engine != NULL)
        gyre_engine_stop(l->engine);
    else
        gyre__loop_ask(l, GYRE_REQUEST_RETURN);
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

int gyre__loop_post_task(struct gyre_loop *l, struct gyre__task *task)
{
    return push(l, &l->tasks, task);
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

bool gyre__loop_reserve(struct gyre_loop *l)
{
    uint64_t load = atomic_fetch_add_explicit(&l->conn_load, GYRE_PLACE_RESERVED, memory_order_relaxed);
    if ((uint32_t)load + (uint32_t)(load >> 32) < l->conns_max)
        return true;
    gyre__loop_unreserve(l);
    return false;
}

void *gyre_loop_user(const struct gyre_loop *l)
{
    return l->user;
}

bool gyre_loop_is_current(const struct gyre_loop *l)
{
    return atomic_load_explicit(&l->owned, memory_order_acquire) && gyre__loop_allows(l) && l->inside;
}

void gyre_loop_backend(const struct gyre_loop *l, struct gyre_backend_report *out)
{
    *out = l->report;
}
