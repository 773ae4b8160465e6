/* SPDX-License-Identifier: MIT
 * What only io_uring can get wrong: queues that are full, completions that overflow or come too late, buffers that are
 * posted ahead, rings that belong to a thread. io_uring.md calls these traps; each has its test here. */
#ifdef __linux__
#include "reactor/backends.h"
#include "stream.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { PAIRS = 64 };

static void open_uring(struct seam *s, enum transport transport, struct gyre__backend_config cfg)
{
    struct backend_param p = {.backend = "io_uring", .transport = transport};
    if (gyre__backend_find(p.backend) == NULL)
        cr_skip_test("io_uring is not compiled in");
    if (cfg.ops_max == 0)
        cfg.ops_max = 256;
    seam_open_config(s, &p, cfg);
}

/* A connected pair made without the backend, both ends attached. */
static void raw_pair(struct seam *s, struct gyre__fd *a, struct gyre__fd *b)
{
    int pair[2];
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    seam_attach(s, a, pair[0], 0);
    seam_attach(s, b, pair[1], 0);
}

/* A completion ring of four and sixty-four sockets: it overflows, and not a byte is lost. */
Test(uring_traps, overflow_loses_nothing, .timeout = 60)
{
    struct seam s;
    struct stream a[PAIRS], b[PAIRS];
    open_uring(&s, TRANSPORT_TCP4, (struct gyre__backend_config){.cq_entries = 4});
    seam_pool(&s, 512, 128, 256);
    for (unsigned i = 0; i < PAIRS; i++) {
        stream_pair(&s, &a[i], &b[i], 2 * i);
        stream_receive(&b[i], GYRE_OPF_POOL | GYRE_OPF_MULTI);
    }
    for (unsigned i = 0; i < PAIRS; i++)
        stream_send(&a[i], 20000 + i);
    for (unsigned i = 0; i < PAIRS; i++)
        seam_until(&s, b[i].got == 20000 + i);
    cr_assert_gt(s.be->stats.overflows, 0, "a ring of four did not overflow");
    cr_assert_eq(s.be->stats.stale, 0);
    for (unsigned i = 0; i < PAIRS; i++) {
        stream_close(&a[i]);
        stream_close(&b[i]);
    }
    seam_close(&s);
}

/* Two buffers and a hundred writers: every byte comes, and the number of enters stays in proportion to the buffers
 * filled, which it would not if starved receives were tried again and again. */
Test(uring_traps, two_buffers_hundred_writers, .timeout = 60)
{
    enum { WRITERS = 100, BYTES = 3000, SIZE = 256 };
    struct seam s;
    struct stream a[WRITERS], b[WRITERS];
    open_uring(&s, TRANSPORT_UNIX, (struct gyre__backend_config){.ops_max = 256});
    seam_pool(&s, SIZE, 2, 2);
    for (unsigned i = 0; i < WRITERS; i++) {
        stream_pair(&s, &a[i], &b[i], 2 * i);
        stream_send(&a[i], BYTES);
    }
    uint64_t before = s.be->stats.enters;
    for (unsigned i = 0; i < WRITERS; i++)
        stream_receive(&b[i], GYRE_OPF_POOL | GYRE_OPF_MULTI);
    for (unsigned i = 0; i < WRITERS; i++)
        seam_until(&s, b[i].got == BYTES);
    uint64_t enters = s.be->stats.enters - before;
    uint64_t fills = WRITERS * ((BYTES + SIZE - 1) / SIZE);
    cr_assert_gt(s.be->stats.enobufs, 0);
    cr_assert_leq(enters, 2 * fills + 100, "%llu enters to fill %llu buffers", (unsigned long long)enters,
                  (unsigned long long)fills);
    for (unsigned i = 0; i < WRITERS; i++) {
        stream_close(&a[i]);
        stream_close(&b[i]);
    }
    seam_close(&s);
}

/* How many buffers the backend has: all there are that are neither free nor with receivers. */
static unsigned posted(const struct seam *s)
{
    return (unsigned)(s->pool.count - s->pool.nfree) - s->held;
}

/* More are posted when there were too few, and fewer again when that is long ago. (What is posted can only be used up,
 * and streams that receive by calls of our own do not.) */
