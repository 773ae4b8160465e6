/* SPDX-License-Identifier: MIT
 * Watching descriptors of others.
 *
 * The normal course: one POLL is in flight; its event is told, and then the next is submitted, which ends at once if
 * what was told still holds. That is what makes it level-triggered, and bounds it to one call per turn.
 *
 * What can go wrong. The user changes what to watch for while a POLL is in flight: it is cancelled, whatever it brings
 * is dropped, and the next one asks anew, so that nothing is lost and nothing is told that was not asked. The user
 * closes the watch in its callback, or in another's when its event is on its way already: a closed one tells nothing,
 * and its memory is used again only when its last event has come and no callback of it runs. The POLL fails: that is
 * told, and closes the watch. Memory is kept for the next watch until the loop goes, because a backend may look at an
 * operation that was given up long ago. */
#include "watch.h"
#include "base/refuse.h"

#include <gyre/watch.h>

#include <errno.h>
#include <poll.h>
#include <string.h>

enum { WATCH_MAGIC = 0x77617463, WATCH_DEAD_MAGIC = 0x64656164 };
enum {
    ALWAYS_TOLD = GYRE_WATCH_HANGUP | GYRE_WATCH_ERROR,
    ALL_EVENTS = GYRE_WATCH_READABLE | GYRE_WATCH_WRITABLE | GYRE_WATCH_PRIORITY | ALWAYS_TOLD,
};

struct gyre_watch {
    uint32_t magic;
    uint32_t events; /* what the user asks for */
    struct gyre_loop *loop;
    struct gyre_watch *next, **prev; /* on one of the loop's lists; when free, `next` alone */
    struct gyre__fd f;               /* the copy */
    struct gyre__op poll;
    gyre_watch_fn *fn;
    void *user;
    int fd;       /* the user's */
    bool closed;  /* waits for its last event, or the end of its callback */
    bool calling; /* its callback runs */
    bool again;   /* what to watch for has changed: what is in flight does not count */
};

static const struct {
    unsigned ours, poll;
} words[] = {
    {GYRE_WATCH_READABLE, POLLIN}, {GYRE_WATCH_WRITABLE, POLLOUT}, {GYRE_WATCH_PRIORITY, POLLPRI},
    {GYRE_WATCH_HANGUP, POLLHUP},  {GYRE_WATCH_ERROR, POLLERR},
};

static uint32_t to_poll(unsigned events)
{
    uint32_t mask = 0;
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        mask |= events & ~(unsigned)ALWAYS_TOLD & words[i].ours ? words[i].poll : 0u;
    return mask;
}

static unsigned from_poll(uint32_t mask)
{
    unsigned events = 0;
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        events |= mask & words[i].poll ? words[i].ours : 0u;
    return events;
}

/* ---- slots ---- */

static void put_on(struct gyre_watch **list, struct gyre_watch *w)
{
    w->next = *list;
    w->prev = list;
    if (w->next != NULL)
        w->next->prev = &w->next;
    *list = w;
}

static void take_off(struct gyre_watch *w)
{
    *w->prev = w->next;
    if (w->next != NULL)
        w->next->prev = w->prev;
}

static struct gyre_watch *take_slot(struct gyre_loop *l)
{
    struct gyre_watch *w = l->watches->free;
    if (w == NULL)
        return gyre__alloc(l->mem, sizeof *w);
    uint16_t gen = w->poll.gen;
    l->watches->free = w->next;
    memset(w, 0, sizeof *w);
    w->poll.gen = gen;
    return w;
}

static void give_slot(struct gyre_loop *l, struct gyre_watch *w)
{
    w->magic = WATCH_DEAD_MAGIC;
    w->next = l->watches->free;
    l->watches->free = w;
}

/* ---- a life ---- */

/* Go on, as far as that is to be: the next POLL, or after a close the end. */
static void settle(struct gyre_watch *w)
{
    struct gyre_loop *l = w->loop;
    if (w->calling || w->poll.state != GYRE_OPS_IDLE)
        return;
    if (w->closed) {
        take_off(w);
        l->be->ops->close(l->be, &w->f);
        l->watches->count--;
        gyre__gauge(&l->be->stats.watches, l->watches->count);
        give_slot(l, w);
        return;
    }
    w->again = false;
    if (w->events == 0)
        return;
    w->poll.u.poll.events = to_poll(w->events);
    gyre__op_submit(l, &w->poll);
}

static void begin_close(struct gyre_watch *w)
{
    w->closed = true;
    take_off(w);
    put_on(&w->loop->watches->closing, w);
    gyre__op_cancel(w->loop, &w->poll);
}

