/* SPDX-License-Identifier: MIT
 * Listening sockets from one engine to the next, as in a restart: by SCM_RIGHTS, with everything that the other side
 * may get wrong, and by LISTEN_FDS. Both engines are in this process, which is all the same to the sockets. */
#include "rig.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- the old engine: a thread sends, and waits for the confirmation ---- */

struct sender {
    int fd;
    struct gyre_listener *listener;
    int64_t timeout_ns;
    pthread_t thread;
    int result;
};

static void *send_sockets(void *arg)
{
    struct sender *s = arg;
    s->result = gyre_handover_send(s->fd, &s->listener, 1, s->timeout_ns);
    return NULL;
}

static int begin_sending(struct sender *s, struct gyre_listener *listener, int64_t timeout_ns)
{
    int fds[2];
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    *s = (struct sender){.fd = fds[0], .listener = listener, .timeout_ns = timeout_ns};
    cr_assert_eq(pthread_create(&s->thread, NULL, send_sockets, s), 0);
    return fds[1];
}

static int end_sending(struct sender *s)
{
    cr_assert_eq(pthread_join(s->thread, NULL), 0);
    (void)close(s->fd);
    return s->result;
}

/* ---- the new engine ---- */

struct heir {
    struct gyre_engine *engine;
    struct gyre_listener *listener;
    pthread_t thread;
    _Atomic(unsigned) opens;
};

static struct heir heir;

static void heir_opened(struct gyre_conn *c)
{
    (void)c;
    atomic_fetch_add(&heir.opens, 1);
}

static void echo(struct gyre_conn *c)
{
    (void)gyre_conn_forward(c, c, SIZE_MAX);
}

static const struct gyre_conn_handlers heir_handlers = {.on_open = heir_opened, .on_data = echo};

static void *run_heir(void *arg)
{
    struct heir *h = arg;
    cr_assert_eq(gyre_engine_run(h->engine), 0);
    return NULL;
}

static void make_heir(const char *backend, uint32_t loops)
{
    heir = (struct heir){.engine = NULL};
    const struct gyre_engine_options options = {.loops = loops, .loop = {.backend = backend}};
    int err = gyre_engine_create(&heir.engine, &options);
    cr_assert_eq(err, 0, "%s", gyre_err_name(err));
}

static void start_heir(void)
{
    cr_assert_eq(pthread_create(&heir.thread, NULL, run_heir, &heir), 0);
}

static void end_heir(void)
{
    gyre_engine_stop(heir.engine);
    cr_assert_eq(pthread_join(heir.thread, NULL), 0);
    gyre_engine_destroy(heir.engine);
}

/* From two loops to `loops`, on `backend`: the old one drains, and no client of a hundred is refused meanwhile. */
static void restart(const struct backend_param *p, const char *backend, uint32_t loops, uint32_t sockets)
{
    struct rig r;
    struct sender s;
    struct gyre_handover *h;
    char address[64];
    rig_open(&r, p, 2);
    rig_listen(&r, rig_tcp, NULL);
    rig_run(&r);
    (void)snprintf(address, sizeof address, "%s", gyre_listener_address(r.listener));
    int fd = begin_sending(&s, r.listener, MS(API_PATIENCE_MS));
    int err = gyre_handover_receive(&h, fd, MS(API_PATIENCE_MS));
    cr_assert_eq(err, 0, "%s", gyre_err_name(err));
    cr_assert_eq(gyre_handover_count(h), 2);
    make_heir(backend, loops);
    err = gyre_engine_listen_handover(&heir.listener, heir.engine, h, address, &heir_handlers, NULL);
    cr_assert_eq(err, 0, "%s", gyre_err_name(err));
    cr_assert_eq(gyre_handover_count(h), 0);
    cr_assert_eq(strcmp(gyre_listener_address(heir.listener), address), 0);
    cr_assert_eq(gyre_listener_socket_count(heir.listener), sockets);
    start_heir();
    cr_assert_eq(gyre_handover_confirm(h), 0);
    gyre_handover_destroy(h);
    cr_assert_eq(end_sending(&s), 0);
    (void)close(fd);
    (void)gyre_engine_drain(r.engine, NULL);
    for (unsigned i = 0; i < 100; i++) {
        int client = rig_client(address);
        rig_ping(client);
        (void)close(client);
    }
    rig_join(&r);
    for (unsigned i = 0; i < 100; i++) {
        int client = rig_client(address);
        rig_ping(client);
        (void)close(client);
    }
    cr_assert_geq(atomic_load(&heir.opens), 100);
    end_heir();
    rig_close(&r);
}

