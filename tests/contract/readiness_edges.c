/* SPDX-License-Identifier: MIT
 * Edges that could be missed: the end of a stream behind data, urgent data, an empty pool, cancelling and closing at
 * every stage, a descriptor number used again, a connect that is refused, waking. */
#include "readiness.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void open_one(struct seam *s, struct backend_param *p, struct rd_end *e)
{
    seam_open(s, p);
    seam_pool(s, RD_BUF, 4, 8);
    rd_open(s, e);
}

static void close_one(struct seam *s, struct rd_end *e)
{
    rd_close(e);
    seam_close(s);
}

/* The FIN comes in the segment of the data, so one edge tells of both; the short receive must not hide it. */
READINESS_TEST(readiness_edges, end_in_the_segment_of_the_data)
{
    struct seam s;
    struct rd_end e;
    int on = 1;
    open_one(&s, p, &e);
    rd_receive(&e, GYRE_OPF_MULTI);
    cr_assert_eq(setsockopt(e.peer, IPPROTO_TCP, TCP_CORK, &on, sizeof on), 0);
    rd_peer_write(&e, "last words", 10);
    rd_peer_fin(&e);
    rd_arrived(&e, 10);
    seam_until(&s, seam_idle(e.recv));
    cr_assert_eq(e.recv->events, 2);
    cr_assert_eq(e.recv->res, 0);
    cr_assert_eq(e.in_len, 10);
    cr_assert_eq(s.be->stats.calls, 2);
    close_one(&s, &e);
}

/* The FIN comes when the poller has answered for the data but they are not yet received: its edge is still to come.
 * With room for one event the first of two ends is served and the second waits its turn. */
READINESS_TEST(readiness_edges, end_between_answer_and_receive)
{
    struct seam s;
    struct rd_end e[2];
    open_one(&s, p, &e[0]);
    rd_open(&s, &e[1]);
    for (int i = 0; i < 2; i++) {
        rd_receive(&e[i], GYRE_OPF_MULTI);
        rd_peer_write(&e[i], "data", 4);
        rd_arrived(&e[i], 4);
    }
    s.cap = 1;
    cr_assert_eq(seam_turn(&s, SEAM_MS(1000)), 1);
    struct rd_end *late = e[0].in_len == 0 ? &e[0] : &e[1];
    uint64_t enters = s.be->stats.enters;
    rd_peer_fin(late);
    struct pollfd fin = {.fd = late->f.fd, .events = POLLRDHUP};
    cr_assert_eq(poll(&fin, 1, 10000), 1);
    cr_assert_eq(seam_turn(&s, SEAM_MS(1000)), 1);
    cr_assert_eq(late->in_len, 4);
    cr_assert_eq(s.be->stats.enters, enters, "the receive was to come before the poller is asked again");
    seam_until(&s, seam_idle(late->recv));
    cr_assert_eq(late->recv->res, 0);
    rd_close(&e[1]);
    close_one(&s, &e[0]);
}

/* A reset behind data is found too: what came is delivered or not, as the system has it, but the op ends. */
READINESS_TEST(readiness_edges, reset_behind_data)
{
    struct seam s;
    struct rd_end e;
    struct linger hard = {.l_onoff = 1, .l_linger = 0};
    open_one(&s, p, &e);
    rd_receive(&e, GYRE_OPF_MULTI);
    rd_peer_write(&e, "data", 4);
    rd_arrived(&e, 4);
    cr_assert_eq(setsockopt(e.peer, SOL_SOCKET, SO_LINGER, &hard, sizeof hard), 0);
    close(e.peer);
    e.peer = -1;
    seam_until(&s, seam_idle(e.recv));
    cr_assert_eq(e.recv->res, -ECONNRESET);
    close_one(&s, &e);
}

/* A receive stops short at urgent data, and goes on behind it. kqueue cannot tell, see perform.c; there the bytes come
 * with the next edge. */
READINESS_TEST(readiness_edges, bytes_behind_urgent_data)
{
    struct seam s;
    struct rd_end e;
    open_one(&s, p, &e);
    rd_receive(&e, GYRE_OPF_MULTI);
    rd_peer_write(&e, "abc", 3);
    cr_assert_eq(send(e.peer, "!", 1, MSG_OOB), 1);
    rd_peer_write(&e, "def", 3);
    rd_arrived(&e, 3);
    if (strcmp(p->backend, "kqueue") == 0) {
        seam_until(&s, e.in_len >= 3);
        rd_peer_write(&e, "g", 1);
    }
    seam_until(&s, e.in_len >= 6);
    cr_assert_eq(memcmp(e.in, "abcdef", 6), 0);
    close_one(&s, &e);
}

