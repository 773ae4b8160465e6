/* SPDX-License-Identifier: MIT
 * The life of a stream connection, from its birth to its end, through the states that conn.h describes. Calls mark a
 * connection; settling acts on the marks. Also here: making and freeing what this room keeps of a loop. */
#include "conn.h"
#include "shared.h"

#include <errno.h>
#include <string.h>

int gyre__conn_new(struct gyre_conn **out, struct gyre_loop *l, int fd, struct gyre__profile *profile, unsigned how)
{
    struct gyre_conn *c;
    bool reserved = how & GYRE_CONN_RESERVED;
    int err = gyre__conn_take_slot(&c, l, reserved);
    if (err != 0) {
        if (reserved)
            gyre__loop_unreserve(l);
        if (fd >= 0 && !(how & GYRE_CONN_FOREIGN))
            l->be->ops->sock->close(l->be, fd);
        return err;
    }
    c->f.fd = fd;
    c->f.flags = (uint8_t)(how & (GYRE_FDF_ACCEPTED | GYRE_FDF_INET));
    if (profile->options.on_socket != NULL || (how & (GYRE_CONN_FOREIGN | GYRE_CONN_TOUCHED)))
        c->f.flags |= GYRE_FDF_TOUCHED;
    c->recv.f = &c->f;
    c->recv.done = GYRE_DONE_RECV;
    c->send.f = &c->f;
    c->send.done = GYRE_DONE_SENT;
    c->profile = profile;
    c->user = profile->options.user;
    c->timer.kind = GYRE_TIMER_CONN;
    if (profile->options.start_paused)
        c->flags |= GYRE_CF_PAUSED;
    err = gyre__limits_new(c);
    if (err == 0 && fd >= 0)
        err = l->be->ops->attach(l->be, &c->f);
    if (err != 0) {
        if (fd >= 0 && !(how & GYRE_CONN_FOREIGN))
            l->be->ops->sock->close(l->be, fd);
        gyre__conn_give_slot(c);
        return err;
    }
    c->state = GYRE_CONN_CONNECTING;
    *out = c;
    return 0;
}

int gyre__conn_take_socket(struct gyre_conn *c, int fd, unsigned how)
{
    struct gyre__backend *be = c->loop->be;
    c->f.fd = fd;
    c->f.flags |= (uint8_t)(how & GYRE_FDF_INET);
    int err = be->ops->attach(be, &c->f);
    if (err != 0) {
        c->f.fd = -1;
        be->ops->sock->close(be, fd);
    }
    return err;
}

/* Its socket, if it has one. */
static void close_socket(struct gyre_conn *c)
{
    struct gyre__backend *be = c->loop->be;
    if (c->f.fd < 0)
        return;
    if (c->flags & GYRE_CF_RESET)
        (void)be->ops->sock->set_reset(be, c->f.fd);
    be->ops->close(be, &c->f);
}

void gyre__conn_unmake(struct gyre_conn *c)
{
    gyre__wheel_stop(&c->loop->wheel, &c->timer);
    close_socket(c);
    gyre__conn_give_slot(c);
}

void gyre__conn_opened(struct gyre_conn *c)
{
    c->flags |= GYRE_CF_CONNECTED;
    gyre__conn_settle_later(c);
    if (c->state == GYRE_CONN_CONNECTING) {
        c->state = GYRE_CONN_OPEN;
        gyre__conn_start_timer(c);
        if (c->extra != NULL)
            gyre__limits_open(c);
        if (c->profile->handlers->on_open != NULL)
            c->profile->handlers->on_open(c);
    }
    gyre__conn_update_recv(c);
}

static void count_end(const struct gyre_conn *c)
{
    struct gyre_stats *stats = &c->loop->be->stats;
    gyre__count(&stats->closed, 1);
    gyre__count(&stats->failures, c->err != 0);
    gyre__count(&stats->timeouts, c->err == GYRE_ETIMEOUT);
    gyre__count(&stats->connect_errors, c->reason == GYRE_CLOSE_CONNECT);
}

static void send_fin(struct gyre_conn *c)
{
    struct gyre__backend *be = c->loop->be;
    if (c->flags & GYRE_CF_FIN_SENT)
        return;
    c->flags |= GYRE_CF_FIN_SENT;
    (void)be->ops->sock->shutdown(be, c->f.fd); /* if the peer is gone, the receive says so */
}

