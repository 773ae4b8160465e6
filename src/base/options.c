/* SPDX-License-Identifier: MIT
 * Copying an options struct whose size is the caller's. */
#include "options.h"

#include <errno.h>
#include <string.h>
#include <stdint.h>

int gyre__options_copy(void *dst, size_t dst_size, const void *src, size_t src_size)
{
    const uint8_t *bytes = src;
    memset(dst, 0, dst_size);
    if (src == NULL)
        return 0;
    for (size_t i = dst_size; i < src_size; i++)
        if (bytes[i] != 0)
            return -E2BIG;
    memcpy(dst, src, src_size < dst_size ? src_size : dst_size);
    return 0;
}
