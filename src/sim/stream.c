/* SPDX-License-Identifier: MIT
 * The bytes between two sockets.
 *
 * The normal course: put() copies bytes into the ring of the sender's direction, flush() makes them a segment and draws
 * when it arrives; then deliver() lets the receiver see them, as far as its window is open; take() removes them and
 * opens it again. FIN arrives after all segments. Both ends close, and the stream is freed.
 *
 * What can go wrong is a reset. It arrives like a segment, but the bytes still on their way are dropped when it is
 * sent. Whoever it reaches keeps what has arrived, is told once (-ECONNRESET, or -EPIPE if FIN had come), and finds the
 * connection dead after that. This is what Linux does. A reset is sent: by a close that asks for it or leaves bytes
 * unread; by bytes that arrive where nobody is any more, which also drop what that side had still to deliver; and by
 * chance.
 *
 * Unix sockets have no network in between: bytes arrive as they are sent, the sender's window counts what is unread,
 * closing is seen at once, and there is no reset but the error that unread bytes leave behind. */
#include "world.h"

#include <errno.h>
#include <poll.h>
#include <string.h>

enum { BUF_BYTES_QUIET = 65536, BUF_BITS_MIN = 9, BUF_BITS_SPAN = 7 };

static struct sim_pipe *outbound(const struct sim_sock *s)
{
    return &s->stream->pipe[s->side];
}

static struct sim_pipe *inbound(const struct sim_sock *s)
{
    return &s->stream->pipe[!s->side];
}

/* ---- Life ---- */

static uint32_t draw_size(struct gyre_sim *sim, uint32_t asked)
{
    if (asked != 0)
        return asked;
    if (sim->opt.profile == GYRE_SIM_QUIET)
        return BUF_BYTES_QUIET;
    uint64_t base = UINT64_C(1) << (BUF_BITS_MIN + gyre__sim_below(sim, BUF_BITS_SPAN));
    return (uint32_t)(base + gyre__sim_below(sim, base + 1));
}

static bool pipe_init(struct sim_stream *st, uint8_t from)
{
    struct gyre_sim *sim = st->sim;
    struct sim_pipe *p = &st->pipe[from];
    p->stream = st;
    p->from = from;
    p->due.kind = SIM_DUE_PIPE;
    p->reset_ns = SIM_NEVER_NS;
    p->send_max = draw_size(sim, sim->opt.send_buffer_bytes);
    p->recv_max = draw_size(sim, sim->opt.recv_buffer_bytes);
    p->ring_size = st->local ? p->send_max : p->send_max + p->recv_max;
    p->ring = gyre__resize(sim->mem, NULL, p->ring_size);
    return p->ring != NULL;
}

int gyre__sim_stream_create(struct sim_sock *a, struct sim_sock *b)
{
    struct gyre_sim *sim = a->sim;
    if (gyre__sim_due_reserve(sim, 2) != 0)
        return -ENOMEM;
    struct sim_stream *st = gyre__alloc(sim->mem, sizeof *st);
    if (st == NULL) {
        gyre__sim_due_unreserve(sim, 2);
        return -ENOMEM;
    }
    st->sim = sim;
    st->local = a->family == AF_UNIX;
    st->next = sim->streams;
    if (st->next != NULL)
        st->next->prev = st;
    sim->streams = st;
    if (!pipe_init(st, 0) || !pipe_init(st, 1)) {
        gyre__sim_stream_free(st);
        return -ENOMEM;
    }
    st->end[0] = a;
    st->end[1] = b;
    a->stream = b->stream = st;
    a->side = 0;
    b->side = 1;
    return 0;
}

void gyre__sim_stream_free(struct sim_stream *st)
{
    struct gyre_sim *sim = st->sim;
    for (int i = 0; i < 2; i++) {
        gyre__sim_due_clear(sim, &st->pipe[i].due);
        gyre__free(sim->mem, st->pipe[i].ring);
    }
    gyre__sim_due_unreserve(sim, 2);
    if (st->next != NULL)
        st->next->prev = st->prev;
    if (st->prev != NULL)
        st->prev->next = st->next;
    else
        sim->streams = st->next;
    gyre__free(sim->mem, st);
}

/* ---- Arriving ---- */

/* Lose what has not arrived. */
static void drop(struct sim_pipe *p)
{
    p->sent = p->arrived;
    p->mark_count = 0;
    if (!p->fin_arrived)
        p->fin_sent = false;
}

static void set_due(struct sim_pipe *p)
{
    struct gyre_sim *sim = p->stream->sim;
    uint64_t next_ns = SIM_NEVER_NS;
    if (p->reset_ns != SIM_NEVER_NS)
        next_ns = p->reset_ns;
    else if (p->mark_count > 0)
        next_ns = p->marks[p->mark_first].due_ns;
    else if (p->fin_sent && !p->fin_arrived)
        next_ns = p->fin_ns;
    /* What is due and not delivered waits for the receiver's window. */
    if (p->cut && p->reset_ns == SIM_NEVER_NS)
        next_ns = SIM_NEVER_NS;
    if (next_ns == SIM_NEVER_NS || (next_ns <= sim->now_ns && p->reset_ns == SIM_NEVER_NS))
        gyre__sim_due_clear(sim, &p->due);
    else
        gyre__sim_due_set(sim, &p->due, next_ns);
}

