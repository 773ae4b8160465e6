/* SPDX-License-Identifier: MIT
 * That socket options do what they are for, and not only that they can be read back (sockopt.c).
 *
 * What has to break the network, or to change how it works, does so in a network namespace of its own, for which it
 * needs root (net.h). */
#include "fixture.h"
#include "net.h"

#include "socket/addr.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

static void listen_with(struct api *api, const struct backend_param *p, const struct script *script,
                        const struct gyre_listener_options *options)
{
    api_init(api, p);
    api_open(api);
    api_listen(api, script, options);
}

static int number_of(int fd, int level, int name)
{
    int value = -1;
    socklen_t len = sizeof value;
    cr_assert_eq(getsockopt(fd, level, name, &value, &len), 0, "%s", strerror(errno));
    return value;
}

static struct tcp_info info_of(int fd)
{
    struct tcp_info info;
    socklen_t len = sizeof info;
    memset(&info, 0, sizeof info);
    cr_assert_eq(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len), 0, "%s", strerror(errno));
    return info;
}

/* ---- listening ---- */

/* Who says nothing is not accepted; the first byte brings the connection. */
REAL_TEST(api_effect, defer_accept)
{
    struct api api;
    struct peer silent, talking;
    listen_with(&api, p, NULL, &(struct gyre_listener_options){.defer_accept_s = 3600});
    peer_connect(&api, &silent, api.address);
    api_watch(&api, MS(30));
    cr_assert_eq(api.accepted, 0, "a client was accepted before it said anything");
    peer_connect(&api, &talking, api.address);
    talking.key_out = 10; /* of the first that is accepted */
    peer_send(&talking, 1);
    api_until(&api, api.accepted == 1 && api.ends->got == 1);
    silent.key_out = 12;
    peer_send(&silent, 1);
    api_until(&api, api.accepted == 2 && api.ends->got == 1);
    peer_close(&silent);
    peer_close(&talking);
    api_close(&api);
}

static void drop(struct end *e)
{
    e->got += gyre_conn_discard(e->c, SIZE_MAX);
}

/* A client that sends its first bytes with the SYN. */
static int fast_client(const char *address)
{
    struct gyre__address to;
    cr_assert_eq(gyre__addr_parse(&to, address), 0);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    ssize_t n = sendto(fd, "hello", 5, MSG_FASTOPEN | MSG_NOSIGNAL, (struct sockaddr *)&to.addr.ss, to.addr.len);
    cr_assert(n == 5 || errno == EINPROGRESS, "%s", strerror(errno));
    if (n != 5)
        cr_assert_eq(n, -1);
    return fd;
}

static void allow_fast_open(void)
{
    int fd = open("/proc/sys/net/ipv4/tcp_fastopen", O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, "519", 3) != 3) /* for clients and servers, without a cookie */
        cr_skip_test("/proc/sys/net/ipv4/tcp_fastopen: %s", strerror(errno));
    cr_assert_eq(close(fd), 0);
}

/* With a queue for it the bytes of the SYN are the connection's; without one they come after the handshake. */
REAL_TEST(api_effect, fast_open)
{
    const struct script script = {.data = drop};
    net_own();
    allow_fast_open();
    for (uint32_t queue = 0; queue <= 5; queue += 5) {
        struct api api;
        listen_with(&api, p, &script, &(struct gyre_listener_options){.fastopen_queue = queue});
        int listening = gyre_listener_dup_fd(api.listener, 0);
        cr_assert_eq(number_of(listening, IPPROTO_TCP, TCP_FASTOPEN), (int)queue);
        cr_assert_eq(close(listening), 0);
        int fd = fast_client(api.address);
        api_until(&api, api.accepted == 1 && (api.ends->got == 5 || queue == 0));
        struct tcp_info info = info_of(gyre_conn_fd(api.ends->c));
        cr_assert_eq((info.tcpi_options & TCPI_OPT_SYN_DATA) != 0, queue > 0);
        cr_assert_eq(close(fd), 0);
        api_until(&api, api.ends->closes == 1);
        api_close(&api);
    }
}

static int open_fast(int fd, enum gyre_socket_purpose purpose, void *user)
{
    int on = 1;
    (void)user;
    if (purpose != GYRE_SOCKET_CONNECT)
        return 0;
    return setsockopt(fd, IPPROTO_TCP, TCP_FASTOPEN_CONNECT, &on, sizeof on) == 0 ? 0 : -errno;
}

