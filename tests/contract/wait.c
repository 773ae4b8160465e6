/* SPDX-License-Identifier: MIT
 * wait(): its time-outs, its cap, and the descriptor that stands for it in a foreign loop. */
#include "stream.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* wait(0) looks and returns. */
BACKEND_TEST(wait, zero_returns_at_once)
{
    struct seam s;
    struct stream a, b;
    uint64_t best_ns = UINT64_MAX;
    seam_open(&s, p);
    stream_pair(&s, &a, &b, 1);
    stream_receive(&b, 0);
    for (int i = 0; i < 50; i++) {
        uint64_t start_ns = env_now_ns(), start_virtual_ns = seam_now_ns(&s);
        cr_assert_eq(seam_turn(&s, 0), 0);
        uint64_t took_ns = env_now_ns() - start_ns;
        best_ns = took_ns < best_ns ? took_ns : best_ns;
        if (!s.real)
            cr_assert_eq(seam_now_ns(&s), start_virtual_ns, "the clock moved during wait(0)");
    }
    cr_assert_lt(best_ns, (uint64_t)SEAM_MS(1), "wait(0) takes %llu ns", (unsigned long long)best_ns);
    stream_close(&a);
    stream_close(&b);
    seam_close(&s);
}

/* A wait without events lasts at least as long as it was told, and not much longer. */
BACKEND_TEST(wait, is_not_over_early)
{
    static const int64_t timeouts[] = {1, 1000, 300000, 999999, 1000001, 1500000, 50000000};
    struct seam s;
    struct stream a, b;
    seam_open(&s, p);
    stream_pair(&s, &a, &b, 1);
    stream_receive(&b, 0);
    (void)seam_turn(&s, SEAM_MS(1));
    for (unsigned round = 0; round < 5; round++)
        for (unsigned i = 0; i < sizeof timeouts / sizeof timeouts[0]; i++) {
            uint64_t start_ns = seam_now_ns(&s);
            cr_assert_eq(seam_turn(&s, timeouts[i]), 0);
            uint64_t took_ns = seam_now_ns(&s) - start_ns;
            cr_assert_geq(took_ns, (uint64_t)timeouts[i], "wait(%lld ns) was over after %llu", (long long)timeouts[i],
                          (unsigned long long)took_ns);
            cr_assert_lt(took_ns, (uint64_t)timeouts[i] + (uint64_t)SEAM_MS(2000));
        }
    stream_close(&a);
    stream_close(&b);
    seam_close(&s);
}

/* Whoever only ever looks (wait(0)) gets everything too: what was submitted is handed on, what came is taken. */
TRANSPORT_TEST(wait, zero_is_enough_to_make_progress)
{
    struct seam s;
    struct stream a, b;
    seam_open(&s, p);
    seam_pool(&s, 1024, 4, 8);
    stream_pair(&s, &a, &b, 1);
    stream_receive(&b, GYRE_OPF_POOL | GYRE_OPF_MULTI);
    stream_send(&a, 300000);
    stream_finish(&a);
    uint64_t end_ns = env_now_ns() + 20 * (uint64_t)SEAM_MS(1000);
    while (!b.eof) {
        cr_assert_lt(env_now_ns(), end_ns);
        seam_look(&s);
    }
    cr_assert_eq(b.got, 300000);
    stream_close(&a);
    stream_close(&b);
    seam_close(&s);
}

/* An endless wait returns with the event, not before. */
TRANSPORT_TEST(wait, endless_ends_with_the_event)
{
    struct seam s;
    struct stream a, b;
    seam_open(&s, p);
    stream_pair(&s, &a, &b, 1);
    for (unsigned round = 0; round < 50; round++) {
        stream_receive(&b, 0);
        stream_send(&a, 100);
        for (unsigned i = 0; !(b.got == (uint64_t)100 * (round + 1) && seam_idle(a.send)); i++) {
            cr_assert_leq(i, 200, "endless waits return without events");
            (void)seam_turn(&s, -1);
        }
        stream_pause(&b);
        for (unsigned i = 0; !seam_idle(b.recv); i++) {
            cr_assert_leq(i, 200, "endless waits return without events");
            (void)seam_turn(&s, -1);
        }
    }
    stream_close(&a);
    stream_close(&b);
    seam_close(&s);
}

enum { PAIRS = 40 };
static struct stream ends[2 * PAIRS];

static void open_pairs(struct seam *s)
{
    for (unsigned i = 0; i < PAIRS; i++)
        stream_pair(s, &ends[2 * i], &ends[2 * i + 1], 2 * i);
}

static void close_pairs(void)
{
    for (unsigned i = 0; i < 2 * PAIRS; i++)
        stream_close(&ends[i]);
}

/* Whatever the cap, every event comes once. */
TRANSPORT_TEST(wait, small_caps_lose_nothing)
{
    struct seam s;
    seam_open(&s, p);
    seam_pool(&s, 512, 8, 64);
    open_pairs(&s);
    for (s.cap = 1; s.cap <= 5; s.cap++) {
        uint64_t goal = 3000 * s.cap;
        for (unsigned i = 0; i < PAIRS; i++) {
            if (seam_idle(ends[2 * i + 1].recv))
                stream_receive(&ends[2 * i + 1], i % 2 ? GYRE_OPF_POOL : GYRE_OPF_POOL | GYRE_OPF_MULTI);
            stream_send(&ends[2 * i], 3000);
        }
        for (unsigned i = 0; i < PAIRS; i++)
            seam_until(&s, ends[2 * i + 1].got == goal);
    }
    s.cap = 7;
    close_pairs();
    seam_close(&s);
}

