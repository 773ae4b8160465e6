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

int gyre__options_copy_nested(void *dst, size_t dst_size, size_t dst_nested, const void *src, size_t src_size,
                              size_t src_nested)
{
    size_t dst_own = dst_size - dst_nested;
    if (src == NULL) {
        memset(dst, 0, dst_size);
        return 0;
    }
    if (src_nested > src_size)
        return -EINVAL;
    size_t src_own = src_size - src_nested;
    int err = gyre__options_copy(dst, dst_own, src, src_own);
    if (err != 0)
        return err;
    return gyre__options_copy((uint8_t *)dst + dst_own, dst_nested, (const uint8_t *)src + src_own, src_nested);
}
