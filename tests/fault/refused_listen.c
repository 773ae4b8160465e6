/* SPDX-License-Identifier: MIT
 * Listening at run time without memory: on addresses, on a socket from elsewhere, with a filter and limits, paused and
 * resumed and closed, while clients come.
 *
 * Listening that is refused leaves the address free and a descriptor with its owner; it is made again until it is done.
 * A client that could not be accepted is closed, and comes again. Once there is memory every client is served. */
#include "refused.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "socket/addr.h"

enum { CLIENTS = 3, BYTES = 2000, TURNS = 40, KEY = 7 };

struct client {
    struct gyre_conn *c;
    size_t got;
    bool closed, served;
};

struct stand {
    struct refused *r;
    struct gyre_listener *listener;
    char address[160];
    int fd; /* a listening socket of the test's, or -1 */
    struct client clients[CLIENTS];
    unsigned asked, closed;
    unsigned shown, opens, closes; /* of those accepted */
    int denied;
};

static struct stand st;
static unsigned shown_only; /* all scenes together: accepted and shown, and no connection was made of it */

/* ---- the listening side ---- */

static int let_in(struct gyre_listener *listener, const struct sockaddr *peer, socklen_t len, void *user)
{
    cr_assert_eq(user, &st);
    cr_assert(listener != NULL && peer != NULL && len > 0);
    st.asked++;
    return GYRE_ACCEPT_YES;
}

static void on_closed(void *user)
{
    cr_assert_eq(user, &st);
    st.closed++;
}

static void on_data(struct gyre_conn *c)
{
    if (gyre_conn_forward(c, c, SIZE_MAX) < 0)
        (void)gyre_conn_abort(c);
}

static void on_open(struct gyre_conn *c)
{
    (void)c;
    st.opens++;
}

static void on_close(struct gyre_conn *c, int err)
{
    (void)c;
    (void)err;
    st.closes++;
}

static int on_socket(int fd, enum gyre_socket_purpose purpose, void *user)
{
    (void)fd;
    (void)user;
    st.shown += purpose == GYRE_SOCKET_ACCEPT;
    return 0;
}

static const struct gyre_conn_handlers echo = {.on_open = on_open, .on_data = on_data, .on_close = on_close};

static const struct gyre_listener_options listening = {.filter = let_in,
                                                       .on_closed = on_closed,
                                                       .user = &st,
                                                       .conns_max = 2,
                                                       .conn = {.read_timeout_ns = INT64_C(1) << 50,
                                                                .on_socket = on_socket}};

/* Returns whether it listens. */
static bool listen_now(void)
{
    struct gyre_listener *listener = NULL;
    int fds = st.fd >= 0 ? fcntl(st.fd, F_GETFD) : 0;
    if (st.listener != NULL)
        return true;
    int err = st.fd >= 0 ? gyre_loop_listen_fd(&listener, st.r->loop, st.fd, &echo, &listening)
                         : gyre_loop_listen(&listener, st.r->loop, st.address, &echo, &listening);
    if (refused_note(st.r, err) != 0) {
        cr_assert_null(listener, "%s: an out parameter was set without success", st.r->where);
        cr_assert_geq(fds, 0, "%s: the descriptor is gone", st.r->where);
        return false;
    }
    st.listener = listener;
    st.fd = -1;
    (void)snprintf(st.address, sizeof st.address, "%s", gyre_listener_address(listener));
    cr_assert_eq(gyre_listener_pause(listener), 0);
    cr_assert_eq(gyre_listener_resume(listener), 0);
    return true;
}

/* ---- clients ---- */

static void on_client_open(struct gyre_conn *c)
{
    static uint8_t bytes[BYTES];
    env_pattern_fill(bytes, sizeof bytes, KEY, 0);
    if (refused_note(st.r, gyre_conn_write(c, bytes, sizeof bytes)) != 0)
        (void)gyre_conn_close(c);
}

