/* SPDX-License-Identifier: MIT
 * Clients that send FIN and then do not read, whatever is being sent to them: they cost next to nothing, nobody waits
 * for them, and a loop that has them ends at once. The fixture looks for kernel workers at the end of each test. */
#include "fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <gyre/stats.h>
#include <poll.h>
#include <stdio.h>
#include <unistd.h>

enum { CLIENTS = 12, RELAYS = 4, IDLE_MS = 500, IDLE_TURNS = 10 /* at 20 a second */, PUT = 4 << 20 };

enum way { WRITE, WRITE_REF, SENDFILE, CLOSE, WAYS };

/* What the server does with a client that has sent FIN. */
struct server {
    enum way way;
    bool good; /* the next client reads */
    int file;
};

static uint8_t bytes[2][PUT]; /* for those that do not read, which is never compared, and for one that does */

static void prepare(struct server *server, struct api *api, uint32_t key)
{
    char path[128];
    env_pattern_fill(bytes[server->good], PUT, key, 0);
    (void)snprintf(path, sizeof path, "%s/file%d", api->dir, server->good);
    server->file = open(path, O_CREAT | O_TRUNC | O_RDWR | O_CLOEXEC, 0600);
    cr_assert_eq(write(server->file, bytes[server->good], PUT), PUT);
}

static void answer_at_eof(struct end *e)
{
    const struct server *server = e->api->user;
    if (server->way == WRITE || server->way == CLOSE)
        end_put(e, PUT);
    else if (server->way == WRITE_REF)
        cr_assert_eq(gyre_conn_write_ref(e->c, bytes[server->good], PUT, NULL, NULL), 0);
    else
        cr_assert_eq(gyre_conn_sendfile(e->c, server->file, 0, PUT, NULL, NULL), 0);
    if (server->way == CLOSE)
        cr_assert_eq(gyre_conn_close(e->c), 0);
}

/* Turn for a time in which nothing happens, as a program that polls the loop's descriptor does. */
static void idles(struct api *api, unsigned way)
{
    uint64_t end_ns = env_now_ns() + (uint64_t)MS(IDLE_MS), now_ns;
    struct pollfd pfd = {.fd = gyre_loop_fd(api->loop), .events = POLLIN};
    unsigned turns = 0;
    api_watch(api, MS(60));
    for (; !api->is_sim && (now_ns = env_now_ns()) < end_ns; turns++) {
        api_turn_now(api);
        (void)poll(&pfd, 1, (int)((end_ns - now_ns) / 1000000) + 1);
    }
    cr_assert_leq(turns, IDLE_TURNS, "way %u: %u turns in %d ms in which nothing happened", way, turns, IDLE_MS);
    env_no_workers();
}

/* Twelve that do not read, and one that does. */
TRANSPORT_TEST(api_half_closed, clients_that_do_not_read)
{
    const struct script script = {.eof = answer_at_eof};
    for (unsigned way = 0; way < WAYS; way++) {
        struct server server = {.way = way};
        struct api api;
        struct peer bad[CLIENTS], good;
        api_start(&api, p, &script);
        api.user = &server;
        prepare(&server, &api, 0);
        for (unsigned i = 0; i < CLIENTS; i++) {
            struct end *e = peer_open(&api, &bad[i]);
            peer_shutdown(&bad[i]);
            api_until(&api, e->eofs == 1);
        }
        idles(&api, way);
        (void)close(server.file);
        struct end *e = peer_open(&api, &good);
        server.good = true;
        prepare(&server, &api, e->key_out);
        peer_shutdown(&good);
        peer_expect(&good, PUT);
        idles(&api, way);
        uint64_t before_ns = env_now_ns();
        api_destroy_loop(&api);
        cr_assert_lt(env_now_ns() - before_ns, MS(1000), "way %u: the loop did not end", way);
        (void)close(server.file);
        for (unsigned i = 0; i < CLIENTS; i++)
            peer_close(&bad[i]);
        peer_close(&good);
        api_close(&api);
    }
}

static void pass_on(struct end *e)
{
    struct end *other = e->user;
    if (other != NULL && other->c != NULL)
        (void)gyre_conn_forward(e->c, other->c, SIZE_MAX);
}

/* Relays whose receiving clients sent FIN before, or when nothing moved any more; then they read after all. */
TRANSPORT_TEST(api_half_closed, relays_to_those_that_do_not_read)
{
    const struct script script = {.data = pass_on, .eof = end_ignore};
    struct api api;
    struct peer a[RELAYS], b[RELAYS];
    struct end *ea[RELAYS], *eb[RELAYS];
    api_start(&api, p, &script);
    for (unsigned i = 0; i < RELAYS; i++) {
        peer_relay_open(&api, &a[i], &b[i], &ea[i], &eb[i]);
        if (i % 2 == 0 && is_tcp(&api))
            peer_relay_warm_up(&api, &a[i], &b[i]);
        if (i < 2)
            peer_shutdown(&b[i]);
        peer_relay_fill(&api, &a[i], eb[i]);
        if (i >= 2)
            peer_shutdown(&b[i]);
        api_until(&api, eb[i]->eofs == 1);
    }
    idles(&api, WAYS);
    for (unsigned i = 0; i < RELAYS; i++)
        peer_expect(&b[i], a[i].sent);
    idles(&api, WAYS);
    for (unsigned i = 0; i < RELAYS; i++) {
        peer_close(&a[i]);
        peer_close(&b[i]);
    }
    api_close(&api);
}

