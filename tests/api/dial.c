/* SPDX-License-Identifier: MIT
 * Connecting to names and to lists of addresses: which address wins, what is told when none does, and connections that
 * end before they have a socket. */
#include "names.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { TEXT_MAX = 8192 };

static char told[TEXT_MAX]; /* what gyre_conn_connect_error() said in the last on_close */

static void note_text(struct end *e)
{
    char small[16];
    int64_t len = gyre_conn_connect_error(told, sizeof told, e->c);
    cr_assert_eq((size_t)len, strlen(told));
    cr_assert_eq(gyre_conn_connect_error(small, sizeof small, e->c), len);
    cr_assert_eq(strncmp(small, told, sizeof small - 1), 0);
    cr_assert_lt(strlen(small), sizeof small);
    cr_assert_eq(gyre_conn_connect_error(NULL, 0, e->c), len);
    cr_assert_eq(gyre_conn_connect_error(NULL, 1, e->c), -EINVAL);
}

static const struct script noting = {.close = note_text};

static const char *port_of(const struct stage *s)
{
    return strrchr(s->address, ':') + 1;
}

/* "SCHEME://HOST:PORT" with the port of the stage. */
static const char *with_port(const struct stage *s, const char *scheme_and_host)
{
    static char text[4][512];
    static unsigned turn;
    char *out = text[turn++ % 4];
    (void)snprintf(out, sizeof text[0], "%s:%s", scheme_and_host, port_of(s));
    return out;
}

/* An address at which nobody listens. */
static void stage_gone(struct api *api, struct stage *s)
{
    struct stage open;
    stage_open(api, &open);
    *s = open;
    stage_close(&open);
}

/* Bytes there and back, then a clean end. */
static void talk(struct api *api, struct stage *stage, struct end *e)
{
    struct peer peer;
    stage_accept(stage, &peer, e);
    api_until(api, e->opens == 1);
    end_put(e, 30000);
    peer_expect(&peer, e->put);
    peer_send(&peer, 20000);
    api_until(api, e->got == 20000);
    cr_assert_eq(gyre_conn_close(e->c), 0);
    peer_until_end(&peer);
    cr_assert(peer.eof);
    peer_close(&peer);
    api_until(api, e->closes == 1);
    cr_assert_eq(e->err, 0);
    cr_assert_eq(e->reason, GYRE_CLOSE_USER);
}

/* A name is connected to; what is written before is delivered; until then there is no socket. */
BACKEND_TEST(api_dial, name)
{
    struct api api;
    struct names n;
    struct stage stage;
    struct sockaddr_storage addr;
    socklen_t len;
    int64_t value;
    names_start(&api, &n, p, NULL);
    stage_open(&api, &stage);
    names_one(&n, "one.test", "127.0.0.1");
    struct end *e = api_connect(&api, with_port(&stage, "tcp://one.test"), NULL, NULL);
    end_put(e, 10000);
    cr_assert_eq(gyre_conn_fd(e->c), -1);
    cr_assert_eq(gyre_conn_peer_address(&addr, &len, e->c), -ENOTCONN);
    cr_assert_eq(gyre_conn_local_address(&addr, &len, e->c), -ENOTCONN);
    cr_assert_eq(gyre_conn_set_sockopt(e->c, GYRE_SOCKOPT_RECV_BUFFER_BYTES, 4096), -ENOTCONN);
    cr_assert_eq(gyre_conn_sockopt(&value, e->c, GYRE_SOCKOPT_RECV_BUFFER_BYTES), -ENOTCONN);
    cr_assert_eq(gyre_conn_dup_fd(e->c), -ENOTCONN);
    cr_assert_eq(gyre_conn_try_write(e->c, "x", 1), -EAGAIN);
    cr_assert_eq(gyre_conn_pause(e->c), 0);
    cr_assert_eq(gyre_conn_resume(e->c), 0);
    api_until(&api, e->opens == 1);
    cr_assert_geq(gyre_conn_fd(e->c), 0);
    cr_assert_eq(gyre_conn_peer_address(&addr, &len, e->c), 0);
    cr_assert_eq(addr.ss_family, AF_INET);
    talk(&api, &stage, e);
    cr_assert_eq(api_stats(&api).connected, 1);
    /* Once more, from the cache. */
    e = api_connect(&api, with_port(&stage, "tcp://ONE.test."), NULL, NULL);
    talk(&api, &stage, e);
    cr_assert_eq(names_stats(&n).hits, 1);
    stage_close(&stage);
    names_stop(&api, &n);
}

