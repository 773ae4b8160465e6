/* SPDX-License-Identifier: MIT
 * Listeners of an engine that runs: added, paused, resumed and closed from outside; sockets that come from elsewhere;
 * filters and limits over several loops. */
#include "rig.h"

#include "socket/addr.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { LOOPS = 4 };

static int add(struct gyre_listener **out, const char *address, const struct gyre_listener_options *options)
{
    return gyre_engine_listen(out, rig->engine, address, &rig_handlers, options);
}

static void count(void *user)
{
    atomic_fetch_add((_Atomic(unsigned) *)user, 1);
}

/* Added from another thread: served at once, on every loop; closed: the address is free, its connections live on. */
REAL_TEST(api_running, added_and_closed)
{
    for (int kind = GYRE_BALANCE_AUTO; kind <= GYRE_BALANCE_ROUND_ROBIN; kind++) {
        struct rig r;
        struct gyre_listener *l;
        char address[160];
        int fds[16];
        _Atomic(unsigned) closed = 0;
        struct gyre_listener_options options = {
            .balance = (enum gyre_balance)kind, .on_closed = count, .user = (void *)&closed};
        rig_open(&r, p, LOOPS);
        rig_run(&r);
        cr_assert_eq(add(&l, rig_tcp, &options), 0);
        cr_assert_eq(gyre_listener_index(l), 0);
        cr_assert_eq(gyre_listener_socket_count(l), kind == GYRE_BALANCE_ROUND_ROBIN ? 1 : LOOPS);
        (void)snprintf(address, sizeof address, "%s", gyre_listener_address(l));
        for (unsigned i = 0; i < 16; i++) {
            fds[i] = rig_client(address);
            rig_ping(fds[i]);
        }
        gyre_listener_close(l);
        gyre_listener_close(l);
        await(closed == 1);
        for (unsigned i = 0; i < 16; i++)
            rig_ping(fds[i]);
        cr_assert_eq(add(&l, address, &options), 0, "the address is not free after on_closed");
        cr_assert_eq(gyre_listener_index(l), 1);
        int fd = rig_client(address);
        rig_ping(fd);
        (void)close(fd);
        for (unsigned i = 0; i < 16; i++)
            (void)close(fds[i]);
        gyre_engine_stop(r.engine);
        rig_join(&r);
        gyre_engine_destroy(r.engine);
        cr_assert_eq(closed, 2, "the end of the engine closes it too");
        cr_assert_eq(atomic_load(&r.mem.blocks), 0);
        cr_assert_eq(env_fd_count(), r.fds);
    }
}

/* Again and again: neither memory nor descriptors grow. */
REAL_TEST(api_running, added_and_closed_a_hundred_times)
{
    struct rig r;
    _Atomic(unsigned) closed = 0;
    struct gyre_listener_options options = {.on_closed = count, .user = (void *)&closed};
    long blocks = 0;
    int fds = 0;
    rig_open(&r, p, LOOPS);
    rig_run(&r);
    for (unsigned i = 0; i < 100; i++) {
        struct gyre_listener *l;
        cr_assert_eq(add(&l, rig_tcp, &options), 0);
        int fd = rig_client(gyre_listener_address(l));
        rig_ping(fd);
        gyre_listener_close(l);
        (void)close(fd);
        await(closed == i + 1 && gyre_engine_conn_count(r.engine) == 0);
        if (i == 40) { /* connections have been on every loop by then */
            blocks = atomic_load(&r.mem.blocks);
            fds = env_fd_count();
        }
    }
    cr_assert_leq(atomic_load(&r.mem.blocks), blocks + 40, "memory grows with listeners that are gone");
    cr_assert_leq(env_fd_count(), fds);
    rig_stop(&r);
}

/* Unix paths: bound when the call returns, unlinked once closed. */
REAL_TEST(api_running, unix_path)
{
    struct rig r;
    struct gyre_listener *l;
    char dir[64], address[128];
    _Atomic(unsigned) closed = 0;
    struct gyre_listener_options options = {.on_closed = count, .user = (void *)&closed};
    rig_open(&r, p, 2);
    env_dir_make(dir, sizeof dir);
    (void)snprintf(address, sizeof address, "unix://%s/sock", dir);
    rig_run(&r);
    cr_assert_eq(add(&l, address, &options), 0);
    int fd = rig_client(address);
    rig_ping(fd);
    cr_assert_eq(add(&l, address, &options), -EADDRINUSE);
    gyre_listener_close(l);
    await(closed == 1);
    cr_assert_neq(access(address + strlen("unix://"), F_OK), 0, "the path stays");
    rig_ping(fd);
    (void)close(fd);
    rig_stop(&r);
    env_dir_remove(dir);
}

