/* SPDX-License-Identifier: MIT
 * The record of a stream connection: its slot, and the marks that calls and events put on it: ending, closing, settling
 * later. life.c acts on them. */
#include "conn.h"

#include <errno.h>
#include <string.h>

/* ---- slots ---- */

static int add_slab(struct gyre_loop *l)
{
    uint32_t count = l->conns->slab_count;
    if ((count & (count - 1)) == 0) { /* a power of two, or none: the table is full */
        size_t wanted = count > 0 ? (size_t)count * 2 : 1;
        struct gyre_conn **table = gyre__resize_many(l->mem, l->conns->slabs, 0, wanted, sizeof(struct gyre_conn *));
        if (table == NULL)
            return -ENOMEM;
        l->conns->slabs = table;
    }
    struct gyre_conn *slab = gyre__alloc(l->mem, GYRE_CONNS_PER_SLAB * sizeof *slab);
    if (slab == NULL)
        return -ENOMEM;
    for (uint32_t i = GYRE_CONNS_PER_SLAB; i-- > 0;) {
        slab[i].slot = l->conns->slab_count * GYRE_CONNS_PER_SLAB + i;
        slab[i].magic = GYRE_CONN_DEAD_MAGIC;
        slab[i].settle_next = l->conns->free;
        l->conns->free = &slab[i];
    }
    l->conns->slabs[l->conns->slab_count++] = slab;
    return 0;
}

/* A fresh connection, in the place reserved for it if there is one. What must outlive the slot's former holders stays:
 * its number and the generations. */
int gyre__conn_take_slot(struct gyre_conn **out, struct gyre_loop *l, bool reserved)
{
    if (!reserved && gyre__loop_room(l) == 0)
        return GYRE_ECONNS;
    if (l->conns->free == NULL && add_slab(l) != 0)
        return -ENOMEM;
    struct gyre_conn *c = l->conns->free;
    l->conns->free = c->settle_next;
    uint32_t slot = c->slot, generation = c->generation;
    uint16_t recv_gen = c->recv.gen, send_gen = c->send.gen;
    memset(c, 0, sizeof *c);
    c->magic = GYRE_CONN_MAGIC;
    c->slot = slot;
    c->generation = generation;
    c->recv.gen = recv_gen;
    c->send.gen = send_gen;
    c->loop = l;
    gyre__loop_conn_came(l, reserved);
    *out = c;
    return 0;
}

void gyre__conn_give_slot(struct gyre_conn *c)
{
    struct gyre_loop *l = c->loop;
    if (c->extra != NULL) {
        gyre__wheel_stop(&l->wheel, &c->extra->limits_timer);
        if (c->extra->dialing != NULL)
            c->extra->dialing->free(c->extra->dialing);
    }
    gyre__free(l->mem, c->extra);
    c->extra = NULL;
    c->magic = GYRE_CONN_DEAD_MAGIC;
    c->state = GYRE_CONN_FREE;
    c->generation++;
    c->settle_next = l->conns->free;
    l->conns->free = c;
    gyre__loop_conn_gone(l);
}

struct gyre__extra *gyre__conn_extra(struct gyre_conn *c)
{
    if (c->extra != NULL)
        return c->extra;
    c->extra = gyre__alloc(c->loop->mem, sizeof *c->extra);
    if (c->extra != NULL) {
        c->extra->conn = c;
        c->extra->limits_timer.kind = GYRE_TIMER_LIMITS;
    }
    return c->extra;
}

void gyre__conns_each(struct gyre_loop *l, void (*fn)(struct gyre_conn *c))
{
    for (uint32_t s = 0; s < l->conns->slab_count; s++)
        for (uint32_t i = 0; i < GYRE_CONNS_PER_SLAB; i++)
            if (l->conns->slabs[s][i].state != GYRE_CONN_FREE)
                fn(&l->conns->slabs[s][i]);
}

/* ---- timers ---- */

uint64_t gyre__conn_unacked(const struct gyre_conn *c)
{
    struct gyre__backend *be = c->loop->be;
    bool known = (c->flags & GYRE_CF_CONNECTED) && (c->f.flags & GYRE_FDF_INET);
    int64_t bytes = known ? be->ops->sock->unacked(be, c->f.fd) : 0;
    if (bytes > 0 && (c->flags & GYRE_CF_FIN_SENT))
        bytes--; /* FIN takes one sequence number */
    return (uint64_t)bytes;
}

/* ---- ending ---- */

