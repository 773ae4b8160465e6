/* SPDX-License-Identifier: MIT
 * Five hundred connections through a relay, with readers that are slow and some that do not read at all for a while.
 *
 * Clients (a loop on the main thread) → relay (an engine of two loops that forwards between pairs) → origin (an engine
 * that echoes) and back. Mice send up to 64 KiB and read with pauses; elephants send 2 MiB and do not read until all
 * mice are through. All bytes are compared, ends must pass through the relay as half-closes, and the relay's memory
 * must stay below what the elephants alone have sent: the kernel's buffers are made small, so that is where it would
 * be. */
#include "stress.h"

#include <errno.h>
#include <malloc.h>
#include <sys/socket.h>

enum {
    CONNS = 500,
    ELEPHANTS = 8,
    MOUSE_MAX = 64 * 1024,
    ELEPHANT_BYTES = 2 << 20,
    MARK = 16 * 1024,          /* of the relay, both directions: congested above it, no more than that left over */
    MEMORY_MAX = ELEPHANTS * ELEPHANT_BYTES * 3 / 4,
    KERNEL_BYTES = 16 * 1024,  /* of each socket's buffers */
    PIECE = 16 * 1024,
    BUF_BYTES = 4096,
    BUFS = 512,
};

/* ---- memory of the relay, counted ---- */

static atomic_long memory_now, memory_most;

static void *count_resize(void *ptr, size_t size_bytes, void *user)
{
    (void)user;
    long before = ptr != NULL ? (long)malloc_usable_size(ptr) : 0;
    void *p = NULL;
    if (size_bytes == 0)
        free(ptr);
    else
        p = realloc(ptr, size_bytes);
    if (size_bytes > 0 && p == NULL)
        return NULL;
    long more = (p != NULL ? (long)malloc_usable_size(p) : 0) - before;
    long now = atomic_fetch_add(&memory_now, more) + more, most = atomic_load(&memory_most);
    while (now > most && !atomic_compare_exchange_weak(&memory_most, &most, now))
        ;
    return p;
}

static const struct gyre_mem counted = {.resize = count_resize};

static void make_small(const struct gyre_conn *c)
{
    const int bytes = KERNEL_BYTES;
    MUST(setsockopt(gyre_conn_fd(c), SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes) == 0);
    MUST(setsockopt(gyre_conn_fd(c), SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes) == 0);
}

/* ---- origin ---- */

static void on_origin_data(struct gyre_conn *c)
{
    MUST(gyre_conn_forward(c, c, SIZE_MAX) >= 0);
}

static const struct gyre_conn_handlers origin_handlers = {.on_data = on_origin_data};

/* ---- relay ---- */

static char origin_address[128];
static atomic_ulong relayed, relay_closed;

static struct gyre_conn *peer_of(struct gyre_conn *c)
{
    return gyre_conn_user(c);
}

static void on_relay_data(struct gyre_conn *c)
{
    if (peer_of(c) != NULL)
        (void)gyre_conn_forward(c, peer_of(c), SIZE_MAX);
}

static void on_relay_eof(struct gyre_conn *c)
{
    if (peer_of(c) != NULL)
        (void)gyre_conn_shutdown(peer_of(c));
}

static void on_relay_close(struct gyre_conn *c, int err)
{
    struct gyre_conn *peer = peer_of(c);
    (void)atomic_fetch_add(&relay_closed, 1);
    if (peer == NULL)
        return;
    gyre_conn_set_user(peer, NULL);
    (void)(err != 0 ? gyre_conn_abort(peer) : gyre_conn_close(peer));
}

static void on_relay_open(struct gyre_conn *c);

static const struct gyre_conn_handlers inner = {.on_data = on_relay_data, .on_eof = on_relay_eof,
                                                .on_close = on_relay_close};
static const struct gyre_conn_handlers outer = {.on_open = on_relay_open, .on_data = on_relay_data,
                                                .on_eof = on_relay_eof, .on_close = on_relay_close};
