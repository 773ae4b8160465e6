/* SPDX-License-Identifier: MIT
 * Datagram sockets out of memory at the N-th call, for N = 1, 2, … until a whole scenario passes untouched.
 *
 * The scenario: a socket that echoes, one that talks to it, copies, cut sends, sends by name, held datagrams, a pause,
 * on UDP, on unix and on sockets that were adopted. A refused call must give -ENOMEM or a datagram less, and nothing
 * else: no crash, no leak. Then there is memory again, and one more datagram must come back on the same sockets. */
#include "backends.h"
#include "fault_mem.h"
#include "server.h"

#include "base/log.h"
#include "base/mem.h"

#include <errno.h>
#include <gyre.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { N_MAX = 400, TURNS = 60, HELD_MAX = 4, TURNS_MAX = 20000 };

struct state {
    struct gyre_loop *loop;
    struct gyre_sim *sim;
    struct gyre_buf *held[HELD_MAX];
    unsigned held_count, answers, closes, opened;
    bool last_came;
    int undocumented;
};

static void note(struct state *st, int err)
{
    if (err != 0 && err != -ENOMEM)
        st->undocumented = err;
}

static void on_echo(struct gyre_udp *u, const struct gyre_datagram *d)
{
    note(gyre_udp_user(u), gyre_udp_reply(u, d, d->data.data, d->data.len));
}

static void on_answer(struct gyre_udp *u, const struct gyre_datagram *d)
{
    struct state *st = gyre_udp_user(u);
    struct gyre_slice view;
    st->answers++;
    st->last_came |= d->data.len == 3 && memcmp(d->data.data, "end", 3) == 0;
    if (st->held_count < HELD_MAX) {
        int err = gyre_udp_hold(&st->held[st->held_count], &view, u, d);
        note(st, err);
        st->held_count += err == 0;
    }
}

static void on_close(struct gyre_udp *u, int err)
{
    struct state *st = gyre_udp_user(u);
    note(st, err);
    st->closes++;
}

static const struct gyre_udp_handlers echoing = {.on_datagram = on_echo, .on_close = on_close};
static const struct gyre_udp_handlers asking = {.on_datagram = on_answer, .on_close = on_close};

static void turn(struct state *st)
{
    if (st->sim != NULL) {
        gyre_sim_advance(st->sim, 1000000);
        note(st, gyre_loop_run_nowait(st->loop) >= 0 ? 0 : -EIO);
        return;
    }
    int more = gyre_loop_run_nowait(st->loop);
    struct pollfd pfd = {.fd = gyre_loop_fd(st->loop), .events = POLLIN};
    if (more == 0)
        (void)poll(&pfd, 1, 1);
}

static void talk(struct state *st, struct gyre_udp *c)
{
    static uint8_t bytes[9000];
    for (unsigned i = 0; i < 3; i++) {
        note(st, gyre_udp_send(c, bytes, 100));
        note(st, gyre_udp_send(c, bytes, sizeof bytes));
        note(st, gyre_udp_send_segments(c, NULL, 0, bytes, 500, 200));
        note(st, gyre_udp_id_send(gyre_udp_id_of(c), NULL, 0, bytes, 300));
        note(st, gyre_udp_pause(c));
        turn(st);
        note(st, gyre_udp_resume(c));
        for (unsigned k = 0; k < TURNS / 3; k++)
            turn(st);
    }
}

static int open_pair(struct state *st, const char *address, struct gyre_udp **server, struct gyre_udp **client)
{
    const struct gyre_udp_options options = {.user = st};
    int err = gyre_udp_open(server, st->loop, address, &echoing, &options);
    if (err != 0)
        return err;
    st->opened++;
    err = gyre_udp_connect(client, st->loop, gyre_udp_address(*server), &asking, &options);
    st->opened += err == 0;
    return err;
}

/* Of two sockets of the test's, the second connected to the first. What is not taken stays here. */
static int adopt_pair(struct state *st, struct gyre_udp **server, struct gyre_udp **client)
{
    const struct gyre_udp_options options = {.user = st};
    struct sockaddr_in in4 = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t len = sizeof in4;
    int fds[2], err = 0, taken = 0;
    for (int i = 0; i < 2; i++)
        cr_assert_geq(fds[i] = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), 0);
    cr_assert_eq(bind(fds[0], (const struct sockaddr *)&in4, len), 0);
    cr_assert_eq(getsockname(fds[0], (struct sockaddr *)&in4, &len), 0);
    cr_assert_eq(connect(fds[1], (const struct sockaddr *)&in4, len), 0);
    for (; err == 0 && taken < 2; taken += err == 0)
        err = gyre_udp_adopt_fd(taken == 0 ? server : client, st->loop, fds[taken], taken == 0 ? &echoing : &asking,
                                &options);
    st->opened += (unsigned)taken;
    for (int i = taken; i < 2; i++)
        cr_assert_eq(close(fds[i]), 0, "what was not taken is the caller's");
    return err;
}