/* What is wrong is said by the call, and nothing stays open. */
REAL_TEST(api_running, errors)
{
    struct rig r;
    struct gyre_listener *l = NULL, *taken;
    struct gyre_listener_options options = {.backlog = 0}, bad = {.unix_mode = 010000};
    struct gyre_loop *other;
    rig_open(&r, p, 2);
    rig_run(&r);
    cr_assert_eq(add(&taken, rig_tcp, &options), 0);
    int fds = env_fd_count();
    cr_assert_eq(add(&l, gyre_listener_address(taken), &options), -EADDRINUSE);
    cr_assert_eq(add(&l, "tcp://203.0.113.1:0", &options), -EADDRNOTAVAIL);
    cr_assert_eq(add(&l, "tcp://nowhere", &options), GYRE_EADDRESS);
    cr_assert_eq(add(&l, "unix://", &options), GYRE_EPATHLEN);
    cr_assert_eq(add(&l, rig_tcp, &bad), GYRE_EOPTION);
    cr_assert_eq(add(&l, NULL, &options), -EINVAL);
    cr_assert_eq(gyre_engine_listen(NULL, r.engine, rig_tcp, NULL, NULL), GYRE_EHANDLERS);
    other = gyre_engine_loop(r.engine, 1);
    cr_assert_eq(gyre_loop_listen(&l, other, rig_tcp, &rig_handlers, &options), GYRE_ETHREAD);
    cr_assert_null(l);
    cr_assert_eq(env_fd_count(), fds);
    int fd = rig_client(gyre_listener_address(taken));
    rig_ping(fd);
    (void)close(fd);
    gyre_engine_stop(r.engine);
    rig_join(&r);
    cr_assert_eq(add(&l, rig_tcp, &options), GYRE_ESTATE);
    rig_close(&r);
}

static _Atomic(int) boot_err;
static struct gyre_listener *boot_listener;

static void listen_in_handler(struct gyre_conn *c)
{
    struct gyre_listener_options options = {.backlog = 0};
    rig_on_open(c);
    if (boot_listener == NULL)
        atomic_store(&boot_err, add(&boot_listener, rig_tcp, &options) == 0 ? 1 : -1);
}

/* From a handler, on whatever loop. */
REAL_TEST(api_running, added_by_a_handler)
{
    static const struct gyre_conn_handlers handlers = {
        .on_open = listen_in_handler, .on_data = rig_on_data, .on_close = rig_on_close};
    struct gyre_listener_options options = {.backlog = 0};
    struct rig r;
    rig_open(&r, p, LOOPS);
    cr_assert_eq(gyre_engine_listen(&r.listener, r.engine, rig_tcp, &handlers, &options), 0);
    rig_run(&r);
    int first = rig_client(gyre_listener_address(r.listener));
    await(boot_err != 0);
    cr_assert_eq(boot_err, 1);
    for (unsigned i = 0; i < 12; i++) {
        int fd = rig_client(gyre_listener_address(boot_listener));
        rig_ping(fd);
        (void)close(fd);
    }
    (void)close(first);
    rig_stop(&r);
}

/* While paused clients wait in the backlog; after resuming each is served. */
REAL_TEST(api_running, paused)
{
    for (int kind = GYRE_BALANCE_KERNEL; kind <= GYRE_BALANCE_ROUND_ROBIN; kind++) {
        struct rig r;
        int fds[20];
        struct gyre_listener_options options = {.balance = (enum gyre_balance)kind};
        rig_open(&r, p, LOOPS);
        rig_listen(&r, rig_tcp, &options);
        cr_assert_eq(gyre_listener_pause(r.listener), 0);
        rig_run(&r);
        for (unsigned i = 0; i < 20; i++)
            fds[i] = rig_client(gyre_listener_address(r.listener));
        (void)poll(NULL, 0, 20);
        cr_assert_eq(rig_opened(&r), 0);
        cr_assert_eq(gyre_listener_resume(r.listener), 0);
        for (unsigned i = 0; i < 20; i++)
            rig_ping(fds[i]);
        cr_assert_eq(gyre_listener_resume(r.listener), 0);
        gyre_listener_close(r.listener);
        cr_assert_eq(gyre_listener_pause(r.listener), GYRE_ESTATE);
        cr_assert_eq(gyre_listener_resume(r.listener), GYRE_ESTATE);
        for (unsigned i = 0; i < 20; i++)
            (void)close(fds[i]);
        rig_stop(&r);
    }
}

