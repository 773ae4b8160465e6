/* SPDX-License-Identifier: MIT
 * What users of gnet had to do without: a connection's addresses in on_close and of one that could not be made, and
 * some hundreds of addresses on one engine; and what on_boot finds. */
#include "crew.h"
#include "rig.h"

#include "socket/addr.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

/* ---- Addresses ---- */

struct ends {
    struct sockaddr_storage local, peer;
    socklen_t local_len, peer_len;
};

static struct ends first; /* as on_open had them */
static unsigned looks;

static void look(struct end *e, struct ends *out)
{
    int err = gyre_conn_local_address(&out->local, &out->local_len, e->c);
    cr_assert_eq(err, 0, "own address, closed for reason %d: %s", (int)e->reason, gyre_err_name(err));
    err = gyre_conn_peer_address(&out->peer, &out->peer_len, e->c);
    cr_assert_eq(err, 0, "peer's address, closed for reason %d: %s", (int)e->reason, gyre_err_name(err));
}

static void learn(struct end *e)
{
    look(e, &first);
}

static void same(struct end *e)
{
    struct ends now;
    look(e, &now);
    looks++;
    cr_assert(now.local_len == first.local_len && memcmp(&now.local, &first.local, now.local_len) == 0);
    cr_assert(now.peer_len == first.peer_len && memcmp(&now.peer, &first.peer, now.peer_len) == 0);
}

static void take_and_look(struct end *e)
{
    (void)end_take(e);
    same(e);
}

static void look_and_close(struct end *e)
{
    same(e);
    cr_assert_eq(gyre_conn_close(e->c), 0);
}

enum how { PEER_CLOSES, PEER_RESETS, WE_CLOSE, WE_ABORT, TIME_PASSES, LOOP_ENDS, HOWS };

static void end_it(struct api *api, struct end *e, struct peer *peer, enum how how)
{
    switch (how) {
    case PEER_CLOSES:
        peer_shutdown(peer);
        peer_until_end(peer);
        break;
    case PEER_RESETS:
        peer_reset(peer);
        break;
    case WE_CLOSE:
        cr_assert_eq(gyre_conn_close(e->c), 0);
        peer_until_end(peer);
        break;
    case WE_ABORT:
        cr_assert_eq(gyre_conn_abort(e->c), 0);
        break;
    case TIME_PASSES:
        cr_assert_eq(gyre_conn_set_read_timeout(e->c, MS(5)), 0);
        api_until(api, e->closes == 1);
        break;
    case LOOP_ENDS:
    case HOWS:
        api_destroy_loop(api);
        break;
    }
}

/* Both addresses are what they were in on_open, in every callback and in on_close above all, whatever ended it. */
TRANSPORT_TEST(gnet_ends, addresses_until_on_close)
{
    static const struct script script = {.open = learn, .data = take_and_look, .eof = look_and_close, .close = same};
    for (enum how how = PEER_CLOSES; how < HOWS; how++) {
        struct api api;
        struct peer peer;
        api_start(&api, p, &script);
        struct end *e = peer_open(&api, &peer);
        if (!api.is_sim) {
            struct sockaddr_storage own;
            socklen_t own_len = sizeof own;
            cr_assert_eq(getsockname(peer.fd, (struct sockaddr *)&own, &own_len), 0);
            cr_assert(own_len == first.peer_len && memcmp(&own, &first.peer, own_len) == 0, "another's address");
        }
        looks = 0;
        peer_send(&peer, 100);
        api_until(&api, e->got == 100);
        end_it(&api, e, &peer, how);
        peer_close(&peer);
        api_until(&api, e->closes == 1);
        cr_assert_geq(looks, 2, "nobody looked");
        api_close(&api);
    }
}

static struct sockaddr_storage wanted; /* where it is to connect to */
static socklen_t wanted_len;

static void look_in_vain(struct end *e)
{
    struct sockaddr_storage peer = {.ss_family = AF_UNSPEC};
    socklen_t peer_len = 77;
    cr_assert_eq(e->reason, GYRE_CLOSE_CONNECT);
    int err = gyre_conn_peer_address(&peer, &peer_len, e->c);
    looks++;
    if (!is_tcp(e->api)) {
        cr_assert_eq(err, -ENOTCONN, "%s", gyre_err_name(err));
        cr_assert_eq(peer_len, 77, "written to, though it failed");
        return;
    }
    cr_assert_eq(err, 0, "%s", gyre_err_name(err));
    cr_assert(peer_len == wanted_len && memcmp(&peer, &wanted, peer_len) == 0, "not where it was to go");
}

/* Of a TCP connection that could not be made it is told where it was to go. */
TRANSPORT_TEST(gnet_ends, address_of_what_was_not_reached)
{
    static const struct script script = {.close = look_in_vain};
    struct api api;
    struct stage stage;
    struct gyre__address to;
    char address[160];
    api_init(&api, p);
    api_open(&api);
    stage_open(&api, &stage); /* for an address that nobody listens on */
    cr_assert_eq(gyre__addr_parse(&to, stage.address), 0);
    wanted = to.addr.ss;
    wanted_len = to.addr.len;
    (void)snprintf(address, sizeof address, "%s", stage.address);
    stage_close(&stage);
    for (unsigned i = 1; i <= 3; i++) {
        struct end *e = api_connect(&api, address, &script, NULL);
        api_until(&api, e->closes == 1);
        cr_assert_eq(looks, i);
    }
    api_close(&api);
}

