/* SPDX-License-Identifier: MIT
 * Who waits for whom: connections whose forwarding is blocked by a congested destination.
 *
 * When the destination drains, all of them go on, in the order of the list, and the first few may fill it up again. So
 * the list has two parts: those that were passed over, in their old order, and behind them those that were served
 * since, or that came new. Whoever waits thus comes closer to the head with each time that the destination drains.
 *
 * Nor may one that has much fill it up alone, whenever it is its turn: each moves its share of the room that there was
 * and waits again. Segments stay whole, so it may move more, which it then has had beforehand. If room is left the next
 * settling divides that. */
#include "conn.h"

/* Put `src` behind `after`, or first. */
static void insert(struct gyre_conn *src, struct gyre_conn *dst, struct gyre_conn *after)
{
    struct gyre_conn **at = after != NULL ? &after->extra->forward_next : &dst->extra->waiters;
    src->extra->forward_next = *at;
    *at = src;
    if (src->extra->forward_next == NULL)
        dst->extra->last_waiter = src;
}

void gyre__forward_wait(struct gyre_conn *src, struct gyre_conn *dst)
{
    struct gyre__extra *extra = src->extra;
    if (extra->forward_to == dst)
        return;
    gyre__forward_forget(src);
    extra->forward_to = dst;
    if (extra->passed_over == dst) {
        insert(src, dst, dst->extra->last_passed_over);
        dst->extra->last_passed_over = src;
    } else {
        insert(src, dst, dst->extra->last_waiter);
    }
    if (!(dst->flags & GYRE_CF_CONGESTED))
        gyre__conn_settle_later(dst);
    src->flags |= GYRE_CF_BLOCKED;
    gyre__count(&src->loop->be->stats.forward_waits, 1);
    gyre__conn_update_recv(src);
}

void gyre__forward_forget(struct gyre_conn *src)
{
    if (!(src->flags & GYRE_CF_BLOCKED))
        return;
    struct gyre__extra *to = src->extra->forward_to->extra;
    struct gyre_conn **at = &to->waiters, *before = NULL;
    while (*at != src) {
        before = *at;
        at = &before->extra->forward_next;
    }
    *at = src->extra->forward_next;
    if (to->last_waiter == src)
        to->last_waiter = before;
    if (to->last_passed_over == src)
        to->last_passed_over = before;
    src->extra->forward_to = NULL;
    src->extra->forward_next = NULL;
    src->flags &= ~(unsigned)GYRE_CF_BLOCKED;
}

static void go_on(struct gyre_conn *src, const struct gyre_conn *dst)
{
    gyre__forward_forget(src);
    src->extra->passed_over = dst;
    src->flags |= GYRE_CF_DELIVER;
    gyre__conn_settle_later(src);
}

void gyre__forward_release_waiters(struct gyre_conn *dst)
{
    while (dst->extra != NULL && dst->extra->waiters != NULL)
        go_on(dst->extra->waiters, dst);
}

/* Divide the room that there is. What one has moved beyond its share before counts for this one. */
void gyre__forward_serve(struct gyre_conn *dst)
{
    struct gyre__extra *to = dst->extra;
    uint32_t high = dst->profile->options.write_high_bytes, room = high > dst->out.bytes ? high - dst->out.bytes : 0;
    uint32_t count = 0;
    uint64_t least = UINT64_MAX;
    if (to == NULL)
        return;
    for (const struct gyre_conn *c = to->waiters; c != NULL; c = c->extra->forward_next, count++)
        least = c->extra->forward_moved < least ? c->extra->forward_moved : least;
    to->forward_share = count < 2 ? 0 : room / count + 1;
    uint64_t credit = least > to->forward_share ? least : to->forward_share;
    struct gyre_conn *next;
    for (struct gyre_conn *c = to->waiters; c != NULL; c = next) {
        uint64_t *moved = &c->extra->forward_moved;
        next = c->extra->forward_next;
        *moved -= *moved < credit ? *moved : credit;
        if (!gyre__forward_must_wait(c, dst))
            go_on(c, dst);
    }
    if (to->waiters != NULL)
        gyre__conn_settle_later(dst);
}
