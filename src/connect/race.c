/* SPDX-License-Identifier: MIT
 * Trying several addresses for one connection.
 *
 * The normal course: an attempt is a socket and a CONNECT of its own, apart from the connection. The next attempt
 * begins when one fails, or when the attempt delay has passed. The first that connects lets go of its descriptor, the
 * connection takes it on and opens, and the others are cancelled.
 *
 * What can go wrong: every attempt fails: the connection ends with the error of the first address. The connection ends
 * first, for its time limit or because the user closed it. In both cases what is in flight is nobody's from then on: an
 * attempt without a race is closed after its last event. Attempts are reused and not freed before the loop, for a
 * backend may look at an operation that was given up long ago. */
#include "race.h"

#include <errno.h>

struct gyre__attempt {
    struct gyre__fd f;
    struct gyre__op op;
    struct gyre__addr to; /* the operation points to it */
    struct gyre_loop *loop;
    struct gyre__race *race;      /* NULL: it has lost, or is free */
    struct gyre__target *target;
    struct gyre__attempt *next, **prev; /* of its race; free: next */
    struct gyre__attempt *all_next;
};

/* Those of a loop. */
struct gyre__attempts {
    struct gyre__attempt *all, *free;
    uint32_t open; /* with a socket */
};

int gyre__attempts_init(struct gyre_loop *l)
{
    l->attempts = gyre__alloc(l->mem, sizeof *l->attempts);
    return l->attempts != NULL ? 0 : -ENOMEM;
}

void gyre__attempts_fini(struct gyre_loop *l)
{
    while (l->attempts != NULL && l->attempts->all != NULL) {
        struct gyre__attempt *a = l->attempts->all;
        l->attempts->all = a->all_next;
        gyre__free(l->mem, a);
    }
    gyre__free(l->mem, l->attempts);
    l->attempts = NULL;
}

bool gyre__attempts_any(const struct gyre_loop *l)
{
    return l->attempts->open > 0;
}

void gyre__attempts_abandon(struct gyre_loop *l)
{
    for (struct gyre__attempt *a = l->attempts->all; a != NULL; a = a->all_next)
        gyre__op_abandon(l, &a->op);
}

/* ---- attempts ---- */

static struct gyre__attempt *take_attempt(struct gyre_loop *l)
{
    struct gyre__attempt *a = l->attempts->free;
    if (a != NULL) {
        l->attempts->free = a->next;
        return a;
    }
    a = gyre__alloc(l->mem, sizeof *a);
    if (a == NULL)
        return NULL;
    a->loop = l;
    a->f.fd = -1;
    a->op.f = &a->f;
    a->op.kind = GYRE_OP_CONNECT;
    a->op.done = GYRE_DONE_ATTEMPT;
    a->all_next = l->attempts->all;
    l->attempts->all = a;
    return a;
}

static void give_attempt(struct gyre__attempt *a)
{
    a->next = a->loop->attempts->free;
    a->loop->attempts->free = a;
}

/* Nothing is in flight on it. */
static void close_attempt(struct gyre__attempt *a, bool reset)
{
    struct gyre__backend *be = a->loop->be;
    if (reset)
        (void)be->ops->sock->set_reset(be, a->f.fd);
    be->ops->close(be, &a->f);
    a->loop->attempts->open--;
    give_attempt(a);
}

static void leave_race(struct gyre__attempt *a)
{
    *a->prev = a->next;
    if (a->next != NULL)
        a->next->prev = a->prev;
    a->race = NULL;
}

