/* SPDX-License-Identifier: MIT
 * Datagram sockets beyond the exchange: what is refused, bounded, held, paused, closed and told. */
#include "udp.h"

#include <errno.h>
#include <gyre/engine.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static const struct dscript echo = {.datagram = udp_echo};

/* ---- errors of calls ---- */

/* Addresses that are none, or another kind's, and handlers that are missing. */
DGRAM_BACKEND_TEST(api_udp_flow, bad_addresses)
{
    static const char *const bad[] = {"", "udp:/x", "udp://", "udp://127.0.0.1", "udp://127.0.0.1:70000",
                                      "udp://localhost:1", "tcp://127.0.0.1:0", "unix:///x", "udp4://[::1]:0",
                                      "udp6://127.0.0.1:0", "unixgram://relative"};
    struct api api;
    struct dsock s;
    struct gyre_udp *u;
    udp_start(&api, p);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        cr_assert_eq(udp_try_bind(&api, &s, bad[i], NULL, NULL), GYRE_EADDRESS, "%s", bad[i]);
        cr_assert_eq(udp_try_connect(&api, &s, bad[i], NULL, NULL), GYRE_EADDRESS, "%s", bad[i]);
    }
    cr_assert_eq(udp_try_bind(&api, &s, "unixgram://", NULL, NULL), GYRE_EPATHLEN);
    cr_assert_eq(gyre_udp_open(&u, api.loop, "udp://127.0.0.1:0", NULL, NULL), GYRE_EHANDLERS);
    cr_assert_eq(gyre_udp_open(&u, api.loop, "udp://127.0.0.1:0", &(struct gyre_udp_handlers){.on_close = NULL}, NULL),
                 GYRE_EHANDLERS);
    cr_assert_eq(gyre_udp_open(&u, NULL, "udp://127.0.0.1:0", NULL, NULL), -EINVAL);
    cr_assert_eq(gyre_loop_listen(NULL, api.loop, "udp://127.0.0.1:0", NULL, NULL), GYRE_EADDRESS);
    cr_assert_eq(udp_try_bind(&api, &s, "udp://127.0.0.1:0", NULL, &(struct gyre_udp_options){.linger_timeout_ns = -1}),
                 GYRE_EOPTION);
    cr_assert_eq(udp_try_bind(&api, &s, "udp://127.0.0.1:0", NULL,
                              &(struct gyre_udp_options){.send_queue_max_bytes = UINT32_MAX}),
                 GYRE_EOPTION);
    const struct gyre_udp_options gro = {.gro = GYRE_UDP_GRO_SPLIT};
    cr_assert_eq(udp_try_bind(&api, &s, "udp://127.0.0.1:0", NULL, &gro), GYRE_EOPTION, "too small receive buffers");
    api_close(&api);
}

