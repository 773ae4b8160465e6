/* SPDX-License-Identifier: MIT
 * Connections that go from hand to hand: from one to the next without a pause, to code that blocks, to a second
 * descriptor. */
#include "fixture.h"

#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* A stream that never pauses goes from one connection to the next through its descriptor, again and again. */
struct relay_race {
    struct api *api;
    struct gyre_conn *c;
    unsigned legs, closes;
    uint32_t key;
    uint64_t got, leg;
};

enum { LEG_BYTES = 100000, LEGS = 30 };

static void take_leg(struct relay_race *race, struct gyre_conn *c)
{
    uint8_t data[4096];
    for (size_t n; (n = gyre_conn_read(data, sizeof data, c)) > 0;) {
        cr_assert_eq(env_pattern_check(data, n, race->key, race->got), -1);
        race->got += n;
    }
}

static void race_data(struct gyre_conn *c);

static void race_close(struct gyre_conn *c, int err)
{
    struct relay_race *race = gyre_conn_user(c);
    cr_assert_eq(err, 0);
    race->closes++;
}

static const struct gyre_conn_handlers racing = {.on_data = race_data, .on_close = race_close};

static void next_leg(struct gyre_conn *c, int fd, void *user)
{
    struct relay_race *race = user;
    struct gyre_conn_options options = {.user = race};
    api_enter(race->api);
    take_leg(race, c);
    race->legs++;
    race->leg = race->got;
    cr_assert_eq(gyre_conn_adopt_fd(&race->c, race->api->loop, fd, &racing, &options), 0);
    api_leave(race->api);
}

static void race_data(struct gyre_conn *c)
{
    struct relay_race *race = gyre_conn_user(c);
    if (race->got - race->leg >= LEG_BYTES && race->legs < LEGS)
        cr_assert_eq(gyre_conn_detach(c, next_leg, race), 0);
    else
        take_leg(race, c);
}

static void begin_race(struct end *e)
{
    struct relay_race *race = e->api->user;
    race->key = e->key_in;
    e->closes = 1;
    e->c = NULL;
    cr_assert_eq(gyre_conn_detach(gyre_conn_from_id(e->id), next_leg, race), 0);
}

TRANSPORT_TEST(api_adopt, a_stream_through_many_hands)
{
    struct api api;
    struct peer peer;
    struct relay_race race = {.api = &api};
    const struct script script = {.open = begin_race};
    const size_t total = (size_t)LEG_BYTES * (LEGS + 10);
    api_init(&api, p);
    api.user = &race;
    api_open(&api);
    api_listen(&api, &script, NULL);
    (void)peer_open(&api, &peer);
    peer_send(&peer, total);
    api_until(&api, race.got == total);
    cr_assert_geq(race.legs, 5, "%u legs", race.legs); /* a turn may bring much more than a leg */
    peer_close(&peer);
    api_until(&api, race.closes == 1);
    cr_assert_eq(gyre_loop_conn_count(api.loop), 0);
    api_close(&api);
}

enum { BEFORE_BYTES = 10 * 1024 };

/* A server hands a connection to code of another kind: what had come is with the connection, what comes is read from
 * the descriptor, which blocks, and answers go out through it. */
struct handed {
    int fd;
    size_t len;
    uint8_t data[16 * 1024];
};

static void keep(struct gyre_conn *c, int fd, void *user)
{
    struct handed *h = user;
    h->fd = fd;
    h->len = gyre_conn_read(h->data, sizeof h->data, c);
    cr_assert_eq(gyre_conn_fd(c), -1);
    cr_assert_eq(gyre_conn_abort(c), 0); /* too late */
}

static void hand_over(struct end *e)
{
    if (gyre_conn_inbound(e->c) < BEFORE_BYTES)
        return;
    cr_assert_eq(gyre_conn_detach(e->c, keep, e->api->user), 0);
    e->closes = 1;
    e->c = NULL;
}

REAL_TEST(api_adopt, handed_to_blocking_code)
{
    struct api api;
    struct peer peer;
    struct handed h = {.fd = -1};
    const struct script script = {.data = hand_over};
    uint8_t marker[6] = "", expected[16 * 1024];
    api_init(&api, p);
    api.user = &h;
    api_open(&api);
    api_listen(&api, &script, NULL);
    struct end *e = peer_open(&api, &peer);
    peer_send(&peer, BEFORE_BYTES);
    api_until(&api, h.fd >= 0);
    api_destroy_loop(&api); /* the descriptor outlives it */
    env_pattern_fill(expected, BEFORE_BYTES, e->key_in, 0);
    cr_assert_eq(h.len, BEFORE_BYTES);
    cr_assert_eq(memcmp(h.data, expected, BEFORE_BYTES), 0);
    cr_assert(fcntl(h.fd, F_GETFD) & FD_CLOEXEC);
    cr_assert_eq(send(peer.fd, "MARKER", 6, 0), 6);
    cr_assert_eq(recv(h.fd, marker, 6, MSG_WAITALL), 6);
    cr_assert_eq(memcmp(marker, "MARKER", 6), 0);
    cr_assert_eq(send(h.fd, "ANSWER", 6, 0), 6);
    struct pollfd answered = {.fd = peer.fd, .events = POLLIN};
    cr_assert_eq(poll(&answered, 1, API_PATIENCE_MS), 1);
    cr_assert_eq(recv(peer.fd, marker, 6, MSG_WAITALL), 6);
    cr_assert_eq(memcmp(marker, "ANSWER", 6), 0);
    (void)close(h.fd);
    peer_close(&peer);
    api_close(&api);
}

/* A second descriptor keeps the connection alive for its peer. */
REAL_TEST(api_adopt, another_descriptor)
{
    struct api api;
    struct peer peer;
    char byte = 0;
    api_start(&api, p, NULL);
    struct end *e = peer_open(&api, &peer);
    int fd = gyre_conn_dup_fd(e->c);
    cr_assert_geq(fd, 0);
    cr_assert(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    cr_assert_eq(send(fd, "q", 1, MSG_NOSIGNAL), 1);
    while (peer_recv_raw(&peer, &byte, 1) != 1)
        api_turn(&api);
    cr_assert_eq(byte, 'q');
    (void)close(fd);
    peer_close(&peer);
    api_until(&api, e->closes == 1);
    api_close(&api);
}
