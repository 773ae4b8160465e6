/* SPDX-License-Identifier: MIT
 * Writing without queueing, writing files, and writing from other threads without a copy. */
#include "fixture.h"

#include "stream/conn.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- pieces ---- */

/* The same memory many times over: 4 GiB and 8 MiB, which 32 bits take for 8 MiB, and would queue. */
BACKEND_TEST(api_write, pieces_of_more_than_32_bits)
{
    enum { PIECES = 513 };
    struct api api;
    struct peer peer;
    struct iovec iov[PIECES];
    uint8_t *data = calloc(1, MIB(8));
    cr_assert_not_null(data);
    for (int i = 0; i < PIECES; i++)
        iov[i] = (struct iovec){.iov_base = data, .iov_len = MIB(8)};
    api_start(&api, p, NULL);
    struct end *e = peer_open(&api, &peer);
    cr_assert_eq(gyre_conn_writev(e->c, iov, PIECES), -EMSGSIZE);
    if (sizeof(size_t) == 4)
        cr_assert_eq(gyre_conn_id_writev(e->id, iov, PIECES, NULL, NULL), -ENOMEM);
    cr_assert_eq(gyre_conn_outbound(e->c), 0);
    end_put(e, 10);
    peer_expect(&peer, e->put);
    peer_close(&peer);
    api_close(&api);
    free(data);
}

/* ---- try_write ---- */

static int64_t try_put(struct end *e, size_t len)
{
    uint8_t *data = malloc(len);
    cr_assert_not_null(data);
    env_pattern_fill(data, len, e->key_out, e->put);
    int64_t n = gyre_conn_try_write(e->c, data, len);
    e->put += n > 0 ? (uint64_t)n : 0;
    free(data);
    return n;
}

/* What it takes is gone at once, without a turn; nothing is queued; and it never passes what is. */
TRANSPORT_TEST(api_try_write, takes_and_queues_nothing)
{
    struct api api;
    struct peer peer;
    struct env_rng rng;
    env_rng_init(&rng, 1);
    api_start(&api, p, NULL);
    struct end *e = peer_open(&api, &peer);
    int64_t n = try_put(e, 1000);
    cr_assert(n > 0 && n <= 1000, "%lld", (long long)n);
    cr_assert_eq(gyre_conn_outbound(e->c), 0);
    end_put(e, 10);
    cr_assert_eq(try_put(e, 1), -EAGAIN, "it overtakes what is queued");
    peer_expect(&peer, e->put);
    gyre_conn_cork(e->c);
    cr_assert_eq(try_put(e, 1), -EAGAIN);
    gyre_conn_uncork(e->c);
    cr_assert_eq(gyre_conn_try_write(e->c, NULL, 0), 0);
    cr_assert_eq(gyre_conn_try_write(e->c, NULL, 1), -EINVAL);
    /* Until the socket is full; then the rest by gyre_conn_write(), in every mixture. */
    api_until(&api, (try_put(e, 20000), try_put(e, 20000) == -EAGAIN));
    for (unsigned i = 0; i < 500; i++) {
        size_t len = 1 + env_rng_below(&rng, 3000);
        if (env_rng_below(&rng, 2) == 0 || try_put(e, len) == -EAGAIN)
            end_put(e, len);
        if (env_rng_below(&rng, 3) == 0)
            (void)peer_recv_some(&peer, 1 + env_rng_below(&rng, 5000));
        if (env_rng_below(&rng, 3) == 0)
            api_turn(&api);
    }
    peer_expect(&peer, e->put);
    cr_assert_eq(gyre_conn_shutdown(e->c), 0);
    cr_assert_eq(try_put(e, 1), -EPIPE);
    cr_assert_eq(gyre_conn_close(e->c), 0);
    cr_assert_eq(try_put(e, 1), GYRE_ECLOSED);
    peer_until_end(&peer);
    peer_close(&peer);
    api_close(&api);
}

