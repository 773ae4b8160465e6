/* SPDX-License-Identifier: MIT
 * Time limits of a connection.
 *
 * Every connection has one timer for the limit of its state: on connecting, on being idle, on lingering. The limits
 * that only some connections have, on receiving, on sending, on living, share a second timer in the side record. What
 * moves a limit on (bytes) only stores the time; the timer, when it fires, looks which limits have really passed, and
 * goes on to the next. So traffic costs one store, and a connection without limits one test of a pointer.
 *
 * A limit on receiving or sending counts only while the peer could do something about it: on receiving while a receive
 * is in flight, on sending while bytes wait that are not held back by corking.
 *
 * A send may tell of nothing for long, although the peer reads: io_uring tells once all of it was taken, and readiness
 * comes only when much room is there. So what counts as well is that fewer bytes, or others, wait in the kernel. */
#include "conn.h"
#include "base/refuse.h"

#include <errno.h>

enum { WRITE_LOOKS = 8 }; /* per time limit on sending */

/* When `limit_ns` after `since_ns` comes before what `at_ns` has so far (0: nothing), it is that. */
static void sooner(uint64_t *at_ns, uint64_t since_ns, int64_t limit_ns)
{
    uint64_t due_ns = since_ns + (uint64_t)limit_ns;
    if (limit_ns > 0 && (*at_ns == 0 || due_ns < *at_ns))
        *at_ns = due_ns;
}

static bool is_closing(const struct gyre_conn *c)
{
    return c->state == GYRE_CONN_CLOSING || c->state == GYRE_CONN_LINGERING || c->state == GYRE_CONN_DETACHING;
}

static bool waits_for_peer(const struct gyre_conn *c)
{
    return gyre__conn_receives(c);
}

/* Bytes that the kernel has and the peer's side has not. Of unix sockets: with what the kernel adds. */
static uint32_t in_kernel(const struct gyre_conn *c)
{
    struct gyre__backend *be = c->loop->be;
    return c->flags & GYRE_CF_CONNECTED ? (uint32_t)be->ops->sock->unacked(be, c->f.fd) : 0;
}

static bool waits_to_send(const struct gyre_conn *c)
{
    return c->out.tail != NULL && !(c->flags & GYRE_CF_CORKED);
}

/* Set the timer to the first limit that can pass. */
static void arm(struct gyre_conn *c)
{
    struct gyre__extra *x = c->extra;
    struct gyre__wheel *wheel = &c->loop->wheel;
    uint64_t at_ns = x->life_end_ns;
    if (c->state == GYRE_CONN_OPEN) {
        sooner(&at_ns, x->read_from_ns, (c->flags & GYRE_CF_EOF) ? 0 : x->read_ns);
        if (c->out.tail != NULL) {
            sooner(&at_ns, x->write_from_ns, x->write_ns);
            sooner(&at_ns, x->write_look_ns, (x->write_ns + WRITE_LOOKS - 1) / WRITE_LOOKS);
        }
    } else if (is_closing(c)) {
        sooner(&at_ns, 0, (int64_t)x->close_end_ns);
    } else {
        at_ns = 0;
    }
    if (at_ns != 0)
        gyre__wheel_start(wheel, &x->limits_timer, at_ns);
    else
        gyre__wheel_stop(wheel, &x->limits_timer);
}

/* Returns whether the connection is still open. */
static bool passed(struct gyre_conn *c, enum gyre_timeout_kind kind)
{
    c->timeout_kind = (uint8_t)kind;
    if (c->profile->handlers->on_timeout == NULL)
        gyre__conn_end(c, GYRE_CLOSE_TIMEOUT, GYRE_ETIMEOUT);
    else
        c->profile->handlers->on_timeout(c);
    return c->state == GYRE_CONN_OPEN;
}

static bool is_due(const struct gyre_conn *c, uint64_t since_ns, int64_t limit_ns)
{
    return limit_ns > 0 && c->loop->now_ns >= since_ns + (uint64_t)limit_ns;
}