/* An exhausted pool ends the op before a byte is touched, and the belief in reading survives: no new edge is needed. */
READINESS_TEST(readiness_edges, exhausted_pool_loses_nothing)
{
    enum { LEN = 4 * RD_BUF };
    struct seam s;
    struct rd_end e;
    uint8_t *data = malloc(LEN);
    seam_open(&s, p);
    seam_pool(&s, RD_BUF, 2, 3);
    rd_open(&s, &e);
    env_pattern_fill(data, LEN, 3, 0);
    rd_peer_write(&e, data, LEN);
    rd_arrived(&e, LEN);
    e.keep = true;
    rd_receive(&e, GYRE_OPF_MULTI);
    seam_until(&s, seam_idle(e.recv));
    cr_assert_eq(e.recv->res, -ENOBUFS);
    cr_assert_eq(e.in_len, 3 * RD_BUF);
    cr_assert_eq(s.be->stats.enobufs, 1);
    uint64_t calls = s.be->stats.calls;
    rd_receive(&e, GYRE_OPF_MULTI);
    seam_until(&s, seam_idle(e.recv));
    cr_assert_eq(e.recv->res, -ENOBUFS);
    cr_assert_eq(s.be->stats.calls, calls);
    gyre__bufpool_release(&s.pool, e.held[--e.held_count]);
    s.held--;
    uint64_t enters = s.be->stats.enters;
    rd_receive(&e, 0);
    cr_assert_eq(seam_turn(&s, 0), 1);
    cr_assert_eq(s.be->stats.enters, enters);
    cr_assert_eq(e.in_len, LEN);
    cr_assert_eq(env_pattern_check(e.in, LEN, 3, 0), -1);
    close_one(&s, &e);
    free(data);
}

/* Receives that find nothing, the end, or an error leave no buffer behind. seam_close() counts them. */
READINESS_TEST(readiness_edges, buffers_that_brought_nothing_go_back)
{
    struct seam s;
    struct rd_end e;
    struct backend_param unix_param = *p;
    unix_param.transport = TRANSPORT_UNIX; /* here only EAGAIN ends the belief */
    open_one(&s, &unix_param, &e);
    rd_receive(&e, GYRE_OPF_MULTI);
    for (size_t i = 1; i <= 10; i++) {
        rd_peer_write(&e, "x", 1);
        seam_until(&s, e.in_len == i);
        seam_turn(&s, 0);
        cr_assert_eq(gyre__bufpool_available(&s.pool), s.pool.count_max);
    }
    cr_assert_eq(s.be->stats.calls, 20);
    rd_peer_fin(&e);
    seam_until(&s, seam_idle(e.recv));
    cr_assert_eq(e.recv->res, 0);
    cr_assert_eq(gyre__bufpool_available(&s.pool), s.pool.count_max);
    close_one(&s, &e);
}

/* Cancelled while it waits for an edge, while it stands in the run queue with data to be had, and with its last event
 * on its way: one last event each time, and no byte is lost. */
READINESS_TEST(readiness_edges, cancel_at_every_stage)
{
    struct seam s;
    struct rd_end e;
    open_one(&s, p, &e);
    rd_receive(&e, GYRE_OPF_MULTI);
    seam_turn(&s, 0);
    seam_cancel(&s, e.recv);
    cr_assert_eq(seam_turn(&s, 0), 1);
    cr_assert_eq(e.recv->res, -ECANCELED);

    rd_peer_write(&e, "one", 3);
    rd_arrived(&e, 3);
    seam_turn(&s, 0); /* the belief is there, no op */
    rd_receive(&e, GYRE_OPF_MULTI);
    seam_cancel(&s, e.recv);
    cr_assert_eq(seam_turn(&s, 0), 1);
    cr_assert_eq(e.recv->res, -ECANCELED);
    cr_assert_eq(e.in_len, 0);

    rd_receive(&e, 0);
    struct gyre__event ev;
    cr_assert_eq(s.ops->wait(s.be, &ev, 1, 0), 1); /* taken by hand: dispatched after the cancel */
    cr_assert_eq(ev.op, &e.recv->op);
    s.ops->cancel(s.be, &e.recv->op);
    cr_assert_eq(s.ops->wait(s.be, &(struct gyre__event){.res = 0}, 1, 0), 0, "a second last event");
    cr_assert_eq(ev.res, 3);
    gyre__bufpool_untake(&s.pool, ev.buf);
    e.recv->op.state = GYRE_OPS_IDLE;
    e.recv->lasts++;
    e.f.inflight--;
    s.inflight--;
    close_one(&s, &e);
}

