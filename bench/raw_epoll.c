/* SPDX-License-Identifier: MIT
 * A yardstick: the shortest echo server on epoll that is right. Level-triggered, one 64 KiB buffer for all, no state at
 * all. Sending blocks, so a peer that does not read holds up everyone: good enough for a load that always reads. */
#include "raw_listen.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

static _Thread_local char buffer[65536];

static void watch(int epoll_fd, int fd)
{
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0)
        bench_raw_die("epoll_ctl", errno);
}

static void echo(int fd)
{
    ssize_t n = recv(fd, buffer, sizeof buffer, MSG_DONTWAIT);
    if (n < 0 && errno == EAGAIN)
        return;
    for (ssize_t sent = 0, m; sent < n; sent += m) {
        m = send(fd, buffer + sent, (size_t)(n - sent), MSG_NOSIGNAL);
        if (m < 0)
            n = -1;
    }
    if (n <= 0)
        (void)close(fd);
}

static void serve(int listener)
{
    struct epoll_event events[512];
    int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    watch(epoll_fd, listener);
    for (;;) {
        int n = epoll_wait(epoll_fd, events, 512, -1);
        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd;
            if (fd != listener)
                echo(fd);
            else if ((fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC)) >= 0)
                watch(epoll_fd, bench_raw_nodelay(fd));
        }
    }
}

int main(int argc, char **argv)
{
    bench_raw_serve(argc, argv, serve);
}