void gyre__conn_end(struct gyre_conn *c, enum gyre_close_reason reason, int err)
{
    if (c->state == GYRE_CONN_ENDING)
        return;
    c->reason = (uint8_t)reason;
    if (err != 0 || reason != GYRE_CLOSE_ERROR) /* else it is the end of gyre__conn_fail(), which has set it */
        c->err = err;
    if (reason == GYRE_CLOSE_ABORT || err == GYRE_ESHUTDOWN || err == GYRE_ETIMEOUT)
        c->flags |= GYRE_CF_RESET;
    if (!(c->flags & GYRE_CF_SEND_FAILED))
        c->unsent = 0; /* finish() counts */
    c->state = GYRE_CONN_ENDING;
    c->flags |= GYRE_CF_ENTERED;
    gyre__wheel_stop(&c->loop->wheel, &c->timer);
    gyre__conn_settle_later(c);
}

void gyre__conn_begin_close(struct gyre_conn *c, enum gyre_close_reason reason)
{
    if (c->state != GYRE_CONN_OPEN && c->state != GYRE_CONN_CONNECTING)
        return;
    if (c->state == GYRE_CONN_CONNECTING && c->out.tail == NULL) {
        gyre__conn_end(c, reason, 0);
        return;
    }
    if (c->flags & GYRE_CF_SEND_FAILED) {
        gyre__conn_end(c, GYRE_CLOSE_ERROR, c->err);
        return;
    }
    c->state = GYRE_CONN_CLOSING;
    c->reason = (uint8_t)reason;
    c->flags &= ~(unsigned)(GYRE_CF_CORKED | GYRE_CF_WAKE);
    c->seen_unacked = 0;
    c->flags |= GYRE_CF_ENTERED;
    gyre__conn_settle_later(c);
}

void gyre__conn_fail(struct gyre_conn *c, int err)
{
    if (!(c->flags & GYRE_CF_SEND_FAILED))
        c->err = err;
    gyre__conn_begin_close(c, GYRE_CLOSE_ERROR);
}

/* ---- settling ---- */

void gyre__conn_settle_later(struct gyre_conn *c)
{
    struct gyre_loop *l = c->loop;
    if (c->flags & GYRE_CF_SETTLE)
        return;
    c->flags |= GYRE_CF_SETTLE;
    c->settle_next = NULL;
    *l->conns->settle_tail = c;
    l->conns->settle_tail = &c->settle_next;
}

/* Whether `len` more bytes may be queued. */
int gyre__conn_may_queue(struct gyre_conn *c, size_t len)
{
    int err = gyre__conn_usable(c);
    if (err != 0)
        return err;
    if (c->flags & GYRE_CF_SEND_FAILED)
        return c->err;
    if (c->flags & GYRE_CF_SHUT)
        return -EPIPE;
    const struct gyre_conn_options *options = &c->profile->options;
    if (len > options->write_max_bytes)
        return -EMSGSIZE;
    if (c->out.bytes <= options->write_max_bytes - len)
        return 0;
    c->flags |= GYRE_CF_DRAIN_OWED;
    gyre__count(&c->loop->be->stats.writes_refused, 1);
    return -EAGAIN;
}

/* ---- the user's side ---- */

int gyre_conn_close(struct gyre_conn *c)
{
    int err = gyre__conn_usable(c);
    if (err == 0)
        gyre__conn_begin_close(c, GYRE_CLOSE_USER);
    return err == GYRE_ETHREAD ? err : 0;
}

int gyre_conn_close_reset(struct gyre_conn *c)
{
    int err = gyre__conn_usable(c);
    if (err == 0) {
        c->flags |= GYRE_CF_RESET_LAST;
        gyre__conn_begin_close(c, GYRE_CLOSE_USER);
    }
    return err == GYRE_ETHREAD ? err : 0;
}

int gyre_conn_abort(struct gyre_conn *c)
{
    if (c == NULL || c->magic != GYRE_CONN_MAGIC)
        return 0;
    if (!gyre__loop_allows(c->loop))
        return GYRE_ETHREAD;
    gyre__conn_end(c, GYRE_CLOSE_ABORT, 0);
    return 0;
}

int gyre_conn_shutdown(struct gyre_conn *c)
{
    int err = gyre__conn_usable(c);
    if (err != 0)
        return err;
    c->flags |= GYRE_CF_SHUT;
    c->flags &= ~(unsigned)GYRE_CF_CORKED;
    gyre__conn_settle_later(c);
    return 0;
}

enum gyre_close_reason gyre_conn_close_reason(const struct gyre_conn *c)
{
    return (enum gyre_close_reason)c->reason;
}

uint64_t gyre_conn_unsent(const struct gyre_conn *c)
{
    if (c->state != GYRE_CONN_ENDING)
        return 0;
    return c->unsent + (c->extra != NULL ? c->extra->file_bytes : 0);
}

void gyre__tell_closed(struct gyre_loop *l, struct gyre__closed_waiter *waiters, int err)
{
    while (waiters != NULL) {
        struct gyre__closed_waiter *w = waiters;
        gyre_closed_fn *done = w->done;
        void *user = w->user;
        waiters = w->next;
        gyre__free(l->mem, w);
        done(err, user);
    }
}
