/* SPDX-License-Identifier: MIT
 * The server half of gnet's acceptance tests: each backend, with one acceptor and with a socket on each loop, on each
 * transport, answering in every way, with one loop and several; and several addresses on one engine.
 *
 * Clients are plain sockets, all driven from this thread. Each is greeted, asks some times for a random number of bytes
 * to be echoed, and leaves, one half by closing, the other by ending its half and waiting for the server's end. */
#include "gnet.h"

#include "socket/addr.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CLIENTS_MAX = 16, DATAGRAM_MAX = 1400 };

struct client {
    int fd; /* -1 once it has left */
    bool datagrams;
    bool lingers; /* it ends its half first */
    uint32_t key;
    unsigned requests; /* still to ask */
    uint32_t request_max;
    size_t greeted;
    uint64_t goal, sent, got;
};

static const struct gnet_case *which;

static void client_open(struct client *client, const struct gnet_place *place)
{
    struct gyre__address parsed;
    struct sockaddr_storage to;
    socklen_t to_len;
    if (place->net == GNET_UDP) {
        cr_assert_eq(gyre_udp_parse(&to, &to_len, place->address), 0);
    } else {
        cr_assert_eq(gyre__addr_parse(&parsed, place->address), 0, "%s", place->address);
        to = parsed.addr.ss;
        to_len = parsed.addr.len;
    }
    client->datagrams = place->net == GNET_UDP;
    client->fd = socket(to.ss_family, (client->datagrams ? SOCK_DGRAM : SOCK_STREAM) | SOCK_CLOEXEC, 0);
    cr_assert_geq(client->fd, 0);
    cr_assert_eq(connect(client->fd, (struct sockaddr *)&to, to_len), 0, "%s: %s: %s", which->name, place->address,
                 strerror(errno));
}

static void leave(struct client *client)
{
    cr_assert_eq(close(client->fd), 0);
    client->fd = -1;
}

/* The next request, or the end. */
static void go_on(struct client *client, struct env_rng *rng)
{
    if (client->got < client->goal || (!client->datagrams && client->greeted < strlen(GNET_GREETING)))
        return;
    if (client->requests > 0) {
        client->requests--;
        client->goal += 1 + env_rng_below(rng, client->request_max);
    } else if (client->lingers && !client->datagrams) {
        client->lingers = false;
        cr_assert_eq(shutdown(client->fd, SHUT_WR), 0);
        client->goal = UINT64_MAX; /* nothing more to send, and the end to come */
        client->sent = UINT64_MAX;
    } else {
        leave(client);
    }
}

static void client_send(struct client *client)
{
    static uint8_t data[GNET_PIECE];
    size_t len = client->goal - client->sent < sizeof data ? (size_t)(client->goal - client->sent) : sizeof data;
    env_pattern_fill(data, len, client->key, client->sent);
    ssize_t n = send(client->fd, data, len, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n < 0 && errno == EAGAIN)
        return;
    cr_assert_gt(n, 0, "%s: send: %s", which->name, strerror(errno));
    client->sent += (uint64_t)n;
}

static void client_receive(struct client *client)
{
    static uint8_t data[GNET_PIECE];
    size_t want = client->datagrams || client->greeted == strlen(GNET_GREETING)
                      ? sizeof data
                      : strlen(GNET_GREETING) - client->greeted;
    ssize_t n = recv(client->fd, data, want, MSG_DONTWAIT);
    if (n < 0 && errno == EAGAIN)
        return;
    cr_assert_geq(n, 0, "%s: recv: %s", which->name, strerror(errno));
    if (want < sizeof data) {
        cr_assert_gt(n, 0, "%s: the end in place of the greeting", which->name);
        cr_assert_eq(memcmp(data, GNET_GREETING + client->greeted, (size_t)n), 0);
        client->greeted += (size_t)n;
    } else if (client->goal == UINT64_MAX) {
        cr_assert_eq(n, 0, "%s: %zd bytes too many", which->name, n);
        leave(client);
    } else {
        cr_assert_gt(n, 0, "%s: the end after %llu bytes", which->name, (unsigned long long)client->got);
        int64_t bad = env_pattern_check(data, (size_t)n, client->key, client->got);
        cr_assert_eq(bad, -1, "%s: wrong byte at %llu", which->name, (unsigned long long)(client->got + (uint64_t)bad));
        client->got += (uint64_t)n;
        cr_assert(!client->datagrams || client->got == client->goal, "%s: a cut datagram", which->name);
    }
}

