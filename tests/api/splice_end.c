/* SPDX-License-Identifier: MIT
 * Connections that go elsewhere, or end, with bytes of theirs in pipes: those that were received and not forwarded, and
 * those that were forwarded and not sent. What was promised for bytes in memory holds for these: a connection that is
 * handed over loses none, one that closes sends what was queued, one that fails says how much was not sent.
 *
 * On the simulator, and where the system has no splice(2), the same holds with nothing spliced. */
#include "fixture.h"
#include "rig.h"

#include "loop/loop.h"

#include <errno.h>
#include <fcntl.h>
#include <gyre/stats.h>
#include <sys/socket.h>
#include <unistd.h>

/* A connection of the test's own, adopted. */
struct heir {
    struct api *api;
    struct gyre_conn *c;
    struct end *source; /* whose bytes it is sent; NULL: it compares what it gets */
    unsigned opens, closes, handed;
    uint64_t got;
    uint32_t key;
    int err;
};

static struct heir heir;
static bool holding; /* what comes for one that is congested stays with its source, which goes on receiving */

/* A relay whose second half is `heir` once there is one. */
static void forward_on(struct end *e)
{
    const struct end *other = e->user;
    struct gyre_conn *to = heir.source == e && heir.c != NULL ? heir.c : other->c;
    if (to == NULL || (holding && gyre_conn_congested(to)))
        return;
    /* With no more than is here it is not made to wait. */
    int64_t n = gyre_conn_forward(e->c, to, holding ? gyre_conn_inbound(e->c) : SIZE_MAX);
    cr_assert(n >= 0 || n == GYRE_ECLOSED || n == -EPIPE || n == -ECONNRESET, "forward: %s", gyre_err_name((int)n));
    e->got += n > 0 ? (uint64_t)n : 0;
}

/* What was kept for one that was congested has to be looked at again, or a source that is at its limit, and receives
 * no more, would stand still for ever. */
static void look_again(struct end *e)
{
    const struct end *source = e->user;
    if (holding && source->c != NULL)
        (void)gyre_conn_wake(source->c); /* it may be closing, or going elsewhere */
}

static const struct script relay = {.data = forward_on, .drain = look_again};

static void heir_open(struct gyre_conn *c)
{
    struct heir *h = gyre_conn_user(c);
    cr_assert_eq(h->opens++, 0);
}

static void heir_data(struct gyre_conn *c)
{
    struct heir *h = gyre_conn_user(c);
    struct gyre_slice view;
    while (gyre_conn_inbound(c) > 0) {
        cr_assert_eq(gyre_conn_next(&view, c, 0), 0);
        cr_assert_eq(env_pattern_check(view.data, view.len, h->key, h->got), -1, "the heir got wrong bytes");
        h->got += view.len;
    }
}

static void heir_close(struct gyre_conn *c, int err)
{
    struct heir *h = gyre_conn_user(c);
    h->closes++;
    h->err = err;
    h->c = NULL;
}

static const struct gyre_conn_handlers heir_handlers = {
    .on_open = heir_open, .on_data = heir_data, .on_close = heir_close};

/* What was received is read, and the descriptor goes to the heir. */
static void hand_over(struct gyre_conn *c, int fd, void *user)
{
    struct end *e = user;
    const struct gyre_conn_options options = {.user = &heir};
    api_enter(heir.api);
    heir.handed++;
    if (!heir.api->is_sim)
        cr_assert_eq(fcntl(fd, F_GETFL) & O_NONBLOCK, 0, "it does not block");
    while (gyre_conn_inbound(c) > 0)
        (void)end_take(e);
    heir.key = e->key_in;
    heir.got = e->got;
    e->closes = 1; /* it has no on_close */
    e->c = NULL;
    cr_assert_eq(gyre_conn_adopt_fd(&heir.c, heir.api->loop, fd, &heir_handlers, &options), 0);
    api_leave(heir.api);
}

struct scene {
    struct api api;
    struct peer a, b;
    struct end *ea, *eb;
};

static void open_relay(struct scene *s, const struct backend_param *p, const struct gyre_conn_options *options)
{
    struct gyre_listener_options o = {.conn = {.user = NULL}};
    if (options != NULL)
        o.conn = *options;
    api_init(&s->api, p);
    api_open(&s->api);
    api_listen(&s->api, &relay, &o);
    heir = (struct heir){.api = &s->api};
    holding = false;
    peer_relay_open(&s->api, &s->a, &s->b, &s->ea, &s->eb);
}