Test(uring_traps, posted_buffers_grow_and_sink, .timeout = 60)
{
    struct seam s;
    struct stream a[PAIRS], b[PAIRS];
    open_uring(&s, TRANSPORT_UNIX, (struct gyre__backend_config){.ops_max = 256, .off = "direct"});
    if (!seam_uses(&s, "multishot_recv"))
        cr_skip_test("without multishot receive no buffer is posted");
    seam_pool(&s, 64, 4, 64);
    for (unsigned i = 0; i < PAIRS; i++) {
        stream_pair(&s, &a[i], &b[i], 2 * i);
        stream_receive(&b[i], GYRE_OPF_POOL | GYRE_OPF_MULTI);
    }
    (void)seam_turn(&s, 0);
    cr_assert_eq(posted(&s), 4, "%u buffers are posted at first", posted(&s));
    for (unsigned i = 0; i < PAIRS; i++)
        stream_send(&a[i], 64 * 20);
    for (unsigned i = 0; i < PAIRS; i++)
        seam_until(&s, b[i].got == a[i].send_goal);
    cr_assert_gt(s.be->stats.enobufs, 0);
    (void)seam_turn(&s, 0);
    unsigned most = posted(&s);
    cr_assert_gt(most, 4, "a burst found 4 buffers and more were not posted");
    for (unsigned round = 0; round < 60000 && posted(&s) > 4; round++) {
        stream_send(&a[0], 64);
        seam_until(&s, b[0].got == a[0].send_goal);
    }
    cr_assert_eq(posted(&s), 4, "long after the burst %u buffers are posted, %u at most", posted(&s), most);
    for (unsigned i = 0; i < PAIRS; i++) {
        stream_close(&a[i]);
        stream_close(&b[i]);
    }
    seam_close(&s);
}

static void raw_submit(struct seam *s, struct gyre__op *op)
{
    op->state = GYRE_OPS_INFLIGHT;
    s->ops->submit(s->be, op);
}

/* A multishot receive whose op was given up: what it brings is counted, its buffer goes back, nothing is dispatched,
 * and the request is ended so that it eats no more. */
Test(uring_traps, stale_receive_is_counted_and_recycled, .timeout = 20)
{
    struct seam s;
    struct gyre__fd a, b;
    struct gyre__op op = {.kind = GYRE_OP_RECV, .flags = GYRE_OPF_MULTI | GYRE_OPF_POOL};
    open_uring(&s, TRANSPORT_UNIX, (struct gyre__backend_config){.ops_max = 256});
    seam_pool(&s, 64, 1, 1);
    raw_pair(&s, &a, &b);
    op.f = &b;
    op.u.recv.pool = &s.pool;
    raw_submit(&s, &op);
    cr_assert_eq(seam_turn(&s, 0), 0);
    op.gen++; /* given up: this is what a reuse of the memory looks like */
    cr_assert_eq(send(a.fd, "stale", 5, 0), 5);
    const unsigned count = 2; /* the bytes or the poll that tells of them, and the end of the request */
    for (int i = 0; i < 100 && s.be->stats.stale < count; i++)
        cr_assert_eq(seam_turn(&s, SEAM_MS(10)), 0, "a stale completion became an event");
    cr_assert_eq(s.be->stats.stale, count, "%llu stale completions", (unsigned long long)s.be->stats.stale);
    cr_assert_eq(send(a.fd, "more", 4, 0), 4);
    cr_assert_eq(seam_turn(&s, SEAM_MS(20)), 0);
    cr_assert_eq(s.be->stats.stale, count, "a receive that was given up goes on receiving");
    struct seam_op *so = seam_op_new(&s);
    seam_recv_pool(so, &b, &s.pool, GYRE_OPF_MULTI);
    seam_submit(&s, so);
    seam_until(&s, so->events > 0);
    int left = seam_uses(&s, "multishot_recv") ? 4 : 9; /* a poll takes nothing */
    cr_assert_eq(so->res, left, "the only buffer went with the stale completion: %d", so->res);
    if (!seam_idle(so))
        seam_cancel(&s, so);
    seam_until(&s, seam_idle(so));
    seam_fd_close(&s, &a);
    seam_fd_close(&s, &b);
    seam_close(&s);
}

