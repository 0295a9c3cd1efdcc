/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Access rights of 4-level paging, exhaustively over U, W, NX (both levels), WP, SMEP, SMAP, AC, by
 * supervisor and user, read, write and fetch: 6144 accesses (rt/perm.inc).
 * Manual: SDM 3A 4.6.1, 4.7.
 */
#include "rt.h"

TEST64 pg_perm4
    NEED 0x80000001, edx, 20, "no NX"
#define LEVELS 4
#include "perm.inc"
