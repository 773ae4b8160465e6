/* SPDX-License-Identifier: MIT
 * A core in miniature. The checks in dispatch() are the promises that hold for every event, whatever the test. */
#include "seam.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SEAM_MAGIC = 0x5ea30b00, CANARY_RES = -7777777 };

static void quiet_line(enum gyre_log_level level, const char *text, void *user)
{
    (void)user;
    if (level >= GYRE_LOG_ERROR)
        (void)fprintf(stderr, "backend: %s\n", text);
}

static const struct gyre_log quiet_log = {.line = quiet_line, .level_min = GYRE_LOG_DEBUG};

void seam_open_config(struct seam *s, const struct backend_param *p, struct gyre__backend_config cfg)
{
    *s = (struct seam){.transport = p->transport, .cap = SEAM_BATCH, .real = backends_is_real(p->backend)};
    env_mem_init(&s->mem);
    s->fds_before = env_fd_count();
    cfg.mem = &s->mem.mem;
    cfg.log = &quiet_log;
    backends_leave_out(p);
    s->be = backends_open(p->backend, cfg, &s->sim);
    s->ops = s->be->ops;
    cr_assert_str_eq(s->ops->name, p->backend);
    cr_assert(p->off[0] == '\0' || !seam_uses(s, p->off), "%s is in use", p->off);
    env_dir_make(s->dir, sizeof s->dir);
}

void seam_open(struct seam *s, const struct backend_param *p)
{
    seam_open_config(s, p, (struct gyre__backend_config){.ops_max = 256});
}

bool seam_uses(struct seam *s, const char *word)
{
    char features[384] = "";
    s->ops->features(s->be, features, sizeof features);
    return backends_names(features, word);
}

static void close_pipes(struct seam *s)
{
    cr_assert_eq(s->pool.pipe_nfree, s->pool.pipe_count, "pipes are missing");
    for (int pipe; (pipe = gyre__bufpool_take_pipe(&s->pool)) != GYRE_BUF_NONE; s->pool.pipe_count--)
        s->ops->sock->pipe->close(s->be, &s->pool.pipes[pipe]);
}

static void close_pool(struct seam *s)
{
    cr_assert_eq(s->held, 0, "%u buffers are still with the test", s->held);
    close_pipes(s);
    s->ops->pool_remove(s->be, &s->pool);
    unsigned free_count = gyre__bufpool_available(&s->pool);
    cr_assert_eq(free_count, s->pool.count_max, "after pool_remove() %u of %u buffers are free", free_count,
                 s->pool.count_max);
    cr_assert_eq(s->pool.held, 0);
    for (unsigned i = 0; i < s->pool.count; i++)
        cr_assert_eq(s->pool.refs[i], 0, "buffer %u is still referenced", i);
    gyre__bufpool_fini(&s->pool);
}

void seam_free_ops(struct seam *s)
{
    while (s->made != NULL) {
        struct seam_op *next = s->made->next_made;
        cr_assert_eq(s->made->submits, s->made->lasts);
        free(s->made);
        s->made = next;
    }
}

void seam_close(struct seam *s)
{
    cr_assert_eq(s->inflight, 0, "%u operations are still in flight", s->inflight);
    cr_assert_eq(s->fds, 0, "%u descriptors are still attached", s->fds);
    env_no_workers();
    struct gyre__event ev[4];
    for (int i = 0; i < 3; i++)
        cr_assert_eq(s->ops->wait(s->be, ev, 4, 0), 0, "an event came with nothing in flight");
    if (s->has_pool)
        close_pool(s);
    s->ops->destroy(s->be);
    backends_sim_free(s->sim);
    seam_free_ops(s);
    env_dir_remove(s->dir);
    long blocks = atomic_load(&s->mem.blocks);
    cr_assert_eq(blocks, 0, "%ld blocks of memory were not freed", blocks);
    int fds = env_fd_count();
    cr_assert_eq(fds, s->fds_before, "%d descriptors were open before, %d are now", s->fds_before, fds);
}

