/* Host calls that fail on purpose: the program is linked with --wrap for the calls below, so that the code
 * under test runs as it is, on real files; with it for the results of io_uring. The Nth call fails, alone or with all that follow. Short transfers
 * move half of what was asked for. */
#ifndef VITRO_TESTS_DEV_HOSTCALLS_H
#define VITRO_TESTS_DEV_HOSTCALLS_H

#include <stdatomic.h>
#include <stdbool.h>

enum hostcall_fault {
    HOSTCALL_NONE,
    HOSTCALL_EIO,
    HOSTCALL_ENOSPC,
    HOSTCALL_SHORT_READ,
    HOSTCALL_SHORT_WRITE,
    HOSTCALL_FAULTS
};

/* Set it while no I/O runs. */
struct hostcalls {
    enum hostcall_fault fault;
    unsigned at; /* from 1 */
    bool for_ever;
    _Atomic unsigned calls, failed; /* counted since hostcalls_set() */
    _Atomic unsigned straight;      /* writes from guest memory, ever */
    _Atomic unsigned ring;          /* reads by io_uring, ever; the other counts have them, too */
    _Atomic bool cold;              /* the host has nothing in its page cache, as far as it tells */
    _Atomic unsigned failed_data;   /* those of `failed` that were a read, a write or a flush */
};

extern struct hostcalls hostcalls;

void hostcalls_set(enum hostcall_fault fault, unsigned at, bool for_ever);

#endif
