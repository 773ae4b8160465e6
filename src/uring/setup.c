/* SPDX-License-Identifier: MIT
 * Setting up a ring: the system call, the maps, and their end.
 *
 * liburing could do this, but its set-up functions differ between versions in ways that matter here, and the shared
 * library decides at run time which version that is:
 * - io_uring_queue_mmap() of 2.5 to 2.14 leaves the ring's descriptor out of the struct, that is at 0.
 * - io_uring_queue_init_params() of 2.3 writes an index array even where NO_SQARRAY says that there is none.
 * So the maps are made here, from the offsets that the kernel reports (io_uring_setup(2)), and unmapped here. */
#include "ring.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>
#include <sys/eventfd.h>

enum {
    SQ_DEFAULT = 256,
    CQ_MIN = 4096,
    CQ_MAX = 65536,
    SETUP_ALWAYS = IORING_SETUP_R_DISABLED | IORING_SETUP_SUBMIT_ALL | IORING_SETUP_CLAMP | IORING_SETUP_CQSIZE,
};

/* What the ring must be able to do: the bit, and the words for a person. */
static const struct {
    uint32_t bit;
    const char *missing;
} needed[] = {
    {IORING_FEAT_SINGLE_MMAP, "mapping both queues at once (SINGLE_MMAP, Linux 5.4)"},
    {IORING_FEAT_NODROP, "keeping completions that overflow (NODROP, Linux 5.5)"},
    {IORING_FEAT_SUBMIT_STABLE, "copying arguments at submission (SUBMIT_STABLE, Linux 5.5)"},
    {IORING_FEAT_FAST_POLL, "waiting for sockets without threads (FAST_POLL, Linux 5.7)"},
    {IORING_FEAT_EXT_ARG, "a time-out when waiting (EXT_ARG, Linux 5.11)"},
    {IORING_FEAT_CQE_SKIP, "requests without completion (CQE_SKIP, Linux 5.17)"},
};

/* Leave out what needs something that is left out. */
static uint32_t consistent(uint32_t use)
{
    if (!(use & GYRE_URING_SINGLE_ISSUER)) /* a registered ring is given up by the thread that has it, or not at all */
        use &= ~(uint32_t)(GYRE_URING_DEFER_TASKRUN | GYRE_URING_RING_FD);
    if (!(use & (GYRE_URING_DEFER_TASKRUN | GYRE_URING_COOP_TASKRUN)))
        use &= ~(uint32_t)GYRE_URING_TASKRUN_FLAG;
    return use;
}

static uint32_t setup_flags(uint32_t use)
{
    uint32_t flags = SETUP_ALWAYS;
    if (use & GYRE_URING_NO_SQARRAY)
        flags |= GYRE_IORING_SETUP_NO_SQARRAY;
    if (use & GYRE_URING_SINGLE_ISSUER)
        flags |= IORING_SETUP_SINGLE_ISSUER;
    if (use & GYRE_URING_DEFER_TASKRUN)
        flags |= IORING_SETUP_DEFER_TASKRUN;
    else if (use & GYRE_URING_COOP_TASKRUN)
        flags |= IORING_SETUP_COOP_TASKRUN;
    if (use & GYRE_URING_TASKRUN_FLAG)
        flags |= IORING_SETUP_TASKRUN_FLAG;
    return flags;
}

/* The features without the one that came last to the kernel; the same if there is none left to give up. */
static uint32_t peel(uint32_t use)
{
    static const uint32_t newest_first[] = {GYRE_URING_NO_SQARRAY, GYRE_URING_DEFER_TASKRUN, GYRE_URING_SINGLE_ISSUER,
                                            GYRE_URING_COOP_TASKRUN};
    for (size_t i = 0; i < sizeof newest_first / sizeof newest_first[0]; i++)
        if (use & newest_first[i])
            return consistent(use & ~newest_first[i]);
    return use;
}

