/* SPDX-License-Identifier: MIT
 * Requests for the addresses of names, on a loop.
 *
 * The normal course of a request: the cache knows the name, or the request waits for an answer of the resolver; either
 * way the request comes back to the loop as a task, which calls `done`. So `done` never runs inside the call.
 *
 * What can go wrong: the request is cancelled, forgotten, or takes too long; or the loop ends. Then it leaves the list
 * of the name, and no thread can reach it or the loop any more. A request that is already on its way to the loop stays
 * until its task has run, at the latest when the loop is destroyed. */
#include "resolve.h"
#include "names.h"
#include "base/options.h"
#include "base/refuse.h"
#include "loop/set.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <strings.h>

enum { LISTEN_ADDRESSES = 64 };

static const int64_t timeout_default_ns = INT64_C(30000000000);
static const int64_t timeout_never_ns = INT64_C(25) * 24 * 3600 * 1000000000;

/* ---- the loop's ---- */

int gyre__resolves_init(struct gyre_loop *l, struct gyre_resolver *resolver)
{
    l->resolves = gyre__alloc(l->mem, sizeof *l->resolves);
    if (l->resolves == NULL)
        return -ENOMEM;
    l->resolves->resolver = resolver;
    return 0;
}

void gyre__resolves_fini(struct gyre_loop *l)
{
    if (l->resolves == NULL)
        return;
    if (l->resolves->own)
        gyre_resolver_destroy(l->resolves->resolver);
    gyre__free(l->mem, l->resolves);
    l->resolves = NULL;
}

/* The set's resolver, made by the first of its loops that needs it. */
static int share(struct gyre_resolver **out, const struct gyre_loop *l, const struct gyre_resolver_options *o)
{
    int err = 0;
    (void)pthread_mutex_lock(&l->set->gate);
    if (l->set->resolver == NULL)
        err = gyre__resolver_make(&l->set->resolver, o, NULL, NULL);
    *out = l->set->resolver;
    (void)pthread_mutex_unlock(&l->set->gate);
    return err;
}

static int resolver_of(struct gyre_loop *l)
{
    struct gyre__resolves *mine = l->resolves;
    const struct gyre_resolver_options o = {.mem = l->mem};
    if (mine->resolver != NULL)
        return 0;
    if (l->set != NULL)
        return share(&mine->resolver, l, &o);
    int err = gyre__resolver_make(&mine->resolver, &o, NULL, NULL);
    mine->own = err == 0;
    return err;
}

int gyre_loop_resolver(struct gyre_resolver **out, struct gyre_loop *l)
{
    if (out == NULL || l == NULL)
        return -EINVAL;
    if (gyre__loop_is_forked(l))
        return GYRE_EFORK;
    if (!gyre__loop_allows(l))
        return GYRE_ETHREAD;
    int err = resolver_of(l);
    if (err == 0)
        *out = l->resolves->resolver;
    return err;
}

/* ---- the end of a request ---- */

static void unlink_request(struct gyre_lookup *r)
{
    *r->loop_prev = r->loop_next;
    if (r->loop_next != NULL)
        r->loop_next->loop_prev = r->loop_prev;
    gyre__wheel_stop(&r->loop->wheel, &r->timer);
}

static void free_request(struct gyre_lookup *r)
{
    gyre__answer_release(r->answer);
    gyre__free(r->loop->mem, r);
}

/* Nobody but the loop knows the request any more. */
static void tell(struct gyre_lookup *r)
{
    const struct gyre__answer *answer = r->err == 0 ? r->answer : NULL;
    unlink_request(r);
    if (!r->forgotten)
        r->done(r->loop, r->err, answer != NULL ? answer->addresses : NULL, answer != NULL ? answer->count : 0,
                r->user);
    free_request(r);
}

/* Take it from whoever has it. Returns false if it is on its way to the loop already. */
static bool take_back(struct gyre_lookup *r)
{
    struct gyre__asker *asker = r->resolver->asker;
    gyre__asker_lock(asker);
    bool mine = !r->posted;
    if (r->name != NULL)
        gyre__names_leave(r);
    gyre__asker_unlock(asker);
    return mine;
}

/* The thread that posted it goes on to wake the loop. Until it has let go of the lock neither may be freed. */
static void run_task(struct gyre_loop *l, void *user)
{
    (void)l;
    (void)take_back(user);
    tell(user);
}

static void send_home(struct gyre_lookup *r, int err)
{
    r->err = err;
    r->posted = true;
    gyre__tasks_push_always(&r->loop->tasks, &r->task);
}

void gyre__resolves_end(struct gyre_loop *l)
{
    struct gyre_lookup *next;
    for (struct gyre_lookup *r = l->resolves->first; r != NULL; r = next) {
        next = r->loop_next; /* `done` can neither begin a request, for the loop ends, nor end one at once */
        if (!take_back(r))
            continue;
        r->err = GYRE_ESHUTDOWN;
        tell(r);
    }
}

