/* SPDX-License-Identifier: MIT
 * Listening: addresses, ports that are taken, unix paths that are left over, and every documented error. */
#include "fixture.h"

#include "socket/addr.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static const struct gyre_conn_handlers handlers = {.on_data = (void (*)(struct gyre_conn *))abort};

static void start(struct api *api, const struct backend_param *p)
{
    api_init(api, p);
    api_open(api);
}

static int listen_on(struct api *api, struct gyre_listener **out, const char *address)
{
    struct gyre_listener_options options = {.backlog = 0};
    return gyre_loop_listen(out, api->loop, address, &handlers, &options);
}

static int plain_listener(const char *address, bool share)
{
    struct gyre__address parsed;
    int one = 1;
    cr_assert_eq(gyre__addr_parse(&parsed, address), 0);
    int fd = socket(parsed.addr.ss.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_geq(fd, 0);
    if (share)
        cr_assert_eq(setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one), 0);
    cr_assert_eq(bind(fd, (struct sockaddr *)&parsed.addr.ss, parsed.addr.len), 0, "%s", strerror(errno));
    cr_assert_eq(listen(fd, 5), 0);
    return fd;
}

static void address_of(int fd, char *out, size_t size)
{
    struct gyre__addr addr = {.len = sizeof addr.ss};
    cr_assert_eq(getsockname(fd, (struct sockaddr *)&addr.ss, &addr.len), 0);
    gyre__addr_format(&addr, out, size);
}

/* A port that is taken is refused, by whatever socket, also one that would share it; share_port allows that one. */
REAL_TEST(api_listen, port_taken)
{
    struct api api;
    char address[160];
    struct gyre_listener *l = NULL;
    start(&api, p);
    for (int share = 0; share < 2; share++) {
        int fd = plain_listener("tcp://127.0.0.1:0", share);
        address_of(fd, address, sizeof address);
        cr_assert_eq(listen_on(&api, &l, address), -EADDRINUSE, "share %d", share);
        cr_assert_null(l, "an out parameter was set without success");
        struct gyre_listener_options options = {.share_port = true};
        cr_assert_eq(gyre_loop_listen(&l, api.loop, address, &handlers, &options), share ? 0 : -EADDRINUSE);
        l = NULL;
        (void)close(fd);
    }
    cr_assert_eq(listen_on(&api, &l, "tcp://127.0.0.1:0"), 0);
    struct gyre_listener *second = NULL;
    cr_assert_eq(listen_on(&api, &second, gyre_listener_address(l)), -EADDRINUSE, "our own loop has it");
    gyre_listener_close(l);
    api_close(&api);
}

/* An engine of several loops takes no port either that somebody would share. */
REAL_TEST(api_listen, port_taken_for_an_engine)
{
    struct api api;
    struct gyre_engine *engine;
    char address[160];
    start(&api, p); /* skips where the backend does not open */
    struct gyre_loop_options loop = {.backend = p->backend, .mem = &api.mem.mem};
    struct gyre_engine_options options = {.loops = 2, .loop = loop};
    int fd = plain_listener("tcp://127.0.0.1:0", true);
    address_of(fd, address, sizeof address);
    cr_assert_eq(gyre_engine_create(&engine, &options), 0);
    cr_assert_eq(gyre_engine_listen(NULL, engine, address, &handlers, NULL), -EADDRINUSE);
    struct gyre_listener_options share = {.share_port = true};
    cr_assert_eq(gyre_engine_listen(NULL, engine, address, &handlers, &share), 0);
    gyre_engine_destroy(engine);
    (void)close(fd);
    api_close(&api);
}