/* Pipes are full on both sides of the relay. */
static void open_full(struct scene *s, const struct backend_param *p, const struct gyre_conn_options *options)
{
    open_relay(s, p, options);
    if (s->b.fd >= 0) /* or the kernel may make room in it later */
        cr_assert_eq(setsockopt(s->b.fd, SOL_SOCKET, SO_RCVBUF, &(int){KIB(64)}, sizeof(int)), 0);
    peer_relay_warm_up(&s->api, &s->a, &s->b);
    uint64_t copied = api_stats(&s->api).bytes_copied_in;
    holding = true;
    /* On a busy machine what is on its way can seem to stand still. */
    for (unsigned i = 0; i < 100 && (i < 2 || gyre_conn_inbound(s->ea->c) == 0); i++)
        peer_relay_fill(&s->api, &s->a, s->eb);
    cr_assert_gt(gyre_conn_outbound(s->eb->c), 0);
    cr_assert_gt(gyre_conn_inbound(s->ea->c), 0);
    if (backends_splices(s->api.loop)) /* what waits is not in memory */
        cr_assert_lt(api_stats(&s->api).bytes_copied_in - copied, gyre_conn_inbound(s->ea->c));
}

/* The source forwards what it has kept, and all that comes. */
static void let_flow(const struct scene *s)
{
    holding = false;
    cr_assert_eq(gyre_conn_wake(s->ea->c), 0);
}

static void close_scene(struct scene *s)
{
    for (unsigned i = 0; i < 2; i++) {
        const struct end *e = i == 0 ? s->ea : s->eb;
        if (e->c != NULL)
            cr_assert_eq(gyre_conn_abort(e->c), 0);
    }
    if (heir.c != NULL)
        cr_assert_eq(gyre_conn_abort(heir.c), 0);
    peer_close(&s->a);
    peer_close(&s->b);
    api_until(&s->api, s->ea->closes == 1 && s->eb->closes == 1 && heir.c == NULL);
    api_close(&s->api);
}

/* ---- handing over ---- */

/* The source leaves: what it had forwarded reaches the other end, what it had received the heir. */
BACKEND_TEST(api_splice_end, source_detached)
{
    struct scene s;
    open_full(&s, p, NULL);
    uint64_t forwarded = s.ea->got;
    uint64_t copied = api_stats(&s.api).bytes_copied_in;
    size_t waits = gyre_conn_inbound(s.ea->c);
    cr_assert_eq(gyre_conn_detach(s.ea->c, hand_over, s.ea), 0);
    api_until(&s.api, heir.handed == 1);
    if (backends_splices(s.api.loop))
        cr_assert_gt(api_stats(&s.api).bytes_copied_in - copied, waits / 2, "nothing was read out of a pipe");
    peer_expect(&s.b, forwarded);
    (void)peer_send_some(&s.a, MIB(1));
    peer_shutdown(&s.a);
    api_until(&s.api, heir.closes == 1);
    cr_assert_eq(heir.got, s.a.sent);
    cr_assert_eq(heir.err, 0);
    cr_assert_eq(heir.opens, 1);
    close_scene(&s);
}

/* The destination leaves: first what was forwarded to it is sent, and the heir goes on with the rest. */
BACKEND_TEST(api_splice_end, destination_detached)
{
    struct scene s;
    open_full(&s, p, NULL);
    uint64_t forwarded = s.ea->got;
    cr_assert_eq(gyre_conn_detach(s.eb->c, hand_over, s.eb), 0);
    api_watch(&s.api, MS(5));
    cr_assert_eq(heir.handed, 0, "handed over before it had sent everything");
    peer_expect(&s.b, forwarded);
    api_until(&s.api, heir.opens == 1);
    cr_assert_eq(s.ea->got, forwarded, "it took bytes on its way");
    heir.source = s.ea;
    let_flow(&s);
    for (unsigned i = 0; i < 20; i++, api_turn(&s.api))
        (void)peer_send_some(&s.a, s.api.is_sim ? KIB(16) : MIB(1));
    peer_expect(&s.b, s.a.sent);
    close_scene(&s);
}

/* Both at once, and bytes go on coming. */
BACKEND_TEST(api_splice_end, detached_while_bytes_come)
{
    struct scene s;
    open_full(&s, p, NULL);
    uint64_t forwarded = s.ea->got;
    cr_assert_eq(gyre_conn_detach(s.ea->c, hand_over, s.ea), 0);
    for (unsigned i = 0; i < 5; i++, api_turn_now(&s.api)) {
        (void)peer_send_some(&s.a, MIB(1));
        (void)peer_recv_some(&s.b, SIZE_MAX);
    }
    api_until(&s.api, (peer_recv_some(&s.b, SIZE_MAX), heir.handed == 1));
    (void)peer_send_some(&s.a, MIB(1));
    peer_expect(&s.b, forwarded);
    api_until(&s.api, heir.got == s.a.sent);
    close_scene(&s);
}

