/* SPDX-License-Identifier: MIT
 * Segment queues against a model that is a plain array of bytes.
 *
 * Two queues, because forwarding moves segments from one to the other. After every operation both are compared with
 * their arrays, and every borrowed piece with its account: `done` once, after its last byte, never before. */
#include "buffer/seg.h"

#include "env.h"
#include "fault_mem.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { QUEUES = 2, BUF_SIZE = 2048, BUFS = 24, MODEL_MAX = 1 << 20, OPERATIONS = 25000 };

struct borrowed {
    uint8_t *bytes;
    uint64_t end;      /* where its last byte lies in the stream of its queue */
    unsigned queue;
    bool in_queue;
    int want_err;      /* what clearing its queue would tell */
    unsigned done;
    int err;
    struct borrowed *next;
};

struct array {
    uint8_t bytes[MODEL_MAX];
    size_t len;
};

static struct fault_mem mem;
static struct gyre__bufpool pool;
static struct gyre__segs segs;
static struct gyre__segq queue[QUEUES];
static struct array model[QUEUES];
static struct borrowed *all;
static struct env_rng rng;
static uint8_t next_byte;

static void open_segs(void)
{
    fault_mem_init(&mem, 0, FAULT_ONCE);
    env_rng_init(&rng, 21);
    cr_assert_eq(gyre__bufpool_init(&pool, &mem.mem, BUF_SIZE, 4, BUFS), 0);
    gyre__segs_init(&segs, &mem.mem, &pool, NULL);
}

static void close_segs(void)
{
    for (unsigned q = 0; q < QUEUES; q++)
        gyre__segq_clear(&queue[q], &segs, -ECONNRESET);
    gyre__segs_settle(&segs);
    for (unsigned b = 0; b < BUFS; b++)
        cr_assert_eq(pool.refs[b], 0, "buffer %u is still referred to", b);
    cr_assert_eq(gyre__bufpool_available(&pool), BUFS);
    gyre__segs_fini(&segs);
    gyre__bufpool_fini(&pool);
    cr_assert_eq(atomic_load(&mem.counted.blocks), 0, "memory was left behind");
    for (struct borrowed *b = all, *next; b != NULL; b = next) {
        next = b->next;
        cr_assert_eq(b->done, 1, "done was called %u times", b->done);
        free(b->bytes);
        free(b);
    }
    all = NULL;
}

TestSuite(seg, .init = open_segs, .fini = close_segs);

/* ---- the model ---- */

static void compare(unsigned q)
{
    const struct gyre__seg *seg = gyre__segq_head(&queue[q]);
    size_t at = 0;
    for (; seg != NULL; seg = seg == queue[q].tail ? NULL : seg->next) {
        cr_assert_leq(at + seg->len, model[q].len, "queue %u has more than it should", q);
        cr_assert_eq(memcmp(seg->data, model[q].bytes + at, seg->len), 0, "queue %u has wrong bytes", q);
        if (seg->kind == GYRE_SEG_BUF)
            cr_assert_gt(pool.refs[seg->buf], 0);
        at += seg->len;
    }
    cr_assert_eq(at, model[q].len, "queue %u has %zu bytes in place of %zu", q, at, model[q].len);
    cr_assert_eq(queue[q].bytes, model[q].len, "queue %u says %u and has %zu", q, queue[q].bytes, model[q].len);
}

static void model_push(unsigned q, const uint8_t *bytes, size_t len)
{
    memcpy(model[q].bytes + model[q].len, bytes, len);
    model[q].len += len;
}

static void model_drop(unsigned q, size_t len)
{
    memmove(model[q].bytes, model[q].bytes + len, model[q].len - len);
    model[q].len -= len;
    for (struct borrowed *b = all; b != NULL; b = b->next)
        if (b->in_queue && b->queue == q) {
            b->in_queue = b->end > len;
            b->end -= b->in_queue ? len : b->end;
        }
}

static bool room(unsigned q, size_t len)
{
    return model[q].len + len <= MODEL_MAX;
}

static void fill(uint8_t *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++)
        bytes[i] = next_byte++;
}

static void on_done(int err, void *user)
{
    struct borrowed *b = user;
    b->done++;
    b->err = err;
    cr_assert_eq(b->done, 1, "done came twice");
    memset(b->bytes, 0xee, 1); /* from now on it is the user's */
}

/* ---- operations ---- */

static void append(unsigned q, size_t len)
{
    uint8_t bytes[9000];
    fill(bytes, len);
    cr_assert_eq(gyre__segq_append(&queue[q], &segs, bytes, len), 0);
    memset(bytes, 0xcc, len); /* it must have been copied */
}

