/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Access rights of 2-level (32-bit) paging, exhaustively over U, W, NX (both levels), WP, SMEP, SMAP, AC,
 * by supervisor and user, read, write and fetch: 1536 accesses, no NX; bit I of the error code only with
 * SMEP (rt/perm.inc).
 * Manual: SDM 3A 4.6.1, 4.7.
 */
#include "rt.h"

TEST32 pg_perm_2l
#define LEVELS 2
#include "perm.inc"
