/* Exceptions that meet exceptions: double faults and shutdown (SDM vol. 3, 6.15, interrupt 8, tables 6-4 and
 * 6-5). vCPU thread; no locks. */
#include "x86/debug.h"
#include "x86/seg.h"

enum except_class { EXCEPT_BENIGN, EXCEPT_CONTRIBUTORY, EXCEPT_PAGE_FAULT, EXCEPT_DOUBLE };

static enum except_class except_class(unsigned vector)
{
    switch (vector) {
    case VEC_DE:
    case VEC_TS:
    case VEC_NP:
    case VEC_SS:
    case VEC_GP:
        return EXCEPT_CONTRIBUTORY;
    case VEC_PF:
        return EXCEPT_PAGE_FAULT;
    case VEC_DF:
        return EXCEPT_DOUBLE;
    default:
        return EXCEPT_BENIGN;
    }
}

/* Do a first and a second exception make a double fault? */
static bool except_doubles(enum except_class first, enum except_class second)
{
    if (first == EXCEPT_CONTRIBUTORY)
        return second == EXCEPT_CONTRIBUTORY;
    return first == EXCEPT_PAGE_FAULT && second != EXCEPT_BENIGN;
}

bool cpu_deliver_event(struct cpu *cpu)
{
    unsigned vector = cpu->event.vector;
    bool has_error = cpu->event.has_error;
    uint32_t error = cpu->event.error;
    if (vector == VEC_PF)
        cpu->cr2 = cpu->event.cr2;
    cpu->event.valid = false;
    if (cpu->delivering.active) {
        enum except_class first = except_class(cpu->delivering.vector), second = except_class(vector);
        if (first == EXCEPT_DOUBLE && second != EXCEPT_BENIGN) {
            cpu->delivering.active = false;
            cpu->activity = CPU_SHUTDOWN;
            return false;
        }
        if (except_doubles(first, second)) {
            vector = VEC_DF;
            has_error = true;
            error = 0;
        }
    }
    if (vector == VEC_DB)
        debug_enter(cpu);
    else
        cpu->pending_db = 0; /* the instruction did not happen, nor did its traps */
    cpu_interrupt(cpu, vector, INT_FAULT, has_error && !cpu_real(cpu), error);
    return true;
}
