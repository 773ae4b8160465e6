/* SPDX-License-Identifier: MIT
 * Segments: allocation, copying in, consuming, splitting, and freeing what a segment refers to. */
#include "pipes.h"
#include "seg.h"

#include <errno.h>
#include <string.h>

enum { CHUNK_GROWN_MAX = 256 << 10 };

struct gyre__seg_slab {
    struct gyre__seg_slab *next;
    struct gyre__seg segs[GYRE_SEGS_PER_SLAB];
};

void gyre__segs_init(struct gyre__segs *segs, const struct gyre_mem *mem, struct gyre__bufpool *pool,
                     struct gyre__backend *be)
{
    *segs = (struct gyre__segs){.mem = mem, .pool = pool, .be = be};
}

void gyre__segs_fini(struct gyre__segs *segs)
{
    gyre__segs_settle(segs);
    for (unsigned k = 0; k < GYRE_CHUNK_CLASSES; k++)
        while (segs->free_chunks[k] != NULL) {
            struct gyre__seg *chunk = segs->free_chunks[k];
            segs->free_chunks[k] = chunk->next;
            gyre__free(segs->mem, chunk);
        }
    while (segs->slabs != NULL) {
        struct gyre__seg_slab *slab = segs->slabs;
        segs->slabs = slab->next;
        gyre__free(segs->mem, slab);
    }
}

/* A burst of tiny pieces leaves no more behind than the slabs that are kept. */
static struct gyre__seg *refill_single(struct gyre__segs *segs)
{
    struct gyre__seg *seg = gyre__alloc(segs->mem, sizeof *seg);
    if (seg == NULL)
        return NULL;
    seg->single = true;
    seg->next = NULL;
    segs->free = seg;
    return seg;
}

struct gyre__seg *gyre__seg_refill(struct gyre__segs *segs)
{
    if (segs->slab_count == GYRE_SEG_SLABS_KEPT)
        return refill_single(segs);
    struct gyre__seg_slab *slab = gyre__alloc(segs->mem, sizeof *slab);
    if (slab == NULL)
        return NULL;
    slab->next = segs->slabs;
    segs->slabs = slab;
    segs->slab_count++;
    for (size_t i = GYRE_SEGS_PER_SLAB; i-- > 0;) {
        slab->segs[i].single = false;
        slab->segs[i].next = segs->free;
        segs->free = &slab->segs[i];
    }
    return segs->free;
}

/* What a chunk of a class holds: with its segment and what the allocator adds a power of two. */
static uint32_t class_size(unsigned k)
{
    return ((GYRE_CHUNK_SIZE + 64u) << k) - 64u;
}

/* The smallest class that holds so much; GYRE_CHUNK_CLASSES if none does. */
static unsigned class_of(uint32_t size_bytes)
{
    unsigned k = 0;
    while (k < GYRE_CHUNK_CLASSES && class_size(k) < size_bytes)
        k++;
    return k;
}

struct gyre__seg *gyre__seg_chunk(struct gyre__segs *segs, uint32_t size_bytes)
{
    unsigned k = class_of(size_bytes);
    uint32_t size = k < GYRE_CHUNK_CLASSES ? class_size(k) : size_bytes;
    struct gyre__seg *seg = k < GYRE_CHUNK_CLASSES ? segs->free_chunks[k] : NULL;
    if (seg != NULL) {
        segs->free_chunks[k] = seg->next;
        segs->free_chunk_bytes -= size;
    } else {
        seg = gyre__resize_many(segs->mem, NULL, sizeof *seg, size, 1);
        if (seg == NULL)
            return NULL;
    }
    *seg = (struct gyre__seg){.kind = GYRE_SEG_CHUNK, .data = gyre__seg_chunk_start(seg)};
    seg->u.chunk.room = size;
    seg->u.chunk.size = size;
    return seg;
}

static void free_chunk(struct gyre__segs *segs, struct gyre__seg *seg)
{
    uint32_t size = seg->u.chunk.size;
    unsigned k = class_of(size);
    if (k == GYRE_CHUNK_CLASSES || segs->free_chunk_bytes + size > GYRE_CHUNK_BYTES_KEPT) {
        gyre__free(segs->mem, seg);
        return;
    }
    seg->next = segs->free_chunks[k];
    segs->free_chunks[k] = seg;
    segs->free_chunk_bytes += size;
}

/* Give back the pipe of a PIPE segment; with bytes in it it is closed. */
static void free_pipe(struct gyre__segs *segs, const struct gyre__seg *seg)
{
    if (seg->len == 0)
        gyre__bufpool_give_pipe(segs->pool, seg->buf);
    else
        gyre__pipes_close(segs->pool, segs->be, seg->buf);
}

