/* SPDX-License-Identifier: MIT
 * Datagram sockets that somebody else opened: connected, bound, inherited, and what is no such socket. */
#include "udp.h"

#include "loop/loop.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

/* Of the kernel's, bound to a free port of loopback. */
static int bound_socket(int family, int flags, struct sockaddr_storage *addr, socklen_t *len)
{
    struct sockaddr_in in4 = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    int fd = socket(family, SOCK_DGRAM | flags, 0);
    cr_assert_geq(fd, 0);
    const struct sockaddr *any = family == AF_INET ? (struct sockaddr *)&in4 : (struct sockaddr *)&in6;
    cr_assert_eq(bind(fd, any, family == AF_INET ? sizeof in4 : sizeof in6), 0, "%s", strerror(errno));
    *len = sizeof *addr;
    cr_assert_eq(getsockname(fd, (struct sockaddr *)addr, len), 0);
    return fd;
}

/* Two that are connected to each other. */
static void connected_pair(int family, int flags, int fds[2])
{
    struct sockaddr_storage addr[2];
    socklen_t len[2];
    if (family == AF_UNIX) {
        cr_assert_eq(socketpair(AF_UNIX, SOCK_DGRAM | flags, 0, fds), 0);
        return;
    }
    for (int i = 0; i < 2; i++)
        fds[i] = bound_socket(family, flags, &addr[i], &len[i]);
    for (int i = 0; i < 2; i++)
        cr_assert_eq(connect(fds[i], (struct sockaddr *)&addr[!i], len[!i]), 0);
}

static size_t receive(struct api *api, int fd, uint8_t *to, size_t size)
{
    ssize_t n = -1;
    api_until(api, (n = recv(fd, to, size, MSG_DONTWAIT)) >= 0);
    return (size_t)n;
}

static void adopt(struct api *api, struct dsock *s, int fd, const struct dscript *script,
                  const struct gyre_udp_options *options)
{
    int err = udp_try_adopt(api, s, fd, script, options);
    cr_assert_eq(err, 0, "adopt: %s", gyre_err_name(err));
    cr_assert_eq(gyre_udp_fd(s->u), fd);
}

static void is_closed(int fd)
{
    cr_assert(fcntl(fd, F_GETFD) == -1 && errno == EBADF, "the descriptor is still open");
}

/* A connected one, blocking or not: what waits in it comes, it sends without an address, it knows who it talks to. */
DGRAM_REAL_TEST(api_udp_adopt, connected)
{
    static const int families[] = {AF_INET, AF_INET6, AF_UNIX};
    static struct dsock socks[6];
    struct api api;
    udp_start(&api, p);
    for (unsigned i = 0; i < 6; i++) {
        int fds[2], family = families[i / 2];
        uint8_t data[300], got[400];
        struct sockaddr_storage peer, is;
        socklen_t len = sizeof peer, is_len = sizeof is;
        struct dsock *s = &socks[i];
        connected_pair(family, i % 2 != 0 ? SOCK_NONBLOCK : 0, fds);
        udp_fill(data, sizeof data, 7);
        cr_assert_eq(send(fds[1], data, sizeof data, 0), sizeof data);
        adopt(&api, s, fds[0], NULL, NULL);
        cr_assert_eq(s->datagrams, 0, "a callback from inside a call");
        cr_assert(fcntl(fds[0], F_GETFD) & FD_CLOEXEC);
        cr_assert_eq(gyre_udp_peer_address(&is, &is_len, s->u), 0);
        cr_assert_eq(getsockname(fds[1], (struct sockaddr *)&peer, &len), 0);
        cr_assert(is_len == len && memcmp(&is, &peer, len) == 0);
        cr_assert_eq(udp_send(s, 8, 200), 0);
        cr_assert_eq(receive(&api, fds[1], got, sizeof got), 200);
        api_until(&api, s->datagrams == 1);
        cr_assert_eq(s->seen[7], 1);
        cr_assert_eq(s->len_last, sizeof data);
        udp_close(s);
        is_closed(fds[0]);
        (void)close(fds[1]);
    }
    api_close(&api);
}

