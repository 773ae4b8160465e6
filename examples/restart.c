/* SPDX-License-Identifier: MIT
 * An echo server that is restarted without refusing a client. A new copy of the program takes the listening sockets of
 * the running one, which then drains and ends.
 *
 * usage: restart [--backend auto|io_uring|epoll|kqueue] [--loops N] [--stats] CONTROL-PATH ADDRESS...
 *
 * The copies meet at CONTROL-PATH, a unix socket. If nobody listens there, or the running copy has no socket for an
 * address, the program listens afresh. */
#include <gyre.h>

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "example.h"

enum { LISTENERS_MAX = 16 };
static const int64_t patience_ns = INT64_C(10000000000);

static struct gyre_engine *engine;
static struct gyre_listener *listeners[LISTENERS_MAX];
static size_t listener_count;
static struct gyre_handover *from_old; /* NULL: there is no other copy */
static struct sockaddr_un control_addr = {.sun_family = AF_UNIX};
static int control = -1;
static pthread_t control_thread;

static void on_data(struct gyre_conn *c)
{
    (void)gyre_conn_forward(c, c, SIZE_MAX);
}

static const struct gyre_conn_handlers handlers = {.on_data = on_data};

/* ---- the old copy ---- */

/* Give the sockets to whoever connects. Once a new copy has confirmed that it serves, this one ends. */
static void *serve_control(void *arg)
{
    (void)arg;
    for (;;) {
        int fd = accept(control, NULL, NULL);
        if (fd < 0)
            return NULL; /* main() has shut it down */
        int err = gyre_handover_send(fd, listeners, listener_count, patience_ns);
        close(fd);
        if (err == 0) {
            gyre_engine_drain(engine, NULL);
            return NULL;
        }
        (void)example_failed("restart: the new copy did not take over", err);
    }
}

static int open_control(void)
{
    mode_t before = umask(077); /* whoever may connect gets the sockets */
    control = socket(AF_UNIX, SOCK_STREAM, 0);
    (void)unlink(control_addr.sun_path);
    bool bound = control >= 0 && bind(control, (struct sockaddr *)&control_addr, sizeof control_addr) == 0;
    int err = bound && listen(control, 4) == 0 ? 0 : -errno;
    umask(before);
    return err != 0 ? err : -pthread_create(&control_thread, NULL, serve_control, NULL);
}

/* ---- the new copy ---- */

/* Connect to the running copy. Returns the descriptor, or -1 if there is none. */
static int find_old(void)
{
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&control_addr, sizeof control_addr) == 0)
        return fd;
    if (fd >= 0)
        close(fd);
    return -1;
}

static int listen_on(const char *address)
{
    if (from_old == NULL)
        return gyre_engine_listen(&listeners[listener_count], engine, address, &handlers, NULL);
    return gyre_engine_listen_handover(&listeners[listener_count], engine, from_old, address, &handlers, NULL);
}

/* This copy serves from now on: the old one may end. */
static void on_boot(struct gyre_engine *e)
{
    (void)e;
    if (from_old != NULL && gyre_handover_confirm(from_old) != 0)
        fprintf(stderr, "restart: the old copy is gone\n");
    for (size_t i = 0; i < listener_count; i++)
        example_ready(engine, listeners[i]);
}

static const struct gyre_engine_handlers engine_handlers = {.on_boot = on_boot};

static void on_signal(int number)
{
    signal(number, SIG_DFL); /* a second signal ends the program at once */
    gyre_engine_drain(engine, NULL);
}

static int serve(const struct gyre_engine_options *options, char **addresses, int count)
{
    int old = find_old(), err = 0;
    if (old >= 0)
        err = gyre_handover_receive(&from_old, old, patience_ns);
    if (err == 0)
        err = gyre_engine_create(&engine, options);
    for (int i = 0; err == 0 && i < count; i++) {
        err = listen_on(addresses[i]);
        listener_count += err == 0;
    }
    if (err == 0)
        err = open_control();
    if (err == 0) {
        signal(SIGINT, on_signal);
        signal(SIGTERM, on_signal);
        err = gyre_engine_run(engine);
        shutdown(control, SHUT_RDWR);
        pthread_join(control_thread, NULL);
    }
    gyre_handover_destroy(from_old);
    if (old >= 0)
        close(old);
    if (control >= 0)
        close(control);
    return err;
}

int main(int argc, char **argv)
{
    struct gyre_engine_options options = {.loops = 1, .handlers = &engine_handlers};
    bool stats = false;
    const char *name = "restart [flags] CONTROL-PATH ADDRESS...";
    int first = example_flags(argc, argv, name, &options, &stats);
    if (first < 0)
        return 2;
    if (argc - first < 2 || argc - first > 1 + LISTENERS_MAX)
        return example_usage(name, "it takes the path of a control socket and 1 to 16 addresses to listen on");
    if (strlen(argv[first]) >= sizeof control_addr.sun_path)
        return example_usage(name, "the path of the control socket is too long");
    memcpy(control_addr.sun_path, argv[first], strlen(argv[first]));

    int err = serve(&options, argv + first + 1, argc - first - 1);
    if (err == 0 && stats)
        example_print_stats(engine);
    gyre_engine_destroy(engine);
    return err == 0 ? 0 : example_failed(name, err);
}