/* ---- A reset after FIN, with nothing on its way: no receive and no send would tell of it. ---- */

static const struct script waits = {.eof = end_ignore};

/* On TCP whatever was sent, on unix sockets if something was not read. */
TRANSPORT_TEST(api_half_closed, reset_is_noticed)
{
    struct api api;
    struct peer peer;
    for (unsigned put = 0; put < 2; put++) {
        api_start(&api, p, &waits);
        struct end *e = peer_open(&api, &peer);
        if (put)
            end_put(e, 100);
        api_watch(&api, MS(2));
        peer_shutdown(&peer);
        api_until(&api, e->eofs == 1);
        cr_assert_eq(gyre_conn_pause(e->c), 0);
        cr_assert_eq(gyre_conn_resume(e->c), 0);
        idles(&api, put);
        bool told = put || is_tcp(&api);
        peer_reset(&peer);
        if (!told) { /* it has only closed: that is the end again */
            idles(&api, put);
            cr_assert_eq(e->closes, 0);
            cr_assert_eq(gyre_conn_close(e->c), 0);
        }
        api_until(&api, e->closes == 1);
        cr_assert_eq(e->reason, told ? GYRE_CLOSE_ERROR : GYRE_CLOSE_USER);
        cr_assert_eq(e->err, told ? -ECONNRESET : 0, "%d", e->err);
        cr_assert_eq(e->eofs, 1);
        api_close(&api);
    }
}

static void take_later(struct end *e)
{
    if (e->n > 0)
        (void)end_take(e);
}

/* Bytes that were not taken are not lost by it; then it is told. */
TRANSPORT_TEST(api_half_closed, reset_waits_for_what_was_not_taken)
{
    const struct script script = {.data = take_later, .eof = end_ignore};
    struct api api;
    struct peer peer;
    api_start(&api, p, &script);
    struct end *e = peer_open(&api, &peer);
    end_put(e, 100);
    api_watch(&api, MS(2));
    peer_send(&peer, 5000);
    peer_shutdown(&peer);
    api_until(&api, e->eofs == 1);
    peer_reset(&peer);
    api_watch(&api, MS(20));
    cr_assert_eq(e->closes, 0);
    cr_assert_eq(gyre_conn_inbound(e->c), 5000);
    e->n = 1;
    cr_assert_eq(gyre_conn_wake(e->c), 0);
    api_until(&api, e->closes == 1);
    cr_assert_eq(e->got, 5000);
    cr_assert_eq(e->err, -ECONNRESET);
    api_close(&api);
}

static void detached(struct gyre_conn *c, int fd, void *user)
{
    (void)c;
    *(int *)user = fd;
}

/* What a connection that waits so is asked for goes on as ever: limits, a late answer, detaching. */
REAL_TEST(api_half_closed, others_go_on_while_it_waits)
{
    struct api api;
    struct peer peers[3];
    struct end *e[3];
    int fd = -1;
    api_start(&api, p, &waits);
    for (unsigned i = 0; i < 3; i++) {
        e[i] = peer_open(&api, &peers[i]);
        cr_assert_eq(gyre_conn_set_read_timeout(e[i]->c, MS(20)), 0);
        peer_shutdown(&peers[i]);
        api_until(&api, e[i]->eofs == 1);
    }
    api_watch(&api, MS(60));
    cr_assert_eq(e[0]->closes, 0, "the time to receive passed after the end");
    end_put(e[0], 100000);
    peer_expect(&peers[0], 100000);
    cr_assert_eq(gyre_conn_close(e[0]->c), 0);
    cr_assert_eq(gyre_conn_detach(e[1]->c, detached, &fd), 0);
    cr_assert_eq(gyre_conn_shutdown(e[2]->c), 0);
    api_until(&api, fd >= 0 && e[0]->closes == 1 && e[2]->closes == 1);
    cr_assert_eq(e[0]->reason, GYRE_CLOSE_USER);
    cr_assert_eq(e[2]->reason, GYRE_CLOSE_EOF);
    cr_assert_eq(e[0]->err | e[2]->err, 0);
    (void)close(fd);
    e[1]->closes = 1; /* it has no on_close */
    e[1]->c = NULL;
    for (unsigned i = 0; i < 3; i++)
        peer_close(&peers[i]);
    api_close(&api);
}