static void drive(struct client *clients, unsigned count, struct env_rng *rng)
{
    struct pollfd fds[CLIENTS_MAX];
    uint64_t end_ns = env_now_ns() + (uint64_t)MS(API_PATIENCE_MS);
    unsigned left = count;
    while (left > 0) {
        for (unsigned i = 0; i < count; i++)
            fds[i] = (struct pollfd){.fd = clients[i].fd,
                                     .events = (short)(clients[i].sent < clients[i].goal ? POLLIN | POLLOUT : POLLIN)};
        (void)poll(fds, count, 100);
        left = 0;
        for (unsigned i = 0; i < count; i++) {
            struct client *client = &clients[i];
            if (client->fd >= 0 && (fds[i].revents & POLLOUT) != 0)
                client_send(client);
            if (client->fd >= 0 && (fds[i].revents & (POLLIN | POLLHUP | POLLERR)) != 0)
                client_receive(client);
            if (client->fd >= 0)
                go_on(client, rng);
            left += client->fd >= 0;
        }
        cr_assert(env_now_ns() < end_ns, "%s: %u clients are not through", which->name, left);
    }
}

/* With all clients there: how many each loop has, where the way of choosing says that exactly. */
static void check_spread(const struct gnet *g, const struct gnet_place *place, unsigned clients)
{
    unsigned most = 0, least = UINT32_MAX;
    for (uint32_t i = 0; i < which->loops; i++) {
        unsigned n = atomic_load(&place->on_loop[i]);
        most = n > most ? n : most;
        least = n < least ? n : least;
    }
    cr_assert_eq(gyre_listener_conn_count(place->listener), clients);
    bool in_turn = place->balance == GYRE_BALANCE_ROUND_ROBIN ||
                   (place->balance == GYRE_BALANCE_SOURCE_HASH && place->net == GNET_UNIX) ||
                   (place->balance == GYRE_BALANCE_LEAST_CONNS && g->which->place_count == 1);
    if (in_turn)
        cr_assert_leq(most - least, 1, "%s: a loop has %u, another %u", which->name, least, most);
    else if (place->balance == GYRE_BALANCE_SOURCE_HASH)
        cr_assert_eq(most, clients, "%s: one client's address, several loops", which->name);
}

static void serve(const struct gnet_case *c, unsigned clients_each, uint32_t largest)
{
    static struct gnet g;
    struct client clients[CLIENTS_MAX];
    struct env_rng rng;
    unsigned count = 0, streams = 0;
    which = c;
    env_rng_init(&rng, 77);
    gnet_open(&g, c, false);
    for (unsigned i = 0; i < c->place_count; i++) {
        for (unsigned k = 0; k < clients_each; k++, count++) {
            cr_assert_lt(count, CLIENTS_MAX);
            clients[count] = (struct client){.lingers = k % 2 == 0, .key = 10 + count, .request_max = 32768};
            client_open(&clients[count], &g.places[i]);
            clients[count].requests = 1 + env_rng_below(&rng, 4);
            streams += !clients[count].datagrams;
        }
        clients[count - 1].goal = g.places[i].net == GNET_UDP ? 1 : largest;
    }
    for (unsigned i = 0; i < count; i++)
        if (clients[i].datagrams)
            clients[i].request_max = DATAGRAM_MAX;
    gnet_until(&g, atomic_load(&g.opens) == streams);
    cr_assert_eq(gyre_engine_conn_count(g.engine), streams);
    for (unsigned i = 0; i < c->place_count; i++)
        if (g.places[i].listener != NULL)
            check_spread(&g, &g.places[i], clients_each);
    drive(clients, count, &rng);
    gnet_close(&g);
}

/* ---- The matrix ---- */

static const char *const ways[] = {"write", "writev", "write of another thread", "writev of another thread"};

/* Fill in a case; whether this run is to have it. */
static bool make_case(struct gnet_case *c, unsigned backend, enum gnet_way way, bool per_loop, bool several)
{
    struct criterion_test_params backends = backends_each_real();
    if (backend >= backends.length)
        return false;
    const struct backend_param *p = (const struct backend_param *)backends.params + backend;
    *c = (struct gnet_case){.way = way, .per_loop = per_loop, .loops = several ? GNET_LOOPS : 1};
    (void)snprintf(c->backend, sizeof c->backend, "%s", p->backend);
    return true;
}

static void name_case(struct gnet_case *c, const char *where)
{
    char backend[sizeof c->backend]; /* a copy: gcc 12 takes one element of the array for another */
    memcpy(backend, c->backend, sizeof backend);
    (void)snprintf(c->name, sizeof c->name, "%s, %s, %s, %s, %u loops", backend, where, ways[c->way],
                   c->per_loop ? "a socket each" : "one acceptor", c->loops);
}

enum { BACKENDS_MAX = 4, SINGLE_KINDS = 8, GROUPS = 4 };

