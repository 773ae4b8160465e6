/* SPDX-License-Identifier: MIT
 * Reading files, and sending what a socket takes at once. */
#include "stream.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { FILE_BYTES = 100000, ROOM = 30000 };

static int make_file(const struct seam *s, int mode)
{
    static uint8_t bytes[FILE_BYTES];
    char path[128];
    (void)snprintf(path, sizeof path, "%s/file", s->dir);
    int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);
    cr_assert_geq(fd, 0);
    env_pattern_fill(bytes, sizeof bytes, 1, 0);
    cr_assert_eq(write(fd, bytes, sizeof bytes), sizeof bytes);
    cr_assert_eq(close(fd), 0);
    fd = open(path, mode | O_CLOEXEC);
    cr_assert_geq(fd, 0);
    return fd;
}

static void submit_read(struct seam *s, struct seam_op *so, struct gyre__fd *f, const struct gyre__op_read *read)
{
    seam_send(so, f, NULL, 0);
    so->op.kind = GYRE_OP_READ;
    so->op.u.read = read;
    seam_submit(s, so);
}

/* A file comes in pieces, which may be short, and ends with 0; the descriptor's position stays where it was. */
TRANSPORT_TEST(file, read_to_the_end)
{
    static uint8_t bytes[ROOM];
    struct seam s;
    struct stream a, b;
    seam_open(&s, p);
    stream_pair(&s, &a, &b, 1);
    int fd = make_file(&s, O_RDONLY);
    struct seam_op *so = seam_op_new(&s);
    struct gyre__op_read read = {.fd = fd, .buf = bytes, .len = ROOM};
    do {
        submit_read(&s, so, &a.f, &read);
        seam_until(&s, seam_idle(so));
        cr_assert(so->res >= 0 && so->res <= ROOM, "read gave %d", so->res);
        cr_assert_eq(env_pattern_check(bytes, (size_t)so->res, 1, read.offset), -1);
        read.offset += (uint64_t)so->res;
    } while (so->res > 0);
    cr_assert_eq(read.offset, FILE_BYTES);
    cr_assert_eq(lseek(fd, 0, SEEK_CUR), 0);
    cr_assert_eq(close(fd), 0);
    stream_close(&a);
    stream_close(&b);
    seam_close(&s);
}

/* What cannot be read is an error of the op; one that is cancelled still has its last event. */
BACKEND_TEST(file, read_errors)
{
    static uint8_t bytes[ROOM];
    struct seam s;
    struct stream a, b;
    seam_open(&s, p);
    stream_pair(&s, &a, &b, 1);
    int fd = make_file(&s, O_WRONLY);
    struct seam_op *so = seam_op_new(&s);
    struct gyre__op_read read = {.fd = fd, .buf = bytes, .len = ROOM};
    submit_read(&s, so, &a.f, &read);
    seam_until(&s, seam_idle(so));
    cr_assert_eq(so->res, -EBADF, "read of a file open for writing gave %d", so->res);
    cr_assert_eq(close(fd), 0);
    submit_read(&s, so, &a.f, &read);
    seam_until(&s, seam_idle(so));
    cr_assert_eq(so->res, -EBADF);
    read.fd = fd = make_file(&s, O_RDONLY);
    submit_read(&s, so, &a.f, &read);
    seam_cancel(&s, so);
    seam_until(&s, seam_idle(so));
    cr_assert(so->res == -ECANCELED || so->res > 0, "a cancelled read gave %d", so->res);
    cr_assert_eq(close(fd), 0);
    stream_close(&a);
    stream_close(&b);
    seam_close(&s);
}

/* try_send takes some, then says -EAGAIN until the other end has read, and its bytes come in order with a send's. */
TRANSPORT_TEST(file, try_send)
{
    static uint8_t bytes[4096];
    struct seam s;
    struct stream a, b;
    uint64_t sent = 0;
    int64_t n;
    seam_open(&s, p);
    stream_pair(&s, &a, &b, 1);
    do {
        env_pattern_fill(bytes, sizeof bytes, a.key_out, sent);
        n = s.ops->sock->try_send(s.be, a.f.fd, bytes, sizeof bytes);
        sent += n > 0 ? (uint64_t)n : 0;
    } while (n > 0);
    cr_assert_eq(n, -EAGAIN, "try_send on a full socket gave %lld", (long long)n);
    cr_assert_gt(sent, 0);
    cr_assert_eq(s.ops->sock->try_send(s.be, a.f.fd, bytes, 0), -EAGAIN, "nothing was taken, and that is no failure");
    stream_receive(&b, 0);
    seam_until(&s, b.got == sent);
    a.sent = sent; /* the stream goes on from there */
    a.send_goal = sent;
    stream_send(&a, 50000);
    seam_until(&s, b.got == sent + 50000);
    cr_assert_eq(s.ops->sock->shutdown(s.be, a.f.fd), 0);
    cr_assert_eq(s.ops->sock->try_send(s.be, a.f.fd, bytes, 1), -EPIPE);
    cr_assert_eq(s.ops->sock->try_send(s.be, 19999, bytes, 1), -EBADF);
    seam_until(&s, b.eof);
    stream_close(&a);
    stream_close(&b);
    seam_close(&s);
}