/* A stale accept's descriptor is closed; a stale send's count of bytes is not taken for a descriptor. */
Test(uring_traps, stale_accept_closes_its_descriptor, .timeout = 20)
{
    struct seam s;
    struct gyre__addr addr;
    struct gyre__fd listener, client, a, b;
    struct gyre__op accept_op = {.kind = GYRE_OP_ACCEPT, .f = &listener}, send_op = {.kind = GYRE_OP_SEND, .f = &a};
    open_uring(&s, TRANSPORT_TCP4, (struct gyre__backend_config){.ops_max = 256});
    seam_addr(&s, &addr);
    seam_attach(&s, &listener, seam_socket(&s), 0);
    cr_assert_eq(s.ops->sock->listen(s.be, listener.fd, &addr, &(struct gyre__listen_config){.backlog = 8}), 0);
    cr_assert_eq(s.ops->sock->name(s.be, listener.fd, false, &addr), 0);
    seam_attach(&s, &client, seam_socket(&s), 0);
    raw_pair(&s, &a, &b);
    raw_submit(&s, &accept_op);
    accept_op.gen++;
    send_op.u.send.buf = "0123456789012345678901234567890123456789";
    send_op.u.send.len = (uint32_t)b.fd; /* its result is the number of an open descriptor */
    raw_submit(&s, &send_op);
    send_op.gen++;
    cr_assert_eq(seam_turn(&s, 0), 0);
    int before = env_fd_count();
    cr_assert_eq(connect(client.fd, (struct sockaddr *)&addr.ss, addr.len), 0);
    for (int i = 0; i < 100 && s.be->stats.stale < 2; i++)
        cr_assert_eq(seam_turn(&s, SEAM_MS(10)), 0);
    cr_assert_eq(s.be->stats.stale, 2);
    cr_assert_eq(env_fd_count(), before, "%d descriptors before, %d after", before, env_fd_count());
    seam_fd_close(&s, &a);
    seam_fd_close(&s, &b);
    seam_fd_close(&s, &client);
    seam_fd_close(&s, &listener);
    seam_close(&s);
}

/* Ten thousand sends submitted before one wait, by a ring that is not enabled yet and by one that is; every third is
 * cancelled at once. Each has its last event, and the bytes sent are those received. */
Test(uring_traps, submission_ring_full, .timeout = 60)
{
    enum { OPS = 10000 };
    struct seam s;
    struct gyre__fd a[PAIRS], b[PAIRS];
    struct seam_op *ops[OPS];
    char sink[4096];
    open_uring(&s, TRANSPORT_UNIX, (struct gyre__backend_config){.ops_max = 16384});
    for (unsigned i = 0; i < PAIRS; i++)
        raw_pair(&s, &a[i], &b[i]);
    for (unsigned i = 0; i < OPS; i++)
        ops[i] = seam_op_new(&s);
    for (int round = 0; round < 2; round++) {
        int64_t sent = 0, got = 0;
        for (unsigned i = 0; i < OPS; i++) {
            seam_send(ops[i], &a[i % PAIRS], "x", 1);
            seam_submit(&s, ops[i]);
            if (i % 3 == 0)
                seam_cancel(&s, ops[i]);
        }
        seam_until(&s, s.inflight == 0);
        for (unsigned i = 0; i < OPS; i++) {
            cr_assert(ops[i]->res == 1 || (i % 3 == 0 && ops[i]->res == -ECANCELED), "op %u: %d", i, ops[i]->res);
            sent += ops[i]->res > 0;
        }
        for (unsigned i = 0; i < PAIRS; i++)
            for (ssize_t n; (n = recv(b[i].fd, sink, sizeof sink, MSG_DONTWAIT)) > 0;)
                got += n;
        cr_assert_eq(sent, got, "%lld bytes sent, %lld received", (long long)sent, (long long)got);
    }
    for (unsigned i = 0; i < PAIRS; i++) {
        seam_fd_close(&s, &a[i]);
        seam_fd_close(&s, &b[i]);
    }
    seam_close(&s);
}

/* Make every io_uring_enter that only submits fail with -EAGAIN, as when the kernel has no memory for requests. */
static void refuse_plain_submits(void)
{
    const unsigned flags_at = offsetof(struct seccomp_data, args[3]);
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_enter, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, flags_at),
        BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, 1 /* IORING_ENTER_GETEVENTS */, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EAGAIN),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = sizeof code / sizeof code[0], .filter = code};
    cr_assert_eq(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
    cr_assert_eq(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), 0);
}