static void arrive_reset(struct sim_pipe *p)
{
    struct sim_sock *dst = p->stream->end[!p->from];
    p->reset_ns = SIM_NEVER_NS;
    if (dst == NULL || dst->dead)
        return;
    struct sim_pipe *back = outbound(dst);
    dst->err = p->fin_arrived ? -EPIPE : -ECONNRESET;
    dst->dead = true;
    drop(back);
    set_due(back);
    gyre__sim_ready(dst, SIM_KINDS_OUT | SIM_KIND(GYRE_OP_RECV));
}

/* Send a reset along `p`, as the kernel or the network does. */
static void send_reset(struct sim_pipe *p)
{
    struct gyre_sim *sim = p->stream->sim;
    if (p->cut)
        return;
    drop(p);
    p->cut = true;
    p->reset_ns = sim->now_ns + gyre__sim_delay_ns(sim);
    if (p->reset_ns <= sim->now_ns)
        arrive_reset(p);
    set_due(p);
}

/* Nobody is there any more. Bytes are answered with a reset; FIN is not. */
static void deliver_to_nobody(struct sim_pipe *p)
{
    struct gyre_sim *sim = p->stream->sim;
    if (p->mark_count > 0 && p->marks[p->mark_first].due_ns <= sim->now_ns) {
        drop(p);
        send_reset(&p->stream->pipe[!p->from]);
    }
    if (p->mark_count == 0 && p->fin_sent && p->fin_ns <= sim->now_ns)
        p->fin_arrived = true;
}

static void deliver(struct sim_pipe *p)
{
    struct gyre_sim *sim = p->stream->sim;
    uint64_t window = p->stream->local ? p->sent : p->taken + p->recv_max;
    uint64_t before = p->arrived;
    while (p->mark_count > 0 && p->marks[p->mark_first].due_ns <= sim->now_ns) {
        uint64_t end = p->marks[p->mark_first].end;
        p->arrived = end < window ? end : window;
        if (end > window)
            break;
        p->mark_first = (uint8_t)((p->mark_first + 1) % SIM_MARKS);
        p->mark_count--;
    }
    bool fin = !p->fin_arrived && p->fin_sent && p->mark_count == 0 && p->fin_ns <= sim->now_ns;
    p->fin_arrived |= fin;
    if (p->arrived == before && !fin)
        return;
    sim->activity++;
    gyre__sim_ready(p->stream->end[!p->from], SIM_KIND(GYRE_OP_RECV));
    if (p->stream->end[p->from] != NULL)
        gyre__sim_ready(p->stream->end[p->from], SIM_KINDS_OUT);
}

void gyre__sim_stream_due(struct sim_pipe *p)
{
    if (p->reset_ns <= p->stream->sim->now_ns)
        arrive_reset(p);
    else if (p->stream->end[!p->from] == NULL && !p->cut)
        deliver_to_nobody(p);
    else if (!p->cut)
        deliver(p);
    set_due(p);
}

/* ---- Sending ---- */

uint32_t gyre__sim_stream_room(const struct sim_sock *s)
{
    const struct sim_pipe *p = outbound(s);
    uint64_t used = p->sent - (s->stream->local ? p->taken : p->arrived);
    return used < p->send_max ? p->send_max - (uint32_t)used : 0;
}

void gyre__sim_stream_put(struct sim_sock *s, const void *src, uint32_t len)
{
    struct sim_pipe *p = outbound(s);
    const uint8_t *bytes = src;
    GYRE_CHECK(len <= gyre__sim_stream_room(s) && !s->dead && !s->shut);
    while (len > 0) {
        uint32_t at = (uint32_t)(p->sent % p->ring_size);
        uint32_t run = p->ring_size - at < len ? p->ring_size - at : len;
        memcpy(p->ring + at, bytes, run);
        p->sent += run;
        bytes += run;
        len -= run;
    }
}

static void add_mark(struct sim_pipe *p, uint64_t due_ns)
{
    if (p->mark_count < SIM_MARKS)
        p->mark_count++;
    struct sim_mark *m = &p->marks[(p->mark_first + p->mark_count - 1) % SIM_MARKS];
    *m = (struct sim_mark){.end = p->sent, .due_ns = due_ns};
}

void gyre__sim_stream_flush(struct sim_sock *s)
{
    struct gyre_sim *sim = s->sim;
    struct sim_stream *st = s->stream;
    struct sim_pipe *p = outbound(s);
    uint64_t from = p->mark_count > 0 ? p->marks[(p->mark_first + p->mark_count - 1) % SIM_MARKS].end : p->arrived;
    GYRE_CHECK(p->sent > from);
    sim->activity++;
    sim->counts.segments++;
    sim->counts.bytes += p->sent - from;
    if (!st->local) {
        uint64_t at_ns = sim->now_ns + gyre__sim_delay_ns(sim);
        p->last_ns = at_ns > p->last_ns ? at_ns : p->last_ns;
    }
    add_mark(p, st->local ? sim->now_ns : p->last_ns);
    gyre__sim_stream_due(p);
    if (!st->local && gyre__sim_chance(sim, sim->opt.reset_permille)) {
        sim->counts.resets++;
        send_reset(&st->pipe[0]);
        send_reset(&st->pipe[1]);
    }
}

