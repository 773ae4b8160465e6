/* SPDX-License-Identifier: MIT
 * Peers that a test drives by hand: plain sockets, or scripted peers of the simulator. */
#include "fixture.h"

#include "socket/addr.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PIECE = 64 * 1024 };

void peer_connect(struct api *api, struct peer *p, const char *address)
{
    struct gyre__address parsed;
    *p = (struct peer){.api = api, .fd = -1};
    if (api->is_sim) {
        int err = gyre_sim_connect(&p->sp, api->sim, address);
        cr_assert_eq(err, 0, "gyre_sim_connect to %s: %s", address, gyre_err_name(err));
        return;
    }
    cr_assert_eq(gyre__addr_parse(&parsed, address), 0, "%s", address);
    p->fd = socket(parsed.addr.ss.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    cr_assert_geq(p->fd, 0, "socket: %s", strerror(errno));
    int r = connect(p->fd, (struct sockaddr *)&parsed.addr.ss, parsed.addr.len);
    cr_assert(r == 0 || errno == EINPROGRESS, "connect to %s: %s", address, strerror(errno));
}

struct end *peer_open(struct api *api, struct peer *p)
{
    unsigned before = api->accepted;
    peer_connect(api, p, api->address);
    api_until(api, api->accepted > before);
    struct end *e = api_newest(api);
    p->key_in = e->key_out;
    p->key_out = e->key_in;
    if (api->is_sim)
        api_until(api, gyre_sim_peer_state(p->sp) != GYRE_SIM_PEER_CONNECTING);
    return e;
}

static int64_t send_now(struct peer *p, const void *data, size_t len)
{
    if (p->sp != NULL)
        return gyre_sim_peer_send(p->sp, data, len);
    ssize_t n = send(p->fd, data, len, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n >= 0)
        return n;
    return errno == EAGAIN ? 0 : -errno;
}

size_t peer_send_some(struct peer *p, size_t bytes)
{
    static uint8_t data[PIECE];
    size_t sent = 0;
    while (sent < bytes && p->err == 0) {
        size_t len = bytes - sent < PIECE ? bytes - sent : PIECE;
        env_pattern_fill(data, len, p->key_out, p->sent);
        int64_t n = send_now(p, data, len);
        if (n < 0)
            p->err = (int)n;
        if (n <= 0)
            break;
        sent += (size_t)n;
        p->sent += (uint64_t)n;
    }
    return sent;
}

void peer_send(struct peer *p, size_t bytes)
{
    uint64_t goal = p->sent + bytes;
    api_until(p->api, (peer_send_some(p, (size_t)(goal - p->sent)), p->sent == goal || p->err != 0));
    cr_assert_eq(p->err, 0, "the peer cannot send: %s", gyre_err_name(p->err));
}

void peer_send_raw(struct peer *p, const void *data, size_t len)
{
    const uint8_t *at = data;
    uint64_t end_ns = env_now_ns() + (uint64_t)MS(API_PATIENCE_MS);
    while (len > 0) {
        int64_t n = send_now(p, at, len);
        cr_assert_geq(n, 0, "the peer cannot send: %s", gyre_err_name((int)n));
        at += n;
        len -= (size_t)n;
        if (len > 0)
            api_turn(p->api);
        cr_assert(env_now_ns() < end_ns, "the peer could not send all");
    }
}

int64_t peer_recv_raw(struct peer *p, void *buf, size_t len)
{
    if (p->sp != NULL)
        return gyre_sim_peer_recv(buf, len, p->sp);
    ssize_t n = recv(p->fd, buf, len, MSG_DONTWAIT);
    return n >= 0 ? n : -errno;
}

size_t peer_recv_some(struct peer *p, size_t bytes)
{
    static uint8_t data[PIECE];
    size_t came = 0;
    while (came < bytes && !p->eof && (p->err == 0 || p->err == -EPIPE)) {
        size_t len = bytes - came < PIECE ? bytes - came : PIECE;
        int64_t n = peer_recv_raw(p, data, len);
        if (n == -EAGAIN)
            break;
        p->eof = n == 0;
        if (n < 0)
            p->err = (int)n;
        if (n <= 0)
            break;
        int64_t bad = env_pattern_check(data, (size_t)n, p->key_in, p->got);
        cr_assert_eq(bad, -1, "the peer got a wrong byte at %llu", (unsigned long long)(p->got + (uint64_t)bad));
        came += (size_t)n;
        p->got += (uint64_t)n;
    }
    return came;
}

void peer_expect(struct peer *p, uint64_t total)
{
    api_until(p->api, (peer_recv_some(p, (size_t)(total - p->got)), p->got >= total || p->eof || p->err != 0));
    cr_assert_eq(p->got, total, "%llu of %llu bytes came (end %d, %s)", (unsigned long long)p->got,
                 (unsigned long long)total, p->eof, gyre_err_name(p->err));
}

void peer_until_end(struct peer *p)
{
    api_until(p->api, (peer_recv_some(p, SIZE_MAX), p->eof || p->err != 0));
}

void peer_shutdown(struct peer *p)
{
    if (p->sp != NULL)
        cr_assert_eq(gyre_sim_peer_shutdown(p->sp), 0);
    else
        cr_assert_eq(shutdown(p->fd, SHUT_WR), 0, "shutdown: %s", strerror(errno));
}

void peer_close(struct peer *p)
{
    if (p->api == NULL)
        return;
    gyre_sim_peer_close(p->sp);
    if (p->fd >= 0)
        cr_assert_eq(close(p->fd), 0);
    *p = (struct peer){.fd = -1};
}

/* Of unix sockets the end is reset when data is unread or comes later; the caller sees to that. */
void peer_reset(struct peer *p)
{
    if (p->sp != NULL) {
        gyre_sim_peer_reset(p->sp);
        *p = (struct peer){.fd = -1};
        return;
    }
    struct linger linger = {.l_onoff = 1, .l_linger = 0};
    (void)setsockopt(p->fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
    peer_close(p);
}

/* ---- the other way ---- */

void stage_open(struct api *api, struct stage *s)
{
    char address[160];
    struct gyre__address parsed;
    *s = (struct stage){.api = api, .fd = -1};
    api_fresh_address(api, address, sizeof address);
    if (api->is_sim) {
        cr_assert_eq(gyre_sim_listen_peer(&s->sl, api->sim, address), 0);
        (void)snprintf(s->address, sizeof s->address, "%s", gyre_sim_listener_address(s->sl));
        return;
    }
    cr_assert_eq(gyre__addr_parse(&parsed, address), 0);
    s->fd = socket(parsed.addr.ss.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    cr_assert_geq(s->fd, 0);
    cr_assert_eq(bind(s->fd, (struct sockaddr *)&parsed.addr.ss, parsed.addr.len), 0, "%s", strerror(errno));
    cr_assert_eq(listen(s->fd, 128), 0);
    parsed.addr.len = sizeof parsed.addr.ss;
    cr_assert_eq(getsockname(s->fd, (struct sockaddr *)&parsed.addr.ss, &parsed.addr.len), 0);
    gyre__addr_format(&parsed.addr, s->address, sizeof s->address);
}

static bool accept_now(struct stage *s, struct peer *p)
{
    if (s->sl != NULL)
        return gyre_sim_listener_accept(&p->sp, s->sl) == 0;
    p->fd = accept4(s->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    return p->fd >= 0;
}

void stage_accept(struct stage *s, struct peer *p, const struct end *e)
{
    *p = (struct peer){.api = s->api, .fd = -1, .key_in = e->key_out, .key_out = e->key_in};
    api_until(s->api, accept_now(s, p));
}

void stage_close(struct stage *s)
{
    if (s->sl != NULL)
        gyre_sim_listener_close(s->sl);
    if (s->fd >= 0)
        cr_assert_eq(close(s->fd), 0);
    *s = (struct stage){.fd = -1};
}

void peer_relay_open(struct api *api, struct peer *a, struct peer *b, struct end **ea, struct end **eb)
{
    *ea = peer_open(api, a);
    *eb = peer_open(api, b);
    (*ea)->user = *eb;
    (*eb)->user = *ea;
    a->key_in = b->key_out;
    b->key_in = a->key_out;
}

void peer_relay_fill(struct api *api, struct peer *a, const struct end *eb)
{
    api_until(api, (peer_send_some(a, MIB(1)), gyre_conn_congested(eb->c)));
    for (unsigned still = 0; still < 30; still++) {
        if (peer_send_some(a, MIB(1)) > 0)
            still = 0;
        api_turn(api);
    }
}

void peer_relay_warm_up(struct api *api, struct peer *a, struct peer *b)
{
    uint64_t before = api_stats(api).bytes_spliced;
    for (unsigned i = 0; i < 64 && api_stats(api).bytes_spliced == before; i++) {
        for (size_t sent = 0; sent < (api->is_sim ? KIB(16) : KIB(512));)
            sent += peer_send_some(a, MIB(1)) + (api_turn(api), peer_recv_some(b, SIZE_MAX));
    }
    if (backends_splices(api->loop))
        cr_assert_gt(api_stats(api).bytes_spliced, before, "nothing was spliced");
    else
        cr_assert_eq(api_stats(api).bytes_spliced, 0);
    peer_expect(b, a->sent);
}