/* The first look after bytes were queued counts as progress, because what it differs from is old. */
static void look_at_sending(struct gyre_conn *c)
{
    struct gyre__extra *x = c->extra;
    if (x->write_ns == 0)
        return;
    uint32_t bytes = waits_to_send(c) ? in_kernel(c) : 0;
    if (bytes != x->write_seen || !waits_to_send(c))
        x->write_from_ns = c->loop->now_ns;
    x->write_seen = bytes;
    x->write_look_ns = c->loop->now_ns;
}

/* A close that takes too long as a whole. */
static void closing_goes_on(struct gyre_conn *c)
{
    const struct gyre__extra *x = c->extra;
    uint64_t now_ns = c->loop->now_ns;
    bool life_over = x->life_end_ns != 0 && now_ns >= x->life_end_ns;
    if (!life_over && (x->close_end_ns == 0 || now_ns < x->close_end_ns)) {
        arm(c);
        return;
    }
    c->timeout_kind = life_over ? GYRE_TIMEOUT_LIFETIME : GYRE_TIMEOUT_LINGER;
    gyre__conn_end(c, GYRE_CLOSE_TIMEOUT, GYRE_ETIMEOUT);
}

void gyre__conn_on_limit(struct gyre__loop_timer *t)
{
    struct gyre__extra *x = GYRE_CONTAINER(t, struct gyre__extra, limits_timer);
    struct gyre_conn *c = x->conn;
    uint64_t now_ns = c->loop->now_ns;
    if (is_closing(c))
        closing_goes_on(c);
    if (c->state != GYRE_CONN_OPEN)
        return;
    if (x->life_end_ns != 0 && now_ns >= x->life_end_ns) {
        x->life_end_ns = 0;
        if (!passed(c, GYRE_TIMEOUT_LIFETIME))
            return;
    }
    if (!waits_for_peer(c))
        x->read_from_ns = now_ns;
    if (!(c->flags & GYRE_CF_EOF) && is_due(c, x->read_from_ns, x->read_ns)) {
        x->read_from_ns = now_ns;
        if (!passed(c, GYRE_TIMEOUT_READ))
            return;
    }
    look_at_sending(c);
    if (is_due(c, x->write_from_ns, x->write_ns)) {
        x->write_from_ns = now_ns;
        if (!passed(c, GYRE_TIMEOUT_WRITE))
            return;
    }
    arm(c);
}

int gyre__limits_new(struct gyre_conn *c)
{
    const struct gyre_conn_options *o = &c->profile->options;
    if (o->read_timeout_ns == 0 && o->write_timeout_ns == 0 && o->lifetime_ns == 0)
        return 0;
    struct gyre__extra *x = gyre__conn_extra(c);
    if (x == NULL)
        return -ENOMEM;
    x->read_ns = o->read_timeout_ns;
    x->write_ns = o->write_timeout_ns;
    return 0;
}

void gyre__limits_open(struct gyre_conn *c)
{
    struct gyre__extra *x = c->extra;
    uint64_t now_ns = gyre__loop_now(c->loop);
    x->read_from_ns = x->write_from_ns = now_ns;
    if (x->life_end_ns == 0 && c->profile->options.lifetime_ns > 0)
        x->life_end_ns = now_ns + (uint64_t)c->profile->options.lifetime_ns;
    arm(c);
}

void gyre__limits_queued(struct gyre_conn *c)
{
    if (c->extra->write_ns == 0 || c->extra->writing)
        return;
    c->extra->writing = true;
    c->extra->write_from_ns = c->extra->write_look_ns = gyre__loop_now(c->loop);
    arm(c);
}

void gyre__limits_sent(struct gyre_conn *c)
{
    c->extra->write_from_ns = c->loop->now_ns;
    c->extra->writing = c->out.tail != NULL;
}

/* ---- the user's side ---- */

static int prepare(struct gyre_conn *c, int64_t ns)
{
    int err = gyre__conn_usable(c);
    if (err == 0)
        err = gyre__check_not_negative("timeout_ns", ns);
    if (err != 0)
        return err;
    return gyre__conn_extra(c) != NULL ? 0 : -ENOMEM;
}

int gyre_conn_set_read_timeout(struct gyre_conn *c, int64_t timeout_ns)
{
    int err = prepare(c, timeout_ns);
    if (err != 0)
        return err;
    c->extra->read_ns = timeout_ns;
    c->extra->read_from_ns = gyre__loop_now(c->loop);
    arm(c);
    return 0;
}

