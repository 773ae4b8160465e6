/* SPDX-License-Identifier: MIT
 * gyre_resolve(): answers, the cache, the limits, and requests that are cancelled or whose loop ends. */
#include "names.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct ask {
    struct api *api;
    struct gyre_lookup *lookup;
    unsigned done;
    int err;
    size_t count;
    char first[64], last[64];
    struct ask *cancels; /* is cancelled in `done` */
};

static void text_of(char *out, size_t size, const struct sockaddr_storage *ss)
{
    const void *host = ss->ss_family == AF_INET6 ? (const void *)&((const struct sockaddr_in6 *)ss)->sin6_addr
                                                 : (const void *)&((const struct sockaddr_in *)ss)->sin_addr;
    cr_assert_not_null(inet_ntop(ss->ss_family, host, out, (socklen_t)size));
}

static void on_done(struct gyre_loop *l, int err, const struct sockaddr_storage *addresses, size_t count, void *user)
{
    struct ask *a = user;
    api_enter(a->api);
    cr_assert_eq(l, a->api->loop);
    cr_assert_eq(err == 0, count > 0);
    a->done++;
    a->lookup = NULL;
    a->err = err;
    a->count = count;
    if (count > 0) {
        text_of(a->first, sizeof a->first, &addresses[0]);
        text_of(a->last, sizeof a->last, &addresses[count - 1]);
    }
    if (a->cancels != NULL)
        cr_assert_eq(gyre_resolve_cancel(a->cancels->lookup), 0);
    api_leave(a->api);
}

static int begin(struct ask *a, struct api *api, const char *name, const struct gyre_resolve_options *options)
{
    *a = (struct ask){.api = api, .cancels = a->cancels};
    int err = gyre_resolve(&a->lookup, api->loop, name, on_done, a, options);
    cr_assert_eq(a->done, 0, "done from inside the call");
    return err;
}

static void ask(struct ask *a, struct api *api, const char *name, const struct gyre_resolve_options *options)
{
    int err = begin(a, api, name, options);
    cr_assert_eq(err, 0, "%s: %s", name, gyre_err_name(err));
    api_until(api, a->done > 0);
    cr_assert_eq(a->done, 1);
}

/* Addresses in the server's order, of the family asked for; the case of letters and a dot at the end do not count. */
BACKEND_TEST(api_resolve, answers)
{
    struct api api;
    struct names n;
    struct ask a = {0};
    const char *both[] = {"::1", "127.0.0.2"};
    names_start(&api, &n, p, NULL);
    names_set(&n, "both.test", both, 2, 0);
    ask(&a, &api, "both.test", NULL);
    cr_assert_eq(a.err, 0);
    cr_assert_eq(a.count, 2);
    cr_assert_str_eq(a.first, "::1");
    cr_assert_str_eq(a.last, "127.0.0.2");
    ask(&a, &api, "BOTH.Test.", &(struct gyre_resolve_options){.family = AF_INET});
    cr_assert_eq(a.count, 1);
    cr_assert_str_eq(a.first, "127.0.0.2");
    ask(&a, &api, "both.test", &(struct gyre_resolve_options){.family = AF_INET6});
    cr_assert_eq(a.count, 1);
    cr_assert_str_eq(a.first, "::1");
    ask(&a, &api, "BOTH.TEST", NULL);
    cr_assert_eq(a.count, 2);
    cr_assert_eq(names_stats(&n).hits, 1);
    names_stop(&api, &n);
}

/* A number is its own address; nobody is asked. */
BACKEND_TEST(api_resolve, numbers)
{
    struct api api;
    struct names n;
    struct ask a = {0};
    names_start(&api, &n, p, NULL);
    ask(&a, &api, "192.0.2.7", NULL);
    cr_assert_eq(a.err, 0);
    cr_assert_str_eq(a.first, "192.0.2.7");
    ask(&a, &api, "2001:db8::7", NULL);
    cr_assert_str_eq(a.first, "2001:db8::7");
    cr_assert_eq(begin(&a, &api, "192.0.2.7", &(struct gyre_resolve_options){.family = AF_INET6}), GYRE_EADDRESS);
    cr_assert_eq(names_stats(&n).requests, 0);
    cr_assert_eq(names_asked(&n), 0);
    names_stop(&api, &n);
}