static int begin_attempt(struct gyre__race *r, struct gyre__target *target)
{
    struct gyre_loop *l = r->conn->loop;
    struct gyre__route route = r->route;
    struct gyre__attempt *a = take_attempt(l);
    if (a == NULL)
        return -ENOMEM;
    gyre__route_set(&route, &target->addr);
    int fd = gyre__connect_socket(l, r->conn->profile, &route);
    if (fd < 0) {
        give_attempt(a);
        return fd;
    }
    a->f.fd = fd;
    a->f.flags = GYRE_FDF_INET | (r->conn->profile->options.on_socket != NULL ? GYRE_FDF_TOUCHED : 0);
    int err = l->be->ops->attach(l->be, &a->f);
    if (err != 0) {
        a->f.fd = -1;
        l->be->ops->sock->close(l->be, fd);
        give_attempt(a);
        return err;
    }
    l->attempts->open++;
    a->to = target->addr;
    a->target = target;
    a->race = r;
    a->next = r->attempts;
    a->prev = &r->attempts;
    if (a->next != NULL)
        a->next->prev = &a->next;
    r->attempts = a;
    a->op.flags = 0;
    a->op.u.connect.addr = (const struct sockaddr *)&a->to.ss;
    a->op.u.connect.len = (uint16_t)a->to.len;
    a->op.u.connect.started = false;
    gyre__op_submit(l, &a->op);
    return 0;
}

/* ---- the race ---- */

/* Begin the next attempt that can be begun. If there is none and none is in flight, all have failed. */
static void go_on(struct gyre__race *r)
{
    struct gyre_loop *l = r->conn->loop;
    gyre__wheel_stop(&l->wheel, &r->timer);
    while (r->next < r->count) {
        struct gyre__target *target = &r->targets[r->next++];
        target->err = begin_attempt(r, target);
        if (target->err != 0)
            continue;
        if (r->next < r->count)
            gyre__wheel_start(&l->wheel, &r->timer,
                              gyre__loop_now(l) + (uint64_t)r->conn->profile->options.attempt_delay_ns);
        return;
    }
    if (r->attempts == NULL)
        gyre__conn_end(r->conn, GYRE_CLOSE_CONNECT, r->targets[0].err);
}

void gyre__race_start(struct gyre__race *r)
{
    r->timer.kind = GYRE_TIMER_RACE;
    go_on(r);
}

void gyre__race_on_timer(struct gyre__loop_timer *t)
{
    go_on(GYRE_CONTAINER(t, struct gyre__race, timer));
}

void gyre__race_stop(struct gyre__race *r)
{
    struct gyre_loop *l = r->conn->loop;
    gyre__wheel_stop(&l->wheel, &r->timer);
    while (r->attempts != NULL) {
        struct gyre__attempt *a = r->attempts;
        leave_race(a);
        gyre__op_cancel(l, &a->op);
    }
}

/* Its descriptor becomes the connection's. Returns 0, or why not; then the descriptor is closed. */
static int win(struct gyre__attempt *a, struct gyre__race *r)
{
    struct gyre_loop *l = a->loop;
    struct gyre_conn *c = r->conn;
    int fd = l->be->ops->detach(l->be, &a->f);
    l->attempts->open--;
    give_attempt(a);
    int err = gyre__conn_take_socket(c, fd, GYRE_FDF_INET);
    if (err != 0)
        return err;
    gyre__race_stop(r);
    c->extra->dialing = NULL;
    r->dialing.free(&r->dialing);
    gyre__count(&l->be->stats.connected, 1);
    gyre__conn_opened(c);
    return 0;
}

void gyre__attempt_on_connect(struct gyre__op *op, const struct gyre__event *ev)
{
    struct gyre__attempt *a = GYRE_CONTAINER(op, struct gyre__attempt, op);
    struct gyre__race *r = a->race;
    struct gyre__target *target = a->target;
    int err = ev->res;
    if (r != NULL)
        leave_race(a);
    if (r == NULL || r->conn->state == GYRE_CONN_ENDING) {
        close_attempt(a, false);
        return;
    }
    if (err == 0 && gyre__connect_is_self(a->loop, a->f.fd, &a->to))
        err = GYRE_ESELF;
    if (err == 0) {
        err = win(a, r);
        if (err == 0)
            return;
    } else {
        close_attempt(a, err == GYRE_ESELF);
    }
    target->err = err;
    go_on(r);
}

void gyre__race_interleave(struct gyre__target *targets, uint32_t count)
{
    for (uint32_t i = 1; i < count; i++) {
        uint32_t other = i;
        while (other < count && targets[other].addr.ss.ss_family == targets[i - 1].addr.ss.ss_family)
            other++;
        if (other == count)
            return;
        struct gyre__target moved = targets[other];
        for (; other > i; other--)
            targets[other] = targets[other - 1];
        targets[i] = moved;
    }
}
