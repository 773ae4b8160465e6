/* SPDX-License-Identifier: MIT
 * The echo server on libev, which brings events and leaves reading and writing to the program: one 64 KiB buffer for
 * all, one recv and one send for an event. What the kernel does not take is copied, and the connection waits to send
 * instead of to receive until it is gone. */
#include "raw_listen.h"

#include <errno.h>
#include <ev.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct conn {
    ev_io io; /* first, so that the watcher is the connection */
    char *rest;
    size_t size, sent;
};

static char buffer[65536];

static void close_conn(struct ev_loop *loop, struct conn *c)
{
    ev_io_stop(loop, &c->io);
    (void)close(c->io.fd);
    free(c->rest);
    free(c);
}

static void wait_for(struct ev_loop *loop, struct conn *c, int events)
{
    ev_io_stop(loop, &c->io);
    ev_io_set(&c->io, c->io.fd, events);
    ev_io_start(loop, &c->io);
}

/* How many bytes the kernel took, perhaps 0, or -1. */
static ssize_t try_send(int fd, const char *bytes, size_t size)
{
    ssize_t n = send(fd, bytes, size, MSG_NOSIGNAL | MSG_DONTWAIT);
    return n < 0 && (errno == EAGAIN || errno == EINTR) ? 0 : n;
}

static void send_rest(struct ev_loop *loop, struct conn *c)
{
    ssize_t n = try_send(c->io.fd, c->rest + c->sent, c->size - c->sent);
    if (n < 0) {
        close_conn(loop, c);
        return;
    }
    c->sent += (size_t)n;
    if (c->sent < c->size)
        return;
    free(c->rest);
    c->rest = NULL;
    wait_for(loop, c, EV_READ);
}

static void keep_rest(struct ev_loop *loop, struct conn *c, const char *bytes, size_t size)
{
    c->rest = malloc(size);
    if (c->rest == NULL) {
        close_conn(loop, c);
        return;
    }
    memcpy(c->rest, bytes, size);
    c->size = size, c->sent = 0;
    wait_for(loop, c, EV_WRITE);
}

static void on_io(struct ev_loop *loop, ev_io *io, int events)
{
    struct conn *c = (struct conn *)io;
    if ((events & EV_WRITE) != 0) {
        send_rest(loop, c);
        return;
    }
    ssize_t n = recv(io->fd, buffer, sizeof buffer, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    ssize_t sent = n > 0 ? try_send(io->fd, buffer, (size_t)n) : -1;
    if (sent < 0)
        close_conn(loop, c);
    else if (sent < n)
        keep_rest(loop, c, buffer + sent, (size_t)(n - sent));
}

static void on_accept(struct ev_loop *loop, ev_io *io, int events)
{
    (void)events;
    int fd = accept4(io->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    struct conn *c = fd >= 0 ? calloc(1, sizeof *c) : NULL;
    if (c == NULL) {
        if (fd >= 0)
            (void)close(fd);
        return;
    }
    ev_init(&c->io, on_io);
    ev_io_set(&c->io, bench_raw_nodelay(fd), EV_READ);
    ev_io_start(loop, &c->io);
}

int main(int argc, char **argv)
{
    int fd = bench_raw_listen(argc, argv);
    struct ev_loop *loop = ev_default_loop(EVBACKEND_EPOLL);
    if (loop == NULL || fcntl(fd, F_SETFL, O_NONBLOCK) != 0)
        bench_raw_die("ev_default_loop", ENOSYS);
    ev_io listener;
    ev_init(&listener, on_accept);
    ev_io_set(&listener, fd, EV_READ);
    ev_io_start(loop, &listener);
    (void)ev_run(loop, 0);
    return 0;
}