void gyre__sim_stream_fin(struct sim_sock *s)
{
    struct gyre_sim *sim = s->sim;
    struct sim_pipe *p = outbound(s);
    if (p->fin_sent || s->dead)
        return;
    s->shut = true;
    p->fin_sent = true;
    p->fin_ns = sim->now_ns;
    if (!s->stream->local) {
        uint64_t at_ns = sim->now_ns + gyre__sim_delay_ns(sim);
        p->fin_ns = at_ns > p->last_ns ? at_ns : p->last_ns;
    }
    gyre__sim_ready(s, SIM_KINDS_OUT);
    gyre__sim_stream_due(p);
}

uint64_t gyre__sim_stream_unacked(const struct sim_sock *s)
{
    const struct sim_pipe *p = outbound(s);
    return p->sent - p->arrived;
}

unsigned gyre__sim_stream_poll(const struct sim_sock *s)
{
    bool fin = inbound(s)->fin_arrived;
    unsigned holds = s->err != 0 ? POLLERR : 0;
    if (gyre__sim_stream_inbound(s) > 0 || fin || s->dead || s->err != 0)
        holds |= POLLIN;
    if (s->dead || (fin && s->shut))
        holds |= POLLHUP;
    if (s->dead || s->shut || gyre__sim_stream_room(s) > outbound(s)->send_max / 4)
        holds |= POLLOUT;
    return holds;
}

bool gyre__sim_stream_over(const struct sim_sock *s)
{
    return outbound(s)->fin_arrived && inbound(s)->fin_arrived;
}

/* ---- Receiving ---- */

uint64_t gyre__sim_stream_inbound(const struct sim_sock *s)
{
    const struct sim_pipe *p = inbound(s);
    return p->arrived - p->taken;
}

uint32_t gyre__sim_stream_take(struct sim_sock *s, void *dst, uint32_t len)
{
    struct sim_pipe *p = inbound(s);
    uint8_t *bytes = dst;
    uint64_t here = p->arrived - p->taken;
    uint32_t total = here < len ? (uint32_t)here : len;
    for (uint32_t left = total; left > 0;) {
        uint32_t at = (uint32_t)(p->taken % p->ring_size);
        uint32_t run = p->ring_size - at < left ? p->ring_size - at : left;
        memcpy(bytes, p->ring + at, run);
        memset(p->ring + at, SIM_SCRIBBLE, run);
        p->taken += run;
        bytes += run;
        left -= run;
    }
    s->sim->activity++;
    if (s->stream->local && s->stream->end[!s->side] != NULL)
        gyre__sim_ready(s->stream->end[!s->side], SIM_KINDS_OUT);
    if (!s->dead)
        gyre__sim_stream_due(p);
    return total;
}

int gyre__sim_recv_end(struct sim_sock *s)
{
    if (s->state != SIM_CONNECTED)
        return s->family == AF_UNIX ? -EINVAL : -ENOTCONN;
    bool fin = inbound(s)->fin_arrived;
    if (s->err != 0 && (!fin || s->stream->local)) {
        int err = s->err;
        s->err = 0;
        return err;
    }
    return fin || s->dead ? 0 : -EAGAIN;
}

int gyre__sim_send_err(struct sim_sock *s)
{
    if (s->state != SIM_CONNECTED)
        return s->family == AF_UNIX ? -ENOTCONN : -EPIPE;
    if (!s->shut && !s->dead)
        return 0;
    if (s->err == 0 || s->stream->local)
        return -EPIPE;
    int err = s->err;
    s->err = 0;
    return err;
}

/* ---- Closing ---- */

/* A unix socket's end is gone, and the other knows at once. */
static void leave_local(struct sim_sock *s, struct sim_sock *other, bool embryo)
{
    if (embryo || gyre__sim_stream_inbound(s) > 0)
        other->err = -ECONNRESET;
    other->dead = true;
    gyre__sim_ready(other, SIM_KINDS_OUT | SIM_KIND(GYRE_OP_RECV));
}

void gyre__sim_stream_leave(struct sim_sock *s, bool embryo)
{
    struct sim_stream *st = s->stream;
    struct sim_sock *other = st->end[!s->side];
    st->sim->activity++;
    if (other == NULL) {
        gyre__sim_stream_free(st);
        return;
    }
    if (st->local)
        leave_local(s, other, embryo);
    else if (embryo || s->reset_on_close || gyre__sim_stream_inbound(s) > 0)
        send_reset(outbound(s));
    else
        gyre__sim_stream_fin(s);
    st->end[s->side] = NULL;
    s->stream = NULL;
}
