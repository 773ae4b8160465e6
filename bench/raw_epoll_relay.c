/* SPDX-License-Identifier: MIT
 * A yardstick: the shortest relay on epoll that is right. Level-triggered, one 64 KiB buffer for all, received from one
 * side and sent to the other at once. What the kernel does not take is kept, and the side it came from is not read
 * until it is gone. The end of either side is the end of both. */
#include "raw_listen.h"
#include "raw_relay.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { FDS_MAX = 65536, EVENTS_MAX = 512 };

static struct side {
    int peer;
    uint32_t events; /* that epoll is asked for */
    char *rest;      /* for this side, and not taken by the kernel yet */
    size_t size, sent;
} sides[FDS_MAX];
static char buffer[65536];
static struct epoll_event events[EVENTS_MAX];
static int nevents;

static void want(int epoll_fd, int op, int fd, uint32_t wanted)
{
    struct epoll_event event = {.events = wanted, .data.fd = fd};
    sides[fd].events = wanted;
    if (epoll_ctl(epoll_fd, op, fd, &event) != 0)
        bench_raw_die("epoll_ctl", errno);
}

/* Ends both sides, and forgets the events of the other one that were brought already. */
static void end(int fd)
{
    int both[2] = {fd, sides[fd].peer};
    for (int i = 0; i < 2; i++) {
        free(sides[both[i]].rest);
        sides[both[i]] = (struct side){.peer = -1};
        (void)close(both[i]);
    }
    for (int i = 0; i < nevents; i++) {
        if (events[i].data.fd == both[0] || events[i].data.fd == both[1])
            events[i].events = 0;
    }
}

/* How many bytes the kernel took, perhaps 0, or -1. */
static ssize_t try_send(int fd, const char *bytes, size_t size)
{
    ssize_t n = send(fd, bytes, size, MSG_NOSIGNAL | MSG_DONTWAIT);
    return n < 0 && (errno == EAGAIN || errno == EINTR) ? 0 : n;
}

static void keep_rest(int epoll_fd, int from, int to, const char *bytes, size_t size)
{
    struct side *s = &sides[to];
    s->rest = malloc(size);
    if (s->rest == NULL)
        bench_raw_die("malloc", ENOMEM);
    memcpy(s->rest, bytes, size);
    s->size = size, s->sent = 0;
    want(epoll_fd, EPOLL_CTL_MOD, from, sides[from].events & ~(uint32_t)EPOLLIN);
    want(epoll_fd, EPOLL_CTL_MOD, to, s->events | EPOLLOUT);
}

static void on_readable(int epoll_fd, int fd)
{
    int peer = sides[fd].peer;
    ssize_t n = recv(fd, buffer, sizeof buffer, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    ssize_t sent = n > 0 ? try_send(peer, buffer, (size_t)n) : -1;
    if (sent < 0)
        end(fd);
    else if (sent < n)
        keep_rest(epoll_fd, fd, peer, buffer + sent, (size_t)(n - sent));
}

static void on_writable(int epoll_fd, int fd)
{
    struct side *s = &sides[fd];
    ssize_t n = try_send(fd, s->rest + s->sent, s->size - s->sent);
    if (n < 0) {
        end(fd);
        return;
    }
    s->sent += (size_t)n;
    if (s->sent < s->size)
        return;
    free(s->rest);
    s->rest = NULL;
    want(epoll_fd, EPOLL_CTL_MOD, fd, s->events & ~(uint32_t)EPOLLOUT);
    want(epoll_fd, EPOLL_CTL_MOD, s->peer, sides[s->peer].events | EPOLLIN);
}

static void on_accepted(int epoll_fd, int fd)
{
    int peer = fd < FDS_MAX ? bench_raw_relay_connect() : -1;
    if (peer < 0 || peer >= FDS_MAX) {
        (void)close(fd);
        if (peer >= 0)
            (void)close(peer);
        return;
    }
    sides[fd] = (struct side){.peer = peer};
    sides[peer] = (struct side){.peer = fd};
    want(epoll_fd, EPOLL_CTL_ADD, bench_raw_nodelay(fd), EPOLLIN);
    want(epoll_fd, EPOLL_CTL_ADD, peer, EPOLLIN);
}

int main(int argc, char **argv)
{
    int listener = bench_raw_relay_listen(argc, argv);
    int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    want(epoll_fd, EPOLL_CTL_ADD, listener, EPOLLIN);
    for (;;) {
        nevents = epoll_wait(epoll_fd, events, EVENTS_MAX, -1);
        for (int i = 0; i < nevents; i++) {
            int fd = events[i].data.fd;
            if (fd == listener) {
                int conn = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
                if (conn >= 0)
                    on_accepted(epoll_fd, conn);
                continue;
            }
            if ((events[i].events & EPOLLOUT) != 0)
                on_writable(epoll_fd, fd);
            if ((events[i].events & ~(uint32_t)EPOLLOUT) != 0)
                on_readable(epoll_fd, fd);
        }
    }
}