/* What no datagram can be, and where none can go. */
DGRAM_BACKEND_TEST(api_udp_flow, bad_sends)
{
    static uint8_t big[70000];
    struct api api;
    struct dsock s, c;
    struct sockaddr_storage v6, v4, local;
    socklen_t v6_len, v4_len, local_len;
    udp_start(&api, p);
    udp_bind(&api, &s, NULL, NULL);
    udp_connect(&api, &c, gyre_udp_address(s.u), NULL, NULL);
    cr_assert_eq(gyre_udp_parse(&v6, &v6_len, "udp://[::1]:9"), 0);
    cr_assert_eq(gyre_udp_parse(&v4, &v4_len, "udp://127.0.0.1:0"), 0);
    cr_assert_eq(gyre_udp_parse(&local, &local_len, "unixgram://@x"), 0);
    cr_assert_eq(gyre_udp_send(c.u, big, 65508), -EMSGSIZE);
    cr_assert_eq(gyre_udp_send(c.u, NULL, 1), -EINVAL);
    cr_assert_eq(gyre_udp_send(s.u, big, 1), -EDESTADDRREQ);
    cr_assert_eq(gyre_udp_send_to(s.u, (struct sockaddr *)&v6, v6_len, big, 1), -EAFNOSUPPORT);
    cr_assert_eq(gyre_udp_send_to(s.u, (struct sockaddr *)&local, local_len, big, 1), -EAFNOSUPPORT);
    cr_assert_eq(gyre_udp_send_to(s.u, (struct sockaddr *)&v4, v4_len, big, 1), GYRE_EADDRESS, "port 0");
    cr_assert_eq(gyre_udp_send_to(s.u, (struct sockaddr *)&v4, 3, big, 1), GYRE_EADDRESS, "a part of an address");
    cr_assert_eq(gyre_udp_send_to(s.u, NULL, 0, big, 1), GYRE_EADDRESS);
    cr_assert_eq(gyre_udp_send_segments(c.u, NULL, 0, big, 6500, 100), -EMSGSIZE, "more than 64 datagrams");
    cr_assert_eq(gyre_udp_send_segments(c.u, NULL, 0, big, 100, 0), -EINVAL);
    cr_assert_eq(gyre_udp_send_segments(c.u, NULL, 0, big, 69000, 1400), -EMSGSIZE);
    cr_assert_eq(gyre_udp_reply(c.u, NULL, big, 1), -EINVAL);
    cr_assert_eq(gyre_udp_join(s.u, (struct sockaddr *)&v4, v4_len, 0), GYRE_EADDRESS, "no group");
    cr_assert_eq(gyre_udp_outbound(c.u), 0);
    udp_close(&c);
    udp_close(&s);
    cr_assert_eq(c.stats.sent, 0);
    api_close(&api);
}

/* Once it is closing, every call says so, and nothing comes but on_close. */
DGRAM_TRANSPORT_TEST(api_udp_flow, closed)
{
    struct api api;
    struct dsock s, c;
    struct gyre_udp_id id;
    udp_start(&api, p);
    udp_bind(&api, &s, NULL, NULL);
    udp_connect(&api, &c, gyre_udp_address(s.u), NULL, NULL);
    id = gyre_udp_id_of(c.u);
    cr_assert_eq(gyre_udp_from_id(id), c.u);
    cr_assert_eq(gyre_udp_close(c.u), 0);
    cr_assert_eq(gyre_udp_close(c.u), 0);
    cr_assert_eq(gyre_udp_send(c.u, "x", 1), GYRE_ECLOSED);
    cr_assert_eq(gyre_udp_pause(c.u), GYRE_ECLOSED);
    cr_assert_eq(gyre_udp_resume(c.u), GYRE_ECLOSED);
    api_until(&api, c.closes == 1);
    cr_assert_eq(c.err, 0);
    cr_assert_null(gyre_udp_from_id(id));
    cr_assert_eq(gyre_udp_id_send(id, NULL, 0, "x", 1), 0, "posted, and then finds nobody");
    cr_assert_eq(gyre_udp_id_close(id), 0);
    api_turn(&api);
    cr_assert_eq(gyre_udp_abort(s.u), 0);
    api_until(&api, s.closes == 1);
    api_close(&api);
}

/* ---- the queue ---- */

