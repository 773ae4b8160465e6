/* SPDX-License-Identifier: MIT
 * How much processor time the control group of this process may use (cgroups(7)). */
#ifndef GYRE_BASE_QUOTA_H
#define GYRE_BASE_QUOTA_H

#include <stdint.h>

/* Returns the smallest quota of the process's control group and of those above it, in whole processors, rounded up; 0
 * if there is none. `root` comes before /proc and /sys: "" but in tests. */
uint32_t gyre__quota_processors(const char *root);

#endif