static void do_append(unsigned q)
{
    uint8_t bytes[9000];
    size_t len = env_rng_below(&rng, 4) == 0 ? env_rng_below(&rng, sizeof bytes) : env_rng_below(&rng, 200);
    if (!room(q, len))
        return;
    fill(bytes, len);
    cr_assert_eq(gyre__segq_append(&queue[q], &segs, bytes, len), 0);
    model_push(q, bytes, len);
    memset(bytes, 0xcc, sizeof bytes); /* it must have been copied */
}

static void do_buf(unsigned q)
{
    uint32_t len = 1 + env_rng_below(&rng, BUF_SIZE);
    int buf = room(q, len) ? gyre__bufpool_take(&pool) : GYRE_BUF_NONE;
    if (buf == GYRE_BUF_NONE)
        return;
    gyre__bufpool_receive(&pool, (uint16_t)buf);
    uint8_t *data = gyre__bufpool_data(&pool, (uint16_t)buf);
    fill(data, len);
    struct gyre__seg *seg = gyre__seg_new(&segs, GYRE_SEG_BUF, data, len);
    cr_assert_not_null(seg);
    seg->buf = (uint16_t)buf;
    gyre__segq_push(&queue[q], seg);
    model_push(q, data, len);
}

static struct borrowed *borrow(unsigned q, uint32_t len)
{
    struct borrowed *b = calloc(1, sizeof *b);
    cr_assert_not_null(b);
    b->bytes = malloc(len);
    cr_assert_not_null(b->bytes);
    fill(b->bytes, len);
    b->queue = q;
    b->in_queue = true;
    b->next = all;
    all = b;
    struct gyre__seg *seg = gyre__seg_new(&segs, GYRE_SEG_REF, b->bytes, len);
    cr_assert_not_null(seg);
    seg->u.ref.done = on_done;
    seg->u.ref.user = b;
    gyre__segq_push(&queue[q], seg);
    model_push(q, b->bytes, len);
    b->end = model[q].len;
    return b;
}

static void do_ref(unsigned q)
{
    uint32_t len = 1 + env_rng_below(&rng, 5000);
    if (room(q, len))
        (void)borrow(q, len);
}

static void do_consume(unsigned q)
{
    size_t len = env_rng_below(&rng, 12000);
    bool retire = env_rng_below(&rng, 2) == 0;
    gyre__segq_consume(&queue[q], &segs, len, retire);
    model_drop(q, len < model[q].len ? len : model[q].len);
    if (retire)
        gyre__segs_settle(&segs);
}

static void do_split(unsigned q)
{
    const struct gyre__seg *head = gyre__segq_head(&queue[q]);
    if (head != NULL && head->len > 1)
        cr_assert_eq(gyre__segq_split_head(&queue[q], &segs, 1 + env_rng_below(&rng, head->len - 1)), 0);
}

/* The head goes to the other queue's end, as forwarding does it with what was received; now and then back to its own
 * front. */
static void do_move(unsigned q)
{
    const struct gyre__seg *head = gyre__segq_head(&queue[q]);
    if (head == NULL || head->kind == GYRE_SEG_REF)
        return;
    uint32_t before = queue[q].bytes, len = head->len;
    struct gyre__seg *seg = gyre__segq_pop(&queue[q]);
    cr_assert_eq(queue[q].bytes, before - len);
    unsigned to = 1 - q;
    if (env_rng_below(&rng, 4) == 0 || !room(to, len)) {
        gyre__segq_push_front(&queue[q], seg);
        return;
    }
    gyre__segq_push(&queue[to], seg);
    model_push(to, model[q].bytes, len);
    model_drop(q, len);
}

static void check_borrowed(void)
{
    for (struct borrowed *b = all; b != NULL; b = b->next) {
        cr_assert_eq(b->done, b->in_queue ? 0 : 1, "%s", b->in_queue ? "done came before the last byte left"
                                                                     : "the last byte left and done did not come");
        cr_assert(b->done == 0 || b->err == b->want_err, "done was told %d", b->err);
    }
}

static void forget_borrowed(void)
{
    struct borrowed **at = &all;
    while (*at != NULL) {
        struct borrowed *b = *at;
        if (b->in_queue) {
            at = &b->next;
            continue;
        }
        *at = b->next;
        free(b->bytes);
        free(b);
    }
}