/* A queue that is full refuses, counts, and says when there is room; nothing accepted is lost. */
DGRAM_TRANSPORT_TEST(api_udp_flow, bounded_queue)
{
    struct api api;
    struct dsock s, c;
    uint32_t sent = 0, refused = 0;
    udp_start(&api, p);
    udp_bind(&api, &s, NULL, &(struct gyre_udp_options){.recv_buffer_bytes = 1 << 20});
    udp_connect(&api, &c, gyre_udp_address(s.u), NULL, &(struct gyre_udp_options){.send_queue_max_count = 8});
    while (refused == 0) {
        int err = udp_send(&c, sent, 50);
        cr_assert(err == 0 || err == -EAGAIN, "%s", gyre_err_name(err));
        sent += err == 0;
        refused += err != 0;
        cr_assert_leq(sent, 8, "on_drain and events come with turns only");
    }
    cr_assert_eq(gyre_udp_outbound(c.u), 50 * sent);
    api_until(&api, s.datagrams == sent && c.drains == 1);
    cr_assert_eq(s.distinct, sent);
    cr_assert_eq(udp_send(&c, sent, 50), 0);
    api_until(&api, s.datagrams == sent + 1);
    udp_close(&c);
    udp_close(&s);
    cr_assert_eq(c.stats.send_refused, 1);
    cr_assert_eq(c.stats.sent, sent + 1);
    api_close(&api);

    udp_start(&api, p);
    udp_bind(&api, &s, NULL, NULL);
    udp_connect(&api, &c, gyre_udp_address(s.u), NULL, &(struct gyre_udp_options){.send_queue_max_bytes = 100});
    cr_assert_eq(udp_send(&c, 0, 60), 0);
    cr_assert_eq(udp_send(&c, 1, 60), -EAGAIN);
    cr_assert_eq(udp_send(&c, 2, 101), -EMSGSIZE);
    api_until(&api, c.drains == 1 && s.datagrams == 1);
    udp_close(&c);
    udp_close(&s);
    api_close(&api);
}

/* What was queued before gyre_udp_close() is sent; gyre_udp_abort() drops what has not gone. */
DGRAM_TRANSPORT_TEST(api_udp_flow, close_flushes)
{
    struct api api;
    struct dsock s, c;
    udp_start(&api, p);
    udp_bind(&api, &s, NULL, &(struct gyre_udp_options){.recv_buffer_bytes = 1 << 20});
    udp_connect(&api, &c, gyre_udp_address(s.u), NULL, NULL);
    for (uint32_t i = 0; i < 100; i++)
        cr_assert_eq(udp_send(&c, i, 30), 0);
    udp_close(&c);
    cr_assert_eq(c.err, 0);
    cr_assert_eq(c.stats.sent, 100);
    api_until(&api, s.datagrams == 100);
    cr_assert_eq(s.distinct, 100);
    udp_connect(&api, &c, gyre_udp_address(s.u), NULL, NULL);
    for (uint32_t i = 0; i < 100; i++)
        cr_assert_eq(udp_send(&c, i, 30), 0);
    cr_assert_eq(gyre_udp_abort(c.u), 0);
    api_until(&api, c.closes == 1);
    cr_assert_eq(c.stats.sent + c.stats.send_dropped, 100);
    udp_close(&s);
    api_close(&api);
}

/* A receiver that takes nothing: closing gives up after the linger time and says how much was dropped. */
DGRAM_TRANSPORT_TEST(api_udp_flow, linger)
{
    struct api api;
    struct dsock s, c;
    if (p->transport != TRANSPORT_UNIX && p->transport != TRANSPORT_ABSTRACT)
        return; /* UDP never waits for the receiver */
    udp_start(&api, p);
    udp_bind(&api, &s, NULL, &(struct gyre_udp_options){.start_paused = true});
    udp_connect(&api, &c, gyre_udp_address(s.u), NULL, &(struct gyre_udp_options){.linger_timeout_ns = MS(20)});
    for (uint32_t i = 0; i < 60; i++)
        cr_assert_eq(udp_send(&c, i, 30), 0);
    udp_close(&c);
    cr_assert_eq(c.err, GYRE_ETIMEOUT);
    cr_assert_gt(c.stats.send_dropped, 0);
    cr_assert_eq(c.stats.sent + c.stats.send_dropped, 60);
    cr_assert_eq(gyre_udp_resume(s.u), 0);
    api_until(&api, s.datagrams == c.stats.sent);
    cr_assert(!s.disorder);
    udp_close(&s);
    api_close(&api);
}