/* Several ops of one direction are served in order, and any of them can be cancelled. */
READINESS_TEST(readiness_edges, ops_of_one_direction_queue)
{
    struct seam s;
    struct rd_end e;
    char in[4][8];
    struct seam_op *ops[4];
    open_one(&s, p, &e);
    for (int i = 0; i < 4; i++) {
        ops[i] = seam_op_new(&s);
        seam_recv(ops[i], &e.f, in[i], 2);
        seam_submit(&s, ops[i]);
    }
    seam_cancel(&s, ops[3]);
    seam_cancel(&s, ops[1]);
    seam_until(&s, seam_idle(ops[1]) && seam_idle(ops[3]));
    cr_assert(ops[1]->res == -ECANCELED && ops[3]->res == -ECANCELED);
    rd_peer_write(&e, "abcd", 4);
    seam_until(&s, seam_idle(ops[0]) && seam_idle(ops[2]));
    cr_assert(memcmp(in[0], "ab", 2) == 0 && memcmp(in[2], "cd", 2) == 0);
    seam_recv(ops[1], &e.f, in[1], 2);
    seam_submit(&s, ops[1]);
    rd_peer_write(&e, "ef", 2);
    seam_until(&s, seam_idle(ops[1]));
    cr_assert_eq(memcmp(in[1], "ef", 2), 0);
    close_one(&s, &e);
}

/* Descriptors are closed while they stand in the run queue, from its front, its middle and its back; the queue goes on
 * with the others. */
READINESS_TEST(readiness_edges, close_in_the_run_queue)
{
    enum { ENDS = 8, LATE = 7 };
    static const int closed[] = {0, 3, 6, 2};
    struct seam s;
    struct rd_end e[ENDS];
    seam_open(&s, p);
    seam_pool(&s, RD_BUF, 8, 16);
    for (int i = 0; i < ENDS; i++) {
        rd_open(&s, &e[i]);
        rd_peer_write(&e[i], "data", 4);
        rd_arrived(&e[i], 4);
    }
    seam_turn(&s, 0); /* all believed readable */
    for (int i = 0; i < LATE; i++)
        rd_receive(&e[i], GYRE_OPF_MULTI);
    s.cap = 1; /* the cancelled come first and fill each turn, so nothing is run before the close */
    for (unsigned i = 0; i < 4; i++)
        rd_close(&e[closed[i]]);
    s.cap = SEAM_BATCH;
    rd_receive(&e[LATE], GYRE_OPF_MULTI); /* behind what has become the last */
    seam_until(&s, e[1].in_len + e[4].in_len + e[5].in_len + e[LATE].in_len == 16);
    for (int i = 0; i < ENDS; i++)
        if (i == 1 || i == 4 || i == 5 || i == LATE)
            rd_close(&e[i]);
    seam_close(&s);
}

/* A descriptor with the number of one that was closed inherits nothing of it: no belief, no watch, no answer that was
 * on its way. */
READINESS_TEST(readiness_edges, descriptor_number_used_again)
{
    enum { LEN = 512 * 1024 };
    struct seam s;
    struct rd_end old, new, anchor;
    uint8_t *data = calloc(1, LEN);
    open_one(&s, p, &anchor);
    for (int i = 0; i < 50; i++) {
        rd_open(&s, &old);
        rd_receive(&old, GYRE_OPF_MULTI);
        do { /* until it blocks, so that writing is watched as well */
            rd_send(&old, data, LEN);
            seam_turn(&s, 0);
        } while (seam_idle(old.send));
        rd_peer_write(&old, "stale", 5);
        rd_arrived(&old, 5);
        int number = old.f.fd;
        seam_cancel(&s, old.recv);
        seam_cancel(&s, old.send);
        s.cap = 1; /* the answer about `old` is not taken before it is closed */
        seam_until(&s, seam_idle(old.recv) && seam_idle(old.send));
        s.cap = SEAM_BATCH;
        rd_close(&old);
        rd_open(&s, &new);
        cr_assert_eq(new.f.fd, number);
        rd_receive(&new, GYRE_OPF_MULTI);
        uint64_t calls = s.be->stats.calls;
        cr_assert_eq(seam_turn(&s, 0), 0);
        cr_assert_eq(s.be->stats.calls, calls, "a call for a belief that is not its own");
        rd_peer_write(&new, "fresh", 5);
        seam_until(&s, new.in_len == 5);
        cr_assert_eq(memcmp(new.in, "fresh", 5), 0);
        rd_close(&new);
    }
    close_one(&s, &anchor);
    free(data);
}