/* What on_socket sets is there in time: the first bytes of a connection leave with its SYN. */
REAL_TEST(api_effect, fast_open_connecting)
{
    net_own();
    allow_fast_open();
    for (int fast = 0; fast < 2; fast++) {
        struct api api;
        listen_with(&api, p, NULL, &(struct gyre_listener_options){.fastopen_queue = 5});
        struct end *e = api_connect(&api, api.address, NULL,
                                    &(struct gyre_conn_options){.on_socket = fast != 0 ? open_fast : NULL});
        end_put(e, 100);
        api_until(&api, e->opens == 1 && api.accepted == 1 && api_newest(&api)->got == 100);
        struct end *accepted = api_newest(&api);
        cr_assert_eq((info_of(gyre_conn_fd(accepted->c)).tcpi_options & TCPI_OPT_SYN_DATA) != 0, fast != 0);
        end_put(accepted, KIB(100));
        end_put(e, KIB(100));
        api_until(&api, e->got == KIB(100) && accepted->got == 100 + KIB(100));
        cr_assert_eq(gyre_conn_close(e->c), 0);
        api_until(&api, e->closes == 1 && accepted->closes == 1);
        cr_assert_eq(e->err, 0, "%s", gyre_err_name(e->err));
        api_close(&api);
    }
}

/* There the connection opens before its handshake, and that it is refused comes after its first bytes. */
REAL_TEST(api_effect, fast_open_refused)
{
    struct api api;
    net_own();
    allow_fast_open();
    listen_with(&api, p, NULL, &(struct gyre_listener_options){.fastopen_queue = 5});
    gyre_listener_close(api.listener);
    api_turn(&api);
    struct end *e = api_connect(&api, api.address, NULL, &(struct gyre_conn_options){.on_socket = open_fast});
    api_until(&api, e->opens == 1);
    api_watch(&api, MS(5));
    cr_assert_eq(e->closes, 0);
    end_put(e, 100);
    api_until(&api, e->closes == 1);
    cr_assert_eq(e->err, -ECONNREFUSED, "%s", gyre_err_name(e->err));
    cr_assert_eq(e->reason, GYRE_CLOSE_ERROR);
    api_close(&api);
}

/* Any device but the loopback one; NULL if there is none. */
static const char *other_device(void)
{
    static char name[IF_NAMESIZE];
    struct if_nameindex *all = if_nameindex();
    name[0] = '\0';
    for (struct if_nameindex *d = all; d != NULL && d->if_index != 0; d++)
        if (strcmp(d->if_name, "lo") != 0)
            (void)snprintf(name, sizeof name, "%s", d->if_name);
    if_freenameindex(all);
    return name[0] != '\0' ? name : NULL;
}

