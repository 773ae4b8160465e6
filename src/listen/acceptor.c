/* SPDX-License-Identifier: MIT
 * The record of an acceptor: making it, who refers to it, and the list of a loop's. */
#include "listener.h"

#include <errno.h>

void gyre__acceptor_link(struct gyre__acceptor *a)
{
    if (a->linked)
        return;
    a->linked = true;
    a->next = a->loop->acceptors->list;
    a->loop->acceptors->list = a;
}

static void unlink_from_loop(struct gyre__acceptor *a)
{
    struct gyre__acceptor **at = &a->loop->acceptors->list;
    if (!a->linked)
        return;
    while (*at != a)
        at = &(*at)->next;
    *at = a->next;
    a->linked = false;
}

void gyre__acceptor_init(struct gyre__acceptor *a, struct gyre_loop *l, struct gyre_listener *listener)
{
    uint16_t gen = a->op.gen;
    struct gyre__acceptor *next = a->next;
    bool linked = a->linked;
    *a = (struct gyre__acceptor){
        .magic = GYRE_ACCEPTOR_MAGIC, .next = next, .linked = linked, .loop = l, .listener = listener,
        .state = GYRE_ACCEPTOR_NEW};
    a->op = (struct gyre__op){.gen = gen, .f = &a->f, .done = GYRE_DONE_ACCEPT};
    a->f.fd = -1;
    a->timer.kind = GYRE_TIMER_ACCEPTOR;
    a->profile.listener = listener;
    a->profile.refs = 1;
}

int gyre__acceptor_new(struct gyre__acceptor **out, struct gyre_loop *l, struct gyre_listener *listener)
{
    struct gyre__acceptor *a = gyre__alloc(l->mem, sizeof *a);
    if (a == NULL)
        return -ENOMEM;
    gyre__acceptor_init(a, l, listener);
    *out = a;
    return 0;
}

void gyre__acceptor_hold(struct gyre__acceptor *a)
{
    if (a->profile.refs++ == 0)
        gyre__listener_hold(a->listener);
}

void gyre__acceptor_release(struct gyre__acceptor *a)
{
    GYRE_CHECK(a->magic == GYRE_ACCEPTOR_MAGIC && a->profile.refs > 0);
    if (--a->profile.refs > 0)
        return;
    unlink_from_loop(a);
    gyre__listener_release(a->listener);
}

void gyre__acceptor_release_profile(struct gyre_loop *l, struct gyre__profile *profile)
{
    struct gyre__acceptor *a = GYRE_CONTAINER(profile, struct gyre__acceptor, profile);
    (void)l;
    gyre__listener_give_place(a);
    gyre__acceptor_release(a);
}

int gyre__acceptors_init(struct gyre_loop *l)
{
    l->acceptors = gyre__alloc(l->mem, sizeof *l->acceptors);
    return l->acceptors != NULL ? 0 : -ENOMEM;
}

void gyre__acceptors_fini(struct gyre_loop *l)
{
    if (l->acceptors == NULL)
        return;
    while (l->acceptors->listeners != NULL) {
        struct gyre_listener *listener = l->acceptors->listeners;
        l->acceptors->listeners = listener->next;
        gyre__listener_free(listener);
    }
    gyre__free(l->mem, l->acceptors);
    l->acceptors = NULL;
}
