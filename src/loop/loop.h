/* SPDX-License-Identifier: MIT
 * The record of a loop: clock, owner, phase, operations, posted tasks, timers, counters, places for connections.
 *
 * The rooms that live on a loop keep their own state of it behind opaque pointers. This room names none of their
 * functions: an operation and a timer hold a number. The tables from number to function are in reactor/turn.c, and so
 * is a turn of the loop. */
#ifndef GYRE_LOOP_LOOP_H
#define GYRE_LOOP_LOOP_H

#include "seam/backend.h"
#include "buffer/bufpool.h"
#include "base/check.h"
#include "base/log.h"
#include "base/mem.h"
#include "buffer/seg.h"
#include "task.h"
#include "base/thread.h"
#include "base/wheel.h"

#include <gyre/loop.h>

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>

struct gyre__acceptors;
struct gyre__attempts;
struct gyre__conns;
struct gyre__resolves;
struct gyre__set;
struct gyre__shared;
struct gyre__udps;
struct gyre__watches;

/* Who is told of an operation's events. A number in place of a pointer, because every connection has two operations. */
enum gyre__done {
    GYRE_DONE_NONE = 0, /* never submitted */
    GYRE_DONE_RECV,     /* stream/conn.h */
    GYRE_DONE_SENT,
    GYRE_DONE_CONNECT,
    GYRE_DONE_ACCEPT, /* listen/listener.h */
    GYRE_DONE_UDP_RECV, /* datagram/udp.h */
    GYRE_DONE_UDP_SENT,
    GYRE_DONE_WATCH, /* watch/watch.h */
    GYRE_DONE_ATTEMPT, /* connect/connect.h */
    GYRE_DONES,
};

typedef void gyre__done_fn(struct gyre__op *op, const struct gyre__event *ev);

/* Whose timer it is; likewise. */
enum gyre__timer_kind {
    GYRE_TIMER_NONE = 0, /* never started */
    GYRE_TIMER_CONN,     /* stream/conn.h */
    GYRE_TIMER_USER,     /* timer.c */
    GYRE_TIMER_LATER,
    GYRE_TIMER_ACCEPTOR, /* listen/listener.h */
    GYRE_TIMER_DRAIN,    /* reactor/turn.c */
    GYRE_TIMER_FAMINE,
    GYRE_TIMER_TICK, /* set.h */
    GYRE_TIMER_UDP,  /* datagram/udp.h */
    GYRE_TIMER_LIMITS, /* stream/conn.h */
    GYRE_TIMER_CONNECT,
    GYRE_TIMER_RECONNECT, /* connect/connect.h */
    GYRE_TIMER_RACE,
    GYRE_TIMER_TRIM, /* reactor/trim.c */
    GYRE_TIMER_RESOLVE, /* resolve/resolve.h */
    GYRE_TIMERS,
};

enum {
    GYRE_EVENTS_PER_WAIT = 256,
    GYRE_TASKS_PER_TURN = 1024, /* of the urgent and of the others; then events have their turn */
};

enum { GYRE_LOOP_MAGIC = 0x6c6f6f70 };

/* What another thread or a signal handler asked of the loop. */
enum gyre__loop_request {
    GYRE_REQUEST_NONE = 0,
    GYRE_REQUEST_RETURN, /* gyre_loop_stop(): return from run, leave everything as it is */
    GYRE_REQUEST_DRAIN,  /* gyre_engine_drain(): stop accepting, let connections finish, then end */
    GYRE_REQUEST_END,    /* gyre_engine_stop(): abort everything, then return */
};

enum gyre__loop_phase {
    GYRE_PHASE_SERVING = 0,
    GYRE_PHASE_DRAINING, /* no accepting; connections close as they finish, and may need new ones for that */
    GYRE_PHASE_ENDING,   /* everything is being aborted, and nothing new begins */
};

/* How the loop drains. The first four are written by any thread, and by signal handlers. */
struct gyre__drain {
    _Atomic(int64_t) deadline_ns; /* how long it may take */
    _Atomic(int64_t) spread_ns;   /* until the last connection is told */
    _Atomic(int64_t) quiet_ns;    /* how long a connection must have been quiet to be idle */
    _Atomic(uint32_t) calls;      /* of gyre_engine_drain() so far; each begins anew */
    uint32_t seen;                /* of them */
    uint64_t began_ns;
    uint64_t began_turn;
    uint64_t end_ns;
};