/* Appending, receiving, borrowing, splitting, moving, consuming at random, over both queues. */
Test(seg, agrees_with_the_model)
{
    static void (*const operations[])(unsigned) = {do_append, do_append, do_buf, do_buf,  do_ref,
                                                   do_split,  do_move,   do_move, do_consume, do_consume};
    for (unsigned i = 0; i < OPERATIONS; i++) {
        operations[env_rng_below(&rng, 10)](env_rng_below(&rng, QUEUES));
        if (i % 8 == 0) {
            compare(0);
            compare(1);
            check_borrowed();
            forget_borrowed();
        }
    }
    cr_assert_leq(segs.free_chunk_bytes, GYRE_CHUNK_BYTES_KEPT);
}

/* Clearing tells each borrowed piece what was said, once, and gives every buffer back. */
Test(seg, clearing)
{
    struct borrowed *b[5];
    for (unsigned i = 0; i < 5; i++) {
        b[i] = borrow(0, 100 + i);
        append(0, 300);
        do_buf(0);
    }
    gyre__segq_clear(&queue[0], &segs, -ECONNRESET);
    for (unsigned i = 0; i < 5; i++) {
        cr_assert_eq(b[i]->done, 1);
        cr_assert_eq(b[i]->err, -ECONNRESET);
    }
    cr_assert_null(queue[0].tail);
    cr_assert_eq(queue[0].bytes, 0);
    cr_assert_eq(gyre__bufpool_available(&pool), BUFS);
    model[0].len = 0;
}

/* A borrowed piece cut in many: `done` comes once, with its last part, wherever the parts went. */
Test(seg, a_borrowed_piece_in_parts)
{
    struct borrowed *b = borrow(0, 1000);
    for (int i = 0; i < 9; i++) {
        cr_assert_eq(gyre__segq_split_head(&queue[0], &segs, 100), 0);
        gyre__segq_push(&queue[1], gyre__segq_pop(&queue[0]));
        cr_assert_eq(b->done, 0);
    }
    cr_assert_eq(queue[1].bytes, 900);
    gyre__segq_clear(&queue[1], &segs, -EPIPE);
    cr_assert_eq(b->done, 0, "nine parts of ten are gone, the last is still borrowed");
    gyre__segq_consume(&queue[0], &segs, 100, false);
    cr_assert_eq(b->done, 1);
    cr_assert_eq(b->err, 0);
    model[0].len = 0;
}

/* A receive buffer in parts comes back with the last of them. */
Test(seg, a_receive_buffer_in_parts)
{
    int buf = gyre__bufpool_take(&pool);
    cr_assert_geq(buf, 0);
    gyre__bufpool_receive(&pool, (uint16_t)buf);
    struct gyre__seg *seg = gyre__seg_new(&segs, GYRE_SEG_BUF, gyre__bufpool_data(&pool, (uint16_t)buf), BUF_SIZE);
    cr_assert_not_null(seg);
    seg->buf = (uint16_t)buf;
    gyre__segq_push(&queue[0], seg);
    for (uint32_t len = BUF_SIZE / 2; len >= 16; len /= 2)
        cr_assert_eq(gyre__segq_split_head(&queue[0], &segs, len), 0);
    cr_assert_eq(pool.refs[buf], 8);
    gyre__segq_consume(&queue[0], &segs, BUF_SIZE / 2 + 100, false);
    cr_assert_eq(pool.refs[buf], 1);
    cr_assert_eq(pool.nfree, 0);
    gyre__segq_consume(&queue[0], &segs, BUF_SIZE, false);
    cr_assert_eq(pool.nfree, 1);
    cr_assert_eq(queue[0].bytes, 0);
}

/* What a handler took stays readable until it has returned, whatever it lies in. */
Test(seg, retired_until_settled)
{
    append(0, 5000);
    const struct gyre__seg *head = gyre__segq_head(&queue[0]);
    const uint8_t *view = head->data;
    uint8_t copy[GYRE_CHUNK_SIZE];
    size_t len = head->len < sizeof copy ? head->len : sizeof copy;
    memcpy(copy, view, len);
    gyre__segq_consume(&queue[0], &segs, 5000, true);
    append(0, 4000);
    cr_assert_eq(memcmp(view, copy, len), 0, "the view was used for something else");
    gyre__segs_settle(&segs);
    gyre__segq_clear(&queue[0], &segs, 0);
}

