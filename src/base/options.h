/* SPDX-License-Identifier: MIT
 * Copying an options struct whose size is the caller's. */
#ifndef GYRE_BASE_OPTIONS_H
#define GYRE_BASE_OPTIONS_H

#include <stddef.h>

/* Copy an options struct of the caller's size over zeroes. Returns 0, or -E2BIG: a field is set that `dst` does not
 * have. */
int gyre__options_copy(void *dst, size_t dst_size, const void *src, size_t src_size);

/* The same for a struct whose last field is an options struct of another call. Of the sizes, `dst_size` and `src_size`
 * are of the whole, `dst_nested` and `src_nested` of the last field. -EINVAL: `src_nested` is more than `src_size`. */
int gyre__options_copy_nested(void *dst, size_t dst_size, size_t dst_nested, const void *src, size_t src_size,
                              size_t src_nested);

#endif
