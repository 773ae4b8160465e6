/* SPDX-License-Identifier: MIT
 * The backend: operations in, events out.
 *
 * A submitted operation gets a request, which lives until its last event. Requests that may be able to do something
 * stand in the ready queue; wait() takes them from there in small lots, shuffled, and performs each for one event.
 * Those with more to give go to the end of the queue, and after a few events to the later queue, which is the next
 * wait()'s ready queue: that is how nobody starves. Those that can do nothing are parked until gyre__sim_ready()
 * fetches them, because bytes, room, a connection or a reset arrived.
 *
 * A cancel makes its request ready, or, late, does so only some waits hence; until then the request goes on as if
 * nothing had been asked.
 *
 * With nothing to report wait() moves the clock to the next thing that is due, or to the end of its time. With neither
 * it returns, where a kernel would sleep for ever. */
#include "world.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { CHUNK_REQS = 64, LOT = 16, BURST_MAX = 8, HELD_WAITS_MAX = 6, SCRIBBLE_MAX = 65536 };

struct sim_chunk {
    struct sim_chunk *next;
    struct sim_req reqs[CHUNK_REQS];
};

/* ---- Requests ---- */

static bool add_chunk(struct sim_backend *be)
{
    struct sim_chunk *chunk = gyre__alloc(be->mem, sizeof *chunk);
    if (chunk == NULL)
        return false;
    chunk->next = be->chunks;
    be->chunks = chunk;
    for (int i = CHUNK_REQS - 1; i >= 0; i--) {
        chunk->reqs[i].next = be->free;
        be->free = &chunk->reqs[i];
    }
    return true;
}

static struct sim_req *new_req(struct sim_backend *be, struct gyre__op *op, struct sim_sock *s)
{
    if (be->free == NULL && !add_chunk(be))
        return NULL;
    struct sim_req *req = be->free;
    be->free = req->next;
    *req = (struct sim_req){.op = op, .sock = s, .be = be, .gen = op->gen, .content = gyre__sim_content(op)};
    struct sim_req **at = &s->reqs;
    while (*at != NULL)
        at = &(*at)->next;
    *at = req;
    be->inflight++;
    return req;
}

static void unhold(struct sim_backend *be, struct sim_req *req)
{
    struct sim_req **at = &be->held;
    while (*at != req)
        at = &(*at)->held_next;
    *at = req->held_next;
    req->held = 0;
}

static void free_req(struct sim_backend *be, struct sim_req *req)
{
    struct sim_req **at = &req->sock->reqs;
    while (*at != req)
        at = &(*at)->next;
    *at = req->next;
    if (req->held > 0)
        unhold(be, req);
    GYRE_CHECK(be->inflight > 0);
    be->inflight--;
    req->op = NULL;
    req->next = be->free;
    be->free = req;
}

static struct sim_req *find_req(const struct sim_sock *s, const struct gyre__op *op)
{
    struct sim_req *req = s->reqs;
    while (req != NULL && req->op != op)
        req = req->next;
    return req;
}

/* Nobody may look at what is being received into: not before its event says how many bytes there are. */
static void scribble(const struct sim_backend *be, const struct gyre__op *op)
{
    if (op->kind != GYRE_OP_RECV || (op->flags & GYRE_OPF_POOL) || be->sim->opt.profile != GYRE_SIM_CHAOS)
        return;
    if (op->u.recv.len > 0)
        memset(op->u.recv.buf, SIM_SCRIBBLE, op->u.recv.len < SCRIBBLE_MAX ? op->u.recv.len : SCRIBBLE_MAX);
}

static void sim_submit(struct gyre__backend *base, struct gyre__op *op)
{
    struct sim_backend *be = (struct sim_backend *)base;
    struct sim_sock *s = op->f->be.sim.sock;
    GYRE_CHECK(op->state == GYRE_OPS_INFLIGHT);
    GYRE_CHECK(s != NULL && s->fd == op->f->fd);
    GYRE_CHECK(!(op->f->flags & GYRE_FDF_FOREIGN) || op->kind == GYRE_OP_POLL);
    GYRE_CHECK(op->kind == GYRE_OP_POLL || (s->f == op->f && s->be == be));
    GYRE_CHECK(find_req(s, op) == NULL); /* submitted twice */
    struct sim_req *req = new_req(be, op, s);
    if (req == NULL) {
        op->next = be->broken;
        be->broken = op;
        return;
    }
    scribble(be, op);
    gyre__sim_req_push(&be->ready, req, SIM_READY);
}

