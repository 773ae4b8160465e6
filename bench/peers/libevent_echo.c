/* SPDX-License-Identifier: MIT
 * The echo server on libevent, with bufferevents, its usual way: what was read moves to the output without a copy. The
 * version of Debian 12 reads at most 4 KiB at a time into a chain of buffers, whatever larger size one allows. A
 * connection with more than 1 MiB to send does not read. */
#include "raw_listen.h"

#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/listener.h>
#include <event2/util.h>

enum { READ_MAX = 65536, OUTPUT_MAX = 1 << 20 };

static void on_read(struct bufferevent *conn, void *user)
{
    (void)user;
    struct evbuffer *output = bufferevent_get_output(conn);
    if (evbuffer_add_buffer(output, bufferevent_get_input(conn)) != 0)
        bufferevent_free(conn);
    else if (evbuffer_get_length(output) > OUTPUT_MAX)
        (void)bufferevent_disable(conn, EV_READ);
}

static void on_written(struct bufferevent *conn, void *user)
{
    (void)user;
    if ((bufferevent_get_enabled(conn) & EV_READ) == 0)
        (void)bufferevent_enable(conn, EV_READ);
}

static void on_event(struct bufferevent *conn, short what, void *user)
{
    (void)user;
    if ((what & (BEV_EVENT_EOF | BEV_EVENT_ERROR)) != 0)
        bufferevent_free(conn);
}

static void on_accepted(struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *address, int length,
                        void *user)
{
    (void)address, (void)length, (void)user;
    struct bufferevent *conn =
        bufferevent_socket_new(evconnlistener_get_base(listener), bench_raw_nodelay(fd), BEV_OPT_CLOSE_ON_FREE);
    if (conn == NULL) {
        (void)evutil_closesocket(fd);
        return;
    }
    (void)bufferevent_set_max_single_read(conn, READ_MAX);
    (void)bufferevent_set_max_single_write(conn, READ_MAX);
    bufferevent_setcb(conn, on_read, on_written, on_event, NULL);
    if (bufferevent_enable(conn, EV_READ | EV_WRITE) != 0)
        bufferevent_free(conn);
}

int main(int argc, char **argv)
{
    int fd = bench_raw_listen(argc, argv);
    struct event_base *base = event_base_new();
    if (base == NULL || evutil_make_socket_nonblocking(fd) != 0)
        bench_raw_die("event_base_new", ENOMEM);
    /* A backlog of 0: it listens already. */
    if (evconnlistener_new(base, on_accepted, NULL, LEV_OPT_CLOSE_ON_EXEC, 0, fd) == NULL)
        bench_raw_die("evconnlistener_new", ENOMEM);
    return event_base_dispatch(base) == 0 ? 0 : 1;
}
