/* SPDX-License-Identifier: MIT
 * Promise 10: one thread uses a backend at a time, and wake() is for all others and for signal handlers. Worker threads
 * here only count and call wake(); all checks are made on the test's own thread. */
#include "stream.h"

#include <pthread.h>
#include <signal.h>
#include <sys/time.h>
#include <time.h>

#define LONG_NS (10 * SEAM_MS(1000)) /* far longer than any of this takes */

static void nap(int64_t ns)
{
    struct timespec ts = {.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};
    (void)nanosleep(&ts, NULL);
}

/* wake() before wait() is not lost, on a backend that has never waited and on one that has. */
BACKEND_TEST(wake, before_wait)
{
    struct seam s;
    seam_open(&s, p);
    for (int round = 0; round < 50; round++) {
        uint64_t start_ns = env_now_ns();
        s.ops->wake(s.be);
        cr_assert_eq(seam_turn(&s, round % 2 ? LONG_NS : -1), 0);
        cr_assert_lt(env_now_ns() - start_ns, (uint64_t)SEAM_MS(2000), "wake() was lost");
    }
    seam_close(&s);
}

/* A thousand wakes are worth one: they do not make the next thousand waits return. */
BACKEND_TEST(wake, many_before_wait)
{
    struct seam s;
    seam_open(&s, p);
    for (int round = 0; round < 5; round++) {
        for (int i = 0; i < 1000; i++)
            s.ops->wake(s.be);
        uint64_t start_ns = seam_now_ns(&s);
        cr_assert_eq(seam_turn(&s, LONG_NS), 0);
        cr_assert_lt(seam_now_ns(&s) - start_ns, (uint64_t)SEAM_MS(2000),
                     "one thousand wakes made no wait return early");
        unsigned early = 0;
        for (uint64_t waited_ns = 0; waited_ns < (uint64_t)SEAM_MS(20); early++) {
            start_ns = seam_now_ns(&s);
            cr_assert_eq(seam_turn(&s, SEAM_MS(20)), 0);
            waited_ns = seam_now_ns(&s) - start_ns;
            cr_assert_leq(early, 8, "one thousand wakes make many waits return early");
        }
    }
    seam_close(&s);
}

/* An event does not swallow a wake, nor a wake an event. */
TRANSPORT_TEST(wake, together_with_events)
{
    struct seam s;
    struct stream a, b;
    seam_open(&s, p);
    seam_pool(&s, 1024, 4, 8);
    stream_pair(&s, &a, &b, 1);
    stream_receive(&b, GYRE_OPF_POOL | GYRE_OPF_MULTI);
    for (unsigned round = 0; round < 300; round++) {
        stream_send(&a, 10);
        for (unsigned i = 0; i <= round % 3; i++)
            s.ops->wake(s.be);
        s.cap = 1 + round % 2;
        seam_until(&s, b.got == a.send_goal);
        seam_until(&s, seam_idle(a.send));
    }
    stream_close(&a);
    stream_close(&b);
    seam_close(&s);
}

struct waker {
    struct seam *s;
    unsigned times;
    int64_t pause_ns;
};

static void *wake_from_thread(void *arg)
{
    const struct waker *w = arg;
    for (unsigned i = 0; i < w->times; i++) {
        if (w->pause_ns > 0)
            nap(w->pause_ns);
        w->s->ops->wake(w->s->be);
    }
    return NULL;
}

/* Another thread ends a wait that has no end of its own. */
REAL_TEST(wake, from_another_thread_ends_an_endless_wait)
{
    struct seam s;
    seam_open(&s, p);
    for (int round = 0; round < 20; round++) {
        struct waker w = {.s = &s, .times = 1, .pause_ns = round % 2 ? 0 : SEAM_MS(3)};
        pthread_t thread;
        cr_assert_eq(pthread_create(&thread, NULL, wake_from_thread, &w), 0);
        cr_assert_eq(seam_turn(&s, -1), 0);
        cr_assert_eq(pthread_join(thread, NULL), 0);
    }
    seam_close(&s);
}

