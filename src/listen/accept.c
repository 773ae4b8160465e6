/* SPDX-License-Identifier: MIT
 * Accepting: when, how many, and when no more.
 *
 * The normal course: each acceptor with a socket keeps one multishot ACCEPT in flight; each descriptor it brings
 * becomes a connection of its loop or of another (take.c).
 *
 * What can go wrong: out of descriptors or memory, accepting pauses (10 ms, doubling to 1 s, or until a connection of
 * this loop closes); connections that are open are not affected, those that wait stay in the backlog. Errors that
 * belong to one connection are skipped. Where a limit on connections is near they are accepted one by one, so that none
 * is accepted that has no place; at the limit accepting pauses until there is room. Of connections that come in on
 * several loops in the same instant some may find no place even so, and are closed. A full loop accepts for the others:
 * the kernel goes on choosing its socket for clients that they could serve. */
#include "listener.h"

#include <errno.h>

enum {
    BACKOFF_FIRST_MS = 10,
    BACKOFF_MAX_MS = 1000,
    ROOM_LOOK_MS = 100,
    ROOM_NEAR = 1024,     /* accept one by one when there is room for less */
    ERRORS_IN_A_ROW = 16, /* of single connections, before backing off all the same */
    TAKE_MAX = 65536,     /* of the connections that wait on a socket that is being closed */
};

/* ---- limits ---- */

