/* SPDX-License-Identifier: MIT
 * A resolver: its names by hash, its cache in order of use, and its limits.
 *
 * The normal course of a name: the first request makes its record and asks; further requests join the list; the answer
 * goes to all of them, and the record stays in the cache until its time is over or others need the room. What can go
 * wrong: all requests give up before a thread has the question. Then the question is dropped with the record. */
#include "names.h"
#include "base/clock.h"
#include "base/options.h"
#include "base/refuse.h"
#include "socket/addr.h"

#include <string.h>

enum {
    THREADS_DEFAULT = 4,
    LOOKUPS_DEFAULT = 1024,
    REQUESTS_DEFAULT = 65536,
    CACHE_DEFAULT = 1024,
    ADDRESSES_DEFAULT = 64,
    ADDRESSES_MAX = 1024,
    MANY = 1 << 20,
    BUCKETS_MAX = 4096,
};

static const int64_t ttl_default_ns = INT64_C(30000000000);
static const int64_t negative_ttl_default_ns = INT64_C(5000000000);

bool gyre__name_normalize(char *out, const char *text)
{
    size_t len = strnlen(text, GYRE_HOST_MAX + 2);
    if (!gyre__addr_is_name(text, len))
        return false;
    len -= text[len - 1] == '.';
    for (size_t i = 0; i < len; i++)
        out[i] = text[i] >= 'A' && text[i] <= 'Z' ? (char)(text[i] - 'A' + 'a') : text[i];
    out[len] = '\0';
    return true;
}

/* ---- records ---- */

/* FNV-1a. */
static uint32_t hash_of(const char *text, int family)
{
    uint32_t hash = UINT32_C(2166136261) ^ (uint32_t)family;
    for (; *text != '\0'; text++)
        hash = (hash ^ (uint8_t)*text) * UINT32_C(16777619);
    return hash;
}

static struct gyre__name *lookup(const struct gyre_resolver *res, const char *text, int family)
{
    uint32_t hash = hash_of(text, family);
    struct gyre__name *name = res->buckets[hash & res->bucket_mask];
    while (name != NULL && (name->hash != hash || name->family != family || strcmp(name->text, text) != 0))
        name = name->hash_next;
    return name;
}

static struct gyre__name *add(struct gyre_resolver *res, const char *text, int family)
{
    struct gyre__name *name = gyre__alloc(res->mem, sizeof *name);
    if (name == NULL)
        return NULL;
    name->resolver = res;
    name->family = family;
    name->hash = hash_of(text, family);
    name->waiters_last = &name->waiters;
    memcpy(name->text, text, strlen(text) + 1);
    struct gyre__name **bucket = &res->buckets[name->hash & res->bucket_mask];
    name->hash_next = *bucket;
    *bucket = name;
    return name;
}

/* It has no question, no waiters and no answer. */
static void drop(struct gyre__name *name)
{
    struct gyre_resolver *res = name->resolver;
    struct gyre__name **at = &res->buckets[name->hash & res->bucket_mask];
    while (*at != name)
        at = &(*at)->hash_next;
    *at = name->hash_next;
    gyre__free(res->mem, name);
}

static void link_newest(struct gyre__name *name)
{
    struct gyre_resolver *res = name->resolver;
    name->newer = NULL;
    name->older = res->newest;
    *(res->newest != NULL ? &res->newest->newer : &res->oldest) = name;
    res->newest = name;
}

static void unlink_used(struct gyre__name *name)
{
    struct gyre_resolver *res = name->resolver;
    *(name->newer != NULL ? &name->newer->older : &res->newest) = name->older;
    *(name->older != NULL ? &name->older->newer : &res->oldest) = name->newer;
}

/* Take its answer from it. It goes with the answer unless it is being looked up. */
static void expire(struct gyre__name *name)
{
    unlink_used(name);
    name->resolver->counts.cached--;
    gyre__answer_release(name->answer);
    name->answer = NULL;
    if (name->question == NULL)
        drop(name);
}

