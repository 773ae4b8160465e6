/* SPDX-License-Identifier: MIT
 * Sizes that are products and sums: where one does not fit, nothing smaller is allocated in its place. */
#include "base/mem.h"

#include "env.h"

#include <criterion/criterion.h>

static struct env_mem mem;

Test(mem, what_fits)
{
    const size_t most = PTRDIFF_MAX;
    cr_assert(gyre__fits(0, 0, 0));
    cr_assert(gyre__fits(0, SIZE_MAX, 0));
    cr_assert(gyre__fits(0, most, 1));
    cr_assert(gyre__fits(most, 0, 1));
    cr_assert(gyre__fits(16, (most - 16) / 48, 48));
    cr_assert_not(gyre__fits(0, most + 1, 1));
    cr_assert_not(gyre__fits(1, most, 1));
    cr_assert_not(gyre__fits(most + 1, 0, 1));
    cr_assert_not(gyre__fits(16, (most - 16) / 48 + 1, 48));
    cr_assert_not(gyre__fits(0, SIZE_MAX / 16 + 2, 16), "the product wraps to 16");
    cr_assert_not(gyre__fits(32, SIZE_MAX - 15, 1), "the sum wraps to 16");
}

/* What does not fit is not asked for, and what there was stays. */
Test(mem, no_allocation_of_what_does_not_fit)
{
    env_mem_init(&mem);
    cr_assert_null(gyre__alloc_many(&mem.mem, SIZE_MAX / 16 + 2, 16));
    cr_assert_null(gyre__resize_many(&mem.mem, NULL, 32, SIZE_MAX - 15, 1));
    cr_assert_eq(atomic_load(&mem.blocks), 0);

    uint8_t *some = gyre__alloc_many(&mem.mem, 3, 5);
    cr_assert_not_null(some);
    for (int i = 0; i < 15; i++)
        cr_assert_eq(some[i], 0);
    some[14] = 7;
    cr_assert_null(gyre__resize_many(&mem.mem, some, 0, SIZE_MAX / 16 + 2, 16));
    cr_assert_eq(some[14], 7);
    some = gyre__resize_many(&mem.mem, some, 1, 3, 5);
    cr_assert_not_null(some);
    cr_assert_eq(some[14], 7);
    some[15] = 1;
    gyre__free(&mem.mem, some);
    cr_assert_eq(atomic_load(&mem.blocks), 0);
}

Test(mem, bytes_of_pieces)
{
    struct iovec iov[4] = {{.iov_len = 1}, {.iov_len = PTRDIFF_MAX - 1}, {.iov_len = 0}, {.iov_len = SIZE_MAX}};
    cr_assert_eq(gyre__iov_bytes(iov, 0), 0);
    cr_assert_eq(gyre__iov_bytes(iov, 1), 1);
    cr_assert_eq(gyre__iov_bytes(iov, 3), (size_t)PTRDIFF_MAX);
    cr_assert_eq(gyre__iov_bytes(iov, 4), (size_t)PTRDIFF_MAX, "the sum wraps to PTRDIFF_MAX - 1");
    iov[0].iov_len = iov[1].iov_len = PTRDIFF_MAX;
    iov[2].iov_len = 3;
    cr_assert_eq(gyre__iov_bytes(iov, 3), (size_t)PTRDIFF_MAX, "the sum wraps to 1");
}
