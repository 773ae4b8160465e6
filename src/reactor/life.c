/* SPDX-License-Identifier: MIT
 * Making, running, ending and destroying a loop.
 *
 * Ending is the part with rules. Nothing is freed while the kernel may touch it: acceptors, connections, datagram
 * sockets and watches cancel what they have in flight, and the loop turns until the last event of each has come. Only
 * then is the backend destroyed, and then the memory freed. */
#include "backends.h"
#include "turn.h"
#include "drain.h"
#include "connect/connect.h"
#include "base/options.h"
#include "base/refuse.h"
#include "buffer/pipes.h"
#include "datagram/udp.h"
#include "listen/listener.h"
#include "resolve/resolve.h"
#include "watch/watch.h"

#include <errno.h>
#include <string.h>

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
    const struct gyre__range ranges[] = {
        {"ops_max", o->ops_max, 0, OPS_MAX},
        {"buf_size_bytes", o->buf_size_bytes, BUF_SIZE_MIN, BUF_SIZE_MAX},
        {"buf_count_max", o->buf_count_max, 0, BUF_COUNT_LIMIT},
        {"buf_count", o->buf_count, 0, o->buf_count_max},
        {"buf_keep_ns", o->buf_keep_ns, 0, INT64_MAX},
        {"busy_poll_us", o->busy_poll_us, o->busy_poll_prefer, BUSY_POLL_US_MAX},
    };
    int err = gyre__check_ranges(ranges, sizeof ranges / sizeof ranges[0]);
    if (err != 0)
        return err;
    if (!gyre__bufpool_fits(o->buf_size_bytes, o->buf_count_max))
        return gyre__refuse("buf_count_max %u of buf_size_bytes %u are %u MiB, more than the addresses of this system; "
                            "make one of them smaller",
                            o->buf_count_max, o->buf_size_bytes,
                            (unsigned)((uint64_t)o->buf_count_max * gyre__bufpool_stride(o->buf_size_bytes) >> 20));
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
    l->done_fns = gyre__turn_done_fns;
    gyre__forks_watch();
    l->forks = gyre__forks_now();
    l->mem = o->mem;
    l->log = o->log;
    l->user = o->user;
    l->conns_max = o->conns_max;
    l->tasks.count_max = o->tasks_max;
    l->urgent.count_max = o->urgent_tasks_max;
    l->buf_keep_ns = o->buf_keep_ns;
    l->famine_timer.kind = GYRE_TIMER_FAMINE;
    l->drain_timer.kind = GYRE_TIMER_DRAIN;
    l->tick_timer.kind = GYRE_TIMER_TICK;
    l->trim_timer.kind = GYRE_TIMER_TRIM;
}

static int init_rooms(struct gyre_loop *l, const struct gyre_loop_options *o)
{
    int err = gyre__conns_init(l);
    if (err == 0)
        err = gyre__udps_init(l);
    if (err == 0)
        err = gyre__watches_init(l);
    if (err == 0)
        err = gyre__resolves_init(l, o->resolver);
    if (err == 0)
        err = gyre__attempts_init(l);
    return err == 0 ? gyre__acceptors_init(l) : err;
}

static void free_rooms(struct gyre_loop *l)
{
    gyre__acceptors_fini(l);
    gyre__conns_fini(l);
    gyre__udps_fini(l);
    gyre__watches_fini(l);
    gyre__attempts_fini(l);
    gyre__resolves_fini(l);
}