void seam_pool(struct seam *s, uint32_t size_bytes, uint32_t first, uint32_t count_max)
{
    cr_assert_not(s->has_pool);
    cr_assert_eq(gyre__bufpool_init(&s->pool, &s->mem.mem, size_bytes, first, count_max), 0);
    int err = s->ops->pool_add(s->be, &s->pool);
    cr_assert_eq(err, 0, "pool_add: %s", strerror(-err));
    s->has_pool = true;
}

void seam_pipes(struct seam *s, unsigned count)
{
    cr_assert(s->has_pool && s->pool.pipe_count == 0 && count <= GYRE_PIPES_MAX);
    for (unsigned i = 0; i < count; i++) {
        int err = s->ops->sock->pipe->open(s->be, &s->pool.pipes[i], GYRE_PIPE_BYTES);
        cr_assert_eq(err, 0, "a pipe: %s", strerror(-err));
        s->pool.pipe_count++;
        gyre__bufpool_give_pipe(&s->pool, (uint16_t)i);
    }
}

struct seam_op *seam_op_new(struct seam *s)
{
    struct seam_op *so = calloc(1, sizeof *so);
    cr_assert_not_null(so);
    so->next_made = s->made;
    s->made = so;
    return so;
}

static struct gyre__op *fill(struct seam_op *so, struct gyre__fd *f, enum gyre__op_kind kind, unsigned flags)
{
    cr_assert(seam_idle(so), "the test fills an operation that is in flight");
    so->magic = SEAM_MAGIC;
    so->op.f = f;
    so->op.kind = (uint8_t)kind;
    so->op.flags = (uint16_t)flags;
    so->op.next = NULL;
    memset(&so->op.u, 0, sizeof so->op.u);
    return &so->op;
}

void seam_accept(struct seam_op *so, struct gyre__fd *f, unsigned flags)
{
    (void)fill(so, f, GYRE_OP_ACCEPT, flags);
}

void seam_connect(struct seam_op *so, struct gyre__fd *f, const struct gyre__addr *addr)
{
    struct gyre__op *op = fill(so, f, GYRE_OP_CONNECT, 0);
    op->u.connect.addr = (const struct sockaddr *)&addr->ss;
    op->u.connect.len = (uint16_t)addr->len;
}

void seam_recv(struct seam_op *so, struct gyre__fd *f, void *buf, uint32_t len)
{
    struct gyre__op *op = fill(so, f, GYRE_OP_RECV, 0);
    op->u.recv.buf = buf;
    op->u.recv.len = len;
}

void seam_recv_pool(struct seam_op *so, struct gyre__fd *f, struct gyre__bufpool *pool, unsigned flags)
{
    struct gyre__op *op = fill(so, f, GYRE_OP_RECV, flags | GYRE_OPF_POOL);
    op->u.recv.pool = pool;
}

void seam_send(struct seam_op *so, struct gyre__fd *f, const void *buf, uint32_t len)
{
    struct gyre__op *op = fill(so, f, GYRE_OP_SEND, 0);
    op->u.send.buf = buf;
    op->u.send.len = len;
}

void seam_splice(struct seam_op *so, struct gyre__fd *f, const struct gyre__pipe *pipe, uint32_t len)
{
    struct gyre__op *op = fill(so, f, GYRE_OP_SPLICE, 0);
    op->u.splice.pipe = pipe;
    op->u.splice.len = len;
}

void seam_poll(struct seam_op *so, struct gyre__fd *f, unsigned events)
{
    fill(so, f, GYRE_OP_POLL, 0)->u.poll.events = events;
}

void seam_sendmsg(struct seam_op *so, struct gyre__fd *f, struct msghdr *hdr)
{
    fill(so, f, GYRE_OP_SENDMSG, 0)->u.msg.hdr = hdr;
}

void seam_recvmsg(struct seam_op *so, struct gyre__fd *f, struct gyre__bufpool *pool, struct msghdr *room)
{
    struct gyre__op *op = fill(so, f, GYRE_OP_RECVMSG, GYRE_OPF_MULTI | GYRE_OPF_POOL);
    op->u.recvmsg.pool = pool;
    op->u.recvmsg.room = room;
}