/* What is refused at once leaves nothing behind. */
BACKEND_TEST(api_resolve, refused)
{
    struct api api;
    struct names n;
    struct ask a = {0};
    static const char *const bad[] = {"", ".", "a..b", "-a", "a b", "a:b", "1.2.3", "127.0.0.256", "0x7f.1",
                                      "0x7f000001", "http://a", "a/b", "\xc3\xa4.test", "[::1]"};
    char longest[300];
    names_start(&api, &n, p, NULL);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        cr_assert_eq(begin(&a, &api, bad[i], NULL), GYRE_EADDRESS, "\"%s\"", bad[i]);
    memset(longest, 'a', sizeof longest);
    for (size_t i = 63; i < sizeof longest; i += 64)
        longest[i] = '.';
    longest[254] = '\0';
    cr_assert_eq(begin(&a, &api, longest, NULL), GYRE_EADDRESS);
    longest[253] = '\0';
    ask(&a, &api, longest, NULL);
    cr_assert_eq(a.err, GYRE_ENONAME);
    memset(longest, 'a', 64);
    cr_assert_eq(begin(&a, &api, longest, NULL), GYRE_EADDRESS, "a label of 64 bytes");
    cr_assert_eq(begin(&a, &api, "a.test", &(struct gyre_resolve_options){.family = 77}), GYRE_EOPTION);
    cr_assert_eq(begin(&a, &api, "a.test", &(struct gyre_resolve_options){.timeout_ns = -1}), GYRE_EOPTION);
    cr_assert_eq(gyre_resolve(NULL, NULL, "a.test", on_done, &a, NULL), -EINVAL);
    cr_assert_eq(gyre_resolve(NULL, api.loop, NULL, on_done, &a, NULL), -EINVAL);
    cr_assert_eq(gyre_resolve(NULL, api.loop, "a.test", NULL, &a, NULL), -EINVAL);
    cr_assert_eq(gyre_resolve_cancel(NULL), 0);
    cr_assert_eq(a.done, 0);
    names_stop(&api, &n);
}

/* A name that does not exist is one error, a server that fails another; the first is kept, the second is not. */
BACKEND_TEST(api_resolve, failures)
{
    struct api api;
    struct names n;
    struct ask a = {0};
    names_start(&api, &n, p, NULL);
    names_set(&n, "broken.test", NULL, 0, GYRE_ENAMESERVER);
    for (unsigned i = 0; i < 3; i++) {
        ask(&a, &api, "none.test", NULL);
        cr_assert_eq(a.err, GYRE_ENONAME);
        ask(&a, &api, "broken.test", NULL);
        cr_assert_eq(a.err, GYRE_ENAMESERVER);
    }
    cr_assert_eq(names_stats(&n).lookups, 4);
    cr_assert_eq(names_stats(&n).failures, 4);
    cr_assert_eq(names_stats(&n).hits, 2);
    cr_assert_eq(names_stats(&n).cached, 1);
    names_one(&n, "broken.test", "127.0.0.3");
    ask(&a, &api, "broken.test", NULL);
    cr_assert_str_eq(a.first, "127.0.0.3");
    names_stop(&api, &n);
}

/* A hundred addresses: as many as the limit says are given, in order. */
BACKEND_TEST(api_resolve, many_addresses)
{
    struct api api;
    struct names n;
    struct ask a = {0};
    static char texts[100][16];
    const char *many[100];
    for (unsigned i = 0; i < 100; i++) {
        (void)snprintf(texts[i], sizeof texts[i], "127.0.1.%u", i);
        many[i] = texts[i];
    }
    names_start(&api, &n, p, NULL);
    names_set(&n, "many.test", many, 100, 0);
    ask(&a, &api, "many.test", NULL);
    cr_assert_eq(a.count, 64);
    cr_assert_str_eq(a.last, "127.0.1.63");
    names_stop(&api, &n);
    names_start(&api, &n, p, &(struct gyre_resolver_options){.addresses_max = 100});
    names_set(&n, "many.test", many, 100, 0);
    ask(&a, &api, "many.test", NULL);
    cr_assert_eq(a.count, 100);
    names_stop(&api, &n);
}

