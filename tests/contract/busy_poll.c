/* SPDX-License-Identifier: MIT
 * Busy polling of network devices: who can do it says so, the kernel has the settings, and with it or without it, or
 * with a kernel that refuses it, everything works as ever. */
#include "reactor/backends.h"
#include "stream.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { POLL_US = 200 };

static const struct gyre__backend_config polling = {
    .ops_max = 256,
    .busy_poll_us = POLL_US,
    .busy_poll_prefer = true,
};

/* Whether features() names it, which must be what `busy_polls` says. */
static bool polls(const struct seam *s)
{
    char features[384], list[400];
    s->ops->features(s->be, features, sizeof features);
    (void)snprintf(list, sizeof list, ",%s,", features);
    cr_assert_eq(strstr(list, ",napi,") != NULL, s->be->busy_polls, "busy_polls is %d, features are %s",
                 s->be->busy_polls, features);
    return s->be->busy_polls;
}

/* Bytes both ways and an end, a wait that is over in time and not before, and one that a wake ends. */
static void exchange(struct seam *s)
{
    struct stream a, b;
    seam_pool(s, 1024, 4, 16);
    stream_pair(s, &a, &b, 1);
    stream_receive(&a, GYRE_OPF_POOL | GYRE_OPF_MULTI);
    stream_receive(&b, GYRE_OPF_POOL | GYRE_OPF_MULTI);
    stream_send(&a, 30000);
    stream_send(&b, 20000);
    seam_until(s, b.got == 30000 && a.got == 20000 && seam_idle(a.send) && seam_idle(b.send));
    uint64_t end_ns = seam_now_ns(s) + (uint64_t)SEAM_MS(2);
    unsigned waits = 0;
    while (seam_now_ns(s) < end_ns) {
        cr_assert_leq(++waits, 20, "waits are over early");
        (void)seam_turn(s, (int64_t)(end_ns - seam_now_ns(s)));
    }
    s->ops->wake(s->be);
    (void)seam_turn(s, -1);
    stream_finish(&a);
    stream_finish(&b);
    seam_until(s, a.eof && b.eof);
    stream_close(&a);
    stream_close(&b);
}

/* Asked for, it is in use or not, and nothing else differs. */
TRANSPORT_TEST(busy_poll, exchange)
{
    struct seam s;
    seam_open_config(&s, p, polling);
    bool has = polls(&s);
    cr_assert(!has || strcmp(p->backend, "io_uring") == 0 || strcmp(p->backend, "epoll") == 0,
              "%s polls no devices", p->backend);
    exchange(&s);
    cr_assert_eq(polls(&s), has);
    seam_close(&s);
}

/* Not asked for, it is not there. */
BACKEND_TEST(busy_poll, off_by_default)
{
    struct seam s;
    seam_open(&s, p);
    cr_assert_not(polls(&s));
    exchange(&s);
    seam_close(&s);
}

#ifdef __linux__
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* As Linux has them: struct io_uring_napi, struct epoll_params and what takes them. */
enum { REGISTER_NAPI = 27, UNREGISTER_NAPI = 28 };

struct ring_params {
    uint32_t us;
    uint8_t prefer, rest[11];
};

struct epoll_busy_params {
    uint32_t us;
    uint16_t budget;
    uint8_t prefer, zero;
};

#define EPOLL_SET _IOW(0x8A, 0x01, struct epoll_busy_params)
#define EPOLL_GET _IOR(0x8A, 0x02, struct epoll_busy_params)

static const struct backend_param uring = {.backend = "io_uring", .transport = TRANSPORT_TCP4};
static const struct backend_param epoll = {.backend = "epoll", .transport = TRANSPORT_TCP4};

static void open_polling(struct seam *s, const struct backend_param *p, const char *off)
{
    struct gyre__backend_config cfg = polling;
    cfg.off = off;
    if (gyre__backend_find(p->backend) == NULL)
        cr_skip_test("%s is not compiled in", p->backend);
    seam_open_config(s, p, cfg);
}

