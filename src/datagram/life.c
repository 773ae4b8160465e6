/* SPDX-License-Identifier: MIT
 * The life of a datagram socket: made, settled, ended, through the states that udp.h describes. */
#include "item.h"

#include <errno.h>
#include <string.h>

int gyre__udps_init(struct gyre_loop *l)
{
    l->udps = gyre__alloc(l->mem, sizeof *l->udps);
    if (l->udps == NULL)
        return -ENOMEM;
    l->udps->settle_tail = &l->udps->settle_head;
    return 0;
}

void gyre__udps_fini(struct gyre_loop *l)
{
    if (l->udps == NULL)
        return;
    for (uint32_t i = 0; i < l->udps->count; i++)
        gyre__free(l->mem, l->udps->table[i]);
    gyre__free(l->mem, l->udps->table);
    gyre__udp_sends_fini(l);
    gyre__udp_runs_fini(l);
    gyre__free(l->mem, l->udps);
    l->udps = NULL;
}

int gyre__udp_new(struct gyre_udp **out, struct gyre_loop *l, int fd, int family,
                  const struct gyre_udp_handlers *handlers, const struct gyre_udp_options *options)
{
    struct gyre_udp *u = gyre__udp_take_slot(l);
    if (u == NULL)
        return -ENOMEM;
    u->f = (struct gyre__fd){.fd = fd, .flags = GYRE_FDF_DGRAM};
    u->handlers = handlers;
    u->options = *options;
    u->options.device = NULL; /* the caller's memory */
    u->options.source_address = NULL;
    u->family = family;
    u->recv.f = &u->f;
    u->recv.done = GYRE_DONE_UDP_RECV;
    u->tail = &u->head;
    u->window = GYRE_UDP_WINDOW;
    u->flying_tail = &u->flying;
    u->timer.kind = GYRE_TIMER_UDP;
    if (options->start_paused)
        u->flags |= GYRE_UDPF_PAUSED;
    if (options->no_runs || family == AF_UNIX)
        u->flags |= GYRE_UDPF_NO_RUNS;
    int err = l->be->ops->attach(l->be, &u->f);
    if (err != 0) {
        gyre__udp_give_slot(u);
        return err;
    }
    u->state = GYRE_UDP_OPEN;
    *out = u;
    return 0;
}

void gyre__udp_discard(struct gyre_udp *u)
{
    gyre__path_remove(&u->path, &u->addr);
    u->loop->be->ops->close(u->loop->be, &u->f);
    gyre__udp_give_slot(u);
}

/* Nothing is in flight any more: tell the user, close, free. */
static void finish(struct gyre_udp *u)
{
    struct gyre_loop *l = u->loop;
    GYRE_CHECK(u->f.inflight == 0 && u->sending == 0);
    gyre__udp_drop_queue(u);
    gyre__count(&u->stats.dropped, gyre__udp_drop_kept(u));
    if (u->handlers->on_close != NULL)
        u->handlers->on_close(u, u->err);
    gyre__path_remove(&u->path, &u->addr);
    l->be->ops->close(l->be, &u->f);
    gyre__udp_give_slot(u);
}

/* All are ENDING: what nobody will tell of ends as if it had been cancelled, and settling does the rest. */
static void abandon(struct gyre_udp *u)
{
    while (u->flying != NULL)
        gyre__op_abandon(u->loop, &u->flying->op);
    gyre__op_abandon(u->loop, &u->recv);
}

void gyre__udps_abandon(struct gyre_loop *l)
{
    gyre__udps_each(l, abandon);
    while (l->udps->settle_head != NULL)
        gyre__udps_settle(l);
}

/* Act once on a state that a mark has put it into. */
static void enter(struct gyre_udp *u)
{
    u->flags &= ~(unsigned)GYRE_UDPF_ENTERED;
    if (u->state == GYRE_UDP_CLOSING) {
        gyre__udp_update_recv(u);
        gyre__count(&u->stats.dropped, gyre__udp_drop_kept(u));
    } else if (u->state == GYRE_UDP_ENDING) {
        gyre__udp_unstarve(u);
        gyre__op_cancel(u->loop, &u->recv);
        gyre__udp_drop_queue(u);
        gyre__udp_cancel_sends(u);
    }
}

static void settle(struct gyre_udp *u)
{
    if (GYRE_UNLIKELY(u->flags & GYRE_UDPF_ENTERED))
        enter(u);
    switch ((enum gyre__udp_state)u->state) {
    case GYRE_UDP_OPEN:
        gyre__udp_deliver_kept(u);
        if (u->state == GYRE_UDP_OPEN)
            gyre__udp_update_recv(u);
        gyre__udp_flush(u);
        gyre__udp_tell_drain(u);
        break;
    case GYRE_UDP_CLOSING:
        gyre__udp_flush(u);
        if (u->out_count == 0)
            gyre__udp_end(u, 0);
        break;
    case GYRE_UDP_ENDING:
        if (u->f.inflight == 0)
            finish(u);
        break;
    case GYRE_UDP_FREE:
        break;
    }
}

void gyre__udps_settle(struct gyre_loop *l)
{
    struct gyre_udp *u = l->udps->settle_head, *next;
    l->udps->settle_head = NULL;
    l->udps->settle_tail = &l->udps->settle_head;
    for (; u != NULL; u = next) {
        next = u->next;
        u->flags &= ~(unsigned)GYRE_UDPF_SETTLE;
        settle(u);
    }
    if (GYRE_UNLIKELY(l->udps->starved != NULL))
        gyre__udps_feed_starved(l);
}
