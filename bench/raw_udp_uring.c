/* SPDX-License-Identifier: MIT
 * A yardstick: the shortest UDP echo server on io_uring that is right. One multishot recvmsg into provided buffers;
 * each datagram goes back with a sendmsg from the buffer it lies in, to the address that lies before it. */
#include "raw_listen.h"

#include <errno.h>
#include <liburing.h>
#include <netinet/in.h>
#include <stdlib.h>

enum { NBUFS = 256, BUF_SIZE = 2048, ENTRIES = 1024, RECEIVED = NBUFS }; /* user_data below that is a buffer */

static struct io_uring ring;
static struct io_uring_buf_ring *buf_ring;
static char *memory;
static struct msghdr shape = {.msg_namelen = sizeof(struct sockaddr_in)};
static struct msghdr answers[NBUFS];
static struct iovec iov[NBUFS];

static struct io_uring_sqe *next_sqe(void)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);
    if (sqe != NULL)
        return sqe;
    (void)io_uring_submit(&ring);
    return io_uring_get_sqe(&ring);
}

static void give_back(unsigned buf)
{
    io_uring_buf_ring_add(buf_ring, memory + (size_t)buf * BUF_SIZE, BUF_SIZE, (unsigned short)buf, NBUFS - 1, 0);
    io_uring_buf_ring_advance(buf_ring, 1);
}

static void arm(int fd)
{
    struct io_uring_sqe *sqe = next_sqe();
    io_uring_prep_recvmsg_multishot(sqe, fd, &shape, 0);
    sqe->flags |= IOSQE_BUFFER_SELECT; /* of group 0 */
    sqe->user_data = RECEIVED;
}

static void send_back(int fd, unsigned buf, int size)
{
    struct io_uring_recvmsg_out *out = io_uring_recvmsg_validate(memory + (size_t)buf * BUF_SIZE, size, &shape);
    if (out == NULL || (out->flags & MSG_TRUNC) != 0) {
        give_back(buf);
        return;
    }
    iov[buf] = (struct iovec){.iov_base = io_uring_recvmsg_payload(out, &shape),
                              .iov_len = io_uring_recvmsg_payload_length(out, size, &shape)};
    answers[buf] = (struct msghdr){
        .msg_name = io_uring_recvmsg_name(out), .msg_namelen = out->namelen, .msg_iov = &iov[buf], .msg_iovlen = 1};
    struct io_uring_sqe *sqe = next_sqe();
    io_uring_prep_sendmsg(sqe, fd, &answers[buf], 0);
    sqe->user_data = buf;
}

static void set_up(void)
{
    struct io_uring_params params = {.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
                                              IORING_SETUP_SUBMIT_ALL | IORING_SETUP_CQSIZE,
                                     .cq_entries = 4 * ENTRIES};
    int err = io_uring_queue_init_params(ENTRIES, &ring, &params);
    if (err < 0)
        bench_raw_die("io_uring_queue_init_params", err);
    memory = aligned_alloc(4096, (size_t)NBUFS * BUF_SIZE);
    buf_ring = aligned_alloc(4096, 4096);
    if (memory == NULL || buf_ring == NULL)
        bench_raw_die("aligned_alloc", ENOMEM);
    io_uring_buf_ring_init(buf_ring);
    struct io_uring_buf_reg reg = {.ring_addr = (uintptr_t)buf_ring, .ring_entries = NBUFS};
    if ((err = io_uring_register_buf_ring(&ring, &reg, 0)) < 0)
        bench_raw_die("io_uring_register_buf_ring", err);
    for (unsigned buf = 0; buf < NBUFS; buf++)
        give_back(buf);
    (void)io_uring_register_ring_fd(&ring); /* spares a look-up per system call; works without */
}

int main(int argc, char **argv)
{
    set_up();
    int fd = bench_raw_bind_udp(argc, argv);
    arm(fd);
    for (;;) {
        struct io_uring_cqe *cqe;
        unsigned head, n = 0;
        bool has_ended = false;
        (void)io_uring_submit_and_wait(&ring, 1);
        io_uring_for_each_cqe(&ring, head, cqe)
        {
            n++;
            if (cqe->user_data != RECEIVED)
                give_back((unsigned)cqe->user_data);
            else if (cqe->res >= 0 && (cqe->flags & IORING_CQE_F_BUFFER) != 0)
                send_back(fd, cqe->flags >> IORING_CQE_BUFFER_SHIFT, cqe->res);
            has_ended = has_ended || (cqe->user_data == RECEIVED && (cqe->flags & IORING_CQE_F_MORE) == 0);
        }
        io_uring_cq_advance(&ring, n);
        if (has_ended)
            arm(fd); /* as when all buffers were out; those of this turn are sent before it is tried */
    }
}
