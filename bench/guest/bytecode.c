/* An interpreter loop, as language run times have them: a switch through a jump table for each small operation. */
#include "bench.h"

enum op { OP_PUSH, OP_ADD, OP_MUL, OP_LOAD, OP_STORE, OP_LESS, OP_JUMP_IF, OP_XOR, OP_SHIFT, OP_END };

/* i = 0; s = 1; do { s = (s * 31 + i) ^ (s >> 7); i = i + 1; } while (i < 900); */
static const uint16_t bytecode_program[] = {
    OP_PUSH, 0, OP_STORE, 0, OP_PUSH, 1, OP_STORE, 1,                      /* 0 */
    OP_LOAD, 1, OP_PUSH, 31, OP_MUL, OP_LOAD, 0, OP_ADD,                   /* 8 */
    OP_LOAD, 1, OP_SHIFT, 7, OP_XOR, OP_STORE, 1,                          /* 16 */
    OP_LOAD, 0, OP_PUSH, 1, OP_ADD, OP_STORE, 0,                           /* 23 */
    OP_LOAD, 0, OP_PUSH, 900, OP_LESS, OP_JUMP_IF, 8, OP_END,              /* 30 */
};

static __attribute__((noinline)) uint64_t bytecode_run(const uint16_t *code)
{
    uint64_t stack[8], var[4] = { 0 };
    uint64_t *sp = stack;
    const uint16_t *pc = code;

    for (;;) {
        switch (*pc++) {
        case OP_PUSH: *sp++ = *pc++; break;
        case OP_LOAD: *sp++ = var[*pc++ & 3]; break;
        case OP_STORE: var[*pc++ & 3] = *--sp; break;
        case OP_ADD: sp--, sp[-1] += sp[0]; break;
        case OP_MUL: sp--, sp[-1] *= sp[0]; break;
        case OP_XOR: sp--, sp[-1] ^= sp[0]; break;
        case OP_LESS: sp--, sp[-1] = sp[-1] < sp[0]; break;
        case OP_SHIFT: sp[-1] >>= *pc++; break;
        case OP_JUMP_IF: pc = *--sp ? code + *pc : pc + 1; break;
        default: return var[1];
        }
    }
}

uint64_t bytecode_round(void) { return bytecode_run(bytecode_program); }
