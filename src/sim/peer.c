/* SPDX-License-Identifier: MIT
 * Scripted peers: ends of connections, and listeners, that a test drives by hand. They are sockets like any other, only
 * without a descriptor and without a backend; what a loop would do with operations is done here by calls. */
#include "socket/addr.h"
#include "world.h"

#include <errno.h>

/* Both are freed with their socket, by gyre_sim_destroy() if nobody closes them before. */
struct gyre_sim_peer {
    struct sim_sock *sock;
    int err; /* why it failed; told by gyre_sim_peer_error() ever after */
};

struct gyre_sim_listener {
    struct sim_sock *sock;
    char address[GYRE_ADDR_TEXT_MAX];
};

enum { PEER_BACKLOG = 128 };

/* ---- Making them ---- */

/* `s` is closed if there is no memory for its peer. */
static int make_peer(struct gyre_sim_peer **out, struct sim_sock *s)
{
    struct gyre_sim_peer *peer = gyre__alloc(s->sim->mem, sizeof *peer);
    if (peer == NULL) {
        gyre__sim_sock_destroy(s);
        return -ENOMEM;
    }
    peer->sock = s;
    s->handle = peer;
    *out = peer;
    return 0;
}

int gyre_sim_connect(struct gyre_sim_peer **out, struct gyre_sim *sim, const char *address)
{
    struct gyre__address parsed;
    struct gyre_sim_peer *peer;
    int err = gyre__addr_parse(&parsed, address);
    if (err != 0)
        return err;
    struct sim_sock *s = gyre__sim_sock_create(sim, parsed.addr.ss.ss_family);
    if (s == NULL)
        return -ENOMEM;
    err = make_peer(&peer, s);
    if (err != 0)
        return err;
    peer->err = gyre__sim_sock_connect(s, (const struct sockaddr *)&parsed.addr.ss, parsed.addr.len);
    *out = peer;
    return 0;
}

int gyre_sim_listen_peer(struct gyre_sim_listener **out, struct gyre_sim *sim, const char *address)
{
    struct gyre__address parsed;
    int err = gyre__addr_parse(&parsed, address);
    if (err != 0)
        return err;
    struct sim_sock *s = gyre__sim_sock_create(sim, parsed.addr.ss.ss_family);
    if (s == NULL)
        return -ENOMEM;
    struct gyre__listen_config cfg = {.backlog = PEER_BACKLOG, .v6_only = parsed.v6_only};
    err = gyre__sim_listen(s, &parsed.addr, &cfg);
    struct gyre_sim_listener *listener = err == 0 ? gyre__alloc(sim->mem, sizeof *listener) : NULL;
    if (listener == NULL) {
        gyre__sim_sock_destroy(s);
        return err != 0 ? err : -ENOMEM;
    }
    listener->sock = s;
    s->handle = listener;
    gyre__addr_format(&s->local, listener->address, sizeof listener->address);
    *out = listener;
    return 0;
}

const char *gyre_sim_listener_address(const struct gyre_sim_listener *listener)
{
    return listener->address;
}

int gyre_sim_listener_accept(struct gyre_sim_peer **out, struct gyre_sim_listener *listener)
{
    if (listener->sock->queue_first == NULL)
        return -EAGAIN;
    return make_peer(out, gyre__sim_accept(listener->sock));
}

void gyre_sim_listener_close(struct gyre_sim_listener *listener)
{
    const struct gyre_mem *mem = listener->sock->sim->mem;
    gyre__sim_sock_destroy(listener->sock);
    gyre__free(mem, listener);
}

/* ---- Using them ---- */

/* Take note of what has gone wrong, as long as the socket tells. */
static int failure(struct gyre_sim_peer *peer)
{
    struct sim_sock *s = peer->sock;
    if (s->connect_done && s->err_connect != 0)
        peer->err = s->err_connect;
    return s->state == SIM_CONNECTED ? 0 : peer->err;
}

int64_t gyre_sim_peer_send(struct gyre_sim_peer *peer, const void *data, size_t len)
{
    struct sim_sock *s = peer->sock;
    int err = failure(peer);
    if (err != 0 || s->state == SIM_CONNECTING)
        return err;
    err = gyre__sim_send_err(s);
    if (err != 0) {
        if (s->dead && !s->stream->local && peer->err == 0)
            peer->err = err;
        return err;
    }
    uint32_t room = gyre__sim_stream_room(s);
    uint32_t run = len < room ? (uint32_t)len : room;
    if (run > 0) {
        gyre__sim_stream_put(s, data, run);
        gyre__sim_stream_flush(s);
    }
    return run;
}

int64_t gyre_sim_peer_recv(void *buf, size_t len, struct gyre_sim_peer *peer)
{
    struct sim_sock *s = peer->sock;
    int err = failure(peer);
    if (err != 0)
        return err;
    if (s->state == SIM_CONNECTING)
        return -EAGAIN;
    if (gyre__sim_stream_inbound(s) > 0)
        return gyre__sim_stream_take(s, buf, len < INT32_MAX ? (uint32_t)len : INT32_MAX);
    err = gyre__sim_recv_end(s);
    if (err < 0 && err != -EAGAIN && peer->err == 0)
        peer->err = err;
    return err;
}

size_t gyre_sim_peer_inbound(const struct gyre_sim_peer *peer)
{
    return peer->sock->state == SIM_CONNECTED ? (size_t)gyre__sim_stream_inbound(peer->sock) : 0;
}

size_t gyre_sim_peer_unacked(const struct gyre_sim_peer *peer)
{
    return peer->sock->state == SIM_CONNECTED ? (size_t)gyre__sim_stream_unacked(peer->sock) : 0;
}

int gyre_sim_peer_shutdown(struct gyre_sim_peer *peer)
{
    return gyre__sim_shutdown(peer->sock);
}

int gyre_sim_peer_error(const struct gyre_sim_peer *peer)
{
    const struct sim_sock *s = peer->sock;
    if (peer->err != 0)
        return peer->err;
    if (s->state == SIM_CONNECTED)
        return s->err;
    return s->connect_done ? s->err_connect : 0;
}

enum gyre_sim_peer_phase gyre_sim_peer_state(const struct gyre_sim_peer *peer)
{
    const struct sim_sock *s = peer->sock;
    if (gyre_sim_peer_error(peer) != 0)
        return GYRE_SIM_PEER_FAILED;
    if (s->state == SIM_CONNECTING)
        return GYRE_SIM_PEER_CONNECTING;
    bool fin = s->stream->pipe[!s->side].fin_arrived || s->dead;
    return fin && gyre__sim_stream_inbound(s) == 0 ? GYRE_SIM_PEER_EOF : GYRE_SIM_PEER_OPEN;
}

bool gyre_sim_peer_eof(const struct gyre_sim_peer *peer)
{
    return gyre_sim_peer_state(peer) == GYRE_SIM_PEER_EOF;
}

void gyre_sim_peer_close(struct gyre_sim_peer *peer)
{
    if (peer == NULL)
        return;
    const struct gyre_mem *mem = peer->sock->sim->mem;
    gyre__sim_sock_destroy(peer->sock);
    gyre__free(mem, peer);
}

void gyre_sim_peer_reset(struct gyre_sim_peer *peer)
{
    peer->sock->reset_on_close = true;
    gyre_sim_peer_close(peer);
}
