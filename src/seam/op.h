/* SPDX-License-Identifier: MIT
 * The vocabulary of the seam: descriptors, operations, events.
 *
 * An operation is one thing asked of the kernel on one descriptor. Its owner fills a struct gyre__op and submits it;
 * from then until its last event the struct and everything it points to belong to the backend. That is io_uring's rule
 * for a request, and every backend keeps it.
 *
 * Operations live in memory that stays mapped as long as the backend does (core takes it from slabs), so that a backend
 * may look at the generation of an operation that was given up long ago. */
#ifndef GYRE_SEAM_OP_H
#define GYRE_SEAM_OP_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>

struct gyre__bufpool;
struct gyre__event;
struct gyre__fd;
struct gyre__op;
struct gyre__pipe;

/* What to do, and what `res` says when it is done. An error is -errno. */
enum gyre__op_kind {
    GYRE_OP_ACCEPT = 1, /* res: a new descriptor, close-on-exec, in the mode (blocking or not) the backend wants */
    GYRE_OP_CONNECT,    /* res: 0; -EAGAIN if a unix listener's backlog is full: it does not wait */
    GYRE_OP_RECV,       /* res: bytes; 0 is the end of the stream */
    GYRE_OP_SEND,       /* res: bytes; may be short */
    GYRE_OP_SENDMSG,    /* res: bytes; may be short, but for datagrams, which go whole or not at all */
    GYRE_OP_RECVMSG,    /* MULTI and POOL always. res: bytes in the buffer, laid out as struct gyre__dgram_head says */
    GYRE_OP_READ,       /* of the file in `u.read`, not of `f`, which is a connected socket; res: bytes; may be short; 0
                           is the end of the file */
    GYRE_OP_SPLICE,     /* from the pipe in `u.splice` into `f`; res: bytes, at least 1; may be short */
    GYRE_OP_POLL,       /* of a GYRE_FDF_FOREIGN descriptor, or of a stream after its end; res: those of
                           `u.poll.events` that hold, POLLHUP, POLLERR; at least one of them */
};

enum {
    GYRE_OPF_MULTI = 1u << 0,      /* stay armed until an error, the end or a cancel (ACCEPT, RECV, RECVMSG) */
    GYRE_OPF_POOL = 1u << 1,       /* take the buffer from the pool once there is data (RECV, RECVMSG) */
    GYRE_OPF_POLL_FIRST = 1u << 2, /* hint: nothing is ready now, wait before the first try (RECV, SEND, SENDMSG) */
    GYRE_OPF_DONTWAIT = 1u << 3,   /* end with -EAGAIN rather than wait (SENDMSG of datagrams) */
    GYRE_OPF_OWNER = 0xff,         /* the owner's bits; the others are the backend's while the op is in flight */
};

enum gyre__op_state {
    GYRE_OPS_IDLE = 0,   /* the owner's: may be filled, reused, freed */
    GYRE_OPS_INFLIGHT,   /* the backend's, until the last event */
    GYRE_OPS_CANCELLING, /* the backend's; the last event is on its way */
};

/* A piece of a regular file. */
struct gyre__op_read {
    int fd;
    uint32_t len; /* room at `buf` */
    void *buf;
    uint64_t offset;
};

enum {
    GYRE_PIPE_BYTES = 256 << 10, /* at most in one pipe */
    GYRE_PIPE_WORTH = 32 << 10,  /* with fewer bytes waiting buffers do better */
};

struct gyre__pipe {
    int read_fd, write_fd;
};

struct gyre__op {
    struct gyre__op *next; /* the backend's while in flight, the owner's while idle */
    struct gyre__fd *f;
    uint8_t kind;
    uint8_t state; /* moved only by loop/loop.h */
    uint16_t flags;
    uint16_t gen;  /* goes up with each last event, in loop/loop.h; survives reuse of the memory */
    uint8_t done;  /* enum gyre__done (loop/loop.h): who is told of its events; nothing to a backend */
    union {
        struct {
            union {
                void *buf;                 /* without GYRE_OPF_POOL */
                struct gyre__bufpool *pool; /* with it */
            };
            uint32_t len; /* room at `buf` */
            int32_t res;  /* the backend's, like every `res` here: a result until the last event may leave */
        } recv;
        struct {
            const void *buf;
            uint32_t len;
            int32_t res;
        } send;
        struct {
            struct msghdr *hdr; /* it and its iovecs stay valid and are not changed until the last event */
            int32_t res;
        } msg;
        const struct gyre__op_read *read; /* stays valid and unchanged until the last event */
        struct {
            const struct gyre__pipe *pipe; /* likewise; it holds `len` bytes or more */
            uint32_t len;
            int32_t res;
        } splice;
        struct {
            struct gyre__bufpool *pool;
            struct msghdr *room; /* msg_namelen and msg_controllen: how much of each buffer is for the sender's address
                                    and for control data, multiples of 8; the rest is 0 */
        } recvmsg;
        struct {
            const struct sockaddr *addr;
            uint16_t len;
            bool started; /* the readiness engine's */
        } connect;
        struct {
            uint32_t events; /* of POLLIN, POLLOUT, POLLPRI; may be none. Unchanged until the last event */
            int32_t res;
        } poll;
    } u;
};

