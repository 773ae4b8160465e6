/* SPDX-License-Identifier: MIT
 * Socket options: each set and read back on every transport, refused where there is none, and those that are set before
 * there is a connection. The simulator keeps integers and has nothing else. */
#include "fixture.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#define SECONDS(n) ((int64_t)(n)*INT64_C(1000000000))

struct trip {
    enum gyre_sockopt option;
    int64_t value;
    bool on_unix;
    bool privileged;
    bool doubled; /* by Linux */
};

static const struct trip trips[] = {
    {GYRE_SOCKOPT_NODELAY, 0, false, false, false},
    {GYRE_SOCKOPT_NODELAY, 1, false, false, false},
    {GYRE_SOCKOPT_QUICKACK, 1, false, false, false},
    {GYRE_SOCKOPT_CORK, 1, false, false, false},
    {GYRE_SOCKOPT_CORK, 0, false, false, false},
    {GYRE_SOCKOPT_NOTSENT_LOWAT_BYTES, 65536, false, false, false},
    {GYRE_SOCKOPT_USER_TIMEOUT_MS, 1234, false, false, false},
    {GYRE_SOCKOPT_KEEPALIVE, 1, false, false, false},
    {GYRE_SOCKOPT_KEEPALIVE_IDLE_S, 3, false, false, false},
    {GYRE_SOCKOPT_KEEPALIVE_INTERVAL_S, 1, false, false, false},
    {GYRE_SOCKOPT_KEEPALIVE_COUNT, 7, false, false, false},
    {GYRE_SOCKOPT_KEEPALIVE, 0, false, false, false},
    {GYRE_SOCKOPT_LINGER_S, 0, true, false, false},
    {GYRE_SOCKOPT_LINGER_S, -1, true, false, false},
    {GYRE_SOCKOPT_RECV_BUFFER_BYTES, 100000, true, false, true},
    {GYRE_SOCKOPT_SEND_BUFFER_BYTES, 50000, true, false, true},
    {GYRE_SOCKOPT_TRAFFIC_CLASS, 0x28, false, false, false},
    {GYRE_SOCKOPT_PRIORITY, 5, true, false, false},
    {GYRE_SOCKOPT_MARK, 0xdeadbeef, true, true, false},
    {GYRE_SOCKOPT_TRANSPARENT, 1, false, true, false},
    {GYRE_SOCKOPT_FREEBIND, 1, false, false, false},
    {GYRE_SOCKOPT_BIND_NO_PORT, 1, false, false, false},
    {GYRE_SOCKOPT_BUSY_POLL_US, 50, false, true, false},
    {GYRE_SOCKOPT_BUSY_POLL_US, 0, false, false, false},
    {GYRE_SOCKOPT_PREFER_BUSY_POLL, 1, false, true, false},
    {GYRE_SOCKOPT_PREFER_BUSY_POLL, 0, false, false, false},
};

enum { TRIPS = sizeof trips / sizeof trips[0] };

static struct end *open_pair(struct api *api, const struct backend_param *p, struct peer *peer)
{
    api_start(api, p, NULL);
    return peer_open(api, peer);
}

static void close_pair(struct api *api, struct peer *peer)
{
    peer_close(peer);
    api_close(api);
}

TRANSPORT_TEST(api_sockopt, round_trips)
{
    struct api api;
    struct peer peer;
    struct end *e = open_pair(&api, p, &peer);
    for (unsigned i = 0; i < TRIPS; i++) {
        const struct trip *t = &trips[i];
        int64_t got = -12345;
        int wanted = !is_tcp(&api) && !t->on_unix ? -EOPNOTSUPP : 0;
        if (wanted == 0 && t->privileged && geteuid() != 0 && !api.is_sim)
            wanted = -EPERM;
        int err = gyre_conn_set_sockopt(e->c, t->option, t->value);
        cr_assert_eq(err, wanted, "option %d: %s", t->option, gyre_err_name(err));
        if (wanted == -EPERM)
            continue;
        err = gyre_conn_sockopt(&got, e->c, t->option);
        cr_assert_eq(err, wanted, "reading option %d: %s", t->option, gyre_err_name(err));
        if (wanted == 0)
            cr_assert_eq(got, t->doubled && !api.is_sim ? 2 * t->value : t->value, "option %d is %lld", t->option,
                         (long long)got);
        else
            cr_assert_eq(got, -12345, "written to, though it failed");
    }
    close_pair(&api, &peer);
}