static const struct gyre_conn_options marks = {.read_max_bytes = MARK, .write_high_bytes = MARK};

static void on_relay_open(struct gyre_conn *c)
{
    struct gyre_conn_options options = marks;
    struct gyre_conn *up;
    options.user = c;
    MUST(gyre_connect(&up, gyre_conn_loop(c), origin_address, &inner, &options) == 0);
    make_small(c);
    make_small(up);
    gyre_conn_set_user(c, up);
    (void)atomic_fetch_add(&relayed, 1);
}

/* ---- clients ---- */

struct run {
    struct gyre_loop *loop;
    uint64_t seed, bytes;
    unsigned done, mice_done;
    struct client *elephants[ELEPHANTS];
};

struct client {
    struct run *run;
    struct gyre_conn *conn;
    struct gyre_timer *timer;
    uint32_t key;
    bool elephant, eof;
    size_t len, sent, got;
};

static void send_more(struct client *cl)
{
    uint8_t piece[PIECE];
    while (cl->sent < cl->len && !gyre_conn_congested(cl->conn)) {
        size_t n = cl->len - cl->sent < PIECE ? cl->len - cl->sent : PIECE;
        stress_fill(piece, n, cl->key, cl->sent);
        MUST(gyre_conn_write(cl->conn, piece, n) == 0);
        cl->sent += n;
        if (cl->sent == cl->len)
            MUST(gyre_conn_shutdown(cl->conn) == 0);
    }
}

static void on_client_open(struct gyre_conn *c)
{
    send_more(gyre_conn_user(c));
}

static void on_client_drain(struct gyre_conn *c)
{
    send_more(gyre_conn_user(c));
}

static void on_pause_over(struct gyre_timer *timer, void *user)
{
    struct client *cl = user;
    (void)timer;
    MUST(gyre_conn_resume(cl->conn) == 0);
}

static void take_piece(struct client *cl)
{
    struct gyre_slice s;
    MUST(gyre_conn_next(&s, cl->conn, 0) == 0 && s.len > 0);
    MUST(stress_is(s.data, s.len, cl->key, cl->got));
    cl->got += s.len;
    MUST(cl->got <= cl->len && !cl->eof);
}

/* One piece at a time; what is left is asked for, or waits until the pause is over. */
static void on_client_data(struct gyre_conn *c)
{
    struct client *cl = gyre_conn_user(c);
    if (gyre_conn_inbound(c) == 0)
        return;
    take_piece(cl);
    if (gyre_conn_inbound(c) > 0)
        MUST(gyre_conn_wake(c) == 0);
    if (cl->elephant || stress_random(&cl->run->seed) % 4 != 0)
        return;
    MUST(gyre_conn_pause(c) == 0);
    MUST(gyre_timer_start(cl->timer, (int64_t)(stress_random(&cl->run->seed) % 4000000), 0) == 0);
}

static void on_client_eof(struct gyre_conn *c)
{
    struct client *cl = gyre_conn_user(c);
    while (gyre_conn_inbound(c) > 0)
        take_piece(cl);
    cl->eof = true;
    MUST(gyre_conn_close(c) == 0);
}

static void on_client_close(struct gyre_conn *c, int err)
{
    struct client *cl = gyre_conn_user(c);
    struct run *run = cl->run;
    MUST(err == 0 && cl->eof && cl->got == cl->len && gyre_conn_unsent(c) == 0);
    run->bytes += cl->got;
    run->done++;
    run->mice_done += !cl->elephant;
    gyre_timer_destroy(cl->timer);
    if (!cl->elephant && run->mice_done == CONNS - ELEPHANTS)
        for (int i = 0; i < ELEPHANTS; i++)
            MUST(gyre_conn_resume(run->elephants[i]->conn) == 0);
    free(cl);
    if (run->done == CONNS)
        gyre_loop_stop(run->loop);
}

