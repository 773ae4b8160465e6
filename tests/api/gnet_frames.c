/* SPDX-License-Identifier: MIT
 * gnet's "simulated server": a protocol of frames, cut by hand with peek and discard, answered in batches with one
 * gathered write, and woken for what a batch left over. From 64 bytes to frames longer than all receive buffers. */
#include "fixture.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAGIC = 1314, HEAD = 6, CLIENTS = 4, BATCH_MAX = 64 };

/* Plain data: Criterion copies it. */
struct frames {
    struct backend_param backend;
    uint32_t size;  /* of a frame's body */
    uint32_t count; /* of frames that each client sends */
    unsigned batch; /* frames that the server answers in one go */
    uint32_t bufs;  /* receive buffers at most; 0: the default */
};

struct service {
    const struct frames *how;
    unsigned batches, wakes, longest;
};

static uint32_t body_len(const uint8_t *head)
{
    cr_assert_eq(head[0] << 8 | head[1], MAGIC, "no frame begins here");
    return (uint32_t)head[2] << 24 | (uint32_t)head[3] << 16 | (uint32_t)head[4] << 8 | head[5];
}

/* How many bytes the whole frames at the front have, as far as a batch goes. */
static size_t whole_frames(struct gyre_conn *c, const struct service *s, unsigned *count)
{
    uint8_t head[HEAD];
    size_t bytes = 0;
    *count = 0;
    while (*count < s->how->batch && gyre_conn_copy(head, HEAD, c, bytes) == HEAD) {
        size_t len = HEAD + body_len(head);
        if (gyre_conn_inbound(c) < bytes + len)
            break;
        bytes += len;
        ++*count;
    }
    return bytes;
}

static void serve(struct end *e)
{
    struct service *s = e->api->user;
    struct iovec iov[BATCH_MAX];
    struct gyre_slice view;
    unsigned count;
    if (gyre_conn_inbound(e->c) < HEAD)
        cr_assert_eq(gyre_conn_peek(&view, e->c, HEAD), -EAGAIN);
    size_t bytes = whole_frames(e->c, s, &count), at = 0;
    if (bytes == 0)
        return;
    cr_assert_eq(gyre_conn_peek(&view, e->c, bytes), 0);
    for (unsigned i = 0; i < count; i++) {
        iov[i] = (struct iovec){(void *)(uintptr_t)(view.data + at), HEAD + body_len(view.data + at)};
        at += iov[i].iov_len;
    }
    cr_assert_eq(at, bytes);
    int err = count == 1 ? gyre_conn_write(e->c, view.data, bytes) : gyre_conn_writev(e->c, iov, (int)count);
    cr_assert_eq(err, 0, "the answer: %s", gyre_err_name(err));
    cr_assert_eq(gyre_conn_discard(e->c, bytes), bytes);
    e->n += count;
    s->batches++;
    s->longest = count > s->longest ? count : s->longest;
    if (count == s->how->batch && gyre_conn_inbound(e->c) > 0) {
        s->wakes++;
        cr_assert_eq(gyre_conn_wake(e->c), 0);
    }
}

/* ---- Clients ---- */

struct sender {
    struct peer peer;
    struct end *e;
    uint8_t *stream; /* what it sends and gets back */
    size_t len, sent, got;
};

static void sender_open(struct api *api, struct sender *s, const struct frames *how, uint32_t key)
{
    s->e = peer_open(api, &s->peer);
    s->len = (size_t)how->count * (HEAD + how->size);
    s->stream = malloc(s->len);
    cr_assert_not_null(s->stream);
    s->sent = s->got = 0;
    for (uint32_t i = 0; i < how->count; i++) {
        uint8_t *at = s->stream + (size_t)i * (HEAD + how->size);
        const uint8_t head[HEAD] = {MAGIC >> 8,
                                    MAGIC & 0xff,
                                    (uint8_t)(how->size >> 24),
                                    (uint8_t)(how->size >> 16),
                                    (uint8_t)(how->size >> 8),
                                    (uint8_t)how->size};
        memcpy(at, head, HEAD);
        env_pattern_fill(at + HEAD, how->size, key, (uint64_t)i * how->size);
    }
}

