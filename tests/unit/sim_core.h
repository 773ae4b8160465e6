/* SPDX-License-Identifier: MIT
 * Core's part, played small, for tests that drive the simulator through the seam with options of their own. */
#ifndef GYRE_TEST_SIM_CORE_H
#define GYRE_TEST_SIM_CORE_H

#include "env.h"

#include "socket/addr.h"
#include "seam/backend.h"
#include "buffer/bufpool.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <gyre/sim.h>
#include <string.h>

extern const struct gyre__backend_ops gyre__backend_sim;

#define SIM_MS(n) ((int64_t)(n)*1000000)
#define SIM_QUIET_OPTIONS         \
    (struct gyre_sim_options)     \
    {                             \
        .profile = GYRE_SIM_QUIET \
    }

enum { SIM_BATCH = 64 };

struct sim_op;
typedef void sim_op_fn(struct sim_op *o, const struct gyre__event *ev);

/* An operation and what became of it. */
struct sim_op {
    struct gyre__op op; /* first: events name it */
    sim_op_fn *on_event;
    void *user;
    unsigned events;
    unsigned lasts;
    int32_t res; /* of the newest event */
    uint16_t flags;
    uint16_t buf;
    int64_t total; /* of positive results */
};

struct sim_core {
    struct gyre_sim *sim;
    struct gyre__backend *be;
    struct env_mem mem;
    unsigned inflight;
    unsigned cap; /* events per wait; at most SIM_BATCH */
};

static inline struct gyre__backend *sim_backend_open(struct gyre_sim *sim, const struct gyre_mem *mem, const char *off)
{
    struct gyre__backend *be = NULL;
    char why[128] = "";
    struct gyre__backend_config cfg = {.ops_max = 64, .mem = mem, .sim = sim, .off = off};
    int err = gyre__backend_sim.create(&be, &cfg, why, sizeof why);
    cr_assert_eq(err, 0, "create: %d, %s", err, why);
    return be;
}

static inline void sim_core_open(struct sim_core *c, struct gyre_sim_options options, const char *off)
{
    *c = (struct sim_core){.cap = SIM_BATCH};
    env_mem_init(&c->mem);
    options.mem = &c->mem.mem;
    int err = gyre_sim_create(&c->sim, &options);
    cr_assert_eq(err, 0, "gyre_sim_create: %d", err);
    c->be = sim_backend_open(c->sim, &c->mem.mem, off);
}

/* Whatever is still open goes with it; no memory may stay. */
static inline void sim_core_close(struct sim_core *c)
{
    cr_assert_eq(c->inflight, 0, "%u operations are still in flight", c->inflight);
    c->be->ops->destroy(c->be);
    gyre_sim_destroy(c->sim);
    long blocks = atomic_load(&c->mem.blocks);
    cr_assert_eq(blocks, 0, "%ld blocks of memory were not freed", blocks);
}

static inline void sim_dispatch(struct sim_core *c, const struct gyre__event *ev)
{
    struct sim_op *o = (struct sim_op *)(void *)ev->op;
    cr_assert_neq(o->op.state, GYRE_OPS_IDLE, "an event (res %d) of an operation that is over", ev->res);
    o->events++;
    o->res = ev->res;
    o->flags = ev->flags;
    o->buf = ev->buf;
    o->total += ev->res > 0 ? ev->res : 0;
    if (!(ev->flags & GYRE_EV_MORE)) {
        o->lasts++;
        o->op.state = GYRE_OPS_IDLE;
        o->op.gen++;
        o->op.f->inflight--;
        c->inflight--;
    }
    if (ev->flags & GYRE_EV_BUF)
        gyre__bufpool_receive(o->op.u.recv.pool, ev->buf);
    if (o->on_event != NULL)
        o->on_event(o, ev);
}

static inline int sim_turn(struct sim_core *c, int64_t timeout_ns)
{
    struct gyre__event batch[SIM_BATCH];
    int n = c->be->ops->wait(c->be, batch, c->cap, timeout_ns);
    cr_assert(n >= 0 && (unsigned)n <= c->cap);
    for (int i = 0; i < n; i++)
        sim_dispatch(c, &batch[i]);
    return n;
}

static inline bool sim_op_idle(const struct sim_op *o)
{
    return o->op.state == GYRE_OPS_IDLE;
}

static inline void sim_submit(struct sim_core *c, struct sim_op *o, struct gyre__fd *f, enum gyre__op_kind kind,
                              unsigned flags)
{
    cr_assert(sim_op_idle(o));
    o->op.f = f;
    o->op.kind = (uint8_t)kind;
    o->op.flags = (uint16_t)flags;
    o->op.state = GYRE_OPS_INFLIGHT;
    f->inflight++;
    c->inflight++;
    c->be->ops->submit(c->be, &o->op);
}

static inline void sim_accept(struct sim_core *c, struct sim_op *o, struct gyre__fd *f, unsigned flags)
{
    sim_submit(c, o, f, GYRE_OP_ACCEPT, flags);
}

