/* SPDX-License-Identifier: MIT
 * The life of a stream connection; conn.h tells it. Reading is in inbound.c, writing in outbound.c. */
#include "conn.h"
#include "listen/listener.h"
#include "socket/prepare.h"

#include <errno.h>
#include <string.h>

/* Of times that are counted in `active`: longer ones are as good as none. 24 days. */
#define LIMIT_MAX_NS ((INT64_C(1) << 31) * GYRE_TICK_NS)

/* ---- slots ---- */

static int add_slab(struct gyre_loop *l)
{
    uint32_t count = l->conn_slab_count;
    if ((count & (count - 1)) == 0) { /* a power of two, or none: the table is full */
        size_t table_bytes = (count > 0 ? (size_t)count * 2 : 1) * sizeof(struct gyre_conn *);
        struct gyre_conn **table = gyre__resize(l->mem, l->conn_slabs, table_bytes);
        if (table == NULL)
            return -ENOMEM;
        l->conn_slabs = table;
    }
    struct gyre_conn *slab = gyre__alloc(l->mem, GYRE_CONNS_PER_SLAB * sizeof *slab);
    if (slab == NULL)
        return -ENOMEM;
    for (uint32_t i = GYRE_CONNS_PER_SLAB; i-- > 0;) {
        slab[i].slot = l->conn_slab_count * GYRE_CONNS_PER_SLAB + i;
        slab[i].magic = GYRE_CONN_DEAD_MAGIC;
        slab[i].settle_next = l->free_conns;
        l->free_conns = &slab[i];
    }
    l->conn_slabs[l->conn_slab_count++] = slab;
    return 0;
}

/* A fresh connection, in the place reserved for it if there is one. What must outlive the slot's former holders stays:
 * its number and the generations. */
static int take_slot(struct gyre_conn **out, struct gyre_loop *l, bool reserved)
{
    if (!reserved && gyre__loop_room(l) == 0)
        return GYRE_ECONNS;
    if (l->free_conns == NULL && add_slab(l) != 0)
        return -ENOMEM;
    struct gyre_conn *c = l->free_conns;
    l->free_conns = c->settle_next;
    uint32_t slot = c->slot, generation = c->generation;
    uint16_t recv_gen = c->recv.gen, send_gen = c->send.gen;
    memset(c, 0, sizeof *c);
    c->magic = GYRE_CONN_MAGIC;
    c->slot = slot;
    c->generation = generation;
    c->recv.gen = recv_gen;
    c->send.gen = send_gen;
    c->loop = l;
    atomic_fetch_add_explicit(&l->conn_load, reserved ? 1 - GYRE_PLACE_RESERVED : 1, memory_order_relaxed);
    *out = c;
    return 0;
}

static void give_slot(struct gyre_conn *c)
{
    struct gyre_loop *l = c->loop;
    if (c->extra != NULL)
        gyre__wheel_stop(&l->wheel, &c->extra->limits_timer);
    gyre__free(l->mem, c->extra);
    c->extra = NULL;
    c->magic = GYRE_CONN_DEAD_MAGIC;
    c->state = GYRE_CONN_FREE;
    c->generation++;
    c->settle_next = l->free_conns;
    l->free_conns = c;
    atomic_fetch_sub_explicit(&l->conn_load, 1, memory_order_relaxed);
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
    for (uint32_t s = 0; s < l->conn_slab_count; s++)
        for (uint32_t i = 0; i < GYRE_CONNS_PER_SLAB; i++)
            if (l->conn_slabs[s][i].state != GYRE_CONN_FREE)
                fn(&l->conn_slabs[s][i]);
}

void gyre__conns_fini(struct gyre_loop *l)
{
    for (uint32_t s = 0; s < l->conn_slab_count; s++)
        gyre__free(l->mem, l->conn_slabs[s]);
    gyre__free(l->mem, l->conn_slabs);
    l->conn_slabs = NULL;
    l->conn_slab_count = 0;
    l->free_conns = NULL;
}

/* ---- timers ---- */

/* 0: none. */
static int64_t idle_limit(const struct gyre_conn *c)
{
    return c->extra != NULL && c->extra->idle_set ? c->extra->idle_ns : c->profile->options.idle_timeout_ns;
}

/* When `limit_ns` will have passed since bytes last moved; that was less than 2^32 ticks ago. */
static uint64_t due_ns(const struct gyre_conn *c, int64_t limit_ns)
{
    const struct gyre_loop *l = c->loop;
    uint64_t active = l->now_tick - (uint32_t)((uint32_t)l->now_tick - c->active);
    return l->wheel.origin_ns + active * (uint64_t)GYRE_TICK_NS + (uint64_t)limit_ns;
}

