/* SPDX-License-Identifier: MIT
 * What becomes of an accepted descriptor: the filter is asked, a loop is chosen and a place reserved on it; then it
 * becomes a connection of this loop, or is posted to the other, where it does. */
#include "listener.h"
#include "socket/prepare.h"

/* Take over a descriptor that was accepted, in the place reserved for it: on_open, receiving. Closes it on failure.
 * Returns 0 or an error. */
static int make_conn(struct gyre_loop *l, int fd, struct gyre__profile *profile, const struct gyre_listener *listener)
{
    struct gyre_conn *c;
    if (l->phase == GYRE_PHASE_ENDING) {
        gyre__loop_unreserve(l);
        l->be->ops->sock->close(l->be, fd);
        return GYRE_ESHUTDOWN;
    }
    unsigned how = GYRE_CONN_RESERVED | GYRE_FDF_ACCEPTED | (listener->inet ? GYRE_FDF_INET : 0u);
    if (atomic_load_explicit(&listener->shared, memory_order_relaxed))
        how |= GYRE_CONN_TOUCHED;
    gyre__options_apply_accepted(l->be, fd, &profile->options, listener->inet);
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

/* ---- to another loop ---- */

struct handover {
    struct gyre__task task;
    struct gyre__acceptor *to;
    int fd;
};

/* Its place was reserved and counted. */
static void adopt(struct gyre__acceptor *a, int fd)
{
    if (make_conn(a->loop, fd, &a->profile, a->listener) == 0)
        return;
    gyre__count(&a->loop->be->stats.accept_errors, 1);
    gyre__listener_give_place(a);
}

static void run_handover(struct gyre_loop *l, void *user)
{
    struct handover *h = user;
    struct gyre__acceptor *to = h->to;
    struct gyre_listener *listener = to->listener;
    int fd = h->fd;
    gyre__free(l->mem, h);
    gyre__acceptor_hold(to);
    adopt(to, fd);
    gyre__acceptor_release(to);
    gyre__listener_release(listener);
}

static void hand_over(struct gyre__acceptor *a, struct gyre__acceptor *to, int fd)
{
    struct handover *h = gyre__alloc(to->loop->mem, sizeof *h);
    gyre__listener_hold(a->listener);
    if (h != NULL) {
        *h = (struct handover){.to = to, .fd = fd};
        if (gyre__loop_post_block(to->loop, h, run_handover) == 0)
            return;
    }
    gyre__listener_release(a->listener);
    gyre__count(&a->loop->be->stats.accept_errors, 1);
    a->loop->be->ops->sock->close(a->loop->be, fd);
    gyre__listener_give_place(to);
    gyre__loop_unreserve(to->loop);
}

/* ---- one connection ---- */

static void refuse(struct gyre__acceptor *a, int fd, bool reset)
{
    struct gyre__backend *be = a->loop->be;
    gyre__count(&be->stats.refused, 1);
    if (reset)
        (void)be->ops->sock->set_reset(be, fd);
    be->ops->sock->close(be, fd);
}

/* Asks the filter. Returns whether the connection is let in; else it is closed. */
static bool let_in(struct gyre__acceptor *a, int fd, const struct gyre__addr *peer)
{
    const struct gyre_listener *listener = a->listener;
    if (listener->filter == NULL)
        return true;
    int verdict =
        listener->filter(a->listener, (const struct sockaddr *)&peer->ss, peer->len, listener->user);
    if (verdict == GYRE_ACCEPT_YES)
        return true;
    refuse(a, fd, verdict == GYRE_ACCEPT_RESET);
    return false;
}

void gyre__acceptor_take(struct gyre__acceptor *a, int fd)
{
    struct gyre_listener *listener = a->listener;
    struct gyre__backend *be = a->loop->be;
    struct gyre__addr peer = {.len = 0};
    bool by_peer = listener->filter != NULL || (listener->hands_over && gyre__balance_by_peer(&listener->balance));
    if (by_peer && be->ops->sock->name(be, fd, true, &peer) != 0) { /* it has gone already */
        gyre__count(&be->stats.accept_errors, 1);
        be->ops->sock->close(be, fd);
        return;
    }
    if (!let_in(a, fd, &peer))
        return;
    struct gyre__acceptor *to = listener->hands_over ? gyre__balance_choose(listener, &peer) : a;
    to = gyre__listener_take_place(listener, to);
    if (to == NULL)
        refuse(a, fd, false);
    else if (to->loop == a->loop)
        adopt(to, fd);
    else
        hand_over(a, to, fd);
}
