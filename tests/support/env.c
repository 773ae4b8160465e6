/* SPDX-License-Identifier: MIT
 * What a test stands on. Nothing here knows of backends. */
#include "env.h"
#include "base/random.h"

#include <criterion/criterion.h>

#include <dirent.h>
#include <stdalign.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { PATTERN_PERIOD = 65521, RUBBISH_NEW = 0xa7, RUBBISH_OLD = 0xd9 };

/* Stands before each block. */
struct head {
    alignas(max_align_t) size_t size_bytes;
};

static void *counted_new(struct env_mem *m, size_t size_bytes)
{
    struct head *h = malloc(sizeof *h + size_bytes);
    if (h == NULL)
        return NULL;
    h->size_bytes = size_bytes;
    memset(h + 1, RUBBISH_NEW, size_bytes);
    (void)atomic_fetch_add(&m->blocks, 1);
    (void)atomic_fetch_add(&m->bytes, (long)size_bytes);
    (void)atomic_fetch_add(&m->calls, 1);
    return h + 1;
}

static void counted_free(struct env_mem *m, void *ptr)
{
    struct head *h = (struct head *)ptr - 1;
    (void)atomic_fetch_sub(&m->blocks, 1);
    (void)atomic_fetch_sub(&m->bytes, (long)h->size_bytes);
    memset(ptr, RUBBISH_OLD, h->size_bytes);
    free(h);
}

/* Always moves, so that whoever keeps an old pointer is found out. */
static void *counted_resize(void *ptr, size_t size_bytes, void *user)
{
    struct env_mem *m = user;
    if (ptr == NULL)
        return counted_new(m, size_bytes);
    if (size_bytes == 0) {
        counted_free(m, ptr);
        return NULL;
    }
    size_t old_bytes = ((struct head *)ptr - 1)->size_bytes;
    void *moved = counted_new(m, size_bytes);
    if (moved == NULL)
        return NULL;
    memcpy(moved, ptr, old_bytes < size_bytes ? old_bytes : size_bytes);
    counted_free(m, ptr);
    return moved;
}

void env_mem_init(struct env_mem *m)
{
    m->mem = (struct gyre_mem){.resize = counted_resize, .user = m};
    atomic_init(&m->blocks, 0);
    atomic_init(&m->bytes, 0);
    atomic_init(&m->calls, 0);
}

int env_fd_count(void)
{
    DIR *dir = opendir("/proc/self/fd");
    cr_assert_not_null(dir, "/proc/self/fd cannot be read");
    int count = -1; /* the directory's own */
    for (struct dirent *e = readdir(dir); e != NULL; e = readdir(dir))
        if (e->d_name[0] != '.')
            count++;
    (void)closedir(dir);
    return count;
}

static bool is_worker(const char *thread)
{
    char path[300], name[32] = "";
    (void)snprintf(path, sizeof path, "/proc/self/task/%s/comm", thread);
    FILE *f = fopen(path, "r");
    if (f == NULL)
        return false; /* it is gone, or the entry names no thread */
    (void)fgets(name, sizeof name, f);
    (void)fclose(f);
    return strncmp(name, "iou-wrk", 7) == 0;
}

int env_worker_count(void)
{
    DIR *dir = opendir("/proc/self/task");
    int count = 0;
    if (dir == NULL)
        return 0;
    for (struct dirent *e = readdir(dir); e != NULL; e = readdir(dir))
        count += is_worker(e->d_name);
    (void)closedir(dir);
    return count;
}

void env_no_workers(void)
{
    int workers = env_worker_count();
    cr_assert_eq(workers, 0, "the ring has %d kernel workers", workers);
}

void env_dir_make(char *out, size_t size)
{
    int n = snprintf(out, size, "/tmp/gyre-test-XXXXXX");
    cr_assert(n > 0 && (size_t)n < size);
    cr_assert_not_null(mkdtemp(out), "no fresh directory");
}

void env_dir_remove(const char *dir)
{
    DIR *d = opendir(dir);
    if (d == NULL)
        return;
    for (struct dirent *e = readdir(d); e != NULL; e = readdir(d))
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            (void)unlinkat(dirfd(d), e->d_name, 0);
    (void)closedir(d);
    (void)rmdir(dir);
}

uint64_t env_now_ns(void)
{
    struct timespec ts;
    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

void env_rng_init(struct env_rng *rng, uint64_t seed)
{
    const char *env = getenv("GYRE_TEST_SEED");
    rng->state = env != NULL ? strtoull(env, NULL, 0) : seed;
}

uint64_t env_rng_next(struct env_rng *rng)
{
    return gyre__random_next(&rng->state);
}

uint32_t env_rng_below(struct env_rng *rng, uint32_t bound)
{
    return (uint32_t)(env_rng_next(rng) % bound);
}

/* Random bytes, their period a prime that no buffer size divides. */
static const uint8_t *pattern(void)
{
    static uint8_t bytes[PATTERN_PERIOD];
    static bool made;
    if (!made) {
        struct env_rng rng = {.state = 1};
        for (size_t i = 0; i < PATTERN_PERIOD; i++)
            bytes[i] = (uint8_t)env_rng_next(&rng);
        made = true;
    }
    return bytes;
}

static size_t pattern_start(uint32_t key, uint64_t offset)
{
    return (size_t)((key * 997u + offset) % PATTERN_PERIOD);
}

void env_pattern_fill(uint8_t *buf, size_t len, uint32_t key, uint64_t offset)
{
    const uint8_t *bytes = pattern();
    size_t at = pattern_start(key, offset);
    while (len > 0) {
        size_t run = PATTERN_PERIOD - at < len ? PATTERN_PERIOD - at : len;
        memcpy(buf, bytes + at, run);
        buf += run;
        len -= run;
        at = 0;
    }
}

int64_t env_pattern_check(const uint8_t *buf, size_t len, uint32_t key, uint64_t offset)
{
    const uint8_t *bytes = pattern();
    size_t at = pattern_start(key, offset);
    for (size_t done = 0; done < len;) {
        size_t run = PATTERN_PERIOD - at < len - done ? PATTERN_PERIOD - at : len - done;
        if (memcmp(buf + done, bytes + at, run) != 0) {
            while (buf[done] == bytes[at]) {
                done++;
                at++;
            }
            return (int64_t)done;
        }
        done += run;
        at = 0;
    }
    return -1;
}