static int open_backend(struct gyre_loop *l, const struct gyre_loop_options *o, const struct gyre__backend_config *tune)
{
    struct gyre__backend_config config = tune != NULL ? *tune : (struct gyre__backend_config){.ops_max = 0};
    config.ops_max = o->ops_max;
    config.mem = o->mem;
    config.log = o->log;
    config.sim = o->sim;
    config.busy_poll_us = o->busy_poll_us;
    config.busy_poll_prefer = o->busy_poll_prefer;
    int err = gyre__backend_open(&l->be, o->backend, &config, &l->report);
    if (err != 0) {
        gyre__log_line(l->log, GYRE_LOG_WARN, "no backend: %s", l->report.reason);
        return err;
    }
    l->be->ops->features(l->be, l->report.features, sizeof l->report.features);
    if (o->busy_poll_us > 0 && !l->be->busy_polls)
        gyre__log_line(l->log, GYRE_LOG_INFO,
                       "no busy polling: %s cannot do it here (io_uring and epoll can, from Linux 6.9)",
                       l->report.backend);
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

int gyre__loop_make(struct gyre_loop **out, const struct gyre_loop_options *options,
                    const struct gyre__backend_config *tune)
{
    struct gyre_loop_options o = *options;
    int err = complete(&o);
    if (err != 0)
        return err;
    struct gyre_loop *l = gyre__alloc(o.mem, sizeof *l);
    if (l == NULL)
        return -ENOMEM;
    init(l, &o);
    err = init_rooms(l, &o);
    if (err == 0)
        err = open_backend(l, &o, tune);
    if (err != 0) {
        free_rooms(l);
        gyre__free(o.mem, l);
        return err;
    }
    gyre__segs_init(&l->segs, l->mem, &l->pool, l->be);
    gyre__wheel_init(&l->wheel, gyre__loop_clock(l), gyre__turn_fire_fns);
    gyre__loop_look_at_clock(l);
    gyre__log_line(l->log, GYRE_LOG_DEBUG, "backend %s (%s)", l->report.backend, l->report.reason);
    *out = l;
    return 0;
}

int gyre_loop_create_sized(struct gyre_loop **out, const struct gyre_loop_options *options, size_t size_bytes)
{
    struct gyre_loop_options copy;
    int err = out == NULL ? -EINVAL : gyre__options_copy(&copy, sizeof copy, options, size_bytes);
    return err != 0 ? err : gyre__loop_make(out, &copy, NULL);
}

void gyre__loop_end(struct gyre_loop *l)
{
    int err = 0;
    (void)gyre__loop_now(l);
    gyre__loop_set_inside(l, true);
    l->phase = GYRE_PHASE_ENDING;
    gyre__wheel_stop(&l->wheel, &l->drain_timer);
    gyre__wheel_stop(&l->wheel, &l->tick_timer);
    gyre__wheel_stop(&l->wheel, &l->trim_timer);
    gyre__acceptors_close(l);
    gyre__conns_each(l, gyre__drain_end_one);
    gyre__udps_each(l, gyre__udp_shut);
    gyre__watches_end(l);
    gyre__resolves_end(l);
    while (err == 0 && (gyre_loop_conn_count(l) > 0 || l->acceptors->open > 0 || l->conns->settle_head != NULL ||
                        l->udps->open > 0 || l->watches->count > 0 || gyre__attempts_any(l)))
        err = gyre__loop_turn(l, -1);
    if (err != 0) {
        gyre__acceptors_abandon(l);
        gyre__conns_abandon(l);
        gyre__udps_abandon(l);
        gyre__watches_abandon(l);
        gyre__attempts_abandon(l);
    }
    gyre__loop_set_inside(l, false);
    l->ended = true;
}

void gyre__loop_run_late_tasks(struct gyre_loop *l)
{
    atomic_store(&l->closed, true);
    l->owner = pthread_self(); /* who destroys it: its tasks may call what the loop's thread may */
    atomic_store_explicit(&l->owned, true, memory_order_release);
    do
        gyre__turn_run_tasks(l);
    while (gyre__tasks_any(&l->urgent) || gyre__tasks_any(&l->tasks));
    gyre__laters_run(l);
    gyre__segs_settle(&l->segs);
}

int gyre_loop_destroy(struct gyre_loop *l)
{
    if (l == NULL || gyre__loop_is_forked(l))
        return 0;
    GYRE_CHECK(l->magic == GYRE_LOOP_MAGIC);
    if (gyre__loop_is_inside(l))
        return gyre__loop_allows(l) ? GYRE_ESTATE : GYRE_ETHREAD;
    if (!l->ended)
        gyre__loop_end(l);
    gyre__loop_run_late_tasks(l);
    GYRE_CHECK(atomic_load(&l->jobs) == 0); /* a pool must be destroyed before the loops it tells */
    gyre__pipes_fini(&l->pool, l->be);
    l->be->ops->pool_remove(l->be, &l->pool);
    l->be->ops->destroy(l->be);
    gyre__segs_fini(&l->segs);
    free_rooms(l);
    gyre__bufpool_fini(&l->pool);
    l->magic = 0;
    gyre__free(l->mem, l);
    return 0;
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
    if (gyre__loop_is_inside(l) || l->ended)
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
    (void)gyre__loop_now(l);
    gyre__loop_set_inside(l, true);
    if (GYRE_UNLIKELY(atomic_load_explicit(&l->request, memory_order_relaxed) == GYRE_REQUEST_DRAIN))
        (void)gyre__drain_is_over(l);
    err = gyre__loop_turn(l, 0);
    gyre__loop_set_inside(l, false);
    return err != 0 ? err : gyre_loop_timeout_ns(l) == 0;
}

void gyre_loop_stop(struct gyre_loop *l)
{
    if (l == NULL)
        return;
    if (l->set != NULL)
        l->set->stop(l->set);
    else
        gyre__loop_ask(l, GYRE_REQUEST_RETURN);
}