/* A unix listener whose backlog is full: no edge would ever come, so the result is -EAGAIN, and not a hang. */
READINESS_TEST(readiness_edges, full_backlog_ends_a_unix_connect)
{
    struct seam s;
    struct gyre__fd f;
    struct gyre__addr addr;
    struct backend_param unix_param = *p;
    int taken[8], count = 0;
    unix_param.transport = TRANSPORT_ABSTRACT;
    seam_open(&s, &unix_param);
    seam_addr(&s, &addr);
    int listener = seam_socket(&s);
    cr_assert_eq(s.ops->sock->listen(s.be, listener, &addr, &(struct gyre__listen_config){.backlog = 1}), 0);
    do {
        cr_assert_lt(count, 8);
        taken[count] = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    } while (connect(taken[count++], (struct sockaddr *)&addr.ss, addr.len) == 0);
    cr_assert_eq(errno, EAGAIN);
    seam_attach(&s, &f, seam_socket(&s), 0);
    struct seam_op *op = seam_op_new(&s);
    seam_connect(op, &f, &addr);
    seam_submit(&s, op);
    seam_until(&s, seam_idle(op));
    cr_assert_eq(op->res, -EAGAIN);
    close(accept(listener, NULL, NULL)); /* room: now it succeeds, on the same descriptor */
    seam_connect(op, &f, &addr);
    seam_submit(&s, op);
    seam_until(&s, seam_idle(op));
    cr_assert_eq(op->res, 0);
    seam_fd_close(&s, &f);
    while (count > 0)
        close(taken[--count]);
    close(listener);
    seam_close(&s);
}

/* A socket that was never connected polls as hung up. That must neither end its connect early nor stay with the
 * connection, which would then pay a call too many for each receive. */
READINESS_TEST(readiness_edges, hang_up_before_the_connect_is_forgotten)
{
    struct seam s;
    struct gyre__fd f;
    struct gyre__addr addr;
    char in[16];
    seam_open(&s, p);
    seam_addr(&s, &addr);
    int listener = seam_socket(&s);
    cr_assert_eq(s.ops->sock->listen(s.be, listener, &addr, &(struct gyre__listen_config){.backlog = 1}), 0);
    cr_assert_eq(s.ops->sock->name(s.be, listener, false, &addr), 0);
    seam_attach(&s, &f, seam_socket(&s), GYRE_FDF_INET);
    seam_turn(&s, 0); /* takes the answer about the unconnected socket, if there is one */
    struct seam_op *op = seam_op_new(&s);
    seam_connect(op, &f, &addr);
    seam_submit(&s, op);
    seam_until(&s, seam_idle(op));
    cr_assert_eq(op->res, 0);
    int peer = accept(listener, NULL, NULL);
    cr_assert_geq(peer, 0);
    seam_until(&s, seam_turn(&s, 0) == 0);
    uint64_t calls = s.be->stats.calls;
    for (unsigned i = 1; i <= 10; i++) {
        seam_recv(op, &f, in, sizeof in);
        seam_submit(&s, op);
        seam_turn(&s, 0); /* believed readable, it would make a call here */
        cr_assert_eq(write(peer, "x", 1), 1);
        seam_until(&s, seam_idle(op));
        cr_assert_eq(op->res, 1);
    }
    cr_assert_leq(s.be->stats.calls - calls, 11); /* the first may follow an edge of the connect */
    close(peer);
    close(listener);
    seam_fd_close(&s, &f);
    seam_close(&s);
}

/* A connect begins with no belief in reading, for what was seen before was not about the connection: a receive after it
 * makes no call until bytes come. If it fails, a receive that waits fails, too, though no edge tells of it. */
