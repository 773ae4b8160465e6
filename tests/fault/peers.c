/* SPDX-License-Identifier: MIT
 * Broken peers: floods of resets, storms of connecting and closing, bytes one at a time, ends in any order. After each
 * the same engine serves the next client in full, and in the end every connection that opened has closed, and memory
 * and descriptors are as before. */
#include "backends.h"
#include "server.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { STORM = 5000, FLOOD = 1500, RESETS = 8000, ODD = 1500, QUIET_MS = 20000 };

static struct server s;
static struct env_rng rng;

static bool open_server(const char *backend)
{
    const struct gyre_loop_options options = {.backend = backend};
    env_rng_init(&rng, 5);
    int err = server_start(&s, &options, 2);
    if (err != 0)
        cr_skip_test("%s: %s", backend, gyre_err_name(err));
    return err == 0;
}

/* All that came has gone, without a stop to help. */
static void expect_rest(void)
{
    uint64_t end_ns = env_now_ns() + QUIET_MS * UINT64_C(1000000);
    while (gyre_engine_conn_count(s.engine) > 0) {
        unsigned long left = (unsigned long)gyre_engine_conn_count(s.engine);
        cr_assert_lt(env_now_ns(), end_ns, "%lu connections stay open", left);
        (void)poll(NULL, 0, 1);
    }
}

static void close_server(void)
{
    const char *wrong = server_check(&s);
    cr_assert_null(wrong, "afterwards: %s", wrong);
    expect_rest();
    wrong = server_stop(&s);
    cr_assert_null(wrong, "%s", wrong);
}

