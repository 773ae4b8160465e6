/* SPDX-License-Identifier: MIT
 * Accepting, and handing over to other loops.
 *
 * The normal course: each acceptor with a socket keeps one multishot ACCEPT in flight; each descriptor it brings
 * becomes a connection of its loop, or is posted to the loop whose turn it is.
 *
 * What can go wrong: out of descriptors or memory, accepting pauses (10 ms, doubling to 1 s, or until a connection of
 * this loop closes); connections that are open are not affected, those that wait stay in the backlog. Errors that
 * belong to one connection are skipped. At conns_max accepting pauses until there is room; what the
 * kernel had already accepted by then is closed. */
#include "listener.h"

#include <errno.h>

enum {
    BACKOFF_FIRST_MS = 10,
    BACKOFF_MAX_MS = 1000,
    ROOM_LOOK_MS = 100,
    ERRORS_IN_A_ROW = 16, /* of single connections, before backing off all the same */
};

/* ---- accepting ---- */

static bool loop_full(const struct gyre_loop *l)
{
    return gyre_loop_conn_count(l) >= l->conns_max;
}

/* Whether nothing that it accepts would have a place. */
static bool is_full(const struct gyre__acceptor *a)
{
    const struct gyre_listener *listener = a->listener;
    if (!listener->hands_over)
        return loop_full(a->loop);
    for (uint32_t i = 0; i < listener->acceptor_count; i++)
        if (!loop_full(listener->acceptors[i]->loop))
            return false;
    return true;
}

static void set_waiting(struct gyre__acceptor *a, bool waiting)
{
    if (a->waiting == waiting)
        return;
    a->waiting = waiting;
    a->loop->acceptors_waiting += waiting ? 1 : (uint32_t)-1;
    gyre__count(&a->loop->be->stats.accept_pauses, waiting);
}

/* Accept no more for now. Another loop's closing connection does not wake this one, so look again after a while. */
static void wait_for_room(struct gyre__acceptor *a)
{
    set_waiting(a, true);
    gyre__op_cancel(a->loop, &a->op);
    gyre__wheel_start(&a->loop->wheel, &a->timer,
                      gyre__loop_now(a->loop) + (uint64_t)ROOM_LOOK_MS * (uint64_t)GYRE_TICK_NS);
}

void gyre__acceptor_arm(struct gyre__acceptor *a)
{
    if (!a->open || a->op.state != GYRE_OPS_IDLE)
        return;
    if (is_full(a)) {
        wait_for_room(a);
        return;
    }
    a->op.kind = GYRE_OP_ACCEPT;
    a->op.flags = GYRE_OPF_MULTI;
    gyre__op_submit(a->loop, &a->op);
}

static void go_on(struct gyre__acceptor *a)
{
    set_waiting(a, false);
    gyre__wheel_stop(&a->loop->wheel, &a->timer);
    gyre__acceptor_arm(a);
}

void gyre__acceptor_on_timer(struct gyre__timer *t)
{
    go_on(GYRE_CONTAINER(t, struct gyre__acceptor, timer));
}

void gyre__acceptors_retry_now(struct gyre_loop *l)
{
    for (struct gyre__acceptor *a = l->acceptors; a != NULL; a = a->next)
        if (a->waiting)
            go_on(a);
}

static void back_off(struct gyre__acceptor *a, int err)
{
    struct gyre_loop *l = a->loop;
    a->backoff_ms = a->backoff_ms == 0 ? BACKOFF_FIRST_MS : a->backoff_ms * 2;
    if (a->backoff_ms > BACKOFF_MAX_MS)
        a->backoff_ms = BACKOFF_MAX_MS;
    set_waiting(a, true);
    gyre__wheel_start(&l->wheel, &a->timer, l->now_ns + (uint64_t)a->backoff_ms * (uint64_t)GYRE_TICK_NS);
    if (a->warned_ns == 0 || l->now_ns - a->warned_ns >= UINT64_C(1000000000)) {
        a->warned_ns = l->now_ns;
        gyre__log(l->log, GYRE_LOG_WARN, "cannot accept on %s: %s (%s); trying again in %u ms", a->listener->address,
                  gyre_err_name(err), gyre_err_text(err), a->backoff_ms);
    }
}

