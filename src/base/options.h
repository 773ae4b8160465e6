/* SPDX-License-Identifier: MIT
 * Copying an options struct whose size is the caller's. */
#ifndef GYRE_BASE_OPTIONS_H
#define GYRE_BASE_OPTIONS_H

#include <stddef.h>

/* Copy an options struct of the caller's size over zeroes. Returns 0 or -E2BIG. */
int gyre__options_copy(void *dst, size_t dst_size, const void *src, size_t src_size);

#endif
