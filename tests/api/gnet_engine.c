/* SPDX-License-Identifier: MIT
 * What gnet tests of a whole engine: stopping and draining it from each callback with a hundred connections open, two
 * engines on one port of which one stops, as many loops as processors, and loggers that do not mix. */
#include "rig.h"

#include <criterion/parameterized.h>
#include <errno.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { CLIENTS = 100, LOOPS = 2 };

/* Where from. */
enum where { OPEN, DATA, EOF_, TIMEOUT, CLOSE, SENT, TASK, DATAGRAM, THREAD, WHERES };

static const char *const where_names[WHERES] = {"on_open", "on_data", "on_eof",      "on_timeout",    "on_close",
                                                "done",    "a task",  "on_datagram", "another thread"};

/* Plain data: Criterion copies it. */
struct ending {
    struct backend_param backend;
    enum where where;
    bool drain;
};

static const struct ending *how;
static _Atomic(bool) ended; /* only the first does it */
static _Atomic(unsigned) endings, udp_closes;

static void end_engine(void)
{
    atomic_fetch_add(&endings, 1);
    if (how->drain)
        (void)gyre_engine_drain(rig->engine, &(struct gyre_drain_options){.deadline_ns = MS(API_PATIENCE_MS)});
    else
        gyre_engine_stop(rig->engine);
}

/* Say goodbye and end the engine, if this is the place; the others still get theirs. */
static void end_from(struct gyre_conn *c, enum where where)
{
    if (how->where != where || rig_opened(rig) < CLIENTS || atomic_exchange(&ended, true))
        return;
    if (c != NULL)
        cr_assert_eq(gyre_conn_write(c, "bye", 3), 0);
    end_engine();
}

static void sent(int err, void *user)
{
    struct gyre_conn *c = user;
    if (err == 0)
        end_from(c, SENT);
}

static void on_open(struct gyre_conn *c)
{
    rig_on_open(c);
    cr_assert_eq(gyre_conn_write(c, "hello", 5), 0);
    end_from(c, OPEN);
}

static void on_data(struct gyre_conn *c)
{
    (void)gyre_conn_discard(c, SIZE_MAX);
    end_from(c, DATA);
    if (how->where == SENT)
        (void)gyre_conn_write_ref(c, "so", 2, sent, c);
}

static void on_eof(struct gyre_conn *c)
{
    end_from(c, EOF_);
    cr_assert_eq(gyre_conn_close(c), 0);
}

static void on_timeout(struct gyre_conn *c)
{
    end_from(c, TIMEOUT);
}

static void on_close(struct gyre_conn *c, int err)
{
    bool stopped = !how->drain && err == GYRE_ESHUTDOWN;
    cr_assert(err == 0 || stopped, "on_close, ended from %s: %s", where_names[how->where], gyre_err_name(err));
    rig_on_close(c, err);
    end_from(NULL, CLOSE);
}

static void on_datagram(struct gyre_udp *u, const struct gyre_datagram *d)
{
    cr_assert_eq(gyre_udp_reply(u, d, "bye", 3), 0);
    end_from(NULL, DATAGRAM);
}

static void on_udp_close(struct gyre_udp *u, int err)
{
    (void)u;
    (void)err;
    atomic_fetch_add(&udp_closes, 1);
}

static void task(struct gyre_loop *loop, void *user)
{
    (void)loop;
    (void)user;
    end_from(NULL, TASK);
}

static const struct gyre_conn_handlers handlers = {
    .on_open = on_open, .on_data = on_data, .on_eof = on_eof, .on_timeout = on_timeout, .on_close = on_close};
static const struct gyre_udp_handlers datagrams = {.on_datagram = on_datagram, .on_close = on_udp_close};