void gyre__seg_free(struct gyre__segs *segs, struct gyre__seg *seg, int err)
{
    switch ((enum gyre__seg_kind)seg->kind) {
    case GYRE_SEG_CHUNK:
        free_chunk(segs, seg);
        return;
    case GYRE_SEG_BUF:
        gyre__bufpool_release(segs->pool, seg->buf);
        break;
    case GYRE_SEG_PIPE:
        free_pipe(segs, seg);
        break;
    case GYRE_SEG_FILE:
    case GYRE_SEG_REF:
        if (seg->u.ref.done != NULL) {
            gyre_sent_fn *done = seg->u.ref.done;
            seg->u.ref.done = NULL;
            done(err, seg->u.ref.user);
        }
        break;
    }
    if (GYRE_UNLIKELY(seg->single)) {
        gyre__free(segs->mem, seg);
        return;
    }
    seg->kind = 0;
    seg->next = segs->free;
    segs->free = seg;
}

void gyre__segs_settle_slow(struct gyre__segs *segs)
{
    while (segs->limbo != NULL) {
        struct gyre__seg *seg = segs->limbo;
        segs->limbo = seg->next;
        gyre__seg_free(segs, seg, 0);
    }
}

/* Chunks grow with the queue, so that a long one is still of few pieces. */
static uint32_t chunk_size(const struct gyre__segq *q, size_t len)
{
    uint32_t grown = q->bytes < CHUNK_GROWN_MAX ? q->bytes : CHUNK_GROWN_MAX;
    return len > grown ? (uint32_t)len : grown;
}

int gyre__segq_append(struct gyre__segq *q, struct gyre__segs *segs, const void *data, size_t len)
{
    const uint8_t *from = data;
    struct gyre__seg *tail = q->tail;
    size_t fits = tail != NULL && tail->kind == GYRE_SEG_CHUNK ? tail->u.chunk.room : 0;
    if (fits > len)
        fits = len;
    struct gyre__seg *fresh = NULL;
    if (fits < len) {
        fresh = gyre__seg_chunk(segs, chunk_size(q, len - fits));
        if (fresh == NULL)
            return -ENOMEM;
    }
    if (fits > 0) {
        memcpy(tail->data + tail->len, from, fits);
        tail->len += (uint32_t)fits;
        tail->u.chunk.room -= (uint32_t)fits;
        q->bytes += (uint32_t)fits;
    }
    if (fresh != NULL) {
        memcpy(fresh->data, from + fits, len - fits);
        fresh->len = (uint32_t)(len - fits);
        fresh->u.chunk.room -= fresh->len;
        gyre__segq_push(q, fresh);
    }
    return 0;
}

void gyre__segq_clear(struct gyre__segq *q, struct gyre__segs *segs, int err)
{
    while (q->tail != NULL)
        gyre__seg_free(segs, gyre__segq_pop(q), err);
}

void gyre__segq_consume(struct gyre__segq *q, struct gyre__segs *segs, size_t len, bool retire)
{
    while (len > 0 && q->tail != NULL) {
        struct gyre__seg *head = gyre__segq_head(q);
        GYRE_ASSERT(head->kind != GYRE_SEG_PIPE);
        if (len < head->len) {
            head->data += len;
            head->len -= (uint32_t)len;
            q->bytes -= (uint32_t)len;
            return;
        }
        len -= head->len;
        (void)gyre__segq_pop(q);
        if (retire)
            gyre__seg_retire(segs, head);
        else
            gyre__seg_free(segs, head, 0);
    }
}

/* A borrowed piece stays with its `done` at the end: that is when the last byte has left. */
int gyre__segq_split_head(struct gyre__segq *q, struct gyre__segs *segs, uint32_t len)
{
    struct gyre__seg *head = gyre__segq_head(q), *first;
    GYRE_ASSERT(head != NULL && head->kind != GYRE_SEG_PIPE && len > 0 && len < head->len);
    if (head->kind == GYRE_SEG_CHUNK) {
        first = gyre__seg_chunk(segs, len);
        if (first == NULL)
            return -ENOMEM;
        memcpy(first->data, head->data, len);
        first->len = len;
        first->u.chunk.room -= len;
    } else {
        first = gyre__seg_new(segs, (enum gyre__seg_kind)head->kind, head->data, len);
        if (first == NULL)
            return -ENOMEM;
        first->buf = head->buf;
        first->u.ref.done = NULL;
        if (head->kind == GYRE_SEG_BUF)
            gyre__bufpool_hold(segs->pool, head->buf);
    }
    head->data += len;
    head->len -= len;
    q->bytes -= len;
    gyre__segq_push_front(q, first);
    return 0;
}
