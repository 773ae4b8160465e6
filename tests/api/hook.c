/* SPDX-License-Identifier: MIT
 * on_socket: each socket is shown to the program once, at the right moment, on every transport; what the program says
 * no to is closed, and told. */
#include "rig.h"

#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <unistd.h>

enum { SEEN_MAX = 16, TTL = 33 };

/* What on_socket was called with, and what it answers. One test at a time runs in a process. */
static struct {
    unsigned count;
    enum gyre_socket_purpose purposes[SEEN_MAX];
    void *users[SEEN_MAX];
    enum gyre_socket_purpose no_to;
    int answer;
} seen;

/* Whether it is bound, and whether it has a peer. (The simulator's are not for system calls.) */
static void check_moment(int fd, enum gyre_socket_purpose purpose)
{
    struct sockaddr_storage own = {.ss_family = AF_UNSPEC}, peer;
    socklen_t own_len = sizeof own, peer_len = sizeof peer;
    cr_assert_eq(getsockname(fd, (struct sockaddr *)&own, &own_len), 0, "%s", strerror(errno));
    int with_peer = getpeername(fd, (struct sockaddr *)&peer, &peer_len) == 0;
    cr_assert_eq(with_peer, purpose == GYRE_SOCKET_ACCEPT);
    if (own.ss_family == AF_UNIX)
        return;
    in_port_t port = own.ss_family == AF_INET ? ((const struct sockaddr_in *)&own)->sin_port
                                              : ((const struct sockaddr_in6 *)&own)->sin6_port;
    cr_assert_eq(port != 0, purpose == GYRE_SOCKET_ACCEPT, "bound already");
    int ttl = TTL + (int)purpose;
    cr_assert_eq(setsockopt(fd, IPPROTO_IP, IP_TTL, &ttl, sizeof ttl), 0, "%s", strerror(errno));
}

static int on_socket(int fd, enum gyre_socket_purpose purpose, void *user)
{
    cr_assert_lt(seen.count, SEEN_MAX);
    cr_assert_geq(fd, 0);
    seen.purposes[seen.count] = purpose;
    seen.users[seen.count++] = user;
    return seen.no_to == purpose ? seen.answer : 0;
}

static int on_real_socket(int fd, enum gyre_socket_purpose purpose, void *user)
{
    check_moment(fd, purpose);
    return on_socket(fd, purpose, user);
}

static void check_ttl(int fd, enum gyre_socket_purpose purpose)
{
    int ttl = -1;
    socklen_t len = sizeof ttl;
    cr_assert_eq(getsockopt(fd, IPPROTO_IP, IP_TTL, &ttl, &len), 0, "%s", strerror(errno));
    cr_assert_eq(ttl, TTL + (int)purpose);
}

/* Listening, connecting and accepting show one socket each; what is set on it stays, and the connection works. */
TRANSPORT_TEST(api_hook, shown_once)
{
    struct api api;
    memset(&seen, 0, sizeof seen);
    api_init(&api, p);
    api_open(&api);
    const struct gyre_conn_options options = {.on_socket = api.is_sim ? on_socket : on_real_socket};
    api_listen(&api, NULL, &(struct gyre_listener_options){.conn = options});
    cr_assert_eq(seen.count, 1);
    cr_assert_eq(seen.purposes[0], GYRE_SOCKET_LISTEN);
    struct end *connected = api_connect(&api, api.address, NULL, &options);
    cr_assert_eq(seen.count, 2);
    cr_assert_eq(seen.purposes[1], GYRE_SOCKET_CONNECT);
    cr_assert_eq(seen.users[1], connected);
    api_until(&api, api.accepted == 1 && connected->opens == 1);
    cr_assert_eq(seen.count, 3);
    cr_assert_eq(seen.purposes[2], GYRE_SOCKET_ACCEPT);
    cr_assert_eq(seen.users[2], seen.users[0]);
    struct end *accepted = api_newest(&api);
    if (!api.is_sim && is_tcp(&api)) {
        check_ttl(gyre_conn_fd(connected->c), GYRE_SOCKET_CONNECT);
        check_ttl(gyre_conn_fd(accepted->c), GYRE_SOCKET_ACCEPT);
    }
    end_put(connected, KIB(100));
    end_put(accepted, KIB(100));
    api_until(&api, connected->got == KIB(100) && accepted->got == KIB(100));
    cr_assert_eq(seen.count, 3);
    api_close(&api);
}

