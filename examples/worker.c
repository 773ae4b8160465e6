/* SPDX-License-Identifier: MIT
 * Blocking jobs on a pool of threads. Requests arrive and answers leave on the loops, which do not block meanwhile.
 *
 * usage: worker [--backend …] [--loops N] [--stats] ADDRESS DIRECTORY [THREADS WAITING]
 *
 * The line "digest FILE" is answered with the FNV-1a hash of FILE in DIRECTORY. The line "cancel" cancels the job of
 * its connection. A connection has one job at a time. THREADS jobs (default 4) run at once, and WAITING jobs (default
 * 64) may wait for a thread; a request beyond that is answered with "busy". When a client closes the connection, or
 * shuts down its sending side, its job is cancelled. */
#include <gyre.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "example.h"

enum { LINE_MAX_BYTES = 256 };
/* The user pointer of a connection while its job is pending. The pool's thread uses the job until `done` runs. */
struct job {
    struct gyre_conn_id conn; /* an id, because the connection may be gone when the job ends */
    struct gyre_work_id id;
    char file[LINE_MAX_BYTES];
    uint64_t hash, bytes;
};

static struct gyre_engine *engine;
static int directory;

/* Runs on a thread of the pool and may block. Opens only regular files of the directory. */
static int digest(struct gyre_work *work, void *user)
{
    struct job *job = user;
    uint8_t buf[16384];
    struct stat status;
    int fd = openat(directory, job->file, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int err = fstat(fd, &status) == 0 && S_ISREG(status.st_mode) ? 0 : -EINVAL;
    job->hash = UINT64_C(0xcbf29ce484222325);
    for (ssize_t len; err == 0 && (len = read(fd, buf, sizeof buf)) != 0; job->bytes += (uint64_t)len) {
        err = len < 0 ? -errno : gyre_work_cancelled(work) ? -ECANCELED : 0;
        for (ssize_t i = 0; i < len; i++)
            job->hash = (job->hash ^ buf[i]) * UINT64_C(0x100000001b3);
    }
    close(fd);
    return err;
}

static void answer(struct gyre_conn *c, const char *text)
{
    if (gyre_conn_write(c, text, strlen(text)) != 0)
        gyre_conn_abort(c); /* the client does not read: write_max_bytes would be exceeded */
}

/* Runs on the connection's loop, like all functions below. */
static void done(struct gyre_loop *loop, int result, void *user)
{
    (void)loop;
    struct job *job = user;
    char text[LINE_MAX_BYTES + 160];
    if (result == 0)
        snprintf(text, sizeof text, "%s: %016" PRIx64 ", %" PRIu64 " bytes\n", job->file, job->hash, job->bytes);
    else
        snprintf(text, sizeof text, "%s: %s\n", job->file, result == -ECANCELED ? "cancelled" : gyre_err_text(result));
    struct gyre_conn *c = gyre_conn_from_id(job->conn);
    if (c != NULL) {
        gyre_conn_set_user(c, NULL);
        answer(c, text);
    }
    free(job);
}

static void start(struct gyre_conn *c, const char *file)
{
    struct gyre_pool *pool;
    struct job *job = calloc(1, sizeof *job);
    int err = job == NULL ? -ENOMEM : gyre_engine_pool(&pool, engine);
    if (err == 0) {
        job->conn = gyre_conn_id_of(c);
        snprintf(job->file, sizeof job->file, "%s", file);
        err = gyre_pool_submit(&job->id, pool, gyre_conn_loop(c), digest, done, job);
    }
    if (err == 0) {
        gyre_conn_set_user(c, job);
        return;
    }
    answer(c, err == -EAGAIN ? "busy\n" : "no job is taken now\n");
    free(job);
}

static void call_off(struct gyre_conn *c)
{
    struct gyre_pool *pool;
    const struct job *job = gyre_conn_user(c);
    if (job != NULL && gyre_engine_pool(&pool, engine) == 0)
        (void)gyre_pool_cancel(pool, job->id); /* `done` still runs */
}

static void on_line(struct gyre_conn *c, struct gyre_slice line)
{
    char request[LINE_MAX_BYTES];
    snprintf(request, sizeof request, "%.*s", (int)line.len, (const char *)line.data);
    if (strcmp(request, "cancel") == 0)
        call_off(c);
    else if (strncmp(request, "digest ", strlen("digest ")) != 0 || strchr(request, '/') != NULL)
        answer(c, "ask: digest FILE, or cancel\n");
    else if (gyre_conn_user(c) != NULL)
        answer(c, "one at a time\n");
    else
        start(c, request + strlen("digest "));
}

static void on_close(struct gyre_conn *c, int err)
{
    (void)err;
    call_off(c);
}

static const struct gyre_conn_handlers handlers = {.on_frame = on_line, .on_close = on_close};

int main(int argc, char **argv)
{
    struct gyre_framer lines;
    long threads = 4, waiting = 64;
    bool stats = false;
    const char *name = "worker [flags] ADDRESS DIRECTORY [THREADS WAITING]";
    struct gyre_engine_options options = {.loops = 1};
    int first = example_flags(argc, argv, name, &options, &stats);
    if (first < 0)
        return 2;
    if (argc - first != 2 && argc - first != 4)
        return example_usage(name, "it takes an address, a directory, and perhaps two numbers");
    if (argc - first == 4 && (!example_number(name, "THREADS", argv[first + 2], 1, 256, &threads) ||
                              !example_number(name, "WAITING", argv[first + 3], 1, 1 << 20, &waiting)))
        return 2;
    options.work_threads = (uint32_t)threads;
    options.work_queue_max = (uint32_t)waiting;
    directory = open(argv[first + 1], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (directory < 0)
        return example_failed(argv[first + 1], -errno);
    (void)gyre_framer_init_line(&lines, 0, LINE_MAX_BYTES); /* fails only for a limit out of range */
    struct gyre_conn_options conn = {.framer = &lines, .write_high_bytes = 16 << 10, .write_max_bytes = 64 << 10};
    return example_serve(&engine, &options, argv[first], &handlers, &conn, stats);
}