struct gyre_loop {
    uint32_t magic;
    uint32_t index; /* in its set */
    uint32_t reconnectors; /* made so far */
    uint32_t forks; /* what gyre__forks was when it was made */
    struct gyre__backend *be;
    gyre__done_fn *const *done_fns; /* by enum gyre__done */
    uint64_t now_ns;
    uint64_t now_tick; /* the same in ticks of the wheel, rounded up */

    struct gyre__segs segs;
    struct gyre__bufpool pool;
    struct gyre__wheel wheel;
    uint32_t conns_max;
    _Atomic(uint64_t) conn_load; /* low half: connections; high half: places reserved for those on their way */

    /* What each room keeps of this loop. */
    struct gyre__conns *conns;         /* stream/conn.h */
    struct gyre__udps *udps;           /* datagram/udp.h */
    struct gyre__watches *watches;     /* watch/watch.h */
    struct gyre__acceptors *acceptors; /* listen/listener.h */
    struct gyre__shared *shared;       /* stream/shared.h */
    struct gyre__resolves *resolves;   /* resolve/resolve.h */
    struct gyre__attempts *attempts;   /* connect/connect.h */

    struct gyre__tasks urgent; /* go before `tasks` */
    struct gyre__tasks tasks;
    struct gyre__later *laters;    /* delayed tasks whose timers run */
    _Atomic(uint32_t) later_count; /* those, and the ones on their way here */
    _Atomic(uint32_t) jobs;        /* of pools, still to be told here */
    struct gyre__loop_timer tick_timer; /* the engine's on_tick */

    _Atomic(bool) closed; /* being destroyed: no more tasks */
    _Atomic(int) request;
    struct gyre__drain drain;
    struct gyre__loop_timer drain_timer;
    struct gyre__loop_timer famine_timer; /* active: starved receives wait for memory; firing is all it does */
    struct gyre__loop_timer trim_timer;   /* active: receive buffers may have to be given back */
    int64_t buf_keep_ns;
    unsigned trim_left; /* how many that was the last time, when no more could be given back */
    enum gyre__loop_phase phase;
    _Atomic(bool) inside;      /* in a turn: callbacks may be running */
    bool ended;                /* gyre__loop_end() is done */
    bool maybe_more;           /* the last turn had events or submitted: pollable() is trusted after one without */
    _Atomic(bool) owned;       /* `owner` is set */
    pthread_t owner;

    struct gyre__set *set; /* NULL: alone */
    const struct gyre_mem *mem;
    const struct gyre_log *log;
    void *user;
    struct gyre_backend_report report;
    struct gyre__event events[GYRE_EVENTS_PER_WAIT];
};

/* Ask from another thread or a signal handler; a stronger request is never replaced by a weaker one. */
void gyre__loop_ask(struct gyre_loop *l, enum gyre__loop_request request);

/* Call `run` with `block` on the loop. The block is the loop's memory and begins with a struct gyre__task that is not
 * filled in. It is the loop's from here on: `run` frees it, and so does a failure to post. Returns 0, -EAGAIN,
 * GYRE_EFORK or GYRE_ESHUTDOWN. Thread: any. */
int gyre__loop_post_block(struct gyre_loop *l, void *block, gyre_task_fn *run);

/* Call `run` with `user` on the loop, by a task that is part of something that stays until then. Cannot fail, so for
 * what there is few of. Thread: any. */
void gyre__loop_post_always(struct gyre_loop *l, struct gyre__task *task, gyre_task_fn *run, void *user);

/* timer.c: run every delayed task now, because the loop is being destroyed. */
void gyre__laters_run(struct gyre_loop *l);

uint64_t gyre__loop_clock(const struct gyre_loop *l);

/* Read the clock: from now on that is the turn's time. */
void gyre__loop_look_at_clock(struct gyre_loop *l);

/* The turn's time; between turns, when that is old, the clock's. */
uint64_t gyre__loop_now(struct gyre_loop *l);

/* timer.c: a timer of the user's has expired; the time of something posted for later has come. */
void gyre__timer_expired(struct gyre__loop_timer *t);
void gyre__timer_later_over(struct gyre__loop_timer *t);

/* The calling thread becomes the loop's owner, for good. */
void gyre__loop_own(struct gyre_loop *l, pthread_t owner);