/* ---- no ---- */

static struct {
    unsigned opens, closes;
    int err;
    enum gyre_close_reason reason;
} told;

static void on_open(struct gyre_conn *c)
{
    (void)c;
    told.opens++;
}

static void on_data(struct gyre_conn *c)
{
    (void)gyre_conn_discard(c, SIZE_MAX);
}

static void on_close(struct gyre_conn *c, int err)
{
    told.closes++;
    told.err = err;
    told.reason = gyre_conn_close_reason(c);
}

static const struct gyre_conn_handlers handlers = {.on_open = on_open, .on_data = on_data, .on_close = on_close};

static void say_no(enum gyre_socket_purpose to, int answer)
{
    memset(&seen, 0, sizeof seen);
    memset(&told, 0, sizeof told);
    seen.no_to = to;
    seen.answer = answer;
}

/* Nothing listens and nothing connects: that is returned, nothing is called, and nothing stays open. */
TRANSPORT_TEST(api_hook, refused_at_once)
{
    static const int answers[][2] = {{-EACCES, -EACCES}, {7, -EINVAL}, {GYRE_EOPTION, GYRE_EOPTION}};
    const struct gyre_conn_options options = {.on_socket = on_socket};
    struct api api;
    char fresh[160];
    api_start(&api, p, NULL);
    for (unsigned i = 0; i < sizeof answers / sizeof answers[0]; i++) {
        struct gyre_listener *l = NULL;
        struct gyre_conn *c = NULL;
        api_fresh_address(&api, fresh, sizeof fresh);
        say_no(GYRE_SOCKET_LISTEN, answers[i][0]);
        int err = gyre_loop_listen(&l, api.loop, fresh, &handlers, &(struct gyre_listener_options){.conn = options});
        cr_assert_eq(err, answers[i][1], "%s", gyre_err_name(err));
        cr_assert_null(l);
        say_no(GYRE_SOCKET_CONNECT, answers[i][0]);
        err = gyre_connect(&c, api.loop, api.address, &handlers, &options);
        cr_assert_eq(err, answers[i][1], "%s", gyre_err_name(err));
        cr_assert_null(c);
        cr_assert_eq(seen.count, 1);
        cr_assert_eq(told.opens + told.closes, 0);
    }
    cr_assert_eq(gyre_loop_conn_count(api.loop), 0);
    cr_assert_eq(api.accepted, 0);
    api_close(&api);
}

/* What is accepted and refused never opens; on_close says why, the peer sees the end, and the next one is served. */
TRANSPORT_TEST(api_hook, refused_when_accepted)
{
    struct api api;
    struct peer peer, next;
    struct gyre_listener *l = NULL;
    char fresh[160];
    api_init(&api, p);
    api.quiet_sim = true;
    api_open(&api);
    api_listen(&api, NULL, NULL);
    api_fresh_address(&api, fresh, sizeof fresh);
    say_no(GYRE_SOCKET_ACCEPT, -EPERM);
    int err = gyre_loop_listen(&l, api.loop, fresh, &handlers,
                               &(struct gyre_listener_options){.conn = {.on_socket = on_socket, .user = &told}});
    cr_assert_eq(err, 0, "%s", gyre_err_name(err));
    peer_connect(&api, &peer, gyre_listener_address(l));
    api_until(&api, told.closes == 1);
    cr_assert_eq(told.opens, 0);
    cr_assert_eq(told.err, -EPERM);
    cr_assert_eq(told.reason, GYRE_CLOSE_ERROR);
    cr_assert_eq(seen.users[1], &told);
    peer_until_end(&peer);
    peer_close(&peer);
    cr_assert_eq(gyre_listener_conn_count(l), 0);
    seen.no_to = 0;
    peer_connect(&api, &next, gyre_listener_address(l));
    api_until(&api, told.opens == 1);
    peer_close(&next);
    api_until(&api, told.closes == 2);
    cr_assert_eq(told.err, 0, "%s", gyre_err_name(told.err));
    cr_assert_eq(seen.count, 3);
    api_close(&api);
}