void gyre__conn_start_timer(struct gyre_conn *c)
{
    struct gyre_loop *l = c->loop;
    const struct gyre_conn_options *options = &c->profile->options;
    int64_t delay_ns = idle_limit(c);
    if (c->state == GYRE_CONN_CONNECTING)
        delay_ns = options->connect_timeout_ns;
    else if (c->state != GYRE_CONN_OPEN)
        delay_ns = options->linger_timeout_ns;
    (void)gyre__loop_now(l);
    c->active = (uint32_t)l->now_tick;
    if (delay_ns > 0 && delay_ns <= LIMIT_MAX_NS)
        gyre__wheel_start(&l->wheel, &c->timer, due_ns(c, delay_ns));
    else
        gyre__wheel_stop(&l->wheel, &c->timer);
}

uint64_t gyre__conn_unacked(const struct gyre_conn *c)
{
    struct gyre_backend *be = c->loop->be;
    bool known = (c->flags & GYRE_CF_CONNECTED) && (c->f.flags & GYRE_FDF_INET);
    int64_t bytes = known ? be->ops->sock->unacked(be, c->f.fd) : 0;
    if (bytes > 0 && (c->flags & GYRE_CF_FIN_SENT))
        bytes--; /* FIN takes one sequence number */
    return (uint64_t)bytes;
}

/* Bytes moved since the timer was started: it goes on from then. Returns whether it was so. */
static bool timer_goes_on(struct gyre_conn *c, int64_t limit_ns)
{
    uint64_t at_ns = due_ns(c, limit_ns);
    if (c->loop->now_ns >= at_ns)
        return false;
    gyre__wheel_start(&c->loop->wheel, &c->timer, at_ns);
    return true;
}

/* Bytes that the kernel had taken before have moved on: that is progress, though no send tells of it. `unsent` keeps
 * what was on its way when last looked at. */
static void note_acknowledged(struct gyre_conn *c)
{
    if (c->flags & GYRE_CF_SEND_FAILED)
        return; /* nothing moves any more, and `unsent` says what was dropped */
    uint32_t unacked = (uint32_t)gyre__conn_unacked(c);
    if (unacked != c->unsent)
        c->active = (uint32_t)c->loop->now_tick;
    c->unsent = unacked;
}

static void idle_time_passed(struct gyre_conn *c)
{
    note_acknowledged(c);
    if (timer_goes_on(c, idle_limit(c)))
        return;
    gyre__conn_set_timeout_kind(c, GYRE_TIMEOUT_IDLE);
    if (c->profile->handlers->on_timeout == NULL) {
        gyre__conn_end(c, GYRE_CLOSE_TIMEOUT, GYRE_ETIMEOUT);
        return;
    }
    gyre__conn_start_timer(c);
    c->profile->handlers->on_timeout(c);
}

/* What the peer says is no progress of ours. */
static void linger_time_passed(struct gyre_conn *c)
{
    note_acknowledged(c);
    if (timer_goes_on(c, c->profile->options.linger_timeout_ns))
        return;
    gyre__conn_set_timeout_kind(c, GYRE_TIMEOUT_LINGER);
    gyre__conn_end(c, GYRE_CLOSE_TIMEOUT, GYRE_ETIMEOUT);
}

void gyre__conn_on_timer(struct gyre__timer *t)
{
    struct gyre_conn *c = GYRE_CONTAINER(t, struct gyre_conn, timer);
    GYRE_CHECK(c->magic == GYRE_CONN_MAGIC);
    switch ((enum gyre__conn_state)c->state) {
    case GYRE_CONN_CONNECTING:
        gyre__conn_set_timeout_kind(c, GYRE_TIMEOUT_CONNECT);
        gyre__conn_end(c, GYRE_CLOSE_CONNECT, GYRE_ETIMEOUT);
        break;
    case GYRE_CONN_OPEN:
        idle_time_passed(c);
        break;
    case GYRE_CONN_CLOSING:
    case GYRE_CONN_LINGERING:
    case GYRE_CONN_DETACHING:
        linger_time_passed(c);
        break;
    case GYRE_CONN_ENDING:
    case GYRE_CONN_FREE:
        break;
    }
}

/* ---- beginning ---- */