/* Appending without memory is refused whole: the queue is as before, room in its last chunk included. */
Test(seg, appending_without_memory)
{
    uint8_t bytes[20000];
    append(0, 100);
    for (size_t len = GYRE_CHUNK_SIZE - 100 + 1; len <= sizeof bytes; len += 997) {
        fill(bytes, len);
        fault_mem_arm(&mem, 1);
        uint32_t before = queue[0].bytes;
        cr_assert_eq(gyre__segq_append(&queue[0], &segs, bytes, len), -ENOMEM);
        cr_assert_eq(queue[0].bytes, before);
        cr_assert_eq(gyre__segq_head(&queue[0])->len, 100, "a part of it went in");
    }
    fault_mem_arm(&mem, 1); /* what fits needs no memory */
    cr_assert_eq(gyre__segq_append(&queue[0], &segs, bytes, GYRE_CHUNK_SIZE - 100), 0);
    cr_assert_eq(queue[0].bytes, GYRE_CHUNK_SIZE);
    fault_mem_arm(&mem, 0);
}

/* Splitting and making pieces without memory: an error, and the queue is as before. */
Test(seg, splitting_without_memory)
{
    append(0, 3000);
    fault_mem_arm(&mem, 1);
    cr_assert_eq(gyre__segq_split_head(&queue[0], &segs, 1000), -ENOMEM, "part of a chunk is copied");
    cr_assert_eq(gyre__segq_head(&queue[0])->len, 3000);
    cr_assert_eq(queue[0].bytes, 3000);
    fault_mem_arm(&mem, 1);
    cr_assert_null(gyre__seg_chunk(&segs, 100000));
    cr_assert_null(segs.free);
    fault_mem_arm(&mem, 1);
    cr_assert_null(gyre__seg_new(&segs, GYRE_SEG_REF, NULL, 0));
    fault_mem_arm(&mem, 0);
    cr_assert_eq(gyre__segq_split_head(&queue[0], &segs, 1000), 0);
    cr_assert_eq(queue[0].bytes, 3000);
}

/* In the steady state nothing is allocated: pieces and chunks of the usual size are used again. */
Test(seg, the_steady_state_allocates_nothing)
{
    for (int round = 0; round < 3; round++) {
        if (round == 1)
            fault_mem_arm(&mem, 0);
        for (int i = 0; i < 1000; i++) {
            append(0, 3000);
            do_buf(0);
            gyre__segq_consume(&queue[0], &segs, queue[0].bytes, i % 2 == 0);
            gyre__segs_settle(&segs);
            model[0].len = 0;
        }
    }
    cr_assert_eq(atomic_load(&mem.calls), 0, "%ld calls for memory", atomic_load(&mem.calls));
}

/* However many chunks come back, only so many are kept. */
Test(seg, chunks_are_not_hoarded)
{
    for (int i = 0; i < 500; i++) {
        struct gyre__seg *chunk = gyre__seg_chunk(&segs, 0);
        cr_assert_not_null(chunk);
        chunk->len = 1;
        gyre__segq_push(&queue[0], chunk);
    }
    long most = atomic_load(&mem.counted.blocks);
    gyre__segq_clear(&queue[0], &segs, 0);
    cr_assert_leq(segs.free_chunk_bytes, GYRE_CHUNK_BYTES_KEPT);
    cr_assert_leq(atomic_load(&mem.counted.blocks), most - 500 + GYRE_CHUNK_BYTES_KEPT / GYRE_CHUNK_SIZE);
}

/* A long queue of small appends is of few pieces, and none is beyond reason. */
Test(seg, long_queues_are_of_few_pieces)
{
    unsigned pieces = 0;
    for (int i = 0; i < 4000; i++)
        append(0, 1000);
    const struct gyre__seg *seg = gyre__segq_head(&queue[0]);
    for (; seg != NULL; seg = seg == queue[0].tail ? NULL : seg->next, pieces++)
        cr_assert_leq(seg->len, 1 << 20);
    cr_assert_leq(pieces, 64, "%u pieces for 4 MB", pieces);
}

/* A burst of pieces without memory of their own leaves so many slabs behind, and not all that it took. */
Test(seg, pieces_are_not_hoarded)
{
    enum { KEPT = GYRE_SEG_SLABS_KEPT * GYRE_SEGS_PER_SLAB, MORE = 50000 };
    static uint8_t byte;
    for (int i = 0; i < KEPT + MORE; i++) {
        struct gyre__seg *seg = gyre__seg_new(&segs, GYRE_SEG_REF, &byte, 1);
        cr_assert_not_null(seg);
        seg->u.ref.done = NULL;
        gyre__segq_push(&queue[0], seg);
    }
    long most = atomic_load(&mem.counted.blocks);
    gyre__segq_clear(&queue[0], &segs, 0);
    gyre__segs_settle(&segs);
    cr_assert_eq(atomic_load(&mem.counted.blocks), most - MORE);
    cr_assert_leq(atomic_load(&mem.counted.bytes), (long)(KEPT * sizeof(struct gyre__seg) * 11 / 10));
}