/* Another descriptor of the socket changes nothing, on either side. */
REAL_TEST(api_splice_end, another_descriptor)
{
    struct scene s;
    open_full(&s, p, NULL);
    int fds[2] = {gyre_conn_dup_fd(s.ea->c), gyre_conn_dup_fd(s.eb->c)};
    cr_assert(fds[0] >= 0 && fds[1] >= 0);
    let_flow(&s);
    (void)peer_send_some(&s.a, MIB(1));
    peer_expect(&s.b, s.a.sent);
    for (unsigned i = 0; i < 2; i++)
        cr_assert_eq(close(fds[i]), 0);
    peer_relay_warm_up(&s.api, &s.a, &s.b);
    close_scene(&s);
}

/* ---- closing ---- */

/* The destination closes: what was forwarded is sent, then FIN, and nothing is left unsent. */
BACKEND_TEST(api_splice_end, destination_closed)
{
    struct scene s;
    open_full(&s, p, NULL);
    uint64_t forwarded = s.ea->got;
    cr_assert_eq(gyre_conn_close(s.eb->c), 0);
    peer_expect(&s.b, forwarded);
    peer_until_end(&s.b);
    cr_assert(s.b.eof);
    cr_assert_eq(s.b.got, forwarded);
    peer_close(&s.b);
    api_until(&s.api, s.eb->closes == 1);
    cr_assert_eq(s.eb->err, 0);
    cr_assert_eq(s.eb->unsent, 0);
    close_scene(&s);
}

/* The source closes, with bytes that it never forwarded. */
BACKEND_TEST(api_splice_end, source_closed)
{
    struct scene s;
    open_full(&s, p, NULL);
    uint64_t forwarded = s.ea->got;
    cr_assert_eq(gyre_conn_close(s.ea->c), 0);
    peer_close(&s.a);
    api_until(&s.api, s.ea->closes == 1);
    cr_assert_eq(s.ea->err, 0);
    peer_expect(&s.b, forwarded);
    close_scene(&s);
}

/* Aborted, and given up after its linger time or for want of progress: all that the peer did not get is counted. */
BACKEND_TEST(api_splice_end, given_up)
{
    for (unsigned how = 0; how < 4; how++) {
        struct gyre_conn_options options = {.linger_timeout_ns = MS(30)};
        struct scene s;
        open_full(&s, p, &options);
        size_t queued = gyre_conn_outbound(s.eb->c);
        if (how == 0)
            cr_assert_eq(gyre_conn_abort(s.eb->c), 0);
        if (how == 1)
            cr_assert_eq(gyre_conn_close(s.eb->c), 0);
        if (how == 2)
            cr_assert_eq(gyre_conn_detach(s.eb->c, hand_over, s.eb), 0);
        if (how == 3)
            cr_assert_eq(gyre_conn_set_write_timeout(s.eb->c, MS(30)), 0);
        api_until(&s.api, s.eb->closes == 1);
        cr_assert_eq(heir.handed, 0);
        cr_assert_eq(s.eb->err, how == 0 ? 0 : GYRE_ETIMEOUT, "way %u: %s", how, gyre_err_name(s.eb->err));
        cr_assert_geq(s.eb->unsent, queued, "way %u: %llu of %zu bytes unsent", how, (unsigned long long)s.eb->unsent,
                      queued);
        cr_assert_leq(s.eb->unsent, s.ea->got);
        close_scene(&s);
    }
}

/* ---- an engine ---- */

/* Send until the echo is stuck: nobody reads it. Returns how much went. */
static uint64_t stuff(int fd)
{
    static uint8_t data[1 << 16];
    uint64_t sent = 0;
    for (unsigned still = 0; still < 50;) {
        env_pattern_fill(data, sizeof data, 9, sent);
        ssize_t n = send(fd, data, sizeof data, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n > 0) {
            sent += (uint64_t)n;
            still = 0;
        } else {
            cr_assert_eq(errno, EAGAIN);
            still++;
            (void)poll(NULL, 0, 1);
        }
    }
    return sent;
}

static uint64_t read_to_the_end(int fd, bool *reset)
{
    static uint8_t data[1 << 16];
    uint64_t got = 0;
    ssize_t n;
    while ((n = recv(fd, data, sizeof data, 0)) > 0 || (n < 0 && errno == EINTR)) {
        if (n < 0)
            continue;
        cr_assert_eq(env_pattern_check(data, (size_t)n, 9, got), -1);
        got += (uint64_t)n;
    }
    *reset = n < 0;
    return got;
}