/* The first address refuses, and so does one of the other family; the next works, at once. */
BACKEND_TEST(api_dial, next_after_a_refusal)
{
    struct api api;
    struct names n;
    struct stage stage;
    const char *addresses[] = {"127.0.0.2", "127.0.0.1", "::1"};
    names_start(&api, &n, p, NULL);
    stage_open(&api, &stage);
    names_set(&n, "three.test", addresses, 3, 0);
    const struct gyre_conn_options slow = {.attempt_delay_ns = MS(3600000)};
    struct end *e = api_connect(&api, with_port(&stage, "tcp://three.test"), NULL, &slow);
    end_put(e, 50000);
    talk(&api, &stage, e);
    cr_assert_eq(api_stats(&api).connected, 1);
    stage_close(&stage);
    names_stop(&api, &n);
}

/* The first address does not answer: the second is tried after the delay and wins, and the first is given up. */
BACKEND_TEST(api_dial, next_after_the_delay)
{
    struct api api;
    struct names n;
    struct stage stage;
    static struct hole hole;
    char list[512];
    names_start(&api, &n, p, NULL);
    stage_open(&api, &stage);
    hole_open(&api, &hole);
    (void)snprintf(list, sizeof list, "%s,127.0.0.1:%s", hole.stage.address, port_of(&stage));
    const struct gyre_conn_options quick = {.attempt_delay_ns = MS(30)};
    uint64_t start_ns = api_now_ns(&api);
    struct end *e = api_connect(&api, list, NULL, &quick);
    end_put(e, 5000);
    api_until(&api, e->opens == 1);
    cr_assert_geq(api_now_ns(&api), start_ns + (uint64_t)MS(30));
    talk(&api, &stage, e);
    /* With all of an hour between attempts, nothing happens. */
    const struct gyre_conn_options slow = {.attempt_delay_ns = MS(3600000)};
    e = api_connect(&api, list, NULL, &slow);
    if (!api.is_sim)
        api_watch(&api, MS(50));
    cr_assert_eq(e->opens + e->closes, 0);
    cr_assert_eq(gyre_conn_abort(e->c), 0);
    api_until(&api, e->closes == 1);
    hole_close(&hole);
    stage_close(&stage);
    names_stop(&api, &n);
}

/* A list of which one address works, wherever it stands. */
BACKEND_TEST(api_dial, list)
{
    struct api api;
    struct names n;
    struct stage stage, gone[3];
    char list[512];
    names_start(&api, &n, p, NULL);
    stage_open(&api, &stage);
    for (unsigned i = 0; i < 3; i++)
        stage_gone(&api, &gone[i]);
    for (unsigned at = 0; at < 4; at++) {
        int len = snprintf(list, sizeof list, "tcp://");
        for (unsigned i = 0; i < 4; i++)
            len += snprintf(list + len, sizeof list - (size_t)len, "%s127.0.0.1:%s", i > 0 ? "," : "",
                            port_of(i == at ? &stage : &gone[i % 3]));
        struct end *e = api_connect(&api, list, NULL, NULL);
        talk(&api, &stage, e);
    }
    cr_assert_eq(names_stats(&n).requests, 0);
    stage_close(&stage);
    names_stop(&api, &n);
}

