/* SPDX-License-Identifier: MIT
 * Files in the send queue.
 *
 * The normal course: a FILE segment stands where the file's bytes belong. When it is first in the queue a piece of the
 * file is read into a chunk, by an operation that uses the connection's send op (nothing can be sent meanwhile); the
 * chunk goes in front of the segment and is sent like any other. So one piece at a time is in memory, however long the
 * file is, and the queue keeps its order. When all was read and sent, the segment is done.
 *
 * splice(2) or sendfile(2) would save the copy; but io_uring runs a splice on threads of the kernel's, and sendfile is
 * spelled differently on every system.
 *
 * What can go wrong: the file ends early or cannot be read. The peer was promised more, so the connection ends with a
 * reset, which is how it learns that this was not all. */
#include "conn.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

enum { PIECE_MAX = 64 << 10 };

struct gyre__file {
    struct gyre__op_read read; /* what is being read */
    uint64_t left;            /* not yet read */
    gyre_sent_fn *done;
    void *user;
    const struct gyre_mem *mem;
};

static struct gyre__file *file_of(const struct gyre__seg *seg)
{
    return seg->u.ref.user;
}

bool gyre__file_has_more(const struct gyre__seg *seg)
{
    return seg->kind == GYRE_SEG_FILE && file_of(seg)->left > 0;
}

static void file_over(int err, void *file_user)
{
    struct gyre__file *file = file_user;
    gyre_sent_fn *done = file->done;
    void *user = file->user;
    gyre__free(file->mem, file);
    if (done != NULL)
        done(err, user);
}

static void fail(struct gyre_conn *c, int err)
{
    c->flags |= GYRE_CF_RESET;
    gyre__conn_end(c, GYRE_CLOSE_ERROR, err);
}

void gyre__file_read(struct gyre_conn *c, const struct gyre__seg *seg)
{
    struct gyre__file *file = file_of(seg);
    uint32_t len = file->left < PIECE_MAX ? (uint32_t)file->left : PIECE_MAX;
    struct gyre__seg *chunk = gyre__seg_chunk(&c->loop->segs, len);
    if (chunk == NULL) {
        fail(c, -ENOMEM);
        return;
    }
    file->read.buf = chunk->data;
    file->read.len = len;
    c->send.kind = GYRE_OP_READ;
    c->send.flags = 0;
    c->send.u.read = &file->read;
    gyre__op_submit(c->loop, &c->send);
}

void gyre__file_on_read(struct gyre_conn *c, int32_t res)
{
    struct gyre__file *file = GYRE_CONTAINER(c->send.u.read, struct gyre__file, read);
    struct gyre__seg *chunk = (struct gyre__seg *)file->read.buf - 1;
    gyre__conn_settle_later(c);
    if (res > 0 && c->state != GYRE_CONN_ENDING) {
        chunk->len = (uint32_t)res;
        chunk->u.chunk.room -= chunk->len;
        file->read.offset += chunk->len;
        file->left -= chunk->len;
        c->extra->file_bytes -= chunk->len;
        gyre__conn_note_active(c);
        gyre__count(&c->loop->be->stats.bytes_queued, chunk->len);
        gyre__segq_push_front(&c->out, chunk);
        return;
    }
    gyre__seg_free(&c->loop->segs, chunk, 0);
    if (c->state != GYRE_CONN_ENDING && res != -EAGAIN && res != -EINTR)
        fail(c, res == 0 ? GYRE_EFILE : res);
}

/* Whether `len` bytes of `fd` can be read from `offset` on. Returns 0, -EINVAL, GYRE_EFILE or -errno. */
static int check_file(int fd, uint64_t offset, uint64_t len)
{
    struct stat st;
    if (fstat(fd, &st) != 0)
        return -errno;
    int mode = fcntl(fd, F_GETFL);
    if (!S_ISREG(st.st_mode) || mode < 0 || (mode & O_ACCMODE) == O_WRONLY)
        return -EINVAL;
    uint64_t size = (uint64_t)st.st_size;
    return offset > size || len > size - offset ? GYRE_EFILE : 0;
}

int gyre_conn_sendfile(struct gyre_conn *c, int fd, uint64_t offset, uint64_t len, gyre_sent_fn *done, void *user)
{
    int err = gyre__conn_may_queue(c, 0);
    if (err == 0)
        err = check_file(fd, offset, len);
    if (err != 0)
        return err;
    struct gyre__extra *extra = gyre__conn_extra(c);
    struct gyre__file *file = extra != NULL ? gyre__alloc(c->loop->mem, sizeof *file) : NULL;
    struct gyre__seg *seg = file != NULL ? gyre__seg_new(&c->loop->segs, GYRE_SEG_FILE, NULL, 0) : NULL;
    if (seg == NULL) {
        gyre__free(c->loop->mem, file);
        return -ENOMEM;
    }
    *file = (struct gyre__file){
        .read = {.fd = fd, .offset = offset}, .left = len, .done = done, .user = user, .mem = c->loop->mem};
    seg->u.ref.done = file_over;
    seg->u.ref.user = file;
    extra->file_bytes += len;
    gyre__segq_push(&c->out, seg);
    gyre__conn_queued(c, 0);
    return 0;
}
