/* Pages of code that do not simply run by themselves: with instructions that do not trap at user level, and would show the host's CPU instead of the guest's.
 *
 * Thread: any.
 */
#ifndef VITRO_DIRECT_ODD_H
#define VITRO_DIRECT_ODD_H

#include <stdbool.h>
#include <stdint.h>

/* Where in a page, by all appearances, such instructions begin, up to max of them; returns how many: what tells of descriptors and the CPU's number (LAR, LSL, VERR,
 * VERW, SLDT, STR, SGDT, SIDT, SMSW, RDPID, RDTSCP), with cpuid CPUID, with xcr0 XGETBV and XSAVE. Code has no marks where instructions begin, so bytes that look like one are
 * decoded from several places before them. What begins in one page and ends in the next is not found. */
unsigned odd_find(const uint8_t *page, bool cpuid, bool xcr0, uint16_t *at, unsigned max);

#endif
