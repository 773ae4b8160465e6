/* SPDX-License-Identifier: MIT
 * Bulk streams on io_uring at random, and with rings that are full: tiny ones, and ones that the kernel refuses to
 * empty. Each seed is told, so that one that fails can be tried again. */
#ifdef __linux__
#include "uring_direct.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

enum { MIX = 12 };

/* At random: bulk and small messages, pauses, receiving again, buffers kept and let go, connections closed in the
 * middle and made anew; then all is read to its end. */
static void mix_step(struct seam *s, struct env_rng *rng, struct stream *a, struct stream *b)
{
    unsigned i = env_rng_below(rng, MIX);
    switch (env_rng_below(rng, 16)) {
    case 0:
    case 1:
        stream_send(&a[i], 1 + env_rng_below(rng, 256 * 1024));
        break;
    case 2:
        stream_send(&a[i], 1 + env_rng_below(rng, 200));
        break;
    case 3:
        stream_pause(&b[i]);
        break;
    case 4:
    case 5:
        for (unsigned k = 0; k < MIX; k++)
            if (seam_idle(b[k].recv) && !b[k].eof && !b[k].receiving)
                stream_receive(&b[k], MULTI);
        break;
    case 6:
        b[i].recv->hold = env_rng_below(rng, 3) == 0;
        break;
    case 7:
    case 8:
        let_go(s);
        break;
    case 9:
        if (env_rng_below(rng, 3) != 0)
            break;
        close_both(&a[i], &b[i]);
        let_go(s);
        pair(s, &a[i], &b[i], 2 * i);
        kept.then = b[i].recv->on_event;
        b[i].recv->on_event = keep;
        break;
    default:
        s->cap = 1 + env_rng_below(rng, SEAM_BATCH);
        (void)seam_turn(s, env_rng_below(rng, 8) == 0 ? SEAM_MS(1) : 0);
        break;
    }
}

static void mix(unsigned seed, enum transport transport, struct gyre__backend_config cfg, unsigned bufs, unsigned steps)
{
    static struct stream a[MIX], b[MIX];
    struct env_rng rng;
    struct seam s;
    env_rng_init(&rng, seed);
    (void)fprintf(stderr, "uring_direct: seed %u, transport %d, %u buffers\n", seed,
                  (int)transport, bufs);
    open_uring(&s, transport, cfg, bufs);
    for (unsigned i = 0; i < MIX; i++) {
        pair(&s, &a[i], &b[i], 2 * i);
        if (i % 2 == 0)
            stream_sizes(&a[i], 256 * 1024, 16); /* whose sends are calls too */
        kept.then = b[i].recv->on_event;
        b[i].recv->on_event = keep;
        stream_receive(&b[i], MULTI);
    }
    for (unsigned i = 0; i < steps; i++)
        mix_step(&s, &rng, a, b);
    s.cap = SEAM_BATCH;
    let_go(&s);
    for (unsigned i = 0; i < MIX; i++) {
        b[i].recv->hold = false;
        b[i].recv->on_event = kept.then;
    }
    for (unsigned i = 0; i < MIX; i++) {
        expect_all(&s, &a[i], &b[i]);
        close_both(&a[i], &b[i]);
    }
    expect_calls(&s, 0);
    cr_assert_eq(s.be->stats.stale, 0);
    seam_close(&s);
}

Test(uring_direct_full, random_mixtures, .timeout = 90)
{
    for (unsigned seed = 1; seed <= 40; seed++)
        mix(seed, transports[seed % 2], (struct gyre__backend_config){0}, seed % 3 == 0 ? 12 : KEPT_MAX, 2000);
}

/* Tiny rings: completions overflow, which ends polls and multishot receives, and submissions are flushed singly. */
Test(uring_direct_full, random_mixtures_with_tiny_rings, .timeout = 90)
{
    for (unsigned seed = 1; seed <= 30; seed++)
        mix(seed, transports[seed % 2], (struct gyre__backend_config){.sq_entries = 2 + seed % 3, .cq_entries = 4},
            KEPT_MAX, 2000);
}

/* Make every io_uring_enter that only submits fail with -EAGAIN, as when the kernel has no memory for requests. */
static void refuse_plain_submits(void)
{
    const unsigned flags_at = offsetof(struct seccomp_data, args[3]);
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_enter, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, flags_at),
        BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, 1 /* IORING_ENTER_GETEVENTS */, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EAGAIN),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = sizeof code / sizeof code[0], .filter = code};
    cr_assert_eq(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
    cr_assert_eq(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), 0);
}

/* A submission ring of two that cannot be flushed: polls, receives and the requests to end them wait in lists, and are
 * cancelled and served there. */
Test(uring_direct_full, random_mixtures_with_a_ring_that_cannot_flush, .timeout = 90)
{
    struct seam s;
    open_uring(&s, TRANSPORT_UNIX, (struct gyre__backend_config){0}, 8); /* the trial exchange must not be refused */
    seam_close(&s);
    refuse_plain_submits();
    for (unsigned seed = 1; seed <= 30; seed++)
        mix(seed, transports[seed % 2], (struct gyre__backend_config){.sq_entries = 2 + seed % 3, .cq_entries = 4},
            KEPT_MAX, 2000);
}

/* Bulk streams cancelled at every stage with such rings, one after the other, each cancelled together with others. */
Test(uring_direct_full, cancel_at_every_stage_with_tiny_rings, .timeout = 90)
{
    enum { STREAMS = 6 };
    struct stream a[STREAMS], b[STREAMS];
    struct seam s;
    open_uring(&s, TRANSPORT_TCP4, (struct gyre__backend_config){0}, 8);
    seam_close(&s);
    refuse_plain_submits();
    for EACH_TRANSPORT (t) {
            open_uring(&s, transports[t], (struct gyre__backend_config){.sq_entries = 2, .cq_entries = 4}, 64);
            for (unsigned turns = 0; turns < 60; turns++) {
                for (unsigned i = 0; i < STREAMS; i++) {
                    pair(&s, &a[i], &b[i], 2 * i);
                    stream_receive(&b[i], MULTI);
                    stream_send(&a[i], BULK);
                }
                for (unsigned i = 0; i < turns; i++)
                    (void)seam_turn(&s, 0);
                for (unsigned i = 0; i < STREAMS; i++)
                    stream_pause(&b[i]);
                for (unsigned i = 0; i < STREAMS; i += 2) /* their memory is filled with rubbish then */
                    close_both(&a[i], &b[i]);
                for (unsigned i = 1; i < STREAMS; i += 2) {
                    expect_all(&s, &a[i], &b[i]);
                    close_both(&a[i], &b[i]);
                }
        }
        expect_calls(&s, 0);
        seam_close(&s);
    }
}
#endif