static const struct gyre_conn_handlers client_handlers = {.on_open = on_client_open, .on_data = on_client_data,
                                                          .on_drain = on_client_drain, .on_eof = on_client_eof,
                                                          .on_close = on_client_close};

static void start_client(struct run *run, unsigned index, const char *address)
{
    struct client *cl = calloc(1, sizeof *cl);
    MUST(cl != NULL);
    cl->run = run;
    cl->key = index;
    cl->elephant = index < ELEPHANTS;
    cl->len = cl->elephant ? ELEPHANT_BYTES : 1 + (size_t)(stress_random(&run->seed) % MOUSE_MAX);
    const struct gyre_conn_options options = {.user = cl, .start_paused = cl->elephant};
    MUST(gyre_timer_create(&cl->timer, run->loop, on_pause_over, cl) == 0);
    MUST(gyre_connect(&cl->conn, run->loop, address, &client_handlers, &options) == 0);
    make_small(cl->conn);
    if (cl->elephant)
        run->elephants[index] = cl;
}

/* ---- rounds ---- */

static void *run_engine(void *arg)
{
    MUST(gyre_engine_run(arg) == 0);
    return NULL;
}

static struct gyre_engine *make_engine(const struct gyre_loop_options *loop, uint32_t loops,
                                       const struct gyre_conn_handlers *handlers, char *address, size_t size)
{
    const struct gyre_engine_options options = {.loops = loops, .loop = *loop};
    const struct gyre_listener_options listening = {.conn = marks};
    struct gyre_engine *engine;
    struct gyre_listener *listener;
    MUST(gyre_engine_create(&engine, &options) == 0);
    MUST(gyre_engine_listen(&listener, engine, "tcp://127.0.0.1:0", handlers, &listening) == 0);
    (void)snprintf(address, size, "%s", gyre_listener_address(listener));
    return engine;
}

static void end_engine(struct gyre_engine *engine, pthread_t thread)
{
    (void)gyre_engine_drain(engine, &(struct gyre_drain_options){.deadline_ns = INT64_C(20000000000)});
    (void)pthread_join(thread, NULL);
    gyre_engine_destroy(engine);
}

static void round_of(const char *backend)
{
    const struct gyre_loop_options plain = {.backend = backend};
    const struct gyre_loop_options small = {
        .backend = backend, .mem = &counted, .buf_size_bytes = BUF_BYTES, .buf_count_max = BUFS};
    char relay_address[128];
    struct run run = {.seed = 3};
    double start = stress_seconds();
    atomic_store(&memory_most, 0);
    atomic_store(&relayed, 0);
    atomic_store(&relay_closed, 0);
    struct gyre_engine *origin = make_engine(&plain, 1, &origin_handlers, origin_address, sizeof origin_address);
    struct gyre_engine *relay = make_engine(&small, 2, &outer, relay_address, sizeof relay_address);
    pthread_t origin_thread = stress_thread(run_engine, origin), relay_thread = stress_thread(run_engine, relay);
    MUST(gyre_loop_create(&run.loop, &plain) == 0);
    for (unsigned i = 0; i < CONNS; i++)
        start_client(&run, i, relay_address);
    MUST(gyre_loop_run(run.loop) == 0);
    gyre_loop_destroy(run.loop);
    end_engine(relay, relay_thread);
    end_engine(origin, origin_thread);
    MUST(run.done == CONNS);
    MUST(atomic_load(&relayed) == CONNS && atomic_load(&relay_closed) == 2 * CONNS);
    MUST(atomic_load(&memory_now) == 0);
    long most = atomic_load(&memory_most) + 2L * BUFS * BUF_BYTES;
    printf("%s: %d connections, %.1f MB there and back, the relay used at most %.1f MB (limit %.1f), %.1f s\n", backend,
           CONNS, (double)run.bytes / 1e6, (double)most / 1e6, (double)MEMORY_MAX / 1e6, stress_seconds() - start);
    MUST(most <= MEMORY_MAX);
}

int main(int argc, char **argv)
{
    return stress_main(argc, argv, round_of);
}