static struct io_uring_params params_of(const struct gyre__backend_config *cfg, uint32_t use)
{
    uint64_t cq = cfg->ops_max < CQ_MAX / 4 ? (uint64_t)cfg->ops_max * 4 : CQ_MAX;
    struct io_uring_params p = {.flags = setup_flags(use), .cq_entries = cq > CQ_MIN ? (uint32_t)cq : CQ_MIN};
    if (cfg->cq_entries != 0)
        p.cq_entries = cfg->cq_entries;
    p.sq_entries = cfg->sq_entries != 0 ? cfg->sq_entries : SQ_DEFAULT;
    if (p.sq_entries > p.cq_entries) /* the kernel does not allow it */
        p.sq_entries = p.cq_entries;
    return p;
}

int gyre__uring_fail(struct gyre__uring_failure *failure, const char *what, int err)
{
    *failure = (struct gyre__uring_failure){.what = what, .err = err};
    return err;
}

int gyre__uring_lacks(struct gyre__uring_failure *failure, const char *what)
{
    *failure = (struct gyre__uring_failure){.what = what, .err = -EOPNOTSUPP, .lacks = true};
    return failure->err;
}

/* --- maps --- */

/* A map that a child of fork(2) does not get: what it did there would be done to this process's ring. */
static void *map(int fd, size_t size, off_t offset)
{
    void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, offset);
    if (at == MAP_FAILED)
        return NULL;
    (void)madvise(at, size, MADV_DONTFORK);
    return at;
}

static size_t sqes_size(const struct io_uring_params *p)
{
    return p->sq_entries * sizeof(struct io_uring_sqe);
}

/* The bytes that both queues need. Without an index array its offset is 0, and that queue ends before the other. */
static size_t queues_size(const struct io_uring_params *p)
{
    size_t sq = p->sq_off.array + p->sq_entries * sizeof(unsigned);
    size_t cq = p->cq_off.cqes + p->cq_entries * sizeof(struct io_uring_cqe);
    return sq > cq ? sq : cq;
}

static unsigned *word(void *base, uint32_t offset)
{
    return (unsigned *)(void *)((char *)base + offset);
}

/* Fill in what liburing's inline functions and this room look at. The index array stays as it is made here, entry i
 * naming request i. */
static void point(struct io_uring *ring, const struct io_uring_params *p)
{
    struct io_uring_sq *sq = &ring->sq;
    struct io_uring_cq *cq = &ring->cq;
    sq->khead = word(sq->ring_ptr, p->sq_off.head);
    sq->ktail = word(sq->ring_ptr, p->sq_off.tail);
    sq->kflags = word(sq->ring_ptr, p->sq_off.flags);
    sq->kdropped = word(sq->ring_ptr, p->sq_off.dropped);
    sq->ring_mask = *word(sq->ring_ptr, p->sq_off.ring_mask);
    sq->ring_entries = *word(sq->ring_ptr, p->sq_off.ring_entries);
    cq->ring_ptr = sq->ring_ptr;
    cq->ring_sz = sq->ring_sz;
    cq->khead = word(cq->ring_ptr, p->cq_off.head);
    cq->ktail = word(cq->ring_ptr, p->cq_off.tail);
    cq->koverflow = word(cq->ring_ptr, p->cq_off.overflow);
    cq->ring_mask = *word(cq->ring_ptr, p->cq_off.ring_mask);
    cq->ring_entries = *word(cq->ring_ptr, p->cq_off.ring_entries);
    cq->cqes = (struct io_uring_cqe *)(void *)word(cq->ring_ptr, p->cq_off.cqes);
    if (p->flags & GYRE_IORING_SETUP_NO_SQARRAY)
        return;
    sq->array = word(sq->ring_ptr, p->sq_off.array);
    for (unsigned i = 0; i < sq->ring_entries; i++)
        sq->array[i] = i;
}

/* Map the rings of `fd`, which stays the caller's if that fails. */
static int map_ring(struct io_uring *ring, int fd, const struct io_uring_params *p)
{
    size_t size = queues_size(p);
    void *queues = map(fd, size, IORING_OFF_SQ_RING);
    if (queues == NULL)
        return -errno;
    struct io_uring_sqe *sqes = map(fd, sqes_size(p), (off_t)IORING_OFF_SQES);
    if (sqes == NULL) {
        int err = -errno;
        (void)munmap(queues, size);
        return err;
    }
    *ring = (struct io_uring){.flags = p->flags, .features = p->features, .ring_fd = fd, .enter_ring_fd = fd};
    ring->sq.ring_ptr = queues;
    ring->sq.ring_sz = size;
    ring->sq.sqes = sqes;
    point(ring, p);
    return 0;
}

