/* SPDX-License-Identifier: MIT
 * Calls that are refused for what the other side did or is: writing when sending has failed and the connection is not
 * closed yet, answering a datagram that is another socket's or over, or whose sender has no name. */
#include "udp.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void never_sent(int err, void *user)
{
    (void)user;
    cr_assert_fail("told of a call that was refused: %s", gyre_err_name(err));
}

/* Every way to write says what broke the sending. */
static void check_writes(struct end *e, struct end *other, int broken)
{
    char x = 'x';
    cr_assert_eq(gyre_conn_write(e->c, &x, 1), broken);
    cr_assert_eq(gyre_conn_writev(e->c, &(struct iovec){&x, 1}, 1), broken);
    cr_assert_eq(gyre_conn_write_ref(e->c, "x", 1, never_sent, NULL), broken);
    cr_assert_eq(gyre_conn_try_write(e->c, &x, 1), broken);
    cr_assert_eq(gyre_conn_forward(other->c, e->c, SIZE_MAX), broken);
    cr_assert_eq(gyre_conn_detach(e->c, (gyre_detached_fn *)abort, NULL), broken);
    cr_assert_eq(gyre_conn_outbound(e->c), 0);
}

/* A unix peer that will read no more, and goes on talking: it is heard to its end, and on_close says what broke. */
TRANSPORT_TEST(api_refusals, after_a_failed_send)
{
    static const struct script leaving = {.data = end_ignore};
    struct api api;
    struct peer peer, second;
    if (is_tcp(&(struct api){.transport = p->transport}) || strcmp(p->backend, "sim") == 0)
        return; /* only unix sockets can be closed for reading, and be noticed */
    api_start(&api, p, NULL);
    struct end *e = peer_open(&api, &peer);
    api_listen(&api, &leaving, NULL);
    struct end *other = peer_open(&api, &second);
    peer_send(&second, 100);
    api_until(&api, gyre_conn_inbound(other->c) == 100);
    cr_assert_eq(shutdown(peer.fd, SHUT_RD), 0);
    end_put(e, 1000);
    api_until(&api, gyre_conn_outbound(e->c) == 0);
    cr_assert_eq(e->closes, 0);
    check_writes(e, other, -EPIPE);
    cr_assert_eq(gyre_conn_inbound(other->c), 100, "forwarded to one that is broken");
    peer_send(&peer, 5000);
    api_until(&api, e->got == 5000);
    cr_assert_eq(e->closes, 0, "closed though the peer still talks");
    peer_close(&peer);
    api_until(&api, e->closes == 1);
    cr_assert_eq(e->reason, GYRE_CLOSE_ERROR);
    cr_assert_eq(e->err, -EPIPE, "%s", gyre_err_name(e->err));
    cr_assert_geq(e->unsent, 1000);
    peer_close(&second);
    api_close(&api);
}

static struct dsock *another;
static struct gyre_datagram before;
static const struct gyre_datagram *stale;

static void answer_wrongly(struct dsock *s, const struct gyre_datagram *d)
{
    struct gyre_buf *buf;
    struct gyre_slice view;
    struct gyre_datagram copy = *d;
    cr_assert_eq(gyre_udp_reply(another->u, d, "x", 1), -EINVAL, "a datagram of another socket");
    cr_assert_eq(gyre_udp_hold(&buf, &view, another->u, d), -EINVAL);
    cr_assert_eq(gyre_udp_reply(s->u, &copy, "x", 1), -EINVAL, "a copy");
    stale = d;
    cr_assert_eq(gyre_udp_reply(s->u, d, d->data.data, d->data.len), 0);
}

/* A datagram is its own socket's, and as long as its handler runs. */
TRANSPORT_TEST(api_refusals, datagram_of_another)
{
    static const struct dscript wrong = {.datagram = answer_wrongly};
    struct api api;
    struct dsock s, other, c;
    struct gyre_buf *buf;
    struct gyre_slice view;
    udp_start(&api, p);
    udp_bind(&api, &s, &wrong, NULL);
    udp_bind(&api, &other, NULL, NULL);
    another = &other;
    udp_connect(&api, &c, gyre_udp_address(s.u), NULL, NULL);
    for (unsigned i = 1; i <= 3; i++) {
        cr_assert_eq(udp_send(&c, i, 50), 0);
        api_until(&api, c.datagrams == i);
        cr_assert_eq(gyre_udp_reply(s.u, &before, "x", 1), -EINVAL, "one that there never was");
        cr_assert_eq(gyre_udp_reply(s.u, stale, "x", 1), -EINVAL, "one whose handler has returned");
        cr_assert_eq(gyre_udp_hold(&buf, &view, s.u, stale), -EINVAL);
    }
    udp_close(&c);
    udp_close(&s);
    udp_close(&other);
    cr_assert_eq(s.stats.sent, 3);
    cr_assert_eq(other.stats.sent, 0);
    api_close(&api);
}

static void answer_nobody(struct dsock *s, const struct gyre_datagram *d)
{
    if (d->peer != NULL) {
        udp_echo(s, d);
        return;
    }
    cr_assert_eq(d->peer_len, 0);
    cr_assert(d->data.len == 6 && memcmp(d->data.data, "nobody", 6) == 0);
    cr_assert_eq(gyre_udp_reply(s->u, d, "x", 1), -EDESTADDRREQ);
    s->n++;
}

/* Who has no name cannot be answered; everybody else is. */
TRANSPORT_TEST(api_refusals, nameless_sender)
{
    static const struct dscript answering = {.datagram = answer_nobody};
    struct api api;
    struct dsock s, c;
    struct sockaddr_storage to;
    socklen_t to_len;
    if (is_tcp(&(struct api){.transport = p->transport}) || strcmp(p->backend, "sim") == 0)
        return; /* UDP always has a name, and the simulator gives one */
    udp_start(&api, p);
    udp_bind(&api, &s, &answering, NULL);
    cr_assert_eq(gyre_udp_local_address(&to, &to_len, s.u), 0);
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    for (unsigned i = 1; i <= 3; i++) {
        cr_assert_eq(sendto(fd, "nobody", 6, 0, (struct sockaddr *)&to, to_len), 6);
        api_until(&api, s.n == i);
    }
    udp_connect(&api, &c, gyre_udp_address(s.u), NULL, NULL);
    cr_assert_eq(udp_send(&c, 1, 20), 0);
    api_until(&api, c.datagrams == 1);
    (void)close(fd);
    udp_close(&c);
    udp_close(&s);
    cr_assert_eq(s.stats.sent, 1);
    api_close(&api);
}
