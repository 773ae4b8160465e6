/* SPDX-License-Identifier: MIT
 * pool_trim(): buffers that a burst had posted come back when receives are few, those that the kernel has filled do
 * not, and no byte is lost whenever it is called. A backend without it has none posted. */
#include "reactor/backends.h"
#include "stream.h"

#include <string.h>
#include <sys/socket.h>

enum { PAIRS = 40, BUFFERS = 128, FIRST = 4, SIZE = 1024, BYTES = 30000 };

static unsigned posted(const struct seam *s)
{
    return (unsigned)s->pool.count - s->pool.nfree - s->held;
}

static void trim(struct seam *s)
{
    unsigned before = s->pool.nfree;
    if (s->ops->pool_trim != NULL)
        s->ops->pool_trim(s->be, &s->pool);
    cr_assert_geq(s->pool.nfree, before);
    (void)gyre__bufpool_trim(&s->pool, s->pool.nfree - before);
}

static void open_pairs(struct seam *s, struct stream *a, struct stream *b)
{
    seam_pool(s, SIZE, FIRST, BUFFERS);
    for (unsigned i = 0; i < PAIRS; i++) {
        stream_pair(s, &a[i], &b[i], 2 * i);
        stream_receive(&b[i], GYRE_OPF_POOL | GYRE_OPF_MULTI);
    }
}

static void send_all(struct stream *a)
{
    for (unsigned i = 0; i < PAIRS; i++)
        stream_send(&a[i], BYTES);
}

static bool all_got(const struct stream *b, uint64_t bytes)
{
    for (unsigned i = 0; i < PAIRS; i++)
        if (b[i].got != bytes)
            return false;
    return true;
}

static void close_pairs(struct seam *s, struct stream *a, struct stream *b)
{
    for (unsigned i = 0; i < PAIRS; i++) {
        stream_close(&a[i]);
        stream_close(&b[i]);
    }
    seam_close(s);
}

/* Whenever core looks, between any two waits, nothing is lost, doubled or changed. */
TRANSPORT_TEST(pool_trim, at_any_time)
{
    static struct stream a[PAIRS], b[PAIRS];
    struct seam s;
    seam_open(&s, p);
    open_pairs(&s, a, b);
    uint64_t end_ns = env_now_ns() + (uint64_t)SEAM_MS(SEAM_PATIENCE_MS);
    for (uint64_t round = 1; round <= 3; round++) {
        send_all(a);
        while (!all_got(b, round * BYTES)) {
            trim(&s);
            seam_turn_before(&s, end_ns, "every byte", __FILE__, __LINE__);
        }
    }
    close_pairs(&s, a, b);
}

/* After a burst and a quiet while no more are posted than at first, and everything goes on from there. */
static void burst_and_quiet(struct seam *s, bool comes_back)
{
    static struct stream a[PAIRS], b[PAIRS];
    open_pairs(s, a, b);
    for (uint64_t round = 1; round <= 3; round++) {
        send_all(a);
        seam_until(s, all_got(b, round * BYTES));
        seam_settle(s, SEAM_MS(5));
        trim(s);
        seam_settle(s, SEAM_MS(5));
        trim(s);
        if (s->ops->pool_trim == NULL)
            cr_assert_eq(posted(s), 0);
        else if (comes_back)
            cr_assert_leq(posted(s), FIRST, "%u are posted in a quiet while", posted(s));
        cr_assert_eq(s->held, 0);
    }
    close_pairs(s, a, b);
}

/* Where the kernel does its work only in a wait; where it does not, see below. */
TRANSPORT_TEST(pool_trim, after_a_burst)
{
    struct seam s;
    seam_open(&s, p);
    burst_and_quiet(&s, strcmp(p->backend, "io_uring") != 0 || seam_uses(&s, "defer_taskrun"));
}

/* Where the kernel may take a posted buffer at any moment, it stays posted; what comes in meanwhile is whole. */
Test(pool_trim, without_deferred_work, .timeout = 60)
{
    static const char *const off[] = {"defer_taskrun", "defer_taskrun,multishot_recv", "multishot_recv"};
    struct backend_param p = {.backend = "io_uring", .transport = TRANSPORT_TCP4};
    if (gyre__backend_find(p.backend) == NULL)
        cr_skip_test("io_uring is not compiled in");
    for (unsigned i = 0; i < sizeof off / sizeof off[0]; i++) {
        struct seam s;
        seam_open_config(&s, &p, (struct gyre__backend_config){.ops_max = 256, .off = off[i]});
        burst_and_quiet(&s, false);
    }
}

/* Completions that the queue has no room for, and that nobody has looked at, have buffers, too. */
Test(pool_trim, with_completions_beyond_the_queue, .timeout = 60)
{
    enum { ENTRIES = 8, LITTLE = 100 };
    static struct stream a[PAIRS], b[PAIRS];
    struct backend_param p = {.backend = "io_uring", .transport = TRANSPORT_UNIX};
    struct gyre__backend_config config = {.ops_max = 256, .sq_entries = ENTRIES, .cq_entries = ENTRIES};
    uint8_t bytes[LITTLE];
    struct seam s;
    if (gyre__backend_find(p.backend) == NULL)
        cr_skip_test("io_uring is not compiled in");
    seam_open_config(&s, &p, config);
    if (!seam_uses(&s, "defer_taskrun") || !seam_uses(&s, "multishot_recv")) {
        seam_close(&s);
        return; /* see above */
    }
    open_pairs(&s, a, b);
    send_all(a);
    seam_until(&s, all_got(b, BYTES));
    seam_settle(&s, SEAM_MS(5));
    trim(&s);
    cr_assert_gt(posted(&s), PAIRS, "the burst had few buffers posted");
    for (unsigned i = 0; i < PAIRS; i++) {
        env_pattern_fill(bytes, LITTLE, a[i].key_out, a[i].sent);
        cr_assert_eq(send(a[i].f.fd, bytes, LITTLE, MSG_DONTWAIT), LITTLE);
    }
    uint64_t overflows = s.be->stats.overflows;
    s.cap = 1;
    while (s.be->stats.overflows == overflows)
        cr_assert_gt(seam_turn(&s, 0), 0, "the queue had room for all");
    trim(&s);
    s.cap = SEAM_BATCH;
    seam_until(&s, all_got(b, BYTES + LITTLE));
    close_pairs(&s, a, b);
}