/* An error of the connection that was to be accepted, not of the listening socket (accept(2)). */
static bool is_connections_own(int err)
{
    switch (-err) {
    case ECONNABORTED:
    case EPROTO:
    case EPERM:
    case EINTR:
    case EAGAIN:
    case ENETDOWN:
    case ENOPROTOOPT:
    case EHOSTDOWN:
    case EHOSTUNREACH:
    case ENETUNREACH:
    case EOPNOTSUPP:
    case ECANCELED:
        return true;
    default:
        return false;
    }
}

static void accept_failed(struct gyre__acceptor *a, int err)
{
    gyre__count(&a->loop->be->stats.accept_errors, 1);
    a->errors++;
    if (!is_connections_own(err) || a->errors > ERRORS_IN_A_ROW)
        back_off(a, err);
}

/* ---- handing over ---- */

struct handover {
    struct gyre__task task;
    struct gyre__acceptor *to;
    int fd;
};

static void adopt(struct gyre__acceptor *a, int fd)
{
    if (gyre__conn_adopt(a->loop, fd, &a->profile, a->listener->inet) != 0)
        gyre__count(&a->loop->be->stats.accept_errors, 1);
}

static void run_handover(struct gyre_loop *l, void *user)
{
    struct handover *h = user;
    struct gyre__acceptor *to = h->to;
    int fd = h->fd;
    gyre__free(l->mem, h);
    adopt(to, fd);
}

/* Round-robin, past loops that are full. */
static struct gyre__acceptor *next_in_turn(struct gyre_listener *listener)
{
    struct gyre__acceptor *to = NULL;
    for (uint32_t i = 0; i < listener->acceptor_count; i++) {
        to = listener->acceptors[listener->next_loop];
        listener->next_loop = (listener->next_loop + 1) % listener->acceptor_count;
        if (!loop_full(to->loop))
            break;
    }
    return to;
}

static void hand_over(struct gyre__acceptor *a, int fd)
{
    struct gyre__acceptor *to = next_in_turn(a->listener);
    if (to == a) {
        adopt(a, fd);
        return;
    }
    struct handover *h = gyre__alloc(a->loop->mem, sizeof *h);
    if (h != NULL) {
        *h = (struct handover){.to = to, .fd = fd};
        h->task = (struct gyre__task){.run = run_handover, .user = h, .embedded = true};
        if (gyre__loop_post_task(to->loop, &h->task) == 0)
            return;
        gyre__free(a->loop->mem, h);
    }
    gyre__count(&a->loop->be->stats.accept_errors, 1);
    a->loop->be->ops->sock->close(a->loop->be, fd);
}

void gyre__acceptor_on_accept(struct gyre_op *op, const struct gyre_event *ev)
{
    struct gyre__acceptor *a = GYRE_CONTAINER(op, struct gyre__acceptor, op);
    GYRE_CHECK(a->magic == GYRE_ACCEPTOR_MAGIC);
    if (ev->res >= 0 && !a->open) {
        a->loop->be->ops->sock->close(a->loop->be, ev->res); /* it came while closing */
    } else if (ev->res >= 0) {
        a->errors = 0;
        a->backoff_ms = 0;
        if (a->listener->hands_over)
            hand_over(a, ev->res);
        else
            adopt(a, ev->res);
    } else if (a->open && !a->waiting && ev->res != -ECANCELED) {
        accept_failed(a, ev->res);
    }
    if (ev->flags & GYRE_EV_MORE) {
        if (GYRE_UNLIKELY(a->open && !a->waiting && is_full(a)))
            wait_for_room(a);
        return;
    }
    if (!a->open) {
        gyre__acceptor_closed(a);
    } else if (!a->waiting) {
        gyre__count(&a->loop->be->stats.rearms, 1);
        gyre__acceptor_arm(a);
    }
}

