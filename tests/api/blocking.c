/* SPDX-License-Identifier: MIT
 * Nothing that a user sets on a socket makes the loop's thread wait. */
#include "fixture.h"

#include <netinet/in.h>
#include <stdatomic.h>
#include <sys/socket.h>
#ifdef __linux__
#include <sys/syscall.h>
#endif
#include <unistd.h>

enum { ANSWER = 100000, LINGER_S = 20 };

static int set_linger(int fd, enum gyre_socket_purpose purpose, void *user)
{
    const struct linger linger = {.l_onoff = 1, .l_linger = LINGER_S};
    (void)purpose;
    (void)user;
    return setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
}

/* It has sent FIN, and does not read: close(2) would wait for it. */
static void stop_reading(struct peer *peer)
{
    int little = 4096;
    cr_assert_eq(setsockopt(peer->fd, SOL_SOCKET, SO_RCVBUF, &little, sizeof little), 0);
    peer_shutdown(peer);
}

static void close_with_answer(struct api *api, struct end *e)
{
    api_until(api, e->eofs == 1);
    end_put(e, ANSWER);
    uint64_t from_ns = env_now_ns();
    cr_assert_eq(gyre_conn_close(e->c), 0);
    api_until(api, e->closes == 1);
    cr_assert_lt(env_now_ns() - from_ns, (uint64_t)MS(LINGER_S * 1000 / 4), "the loop's thread waited in close(2)");
    cr_assert_eq(e->reason, GYRE_CLOSE_USER);
}

static const struct script script = {.eof = end_ignore};

REAL_TEST(api_blocking, linger_of_an_accepted_socket)
{
    struct api api;
    struct peer peer;
    api_init(&api, p);
    api_open(&api);
    api_listen(&api, &script, &(struct gyre_listener_options){.conn = {.on_socket = set_linger}});
    struct end *e = peer_open(&api, &peer);
    stop_reading(&peer);
    close_with_answer(&api, e);
    peer_close(&peer);
    api_close(&api);
}

REAL_TEST(api_blocking, linger_of_a_connected_socket)
{
    struct api api;
    struct peer peer;
    struct stage stage;
    api_start(&api, p, NULL);
    stage_open(&api, &stage);
    struct end *e = api_connect(&api, stage.address, &script, &(struct gyre_conn_options){.on_socket = set_linger});
    stage_accept(&stage, &peer, e);
    stop_reading(&peer);
    close_with_answer(&api, e);
    peer_close(&peer);
    stage_close(&stage);
    api_close(&api);
}

/* By the descriptor, as somebody may have done before it was adopted. */
REAL_TEST(api_blocking, linger_set_by_descriptor)
{
    struct api api;
    struct peer peer;
    api_start(&api, p, &script);
    struct end *e = peer_open(&api, &peer);
    cr_assert_eq(set_linger(gyre_conn_fd(e->c), GYRE_SOCKET_ACCEPT, NULL), 0);
    stop_reading(&peer);
    close_with_answer(&api, e);
    peer_close(&peer);
    api_close(&api);
}

/* ---- To ask costs a system call for each connection: only where somebody can have set it. ---- */

#ifdef __linux__
enum { ROUNDS = 8 };

static atomic_uint asked;

/* In place of the C library's, for this program and the library in it. */
int getsockopt(int fd, int level, int name, void *restrict value, socklen_t *restrict len)
{
    if (level == SOL_SOCKET && name == SO_LINGER)
        atomic_fetch_add(&asked, 1);
    return (int)syscall(SYS_getsockopt, fd, level, name, value, len);
}

static int set_nothing(int fd, enum gyre_socket_purpose purpose, void *user)
{
    (void)fd;
    (void)purpose;
    (void)user;
    return 0;
}