/* The first life of a receive ended with its byte: begin another at once, which nobody cancels. */
static void live_again(struct seam *s, struct seam_op *so, const struct gyre__event *ev)
{
    unsigned *lives = so->user;
    if (ev->res != 1 || (*lives)++ > 0)
        return;
    seam_recv(so, so->op.f, so->op.u.recv.buf, 1);
    seam_submit(s, so);
}

/* A ring of four entries that cannot be flushed: receives and their cancels wait in lists, and some receives end while
 * their cancel still waits. One last event each, no byte lost, and no cancel left over for the op's next life. */
Test(uring_traps, cancel_with_full_ring_that_cannot_flush, .timeout = 60)
{
    enum { OPS = 40 };
    struct seam s;
    struct gyre__fd a[OPS], b[OPS];
    struct seam_op *ops[OPS];
    unsigned lives[OPS], second = 0;
    char bufs[OPS];
    open_uring(&s, TRANSPORT_UNIX, (struct gyre__backend_config){.sq_entries = 4});
    for (unsigned i = 0; i < OPS; i++) {
        raw_pair(&s, &a[i], &b[i]);
        ops[i] = seam_op_new(&s);
        ops[i]->on_event = live_again;
        ops[i]->user = &lives[i];
    }
    (void)seam_turn(&s, 0);
    refuse_plain_submits();
    for (unsigned round = 0; round < 30; round++) {
        memset(lives, 0, sizeof lives);
        for (unsigned i = 0; i < OPS; i++) {
            if ((i + round) % 3 == 0) /* this one ends at once */
                cr_assert_eq(send(a[i].fd, "y", 1, 0), 1);
            seam_recv(ops[i], &b[i], &bufs[i], 1);
            seam_submit(&s, ops[i]);
        }
        for (unsigned i = 0; i < OPS; i++)
            seam_cancel(&s, ops[(i * 7) % OPS]);
        unsigned living = OPS;
        while (living > 0) { /* until all are idle or in their second life */
            (void)seam_turn(&s, SEAM_MS(1));
            living = 0;
            for (unsigned i = 0; i < OPS; i++)
                living += !seam_idle(ops[i]) && lives[i] == 0;
        }
        for (int i = 0; i < 10; i++) /* time for a cancel that is left over */
            (void)seam_turn(&s, 0);
        for (unsigned i = 0; i < OPS; i++) {
            second += lives[i];
            bool pending = (i + round) % 3 == 0 && lives[i] == 0;
            cr_assert_eq(recv(b[i].fd, &bufs[i], 1, MSG_DONTWAIT), pending ? 1 : -1, "a byte is lost or doubled");
            if (lives[i] > 0)
                cr_assert_eq(send(a[i].fd, "z", 1, 0), 1);
        }
        seam_until(&s, s.inflight == 0);
        for (unsigned i = 0; i < OPS; i++)
            cr_assert_eq(ops[i]->res, lives[i] > 0 ? 1 : -ECANCELED);
    }
    cr_assert_gt(second, 0, "no receive ended while its cancel waited");
    for (unsigned i = 0; i < OPS; i++) {
        seam_fd_close(&s, &a[i]);
        seam_fd_close(&s, &b[i]);
    }
    seam_close(&s);
}

/* A send and a splice that were made at once, cancelled before their events leave, while there is no room for a cancel:
 * no cancel is left over for the op's next life, and what waits behind it in a list is not lost. */
