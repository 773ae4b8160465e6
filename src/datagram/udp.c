/* SPDX-License-Identifier: MIT
 * The life of a datagram socket; udp.h tells it. Opening is in open.c, receiving in receive.c, sending in
 * send.c. */
#include "udp.h"

#include <errno.h>
#include <string.h>

/* ---- slots ---- */

static int grow_table(struct gyre__udps *all, const struct gyre_mem *mem)
{
    uint32_t cap = all->cap > 0 ? all->cap * 2 : 4;
    struct gyre_udp **table = gyre__resize(mem, all->table, cap * sizeof(struct gyre_udp *));
    if (table == NULL)
        return -ENOMEM;
    all->table = table;
    all->cap = cap;
    return 0;
}

static struct gyre_udp *add_slot(struct gyre_loop *l)
{
    struct gyre__udps *all = &l->udps;
    if (all->count == all->cap && grow_table(all, l->mem) != 0)
        return NULL;
    struct gyre_udp *u = gyre__alloc(l->mem, sizeof *u);
    if (u == NULL)
        return NULL;
    u->slot = all->count;
    all->table[all->count++] = u;
    return u;
}

static struct gyre_udp *take_slot(struct gyre_loop *l)
{
    struct gyre_udp *u = l->udps.free;
    if (u != NULL)
        l->udps.free = u->next;
    else
        u = add_slot(l);
    if (u == NULL)
        return NULL;
    uint32_t slot = u->slot, generation = u->generation;
    uint16_t gen = u->recv.gen;
    memset(u, 0, sizeof *u);
    u->magic = GYRE_UDP_MAGIC;
    u->slot = slot;
    u->generation = generation;
    u->recv.gen = gen;
    u->loop = l;
    l->udps.open++;
    return u;
}

static void give_slot(struct gyre_udp *u)
{
    struct gyre__udps *all = &u->loop->udps;
    u->magic = GYRE_UDP_DEAD_MAGIC;
    u->state = GYRE_UDP_FREE;
    u->generation++;
    u->next = all->free;
    all->free = u;
    all->open--;
}

void gyre__udps_each(struct gyre_loop *l, void (*fn)(struct gyre_udp *u))
{
    for (uint32_t i = 0; i < l->udps.count; i++)
        if (l->udps.table[i]->state != GYRE_UDP_FREE)
            fn(l->udps.table[i]);
}

void gyre__udps_fini(struct gyre_loop *l)
{
    for (uint32_t i = 0; i < l->udps.count; i++)
        gyre__free(l->mem, l->udps.table[i]);
    gyre__free(l->mem, l->udps.table);
    gyre__udp_sends_fini(l);
    l->udps = (struct gyre__udps){.settle_tail = &l->udps.settle_head};
}

/* ---- beginning and ending ---- */

void gyre__udp_on_timer(struct gyre__timer *t)
{
    struct gyre_udp *u = GYRE_CONTAINER(t, struct gyre_udp, timer);
    GYRE_CHECK(u->magic == GYRE_UDP_MAGIC);
    gyre__udp_end(u, GYRE_ETIMEOUT);
}

int gyre__udp_new(struct gyre_udp **out, struct gyre_loop *l, int fd, int family,
                  const struct gyre_udp_handlers *handlers, const struct gyre_udp_options *options)
{
    struct gyre_udp *u = take_slot(l);
    if (u == NULL)
        return -ENOMEM;
    u->f = (struct gyre_fd){.fd = fd, .flags = GYRE_FDF_DGRAM};
    u->handlers = handlers;
    u->options = *options;
    u->options.device = NULL; /* the caller's memory */
    u->options.local = NULL;
    u->family = family;
    u->recv.f = &u->f;
    u->recv.done = GYRE_DONE_UDP_RECV;
    u->tail = &u->head;
    u->window = GYRE_UDP_WINDOW;
    u->flying_tail = &u->flying;
    u->timer.kind = GYRE_TIMER_UDP;
    if (options->start_paused)
        u->flags |= GYRE_UDPF_PAUSED;
    if (options->no_runs || family == AF_UNIX)
        u->flags |= GYRE_UDPF_NO_RUNS;
    int err = l->be->ops->attach(l->be, &u->f);
    if (err != 0) {
        give_slot(u);
        return err;
    }
    u->state = GYRE_UDP_OPEN;
    *out = u;
    return 0;
}

void gyre__udp_discard(struct gyre_udp *u)
{
    gyre__udp_remove_path(u);
    u->loop->be->ops->close(u->loop->be, &u->f);
    give_slot(u);
}

/* Nothing is in flight any more: tell the user, close, free. */
static void finish(struct gyre_udp *u)
{
    struct gyre_loop *l = u->loop;
    GYRE_CHECK(u->f.inflight == 0 && u->sending == 0);
    gyre__udp_drop_queue(u);
    gyre__count(&u->stats.dropped, gyre__udp_drop_kept(u));
    if (u->handlers->on_close != NULL)
        u->handlers->on_close(u, u->err);
    gyre__udp_remove_path(u);
    l->be->ops->close(l->be, &u->f);
    give_slot(u);
}

void gyre__udp_end(struct gyre_udp *u, int err)
{
    struct gyre_loop *l = u->loop;
    if (u->state == GYRE_UDP_ENDING)
        return;
    u->state = GYRE_UDP_ENDING;
    u->err = err;
    gyre__wheel_stop(&l->wheel, &u->timer);
    gyre__udp_unstarve(u);
    gyre__op_cancel(l, &u->recv);
    gyre__udp_drop_queue(u);
    gyre__udp_cancel_sends(u);
    gyre__udp_settle_later(u);
}

