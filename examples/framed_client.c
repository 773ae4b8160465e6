/* SPDX-License-Identifier: MIT
 * A client for framed_server. It sends frames in batches on many connections, and checks that each answer is the frame
 * that was sent.
 *
 * usage: framed_client [--backend …] [--loops N] [--stats] ADDRESS CONNECTIONS BATCHES [FRAMES]
 *
 * Each connection sends FRAMES frames (default 10) of 1 to 4096 bytes and waits for their answers. It repeats this
 * BATCHES times. At the end the program prints how many answers were right. The exit status is 0 only if all were. */
#include <gyre.h>

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "example.h"
#include "framed.h"

enum { BODY_MAX_BYTES = 4096, ERRORS_SHOWN = 3 };

/* A connection's user pointer. */
struct client {
    uint64_t sent, answered; /* frames */
    bool wrong;
};

static struct gyre_engine *engine;
static const char *address;
static long connections, batches, frames = 10;
static struct client *clients;
static _Atomic(long) answers, left, failed; /* the last two count connections */

/* Make the body of frame `number` of a connection. Its length and bytes depend on both. Returns the length. */
static size_t make_body(uint8_t *out, const struct client *client, uint64_t number)
{
    uint64_t x = ((uint64_t)(client - clients) + 1) << 32 ^ (number + 1) * UINT64_C(0x9e3779b97f4a7c15);
    size_t len = 1 + (x >> 40) % BODY_MAX_BYTES;
    for (size_t i = 0; i < len; i++) {
        x ^= x << 13, x ^= x >> 7, x ^= x << 17; /* xorshift64 */
        out[i] = (uint8_t)(x >> 32);
    }
    return len;
}

static void finished(const struct client *client, const char *problem)
{
    if (problem != NULL && atomic_fetch_add(&failed, 1) < ERRORS_SHOWN)
        fprintf(stderr, "framed_client: connection %td, after %" PRIu64 " answers: %s\n", client - clients,
                client->answered, problem);
    if (atomic_fetch_sub(&left, 1) == 1)
        gyre_engine_stop(engine);
}

static void send_batch(struct gyre_conn *c)
{
    struct client *client = gyre_conn_user(c);
    uint8_t body[BODY_MAX_BYTES];
    int err = 0;
    for (long i = 0; err == 0 && i < frames; i++) {
        size_t len = make_body(body, client, client->sent++);
        err = gyre_frame_write(c, &framed_protocol, body, len);
    }
    if (err != 0)
        gyre_conn_abort(c);
}

static void on_frame(struct gyre_conn *c, struct gyre_slice answer)
{
    struct client *client = gyre_conn_user(c);
    uint8_t body[BODY_MAX_BYTES];
    size_t len = make_body(body, client, client->answered);
    client->wrong = answer.len != len || memcmp(answer.data, body, len) != 0;
    if (client->wrong) {
        gyre_conn_abort(c);
        return;
    }
    answers++;
    if (++client->answered == (uint64_t)(batches * frames))
        gyre_conn_close(c);
    else if (client->answered == client->sent)
        send_batch(c);
}

static void on_close(struct gyre_conn *c, int err)
{
    const struct client *client = gyre_conn_user(c);
    const char *problem = client->wrong ? "not what was sent" : err == 0 ? "the server closed" : gyre_err_text(err);
    finished(client, client->answered == (uint64_t)(batches * frames) ? NULL : problem);
}

static const struct gyre_conn_handlers handlers = {.on_open = send_batch, .on_frame = on_frame, .on_close = on_close};

/* Runs on each loop and opens that loop's share of the connections. */
static void start(struct gyre_loop *loop, void *user)
{
    (void)user;
    long first = 0;
    while (gyre_engine_loop(engine, (uint32_t)first) != loop)
        first++;
    for (long i = first; i < connections; i += (long)gyre_engine_loop_count(engine)) {
        struct gyre_conn_options options = {
            .framer = &framed_protocol, .user = &clients[i], .read_timeout_ns = INT64_C(10000000000)};
        int err = gyre_connect(NULL, loop, address, &handlers, &options);
        if (err != 0)
            finished(&clients[i], gyre_err_text(err));
    }
}

static void on_signal(int number)
{
    signal(number, SIG_DFL);
    gyre_engine_stop(engine); /* connections that are still open count as failed */
}

int main(int argc, char **argv)
{
    struct gyre_engine_options options = {.loops = 1};
    bool stats = false;
    const char *name = "framed_client [flags] ADDRESS CONNECTIONS BATCHES [FRAMES]";
    int first = example_flags(argc, argv, name, &options, &stats);
    if (first < 0)
        return 2;
    if (argc - first != 3 && argc - first != 4)
        return example_usage(name, "it takes an address and two or three numbers");
    if (!example_number(name, "CONNECTIONS", argv[first + 1], 1, 100000, &connections) ||
        !example_number(name, "BATCHES", argv[first + 2], 1, 1000000, &batches) ||
        (argc - first == 4 && !example_number(name, "FRAMES", argv[first + 3], 1, 1000, &frames)))
        return 2;
    address = argv[first], left = connections;
    clients = calloc((size_t)connections, sizeof *clients);
    int err = clients == NULL ? -ENOMEM : gyre_engine_create(&engine, &options);
    if (err == 0)
        err = gyre_engine_post_all(engine, start, NULL, NULL);
    if (err == 0) {
        signal(SIGINT, on_signal);
        signal(SIGTERM, on_signal);
        err = gyre_engine_run(engine);
    }
    if (err == 0)
        printf("%ld answers of %ld were right, %ld connections of %ld failed\n", (long)answers,
               connections * batches * frames, (long)failed, connections);
    if (err == 0 && stats)
        example_print_stats(engine);
    gyre_engine_destroy(engine);
    free(clients);
    return err == 0 ? failed > 0 : example_failed(address, err);
}