/* Takes a reference of its own. The name goes if the answer is not one to keep. */
static void store(struct gyre__name *name, struct gyre__answer *answer, uint64_t now_ns)
{
    struct gyre_resolver *res = name->resolver;
    int64_t ttl_ns = answer->err == 0 ? res->options.ttl_ns : res->options.negative_ttl_ns;
    bool passing = answer->err != 0 && answer->err != GYRE_ENONAME;
    if (passing && name->answer != NULL)
        return; /* what was known is still good */
    if (name->answer != NULL) {
        unlink_used(name);
        res->counts.cached--;
        gyre__answer_release(name->answer);
        name->answer = NULL;
    }
    if (ttl_ns <= 0 || passing) {
        drop(name);
        return;
    }
    name->answer = gyre__answer_share(answer);
    name->until_ns = now_ns + (uint64_t)ttl_ns < now_ns ? UINT64_MAX : now_ns + (uint64_t)ttl_ns;
    link_newest(name);
    res->counts.cached++;
    while (res->counts.cached > res->options.cache_max) {
        expire(res->oldest);
        res->counts.evicted++;
    }
}

struct gyre__answer *gyre__names_find(struct gyre_resolver *res, const char *text, int family, uint64_t now_ns)
{
    struct gyre__name *name = lookup(res, text, family);
    if (name == NULL || name->answer == NULL)
        return NULL;
    if (now_ns >= name->until_ns) {
        expire(name);
        return NULL;
    }
    unlink_used(name);
    link_newest(name);
    return gyre__answer_share(name->answer);
}

void gyre__names_keep(struct gyre_resolver *res, const char *text, int family, struct gyre__answer *answer,
                      uint64_t now_ns)
{
    struct gyre__name *name = lookup(res, text, family);
    if (name == NULL)
        name = add(res, text, family);
    if (name != NULL)
        store(name, answer, now_ns);
}

/* ---- waiting ---- */

static void unlink_waiter(struct gyre_lookup *r)
{
    struct gyre__name *name = r->name;
    *r->prev = r->next;
    *(r->next != NULL ? &r->next->prev : &name->waiters_last) = r->prev;
    r->name = NULL;
    name->resolver->counts.waiting--;
}

static void give_up(struct gyre__name *name)
{
    name->resolver->counts.under_way--;
    name->question = NULL;
    if (name->answer == NULL)
        drop(name);
}

void gyre__names_leave(struct gyre_lookup *r)
{
    struct gyre__name *name = r->name;
    unlink_waiter(r);
    if (name->waiters != NULL || name->question->started)
        return;
    gyre__ask_drop(name->resolver->asker, name->question);
    give_up(name);
}

static int ask_for(struct gyre_resolver *res, struct gyre__name *name)
{
    int err = res->counts.under_way < res->options.lookups_max ? 0 : -EAGAIN;
    if (err == 0)
        name->question = gyre__ask(res->asker, name, name->text, name->family, &err);
    if (err == 0)
        res->counts.under_way++;
    else if (name->answer == NULL)
        drop(name);
    return err;
}

int gyre__names_wait(struct gyre_resolver *res, struct gyre_lookup *r, const char *text, int family)
{
    struct gyre__name *name = lookup(res, text, family);
    if (res->counts.waiting >= res->options.requests_max)
        return -EAGAIN;
    if (name == NULL)
        name = add(res, text, family);
    if (name == NULL)
        return -ENOMEM;
    if (name->question != NULL) {
        res->counts.joined++;
    } else {
        int err = ask_for(res, name);
        if (err != 0)
            return err;
    }
    r->name = name;
    r->next = NULL;
    r->prev = name->waiters_last;
    *name->waiters_last = r;
    name->waiters_last = &r->next;
    res->counts.waiting++;
    return 0;
}

/* On a thread of the asker, locked. */
static void answered(void *owner, struct gyre__answer *answer)
{
    struct gyre__name *name = owner;
    struct gyre_resolver *res = name->resolver;
    res->counts.lookups++;
    res->counts.failures += answer == NULL || answer->err != 0;
    while (name->waiters != NULL) {
        struct gyre_lookup *r = name->waiters;
        unlink_waiter(r);
        r->answer = answer != NULL ? gyre__answer_share(answer) : NULL;
        r->err = answer != NULL ? answer->err : -ENOMEM;
        r->posted = true;
        gyre__tasks_push_always(&r->loop->tasks, &r->task);
        r->loop->be->ops->wake(r->loop->be);
    }
    if (answer == NULL) {
        give_up(name);
        return;
    }
    res->counts.under_way--;
    name->question = NULL;
    store(name, answer, gyre__clock_ns());
    gyre__answer_release(answer);
}

/* ---- making and destroying ---- */