/* Before the connection is made, and after the peer is gone. */
BACKEND_TEST(api_try_write, errors)
{
    struct api api;
    struct peer peer;
    int64_t n = 0;
    api_start(&api, p, NULL);
    struct end *c = api_connect(&api, api.address, NULL, NULL);
    cr_assert_eq(try_put(c, 1), -EAGAIN, "not yet connected");
    api_until(&api, c->opens == 1);
    cr_assert_eq(try_put(c, 1), 1);
    cr_assert_eq(gyre_conn_abort(c->c), 0);
    struct end *e = peer_open(&api, &peer);
    peer_reset(&peer);
    api_until(&api, e->c == NULL || (n = try_put(e, 1)) < 0 || e->put > MIB(1));
    cr_assert(e->c == NULL || n == -ECONNRESET || n == -EPIPE, "%lld", (long long)n);
    if (e->c != NULL)
        cr_assert_eq(e->closes, 0, "on_close from inside of the call");
    api_until(&api, e->closes == 1);
    cr_assert(e->err == -ECONNRESET || e->err == -EPIPE, "%s", gyre_err_name(e->err));
    api_close(&api);
}

/* ---- files ---- */

enum { FILE_BYTES = 700000 };

static char file_path[128];

/* A file in which byte i is byte `offset` + i of the pattern `key`. */
static int make_file(const struct api *api, uint32_t key, uint64_t offset)
{
    static uint8_t bytes[FILE_BYTES];
    (void)snprintf(file_path, sizeof file_path, "%s/file", api->dir);
    int fd = open(file_path, O_CREAT | O_TRUNC | O_RDWR | O_CLOEXEC, 0600);
    cr_assert_geq(fd, 0);
    env_pattern_fill(bytes, sizeof bytes, key, offset);
    cr_assert_eq(write(fd, bytes, sizeof bytes), sizeof bytes);
    return fd;
}

/* Files among other writes come in order, whole and in parts, with bounded memory and one `done` each. */
TRANSPORT_TEST(api_sendfile, in_order_with_writes)
{
    struct api api;
    struct peer peer;
    api_start(&api, p, NULL);
    struct end *e = peer_open(&api, &peer);
    int fd = make_file(&api, e->key_out, 1000);
    end_put(e, 1000);
    cr_assert_eq(gyre_conn_sendfile(e->c, fd, 0, FILE_BYTES - 5000, end_on_sent, e), 0);
    cr_assert_eq(gyre_conn_sendfile(e->c, fd, FILE_BYTES - 5000, 0, end_on_sent, e), 0);
    cr_assert_eq(gyre_conn_sendfile(e->c, fd, FILE_BYTES - 5000, 4999, end_on_sent, e), 0);
    cr_assert_eq(gyre_conn_sendfile(e->c, fd, FILE_BYTES - 1, 1, NULL, NULL), 0);
    cr_assert_eq(e->sents, 0, "done from inside of the call");
    e->put += FILE_BYTES;
    end_put(e, 2000);
    long bytes = atomic_load(&api.mem.bytes);
    for (unsigned i = 0; i < 50; i++) /* as far as it goes without being read */
        api_turn(&api);
    cr_assert_leq(atomic_load(&api.mem.bytes), bytes + (long)KIB(512), "the file is read far ahead of the peer");
    peer_expect(&peer, e->put);
    api_until(&api, e->sents == 3);
    cr_assert_eq(e->sent_errs, 0);
    cr_assert_eq(gyre_conn_outbound(e->c), 0);
    cr_assert_eq(lseek(fd, 0, SEEK_CUR), FILE_BYTES, "the position of the descriptor has moved");
    cr_assert_eq(close(fd), 0);
    peer_close(&peer);
    api_close(&api);
}