/* With memory again a datagram goes there and back. */
static void prove(struct state *st, struct gyre_udp *c, const char *where)
{
    st->last_came = false;
    for (unsigned i = 0; !st->last_came; i++) {
        cr_assert_lt(i, TURNS_MAX, "%s: nothing comes back though there is memory", where);
        if (i % 50 == 0)
            cr_assert_eq(gyre_udp_send(c, "end", 3), 0, "%s", where);
        turn(st);
    }
}

/* Without an address: of descriptors. */
static void run_pair(struct state *st, struct fault_mem *mem, const char *address, const char *where)
{
    struct gyre_udp *server, *client;
    int err = address != NULL ? open_pair(st, address, &server, &client) : adopt_pair(st, &server, &client);
    note(st, err);
    if (err != 0)
        return;
    talk(st, client);
    bool struck = fault_mem_struck(mem);
    if (struck)
        fault_mem_arm(mem, 0);
    prove(st, client, where);
    if (struck)
        mem->refused = 1;
}

static bool run_scenario(const struct backend_param *p, long n, enum fault_mode mode)
{
    struct fault_mem mem;
    struct state st = {.held_count = 0};
    char where[96], name[64];
    const struct gyre_sim_options sim_options = {.seed = 7,
                                                 .loss_permille = GYRE_SIM_NEVER,
                                                 .delay_max_ns = GYRE_SIM_NO_DELAY};
    int fds = open_descriptors();
    (void)snprintf(where, sizeof where, "%s: call %ld refused %s", p->backend, n,
                   mode == FAULT_ONCE ? "once" : "for good");
    (void)snprintf(name, sizeof name, "unixgram://@gyre-udp-memory-%d", (int)getpid());
    fault_mem_init(&mem, n, mode);
    if (!backends_is_real(p->backend))
        cr_assert_eq(gyre_sim_create(&st.sim, &sim_options), 0);
    const struct gyre_loop_options options = {
        .backend = st.sim != NULL ? NULL : p->backend, .sim = st.sim, .mem = &mem.mem, .buf_count_max = 32};
    int err = gyre_loop_create(&st.loop, &options);
    if (err == 0) {
        run_pair(&st, &mem, "udp://127.0.0.1:0", where);
        run_pair(&st, &mem, name, where);
        if (st.sim == NULL)
            run_pair(&st, &mem, NULL, where);
        while (st.held_count > 0)
            gyre_buf_release(st.held[--st.held_count]);
        gyre_loop_destroy(st.loop);
        cr_assert_eq(st.closes, st.opened, "%s: %u sockets, %u closed", where, st.opened, st.closes);
    } else {
        cr_assert(fault_mem_struck(&mem) && err == -ENOMEM, "%s: %s", where, gyre_err_name(err));
    }
    gyre_sim_destroy(st.sim);
    bool documented = st.undocumented == 0 || st.undocumented == GYRE_ESHUTDOWN;
    cr_assert(documented, "%s: %s", where, gyre_err_name(st.undocumented));
    cr_assert_eq(atomic_load(&mem.counted.blocks), 0, "%s: %ld blocks left", where, atomic_load(&mem.counted.blocks));
    cr_assert_eq(open_descriptors(), fds, "%s: descriptors left", where);
    return fault_mem_struck(&mem);
}

static void run_all(const struct backend_param *p, enum fault_mode mode)
{
    struct gyre_sim *sim;
    const struct gyre__backend_config config = {.mem = &gyre__mem_system, .log = &gyre__log_system};
    struct gyre__backend *be = backends_open(p->backend, config, &sim);
    be->ops->destroy(be); /* it opens here, or the test was skipped */
    backends_sim_free(sim);
    cr_assert_not(run_scenario(p, 0, mode));
    long n = 1;
    while (run_scenario(p, n, mode)) {
        n++;
        cr_assert_lt(n, N_MAX);
    }
    cr_assert_gt(n, 10, "the scenario asks for memory no more than %ld times", n);
}

BACKEND_TEST(udp_memory, refused_once)
{
    run_all(p, FAULT_ONCE);
}

/* Until the pair at hand has talked; then there is memory for the proof. */
BACKEND_TEST(udp_memory, refused_for_good)
{
    run_all(p, FAULT_FOREVER);
}
