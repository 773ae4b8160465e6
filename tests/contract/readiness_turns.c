/* SPDX-License-Identifier: MIT
 * What a turn of the readiness engine costs and how it is shared out: system calls per request, the bytes of a turn,
 * fairness, and write interest that is taken only when it is needed. */
#include "readiness.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum { TURN_BYTES = 32 * 1024, TURN_EVENTS = 16 };

static void open_with_pool(struct seam *s, struct backend_param *p, uint32_t count_max)
{
    seam_open(s, p);
    seam_pool(s, RD_BUF, 8, count_max);
}

/* Send back what came last, and wait for nothing. */
static void answer(struct rd_end *e, uint32_t len)
{
    rd_send(e, e->in + e->in_len - len, len);
}

/* A request that fits one receive buffer costs one receive and one send, one wait of the poller for all that came
 * together, and no change of what is watched. */
static void echo_and_count(struct backend_param *p, uint32_t len)
{
    enum { ENDS = 8, ROUNDS = 50, WARM_UP = 2 };
    struct seam s;
    struct rd_end ends[ENDS];
    uint8_t *data = malloc(len), *back = malloc(len);
    open_with_pool(&s, p, 64);
    for (int i = 0; i < ENDS; i++) {
        rd_open(&s, &ends[i]);
        rd_receive(&ends[i], GYRE_OPF_MULTI);
    }
    uint64_t calls = 0, enters = 0;
    long ctl_calls = 0;
    for (uint32_t round = 0; round < ROUNDS + WARM_UP; round++) {
        if (round == WARM_UP) {
            calls = s.be->stats.calls;
            enters = s.be->stats.enters;
            ctl_calls = rd_ctl_calls;
        }
        env_pattern_fill(data, len, round, 0);
        size_t before = ends[0].in_len;
        for (int i = 0; i < ENDS; i++)
            rd_peer_write(&ends[i], data, len);
        for (int i = 0; i < ENDS; i++)
            rd_arrived(&ends[i], (int)len);
        for (int i = 0; i < ENDS; i++) {
            seam_until(&s, ends[i].in_len == before + len);
            answer(&ends[i], len);
        }
        for (int i = 0; i < ENDS; i++) {
            seam_until(&s, seam_idle(ends[i].send));
            rd_peer_read(&ends[i], back, len);
            cr_assert_eq(env_pattern_check(back, len, round, 0), -1);
        }
    }
    cr_assert_eq(s.be->stats.calls - calls, 2 * ENDS * ROUNDS, "%llu calls for %d requests",
                 (unsigned long long)(s.be->stats.calls - calls), ENDS * ROUNDS);
    cr_assert_eq(s.be->stats.enters - enters, ROUNDS);
    cr_assert_eq(rd_ctl_calls, ctl_calls);
    for (int i = 0; i < ENDS; i++)
        rd_close(&ends[i]);
    seam_close(&s);
    free(data);
    free(back);
}

READINESS_TEST(readiness_turns, a_small_request_costs_two_calls)
{
    echo_and_count(p, 64);
}

/* Without the offer of a second buffer it would be three: the last to learn that nothing is left. */
READINESS_TEST(readiness_turns, a_request_as_long_as_the_buffer_costs_two_calls)
{
    echo_and_count(p, RD_BUF);
}

/* What exceeds one buffer comes in order, in events of one buffer each, none of them empty, and after the first with
 * calls of sixteen buffers each. */
READINESS_TEST(readiness_turns, long_data_comes_in_order)
{
    enum { LEN = 100000, KEY = 7, BUFS = (LEN + RD_BUF - 1) / RD_BUF };
    struct seam s;
    struct rd_end e;
    uint8_t *data = malloc(LEN);
    open_with_pool(&s, p, 96);
    rd_open(&s, &e);
    env_pattern_fill(data, LEN, KEY, 0);
    rd_peer_write(&e, data, LEN);
    rd_arrived(&e, LEN);
    uint64_t calls = s.be->stats.calls;
    rd_receive(&e, GYRE_OPF_MULTI);
    seam_until(&s, e.in_len == LEN);
    cr_assert_eq(e.recv->events, BUFS);
    cr_assert_eq(s.be->stats.calls - calls, 1 + (BUFS - 1 + 15) / 16);
    cr_assert_eq(env_pattern_check(e.in, LEN, KEY, 0), -1);
    rd_close(&e);
    seam_close(&s);
    free(data);
}

