/* SPDX-License-Identifier: MIT
 * The backends that a test is run with, and opening one.
 *
 * A suite takes one of the parameter lists below; Criterion then runs each of its tests once per entry. A backend that
 * cannot be opened here skips its tests and says why, unless GYRE_TEST_REQUIRE (a comma-separated list of names) has
 * it: then they fail. GYRE_TEST_ONLY restricts the lists to the backends it names. GYRE_TEST_OFF names kernel features
 * not to use, where the test does not say so itself. */
#ifndef GYRE_TEST_BACKENDS_H
#define GYRE_TEST_BACKENDS_H

#include "reactor/backends.h"

#include <criterion/criterion.h>
#include <criterion/parameterized.h>

enum transport { TRANSPORT_TCP4, TRANSPORT_TCP6, TRANSPORT_UNIX, TRANSPORT_ABSTRACT };

/* Plain data: Criterion copies it into the test's process. */
struct backend_param {
    char backend[16];
    enum transport transport;
    char transport_name[16];
    char off[24]; /* a kernel feature not to use, or "" */
};

/* Each backend once, over TCP; the same without the simulator; and each backend with each transport. */
struct criterion_test_params backends_each(void);
struct criterion_test_params backends_each_real(void);
struct criterion_test_params backends_each_transport(void);

/* The same, and io_uring once more without multishot receive: datagrams are received there with calls. */
struct criterion_test_params backends_each_dgram(void);
struct criterion_test_params backends_each_real_dgram(void);
struct criterion_test_params backends_each_transport_dgram(void);

/* Before anything is opened: have the kernel feature that the parameter names left out. */
void backends_leave_out(const struct backend_param *p);

/* Open the backend called `name`, or skip or fail the test. `*sim` is the network of the simulator, else NULL; free it
 * with backends_sim_free() after the backend. */
struct gyre__backend *backends_open(const char *name, struct gyre__backend_config cfg, struct gyre_sim **sim);
void backends_sim_free(struct gyre_sim *sim);

/* Whether descriptors and time are the kernel's. */
bool backends_is_real(const char *name);

/* Whether GYRE_TEST_REQUIRE has `what`: a backend, or something else that tests would be skipped for want of. */
bool backends_required(const char *what);

/* Whether the word is one of the comma-separated features of a backend. */
bool backends_names(const char *features, const char *word);
/* Whether receive buffers that were posted can be taken back on this loop; else they go when bytes have come into
 * them. */
bool backends_take_back(const struct gyre_loop *loop);
/* Whether what is forwarded can go through pipes on this loop: if it can and does not, that is a defect. */
bool backends_splices(const struct gyre_loop *loop);

/* A test run once per backend; once per backend that has the kernel's descriptors; once per backend and transport. `p`
 * is its parameter. */
#define BACKEND_TEST(suite, name) BACKENDS_TEST_OF(backends_each, suite, name)
#define REAL_TEST(suite, name) BACKENDS_TEST_OF(backends_each_real, suite, name)
#define TRANSPORT_TEST(suite, name) BACKENDS_TEST_OF(backends_each_transport, suite, name)

/* The same for datagrams. */
#define DGRAM_BACKEND_TEST(suite, name) BACKENDS_TEST_OF(backends_each_dgram, suite, name)
#define DGRAM_REAL_TEST(suite, name) BACKENDS_TEST_OF(backends_each_real_dgram, suite, name)
#define DGRAM_TRANSPORT_TEST(suite, name) BACKENDS_TEST_OF(backends_each_transport_dgram, suite, name)

#define BACKENDS_TEST_OF(list, suite, name)                                                                            \
    ParameterizedTestParameters(suite, name)                                                                           \
    {                                                                                                                  \
        return list();                                                                                                 \
    }                                                                                                                  \
    ParameterizedTest(struct backend_param *p, suite, name, .timeout = 100)

#endif
