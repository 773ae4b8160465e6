/* SPDX-License-Identifier: MIT
 * A loop with nothing to do does nothing; counters add up; the report says which backend and why; and epoll that was
 * asked for by name stays away from io_uring's system calls. */
#include "fixture.h"

#include <errno.h>
#include <gyre/stats.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

static void stop_loop(struct gyre_timer *timer, void *user)
{
    (void)timer;
    gyre_loop_stop(user);
}

/* With fifty idle connections, a listener and 300 ms to wait, the loop turns no more than for its one timer. */
REAL_TEST(api_idle, no_wakeups)
{
    enum { COUNT = 50 };
    struct api api;
    struct peer peers[COUNT];
    struct gyre_timer *timer;
    struct gyre_listener_options options = {.conn = {.idle_timeout_ns = MS(60000)}};
    api_init(&api, p);
    api_open(&api);
    api_listen(&api, NULL, &options);
    for (unsigned i = 0; i < COUNT; i++)
        (void)peer_open(&api, &peers[i]);
    for (unsigned i = 0; i < 20; i++)
        api_turn_now(&api);
    uint64_t turns = api_stats(&api).turns;
    cr_assert_eq(gyre_timer_create(&timer, api.loop, stop_loop, api.loop), 0);
    cr_assert_eq(gyre_timer_start(timer, MS(300), 0), 0);
    api.in_turn = true;
    cr_assert_eq(gyre_loop_run(api.loop), 0);
    api.in_turn = false;
    turns = api_stats(&api).turns - turns;
    cr_assert_leq(turns, 8, "%llu turns in 300 ms of nothing", (unsigned long long)turns);
    gyre_timer_destroy(timer);
    for (unsigned i = 0; i < COUNT; i++)
        peer_close(&peers[i]);
    api_close(&api);
}

/* What came in and went out, who was accepted and closed. */
TRANSPORT_TEST(api_idle, counters)
{
    struct api api;
    struct peer peer;
    const struct script echo = {.data = end_forward_back};
    api_start(&api, p, &echo);
    for (unsigned i = 1; i <= 10; i++) {
        struct end *e = peer_open(&api, &peer);
        peer.key_in = peer.key_out;
        peer_send(&peer, 10000);
        peer_expect(&peer, 10000);
        peer_close(&peer);
        api_until(&api, e->closes == 1);
        struct gyre_stats stats = api_stats(&api);
        cr_assert_eq(stats.accepted, i);
        cr_assert_eq(stats.closed, i);
        cr_assert_eq(stats.bytes_in, i * 10000);
        cr_assert_eq(stats.bytes_out, i * 10000);
        cr_assert_eq(stats.connected, 0);
        cr_assert_eq(stats.accept_errors, 0);
        cr_assert_eq(stats.overflows, 0);
        cr_assert_leq(stats.bytes_forwarded, stats.bytes_in);
    }
    api_close(&api);
}

/* The report names the backend that was asked for, a reason and features. */
BACKEND_TEST(api_idle, report)
{
    struct api api;
    struct gyre_backend_report report;
    api_init(&api, p);
    api_open(&api);
    gyre_loop_backend(&report, api.loop);
    cr_assert_eq(strcmp(report.backend, p->backend), 0, "%s", report.backend);
    cr_assert_neq(report.reason[0], '\0');
    cr_assert_lt(strlen(report.reason), sizeof report.reason);
    cr_assert_lt(strlen(report.features), sizeof report.features);
    api_close(&api);
}

/* Kill the process at io_uring's system calls. */
static void forbid_io_uring(void)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 3, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_enter, 2, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_register, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
    };
    struct sock_fprog program = {.len = sizeof filter / sizeof filter[0], .filter = filter};
    cr_assert_eq(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
    cr_assert_eq(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), 0, "%s", strerror(errno));
}

/* A loop that was asked to use epoll (or kqueue) makes none of them: not to probe, not to report. */
REAL_TEST(api_idle, no_io_uring_calls)
{
    struct api api;
    struct peer peer;
    const struct script echo = {.data = end_forward_back};
    api_init(&api, p);
    if (strcmp(p->backend, "io_uring") == 0)
        return;
    forbid_io_uring();
    api_open(&api);
    api_listen(&api, &echo, NULL);
    (void)peer_open(&api, &peer);
    peer.key_in = peer.key_out;
    peer_send(&peer, 10000);
    peer_expect(&peer, 10000);
    peer_close(&peer);
    api_close(&api);
}