/* Whether this process is a child of the one that made it: then nothing of it may be touched. */
static inline bool gyre__loop_is_forked(const struct gyre_loop *l)
{
    return GYRE_UNLIKELY(l->forks != gyre__forks_now());
}

/* Whether this thread may touch the loop's objects. */
static inline bool gyre__loop_allows(const struct gyre_loop *l)
{
    if (gyre__loop_is_forked(l))
        return false;
    return !atomic_load_explicit(&l->owned, memory_order_acquire) || pthread_equal(l->owner, pthread_self());
}

/* Whether a turn is under way, and callbacks may be running. Thread: any. */
static inline bool gyre__loop_is_inside(const struct gyre_loop *l)
{
    return atomic_load_explicit(&l->inside, memory_order_relaxed);
}

static inline void gyre__loop_set_inside(struct gyre_loop *l, bool inside)
{
    atomic_store_explicit(&l->inside, inside, memory_order_relaxed);
}

/* Connections, those on their way included. Thread: any. */
static inline uint32_t gyre__loop_load(const struct gyre_loop *l)
{
    uint64_t load = atomic_load_explicit(&l->conn_load, memory_order_relaxed);
    return (uint32_t)load + (uint32_t)(load >> 32);
}

/* How many more connections the loop takes. Thread: any. */
static inline uint32_t gyre__loop_room(const struct gyre_loop *l)
{
    uint32_t load = gyre__loop_load(l);
    return load < l->conns_max ? l->conns_max - load : 0;
}

#define GYRE_PLACE_RESERVED (UINT64_C(1) << 32)

/* Take a place for a connection that another thread brings, so that whoever chooses a loop next counts it. Returns
 * false if there is none. Thread: any. */
bool gyre__loop_reserve(struct gyre_loop *l);
/* The same for one that was accepted, for which there must be a place in the set, too. */
bool gyre__loop_reserve_accepted(struct gyre_loop *l);
void gyre__loop_unreserve(struct gyre_loop *l);

/* A connection is there, for which a place was reserved or not; it has gone. Thread: the loop's. */
void gyre__loop_conn_came(struct gyre_loop *l, bool reserved);
void gyre__loop_conn_gone(struct gyre_loop *l);

/* State and count move here, in gyre__op_cancel() and in gyre__op_done() only, so no backend can get them wrong. */
static inline void gyre__op_submit(struct gyre_loop *l, struct gyre__op *op)
{
    GYRE_CHECK(op->state == GYRE_OPS_IDLE && op->f->fd >= 0);
    op->state = GYRE_OPS_INFLIGHT;
    op->f->inflight++;
    gyre__count(&l->be->stats.ops, 1);
    l->be->ops->submit(l->be, op);
}

/* Ask for the end of `op`; nothing happens if it is idle or asked already. */
static inline void gyre__op_cancel(struct gyre_loop *l, struct gyre__op *op)
{
    if (op->state != GYRE_OPS_INFLIGHT)
        return;
    op->state = GYRE_OPS_CANCELLING;
    gyre__count(&l->be->stats.cancels, 1);
    l->be->ops->cancel(l->be, op);
}

/* An event goes to whom its operation belongs to. */
static inline void gyre__op_done(struct gyre_loop *l, const struct gyre__event *ev)
{
    struct gyre__op *op = ev->op;
    GYRE_CHECK(op->state != GYRE_OPS_IDLE);
    if (!(ev->flags & GYRE_EV_MORE)) {
        op->state = GYRE_OPS_IDLE;
        op->gen++;
        op->f->inflight--;
    }
    l->done_fns[op->done](op, ev); /* may submit, cancel, close; may free what is idle */
}

/* The backend is lost and will not tell of `op`: its last event comes from here, as if it had been cancelled. */
static inline void gyre__op_abandon(struct gyre_loop *l, struct gyre__op *op)
{
    if (op->state != GYRE_OPS_IDLE)
        gyre__op_done(l, &(struct gyre__event){.op = op, .res = -ECANCELED});
}

/* Write down, for readers on other threads, what is not counted in the backend's struct. At the end of each turn. */
void gyre__stats_publish(struct gyre_loop *l);

/* Copy to a caller with a smaller struct, or a larger one of a newer version. */
void gyre__stats_hand_out(void *out, size_t size_bytes, const struct gyre_stats *stats);

/* Thread: any. */
void gyre__stats_read(const struct gyre_loop *l, struct gyre_stats *out);

#endif