ParameterizedTestParameters(gnet_engine, ended_from_everywhere)
{
    static struct ending cases[4 * WHERES * 2];
    struct criterion_test_params backends = backends_each_real();
    size_t count = 0;
    for (size_t b = 0; b < backends.length; b++)
        for (unsigned k = 0; k < WHERES * 2; k++)
            cases[count++] = (struct ending){.backend = ((const struct backend_param *)backends.params)[b],
                                             .where = (enum where)(k / 2),
                                             .drain = k % 2 == 1};
    return cr_make_param_array(struct ending, cases, count, NULL);
}

static int datagram_client(struct gyre_udp_id id)
{
    struct sockaddr_storage to;
    socklen_t to_len;
    cr_assert_eq(gyre_udp_parse(&to, &to_len, gyre_udp_address(gyre_udp_from_id(id))), 0);
    int fd = socket(to.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    cr_assert_geq(fd, 0);
    cr_assert_eq(connect(fd, (struct sockaddr *)&to, to_len), 0);
    return fd;
}

/* Bring it about, with everybody connected; `fds[0]` is the one that does it. */
static void provoke(struct rig *r, const int *fds, int udp_fd)
{
    switch (how->where) {
    case DATA:
    case SENT:
        cr_assert_eq(send(fds[0], "x", 1, MSG_NOSIGNAL), 1);
        break;
    case EOF_:
    case CLOSE:
        cr_assert_eq(shutdown(fds[0], SHUT_WR), 0);
        break;
    case TASK:
        cr_assert_eq(gyre_loop_post(gyre_engine_loop(r->engine, LOOPS - 1), task, NULL), 0);
        break;
    case DATAGRAM:
        cr_assert_eq(send(udp_fd, "x", 1, 0), 1);
        break;
    case THREAD:
        end_engine();
        break;
    case OPEN:
    case TIMEOUT:
    case WHERES:
        break;
    }
}

/* What a client gets until the end: after a drain all of it, and no reset. */
static size_t read_to_end(int fd)
{
    char got[64];
    ssize_t n = rig_receive(fd, got, sizeof got);
    cr_assert(n >= 0 || (!how->drain && errno == ECONNRESET), "%s", strerror(errno));
    if (how->drain)
        cr_assert(n >= 5 && memcmp(got, "hello", 5) == 0, "%zd bytes", n);
    return n > 0 ? (size_t)n : 0;
}

/* From each place: every connection gets its on_close, before on_shutdown; draining delivers what was said before. */
ParameterizedTest(struct ending *e, gnet_engine, ended_from_everywhere, .timeout = 60)
{
    struct rig r;
    struct gyre_udp_id ids[LOOPS];
    int fds[CLIENTS];
    struct gyre_listener_options options = {.conn = {.idle_timeout_ns = e->where == TIMEOUT ? MS(30) : 0}};
    how = e;
    rig_open(&r, &e->backend, LOOPS);
    cr_assert_eq(gyre_engine_listen(&r.listener, r.engine, rig_tcp, &handlers, &options), 0);
    cr_assert_eq(gyre_engine_listen_udp(ids, r.engine, "udp://127.0.0.1:0", &datagrams, NULL), 0);
    int udp_fd = datagram_client(ids[0]);
    rig_run(&r);
    for (unsigned i = 0; i < CLIENTS; i++)
        fds[i] = rig_client(gyre_listener_address(r.listener));
    await(rig_opened(&r) == CLIENTS);
    provoke(&r, fds, udp_fd);
    size_t bytes = 0;
    for (unsigned i = 0; i < CLIENTS; i++) {
        bytes += read_to_end(fds[i]);
        (void)close(fds[i]);
    }
    rig_join(&r);
    cr_assert_eq(endings, 1, "from %s", where_names[e->where]);
    cr_assert_eq(r.closes, CLIENTS);
    cr_assert_eq(udp_closes, LOOPS);
    bool says_bye = e->where <= TIMEOUT || e->where == SENT;
    if (e->drain)
        cr_assert_eq(bytes, CLIENTS * 5 + (says_bye ? 3 : 0) + (e->where == SENT ? 2 : 0), "from %s: %zu bytes",
                     where_names[e->where], bytes);
    gyre_engine_stop(r.engine); /* a second time, when it is over */
    (void)gyre_engine_drain(r.engine, &(struct gyre_drain_options){.deadline_ns = 1});
    cr_assert_eq(gyre_engine_run(r.engine), GYRE_ESTATE);
    (void)close(udp_fd);
    rig_close(&r);
}

/* ---- Two engines on one port ---- */

struct half {
    struct gyre_engine *engine;
    pthread_t thread;
    _Atomic(unsigned) opens, closes;
};

static void half_opened(struct gyre_conn *c)
{
    struct half *h = gyre_conn_user(c);
    atomic_fetch_add(&h->opens, 1);
}

static void half_echo(struct gyre_conn *c)
{
    (void)gyre_conn_forward(c, c, SIZE_MAX);
}

static void half_closed(struct gyre_conn *c, int err)
{
    struct half *h = gyre_conn_user(c);
    (void)err;
    atomic_fetch_add(&h->closes, 1);
}

static void *run_half(void *arg)
{
    struct half *h = arg;
    cr_assert_eq(gyre_engine_run(h->engine), 0);
    return NULL;
}

static const char *half_open(struct half *h, const struct backend_param *p, const char *address)
{
    static const struct gyre_conn_handlers echo = {
        .on_open = half_opened, .on_data = half_echo, .on_close = half_closed};
    const struct gyre_loop_options loop = {.backend = p->backend};
    struct gyre_listener_options options = {.share_port = true, .conn = {.user = h}};
    struct gyre_listener *l;
    *h = (struct half){.engine = NULL};
    int err = gyre_engine_create(&h->engine, &(struct gyre_engine_options){.loops = LOOPS, .loop = loop});
    if (err != 0)
        cr_skip_test("%s: %s", p->backend, gyre_err_name(err));
    cr_assert_eq(gyre_engine_listen(&l, h->engine, address, &echo, &options), 0);
    cr_assert_eq(pthread_create(&h->thread, NULL, run_half, h), 0);
    return gyre_listener_address(l);
}

static void half_stop(struct half *h)
{
    gyre_engine_stop(h->engine);
    gyre_engine_stop(h->engine);
    cr_assert_eq(pthread_join(h->thread, NULL), 0);
    cr_assert_eq(h->opens, h->closes);
}

/* One stops, from this thread: its clients are closed, the other's notice nothing, and new ones all come to it. */
REAL_TEST(gnet_engine, two_on_one_port)
{
    struct half a, b;
    int fds[2 * CLIENTS];
    unsigned survivors = 0;
    char byte = 'x';
    const char *address = half_open(&a, p, rig_tcp);
    (void)half_open(&b, p, address);
    for (unsigned i = 0; i < CLIENTS; i++)
        rig_ping(fds[i] = rig_client(address));
    await(a.opens + b.opens == CLIENTS);
    cr_assert(a.opens > 0 && b.opens > 0, "%u and %u connections", a.opens, b.opens);
    unsigned before = b.opens;
    half_stop(&b);
    for (unsigned i = 0; i < CLIENTS; i++) {
        bool lives = send(fds[i], &byte, 1, MSG_NOSIGNAL) == 1 && rig_receive(fds[i], &byte, 1) == 1;
        survivors += lives;
    }
    cr_assert_eq(survivors, CLIENTS - before);
    for (unsigned i = CLIENTS; i < 2 * CLIENTS; i++)
        rig_ping(fds[i] = rig_client(address));
    cr_assert_eq(a.opens, 2 * CLIENTS - before);
    half_stop(&a);
    for (unsigned i = 0; i < 2 * CLIENTS; i++)
        (void)close(fds[i]);
    gyre_engine_destroy(a.engine);
    gyre_engine_destroy(b.engine);
}

/* The server closed first, so the system keeps the port for a while (TIME_WAIT): a new server has it all the same. */
REAL_TEST(gnet_engine, port_is_free_again)
{
    struct rig r;
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    char address[160], byte;
    rig_open(&r, p, LOOPS);
    rig_listen(&r, rig_tcp, NULL);
    rig_run(&r);
    (void)snprintf(address, sizeof address, "%s", gyre_listener_address(r.listener));
    int fd = rig_client(address);
    rig_ping(fd);
    (void)gyre_engine_drain(r.engine, &(struct gyre_drain_options){.deadline_ns = MS(API_PATIENCE_MS)});
    cr_assert_eq(rig_receive(fd, &byte, 1), 0);
    (void)close(fd);
    rig_join(&r);
    rig_close(&r);
    in.sin_port = htons((uint16_t)strtoul(strrchr(address, ':') + 1, NULL, 10));
    fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(bind(fd, (struct sockaddr *)&in, sizeof in), -1, "nothing keeps the port");
    (void)close(fd);
    rig_open(&r, p, LOOPS);
    rig_listen(&r, address, NULL);
    rig_run(&r);
    rig_ping(fd = rig_client(address));
    (void)close(fd);
    rig_stop(&r);
}

/* A loop for each processor that this process may use. */
REAL_TEST(gnet_engine, a_loop_for_each_processor)
{
    struct rig r;
    cpu_set_t set;
    cr_assert_eq(sched_getaffinity(0, sizeof set, &set), 0);
    unsigned cpus = (unsigned)CPU_COUNT(&set);
    struct gyre_engine *engine;
    rig_open(&r, p, 1); /* skips where the backend does not open */
    const struct gyre_loop_options loop = {.backend = p->backend, .mem = &r.mem.mem};
    const struct gyre_engine_options options = {.loops = GYRE_LOOPS_PER_CORE, .loop = loop};
    cr_assert_eq(gyre_engine_create(&engine, &options), 0);
    cr_assert_eq(gyre_engine_loop_count(engine), cpus);
    gyre_engine_destroy(engine);
    rig_close(&r);
}

/* ---- Loggers ---- */

struct book {
    const char *backend;
    struct gyre_log log;
    _Atomic(unsigned) lines;
    pthread_t thread;
};

static void write_down(enum gyre_log_level level, const char *text, void *user)
{
    struct book *book = user;
    cr_assert_geq(level, book->log.level_min);
    cr_assert_null(strchr(text, '\n'), "more than a line: %s", text);
    atomic_fetch_add(&book->lines, 1);
}

static void *make_engines(void *arg)
{
    struct book *book = arg;
    const struct gyre_loop_options loop = {.backend = book->backend, .log = &book->log};
    for (unsigned i = 0; i < 20; i++) {
        struct gyre_engine *engine;
        cr_assert_eq(gyre_engine_create(&engine, &(struct gyre_engine_options){.loops = LOOPS, .loop = loop}), 0);
        gyre_engine_destroy(engine);
    }
    return NULL;
}

/* Engines that are made at the same time on two threads write to the log each was given, those at a higher level
 * nothing; nothing of it is the process's. */
REAL_TEST(gnet_engine, loggers_of_their_own)
{
    struct rig r;
    struct book books[3];
    rig_open(&r, p, 1); /* skips where the backend does not open */
    for (unsigned i = 0; i < 3; i++) {
        books[i] = (struct book){.backend = p->backend};
        books[i].log = (struct gyre_log){.line = write_down,
                                         .user = &books[i],
                                         .level_min = i == 2 ? GYRE_LOG_ERROR : GYRE_LOG_DEBUG};
        cr_assert_eq(pthread_create(&books[i].thread, NULL, make_engines, &books[i]), 0);
    }
    for (unsigned i = 0; i < 3; i++)
        cr_assert_eq(pthread_join(books[i].thread, NULL), 0);
    cr_assert_geq(books[0].lines, 20 * LOOPS);
    cr_assert_eq(books[0].lines, books[1].lines);
    cr_assert_eq(books[2].lines, 0);
    rig_close(&r);
}