/* A bound one answers anybody, and has an address; so does one that sending binds. */
DGRAM_REAL_TEST(api_udp_adopt, bound)
{
    static const struct dscript echo = {.datagram = udp_echo};
    static struct dsock bound, fresh;
    struct api api;
    struct sockaddr_storage addr;
    socklen_t len;
    uint8_t data[100];
    char text[64];
    udp_start(&api, p);
    int fd = bound_socket(AF_INET, 0, &addr, &len), own = socket(AF_INET, SOCK_DGRAM, 0);
    adopt(&api, &bound, fd, &echo, NULL);
    adopt(&api, &fresh, own, NULL, NULL);
    (void)snprintf(text, sizeof text, "udp://127.0.0.1:%u", ntohs(((struct sockaddr_in *)&addr)->sin_port));
    cr_assert_str_eq(gyre_udp_address(bound.u), text);
    cr_assert_eq(gyre_udp_send(bound.u, "x", 1), -EDESTADDRREQ);
    udp_fill(data, sizeof data, 5);
    cr_assert_eq(gyre_udp_send_to(fresh.u, (struct sockaddr *)&addr, len, data, sizeof data), 0);
    api_until(&api, fresh.datagrams == 1);
    cr_assert_eq(fresh.seen[5], 1);
    udp_close(&bound);
    udp_close(&fresh);
    is_closed(fd);
    api_close(&api);
}

/* An IPv6 one carries IPv4 if it did before. */
DGRAM_REAL_TEST(api_udp_adopt, both_families)
{
    static struct dsock socks[2];
    struct api api;
    struct sockaddr_storage addr;
    socklen_t len;
    uint8_t data[100], got[200];
    udp_start(&api, p);
    int peer = bound_socket(AF_INET, 0, &addr, &len);
    udp_fill(data, sizeof data, 1);
    for (int only = 0; only < 2; only++) {
        int fd = socket(AF_INET6, SOCK_DGRAM, 0);
        cr_assert_eq(setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &only, sizeof only), 0);
        adopt(&api, &socks[only], fd, NULL, NULL);
        int err = gyre_udp_send_to(socks[only].u, (struct sockaddr *)&addr, len, data, sizeof data);
        cr_assert_eq(err, only ? -EAFNOSUPPORT : 0);
    }
    cr_assert_eq(receive(&api, peer, got, sizeof got), sizeof data);
    (void)close(peer);
    udp_close(&socks[0]);
    udp_close(&socks[1]);
    api_close(&api);
}

/* The socket file of a unix one belongs to whoever made it. */
DGRAM_REAL_TEST(api_udp_adopt, unix_path)
{
    static struct dsock s;
    struct api api;
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    udp_start(&api, p);
    (void)snprintf(un.sun_path, sizeof un.sun_path, "%s/adopted", api.dir);
    int fd = socket(AF_UNIX, SOCK_DGRAM, 0), peer = socket(AF_UNIX, SOCK_DGRAM, 0);
    cr_assert_eq(bind(fd, (struct sockaddr *)&un, sizeof un), 0);
    adopt(&api, &s, fd, NULL, NULL);
    cr_assert_eq(strncmp(gyre_udp_address(s.u), "unixgram://", 11), 0);
    uint8_t data[40];
    udp_fill(data, sizeof data, 3);
    cr_assert_eq(sendto(peer, data, sizeof data, 0, (struct sockaddr *)&un, sizeof un), sizeof data);
    api_until(&api, s.datagrams == 1);
    udp_close(&s);
    is_closed(fd);
    cr_assert_eq(access(un.sun_path, F_OK), 0, "the file is gone");
    cr_assert_eq(unlink(un.sun_path), 0);
    (void)close(peer);
    api_close(&api);
}