/* With one buffer to be had there is no second to offer, and everything still comes. */
READINESS_TEST(readiness_turns, long_data_comes_through_one_buffer)
{
    enum { LEN = 100000, KEY = 9 };
    struct seam s;
    struct rd_end e;
    uint8_t *data = malloc(LEN);
    open_with_pool(&s, p, 1);
    rd_open(&s, &e);
    env_pattern_fill(data, LEN, KEY, 0);
    rd_peer_write(&e, data, LEN);
    rd_arrived(&e, LEN);
    rd_receive(&e, GYRE_OPF_MULTI);
    uint64_t end_ns = env_now_ns() + (uint64_t)SEAM_MS(10000);
    while (e.in_len < LEN) {
        cr_assert_lt(env_now_ns(), end_ns);
        if (seam_idle(e.recv))
            rd_receive(&e, GYRE_OPF_MULTI);
        seam_turn(&s, SEAM_MS(10));
    }
    cr_assert_eq(env_pattern_check(e.in, LEN, KEY, 0), -1);
    rd_close(&e);
    seam_close(&s);
    free(data);
}

/* A turn ends after 32 KiB, and what was submitted after it goes out before more is received. */
READINESS_TEST(readiness_turns, a_turn_ends_while_its_bytes_are_in_cache)
{
    enum { ENDS = 6, LEN = 64 * 1024 };
    struct seam s;
    struct rd_end ends[ENDS];
    uint8_t *data = calloc(1, LEN);
    open_with_pool(&s, p, 64);
    for (int i = 0; i < ENDS; i++) {
        rd_open(&s, &ends[i]);
        rd_peer_write(&ends[i], data, LEN);
        rd_arrived(&ends[i], LEN);
        rd_receive(&ends[i], GYRE_OPF_MULTI);
    }
    size_t total = 0;
    for (unsigned turns = 0; total < ENDS * LEN; turns++) {
        cr_assert_lt(turns, 100);
        if (turns == 3) /* into a full run queue */
            rd_send(&ends[ENDS - 1], data, 1);
        seam_turn(&s, SEAM_MS(1000));
        cr_assert(turns < 3 || seam_idle(ends[ENDS - 1].send), "a send waits behind receives");
        size_t now = 0;
        for (int i = 0; i < ENDS; i++)
            now += ends[i].in_len;
        cr_assert_leq(now - total, TURN_BYTES + 2 * RD_BUF, "%zu bytes in one turn", now - total);
        total = now;
    }
    for (int i = 0; i < ENDS; i++)
        rd_close(&ends[i]);
    seam_close(&s);
    free(data);
}

/* A peer that sends all the time does not keep the others waiting: neither those that are ready together with it, nor
 * those that become ready while it keeps the run queue busy. */
READINESS_TEST(readiness_turns, a_flooder_starves_nobody)
{
    enum { PINGERS = 20, FLOOD = 256 * 1024, WAITS_MAX = 24 };
    struct seam s;
    struct rd_end flooder, pingers[PINGERS];
    uint8_t *data = calloc(1, FLOOD);
    open_with_pool(&s, p, 64);
    rd_open(&s, &flooder);
    rd_receive(&flooder, GYRE_OPF_MULTI);
    for (int i = 0; i < PINGERS; i++) {
        rd_open(&s, &pingers[i]);
        rd_receive(&pingers[i], GYRE_OPF_MULTI);
    }
    for (int round = 0; round < 20; round++) {
        size_t goal = pingers[0].in_len + 1;
        uint64_t flooded = flooder.in_len;
        for (int i = 0; i < PINGERS; i++)
            rd_peer_write(&pingers[i], "p", 1);
        int served = 0;
        for (int waits = 0; served < PINGERS; waits++) {
            cr_assert_lt(waits, WAITS_MAX, "%d of %d pingers after %d waits", served, PINGERS, waits);
            (void)rd_peer_send(&flooder, data, FLOOD);
            rd_arrived(&flooder, 1);
            seam_turn(&s, SEAM_MS(1000));
            served = 0;
            for (int i = 0; i < PINGERS; i++)
                served += pingers[i].in_len == goal;
        }
        cr_assert_gt(flooder.in_len, flooded);
        flooder.in_len = 0;
    }
    rd_close(&flooder);
    for (int i = 0; i < PINGERS; i++)
        rd_close(&pingers[i]);
    seam_close(&s);
    free(data);
}

static void send_again(struct seam *s, struct seam_op *so, const struct gyre__event *ev)
{
    if (ev->res > 0)
        seam_submit(s, so);
}

/* Sends that fill every turn do not keep a receive waiting, even where one event fits. */
READINESS_TEST(readiness_turns, senders_starve_no_receiver)
{
    enum { SENDERS = 8 };
    struct seam s;
    struct rd_end senders[SENDERS], reader;
    open_with_pool(&s, p, 8);
    rd_open(&s, &reader);
    rd_receive(&reader, GYRE_OPF_MULTI);
    for (int i = 0; i < SENDERS; i++) {
        rd_open(&s, &senders[i]);
        senders[i].send->on_event = send_again;
        rd_send(&senders[i], "x", 1);
    }
    for (unsigned cap = 1; cap <= SENDERS; cap *= 2) {
        size_t before = reader.in_len;
        s.cap = cap;
        rd_peer_write(&reader, "y", 1);
        rd_arrived(&reader, 1);
        for (int waits = 0; reader.in_len == before; waits++) {
            cr_assert_lt(waits, 24, "with %u events a turn", cap);
            seam_turn(&s, SEAM_MS(1000));
        }
    }
    s.cap = SEAM_BATCH;
    for (int i = 0; i < SENDERS; i++) {
        senders[i].send->on_event = NULL;
        rd_close(&senders[i]);
    }
    rd_close(&reader);
    seam_close(&s);
}