/* A slow unix receiver: everything arrives, in order, although its queue is short. */
DGRAM_TRANSPORT_TEST(api_udp_flow, slow_receiver)
{
    struct api api;
    struct dsock s, c;
    if (p->transport != TRANSPORT_UNIX && p->transport != TRANSPORT_ABSTRACT)
        return; /* UDP would lose them */
    udp_start(&api, p);
    udp_bind(&api, &s, NULL, &(struct gyre_udp_options){.start_paused = true});
    udp_connect(&api, &c, gyre_udp_address(s.u), NULL, NULL);
    for (uint32_t i = 0; i < 200; i++)
        cr_assert_eq(udp_send(&c, i, 30), 0);
    for (unsigned i = 0; s.datagrams < 200; i++) {
        cr_assert_lt(i, 100000);
        cr_assert_eq(i % 2 == 0 ? gyre_udp_resume(s.u) : gyre_udp_pause(s.u), 0);
        api_turn(&api);
    }
    cr_assert_eq(s.distinct, 200);
    cr_assert(!s.disorder);
    udp_close(&c);
    udp_close(&s);
    api_close(&api);
}

/* ---- pausing and holding ---- */

static void pause_at_third(struct dsock *s, const struct gyre_datagram *d)
{
    udp_check(s, d);
    if (s->datagrams % 3 == 0)
        cr_assert_eq(gyre_udp_pause(s->u), 0);
}

/* After pause nothing comes until resume, and then what had arrived, in order. */
DGRAM_TRANSPORT_TEST(api_udp_flow, pause)
{
    static const struct dscript pausing = {.datagram = pause_at_third};
    struct api api;
    struct dsock s, c;
    udp_start_roomy(&api, p);
    udp_bind(&api, &s, &pausing, NULL);
    udp_connect(&api, &c, gyre_udp_address(s.u), NULL, NULL);
    for (uint32_t i = 0; i < 30; i++)
        cr_assert_eq(udp_send(&c, i, 30), 0);
    for (unsigned i = 0; i < 10; i++) {
        api_until(&api, s.datagrams == 3 * (i + 1));
        api_watch(&api, MS(2));
        cr_assert_eq(s.datagrams, 3 * (i + 1));
        cr_assert_eq(gyre_udp_resume(s.u), 0);
    }
    cr_assert_eq(s.distinct, 30);
    cr_assert(!s.disorder);
    udp_close(&c);
    udp_close(&s);
    cr_assert_eq(s.stats.dropped, 0);
    api_close(&api);
}

struct kept {
    struct gyre_buf *buf[40];
    struct gyre_slice view[40];
    unsigned count;
};

static void keep_it(struct dsock *s, const struct gyre_datagram *d)
{
    struct kept *k = s->user;
    struct gyre_datagram other = *d;
    cr_assert_eq(gyre_udp_hold(&k->buf[k->count], &k->view[k->count], s->u, &other), -EINVAL, "another datagram");
    cr_assert_eq(gyre_udp_hold(&k->buf[k->count], &k->view[k->count], s->u, d), 0);
    cr_assert_eq(k->view[k->count].len, d->data.len);
    k->count++;
}

/* Held datagrams keep their bytes, more of them than there are receive buffers, and then everything goes on. */
DGRAM_TRANSPORT_TEST(api_udp_flow, hold)
{
    static const struct dscript keeping = {.datagram = keep_it};
    struct api api;
    struct dsock s, c;
    struct kept kept = {.count = 0};
    udp_init(&api, p);
    api.options.buf_count_max = 8;
    api.options.buf_count = 4;
    api_open(&api);
    udp_bind(&api, &s, &keeping, NULL);
    s.user = &kept;
    udp_connect(&api, &c, gyre_udp_address(s.u), NULL, NULL);
    for (uint32_t i = 0; i < 40; i++) {
        cr_assert_eq(udp_send(&c, i, 100 + i), 0);
        api_until(&api, kept.count == i + 1);
    }
    uint64_t seen = 0;
    for (unsigned i = 0; i < 40; i++) {
        uint32_t number;
        memcpy(&number, kept.view[i].data, sizeof number);
        cr_assert_eq(kept.view[i].len, 100 + number);
        cr_assert_eq(env_pattern_check(kept.view[i].data + 4, kept.view[i].len - 4, number, 0), -1);
        seen |= UINT64_C(1) << number;
        gyre_buf_release(kept.buf[i]);
    }
    cr_assert_eq(seen, (UINT64_C(1) << 40) - 1);
    udp_close(&c);
    udp_close(&s);
    api_close(&api);
}

