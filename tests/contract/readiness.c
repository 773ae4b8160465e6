/* SPDX-License-Identifier: MIT
 * Driving one end of a connection through the seam and the other by hand. */
#include "readiness.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

_Thread_local long rd_ctl_calls;

/* In place of the C library's, to count. What fails changes nothing; the shim asks that way. */
struct epoll_event;
int epoll_ctl(int epfd, int op, int fd, struct epoll_event *event);

int epoll_ctl(int epfd, int op, int fd, struct epoll_event *event)
{
    int res = (int)syscall(SYS_epoll_ctl, epfd, op, fd, event);
    rd_ctl_calls += res == 0;
    return res;
}

struct criterion_test_params rd_backends(void)
{
    static struct backend_param params[4];
    size_t count = 0;
    struct criterion_test_params all = backends_each_real();
    for (size_t i = 0; i < all.length; i++) {
        const struct backend_param *p = (const struct backend_param *)all.params + i;
        if (strcmp(p->backend, "epoll") == 0 || strcmp(p->backend, "kqueue") == 0)
            params[count++] = *p;
    }
    return cr_make_param_array(struct backend_param, params, count, NULL);
}

static void tcp_pair(int fds[2])
{
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof addr;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    fds[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert(listener >= 0 && fds[0] >= 0);
    cr_assert_eq(bind(listener, (struct sockaddr *)&addr, len), 0);
    cr_assert_eq(listen(listener, 1), 0);
    cr_assert_eq(getsockname(listener, (struct sockaddr *)&addr, &len), 0);
    cr_assert_eq(connect(fds[0], (struct sockaddr *)&addr, len), 0);
    fds[1] = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    cr_assert_geq(fds[1], 0);
    close(listener);
}

/* Keeps the bytes, and the buffers if it is to. */
static void on_recv(struct seam *s, struct seam_op *so, const struct gyre__event *ev)
{
    struct rd_end *e = so->user;
    if (!(ev->flags & GYRE_EV_BUF))
        return;
    size_t len = (size_t)ev->res;
    if (e->in_len + len > e->in_cap) {
        e->in_cap = 2 * (e->in_len + len);
        e->in = realloc(e->in, e->in_cap);
        cr_assert_not_null(e->in);
    }
    memcpy(e->in + e->in_len, gyre__bufpool_data(&s->pool, ev->buf), len);
    e->in_len += len;
    if (e->keep) {
        e->held[e->held_count++] = ev->buf;
        return;
    }
    gyre__bufpool_release(&s->pool, ev->buf);
    s->held--;
}

void rd_open(struct seam *s, struct rd_end *e)
{
    int fds[2];
    bool inet = seam_family(s) == AF_INET;
    if (inet)
        tcp_pair(fds);
    else
        cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
    cr_assert_eq(fcntl(fds[0], F_SETFL, O_NONBLOCK), 0);
    *e = (struct rd_end){.s = s, .peer = fds[0], .recv = seam_op_new(s), .send = seam_op_new(s)};
    e->recv->on_event = on_recv;
    e->recv->user = e;
    e->recv->hold = true;
    seam_attach(s, &e->f, fds[1], GYRE_FDF_ACCEPTED | (inet ? GYRE_FDF_INET : 0u));
}

void rd_close(struct rd_end *e)
{
    for (unsigned i = 0; i < e->held_count; i++) {
        gyre__bufpool_release(&e->s->pool, e->held[i]);
        e->s->held--;
    }
    if (!seam_idle(e->recv))
        seam_cancel(e->s, e->recv);
    if (!seam_idle(e->send))
        seam_cancel(e->s, e->send);
    seam_until(e->s, seam_idle(e->recv) && seam_idle(e->send));
    seam_fd_close(e->s, &e->f);
    if (e->peer >= 0)
        close(e->peer);
    free(e->in);
}

void rd_receive(struct rd_end *e, unsigned flags)
{
    seam_recv_pool(e->recv, &e->f, &e->s->pool, flags);
    seam_submit(e->s, e->recv);
}

void rd_send(struct rd_end *e, const void *data, uint32_t len)
{
    seam_send(e->send, &e->f, data, len);
    seam_submit(e->s, e->send);
}

size_t rd_peer_send(struct rd_end *e, const void *data, size_t len)
{
    ssize_t n = send(e->peer, data, len, MSG_NOSIGNAL);
    cr_assert(n >= 0 || errno == EAGAIN, "%s", strerror(errno));
    return n < 0 ? 0 : (size_t)n;
}

void rd_peer_write(struct rd_end *e, const void *data, size_t len)
{
    cr_assert_eq(rd_peer_send(e, data, len), len);
}

void rd_peer_read(struct rd_end *e, void *data, size_t len)
{
    uint8_t *at = data;
    while (len > 0) {
        struct pollfd p = {.fd = e->peer, .events = POLLIN};
        cr_assert_eq(poll(&p, 1, 10000), 1, "the peer waits in vain for %zu bytes", len);
        ssize_t n = recv(e->peer, at, len, 0);
        cr_assert_gt(n, 0);
        at += n;
        len -= (size_t)n;
    }
}

void rd_peer_fin(struct rd_end *e)
{
    cr_assert_eq(shutdown(e->peer, SHUT_WR), 0);
}

void rd_arrived(struct rd_end *e, int bytes)
{
    int n = 0;
    uint64_t end_ns = env_now_ns() + (uint64_t)SEAM_MS(10000);
    while (ioctl(e->f.fd, FIONREAD, &n) == 0 && n < bytes) {
        struct pollfd p = {.fd = e->f.fd, .events = POLLIN};
        cr_assert_lt(env_now_ns(), end_ns, "%d of %d bytes arrived", n, bytes);
        (void)poll(&p, 1, 1);
    }
}