/* An answer is given again for its time, then asked for anew; `fresh` asks anew at once, flush forgets all. */
BACKEND_TEST(api_resolve, cache)
{
    struct api api;
    struct names n;
    struct ask a = {0};
    names_start(&api, &n, p, &(struct gyre_resolver_options){.ttl_ns = MS(3600000), .negative_ttl_ns = MS(20)});
    names_one(&n, "a.test", "127.0.0.1");
    ask(&a, &api, "a.test", NULL);
    names_one(&n, "a.test", "127.0.0.2");
    ask(&a, &api, "a.test", NULL);
    cr_assert_str_eq(a.first, "127.0.0.1", "not from the cache");
    ask(&a, &api, "a.test", &(struct gyre_resolve_options){.fresh = true});
    cr_assert_str_eq(a.first, "127.0.0.2", "from the cache");
    names_one(&n, "a.test", "127.0.0.3");
    ask(&a, &api, "a.test", NULL);
    cr_assert_str_eq(a.first, "127.0.0.2");
    gyre_resolver_flush(n.resolver);
    cr_assert_eq(names_stats(&n).cached, 0);
    ask(&a, &api, "a.test", NULL);
    cr_assert_str_eq(a.first, "127.0.0.3");
    /* What was known stays when the server fails. */
    names_set(&n, "a.test", NULL, 0, GYRE_ENAMESERVER);
    ask(&a, &api, "a.test", &(struct gyre_resolve_options){.fresh = true});
    cr_assert_eq(a.err, GYRE_ENAMESERVER);
    ask(&a, &api, "a.test", NULL);
    cr_assert_str_eq(a.first, "127.0.0.3");
    /* That there is none is kept for less long. */
    ask(&a, &api, "b.test", NULL);
    cr_assert_eq(a.err, GYRE_ENONAME);
    names_one(&n, "b.test", "127.0.0.4");
    api_watch(&api, MS(25));
    ask(&a, &api, "b.test", NULL);
    cr_assert_str_eq(a.first, "127.0.0.4");
    names_stop(&api, &n);
}

/* With a negative time nothing is kept. */
BACKEND_TEST(api_resolve, no_cache)
{
    struct api api;
    struct names n;
    struct ask a = {0};
    names_start(&api, &n, p, &(struct gyre_resolver_options){.ttl_ns = -1, .negative_ttl_ns = -1});
    names_one(&n, "a.test", "127.0.0.1");
    for (unsigned i = 0; i < 3; i++) {
        ask(&a, &api, "a.test", NULL);
        cr_assert_eq(a.err, 0);
        ask(&a, &api, "none.test", NULL);
        cr_assert_eq(a.err, GYRE_ENONAME);
    }
    cr_assert_eq(names_stats(&n).hits, 0);
    cr_assert_eq(names_stats(&n).cached, 0);
    cr_assert_eq(names_stats(&n).lookups, 6);
    names_stop(&api, &n);
}

/* The cache holds so many names; the one not used for longest goes. */
BACKEND_TEST(api_resolve, cache_limit)
{
    struct api api;
    struct names n;
    struct ask a = {0};
    char name[16];
    names_start(&api, &n, p, &(struct gyre_resolver_options){.cache_max = 8});
    for (unsigned i = 0; i < 20; i++) {
        (void)snprintf(name, sizeof name, "n%u.test", i);
        ask(&a, &api, name, NULL);
        ask(&a, &api, "n0.test", NULL);
        cr_assert_leq(names_stats(&n).cached, 8);
    }
    cr_assert_eq(names_stats(&n).evicted, 12);
    cr_assert_eq(names_stats(&n).lookups, 20, "n0 was used each time and never went");
    ask(&a, &api, "n1.test", NULL);
    cr_assert_eq(names_stats(&n).lookups, 21);
    names_stop(&api, &n);
}

/* Requests for one name share one lookup, and each gets the answer. */
REAL_TEST(api_resolve, shared_lookup)
{
    enum { COUNT = 200 };
    static struct ask asks[COUNT];
    struct api api;
    struct names n;
    names_start(&api, &n, p, NULL);
    names_hang(&n, "slow.test");
    for (unsigned i = 0; i < COUNT; i++)
        cr_assert_eq(begin(&asks[i], &api, "slow.test", NULL), 0);
    cr_assert_eq(names_stats(&n).waiting, COUNT);
    cr_assert_eq(names_stats(&n).under_way, 1);
    names_release(&n);
    for (unsigned i = 0; i < COUNT; i++) {
        api_until(&api, asks[i].done == 1);
        cr_assert_str_eq(asks[i].first, "127.0.0.1");
    }
    cr_assert_eq(names_asked(&n), 1);
    cr_assert_eq(names_stats(&n).joined, COUNT - 1);
    cr_assert_eq(names_stats(&n).waiting, 0);
    cr_assert_eq(names_stats(&n).under_way, 0);
    names_stop(&api, &n);
}

/* Of lookups and of requests there are as many as the limits say, then -EAGAIN; while all threads hang the loop goes
 * on. */