/* Over a unix socket each read of the peer frees space, which would be an edge if writing were watched. It is not until
 * a send has blocked, and then it is for good. */
READINESS_TEST(readiness_turns, writing_is_watched_when_a_send_blocks)
{
    enum { LEN = 64 * 1024 };
    struct seam s;
    struct rd_end e;
    struct backend_param unix_param = *p;
    uint8_t *data = calloc(1, LEN), *back = malloc(LEN);
    unix_param.transport = TRANSPORT_UNIX;
    open_with_pool(&s, &unix_param, 8);
    rd_open(&s, &e);
    rd_receive(&e, GYRE_OPF_MULTI);
    struct pollfd poller = {.fd = s.ops->pollable(s.be), .events = POLLIN};
    long ctl_calls = rd_ctl_calls;
    for (int i = 1; i <= 20; i++) {
        rd_peer_write(&e, "ping", 4);
        seam_until(&s, e.in_len == 4 * (size_t)i);
        rd_send(&e, "pong", 4);
        seam_until(&s, seam_idle(e.send));
        seam_turn(&s, 0); /* the receive that says EAGAIN */
        rd_peer_read(&e, back, 4);
        cr_assert_eq(poll(&poller, 1, 0), 0, "the peer's read woke the poller");
    }
    cr_assert_eq(rd_ctl_calls, ctl_calls);

    for (int fills = 0; fills < 3; fills++) {
        size_t sent = 0;
        for (;;) {
            rd_send(&e, data, LEN);
            seam_turn(&s, 0);
            if (!seam_idle(e.send))
                break;
            sent += (size_t)e.send->res;
        }
        cr_assert_eq(rd_ctl_calls, ctl_calls + 1);
        for (size_t n = 0; n < sent; n += LEN)
            rd_peer_read(&e, back, sent - n < LEN ? sent - n : LEN);
        seam_until(&s, seam_idle(e.send));
        cr_assert_eq(e.send->res, LEN);
        rd_peer_read(&e, back, LEN);
    }
    rd_close(&e);
    seam_close(&s);
    free(data);
    free(back);
}

static void close_accepted(struct seam *s, struct seam_op *so, const struct gyre__event *ev)
{
    (void)s;
    (void)so;
    if (ev->res >= 0)
        close(ev->res);
}

/* A listener has its turn like any other; one that finds no descriptor free keeps the connection for later. */
READINESS_TEST(readiness_turns, accepting_takes_turns_and_survives_emfile)
{
    enum { CLIENTS = 40 };
    struct seam s;
    struct gyre__fd f;
    struct gyre__addr addr;
    int clients[CLIENTS + 1];
    seam_open(&s, p);
    seam_addr(&s, &addr);
    int fd = seam_socket(&s);
    cr_assert_eq(s.ops->sock->listen(s.be, fd, &addr, &(struct gyre__listen_config){.backlog = 64}), 0);
    cr_assert_eq(s.ops->sock->name(s.be, fd, false, &addr), 0);
    seam_attach(&s, &f, fd, 0);
    for (int i = 0; i <= CLIENTS; i++) {
        clients[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (i < CLIENTS)
            cr_assert_eq(connect(clients[i], (struct sockaddr *)&addr.ss, addr.len), 0);
    }
    struct seam_op *accept_op = seam_op_new(&s);
    accept_op->on_event = close_accepted;
    seam_accept(accept_op, &f, GYRE_OPF_MULTI);
    seam_submit(&s, accept_op);
    for (unsigned had = 0; accept_op->events < CLIENTS; had = accept_op->events) {
        seam_turn(&s, SEAM_MS(1000));
        cr_assert_leq(accept_op->events - had, TURN_EVENTS);
        cr_assert_gt(accept_op->events, had);
    }

    struct rlimit limit, none;
    cr_assert_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
    cr_assert_eq(connect(clients[CLIENTS], (struct sockaddr *)&addr.ss, addr.len), 0);
    none = (struct rlimit){.rlim_cur = 3, .rlim_max = limit.rlim_max};
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &none), 0);
    seam_until(&s, seam_idle(accept_op));
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
    cr_assert_eq(accept_op->res, -EMFILE);
    seam_accept(accept_op, &f, 0);
    seam_submit(&s, accept_op);
    seam_until(&s, seam_idle(accept_op)); /* there is no new edge */
    cr_assert_geq(accept_op->res, 0);
    for (int i = 0; i <= CLIENTS; i++)
        close(clients[i]);
    seam_fd_close(&s, &f);
    seam_close(&s);
}
