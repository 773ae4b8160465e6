/* SPDX-License-Identifier: MIT
 * What a test stands on: an allocator that keeps a balance, the number of open descriptors, a fresh directory, random
 * numbers from a seed, the clock, and a byte pattern that shows any loss, doubling or exchange of bytes. */
#ifndef GYRE_TEST_ENV_H
#define GYRE_TEST_ENV_H

#include <gyre/base.h>

#include <stdatomic.h>

/* A memory hook that counts. Blocks are filled with rubbish when they are made and again before they are freed. */
struct env_mem {
    struct gyre_mem mem;     /* give this one away; it points back to its owner */
    atomic_long blocks;      /* made and not yet freed */
    atomic_long bytes;       /* in them */
    atomic_long calls;       /* that made or enlarged a block */
};

void env_mem_init(struct env_mem *m);

/* How many descriptors this process has open, the one used for counting left out. */
int env_fd_count(void);

/* How many threads the kernel made for this process's rings (iou-wrk). Sockets need none: one that blocks would hold up
 * others. */
int env_worker_count(void);
/* Fail the test if there are any. The suites ask this at the end of each test, before its loops are destroyed. */
void env_no_workers(void);

/* Make an empty directory and write its name to `out`; remove it together with the plain files and sockets in it. */
void env_dir_make(char *out, size_t size);
void env_dir_remove(const char *dir);

/* CLOCK_MONOTONIC, in nanoseconds. */
uint64_t env_now_ns(void);

/* Random numbers from a seed: the same seed, the same numbers. */
struct env_rng {
    uint64_t state;
};

/* The seed is GYRE_TEST_SEED from the environment if there is one, else `seed`. */
void env_rng_init(struct env_rng *rng, uint64_t seed);
uint64_t env_rng_next(struct env_rng *rng);
uint32_t env_rng_below(struct env_rng *rng, uint32_t bound); /* 0 .. bound-1 */

/* The stream of bytes that belongs to `key`. No two keys below 1000 agree for long, nor does a stream with itself moved
 * by less than 65521 bytes. */
void env_pattern_fill(uint8_t *buf, size_t len, uint32_t key, uint64_t offset);
/* The index of the first wrong byte, or -1. */
int64_t env_pattern_check(const uint8_t *buf, size_t len, uint32_t key, uint64_t offset);

#endif
