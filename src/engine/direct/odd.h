/* Pages of code that do not simply run by themselves: with instructions that do not trap at user level, and would show the host's CPU instead of the guest's.
 *
 * Thread: any.
 */
#ifndef VITRO_DIRECT_ODD_H
#define VITRO_DIRECT_ODD_H

#include <stdbool.h>
#include <stdint.h>

#define ODD_MAX 64u /* places in a page that odd_certain() tells of */

/* Where in a page, by all appearances, such instructions begin, up to max of them; returns how many: what tells of descriptors and the CPU's number (LAR, LSL, VERR,
 * VERW, SLDT, STR, SGDT, SIDT, SMSW, RDPID, RDTSCP), with cpuid CPUID, with xcr0 XGETBV and XSAVE. Code has no marks where instructions begin, so bytes that look like one are
 * decoded from several places before them. before: the page of code that lies before it, NULL: none is known. What begins in one page and ends in the next is not found. */
unsigned odd_find(const uint8_t *page, const uint8_t *before, bool cpuid, bool xcr0, uint16_t *at, unsigned max);

/* Whether there is any in the page; what was found in pages with these contents is remembered for a while. */
bool odd_any(const uint8_t *page, const uint8_t *before, bool cpuid, bool xcr0);

/* What is known for certain: user code has executed such an instruction at `off` of a page with these contents, whichever page that was. Some may be forgotten. */
void odd_note(const uint8_t *page, unsigned off);
/* Which of n places that odd_find() gave are certain, a bit each: those that were noted, and those to which these lead, or the instruction at `from`, which is about
 * to be executed, by going on and by direct branches in the page. The others may be data, or part of another instruction. */
uint64_t odd_certain(const uint8_t *page, unsigned from, const uint16_t *at, unsigned n);

#endif