REAL_TEST(api_restart, to_as_many_loops)
{
    restart(p, p->backend, 2, 2);
}

/* One loop accepts on both sockets. */
REAL_TEST(api_restart, to_one_loop)
{
    restart(p, p->backend, 1, 2);
}

/* A third socket is opened beside the two that came. */
REAL_TEST(api_restart, to_more_loops)
{
    restart(p, p->backend, 3, 3);
}

REAL_TEST(api_restart, to_another_backend)
{
    restart(p, strcmp(p->backend, "epoll") == 0 ? "auto" : "epoll", 2, 2);
}

/* ---- limits ---- */

/* Two sockets, one listener, one limit. */
REAL_TEST(api_restart, limit_counts_once)
{
    struct rig r;
    struct sender s;
    struct gyre_handover *h;
    int clients[6];
    rig_open(&r, p, 2);
    rig_listen(&r, rig_tcp, NULL);
    int fd = begin_sending(&s, r.listener, MS(API_PATIENCE_MS));
    cr_assert_eq(gyre_handover_receive(&h, fd, MS(API_PATIENCE_MS)), 0);
    make_heir(p->backend, 1);
    const struct gyre_listener_options options = {.conns_max = 3};
    cr_assert_eq(gyre_engine_listen_handover(&heir.listener, heir.engine, h, gyre_listener_address(r.listener),
                                             &heir_handlers, &options),
                 0);
    start_heir();
    cr_assert_eq(gyre_handover_confirm(h), 0);
    cr_assert_eq(end_sending(&s), 0);
    for (unsigned i = 0; i < 6; i++)
        clients[i] = rig_client(gyre_listener_address(r.listener));
    await(atomic_load(&heir.opens) == 3);
    (void)poll(NULL, 0, 200); /* longer than the time between two looks for room */
    cr_assert_eq(atomic_load(&heir.opens), 3);
    cr_assert_eq(gyre_listener_conn_count(heir.listener), 3);
    for (unsigned i = 0; i < 6; i++)
        (void)close(clients[i]);
    gyre_handover_destroy(h);
    (void)close(fd);
    end_heir();
    rig_close(&r);
}

/* ---- the file of a unix socket ---- */

/* It stays when the old engine ends, and goes with the new one. */
REAL_TEST(api_restart, unix_path_moves)
{
    struct rig r;
    struct sender s;
    struct gyre_handover *h;
    struct stat st;
    char folder[] = "/tmp/gyre-restart-XXXXXX", path[64], address[80];
    cr_assert_neq(mkdtemp(folder), NULL);
    (void)snprintf(path, sizeof path, "%s/s", folder);
    (void)snprintf(address, sizeof address, "unix://%s", path);
    rig_open(&r, p, 2);
    rig_listen(&r, address, NULL);
    rig_run(&r);
    int fd = begin_sending(&s, r.listener, MS(API_PATIENCE_MS));
    cr_assert_eq(gyre_handover_receive(&h, fd, MS(API_PATIENCE_MS)), 0);
    cr_assert_eq(gyre_handover_count(h), 1);
    make_heir(p->backend, 2);
    cr_assert_eq(gyre_engine_listen_handover(&heir.listener, heir.engine, h, address, &heir_handlers, NULL), 0);
    start_heir();
    cr_assert_eq(gyre_handover_confirm(h), 0);
    gyre_handover_destroy(h);
    cr_assert_eq(end_sending(&s), 0);
    (void)close(fd);
    gyre_engine_stop(r.engine);
    rig_join(&r);
    cr_assert_eq(lstat(path, &st), 0, "the old engine has removed the file");
    int client = rig_client(address);
    rig_ping(client);
    (void)close(client);
    end_heir();
    cr_assert_eq(lstat(path, &st), -1, "the new engine has left the file");
    cr_assert_eq(rmdir(folder), 0);
    rig_close(&r);
}

/* ---- what the other side may get wrong ---- */