static int connect_err(const char *address)
{
    struct gyre__address to;
    cr_assert_eq(gyre__addr_parse(&to, address), 0, "%s", address);
    int fd = socket(to.addr.ss.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int err = connect(fd, (struct sockaddr *)&to.addr.ss, to.addr.len) == 0 ? 0 : -errno;
    cr_assert_eq(close(fd), 0);
    return err;
}

/* Bound to the device that the client comes in on it is there, bound to another it is not. */
REAL_TEST(api_effect, device)
{
    struct api api;
    struct peer peer;
    const char *other = other_device();
    listen_with(&api, p, NULL, &(struct gyre_listener_options){.device = "lo"});
    int listening = gyre_listener_dup_fd(api.listener, 0);
    char name[IF_NAMESIZE] = "";
    socklen_t len = sizeof name;
    cr_assert_eq(getsockopt(listening, SOL_SOCKET, SO_BINDTODEVICE, name, &len), 0);
    cr_assert_eq(strcmp(name, "lo"), 0, "%s", name);
    cr_assert_eq(close(listening), 0);
    (void)peer_open(&api, &peer);
    peer_close(&peer);
    struct gyre_listener *l = NULL;
    cr_assert_eq(gyre_loop_listen(&l, api.loop, "tcp://127.0.0.1:0", &api.sides->handlers,
                                  &(struct gyre_listener_options){.device = "no-such-dev"}), -ENODEV);
    cr_assert_eq(gyre_loop_listen(&l, api.loop, "tcp://127.0.0.1:0", &api.sides->handlers,
                                  &(struct gyre_listener_options){.device = "a-name-that-is-too-long"}), -ENODEV);
    cr_assert_eq(gyre_loop_listen(&l, api.loop, "unix://@device", &api.sides->handlers,
                                  &(struct gyre_listener_options){.device = "lo"}), GYRE_EOPTION);
    cr_assert_null(l);
    if (other != NULL) {
        cr_assert_eq(gyre_loop_listen(&l, api.loop, "tcp://127.0.0.1:0", &api.sides->handlers,
                                      &(struct gyre_listener_options){.device = other}), 0);
        cr_assert_eq(connect_err(gyre_listener_address(l)), -ECONNREFUSED, "reached though bound to %s", other);
    }
    api_close(&api);
}

static int try_device(struct api *api, const char *address, const char *device)
{
    struct gyre_conn *c = NULL;
    int err = gyre_connect(&c, api->loop, address, &api->sides->handlers,
                           &(struct gyre_conn_options){.device = device});
    if (err != 0)
        cr_assert_null(c);
    return err;
}

/* It is set before connecting, and a device that there is not is told. */
REAL_TEST(api_effect, device_to_leave_by)
{
    struct api api;
    struct stage stage;
    struct peer peer;
    char name[IF_NAMESIZE] = "";
    socklen_t len = sizeof name;
    listen_with(&api, p, NULL, NULL);
    stage_open(&api, &stage);
    struct end *e = api_connect(&api, stage.address, NULL, &(struct gyre_conn_options){.device = "lo"});
    cr_assert_eq(getsockopt(gyre_conn_fd(e->c), SOL_SOCKET, SO_BINDTODEVICE, name, &len), 0);
    cr_assert_eq(strcmp(name, "lo"), 0, "%s", name);
    stage_accept(&stage, &peer, e);
    api_until(&api, e->opens == 1);
    cr_assert_eq(try_device(&api, stage.address, "no-such-dev"), -ENODEV);
    cr_assert_eq(try_device(&api, stage.address, "a-name-that-is-too-long"), -ENODEV);
    cr_assert_eq(try_device(&api, stage.address, ""), -ENODEV);
    cr_assert_eq(try_device(&api, "unix://@device", "lo"), GYRE_EOPTION);
    cr_assert_eq(gyre_loop_conn_count(api.loop), 1, "what was refused is still there");
    peer_close(&peer);
    api_until(&api, e->closes == 1);
    stage_close(&stage);
    api_close(&api);
}

/* A device that leads nowhere, and is down, in a network of the test's own. */
static void add_device(char *name)
{
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (ioctl(fd, SIOCBRADDBR, name) != 0)
        cr_skip_test("no second device: %s", strerror(errno));
    cr_assert_eq(close(fd), 0);
}

/* Where the routes lead does not matter: by a device that is down nobody gets to 127.0.0.1. */
REAL_TEST(api_effect, device_that_leads_elsewhere)
{
    struct api api;
    struct stage stage;
    struct peer peer;
    char name[IF_NAMESIZE] = "gyre0";
    net_own();
    add_device(name);
    listen_with(&api, p, NULL, NULL);
    stage_open(&api, &stage);
    struct end *e = api_connect(&api, stage.address, NULL, &(struct gyre_conn_options){.device = name});
    memset(name, 'x', sizeof name); /* it was borrowed during the call */
    api_until(&api, e->closes == 1);
    cr_assert_eq(e->err, -ENETUNREACH, "%s", gyre_err_name(e->err));
    cr_assert_eq(e->opens, 0);
    e = api_connect(&api, stage.address, NULL, &(struct gyre_conn_options){.device = "lo"});
    stage_accept(&stage, &peer, e);
    api_until(&api, e->opens == 1);
    peer_close(&peer);
    api_until(&api, e->closes == 1);
    stage_close(&stage);
    api_close(&api);
}

/* "tcp://[::]" takes IPv4 too, unless it is told not to; on the simulator alike. */
BACKEND_TEST(api_effect, v6_only)
{
    for (int only = 0; only < 2; only++) {
        struct api api;
        struct peer v4, v6;
        struct gyre_listener *l;
        char over[160];
        api_start(&api, p, NULL);
        int err = gyre_loop_listen(&l, api.loop, "tcp://[::]:0", &api.sides->handlers,
                                   &(struct gyre_listener_options){.v6_only = only, .conn = {.user = api.sides}});
        cr_assert_eq(err, 0, "%s", gyre_err_name(err));
        const char *port = strrchr(gyre_listener_address(l), ':');
        (void)snprintf(over, sizeof over, "tcp://[::1]%s", port);
        peer_connect(&api, &v6, over);
        api_until(&api, api.accepted == 1);
        (void)snprintf(over, sizeof over, "tcp://127.0.0.1%s", port);
        if (!only) {
            peer_connect(&api, &v4, over);
            api_until(&api, api.accepted == 2);
            peer_close(&v4);
        } else {
            struct end *e = api_connect(&api, over, NULL, NULL);
            api_until(&api, e->closes == 1);
            cr_assert_eq(e->err, -ECONNREFUSED, "%s", gyre_err_name(e->err));
        }
        peer_close(&v6);
        api_close(&api);
    }
}

/* As many wait as the backlog says, and one more. */
REAL_TEST(api_effect, backlog)
{
    struct api api;
    struct backend_param local = *p;
    struct peer peers[10];
    unsigned waiting = 0;
    listen_with(&api, p, NULL, &(struct gyre_listener_options){.backlog = 7});
    int listening = gyre_listener_dup_fd(api.listener, 0);
    cr_assert_eq(info_of(listening).tcpi_sacked, 7); /* where the kernel tells it of a socket that listens */
    cr_assert_eq(close(listening), 0);
    api_close(&api);

    local.transport = TRANSPORT_ABSTRACT;
    listen_with(&api, &local, NULL, &(struct gyre_listener_options){.backlog = 5});
    cr_assert_eq(gyre_listener_pause(api.listener), 0);
    for (unsigned i = 0; i < 10; i++)
        api_turn(&api);
    struct gyre__address to;
    cr_assert_eq(gyre__addr_parse(&to, api.address), 0);
    for (unsigned i = 0; i < 10; i++) {
        peers[i] = (struct peer){.api = &api, .fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)};
        if (connect(peers[i].fd, (struct sockaddr *)&to.addr.ss, to.addr.len) == 0)
            waiting++;
        else
            cr_assert_eq(errno, EAGAIN);
    }
    cr_assert_eq(waiting, 6);
    cr_assert_eq(api.accepted, 0);
    cr_assert_eq(gyre_listener_resume(api.listener), 0);
    api_until(&api, api.accepted == 6);
    for (unsigned i = 0; i < 10; i++)
        peer_close(&peers[i]);
    api_close(&api);
}