static void sim_cancel(struct gyre__backend *base, struct gyre__op *op)
{
    struct sim_backend *be = (struct sim_backend *)base;
    struct gyre_sim *sim = be->sim;
    GYRE_CHECK(op->state != GYRE_OPS_IDLE);
    struct sim_req *req = find_req(op->f->be.sim.sock, op);
    if (req == NULL || req->cancelled)
        return; /* its last event is with core already, or on its way */
    req->cancelled = true;
    if (!gyre__sim_chance(sim, sim->opt.cancel_late_permille)) {
        gyre__sim_req_make_ready(be, req);
        return;
    }
    sim->counts.cancels_late++;
    req->held = (uint8_t)(1 + gyre__sim_below(sim, HELD_WAITS_MAX));
    req->held_next = be->held;
    be->held = req;
}

/* ---- Waiting ---- */

static void count_down_held(struct sim_backend *be)
{
    struct sim_req **at = &be->held;
    while (*at != NULL) {
        struct sim_req *req = *at;
        be->sim->activity++;
        if (--req->held > 0) {
            at = &req->held_next;
            continue;
        }
        *at = req->held_next;
        gyre__sim_req_make_ready(be, req);
    }
}

static void trace(struct sim_backend *be, const struct sim_sock *s, const struct gyre__event *ev)
{
    struct gyre_sim *sim = be->sim;
    sim->activity++;
    sim->counts.events++;
    gyre__sim_trace(sim, sim->now_ns);
    gyre__sim_trace(sim, s->id << 8 | ev->op->kind);
    gyre__sim_trace(sim, (uint64_t)(uint32_t)ev->res << 32 | (uint64_t)ev->flags << 16 | ev->buf);
}

/* What holds for every event, whatever it is. */
static void check_event(struct sim_backend *be, const struct sim_req *req, const struct gyre__event *ev)
{
    GYRE_CHECK(req->op->state != GYRE_OPS_IDLE && req->op->gen == req->gen); /* it is over already */
    GYRE_CHECK(!(ev->flags & GYRE_EV_MORE) || (ev->res >= 0 && (req->op->flags & GYRE_OPF_MULTI)));
    be->bufs_delivered += (ev->flags & GYRE_EV_BUF) != 0;
    GYRE_CHECK(be->bufs_delivered == be->bufs_taken);
    if (!(ev->flags & GYRE_EV_MORE))
        GYRE_CHECK(req->content == gyre__sim_content(req->op)); /* bytes changed while they were being sent */
}

/* Returns whether it made an event. */
static bool perform(struct sim_backend *be, struct sim_req *req, struct gyre__event *out)
{
    struct gyre__event ev = {.op = req->op};
    req->queue = SIM_BUSY;
    req->again = false;
    bool done = gyre__sim_perform(be, req, &ev);
    req->started = true;
    if (!done) {
        req->queue = SIM_PARKED;
        if (req->again)
            gyre__sim_req_push(&be->ready, req, SIM_READY);
        return false;
    }
    check_event(be, req, &ev);
    trace(be, req->sock, &ev);
    *out = ev;
    if (!(ev.flags & GYRE_EV_MORE)) {
        free_req(be, req);
        return true;
    }
    if (req->wait_no != be->wait_no)
        req->burst = 0;
    req->wait_no = be->wait_no;
    if (++req->burst < BURST_MAX)
        gyre__sim_req_push(&be->ready, req, SIM_READY);
    else
        gyre__sim_req_push(&be->later, req, SIM_LATER);
    return true;
}

/* Take some requests off the ready queue, and let some change places. */
static unsigned take_lot(struct sim_backend *be, struct sim_req **lot)
{
    struct gyre_sim *sim = be->sim;
    unsigned count = 0;
    while (count < LOT && be->ready.first != NULL)
        lot[count++] = gyre__sim_req_pop(&be->ready);
    for (unsigned i = count; i > 1; i--) {
        if (!gyre__sim_chance(sim, sim->opt.shuffle_permille))
            continue;
        uint64_t other = gyre__sim_below(sim, i);
        struct sim_req *req = lot[i - 1];
        lot[i - 1] = lot[other];
        lot[other] = req;
    }
    return count;
}

/* Operations that there was no memory for. */
static unsigned fail_broken(struct sim_backend *be, struct gyre__event *out, unsigned cap)
{
    unsigned n = 0;
    while (n < cap && be->broken != NULL) {
        struct gyre__op *op = be->broken;
        be->broken = op->next;
        out[n] = (struct gyre__event){.op = op, .res = -ENOMEM};
        trace(be, op->f->be.sim.sock, &out[n++]);
    }
    return n;
}

