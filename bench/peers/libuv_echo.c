/* SPDX-License-Identifier: MIT
 * The echo server on libuv. One 64 KiB buffer to read into for all; an answer is written at once (uv_try_write), and
 * only what the kernel does not take is copied and queued. A connection with something queued does not read. */
#include "raw_listen.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

struct rest {
    uv_write_t request;
    char bytes[];
};

static char buffer[65536];

static void free_conn(uv_handle_t *handle)
{
    free(handle);
}

static void close_conn(uv_stream_t *conn)
{
    if (!uv_is_closing((uv_handle_t *)conn))
        uv_close((uv_handle_t *)conn, free_conn);
}

static void lend_buffer(uv_handle_t *handle, size_t wanted, uv_buf_t *out)
{
    (void)handle, (void)wanted;
    *out = uv_buf_init(buffer, sizeof buffer);
}

static void on_read(uv_stream_t *conn, ssize_t n, const uv_buf_t *in);

static void on_written(uv_write_t *request, int status)
{
    uv_stream_t *conn = request->handle;
    free(request->data);
    if (status < 0 || uv_read_start(conn, lend_buffer, on_read) < 0)
        close_conn(conn);
}

static int queue_rest(uv_stream_t *conn, const char *bytes, size_t size)
{
    struct rest *rest = malloc(sizeof *rest + size);
    if (rest == NULL)
        return UV_ENOMEM;
    memcpy(rest->bytes, bytes, size);
    rest->request.data = rest;
    uv_buf_t out = uv_buf_init(rest->bytes, (unsigned)size);
    int err = uv_write(&rest->request, conn, &out, 1, on_written);
    if (err < 0)
        free(rest);
    return err < 0 ? err : uv_read_stop(conn);
}

static void on_read(uv_stream_t *conn, ssize_t n, const uv_buf_t *in)
{
    if (n == 0)
        return; /* as good as EAGAIN */
    if (n < 0) {
        close_conn(conn);
        return;
    }
    uv_buf_t out = uv_buf_init(in->base, (unsigned)n);
    int sent = uv_try_write(conn, &out, 1);
    if (sent == UV_EAGAIN)
        sent = 0;
    if (sent < 0 || (sent < n && queue_rest(conn, in->base + sent, (size_t)(n - sent)) < 0))
        close_conn(conn);
}

static void on_connection(uv_stream_t *listener, int status)
{
    uv_tcp_t *conn = status == 0 ? malloc(sizeof *conn) : NULL;
    if (conn == NULL || uv_tcp_init(listener->loop, conn) != 0) {
        free(conn);
        return;
    }
    if (uv_accept(listener, (uv_stream_t *)conn) != 0 || uv_tcp_nodelay(conn, 1) != 0 ||
        uv_read_start((uv_stream_t *)conn, lend_buffer, on_read) != 0)
        close_conn((uv_stream_t *)conn);
}

static void must(const char *call, int status)
{
    if (status < 0)
        bench_raw_die(call, status); /* libuv's errors are -errno here */
}

int main(int argc, char **argv)
{
    uv_loop_t loop;
    uv_tcp_t listener;
    int fd = bench_raw_listen(argc, argv);
    must("uv_loop_init", uv_loop_init(&loop));
    must("uv_tcp_init", uv_tcp_init(&loop, &listener));
    must("uv_tcp_open", uv_tcp_open(&listener, fd));
    must("uv_listen", uv_listen((uv_stream_t *)&listener, 4096, on_connection));
    return uv_run(&loop, UV_RUN_DEFAULT);
}