/* What is only to be read, or reads otherwise than it was set. */
TRANSPORT_TEST(api_sockopt, read_only)
{
    struct api api;
    struct peer peer, second_peer;
    int64_t first = 0, second = 0, cpu = -2, segment = 0;
    struct end *e = open_pair(&api, p, &peer);
    struct end *other = peer_open(&api, &second_peer);
    cr_assert_eq(gyre_conn_sockopt(&first, e->c, GYRE_SOCKOPT_COOKIE), 0);
    cr_assert_eq(gyre_conn_sockopt(&second, other->c, GYRE_SOCKOPT_COOKIE), 0);
    cr_assert_neq(first, 0);
    cr_assert_neq(first, second);
    cr_assert_eq(gyre_conn_set_sockopt(e->c, GYRE_SOCKOPT_COOKIE, 1), -EOPNOTSUPP);
    int wanted = is_tcp(&api) ? 0 : -EOPNOTSUPP;
    cr_assert_eq(gyre_conn_sockopt(&cpu, e->c, GYRE_SOCKOPT_INCOMING_CPU), wanted);
    cr_assert_eq(gyre_conn_sockopt(&segment, e->c, GYRE_SOCKOPT_MAX_SEGMENT_BYTES), wanted);
    if (wanted == 0 && !api.is_sim) {
        cr_assert_geq(cpu, -1);
        cr_assert_geq(segment, 536);
        cr_assert_eq(gyre_conn_set_sockopt(e->c, GYRE_SOCKOPT_MAX_SEGMENT_BYTES, 1), -EINVAL);
    }
    peer_close(&second_peer);
    close_pair(&api, &peer);
}

/* Times below five seconds are right, too, and each part has its default. */
TRANSPORT_TEST(api_sockopt, keepalive)
{
    static const struct {
        struct gyre_keepalive set, read;
    } table[] = {
        {{.idle_ns = SECONDS(2)}, {SECONDS(2), SECONDS(1), 5}},
        {{.idle_ns = 1}, {SECONDS(1), SECONDS(1), 5}},
        {{.idle_ns = SECONDS(3) + 1, .count = 9}, {SECONDS(4), SECONDS(1), 9}},
        {{.idle_ns = SECONDS(10)}, {SECONDS(10), SECONDS(2), 5}},
        {{.idle_ns = SECONDS(60), .interval_ns = MS(1500), .count = 127}, {SECONDS(60), SECONDS(2), 127}},
        {{.idle_ns = SECONDS(32767), .interval_ns = SECONDS(32767), .count = 1}, {SECONDS(32767), SECONDS(32767), 1}},
        {{.idle_ns = 0}, {0, SECONDS(32767), 1}},
    };
    static const struct gyre_keepalive bad[] = {
        {.idle_ns = -1}, {.idle_ns = SECONDS(32767) + 1}, {.idle_ns = 1, .interval_ns = -1},
        {.idle_ns = 1, .interval_ns = INT64_MAX}, {.idle_ns = 1, .count = 128}};
    struct api api;
    struct peer peer;
    struct end *e = open_pair(&api, p, &peer);
    for (unsigned i = 0; i < sizeof table / sizeof table[0]; i++) {
        struct gyre_keepalive got = {.count = 77};
        int err = gyre_conn_set_keepalive(e->c, &table[i].set);
        cr_assert_eq(err, is_tcp(&api) ? 0 : -EOPNOTSUPP, "%s", gyre_err_name(err));
        cr_assert_eq(gyre_conn_keepalive(&got, e->c), err);
        if (err != 0)
            continue;
        cr_assert_eq(got.idle_ns, table[i].read.idle_ns);
        cr_assert_eq(got.interval_ns, table[i].read.interval_ns, "row %u: %lld", i, (long long)got.interval_ns);
        cr_assert_eq(got.count, table[i].read.count);
    }
    for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++)
        cr_assert_eq(gyre_conn_set_keepalive(e->c, &bad[i]), GYRE_EOPTION);
    cr_assert_eq(gyre_conn_set_keepalive(e->c, NULL), -EINVAL);
    cr_assert_eq(gyre_conn_keepalive(NULL, e->c), -EINVAL);
    close_pair(&api, &peer);
}