/* What the kernel has for the ring; that takes the setting away, too. Returns 0 or errno. */
static int take_from_ring(const struct seam *s, struct ring_params *out)
{
    *out = (struct ring_params){.us = 0};
    long r = syscall(SYS_io_uring_register, s->ops->pollable(s->be), UNREGISTER_NAPI, out, 1);
    return r < 0 ? errno : 0;
}

Test(busy_poll, the_ring_has_it, .timeout = 30)
{
    struct seam s;
    struct ring_params is;
    open_polling(&s, &uring, NULL);
    if (!polls(&s))
        cr_skip_test("this kernel's rings poll no devices (Linux 6.9)");
    exchange(&s);
    cr_assert_eq(take_from_ring(&s, &is), 0, "%s", strerror(errno));
    cr_assert_eq(is.us, POLL_US, "%u", is.us);
    cr_assert_eq(is.prefer, 1);
    cr_assert_eq(take_from_ring(&s, &is), 0);
    cr_assert_eq(is.us, 0, "taking it away once was not enough: %u", is.us);
    seam_close(&s);
}

/* Without being asked the ring has none: one that had it on by default would burn a processor. */
Test(busy_poll, the_ring_has_none_by_default, .timeout = 30)
{
    struct seam s;
    struct ring_params is;
    if (gyre__backend_find(uring.backend) == NULL)
        cr_skip_test("io_uring is not compiled in");
    seam_open(&s, &uring);
    (void)seam_turn(&s, 0);
    if (take_from_ring(&s, &is) == 0)
        cr_assert_eq(is.us, 0);
    seam_close(&s);
}

Test(busy_poll, epoll_has_it, .timeout = 30)
{
    struct seam s;
    struct epoll_busy_params is;
    open_polling(&s, &epoll, NULL);
    if (!polls(&s))
        cr_skip_test("this kernel's epoll polls no devices (Linux 6.9)");
    cr_assert_eq(ioctl(s.ops->pollable(s.be), EPOLL_GET, &is), 0);
    cr_assert_eq(is.us, POLL_US, "%u", is.us);
    cr_assert_eq(is.prefer, 1);
    exchange(&s);
    seam_close(&s);
}

/* From here on the system call with that second argument fails with `err` in this process, as an older kernel's. */
static void deny(uint32_t call, uint32_t second, uint32_t err)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[1])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, second, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | err),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = sizeof code / sizeof code[0], .filter = code};
    cr_assert_eq(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
    cr_assert_eq(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), 0);
}

static void works_without(const struct backend_param *p, const char *off)
{
    struct seam s;
    open_polling(&s, p, off);
    cr_assert_not(polls(&s), "it was refused");
    exchange(&s);
    seam_close(&s);
}

/* io_uring before Linux 6.9. */
Test(busy_poll, ring_refuses, .timeout = 30)
{
    deny(SYS_io_uring_register, REGISTER_NAPI, EINVAL);
    works_without(&uring, NULL);
}

Test(busy_poll, left_out_of_the_ring, .timeout = 30)
{
    works_without(&uring, "napi");
}

/* epoll before Linux 6.9. */
Test(busy_poll, epoll_refuses, .timeout = 30)
{
    deny(SYS_ioctl, (uint32_t)EPOLL_SET, ENOTTY);
    works_without(&epoll, NULL);
}

/* Off and on among the rings of one process: the trial's outcome, which is kept, is the same for both. */
Test(busy_poll, rings_with_and_without, .timeout = 30)
{
    for (int i = 0; i < 4; i++) {
        struct seam s;
        if (i % 2 == 0)
            open_polling(&s, &uring, NULL);
        else
            seam_open(&s, &uring);
        bool has = polls(&s);
        cr_assert(i % 2 == 0 || !has);
        exchange(&s);
        seam_close(&s);
    }
}
#endif
