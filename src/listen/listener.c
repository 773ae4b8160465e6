/* SPDX-License-Identifier: MIT
 * The record of a listener: its references, and what the user may ask of it. */
#include "listener.h"

#include <string.h>

/* ---- ending ---- */

static void run_closed(struct gyre_loop *l, void *user)
{
    struct gyre_listener *listener = user;
    (void)l;
    listener->on_closed(listener->user);
    gyre__listener_release(listener);
}

void gyre__listener_socket_closed(struct gyre_listener *listener, struct gyre_loop *l)
{
    if (atomic_fetch_sub(&listener->sockets, 1) != 1)
        return;
    gyre__path_remove_unused(&listener->path, &listener->addr); /* if shared; else it has gone before */
    if (listener->on_closed == NULL)
        return;
    gyre__listener_hold(listener);
    gyre__loop_post_always(l, &listener->closed_task, run_closed, listener);
}

void gyre__listener_release(struct gyre_listener *listener)
{
    if (atomic_fetch_sub(&listener->refs, 1) == 1)
        atomic_store(&listener->idle, true);
}

void gyre__listener_free(struct gyre_listener *listener)
{
    for (uint32_t i = 0; listener->acceptors != NULL && i < listener->acceptor_count; i++)
        gyre__free(listener->mem, listener->acceptors[i]);
    gyre__free(listener->mem, listener->acceptors);
    gyre__free(listener->mem, listener);
}

/* ---- the user's side ---- */

const char *gyre_listener_address(const struct gyre_listener *listener)
{
    return listener->address;
}

void *gyre_listener_user(const struct gyre_listener *listener)
{
    return listener->user;
}

uint32_t gyre_listener_index(const struct gyre_listener *listener)
{
    return listener->index;
}

struct gyre_engine *gyre_listener_engine(const struct gyre_listener *listener)
{
    return listener->engine;
}

uint32_t gyre_listener_conn_count(const struct gyre_listener *listener)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < listener->acceptor_count; i++)
        count += atomic_load_explicit(&listener->acceptors[i]->conns, memory_order_relaxed);
    return count;
}

uint32_t gyre_listener_socket_count(const struct gyre_listener *listener)
{
    return atomic_load(&listener->sockets);
}

uint32_t gyre__listener_room(const struct gyre_listener *listener)
{
    uint32_t room = listener->set != NULL ? gyre__set_room(listener->set) : UINT32_MAX;
    if (listener->conns_max == 0)
        return room;
    uint32_t conns = atomic_load_explicit(&listener->conns, memory_order_relaxed);
    uint32_t left = conns < listener->conns_max ? listener->conns_max - conns : 0;
    return left < room ? left : room;
}

/* ---- places ---- */

/* No two loops get the last one. */
static bool take_one(struct gyre_listener *listener)
{
    if (listener->conns_max == 0)
        return true;
    uint32_t now = atomic_load_explicit(&listener->conns, memory_order_relaxed);
    while (now < listener->conns_max)
        if (atomic_compare_exchange_weak_explicit(&listener->conns, &now, now + 1, memory_order_relaxed,
                                                  memory_order_relaxed))
            return true;
    return false;
}

static void give_one(struct gyre_listener *listener)
{
    if (listener->conns_max != 0)
        atomic_fetch_sub_explicit(&listener->conns, 1, memory_order_relaxed);
}

struct gyre__acceptor *gyre__listener_take_place(struct gyre_listener *listener, struct gyre__acceptor *to)
{
    uint32_t count = listener->loop_count, first = to->loop->index;
    if (!take_one(listener))
        return NULL;
    for (uint32_t i = 0; i < count; i++) {
        struct gyre__acceptor *a = listener->acceptors[(first + i) % count];
        if (!gyre__loop_reserve_accepted(a->loop))
            continue;
        atomic_fetch_add_explicit(&a->conns, 1, memory_order_relaxed);
        return a;
    }
    give_one(listener);
    return NULL;
}

void gyre__listener_give_place(struct gyre__acceptor *a)
{
    atomic_fetch_sub_explicit(&a->conns, 1, memory_order_relaxed);
    give_one(a->listener);
}