static int only_even(struct gyre_listener *listener, const struct sockaddr *peer, socklen_t len, void *user)
{
    struct gyre__addr addr = {.len = len};
    char text[GYRE_ADDR_TEXT_MAX];
    cr_assert_eq(listener, rig->listener);
    memcpy(&addr.ss, peer, len);
    gyre__addr_format(&addr, text, sizeof text);
    count(user);
    return strncmp(text, "tcp://127.0.0.3:", 16) == 0   ? GYRE_ACCEPT_NO
           : strncmp(text, "tcp://127.0.0.5:", 16) == 0 ? GYRE_ACCEPT_RESET
                                                       : GYRE_ACCEPT_YES;
}

/* A filter sees every client's address before anything is made of the connection; who is refused gets the end, or a
 * reset. */
REAL_TEST(api_running, filtered)
{
    for (int kind = GYRE_BALANCE_KERNEL; kind <= GYRE_BALANCE_ROUND_ROBIN; kind++) {
        struct rig r;
        _Atomic(unsigned) asked = 0;
        struct gyre_stats stats;
        uint64_t refused = 0;
        char byte;
        struct gyre_listener_options options = {
            .balance = (enum gyre_balance)kind, .filter = only_even, .user = (void *)&asked};
        rig_open(&r, p, LOOPS);
        rig_listen(&r, rig_tcp, &options);
        rig_run(&r);
        for (unsigned i = 0; i < 12; i++) {
            char source[64];
            (void)snprintf(source, sizeof source, "tcp://127.0.0.%u:0", 2 + i % 4);
            int fd = rig_client_from(gyre_listener_address(r.listener), source);
            if (i % 2 == 0)
                rig_ping(fd);
            else if (i % 4 == 1)
                cr_assert_eq(rig_receive(fd, &byte, 1), 0, "%s", strerror(errno));
            else
                cr_assert(rig_receive(fd, &byte, 1) == -1 && errno == ECONNRESET, "%s", strerror(errno));
            (void)close(fd);
        }
        cr_assert_eq(asked, 12);
        cr_assert_eq(rig_opened(&r), 6);
        gyre_engine_stop(r.engine);
        rig_join(&r);
        for (uint32_t i = 0; i < LOOPS; i++) {
            gyre_loop_stats(&stats, gyre_engine_loop(r.engine, i));
            refused += stats.refused;
        }
        cr_assert_eq(refused, 6);
        rig_close(&r);
    }
}

/* No more than so many at once, of one listener and of the whole engine: the others wait and are served as places
 * become free. One loop accepts, so the count is exact. */
REAL_TEST(api_running, limited)
{
    enum { MAX = 5, COUNT = 17 };
    for (int of_engine = 0; of_engine < 2; of_engine++) {
        struct rig r;
        int fds[COUNT];
        struct gyre_stats stats;
        struct gyre_listener_options options = {.balance = GYRE_BALANCE_ROUND_ROBIN,
                                                .conns_max = of_engine ? 0 : MAX};
        rig_open_limited(&r, p, LOOPS, 0, of_engine ? MAX : 0);
        rig_listen(&r, rig_tcp, &options);
        rig_run(&r);
        for (unsigned i = 0; i < COUNT; i++)
            fds[i] = rig_client(gyre_listener_address(r.listener));
        for (unsigned i = 0; i < COUNT; i++) {
            rig_ping(fds[i]);
            cr_assert_leq(gyre_engine_conn_count(r.engine), MAX);
            if (i == MAX - 1) {
                (void)poll(NULL, 0, 5);
                cr_assert_eq(rig_opened(&r), MAX);
            }
            if (i >= MAX - 1)
                (void)close(fds[i - (MAX - 1)]);
        }
        for (unsigned i = COUNT - (MAX - 1); i < COUNT; i++)
            (void)close(fds[i]);
        await(gyre_engine_conn_count(r.engine) == 0);
        gyre_engine_stop(r.engine);
        rig_join(&r);
        gyre_loop_stats(&stats, gyre_engine_loop(r.engine, 0));
        cr_assert_gt(stats.accept_pauses, 0);
        cr_assert_eq(stats.refused, 0, "a connection was closed that could have waited");
        rig_close(&r);
    }
}

