/* SPDX-License-Identifier: MIT
 * Segments: the pieces that inbound and outbound queues are made of.
 *
 * The one idea: both directions use the same piece, so forwarding is moving a segment from one queue to the other. A
 * segment refers to part of a receive buffer (counted in the pool), to a chunk of our own memory right behind it, to
 * bytes borrowed from the user, to a file, or to a pipe.
 *
 * Segments, and chunks of a few sizes up to a bound, are kept for reuse, so that the steady state allocates nothing. */
#ifndef GYRE_BUFFER_SEG_H
#define GYRE_BUFFER_SEG_H

#include "bufpool.h"

#include <gyre/base.h>

enum gyre__seg_kind {
    GYRE_SEG_BUF = 1, /* `data` lies in receive buffer `buf`, of which it holds one reference */
    GYRE_SEG_CHUNK,   /* `data` lies behind the segment; `room` more bytes may follow the last */
    GYRE_SEG_REF,     /* `data` is the user's until `done` */
    /* From here on without bytes that could be looked at. */
    GYRE_SEG_FILE, /* what is left of `u.ref.user`, a struct gyre__file; stream/sendfile.c */
    GYRE_SEG_PIPE, /* `len` bytes in pipe `buf`, and nothing else there; stream/splice.c */
};

enum {
    GYRE_CHUNK_SIZE = 4096 - 64, /* bytes in a chunk of the usual size */
    GYRE_CHUNK_CLASSES = 7,       /* the usual size, and each twice the one before: 4 to 256 KiB */
    GYRE_CHUNK_BYTES_KEPT = 1 << 20,
    GYRE_SEGS_PER_SLAB = 100,
    GYRE_SEG_SLABS_KEPT = 1000, /* 4 MB; what is needed beyond it is freed one by one */
};

struct gyre__seg {
    struct gyre__seg *next;
    uint8_t *data;
    uint32_t len;
    uint16_t buf;
    uint8_t kind;
    bool single; /* in no slab */
    union {
        struct {
            uint32_t room; /* bytes free behind data + len */
            uint32_t size; /* of the chunk */
        } chunk;
        struct {
            gyre_sent_fn *done;
            void *user;
        } ref;
    } u;
};

/* Where segments come from; one per loop. */
struct gyre__segs {
    const struct gyre_mem *mem;
    struct gyre__bufpool *pool;
    struct gyre__backend *be;
    struct gyre__seg *free;        /* segments without a chunk */
    struct gyre__seg *free_chunks[GYRE_CHUNK_CLASSES];
    struct gyre__seg *limbo;       /* taken by a handler that may still look at the bytes; see gyre__segs_settle() */
    struct gyre__seg_slab *slabs;
    uint32_t free_chunk_bytes;
    uint32_t slab_count;
};

/* A queue of segments, oldest first. Packed, for a connection has two. */
struct __attribute__((packed, aligned(4))) gyre__segq {
    struct gyre__seg *tail; /* circular: tail->next is the head; NULL: empty */
    uint32_t bytes;
};

/* `be` closes the pipes of PIPE segments; NULL: there will be none. */
void gyre__segs_init(struct gyre__segs *segs, const struct gyre_mem *mem, struct gyre__bufpool *pool,
                     struct gyre__backend *be);
void gyre__segs_fini(struct gyre__segs *segs);

/* Each returns NULL when out of memory. */
struct gyre__seg *gyre__seg_refill(struct gyre__segs *segs);
struct gyre__seg *gyre__seg_chunk(struct gyre__segs *segs, uint32_t size_bytes); /* an empty chunk of at least that */

/* Free a segment and what it refers to; a REF segment's `done` is called with `err`. */
void gyre__seg_free(struct gyre__segs *segs, struct gyre__seg *seg, int err);

/* Free it at the next gyre__segs_settle(), so that views of it stay valid until the handler has returned. */
static inline void gyre__seg_retire(struct gyre__segs *segs, struct gyre__seg *seg)
{
    seg->next = segs->limbo;
    segs->limbo = seg;
}

void gyre__segs_settle_slow(struct gyre__segs *segs);

static inline void gyre__segs_settle(struct gyre__segs *segs)
{
    if (GYRE_UNLIKELY(segs->limbo != NULL))
        gyre__segs_settle_slow(segs);
}

static inline struct gyre__seg *gyre__seg_new(struct gyre__segs *segs, enum gyre__seg_kind kind, void *data,
                                              uint32_t len)
{
    struct gyre__seg *seg = segs->free;
    if (GYRE_UNLIKELY(seg == NULL)) {
        seg = gyre__seg_refill(segs);
        if (seg == NULL)
            return NULL;
    }
    segs->free = seg->next;
    seg->kind = (uint8_t)kind;
    seg->data = data;
    seg->len = len;
    return seg;
}

static inline uint8_t *gyre__seg_chunk_start(struct gyre__seg *seg)
{
    return (uint8_t *)(seg + 1);
}

static inline struct gyre__seg *gyre__segq_head(const struct gyre__segq *q)
{
    return q->tail != NULL ? q->tail->next : NULL;
}

static inline void gyre__segq_push(struct gyre__segq *q, struct gyre__seg *seg)
{
    if (q->tail == NULL) {
        seg->next = seg;
    } else {
        seg->next = q->tail->next;
        q->tail->next = seg;
    }
    q->tail = seg;
    q->bytes += seg->len;
}

static inline void gyre__segq_push_front(struct gyre__segq *q, struct gyre__seg *seg)
{
    struct gyre__seg *tail = q->tail;
    gyre__segq_push(q, seg);
    if (tail != NULL)
        q->tail = tail;
}

static inline struct gyre__seg *gyre__segq_pop(struct gyre__segq *q)
{
    struct gyre__seg *seg = q->tail->next;
    if (seg == q->tail)
        q->tail = NULL;
    else
        q->tail->next = seg->next;
    q->bytes -= seg->len;
    return seg;
}

/* Append a copy. All or nothing. Returns 0 or -ENOMEM. */
int gyre__segq_append(struct gyre__segq *q, struct gyre__segs *segs, const void *data, size_t len);

/* Free every segment; `err` goes to REF segments. */
void gyre__segq_clear(struct gyre__segq *q, struct gyre__segs *segs, int err);

/* Drop `len` bytes (at most all) from the front, freeing with `err` 0 what is used up; with `retire` later. */
void gyre__segq_consume(struct gyre__segq *q, struct gyre__segs *segs, size_t len, bool retire);

/* Cut the head (longer than `len`) so that its first `len` bytes are a segment of their own. Returns 0 or -ENOMEM. */
int gyre__segq_split_head(struct gyre__segq *q, struct gyre__segs *segs, uint32_t len);

#endif
