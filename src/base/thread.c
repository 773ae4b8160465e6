/* SPDX-License-Identifier: MIT
 * Threads: making, naming, pinning. */
#include "thread.h"
#include "quota.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* The control group may have less time than the processors it may use. */
static uint32_t within_quota(uint32_t processors)
{
    uint32_t quota = gyre__quota_processors("");
    return quota != 0 && quota < processors ? quota : processors;
}

#ifdef __linux__
/* As many processors as a kernel can be built for. cpu_set_t has 1024, and with fewer than the machine could have
 * sched_getaffinity(2) fails. */
union processors {
    cpu_set_t set;
    uint8_t bits[GYRE_PROCESSORS_MAX / 8];
};

static void set_name(pthread_t thread, const char *name)
{
    (void)pthread_setname_np(thread, name);
}

/* Returns how many there are; 0: not known. */
static uint32_t read_processors(union processors *out)
{
    memset(out, 0, sizeof *out);
    return sched_getaffinity(0, sizeof *out, &out->set) == 0 ? (uint32_t)CPU_COUNT_S(sizeof *out, &out->set) : 0;
}

uint32_t gyre__processors(void)
{
    union processors all;
    uint32_t count = read_processors(&all);
    return count > 0 ? within_quota(count) : 1;
}

uint32_t gyre__processor(uint32_t index)
{
    union processors all;
    uint32_t count = read_processors(&all), cpu = 0;
    if (count == 0)
        return 0;
    for (uint32_t left = index % count;; cpu++)
        if (CPU_ISSET_S(cpu, sizeof all, &all.set) && left-- == 0)
            return cpu;
}

int gyre__thread_pin(pthread_t thread, uint32_t cpu)
{
    union processors one = {.bits = {0}};
    if (cpu >= GYRE_PROCESSORS_MAX)
        return -EINVAL;
    CPU_SET_S(cpu, sizeof one, &one.set);
    return -pthread_setaffinity_np(thread, sizeof one, &one.set);
}

void gyre__affinity_keep(struct gyre__affinity *kept)
{
    union processors all = {.bits = {0}};
    kept->known = pthread_getaffinity_np(pthread_self(), sizeof all, &all.set) == 0;
    memcpy(kept->bits, all.bits, sizeof kept->bits);
}

void gyre__affinity_restore(const struct gyre__affinity *kept)
{
    union processors all;
    if (!kept->known)
        return;
    memcpy(all.bits, kept->bits, sizeof all.bits);
    (void)pthread_setaffinity_np(pthread_self(), sizeof all, &all.set);
}
#else
static void set_name(pthread_t thread, const char *name)
{
    (void)thread;
    (void)name;
}

uint32_t gyre__processors(void)
{
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return within_quota(n > 0 ? (uint32_t)n : 1);
}

uint32_t gyre__processor(uint32_t index)
{
    return index % gyre__processors();
}

int gyre__thread_pin(pthread_t thread, uint32_t cpu)
{
    (void)thread;
    (void)cpu;
    return -EOPNOTSUPP;
}

void gyre__affinity_keep(struct gyre__affinity *kept)
{
    kept->known = false;
}

void gyre__affinity_restore(const struct gyre__affinity *kept)
{
    (void)kept;
}
#endif

/* The number stays whole; the name before it gives way. */
static void name_thread(pthread_t thread, const char *name, uint32_t index)
{
    char number[12], text[GYRE_THREAD_NAME_SIZE];
    int digits = snprintf(number, sizeof number, "-%u", index);
    (void)snprintf(text, sizeof text, "%.*s%s", GYRE_THREAD_NAME_SIZE - 1 - digits, name, number);
    set_name(thread, text);
}

int gyre__thread_start(pthread_t *out, const char *name, uint32_t index, void *(*run)(void *), void *arg)
{
    sigset_t all, before;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    int err = pthread_create(out, NULL, run, arg);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (err == 0)
        name_thread(*out, name, index);
    return -err;
}
