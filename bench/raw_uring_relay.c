/* SPDX-License-Identifier: MIT
 * A yardstick: the shortest relay on io_uring that is right. Like raw_uring.c, but what one side receives the other one
 * sends, from the buffer it came in. One send in flight per side; what comes meanwhile queues.
 *
 * There are two rings of 32 buffers of 16 KiB, one for each direction: with one for both, requests that wait for a busy
 * backend could hold every buffer, and the answers the backend waits to get rid of would find none. A receive that
 * found no buffer is armed again when one of its direction is free. The end of either side is the end of both, once
 * nothing of theirs is in the kernel any more. */
#include "raw_listen.h"
#include "raw_relay.h"

#include <errno.h>
#include <liburing.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

enum { NBUFS = 32, BUF_SIZE = 16384, STRIDE = BUF_SIZE + 128, FDS_MAX = 65536, NONE = 0 };
enum { SQ_ENTRIES = 256, CQ_ENTRIES = 4096 };
enum { INWARD, OUTWARD, DIRECTIONS }; /* towards the backend and back: which ring a side receives into */
enum kind { ACCEPT, RECV, SEND };     /* user_data: kind in the high half; descriptor or buffer in the low one */

static struct {
    int fd, len, sent, next;    /* fd: that sends it */
} bufs[DIRECTIONS * NBUFS + 1]; /* numbered from 1, so that 0 is none; those of OUTWARD after those of INWARD */
static struct side {
    int peer, direction;
    int first, last; /* queue of buffers to send; the first one is being sent */
    bool receiving, starved, ended;
} sides[FDS_MAX];
static struct {
    struct io_uring_buf_ring *ring;
    int starved[FDS_MAX];
    int nstarved, nfree;
} directions[DIRECTIONS];
static struct io_uring ring;
static char *memory;

static void give_back(int buf)
{
    int direction = (buf - 1) / NBUFS;
    io_uring_buf_ring_add(directions[direction].ring, memory + (size_t)buf * STRIDE, BUF_SIZE, (unsigned short)buf,
                          NBUFS - 1, 0);
    io_uring_buf_ring_advance(directions[direction].ring, 1);
    directions[direction].nfree++;
}

static struct io_uring_sqe *next_sqe(void)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);
    if (sqe != NULL)
        return sqe;
    (void)io_uring_submit(&ring);
    return io_uring_get_sqe(&ring);
}

static void arm_accept(int fd)
{
    struct io_uring_sqe *sqe = next_sqe();
    io_uring_prep_multishot_accept(sqe, fd, NULL, NULL, SOCK_CLOEXEC);
    sqe->user_data = (uint64_t)ACCEPT << 32 | (unsigned)fd;
}

static void arm_recv(int fd)
{
    struct io_uring_sqe *sqe = next_sqe();
    io_uring_prep_recv_multishot(sqe, fd, NULL, 0, 0);
    sqe->flags |= IOSQE_BUFFER_SELECT;
    sqe->buf_group = (unsigned short)sides[fd].direction;
    sqe->user_data = (uint64_t)RECV << 32 | (unsigned)fd;
    sides[fd].receiving = true;
}

static void send_buf(int buf)
{
    struct io_uring_sqe *sqe = next_sqe();
    io_uring_prep_send(sqe, bufs[buf].fd, memory + (size_t)buf * STRIDE + bufs[buf].sent,
                       (size_t)(bufs[buf].len - bufs[buf].sent), MSG_WAITALL | MSG_NOSIGNAL);
    sqe->user_data = (uint64_t)SEND << 32 | (unsigned)buf;
}

/* Ends both sides: shutting down completes what is in the kernel, and the last completion closes. */
static void end(int fd)
{
    int both[2] = {fd, sides[fd].peer};
    for (int i = 0; i < 2; i++) {
        if (!sides[both[i]].ended)
            (void)shutdown(both[i], SHUT_RDWR);
        sides[both[i]].ended = true;
    }
    for (int i = 0; i < 2; i++) {
        if (sides[both[i]].receiving || sides[both[i]].starved || sides[both[i]].first != NONE)
            return;
    }
    (void)close(both[0]);
    (void)close(both[1]);
}