static void tell(struct gyre_watch *w, unsigned events, int err)
{
    w->calling = true;
    w->fn(w, events, err, w->user);
    w->calling = false;
}

static void fail(struct gyre_watch *w, int err)
{
    begin_close(w);
    tell(w, 0, err);
    settle(w);
}

void gyre__watch_on_poll(struct gyre__op *op, const struct gyre__event *ev)
{
    struct gyre_watch *w = GYRE_CONTAINER(op, struct gyre_watch, poll);
    GYRE_CHECK(w->magic == WATCH_MAGIC && !w->calling);
    bool counts = !w->closed && !w->again;
    if (counts && ev->res < 0) {
        fail(w, ev->res);
        return;
    }
    if (counts)
        tell(w, from_poll((uint32_t)ev->res), 0);
    settle(w);
}

void gyre__watches_end(struct gyre_loop *l)
{
    while (l->watches->open != NULL)
        fail(l->watches->open, GYRE_ESHUTDOWN);
}

void gyre__watches_abandon(struct gyre_loop *l)
{
    while (l->watches->closing != NULL)
        gyre__op_abandon(l, &l->watches->closing->poll);
}

int gyre__watches_init(struct gyre_loop *l)
{
    l->watches = gyre__alloc(l->mem, sizeof *l->watches);
    return l->watches != NULL ? 0 : -ENOMEM;
}

void gyre__watches_fini(struct gyre_loop *l)
{
    if (l->watches == NULL)
        return;
    while (l->watches->free != NULL) {
        struct gyre_watch *next = l->watches->free->next;
        gyre__free(l->mem, l->watches->free);
        l->watches->free = next;
    }
    gyre__free(l->mem, l->watches);
    l->watches = NULL;
}

/* ---- the user's side ---- */

int gyre_watch_open(struct gyre_watch **out, struct gyre_loop *loop, int fd, unsigned events, gyre_watch_fn *fn,
                    void *user)
{
    if (out == NULL || loop == NULL || fn == NULL)
        return -EINVAL;
    if (!gyre__loop_allows(loop))
        return GYRE_ETHREAD;
    if (loop->phase == GYRE_PHASE_ENDING)
        return GYRE_ESHUTDOWN;
    if (events & ~(unsigned)ALL_EVENTS)
        return gyre__refuse("events is 0x%x; the flags are 0x%x together", events, ALL_EVENTS);
    struct gyre_watch *w = take_slot(loop);
    if (w == NULL)
        return -ENOMEM;
    w->f = (struct gyre__fd){.fd = fd, .flags = GYRE_FDF_FOREIGN};
    int err = loop->be->ops->attach(loop->be, &w->f);
    if (err != 0) {
        give_slot(loop, w);
        return err;
    }
    w->magic = WATCH_MAGIC;
    w->events = events;
    w->loop = loop;
    w->fn = fn;
    w->user = user;
    w->fd = fd;
    w->poll.f = &w->f;
    w->poll.kind = GYRE_OP_POLL;
    w->poll.done = GYRE_DONE_WATCH;
    put_on(&loop->watches->open, w);
    loop->watches->count++;
    gyre__gauge(&loop->be->stats.watches, loop->watches->count);
    settle(w);
    *out = w;
    return 0;
}

int gyre_watch_set(struct gyre_watch *w, unsigned events)
{
    if (w == NULL)
        return -EINVAL;
    GYRE_CHECK(w->magic == WATCH_MAGIC);
    if (!gyre__loop_allows(w->loop))
        return GYRE_ETHREAD;
    if (events & ~(unsigned)ALL_EVENTS)
        return gyre__refuse("events is 0x%x; the flags are 0x%x together", events, ALL_EVENTS);
    if (w->closed)
        return GYRE_ECLOSED;
    if (events == w->events)
        return 0;
    w->events = events;
    if (w->poll.state != GYRE_OPS_IDLE)
        w->again = true;
    gyre__op_cancel(w->loop, &w->poll);
    settle(w);
    return 0;
}

int gyre_watch_close(struct gyre_watch *w)
{
    if (w == NULL)
        return 0;
    GYRE_CHECK(w->magic == WATCH_MAGIC);
    if (!gyre__loop_allows(w->loop))
        return GYRE_ETHREAD;
    if (w->closed)
        return 0;
    begin_close(w);
    settle(w);
    return 0;
}

int gyre_watch_fd(const struct gyre_watch *w)
{
    return w->fd;
}

unsigned gyre_watch_events(const struct gyre_watch *w)
{
    return w->events;
}