static void on_client_data(struct gyre_conn *c)
{
    struct client *cl = gyre_conn_user(c);
    struct gyre_slice view;
    while (gyre_conn_next(&view, c, 0) == 0 && view.len > 0) {
        cr_assert_eq(env_pattern_check(view.data, view.len, KEY, cl->got), -1, "%s: wrong bytes", st.r->where);
        cl->got += view.len;
    }
    if (cl->got < BYTES)
        return;
    cl->served = true;
    (void)gyre_conn_close(c);
}

static void on_client_close(struct gyre_conn *c, int err)
{
    struct client *cl = gyre_conn_user(c);
    (void)err;
    cl->c = NULL;
    cl->closed = true;
}

static void come(struct client *cl)
{
    static const struct gyre_conn_handlers handlers = {
        .on_open = on_client_open, .on_data = on_client_data, .on_close = on_client_close};
    const struct gyre_conn_options options = {.user = cl};
    *cl = (struct client){.c = NULL};
    if (refused_note(st.r, gyre_connect(&cl->c, st.r->loop, st.address, &handlers, &options)) != 0)
        cl->closed = true;
}

/* Who was not served comes again. */
static bool all_served(void)
{
    bool all = true;
    for (unsigned i = 0; i < CLIENTS; i++) {
        struct client *cl = &st.clients[i];
        if (!cl->served && (cl->closed || cl->c == NULL)) {
            cr_assert(!st.r->over || ++st.denied < 100 || st.r->struck, "%s: a client is never served", st.r->where);
            come(cl);
        }
        all &= cl->served && cl->closed;
    }
    return all;
}

static void forget_clients(void)
{
    memset(st.clients, 0, sizeof st.clients);
}

/* ---- the scenes ---- */

/* A socket that listens already, on a kernel's backend. */
static int make_socket(void)
{
    struct gyre__address any;
    cr_assert_eq(gyre__addr_parse(&any, "tcp://127.0.0.1:0"), 0);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
    cr_assert_eq(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one), 0);
    cr_assert_eq(bind(fd, (struct sockaddr *)&any.addr.ss, any.addr.len), 0);
    cr_assert_eq(listen(fd, 16), 0);
    return fd;
}

static void play(struct refused *r, const char *address, int fd)
{
    st = (struct stand){.r = r, .fd = fd};
    (void)snprintf(st.address, sizeof st.address, "%s", address);
    refused_begin(r);
    for (unsigned i = 0; i < TURNS; i++) {
        if (listen_now())
            (void)all_served();
        refused_turn(r);
    }
    refused_over(r);
    cr_assert(listen_now());
    refused_until(r, all_served());
    cr_assert_geq(st.asked, CLIENTS, "%s: the filter was asked %u times", r->where, st.asked);
    forget_clients();
    refused_until(r, all_served());
    gyre_listener_close(st.listener);
    refused_until(r, st.closed == 1 && st.closes == st.opens);
    cr_assert_geq(st.shown, st.opens, "%s: %u shown, %u opened", r->where, st.shown, st.opens);
    cr_assert(st.shown == st.opens || r->struck, "%s: %u shown, %u opened", r->where, st.shown, st.opens);
    shown_only += st.shown - st.opens;
    struct gyre_listener *again;
    int err = gyre_loop_listen(&again, r->loop, st.address, &echo, NULL);
    cr_assert_eq(err, 0, "%s: the address is not free: %s", r->where, gyre_err_name(err));
    gyre_listener_close(again);
}

static void play_address(struct refused *r)
{
    play(r, "tcp://127.0.0.1:0", -1);
}

static void play_unix(struct refused *r)
{
    char name[64];
    (void)snprintf(name, sizeof name, "unix://@gyre-refused-%d", (int)getpid());
    play(r, name, -1);
}

static void play_adopted(struct refused *r)
{
    play(r, "", make_socket());
}

BACKEND_TEST(refused_listen, address)
{
    refused_each(p, play_address, 4);
    cr_assert_gt(shown_only, 0, "memory was never short between a socket and its connection");
}

BACKEND_TEST(refused_listen, unix_name)
{
    refused_each(p, play_unix, 4);
}

REAL_TEST(refused_listen, adopted)
{
    refused_each(p, play_adopted, 4);
}
