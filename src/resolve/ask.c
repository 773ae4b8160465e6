/* SPDX-License-Identifier: MIT
 * Threads that call getaddrinfo(3).
 *
 * The normal course of a question: it is queued, a thread takes it, asks the system without the lock, and hands the
 * answer to the owner with the lock held. A thread is started when a question finds none idle.
 *
 * What can go wrong: nobody wants the answer any more: a question that has not started is dropped, others are answered
 * all the same, for the cache. The asker is destroyed while threads are inside getaddrinfo(3): they are detached, and
 * the last of them frees what they share. */
#include "ask.h"
#include "base/check.h"
#include "base/mem.h"
#include "base/thread.h"

#include <gyre/base.h>

#include <errno.h>
#include <netdb.h>
#include <string.h>

struct worker {
    pthread_t id;
    struct gyre__asker *asker;
    bool busy; /* inside `ask` */
};

struct gyre__asker {
    pthread_mutex_t lock;
    pthread_cond_t more;
    struct gyre__asker_config config;
    struct gyre__question *first, **last; /* those that wait for a thread, oldest first */
    uint32_t waiting;
    uint32_t workers_count;
    uint32_t idle;
    uint32_t refs; /* its owner, and each thread that was left to itself */
    bool stopping;
    struct worker workers[];
};

static const struct gyre_mem *const mem = &gyre__mem_system;

/* ---- asking the system ---- */

/* The name does not exist, or not with such an address. */
static const int none[] = {
    EAI_NONAME,
#ifdef EAI_NODATA
    EAI_NODATA,
#endif
#ifdef EAI_ADDRFAMILY
    EAI_ADDRFAMILY,
#endif
};

/* The others are EAI_AGAIN and EAI_FAIL. */
static int error_of(int code, int number)
{
    for (size_t i = 0; i < sizeof none / sizeof none[0]; i++)
        if (code == none[i])
            return GYRE_ENONAME;
    if (code == EAI_MEMORY)
        return -ENOMEM;
    return code == EAI_SYSTEM && number > 0 ? -number : GYRE_ENAMESERVER;
}

int gyre__ask_system(struct sockaddr_storage *out, uint32_t max, const char *name, int family, void *user)
{
    const struct addrinfo hints = {.ai_family = family, .ai_socktype = SOCK_STREAM};
    struct addrinfo *list = NULL;
    uint32_t count = 0;
    (void)user;
    errno = 0;
    int code = getaddrinfo(name, NULL, &hints, &list);
    if (code != 0)
        return error_of(code, errno);
    for (const struct addrinfo *at = list; at != NULL && count < max; at = at->ai_next)
        if (at->ai_family == AF_INET || at->ai_family == AF_INET6)
            memcpy(&out[count++], at->ai_addr, at->ai_addrlen);
    freeaddrinfo(list);
    return (int)count;
}

/* ---- answers ---- */

struct gyre__answer *gyre__answer_new(gyre__ask_fn *ask, void *user, uint32_t max, const char *name, int family)
{
    struct gyre__answer *answer = gyre__alloc(mem, sizeof *answer + max * sizeof answer->addresses[0]);
    if (answer == NULL)
        return NULL;
    int count = ask(answer->addresses, max, name, family, user);
    answer->refs = 1;
    answer->err = count < 0 ? count : count == 0 ? GYRE_ENONAME : 0;
    answer->count = count > 0 ? (uint32_t)count : 0;
    struct gyre__answer *fits =
        gyre__resize(mem, answer, sizeof *answer + answer->count * sizeof answer->addresses[0]);
    return fits != NULL ? fits : answer;
}

void gyre__answer_release(struct gyre__answer *answer)
{
    if (answer != NULL && atomic_fetch_sub_explicit(&answer->refs, 1, memory_order_acq_rel) == 1)
        gyre__free(mem, answer);
}

/* ---- threads ---- */

static void free_asker(struct gyre__asker *asker)
{
    (void)pthread_mutex_destroy(&asker->lock);
    (void)pthread_cond_destroy(&asker->more);
    gyre__free(mem, asker);
}

/* Locked, and again when it returns. */
static void answer_next(struct gyre__asker *asker, struct worker *worker)
{
    struct gyre__question *q = asker->first;
    asker->first = q->next;
    if (asker->first == NULL)
        asker->last = &asker->first;
    asker->waiting--;
    q->started = true;
    worker->busy = true;
    gyre__asker_unlock(asker);
    struct gyre__answer *answer =
        gyre__answer_new(asker->config.ask, asker->config.ask_user, asker->config.addresses_max, q->name, q->family);
    gyre__asker_lock(asker);
    worker->busy = false;
    if (!asker->stopping)
        asker->config.answered(q->owner, answer); /* NULL: no memory */
    else
        gyre__answer_release(answer);
    gyre__free(mem, q);
}