/* All fail: the error of the first, and one text with all; families take turns. */
BACKEND_TEST(api_dial, all_fail)
{
    struct api api;
    struct names n;
    struct stage gone;
    char list[256], want[512];
    names_start(&api, &n, p, NULL);
    stage_gone(&api, &gone);
    const char *port = port_of(&gone);
    (void)snprintf(list, sizeof list, "tcp://127.0.0.1:%s,127.0.0.2:%s,127.0.0.3:%s,[::1]:%s", port, port, port, port);
    (void)snprintf(want, sizeof want,
                   "tcp://127.0.0.1:%s ECONNREFUSED, tcp://[::1]:%s ECONNREFUSED, tcp://127.0.0.2:%s ECONNREFUSED, "
                   "tcp://127.0.0.3:%s ECONNREFUSED",
                   port, port, port, port);
    struct end *e = api_connect(&api, list, &noting, NULL);
    end_put(e, 100);
    cr_assert_eq(gyre_conn_write_ref(e->c, "x", 1, end_on_sent, e), 0);
    api_until(&api, e->closes == 1);
    cr_assert_eq(e->err, -ECONNREFUSED);
    cr_assert_eq(e->reason, GYRE_CLOSE_CONNECT);
    cr_assert_eq(e->opens, 0);
    cr_assert_eq(e->unsent, 101);
    cr_assert_eq(e->sents, 1);
    cr_assert_str_eq(told, want);
    /* One address alone has a text, too. */
    (void)snprintf(list, sizeof list, "tcp://127.0.0.1:%s", port);
    (void)snprintf(want, sizeof want, "%s ECONNREFUSED", list);
    e = api_connect(&api, list, &noting, NULL);
    api_until(&api, e->closes == 1);
    cr_assert_eq(e->err, -ECONNREFUSED);
    cr_assert_str_eq(told, want);
    names_stop(&api, &n);
}

/* A hundred addresses, of which the limit leaves 64, all refuse: each is tried once, and all are in the text. */
BACKEND_TEST(api_dial, many_addresses)
{
    struct api api;
    struct names n;
    struct stage gone;
    static char texts[100][16];
    const char *many[100];
    for (unsigned i = 0; i < 100; i++) {
        (void)snprintf(texts[i], sizeof texts[i], "127.0.1.%u", i + 1);
        many[i] = texts[i];
    }
    names_start(&api, &n, p, NULL);
    stage_gone(&api, &gone);
    names_set(&n, "many.test", many, 100, 0);
    struct end *e = api_connect(&api, with_port(&gone, "tcp://many.test"), &noting, NULL);
    api_until(&api, e->closes == 1);
    cr_assert_eq(e->err, -ECONNREFUSED);
    unsigned count = 0;
    for (const char *at = told; (at = strstr(at, "ECONNREFUSED")) != NULL; at++)
        count++;
    cr_assert_eq(count, 64, "%s", told);
    cr_assert_not_null(strstr(told, "127.0.1.64:"));
    names_stop(&api, &n);
}

/* A name that does not exist and a server that fails are told by on_close, with the name. */
BACKEND_TEST(api_dial, lookup_fails)
{
    struct api api;
    struct names n;
    names_start(&api, &n, p, NULL);
    names_set(&n, "broken.test", NULL, 0, GYRE_ENAMESERVER);
    names_one(&n, "four.test", "127.0.0.1");
    static const struct {
        const char *address, *text;
        int err;
    } rows[] = {
        {"tcp://none.test:80", "tcp://none.test:80 GYRE_ENONAME", GYRE_ENONAME},
        {"tcp://broken.test:80", "tcp://broken.test:80 GYRE_ENAMESERVER", GYRE_ENAMESERVER},
        {"tcp6://four.test:80", "tcp6://four.test:80 GYRE_ENONAME", GYRE_ENONAME},
    };
    for (unsigned i = 0; i < 3; i++) {
        struct end *e = api_connect(&api, rows[i].address, &noting, NULL);
        end_put(e, 77);
        api_until(&api, e->closes == 1);
        cr_assert_eq(e->err, rows[i].err, "%s: %s", rows[i].address, gyre_err_name(e->err));
        cr_assert_eq(e->reason, GYRE_CLOSE_CONNECT);
        cr_assert_eq(e->unsent, 77);
        cr_assert_str_eq(told, rows[i].text);
    }
    names_stop(&api, &n);
}