int gyre_conn_set_write_timeout(struct gyre_conn *c, int64_t timeout_ns)
{
    int err = prepare(c, timeout_ns);
    if (err != 0)
        return err;
    c->extra->write_ns = timeout_ns;
    c->extra->writing = c->out.tail != NULL;
    c->extra->write_from_ns = c->extra->write_look_ns = gyre__loop_now(c->loop);
    arm(c);
    return 0;
}

int gyre_conn_set_lifetime(struct gyre_conn *c, int64_t lifetime_ns)
{
    int err = prepare(c, lifetime_ns);
    if (err != 0)
        return err;
    c->extra->life_end_ns = lifetime_ns > 0 ? gyre__loop_now(c->loop) + (uint64_t)lifetime_ns : 0;
    arm(c);
    return 0;
}

enum gyre_timeout_kind gyre_conn_timeout_kind(const struct gyre_conn *c)
{
    return (enum gyre_timeout_kind)c->timeout_kind;
}

/* Of times that are counted in `active`: longer ones are as good as none. 24 days. */
#define LIMIT_MAX_NS ((INT64_C(1) << 31) * GYRE_TICK_NS)

#define SECOND_NS INT64_C(1000000000)
#define CLOSE_BASE_NS (600 * SECOND_NS)
enum { CLOSE_RATE = 16 << 10, TAKEN_LOOK_NS = 5000000 };

int64_t gyre__conn_idle_limit(const struct gyre_conn *c)
{
    return c->extra != NULL && c->extra->idle_set ? c->extra->idle_ns : c->profile->options.idle_timeout_ns;
}

/* How long a close may take as a whole, if `bytes` are to be delivered. Whoever takes 16 KiB a second gets them. */
static int64_t close_limit(const struct gyre_conn *c, uint64_t bytes)
{
    int64_t limit_ns = c->profile->options.close_timeout_ns;
    return limit_ns > 0 ? limit_ns : CLOSE_BASE_NS + (int64_t)(bytes / CLOSE_RATE) * SECOND_NS;
}

/* How long after closing began the timer fires for the first time. */
static int64_t first_look(const struct gyre_conn *c)
{
    int64_t linger_ns = c->profile->options.linger_timeout_ns, limit_ns = close_limit(c, 0);
    return linger_ns < limit_ns ? linger_ns : limit_ns;
}

/* When `limit_ns` will have passed since bytes last moved; that was less than 2^32 ticks ago. */
static uint64_t due_ns(const struct gyre_conn *c, int64_t limit_ns)
{
    const struct gyre_loop *l = c->loop;
    uint64_t active = l->now_tick - (uint32_t)((uint32_t)l->now_tick - c->active);
    return l->wheel.origin_ns + active * (uint64_t)GYRE_TICK_NS + (uint64_t)limit_ns;
}

bool gyre__limits_watch_sends(const struct gyre_conn *c)
{
    bool tcp = c->f.flags & GYRE_FDF_INET;
    return c->state != GYRE_CONN_OPEN || (c->extra != NULL && c->extra->write_ns != 0) ||
           (!tcp && gyre__conn_idle_limit(c) != 0);
}