/* What the options ask for is set, and what they do not is as it was. */
DGRAM_REAL_TEST(api_udp_adopt, options)
{
    static struct dsock s;
    struct api api;
    const struct gyre_udp_options options = {.ttl = 9, .share_port = true, .start_paused = true};
    struct sockaddr_storage addr;
    socklen_t len, size = sizeof(int);
    int ttl = 0, broadcast = 1, shared = 1;
    uint8_t data[40];
    udp_start(&api, p);
    int fd = bound_socket(AF_INET, 0, &addr, &len), peer = socket(AF_INET, SOCK_DGRAM, 0);
    cr_assert_eq(setsockopt(fd, SOL_SOCKET, SO_BROADCAST, &broadcast, sizeof broadcast), 0);
    broadcast = 0;
    adopt(&api, &s, fd, NULL, &options);
    cr_assert_eq(getsockopt(fd, IPPROTO_IP, IP_TTL, &ttl, &size), 0);
    cr_assert_eq(getsockopt(fd, SOL_SOCKET, SO_BROADCAST, &broadcast, &size), 0);
    cr_assert_eq(getsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &shared, &size), 0);
    cr_assert(ttl == 9 && broadcast != 0 && shared == 0, "%d %d %d", ttl, broadcast, shared);
    udp_fill(data, sizeof data, 2);
    cr_assert_eq(sendto(peer, data, sizeof data, 0, (struct sockaddr *)&addr, len), sizeof data);
    api_watch(&api, MS(5));
    cr_assert_eq(s.datagrams, 0);
    cr_assert_eq(gyre_udp_resume(s.u), 0);
    api_until(&api, s.datagrams == 1);
    udp_close(&s);
    (void)close(peer);
    api_close(&api);
}

#ifdef UDP_SEGMENT
/* Cutting and joining that was on before is off: a datagram is a datagram. */
DGRAM_REAL_TEST(api_udp_adopt, no_segments)
{
    static struct dsock s;
    struct api api;
    int fds[2], size = 100, on = 1;
    uint8_t data[300], got[400];
    udp_start(&api, p);
    connected_pair(AF_INET, 0, fds);
    for (int i = 0; i < 2; i++)
        cr_assert_eq(setsockopt(fds[i], IPPROTO_UDP, UDP_SEGMENT, &size, sizeof size), 0);
    cr_assert_eq(setsockopt(fds[0], IPPROTO_UDP, UDP_GRO, &on, sizeof on), 0);
    adopt(&api, &s, fds[0], NULL, NULL);
    cr_assert_eq(udp_send(&s, 1, 250), 0);
    cr_assert_eq(receive(&api, fds[1], got, sizeof got), 250);
    for (unsigned i = 0; i < 3; i++)
        udp_fill(data + i * 100, 100, 10 + i);
    cr_assert_eq(send(fds[1], data, sizeof data, 0), sizeof data);
    api_until(&api, s.datagrams == 3);
    cr_assert_eq(s.distinct, 3);
    udp_close(&s);
    (void)close(fds[1]);
    api_close(&api);
}
#endif

static void *adopt_elsewhere(void *arg)
{
    static const struct gyre_udp_handlers handlers = {
        .on_datagram = (void (*)(struct gyre_udp *, const struct gyre_datagram *))abort};
    struct api *api = arg;
    return (void *)(intptr_t)gyre_udp_adopt_fd(NULL, api->loop, *(int *)api->user, &handlers, NULL);
}