/* A source address decides the family; what does not fit is refused at once, or left out. */
BACKEND_TEST(api_dial, source_family)
{
    struct api api;
    struct names n;
    struct stage stage;
    static const struct gyre_conn_handlers handlers = {.on_data = (void (*)(struct gyre_conn *))abort};
    const char *both[] = {"::1", "127.0.0.1"};
    names_start(&api, &n, p, NULL);
    stage_open(&api, &stage);
    names_set(&n, "both.test", both, 2, 0);
    const struct gyre_conn_options four = {.source_address = "tcp://127.0.0.1:0"};
    const struct gyre_conn_options six = {.source_address = "tcp://[::1]:0"};
    struct end *e = api_connect(&api, with_port(&stage, "tcp://both.test"), NULL, &four);
    talk(&api, &stage, e);
    e = api_connect(&api, with_port(&stage, "tcp://both.test"), &noting, &six);
    api_until(&api, e->closes == 1);
    cr_assert_eq(e->err, -ECONNREFUSED);
    cr_assert_eq(strncmp(told, "tcp://[::1]:", 12), 0, "%s", told);
    cr_assert_null(strchr(told, ','), "%s", told);
    cr_assert_eq(gyre_connect(NULL, api.loop, "tcp6://both.test:1", &handlers, &four), GYRE_EADDRESS);
    cr_assert_eq(gyre_connect(NULL, api.loop, "tcp://[::1]:1,[::1]:2", &handlers, &four), GYRE_EADDRESS);
    const struct gyre_conn_options ports = {.source_port_first = 20000, .source_port_last = 29999};
    e = api_connect(&api, with_port(&stage, "tcp://both.test"), NULL, &ports);
    talk(&api, &stage, e);
    stage_close(&stage);
    names_stop(&api, &n);
}

static void expect_limit(struct api *api, struct end *e, const char *in_text)
{
    api_until(api, e->closes == 1);
    cr_assert_eq(e->err, GYRE_ETIMEOUT);
    cr_assert_eq(e->reason, GYRE_CLOSE_CONNECT);
    cr_assert_not_null(strstr(told, in_text), "%s", told);
}

/* One time limit for the lookup and all attempts. */
BACKEND_TEST(api_dial, time_limit)
{
    struct api api;
    struct names n;
    static struct hole hole;
    char list[512];
    names_start(&api, &n, p, NULL);
    hole_open(&api, &hole);
    names_hang(&n, "slow.test");
    const struct gyre_conn_options o = {.connect_timeout_ns = MS(40), .attempt_delay_ns = MS(10)};
    struct end *e = api_connect(&api, "tcp://slow.test:80", &noting, &o);
    expect_limit(&api, e, "tcp://slow.test:80 GYRE_ETIMEOUT");
    cr_assert_eq(names_stats(&n).waiting, 0);
    int len = snprintf(list, sizeof list, "tcp://");
    for (unsigned i = 0; i < 10; i++)
        len += snprintf(list + len, sizeof list - (size_t)len, "%s127.0.0.1:%s", i > 0 ? "," : "",
                        port_of(&hole.stage));
    uint64_t start_ns = api_now_ns(&api);
    e = api_connect(&api, list, &noting, &o);
    end_put(e, 10);
    expect_limit(&api, e, "no answer");
    cr_assert_geq(api_now_ns(&api), start_ns + (uint64_t)MS(40));
    const struct gyre_conn_options apart = {.connect_timeout_ns = MS(20), .attempt_delay_ns = MS(5000)};
    e = api_connect(&api, list, &noting, &apart);
    expect_limit(&api, e, "no answer, ");
    cr_assert_not_null(strstr(told, "not tried"), "%s", told);
    hole_close(&hole);
    names_stop(&api, &n);
}