REAL_TEST(api_resolve, limits)
{
    struct api api;
    struct names n;
    static struct ask asks[10];
    char name[16];
    static char names[8][16];
    names_start(&api, &n, p, &(struct gyre_resolver_options){.threads = 2, .lookups_max = 5, .requests_max = 7});
    for (unsigned i = 0; i < 8; i++) {
        (void)snprintf(names[i], sizeof names[i], "h%u.test", i);
        names_hang(&n, names[i]);
    }
    for (unsigned i = 0; i < 5; i++) {
        (void)snprintf(name, sizeof name, "h%u.test", i);
        cr_assert_eq(begin(&asks[i], &api, name, NULL), 0);
    }
    cr_assert_eq(begin(&asks[9], &api, "h5.test", NULL), -EAGAIN, "the sixth lookup");
    cr_assert_eq(begin(&asks[5], &api, "h0.test", NULL), 0);
    cr_assert_eq(begin(&asks[6], &api, "h4.test", NULL), 0);
    cr_assert_eq(begin(&asks[9], &api, "h0.test", NULL), -EAGAIN, "the eighth request");
    cr_assert_eq(names_stats(&n).refused, 2);
    api_until(&api, names_inside(&n) == 2);
    cr_assert_eq(names_stats(&n).under_way, 5);
    names_release(&n);
    for (unsigned i = 0; i < 7; i++)
        api_until(&api, asks[i].done == 1 && asks[i].err == 0);
    ask(&asks[9], &api, "h6.test", NULL);
    cr_assert_eq(asks[9].err, 0);
    names_stop(&api, &n);
}

/* A request that takes too long ends with GYRE_ETIMEOUT; the lookup goes on, for the cache. */
BACKEND_TEST(api_resolve, timeout)
{
    struct api api;
    struct names n;
    struct ask a = {0};
    names_start(&api, &n, p, NULL);
    names_hang(&n, "slow.test");
    ask(&a, &api, "slow.test", &(struct gyre_resolve_options){.timeout_ns = MS(20)});
    cr_assert_eq(a.err, GYRE_ETIMEOUT);
    cr_assert_eq(names_stats(&n).waiting, 0);
    if (!api.is_sim) {
        names_release(&n);
        api_until(&api, names_stats(&n).cached == 1);
        ask(&a, &api, "slow.test", NULL);
        cr_assert_eq(a.err, 0);
        cr_assert_eq(names_asked(&n), 1);
    }
    names_stop(&api, &n);
}

/* Cancelled while a thread has it, while it waits for a thread, with the answer on its way, and from another's `done`:
 * `done` runs once. */
BACKEND_TEST(api_resolve, cancel)
{
    struct api api;
    struct names n;
    struct ask a = {0}, b = {0}, c = {0};
    names_start(&api, &n, p, &(struct gyre_resolver_options){.threads = 1});
    names_hang(&n, "slow.test");
    names_hang(&n, "other.test");
    names_one(&n, "quick.test", "127.0.0.1");
    cr_assert_eq(begin(&a, &api, "slow.test", NULL), 0);
    if (!api.is_sim)
        api_until(&api, names_inside(&n) == 1);
    cr_assert_eq(begin(&b, &api, "other.test", NULL), 0);
    cr_assert_eq(gyre_resolve_cancel(b.lookup), 0);
    cr_assert_eq(gyre_resolve_cancel(b.lookup), 0, "twice");
    cr_assert_eq(names_stats(&n).under_way, api.is_sim ? 0 : 1, "a question that nobody waits for");
    cr_assert_eq(gyre_resolve_cancel(a.lookup), 0);
    cr_assert_eq(a.done + b.done, 0);
    api_until(&api, a.done == 1 && b.done == 1);
    cr_assert_eq(a.err, -ECANCELED);
    cr_assert_eq(b.err, -ECANCELED);
    names_release(&n);
    ask(&c, &api, "quick.test", NULL);
    cr_assert_eq(begin(&c, &api, "quick.test", NULL), 0);
    cr_assert_eq(gyre_resolve_cancel(c.lookup), 0);
    api_until(&api, c.done == 1);
    cr_assert_eq(c.err, 0, "the answer was on its way");
    a.cancels = &b;
    cr_assert_eq(begin(&a, &api, "slow.test", &(struct gyre_resolve_options){.timeout_ns = MS(1)}), 0);
    cr_assert_eq(begin(&b, &api, "fourth.test", NULL), 0);
    api_until(&api, a.done == 1 && b.done == 1);
    names_stop(&api, &n);
}