/* A wait that lasts longer than any clock field holds is ended by a wake, and not before. */
REAL_TEST(wake, ends_the_longest_wait)
{
    static const int64_t timeouts[] = {INT64_MAX, INT64_MAX / 2, (int64_t)INT32_MAX * 1000000 + 5, 1LL << 53};
    struct seam s;
    seam_open(&s, p);
    for (unsigned i = 0; i < 4; i++) {
        struct waker w = {.s = &s, .times = 1, .pause_ns = SEAM_MS(30)};
        pthread_t thread;
        uint64_t start_ns = env_now_ns();
        cr_assert_eq(pthread_create(&thread, NULL, wake_from_thread, &w), 0);
        cr_assert_eq(seam_turn(&s, timeouts[i]), 0);
        cr_assert_geq(env_now_ns() - start_ns, (uint64_t)SEAM_MS(29), "a wait of %lld ns returned at once",
                      (long long)timeouts[i]);
        cr_assert_eq(pthread_join(thread, NULL), 0);
    }
    seam_close(&s);
}

/* Four threads wake as fast as they can while bytes flow: all bytes come, and when the threads are gone the last wake
 * has been seen. */
REAL_TEST(wake, storm_from_four_threads)
{
    struct seam s;
    struct stream a, b;
    pthread_t threads[4];
    seam_open(&s, p);
    struct waker w = {.s = &s, .times = 5000};
    seam_pool(&s, 4096, 4, 8);
    stream_pair(&s, &a, &b, 1);
    stream_receive(&b, GYRE_OPF_POOL | GYRE_OPF_MULTI);
    for (int i = 0; i < 4; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, wake_from_thread, &w), 0);
    stream_send(&a, 4 << 20);
    stream_finish(&a);
    seam_until(&s, b.eof);
    cr_assert_eq(b.got, 4 << 20);
    for (int i = 0; i < 4; i++)
        cr_assert_eq(pthread_join(threads[i], NULL), 0);
    seam_settle(&s, SEAM_MS(5));
    w.times = 1;
    w.pause_ns = SEAM_MS(5);
    cr_assert_eq(pthread_create(&threads[0], NULL, wake_from_thread, &w), 0);
    cr_assert_eq(seam_turn(&s, -1), 0);
    cr_assert_eq(pthread_join(threads[0], NULL), 0);
    stream_close(&a);
    stream_close(&b);
    seam_close(&s);
}

static struct seam *signal_seam;
static volatile sig_atomic_t signals;

static void on_signal(int number)
{
    (void)number;
    signals++;
    if (signal_seam != NULL)
        signal_seam->ops->wake(signal_seam->be);
}

static void catch_alarm(int flags)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = flags};
    cr_assert_eq(sigaction(SIGALRM, &action, NULL), 0);
}

static void alarm_after(int64_t first_ns, int64_t then_ns)
{
    struct itimerval timer = {
        .it_value = {.tv_sec = 0, .tv_usec = (suseconds_t)(first_ns / 1000)},
        .it_interval = {.tv_sec = 0, .tv_usec = (suseconds_t)(then_ns / 1000)},
    };
    cr_assert_eq(setitimer(ITIMER_REAL, &timer, NULL), 0);
}

/* A signal handler calls wake(); with SA_RESTART too, where the interrupted system call may go on by itself. */
REAL_TEST(wake, from_a_signal_handler)
{
    struct seam s;
    seam_open(&s, p);
    signal_seam = &s;
    for (int round = 0; round < 10; round++) {
        signals = 0;
        catch_alarm(round % 2 ? SA_RESTART : 0);
        alarm_after(SEAM_MS(2), 0);
        seam_until(&s, seam_turn(&s, LONG_NS) == 0 && signals == 1);
    }
    seam_close(&s);
}

/* A signal whose handler does nothing ends a wait with 0, not with an error. */
REAL_TEST(wake, interrupted_wait_is_no_error)
{
    struct seam s;
    seam_open(&s, p);
    signal_seam = NULL;
    signals = 0;
    catch_alarm(0);
    alarm_after(SEAM_MS(10), 0);
    cr_assert_eq(seam_turn(&s, LONG_NS), 0);
    cr_assert_eq(signals, 1);
    seam_close(&s);
}

/* Signals every half millisecond while 8 MiB pass: no byte is lost and no wait fails. */
REAL_TEST(wake, storm_of_signals)
{
    struct seam s;
    struct stream a, b;
    seam_open(&s, p);
    signal_seam = NULL;
    seam_pool(&s, 4096, 4, 8);
    stream_pair(&s, &a, &b, 1);
    catch_alarm(0);
    alarm_after(500000, 500000);
    stream_receive(&b, GYRE_OPF_POOL | GYRE_OPF_MULTI);
    stream_send(&a, 8 << 20);
    stream_finish(&a);
    seam_until(&s, b.eof);
    cr_assert_eq(b.got, 8 << 20);
    stream_close(&a);
    stream_close(&b);
    alarm_after(0, 0);
    seam_close(&s);
}
