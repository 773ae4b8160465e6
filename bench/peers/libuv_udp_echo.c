/* SPDX-License-Identifier: MIT
 * The UDP echo server on libuv: UV_UDP_RECVMMSG with room for as many datagrams as libuv takes at once, each answered
 * with uv_udp_try_send, which copies nothing and queues nothing. One the kernel does not take is lost. */
#include "raw_listen.h"

#include <uv.h>

enum { DATAGRAM_MAX = 65536, BATCH = 20 }; /* as libuv cuts it */

static char buffer[BATCH * DATAGRAM_MAX];

static void lend_buffer(uv_handle_t *handle, size_t wanted, uv_buf_t *out)
{
    (void)handle, (void)wanted;
    *out = uv_buf_init(buffer, sizeof buffer);
}

static void on_datagram(uv_udp_t *socket, ssize_t n, const uv_buf_t *in, const struct sockaddr *from, unsigned flags)
{
    if (n < 0 || from == NULL || (flags & (UV_UDP_PARTIAL | UV_UDP_MMSG_FREE)) != 0)
        return;
    uv_buf_t out = uv_buf_init(in->base, (unsigned)n);
    (void)uv_udp_try_send(socket, &out, 1, from);
}

static void must(const char *call, int status)
{
    if (status < 0)
        bench_raw_die(call, status); /* libuv's errors are -errno here */
}

int main(int argc, char **argv)
{
    uv_loop_t loop;
    uv_udp_t socket;
    int fd = bench_raw_bind_udp(argc, argv);
    must("uv_loop_init", uv_loop_init(&loop));
    must("uv_udp_init_ex", uv_udp_init_ex(&loop, &socket, UV_UDP_RECVMMSG));
    must("uv_udp_open", uv_udp_open(&socket, fd));
    must("uv_udp_recv_start", uv_udp_recv_start(&socket, lend_buffer, on_datagram));
    return uv_run(&loop, UV_RUN_DEFAULT);
}