static unsigned look(struct sim_backend *be, struct gyre__event *out, unsigned cap)
{
    struct gyre_sim *sim = be->sim;
    struct sim_req *lot[LOT];
    be->wait_no++;
    gyre__sim_due_run(sim);
    while (be->later.first != NULL)
        gyre__sim_req_push(&be->ready, gyre__sim_req_pop(&be->later), SIM_READY);
    count_down_held(be);
    if (cap > 1 && gyre__sim_chance(sim, sim->opt.few_events_permille))
        cap = 1 + (unsigned)gyre__sim_below(sim, cap < LOT ? cap : LOT);
    unsigned n = fail_broken(be, out, cap);
    while (n < cap && be->ready.first != NULL) {
        unsigned count = take_lot(be, lot);
        unsigned i = 0;
        for (; i < count && n < cap; i++)
            n += perform(be, lot[i], &out[n]);
        while (count > i)
            gyre__sim_req_push_front(&be->ready, lot[--count]);
    }
    return n;
}

/* Move the clock on. Returns false if the time to wait is up, or nothing will ever happen. */
static bool pass_time(struct gyre_sim *sim, uint64_t until_ns)
{
    uint64_t next_ns = gyre__sim_due_next_ns(sim);
    if (next_ns == SIM_NEVER_NS && until_ns == SIM_NEVER_NS) {
        sim->counts.idle_waits++;
        return false;
    }
    gyre__sim_clock_to(sim, next_ns < until_ns ? next_ns : until_ns);
    return next_ns <= until_ns;
}

static int wait_for_events(struct gyre__backend *base, struct gyre__event *out, unsigned cap, int64_t timeout_ns)
{
    struct sim_backend *be = (struct sim_backend *)base;
    struct gyre_sim *sim = be->sim;
    uint64_t until_ns = timeout_ns < 0 ? SIM_NEVER_NS : sim->now_ns + (uint64_t)timeout_ns;
    GYRE_CHECK(cap > 0);
    for (;;) {
        unsigned n = look(be, out, cap);
        bool woken = atomic_exchange(&be->woken, false);
        gyre__count(&be->base.stats.wakes, woken);
        if (n > 0 || woken || timeout_ns == 0)
            return (int)n;
        if (be->held != NULL || be->ready.first != NULL)
            continue;
        if (!pass_time(sim, until_ns))
            return 0;
    }
}

static int sim_wait(struct gyre__backend *base, struct gyre__event *out, unsigned cap, int64_t timeout_ns)
{
    int n = wait_for_events(base, out, cap, timeout_ns);
    gyre__count(&base->stats.enters, 1);
    gyre__observe(&base->stats.enter_completions, (unsigned)n);
    return n;
}

static void sim_wake(struct gyre__backend *base)
{
    atomic_store(&((struct sim_backend *)base)->woken, true);
}

static int sim_pollable(struct gyre__backend *base)
{
    (void)base;
    return -1;
}

static uint64_t sim_now(struct gyre__backend *base)
{
    return ((struct sim_backend *)base)->sim->now_ns;
}

/* ---- Life ---- */

static bool is_off(const char *off, const char *feature)
{
    size_t len = strlen(feature);
    while (off != NULL && *off != '\0') {
        size_t run = strcspn(off, ",");
        if (run == len && memcmp(off, feature, len) == 0)
            return true;
        off += run;
        off += *off == ',';
    }
    return false;
}

static int sim_create(struct gyre__backend **out, const struct gyre__backend_config *cfg, char *why, size_t why_size)
{
    const struct gyre_mem *mem = cfg->mem != NULL ? cfg->mem : &gyre__mem_system;
    if (cfg->sim == NULL) {
        (void)snprintf(why, why_size, "no simulated network was given; make one with gyre_sim_create()");
        return -EINVAL;
    }
    struct sim_backend *be = gyre__alloc(mem, sizeof *be);
    if (be == NULL) {
        (void)snprintf(why, why_size, "out of memory");
        return -ENOMEM;
    }
    be->base.ops = &gyre__backend_sim;
    be->mem = mem;
    be->sim = cfg->sim;
    be->one_accept = is_off(cfg->off, "multishot_accept");
    be->one_recv = is_off(cfg->off, "multishot_recv");
    atomic_init(&be->woken, false);
    if (!add_chunk(be)) {
        gyre__free(mem, be);
        (void)snprintf(why, why_size, "out of memory");
        return -ENOMEM;
    }
    struct sim_backend **at = &be->sim->backends;
    while (*at != NULL)
        at = &(*at)->next;
    *at = be;
    *out = &be->base;
    return 0;
}

static void sim_pool_remove(struct gyre__backend *base, struct gyre__bufpool *pool)
{
    struct sim_backend *be = (struct sim_backend *)base;
    GYRE_CHECK(be->pool == pool && be->bufs_taken == be->bufs_delivered);
    be->pool = NULL;
}