/* On the simulator the answer's time has come, unless the limit came first. */
void gyre__resolve_on_timer(struct gyre__loop_timer *t)
{
    struct gyre_lookup *r = GYRE_CONTAINER(t, struct gyre_lookup, timer);
    struct gyre_resolver *res = r->resolver;
    if (!take_back(r))
        return; /* a thread has just answered */
    if (r->err == GYRE_ETIMEOUT || r->answer == NULL) {
        r->err = GYRE_ETIMEOUT;
    } else {
        gyre__asker_lock(res->asker);
        res->counts.lookups++;
        res->counts.failures += r->answer->err != 0;
        gyre__names_keep(res, r->text, r->family, r->answer, r->loop->now_ns);
        gyre__asker_unlock(res->asker);
    }
    tell(r);
}

int gyre_resolve_cancel(struct gyre_lookup *r)
{
    if (r == NULL)
        return 0;
    if (!gyre__loop_allows(r->loop))
        return GYRE_ETHREAD;
    if (take_back(r)) {
        gyre__wheel_stop(&r->loop->wheel, &r->timer);
        send_home(r, -ECANCELED);
    }
    return 0;
}

void gyre__resolve_forget(struct gyre_lookup *r)
{
    if (!take_back(r)) {
        r->forgotten = true;
        return;
    }
    unlink_request(r);
    free_request(r);
}

/* ---- its beginning ---- */

static int ask_number(struct sockaddr_storage *out, uint32_t max, const char *name, int family, void *user)
{
    struct sockaddr_in *in4 = (struct sockaddr_in *)out;
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)out;
    (void)max;
    (void)user;
    if (family != AF_INET6 && inet_pton(AF_INET, name, &in4->sin_addr) == 1) {
        in4->sin_family = AF_INET;
        return 1;
    }
    if (family != AF_INET && inet_pton(AF_INET6, name, &in6->sin6_addr) == 1) {
        in6->sin6_family = AF_INET6;
        return 1;
    }
    return 0;
}

struct world {
    struct gyre__backend *be;
    uint64_t delay_ns;
};

static int ask_world(struct sockaddr_storage *out, uint32_t max, const char *name, int family, void *user)
{
    struct world *world = user;
    return world->be->ops->lookup(world->be, out, max, name, family, &world->delay_ns);
}

/* On the simulator: the answer is known at once, and given when its time has come. */
static int ask_simulator(struct gyre_lookup *r, int64_t timeout_ns)
{
    struct gyre_loop *l = r->loop;
    struct world world = {.be = l->be};
    r->answer = gyre__answer_new(ask_world, &world, r->resolver->options.addresses_max, r->text, r->family);
    if (r->answer == NULL)
        return -ENOMEM;
    r->err = r->answer->err;
    if (timeout_ns > 0 && world.delay_ns > (uint64_t)timeout_ns) {
        r->err = GYRE_ETIMEOUT;
        world.delay_ns = (uint64_t)timeout_ns;
    }
    gyre__wheel_start(&l->wheel, &r->timer, gyre__loop_now(l) + world.delay_ns);
    return 0;
}

/* From the cache, or by waiting. */
static int begin(struct gyre_lookup *r, const struct gyre__resolve_request *q)
{
    struct gyre_loop *l = r->loop;
    struct gyre_resolver *res = r->resolver;
    bool simulated = l->be->ops->lookup != NULL;
    int err = 0;
    gyre__asker_lock(res->asker);
    struct gyre__answer *known = q->fresh ? NULL : gyre__names_find(res, r->text, r->family, gyre__loop_clock(l));
    res->counts.requests++;
    res->counts.hits += known != NULL;
    if (known != NULL)
        r->answer = known;
    else if (!simulated)
        err = gyre__names_wait(res, r, r->text, r->family);
    res->counts.refused += err == -EAGAIN;
    gyre__asker_unlock(res->asker);
    if (err != 0)
        return err;
    /* From here on a thread may have answered: `r->answer` is not looked at. */
    if (known != NULL)
        send_home(r, known->err);
    else if (simulated)
        err = ask_simulator(r, q->timeout_ns);
    else if (q->timeout_ns > 0 && q->timeout_ns < timeout_never_ns)
        gyre__wheel_start(&l->wheel, &r->timer, gyre__loop_now(l) + (uint64_t)q->timeout_ns);
    return err;
}