static uint64_t spliced(const struct rig *r)
{
    struct gyre_stats stats;
    gyre_engine_stats(&stats, r->engine);
    return stats.bytes_spliced;
}

/* Bulk there and back until it goes through pipes, where it can. */
static void echo_bulk(const struct rig *r, int fd)
{
    static uint8_t data[1 << 18];
    for (unsigned i = 0; i < 400 && (i < 40 || spliced(r) == 0); i++) {
        size_t got = 0, sent = 0;
        while (got < sizeof data) {
            ssize_t n = send(fd, data, sizeof data - sent, MSG_DONTWAIT | MSG_NOSIGNAL);
            sent += n > 0 ? (size_t)n : 0;
            n = recv(fd, data, sizeof data - got, MSG_DONTWAIT);
            got += n > 0 ? (size_t)n : 0;
        }
    }
    bool can = backends_splices(gyre_engine_loop(r->engine, 0));
    cr_assert(can ? spliced(r) > 0 : spliced(r) == 0, "%llu bytes spliced", (unsigned long long)spliced(r));
}

/* The engine ends, with an echo stuck in pipes: gently, and all of it comes back; gently, and nobody reads; at once. */
REAL_TEST(api_splice_end, engine)
{
    for (unsigned how = 0; how < 3; how++) {
        struct rig r;
        bool reset;
        rig_open(&r, p, 2);
        rig_listen(&r, rig_tcp, NULL);
        rig_run(&r);
        int fd = rig_client(gyre_listener_address(r.listener));
        echo_bulk(&r, fd);
        uint64_t sent = stuff(fd), got = 0;
        if (how < 2)
            (void)gyre_engine_drain(r.engine, &(struct gyre_drain_options){
                                                  .deadline_ns = how == 0 ? MS(API_PATIENCE_MS) : MS(50)});
        else
            gyre_engine_stop(r.engine);
        if (how == 0) {
            got = read_to_the_end(fd, &reset);
            cr_assert(!reset && got == sent, "%llu of %llu bytes, then a %s", (unsigned long long)got,
                      (unsigned long long)sent, reset ? "reset" : "clean end");
            cr_assert_eq(close(fd), 0);
        }
        rig_join(&r);
        cr_assert_eq(r.closes, 1);
        cr_assert_eq(atomic_load(&r.last_err), how == 0 ? 0 : GYRE_ESHUTDOWN);
        if (how > 0)
            cr_assert_eq(close(fd), 0);
        rig_close(&r);
    }
}

/* A pipe whose bytes were thrown away with its connection brings none of them to the next one. */
BACKEND_TEST(api_splice_end, aborted_leaves_no_bytes)
{
    struct scene s;
    struct peer a, b;
    struct end *ea, *eb;
    open_full(&s, p, NULL);
    cr_assert_eq(gyre_conn_abort(s.ea->c), 0);
    cr_assert_eq(gyre_conn_abort(s.eb->c), 0);
    api_until(&s.api, s.ea->closes == 1 && s.eb->closes == 1);
    holding = false;
    peer_relay_open(&s.api, &a, &b, &ea, &eb);
    peer_relay_warm_up(&s.api, &a, &b); /* which compares every byte */
    cr_assert_eq(gyre_conn_abort(ea->c), 0);
    cr_assert_eq(gyre_conn_abort(eb->c), 0);
    api_until(&s.api, ea->closes == 1 && eb->closes == 1);
    peer_close(&a);
    peer_close(&b);
    close_scene(&s);
}

/* ---- without memory ---- */

static void *(*resize)(void *ptr, size_t size_bytes, void *user);

static void *only_free(void *ptr, size_t size_bytes, void *user)
{
    return size_bytes > 0 ? NULL : resize(ptr, 0, user);
}

/* Nothing is left to note what a pipe has received: the connection ends, and the pipe is closed with it. */
BACKEND_TEST(api_splice_end, no_memory_for_a_pipe)
{
    struct scene s;
    open_relay(&s, p, NULL);
    peer_relay_warm_up(&s.api, &s.a, &s.b);
    if (backends_splices(s.api.loop)) {
        struct gyre__seg **last = &s.api.loop->segs.free, *kept = *last;
        resize = s.api.mem.mem.resize;
        s.api.mem.mem.resize = only_free;
        *last = NULL;
        (void)peer_send_some(&s.a, MIB(1));
        api_until(&s.api, s.ea->closes == 1);
        cr_assert_eq(s.ea->err, -ENOMEM, "%s", gyre_err_name(s.ea->err));
        s.api.mem.mem.resize = resize;
        while (*last != NULL)
            last = &(*last)->next;
        *last = kept;
    }
    close_scene(&s);
}
