/* SPDX-License-Identifier: MIT
 * Many peers at one datagram socket, each of which sends again when it was answered: what a loop that waits for several
 * datagrams at a time, or receives several with one call, must give back to each of them, however few are left. */
#include "udp.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PEERS = 64, EXCHANGES = 200, LAST_ALONE = 20, LEN = 40 };

struct crowd {
    struct sockaddr_storage to;
    socklen_t to_len;
    struct pollfd fds[PEERS];
    unsigned answered[PEERS];
    unsigned left; /* peers that are not done */
    atomic_uint wrong;
    atomic_bool over;
};

static unsigned exchanges_of(unsigned peer)
{
    return EXCHANGES / (1 + peer % 4) + (peer == 0 ? LAST_ALONE : 0);
}

static void say(struct crowd *crowd, unsigned peer)
{
    uint8_t data[LEN];
    udp_fill(data, sizeof data, peer);
    if (send(crowd->fds[peer].fd, data, sizeof data, 0) != LEN)
        atomic_fetch_add(&crowd->wrong, 1);
}

static void hear(struct crowd *crowd, unsigned peer)
{
    uint8_t data[LEN + 1], want[LEN];
    udp_fill(want, sizeof want, peer);
    ssize_t n = recv(crowd->fds[peer].fd, data, sizeof data, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n != LEN || memcmp(data, want, LEN) != 0)
        atomic_fetch_add(&crowd->wrong, 1);
    if (++crowd->answered[peer] < exchanges_of(peer)) {
        say(crowd, peer);
        return;
    }
    crowd->left--;
    crowd->fds[peer].events = 0;
}

static void *talk(void *arg)
{
    struct crowd *crowd = arg;
    for (unsigned i = 0; i < PEERS; i++)
        say(crowd, i);
    while (crowd->left > 0 && atomic_load(&crowd->wrong) == 0) {
        if (poll(crowd->fds, PEERS, 10000) == 0)
            atomic_fetch_add(&crowd->wrong, 1);
        for (unsigned i = 0; i < PEERS; i++)
            if (crowd->fds[i].revents & POLLIN)
                hear(crowd, i);
    }
    atomic_store(&crowd->over, true);
    return NULL;
}

DGRAM_REAL_TEST(api_udp_crowd, everybody_is_answered)
{
    static const struct dscript echo = {.datagram = udp_echo};
    static struct crowd crowd;
    struct api api;
    struct dsock server;
    pthread_t thread;
    unsigned expected = 0;
    udp_start(&api, p);
    udp_bind(&api, &server, &echo, NULL);
    cr_assert_eq(gyre_udp_local_address(&crowd.to, &crowd.to_len, server.u), 0);
    crowd.left = PEERS;
    for (unsigned i = 0; i < PEERS; i++) {
        int fd = socket(crowd.to.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        crowd.fds[i] = (struct pollfd){.fd = fd, .events = POLLIN};
        cr_assert_eq(connect(fd, (struct sockaddr *)&crowd.to, crowd.to_len), 0);
        expected += exchanges_of(i);
    }
    cr_assert_eq(pthread_create(&thread, NULL, talk, &crowd), 0);
    api_until(&api, atomic_load(&crowd.over));
    cr_assert_eq(pthread_join(thread, NULL), 0);
    cr_assert_eq(atomic_load(&crowd.wrong), 0);
    cr_assert_eq(server.datagrams, expected);
    cr_assert_eq(server.distinct, PEERS);
    for (unsigned i = 0; i < PEERS; i++)
        (void)close(crowd.fds[i].fd);
    udp_close(&server);
    cr_assert_eq(server.stats.sent, expected);
    cr_assert_eq(server.stats.received, expected);
    api_close(&api);
}
