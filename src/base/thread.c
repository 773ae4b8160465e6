/* SPDX-License-Identifier: MIT
 * Threads: making, naming, pinning. */
#include "thread.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#ifdef __linux__
_Static_assert(sizeof(cpu_set_t) == sizeof(((struct gyre__affinity *)0)->bits), "a set of processors fits");

static void set_name(pthread_t thread, const char *name)
{
    (void)pthread_setname_np(thread, name);
}

uint32_t gyre__processors(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0)
        return (uint32_t)CPU_COUNT(&set);
    return 1;
}

uint32_t gyre__processor(uint32_t index)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) != 0 || CPU_COUNT(&set) == 0)
        return 0;
    uint32_t left = index % (uint32_t)CPU_COUNT(&set), cpu = 0;
    for (;; cpu++)
        if (CPU_ISSET(cpu, &set) && left-- == 0)
            return cpu;
}

int gyre__thread_pin(pthread_t thread, uint32_t cpu)
{
    cpu_set_t set;
    if (cpu >= CPU_SETSIZE)
        return -EINVAL;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    return -pthread_setaffinity_np(thread, sizeof set, &set);
}

void gyre__affinity_keep(struct gyre__affinity *kept)
{
    cpu_set_t set;
    kept->known = pthread_getaffinity_np(pthread_self(), sizeof set, &set) == 0;
    if (kept->known)
        memcpy(kept->bits, &set, sizeof set);
}

void gyre__affinity_restore(const struct gyre__affinity *kept)
{
    cpu_set_t set;
    if (!kept->known)
        return;
    memcpy(&set, kept->bits, sizeof set);
    (void)pthread_setaffinity_np(pthread_self(), sizeof set, &set);
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
    return n > 0 ? (uint32_t)n : 1;
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
