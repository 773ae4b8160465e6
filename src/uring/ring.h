/* SPDX-License-Identifier: MIT
 * What the files of this room share: the backend's struct, the kernel features it knows, the marks in user_data. */
#ifndef GYRE_URING_RING_H
#define GYRE_URING_RING_H

#include "seam/backend.h"
#include "buffer/bufpool.h"
#include "base/check.h"
#include "seam/fdq.h"
#include "base/log.h"
#include "base/mem.h"
#include "seam/op.h"

#include "batch.h"
#include "bufring.h"
#include "compat.h"

#include <stdatomic.h>

/* Kernel features that can be used or left alone: bit, the word for it in GYRE_URING_OFF and in features(). Best first:
 * those that setup may reject are given up in this order. */
#define GYRE_URING_FEATURES(X)                                                                                         \
    X(NO_SQARRAY, 0, "no_sqarray")                                                                                     \
    X(DEFER_TASKRUN, 1, "defer_taskrun")                                                                               \
    X(SINGLE_ISSUER, 2, "single_issuer")                                                                               \
    X(COOP_TASKRUN, 3, "coop_taskrun")                                                                                 \
    X(TASKRUN_FLAG, 4, "taskrun_flag")                                                                                 \
    X(NO_IOWAIT, 5, "no_iowait")                                                                                       \
    X(RING_FD, 6, "ring_fd")                                                                                           \
    X(MULTISHOT_ACCEPT, 7, "multishot_accept")                                                                         \
    X(MULTISHOT_RECV, 8, "multishot_recv")                                                                             \
    X(MIN_WAIT, 9, "min_wait")                                                                                         \
    X(DIRECT, 10, "direct")                                                                                            \
    X(NAPI, 11, "napi")

enum {
#define GYRE_URING_FEATURE_BIT(name, bit, word) GYRE_URING_##name = 1u << (bit),
    GYRE_URING_FEATURES(GYRE_URING_FEATURE_BIT)
#undef GYRE_URING_FEATURE_BIT
    GYRE_URING_ALL = (1u << 12) - 1,
};

/* user_data is the op's address, with its generation in the 16 bits above any address. Ops are at least 4-aligned, so
 * two bits below are free. OWN marks the backend's own requests, among them the cancel of the op. An accept is marked,
 * because a completion that comes too late for its op to be looked at may carry a descriptor that has to be closed. */
enum {
    GYRE_URING_TAG_CANCEL = 1, /* one that names no op */
    GYRE_URING_TAG_WAKE = 5,
    GYRE_URING_OWN = 1,
    GYRE_URING_ACCEPT = 2,
    GYRE_URING_POLL = 3, /* both bits: the poll that a receive waits by */
    GYRE_URING_MARKS = 3,
};

/* Bits of gyre__fd.be_flags. */
enum {
    GYRE_UF_DIRECT = 1u << 0, /* the receive waits by poll; be.ur.op is it */
    GYRE_UF_QUEUED = 1u << 1, /* believed readable: in the queue */
    GYRE_UF_ODD = 1u << 2,    /* hang-up, error or urgent data was seen: only EAGAIN says that nothing is left */
    GYRE_UF_FILLED = 1u << 3, /* the last call filled a buffer */
    GYRE_UF_ENDING = 1u << 4, /* a multishot receive asked to end, for another or a poll; or a poll, for be.ur.res */
    GYRE_UF_BACK = 1u << 5,   /* a poll asked to end for a multishot receive */
    GYRE_UF_HUNG = 1u << 6,   /* hang-up or error was seen */
};

/* Bits of gyre__op.flags that are ours. */
enum {
    GYRE_UOP_WAITS = 1u << 8,   /* what the kernel has of the op is a poll; see await.c */
    GYRE_UOP_EDGES = 1u << 9,   /* a multishot one */
    GYRE_UOP_ENDING = 1u << 10, /* which was asked to end; the op's result is in its `res` */
    GYRE_UOP_AGAIN = 1u << 11,  /* or it has none, and then begins anew */
    GYRE_UOP_MADE = 1u << 12,   /* the op's last event is made: the kernel has nothing of it */
};

#define GYRE_URING_GEN_SHIFT 48
#define GYRE_URING_ADDR_MASK (((uint64_t)1 << GYRE_URING_GEN_SHIFT) - 4)

/* Whether the op needs a socket in blocking mode, or the kernel would not wait with it. */
static inline bool gyre__uring_needs_blocking(const struct gyre__op *op)
{
    return !(op->flags & GYRE_UOP_WAITS) && (op->flags & GYRE_OPF_MULTI) && !(op->f->be_flags & GYRE_UF_DIRECT);
}

/* Whether the accept waits by a poll, because others accept on the socket, too. */
static inline bool gyre__uring_accepts_by_poll(const struct gyre__op *op)
{
    return op->kind == GYRE_OP_ACCEPT && (op->f->flags & GYRE_FDF_SHARED);
}

static inline uint64_t gyre__uring_tag(const struct gyre__op *op)
{
    uint64_t mark = op->kind == GYRE_OP_ACCEPT && !gyre__uring_accepts_by_poll(op) ? GYRE_URING_ACCEPT : 0;
    if (op->kind == GYRE_OP_RECV && (op->f->be_flags & GYRE_UF_DIRECT))
        mark = GYRE_URING_POLL;
    return (uint64_t)(uintptr_t)op | (uint64_t)op->gen << GYRE_URING_GEN_SHIFT | mark;
}

