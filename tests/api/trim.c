/* SPDX-License-Identifier: MIT
 * The memory of a burst goes back: handlers hold a buffer each, let go of them, and when the loop has been quiet for a
 * while, the pages of all but a few buffers are the system's again. Whether they are is asked of the system (mincore).
 * Then nothing wakes the loop any more, and the next burst finds everything in order. Who wants none of it says so. */
#include "fixture.h"

#include "loop/loop.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

enum { PEERS = 64, FIRST = 4, BUFFERS = 256, BYTES = 3000 };

static void hold_one(struct end *e)
{
    struct gyre_slice view;
    struct gyre_buf *buf;
    size_t len = gyre_conn_inbound(e->c);
    if (e->user == NULL && len > 0) {
        cr_assert_eq(gyre_buf_hold(&buf, &view, e->c, len), 0);
        cr_assert_eq(env_pattern_check(view.data, len, e->key_in, e->got), -1);
        e->got += len;
        e->user = buf;
    }
    (void)end_take(e);
}

/* Of the loop's receive buffers. */
static unsigned pages(const struct api *api)
{
    const struct gyre__bufpool *pool = &api->loop->pool;
    size_t page = (size_t)sysconf(_SC_PAGESIZE), bytes = (size_t)pool->stride * pool->count_max;
    size_t count = (bytes + page - 1) / page;
    unsigned char *there = calloc(count, 1);
    unsigned n = 0;
    cr_assert_not_null(there);
    cr_assert_eq(mincore(pool->base, bytes, (void *)there), 0);
    for (size_t i = 0; i < count; i++)
        n += there[i] & 1;
    free(there);
    return n;
}

static void open_all(struct api *api, const struct backend_param *p, int64_t keep_ns, struct peer *peers,
                     struct end **ends)
{
    static const struct script script = {.data = hold_one};
    api_init(api, p);
    api->quiet_sim = true;
    api->options.buf_count = FIRST;
    api->options.buf_count_max = BUFFERS;
    api->options.buf_keep_ns = keep_ns;
    api_open(api);
    api_listen(api, &script, NULL);
    for (unsigned i = 0; i < PEERS; i++)
        ends[i] = peer_open(api, &peers[i]);
}

static void close_all(struct api *api, struct peer *peers)
{
    for (unsigned i = 0; i < PEERS; i++)
        peer_close(&peers[i]);
    api_close(api);
}

static void burst(struct api *api, struct peer *peers, struct end **ends)
{
    for (unsigned i = 0; i < PEERS; i++)
        peer_send(&peers[i], BYTES);
    for (unsigned i = 0; i < PEERS; i++)
        api_until(api, ends[i]->got == peers[i].sent);
    cr_assert_geq(api_stats(api).bufs_held, PEERS / 2, "handlers should hold a buffer each");
    cr_assert_geq(pages(api), PEERS / 2);
    for (unsigned i = 0; i < PEERS; i++) {
        gyre_buf_release(ends[i]->user);
        ends[i]->user = NULL;
    }
}

/* The loop has seen that it was quiet, and each buffer that is posted beyond the first is used once more. */
static void use_posted(struct api *api, struct peer *peer, const struct end *e)
{
    struct gyre_buf *first = NULL;
    api_watch(api, MS(500));
    for (unsigned i = 0; i < BUFFERS; i++) {
        peer_send(peer, 10);
        api_until(api, e->got == peer->sent);
        if (first == NULL)
            first = e->user;
    }
    gyre_buf_release(first);
}

BACKEND_TEST(api_trim, after_a_burst)
{
    static struct peer peers[PEERS];
    static struct end *ends[PEERS];
    struct api api;
    open_all(&api, p, MS(200), peers, ends);
    uint64_t trimmed = 0;
    for (unsigned round = 0; round < 2; round++) {
        burst(&api, peers, ends);
        if (!backends_take_back(api.loop)) {
            use_posted(&api, &peers[0], ends[0]);
            ends[0]->user = NULL;
        }
        api_until(&api, api_stats(&api).bufs_resident <= FIRST + GYRE_BUF_TRIM_MIN);
        struct gyre_stats s = api_stats(&api);
        cr_assert_geq(s.bufs_trimmed - trimmed, PEERS / 2 - FIRST - GYRE_BUF_TRIM_MIN);
        cr_assert_geq(s.bufs_max, PEERS / 2);
        trimmed = s.bufs_trimmed;
        unsigned most = (FIRST + GYRE_BUF_TRIM_MIN) * (api.loop->pool.stride / 4096 + 2);
        cr_assert_leq(pages(&api), most < PEERS / 2 ? most : PEERS / 2, "%u pages are left", pages(&api));
    }
    api_until(&api, gyre_loop_timeout_ns(api.loop) == -1); /* once more to see that there is no more, then never */
    uint64_t timers = api_stats(&api).timers;
    api_watch(&api, MS(500));
    cr_assert_eq(api_stats(&api).timers, timers, "a quiet loop is woken");
    cr_assert_eq(api_stats(&api).bufs_trimmed, trimmed);
    close_all(&api, peers);
}

BACKEND_TEST(api_trim, never)
{
    static struct peer peers[PEERS];
    static struct end *ends[PEERS];
    struct api api;
    open_all(&api, p, INT64_MAX, peers, ends);
    burst(&api, peers, ends);
    unsigned touched = pages(&api);
    api_until(&api, gyre_loop_timeout_ns(api.loop) == -1);
    uint64_t timers = api_stats(&api).timers;
    api_watch(&api, MS(50));
    struct gyre_stats s = api_stats(&api);
    cr_assert_eq(s.timers, timers, "a quiet loop is woken");
    cr_assert_eq(s.bufs_trimmed, 0);
    cr_assert_eq(s.bufs_resident, s.bufs_max);
    cr_assert_geq(pages(&api), touched);
    close_all(&api, peers);
}
