/* SPDX-License-Identifier: MIT
 * Making framers: what is refused, and that a refusal leaves the framer as it was. */
#include <gyre/frame.h>

#include <criterion/criterion.h>
#include <stdint.h>
#include <string.h>

#define LIMIT ((size_t)1 << 30)

static struct gyre_framer framer;

static void refused(int err)
{
    static const struct gyre_framer untouched;
    cr_assert_eq(err, GYRE_EOPTION, "%s", gyre_err_name(err));
    cr_assert(memcmp(&framer, &untouched, sizeof framer) == 0, "a refused framer was changed");
}

Test(framer, delimiters)
{
    uint8_t bytes[GYRE_DELIMITER_MAX + 1] = {0};
    refused(gyre_framer_init_line(&framer, 4, 0));
    refused(gyre_framer_init_line(&framer, 0, LIMIT + 1));
    refused(gyre_framer_init_line(NULL, 0, 0));
    refused(gyre_framer_init_delimiter(&framer, NULL, 1, 0, 0));
    refused(gyre_framer_init_delimiter(&framer, bytes, 0, 0, 0));
    refused(gyre_framer_init_delimiter(&framer, bytes, sizeof bytes, 0, 0));
    refused(gyre_framer_init_delimiter(&framer, bytes, 5, 0, 4)); /* no frame would fit */
    refused(gyre_framer_init_delimiter(&framer, bytes, 5, GYRE_FRAME_CRLF, 0));
    cr_assert_eq(gyre_framer_init_delimiter(&framer, bytes, GYRE_DELIMITER_MAX, GYRE_FRAME_KEEP, LIMIT), 0);
    cr_assert_eq(gyre_framer_init_line(&framer, GYRE_FRAME_KEEP | GYRE_FRAME_CRLF, 1), 0);
}

Test(framer, fixed)
{
    refused(gyre_framer_init_fixed(&framer, 0));
    refused(gyre_framer_init_fixed(&framer, LIMIT + 1));
    refused(gyre_framer_init_fixed(NULL, 1));
    cr_assert_eq(gyre_framer_init_fixed(&framer, LIMIT), 0);
    cr_assert_eq(framer.frame_max_bytes, LIMIT);
}

Test(framer, length_fields)
{
    static const struct gyre_length_field bad[] = {
        {.width = 0},
        {.width = 5},
        {.width = 6},
        {.width = 7},
        {.width = 9},
        {.width = UINT32_MAX},
        {.width = 4, .offset = GYRE_FRAME_HEAD_MAX - 3},
        {.width = 4, .offset = UINT32_MAX - 3},
        {.width = 4, .strip = GYRE_FRAME_HEAD_MAX + 1},
        {.width = 4, .adjustment = INT64_MAX},
        {.width = 4, .adjustment = INT64_MIN},
    };
    const struct gyre_length_field good = {.width = 4, .offset = GYRE_FRAME_HEAD_MAX - 4, .strip = GYRE_FRAME_HEAD_MAX};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        refused(gyre_framer_init_length(&framer, &bad[i], 0));
    refused(gyre_framer_init_length(&framer, &good, LIMIT + 1));
    refused(gyre_framer_init_length(&framer, &good, GYRE_FRAME_HEAD_MAX - 1));
    refused(gyre_framer_init_length(&framer, NULL, 0));
    refused(gyre_framer_init_length(NULL, &good, 0));
    cr_assert_eq(gyre_framer_init_length(&framer, &good, GYRE_FRAME_HEAD_MAX), 0);
}