ParameterizedTestParameters(gnet_server, one_address)
{
    static const struct {
        const char *name;
        enum gnet_net net;
        enum gnet_way way;
    } kinds[SINGLE_KINDS] = {
        {"tcp", GNET_TCP, GNET_WRITE},   {"tcp", GNET_TCP, GNET_ASYNC},   {"tcp", GNET_TCP, GNET_ASYNCV},
        {"udp", GNET_UDP, GNET_WRITE},   {"udp", GNET_UDP, GNET_ASYNC},   {"unix", GNET_UNIX, GNET_WRITE},
        {"unix", GNET_UNIX, GNET_ASYNC}, {"unix", GNET_UNIX, GNET_ASYNCV}};
    static struct gnet_case cases[BACKENDS_MAX * SINGLE_KINDS * 4];
    size_t count = 0;
    for (unsigned b = 0; b < BACKENDS_MAX; b++)
        for (unsigned k = 0; k < SINGLE_KINDS * 4; k++) {
            struct gnet_case *c = &cases[count];
            if (!make_case(c, b, kinds[k / 4].way, k % 2 == 1, k / 2 % 2 == 1))
                continue;
            c->place_count = 1;
            c->places[0].net = kinds[k / 4].net;
            c->places[0].v6 = k % 4 == 3;
            name_case(c, kinds[k / 4].name);
            count++;
        }
    return cr_make_param_array(struct gnet_case, cases, count, NULL);
}

/* One address: eight clients, the last of which asks for a mebibyte. */
ParameterizedTest(struct gnet_case *c, gnet_server, one_address, .timeout = 60)
{
    serve(c, 8, 1 << 20);
}

ParameterizedTestParameters(gnet_server, little_per_turn)
{
    static const enum gnet_net nets[] = {GNET_TCP, GNET_UNIX};
    static const enum gnet_way way[] = {GNET_WRITE, GNET_ASYNC, GNET_ASYNCV};
    static struct gnet_case cases[BACKENDS_MAX * 12];
    size_t count = 0;
    for (unsigned b = 0; b < BACKENDS_MAX; b++)
        for (unsigned k = 0; k < 12; k++) {
            struct gnet_case *c = &cases[count];
            if (!make_case(c, b, way[k % 3], false, k / 3 % 2 == 1))
                continue;
            c->piecemeal = true;
            c->place_count = 1;
            c->places[0].net = nets[k / 6];
            name_case(c, k / 6 == 0 ? "tcp, little per turn" : "unix, little per turn");
            count++;
        }
    return cr_make_param_array(struct gnet_case, cases, count, NULL);
}

/* gnet's mode with a limit on the bytes of a round: the same server, the same clients, a few KiB per turn. */
ParameterizedTest(struct gnet_case *c, gnet_server, little_per_turn, .timeout = 60)
{
    serve(c, 8, 1 << 20);
}

ParameterizedTestParameters(gnet_server, several_addresses)
{
    static const struct {
        const char *name;
        enum gnet_net nets[GNET_PLACES];
    } groups[GROUPS] = {{"tcp and tcp", {GNET_TCP, GNET_TCP, GNET_TCP, GNET_TCP}},
                        {"unix and unix", {GNET_UNIX, GNET_UNIX, GNET_UNIX, GNET_UNIX}},
                        {"tcp and unix", {GNET_TCP, GNET_UNIX, GNET_TCP, GNET_UNIX}},
                        {"tcp, udp and unix", {GNET_TCP, GNET_UDP, GNET_UNIX, GNET_UDP}}};
    static struct gnet_case cases[BACKENDS_MAX * GROUPS * 8];
    size_t count = 0;
    for (unsigned b = 0; b < BACKENDS_MAX; b++)
        for (unsigned k = 0; k < GROUPS * 8; k++) {
            struct gnet_case *c = &cases[count];
            bool per_loop = (k / 2 + k / 8) % 2 == 1; /* both, with each group and each way */
            if (!make_case(c, b, (enum gnet_way)(k / 2 % 4), per_loop, k % 2 == 1))
                continue;
            c->place_count = GNET_PLACES;
            for (unsigned i = 0; i < GNET_PLACES; i++) {
                c->places[i].net = groups[k / 8].nets[i];
                c->places[i].v6 = i >= GNET_PLACES / 2;
            }
            name_case(c, groups[k / 8].name);
            count++;
        }
    return cr_make_param_array(struct gnet_case, cases, count, NULL);
}

/* Four addresses on one engine, three clients each. */
ParameterizedTest(struct gnet_case *c, gnet_server, several_addresses, .timeout = 60)
{
    serve(c, 3, 1 << 17);
}