Test(uring_traps, made_at_once_and_cancelled_with_a_full_ring, .timeout = 20)
{
    enum { PAIRS_HERE = 8, BULK_BYTES = 32768 };
    static const char data[BULK_BYTES];
    struct seam s;
    struct gyre__fd a[PAIRS_HERE], b[PAIRS_HERE];
    struct seam_op *ops[PAIRS_HERE];
    char bufs[PAIRS_HERE];
    open_uring(&s, TRANSPORT_UNIX, (struct gyre__backend_config){.sq_entries = 4});
    seam_pool(&s, 1024, 2, 2);
    seam_pipes(&s, 1);
    for (unsigned i = 0; i < PAIRS_HERE; i++) {
        raw_pair(&s, &a[i], &b[i]);
        ops[i] = seam_op_new(&s);
    }
    (void)seam_turn(&s, 0);
    (void)seam_turn(&s, 0);
    refuse_plain_submits();
    for (unsigned splice = 0; splice < 2; splice++) {
        const struct gyre__pipe *pipe = &s.pool.pipes[0];
        cr_assert(!splice || write(pipe->write_fd, data, 1000) == 1000);
        if (splice)
            seam_splice(ops[0], &a[0], pipe, 1000);
        else
            seam_send(ops[0], &a[0], data, BULK_BYTES);
        seam_submit(&s, ops[0]);
        for (unsigned i = 1; i < 5; i++) {
            seam_recv(ops[i], &b[i], &bufs[i], 1);
            seam_submit(&s, ops[i]);
        }
        seam_cancel(&s, ops[0]);
        seam_until(&s, seam_idle(ops[0]));
        cr_assert_eq(ops[0]->res, splice ? 1000 : BULK_BYTES);
        cr_assert_null(ops[0]->op.next, "it is the owner's again, and still in a list of the backend's");
        seam_recv(ops[0], &a[0], &bufs[0], 1); /* its next life, and others behind it */
        seam_submit(&s, ops[0]);
        for (unsigned i = 5; i < PAIRS_HERE; i++) {
            seam_recv(ops[i], &b[i], &bufs[i], 1);
            seam_submit(&s, ops[i]);
        }
        for (unsigned i = 0; i < PAIRS_HERE; i++)
            cr_assert_eq(send(i == 0 ? b[0].fd : a[i].fd, "x", 1, 0), 1);
        for (unsigned i = 0; i < PAIRS_HERE; i++)
            seam_until(&s, seam_idle(ops[i]) && ops[i]->res == 1);
    }
    for (unsigned i = 0; i < PAIRS_HERE; i++) {
        seam_fd_close(&s, &a[i]);
        seam_fd_close(&s, &b[i]);
    }
    seam_close(&s);
}

/* A thread has sixteen places for registered rings: each destroyed ring gives its own back. */
Test(uring_traps, registered_rings_are_given_back, .timeout = 20)
{
    char first[384], features[384];
    for (int i = 0; i < 40; i++) {
        struct seam s;
        open_uring(&s, TRANSPORT_UNIX, (struct gyre__backend_config){.ops_max = 256});
        (void)seam_turn(&s, 0);
        s.ops->features(s.be, features, sizeof features);
        if (i == 0)
            memcpy(first, features, sizeof first);
        cr_assert_str_eq(features, first, "ring %d has %s, the first had %s", i, features, first);
        seam_close(&s);
    }
}

static void *exchange_on_thread(void *arg)
{
    struct seam *s = arg;
    struct stream a, b;
    stream_pair(s, &a, &b, 1);
    stream_receive(&b, GYRE_OPF_POOL | GYRE_OPF_MULTI);
    stream_send(&a, 100000);
    seam_until(s, b.got == 100000);
    stream_close(&a);
    stream_close(&b);
    return NULL;
}

/* Created, with pool and a submission, by one thread; used by another; destroyed by the first when the other has ended.
 */
Test(uring_traps, created_here_used_there, .timeout = 20)
{
    struct seam s;
    struct gyre__fd a, b;
    pthread_t thread;
    char byte = 0;
    open_uring(&s, TRANSPORT_TCP4, (struct gyre__backend_config){.ops_max = 256});
    seam_pool(&s, 1024, 8, 16);
    raw_pair(&s, &a, &b);
    struct seam_op *so = seam_op_new(&s);
    seam_recv(so, &b, &byte, 1);
    seam_submit(&s, so);
    cr_assert_eq(send(a.fd, "z", 1, 0), 1);
    cr_assert_eq(pthread_create(&thread, NULL, exchange_on_thread, &s), 0);
    cr_assert_eq(pthread_join(thread, NULL), 0);
    cr_assert(seam_idle(so) && byte == 'z');
    seam_fd_close(&s, &a);
    seam_fd_close(&s, &b);
    /* Its thread being gone, nobody may wait any more: destroy at once. */
    s.ops->pool_remove(s.be, &s.pool);
    cr_assert_eq(posted(&s), 0);
    s.ops->destroy(s.be);
    cr_assert_eq(env_fd_count(), s.fds_before);
    gyre__bufpool_fini(&s.pool);
    cr_assert_eq(atomic_load(&s.mem.blocks), 0);
    env_dir_remove(s.dir);
    while (s.made != NULL) {
        struct seam_op *next = s.made->next_made;
        free(s.made);
        s.made = next;
    }
}
#endif