static void *thread_main(void *arg)
{
    struct worker *worker = arg;
    struct gyre__asker *asker = worker->asker;
    bool alone = false, last = false;
    gyre__asker_lock(asker);
    while (!asker->stopping) {
        if (asker->first != NULL) {
            answer_next(asker, worker);
            alone = asker->stopping; /* it was busy when the asker was destroyed */
        } else {
            asker->idle++;
            (void)pthread_cond_wait(&asker->more, &asker->lock);
            asker->idle--;
        }
    }
    if (alone)
        last = --asker->refs == 0;
    gyre__asker_unlock(asker);
    if (last)
        free_asker(asker);
    return NULL;
}

/* Locked. Whether a thread will see to what waits. */
static int start_worker(struct gyre__asker *asker)
{
    if (asker->idle > asker->waiting || asker->workers_count == asker->config.threads_max)
        return 0;
    struct worker *worker = &asker->workers[asker->workers_count];
    worker->asker = asker;
    int err = gyre__thread_start(&worker->id, "gyre-names", asker->workers_count, thread_main, worker);
    asker->workers_count += err == 0;
    return asker->workers_count > 0 ? 0 : -EAGAIN; /* with fewer it takes longer */
}

struct gyre__asker *gyre__asker_new(const struct gyre__asker_config *config)
{
    struct gyre__asker *asker = gyre__alloc(mem, sizeof *asker + config->threads_max * sizeof asker->workers[0]);
    if (asker == NULL)
        return NULL;
    asker->config = *config;
    if (asker->config.ask == NULL)
        asker->config.ask = gyre__ask_system;
    asker->last = &asker->first;
    asker->refs = 1;
    (void)pthread_mutex_init(&asker->lock, NULL);
    (void)pthread_cond_init(&asker->more, NULL);
    return asker;
}

void gyre__asker_destroy(struct gyre__asker *asker)
{
    pthread_t idle[GYRE_ASK_THREADS_MAX];
    uint32_t idle_count = 0;
    gyre__asker_lock(asker);
    asker->stopping = true;
    while (asker->first != NULL)
        gyre__ask_drop(asker, asker->first);
    for (uint32_t i = 0; i < asker->workers_count; i++) {
        if (asker->workers[i].busy) {
            asker->refs++;
            (void)pthread_detach(asker->workers[i].id);
        } else {
            idle[idle_count++] = asker->workers[i].id;
        }
    }
    (void)pthread_cond_broadcast(&asker->more);
    gyre__asker_unlock(asker);
    for (uint32_t i = 0; i < idle_count; i++)
        (void)pthread_join(idle[i], NULL);
    gyre__asker_lock(asker);
    bool last = --asker->refs == 0;
    gyre__asker_unlock(asker);
    if (last)
        free_asker(asker);
}

void gyre__asker_lock(struct gyre__asker *asker)
{
    (void)pthread_mutex_lock(&asker->lock);
}

void gyre__asker_unlock(struct gyre__asker *asker)
{
    (void)pthread_mutex_unlock(&asker->lock);
}

/* ---- questions ---- */

struct gyre__question *gyre__ask(struct gyre__asker *asker, void *owner, const char *name, int family, int *err)
{
    size_t len = strlen(name);
    GYRE_CHECK(len < sizeof((struct gyre__question *)NULL)->name);
    struct gyre__question *q = gyre__alloc(mem, sizeof *q);
    *err = q != NULL ? start_worker(asker) : -ENOMEM;
    if (*err != 0) {
        gyre__free(mem, q);
        return NULL;
    }
    q->owner = owner;
    q->family = family;
    memcpy(q->name, name, len + 1);
    *asker->last = q;
    asker->last = &q->next;
    asker->waiting++;
    (void)pthread_cond_signal(&asker->more);
    return q;
}

void gyre__ask_drop(struct gyre__asker *asker, struct gyre__question *q)
{
    struct gyre__question **at = &asker->first;
    GYRE_CHECK(!q->started);
    while (*at != q)
        at = &(*at)->next;
    *at = q->next;
    if (*at == NULL)
        asker->last = at;
    asker->waiting--;
    gyre__free(mem, q);
}
