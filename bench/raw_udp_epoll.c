/* SPDX-License-Identifier: MIT
 * A yardstick: the shortest UDP echo server on epoll that is right. Up to 64 datagrams with one recvmmsg, back with one
 * sendmmsg from where they lie. */
#include "raw_listen.h"

#include <errno.h>
#include <netinet/in.h>
#include <stddef.h>
#include <sys/epoll.h>
#include <sys/socket.h>

enum { BATCH = 64, SIZE_MAX_UDP = 65536 };

static char bytes[BATCH][SIZE_MAX_UDP];
static struct sockaddr_in peers[BATCH];
static struct iovec iov[BATCH];
static struct mmsghdr messages[BATCH];

static void prepare(int count)
{
    for (int i = 0; i < count; i++) {
        iov[i] = (struct iovec){.iov_base = bytes[i], .iov_len = SIZE_MAX_UDP};
        messages[i].msg_hdr =
            (struct msghdr){.msg_name = &peers[i], .msg_namelen = sizeof peers[i], .msg_iov = &iov[i], .msg_iovlen = 1};
    }
}

static void echo(int fd)
{
    int n = recvmmsg(fd, messages, BATCH, MSG_DONTWAIT, NULL);
    if (n < 0)
        return; /* nothing there, or an error of a datagram sent before */
    for (int i = 0; i < n; i++)
        iov[i].iov_len = messages[i].msg_len;
    for (int sent = 0; sent < n;) {
        int m = sendmmsg(fd, messages + sent, (unsigned)(n - sent), 0);
        sent += m > 0 ? m : 1; /* one that cannot be sent is lost */
    }
    prepare(n);
}

int main(int argc, char **argv)
{
    int fd = bench_raw_bind_udp(argc, argv);
    int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0)
        bench_raw_die("epoll_ctl", errno);
    prepare(BATCH);
    for (;;) {
        if (epoll_wait(epoll_fd, &event, 1, -1) == 1)
            echo(fd);
    }
}
