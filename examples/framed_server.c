/* SPDX-License-Identifier: MIT
 * A server of the protocol in support/framed.h. It answers every frame with a frame that has the same body.
 *
 * usage: framed_server [--backend auto|io_uring|epoll|kqueue] [--loops N] [--stats] ADDRESS
 *
 * If a client sends requests faster than it reads the answers, the server stops reading from it until the answers are
 * sent. If a client does not speak the protocol, the server sends a last frame that says so and closes the
 * connection. */
#include <gyre.h>

#include <string.h>

#include "example.h"
#include "framed.h"

static void on_frame(struct gyre_conn *c, struct gyre_slice body)
{
    int err = gyre_frame_write(c, &framed_protocol, body.data, body.len);
    if (err != 0)
        gyre_conn_abort(c); /* out of memory, or closing: no answers are better than a missing one */
    else if (gyre_conn_congested(c))
        gyre_conn_pause(c); /* stops further frames, including those already received */
}

static void on_drain(struct gyre_conn *c)
{
    gyre_conn_resume(c);
}

static void on_bad_frame(struct gyre_conn *c, int err)
{
    const char *text = err == FRAMED_EMAGIC ? "error: a frame begins with 05 22" : "error: a body has at most 64 KiB";
    (void)gyre_frame_write(c, &framed_protocol, text, strlen(text));
    gyre_conn_close(c);
}

static const struct gyre_conn_handlers handlers = {
    .on_frame = on_frame, .on_drain = on_drain, .on_bad_frame = on_bad_frame};

int main(int argc, char **argv)
{
    struct gyre_engine_options options = {.loops = 1};
    bool stats = false;
    const char *name = "framed_server [flags] ADDRESS";
    int first = example_flags(argc, argv, name, &options, &stats);
    if (first < 0)
        return 2;
    if (argc - first != 1)
        return example_usage(name, "it takes one address");
    struct gyre_conn_options conn = {.framer = &framed_protocol};
    struct gyre_engine *engine;
    return example_serve(&engine, &options, argv[first], &handlers, &conn, stats);
}