/* Closing after a file sends all of it first. */
BACKEND_TEST(api_sendfile, then_close)
{
    struct api api;
    struct peer peer;
    api_start(&api, p, NULL);
    struct end *e = peer_open(&api, &peer);
    int fd = make_file(&api, e->key_out, 0);
    cr_assert_eq(gyre_conn_sendfile(e->c, fd, 0, FILE_BYTES, end_on_sent, e), 0);
    cr_assert_eq(gyre_conn_close(e->c), 0);
    peer_until_end(&peer);
    cr_assert_eq(peer.got, FILE_BYTES);
    peer_close(&peer);
    api_until(&api, e->closes == 1);
    cr_assert_eq(e->err, 0);
    cr_assert_eq(e->unsent, 0);
    cr_assert_eq(e->sents, 1);
    cr_assert_eq(close(fd), 0);
    api_close(&api);
}

/* What is refused. */
BACKEND_TEST(api_sendfile, refused)
{
    struct api api;
    struct peer peer;
    int pipes[2];
    api_start(&api, p, NULL);
    struct end *e = peer_open(&api, &peer);
    int fd = make_file(&api, e->key_out, 0), only_write = open(file_path, O_WRONLY | O_CLOEXEC);
    int dir = open(api.dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    cr_assert_eq(pipe(pipes), 0);
    cr_assert_eq(gyre_conn_sendfile(e->c, pipes[0], 0, 1, end_on_sent, e), -EINVAL);
    cr_assert_eq(gyre_conn_sendfile(e->c, dir, 0, 1, end_on_sent, e), -EINVAL);
    cr_assert_eq(gyre_conn_sendfile(e->c, only_write, 0, 1, end_on_sent, e), -EINVAL);
    cr_assert_eq(gyre_conn_sendfile(e->c, -1, 0, 1, end_on_sent, e), -EBADF);
    cr_assert_eq(gyre_conn_sendfile(e->c, fd, 0, FILE_BYTES + 1, end_on_sent, e), GYRE_EFILE);
    cr_assert_eq(gyre_conn_sendfile(e->c, fd, FILE_BYTES + 1, 0, end_on_sent, e), GYRE_EFILE);
    cr_assert_eq(gyre_conn_sendfile(e->c, fd, UINT64_MAX, 2, end_on_sent, e), GYRE_EFILE);
    cr_assert_eq(gyre_conn_sendfile(e->c, fd, 2, UINT64_MAX, end_on_sent, e), GYRE_EFILE);
    cr_assert_eq(gyre_conn_shutdown(e->c), 0);
    cr_assert_eq(gyre_conn_sendfile(e->c, fd, 0, 1, end_on_sent, e), -EPIPE);
    cr_assert_eq(gyre_conn_close(e->c), 0);
    cr_assert_eq(gyre_conn_sendfile(e->c, fd, 0, 1, end_on_sent, e), GYRE_ECLOSED);
    peer_close(&peer);
    api_until(&api, e->closes == 1);
    cr_assert_eq(e->sents, 0);
    const int all[] = {fd, only_write, dir, pipes[0], pipes[1]};
    for (unsigned i = 0; i < 5; i++)
        cr_assert_eq(close(all[i]), 0);
    api_close(&api);
}

/* A file that shrinks on the way: the peer gets what there was and then no proper end, and everyone is told. */
TRANSPORT_TEST(api_sendfile, file_shrinks)
{
    struct api api;
    struct peer peer;
    api_start(&api, p, NULL);
    struct end *e = peer_open(&api, &peer);
    int fd = make_file(&api, e->key_out, 0);
    cr_assert_eq(gyre_conn_sendfile(e->c, fd, 0, FILE_BYTES, end_on_sent, e), 0);
    cr_assert_eq(gyre_conn_write(e->c, "behind", 6), 0);
    cr_assert_eq(ftruncate(fd, 1000), 0);
    api_until(&api, e->closes == 1);
    cr_assert_eq(e->err, GYRE_EFILE, "%s", gyre_err_name(e->err));
    cr_assert_eq(e->reason, GYRE_CLOSE_ERROR);
    cr_assert_eq(e->sents, 1);
    cr_assert_eq((int)(int64_t)e->n, GYRE_EFILE);
    cr_assert_geq(e->unsent, FILE_BYTES - 1000 + 6);
    peer_until_end(&peer);
    cr_assert_leq(peer.got, 1000);
    cr_assert(!is_tcp(&api) || peer.err == -ECONNRESET, "the peer sees no reset: %s", gyre_err_name(peer.err));
    cr_assert_eq(close(fd), 0);
    peer_close(&peer);
    api_close(&api);
}

/* Aborted, or the peer gone, in the middle of a file: `done` once, with an error, and nothing left behind. */
BACKEND_TEST(api_sendfile, ended_on_the_way)
{
    for (unsigned how = 0; how < 3; how++) {
        struct api api;
        struct peer peer;
        api_start(&api, p, NULL);
        struct end *e = peer_open(&api, &peer);
        int fd = make_file(&api, e->key_out, 0);
        for (unsigned i = 0; i < 40; i++)
            cr_assert_eq(gyre_conn_sendfile(e->c, fd, 0, FILE_BYTES, end_on_sent, e), 0);
        for (unsigned i = 0; i < how * 7; i++)
            api_turn(&api);
        if (how < 2)
            cr_assert_eq(gyre_conn_abort(e->c), 0);
        else
            peer_reset(&peer);
        api_until(&api, e->closes == 1);
        cr_assert_eq(e->sents, 40);
        cr_assert_geq(e->sent_errs, 1);
        cr_assert_geq(e->unsent, 1);
        cr_assert_eq(close(fd), 0);
        peer_close(&peer);
        api_close(&api);
    }
}

/* Idle forever: a loop destroyed with files queued tells each. */
BACKEND_TEST(api_sendfile, loop_destroyed)
{
    struct api api;
    struct peer peer;
    api_start(&api, p, NULL);
    struct end *e = peer_open(&api, &peer);
    int fd = make_file(&api, e->key_out, 0);
    cr_assert_eq(gyre_conn_sendfile(e->c, fd, 0, FILE_BYTES, end_on_sent, e), 0);
    api_turn(&api);
    cr_assert_eq(gyre_conn_sendfile(e->c, fd, 0, FILE_BYTES, end_on_sent, e), 0);
    api_destroy_loop(&api);
    cr_assert_eq(e->sents, 2);
    cr_assert_geq(e->sent_errs, 1);
    cr_assert_eq(close(fd), 0);
    peer_close(&peer);
    api_close(&api);
}

/* Small pieces, one a turn, until the peer takes no more and some are queued; then all arrive, in order, however the
 * last was cut, and more can follow. */
TRANSPORT_TEST(api_write, small_until_full)
{
    struct api api;
    struct peer peer;
    const struct gyre_listener_options options = {.conn = {.write_max_bytes = 64 << 20}};
    api_init(&api, p);
    api_open(&api);
    api_listen(&api, NULL, &options);
    struct end *e = peer_open(&api, &peer);
    unsigned stuck = 0;
    for (unsigned i = 0; i < 4000 && stuck < 3; i++) {
        end_put(e, 9973);
        api_turn_now(&api);
        stuck = gyre_conn_outbound(e->c) > 0 ? stuck + 1 : 0;
    }
    cr_assert_eq(stuck, 3, "the peer took %llu bytes without reading", (unsigned long long)e->put);
    peer_expect(&peer, e->put);
    api_until(&api, gyre_conn_outbound(e->c) == 0);
    end_put(e, 100);
    peer_expect(&peer, e->put);
    cr_assert_eq(gyre_conn_close(e->c), 0);
    peer_until_end(&peer);
    cr_assert(peer.eof);
    peer_close(&peer);
    api_close(&api);
}