void seam_send_dgram(struct seam_op *so, struct gyre__fd *f, struct msghdr *hdr, unsigned flags)
{
    fill(so, f, GYRE_OP_SENDMSG, flags)->u.msg.hdr = hdr;
}

void seam_submit(struct seam *s, struct seam_op *so)
{
    cr_assert(seam_idle(so), "the test submits an operation that is in flight");
    unsigned events = so->events;
    so->op.state = GYRE_OPS_INFLIGHT;
    so->op.f->inflight++;
    so->cancelled = false;
    so->submits++;
    s->inflight++;
    s->be->stats.ops++;
    s->ops->submit(s->be, &so->op);
    cr_assert_eq(events, so->events, "submit() called back");
    cr_assert_eq(so->op.state, GYRE_OPS_INFLIGHT, "submit() moved the state of the operation");
}

void seam_cancel(struct seam *s, struct seam_op *so)
{
    cr_assert_eq(so->op.state, GYRE_OPS_INFLIGHT, "the test cancels what is not in flight, or twice");
    unsigned events = so->events;
    so->op.state = GYRE_OPS_CANCELLING;
    so->cancelled = true;
    s->be->stats.cancels++;
    s->ops->cancel(s->be, &so->op);
    cr_assert_eq(events, so->events, "cancel() called back");
    cr_assert_eq(so->op.state, GYRE_OPS_CANCELLING, "cancel() moved the state of the operation");
}

void seam_attach(struct seam *s, struct gyre__fd *f, int fd, unsigned flags)
{
    *f = (struct gyre__fd){.fd = fd, .flags = (uint8_t)flags, .be_flags = 0xff};
    int err = s->ops->attach(s->be, f);
    cr_assert_eq(err, 0, "attach(%d): %s", fd, strerror(-err));
    cr_assert_eq(f->fd != fd, s->real && (flags & GYRE_FDF_FOREIGN), "attach(%d) left %d", fd, f->fd);
    s->fds++;
}

void seam_fd_close(struct seam *s, struct gyre__fd *f)
{
    cr_assert_eq(f->inflight, 0, "the test closes a descriptor with operations in flight");
    s->ops->close(s->be, f);
    cr_assert_eq(f->fd, -1, "close() leaves fd at %d", f->fd);
    s->fds--;
    memset(f, 0xdb, sizeof *f); /* it may be freed now */
}

int seam_family(const struct seam *s)
{
    switch (s->transport) {
    case TRANSPORT_TCP4:
        return AF_INET;
    case TRANSPORT_TCP6:
        return AF_INET6;
    case TRANSPORT_UNIX:
    case TRANSPORT_ABSTRACT:
        return AF_UNIX;
    }
    cr_assert_fail("no such transport");
    return -1;
}

int seam_socket(struct seam *s)
{
    int fd = s->ops->sock->open(s->be, seam_family(s));
    cr_assert_geq(fd, 0, "open: %s", strerror(-fd));
    return fd;
}

unsigned seam_fd_flags(const struct seam *s, bool accepted)
{
    return (seam_family(s) != AF_UNIX ? GYRE_FDF_INET : 0u) | (accepted ? GYRE_FDF_ACCEPTED : 0u);
}

static void addr_unix(struct seam *s, struct gyre__addr *out)
{
    struct sockaddr_un *un = (struct sockaddr_un *)&out->ss;
    bool abstract = s->transport == TRANSPORT_ABSTRACT;
    un->sun_family = AF_UNIX;
    /* The directory's name is fresh, so it serves for abstract names too. */
    int n = snprintf(un->sun_path, sizeof un->sun_path, "%s/%u", s->dir, s->unix_count++);
    if (abstract)
        un->sun_path[0] = '\0';
    out->len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + (size_t)n + (abstract ? 0 : 1));
}