static void received(int fd, int res, unsigned flags)
{
    struct side *s = &sides[fd], *peer = &sides[s->peer];
    s->receiving = (flags & IORING_CQE_F_MORE) != 0;
    if ((flags & IORING_CQE_F_BUFFER) != 0) {
        int buf = (int)(flags >> IORING_CQE_BUFFER_SHIFT);
        directions[s->direction].nfree--;
        if (res <= 0 || peer->ended) {
            give_back(buf);
        } else {
            bufs[buf].fd = s->peer, bufs[buf].len = res, bufs[buf].sent = 0, bufs[buf].next = NONE;
            if (peer->first != NONE)
                bufs[peer->last].next = buf;
            else
                send_buf(peer->first = buf);
            peer->last = buf;
        }
    }
    bool over = res <= 0 && res != -ENOBUFS;
    if (over || s->ended) {
        if (!s->receiving)
            end(fd);
        return;
    }
    if (s->receiving)
        return;
    if (res > 0) {
        arm_recv(fd);
        return;
    }
    s->starved = true;
    directions[s->direction].starved[directions[s->direction].nstarved++] = fd;
}

static void sent(int buf, int res)
{
    int fd = bufs[buf].fd;
    if (res > 0 && bufs[buf].sent + res < bufs[buf].len) {
        bufs[buf].sent += res;
        send_buf(buf);
        return;
    }
    sides[fd].first = bufs[buf].next;
    give_back(buf);
    if (sides[fd].first != NONE)
        send_buf(sides[fd].first); /* fails like the one before where that failed */
    else if (res < 0 || sides[fd].ended)
        end(fd);
}

static void feed_starved(void)
{
    for (int d = 0; d < DIRECTIONS; d++) {
        for (int room = directions[d].nfree; directions[d].nstarved > 0 && room > 0; room--) {
            int fd = directions[d].starved[--directions[d].nstarved];
            sides[fd].starved = false;
            if (sides[fd].ended)
                end(fd);
            else
                arm_recv(fd);
        }
    }
}

static void accepted(int fd)
{
    int peer = fd < FDS_MAX ? bench_raw_relay_connect() : -1;
    if (peer < 0 || peer >= FDS_MAX) {
        (void)close(fd);
        if (peer >= 0)
            (void)close(peer);
        return;
    }
    sides[fd] = (struct side){.peer = peer, .direction = INWARD};
    sides[peer] = (struct side){.peer = fd, .direction = OUTWARD};
    arm_recv(bench_raw_nodelay(fd));
    arm_recv(peer);
}

static void set_up(void)
{
    struct io_uring_params params = {.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
                                              IORING_SETUP_SUBMIT_ALL | IORING_SETUP_CQSIZE,
                                     .cq_entries = CQ_ENTRIES};
    int err = io_uring_queue_init_params(SQ_ENTRIES, &ring, &params);
    if (err < 0)
        bench_raw_die("io_uring_queue_init_params", err);
    memory = aligned_alloc(4096, ((size_t)(DIRECTIONS * NBUFS + 1) * STRIDE + 4095) & ~(size_t)4095);
    for (int d = 0; d < DIRECTIONS; d++) {
        directions[d].ring = aligned_alloc(4096, 4096);
        if (memory == NULL || directions[d].ring == NULL)
            bench_raw_die("aligned_alloc", ENOMEM);
        io_uring_buf_ring_init(directions[d].ring);
        struct io_uring_buf_reg reg = {
            .ring_addr = (uintptr_t)directions[d].ring, .ring_entries = NBUFS, .bgid = (unsigned short)d};
        if ((err = io_uring_register_buf_ring(&ring, &reg, 0)) < 0)
            bench_raw_die("io_uring_register_buf_ring", err);
    }
    for (int buf = 1; buf <= DIRECTIONS * NBUFS; buf++)
        give_back(buf);
    (void)io_uring_register_ring_fd(&ring); /* spares a look-up per system call; works without */
}

int main(int argc, char **argv)
{
    set_up();
    int listener = bench_raw_relay_listen(argc, argv);
    arm_accept(listener);
    for (;;) {
        struct io_uring_cqe *cqe;
        unsigned head, n = 0;
        (void)io_uring_submit_and_wait(&ring, 1);
        io_uring_for_each_cqe(&ring, head, cqe)
        {
            enum kind kind = (enum kind)(cqe->user_data >> 32);
            int id = (int)(cqe->user_data & UINT32_MAX);
            n++;
            if (kind == RECV)
                received(id, cqe->res, cqe->flags);
            else if (kind == SEND)
                sent(id, cqe->res);
            else if (cqe->res >= 0)
                accepted(cqe->res);
            if (kind == ACCEPT && (cqe->flags & IORING_CQE_F_MORE) == 0)
                arm_accept(listener);
        }
        io_uring_cq_advance(&ring, n);
        feed_starved();
    }
}