/* ---- connections ---- */

/* Nagle's algorithm is off at both ends, unless it is asked for. */
REAL_TEST(api_effect, no_delay)
{
    for (int delay = 0; delay < 2; delay++) {
        struct api api;
        const struct gyre_conn_options options = {.nagle = delay};
        listen_with(&api, p, NULL, &(struct gyre_listener_options){.conn = options});
        struct end *made = api_connect(&api, api.address, NULL, &options);
        api_until(&api, api.accepted == 1 && made->opens == 1);
        cr_assert_eq(number_of(gyre_conn_fd(made->c), IPPROTO_TCP, TCP_NODELAY), !delay);
        cr_assert_eq(number_of(gyre_conn_fd(api_newest(&api)->c), IPPROTO_TCP, TCP_NODELAY), !delay);
        api_close(&api);
    }
}

/* How much a peer with a small buffer gets rid of while nobody receives. */
static uint64_t room_with(const struct backend_param *p, uint32_t recv_buffer_bytes)
{
    struct api api;
    struct peer peer;
    int small = 4096;
    uint64_t last;
    listen_with(&api, p, NULL,
                &(struct gyre_listener_options){
                    .conn = {.start_paused = true, .recv_buffer_bytes = recv_buffer_bytes}});
    (void)peer_open(&api, &peer);
    cr_assert_eq(setsockopt(peer.fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof small), 0);
    do {
        last = peer.sent;
        for (unsigned i = 0; i < 30; i++) {
            (void)peer_send_some(&peer, KIB(64));
            api_turn(&api);
        }
    } while (peer.sent > last);
    peer_reset(&peer);
    api_close(&api);
    return last;
}

