/* SPDX-License-Identifier: MIT
 * The smaller seam: what epoll and kqueue provide to the readiness engine, and the engine's own functions that the two
 * put into their backend tables.
 *
 * A poller watches descriptors edge-triggered and says which may be read or written; it performs nothing and knows no
 * operation. All its functions but wake() are called from the loop's thread. */
#ifndef GYRE_READINESS_POLLER_H
#define GYRE_READINESS_POLLER_H

#include "seam/backend.h"
#include "seam/op.h"

/* A direction is the index of a queue, and the number of a bit. */
enum { GYRE_DIR_READ = 0, GYRE_DIR_WRITE = 1 };

/* What the engine keeps in gyre__fd.be_flags. The first three are also a poller's answer. */
enum {
    GYRE_RDF_READABLE = 1u << GYRE_DIR_READ,  /* believed until a receive says EAGAIN or as much */
    GYRE_RDF_WRITABLE = 1u << GYRE_DIR_WRITE, /* believed until a call says EAGAIN */
    GYRE_RDF_ODD = 1u << 2, /* hang-up, error or urgent data was seen: a short receive proves nothing */
    GYRE_RDF_WATCHING_WRITE = 1u << 3, /* watch_write() was called */
    GYRE_RDF_QUEUED = 1u << 4, /* in the run queue of the read direction; shifted by 1: of the write direction */
    GYRE_RDF_FILLED = 1u << 6, /* the last receive filled its buffer, or the last accept gave a connection */
    GYRE_RDF_FAILED = 1u << 7, /* the poller told of an error, which no call has told of since; see error.c */
};

struct gyre__ready {
    struct gyre__fd *f; /* NULL: wake() was called */
    uint8_t bits;      /* GYRE_RDF_READABLE, _WRITABLE, _ODD */
    int32_t err;       /* the socket's error if the poller knows it, which may have taken it from the socket; else 0 */
};

struct gyre__poller {
    int fd;
    int wake_fd;  /* epoll's eventfd; -1 where the poller wakes itself */
    bool precise; /* takes nanoseconds; else time-outs are rounded up to milliseconds */
    bool urgent;  /* tells of urgent data */
};

struct gyre__poller_ops {
    int (*open)(struct gyre__poller *p); /* on failure -errno; close() is called even so */
    /* Let wait() poll network devices for so long before it sleeps, and hold interrupts off meanwhile if `prefer`.
     * Returns 0 or -errno, and then all is as before. NULL: it cannot. */
    int (*busy_poll)(struct gyre__poller *p, uint32_t us, bool prefer);
    void (*close)(struct gyre__poller *p);
    /* Watch for reading, for the life of the descriptor. What is ready already is reported by the next wait(). */
    int (*add)(struct gyre__poller *p, struct gyre__fd *f);
    /* From now on watch for writing too. If that is possible already, the next wait() says so. */
    int (*watch_write)(struct gyre__poller *p, struct gyre__fd *f);
    /* Stop watching; wait() never names `f` again. The descriptor may stay open, also as a copy. */
    void (*remove)(struct gyre__poller *p, struct gyre__fd *f);
    /* At most `timeout_ns`, 0 to look, -1 for ever; never early. Returns how many answers, or -errno. */
    int (*wait)(struct gyre__poller *p, struct gyre__ready *out, unsigned cap, int64_t timeout_ns);
    void (*wake)(struct gyre__poller *p); /* any thread, any signal handler */
    const char *(*features)(const struct gyre__poller *p);
};

/* ---- life.c and readiness.c: the functions of a backend table, see seam/backend.h. ---- */

int gyre__rd_create(struct gyre__backend **out, const struct gyre__backend_config *cfg,
                    const struct gyre__backend_ops *ops, const struct gyre__poller_ops *poller, char *why,
                    size_t why_size);