/* What is no datagram socket, and what cannot be, stays the caller's. */
DGRAM_REAL_TEST(api_udp_adopt, refused)
{
    static struct dsock s;
    struct api api;
    struct sockaddr_storage addr;
    socklen_t len;
    const struct gyre_udp_options local = {.source_address = "udp://127.0.0.1:0"}, gro = {.gro = GYRE_UDP_GRO_SPLIT},
                                  nowhere = {.device = "no-such-device"};
    pthread_t thread;
    void *result;
    udp_start(&api, p);
    int others[] = {open("/dev/null", O_RDWR | O_CLOEXEC), socket(AF_INET, SOCK_STREAM, 0),
                    socket(AF_UNIX, SOCK_SEQPACKET, 0), socket(AF_NETLINK, SOCK_DGRAM, 0)};
    for (unsigned i = 0; i < sizeof others / sizeof others[0]; i++) {
        cr_assert_eq(udp_try_adopt(&api, &s, others[i], NULL, NULL), GYRE_ESOCKTYPE, "case %u", i);
        cr_assert_eq(close(others[i]), 0, "case %u: it was closed", i);
    }
    int fd = bound_socket(AF_INET, 0, &addr, &len);
    cr_assert_eq(udp_try_adopt(&api, &s, -1, NULL, NULL), -EBADF);
    cr_assert_eq(udp_try_adopt(&api, &s, fd, NULL, &local), GYRE_EOPTION);
    cr_assert_eq(udp_try_adopt(&api, &s, fd, NULL, &gro), GYRE_EOPTION);
    cr_assert_eq(udp_try_adopt(&api, &s, fd, NULL, &nowhere), -ENODEV);
    cr_assert_eq(gyre_udp_adopt_fd(NULL, api.loop, fd, NULL, NULL), GYRE_EHANDLERS);
    cr_assert_eq(gyre_udp_adopt_fd(NULL, NULL, fd, NULL, NULL), -EINVAL);
    api_turn(&api); /* from here on the loop is this thread's */
    api.user = &fd;
    cr_assert_eq(pthread_create(&thread, NULL, adopt_elsewhere, &api), 0);
    cr_assert_eq(pthread_join(thread, &result), 0);
    cr_assert_eq((int)(intptr_t)result, GYRE_ETHREAD);
    adopt(&api, &s, fd, NULL, NULL); /* after all that */
    udp_close(&s);
    is_closed(fd);
    api_close(&api);
}

/* On every backend, the simulator too: one socket bound, another connected to it, both opened below the library. */
DGRAM_TRANSPORT_TEST(api_udp_adopt, on_every_backend)
{
    static const struct dscript echo = {.datagram = udp_echo};
    static struct dsock server, client;
    struct api api;
    char address[160];
    struct gyre__addr addr = {.len = 0};
    udp_start(&api, p);
    struct gyre__backend *be = api.loop->be;
    udp_fresh_address(&api, address, sizeof address);
    cr_assert_eq(gyre_udp_parse(&addr.ss, &addr.len, address), 0);
    int fds[2] = {be->ops->sock->dgram_open(be, addr.ss.ss_family), be->ops->sock->dgram_open(be, addr.ss.ss_family)};
    cr_assert(fds[0] >= 0 && fds[1] >= 0);
    cr_assert_eq(be->ops->sock->dgram_bind(be, fds[0], &addr, 0), 0);
    cr_assert_eq(be->ops->sock->name(be, fds[0], false, &addr), 0);
    adopt(&api, &server, fds[0], &echo, NULL);
    struct gyre__addr unnamed = {.len = sizeof(sa_family_t), .ss.ss_family = AF_UNIX};
    if (!is_udp(&api))
        cr_assert_eq(be->ops->sock->dgram_bind(be, fds[1], &unnamed, 0), 0);
    cr_assert_eq(be->ops->sock->dgram_connect(be, fds[1], &addr), 0);
    adopt(&api, &client, fds[1], NULL, NULL);
    cr_assert_eq(gyre_udp_send(server.u, "x", 1), -EDESTADDRREQ);
    for (uint32_t i = 0; i < 20; i++)
        cr_assert_eq(udp_send(&client, i, 100 + i), 0);
    api_until(&api, client.distinct == 20);
    cr_assert_eq(server.distinct, 20);
    udp_close(&client);
    udp_close(&server);
    if (!api.is_sim && addr.ss.ss_family == AF_UNIX && ((struct sockaddr_un *)&addr.ss)->sun_path[0] != '\0')
        cr_assert_eq(unlink(((struct sockaddr_un *)&addr.ss)->sun_path), 0);
    api_close(&api);
}

