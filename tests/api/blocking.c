/* SPDX-License-Identifier: MIT
 * Nothing that a user sets on a socket makes the loop's thread wait. */
#include "fixture.h"

#include <sys/socket.h>

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
