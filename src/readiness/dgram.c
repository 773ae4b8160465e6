/* SPDX-License-Identifier: MIT
 * Datagrams: many in one system call, each way.
 *
 * Receiving offers as many pool buffers as there may be events, and gives back those that stayed empty; a call that
 * fills fewer than it was offered has emptied the socket. Sending takes the ops that wait on the descriptor, oldest
 * first, so they keep their order.
 *
 * What can go wrong: a call fails at its first datagram, then that op gets the error; at a later one, then the ones
 * before it count, and the error comes with the next call. Systems without the calls for many get them one by one. */
#include "poller.h"

#include "buffer/bufpool.h"
#include "base/check.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#ifdef MSG_NOSIGNAL
enum { SEND_FLAGS = MSG_NOSIGNAL };
#else
enum { SEND_FLAGS = 0 };
#endif

#ifdef MSG_WAITFORONE
static int receive_many(int fd, struct mmsghdr *msgs, unsigned count)
{
    return recvmmsg(fd, msgs, count, MSG_DONTWAIT, NULL);
}

static int send_many(int fd, struct mmsghdr *msgs, unsigned count)
{
    return sendmmsg(fd, msgs, count, SEND_FLAGS | MSG_DONTWAIT);
}
#else
struct mmsghdr {
    struct msghdr msg_hdr;
    unsigned msg_len;
};

/* The first result decides; a later error is left for the next call to meet again. */
static int receive_many(int fd, struct mmsghdr *msgs, unsigned count)
{
    unsigned n = 0;
    for (; n < count; n++) {
        ssize_t len = recvmsg(fd, &msgs[n].msg_hdr, MSG_DONTWAIT);
        if (len < 0)
            break;
        msgs[n].msg_len = (unsigned)len;
    }
    return n > 0 ? (int)n : -1;
}

static int send_many(int fd, struct mmsghdr *msgs, unsigned count)
{
    unsigned n = 0;
    for (; n < count; n++) {
        ssize_t len = sendmsg(fd, &msgs[n].msg_hdr, SEND_FLAGS | MSG_DONTWAIT);
        if (len < 0)
            break;
        msgs[n].msg_len = (unsigned)len;
    }
    return n > 0 ? (int)n : -1;
}
#endif

static int blocked_or(int err)
{
    return err == EAGAIN || err == EWOULDBLOCK ? GYRE_BLOCKED : -err;
}

/* ---- receiving ---- */

static size_t overhead_of(const struct msghdr *room)
{
    return sizeof(struct gyre__dgram_head) + room->msg_namelen + room->msg_controllen;
}

static void offer(struct mmsghdr *msg, struct iovec *iov, uint8_t *buf, const struct msghdr *room, uint32_t size)
{
    uint8_t *name = buf + sizeof(struct gyre__dgram_head), *control = name + room->msg_namelen;
    size_t overhead = overhead_of(room);
    *iov = (struct iovec){.iov_base = buf + overhead, .iov_len = size - overhead};
    msg->msg_hdr = (struct msghdr){
        .msg_name = room->msg_namelen > 0 ? name : NULL,
        .msg_namelen = room->msg_namelen,
        .msg_control = room->msg_controllen > 0 ? control : NULL,
        .msg_controllen = room->msg_controllen,
        .msg_iov = iov,
        .msg_iovlen = 1,
    };
}

/* A datagram has come: its header, and the event. */
static void note(struct gyre__event *ev, const struct mmsghdr *msg, uint8_t *buf, const struct msghdr *room, int index)
{
    struct gyre__dgram_head head = {
        .name_len = msg->msg_hdr.msg_name != NULL ? msg->msg_hdr.msg_namelen : 0,
        .control_len = msg->msg_hdr.msg_control != NULL ? (uint32_t)msg->msg_hdr.msg_controllen : 0,
        .payload_len = msg->msg_len,
        .flags = (uint32_t)msg->msg_hdr.msg_flags,
    };
    memcpy(buf, &head, sizeof head);
    ev->res = (int32_t)(overhead_of(room) + msg->msg_len);
    ev->flags = GYRE_EV_BUF | GYRE_EV_MORE;
    ev->buf = (uint16_t)index;
}

unsigned gyre__perform_recvmsg(const struct gyre__op *op, struct gyre__event *out, unsigned room,
                               struct gyre_stats *stats)
{
    struct mmsghdr msgs[GYRE_DGRAM_BATCH];
    struct iovec iov[GYRE_DGRAM_BATCH];
    uint16_t bufs[GYRE_DGRAM_BATCH];
    struct gyre__bufpool *pool = op->u.recvmsg.pool;
    unsigned want = room < GYRE_DGRAM_BATCH ? room : GYRE_DGRAM_BATCH, count = 0;
    int n;
    GYRE_ASSERT(overhead_of(op->u.recvmsg.room) < pool->size);
    for (int buf; count < want && (buf = gyre__bufpool_take(pool)) != GYRE_BUF_NONE; count++) {
        bufs[count] = (uint16_t)buf;
        offer(&msgs[count], &iov[count], gyre__bufpool_data(pool, bufs[count]), op->u.recvmsg.room, pool->size);
    }
    *out = (struct gyre__event){.op = (struct gyre__op *)(uintptr_t)op, .res = -ENOBUFS};
    if (GYRE_UNLIKELY(count == 0)) {
        gyre__count(&stats->enobufs, 1);
        return 1;
    }
    do {
        gyre__count(&stats->calls, 1);
        n = receive_many(op->f->fd, msgs, count);
    } while (GYRE_UNLIKELY(n < 0 && errno == EINTR));
    unsigned got = n > 0 ? (unsigned)n : 0;
    out->res = n < 0 ? blocked_or(errno) : 0;
    for (unsigned i = 0; i < got; i++) {
        out[i] = (struct gyre__event){.op = out->op};
        note(&out[i], &msgs[i], gyre__bufpool_data(pool, bufs[i]), op->u.recvmsg.room, bufs[i]);
    }
    for (unsigned i = count; i > got; i--)
        gyre__bufpool_untake(pool, bufs[i - 1]);
    if (got > 0 && got < count)
        op->f->be_flags &= (uint8_t)~GYRE_RDF_READABLE;
    return got > 0 ? got : out->res != GYRE_BLOCKED;
}

/* ---- sending ---- */

unsigned gyre__perform_sendmsgs(struct gyre__op *const *ops, unsigned count, struct gyre__event *out,
                                struct gyre_stats *stats)
{
    struct mmsghdr msgs[GYRE_DGRAM_BATCH];
    int n;
    for (unsigned i = 0; i < count; i++)
        msgs[i].msg_hdr = *ops[i]->u.msg.hdr;
    do {
        gyre__count(&stats->calls, 1);
        n = send_many(ops[0]->f->fd, msgs, count);
    } while (GYRE_UNLIKELY(n < 0 && errno == EINTR));
    for (int i = 0; i < n; i++)
        out[i] = (struct gyre__event){.op = ops[i], .res = (int32_t)msgs[i].msg_len};
    if (n > 0)
        return (unsigned)n;
    *out = (struct gyre__event){.op = ops[0], .res = blocked_or(errno)};
    if (out->res != GYRE_BLOCKED)
        return 1;
    /* What was queued behind must not overtake it. */
    unsigned refused = 0;
    for (; refused < count && (ops[refused]->flags & GYRE_OPF_DONTWAIT); refused++)
        out[refused] = (struct gyre__event){.op = ops[refused], .res = -EAGAIN};
    return refused;
}
