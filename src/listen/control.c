/* SPDX-License-Identifier: MIT
 * What a listener's user asks for while it is open: close, pause, resume, duplicate its sockets. */
#include "listener.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

static bool is_listener(const struct gyre_listener *listener)
{
    return listener != NULL && listener->magic == GYRE_LISTENER_MAGIC;
}

/* A child's: nothing may be changed, nor a loop be woken, whose wake descriptor is the parent's. */
static bool is_forked(const struct gyre_listener *listener)
{
    return gyre__loop_is_forked(listener->acceptors[0]->loop);
}

/* Whether it is this thread's, and stays so: the calling thread is in it, or runs it. */
static bool is_own(const struct gyre_loop *l)
{
    return atomic_load_explicit(&l->owned, memory_order_acquire) && gyre__loop_allows(l);
}

static void look_where(const struct gyre_listener *listener, bool own)
{
    for (uint32_t i = 0; i < listener->acceptor_count; i++)
        if (is_own(listener->acceptors[i]->loop) == own)
            gyre__acceptor_look(listener->acceptors[i]);
}

/* The lock keeps loops that are nobody's yet from getting an owner. Those of this thread are seen to without it, for
 * what fails there goes to the user's log function, which may call the library. The listener may be idle at the last
 * look. */
static void look_everywhere(struct gyre_listener *listener)
{
    struct gyre__set *set = listener->set;
    gyre__listener_hold(listener);
    if (set != NULL)
        (void)pthread_mutex_lock(&set->gate);
    look_where(listener, false);
    if (set != NULL)
        (void)pthread_mutex_unlock(&set->gate);
    look_where(listener, true);
    gyre__listener_release(listener);
}

/* A listener of one loop is for the loop's thread alone. */
static bool is_allowed(const struct gyre_listener *listener)
{
    return listener->set != NULL || gyre__loop_allows(listener->acceptors[0]->loop);
}

int gyre_listener_close(struct gyre_listener *listener)
{
    if (!is_listener(listener))
        return 0;
    if (is_forked(listener))
        return GYRE_EFORK;
    if (!is_allowed(listener))
        return GYRE_ETHREAD;
    if (atomic_exchange(&listener->want, GYRE_LISTENER_CLOSE) != GYRE_LISTENER_CLOSE)
        look_everywhere(listener);
    return 0;
}

static int change_want(struct gyre_listener *listener, int from, int to)
{
    if (!is_listener(listener))
        return -EINVAL;
    if (is_forked(listener))
        return GYRE_EFORK;
    if (!is_allowed(listener))
        return GYRE_ETHREAD;
    if (atomic_compare_exchange_strong(&listener->want, &from, to))
        look_everywhere(listener);
    return from == GYRE_LISTENER_CLOSE ? GYRE_ESTATE : 0;
}

int gyre_listener_pause(struct gyre_listener *listener)
{
    return change_want(listener, GYRE_LISTENER_ACCEPT, GYRE_LISTENER_PAUSE);
}

int gyre_listener_resume(struct gyre_listener *listener)
{
    return change_want(listener, GYRE_LISTENER_PAUSE, GYRE_LISTENER_ACCEPT);
}

int gyre_listener_dup_fd(const struct gyre_listener *listener, uint32_t index)
{
    if (!is_listener(listener) || index >= listener->acceptor_count)
        return -EINVAL;
    const struct gyre__acceptor *a = listener->acceptors[index];
    if (atomic_load(&listener->want) == GYRE_LISTENER_CLOSE)
        return GYRE_ESTATE;
    int fd = a->f.fd >= 0 ? a->loop->be->ops->sock->dup(a->loop->be, a->f.fd) : -EINVAL;
    if (fd >= 0 && !is_forked(listener) && !atomic_exchange(&a->listener->shared, true))
        look_everywhere(a->listener);
    return fd;
}