static struct gyre_lookup *new_request(struct gyre_loop *l, const struct gyre__resolve_request *q, const char *text)
{
    size_t len = strlen(text) + 1;
    struct gyre_lookup *r = gyre__alloc(l->mem, sizeof *r + len);
    if (r == NULL)
        return NULL;
    r->task = (struct gyre__task){.run = run_task, .user = r, .embedded = true};
    r->timer.kind = GYRE_TIMER_RESOLVE;
    r->loop = l;
    r->resolver = l->resolves->resolver;
    r->done = q->done;
    r->user = q->user;
    r->family = q->family;
    memcpy(r->text, text, len);
    r->loop_next = l->resolves->first;
    r->loop_prev = &l->resolves->first;
    if (r->loop_next != NULL)
        r->loop_next->loop_prev = &r->loop_next;
    l->resolves->first = r;
    return r;
}

int gyre__resolve(struct gyre_lookup **out, struct gyre_loop *l, const struct gyre__resolve_request *q)
{
    char text[GYRE_HOST_MAX + 2] = "";
    struct gyre__answer *number = gyre__answer_new(ask_number, NULL, 1, q->name, q->family);
    int err = number == NULL ? -ENOMEM : resolver_of(l);
    if (err == 0 && number->err != 0 && !gyre__name_normalize(text, q->name))
        err = GYRE_EADDRESS;
    struct gyre_lookup *r = err == 0 ? new_request(l, q, text) : NULL;
    if (r == NULL) {
        gyre__answer_release(number);
        return err != 0 ? err : -ENOMEM;
    }
    if (number->err == 0) {
        r->answer = number;
        send_home(r, 0);
    } else {
        gyre__answer_release(number);
        err = begin(r, q);
    }
    if (err != 0) {
        unlink_request(r);
        free_request(r);
        return err;
    }
    *out = r;
    return 0;
}

/* ---- listening ---- */

static int ask_blocking(struct gyre__address *out, struct gyre_loop *l, const struct gyre__host *host)
{
    struct world world = {.be = l->be};
    bool simulated = l->be->ops->lookup != NULL;
    struct gyre__answer *answer = gyre__answer_new(simulated ? ask_world : gyre__ask_system, &world, LISTEN_ADDRESSES,
                                                   host->name, host->family);
    if (answer == NULL)
        return -ENOMEM;
    int err = answer->err;
    if (err == 0) {
        uint32_t at = 0;
        while (at < answer->count && answer->addresses[at].ss_family != AF_INET)
            at++;
        gyre__addr_set(&out->addr, &answer->addresses[at < answer->count ? at : 0], host->port);
    }
    gyre__answer_release(answer);
    return err;
}

int gyre__resolve_now(struct gyre__address *out, struct gyre_loop *const *loops, uint32_t count,
                      const struct gyre__host *host)
{
    struct sockaddr_storage loopback = {.ss_family = AF_UNSPEC};
    *out = (struct gyre__address){.v6_only = host->family == AF_INET6};
    if (strcasecmp(host->name, "localhost") == 0) {
        (void)ask_number(&loopback, 1, host->family == AF_INET6 ? "::1" : "127.0.0.1", host->family, NULL);
        gyre__addr_set(&out->addr, &loopback, host->port);
        return 0;
    }
    for (uint32_t i = 0; i < count; i++)
        if (gyre_loop_is_current(loops[i]))
            return GYRE_EADDRESS; /* a callback must not wait */
    return ask_blocking(out, loops[0], host);
}

/* ---- the user's side ---- */

int gyre_resolve_sized(struct gyre_lookup **out, struct gyre_loop *l, const char *name, gyre_resolved_fn *done,
                       void *user, const struct gyre_resolve_options *options, size_t size_bytes)
{
    struct gyre_resolve_options o;
    struct gyre_lookup *r;
    if (l == NULL || name == NULL || done == NULL)
        return -EINVAL;
    if (gyre__loop_is_forked(l))
        return GYRE_EFORK;
    if (!gyre__loop_allows(l))
        return GYRE_ETHREAD;
    if (l->phase == GYRE_PHASE_ENDING || l->ended)
        return GYRE_ESHUTDOWN;
    int err = gyre__options_copy(&o, sizeof o, options, size_bytes);
    if (err == 0)
        err = gyre__check_not_negative("timeout_ns", o.timeout_ns);
    if (err == 0 && o.family != 0 && o.family != AF_INET && o.family != AF_INET6)
        err = gyre__refuse("family is %d; it must be AF_INET, AF_INET6 or 0", o.family);
    if (err != 0)
        return err;
    const struct gyre__resolve_request request = {
        .name = name, .family = o.family, .fresh = o.fresh, .done = done, .user = user,
        .timeout_ns = o.timeout_ns != 0 ? o.timeout_ns : timeout_default_ns};
    err = gyre__resolve(&r, l, &request);
    if (err == 0 && out != NULL)
        *out = r;
    return err;
}
