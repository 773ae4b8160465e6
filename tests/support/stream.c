/* SPDX-License-Identifier: MIT
 * Connections over the seam, and pattern bytes through them. */
#include "stream.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { STREAM_BUF = 64 * 1024, RUBBISH_IN = 0x3c, RUBBISH_OUT = 0xe1 };

void listener_open(struct seam *s, struct listener *l, uint32_t backlog)
{
    struct gyre__addr addr;
    const struct gyre__sock_ops *sock = s->ops->sock;
    *l = (struct listener){.accept = seam_op_new(s)};
    int fd = seam_socket(s);
    seam_addr(s, &addr);
    int err = sock->listen(s->be, fd, &addr, &(struct gyre__listen_config){.backlog = backlog});
    cr_assert_eq(err, 0, "listen: %s", strerror(-err));
    err = sock->name(s->be, fd, false, &l->addr);
    cr_assert_eq(err, 0, "name: %s", strerror(-err));
    seam_attach(s, &l->f, fd, seam_fd_flags(s, false) | GYRE_FDF_LISTEN | s->listen_flags);
}

void listener_close(struct seam *s, struct listener *l)
{
    if (l->accept->op.state == GYRE_OPS_INFLIGHT)
        seam_cancel(s, l->accept);
    seam_until(s, seam_idle(l->accept));
    seam_fd_close(s, &l->f);
}

/* What a pipe holds is what its event says, to the byte; it goes back empty. */
static const uint8_t *empty_pipe(struct stream *st, const struct gyre__event *ev)
{
    static uint8_t bytes[GYRE_PIPE_BYTES + 1];
    const struct gyre__pipe *pipe = &st->s->pool.pipes[ev->buf];
    cr_assert_leq(ev->res, GYRE_PIPE_BYTES);
    size_t got = 0;
    for (int64_t n; (n = st->s->ops->sock->pipe->read(st->s->be, pipe, bytes + got, sizeof bytes - got)) > 0;)
        got += (size_t)n;
    cr_assert_eq(got, (size_t)ev->res, "a pipe of %d bytes holds %zu", ev->res, got);
    gyre__bufpool_give_pipe(&st->s->pool, ev->buf);
    st->pipes++;
    return bytes;
}

static const uint8_t *bytes_of(struct stream *st, const struct gyre__event *ev)
{
    if (ev->flags & GYRE_EV_PIPE)
        return empty_pipe(st, ev);
    return ev->flags & GYRE_EV_BUF ? gyre__bufpool_data(&st->s->pool, ev->buf) : st->in;
}

static void on_recv(struct seam *s, struct seam_op *so, const struct gyre__event *ev)
{
    struct stream *st = so->user;
    (void)s;
    if (ev->res > 0) {
        const uint8_t *data = bytes_of(st, ev);
        int64_t bad = env_pattern_check(data, (size_t)ev->res, st->key_in, st->got);
        cr_assert_eq(bad, -1, "pattern %u: byte %llu is wrong (%d came, at %llu)", st->key_in,
                     (unsigned long long)st->got + (unsigned long long)bad, ev->res, (unsigned long long)st->got);
        st->got += (unsigned)ev->res;
        st->after_end += st->eof || st->recv_err != 0;
        cr_assert_eq(st->after_end, 0, "data after the end of the stream");
    }
    if (ev->flags & GYRE_EV_MORE)
        return;
    if (st->in != NULL)
        memset(st->in, RUBBISH_IN, st->in_size);
    if (ev->res == 0)
        st->eof = true;
    else if (ev->res == -ENOBUFS)
        st->starved = st->receiving;
    else if (ev->res < 0)
        st->recv_err = ev->res;
    else if (st->receiving)
        stream_receive(st, st->recv_flags);
}

static void send_more(struct stream *st)
{
    uint64_t left = st->send_goal - st->sent;
    uint32_t len = left < st->out_size ? (uint32_t)left : st->out_size;
    env_pattern_fill(st->out, len, st->key_out, st->sent);
    seam_send(st->send, &st->f, st->out, len);
    seam_submit(st->s, st->send);
}

static void finish(struct stream *st)
{
    int err = st->s->ops->sock->shutdown(st->s->be, st->f.fd);
    cr_assert(err == 0 || err == -ENOTCONN, "shutdown: %s", strerror(-err));
}

static void on_sent(struct seam *s, struct seam_op *so, const struct gyre__event *ev)
{
    struct stream *st = so->user;
    (void)s;
    memset(st->out, RUBBISH_OUT, st->out_size); /* the last event gives the buffer back */
    if (ev->res < 0) {
        st->send_err = ev->res;
        return;
    }
    cr_assert_gt(ev->res, 0, "a send of some bytes moved none and gave no error");
    st->sent += (unsigned)ev->res;
    if (st->sent < st->send_goal && !so->cancelled)
        send_more(st);
    else if (st->sent >= st->send_goal && st->shutdown_after)
        finish(st);
}