static void reset(int fd)
{
    const struct linger now = {.l_onoff = 1, .l_linger = 0};
    (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    (void)close(fd);
}

static int must_connect(const char *address)
{
    int fd = client_connect(address);
    cr_assert_geq(fd, 0, "connect: errno %d", errno);
    return fd;
}

/* Connect, and reset at once: many are gone before they are accepted. */
REAL_TEST(peers, connect_and_reset)
{
    if (!open_server(p->backend))
        return;
    for (int i = 0; i < STORM; i++)
        reset(must_connect(gyre_listener_address(s.tcp)));
    close_server();
}

/* The same with an orderly close, over both transports, now and then with a byte. */
REAL_TEST(peers, connect_and_close)
{
    if (!open_server(p->backend))
        return;
    for (int i = 0; i < STORM / 2; i++) {
        int fd = must_connect(gyre_listener_address(i % 2 == 0 ? s.tcp : s.local));
        if (i % 7 == 0)
            (void)send(fd, "x", 1, MSG_NOSIGNAL);
        (void)close(fd);
    }
    close_server();
}

/* A connect that is given up on the way: the socket does not block and is closed before the answer is looked at. */
REAL_TEST(peers, connect_and_forget)
{
    struct sockaddr_storage to;
    socklen_t len = sizeof to;
    if (!open_server(p->backend))
        return;
    int one = must_connect(gyre_listener_address(s.tcp));
    cr_assert_eq(getpeername(one, (struct sockaddr *)&to, &len), 0);
    for (int i = 0; i < FLOOD; i++) {
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        cr_assert_geq(fd, 0);
        (void)connect(fd, (struct sockaddr *)&to, len);
        if (i % 2 == 0)
            reset(fd);
        else
            (void)close(fd);
    }
    (void)close(one);
    close_server();
}

/* Resets in the middle of things: data sent, the echo unread, more on its way. Many, because on io_uring it takes some
 * thousands until a send has failed with the reset and the receive, still armed, does not end. */
REAL_TEST(peers, reset_with_data_in_flight)
{
    static uint8_t bytes[65536];
    if (!open_server(p->backend))
        return;
    for (int i = 0; i < RESETS; i++) {
        int fd = must_connect(gyre_listener_address(s.tcp));
        size_t len = 1 + env_rng_below(&rng, sizeof bytes);
        (void)send(fd, bytes, len, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (i % 3 == 0)
            (void)recv(fd, bytes, 1 + env_rng_below(&rng, 100), MSG_DONTWAIT);
        reset(fd);
    }
    close_server();
}

/* Twenty that send and read a byte at a time, and one that is served well meanwhile. */
REAL_TEST(peers, a_byte_at_a_time)
{
    enum { SLOW = 20, BYTES = 150 };
    int slow[SLOW];
    const int on = 1;
    if (!open_server(p->backend))
        return;
    for (unsigned k = 0; k < SLOW; k++) {
        slow[k] = must_connect(gyre_listener_address(k % 2 == 0 ? s.tcp : s.local));
        (void)setsockopt(slow[k], IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    }
    for (unsigned i = 0; i < BYTES; i++) {
        for (unsigned k = 0; k < SLOW; k++)
            cr_assert_eq(send(slow[k], &(uint8_t){(uint8_t)(i + k)}, 1, MSG_NOSIGNAL), 1);
        for (unsigned k = 0; k < SLOW; k++) {
            uint8_t got = 0;
            ssize_t n = recv(slow[k], &got, 1, 0);
            cr_assert_eq(n, 1, "byte %u of peer %u: %zd, errno %d", i, k, n, n < 0 ? errno : 0);
            cr_assert_eq(got, (uint8_t)(i + k), "byte %u of peer %u", i, k);
        }
        if (i % 50 == 0) {
            const char *wrong = server_check(&s);
            cr_assert_null(wrong, "%s", wrong);
        }
    }
    for (unsigned k = 0; k < SLOW; k++)
        (void)close(slow[k]);
    close_server();
}

/* One act of a peer that has lost its mind. Returns whether it is gone. */
static bool act(int fd)
{
    static uint8_t bytes[20000];
    switch (env_rng_below(&rng, 9)) {
    case 0:
        (void)send(fd, bytes, 1 + env_rng_below(&rng, sizeof bytes), MSG_NOSIGNAL | MSG_DONTWAIT);
        return false;
    case 1:
        (void)shutdown(fd, SHUT_WR);
        return false;
    case 2:
        (void)shutdown(fd, SHUT_RD);
        return false;
    case 3:
        (void)shutdown(fd, SHUT_RDWR);
        return false;
    case 4:
        (void)send(fd, "!", 1, MSG_OOB | MSG_NOSIGNAL | MSG_DONTWAIT);
        return false;
    case 5:
        (void)recv(fd, bytes, sizeof bytes, MSG_DONTWAIT);
        return false;
    case 6: /* data and its end in one segment */
        (void)setsockopt(fd, IPPROTO_TCP, TCP_CORK, &(int){1}, sizeof(int));
        (void)send(fd, bytes, 100, MSG_NOSIGNAL | MSG_DONTWAIT);
        (void)shutdown(fd, SHUT_WR);
        return false;
    case 7:
        reset(fd);
        return true;
    default:
        (void)close(fd);
        return true;
    }
}

/* FIN, RST, urgent data, half-closes and bytes after them, in any order, over both transports. */
REAL_TEST(peers, ends_in_any_order)
{
    if (!open_server(p->backend))
        return;
    for (int i = 0; i < ODD; i++) {
        int fd = must_connect(gyre_listener_address(i % 3 == 0 ? s.local : s.tcp));
        while (!act(fd))
            ;
    }
    close_server();
}

/* Peers that send and never read: the engine stops receiving from them, others are served, and a reset frees all. */
REAL_TEST(peers, that_never_read)
{
    enum { DEAF = 20 };
    static uint8_t bytes[65536];
    int deaf[DEAF];
    uint64_t taken = 0;
    if (!open_server(p->backend))
        return;
    for (unsigned k = 0; k < DEAF; k++)
        deaf[k] = must_connect(gyre_listener_address(k % 2 == 0 ? s.tcp : s.local));
    for (int idle = 0; idle < 20; idle++) {
        struct pollfd p0 = {.fd = deaf[0], .events = POLLOUT};
        for (unsigned k = 0; k < DEAF; k++) {
            ssize_t n = send(deaf[k], bytes, sizeof bytes, MSG_NOSIGNAL | MSG_DONTWAIT);
            taken += n > 0 ? (uint64_t)n : 0;
            idle = n > 0 ? 0 : idle;
        }
        cr_assert_lt(taken, (uint64_t)DEAF * (64 << 20), "the engine takes what nobody reads, without end");
        (void)poll(&p0, 1, 10);
    }
    const char *wrong = server_check(&s);
    cr_assert_null(wrong, "%s", wrong);
    cr_assert_lt(atomic_load(&s.mem.bytes), (long)DEAF * (4 << 20), "memory for peers that do not read: %ld bytes",
                 atomic_load(&s.mem.bytes));
    for (unsigned k = 0; k < DEAF; k++)
        reset(deaf[k]);
    close_server();
}