static uint32_t lesser(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* For how many more connections there is a place; ROOM_NEAR stands for that many and more. */
static uint32_t room_of(const struct gyre__acceptor *a)
{
    const struct gyre_listener *listener = a->listener;
    uint32_t room = 0;
    for (uint32_t i = 0; i < listener->loop_count && room < ROOM_NEAR; i++)
        room += lesser(gyre__loop_room(listener->acceptors[i]->loop), ROOM_NEAR);
    return lesser(lesser(room, gyre__listener_room(listener)), ROOM_NEAR);
}

/* ---- states ---- */

static bool is_attached(enum gyre__acceptor_state state)
{
    return state == GYRE_ACCEPTOR_OPEN || state == GYRE_ACCEPTOR_WAITING || state == GYRE_ACCEPTOR_CLOSING;
}

static bool is_held_back(enum gyre__acceptor_state state)
{
    return state == GYRE_ACCEPTOR_RETRYING || state == GYRE_ACCEPTOR_WAITING;
}

/* The only place where the state changes, so the loop's two counts agree with it. Thread: the loop's; from NEW to
 * CLOSED, where no count changes, also the opener's. */
static void enter(struct gyre__acceptor *a, enum gyre__acceptor_state state)
{
    struct gyre__acceptors *all = a->loop->acceptors;
    enum gyre__acceptor_state old = a->state;
    a->state = state;
    if (is_attached(old) != is_attached(state))
        all->open += is_attached(state) ? 1 : (uint32_t)-1;
    if (is_held_back(old) == is_held_back(state))
        return;
    all->held_back += is_held_back(state) ? 1 : (uint32_t)-1;
    gyre__gauge(&a->loop->be->stats.accepts_paused, all->held_back);
}

/* ---- accepting ---- */

/* What begins a pause is counted, not what goes on with it. */
static void count_pause(const struct gyre__acceptor *a, bool begins)
{
    gyre__count(&a->loop->be->stats.accept_pauses, begins);
}

/* Accept no more for now. Another loop's closing connection does not wake this one, so look again after a while. */
static void wait_for_room(struct gyre__acceptor *a)
{
    count_pause(a, a->state == GYRE_ACCEPTOR_OPEN);
    enter(a, GYRE_ACCEPTOR_WAITING);
    gyre__op_cancel(a->loop, &a->op);
    gyre__wheel_start(&a->loop->wheel, &a->timer,
                      gyre__loop_now(a->loop) + (uint64_t)ROOM_LOOK_MS * (uint64_t)GYRE_TICK_NS);
}

static bool is_paused(const struct gyre__acceptor *a)
{
    return atomic_load(&a->listener->want) == GYRE_LISTENER_PAUSE;
}

void gyre__acceptor_arm(struct gyre__acceptor *a)
{
    if (a->state != GYRE_ACCEPTOR_OPEN || a->op.state != GYRE_OPS_IDLE || is_paused(a))
        return;
    if (atomic_load(&a->listener->shared))
        a->f.flags |= GYRE_FDF_SHARED;
    uint32_t room = room_of(a);
    if (room == 0) {
        wait_for_room(a);
        return;
    }
    a->op.kind = GYRE_OP_ACCEPT;
    a->op.flags = room < ROOM_NEAR ? 0 : GYRE_OPF_MULTI;
    gyre__op_submit(a->loop, &a->op);
}

static void try_start(struct gyre__acceptor *a);

/* From RETRYING or WAITING. */
static void go_on(struct gyre__acceptor *a)
{
    bool is_open = a->state == GYRE_ACCEPTOR_WAITING;
    if (is_open && !is_paused(a) && room_of(a) == 0) {
        wait_for_room(a);
        return;
    }
    gyre__wheel_stop(&a->loop->wheel, &a->timer);
    if (!is_open) {
        try_start(a);
        return;
    }
    enter(a, GYRE_ACCEPTOR_OPEN);
    gyre__acceptor_arm(a);
}

void gyre__acceptor_on_timer(struct gyre__loop_timer *t)
{
    go_on(GYRE_CONTAINER(t, struct gyre__acceptor, timer));
}

void gyre__acceptors_retry_now(struct gyre_loop *l)
{
    for (struct gyre__acceptor *a = l->acceptors->list; a != NULL; a = a->next)
        if (is_held_back(a->state))
            go_on(a);
}

/* Go on in `state` (RETRYING or WAITING) after `err`, for longer each time. */
static void back_off(struct gyre__acceptor *a, enum gyre__acceptor_state state, int err)
{
    struct gyre_loop *l = a->loop;
    count_pause(a, a->backoff_ms == 0);
    a->backoff_ms = a->backoff_ms == 0 ? BACKOFF_FIRST_MS : a->backoff_ms * 2;
    if (a->backoff_ms > BACKOFF_MAX_MS)
        a->backoff_ms = BACKOFF_MAX_MS;
    enter(a, state);
    gyre__wheel_start(&l->wheel, &a->timer, l->now_ns + (uint64_t)a->backoff_ms * (uint64_t)GYRE_TICK_NS);
    if (a->warned_ns == 0 || l->now_ns - a->warned_ns >= UINT64_C(1000000000)) {
        a->warned_ns = l->now_ns;
        gyre__log_line(l->log, GYRE_LOG_WARN, "cannot accept on %s: %s (%s); trying again in %u ms",
                       a->listener->address, gyre_err_name(err), gyre_err_text(err), a->backoff_ms);
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
        back_off(a, GYRE_ACCEPTOR_WAITING, err);
}

/* Also while it is closing: the client was accepted, and is nobody else's any more. */
static void accepted(struct gyre__acceptor *a, int fd)
{
    a->errors = 0;
    a->backoff_ms = 0;
    gyre__acceptor_take(a, fd);
}

static void closed(struct gyre__acceptor *a);

/* Before the socket is closed: those that the kernel has accepted would be reset with it. Where others accept, too,
 * they are theirs. */
static void take_waiting(struct gyre__acceptor *a)
{
    struct gyre__backend *be = a->loop->be;
    if (a->loop->phase == GYRE_PHASE_ENDING || is_paused(a) || atomic_load(&a->listener->shared))
        return;
    for (unsigned n = 0; n < TAKE_MAX && a->f.fd >= 0 && room_of(a) > 0; n++) {
        int fd = be->ops->accept_now(be, &a->f);
        if (fd < 0)
            return;
        accepted(a, fd);
    }
}

void gyre__acceptor_on_accept(struct gyre__op *op, const struct gyre__event *ev)
{
    struct gyre__acceptor *a = GYRE_CONTAINER(op, struct gyre__acceptor, op);
    GYRE_CHECK(a->magic == GYRE_ACCEPTOR_MAGIC);
    gyre__acceptor_hold(a); /* callbacks may close it */
    if (ev->res >= 0)
        accepted(a, ev->res);
    else if (a->state == GYRE_ACCEPTOR_OPEN && ev->res != -ECANCELED)
        accept_failed(a, ev->res);
    if (ev->flags & GYRE_EV_MORE) {
        if (GYRE_UNLIKELY(a->state == GYRE_ACCEPTOR_OPEN && room_of(a) < ROOM_NEAR))
            gyre__op_cancel(a->loop, &a->op); /* and go on one by one */
    } else if (a->state == GYRE_ACCEPTOR_CLOSING) { /* CLOSED: a callback of this very event has closed it */
        take_waiting(a);
        closed(a);
    } else if (a->state == GYRE_ACCEPTOR_OPEN) {
        gyre__count(&a->loop->be->stats.rearms, (op->flags & GYRE_OPF_MULTI) != 0);
        gyre__acceptor_arm(a);
    }
    gyre__acceptor_release(a);
}

/* ---- life ---- */

int gyre__acceptor_start(struct gyre__acceptor *a)
{
    struct gyre_loop *l = a->loop;
    gyre__acceptor_link(a);
    if (a->f.fd >= 0) {
        int err = l->be->ops->attach(l->be, &a->f);
        if (err != 0)
            return err;
    }
    enter(a, a->f.fd >= 0 ? GYRE_ACCEPTOR_OPEN : GYRE_ACCEPTOR_TAKING_OVER);
    return 0;
}

/* On its loop, for the first time or after a failure. */
static void try_start(struct gyre__acceptor *a)
{
    int err = gyre__acceptor_start(a);
    if (err == 0)
        gyre__acceptor_arm(a);
    else
        back_off(a, GYRE_ACCEPTOR_RETRYING, err);
}

/* Its socket is closed: what it held for having one is given back. */
static void let_go(struct gyre__acceptor *a)
{
    enter(a, GYRE_ACCEPTOR_CLOSED);
    gyre__acceptor_release(a);
}

static void closed(struct gyre__acceptor *a)
{
    a->loop->be->ops->close(a->loop->be, &a->f);
    gyre__listener_socket_closed(a->listener, a->loop);
    let_go(a);
}

/* It never came to accepting: the socket is not attached. */
static void stop_unstarted(struct gyre__acceptor *a)
{
    if (a->f.fd >= 0) {
        a->loop->be->ops->sock->close(a->loop->be, a->f.fd);
        a->f.fd = -1;
        gyre__listener_socket_closed(a->listener, a->loop);
    }
    let_go(a);
}

void gyre__acceptor_stop(struct gyre__acceptor *a)
{
    if (a->state == GYRE_ACCEPTOR_CLOSING || a->state == GYRE_ACCEPTOR_CLOSED)
        return;
    gyre__wheel_stop(&a->loop->wheel, &a->timer);
    if (a->listener->acceptors[0] == a && !atomic_load(&a->listener->shared))
        gyre__path_remove(&a->listener->path, &a->listener->addr);
    switch (a->state) {
    case GYRE_ACCEPTOR_NEW:
    case GYRE_ACCEPTOR_RETRYING:
        stop_unstarted(a);
        return;
    case GYRE_ACCEPTOR_TAKING_OVER:
        let_go(a);
        return;
    case GYRE_ACCEPTOR_OPEN:
    case GYRE_ACCEPTOR_WAITING:
        enter(a, GYRE_ACCEPTOR_CLOSING);
        if (a->op.state == GYRE_OPS_IDLE)
            closed(a);
        else
            gyre__op_cancel(a->loop, &a->op);
        return;
    case GYRE_ACCEPTOR_CLOSING:
    case GYRE_ACCEPTOR_CLOSED:
        return;
    }
}

void gyre__acceptor_forget_socket(struct gyre__acceptor *a)
{
    if (a->state == GYRE_ACCEPTOR_OPEN) {
        (void)a->loop->be->ops->detach(a->loop->be, &a->f);
        enter(a, GYRE_ACCEPTOR_TAKING_OVER);
    }
    a->f.fd = -1;
}

void gyre__acceptor_discard(struct gyre__acceptor *a)
{
    if (gyre__loop_allows(a->loop)) {
        gyre__acceptor_stop(a);
        return;
    }
    GYRE_CHECK(a->state == GYRE_ACCEPTOR_NEW); /* not seen by its loop, nor will it be */
    if (a->f.fd >= 0)
        a->loop->be->ops->sock->close(a->loop->be, a->f.fd);
    a->f.fd = -1;
    let_go(a);
}

/* Do what the user wants of the listener. */
static void look(struct gyre__acceptor *a)
{
    enum gyre__listener_want want = (enum gyre__listener_want)atomic_load(&a->listener->want);
    if (a->state == GYRE_ACCEPTOR_CLOSED)
        return;
    if (want == GYRE_LISTENER_CLOSE || a->loop->phase != GYRE_PHASE_SERVING) {
        gyre__acceptor_stop(a);
        return;
    }
    if (a->state == GYRE_ACCEPTOR_NEW) {
        try_start(a);
        return;
    }
    bool newly_shared = atomic_load(&a->listener->shared) && !(a->f.flags & GYRE_FDF_SHARED);
    if (want == GYRE_LISTENER_PAUSE || (newly_shared && a->op.state != GYRE_OPS_IDLE))
        gyre__op_cancel(a->loop, &a->op); /* unless paused, the last event arms it again */
    else if (a->listener->engine == NULL || atomic_load(&a->loop->owned))
        gyre__acceptor_arm(a); /* an engine arms all when it runs */
}

static void run_look(struct gyre_loop *l, void *user)
{
    struct gyre__acceptor *a = user;
    struct gyre_listener *listener = a->listener;
    (void)l;
    atomic_store(&a->look_posted, false);
    look(a);
    gyre__listener_release(listener);
}

void gyre__acceptor_look(struct gyre__acceptor *a)
{
    if (gyre__loop_allows(a->loop)) {
        look(a);
        return;
    }
    gyre__listener_hold(a->listener);
    if (atomic_exchange(&a->look_posted, true)) {
        gyre__listener_release(a->listener);
        return;
    }
    gyre__loop_post_always(a->loop, &a->look_task, run_look, a);
}

void gyre__acceptors_arm(struct gyre_loop *l)
{
    for (struct gyre__acceptor *a = l->acceptors->list; a != NULL; a = a->next)
        gyre__acceptor_arm(a);
}

void gyre__acceptors_close(struct gyre_loop *l)
{
    struct gyre__acceptor *a = l->acceptors->list, *next;
    for (; a != NULL; a = next) {
        next = a->next;
        if (a->state != GYRE_ACCEPTOR_TAKING_OVER)
            gyre__acceptor_stop(a);
    }
}

bool gyre__acceptors_expect(const struct gyre_loop *l)
{
    for (const struct gyre__acceptor *a = l->acceptors->list; a != NULL; a = a->next)
        if (a->listener->hands_over && atomic_load(&a->listener->sockets) > 0)
            return true;
    return false;
}

void gyre__acceptors_abandon(struct gyre_loop *l)
{
    struct gyre__acceptor *a = l->acceptors->list, *next;
    for (; a != NULL; a = next) {
        next = a->next;
        gyre__op_abandon(a->loop, &a->op);
    }
}
