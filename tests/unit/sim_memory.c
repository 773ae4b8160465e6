/* SPDX-License-Identifier: MIT
 * The simulated network when memory runs out. */
#include "sim_core.h"

/* A hook that has only so many blocks to give. */
struct stingy {
    struct gyre_mem mem;
    struct env_mem under;
    long left;
};

static void *stingy_resize(void *ptr, size_t size_bytes, void *user)
{
    struct stingy *s = user;
    if (size_bytes > 0 && s->left-- <= 0)
        return NULL;
    return s->under.mem.resize(ptr, size_bytes, s->under.mem.user);
}

enum { CROWD = 80 };

/* More sockets than there is room for at first, each with a receive and the word to fill. Returns false if something
 * failed, and then only for want of memory. */
static bool crowd(struct sim_core *c)
{
    static struct sim_op recv[CROWD];
    static struct gyre__fd f[CROWD];
    static char byte;
    bool good = true;
    int count = 0;
    memset(recv, 0, sizeof recv);
    for (; count < CROWD; count++) {
        int fd = c->be->ops->sock->open(c->be, AF_INET);
        if (fd < 0) {
            cr_assert_eq(fd, -ENOMEM);
            good = false;
            break;
        }
        sim_attach(c, &f[count], fd);
        sim_recv(c, &recv[count], &f[count], &byte, 1);
    }
    for (int i = 0; i < count; i++) {
        int res = sim_outcome(c, &recv[i]);
        cr_assert(res == -ENOTCONN || res == -ENOMEM, "receive gave %d", res);
        good &= res == -ENOTCONN;
    }
    return good;
}

/* A peer connects to a peer and says a word. */
static bool dialogue(struct gyre_sim *sim)
{
    struct gyre_sim_listener *listener;
    struct gyre_sim_peer *a, *b = NULL;
    char word[8];
    int err = gyre_sim_listen_peer(&listener, sim, "tcp://127.0.0.1:80");
    if (err == 0)
        err = gyre_sim_connect(&a, sim, "tcp://127.0.0.1:80");
    if (err == 0)
        err = gyre_sim_peer_error(a);
    if (err == 0)
        err = gyre_sim_listener_accept(&b, listener);
    cr_assert(err == 0 || err == -ENOMEM, "%d", err);
    if (err != 0)
        return false;
    cr_assert_eq(gyre_sim_peer_send(a, "word", 4), 4);
    cr_assert_eq(gyre_sim_peer_recv(word, sizeof word, b), 4);
    return true;
}

static bool all_of_it(struct stingy *s)
{
    struct sim_core c = {.cap = SIM_BATCH};
    char why[64] = "";
    struct gyre_sim_options options = {.profile = GYRE_SIM_QUIET, .mem = &s->mem};
    int err = gyre_sim_create(&c.sim, &options);
    if (err == 0) {
        struct gyre__backend_config cfg = {.mem = &s->mem, .sim = c.sim};
        err = gyre__backend_sim.create(&c.be, &cfg, why, sizeof why);
    }
    bool good = err == 0 && crowd(&c);
    good = good && dialogue(c.sim);
    cr_assert(err == 0 || err == -ENOMEM);
    if (c.be != NULL)
        c.be->ops->destroy(c.be);
    gyre_sim_destroy(c.sim);
    return good;
}

/* Each allocation fails in turn: the call or the operation says so, and everything is freed. */
Test(sim_faults, every_allocation_may_fail)
{
    long allowed = 0;
    for (bool good = false; !good; allowed++) {
        cr_assert_lt(allowed, 1000);
        struct stingy s = {.left = allowed};
        s.mem = (struct gyre_mem){.resize = stingy_resize, .user = &s};
        env_mem_init(&s.under);
        good = all_of_it(&s);
        cr_assert_eq(atomic_load(&s.under.blocks), 0, "with %ld allocations memory is lost", allowed);
    }
    cr_assert_gt(allowed, CROWD);
}