/* ---- in an engine ---- */

enum { LOOPS = 3, CLIENTS = 9 };

static _Atomic(unsigned) listening, accepting;
static _Atomic(int) answer;
static _Thread_local int last_fd;

static int count_socket(int fd, enum gyre_socket_purpose purpose, void *user)
{
    (void)user;
    last_fd = fd;
    atomic_fetch_add(purpose == GYRE_SOCKET_LISTEN ? &listening : &accepting, 1);
    return purpose == GYRE_SOCKET_ACCEPT ? atomic_load(&answer) : 0;
}

static void check_open(struct gyre_conn *c)
{
    cr_assert_eq(gyre_conn_fd(c), last_fd, "shown on another thread, or not just before");
    rig_on_open(c);
}

static const struct gyre_conn_handlers counting = {
    .on_open = check_open, .on_data = rig_on_data, .on_close = rig_on_close};

static void serve(struct rig *r, enum gyre_balance balance)
{
    int fds[CLIENTS];
    char byte;
    for (unsigned i = 0; i < CLIENTS; i++) {
        fds[i] = rig_client(gyre_listener_address(r->listener));
        rig_ping(fds[i]);
    }
    cr_assert_eq(atomic_load(&accepting), CLIENTS);
    if (balance == GYRE_BALANCE_ROUND_ROBIN)
        for (unsigned i = 0; i < LOOPS; i++)
            cr_assert_eq(r->opens[i], CLIENTS / LOOPS);
    atomic_store(&answer, -EPERM);
    for (unsigned i = 0; i < CLIENTS; i++) {
        int fd = rig_client(gyre_listener_address(r->listener));
        cr_assert_leq(rig_receive(fd, &byte, 1), 0, "it was served");
        cr_assert_eq(close(fd), 0);
    }
    await(atomic_load(&r->closes) == CLIENTS);
    cr_assert_eq(r->last_err, -EPERM);
    await(gyre_listener_conn_count(r->listener) == CLIENTS);
    cr_assert_eq(rig_opened(r), CLIENTS);
    for (unsigned i = 0; i < CLIENTS; i++) {
        rig_ping(fds[i]);
        cr_assert_eq(close(fds[i]), 0);
    }
    await(gyre_listener_conn_count(r->listener) == 0);
}

/* Each socket that listens is shown, and each that is accepted on the loop that has it, whoever accepted it; the places
 * of those that are refused are free again. */
REAL_TEST(api_hook, in_an_engine)
{
    static const enum gyre_balance balances[] = {GYRE_BALANCE_KERNEL, GYRE_BALANCE_ROUND_ROBIN};
    for (unsigned i = 0; i < 2; i++) {
        struct rig r;
        atomic_store(&listening, 0);
        atomic_store(&accepting, 0);
        atomic_store(&answer, 0);
        rig_open(&r, p, LOOPS);
        const struct gyre_listener_options options = {.balance = balances[i], .conn = {.on_socket = count_socket}};
        int err = gyre_engine_listen(&r.listener, r.engine, rig_tcp, &counting, &options);
        cr_assert_eq(err, 0, "%s", gyre_err_name(err));
        cr_assert_eq(atomic_load(&listening), balances[i] == GYRE_BALANCE_KERNEL ? LOOPS : 1);
        rig_run(&r);
        serve(&r, balances[i]);
        rig_stop(&r);
    }
}