READINESS_TEST(readiness_edges, connect_and_the_belief_in_reading)
{
    struct seam s;
    struct gyre__addr addr;
    struct gyre__fd f;
    char in[4];
    p->transport = TRANSPORT_UNIX;
    seam_open(&s, p);
    seam_addr(&s, &addr);
    struct seam_op *connect = seam_op_new(&s), *recv = seam_op_new(&s);
    seam_attach(&s, &f, seam_socket(&s), 0);
    seam_connect(connect, &f, &addr);
    seam_recv(recv, &f, in, sizeof in);
    seam_submit(&s, connect);
    seam_submit(&s, recv);
    seam_until(&s, seam_idle(connect));
    cr_assert_eq(connect->res, -ENOENT, "%d", connect->res);
    seam_until(&s, seam_idle(recv));
    cr_assert_lt(recv->res, 0);
    seam_fd_close(&s, &f);

    int listener = seam_socket(&s);
    cr_assert_eq(s.ops->sock->listen(s.be, listener, &addr, &(struct gyre__listen_config){.backlog = 1}), 0);
    seam_attach(&s, &f, seam_socket(&s), 0);
    seam_connect(connect, &f, &addr);
    seam_submit(&s, connect);
    seam_until(&s, seam_idle(connect));
    cr_assert_eq(connect->res, 0);
    int peer = accept(listener, NULL, NULL);
    cr_assert_geq(peer, 0);
    uint64_t calls = s.be->stats.calls;
    seam_recv(recv, &f, in, sizeof in);
    seam_submit(&s, recv);
    seam_turn(&s, 0);
    cr_assert_eq(s.be->stats.calls, calls, "a call though nothing has come");
    cr_assert_eq(write(peer, "x", 1), 1);
    seam_until(&s, seam_idle(recv));
    cr_assert_eq(recv->res, 1);
    close(peer);
    close(listener);
    seam_fd_close(&s, &f);
    seam_close(&s);
}

static void *wake_often(void *arg)
{
    struct seam *s = arg;
    for (int i = 0; i < 1000; i++)
        s->ops->wake(s->be);
    return NULL;
}

/* Wakes that come together are one; one that comes after is another, and none gets lost. */
READINESS_TEST(readiness_edges, wakes_are_joined_and_never_lost)
{
    struct seam s;
    pthread_t threads[2];
    seam_open(&s, p);
    for (int i = 0; i < 2; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, wake_often, &s), 0);
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    uint64_t begin_ns = env_now_ns();
    cr_assert_eq(seam_turn(&s, SEAM_MS(20000)), 0);
    cr_assert_eq(s.be->stats.wakes, 1);
    s.ops->wake(s.be);
    cr_assert_eq(seam_turn(&s, SEAM_MS(20000)), 0);
    cr_assert_eq(s.be->stats.wakes, 2);
    cr_assert_lt(env_now_ns() - begin_ns, (uint64_t)SEAM_MS(20000));
    begin_ns = env_now_ns();
    cr_assert_eq(seam_turn(&s, 2500000), 0); /* nothing is left over, and a time-out is never early */
    cr_assert_geq(env_now_ns() - begin_ns, 2500000);
    cr_assert_eq(s.be->stats.wakes, 2);
    seam_close(&s);
}

static struct seam *signalled;

static void on_signal(int signo)
{
    (void)signo;
    signalled->ops->wake(signalled->be);
}

/* wake() from a signal handler, at any moment of the loop. */
READINESS_TEST(readiness_edges, wake_from_a_signal_handler)
{
    struct seam s;
    struct rd_end e;
    timer_t timer;
    struct sigevent how = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
    struct itimerspec every = {.it_interval.tv_nsec = 100000, .it_value.tv_nsec = 100000};
    open_one(&s, p, &e);
    signalled = &s;
    signal(SIGUSR1, on_signal);
    cr_assert_eq(timer_create(CLOCK_MONOTONIC, &how, &timer), 0);
    cr_assert_eq(timer_settime(timer, 0, &every, NULL), 0);
    rd_receive(&e, GYRE_OPF_MULTI);
    for (size_t i = 1; i <= 200 || s.be->stats.wakes < 50; i++) {
        rd_peer_write(&e, "x", 1);
        seam_until(&s, e.in_len == i);
    }
    timer_delete(timer);
    signal(SIGUSR1, SIG_IGN);
    close_one(&s, &e);
}