static void sim_destroy(struct gyre__backend *base)
{
    struct sim_backend *be = (struct sim_backend *)base;
    GYRE_CHECK(be->inflight == 0 && be->broken == NULL);
    if (be->pool != NULL)
        sim_pool_remove(base, be->pool);
    for (struct sim_sock *s = be->sim->socks; s != NULL; s = s->next)
        if (s->be == be) {
            s->be = NULL;
            s->f = NULL;
        }
    struct sim_backend **at = &be->sim->backends;
    while (*at != be)
        at = &(*at)->next;
    *at = be->next;
    while (be->chunks != NULL) {
        struct sim_chunk *next = be->chunks->next;
        gyre__free(be->mem, be->chunks);
        be->chunks = next;
    }
    gyre__free(be->mem, be);
}

static int sim_attach(struct gyre__backend *base, struct gyre__fd *f)
{
    struct sim_backend *be = (struct sim_backend *)base;
    struct sim_sock *s = gyre__sim_fd_find(be->sim, f->fd);
    bool watches = f->flags & GYRE_FDF_FOREIGN;
    if (s == NULL || s->orphan)
        return -EBADF;
    if (s->f != NULL && !watches)
        return -EEXIST;
    if (!watches) {
        s->be = be;
        s->f = f;
    }
    s->watches += watches;
    f->be_flags = 0;
    memset(&f->be, 0, sizeof f->be);
    f->be.sim.sock = s;
    return 0;
}

static void sim_close(struct gyre__backend *base, struct gyre__fd *f)
{
    struct sim_sock *s = f->be.sim.sock;
    bool watches = f->flags & GYRE_FDF_FOREIGN;
    GYRE_CHECK(s != NULL && (watches || (s->f == f && s->be == (struct sim_backend *)base)));
    GYRE_CHECK(f->inflight == 0); /* core counts, and sock_destroy checks our own list */
    f->fd = -1;
    f->be.sim.sock = NULL;
    if (!watches) {
        gyre__sim_sock_close(s);
        return;
    }
    GYRE_CHECK(s->watches > 0);
    if (--s->watches == 0 && s->orphan)
        gyre__sim_sock_destroy(s);
}

static int sim_detach(struct gyre__backend *base, struct gyre__fd *f)
{
    struct sim_sock *s = f->be.sim.sock;
    GYRE_CHECK(s != NULL && s->f == f && s->be == (struct sim_backend *)base);
    GYRE_CHECK(f->inflight == 0);
    for (const struct sim_req *req = s->reqs; req != NULL; req = req->next)
        GYRE_CHECK(req->op->f != f); /* others may be watching the socket */
    int fd = f->fd;
    s->f = NULL;
    s->be = NULL;
    f->fd = -1;
    f->be.sim.sock = NULL;
    return fd;
}

static int sim_pool_add(struct gyre__backend *base, struct gyre__bufpool *pool)
{
    struct sim_backend *be = (struct sim_backend *)base;
    if (be->pool != NULL)
        return -EBUSY;
    be->pool = pool;
    return 0;
}

static void sim_features(struct gyre__backend *base, char *out, size_t size)
{
    const struct sim_backend *be = (const struct sim_backend *)base;
    bool chaos = be->sim->opt.profile == GYRE_SIM_CHAOS;
    (void)snprintf(out, size, "virtual_clock,%s%s%s", chaos ? "chaos" : "quiet",
                   be->one_accept ? "" : ",multishot_accept", be->one_recv ? "" : ",multishot_recv");
}

static int sim_accept_now(struct gyre__backend *base, struct gyre__fd *f)
{
    const struct sim_backend *be = (const struct sim_backend *)base;
    struct sim_sock *s = gyre__sim_fd_find(be->sim, f->fd);
    if (s == NULL || s->state != SIM_LISTENING)
        return -EINVAL;
    if (s->queue_first == NULL)
        return -EAGAIN;
    int fd = gyre__sim_fd_install(s->queue_first);
    if (fd >= 0)
        (void)gyre__sim_accept(s);
    return fd;
}

const struct gyre__backend_ops gyre__backend_sim = {
    .name = "sim",
    .sock = &gyre__sock_sim,
    .create = sim_create,
    .destroy = sim_destroy,
    .attach = sim_attach,
    .close = sim_close,
    .detach = sim_detach,
    .lookup = gyre__sim_lookup,
    .accept_now = sim_accept_now,
    .submit = sim_submit,
    .cancel = sim_cancel,
    .wait = sim_wait,
    .wake = sim_wake,
    .pollable = sim_pollable,
    .now = sim_now,
    .pool_add = sim_pool_add,
    .pool_remove = sim_pool_remove,
    .features = sim_features,
};