/* ---- an engine ---- */

enum { LOOPS = 2 };

struct heir {
    struct gyre_engine *engine;
    struct sockaddr_storage addr[LOOPS];
    socklen_t len[LOOPS];
    atomic_uint served[LOOPS], closed;
    unsigned answers;
};

static void on_ask(struct gyre_udp *u, const struct gyre_datagram *d)
{
    struct heir *heir = gyre_udp_user(u);
    cr_assert_eq(gyre_udp_reply(u, d, d->data.data, d->data.len), 0);
    atomic_fetch_add(&heir->served[gyre_udp_loop(u) != gyre_engine_loop(heir->engine, 0)], 1);
}

static void on_closed(struct gyre_udp *u, int err)
{
    struct heir *heir = gyre_udp_user(u);
    (void)err;
    atomic_fetch_add(&heir->closed, 1);
}

static void on_answer(struct gyre_udp *u, const struct gyre_datagram *d)
{
    struct heir *heir = gyre_udp_user(u);
    cr_assert_eq(d->data.len, 5);
    if (++heir->answers == LOOPS)
        gyre_engine_stop(heir->engine);
}

static const struct gyre_udp_handlers serving = {.on_datagram = on_ask, .on_close = on_closed};
static const struct gyre_udp_handlers asking = {.on_datagram = on_answer, .on_close = on_closed};

static void on_boot(struct gyre_engine *engine)
{
    struct heir *heir = gyre_engine_user(engine);
    struct gyre_udp *u;
    const struct gyre_udp_options options = {.user = heir};
    cr_assert_eq(gyre_udp_open(&u, gyre_engine_loop(engine, 0), "udp://127.0.0.1:0", &asking, &options), 0);
    for (unsigned i = 0; i < LOOPS; i++)
        cr_assert_eq(gyre_udp_send_to(u, (struct sockaddr *)&heir->addr[i], heir->len[i], "hello", 5), 0);
}

/* Inherited sockets go to the loops of an engine before it runs, and are closed with it. */
DGRAM_REAL_TEST(api_udp_adopt, by_an_engine)
{
    static const struct gyre_engine_handlers handlers = {.on_boot = on_boot};
    struct heir heir = {.answers = 0};
    struct env_mem mem;
    env_mem_init(&mem);
    backends_leave_out(p);
    int fds = env_fd_count();
    const struct gyre_loop_options loop = {.backend = p->backend, .mem = &mem.mem};
    const struct gyre_engine_options all = {.loops = LOOPS, .loop = loop, .handlers = &handlers, .user = &heir};
    const struct gyre_udp_options options = {.user = &heir};
    int err = gyre_engine_create(&heir.engine, &all);
    if (err != 0)
        cr_skip_test("%s: %s", p->backend, gyre_err_name(err));
    for (unsigned i = 0; i < LOOPS; i++) {
        int fd = bound_socket(AF_INET, 0, &heir.addr[i], &heir.len[i]);
        cr_assert_eq(gyre_udp_adopt_fd(NULL, gyre_engine_loop(heir.engine, i), fd, &serving, &options), 0);
    }
    cr_assert_eq(gyre_engine_run(heir.engine), 0);
    cr_assert(heir.served[0] == 1 && heir.served[1] == 1);
    cr_assert_eq(heir.closed, LOOPS + 1);
    gyre_engine_destroy(heir.engine);
    cr_assert_eq(atomic_load(&mem.blocks), 0);
    cr_assert_eq(env_fd_count(), fds);
}