TRANSPORT_TEST(api_sockopt, congestion)
{
    struct api api;
    struct peer peer;
    char name[16] = "";
    struct end *e = open_pair(&api, p, &peer);
    bool has = is_tcp(&api) && !api.is_sim;
    cr_assert_eq(gyre_conn_congestion(name, sizeof name, e->c), has ? 0 : -EOPNOTSUPP);
    cr_assert_eq(gyre_conn_set_congestion(e->c, "reno"), has ? 0 : -EOPNOTSUPP);
    if (has) {
        cr_assert_gt(strlen(name), 0);
        cr_assert_eq(gyre_conn_congestion(name, sizeof name, e->c), 0);
        cr_assert_eq(strcmp(name, "reno"), 0);
        cr_assert_eq(gyre_conn_congestion(name, 4, e->c), -ERANGE);
        cr_assert_eq(gyre_conn_congestion(name, 5, e->c), 0);
        cr_assert_eq(gyre_conn_set_congestion(e->c, "no-such-thing"), -ENOENT);
    }
    cr_assert_eq(gyre_conn_set_congestion(e->c, NULL), -EINVAL);
    cr_assert_eq(gyre_conn_congestion(NULL, 16, e->c), -EINVAL);
    close_pair(&api, &peer);
}

TRANSPORT_TEST(api_sockopt, what_the_kernel_knows)
{
    struct api api;
    struct peer peer;
    struct gyre_tcp_info info = {.cwnd = 0};
    struct gyre_credentials who = {.pid = -1};
    struct end *e = open_pair(&api, p, &peer);
    end_put(e, 100000);
    peer_expect(&peer, 100000);
    bool tcp = is_tcp(&api);
    cr_assert_eq(gyre_conn_tcp_info(&info, e->c), tcp && !api.is_sim ? 0 : -EOPNOTSUPP);
    cr_assert_eq(gyre_conn_credentials(&who, e->c), !tcp && !api.is_sim ? 0 : -EOPNOTSUPP);
    if (!api.is_sim && tcp) {
        cr_assert_gt(info.rtt_us, 0);
        cr_assert_gt(info.rto_us, 0);
        cr_assert_gt(info.cwnd, 0);
        cr_assert_geq(info.segment_bytes, 536);
    } else if (!api.is_sim) {
        cr_assert_eq(who.pid, getpid());
        cr_assert_eq(who.uid, geteuid());
        cr_assert_eq(who.gid, getegid());
    }
    cr_assert_eq(gyre_conn_tcp_info(NULL, e->c), -EINVAL);
    cr_assert_eq(gyre_conn_credentials(NULL, e->c), -EINVAL);
    close_pair(&api, &peer);
}

/* Nobody redirected it: the kernel tracks it, does not, or has no tracking. */
TRANSPORT_TEST(api_sockopt, original_address)
{
    struct api api;
    struct peer peer;
    struct sockaddr_storage own, to;
    socklen_t own_len, to_len = 77;
    struct end *e = open_pair(&api, p, &peer);
    memset(&to, 0x5a, sizeof to);
    struct sockaddr_storage before = to;
    int err = gyre_conn_original_address(&to, &to_len, e->c);
    if (api.is_sim || !is_tcp(&api)) {
        cr_assert_eq(err, -EOPNOTSUPP, "%s", gyre_err_name(err));
    } else if (err == 0) {
        cr_assert_eq(gyre_conn_local_address(&own, &own_len, e->c), 0);
        cr_assert_eq(to.ss_family, own.ss_family);
        cr_assert_eq(to_len, own_len);
    } else {
        cr_assert(err == -ENOENT || err == -ENOPROTOOPT, "%s", gyre_err_name(err));
    }
    if (err != 0) {
        cr_assert_eq(to_len, 77);
        cr_assert_eq(memcmp(&to, &before, sizeof to), 0, "written to, though it failed");
    }
    cr_assert_eq(gyre_conn_original_address(NULL, &to_len, e->c), -EINVAL);
    cr_assert_eq(gyre_conn_original_address(&to, NULL, e->c), -EINVAL);
    cr_assert_eq(gyre_conn_original_address(&to, &to_len, NULL), GYRE_ECLOSED);
    close_pair(&api, &peer);
}

/* ---- set beforehand ---- */

static int64_t option_of(const struct end *e, enum gyre_sockopt option)
{
    int64_t value = -1;
    int err = gyre_conn_sockopt(&value, e->c, option);
    cr_assert_eq(err, 0, "option %d: %s", option, gyre_err_name(err));
    return value;
}

