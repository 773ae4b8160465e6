/* SPDX-License-Identifier: MIT
 * The simulated network, for testing handlers. */
#ifndef GYRE_SIM_H
#define GYRE_SIM_H

#include <gyre/base.h>

#ifdef __cplusplus
extern "C" {
#endif

struct gyre_sim;

#ifdef __cplusplus
}
#endif

#endif
