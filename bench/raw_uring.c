/* SPDX-License-Identifier: MIT
 * A yardstick: the shortest echo server on io_uring that is right. Multishot accept and receive, a ring of 64 provided
 * buffers of 16 KiB (1 MiB: what stays in cache), each sent straight back from where it was received and given back
 * when it has been sent. One send in flight per connection, because two could mix their bytes; what comes meanwhile
 * queues.
 *
 * A receive that found no buffer is armed again when one is free. Buffers stand 128 bytes further apart than they are
 * long, or their first lines would all fall into the same sets of the cache. */
#include "raw_listen.h"

#include <errno.h>
#include <liburing.h>
#include <stdbool.h>
#include <stdlib.h>
#include <unistd.h>

enum { NBUFS = 64, BUF_SIZE = 16384, STRIDE = BUF_SIZE + 128, FDS_MAX = 65536, NONE = 0 };
enum { SQ_ENTRIES = 256, CQ_ENTRIES = 4096 };
enum kind { ACCEPT, RECV, SEND }; /* user_data: kind in the high half; descriptor or buffer in the low one */

static _Thread_local struct {
    int fd, len, next;
} bufs[NBUFS + 1]; /* numbered from 1, so that 0 is none */
static _Thread_local struct {
    int first, last;
    bool ended;
} conns[FDS_MAX]; /* queue of buffers; the first one is being sent */
static _Thread_local int starved[FDS_MAX], nstarved, nfree = NBUFS;
static _Thread_local struct io_uring ring;
static _Thread_local struct io_uring_buf_ring *buf_ring;
static _Thread_local char *memory;

static void give_back(int buf)
{
    io_uring_buf_ring_add(buf_ring, memory + (size_t)buf * STRIDE, BUF_SIZE, (unsigned short)buf, NBUFS - 1, 0);
    io_uring_buf_ring_advance(buf_ring, 1);
}

static struct io_uring_sqe *next_sqe(void)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);
    if (sqe != NULL)
        return sqe;
    (void)io_uring_submit(&ring);
    return io_uring_get_sqe(&ring);
}

static void arm(enum kind kind, int fd)
{
    struct io_uring_sqe *sqe = next_sqe();
    if (kind == ACCEPT)
        io_uring_prep_multishot_accept(sqe, fd, NULL, NULL, SOCK_CLOEXEC);
    else
        io_uring_prep_recv_multishot(sqe, fd, NULL, 0, 0);
    if (kind == RECV)
        sqe->flags |= IOSQE_BUFFER_SELECT; /* of group 0 */
    sqe->user_data = (uint64_t)kind << 32 | (unsigned)fd;
}

static void send_buf(int buf)
{
    struct io_uring_sqe *sqe = next_sqe();
    io_uring_prep_send(sqe, bufs[buf].fd, memory + (size_t)buf * STRIDE, (size_t)bufs[buf].len,
                       MSG_WAITALL | MSG_NOSIGNAL);
    sqe->user_data = (uint64_t)SEND << 32 | (unsigned)buf;
}

static void received(int fd, int res, unsigned flags)
{
    if (res > 0) {
        int buf = (int)(flags >> IORING_CQE_BUFFER_SHIFT), last = conns[fd].last;
        bufs[buf].fd = fd, bufs[buf].len = res, bufs[buf].next = NONE;
        conns[fd].last = buf, nfree--;
        if (conns[fd].first != NONE)
            bufs[last].next = buf;
        else
            send_buf(conns[fd].first = buf);
    }
    if (flags & IORING_CQE_F_MORE)
        return;
    if (res > 0)
        arm(RECV, fd);
    else if (res == -ENOBUFS)
        starved[nstarved++] = fd;
    else if (conns[fd].first != NONE)
        conns[fd].ended = true;
    else
        (void)close(fd);
}

static void sent(int buf)
{
    int fd = bufs[buf].fd;
    give_back(buf), nfree++;
    conns[fd].first = bufs[buf].next;
    if (conns[fd].first != NONE)
        send_buf(conns[fd].first);
    else if (conns[fd].ended)
        conns[fd].ended = false, (void)close(fd);
}

static void set_up(void)
{
    struct io_uring_params params = {.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
                                              IORING_SETUP_SUBMIT_ALL | IORING_SETUP_CQSIZE,
                                     .cq_entries = CQ_ENTRIES};
    int err = io_uring_queue_init_params(SQ_ENTRIES, &ring, &params);
    if (err < 0)
        bench_raw_die("io_uring_queue_init_params", err);
    memory = aligned_alloc(4096, ((size_t)(NBUFS + 1) * STRIDE + 4095) & ~(size_t)4095);
    buf_ring = aligned_alloc(4096, 4096);
    if (memory == NULL || buf_ring == NULL)
        bench_raw_die("aligned_alloc", ENOMEM);
    io_uring_buf_ring_init(buf_ring);
    struct io_uring_buf_reg reg = {.ring_addr = (uintptr_t)buf_ring, .ring_entries = NBUFS};
    if ((err = io_uring_register_buf_ring(&ring, &reg, 0)) < 0)
        bench_raw_die("io_uring_register_buf_ring", err);
    for (int buf = 1; buf <= NBUFS; buf++)
        give_back(buf);
    (void)io_uring_register_ring_fd(&ring); /* spares a look-up per system call; works without */
}

static void serve(int listener)
{
    if (memory == NULL)
        set_up();
    arm(ACCEPT, listener);
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
                sent(id);
            else if (cqe->res >= 0)
                arm(RECV, bench_raw_nodelay(cqe->res));
            if (kind == ACCEPT && !(cqe->flags & IORING_CQE_F_MORE))
                arm(ACCEPT, listener);
        }
        io_uring_cq_advance(&ring, n);
        for (int room = nfree; nstarved > 0 && room > 0; room--)
            arm(RECV, starved[--nstarved]);
    }
}

int main(int argc, char **argv)
{
    set_up(); /* so that a kernel that refuses says so before the address is told */
    bench_raw_serve(argc, argv, serve);
}