static void check_settings(const struct api *api, const struct end *e)
{
    int64_t factor = api->is_sim ? 1 : 2;
    cr_assert_eq(option_of(e, GYRE_SOCKOPT_RECV_BUFFER_BYTES), 80000 * factor);
    cr_assert_eq(option_of(e, GYRE_SOCKOPT_SEND_BUFFER_BYTES), 60000 * factor);
    if (!is_tcp(api))
        return;
    cr_assert_eq(option_of(e, GYRE_SOCKOPT_KEEPALIVE), 1);
    cr_assert_eq(option_of(e, GYRE_SOCKOPT_KEEPALIVE_IDLE_S), 4);
    cr_assert_eq(option_of(e, GYRE_SOCKOPT_KEEPALIVE_INTERVAL_S), 1);
    cr_assert_eq(option_of(e, GYRE_SOCKOPT_KEEPALIVE_COUNT), 3);
    cr_assert_eq(option_of(e, GYRE_SOCKOPT_USER_TIMEOUT_MS), 8001);
    cr_assert_eq(option_of(e, GYRE_SOCKOPT_NOTSENT_LOWAT_BYTES), 70000);
    cr_assert_eq(option_of(e, GYRE_SOCKOPT_TRAFFIC_CLASS), 0x48);
    cr_assert_eq(option_of(e, GYRE_SOCKOPT_NODELAY), 1);
    cr_assert_eq(option_of(e, GYRE_SOCKOPT_FREEBIND), 1);
    if (geteuid() == 0)
        cr_assert_eq(option_of(e, GYRE_SOCKOPT_MARK), 77);
}

/* Both ends have what their options say: what connects, and what is accepted. */
TRANSPORT_TEST(api_sockopt, beforehand)
{
    const struct gyre_conn_options options = {
        .keepalive = {.idle_ns = SECONDS(4), .count = 3},
        .user_timeout_ns = SECONDS(8) + 1,
        .recv_buffer_bytes = 80000,
        .send_buffer_bytes = 60000,
        .notsent_lowat_bytes = 70000,
        .mark = geteuid() == 0 ? 77 : 0,
        .traffic_class = 0x48,
        .freebind = true,
    };
    struct api api;
    api_init(&api, p);
    api_open(&api);
    api_listen(&api, NULL, &(struct gyre_listener_options){.conn = options});
    struct end *connected = api_connect(&api, api.address, NULL, &options);
    api_until(&api, api.accepted == 1 && connected->opens == 1);
    check_settings(&api, connected);
    check_settings(&api, api_newest(&api));
    api_close(&api);
}

static void drop_all(struct gyre_conn *c)
{
    (void)gyre_conn_discard(c, SIZE_MAX);
}

static const struct gyre_conn_handlers dropping = {.on_data = drop_all};

static int try_listen(struct api *api, const char *address, struct gyre_conn_options options)
{
    struct gyre_listener *listener = NULL;
    int err = gyre_loop_listen(&listener, api->loop, address, &dropping,
                               &(struct gyre_listener_options){.conn = options});
    gyre_listener_close(listener);
    return err;
}

static int try_connect(struct api *api, struct gyre_conn_options options)
{
    struct gyre_conn *c = NULL;
    int err = gyre_connect(&c, api->loop, "tcp://127.0.0.1:1", &dropping, &options);
    if (c != NULL)
        (void)gyre_conn_abort(c);
    return err;
}

/* What the system refuses is the answer of listening and connecting, and nothing is left open. */
REAL_TEST(api_sockopt, refused)
{
    struct api api;
    uid_t me = geteuid();
    api_init(&api, p);
    api_open(&api);
    cr_assert_eq(try_listen(&api, "tcp://127.0.0.1:0", (struct gyre_conn_options){.max_segment_bytes = 1}), -EINVAL);
    cr_assert_eq(try_connect(&api, (struct gyre_conn_options){.max_segment_bytes = 1}), -EINVAL);
    if (me == 0)
        cr_assert_eq(seteuid(65534), 0);
    cr_assert_eq(try_listen(&api, "tcp://127.0.0.1:0", (struct gyre_conn_options){.mark = 1}), -EPERM);
    cr_assert_eq(try_connect(&api, (struct gyre_conn_options){.mark = 1}), -EPERM);
    cr_assert_eq(try_listen(&api, "tcp://[::1]:0", (struct gyre_conn_options){.transparent = true}), -EPERM);
    cr_assert_eq(seteuid(me), 0);
    if (me == 0) {
        cr_assert_eq(try_listen(&api, "tcp://127.0.0.1:0", (struct gyre_conn_options){.transparent = true}), 0);
        cr_assert_eq(try_connect(&api, (struct gyre_conn_options){.transparent = true, .mark = 5}), 0);
    }
    /* An address for documentation, which no machine has (RFC 5737). */
    cr_assert_eq(try_listen(&api, "tcp://192.0.2.1:0", (struct gyre_conn_options){.freebind = false}), -EADDRNOTAVAIL);
    cr_assert_eq(try_listen(&api, "tcp://192.0.2.1:0", (struct gyre_conn_options){.freebind = true}), 0);
    api_close(&api);
}