/* Returns how often the sockets of some connections were asked, for each accepted and closed. */
static unsigned asked_of_accepted(struct api *api)
{
    unsigned before = atomic_load(&asked);
    for (unsigned i = 0; i < ROUNDS; i++) {
        struct peer peer;
        struct end *e = peer_open(api, &peer);
        cr_assert_eq(gyre_conn_close(e->c), 0);
        peer_until_end(&peer);
        peer_close(&peer);
        api_until(api, e->closes == 1);
    }
    return (atomic_load(&asked) - before) / ROUNDS;
}

REAL_TEST(api_blocking, accepted_sockets_are_asked_if_touched)
{
    for (unsigned touched = 0; touched < 3; touched++) {
        struct api api;
        struct gyre_listener_options options = {.conn.on_socket = touched == 1 ? set_nothing : NULL};
        api_init(&api, p);
        api_open(&api);
        api_listen(&api, &script, &options);
        int copy = touched == 2 ? gyre_listener_dup_fd(api.listener, 0) : -1;
        cr_assert_eq(asked_of_accepted(&api), touched > 0, "case %u", touched);
        if (copy >= 0)
            (void)close(copy);
        api_close(&api);
    }
}

REAL_TEST(api_blocking, connected_sockets_are_asked_if_touched)
{
    for (unsigned touched = 0; touched < 4; touched++) {
        struct api api;
        struct peer peer;
        struct stage stage;
        struct gyre_conn_options options = {.on_socket = touched == 1 ? set_nothing : NULL};
        api_start(&api, p, NULL);
        stage_open(&api, &stage);
        struct end *e = api_connect(&api, stage.address, &script, &options);
        stage_accept(&stage, &peer, e);
        if (touched == 2)
            cr_assert_geq(gyre_conn_fd(e->c), 0);
        int copy = touched == 3 ? gyre_conn_dup_fd(e->c) : -1;
        if (copy >= 0)
            (void)close(copy);
        unsigned before = atomic_load(&asked);
        cr_assert_eq(gyre_conn_close(e->c), 0);
        peer_until_end(&peer);
        peer_close(&peer);
        api_until(&api, e->closes == 1);
        cr_assert_eq(atomic_load(&asked) - before, touched > 0, "case %u", touched);
        stage_close(&stage);
        api_close(&api);
    }
}

static void drop(struct gyre_conn *c)
{
    (void)gyre_conn_discard(c, SIZE_MAX);
}

static void count_close(struct gyre_conn *c, int err)
{
    unsigned *closes = gyre_conn_user(c);
    cr_assert_eq(err, 0);
    ++*closes;
}

/* What came from elsewhere: a connection, and what a listening socket accepts. */
REAL_TEST(api_blocking, sockets_from_elsewhere_are_asked)
{
    static const struct gyre_conn_handlers handlers = {.on_data = drop, .on_close = count_close};
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof addr;
    struct api api;
    unsigned closes = 0;
    int fds[2];
    api_start(&api, p, NULL);
    int listening = socket(AF_INET, SOCK_STREAM, 0), client = socket(AF_INET, SOCK_STREAM, 0);
    unsigned before = atomic_load(&asked);
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    struct gyre_conn_options adopted = {.user = &closes};
    cr_assert_eq(gyre_conn_adopt_fd(NULL, api.loop, fds[0], &handlers, &adopted), 0);
    (void)close(fds[1]);
    api_until(&api, closes == 1);
    cr_assert_eq(atomic_load(&asked) - before, 1);

    cr_assert_eq(bind(listening, (struct sockaddr *)&addr, sizeof addr), 0);
    cr_assert_eq(listen(listening, 8), 0);
    cr_assert_eq(getsockname(listening, (struct sockaddr *)&addr, &len), 0);
    struct gyre_listener_options options = {.conn.user = &closes};
    cr_assert_eq(gyre_loop_listen_fd(NULL, api.loop, listening, &handlers, &options), 0);
    cr_assert_eq(connect(client, (struct sockaddr *)&addr, sizeof addr), 0);
    cr_assert_eq(close(client), 0);
    api_until(&api, closes == 2);
    cr_assert_eq(atomic_load(&asked) - before, 2);
    api_close(&api);
}
#endif