/* The loop ends at each point: before the lookup, during it, with the answer on its way. Each `done` runs once. */
BACKEND_TEST(api_resolve, loop_ends)
{
    for (unsigned point = 0; point < 4; point++) {
        struct api api;
        struct names n;
        static struct ask asks[4];
        names_start(&api, &n, p, &(struct gyre_resolver_options){.threads = 1});
        names_hang(&n, "slow.test");
        names_hang(&n, "later.test");
        names_one(&n, "quick.test", "127.0.0.1");
        memset(asks, 0, sizeof asks);
        if (point >= 1)
            ask(&asks[0], &api, "quick.test", NULL);
        cr_assert_eq(begin(&asks[1], &api, "slow.test", NULL), 0);
        cr_assert_eq(begin(&asks[2], &api, "later.test", NULL), 0);
        if (point >= 2)
            cr_assert_eq(begin(&asks[3], &api, "quick.test", NULL), 0); /* the answer is on its way */
        if (point >= 3 && !api.is_sim)
            api_until(&api, names_inside(&n) == 1);
        api_destroy_loop(&api);
        cr_assert_eq(asks[1].done, 1);
        cr_assert_eq(asks[1].err, GYRE_ESHUTDOWN);
        cr_assert_eq(asks[2].err, GYRE_ESHUTDOWN);
        cr_assert_eq(asks[3].done, point >= 2);
        names_stop(&api, &n);
    }
}

static void await_inside(struct names *n, unsigned inside)
{
    while (names_inside(n) != inside)
        (void)poll(NULL, 0, 1);
}

/* The resolver is destroyed while a thread is inside a lookup: it does not wait, and the thread ends by itself. */
REAL_TEST(api_resolve, destroyed_while_asking)
{
    struct api api;
    struct names n;
    struct ask a = {0};
    names_start(&api, &n, p, NULL);
    names_hang(&n, "slow.test");
    cr_assert_eq(begin(&a, &api, "slow.test", NULL), 0);
    await_inside(&n, 1);
    api_close(&api);
    cr_assert_eq(a.err, GYRE_ESHUTDOWN);
    gyre_resolver_destroy(n.resolver);
    cr_assert_eq(names_inside(&n), 1, "it waited");
    names_release(&n);
    await_inside(&n, 0);
    cr_assert_eq(a.done, 1);
}

/* The resolver of a loop that was given none: the system's, made when it is needed. "localhost" is in /etc/hosts. */
BACKEND_TEST(api_resolve, of_the_loop)
{
    struct api api;
    struct ask a = {0};
    struct gyre_resolver *first, *second;
    api_init(&api, p);
    api_open(&api);
    ask(&a, &api, "localhost", &(struct gyre_resolve_options){.family = AF_INET});
    cr_assert_eq(a.err, 0);
    cr_assert_str_eq(a.first, "127.0.0.1");
    cr_assert_eq(gyre_loop_resolver(&first, api.loop), 0);
    cr_assert_eq(gyre_loop_resolver(&second, api.loop), 0);
    cr_assert_eq(first, second);
    struct gyre_resolver_counts stats;
    gyre_resolver_stats(&stats, first);
    cr_assert_eq(stats.lookups, 1);
    api_close(&api);
}

/* Options out of range are refused. */
Test(api_resolver, options)
{
    struct gyre_resolver *r = NULL;
    cr_assert_eq(gyre_resolver_create(NULL, NULL), -EINVAL);
    cr_assert_eq(gyre_resolver_create(&r, &(struct gyre_resolver_options){.threads = 65}), GYRE_EOPTION);
    cr_assert_eq(gyre_resolver_create(&r, &(struct gyre_resolver_options){.lookups_max = 2000000}), GYRE_EOPTION);
    cr_assert_eq(gyre_resolver_create(&r, &(struct gyre_resolver_options){.requests_max = 2000000}), GYRE_EOPTION);
    cr_assert_eq(gyre_resolver_create(&r, &(struct gyre_resolver_options){.cache_max = 2000000}), GYRE_EOPTION);
    cr_assert_eq(gyre_resolver_create(&r, &(struct gyre_resolver_options){.addresses_max = 1025}), GYRE_EOPTION);
    cr_assert_null(r);
    cr_assert_eq(gyre_resolver_create(&r, NULL), 0);
    gyre_resolver_flush(r);
    gyre_resolver_destroy(r);
    gyre_resolver_destroy(NULL);
}