static bool readable(int fd, int timeout_ms)
{
    struct pollfd pfd = {.fd = fd, .events = POLLIN};
    int n = poll(&pfd, 1, timeout_ms);
    return n == 1 && (pfd.revents & POLLIN);
}

/* A few looks are enough to have what there is; they also settle what a backend has still to hand to the kernel. */
static void look_again(struct seam *s)
{
    for (int i = 0; i < 10; i++)
        seam_look(s);
}

/* The pollable descriptor is quiet when nothing is due, polls readable when something has come, and wait() finds it. */
REAL_TEST(wait, pollable_when_events_are_due)
{
    struct seam s;
    struct stream a, b;
    seam_open(&s, p);
    int fd = s.ops->pollable(s.be);
    cr_assert_geq(fd, 0);
    stream_pair(&s, &a, &b, 1);
    for (unsigned round = 0; round < 20; round++) {
        uint8_t bytes[100];
        stream_receive(&b, 0);
        look_again(&s);
        cr_assert_not(readable(fd, 2), "readable, and nothing is due");
        env_pattern_fill(bytes, sizeof bytes, a.key_out, b.got);
        cr_assert_eq(write(a.f.fd, bytes, sizeof bytes), (ssize_t)sizeof bytes);
        cr_assert(readable(fd, 5000), "a peer has written, and the descriptor does not poll readable");
        uint64_t got = b.got;
        for (int i = 0; i < 5 && b.got == got; i++)
            seam_look(&s);
        cr_assert_gt(b.got, got, "it polled readable, and wait(0) finds nothing");
        stream_pause(&b);
        seam_until(&s, seam_idle(b.recv));
    }
    stream_close(&a);
    stream_close(&b);
    seam_close(&s);
}

/* What wait() left behind because of its cap keeps the descriptor readable, to the last event. */
REAL_TEST(wait, pollable_while_events_are_left)
{
    struct seam s;
    seam_open(&s, p);
    int fd = s.ops->pollable(s.be);
    open_pairs(&s);
    for (unsigned i = 0; i < PAIRS; i++)
        stream_receive(&ends[2 * i + 1], 0);
    look_again(&s);
    for (unsigned i = 0; i < PAIRS; i++) {
        uint8_t byte;
        env_pattern_fill(&byte, 1, ends[2 * i].key_out, 0);
        ends[2 * i + 1].receiving = false;
        cr_assert_eq(write(ends[2 * i].f.fd, &byte, 1), 1);
    }
    s.cap = 1;
    uint64_t come = 0;
    for (unsigned turns = 0; come < PAIRS; turns++) {
        cr_assert(readable(fd, 5000), "%llu of %d events have come, and the descriptor is not readable",
                  (unsigned long long)come, PAIRS);
        cr_assert_lt(turns, 50 * PAIRS, "the descriptor is readable, and wait(0) finds nothing");
        come += (unsigned)seam_turn(&s, 0);
    }
    for (unsigned i = 0; i < PAIRS; i++)
        cr_assert_eq(ends[2 * i + 1].got, 1);
    s.cap = SEAM_BATCH;
    close_pairs();
    seam_close(&s);
}

/* A wake makes it readable too, or a foreign loop would sleep over a posted task. */
REAL_TEST(wait, pollable_after_a_wake)
{
    struct seam s;
    seam_open(&s, p);
    int fd = s.ops->pollable(s.be);
    for (int round = 0; round < 10; round++) {
        look_again(&s);
        cr_assert_not(readable(fd, 2), "readable, and nothing is due");
        s.ops->wake(s.be);
        cr_assert(readable(fd, 5000), "woken, and the descriptor does not poll readable");
        look_again(&s);
    }
    seam_close(&s);
}

static bool left_out(const char *word)
{
    return backends_names(getenv("GYRE_URING_OFF"), word) || backends_names(getenv("GYRE_TEST_OFF"), word);
}

/* The features in use are told, within the room there is. */
BACKEND_TEST(wait, features_are_told)
{
    struct seam s;
    char text[384], small[8];
    seam_open(&s, p);
    memset(text, 'x', sizeof text);
    s.ops->features(s.be, text, sizeof text);
    cr_assert_not_null(memchr(text, '\0', sizeof text), "features() does not end its text");
    if (strcmp(p->backend, "io_uring") == 0) /* with all left out there is nothing to tell */
        cr_assert_neq(backends_names(text, "direct"), left_out("direct"), "the features are \"%s\"", text);
    else
        cr_assert_gt(strlen(text), 0);
    memset(small, 'x', sizeof small);
    s.ops->features(s.be, small, 4);
    cr_assert_not_null(memchr(small, '\0', 4), "features() does not end a text cut short");
    cr_assert_eq(small[4], 'x', "features() wrote beyond its room");
    seam_close(&s);
}

/* Made and destroyed many times: nothing stays behind. */
BACKEND_TEST(wait, created_and_destroyed_fifty_times)
{
    for (int i = 0; i < 50; i++) {
        struct seam s;
        seam_open(&s, p);
        seam_close(&s);
    }
}

/* The clock of timers never goes back. */
BACKEND_TEST(wait, clock_never_goes_back)
{
    struct seam s;
    seam_open(&s, p);
    uint64_t last_ns = seam_now_ns(&s);
    for (int i = 0; i < 200; i++) {
        (void)seam_turn(&s, i % 10 ? 0 : 100000);
        uint64_t now_ns = seam_now_ns(&s);
        cr_assert_geq(now_ns, last_ns);
        last_ns = now_ns;
    }
    seam_close(&s);
}