/* What core knows of a descriptor that helps a backend. */
enum {
    GYRE_FDF_ACCEPTED = 1u << 0, /* came from an ACCEPT of a backend of the same kind: its mode is right already */
    GYRE_FDF_INET = 1u << 1,     /* TCP: a short receive has emptied it */
    GYRE_FDF_DGRAM = 1u << 2,    /* datagrams: RECVMSG and SENDMSG only */
    GYRE_FDF_PIPE = 1u << 3,     /* a RECV of MULTI and POOL may bring pipes (GYRE_EV_PIPE) in place of buffers. Core
                                    sets it and takes it back at any time; a backend takes it back if splice(2) fails */
    GYRE_FDF_FOREIGN = 1u << 4,  /* of any kind, and in use elsewhere: POLL only. attach() replaces it by a copy */
    GYRE_FDF_LISTEN = 1u << 5,   /* listens: ACCEPT only. attach() makes it non-blocking, and it stays so */
    GYRE_FDF_SHARED = 1u << 6,   /* listens, and others may accept on it, too. Core sets it while no op is in flight */
    GYRE_FDF_TOUCHED = 1u << 7,  /* a stream that others have had their hands on: they may have set SO_LINGER. Core sets
                                    it at any time */
};

/* How RECVMSG fills a buffer: this, the sender's address, control data (each in as much room as the op gave), and the
 * bytes of the datagram. All of the room counts in `res`, used or not. It is what io_uring writes, so that there it
 * needs no copying; lengths come from the kernel and are to be checked all the same (datagram/parse.h). */
struct gyre__dgram_head {
    uint32_t name_len;    /* of the address; more than there is room for if it was cut */
    uint32_t control_len; /* bytes of control data */
    uint32_t payload_len;
    uint32_t flags; /* MSG_TRUNC: the datagram was longer; MSG_CTRUNC: so was the control data */
};

/* One open descriptor, embedded in its owner. The owner may be freed once `inflight` is 0 and close() has returned. */
struct gyre__fd {
    int fd;            /* -1 once closed */
    uint16_t inflight; /* submitted ops whose last event is not yet dispatched; moved only by loop/loop.h */
    uint8_t flags;     /* GYRE_FDF_*; set by core, but for GYRE_FDF_PIPE before attach() */
    uint8_t be_flags;  /* the backend's own; zeroed by attach() */
    union {            /* the backend's own bookkeeping; nobody else reads it; set up by attach() */
        struct {
            struct gyre__op
                *tail[2]; /* circular lists of waiting ops by direction (read, write): tail->next is first */
        } rd;
        struct {
            struct gyre__op *op; /* the receive */
            int32_t res;        /* of its last event, until that may leave */
            uint8_t score;      /* how much of a bulk stream it is */
            uint8_t shots;      /* of a multishot receive: those that left more behind them */
            bool nonblocking : 1; /* the socket's mode, in which only what never waits may use it */
            bool odd : 1;       /* a poll of it ended for what nobody asked for */
            uint8_t round;      /* of bulk streams, in which it was last counted */
        } ur;
        struct {
            void *sock;
        } sim;
    } be;
};

enum {
    GYRE_EV_MORE = 1u << 0, /* not the last event of this op: its buffers stay the backend's */
    GYRE_EV_BUF = 1u << 1,  /* `buf` is a pool buffer, now the receiver's to release; its bytes are the first `res` */
    GYRE_EV_PIPE = 1u << 2, /* `buf` is the number of a pipe of the pool, now the receiver's to empty and give back; it
                               holds `res` bytes */
};

/* One completion, by value. One event carries at most one buffer: a backend that receives several with one kernel
 * completion (an io_uring bundle) makes one event of each, GYRE_EV_MORE on all but the last, in stream order. */
struct gyre__event {
    struct gyre__op *op;
    int32_t res;
    uint16_t flags;
    uint16_t buf;
};

_Static_assert(sizeof(struct gyre__dgram_head) == 16, "as io_uring has it");
_Static_assert(sizeof(off_t) == 8, "build with _FILE_OFFSET_BITS=64: files are larger than 2 GiB on 32 bits, too");

/* What these cost is counted where pointers have 64 bits. With smaller ones they are smaller. */
_Static_assert(sizeof(void *) != 8 || sizeof(struct gyre__event) == 16, "four events to a cache line");
_Static_assert(sizeof(void *) != 8 || sizeof(struct gyre__op) <= 40, "each connection has two of them");
_Static_assert(sizeof(void *) != 8 || sizeof(struct gyre__fd) <= 24, "each connection has one of them");

#endif