/* Nothing is in flight any more: tell the user, close, free. */
static void finish(struct gyre_conn *c)
{
    struct gyre_loop *l = c->loop;
    struct gyre__backend *be = l->be;
    GYRE_CHECK(c->f.inflight == 0);
    if (c->reason == GYRE_CLOSE_CONNECT && c->profile->keep != NULL)
        c->profile->keep(c);
    if (c->err != 0 || (c->flags & GYRE_CF_RESET))
        c->unsent += c->out.bytes + (uint32_t)gyre__conn_unacked(c);
    gyre__count(&be->stats.bytes_dropped, c->out.bytes);
    gyre__segq_clear(&c->out, &l->segs, c->err != 0 ? c->err : GYRE_ECLOSED);
    gyre__segq_clear(&c->in, &l->segs, 0);
    if (c->flags & GYRE_CF_SHARED)
        gyre__shared_close(c);
    if (c->profile->handlers->on_close != NULL)
        c->profile->handlers->on_close(c, c->err);

    if (c->f.fd >= 0 && !(c->flags & GYRE_CF_RESET) &&
        GYRE_UNLIKELY(atomic_load_explicit(&gyre__has_forked, memory_order_relaxed)))
        send_fin(c); /* close() would say it only when no child has the descriptor any more */
    close_socket(c);
    count_end(c);
    c->profile->release(l, c->profile);
    struct gyre__closed_waiter *waiters = c->extra != NULL ? c->extra->closed_waiters : NULL;
    int err = c->err;
    gyre__conn_give_slot(c);
    gyre__tell_closed(l, waiters, err);
}

/* Nothing is in flight, everything was sent: the descriptor is the user's. */
static void leave(struct gyre_conn *c)
{
    struct gyre_loop *l = c->loop;
    gyre__wheel_stop(&l->wheel, &c->timer);
    if (c->flags & GYRE_CF_SHARED)
        gyre__shared_close(c);
    c->flags |= GYRE_CF_SETTLE; /* reading must not put it on the list, which it leaves with its slot */
    c->extra->detached(c, l->be->ops->detach(l->be, &c->f), c->extra->detached_user);
    gyre__segq_clear(&c->in, &l->segs, 0);
    gyre__segs_settle(&l->segs);
    gyre__count(&l->be->stats.detached, 1);
    gyre__count(&l->be->stats.closed, 1);
    c->profile->release(l, c->profile);
    struct gyre__closed_waiter *waiters = c->extra->closed_waiters;
    gyre__conn_give_slot(c);
    gyre__tell_closed(l, waiters, GYRE_ESTALE);
}

/* All are ENDING: what nobody will tell of ends as if it had been cancelled, and settling does the rest. */
static void abandon(struct gyre_conn *c)
{
    gyre__op_abandon(c->loop, &c->recv);
    gyre__op_abandon(c->loop, &c->send);
}

void gyre__conns_abandon(struct gyre_loop *l)
{
    gyre__conns_each(l, abandon);
    while (l->conns->settle_head != NULL)
        gyre__conns_settle(l);
}

static bool all_sent(const struct gyre_conn *c)
{
    return c->out.tail == NULL && c->send.state == GYRE_OPS_IDLE && (c->flags & GYRE_CF_CONNECTED);
}

static void settle_open(struct gyre_conn *c)
{
    bool waits = (c->flags & GYRE_CF_TURN_OVER) && !gyre__conn_next_turn(c);
    if (GYRE_UNLIKELY(c->flags & (GYRE_CF_WAKE | GYRE_CF_DELIVER | GYRE_CF_FRAMES)) && !waits)
        gyre__conn_deliver(c, false);
    if (c->state != GYRE_CONN_OPEN)
        return;
    if (GYRE_UNLIKELY(c->recv.state == GYRE_OPS_IDLE))
        gyre__conn_update_recv(c);
    if (GYRE_UNLIKELY(c->extra != NULL && c->extra->waiters != NULL) && !(c->flags & GYRE_CF_CONGESTED))
        gyre__forward_serve(c);
    gyre__conn_flush(c);
    if (c->state != GYRE_CONN_OPEN || !(c->flags & GYRE_CF_SHUT) || !all_sent(c))
        return;
    send_fin(c);
    if ((c->flags & GYRE_CF_EOF_TOLD) && (c->in.tail == NULL || gyre__frame_cut_short(c)))
        gyre__conn_end(c, GYRE_CLOSE_EOF, 0);
}

