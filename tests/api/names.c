/* SPDX-License-Identifier: MIT
 * The name server for tests. */
#include "names.h"

#include "resolve/names.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define HOUR_NS (UINT64_C(3600) * 1000000000)

static bool parse(struct sockaddr_storage *out, const char *text)
{
    struct sockaddr_in *in4 = (struct sockaddr_in *)out;
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)out;
    memset(out, 0, sizeof *out);
    if (inet_pton(AF_INET, text, &in4->sin_addr) == 1)
        out->ss_family = AF_INET;
    else if (inet_pton(AF_INET6, text, &in6->sin6_addr) == 1)
        out->ss_family = AF_INET6;
    return out->ss_family != AF_UNSPEC;
}

/* Locked. */
static int answer(const struct names_row *row, struct sockaddr_storage *out, uint32_t max, int family)
{
    uint32_t count = 0;
    for (size_t i = 0; i < row->count && count < max; i++)
        if (parse(&out[count], row->addresses[i]) && (family == AF_UNSPEC || out[count].ss_family == family))
            count++;
    return row->count == 0 ? row->err : (int)count;
}

static int ask(struct sockaddr_storage *out, uint32_t max, const char *name, int family, void *user)
{
    struct names *n = user;
    int result = GYRE_ENONAME;
    (void)pthread_mutex_lock(&n->lock);
    n->asked++;
    for (unsigned i = 0; i < n->row_count; i++) {
        if (strcmp(n->rows[i].name, name) != 0)
            continue;
        n->inside += n->rows[i].hangs;
        while (n->rows[i].hangs && !n->released)
            (void)pthread_cond_wait(&n->changed, &n->lock);
        n->inside -= n->rows[i].hangs;
        result = answer(&n->rows[i], out, max, family);
    }
    (void)pthread_cond_broadcast(&n->changed);
    (void)pthread_mutex_unlock(&n->lock);
    return result;
}

void names_init(struct names *n, struct api *api, const struct gyre_resolver_options *options)
{
    const struct gyre_resolver_options none = {0};
    *n = (struct names){.api = api};
    (void)pthread_mutex_init(&n->lock, NULL);
    (void)pthread_cond_init(&n->changed, NULL);
    cr_assert_eq(gyre__resolver_make(&n->resolver, options != NULL ? options : &none, ask, n), 0);
    api->options.resolver = n->resolver;
}

void names_set(struct names *n, const char *name, const char *const *addresses, size_t count, int err)
{
    cr_assert_leq(count, NAMES_ADDRESSES_MAX);
    if (n->api->is_sim) {
        cr_assert_eq(gyre_sim_set_name(n->api->sim, name, addresses, count, err, 0), 0);
        return;
    }
    (void)pthread_mutex_lock(&n->lock);
    cr_assert_lt(n->row_count, NAMES_MAX);
    unsigned at = 0;
    while (at < n->row_count && strcmp(n->rows[at].name, name) != 0)
        at++;
    n->rows[at] = (struct names_row){.name = name, .count = count, .err = err};
    for (size_t i = 0; i < count; i++)
        n->rows[at].addresses[i] = addresses[i];
    n->row_count += at == n->row_count;
    (void)pthread_mutex_unlock(&n->lock);
}

void names_one(struct names *n, const char *name, const char *address)
{
    names_set(n, name, &address, 1, 0);
}

void names_hang(struct names *n, const char *name)
{
    const char *address = "127.0.0.1";
    if (n->api->is_sim) {
        cr_assert_eq(gyre_sim_set_name(n->api->sim, name, &address, 1, 0, HOUR_NS), 0);
        return;
    }
    names_one(n, name, address);
    (void)pthread_mutex_lock(&n->lock);
    n->rows[n->row_count - 1].hangs = true;
    (void)pthread_mutex_unlock(&n->lock);
}

void names_release(struct names *n)
{
    (void)pthread_mutex_lock(&n->lock);
    n->released = true;
    (void)pthread_cond_broadcast(&n->changed);
    (void)pthread_mutex_unlock(&n->lock);
}

static unsigned look(struct names *n, const unsigned *counter)
{
    (void)pthread_mutex_lock(&n->lock);
    unsigned value = *counter;
    (void)pthread_mutex_unlock(&n->lock);
    return value;
}

unsigned names_asked(struct names *n)
{
    return look(n, &n->asked);
}

unsigned names_inside(struct names *n)
{
    return look(n, &n->inside);
}

/* A thread that is left to itself would go on using `n`. */
void names_fini(struct names *n)
{
    names_release(n);
    while (names_stats(n).under_way > 0)
        (void)poll(NULL, 0, 1);
    gyre_resolver_destroy(n->resolver);
}

struct gyre_resolver_counts names_stats(struct names *n)
{
    struct gyre_resolver_counts stats;
    gyre_resolver_stats(&stats, n->resolver);
    return stats;
}

void hole_open(struct api *api, struct hole *h)
{
    struct sockaddr_in addr;
    socklen_t len = sizeof addr;
    stage_open(api, &h->stage);
    if (api->is_sim) {
        for (unsigned i = 0; i < HOLE_SIM_FILLERS; i++)
            cr_assert_eq(gyre_sim_connect(&h->peers[i], api->sim, h->stage.address), 0);
        return;
    }
    cr_assert_eq(listen(h->stage.fd, 0), 0);
    cr_assert_eq(getsockname(h->stage.fd, (struct sockaddr *)&addr, &len), 0);
    for (unsigned i = 0; i < HOLE_FILLERS; i++) {
        h->fds[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        (void)connect(h->fds[i], (struct sockaddr *)&addr, len);
    }
}

void hole_close(struct hole *h)
{
    for (unsigned i = 0; i < HOLE_SIM_FILLERS && h->stage.api->is_sim; i++)
        gyre_sim_peer_close(h->peers[i]);
    for (unsigned i = 0; i < HOLE_FILLERS && !h->stage.api->is_sim; i++)
        cr_assert_eq(close(h->fds[i]), 0);
    stage_close(&h->stage);
}

void names_start(struct api *api, struct names *n, const struct backend_param *p,
                 const struct gyre_resolver_options *options)
{
    api_init(api, p);
    api->quiet_sim = true;
    names_init(n, api, options);
    api_open(api);
}

void names_stop(struct api *api, struct names *n)
{
    api_close(api);
    names_fini(n);
}