static void close_at_second(struct dsock *s, const struct gyre_datagram *d)
{
    udp_check(s, d);
    if (s->datagrams == 2)
        cr_assert_eq(gyre_udp_close(s->u), 0);
    if (s->datagrams == 2)
        cr_assert_eq(gyre_udp_reply(s->u, d, "x", 1), GYRE_ECLOSED);
}

/* Closing from the handler, with more datagrams behind. */
DGRAM_TRANSPORT_TEST(api_udp_flow, close_in_handler)
{
    static const struct dscript closing = {.datagram = close_at_second};
    struct api api;
    struct dsock s, c;
    udp_start(&api, p);
    udp_bind(&api, &s, &closing, NULL);
    udp_connect(&api, &c, gyre_udp_address(s.u), NULL, NULL);
    for (uint32_t i = 0; i < 10; i++)
        cr_assert_eq(udp_send(&c, i, 30), 0);
    api_until(&api, s.closes == 1);
    cr_assert_eq(s.datagrams, 2);
    cr_assert_eq(s.err, 0);
    udp_close(&c);
    api_close(&api);
}

/* The loop goes with everything under way. */
DGRAM_TRANSPORT_TEST(api_udp_flow, loop_ends)
{
    struct api api;
    struct dsock s, c;
    udp_start(&api, p);
    udp_bind(&api, &s, &echo, NULL);
    udp_connect(&api, &c, gyre_udp_address(s.u), NULL, NULL);
    for (uint32_t i = 0; i < 30; i++)
        cr_assert_eq(udp_send(&c, i, 1000), 0);
    api_turn_now(&api);
    api_destroy_loop(&api);
    cr_assert_eq(s.closes, 1);
    cr_assert_eq(c.closes, 1);
    cr_assert_eq(c.err, GYRE_ESHUTDOWN);
    api_close(&api);
}

/* ---- errors of the network ---- */

/* A port that nobody is bound to: on_error tells, the socket stays, and works once somebody is there. */
DGRAM_BACKEND_TEST(api_udp_flow, unreachable)
{
    struct api api;
    struct dsock s, c;
    char address[160];
    udp_start(&api, p);
    udp_bind(&api, &s, &echo, NULL);
    (void)snprintf(address, sizeof address, "%s", gyre_udp_address(s.u));
    udp_connect(&api, &c, address, NULL, NULL);
    udp_close(&s);
    cr_assert_eq(udp_send(&c, 0, 20), 0);
    api_until(&api, c.errors >= 1);
    cr_assert_eq(c.last_err, -ECONNREFUSED);
    cr_assert_eq(c.closes, 0);
    cr_assert_eq(udp_try_bind(&api, &s, address, &echo, NULL), 0);
    cr_assert_eq(udp_send(&c, 1, 20), 0);
    api_until(&api, c.datagrams == 1);
    udp_close(&c);
    udp_close(&s);
    cr_assert_geq(c.stats.errors + c.stats.send_errors, 1);
    api_close(&api);
}

