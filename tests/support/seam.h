/* SPDX-License-Identifier: MIT
 * A core in miniature, to drive a backend through the seam and nothing else.
 *
 * It does what loop/loop.c does (moves the state of operations, counts them, dispatches events) and checks each event
 * against the promises of seam/backend.h on the way, so that every test is also a test of those. The same code runs on
 * kernel sockets and on the simulator: it never does I/O itself. */
#ifndef GYRE_TEST_SEAM_H
#define GYRE_TEST_SEAM_H

#include "backends.h"
#include "env.h"

#include "seam/backend.h"
#include "buffer/bufpool.h"

#include <netinet/in.h>
#include <sys/un.h>

#define SEAM_MS(n) ((int64_t)(n)*1000000)

enum { SEAM_BATCH = 64, SEAM_SIM_QUIET_MS = 5000, SEAM_PATIENCE_MS = 30000 };

struct seam;
struct seam_op;
struct stream;
typedef void seam_event_fn(struct seam *s, struct seam_op *so, const struct gyre__event *ev);

/* An operation and what became of it. Must live until seam_close(). */
struct seam_op {
    struct gyre__op op; /* first: events name it */
    uint32_t magic;
    seam_event_fn *on_event; /* after the checks; may submit, cancel and close; may be NULL */
    void *user;
    unsigned events;  /* all there were */
    unsigned lasts;   /* those without GYRE_EV_MORE */
    unsigned submits; /* times submitted; equal to `lasts` when it is idle */
    int32_t res;      /* of the newest event */
    uint16_t flags;   /* of the newest event */
    int64_t total;    /* sum of all positive results */
    bool cancelled;   /* asked for, since the last submit */
    bool hold;        /* on_event releases the pool buffers, not the seam */
    struct seam_op *next_made; /* the seam's, for those of seam_op_new() */
};

struct seam {
    const struct gyre__backend_ops *ops;
    struct gyre__backend *be;
    struct gyre_sim *sim;
    bool real; /* kernel sockets and time */
    enum transport transport;
    struct env_mem mem;
    struct gyre__bufpool pool;
    bool has_pool;
    unsigned cap; /* events asked for at once; at most SEAM_BATCH */
    unsigned listen_flags; /* more flags of listeners that are opened: GYRE_FDF_SHARED */

    unsigned inflight;     /* operations */
    unsigned fds;          /* attached */
    unsigned held;         /* pool buffers with receivers */
    uint64_t waits;        /* calls of wait() */
    uint64_t empty;        /* those that returned nothing */
    uint64_t events;       /* all */
    uint64_t enobufs;      /* receives that found the pool exhausted */
    void (*on_turn)(struct seam *s); /* after each batch; stream.c's, which keeps its streams here */
    struct stream *streams;

    struct seam_op *made;
    int fds_before; /* of the process */
    char dir[64];   /* for unix sockets */
    unsigned unix_count;
};

/* Open the backend of `p` (or skip the test), and close it. seam_close() holds the test to its accounts: nothing in
 * flight, nothing attached, all pool buffers back, the process's descriptors and the allocator's blocks as before. */
void seam_open(struct seam *s, const struct backend_param *p);
void seam_close(struct seam *s);
/* The part of it that frees the operations, for a test that destroys the backend itself. */
void seam_free_ops(struct seam *s);
/* Both in parts: seam_close() without the wait for a clean state, and with a backend config of one's own. */
void seam_open_config(struct seam *s, const struct backend_param *p, struct gyre__backend_config cfg);

/* Whether the backend uses this feature of the kernel. */
bool seam_uses(struct seam *s, const char *word);

/* Give the backend a pool of buffers. */
void seam_pool(struct seam *s, uint32_t size_bytes, uint32_t first, uint32_t count_max);

/* Put pipes into the pool; seam_close() wants all of them back. The backend's sockets must have some. */
void seam_pipes(struct seam *s, unsigned count);

/* Make an operation; it is freed by seam_close(). The others fill in one that is idle. */
struct seam_op *seam_op_new(struct seam *s);
void seam_accept(struct seam_op *so, struct gyre__fd *f, unsigned flags);
void seam_connect(struct seam_op *so, struct gyre__fd *f, const struct gyre__addr *addr);
void seam_recv(struct seam_op *so, struct gyre__fd *f, void *buf, uint32_t len);
void seam_recv_pool(struct seam_op *so, struct gyre__fd *f, struct gyre__bufpool *pool, unsigned flags);
void seam_send(struct seam_op *so, struct gyre__fd *f, const void *buf, uint32_t len);
void seam_splice(struct seam_op *so, struct gyre__fd *f, const struct gyre__pipe *pipe, uint32_t len);
void seam_poll(struct seam_op *so, struct gyre__fd *f, unsigned events);
void seam_sendmsg(struct seam_op *so, struct gyre__fd *f, struct msghdr *hdr);
void seam_recvmsg(struct seam_op *so, struct gyre__fd *f, struct gyre__bufpool *pool, struct msghdr *room);
/* The same for a datagram; `flags` may have GYRE_OPF_DONTWAIT. */
void seam_send_dgram(struct seam_op *so, struct gyre__fd *f, struct msghdr *hdr, unsigned flags);

void seam_submit(struct seam *s, struct seam_op *so);
void seam_cancel(struct seam *s, struct seam_op *so);
static inline bool seam_idle(const struct seam_op *so)
{
    return so->op.state == GYRE_OPS_IDLE;
}

/* Descriptors. seam_attach() fails the test if it fails; with GYRE_FDF_FOREIGN `f->fd` becomes a copy, of which the
 * simulator has none. seam_fd_close() is the backend's close() and its checks. */
void seam_attach(struct seam *s, struct gyre__fd *f, int fd, unsigned flags);
void seam_fd_close(struct seam *s, struct gyre__fd *f);
int seam_socket(struct seam *s); /* of the transport's family */
int seam_family(const struct seam *s);
unsigned seam_fd_flags(const struct seam *s, bool accepted);
/* A loopback address with no port, or an unused name, of the seam's transport. */
void seam_addr(struct seam *s, struct gyre__addr *out);

/* One wait() and the dispatch of what it brought. Returns the number of events. */
int seam_turn(struct seam *s, int64_t timeout_ns);
/* A glance: wait(0), or on the simulator, whose clock would stand still then, a wait of a millisecond. */
void seam_look(struct seam *s);
/* So many bytes of bulk, or on the simulator, which has small windows and checks every byte in flight, a part. */
uint32_t seam_bulk(const struct seam *s, uint32_t bytes);
/* Turns until nothing has come for so long; on the simulator, whose network may be slow, for some seconds of its
 * time. */
void seam_settle(struct seam *s, int64_t quiet_ns);
uint64_t seam_now_ns(struct seam *s);

/* Turn until the condition holds; fail the test if it does not within patience. */
#define seam_until(s, cond)                                                                                            \
    do {                                                                                                               \
        uint64_t seam_end_ns = env_now_ns() + (uint64_t)SEAM_MS(SEAM_PATIENCE_MS);                                     \
        while (!(cond))                                                                                                \
            seam_turn_before((s), seam_end_ns, #cond, __FILE__, __LINE__);                                             \
    } while (0)
void seam_turn_before(struct seam *s, uint64_t end_ns, const char *what, const char *file, int line);

#endif
