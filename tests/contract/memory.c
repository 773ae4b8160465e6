/* SPDX-License-Identifier: MIT
 * Promises 4 and 7: what an op points to is the backend's until the last event, and not a moment longer. The kernel's
 * writes pass unseen by AddressSanitizer, so buffers carry rubbish that is looked at again. */
#include "stream.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { ROOM = 512, MARK = 0x5a };

static bool untouched(const uint8_t *buf, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (buf[i] != MARK)
            return false;
    return true;
}

/* After its last event a receive writes no more, though more bytes have come. */
TRANSPORT_TEST(memory, receive_buffer_is_free_after_the_last_event)
{
    struct seam s;
    struct stream a, b;
    uint8_t buf[ROOM / 8];
    seam_open(&s, p);
    struct seam_op *so = seam_op_new(&s);
    for (int round = 0; round < 20; round++) {
        stream_pair(&s, &a, &b, 1);
        seam_recv(so, &b.f, buf, sizeof buf);
        seam_submit(&s, so);
        stream_send(&a, 2 * sizeof buf);
        seam_until(&s, seam_idle(so) && seam_idle(a.send));
        cr_assert_gt(so->res, 0);
        memset(buf, MARK, sizeof buf);
        stream_send(&a, 2 * sizeof buf);
        seam_until(&s, seam_idle(a.send));
        for (int i = 0; i < 5; i++)
            seam_look(&s);
        cr_assert(untouched(buf, sizeof buf), "the buffer was written to after the last event");
        stream_close(&a);
        stream_close(&b);
    }
    seam_close(&s);
}

/* Nor does one that was cancelled; the bytes that came meanwhile are there for the next. */
TRANSPORT_TEST(memory, cancelled_receive_buffer_is_free_after_the_last_event)
{
    struct seam s;
    struct stream a, b;
    uint8_t buf[ROOM];
    seam_open(&s, p);
    stream_pair(&s, &a, &b, 1);
    struct seam_op *so = seam_op_new(&s);
    for (int round = 0; round < 20; round++) {
        seam_recv(so, &b.f, buf, sizeof buf);
        seam_submit(&s, so);
        if (round % 2)
            seam_look(&s);
        seam_cancel(&s, so);
        seam_until(&s, seam_idle(so));
        cr_assert_eq(so->res, -ECANCELED);
        memset(buf, MARK, sizeof buf);
        stream_send(&a, ROOM / 2);
        seam_until(&s, seam_idle(a.send));
        for (int i = 0; i < 5; i++)
            seam_look(&s);
        cr_assert(untouched(buf, sizeof buf), "the buffer of a cancelled receive was written to");
        stream_receive(&b, 0);
        seam_until(&s, b.got == a.sent);
        stream_pause(&b);
        seam_until(&s, seam_idle(b.recv));
    }
    stream_close(&a);
    stream_close(&b);
    seam_close(&s);
}

static void free_user(struct seam *s, struct seam_op *so, const struct gyre__event *ev)
{
    (void)s;
    (void)ev;
    free(so->user);
    so->user = NULL;
}

/* Buffers are freed in the very callback of the last event. */
TRANSPORT_TEST(memory, buffers_may_be_freed_in_the_callback)
{
    enum { SIZE = 20000 };
    struct seam s;
    struct stream a, b;
    seam_open(&s, p);
    stream_pair(&s, &a, &b, 1);
    struct seam_op *send = seam_op_new(&s), *recv = seam_op_new(&s);
    send->on_event = recv->on_event = free_user;
    for (int round = 0; round < 100; round++) {
        send->user = calloc(1, SIZE);
        recv->user = calloc(1, SIZE);
        cr_assert(send->user != NULL && recv->user != NULL);
        seam_recv(recv, &b.f, recv->user, SIZE);
        seam_send(send, &a.f, send->user, SIZE);
        seam_submit(&s, recv);
        seam_submit(&s, send);
        if (round % 3 == 0)
            seam_cancel(&s, recv);
        seam_until(&s, seam_idle(recv));
        if (send->op.state == GYRE_OPS_INFLIGHT)
            seam_cancel(&s, send);
        seam_until(&s, seam_idle(send));
        cr_assert(send->user == NULL && recv->user == NULL);
    }
    stream_close(&a);
    stream_close(&b);
    seam_close(&s);
}

/* A send's bytes are the kernel's own after the last event: the buffer is overwritten (by on_sent() of the stream)
 * before the other end reads a byte. */