void seam_addr(struct seam *s, struct gyre__addr *out)
{
    *out = (struct gyre__addr){.len = 0};
    if (seam_family(s) == AF_UNIX) {
        addr_unix(s, out);
        return;
    }
    if (s->transport == TRANSPORT_TCP6) {
        struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&out->ss;
        in6->sin6_family = AF_INET6;
        in6->sin6_addr = in6addr_loopback;
        out->len = sizeof *in6;
        return;
    }
    struct sockaddr_in *in = (struct sockaddr_in *)&out->ss;
    in->sin_family = AF_INET;
    in->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    out->len = sizeof *in;
}

static void check_event(const struct seam_op *so, const struct gyre__event *ev)
{
    bool more = ev->flags & GYRE_EV_MORE;
    bool pipe = ev->flags & GYRE_EV_PIPE, buf = ev->flags & GYRE_EV_BUF;
    const struct gyre__op *op = &so->op;
    cr_assert_eq(so->magic, SEAM_MAGIC, "an event names what is no operation");
    cr_assert_neq(op->state, GYRE_OPS_IDLE, "an event (res %d) of an operation that is over", ev->res);
    cr_assert_eq(ev->flags & ~(GYRE_EV_MORE | GYRE_EV_BUF | GYRE_EV_PIPE), 0, "unknown event flags %x", ev->flags);
    cr_assert(!pipe || (!buf && op->kind == GYRE_OP_RECV && (op->flags & GYRE_OPF_MULTI) && ev->res > 0));
    cr_assert(!more || (op->flags & GYRE_OPF_MULTI), "GYRE_EV_MORE (res %d) from an op that is not multi", ev->res);
    cr_assert(!more || ev->res > 0 || op->kind == GYRE_OP_ACCEPT, "result %d did not end its op", ev->res);
    cr_assert(!more || ev->res >= 0, "error %d did not end its op", ev->res);
    cr_assert_eq(buf || pipe, (op->flags & GYRE_OPF_POOL) && ev->res > 0, "kind %d, res %d, flags %x", op->kind,
                 ev->res, ev->flags);
    cr_assert(ev->res != -ECANCELED || so->cancelled, "-ECANCELED from an op that nobody cancelled");
    cr_assert(ev->res != -EINTR, "-EINTR came out");
    bool may_say_again = op->kind == GYRE_OP_CONNECT || (op->flags & GYRE_OPF_DONTWAIT);
    cr_assert(ev->res != -EAGAIN || may_say_again, "-EAGAIN came out of kind %d", op->kind);
    cr_assert(ev->res != -ENOBUFS || (op->flags & GYRE_OPF_POOL), "-ENOBUFS came out of kind %d", op->kind);
    cr_assert(ev->res <= 0 || op->kind != GYRE_OP_CONNECT, "connect gave %d", ev->res);
    if (op->kind == GYRE_OP_RECV && ev->res > 0 && !pipe)
        cr_assert_leq((uint32_t)ev->res, buf ? op->u.recv.pool->size : op->u.recv.len, "more bytes than room");
    if (op->kind == GYRE_OP_RECVMSG && ev->res > 0) {
        cr_assert_leq((uint32_t)ev->res, op->u.recvmsg.pool->size, "more bytes than room");
        cr_assert_geq((uint32_t)ev->res, 16 + op->u.recvmsg.room->msg_namelen + op->u.recvmsg.room->msg_controllen);
    }
    if (op->kind == GYRE_OP_SEND && ev->res > 0)
        cr_assert_leq((uint32_t)ev->res, op->u.send.len, "more bytes than there were");
    if (op->kind == GYRE_OP_SPLICE && ev->res > 0)
        cr_assert_leq((uint32_t)ev->res, op->u.splice.len, "more bytes than there were");
    cr_assert(op->kind != GYRE_OP_SPLICE || ev->res != 0, "a splice moved nothing and gave no error");
    uint32_t unasked = op->kind == GYRE_OP_POLL ? ~(op->u.poll.events | POLLHUP | POLLERR) : 0;
    cr_assert(op->kind != GYRE_OP_POLL || ev->res != 0, "a poll ended without saying why");
    cr_assert(ev->res <= 0 || ((uint32_t)ev->res & unasked) == 0, "a poll told what was not asked: %x", ev->res);
}