void stream_sizes(struct stream *st, uint32_t out_size, uint32_t in_size)
{
    cr_assert(seam_idle(st->recv) && seam_idle(st->send));
    free(st->out);
    free(st->in);
    st->out = malloc(out_size);
    st->in = malloc(in_size);
    cr_assert(st->out != NULL && st->in != NULL);
    st->out_size = out_size;
    st->in_size = in_size;
}

/* Some buffers are not with receivers: free, or with the backend, which then has them to give. */
static bool has_buffers(const struct seam *s)
{
    return gyre__bufpool_unheld(&s->pool) > 0;
}

/* Arm again those that starved, as long as there are buffers. */
static void feed(struct seam *s)
{
    for (struct stream *st = s->streams; st != NULL && has_buffers(s); st = st->next_open)
        if (st->starved)
            stream_receive(st, st->recv_flags);
}

static void list_add(struct seam *s, struct stream *st)
{
    st->next_open = s->streams;
    s->streams = st;
    s->on_turn = feed;
}

static void list_remove(struct seam *s, const struct stream *st)
{
    struct stream **at = &s->streams;
    while (*at != st)
        at = &(*at)->next_open;
    *at = st->next_open;
}

/* Everything but the descriptor. */
static void stream_init(struct seam *s, struct stream *st, uint32_t key_out, uint32_t key_in)
{
    *st = (struct stream){.s = s, .open = true, .key_out = key_out, .key_in = key_in};
    st->recv = seam_op_new(s);
    st->send = seam_op_new(s);
    stream_sizes(st, STREAM_BUF, STREAM_BUF);
}

static void stream_hooks(struct stream *st)
{
    st->recv->on_event = on_recv;
    st->recv->user = st;
    st->send->on_event = on_sent;
    st->send->user = st;
}

void stream_adopt(struct seam *s, struct stream *st, int fd, bool accepted, uint32_t key_out, uint32_t key_in)
{
    stream_init(s, st, key_out, key_in);
    stream_hooks(st);
    seam_attach(s, &st->f, fd, seam_fd_flags(s, accepted));
    list_add(s, st);
}

void stream_pair(struct seam *s, struct stream *a, struct stream *b, uint32_t key)
{
    struct listener l;
    listener_open(s, &l, 8);
    seam_accept(l.accept, &l.f, 0);
    seam_submit(s, l.accept);

    stream_adopt(s, a, seam_socket(s), false, key, key + 1);
    a->peer = l.addr;
    struct seam_op *connect = seam_op_new(s);
    seam_connect(connect, &a->f, &a->peer);
    seam_submit(s, connect);
    seam_until(s, seam_idle(connect) && seam_idle(l.accept));
    cr_assert_eq(connect->res, 0, "connect: %s", strerror(-connect->res));
    cr_assert_geq(l.accept->res, 0, "accept: %s", strerror(-l.accept->res));
    stream_adopt(s, b, l.accept->res, true, key + 1, key);
    listener_close(s, &l);
}

void stream_receive(struct stream *st, unsigned flags)
{
    cr_assert(seam_idle(st->recv) && !st->eof);
    st->recv_flags = flags;
    st->receiving = true;
    st->starved = false;
    st->recv_err = 0;
    if (flags & GYRE_OPF_POOL) {
        seam_recv_pool(st->recv, &st->f, &st->s->pool, flags);
    } else {
        memset(st->in, RUBBISH_IN, st->in_size);
        seam_recv(st->recv, &st->f, st->in, st->in_size);
        st->recv->op.flags = (uint16_t)flags;
    }
    seam_submit(st->s, st->recv);
}

void stream_pause(struct stream *st)
{
    st->receiving = false;
    st->starved = false;
    if (st->recv->op.state == GYRE_OPS_INFLIGHT)
        seam_cancel(st->s, st->recv);
}

void stream_send(struct stream *st, uint64_t bytes)
{
    st->send_goal += bytes;
    if (st->send_err == -ECANCELED)
        st->send_err = 0;
    if (seam_idle(st->send) && st->send_err == 0 && st->sent < st->send_goal)
        send_more(st);
}

void stream_finish(struct stream *st)
{
    if (seam_idle(st->send))
        finish(st);
    else
        st->shutdown_after = true;
}

void stream_close(struct stream *st)
{
    if (!st->open)
        return;
    stream_pause(st);
    st->send_goal = st->sent;
    if (st->send->op.state == GYRE_OPS_INFLIGHT)
        seam_cancel(st->s, st->send);
    seam_until(st->s, seam_idle(st->recv) && seam_idle(st->send));
    seam_fd_close(st->s, &st->f);
    list_remove(st->s, st);
    free(st->in);
    free(st->out);
    st->in = st->out = NULL;
    st->open = false;
}