/* ---- What on_boot finds ---- */

static int boot_client = -1;
static char boot_address[160];

static void connect_in_boot(struct gyre_engine *engine)
{
    struct crew *crew = gyre_engine_user(engine);
    cr_assert_eq(atomic_load(&crew->opens), 0, "a connection before on_boot");
    boot_client = rig_client(boot_address);
    cr_assert_eq(send(boot_client, "early", 5, MSG_NOSIGNAL), 5);
    atomic_fetch_add(&crew->boots, 1);
}

/* The addresses are bound and clients can connect, but nobody was accepted: who connects there is served after. */
REAL_TEST(gnet_ends, boot_finds_it_listening)
{
    struct crew crew;
    char got[5];
    crew_init(&crew, p, 2);
    crew.handlers.on_boot = connect_in_boot;
    crew_open(&crew);
    crew_listen(&crew, NULL);
    (void)snprintf(boot_address, sizeof boot_address, "%s", gyre_listener_address(crew.listener));
    crew_start(&crew);
    await(atomic_load(&crew.boots) == 1);
    ssize_t n = rig_receive(boot_client, got, 5);
    cr_assert_eq(n, 5, "%zd bytes: %s", n, strerror(errno));
    cr_assert_eq(memcmp(got, "early", 5), 0);
    (void)close(boot_client);
    crew_close(&crew);
}

/* ---- Hundreds of addresses ---- */

enum { ADDRESSES = 300 };

static _Atomic(unsigned) came_to[ADDRESSES];

static void count_where(struct gyre_conn *c)
{
    const struct gyre_listener *l = gyre_conn_listener(c);
    uint32_t index = gyre_listener_index(l);
    cr_assert_lt(index, ADDRESSES);
    cr_assert_eq(gyre_listener_user(l), (void *)&came_to[index]);
    atomic_fetch_add(&came_to[index], 1);
    rig_on_open(c);
}

static unsigned threads_now(void)
{
    unsigned count = 0;
    DIR *dir = opendir("/proc/self/task");
    cr_assert_not_null(dir);
    for (const struct dirent *d = readdir(dir); d != NULL; d = readdir(dir))
        count += d->d_name[0] != '.';
    (void)closedir(dir);
    return count;
}

/* Three hundred ports are one engine's and take no thread more than one; each connection knows by which it came. */
REAL_TEST(gnet_ends, three_hundred_addresses)
{
    static const struct gyre_conn_handlers handlers = {
        .on_open = count_where, .on_data = rig_on_data, .on_close = rig_on_close};
    static struct gyre_listener *listeners[ADDRESSES];
    struct rig r;
    struct rlimit limit;
    (void)getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &limit);
    rig_open(&r, p, 2);
    for (unsigned i = 0; i < ADDRESSES; i++) {
        const struct gyre_listener_options options = {.user = (void *)&came_to[i]};
        int err =
            gyre_engine_listen(&listeners[i], r.engine, i % 2 == 0 ? rig_tcp : "tcp://[::1]:0", &handlers, &options);
        cr_assert_eq(err, 0, "address %u: %s", i, gyre_err_name(err));
    }
    unsigned before = threads_now();
    rig_run(&r);
    cr_assert_leq(threads_now(), before + 2, "%u threads for 300 addresses", threads_now() - before);
    for (unsigned i = 0; i < ADDRESSES; i++) {
        int fd = rig_client(gyre_listener_address(listeners[i]));
        rig_ping(fd);
        (void)close(fd);
        cr_assert_eq(atomic_load(&came_to[i]), 1, "address %u", i);
    }
    await(r.closes == ADDRESSES);
    rig_stop(&r);
}

/* ---- Idle connections ---- */

/* When everything has been taken and sent, nothing of the loop's buffers is with the connections, however many. */
TRANSPORT_TEST(gnet_ends, idle_connections_hold_no_buffers)
{
    enum { CONNS = 100, BYTES = 20000 };
    static const struct script echo = {.data = end_forward_back};
    static struct peer peers[CONNS];
    struct api api;
    api_start(&api, p, &echo);
    for (unsigned i = 0; i < CONNS; i++) {
        (void)peer_open(&api, &peers[i]);
        peers[i].key_in = peers[i].key_out;
    }
    for (unsigned i = 0; i < CONNS; i++)
        peer_send(&peers[i], BYTES);
    for (unsigned i = 0; i < CONNS; i++)
        peer_expect(&peers[i], BYTES);
    api_until(&api, api_stats(&api).bytes_outbound == 0);
    cr_assert_gt(api_stats(&api).bufs_held_max, 0, "nothing is tested");
    cr_assert_eq(api_stats(&api).bufs_held, 0, "%llu buffers are held by idle connections",
                 (unsigned long long)api_stats(&api).bufs_held);
    for (unsigned i = 0; i < CONNS; i++)
        peer_close(&peers[i]);
    api_close(&api);
}