static int listening_socket(char *address, size_t size)
{
    struct gyre__address any;
    struct gyre__addr addr = {.len = sizeof addr.ss};
    cr_assert_eq(gyre__addr_parse(&any, rig_tcp), 0);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    cr_assert_eq(bind(fd, (struct sockaddr *)&any.addr.ss, any.addr.len), 0);
    cr_assert_eq(listen(fd, 100), 0);
    cr_assert_eq(getsockname(fd, (struct sockaddr *)&addr.ss, &addr.len), 0);
    gyre__addr_format(&addr, address, size);
    return fd;
}

/* A socket that was inherited, given before or while the engine runs: in turn over all loops. */
REAL_TEST(api_running, adopted)
{
    for (int running = 0; running < 2; running++) {
        struct rig r;
        char address[GYRE_ADDR_TEXT_MAX];
        int fds[8];
        rig_open(&r, p, LOOPS);
        int fd = listening_socket(address, sizeof address);
        int early = rig_client(address);
        if (running)
            rig_run(&r);
        cr_assert_eq(gyre_engine_listen_fd(&r.listener, r.engine, fd, &rig_handlers, NULL), 0);
        cr_assert_eq(strcmp(gyre_listener_address(r.listener), address), 0);
        cr_assert(fcntl(fd, F_GETFD) & FD_CLOEXEC);
        if (!running)
            rig_run(&r);
        rig_ping(early);
        for (unsigned i = 1; i < 8; i++) {
            fds[i] = rig_client(address);
            rig_ping(fds[i]);
        }
        for (unsigned i = 0; i < LOOPS; i++)
            cr_assert_eq(r.opens[i], 2);
        (void)close(early);
        for (unsigned i = 1; i < 8; i++)
            (void)close(fds[i]);
        rig_stop(&r);
    }
}

static void *run_engine(void *engine)
{
    cr_assert_eq(gyre_engine_run(engine), 0);
    return NULL;
}

/* Taking over from another engine without losing a client: the sockets are handed to a second engine, the first stops
 * listening, and who connects at any moment is served by one of them. */
REAL_TEST(api_running, handed_over_to_another_engine)
{
    struct rig r;
    struct gyre_engine *second;
    struct gyre_listener *l[LOOPS];
    char address[160];
    _Atomic(unsigned) closed = 0;
    struct gyre_listener_options options = {.on_closed = count, .user = (void *)&closed};
    rig_open(&r, p, LOOPS);
    rig_listen(&r, rig_tcp, &options);
    (void)snprintf(address, sizeof address, "%s", gyre_listener_address(r.listener));
    rig_run(&r);
    int before = rig_client(address);
    rig_ping(before);
    cr_assert_eq(gyre_listener_socket_count(r.listener), LOOPS);
    cr_assert_eq(gyre_listener_dup_fd(r.listener, LOOPS), -EINVAL);
    cr_assert_eq(gyre_engine_create(&second, &(struct gyre_engine_options){.loop = r.loop_options}), 0);
    for (uint32_t i = 0; i < LOOPS; i++) {
        int fd = gyre_listener_dup_fd(r.listener, i);
        cr_assert_geq(fd, 0);
        cr_assert(fcntl(fd, F_GETFD) & FD_CLOEXEC);
        cr_assert_eq(gyre_engine_listen_fd(&l[i], second, fd, &rig_handlers, NULL), 0);
    }
    gyre_listener_close(r.listener);
    await(closed == 1);
    cr_assert_eq(gyre_listener_dup_fd(r.listener, 0), GYRE_ESTATE);
    int waiting[20];
    for (unsigned i = 0; i < 20; i++)
        waiting[i] = rig_client(address); /* nobody accepts just now */
    rig_ping(before);
    (void)close(before);
    gyre_engine_stop(r.engine);
    rig_join(&r);

    struct gyre_engine *first = r.engine;
    r.engine = second;
    pthread_t thread;
    cr_assert_eq(pthread_create(&thread, NULL, run_engine, second), 0);
    for (unsigned i = 0; i < 20; i++) {
        rig_ping(waiting[i]);
        (void)close(waiting[i]);
    }
    gyre_engine_stop(second);
    cr_assert_eq(pthread_join(thread, NULL), 0);
    gyre_engine_destroy(second);
    r.engine = first;
    rig_close(&r);
}

