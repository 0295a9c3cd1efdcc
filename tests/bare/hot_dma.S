/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A device overwrites hot code: the virtio entropy source writes an immediate of a function that runs all the time, at two linear
 * addresses, also while it is waited for. Once the used ring says so and a serialising instruction has run, the new code runs.
 * hot_dma.c does it.
 * Manual: SDM 3A 8.1.3, 11.6; virtio 1.2, 2.7, 4.1.
 * qemu device: virtio-rng-pci,disable-legacy=on
 */
#include "rt.h"
#include "hot.h"

TEST64 hot_dma
    call hot_dma
    DONE