static inline void sim_connect(struct sim_core *c, struct sim_op *o, struct gyre__fd *f, const struct gyre__addr *addr)
{
    o->op.u.connect.addr = (const struct sockaddr *)&addr->ss;
    o->op.u.connect.len = (uint16_t)addr->len;
    sim_submit(c, o, f, GYRE_OP_CONNECT, 0);
}

static inline void sim_recv(struct sim_core *c, struct sim_op *o, struct gyre__fd *f, void *buf, uint32_t len)
{
    o->op.u.recv.buf = buf;
    o->op.u.recv.len = len;
    sim_submit(c, o, f, GYRE_OP_RECV, 0);
}

static inline void sim_recv_pool(struct sim_core *c, struct sim_op *o, struct gyre__fd *f, struct gyre__bufpool *pool,
                                 unsigned flags)
{
    o->op.u.recv.pool = pool;
    sim_submit(c, o, f, GYRE_OP_RECV, flags | GYRE_OPF_POOL);
}

static inline void sim_send(struct sim_core *c, struct sim_op *o, struct gyre__fd *f, const void *buf, uint32_t len)
{
    o->op.u.send.buf = buf;
    o->op.u.send.len = len;
    sim_submit(c, o, f, GYRE_OP_SEND, 0);
}

static inline void sim_cancel(struct sim_core *c, struct sim_op *o)
{
    if (o->op.state != GYRE_OPS_INFLIGHT)
        return;
    o->op.state = GYRE_OPS_CANCELLING;
    c->be->ops->cancel(c->be, &o->op);
}

/* Turn, time passing, until the operation is over; its result. */
static inline int sim_outcome(struct sim_core *c, struct sim_op *o)
{
    for (int i = 0; i < 1000 && !sim_op_idle(o); i++)
        (void)sim_turn(c, SIM_MS(1000));
    cr_assert(sim_op_idle(o), "an operation of kind %d does not end", o->op.kind);
    return o->res;
}

static inline struct gyre__addr sim_addr(const char *text)
{
    struct gyre__address parsed;
    int err = gyre__addr_parse(&parsed, text);
    cr_assert_eq(err, 0, "%s does not parse", text);
    return parsed.addr;
}

static inline void sim_attach(struct sim_core *c, struct gyre__fd *f, int fd)
{
    cr_assert_geq(fd, 1000000, "no descriptor of the simulation: %d", fd);
    *f = (struct gyre__fd){.fd = fd, .be_flags = 0xff};
    int err = c->be->ops->attach(c->be, f);
    cr_assert_eq(err, 0, "attach: %d", err);
}

static inline void sim_open(struct sim_core *c, struct gyre__fd *f, int family)
{
    sim_attach(c, f, c->be->ops->sock->open(c->be, family));
}

static inline void sim_close(struct sim_core *c, struct gyre__fd *f)
{
    c->be->ops->close(c->be, f);
    cr_assert_eq(f->fd, -1);
}

static inline int sim_try_listen(struct sim_core *c, struct gyre__fd *f, const char *address,
                                 struct gyre__listen_config cfg)
{
    struct gyre__addr addr = sim_addr(address);
    cfg.backlog = cfg.backlog > 0 ? cfg.backlog : 16;
    sim_open(c, f, addr.ss.ss_family);
    return c->be->ops->sock->listen(c->be, f->fd, &addr, &cfg);
}

/* Listen, and learn the address. */
static inline struct gyre__addr sim_listen(struct sim_core *c, struct gyre__fd *f, const char *address)
{
    struct gyre__addr addr;
    int err = sim_try_listen(c, f, address, (struct gyre__listen_config){.backlog = 0});
    cr_assert_eq(err, 0, "listen: %d", err);
    cr_assert_eq(c->be->ops->sock->name(c->be, f->fd, false, &addr), 0);
    return addr;
}

/* Two connected ends; the listener is closed again. */
static inline void sim_pair(struct sim_core *c, const char *address, struct gyre__fd *a, struct gyre__fd *b)
{
    struct gyre__fd l;
    struct sim_op accept = {.events = 0}, connect = {.events = 0};
    struct gyre__addr addr = sim_listen(c, &l, address);
    sim_open(c, a, addr.ss.ss_family);
    sim_accept(c, &accept, &l, 0);
    sim_connect(c, &connect, a, &addr);
    cr_assert_eq(sim_outcome(c, &connect), 0);
    sim_attach(c, b, sim_outcome(c, &accept));
    sim_close(c, &l);
}

static inline int sim_send_now(struct sim_core *c, struct gyre__fd *f, const void *buf, uint32_t len)
{
    struct sim_op o = {.events = 0};
    sim_send(c, &o, f, buf, len);
    return sim_outcome(c, &o);
}

static inline struct gyre_sim_counts sim_counts_of(const struct sim_core *c)
{
    struct gyre_sim_counts counts;
    gyre_sim_stats(&counts, c->sim);
    return counts;
}

#endif