BACKEND_TEST(api_sockopt, out_of_range)
{
    static const struct gyre_conn_options bad[] = {
        {.keepalive = {.idle_ns = -1}}, {.keepalive = {.count = 128}}, {.keepalive = {.interval_ns = SECONDS(32768)}},
        {.user_timeout_ns = -1}, {.user_timeout_ns = INT64_MAX}, {.recv_buffer_bytes = UINT32_MAX},
        {.send_buffer_bytes = UINT32_MAX}, {.notsent_lowat_bytes = UINT32_MAX}, {.max_segment_bytes = UINT32_MAX}};
    struct api api;
    api_init(&api, p);
    api_open(&api);
    for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        cr_assert_eq(try_listen(&api, "tcp://127.0.0.1:0", bad[i]), GYRE_EOPTION, "row %u", i);
        cr_assert_eq(try_connect(&api, bad[i]), GYRE_EOPTION, "row %u", i);
    }
    api_close(&api);
}

static void *from_elsewhere(void *arg)
{
    struct end *e = arg;
    int64_t value;
    struct gyre_tcp_info info;
    struct gyre_credentials who;
    struct gyre_keepalive keepalive = {.idle_ns = 0};
    struct sockaddr_storage to;
    socklen_t to_len;
    char name[16];
    bool all = gyre_conn_set_sockopt(e->c, GYRE_SOCKOPT_CORK, 1) == GYRE_ETHREAD &&
               gyre_conn_sockopt(&value, e->c, GYRE_SOCKOPT_CORK) == GYRE_ETHREAD &&
               gyre_conn_set_keepalive(e->c, &keepalive) == GYRE_ETHREAD &&
               gyre_conn_keepalive(&keepalive, e->c) == GYRE_ETHREAD &&
               gyre_conn_set_congestion(e->c, "reno") == GYRE_ETHREAD &&
               gyre_conn_congestion(name, sizeof name, e->c) == GYRE_ETHREAD &&
               gyre_conn_tcp_info(&info, e->c) == GYRE_ETHREAD && gyre_conn_credentials(&who, e->c) == GYRE_ETHREAD &&
               gyre_conn_original_address(&to, &to_len, e->c) == GYRE_ETHREAD;
    return all ? e : NULL;
}

BACKEND_TEST(api_sockopt, errors)
{
    struct api api;
    struct peer peer;
    int64_t value;
    pthread_t thread;
    void *right;
    struct end *e = open_pair(&api, p, &peer);
    cr_assert_eq(gyre_conn_set_sockopt(NULL, GYRE_SOCKOPT_CORK, 1), GYRE_ECLOSED);
    cr_assert_eq(gyre_conn_sockopt(&value, NULL, GYRE_SOCKOPT_CORK), GYRE_ECLOSED);
    cr_assert_eq(gyre_conn_set_sockopt(e->c, (enum gyre_sockopt)0, 1), -EINVAL);
    cr_assert_eq(gyre_conn_set_sockopt(e->c, GYRE_SOCKOPT_END, 1), -EINVAL);
    cr_assert_eq(gyre_conn_sockopt(&value, e->c, GYRE_SOCKOPT_END), -EINVAL);
    cr_assert_eq(gyre_conn_sockopt(NULL, e->c, GYRE_SOCKOPT_CORK), -EINVAL);
    cr_assert_eq(gyre_conn_set_sockopt(e->c, GYRE_SOCKOPT_PRIORITY, INT64_C(1) << 40), -EINVAL);
    cr_assert_eq(gyre_conn_set_sockopt(e->c, GYRE_SOCKOPT_LINGER_S, 5), GYRE_EOPTION);
    cr_assert_eq(pthread_create(&thread, NULL, from_elsewhere, e), 0);
    cr_assert_eq(pthread_join(thread, &right), 0);
    cr_assert_eq(right, e, "a call from a wrong thread was let through");
    close_pair(&api, &peer);
}