static void sender_go_on(struct sender *s, struct env_rng *rng)
{
    static uint8_t data[65536];
    size_t left = s->len - s->sent, piece = 1 + env_rng_below(rng, 200000);
    if (left > 0) {
        peer_send_raw(&s->peer, s->stream + s->sent, piece < left ? piece : left);
        s->sent += piece < left ? piece : left;
    }
    for (;;) {
        int64_t n = peer_recv_raw(&s->peer, data, sizeof data);
        if (n == -EAGAIN)
            return;
        cr_assert_gt(n, 0, "the answers end: %s", gyre_err_name((int)n));
        cr_assert_leq(s->got + (size_t)n, s->len, "more than was sent");
        cr_assert_eq(memcmp(data, s->stream + s->got, (size_t)n), 0, "other bytes at %zu", s->got);
        s->got += (size_t)n;
    }
}

/* ---- The cases ---- */

static const struct {
    uint32_t size, count;
    unsigned batch;
    uint32_t bufs;
} sizes[] = {
    {64, 200, BATCH_MAX, 0}, {64, 200, 7, 0},   {128, 100, 10, 0},   {1000, 60, BATCH_MAX, 0}, {1000, 60, 3, 0},
    {0, 50, 5, 0},           {20000, 10, 1, 0}, {262144, 3, 2, 0},   {1 << 20, 2, 1, 0},
    {1 << 20, 2, BATCH_MAX, 16},
};

enum { SIZES = sizeof sizes / sizeof sizes[0], BACKENDS_MAX = 4 };

ParameterizedTestParameters(gnet_frames, served)
{
    static struct frames cases[BACKENDS_MAX * SIZES];
    struct criterion_test_params backends = backends_each();
    size_t count = 0;
    for (size_t b = 0; b < backends.length; b++)
        for (unsigned i = 0; i < SIZES; i++)
            cases[count++] = (struct frames){.backend = ((const struct backend_param *)backends.params)[b],
                                             .size = sizes[i].size,
                                             .count = sizes[i].count,
                                             .batch = sizes[i].batch,
                                             .bufs = sizes[i].bufs};
    return cr_make_param_array(struct frames, cases, count, NULL);
}

/* Every frame comes back, in order; a batch is never longer than allowed; what it left over is not forgotten though no
 * byte follows it. */
ParameterizedTest(struct frames *how, gnet_frames, served, .timeout = 60)
{
    struct api api;
    struct sender senders[CLIENTS];
    struct env_rng rng;
    struct service service = {.how = how};
    const struct script script = {.data = serve};
    const struct gyre_listener_options options = {.conn = {.read_max_bytes = 2 << 20}};
    unsigned clients = how->size >= 1 << 20 ? 2 : CLIENTS, done = 0;
    env_rng_init(&rng, 31);
    api_init(&api, &how->backend);
    api.options.buf_count_max = how->bufs;
    api.options.buf_count = how->bufs / 2;
    api.user = &service;
    api_open(&api);
    api_listen(&api, &script, &options);
    for (unsigned i = 0; i < clients; i++)
        sender_open(&api, &senders[i], how, 50 + i);
    uint64_t end_ns = env_now_ns() + (uint64_t)MS(3 * API_PATIENCE_MS);
    while (done < clients) {
        done = 0;
        for (unsigned i = 0; i < clients; i++) {
            sender_go_on(&senders[i], &rng);
            done += senders[i].got == senders[i].len;
        }
        api_turn(&api);
        cr_assert(env_now_ns() < end_ns, "%u of %u clients have all their answers", done, clients);
    }
    cr_assert_leq(service.longest, how->batch);
    if (how->bufs != 0)
        cr_assert_leq(api_stats(&api).bufs_max, how->bufs);
    for (unsigned i = 0; i < clients; i++) {
        cr_assert_eq(senders[i].e->n, how->count);
        peer_close(&senders[i].peer);
        free(senders[i].stream);
    }
    api_close(&api);
}