static struct gyre__bufpool *pool_of(const struct gyre__op *op)
{
    return op->kind == GYRE_OP_RECVMSG ? op->u.recvmsg.pool : op->u.recv.pool;
}

static void dispatch(struct seam *s, const struct gyre__event *ev)
{
    struct seam_op *so = (struct seam_op *)(void *)ev->op;
    cr_assert_not_null(so, "an event without an operation");
    check_event(so, ev);
    struct gyre__bufpool *pool = (so->op.flags & GYRE_OPF_POOL) ? pool_of(&so->op) : NULL;
    bool hold = so->hold;
    so->events++;
    so->res = ev->res;
    so->flags = ev->flags;
    so->total += ev->res > 0 ? ev->res : 0;
    s->enobufs += ev->res == -ENOBUFS;
    if (!(ev->flags & GYRE_EV_MORE)) {
        so->lasts++;
        so->op.state = GYRE_OPS_IDLE;
        so->op.gen++;
        so->op.f->inflight--;
        s->inflight--;
    }
    if (ev->flags & GYRE_EV_BUF) {
        gyre__bufpool_receive(pool, ev->buf);
        s->held++;
    }
    if (so->on_event != NULL)
        so->on_event(s, so, ev);
    if ((ev->flags & GYRE_EV_BUF) && !hold) {
        memset(gyre__bufpool_data(pool, ev->buf), 0xc3, (size_t)ev->res);
        gyre__bufpool_release(pool, ev->buf);
        s->held--;
    }
}

int seam_turn(struct seam *s, int64_t timeout_ns)
{
    struct gyre__event batch[SEAM_BATCH + 1];
    struct gyre__event canary = {.res = CANARY_RES, .flags = 0x5555, .buf = 0x6666};
    cr_assert(s->cap > 0 && s->cap <= SEAM_BATCH);
    batch[s->cap] = canary;
    int n = s->ops->wait(s->be, batch, s->cap, timeout_ns);
    cr_assert_geq(n, 0, "wait() returned %d (%s)", n, strerror(n < 0 ? -n : 0));
    cr_assert_leq((unsigned)n, s->cap, "wait() returned %d events where %u fit", n, s->cap);
    cr_assert_eq(memcmp(&batch[s->cap], &canary, sizeof canary), 0, "wait() wrote beyond `cap`");
    s->waits++;
    s->empty += n == 0;
    s->events += (unsigned)n;
    s->be->stats.turns++;
    for (int i = 0; i < n; i++)
        dispatch(s, &batch[i]);
    if (s->on_turn != NULL)
        s->on_turn(s);
    return n;
}

uint64_t seam_now_ns(struct seam *s)
{
    return s->ops->now != NULL ? s->ops->now(s->be) : env_now_ns();
}

void seam_look(struct seam *s)
{
    (void)seam_turn(s, s->real ? 0 : SEAM_MS(1));
}

uint32_t seam_bulk(const struct seam *s, uint32_t bytes)
{
    return s->real ? bytes : bytes / 32;
}

void seam_settle(struct seam *s, int64_t quiet_ns)
{
    uint64_t give_up_ns = env_now_ns() + (uint64_t)SEAM_MS(SEAM_PATIENCE_MS);
    uint64_t since_ns = seam_now_ns(s);
    quiet_ns += s->real ? 0 : SEAM_MS(SEAM_SIM_QUIET_MS);
    while (seam_now_ns(s) - since_ns < (uint64_t)quiet_ns) {
        cr_assert_lt(env_now_ns(), give_up_ns, "events do not cease");
        if (seam_turn(s, quiet_ns) > 0)
            since_ns = seam_now_ns(s);
    }
}

void seam_turn_before(struct seam *s, uint64_t end_ns, const char *what, const char *file, int line)
{
    if (env_now_ns() >= end_ns)
        cr_assert_fail("%s:%d: waited in vain for: %s (%u operations in flight, %llu events so far)", file, line, what,
                       s->inflight, (unsigned long long)s->events);
    (void)seam_turn(s, SEAM_MS(20));
}