static void begin_close(struct gyre_udp *u)
{
    struct gyre_loop *l = u->loop;
    u->state = GYRE_UDP_CLOSING;
    gyre__udp_update_recv(u);
    gyre__count(&u->stats.dropped, gyre__udp_drop_kept(u));
    gyre__wheel_start(&l->wheel, &u->timer, gyre__loop_now(l) + (uint64_t)u->options.linger_timeout_ns);
    gyre__udp_settle_later(u);
}

void gyre__udp_drain(struct gyre_udp *u)
{
    if (u->state == GYRE_UDP_OPEN)
        begin_close(u);
}

void gyre__udp_shut(struct gyre_udp *u)
{
    gyre__udp_end(u, GYRE_ESHUTDOWN);
}

/* All are ENDING: what nobody will tell of ends as if it had been cancelled, and settling does the rest. */
static void abandon(struct gyre_udp *u)
{
    while (u->flying != NULL)
        gyre__op_abandon(&u->flying->op);
    gyre__op_abandon(&u->recv);
}

void gyre__udps_abandon(struct gyre_loop *l)
{
    gyre__udps_each(l, abandon);
    while (l->udps.settle_head != NULL)
        gyre__udps_settle(l);
}

/* ---- settling ---- */

void gyre__udp_settle_later(struct gyre_udp *u)
{
    struct gyre__udps *all = &u->loop->udps;
    if (u->flags & GYRE_UDPF_SETTLE)
        return;
    u->flags |= GYRE_UDPF_SETTLE;
    u->next = NULL;
    *all->settle_tail = u;
    all->settle_tail = &u->next;
}

static void settle(struct gyre_udp *u)
{
    switch ((enum gyre__udp_state)u->state) {
    case GYRE_UDP_OPEN:
        gyre__udp_deliver_kept(u);
        if (u->state == GYRE_UDP_OPEN)
            gyre__udp_update_recv(u);
        gyre__udp_flush(u);
        gyre__udp_tell_drain(u);
        break;
    case GYRE_UDP_CLOSING:
        gyre__udp_flush(u);
        if (u->out_count == 0)
            gyre__udp_end(u, 0);
        break;
    case GYRE_UDP_ENDING:
        if (u->f.inflight == 0)
            finish(u);
        break;
    case GYRE_UDP_FREE:
        break;
    }
}

void gyre__udps_settle(struct gyre_loop *l)
{
    struct gyre_udp *u = l->udps.settle_head, *next;
    l->udps.settle_head = NULL;
    l->udps.settle_tail = &l->udps.settle_head;
    for (; u != NULL; u = next) {
        next = u->next;
        u->flags &= ~(unsigned)GYRE_UDPF_SETTLE;
        settle(u);
    }
    if (GYRE_UNLIKELY(l->udps.starved != NULL))
        gyre__udps_feed_starved(l);
}

/* ---- the user's side ---- */

int gyre_udp_close(struct gyre_udp *u)
{
    int err = gyre__udp_usable(u);
    if (err == 0)
        begin_close(u);
    return err == GYRE_ETHREAD ? err : 0;
}

int gyre_udp_abort(struct gyre_udp *u)
{
    if (u == NULL || u->magic != GYRE_UDP_MAGIC)
        return 0;
    if (!gyre__loop_allows(u->loop))
        return GYRE_ETHREAD;
    gyre__udp_end(u, 0);
    return 0;
}

int gyre_udp_pause(struct gyre_udp *u)
{
    int err = gyre__udp_usable(u);
    if (err != 0)
        return err;
    u->flags |= GYRE_UDPF_PAUSED;
    gyre__udp_update_recv(u);
    return 0;
}

int gyre_udp_resume(struct gyre_udp *u)
{
    int err = gyre__udp_usable(u);
    if (err != 0)
        return err;
    u->flags &= ~(unsigned)GYRE_UDPF_PAUSED;
    if (u->in.tail != NULL)
        gyre__udp_settle_later(u); /* what is kept comes first */
    else
        gyre__udp_update_recv(u);
    return 0;
}

void gyre_udp_stats(const struct gyre_udp *u, struct gyre_udp_counts *out)
{
    struct gyre_backend *be = u->loop->be;
    *out = u->stats;
    if (u->state != GYRE_UDP_FREE)
        out->kernel_dropped = (uint64_t)be->ops->sock->dgram_drops(be, u->f.fd);
}

struct gyre_loop *gyre_udp_loop(const struct gyre_udp *u)
{
    return u->loop;
}

void *gyre_udp_user(const struct gyre_udp *u)
{
    return u->options.user;
}

void gyre_udp_set_user(struct gyre_udp *u, void *user)
{
    u->options.user = user;
}

int gyre_udp_fd(const struct gyre_udp *u)
{
    return u->f.fd;
}

const char *gyre_udp_address(const struct gyre_udp *u)
{
    return u->address;
}

static int address(const struct gyre_udp *u, bool peer, struct sockaddr_storage *out, socklen_t *out_len)
{
    struct gyre_addr addr;
    if (u == NULL)
        return GYRE_ECLOSED;
    if (!gyre__loop_allows(u->loop))
        return GYRE_ETHREAD;
    if (out == NULL || out_len == NULL)
        return -EINVAL;
    struct gyre_backend *be = u->loop->be;
    int err = be->ops->sock->name(be, u->f.fd, peer, &addr);
    if (err != 0)
        return err;
    *out = addr.ss;
    *out_len = addr.len;
    return 0;
}

int gyre_udp_local_address(const struct gyre_udp *u, struct sockaddr_storage *out, socklen_t *out_len)
{
    return address(u, false, out, out_len);
}

int gyre_udp_peer_address(const struct gyre_udp *u, struct sockaddr_storage *out, socklen_t *out_len)
{
    return address(u, true, out, out_len);
}
