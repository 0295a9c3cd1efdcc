/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A frame buffer is where its BAR is, and not where it was: hot stores and loads, and page tables in it, while the BAR moves and goes.
 * vga_move.c does it.
 * Manual: PCI Local Bus 3.0, 6.2.5.1.
 * vitro option: --display vga
 * qemu device: VGA
 */
#include "rt.h"
#include "hot.h"

TEST64 vga_move
    call vga_move
    DONE