/* Nobody confirms: the old engine goes on. */
REAL_TEST(api_restart, not_confirmed)
{
    struct rig r;
    struct sender s;
    struct gyre_handover *h;
    rig_open(&r, p, 2);
    rig_listen(&r, rig_tcp, NULL);
    rig_run(&r);
    int fd = begin_sending(&s, r.listener, MS(API_PATIENCE_MS));
    cr_assert_eq(gyre_handover_receive(&h, fd, MS(API_PATIENCE_MS)), 0);
    gyre_handover_destroy(h);
    (void)close(fd);
    cr_assert_eq(end_sending(&s), -ECONNRESET);
    fd = begin_sending(&s, r.listener, MS(50));
    cr_assert_eq(end_sending(&s), GYRE_ETIMEOUT);
    (void)close(fd);
    fd = begin_sending(&s, r.listener, MS(API_PATIENCE_MS));
    cr_assert_eq(send(fd, "no", 2, MSG_NOSIGNAL), 2);
    cr_assert_eq(end_sending(&s), -EPROTO);
    (void)close(fd);
    int client = rig_client(gyre_listener_address(r.listener));
    rig_ping(client);
    (void)close(client);
    rig_stop(&r);
}

struct head { /* as the library has it */
    char magic[8];
    uint32_t total, here;
};

/* A message with `count` descriptors, all of them `what`. */
static void lie(int fd, struct head head, size_t len, int what, unsigned count)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(100 * sizeof(int))];
    } control;
    struct iovec iov = {.iov_base = &head, .iov_len = len};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    memset(&control, 0, sizeof control);
    if (count > 0) {
        msg.msg_control = control.bytes;
        msg.msg_controllen = CMSG_SPACE(count * sizeof(int));
        struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);
        cmsg->cmsg_level = SOL_SOCKET;
        cmsg->cmsg_type = SCM_RIGHTS;
        cmsg->cmsg_len = CMSG_LEN(count * sizeof(int));
        for (unsigned i = 0; i < count; i++)
            memcpy(CMSG_DATA(cmsg) + i * sizeof(int), &what, sizeof(int));
    }
    cr_assert_eq(sendmsg(fd, &msg, MSG_NOSIGNAL), (ssize_t)len);
}

static void expect_refusal(struct head head, size_t len, int what, unsigned count, int expected)
{
    struct gyre_handover *h;
    int pair[2], before = env_fd_count();
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    lie(pair[0], head, len, what, count);
    (void)close(pair[0]);
    int err = gyre_handover_receive(&h, pair[1], MS(API_PATIENCE_MS));
    cr_assert_eq(err, expected, "%s in place of %s", gyre_err_name(err), gyre_err_name(expected));
    (void)close(pair[1]);
    cr_assert_eq(env_fd_count(), before, "a descriptor stays open");
}

Test(api_restart, a_process_that_lies)
{
    const struct head three = {.magic = "gyre-ho", .total = 3, .here = 3};
    struct head good = three, many = three, more = three;
    struct gyre_handover *h;
    struct sockaddr_in addr = {.sin_family = AF_INET};
    int pair[2], listening = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), plain = open("/dev/null", O_RDONLY);
    cr_assert_eq(bind(listening, (struct sockaddr *)&addr, sizeof addr), 0);
    cr_assert_eq(listen(listening, 1), 0);
    memcpy(good.magic, "gyre-ho1", 8);
    many = more = good;
    many.total = 5000;
    more.here = 4;
    expect_refusal(three, sizeof three, listening, 3, -EPROTO);
    expect_refusal(good, 5, listening, 3, -EPROTO);
    expect_refusal(many, sizeof many, listening, 3, -EPROTO);
    expect_refusal(more, sizeof more, listening, 4, -EPROTO);
    expect_refusal(good, sizeof good, listening, 2, -EPROTO);
    expect_refusal(good, sizeof good, listening, 5, -EPROTO);
    expect_refusal(good, sizeof good, listening, 0, -EPROTO);
    expect_refusal(good, sizeof good, listening, 100, -EMFILE);
    expect_refusal(good, sizeof good, plain, 3, GYRE_ESOCKTYPE);
    int stream = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    expect_refusal(good, sizeof good, stream, 3, GYRE_ESOCKTYPE);
    more.total = 5;
    more.here = 3;
    expect_refusal(more, sizeof more, listening, 3, -ECONNRESET); /* the second message does not come */
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    cr_assert_eq(gyre_handover_receive(&h, pair[1], MS(20)), GYRE_ETIMEOUT);
    cr_assert_eq(gyre_handover_receive(&h, pair[1], -1), GYRE_EOPTION);
    cr_assert_eq(gyre_handover_receive(NULL, pair[1], 0), -EINVAL);
    cr_assert_eq(gyre_handover_receive(&h, -1, 0), -EBADF);
    lie(pair[0], good, sizeof good, listening, 3); /* the same socket three times */
    cr_assert_eq(gyre_handover_receive(&h, pair[1], MS(API_PATIENCE_MS)), 0);
    cr_assert_eq(gyre_handover_count(h), 1);
    gyre_handover_destroy(h);
    gyre_handover_destroy(NULL);
    (void)close(pair[0]);
    (void)close(pair[1]);
    (void)close(stream);
    (void)close(plain);
    (void)close(listening);
}

