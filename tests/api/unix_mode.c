/* SPDX-License-Identifier: MIT
 * The mode of a unix socket's file: what was asked for, from the moment that the file is there, whatever the umask, and
 * without touching whatever somebody has put in its place. The library's bind() is this one, which looks, and attacks,
 * right after the file was made. */
#include "fixture.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

static struct {
    bool looks, attacks;
    char path[100], victim[100];
    volatile mode_t mode; /* right after bind */
} scene;

int look_and_bind(int fd, const struct sockaddr *addr, socklen_t len) __asm__("bind");

int look_and_bind(int fd, const struct sockaddr *addr, socklen_t len)
{
    int result = (int)syscall(SYS_bind, fd, addr, len);
    struct stat st;
    if (result != 0 || !scene.looks || addr->sa_family != AF_UNIX)
        return result;
    if (lstat(scene.path, &st) == 0)
        scene.mode = st.st_mode & 0777;
    if (scene.attacks && unlink(scene.path) == 0)
        (void)!symlink(scene.victim, scene.path);
    return result;
}

static void on_data(struct gyre_conn *c)
{
    (void)gyre_conn_discard(c, SIZE_MAX);
}

static void on_datagram(struct gyre_udp *u, const struct gyre_datagram *d)
{
    (void)u;
    (void)d;
}

static const struct gyre_conn_handlers handlers = {.on_data = on_data};
static const struct gyre_udp_handlers udp_handlers = {.on_datagram = on_datagram};

/* Open a socket of either kind on the path, with the mode. */
static int open_with(struct api *api, bool dgram, mode_t mode)
{
    char address[120];
    struct gyre_listener_options options = {.unix_mode = mode};
    struct gyre_udp_options udp_options = {.unix_mode = mode};
    (void)snprintf(address, sizeof address, "%s://%s", dgram ? "unixgram" : "unix", scene.path);
    return dgram ? gyre_udp_open(NULL, api->loop, address, &udp_handlers, &udp_options)
                 : gyre_loop_listen(NULL, api->loop, address, &handlers, &options);
}

static void start(struct api *api, const struct backend_param *p)
{
    api_init(api, p);
    api_open(api);
    (void)snprintf(scene.victim, sizeof scene.victim, "%s/victim", api->dir);
    scene.looks = true;
}

static void end(struct api *api)
{
    scene.looks = false;
    api_close(api);
}

REAL_TEST(api_unix_mode, from_the_first_moment)
{
    static const mode_t masks[] = {0, 022, 077, 0777}, modes[] = {0600, 0660, 0666, 0777, 0606};
    struct api api;
    unsigned count = 0;
    start(&api, p);
    for (unsigned i = 0; i < 40; i++) {
        struct stat st;
        mode_t mode = modes[i / 2 % 5], mask = masks[i / 10], before = umask(mask);
        (void)snprintf(scene.path, sizeof scene.path, "%s/s%u", api.dir, count++);
        scene.mode = 07777;
        int err = open_with(&api, i % 2, mode);
        cr_assert_eq(err, 0, "%s", gyre_err_name(err));
        cr_assert_eq(umask(before), mask, "the umask was changed");
        cr_assert_eq(scene.mode, mode, "umask %o, unix_mode %o: %o at first", mask, mode, scene.mode);
        cr_assert(stat(scene.path, &st) == 0 && (st.st_mode & 0777) == mode);
    }
    end(&api);
}

REAL_TEST(api_unix_mode, of_nothing_else)
{
    struct api api;
    struct stat st;
    start(&api, p);
    int fd = open(scene.victim, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    cr_assert_geq(fd, 0);
    (void)close(fd);
    scene.attacks = true;
    for (unsigned dgram = 0; dgram < 2; dgram++) {
        (void)snprintf(scene.path, sizeof scene.path, "%s/s%u", api.dir, dgram);
        (void)open_with(&api, dgram, 0666);
        cr_assert_eq(stat(scene.victim, &st), 0);
        cr_assert_eq(st.st_mode & 0777, 0600, "another file's mode was set to %o", st.st_mode & 0777);
    }
    scene.attacks = false;
    end(&api);
}
