/* SPDX-License-Identifier: MIT
 * The ring of receive buffers that the kernel takes from. */
#ifndef GYRE_URING_BUFRING_H
#define GYRE_URING_BUFRING_H

#include "compat.h"
#include "buffer/bufpool.h"
#include "base/check.h"

struct gyre__bufring {
    struct gyre__bufpool *pool;     /* NULL: none added */
    struct io_uring_buf_ring *ring; /* memory of ours that the kernel reads */
    size_t ring_bytes;
    uint16_t mask;
    uint16_t group;
    uint16_t tail;
    uint16_t posted; /* with the kernel, as far as completions told */
    uint16_t reserve; /* never posted */
    uint16_t target; /* how many to have posted at each enter */
    uint16_t least;  /* fewest that were posted since the last trim */
    bool starved;    /* a receive found none since */
    uint32_t quiet;  /* buffers received since the target last moved */
};

/* All but `reserve` buffers of the pool may be posted. */
int gyre__bufring_add(struct gyre__bufring *b, int ring_fd, struct gyre__bufpool *pool, uint16_t reserve);
void gyre__bufring_remove(struct gyre__bufring *b, int ring_fd);
void gyre__bufring_fill_slow(struct gyre__bufring *b);
/* The buffer posted last, off the ring again; only if the kernel cannot have used it yet. */
int gyre__bufring_unpost(struct gyre__bufring *b);
/* Sink the target if much of what was posted was not used lately, and take back what is posted beyond it, at most the
 * last `untouched`. */
void gyre__bufring_trim(struct gyre__bufring *b, unsigned untouched);
/* A completion brought buffer `buf` and nobody wants it. */
void gyre__bufring_return(struct gyre__bufring *b, uint16_t buf);

/* Before each enter: post buffers up to the target. */
static inline void gyre__bufring_fill(struct gyre__bufring *b)
{
    if (b->posted < b->target || b->starved)
        gyre__bufring_fill_slow(b);
}

/* A completion brought a buffer. */
static inline void gyre__bufring_took(struct gyre__bufring *b)
{
    GYRE_CHECK(b->posted > 0);
    b->posted--;
    b->quiet++;
}

#endif
