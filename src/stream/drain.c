/* SPDX-License-Identifier: MIT
 * A connection of a loop that drains: when it is told, and when it has nothing to do any more.
 *
 * A connection with an on_drain_begin ends itself, or is reset at the deadline. Any other is closed once it is idle:
 * nothing is queued or unread, no answer is owed, and no byte has moved for a while. Who owes an answer is told by who
 * spoke last: of a connection that was accepted we do after the peer has, of one that was connected the peer does. */
#include "conn.h"

/* Connections are told in an order that has nothing to do with when they came. */
static bool is_its_turn(const struct gyre_conn *c)
{
    const struct gyre__drain *drain = &c->loop->drain;
    uint64_t spread_ns = (uint64_t)atomic_load_explicit(&drain->spread_ns, memory_order_relaxed);
    uint64_t share = (c->slot * UINT32_C(2654435769)) >> 16; /* of 65536; Knuth's multiplicative hash */
    return c->loop->now_ns - drain->began_ns >= spread_ns / 65536 * share;
}

static bool owes_an_answer(const struct gyre_conn *c)
{
    return (c->flags & GYRE_CF_CALLER) ? !(c->flags & GYRE_CF_HEARD) : (c->flags & GYRE_CF_HEARD) != 0;
}

/* An idle limit that has passed counts as activity; then half of that limit is long enough. */
static bool is_quiet(const struct gyre_conn *c)
{
    const struct gyre_loop *l = c->loop;
    int64_t quiet_ns = (int64_t)(uint32_t)((uint32_t)l->now_tick - c->active) * GYRE_TICK_NS;
    int64_t wanted_ns = atomic_load_explicit(&l->drain.quiet_ns, memory_order_relaxed);
    int64_t limit_ns = gyre__conn_idle_limit(c);
    return quiet_ns >= (limit_ns > 0 && limit_ns / 2 < wanted_ns ? limit_ns / 2 : wanted_ns);
}

static bool is_idle(const struct gyre_conn *c)
{
    bool waits = c->extra != NULL && (c->extra->forward_to != NULL || c->extra->waiters != NULL);
    return c->out.tail == NULL && c->send.state == GYRE_OPS_IDLE && c->in.tail == NULL && !waits &&
           !owes_an_answer(c) && is_quiet(c);
}

/* Everything has arrived, and the peer is silent and does not close: waiting for its end has no use. (While it sends,
 * closing the socket would reset it, and it might lose what it has not read.) */
static void stop_lingering(struct gyre_conn *c)
{
    if (c->flags & GYRE_CF_HEARD)
        c->flags &= ~(unsigned)GYRE_CF_HEARD; /* look again */
    else if (is_quiet(c) && !(c->flags & GYRE_CF_RESET_LAST) && gyre__conn_unacked(c) == 0)
        gyre__conn_end(c, (enum gyre_close_reason)c->reason, 0);
}

void gyre__conn_drain(struct gyre_conn *c)
{
    if (c->state == GYRE_CONN_LINGERING)
        stop_lingering(c);
    if (c->state != GYRE_CONN_OPEN)
        return; /* one that connects is part of something that goes on */
    if (!(c->flags & GYRE_CF_DRAINING)) {
        if (!is_its_turn(c))
            return;
        c->flags |= GYRE_CF_DRAINING;
        if (c->profile->options.on_drain_begin != NULL) {
            c->profile->options.on_drain_begin(c);
            return;
        }
    }
    if (c->profile->options.on_drain_begin == NULL && is_idle(c))
        gyre__conn_begin_close(c, GYRE_CLOSE_SHUTDOWN);
}

bool gyre_conn_is_draining(const struct gyre_conn *c)
{
    return (c->flags & GYRE_CF_DRAINING) != 0;
}