void gyre__rd_destroy(struct gyre__backend *be);
int gyre__rd_attach(struct gyre__backend *be, struct gyre__fd *f);
void gyre__rd_close(struct gyre__backend *be, struct gyre__fd *f);
int gyre__rd_detach(struct gyre__backend *be, struct gyre__fd *f);
int gyre__rd_accept_now(struct gyre__backend *be, struct gyre__fd *f); /* perform.c */
void gyre__rd_submit(struct gyre__backend *be, struct gyre__op *op);
void gyre__rd_cancel(struct gyre__backend *be, struct gyre__op *op);
int gyre__rd_wait(struct gyre__backend *be, struct gyre__event *out, unsigned cap, int64_t timeout_ns);
void gyre__rd_wake(struct gyre__backend *be);
int gyre__rd_pollable(struct gyre__backend *be);
int gyre__rd_pool_add(struct gyre__backend *be, struct gyre__bufpool *pool);
void gyre__rd_pool_remove(struct gyre__backend *be, struct gyre__bufpool *pool);
void gyre__rd_features(struct gyre__backend *be, char *out, size_t size);

/* Everything but name and create. */
#define GYRE_READINESS_BACKEND                                                                                         \
    .sock = &gyre__sock_system, .destroy = gyre__rd_destroy, .attach = gyre__rd_attach, .close = gyre__rd_close,       \
    .detach = gyre__rd_detach, .accept_now = gyre__rd_accept_now, .submit = gyre__rd_submit,                           \
    .cancel = gyre__rd_cancel, .wait = gyre__rd_wait, .wake = gyre__rd_wake, .pollable = gyre__rd_pollable,            \
    .pool_add = gyre__rd_pool_add, .pool_remove = gyre__rd_pool_remove, .features = gyre__rd_features

/* ---- error.c: errors that a poller told of. ---- */

struct gyre__kept_errors {
    uint8_t *by_fd; /* of descriptors with GYRE_RDF_FAILED */
    uint32_t room;
};

/* Keep `err` for `f`. */
void gyre__error_keep(struct gyre__kept_errors *all, const struct gyre_mem *mem, struct gyre__fd *f, int32_t err);
/* A call for `op`, of whose descriptor an error is kept, made `n` events, the last of them `ev`. Puts the error in its
 * place if it says less. Returns how many events there are now. */
unsigned gyre__error_tell(const struct gyre__kept_errors *all, struct gyre__op *op, struct gyre__event *ev, unsigned n);

/* ---- perform.c: the system calls. ---- */

/* Make the system call for `op` once, and write what came of it to `out`, which has room for `room` events, at least
 * one. Returns how many events: none if it would block, and then nothing has changed. All have GYRE_EV_MORE if `op`
 * stays armed. Takes the belief in reading back if the call has shown that the next one would block. */
unsigned gyre__perform(struct gyre__op *op, struct gyre__event *out, unsigned room, struct gyre_stats *stats);

enum {
    GYRE_BLOCKED = INT32_MIN, /* in place of a result; no errno is that large */
    GYRE_DGRAM_BATCH = 32,    /* datagrams in one call, at most */
};

/* dgram.c: receive datagrams, an event for each; as gyre__perform(). */
unsigned gyre__perform_recvmsg(const struct gyre__op *op, struct gyre__event *out, unsigned room,
                               struct gyre_stats *stats);

/* dgram.c: send the datagrams of `count` ops of one descriptor, in order, as far as it goes; at most GYRE_DGRAM_BATCH.
 * Returns how many of them, from the first on, have ended, each with an event: none if it would block. */
unsigned gyre__perform_sendmsgs(struct gyre__op *const *ops, unsigned count, struct gyre__event *out,
                                struct gyre_stats *stats);

/* Make a descriptor fit for gyre__perform(): it must not block, nor raise SIGPIPE. Returns 0 or -errno. */
int gyre__perform_prepare(const struct gyre__fd *f);

/* Make it block again, for its next owner. */
void gyre__perform_restore(int fd);

#endif
