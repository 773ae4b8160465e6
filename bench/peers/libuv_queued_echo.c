/* SPDX-License-Identifier: MIT
 * The echo server on libuv as its guide writes it: a buffer of the suggested size for each read, a write request for
 * each answer, both freed when it is written. libuv_echo.c is what the same library can do. */
#include "raw_listen.h"

#include <stdlib.h>
#include <uv.h>

static void free_conn(uv_handle_t *handle)
{
    free(handle);
}

static void close_conn(uv_stream_t *conn)
{
    if (!uv_is_closing((uv_handle_t *)conn))
        uv_close((uv_handle_t *)conn, free_conn);
}

static void allocate(uv_handle_t *handle, size_t wanted, uv_buf_t *out)
{
    (void)handle;
    *out = uv_buf_init(malloc(wanted), (unsigned)wanted); /* without memory the read tells UV_ENOBUFS */
}

static void on_read(uv_stream_t *conn, ssize_t n, const uv_buf_t *in);

static void on_written(uv_write_t *request, int status)
{
    uv_stream_t *conn = request->handle;
    free(request->data);
    free(request);
    if (status == 0 && conn->data == NULL)
        return; /* it is being read all the time */
    conn->data = NULL;
    if (status < 0 || uv_read_start(conn, allocate, on_read) < 0)
        close_conn(conn);
}

static int answer(uv_stream_t *conn, char *bytes, size_t size)
{
    uv_write_t *request = malloc(sizeof *request);
    if (request == NULL)
        return UV_ENOMEM;
    request->data = bytes;
    uv_buf_t out = uv_buf_init(bytes, (unsigned)size);
    int err = uv_write(request, conn, &out, 1, on_written);
    if (err < 0) {
        free(request);
        return err;
    }
    if (uv_stream_get_write_queue_size(conn) == 0)
        return 0;
    conn->data = conn; /* what the kernel did not take waits, and its peer is not read meanwhile */
    return uv_read_stop(conn);
}

static void on_read(uv_stream_t *conn, ssize_t n, const uv_buf_t *in)
{
    int err = n > 0 ? answer(conn, in->base, (size_t)n) : (int)n;
    if (n <= 0 || err < 0)
        free(in->base);
    if (err < 0)
        close_conn(conn);
}

static void on_connection(uv_stream_t *listener, int status)
{
    uv_tcp_t *conn = status == 0 ? malloc(sizeof *conn) : NULL;
    if (conn == NULL || uv_tcp_init(listener->loop, conn) != 0) {
        free(conn);
        return;
    }
    conn->data = NULL;
    if (uv_accept(listener, (uv_stream_t *)conn) != 0 || uv_tcp_nodelay(conn, 1) != 0 ||
        uv_read_start((uv_stream_t *)conn, allocate, on_read) != 0)
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