static bool reaches(struct api *api, const char *address)
{
    struct gyre__address parsed;
    cr_assert_eq(gyre__addr_parse(&parsed, address), 0, "%s", address);
    int fd = socket(parsed.addr.ss.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool ok = connect(fd, (struct sockaddr *)&parsed.addr.ss, parsed.addr.len) == 0;
    unsigned want = api->accepted + ok;
    api_until(api, api->accepted == want);
    (void)close(fd);
    return ok;
}

/* "tcp://:0" is reached over both families, "tcp4://" and "tcp6://" over one. */
REAL_TEST(api_listen, any_host)
{
    static const struct {
        const char *address;
        bool v4, v6;
    } cases[] = {{"tcp://:0", true, true},
                 {"tcp4://0.0.0.0:0", true, false},
                 {"tcp6://[::]:0", false, true},
                 {"tcp://127.0.0.1:0", true, false}};
    struct api api;
    char over[160];
    api_start(&api, p, NULL);
    for (unsigned i = 0; i < 4; i++) {
        struct gyre_listener *l;
        struct gyre_listener_options options = {.conn = {.user = api.sides}};
        int err = gyre_loop_listen(&l, api.loop, cases[i].address, &api.sides->handlers, &options);
        cr_assert_eq(err, 0, "%s: %s", cases[i].address, gyre_err_name(err));
        const char *colon = strrchr(gyre_listener_address(l), ':');
        cr_assert_not_null(colon);
        (void)snprintf(over, sizeof over, "tcp://127.0.0.1%s", colon);
        cr_expect_eq(reaches(&api, over), cases[i].v4, "%s over v4", cases[i].address);
        (void)snprintf(over, sizeof over, "tcp://[::1]%s", colon);
        cr_expect_eq(reaches(&api, over), cases[i].v6, "%s over v6", cases[i].address);
        gyre_listener_close(l);
    }
    api_close(&api);
}

/* The name of a listener is one that listens and connects again. */
BACKEND_TEST(api_listen, address_round_trip)
{
    struct api api;
    struct gyre_listener *l;
    start(&api, p);
    static const char *const addresses[] = {"tcp://127.0.0.1:0", "tcp://[::1]:0", "tcp://:0", "tcp6://[::1]:0"};
    for (unsigned i = 0; i < 4; i++) {
        char first[160];
        cr_assert_eq(listen_on(&api, &l, addresses[i]), 0, "%s", addresses[i]);
        (void)snprintf(first, sizeof first, "%s", gyre_listener_address(l));
        cr_assert_null(strstr(first, ":0\0"), "%s", first);
        gyre_listener_close(l);
        int err = -EADDRINUSE; /* the socket closes when the loop has turned */
        api_until(&api, (err = listen_on(&api, &l, first)) != -EADDRINUSE);
        cr_assert_eq(err, 0, "%s: %s", first, gyre_err_name(err));
        cr_assert_eq(strcmp(gyre_listener_address(l), first), 0);
        gyre_listener_close(l);
    }
    api_close(&api);
}

static void touch(const char *path)
{
    int fd = open(path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
    cr_assert_geq(fd, 0);
    (void)close(fd);
}

/* A path left over by a dead process is replaced; one in use is -EADDRINUSE; any other file is -EEXIST and stays. */
REAL_TEST(api_listen, unix_paths)
{
    struct api api;
    char path[120], address[140];
    struct stat st;
    struct gyre_listener *l = NULL;
    start(&api, p);
    (void)snprintf(path, sizeof path, "%s/sock", api.dir);
    (void)snprintf(address, sizeof address, "unix://%s", path);
    int fd = plain_listener(address, false);
    cr_assert_eq(listen_on(&api, &l, address), -EADDRINUSE);
    cr_assert_eq(stat(path, &st), 0, "the socket in use was removed");
    (void)close(fd); /* the file is left over */
    cr_assert_eq(listen_on(&api, &l, address), 0);
    struct gyre_listener *second = NULL;
    cr_assert_eq(listen_on(&api, &second, address), -EADDRINUSE);
    cr_assert_eq(stat(path, &st), 0);
    gyre_listener_close(l);
    cr_assert_neq(stat(path, &st), 0, "the path is not unlinked at the end");
    touch(path);
    cr_assert_eq(listen_on(&api, &l, address), -EEXIST);
    cr_assert_eq(stat(path, &st), 0, "somebody's file was removed");
    cr_assert(S_ISREG(st.st_mode));
    (void)unlink(path);
    cr_assert_eq(symlink("/nowhere", path), 0);
    cr_assert_eq(listen_on(&api, &l, address), -EEXIST);
    cr_assert_eq(lstat(path, &st), 0);
    (void)unlink(path);
    cr_assert_eq(mkdir(path, 0700), 0);
    cr_assert_eq(listen_on(&api, &l, address), -EEXIST);
    (void)rmdir(path);
    (void)snprintf(address, sizeof address, "unix://%s/no/such/dir", api.dir);
    cr_assert_eq(listen_on(&api, &l, address), -ENOENT);
    api_close(&api);
}

/* If somebody else's file is at the path by then, it is left alone. */
REAL_TEST(api_listen, unix_path_taken_over)
{
    struct api api;
    char path[120], address[140];
    struct stat st;
    struct gyre_listener *l;
    start(&api, p);
    (void)snprintf(path, sizeof path, "%s/sock", api.dir);
    (void)snprintf(address, sizeof address, "unix://%s", path);
    cr_assert_eq(listen_on(&api, &l, address), 0);
    (void)unlink(path);
    int fd = plain_listener(address, false);
    gyre_listener_close(l);
    api_destroy_loop(&api);
    cr_assert_eq(stat(path, &st), 0, "somebody else's socket was removed");
    (void)close(fd);
    api_close(&api);
}

/* unix_mode is what the file gets, whatever the umask. */
REAL_TEST(api_listen, unix_mode)
{
    static const mode_t modes[] = {0660, 0777, 0600, 0606};
    struct api api;
    char path[120], address[140];
    struct stat st;
    start(&api, p);
    mode_t before = umask(022);
    for (unsigned i = 0; i < 4; i++) {
        struct gyre_listener *l;
        struct gyre_listener_options options = {.unix_mode = modes[i]};
        (void)snprintf(path, sizeof path, "%s/sock%u", api.dir, i);
        (void)snprintf(address, sizeof address, "unix://%s", path);
        cr_assert_eq(gyre_loop_listen(&l, api.loop, address, &handlers, &options), 0);
        cr_assert_eq(stat(path, &st), 0);
        cr_assert_eq(st.st_mode & 0777, modes[i], "%o for %o", st.st_mode & 0777, modes[i]);
        gyre_listener_close(l);
    }
    (void)umask(before);
    api_close(&api);
}

/* Every documented error; nothing stays open and no out parameter is set. */
BACKEND_TEST(api_listen, errors)
{
    struct api api;
    char path[300] = "unix:///";
    struct gyre_listener *l = NULL;
    static const struct gyre_conn_handlers none;
    start(&api, p);
    memset(path + 8, 'x', 200);
    cr_expect_eq(listen_on(&api, &l, path), GYRE_EPATHLEN);
    cr_expect_eq(listen_on(&api, &l, "unix://"), GYRE_EPATHLEN);
    cr_expect_eq(listen_on(&api, &l, "unix://@"), GYRE_EPATHLEN);
    cr_expect_eq(listen_on(&api, &l, "tcp://127.0.0.1"), GYRE_EADDRESS);
    cr_expect_eq(listen_on(&api, &l, "http://127.0.0.1:0"), GYRE_EADDRESS);
    cr_expect_eq(gyre_loop_listen(&l, api.loop, "tcp://127.0.0.1:0", NULL, NULL), GYRE_EHANDLERS);
    cr_expect_eq(gyre_loop_listen(&l, api.loop, "tcp://127.0.0.1:0", &none, NULL), GYRE_EHANDLERS);
    struct gyre_listener_options options = {.unix_mode = 010000};
    cr_expect_eq(gyre_loop_listen(&l, api.loop, "tcp://127.0.0.1:0", &handlers, &options), GYRE_EOPTION);
    options = (struct gyre_listener_options){.balance = (enum gyre_balance)7};
    cr_expect_eq(gyre_loop_listen(&l, api.loop, "tcp://127.0.0.1:0", &handlers, &options), GYRE_EOPTION);
    options = (struct gyre_listener_options){.conn = {.idle_timeout_ns = -1}};
    cr_expect_eq(gyre_loop_listen(&l, api.loop, "tcp://127.0.0.1:0", &handlers, &options), GYRE_EOPTION);
    if (!api.is_sim)
        cr_expect_eq(listen_on(&api, &l, "tcp://192.0.2.1:0"), -EADDRNOTAVAIL);
    api_close(&api);
}

/* The loop's own options. */
BACKEND_TEST(api_listen, loop_options)
{
    struct api api;
    struct gyre_loop *loop = NULL;
    start(&api, p);
    const struct gyre_loop_options bad[] = {
        {.buf_size_bytes = 255},   {.buf_size_bytes = (1 << 20) + 1},           {.buf_count_max = 16385},
        {.ops_max = 65537},        {.buf_count = 10, .buf_count_max = 9},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        cr_expect_eq(gyre_loop_create(&loop, &bad[i]), GYRE_EOPTION, "option %zu", i);
    const struct gyre_loop_options name = {.backend = "select"};
    cr_expect_eq(gyre_loop_create(&loop, &name), GYRE_EBACKEND);
    struct {
        struct gyre_loop_options options;
        uint64_t more[4];
    } larger = {.options = {.backend = "epoll"}, .more = {0, 0, 0, 1}};
    cr_expect_eq(gyre_loop_create_sized(&loop, &larger.options, sizeof larger), -E2BIG);
    cr_assert_null(loop);
    larger.more[3] = 0;
    cr_expect_eq(gyre_loop_create_sized(&loop, &larger.options, sizeof larger), 0);
    gyre_loop_destroy(loop);
    gyre_loop_destroy(NULL);
    api_close(&api);
}

/* Closing a listener: nobody is accepted any more, who was stays. */
TRANSPORT_TEST(api_listen, close_keeps_connections)
{
    struct api api;
    struct peer peer;
    const struct script echo = {.data = end_forward_back};
    api_start(&api, p, &echo);
    struct end *e = peer_open(&api, &peer);
    peer.key_in = peer.key_out;
    gyre_listener_close(api.listener);
    for (unsigned i = 0; i < 10; i++)
        api_turn(&api);
    struct end *late = api_connect(&api, api.address, NULL, NULL);
    api_until(&api, late->closes == 1);
    cr_assert_eq(late->reason, GYRE_CLOSE_CONNECT);
    peer_send(&peer, 1000);
    peer_expect(&peer, 1000);
    cr_assert_eq(e->closes, 0);
    peer_close(&peer);
    api_close(&api);
}

/* Again and again: it does nothing, as long as the loop has not begun to listen on something else. Nor do the others on
 * a listener that is closed. Memory does not grow with listeners that are gone. */
BACKEND_TEST(api_listen, closed_twice)
{
    struct api api;
    long blocks = 0;
    start(&api, p);
    for (unsigned i = 0; i < 20; i++) {
        struct gyre_listener *l = NULL, *other = NULL;
        cr_assert_eq(listen_on(&api, &l, "tcp://127.0.0.1:0"), 0);
        cr_assert_eq(listen_on(&api, &other, "tcp://127.0.0.1:0"), 0);
        gyre_listener_close(l);
        api_watch(&api, MS(1));
        gyre_listener_close(l);
        cr_assert_eq(gyre_listener_pause(l), GYRE_ESTATE);
        cr_assert_eq(gyre_listener_resume(l), GYRE_ESTATE);
        cr_assert_eq(gyre_listener_dup_fd(l, 0), GYRE_ESTATE);
        cr_assert_eq(gyre_listener_conn_count(l), 0);
        cr_assert_eq(gyre_listener_socket_count(other), 1, "another listener was closed");
        gyre_listener_close(other);
        api_watch(&api, MS(1));
        gyre_listener_close(other);
        gyre_listener_close(l);
        if (i == 5)
            blocks = atomic_load(&api.mem.blocks);
    }
    cr_assert_leq(atomic_load(&api.mem.blocks), blocks);
    api_close(&api);
}

/* The path of a socket that was bound by a relative name is removed from where it was made, wherever the process has
 * gone since, and a file of that name elsewhere stays. Nothing keeps the folder open afterwards. */
REAL_TEST(api_listen, relative_path_after_chdir)
{
    struct api api;
    struct gyre_listener *l;
    char first[] = "/tmp/gyre-chdir-XXXXXX", second[] = "/tmp/gyre-chdir-XXXXXX", name[64];
    start(&api, p);
    cr_assert(mkdtemp(first) != NULL && mkdtemp(second) != NULL);
    cr_assert_eq(chdir(first), 0);
    int fds = env_fd_count();
    cr_assert_eq(listen_on(&api, &l, "unix://./s"), 0);
    cr_assert_eq(chdir(second), 0);
    int fd = open("s", O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    cr_assert(fd >= 0 && close(fd) == 0);
    cr_assert_eq(gyre_listener_close(l), 0);
    api_watch(&api, MS(1));
    cr_assert_eq(env_fd_count(), fds);
    (void)snprintf(name, sizeof name, "%s/s", first);
    cr_assert_eq(access(name, F_OK), -1, "the path stayed behind");
    cr_assert_eq(unlink("s"), 0, "another file was removed");
    cr_assert(chdir("/") == 0 && rmdir(first) == 0 && rmdir(second) == 0);
    api_close(&api);
}
