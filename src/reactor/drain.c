/* SPDX-License-Identifier: MIT
 * Draining a loop: gyre_engine_drain().
 *
 * The normal course: accepting stops, after what the kernel has accepted already was taken. From then on the loop looks
 * at its connections at intervals: each is told when its turn comes, and closed when it is idle (stream/drain.c). The
 * loop ends when nothing is left and no other loop can hand it a connection. At the deadline the rest is reset. */
#include "drain.h"
#include "datagram/udp.h"
#include "listen/listener.h"

enum { LOOKS_PER_QUIET = 4, LOOK_MIN_NS = 1000000, LOOK_MAX_NS = 50000000 };

void gyre__drain_end_one(struct gyre_conn *c)
{
    gyre__conn_end(c, GYRE_CLOSE_SHUTDOWN, GYRE_ESHUTDOWN);
}

static uint64_t look_interval(const struct gyre__drain *drain)
{
    int64_t ns = atomic_load_explicit(&drain->quiet_ns, memory_order_relaxed) / LOOKS_PER_QUIET;
    return (uint64_t)(ns < LOOK_MIN_NS ? LOOK_MIN_NS : ns > LOOK_MAX_NS ? LOOK_MAX_NS : ns);
}

static void look(struct gyre_loop *l)
{
    struct gyre__drain *drain = &l->drain;
    if (l->now_ns >= drain->end_ns) {
        l->phase = GYRE_PHASE_ENDING; /* or what is reset might be connected anew, without end */
        gyre__conns_each(l, gyre__drain_end_one);
        gyre__udps_each(l, gyre__udp_shut);
    } else {
        gyre__conns_each(l, gyre__conn_drain);
    }
    uint64_t next_ns = l->now_ns + look_interval(drain);
    bool sooner = l->now_ns < drain->end_ns && drain->end_ns < next_ns;
    gyre__wheel_start(&l->wheel, &l->drain_timer, sooner ? drain->end_ns : next_ns);
}

void gyre__drain_on_timer(struct gyre__loop_timer *t)
{
    look(GYRE_CONTAINER(t, struct gyre_loop, drain_timer));
}

static void begin(struct gyre_loop *l, uint32_t calls)
{
    struct gyre__drain *drain = &l->drain;
    drain->seen = calls;
    gyre__loop_look_at_clock(l); /* the turn may have begun before the call */
    drain->began_ns = l->now_ns;
    drain->began_turn = l->be->stats.turns;
    drain->end_ns = drain->began_ns + (uint64_t)atomic_load(&drain->deadline_ns);
    if (l->phase == GYRE_PHASE_SERVING) {
        l->phase = GYRE_PHASE_DRAINING;
        gyre__acceptors_close(l);
        gyre__udps_each(l, gyre__udp_drain);
    }
    look(l);
}

/* What was posted before the drain has its turn: it may be a socket that this loop has yet to see, and for which others
 * wait. What tasks post anew is not waited for. */
static bool tasks_had_their_turn(const struct gyre_loop *l)
{
    return l->be->stats.turns > l->drain.began_turn || !(gyre__tasks_any(&l->tasks) || gyre__tasks_any(&l->urgent));
}

bool gyre__drain_is_over(struct gyre_loop *l)
{
    uint32_t calls = atomic_load(&l->drain.calls);
    if (calls != l->drain.seen)
        begin(l, calls);
    bool more_may_come = l->now_ns < l->drain.end_ns && gyre__acceptors_expect(l);
    return gyre__loop_load(l) == 0 && l->acceptors->open == 0 && l->udps->open == 0 && tasks_had_their_turn(l) &&
           !more_may_come;
}