/* Unix: the other side went away, or never was. */
DGRAM_TRANSPORT_TEST(api_udp_flow, unix_gone)
{
    struct api api;
    struct dsock s, c;
    char address[160];
    if (p->transport != TRANSPORT_UNIX && p->transport != TRANSPORT_ABSTRACT)
        return;
    udp_start(&api, p);
    udp_fresh_address(&api, address, sizeof address);
    int err = udp_try_connect(&api, &c, address, NULL, NULL);
    cr_assert(err == -ECONNREFUSED || (err == -ENOENT && p->transport == TRANSPORT_UNIX), "%s", gyre_err_name(err));
    cr_assert_eq(udp_try_bind(&api, &s, address, NULL, NULL), 0);
    udp_connect(&api, &c, address, NULL, NULL);
    udp_close(&s);
    cr_assert_eq(udp_send(&c, 0, 20), 0);
    api_until(&api, c.errors >= 1);
    cr_assert(c.last_err == -ECONNREFUSED || c.last_err == -ENOTCONN, "%s", gyre_err_name(c.last_err));
    udp_close(&c);
    api_close(&api);
}

/* The socket file: replaced when it is left over, refused when it is in use or no socket, removed at the end. */
DGRAM_REAL_TEST(api_udp_flow, path)
{
    struct api api;
    struct dsock a, b;
    struct stat st;
    char address[160];
    udp_start(&api, p);
    (void)snprintf(address, sizeof address, "unixgram://%s/sock", api.dir);
    const char *path = address + strlen("unixgram://");
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    cr_assert_lt(strlen(path), sizeof un.sun_path);
    memcpy(un.sun_path, path, strlen(path));
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(bind(fd, (struct sockaddr *)&un, sizeof un), 0);
    cr_assert_eq(udp_try_bind(&api, &a, address, NULL, NULL), -EADDRINUSE);
    (void)close(fd);
    cr_assert_eq(udp_try_bind(&api, &a, address, NULL, &(struct gyre_udp_options){.unix_mode = 0600}), 0);
    cr_assert_eq(stat(path, &st), 0);
    cr_assert_eq(st.st_mode & 0777, 0600);
    cr_assert_eq(udp_try_bind(&api, &b, address, NULL, NULL), -EADDRINUSE);
    udp_close(&a);
    cr_assert_neq(stat(path, &st), 0, "the path is still there");
    FILE *file = fopen(path, "w");
    cr_assert_not_null(file);
    (void)fclose(file);
    cr_assert_eq(udp_try_bind(&api, &a, address, NULL, NULL), -EEXIST);
    (void)unlink(path);
    api_close(&api);
}

/* ---- names, engines ---- */

/* Sends and closes by name, as other threads would. */
DGRAM_TRANSPORT_TEST(api_udp_flow, by_name)
{
    struct api api;
    struct dsock s, c;
    uint8_t data[50];
    struct sockaddr_storage to;
    socklen_t to_len;
    udp_start(&api, p);
    udp_bind(&api, &s, NULL, NULL);
    udp_connect(&api, &c, gyre_udp_address(s.u), NULL, NULL);
    cr_assert_eq(gyre_udp_local_address(&to, &to_len, s.u), 0);
    udp_fill(data, sizeof data, 7);
    cr_assert_eq(gyre_udp_id_send(gyre_udp_id_of(c.u), NULL, 0, data, sizeof data), 0);
    udp_fill(data, sizeof data, 8);
    cr_assert_eq(gyre_udp_id_send(gyre_udp_id_of(s.u), (struct sockaddr *)&to, to_len, data, sizeof data), 0,
                 "to itself");
    api_until(&api, s.distinct == 2);
    cr_assert_eq(gyre_udp_id_close(gyre_udp_id_of(c.u)), 0);
    cr_assert_eq(gyre_udp_id_close(gyre_udp_id_of(s.u)), 0);
    api_until(&api, s.closes == 1 && c.closes == 1);
    cr_assert_eq(gyre_udp_id_close((struct gyre_udp_id){.loop = NULL}), -EINVAL);
    api_close(&api);
}