REAL_TEST(api_effect, receive_buffer)
{
    uint64_t little = room_with(p, 4096), usual = room_with(p, 0);
    cr_assert_lt(little * 3, usual, "%llu bytes fit with a small buffer, %llu without", (unsigned long long)little,
                 (unsigned long long)usual);
}

/* How much the kernel takes beyond what is on its way, while nobody reads. */
static int not_sent(const struct backend_param *p, const struct gyre_conn_options *options, size_t *taken)
{
    struct api api;
    struct peer peer;
    int bytes = 0, most = 0;
    listen_with(&api, p, NULL, &(struct gyre_listener_options){.conn = *options});
    struct end *e = peer_open(&api, &peer);
    end_put(e, MIB(12));
    for (unsigned i = 0; i < 60; i++) {
        api_turn(&api);
        cr_assert_eq(ioctl(gyre_conn_fd(e->c), SIOCOUTQNSD, &bytes), 0);
        most = bytes > most ? bytes : most;
    }
    *taken = MIB(12) - gyre_conn_outbound(e->c);
    cr_assert_eq(gyre_conn_abort(e->c), 0);
    peer_close(&peer);
    api_close(&api);
    return most;
}

REAL_TEST(api_effect, not_sent_low_mark)
{
    size_t taken;
    int usual = not_sent(p, &(struct gyre_conn_options){.nagle = false}, &taken);
    int little = not_sent(p, &(struct gyre_conn_options){.notsent_lowat_bytes = 16384}, &taken);
    cr_assert_leq(little, 16384 + 65536, "%d bytes wait in the kernel", little); /* and one piece more */
    cr_assert_gt(usual, 2 * little, "%d bytes with the mark, %d without", little, usual);
}

REAL_TEST(api_effect, send_buffer)
{
    size_t usual, little;
    (void)not_sent(p, &(struct gyre_conn_options){.nagle = false}, &usual);
    (void)not_sent(p, &(struct gyre_conn_options){.send_buffer_bytes = 4096}, &little);
    cr_assert_lt(little, usual, "the kernel took %zu bytes with a small buffer, %zu without", little, usual);
}

/* Whether the network is gone, which makes sending fail at once, or only does not answer, is the kernel's to say. */
static void assert_gave_up(const struct end *e)
{
    cr_assert(e->err == -ETIMEDOUT || e->err == -EHOSTUNREACH || e->err == -ENETUNREACH, "%s", gyre_err_name(e->err));
    cr_assert_eq(e->reason, GYRE_CLOSE_ERROR);
}

/* A peer that is not there any more is found out by asking, within two seconds. */
REAL_TEST(api_effect, keepalive)
{
    struct api api;
    struct peer peer;
    net_own();
    listen_with(&api, p, NULL,
                &(struct gyre_listener_options){
                    .conn = {.keepalive = {.idle_ns = MS(1000), .interval_ns = MS(1000), .count = 1}}});
    struct end *e = peer_open(&api, &peer);
    cr_assert_eq(number_of(gyre_conn_fd(e->c), SOL_SOCKET, SO_KEEPALIVE), 1);
    cr_assert_eq(number_of(gyre_conn_fd(e->c), IPPROTO_TCP, TCP_KEEPIDLE), 1);
    cr_assert_eq(number_of(gyre_conn_fd(e->c), IPPROTO_TCP, TCP_KEEPINTVL), 1);
    cr_assert_eq(number_of(gyre_conn_fd(e->c), IPPROTO_TCP, TCP_KEEPCNT), 1);
    net_set_loopback(false);
    api_until(&api, e->closes == 1);
    assert_gave_up(e);
    peer_close(&peer);
    api_close(&api);
}

/* What is sent and never acknowledged ends the connection in the time that was set; by itself it takes minutes. */
REAL_TEST(api_effect, user_timeout)
{
    struct api api;
    struct peer peer;
    net_own();
    listen_with(&api, p, NULL, &(struct gyre_listener_options){.conn = {.user_timeout_ns = MS(300)}});
    struct end *e = peer_open(&api, &peer);
    cr_assert_eq(number_of(gyre_conn_fd(e->c), IPPROTO_TCP, TCP_USER_TIMEOUT), 300);
    net_set_loopback(false);
    end_put(e, 1000);
    api_until(&api, e->closes == 1);
    assert_gave_up(e);
    cr_assert_geq(e->unsent, 1000, "what never arrived is told");
    peer_close(&peer);
    api_close(&api);
}
