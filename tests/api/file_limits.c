/* SPDX-License-Identifier: MIT
 * Files in the send queue, and the limits on writing: the time limit counts for them as for other bytes, also when
 * they leave the queue empty behind them; the marks and write_max_bytes do not, and go on counting what is written
 * behind. */
#include "fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { BYTES = 12 << 20, LITTLE = 30000 };

static uint64_t timeout_at_ns;

static void note(struct end *e)
{
    cr_assert_eq(gyre_conn_timeout_kind(e->c), GYRE_TIMEOUT_WRITE);
    timeout_at_ns = gyre_loop_now_ns(gyre_conn_loop(e->c)); /* from which the next is counted */
}

static const struct script noting = {.timeout = note};

static struct end *start(struct api *api, const struct backend_param *p, struct peer *peer,
                         const struct gyre_conn_options *options)
{
    api_init(api, p);
    api->quiet_sim = true;
    api_open(api);
    api_listen(api, &noting, &(struct gyre_listener_options){.conn = *options});
    return peer_open(api, peer);
}

/* A file that goes on where what was put so far ends. */
static int make_file(const struct end *e, size_t bytes)
{
    char path[128];
    uint8_t *data = malloc(bytes);
    cr_assert_not_null(data);
    (void)snprintf(path, sizeof path, "%s/file", e->api->dir);
    int fd = open(path, O_CREAT | O_TRUNC | O_RDWR | O_CLOEXEC, 0600);
    cr_assert_geq(fd, 0);
    env_pattern_fill(data, bytes, e->key_out, e->put);
    cr_assert_eq(unlink(path), 0);
    cr_assert_eq(write(fd, data, bytes), (ssize_t)bytes);
    free(data);
    return fd;
}

static int send_file(struct end *e, size_t bytes)
{
    int fd = make_file(e, bytes);
    int err = gyre_conn_sendfile(e->c, fd, 0, bytes, end_on_sent, e);
    cr_assert_eq(err, 0, "%s", gyre_err_name(err));
    e->put += bytes;
    return fd;
}

/* Nobody reads: the limit passes, again and again; it starts anew with every byte taken, and ends with the file. */
TRANSPORT_TEST(api_file_limits, time_limit)
{
    struct api api;
    struct peer peer;
    struct end *e = start(&api, p, &peer, &(struct gyre_conn_options){.write_timeout_ns = MS(40)});
    uint64_t from_ns = api_now_ns(&api);
    int fd = send_file(e, BYTES);
    for (unsigned i = 1; i <= 3; i++) {
        api_until(&api, e->timeouts == i);
        cr_assert_geq((int64_t)(timeout_at_ns - from_ns), MS(40), "early");
        from_ns = timeout_at_ns;
    }
    peer_expect(&peer, BYTES);
    api_until(&api, e->sents == 1);
    unsigned before = e->timeouts;
    api_watch(&api, MS(120));
    cr_assert_eq(e->timeouts, before, "though nothing is queued");
    cr_assert_eq(e->sent_errs, 0);
    cr_assert_eq(close(fd), 0);
    peer_close(&peer);
    api_close(&api);
}

/* What leaves nothing behind it in the queue: a file, or an empty piece that is borrowed. */
static void send_and_wait(struct end *e, struct peer *peer, bool file)
{
    unsigned sents = e->sents + 1;
    int fd = -1;
    if (file)
        fd = send_file(e, LITTLE);
    else
        cr_assert_eq(gyre_conn_write_ref(e->c, NULL, 0, end_on_sent, e), 0);
    peer_expect(peer, e->put);
    api_until(e->api, e->sents == sents);
    if (fd >= 0)
        cr_assert_eq(close(fd), 0);
}

/* The limit is there for what is written later, and counts from then: not from before, and not never. */
static void check_later_write(const struct backend_param *p, bool file, int64_t pause_ns)
{
    struct api api;
    struct peer peer;
    struct end *e = start(&api, p, &peer, &(struct gyre_conn_options){.write_timeout_ns = MS(60)});
    send_and_wait(e, &peer, file);
    unsigned before = e->timeouts; /* reading the file may have taken so long */
    api_watch(&api, pause_ns);
    cr_assert_eq(e->timeouts, before, "with nothing to send");
    uint64_t from_ns = api_now_ns(&api);
    end_put(e, BYTES);
    api_until(&api, e->timeouts == before + 1);
    cr_assert_geq((int64_t)(timeout_at_ns - from_ns), MS(60), "early, after %lld ns",
                  (long long)(timeout_at_ns - from_ns));
    cr_assert_eq(gyre_conn_abort(e->c), 0);
    peer_close(&peer);
    api_close(&api);
}

BACKEND_TEST(api_file_limits, write_long_after_a_file)
{
    check_later_write(p, true, MS(200));
}

BACKEND_TEST(api_file_limits, write_soon_after_a_file)
{
    check_later_write(p, true, MS(40));
}

BACKEND_TEST(api_file_limits, write_long_after_an_empty_piece)
{
    check_later_write(p, false, MS(200));
}

BACKEND_TEST(api_file_limits, write_soon_after_an_empty_piece)
{
    check_later_write(p, false, MS(40));
}

/* A file of any length neither congests nor is refused; what is written behind it counts as ever, and on_drain follows
 * when that, too, has left. */
TRANSPORT_TEST(api_file_limits, marks)
{
    struct api api;
    struct peer peer;
    struct end *e = start(&api, p, &peer, &(struct gyre_conn_options){
        .write_high_bytes = 100000, .write_low_bytes = 10000, .write_max_bytes = 200000});
    int fd = send_file(e, BYTES);
    for (unsigned i = 0; i < 30; i++) {
        api_turn(&api);
        cr_assert_not(gyre_conn_congested(e->c));
        cr_assert_leq(gyre_conn_outbound(e->c), KIB(64));
    }
    cr_assert_gt(gyre_conn_outbound(e->c), 0, "all of it went, though nobody reads");
    end_put(e, 110000);
    cr_assert(gyre_conn_congested(e->c));
    cr_assert_eq(end_try_put(e, 100000), -EAGAIN);
    int again = send_file(e, LITTLE);
    cr_assert_eq(e->drains, 0);
    peer_expect(&peer, e->put);
    api_until(&api, e->sents == 2);
    cr_assert_eq(e->drains, 1);
    cr_assert_not(gyre_conn_congested(e->c));
    cr_assert_eq(gyre_conn_outbound(e->c), 0);
    cr_assert_eq(close(fd), 0);
    cr_assert_eq(close(again), 0);
    peer_close(&peer);
    api_close(&api);
}