TRANSPORT_TEST(memory, send_buffer_is_free_after_the_last_event)
{
    struct seam s;
    struct stream a, b;
    seam_open(&s, p);
    stream_pair(&s, &a, &b, 1);
    stream_sizes(&a, 40000, 16);
    stream_send(&a, seam_bulk(&s, 8 << 20));
    seam_settle(&s, SEAM_MS(20));
    cr_assert_gt(a.sent, 0, "nothing was sent as long as nobody read");
    stream_receive(&b, 0);
    stream_finish(&a);
    seam_until(&s, b.eof);
    cr_assert_eq(b.got, seam_bulk(&s, 8 << 20));
    stream_close(&a);
    stream_close(&b);
    seam_close(&s);
}

struct gather {
    struct msghdr hdr;
    struct iovec iov[8];
    uint8_t bytes[8 * 8192];
};

static void gather_init(struct gather *g)
{
    memset(g, 0, sizeof *g);
    env_pattern_fill(g->bytes, sizeof g->bytes, 5, 0);
    g->hdr.msg_iov = g->iov;
    g->hdr.msg_iovlen = 8;
    for (size_t i = 0; i < 8; i++)
        g->iov[i] = (struct iovec){.iov_base = g->bytes + i * 8192, .iov_len = 8192};
}

/* A SENDMSG's header and iovecs are not changed, whether it is short, whole, cancelled or fails; nor are the bytes. */
TRANSPORT_TEST(memory, sendmsg_header_and_iovecs_stay_as_they_are)
{
    static struct gather g, before;
    struct seam s;
    struct stream a, b;
    seam_open(&s, p);
    gather_init(&g);
    before = g;
    stream_pair(&s, &a, &b, 1);
    struct seam_op *so = seam_op_new(&s);
    for (int round = 0; round < 300; round++) {
        seam_sendmsg(so, &a.f, &g.hdr);
        seam_submit(&s, so);
        for (int i = 0; i < 3 && !seam_idle(so); i++) {
            cr_assert_eq(memcmp(&g, &before, sizeof g), 0, "changed while in flight");
            (void)seam_turn(&s, SEAM_MS(3));
        }
        if (so->op.state == GYRE_OPS_INFLIGHT)
            seam_cancel(&s, so);
        seam_until(&s, seam_idle(so));
        cr_assert_eq(memcmp(&g, &before, sizeof g), 0, "changed after round %d (res %d)", round, so->res);
        if (so->res == -ECANCELED)
            break;
    }
    stream_close(&b);
    stream_close(&a);
    seam_close(&s);
}

/* The address of a connect is read, not written, and is free after the last event. */
TRANSPORT_TEST(memory, connect_address)
{
    struct seam s;
    struct listener l;
    struct gyre__fd f;
    seam_open(&s, p);
    listener_open(&s, &l, 64);
    struct seam_op *so = seam_op_new(&s);
    for (int round = 0; round < 20; round++) {
        struct gyre__addr *addr = malloc(sizeof *addr);
        cr_assert_not_null(addr);
        *addr = l.addr;
        seam_attach(&s, &f, seam_socket(&s), seam_fd_flags(&s, false));
        seam_connect(so, &f, addr);
        seam_submit(&s, so);
        seam_until(&s, seam_idle(so));
        cr_assert_eq(so->res, 0);
        cr_assert_eq(memcmp(addr, &l.addr, sizeof *addr), 0);
        memset(addr, 0xff, sizeof *addr);
        free(addr);
        seam_look(&s);
        seam_fd_close(&s, &f);
    }
    listener_close(&s, &l);
    seam_close(&s);
}

/* The op itself is the backend's to link while in flight, but what the owner filled in is there unchanged at the end,
 * so that the same op can be submitted again as it is. */
TRANSPORT_TEST(memory, op_can_be_submitted_again_as_it_is)
{
    struct seam s;
    struct stream a, b;
    uint8_t buf[ROOM];
    seam_open(&s, p);
    stream_pair(&s, &a, &b, 1);
    struct seam_op *so = seam_op_new(&s);
    seam_recv(so, &b.f, buf, sizeof buf);
    for (uint64_t got = 0; got < 100 * 50;) {
        if (seam_idle(a.send) && a.sent == got)
            stream_send(&a, 50);
        seam_submit(&s, so);
        seam_until(&s, seam_idle(so));
        cr_assert_gt(so->res, 0);
        cr_assert_eq(env_pattern_check(buf, (size_t)so->res, b.key_in, got), -1);
        got += (unsigned)so->res;
        seam_until(&s, seam_idle(a.send));
        cr_assert(so->op.u.recv.buf == buf && so->op.u.recv.len == sizeof buf && so->op.f == &b.f);
    }
    stream_close(&a);
    stream_close(&b);
    seam_close(&s);
}