void gyre__uring_teardown(struct io_uring *ring)
{
    (void)munmap(ring->sq.sqes, ring->sq.ring_entries * sizeof(struct io_uring_sqe));
    (void)munmap(ring->sq.ring_ptr, ring->sq.ring_sz);
    (void)close(ring->ring_fd);
    ring->ring_fd = -1;
}

/* --- setup --- */

/* A ring's descriptor with the best features that the kernel takes, or -errno. */
static int setup_fd(const struct gyre__backend_config *cfg, uint32_t *use, struct io_uring_params *p)
{
    uint32_t next;
    int fd;
    while (*p = params_of(cfg, *use), (fd = io_uring_setup(p->sq_entries, p)) == -EINVAL) {
        next = peel(*use);
        if (next == *use)
            break;
        *use = next;
    }
    return fd;
}

static uint32_t usable(uint32_t use, uint32_t features)
{
    if (use & GYRE_URING_DEFER_TASKRUN)
        use &= ~(uint32_t)GYRE_URING_COOP_TASKRUN;
    if (!(features & GYRE_IORING_FEAT_NO_IOWAIT))
        use &= ~(uint32_t)GYRE_URING_NO_IOWAIT;
    if (!(features & GYRE_IORING_FEAT_MIN_TIMEOUT))
        use &= ~(uint32_t)GYRE_URING_MIN_WAIT;
    if (!(features & GYRE_IORING_FEAT_REG_REG_RING))
        use &= ~(uint32_t)GYRE_URING_RING_FD;
    return use;
}

int gyre__uring_setup(struct io_uring *ring, const struct gyre__backend_config *cfg, uint32_t *use,
                      struct gyre__uring_failure *failure)
{
    struct io_uring_params p;
    uint32_t want = consistent(*use);
    int fd = setup_fd(cfg, &want, &p);
    if (fd == -EINVAL)
        return gyre__uring_fail(failure, "io_uring_setup with R_DISABLED, SUBMIT_ALL, CLAMP and CQSIZE", fd);
    if (fd < 0)
        return gyre__uring_fail(failure, "io_uring_setup", fd);
    for (size_t i = 0; i < sizeof needed / sizeof needed[0]; i++) {
        if (p.features & needed[i].bit)
            continue;
        (void)close(fd);
        return gyre__uring_lacks(failure, needed[i].missing);
    }
    int err = map_ring(ring, fd, &p);
    if (err < 0) {
        (void)close(fd);
        return gyre__uring_fail(failure, "mmap of the ring", err);
    }
    *use = usable(want, p.features);
    return 0;
}

int gyre__uring_open(struct gyre__uring **out, const struct gyre__backend_ops *ops,
                     const struct gyre__backend_config *cfg, uint32_t use, struct gyre__uring_failure *failure)
{
    struct gyre__uring *u = gyre__alloc(cfg->mem, sizeof *u);
    if (u == NULL)
        return gyre__uring_fail(failure, "allocating memory", -ENOMEM);
    u->base.ops = ops;
    u->mem = cfg->mem;
    u->log = cfg->log;
    u->use = use;
    u->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (u->wake_fd < 0)
        (void)gyre__uring_fail(failure, "eventfd", -errno);
    if (u->wake_fd < 0 || gyre__uring_setup(&u->ring, cfg, &u->use, failure) < 0) {
        if (u->wake_fd >= 0)
            (void)close(u->wake_fd);
        gyre__free(cfg->mem, u);
        return failure->err;
    }
    u->enter_fd = u->ring.ring_fd;
    u->wait_flags = IORING_ENTER_GETEVENTS | IORING_ENTER_EXT_ARG;
    if (u->use & GYRE_URING_NO_IOWAIT)
        u->wait_flags |= GYRE_IORING_ENTER_NO_IOWAIT;
    *out = u;
    return 0;
}