int gyre__conn_new(struct gyre_conn **out, struct gyre_loop *l, int fd, struct gyre__profile *profile, unsigned how)
{
    struct gyre_conn *c;
    bool reserved = how & GYRE_CONN_RESERVED;
    int err = take_slot(&c, l, reserved);
    if (err != 0) {
        if (reserved)
            gyre__loop_unreserve(l);
        if (!(how & GYRE_CONN_FOREIGN))
            l->be->ops->sock->close(l->be, fd);
        return err;
    }
    c->f.fd = fd;
    c->f.flags = (uint8_t)(how & (GYRE_FDF_ACCEPTED | GYRE_FDF_INET));
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
    if (err == 0)
        err = l->be->ops->attach(l->be, &c->f);
    if (err != 0) {
        if (!(how & GYRE_CONN_FOREIGN))
            l->be->ops->sock->close(l->be, fd);
        give_slot(c);
        return err;
    }
    c->state = GYRE_CONN_CONNECTING;
    *out = c;
    return 0;
}

void gyre__conn_discard(struct gyre_conn *c)
{
    gyre__wheel_stop(&c->loop->wheel, &c->timer);
    c->loop->be->ops->close(c->loop->be, &c->f);
    give_slot(c);
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

int gyre__conn_adopt(struct gyre_loop *l, int fd, struct gyre__profile *profile, bool inet)
{
    struct gyre_conn *c;
    if (l->phase != GYRE_PHASE_SERVING) {
        gyre__loop_unreserve(l);
        l->be->ops->sock->close(l->be, fd);
        return GYRE_ESHUTDOWN;
    }
    unsigned how = GYRE_CONN_RESERVED | GYRE_FDF_ACCEPTED | (inet ? GYRE_FDF_INET : 0u);
    gyre__options_apply_accepted(l, fd, &profile->options, inet);
    int refused = gyre__options_ask(&profile->options, fd, GYRE_SOCKET_ACCEPT);
    int err = gyre__conn_new(&c, l, fd, profile, how);
    if (err != 0)
        return err;
    profile->refs++;
    gyre__count(&l->be->stats.accepted, 1);
    if (refused == 0)
        gyre__conn_opened(c);
    else
        gyre__conn_end(c, GYRE_CLOSE_ERROR, refused);
    return 0;
}

/* ---- ending ---- */

static void count_end(const struct gyre_conn *c)
{
    struct gyre_stats *stats = &c->loop->be->stats;
    gyre__count(&stats->closed, 1);
    gyre__count(&stats->failures, c->err != 0);
    gyre__count(&stats->timeouts, c->err == GYRE_ETIMEOUT);
    gyre__count(&stats->connect_errors, c->reason == GYRE_CLOSE_CONNECT);
}

/* Nothing is in flight any more: tell the user, close, free. */
static void finish(struct gyre_conn *c)
{
    struct gyre_loop *l = c->loop;
    struct gyre_backend *be = l->be;
    GYRE_CHECK(c->f.inflight == 0);
    if (c->err != 0 || (c->flags & GYRE_CF_RESET))
        c->unsent += c->out.bytes + (uint32_t)gyre__conn_unacked(c);
    gyre__count(&be->stats.bytes_dropped, c->out.bytes);
    gyre__segq_clear(&c->out, &l->segs, c->err != 0 ? c->err : GYRE_ECLOSED);
    gyre__segq_clear(&c->in, &l->segs, 0);
    if (c->flags & GYRE_CF_SHARED)
        gyre__shared_close(c);
    if (c->profile->handlers->on_close != NULL)
        c->profile->handlers->on_close(c, c->err);

    if (c->flags & GYRE_CF_RESET)
        (void)be->ops->sock->set_reset(be, c->f.fd);
    be->ops->close(be, &c->f);
    count_end(c);
    gyre__profile_release(l, c->profile);
    struct gyre__closed_waiter *waiters = c->extra != NULL ? c->extra->closed_waiters : NULL;
    int err = c->err;
    give_slot(c);
    gyre__acceptors_retry(l);
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
    gyre__profile_release(l, c->profile);
    struct gyre__closed_waiter *waiters = c->extra->closed_waiters;
    give_slot(c);
    gyre__acceptors_retry(l);
    gyre__tell_closed(l, waiters, 0);
}

void gyre__conn_end(struct gyre_conn *c, enum gyre_close_reason reason, int err)
{
    struct gyre_loop *l = c->loop;
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
    gyre__wheel_stop(&l->wheel, &c->timer);
    gyre__forward_forget(c);
    gyre__forward_release_waiters(c);
    gyre__conn_unstarve(c);
    gyre__op_cancel(l, &c->recv);
    gyre__op_cancel(l, &c->send);
    gyre__conn_settle_later(c);
}

void gyre__conn_begin_close(struct gyre_conn *c, enum gyre_close_reason reason)
{
    if (c->state != GYRE_CONN_OPEN && c->state != GYRE_CONN_CONNECTING)
        return;
    if (c->state == GYRE_CONN_CONNECTING && c->out.bytes == 0) {
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
    c->unsent = 0;
    gyre__forward_forget(c);
    gyre__forward_release_waiters(c);
    gyre__conn_start_timer(c);
    gyre__conn_update_recv(c);
    gyre__conn_settle_later(c);
}

void gyre__conn_fail(struct gyre_conn *c, int err)
{
    if (!(c->flags & GYRE_CF_SEND_FAILED))
        c->err = err;
    gyre__conn_begin_close(c, GYRE_CLOSE_ERROR);
}

/* All are ENDING: what nobody will tell of ends as if it had been cancelled, and settling does the rest. */
static void abandon(struct gyre_conn *c)
{
    gyre__op_abandon(&c->recv);
    gyre__op_abandon(&c->send);
}

void gyre__conns_abandon(struct gyre_loop *l)
{
    gyre__conns_each(l, abandon);
    while (l->settle_head != NULL)
        gyre__conns_settle(l);
}

/* ---- settling ---- */

void gyre__conn_settle_later(struct gyre_conn *c)
{
    struct gyre_loop *l = c->loop;
    if (c->flags & GYRE_CF_SETTLE)
        return;
    c->flags |= GYRE_CF_SETTLE;
    c->settle_next = NULL;
    *l->settle_tail = c;
    l->settle_tail = &c->settle_next;
}

static bool all_sent(const struct gyre_conn *c)
{
    return c->out.tail == NULL && c->send.state == GYRE_OPS_IDLE && (c->flags & GYRE_CF_CONNECTED);
}

static void send_fin(struct gyre_conn *c)
{
    struct gyre_backend *be = c->loop->be;
    if (c->flags & GYRE_CF_FIN_SENT)
        return;
    c->flags |= GYRE_CF_FIN_SENT;
    (void)be->ops->sock->shutdown(be, c->f.fd); /* if the peer is gone, the receive says so */
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
    gyre__conn_flush(c);
    if (c->state != GYRE_CONN_OPEN || !(c->flags & GYRE_CF_SHUT) || !all_sent(c))
        return;
    send_fin(c);
    if (c->flags & GYRE_CF_EOF_TOLD)
        gyre__conn_end(c, GYRE_CLOSE_EOF, 0);
}

static void settle_closing(struct gyre_conn *c)
{
    gyre__conn_flush(c);
    if (c->state != GYRE_CONN_CLOSING || !all_sent(c))
        return;
    if (c->flags & GYRE_CF_EOF) {
        gyre__conn_end(c, (enum gyre_close_reason)c->reason, 0);
        return;
    }
    send_fin(c);
    c->state = GYRE_CONN_LINGERING;
    gyre__conn_start_timer(c);
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

static void settle(struct gyre_conn *c)
{
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
        if (c->flags & GYRE_CF_CONNECTED) /* it came so, from adopt.c */
            gyre__conn_opened(c);
        break;
    case GYRE_CONN_LINGERING:
    case GYRE_CONN_FREE:
        break;
    }
}

void gyre__conns_settle(struct gyre_loop *l)
{
    struct gyre_conn *c = l->settle_head, *next;
    l->settle_head = NULL;
    l->settle_tail = &l->settle_head;
    for (; c != NULL; c = next) {
        next = c->settle_next;
        c->flags &= ~(unsigned)GYRE_CF_SETTLE;
        settle(c);
    }
}

/* ---- the user's side ---- */

int gyre_conn_close(struct gyre_conn *c)
{
    int err = gyre__conn_usable(c);
    if (err == 0)
        gyre__conn_begin_close(c, GYRE_CLOSE_USER);
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

int gyre_conn_set_idle_timeout(struct gyre_conn *c, int64_t timeout_ns)
{
    int err = gyre__conn_usable(c);
    if (err != 0)
        return err;
    if (timeout_ns < 0)
        return GYRE_EOPTION;
    struct gyre__extra *extra = gyre__conn_extra(c);
    if (extra == NULL)
        return -ENOMEM;
    extra->idle_ns = timeout_ns;
    extra->idle_set = true;
    if (c->state == GYRE_CONN_OPEN)
        gyre__conn_start_timer(c);
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
