/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A hot instruction whose bytes lie in two pages, entered directly, by falling into it and by jumps of its first page, while the pages
 * change places: other second pages by INVLPG and by MOV to CR3 with PCIDs, a first page that several second ones follow, an absent or
 * a supervisor's second page, and new bytes in either of them. hot_cross.c does it.
 * Manual: SDM 3A 4.10 (what INVLPG and MOV to CR3 drop), 6.15 (#PF: CR2 is the address that faulted), 11.6 (self-modifying code).
 * timeout: 120
 */
#include "rt.h"
#include "hot.h"

TEST64 hot_cross
    IST PF, 1
    call hot_cross
    DONE