/* Ops for which there was no room, oldest first. A member's `next` is not NULL; the last one's is `end`. */
struct gyre__uring_late {
    struct gyre__op *first;
    struct gyre__op *last;
};

enum { GYRE_URING_DONE_MAX = 64 };

struct gyre__uring {
    struct gyre__backend base;
    struct io_uring ring;
    uint32_t use;         /* GYRE_URING_* features in use */
    int enter_fd;         /* the ring's descriptor, or its registered number */
    unsigned enter_flags; /* for every enter */
    unsigned wait_flags;  /* for every enter that waits */
    bool started;         /* enabled, by the thread that waits */
    bool stuck;           /* since the last wait() the kernel refused to take submissions */
    bool overflowing;     /* the overflow flag was set when last seen */
    bool wake_armed;
    uint8_t skips;        /* enters in a row that did not ask for more completions */
    uint8_t cancel_tries; /* of cancels that failed, in a row */
    struct gyre__batch batch;
    struct gyre__bufring bufs;
    struct gyre__uring_late ops;     /* submitted, not yet in the ring */
    struct gyre__uring_late cancels; /* in the kernel's hands, their cancel not yet in the ring */
    struct gyre__op end;
    struct gyre__fdq readable; /* of direct.c */
    uint32_t attached;
    uint8_t unentered;    /* waits in a row that found enough to do without entering */
    uint8_t turns;        /* waits, of which the lowest bit counts */
    uint8_t ndone;
    struct gyre__event done[GYRE_URING_DONE_MAX]; /* of sends that were made at once */
    const struct gyre_mem *mem;
    const struct gyre_log *log;
    int wake_fd;
    char pad[64]; /* other threads write `woken`: keep it off the lines above */
    atomic_uint woken;
};

/* A call made for `op` gave `res`: its last event, for the next wait(). There is room. */
static inline void gyre__uring_made(struct gyre__uring *u, struct gyre__op *op, int32_t res)
{
    op->flags |= GYRE_UOP_MADE;
    u->done[u->ndone++] = (struct gyre__event){.op = op, .res = res};
}

static inline struct gyre__uring *gyre__uring_of(struct gyre__backend *be)
{
    return (struct gyre__uring *)(void *)be;
}

/* prep.c */
void gyre__uring_prep(const struct gyre__uring *u, struct io_uring_sqe *sqe, const struct gyre__op *op);
/* What a poll that `op` waits by asks for. */
unsigned gyre__uring_poll_mask(const struct gyre__op *op);
/* Put the socket into blocking or non-blocking mode. */
void gyre__uring_set_mode(struct gyre__fd *f, bool nonblocking);

/* dgram.c */
void gyre__uring_prep_recvmsg(const struct gyre__uring *u, struct io_uring_sqe *sqe, const struct gyre__op *op);
/* Where there is no multishot receive: receive one datagram, whose buffer goes into `ev`. Returns its result, or
 * -EAGAIN if there is none. */
int32_t gyre__uring_recvmsg_once(struct gyre__uring *u, struct gyre__op *op, struct gyre__event *ev);

/* accept.c: the poll of a shared listener's accept is over with out->res. Accept what waits; returns how many events
 * that makes, at most `cap`. */
unsigned gyre__uring_accept_polled(struct gyre__uring *u, struct gyre__op *op, struct gyre__event *out, unsigned cap);
int gyre__uring_accept_now(struct gyre__backend *be, struct gyre__fd *f);

/* What went wrong, for a person: the call or the step `what` failed with `err`. */
struct gyre__uring_failure {
    const char *what;
    int err;
    bool lacks; /* no call failed, but `what` does not work here; `err` is -EOPNOTSUPP */
};

/* setup.c: open without any trial; `use` says which features to try. Returns 0 or -errno and then fills `failure`. */
int gyre__uring_open(struct gyre__uring **out, const struct gyre__backend_ops *ops,
                     const struct gyre__backend_config *cfg, uint32_t use, struct gyre__uring_failure *failure);

/* setup.c: set up and map a ring with the best of the features in `use` that the kernel takes, and say in `use` which
 * those are. Returns 0 or -errno; after an error nothing is left open. */
int gyre__uring_setup(struct io_uring *ring, const struct gyre__backend_config *cfg, uint32_t *use,
                      struct gyre__uring_failure *failure);
/* Unmap and close a ring that was set up. */
void gyre__uring_teardown(struct io_uring *ring);
/* Fill in a failure; both return its error. */
int gyre__uring_fail(struct gyre__uring_failure *failure, const char *what, int err);
int gyre__uring_lacks(struct gyre__uring_failure *failure, const char *what);

/* probe.c */
uint32_t gyre__uring_off(const struct gyre__backend_config *cfg);
int gyre__uring_trial(const struct gyre__backend_ops *ops, const struct gyre__backend_config *cfg, uint32_t *use,
                      struct gyre__uring_failure *failure);
/* explain.c */
void gyre__uring_explain(const struct gyre__uring_failure *failure, char *why, size_t why_size);
/* probe.c */
void gyre__uring_feature_words(uint32_t use, char *out, size_t size);

extern const struct gyre__backend_ops gyre__backend_uring;

#endif