/* ---- life ---- */

int gyre__acceptor_new(struct gyre__acceptor **out, struct gyre_loop *l, struct gyre_listener *listener)
{
    struct gyre__acceptor *a = l->acceptors;
    while (a != NULL && (a->used || atomic_load(&a->stop_posted))) /* a posted stop may still lie in the queue */
        a = a->next;
    if (a == NULL) {
        a = gyre__alloc(l->mem, sizeof *a);
        if (a == NULL)
            return -ENOMEM;
        a->magic = GYRE_ACCEPTOR_MAGIC;
        a->next = l->acceptors;
        l->acceptors = a;
    }
    uint16_t gen = a->op.gen;
    *a = (struct gyre__acceptor){.magic = GYRE_ACCEPTOR_MAGIC, .next = a->next, .loop = l, .listener = listener};
    a->op = (struct gyre_op){.gen = gen, .f = &a->f, .done = GYRE_DONE_ACCEPT};
    a->f.fd = -1;
    a->timer.kind = GYRE_TIMER_ACCEPTOR;
    a->used = true;
    a->profile.listener = listener;
    a->profile.refs = 1;
    *out = a;
    return 0;
}

int gyre__acceptor_open(struct gyre__acceptor *a, int fd, bool inet)
{
    struct gyre_loop *l = a->loop;
    a->f = (struct gyre_fd){.fd = fd, .flags = inet ? GYRE_FDF_INET : 0};
    int err = l->be->ops->attach(l->be, &a->f);
    if (err != 0) {
        a->f.fd = -1;
        return err;
    }
    a->open = true;
    l->acceptors_open++;
    return 0;
}

void gyre__acceptor_stop(struct gyre__acceptor *a)
{
    if (!a->open)
        return;
    a->open = false;
    set_waiting(a, false);
    gyre__wheel_stop(&a->loop->wheel, &a->timer);
    if (a->op.state == GYRE_OPS_IDLE)
        gyre__acceptor_closed(a);
    else
        gyre__op_cancel(a->loop, &a->op);
}

static void run_stop(struct gyre_loop *l, void *user)
{
    struct gyre__acceptor *a = user;
    gyre__listener_stop(a->listener, l);
}

void gyre__acceptor_post_stop(struct gyre__acceptor *a)
{
    if (atomic_exchange(&a->stop_posted, true))
        return;
    a->stop_task = (struct gyre__task){.run = run_stop, .user = a, .embedded = true};
    gyre__tasks_push_always(&a->loop->tasks, &a->stop_task);
    a->loop->be->ops->wake(a->loop->be);
}

void gyre__acceptor_closed(struct gyre__acceptor *a)
{
    if (a->f.fd < 0)
        return; /* closed by a callback of the very event that ended its op */
    a->loop->be->ops->close(a->loop->be, &a->f);
    a->loop->acceptors_open--;
    gyre__acceptor_release(a);
}

void gyre__acceptor_release(struct gyre__acceptor *a)
{
    GYRE_CHECK(a->magic == GYRE_ACCEPTOR_MAGIC && a->profile.refs > 0);
    if (--a->profile.refs > 0)
        return;
    a->used = false;
    if (!a->listener->kept)
        gyre__listener_free(a->listener);
}

void gyre__acceptors_close(struct gyre_loop *l)
{
    for (struct gyre__acceptor *a = l->acceptors; a != NULL; a = a->next)
        if (a->used && a->open)
            gyre__listener_stop(a->listener, l);
}

void gyre__acceptors_fini(struct gyre_loop *l)
{
    while (l->acceptors != NULL) {
        struct gyre__acceptor *a = l->acceptors;
        l->acceptors = a->next;
        gyre__free(l->mem, a);
    }
}
