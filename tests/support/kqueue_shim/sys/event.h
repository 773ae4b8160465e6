/* SPDX-License-Identifier: MIT
 * The part of BSD's kqueue interface that src/kqueue_fallback uses, for running it on Linux; see ../README.md. Names,
 * types and values are those of FreeBSD's ABI. */
#ifndef GYRE_KQUEUE_SHIM_SYS_EVENT_H
#define GYRE_KQUEUE_SHIM_SYS_EVENT_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#define EVFILT_READ (-1)
#define EVFILT_WRITE (-2)
#define EVFILT_USER (-11)

#define EV_ADD 0x0001
#define EV_DELETE 0x0002
#define EV_ENABLE 0x0004
#define EV_DISABLE 0x0008
#define EV_CLEAR 0x0020
#define EV_RECEIPT 0x0040
#define EV_ERROR 0x4000
#define EV_EOF 0x8000

#define NOTE_TRIGGER 0x01000000

struct kevent {
    uintptr_t ident;
    short filter;
    unsigned short flags;
    unsigned int fflags;
    int64_t data;
    void *udata;
    uint64_t ext[4];
};

#define EV_SET(kev, ident_, filter_, flags_, fflags_, data_, udata_)                                                   \
    (*(kev) = (struct kevent){.ident = (ident_),                                                                       \
                              .filter = (filter_),                                                                     \
                              .flags = (flags_),                                                                       \
                              .fflags = (fflags_),                                                                     \
                              .data = (data_),                                                                         \
                              .udata = (udata_)})

int kqueue(void);
int kevent(int kq, const struct kevent *changes, int nchanges, struct kevent *events, int nevents,
           const struct timespec *timeout);

/* Not of BSD: from now on take the error of a socket from it to have it for `fflags`, as libkqueue does. Nobody else
 * finds it then. Of the whole process. */
void kqueue_shim_take_errors(bool on);

#endif