static int complete(struct gyre_resolver_options *o)
{
    if (o->threads == 0)
        o->threads = THREADS_DEFAULT;
    if (o->lookups_max == 0)
        o->lookups_max = LOOKUPS_DEFAULT;
    if (o->requests_max == 0)
        o->requests_max = REQUESTS_DEFAULT;
    if (o->cache_max == 0)
        o->cache_max = CACHE_DEFAULT;
    if (o->addresses_max == 0)
        o->addresses_max = ADDRESSES_DEFAULT;
    if (o->ttl_ns == 0)
        o->ttl_ns = ttl_default_ns;
    if (o->negative_ttl_ns == 0)
        o->negative_ttl_ns = negative_ttl_default_ns;
    if (o->mem == NULL)
        o->mem = &gyre__mem_system;
    const struct gyre__range ranges[] = {
        {"threads", o->threads, 1, GYRE_ASK_THREADS_MAX},
        {"lookups_max", o->lookups_max, 1, MANY},
        {"requests_max", o->requests_max, 1, MANY},
        {"cache_max", o->cache_max, 1, MANY},
        {"addresses_max", o->addresses_max, 1, ADDRESSES_MAX},
    };
    return gyre__check_ranges(ranges, sizeof ranges / sizeof ranges[0]);
}

int gyre__resolver_make(struct gyre_resolver **out, const struct gyre_resolver_options *options, gyre__ask_fn *ask,
                        void *ask_user)
{
    struct gyre_resolver_options o = *options;
    uint32_t buckets = 16;
    int err = complete(&o);
    if (err != 0)
        return err;
    while (buckets < o.cache_max && buckets < BUCKETS_MAX)
        buckets *= 2;
    const struct gyre__asker_config config = {.threads_max = o.threads, .addresses_max = o.addresses_max, .ask = ask,
                                              .ask_user = ask_user, .answered = answered};
    struct gyre_resolver *res = gyre__alloc(o.mem, sizeof *res);
    struct gyre__name **table = gyre__alloc_many(o.mem, buckets, sizeof(struct gyre__name *));
    struct gyre__asker *asker = res != NULL && table != NULL ? gyre__asker_new(&config) : NULL;
    if (asker == NULL) {
        gyre__free(o.mem, table);
        gyre__free(o.mem, res);
        return -ENOMEM;
    }
    gyre__forks_watch();
    *res = (struct gyre_resolver){.magic = GYRE_RESOLVER_MAGIC, .forks = gyre__forks_now(), .mem = o.mem, .options = o,
                                  .asker = asker, .buckets = table, .bucket_mask = buckets - 1};
    *out = res;
    return 0;
}

int gyre_resolver_create_sized(struct gyre_resolver **out, const struct gyre_resolver_options *options,
                               size_t size_bytes)
{
    struct gyre_resolver_options copy;
    int err = out == NULL ? -EINVAL : gyre__options_copy(&copy, sizeof copy, options, size_bytes);
    return err != 0 ? err : gyre__resolver_make(out, &copy, NULL, NULL);
}

void gyre_resolver_destroy(struct gyre_resolver *res)
{
    if (res == NULL || res->forks != gyre__forks_now())
        return;
    GYRE_CHECK(res->magic == GYRE_RESOLVER_MAGIC);
    gyre__asker_destroy(res->asker); /* from here on no thread touches a name */
    GYRE_CHECK(res->counts.waiting == 0); /* its loops must be destroyed before */
    for (uint32_t i = 0; i <= res->bucket_mask; i++)
        while (res->buckets[i] != NULL) {
            struct gyre__name *name = res->buckets[i];
            res->buckets[i] = name->hash_next;
            gyre__answer_release(name->answer);
            gyre__free(res->mem, name);
        }
    gyre__free(res->mem, res->buckets);
    res->magic = 0;
    gyre__free(res->mem, res);
}

void gyre_resolver_flush(struct gyre_resolver *res)
{
    if (res == NULL || res->forks != gyre__forks_now())
        return;
    gyre__asker_lock(res->asker);
    while (res->oldest != NULL)
        expire(res->oldest);
    gyre__asker_unlock(res->asker);
}

void gyre_resolver_stats_sized(struct gyre_resolver_counts *out, size_t size_bytes, struct gyre_resolver *res)
{
    struct gyre_resolver_counts now;
    gyre__asker_lock(res->asker);
    now = res->counts;
    gyre__asker_unlock(res->asker);
    memset(out, 0, size_bytes);
    memcpy(out, &now, size_bytes < sizeof now ? size_bytes : sizeof now);
}
