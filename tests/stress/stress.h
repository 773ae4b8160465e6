/* SPDX-License-Identifier: MIT
 * What the stress programs share: which backends to run, threads, random numbers, a pattern of bytes, and giving up.
 *
 * Plain programs, because Criterion does not run under ThreadSanitizer. Each takes the names of backends as arguments
 * (default: all that open here), prints a line for what it did with each, and ends with 0 only if all went well. What
 * one thread tells another goes through atomics: that the bytes crossed a socket is nothing the sanitizer sees with
 * io_uring. */
#ifndef GYRE_STRESS_H
#define GYRE_STRESS_H

#include "base/random.h"

#include <gyre.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { STRESS_SKIPPED = 77, STRESS_LIMIT_S = 300 };

#define MUST(cond)                                                                                                     \
    do {                                                                                                               \
        if (!(cond)) {                                                                                                 \
            (void)fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #cond);                                   \
            _exit(1);                                                                                                  \
        }                                                                                                              \
    } while (0)

static inline double stress_seconds(void)
{
    struct timespec ts;
    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static inline uint64_t stress_random(uint64_t *state)
{
    return gyre__random_next(state);
}

/* Byte `at` of the stream `key`. No two keys agree for long, and no stream with itself moved. */
static inline uint8_t stress_byte(uint32_t key, uint64_t at)
{
    uint64_t x = (at + 1) * 0x9e3779b97f4a7c15u + key * UINT64_C(0xd1342543de82ef95);
    return (uint8_t)(x >> 56 ^ x >> 24);
}

static inline void stress_fill(uint8_t *bytes, size_t len, uint32_t key, uint64_t at)
{
    for (size_t i = 0; i < len; i++)
        bytes[i] = stress_byte(key, at + i);
}

static inline bool stress_is(const uint8_t *bytes, size_t len, uint32_t key, uint64_t at)
{
    for (size_t i = 0; i < len; i++)
        if (bytes[i] != stress_byte(key, at + i))
            return false;
    return true;
}

static inline pthread_t stress_thread(void *(*run)(void *), void *arg)
{
    pthread_t thread;
    MUST(pthread_create(&thread, NULL, run, arg) == 0);
    return thread;
}

static inline void stress_too_long(int number)
{
    static const char text[] = "the time limit passed: something waits for ever\n";
    (void)number;
    (void)!write(STDERR_FILENO, text, sizeof text - 1);
    _exit(1);
}

/* Run `round` with each backend that is named, or opens here. Returns what main() is to return. */
static inline int stress_main(int argc, char **argv, void (*round)(const char *backend))
{
    static const char *const all[] = {"io_uring", "epoll", "kqueue"};
    int count = argc > 1 ? argc - 1 : 3, ran = 0;
    (void)signal(SIGALRM, stress_too_long);
    (void)alarm(STRESS_LIMIT_S);
    for (int i = 0; i < count; i++) {
        const struct gyre_loop_options options = {.backend = argc > 1 ? argv[i + 1] : all[i]};
        struct gyre_loop *loop;
        int err = gyre_loop_create(&loop, &options);
        if (err != 0) {
            printf("%s: left out: %s\n", options.backend, gyre_err_text(err));
            continue;
        }
        gyre_loop_destroy(loop);
        round(options.backend);
        ran++;
    }
    printf("%s: %d backend%s, no mismatch\n", ran > 0 ? "passed" : "skipped", ran, ran == 1 ? "" : "s");
    return ran > 0 ? 0 : STRESS_SKIPPED;
}

#endif
