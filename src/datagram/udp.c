/* SPDX-License-Identifier: MIT
 * The record of a datagram socket: its slot, the marks that calls put on it, and what the user may ask of it. life.c
 * acts on the marks. */
#include "udp.h"

#include <errno.h>
#include <string.h>

/* ---- slots ---- */

static int grow_table(struct gyre__udps *all, const struct gyre_mem *mem)
{
    uint32_t cap = all->cap > 0 ? all->cap * 2 : 4;
    struct gyre_udp **table = gyre__resize_many(mem, all->table, 0, cap, sizeof(struct gyre_udp *));
    if (table == NULL)
        return -ENOMEM;
    all->table = table;
    all->cap = cap;
    return 0;
}

static struct gyre_udp *add_slot(struct gyre_loop *l)
{
    struct gyre__udps *all = l->udps;
    if (all->count == all->cap && grow_table(all, l->mem) != 0)
        return NULL;
    struct gyre_udp *u = gyre__alloc(l->mem, sizeof *u);
    if (u == NULL)
        return NULL;
    u->slot = all->count;
    all->table[all->count++] = u;
    return u;
}

struct gyre_udp *gyre__udp_take_slot(struct gyre_loop *l)
{
    struct gyre_udp *u = l->udps->free;
    if (u != NULL)
        l->udps->free = u->next;
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
    l->udps->open++;
    return u;
}

void gyre__udp_give_slot(struct gyre_udp *u)
{
    struct gyre__udps *all = u->loop->udps;
    u->magic = GYRE_UDP_DEAD_MAGIC;
    u->state = GYRE_UDP_FREE;
    u->generation++;
    u->next = all->free;
    all->free = u;
    all->open--;
}

void gyre__udps_each(struct gyre_loop *l, void (*fn)(struct gyre_udp *u))
{
    for (uint32_t i = 0; i < l->udps->count; i++)
        if (l->udps->table[i]->state != GYRE_UDP_FREE)
            fn(l->udps->table[i]);
}

/* ---- beginning and ending ---- */

void gyre__udp_on_timer(struct gyre__loop_timer *t)
{
    struct gyre_udp *u = GYRE_CONTAINER(t, struct gyre_udp, timer);
    GYRE_CHECK(u->magic == GYRE_UDP_MAGIC);
    gyre__udp_end(u, GYRE_ETIMEOUT);
}

void gyre__udp_end(struct gyre_udp *u, int err)
{
    if (u->state == GYRE_UDP_ENDING)
        return;
    u->state = GYRE_UDP_ENDING;
    u->err = err;
    u->flags |= GYRE_UDPF_ENTERED;
    gyre__wheel_stop(&u->loop->wheel, &u->timer);
    gyre__udp_settle_later(u);
}

static void begin_close(struct gyre_udp *u)
{
    struct gyre_loop *l = u->loop;
    u->state = GYRE_UDP_CLOSING;
    u->flags |= GYRE_UDPF_ENTERED;
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

/* ---- settling ---- */

void gyre__udp_settle_later(struct gyre_udp *u)
{
    struct gyre__udps *all = u->loop->udps;
    if (u->flags & GYRE_UDPF_SETTLE)
        return;
    u->flags |= GYRE_UDPF_SETTLE;
    u->next = NULL;
    *all->settle_tail = u;
    all->settle_tail = &u->next;
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

void gyre_udp_stats(struct gyre_udp_counts *out, const struct gyre_udp *u)
{
    struct gyre__backend *be = u->loop->be;
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
    if (u == NULL)
        return GYRE_ECLOSED;
    return gyre__loop_allows(u->loop) ? gyre__addr_of(u->loop->be, u->f.fd, peer, out, out_len) : GYRE_ETHREAD;
}

int gyre_udp_local_address(struct sockaddr_storage *out, socklen_t *out_len, const struct gyre_udp *u)
{
    return address(u, false, out, out_len);
}

int gyre_udp_peer_address(struct sockaddr_storage *out, socklen_t *out_len, const struct gyre_udp *u)
{
    return address(u, true, out, out_len);
}
