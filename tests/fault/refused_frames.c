/* SPDX-License-Identifier: MIT
 * Frames without memory: written, pushed to on_frame, pulled with gyre_frame_next(), the framer changed on the way.
 *
 * One end sends frames, short ones and such as fill many receive buffers, the other answers each. A write that is
 * refused queued nothing and is made again; a pull that is refused took nothing and is made again; a push that is
 * refused is told to on_bad_frame, or without one ends the connection with -ENOMEM. So the frames that come are always
 * a beginning of those sent, each whole, and all of them unless the connection was closed with -ENOMEM. */
#include "refused.h"

#include <errno.h>
#include <string.h>

enum { FRAMES = 12, LEN_MAX = 6000, TURNS = 40 };

struct talk {
    struct refused *r;
    struct gyre_conn *asking, *answering;
    unsigned asked, came, answered, back;
    bool hungry; /* a pull was refused */
    bool bad;    /* on_bad_frame was called */
    int closed;
    bool without_memory; /* an end was closed with -ENOMEM */
};

static struct talk talk;
static struct gyre_framer framers[2]; /* the same on the wire */

static uint8_t question[FRAMES][LEN_MAX];

static size_t len_of(unsigned i)
{
    static const size_t lens[] = {20, 900, LEN_MAX};
    return lens[i % 3];
}

static void check(struct gyre_slice frame, unsigned i)
{
    cr_assert_lt(i, FRAMES, "%s: a frame too many", talk.r->where);
    cr_assert_eq(frame.len, len_of(i), "%s: frame %u has %zu bytes", talk.r->where, i, frame.len);
    cr_assert_eq(memcmp(frame.data, question[i], frame.len), 0, "%s: wrong bytes in frame %u", talk.r->where, i);
}

static bool is_open(const struct gyre_conn *c)
{
    return c != NULL && gyre_conn_close_reason(c) == GYRE_CLOSE_NONE;
}

/* The other end may have been closed, and then this one's sending fails. */
static bool went(int err)
{
    return talk.closed > 0 && err != -ENOMEM ? err == 0 : refused_note(talk.r, err) == 0;
}

static void answer(void)
{
    while (is_open(talk.answering) && talk.answered < talk.came) {
        unsigned i = talk.answered;
        if (!went(gyre_frame_write(talk.answering, &framers[0], question[i], len_of(i))))
            return;
        talk.answered++;
    }
}

static void ask(void)
{
    while (is_open(talk.asking) && talk.asked < FRAMES) {
        unsigned i = talk.asked;
        const struct iovec iov[2] = {{question[i], 7}, {question[i] + 7, len_of(i) - 7}};
        if (!went(gyre_frame_writev(talk.asking, &framers[0], iov, 2)))
            return;
        talk.asked++;
    }
}

static void on_frame(struct gyre_conn *c, struct gyre_slice frame)
{
    check(frame, talk.came++);
    if (talk.came == FRAMES / 2)
        (void)refused_note(talk.r, gyre_conn_set_framer(c, &framers[1]));
    answer();
}

static void on_bad_frame(struct gyre_conn *c, int err)
{
    cr_assert_neq(refused_note(talk.r, err), 0);
    talk.bad = true;
    cr_assert_eq(gyre_conn_close(c), 0);
}

static void on_bytes(struct gyre_conn *c)
{
    struct gyre_slice frame;
    int err;
    while ((err = gyre_frame_next(&frame, c, &framers[0])) == 0)
        check(frame, talk.back++);
    talk.hungry = err != -EAGAIN;
    if (talk.hungry)
        (void)refused_note(talk.r, err);
}

static void on_open(struct gyre_conn *c)
{
    *(gyre_conn_listener(c) != NULL ? &talk.answering : &talk.asking) = c;
}

static void on_close(struct gyre_conn *c, int err)
{
    *(gyre_conn_listener(c) != NULL ? &talk.answering : &talk.asking) = NULL;
    talk.closed++;
    talk.without_memory |= err == -ENOMEM;
}

static void converse(struct refused *r, unsigned turns)
{
    for (unsigned i = 0; i < turns && talk.closed < 2 && talk.back < FRAMES; i++) {
        ask();
        answer();
        if (talk.hungry && is_open(talk.asking))
            (void)refused_note(r, gyre_conn_wake(talk.asking));
        refused_turn(r);
    }
}

static void connect_and_wait(struct refused *r, const struct gyre_listener *listener)
{
    static const struct gyre_conn_handlers asking = {.on_open = on_open, .on_data = on_bytes, .on_close = on_close};
    talk = (struct talk){.r = r};
    cr_assert_eq(gyre_connect(NULL, r->loop, gyre_listener_address(listener), &asking, NULL), 0);
    refused_until(r, talk.asking != NULL && talk.answering != NULL);
}

static void finish(struct refused *r)
{
    if (talk.asking != NULL)
        (void)gyre_conn_close(talk.asking);
    refused_until(r, talk.closed == 2);
}

static void play(struct refused *r, bool told)
{
    const struct gyre_conn_handlers answering = {
        .on_open = on_open, .on_frame = on_frame, .on_bad_frame = told ? on_bad_frame : NULL, .on_close = on_close};
    struct gyre_listener *listener;
    for (unsigned i = 0; i < 2; i++)
        cr_assert_eq(gyre_framer_init_length(
                         &framers[i], &(struct gyre_length_field){.width = 4, .strip = 4}, 100000 + i), 0);
    for (unsigned i = 0; i < FRAMES; i++)
        env_pattern_fill(question[i], LEN_MAX, i, 0);
    const struct gyre_listener_options options = {.conn = {.framer = &framers[0]}};
    cr_assert_eq(gyre_loop_listen(&listener, r->loop, "tcp://127.0.0.1:0", &answering, &options), 0);
    connect_and_wait(r, listener);
    refused_begin(r);
    converse(r, TURNS);
    refused_over(r);
    converse(r, 20000);
    if (talk.back < FRAMES) {
        cr_assert(talk.closed > 0 && r->struck, "%s: %u of %d frames came back", r->where, talk.back, FRAMES);
        cr_assert(talk.without_memory || talk.bad, "%s: closed, and nobody was told why", r->where);
    }
    finish(r);
    connect_and_wait(r, listener);
    converse(r, 20000);
    cr_assert_eq(talk.back, FRAMES, "%s: there is memory, and %u frames came back", r->where, talk.back);
    finish(r);
    gyre_listener_close(listener);
}

static void play_told(struct refused *r)
{
    play(r, true);
}

static void play_untold(struct refused *r)
{
    play(r, false);
}

BACKEND_TEST(refused_frames, told)
{
    refused_each(p, play_told, 8);
}

BACKEND_TEST(refused_frames, not_told)
{
    refused_each(p, play_untold, 8);
}