struct connects {
    _Atomic(unsigned) done, failed, loops[LOOPS];
};

static void on_connected(struct gyre_loop *loop, struct gyre_conn *c, int err, void *user)
{
    struct connects *k = user;
    cr_assert(gyre_loop_is_current(loop));
    cr_assert_eq(c != NULL, err == 0, "%s", gyre_err_name(err));
    for (uint32_t i = 0; c != NULL && i < LOOPS; i++)
        if (gyre_engine_loop(rig->engine, i) == loop)
            atomic_fetch_add(&k->loops[i], 1);
    if (c != NULL)
        cr_assert_eq(gyre_conn_loop(c), loop);
    atomic_fetch_add(&k->failed, err != 0);
    atomic_fetch_add(&k->done, 1);
}

/* Connections made for any thread: evenly over the loops, exactly. */
REAL_TEST(api_running, connected_from_any_thread)
{
    enum { COUNT = 200 };
    struct rig r;
    struct connects k = {.done = 0};
    char address[GYRE_ADDR_TEXT_MAX];
    int listening = listening_socket(address, sizeof address);
    cr_assert_eq(listen(listening, 2 * COUNT), 0);
    rig_open(&r, p, LOOPS);
    r.fds--; /* the listening socket is ours to close */
    rig_run(&r);
    cr_assert_eq(gyre_engine_connect(r.engine, "tcp://nowhere", &rig_handlers, on_connected, &k, NULL), GYRE_EADDRESS);
    cr_assert_eq(gyre_engine_connect(r.engine, address, NULL, on_connected, &k, NULL), GYRE_EHANDLERS);
    cr_assert_eq(gyre_engine_connect(NULL, address, &rig_handlers, on_connected, &k, NULL), -EINVAL);
    for (unsigned i = 0; i < COUNT; i++)
        cr_assert_eq(gyre_engine_connect(r.engine, address, &rig_handlers, on_connected, &k, NULL), 0);
    await(k.done == COUNT && rig_opened(&r) == COUNT);
    cr_assert_eq(k.failed, 0);
    for (unsigned i = 0; i < LOOPS; i++)
        cr_assert_eq(k.loops[i], COUNT / LOOPS, "loop %u has %u", i, k.loops[i]);
    cr_assert_eq(gyre_engine_conn_count(r.engine), COUNT);
    (void)close(listening);
    await(r.closes == COUNT);
    rig_stop(&r);
}

/* What goes wrong on the loop is told by `done`: here the system refuses the address to connect from. When every loop
 * is full the call says so. */
REAL_TEST(api_running, connects_that_fail)
{
    struct rig r;
    struct connects k = {.done = 0};
    struct gyre_conn_options from = {.source_address = "tcp://203.0.113.1:0"};
    char address[GYRE_ADDR_TEXT_MAX];
    int listening = listening_socket(address, sizeof address);
    rig_open_limited(&r, p, 2, 1, 0);
    r.fds--;
    rig_run(&r);
    cr_assert_eq(gyre_engine_connect(r.engine, address, &rig_handlers, on_connected, &k, &from), 0);
    await(k.done == 1);
    cr_assert_eq(k.failed, 1);
    for (int i = 0; i < 2; i++)
        cr_assert_eq(gyre_engine_connect(r.engine, address, &rig_handlers, on_connected, &k, NULL), 0);
    cr_assert_eq(gyre_engine_connect(r.engine, address, &rig_handlers, on_connected, &k, NULL), GYRE_ECONNS);
    await(rig_opened(&r) == 2);
    (void)close(listening);
    rig_stop(&r);
}