void gyre__conn_start_timer(struct gyre_conn *c)
{
    struct gyre_loop *l = c->loop;
    const struct gyre_conn_options *options = &c->profile->options;
    int64_t delay_ns = gyre__conn_idle_limit(c);
    if (c->state == GYRE_CONN_CONNECTING)
        delay_ns = options->connect_timeout_ns;
    else if (c->state != GYRE_CONN_OPEN)
        delay_ns = first_look(c);
    if (GYRE_UNLIKELY(c->extra != NULL))
        arm(c);
    (void)gyre__loop_now(l);
    c->active = (uint32_t)l->now_tick;
    if (delay_ns > 0 && delay_ns <= LIMIT_MAX_NS)
        gyre__wheel_start(&l->wheel, &c->timer, due_ns(c, delay_ns));
    else
        gyre__wheel_stop(&l->wheel, &c->timer);
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

/* Bytes that the kernel had taken before have moved on: that is progress, though no send tells of it. */
static void note_acknowledged(struct gyre_conn *c)
{
    if (c->flags & GYRE_CF_SEND_FAILED)
        return; /* nothing moves any more; from here on `unsent` is in that place */
    uint32_t unacked = in_kernel(c);
    if (unacked != c->seen_unacked)
        c->active = (uint32_t)c->loop->now_tick;
    c->seen_unacked = unacked;
}

static void idle_time_passed(struct gyre_conn *c)
{
    note_acknowledged(c);
    if (timer_goes_on(c, gyre__conn_idle_limit(c)))
        return;
    c->timeout_kind = GYRE_TIMEOUT_IDLE;
    if (c->profile->handlers->on_timeout == NULL) {
        gyre__conn_end(c, GYRE_CLOSE_TIMEOUT, GYRE_ETIMEOUT);
        return;
    }
    gyre__conn_start_timer(c);
    c->profile->handlers->on_timeout(c);
}

/* The first look: from here on the close has an absolute end. Nearly all connections are gone by now, and the others
 * get a side record for it; without memory that is tried again. Returns whether the end has come already. */
static bool bound_close(struct gyre_conn *c)
{
    uint64_t file_bytes = c->extra != NULL ? c->extra->file_bytes : 0;
    uint64_t bytes = c->out.bytes + file_bytes + gyre__conn_unacked(c);
    uint64_t began_ns = c->loop->now_ns - (uint64_t)first_look(c);
    uint64_t end_ns = began_ns + (uint64_t)close_limit(c, bytes);
    if (gyre__conn_extra(c) == NULL)
        return false;
    c->extra->close_end_ns = end_ns;
    arm(c);
    return c->loop->now_ns >= end_ns;
}

void gyre__conn_reset_when_taken(struct gyre_conn *c)
{
    struct gyre_loop *l = c->loop;
    if (gyre__conn_unacked(c) > 0) {
        gyre__wheel_start(&l->wheel, &c->timer, gyre__loop_now(l) + TAKEN_LOOK_NS);
        return;
    }
    gyre__conn_end(c, (enum gyre_close_reason)c->reason, 0);
    c->flags |= GYRE_CF_RESET;
}

/* What the peer says is no progress of ours. */
static void linger_time_passed(struct gyre_conn *c)
{
    int64_t linger_ns = c->profile->options.linger_timeout_ns;
    bool over = (c->extra == NULL || c->extra->close_end_ns == 0) && bound_close(c);
    note_acknowledged(c);
    if (!over && c->state == GYRE_CONN_LINGERING && (c->flags & GYRE_CF_RESET_LAST) &&
        (linger_ns > LIMIT_MAX_NS || c->loop->now_ns < due_ns(c, linger_ns))) {
        gyre__conn_reset_when_taken(c);
        return;
    }
    if (!over && (linger_ns > LIMIT_MAX_NS || timer_goes_on(c, linger_ns)))
        return;
    c->timeout_kind = GYRE_TIMEOUT_LINGER;
    gyre__conn_end(c, GYRE_CLOSE_TIMEOUT, GYRE_ETIMEOUT);
}

void gyre__conn_on_timer(struct gyre__loop_timer *t)
{
    struct gyre_conn *c = GYRE_CONTAINER(t, struct gyre_conn, timer);
    GYRE_CHECK(c->magic == GYRE_CONN_MAGIC);
    switch ((enum gyre__conn_state)c->state) {
    case GYRE_CONN_CONNECTING:
        c->timeout_kind = GYRE_TIMEOUT_CONNECT;
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

int gyre_conn_set_idle_timeout(struct gyre_conn *c, int64_t timeout_ns)
{
    int err = gyre__conn_usable(c);
    if (err == 0)
        err = gyre__check_not_negative("timeout_ns", timeout_ns);
    if (err != 0)
        return err;
    struct gyre__extra *extra = gyre__conn_extra(c);
    if (extra == NULL)
        return -ENOMEM;
    extra->idle_ns = timeout_ns;
    extra->idle_set = true;
    if (c->state == GYRE_CONN_OPEN)
        gyre__conn_start_timer(c);
    return 0;
}
