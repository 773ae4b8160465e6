/* SPDX-License-Identifier: MIT
 * A name server for tests: names that the test sets, without a network. With the simulator the names are its own; with
 * the other backends a function stands in for getaddrinfo(3). */
#ifndef GYRE_TEST_API_NAMES_H
#define GYRE_TEST_API_NAMES_H

#include "fixture.h"

#include <pthread.h>

enum { NAMES_MAX = 32, NAMES_ADDRESSES_MAX = 128, HOLE_FILLERS = 4, HOLE_SIM_FILLERS = 128 };

struct names_row {
    const char *name;
    const char *addresses[NAMES_ADDRESSES_MAX];
    size_t count;
    int err;
    bool hangs; /* until names_release(); on the simulator for an hour */
};

struct names {
    struct api *api;
    struct gyre_resolver *resolver;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct names_row rows[NAMES_MAX];
    unsigned row_count;
    unsigned asked; /* how often a lookup began; not on the simulator */
    unsigned inside; /* lookups that hang now */
    bool released;
};

/* Between api_init() and api_open(): the loop gets a resolver with these options (NULL: the defaults). */
void names_init(struct names *n, struct api *api, const struct gyre_resolver_options *options);
/* After api_open(). The strings are borrowed. */
void names_set(struct names *n, const char *name, const char *const *addresses, size_t count, int err);
void names_one(struct names *n, const char *name, const char *address);
void names_hang(struct names *n, const char *name);
/* The lookups that hang, and those to come, find 127.0.0.1; the simulator's end by themselves. */
void names_release(struct names *n);
unsigned names_asked(struct names *n);
/* Lookups that hang now. */
unsigned names_inside(struct names *n);
/* After api_close(). */
void names_fini(struct names *n);
struct gyre_resolver_counts names_stats(struct names *n);
/* All of it around a test that needs nothing else: the loop, quiet on the simulator, with its resolver. */
void names_start(struct api *api, struct names *n, const struct backend_param *p,
                 const struct gyre_resolver_options *options);
void names_stop(struct api *api, struct names *n);

/* An address that does not answer: its backlog is full. */
struct hole {
    struct stage stage;
    int fds[HOLE_FILLERS];
    struct gyre_sim_peer *peers[HOLE_SIM_FILLERS];
};

void hole_open(struct api *api, struct hole *h);
void hole_close(struct hole *h);

#endif
