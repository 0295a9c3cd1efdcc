/* SPDX-License-Identifier: Apache-2.0 */
/*
 * REP MOVS and REP STOS over pages, upwards and downwards, of each size, onto themselves and elsewhere, against a loop over elements:
 * what an implementation moves at once must be what it would move one by one. str_runs.c does it.
 * Manual: SDM 2B (REP, MOVS, STOS), 1 7.3.9.
 * timeout: 120
 */
#include "rt.h"

TEST64 str_runs
    call str_runs
    DONE
