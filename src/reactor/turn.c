/* SPDX-License-Identifier: MIT
 * A turn of the loop; serving.
 *
 * One turn: wait, which submits; pass each event to the function that its operation names; fire timers; run posted
 * tasks; then settle what was marked: gather the queued writes of each connection into one send, move closing ones on.
 * At the end receives that found no buffer try again, and acceptors that were held back go on if a connection closed.
 * What a turn submits goes to the kernel with the next turn's wait. */
#include "turn.h"
#include "drain.h"
#include "trim.h"
#include "connect/connect.h"
#include "datagram/udp.h"
#include "listen/listener.h"
#include "resolve/resolve.h"
#include "watch/watch.h"

#include <string.h>

static const char lost_text[] = "the loop's backend failed and cannot go on";

static void on_tick(struct gyre__loop_timer *t)
{
    struct gyre_loop *l = GYRE_CONTAINER(t, struct gyre_loop, tick_timer);
    l->set->tick(l);
}

/* The turn it wakes does the rest. */
static void on_famine_over(struct gyre__loop_timer *t)
{
    (void)t;
}

gyre__done_fn *const gyre__turn_done_fns[GYRE_DONES] = {
    [GYRE_DONE_RECV] = gyre__conn_on_recv,
    [GYRE_DONE_SENT] = gyre__conn_on_sent,
    [GYRE_DONE_CONNECT] = gyre__conn_on_connect,
    [GYRE_DONE_ACCEPT] = gyre__acceptor_on_accept,
    [GYRE_DONE_UDP_RECV] = gyre__udp_on_recv,
    [GYRE_DONE_UDP_SENT] = gyre__udp_on_sent,
    [GYRE_DONE_WATCH] = gyre__watch_on_poll,
    [GYRE_DONE_ATTEMPT] = gyre__attempt_on_connect,
};

gyre__timer_fire_fn *const gyre__turn_fire_fns[GYRE_TIMERS] = {
    [GYRE_TIMER_CONN] = gyre__conn_on_timer,
    [GYRE_TIMER_USER] = gyre__timer_expired,
    [GYRE_TIMER_LATER] = gyre__timer_later_over,
    [GYRE_TIMER_ACCEPTOR] = gyre__acceptor_on_timer,
    [GYRE_TIMER_DRAIN] = gyre__drain_on_timer,
    [GYRE_TIMER_FAMINE] = on_famine_over,
    [GYRE_TIMER_TICK] = on_tick,
    [GYRE_TIMER_UDP] = gyre__udp_on_timer,
    [GYRE_TIMER_LIMITS] = gyre__conn_on_limit,
    [GYRE_TIMER_CONNECT] = gyre__conns_on_again,
    [GYRE_TIMER_RECONNECT] = gyre__reconnector_on_timer,
    [GYRE_TIMER_TRIM] = gyre__trim_on_timer,
    [GYRE_TIMER_RACE] = gyre__race_on_timer,
    [GYRE_TIMER_RESOLVE] = gyre__resolve_on_timer,
};

static bool has_work(const struct gyre_loop *l)
{
    bool starved = l->conns->starved_head != NULL && !gyre__timer_is_set(&l->famine_timer);
    return l->conns->settle_head != NULL || l->udps->settle_head != NULL || starved || gyre__tasks_any(&l->urgent) ||
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
void gyre__turn_run_tasks(struct gyre_loop *l)
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
    struct gyre__backend *be = l->be;
    int n = be->ops->wait(be, l->events, GYRE_EVENTS_PER_WAIT, next_wait(l, timeout_ns));
    if (n < 0) {
        gyre__log_line(l->log, GYRE_LOG_ERROR, "%s: %s", lost_text, gyre_err_text(n));
        return n;
    }
    gyre__loop_look_at_clock(l);
    uint64_t asked = be->stats.ops + be->stats.cancels, closed = be->stats.closed;
    gyre__count(&be->stats.turns, 1);
    gyre__count(&be->stats.events, (uint64_t)n);
    gyre__observe(&be->stats.turn_events, (uint64_t)n);
    for (int i = 0; i < n; i++)
        gyre__op_done(l, &l->events[i]);
    gyre__count(&be->stats.timers, gyre__wheel_advance(&l->wheel, l->now_ns));
    gyre__turn_run_tasks(l);
    gyre__conns_settle(l);
    gyre__udps_settle(l);
    gyre__segs_settle(&l->segs);
    if (be->stats.closed != closed)
        gyre__acceptors_retry(l);
    if (GYRE_UNLIKELY(l->conns->starved_head != NULL && !gyre__timer_is_set(&l->famine_timer)))
        gyre__conns_feed_starved(l);
    gyre__trim_look(l, n > 0);
    gyre__stats_publish(l);
    l->maybe_more = n > 0 || be->stats.ops + be->stats.cancels != asked;
    return 0;
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
        return gyre__drain_is_over(l);
    case GYRE_REQUEST_END:
        return true;
    }
    return true;
}

int gyre__loop_serve(struct gyre_loop *l)
{
    int err = 0;
    (void)gyre__loop_now(l);
    gyre__loop_set_inside(l, true);
    while (err == 0 && !serve_request(l))
        err = gyre__loop_turn(l, -1);
    gyre__loop_set_inside(l, false);
    return err;
}

int64_t gyre_loop_timeout_ns(const struct gyre_loop *l)
{
    return l->maybe_more || has_work(l) ? 0 : until_timer(l, -1, gyre__loop_clock(l));
}