/* ---- LISTEN_FDS ---- */

/* In a child of its own, whose descriptors from 3 on are what a service manager would pass. Returns 0, or the line of
 * what is not so. */
static int child_of_a_manager(const char *fds, const char *names)
{
    char pid[16], address[64];
    struct gyre_handover *h;
    struct gyre_engine *engine;
    struct gyre_listener *listener;
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof addr;
    int listening = socket(AF_INET, SOCK_STREAM, 0), dgram = socket(AF_INET, SOCK_DGRAM, 0);
    if (bind(listening, (struct sockaddr *)&addr, sizeof addr) != 0 || listen(listening, 4) != 0)
        return __LINE__;
    (void)getsockname(listening, (struct sockaddr *)&addr, &len);
    (void)snprintf(address, sizeof address, "tcp://127.0.0.1:%u", ntohs(addr.sin_port));
    int moved = fcntl(listening, F_DUPFD, 10), moved_dgram = fcntl(dgram, F_DUPFD, 10);
    if (dup2(moved, 3) != 3 || dup2(moved_dgram, 4) != 4)
        return __LINE__;
    (void)close(5);
    (void)snprintf(pid, sizeof pid, "%d", (int)getpid());
    (void)setenv("LISTEN_PID", pid, 1);
    (void)setenv("LISTEN_FDS", fds, 1);
    (void)setenv("LISTEN_FDNAMES", names, 1);
    int err = gyre_handover_inherit(&h);
    if (strcmp(fds, "2") != 0)
        return err == (strcmp(fds, "3") == 0 ? -EBADF : -EPROTO) ? 0 : __LINE__;
    if (err != 0 || gyre_handover_count(h) != 1 || (fcntl(3, F_GETFD) & FD_CLOEXEC) == 0)
        return __LINE__;
    if (gyre_engine_create(&engine, &(struct gyre_engine_options){.loop = {.backend = "epoll"}}) != 0)
        return __LINE__;
    if (gyre_engine_listen_handover(&listener, engine, h, "fd:other", &heir_handlers, NULL) != -ENOENT)
        return __LINE__;
    if (gyre_engine_listen_handover(&listener, engine, h, "fd:web", &heir_handlers, NULL) != 0)
        return __LINE__;
    if (strcmp(gyre_listener_address(listener), address) != 0 || gyre_handover_count(h) != 0)
        return __LINE__;
    gyre_handover_destroy(h);
    gyre_engine_destroy(engine);
    return fcntl(4, F_GETFD) >= 0 ? 0 : __LINE__;
}

static void in_a_child(const char *fds, const char *names)
{
    int status;
    pid_t pid = fork();
    if (pid == 0)
        _exit(child_of_a_manager(fds, names) & 0xff);
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_assert(WIFEXITED(status));
    cr_assert_eq(WEXITSTATUS(status), 0, "LISTEN_FDS=%s: line %d (modulo 256)", fds, WEXITSTATUS(status));
}

Test(api_restart, from_a_service_manager)
{
    struct gyre_handover *h;
    in_a_child("2", "web:dgram");
    in_a_child("3", "a:b:c");
    in_a_child("", "");
    in_a_child("2x", "");
    in_a_child("-1", "");
    in_a_child("99999999999999999999", "");
    cr_assert_eq(gyre_handover_inherit(&h), 0); /* none */
    cr_assert_eq(gyre_handover_count(h), 0);
    cr_assert_eq(gyre_handover_confirm(h), 0);
    gyre_handover_destroy(h);
}
