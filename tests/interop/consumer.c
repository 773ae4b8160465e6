/* SPDX-License-Identifier: MIT
 * A program of somebody else's: it knows the installed headers and nothing of the tree. On one loop it listens,
 * connects to itself, sends a line and waits for the echo.
 *
 * Prints "echoed N bytes over BACKEND" and exits with 0. Whatever goes wrong is said on standard error, exit 1; a
 * connection that stays silent ends by its idle time. */
#include <gyre.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char line[] = "a line from outside the tree\n";
static int result = EXIT_FAILURE;

static void fail(const char *what, int err)
{
    (void)fprintf(stderr, "consumer: %s: %s (%s)\n", what, gyre_err_text(err), gyre_err_name(err));
}

static void echo(struct gyre_conn *c)
{
    int64_t moved = gyre_conn_forward(c, c, SIZE_MAX);
    if (moved < 0)
        fail("forward", (int)moved);
}

static void send_line(struct gyre_conn *c)
{
    int err = gyre_conn_write(c, line, strlen(line));
    if (err != 0)
        fail("write", err);
}

static void take_echo(struct gyre_conn *c)
{
    struct gyre_slice view;
    if (gyre_conn_next(&view, c, strlen(line)) != 0)
        return; /* not all of it is here */
    if (memcmp(view.data, line, view.len) == 0)
        result = EXIT_SUCCESS;
    (void)gyre_conn_close(c);
}

static void finish(struct gyre_conn *c, int err)
{
    if (err != 0)
        fail("the connection ended", err);
    gyre_loop_stop(gyre_conn_loop(c));
}

static int serve_and_call(struct gyre_loop *loop)
{
    static const struct gyre_conn_handlers server = {.on_data = echo};
    static const struct gyre_conn_handlers client = {.on_open = send_line, .on_data = take_echo, .on_close = finish};
    const struct gyre_conn_options limits = {.idle_timeout_ns = INT64_C(10000000000)};
    struct gyre_listener *listener;
    int err = gyre_loop_listen(&listener, loop, "tcp://127.0.0.1:0", &server, NULL);
    if (err != 0)
        return err;
    err = gyre_connect(NULL, loop, gyre_listener_address(listener), &client, &limits);
    if (err == 0)
        err = gyre_loop_run(loop);
    gyre_listener_close(listener);
    return err;
}

int main(void)
{
    struct gyre_loop *loop;
    struct gyre_backend_report report;
    if (strcmp(gyre_version(), GYRE_VERSION) != 0) {
        (void)fprintf(stderr, "consumer: header %s, library %s\n", GYRE_VERSION, gyre_version());
        return EXIT_FAILURE;
    }
    int err = gyre_loop_create(&loop, &(struct gyre_loop_options){.ops_max = 64});
    if (err != 0) {
        fail("no loop", err);
        return EXIT_FAILURE;
    }
    gyre_loop_backend(&report, loop);
    err = serve_and_call(loop);
    gyre_loop_destroy(loop);
    if (err != 0) {
        fail("the loop", err);
        return EXIT_FAILURE;
    }
    if (result == EXIT_SUCCESS)
        (void)printf("echoed %zu bytes over %s\n", strlen(line), report.backend);
    return result;
}