static void settle_closing(struct gyre_conn *c)
{
    gyre__conn_flush(c);
    if (c->state != GYRE_CONN_CLOSING || !all_sent(c))
        return;
    if (c->flags & GYRE_CF_RESET_LAST) {
        c->state = GYRE_CONN_LINGERING;
        gyre__conn_note_active(c);
        gyre__conn_reset_when_taken(c);
        return;
    }
    if (c->flags & GYRE_CF_EOF) {
        gyre__conn_end(c, (enum gyre_close_reason)c->reason, 0);
        return;
    }
    send_fin(c);
    c->state = GYRE_CONN_LINGERING;
    gyre__conn_note_active(c);
}

/* What the flush gives back to the user may have put it on the list again: then it is looked at there. */
static void settle_detaching(struct gyre_conn *c)
{
    gyre__conn_flush(c);
    if (c->state != GYRE_CONN_DETACHING || (c->flags & GYRE_CF_SETTLE) || !all_sent(c) || c->f.inflight > 0)
        return;
    if (gyre__conn_look(c) != 0) { /* what is in pipes could not be read by whom it is handed to, and would be lost */
        gyre__conn_end(c, GYRE_CLOSE_ERROR, -ENOMEM);
        return;
    }
    if (c->flags & GYRE_CF_SHUT)
        send_fin(c);
    leave(c);
}

/* Act once on a state that a mark has put it into. */
static void enter(struct gyre_conn *c)
{
    c->flags &= ~(unsigned)GYRE_CF_ENTERED;
    gyre__forward_forget(c);
    gyre__forward_release_waiters(c);
    if (c->state == GYRE_CONN_CLOSING) {
        gyre__conn_start_timer(c);
        gyre__conn_update_recv(c);
    } else if (c->state == GYRE_CONN_ENDING) {
        gyre__conn_unstarve(c);
        gyre__conn_connect_forget(c);
        if (c->extra != NULL && c->extra->dialing != NULL)
            c->extra->dialing->stop(c->extra->dialing);
        gyre__op_cancel(c->loop, &c->recv);
        gyre__op_cancel(c->loop, &c->send);
    }
}

static void settle(struct gyre_conn *c)
{
    if (GYRE_UNLIKELY(c->flags & GYRE_CF_ENTERED))
        enter(c);
    switch ((enum gyre__conn_state)c->state) {
    case GYRE_CONN_OPEN:
        settle_open(c);
        break;
    case GYRE_CONN_CLOSING:
        settle_closing(c);
        break;
    case GYRE_CONN_ENDING:
        if (c->f.inflight == 0)
            finish(c);
        break;
    case GYRE_CONN_DETACHING:
        settle_detaching(c);
        break;
    case GYRE_CONN_CONNECTING:
        if (c->flags & GYRE_CF_CONNECTED) /* it came so, from connect/adopt.c */
            gyre__conn_opened(c);
        break;
    case GYRE_CONN_LINGERING:
    case GYRE_CONN_FREE:
        break;
    }
}

void gyre__conns_settle(struct gyre_loop *l)
{
    struct gyre_conn *c = l->conns->settle_head, *next;
    l->conns->settle_head = NULL;
    l->conns->settle_tail = &l->conns->settle_head;
    for (; c != NULL; c = next) {
        next = c->settle_next;
        c->flags &= ~(unsigned)GYRE_CF_SETTLE;
        settle(c);
    }
}

int gyre__conns_init(struct gyre_loop *l)
{
    l->conns = gyre__alloc(l->mem, sizeof *l->conns);
    if (l->conns == NULL)
        return -ENOMEM;
    l->conns->settle_tail = &l->conns->settle_head;
    l->conns->starved_tail = &l->conns->starved_head;
    l->conns->again_tail = &l->conns->again_head;
    l->conns->again_timer.kind = GYRE_TIMER_CONNECT;
    return gyre__shared_init(l);
}

void gyre__conns_fini(struct gyre_loop *l)
{
    gyre__shared_fini(l);
    if (l->conns == NULL)
        return;
    gyre__conns_free_sendvs(l->conns, l->mem);
    for (uint32_t s = 0; s < l->conns->slab_count; s++)
        gyre__free(l->mem, l->conns->slabs[s]);
    gyre__free(l->mem, l->conns->slabs);
    l->conns->free = NULL;
    gyre__free(l->mem, l->conns);
    l->conns = NULL;
}