/* Closed during the lookup with bytes queued: they are delivered all the same, and on_open does not run. */
BACKEND_TEST(api_dial, close_with_bytes)
{
    struct api api;
    struct names n;
    struct stage stage;
    struct peer peer;
    const char *addresses[] = {"127.0.0.2", "127.0.0.1"};
    names_start(&api, &n, p, NULL);
    stage_open(&api, &stage);
    names_set(&n, "two.test", addresses, 2, 0);
    struct end *e = api_connect(&api, with_port(&stage, "tcp://two.test"), NULL, NULL);
    end_put(e, 50000);
    cr_assert_eq(gyre_conn_close(e->c), 0);
    stage_accept(&stage, &peer, e);
    peer_expect(&peer, 50000);
    peer_until_end(&peer);
    cr_assert(peer.eof);
    peer_close(&peer);
    api_until(&api, e->closes == 1);
    cr_assert_eq(e->err, 0);
    cr_assert_eq(e->opens, 0);
    cr_assert_eq(e->unsent, 0);
    stage_close(&stage);
    names_stop(&api, &n);
}

static int count_socket(int fd, enum gyre_socket_purpose purpose, void *user)
{
    struct end *e = user;
    cr_assert_geq(fd, 0);
    cr_assert_eq(purpose, GYRE_SOCKET_CONNECT);
    return e->user != NULL && ++e->n == 2 ? -EPERM : 0;
}

/* on_socket runs for each attempt; its error is that attempt's. */
BACKEND_TEST(api_dial, on_socket)
{
    struct api api;
    struct names n;
    struct stage gone;
    char list[512];
    names_start(&api, &n, p, NULL);
    stage_gone(&api, &gone);
    (void)snprintf(list, sizeof list, "%s,127.0.0.2:%s,127.0.0.3:%s", gone.address, port_of(&gone), port_of(&gone));
    const struct gyre_conn_options o = {.on_socket = count_socket};
    struct end *e = api_connect(&api, list, &noting, &o);
    e->n = 1; /* the first socket is made in the call */
    e->user = e;
    api_until(&api, e->closes == 1);
    cr_assert_eq(e->n, 3);
    cr_assert_not_null(strstr(told, "127.0.0.1:"), "%s", told);
    cr_assert_not_null(strstr(told, " EPERM, tcp://127.0.0.3:"), "%s", told);
    names_stop(&api, &n);
}

/* A socket bound to a port that connects to this port reaches itself (a simultaneous open of TCP): refused. */
REAL_TEST(api_dial, itself)
{
    struct api api;
    struct names n;
    struct stage gone, other;
    char address[sizeof gone.address], list[300];
    names_start(&api, &n, p, NULL);
    stage_gone(&api, &gone);
    stage_open(&api, &other);
    (void)snprintf(address, sizeof address, "%s", gone.address);
    const struct gyre_conn_options o = {.source_address = address};
    struct end *e = api_connect(&api, address, &noting, &o);
    end_put(e, 100);
    api_until(&api, e->closes == 1);
    cr_assert_eq(e->err, GYRE_ESELF, "%s", gyre_err_name(e->err));
    cr_assert_eq(e->reason, GYRE_CLOSE_CONNECT);
    cr_assert_eq(e->opens, 0);
    cr_assert_eq(e->unsent, 100);
    cr_assert_not_null(strstr(told, "GYRE_ESELF"), "%s", told);
    (void)snprintf(list, sizeof list, "%s,127.0.0.1:%s", address, port_of(&other));
    e = api_connect(&api, list, NULL, &o);
    talk(&api, &other, e);
    stage_close(&other);
    names_stop(&api, &n);
}
