/* The pieces that all translated blocks share: entering and leaving, calling handlers, missed memory accesses.
 *
 * In translated code RSP is the host's stack, 16-byte aligned; nothing but a return address into translated code is ever
 * on it, so that a fault may leave by siglongjmp() anywhere. Guest registers are in host registers (place.h); every piece
 * stores them to struct cpu before it calls C, and loads them again after. So do vector registers, if they are in the host's. */
#include "engine/dbt/place.h"
#include "engine/interp/hostexec.h"
#include "engine/trace.h"

/* The guest's flags from the host's into the frame; RAX is already in struct cpu. */
static void thunk_flags_out(struct emit *e, int shift)
{
    EMIT(e, 0x9f, 0x0f, 0x90, 0xc0); /* lahf; seto al */
    emit_rm(e, OP_66 | 0x89, RAX, RSP, shift + FRAME_FLAGS);
}

/* All registers to struct cpu; RAX is free then; RSP is shift bytes below the frame. host: flags are in the host's. */
static void thunk_store_all(struct emit *e, bool host, int shift)
{
    emit_cpu(e, OP_W | 0x89, RAX, CPU_REG(RAX));
    if (host)
        thunk_flags_out(e, shift);
    emit_rm(e, 0x0fb7, RAX, RSP, shift + FRAME_FLAGS);
    emit_cpu(e, 0x89, RAX, CPU_OFF(aflags));
    for (unsigned n = 1; n < 16; n++) {
        unsigned h = place_of(n);
        if (h == PLACE_MEMORY)
            emit_rm(e, OP_W | 0x8b, h = RAX, RSP, shift + place_slot(n));
        emit_cpu(e, OP_W | 0x89, h, CPU_REG(n));
    }
}

/* And back, flags into both places. */
static void thunk_load_all(struct emit *e, int shift)
{
    for (unsigned n = 1; n < 16; n++) {
        unsigned h = place_of(n) == PLACE_MEMORY ? RAX : place_of(n);
        emit_cpu(e, OP_W | 0x8b, h, CPU_REG(n));
        if (h == RAX)
            emit_rm(e, OP_W | 0x89, h, RSP, shift + place_slot(n));
    }
    emit_data(e, OP_W | 0x8b, TBASE, DATA_OFF(read), 0);
    emit_cpu(e, 0x8b, RAX, CPU_OFF(aflags));
    emit_rm(e, 0x89, RAX, RSP, shift + FRAME_FLAGS);
    EMIT(e, 0x04, 0x7f, 0x9e); /* add al, 127; sahf */
    emit_cpu(e, OP_W | 0x8b, RAX, CPU_REG(RAX));
}

/* Prologue and epilogue: RBX RBP R12 to R15, the frame, and eight bytes for alignment. */
#define THUNK_STACK (8 + FRAME_SIZE)

static void thunk_epilogue(struct emit *e)
{
    EMIT(e, 0x48, 0x81, 0xc4, THUNK_STACK, 0, 0, 0, 0x41, 0x5f, 0x41, 0x5e, 0x41, 0x5d, 0x41, 0x5c, 0x5d, 0x5b, 0xc3);
}
_Static_assert(THUNK_STACK < 256 && THUNK_STACK % 16 == 8, "the immediate above, and alignment");

/* --- vector registers --- */

/* The host's registers hold nothing of the guest's. RAX becomes 0. */
static void thunk_vec_none(struct emit *e)
{
    emit_mov_imm32(e, RAX, 0);
    emit_data(e, 0x89, RAX, DATA_OFF(vec_live), 0);
    for (unsigned k = VEC_SSE; k <= VEC_X87; k <<= 1)
        emit_data(e, OP_W | 0x89, RAX, DATA_OFF(vec_ok) + 8 * k, 0);
}

static void thunk_call_c(struct emit *e, const void *fn)
{
    emit_mov_imm64(e, RAX, (uintptr_t)fn);
    EMIT(e, 0xff, 0xd0);
}

/* Skip what follows unless one of these is live. */
static uint8_t *thunk_unless_live(struct emit *e, unsigned bits)
{
    emit_data(e, 0xf6, 0, DATA_OFF(vec_live), 1); /* test byte */
    emit_byte(e, bits);
    return emit_jcc(e, 4);
}

/* All of FXSAVE's area; that it holds vectors too does no harm. The host's registers are left as the psABI wants them; no exception can be
 * pending. T0, T1 and T2 survive. RSP is aligned. */
static void thunk_x87_out(struct emit *e)
{
    uint8_t *none = thunk_unless_live(e, VEC_X87);
    emit_cpu(e, OP_W | 0x0fae, 0, CPU_OFF(fx)); /* fxsave64 */
    EMIT(e, 0x0f, 0x77);                        /* emms */
    emit_cpu(e, 0x0fb7, RAX, CPU_OFF(fx.fcw));
    EMIT(e, 0x3d, HX_FCW & 255, HX_FCW >> 8, 0, 0); /* cmp eax */
    uint8_t *same = emit_jcc(e, 4);
    emit_data(e, 0xd9, 5, DATA_OFF(host_fcw), 0); /* fldcw */
    emit_here(e, same);
    EMIT(e, 0x51, 0x48, 0x8d, 0x64, 0x24, 0xf8); /* push rcx; lea rsp, [rsp - 8] */
    emit_data(e, OP_W | 0x8b, RDI, DATA_OFF(cpu), 0);
    thunk_call_c(e, (const void *)(uintptr_t)dbt_x87_out);
    EMIT(e, 0x48, 0x8d, 0x64, 0x24, 8, 0x59);
    emit_here(e, none);
}

/* Vector registers by level, since saving what is not there would be wrong and saving less would lose. */
static void thunk_vec_save(struct emit *e)
{
    uint8_t *end[4];
    unsigned n = 0;
    uint8_t *none = thunk_unless_live(e, VEC_ANY);
    for (unsigned level = VEC_AVX512; level; level >>= 1) {
        uint8_t *next = level > 1 ? thunk_unless_live(e, level) : NULL;
        dbt_vec_emit_save(e, level);
        end[n++] = emit_jmp(e);
        if (next)
            emit_here(e, next);
    }
    while (n)
        emit_here(e, end[--n]);
    emit_cpu(e, 0x8b, RAX, CPU_OFF(mxcsr));
    EMIT(e, 0x25, 0xc0, 0xff, 0, 0, 0x3d, HX_MXCSR & 255, HX_MXCSR >> 8, 0, 0); /* without the exceptions seen; cmp eax: LDMXCSR is slow */
    uint8_t *same = emit_jcc(e, 4);
    emit_data(e, 0x0fae, 2, DATA_OFF(host_mxcsr), 0); /* ldmxcsr */
    emit_here(e, same);
    emit_here(e, none);
}

/* What is live goes to struct cpu. Destroys host flags; T0, T1 and T2 survive. RSP is aligned. */
static void thunk_vec_out(struct emit *e, bool done)
{
    emit_data(e, 0x83, 7, DATA_OFF(vec_live), 1); /* cmp dword, 0 */
    emit_byte(e, 0);
    uint8_t *end = emit_jcc(e, 4);
    thunk_vec_save(e);
    thunk_x87_out(e);
    if (done)
        thunk_vec_none(e);
    emit_here(e, end);
}

/* By level, all of it. */
static void thunk_vec_in_full(struct emit *e)
{
    uint8_t *end[4];
    unsigned n = 0;
    for (unsigned level = VEC_AVX512; level; level >>= 1) {
        uint8_t *next = NULL;
        if (level > 1) {
            EMIT(e, 0xa8, level); /* test al */
            next = emit_jcc(e, 4);
        }
        dbt_vec_emit_load(e, level);
        end[n++] = emit_jmp(e);
        if (next)
            emit_here(e, next);
    }
    while (n)
        emit_here(e, end[--n]);
}

/* Load what may be used now, as thunk_vec_allow() says in EAX; x87 first, since FXRSTOR takes vectors along. Mostly the upper parts are zero; the host must know it too, or each SSE
 * instruction has to merge its result with them, and waits for them. */
static void thunk_vec_in(struct emit *e)
{
    EMIT(e, 0xa8, VEC_X87); /* test al */
    uint8_t *no_x87 = emit_jcc(e, 4);
    emit_cpu(e, OP_W | 0x0fae, 1, CPU_OFF(fx)); /* fxrstor64 */
    emit_here(e, no_x87);
    EMIT(e, 0xa8, VEC_ANY);
    uint8_t *end = emit_jcc(e, 4);
    EMIT(e, 0xa8, VEC_LOW);
    uint8_t *full = emit_jcc(e, 4);
    dbt_vec_emit_load_low(e);
    EMIT(e, 0xa8, VEC_AVX512);
    uint8_t *done = emit_jcc(e, 4);
    dbt_vec_emit_load_rest(e);
    uint8_t *low = emit_jmp(e);
    emit_here(e, full);
    thunk_vec_in_full(e);
    emit_here(e, low);
    emit_here(e, done);
    emit_data(e, 0x0fae, 3, DATA_OFF(mxcsr_now), 0); /* stmxcsr */
    emit_data(e, 0x8b, RAX, DATA_OFF(mxcsr_now), 0);
    emit_cpu(e, 0x3b, RAX, CPU_OFF(mxcsr));
    uint8_t *same = emit_jcc(e, 4);
    emit_cpu(e, 0x0fae, 2, CPU_OFF(mxcsr)); /* ldmxcsr */
    emit_here(e, same);
    emit_here(e, end);
}

/* want: VEC_*, of which any vectors stand for all of them. */
static unsigned thunk_vec_want(struct cpu *cpu, unsigned want)
{
    const struct interp *it = cpu->engine;
    struct dbt *t = it->translator_data;
    unsigned v = want & VEC_ANY && (cpu->mxcsr & 0x1f80) == 0x1f80 ? dbt_vec_bits(cpu) : 0;
    if (want & VEC_X87 && dbt_x87_allowed(cpu)) {
        dbt_x87_in(t, cpu);
        v |= VEC_X87;
    }
    t->data->vec_live = v;
    for (unsigned k = VEC_SSE; k <= VEC_X87; k <<= 1)
        t->data->vec_ok[k] = !!(v & k);
    if (v & (VEC_AVX | VEC_AVX512) && dbt_vec_low(cpu))
        v |= VEC_LOW;
    return v;
}

static unsigned thunk_vec_live(const struct cpu *cpu)
{
    const struct interp *it = cpu->engine;
    const struct dbt *t = it->translator_data;
    return t->data->vec_live;
}

static unsigned thunk_vec_allow(struct cpu *cpu) { return thunk_vec_want(cpu, thunk_vec_live(cpu)); }
static unsigned thunk_vec_allow_vec(struct cpu *cpu) { return thunk_vec_want(cpu, thunk_vec_live(cpu) | VEC_ANY); }
static unsigned thunk_vec_allow_x87(struct cpu *cpu) { return thunk_vec_want(cpu, thunk_vec_live(cpu) | VEC_X87); }

/* What was live comes in again, as far as that is still allowed. T1 and T2 survive. RSP is aligned. */
static void thunk_vec_again(struct emit *e)
{
    emit_data(e, 0x83, 7, DATA_OFF(vec_live), 1);
    emit_byte(e, 0);
    uint8_t *off = emit_jcc(e, 4);
    emit_data(e, OP_W | 0x8b, RDI, DATA_OFF(cpu), 0);
    thunk_call_c(e, (const void *)(uintptr_t)thunk_vec_allow);
    thunk_vec_in(e);
    emit_here(e, off);
}

/* The others may be live. */
static const uint8_t *thunk_vec_enter(struct emit *e, bool x87, bool host)
{
    const uint8_t *at = emit_rx(e, e->p);
    EMIT(e, 0x48, 0x8d, 0x64, 0x24, 0xf8); /* lea rsp, [rsp - 8] */
    thunk_store_all(e, host, 16);
    thunk_vec_out(e, false);
    emit_data(e, OP_W | 0x8b, RDI, DATA_OFF(cpu), 0);
    thunk_call_c(e, x87 ? (const void *)(uintptr_t)thunk_vec_allow_x87 : (const void *)(uintptr_t)thunk_vec_allow_vec);
    thunk_vec_in(e);
    thunk_load_all(e, 16);
    EMIT(e, 0x48, 0x8d, 0x64, 0x24, 8, 0xc3);
    return at;
}

/* --- in and out --- */

static const uint8_t *thunk_enter(struct emit *e)
{
    emit_align(e, 16);
    const uint8_t *at = emit_rx(e, e->p);
    EMIT(e, 0xf3, 0x0f, 0x1e, 0xfa); /* endbr64 */
    EMIT(e, 0x53, 0x55, 0x41, 0x54, 0x41, 0x55, 0x41, 0x56, 0x41, 0x57, 0x48, 0x81, 0xec, THUNK_STACK, 0, 0, 0);
    emit_data(e, OP_W | 0x89, RDI, DATA_OFF(target), 0);
    thunk_load_all(e, 0);
    emit_data(e, 0xff, 4, DATA_OFF(target), 0); /* jmp */
    return at;
}

/* RIP = T1, or the page + T1; EAX = T0, or nothing to link. */
static const uint8_t *thunk_leave_to(struct emit *e, bool relative, bool link)
{
    const uint8_t *at = emit_rx(e, e->p);
    thunk_store_all(e, true, 0);
    if (relative)
        emit_data(e, OP_W | 0x03, T1, DATA_OFF(page), 0);
    if (!link)
        emit_mov_imm32(e, T0, LEFT_TARGET);
    emit_cpu(e, OP_W | 0x89, T1, CPU_REG(R_RIP));
    thunk_vec_out(e, true);
    emit_rr(e, 0x89, T0, RAX);
    thunk_epilogue(e);
    return at;
}

static const uint8_t *thunk_leave(struct emit *e)
{
    const uint8_t *at = emit_rx(e, e->p);
    thunk_store_all(e, true, 0);
    thunk_vec_out(e, true);
    emit_mov_imm32(e, RAX, LEFT_ACCESS);
    thunk_epilogue(e);
    return at;
}

/* --- calls --- */

/* The handler of instruction T2, whose offset in the page is T0. done: the block ends here; RAX says where to go on then. */
static void thunk_handler(struct emit *e, bool host, int shift, bool done)
{
    thunk_store_all(e, host, shift);
    thunk_vec_out(e, done);
    emit_rr(e, 0x89, T0, RAX);
    emit_data(e, OP_W | 0x03, RAX, DATA_OFF(page), 0);
    emit_cpu(e, OP_W | 0x89, RAX, CPU_OFF(start_rip));
    emit_rm(e, 0x0fb6, RCX, T2, offsetof(struct insn, len));
    emit_rr(e, OP_W | 0x01, RCX, RAX);
    emit_cpu(e, OP_W | 0x89, RAX, CPU_REG(R_RIP));
    emit_cpu(e, OP_W | 0x89, T2, CPU_OFF(insn));
    emit_data(e, OP_W | 0x8b, RDI, DATA_OFF(cpu), 0);
    emit_rr(e, OP_W | 0x89, T2, RSI);
    if (done)
        thunk_call_c(e, (const void *)(uintptr_t)dbt_handler_end);
    else if (e->t->trace & (ENGINE_TRACE_EXITS | ENGINE_TRACE_STATS))
        thunk_call_c(e, (const void *)(uintptr_t)dbt_trace_handler);
    else
        emit_rm(e, 0xff, 2, T2, offsetof(struct insn, fn));
}

/* If code went, leave with RIP as the handler left it; shift: as above. */
static void thunk_stale(struct emit *e, int shift)
{
    emit_data(e, 0x80, 7, DATA_OFF(stale), 1); /* cmp byte, 0 */
    emit_byte(e, 0);
    uint8_t *go = emit_jcc(e, 4);
    EMIT(e, 0x48, 0x83, 0xc4, shift);
    thunk_vec_none(e); /* they were stored */
    emit_mov_imm32(e, RAX, LEFT_STALE);
    thunk_epilogue(e);
    emit_here(e, go);
}

static const uint8_t *thunk_callout(struct emit *e, bool host)
{
    const uint8_t *at = emit_rx(e, e->p);
    EMIT(e, 0x48, 0x8d, 0x64, 0x24, 0xf8);
    thunk_handler(e, host, 16, false);
    thunk_stale(e, 16);
    thunk_vec_again(e);
    thunk_load_all(e, 16);
    EMIT(e, 0x48, 0x8d, 0x64, 0x24, 8, 0xc3);
    return at;
}

static const uint8_t *thunk_callout_end(struct emit *e, bool host)
{
    const uint8_t *at = emit_rx(e, e->p);
    thunk_handler(e, host, 0, true);
    EMIT(e, 0x48, 0x85, 0xc0); /* test rax */
    uint8_t *leave = emit_jcc(e, 4);
    emit_data(e, OP_W | 0x89, RAX, DATA_OFF(target), 0);
    thunk_load_all(e, 0);
    emit_cpu(e, OP_W | 0x8b, T1, CPU_REG(R_RIP));
    emit_data(e, 0xff, 4, DATA_OFF(target), 0); /* jmp */
    emit_here(e, leave);
    emit_mov_imm32(e, RAX, LEFT_HANDLER);
    thunk_epilogue(e);
    return at;
}

/* What C may destroy is saved, but for RAX, RDX, T0 and vector registers. */
static const uint8_t *thunk_tsc(struct emit *e)
{
    const uint8_t *at = emit_rx(e, e->p);
    EMIT(e, 0x9f, 0x0f, 0x90, 0xc0); /* lahf; seto al */
    emit_rr(e, 0x89, RAX, T2);
    EMIT(e, 0x56, 0x57, 0x41, 0x50, 0x41, 0x51, 0x41, 0x52, 0x41, 0x53); /* push RSI, RDI, R8 to R11 */
    EMIT(e, 0x48, 0x8d, 0x64, 0x24, 0xf8);
    emit_data(e, OP_W | 0x8b, RDI, DATA_OFF(cpu), 0);
    thunk_call_c(e, (const void *)(uintptr_t)cpu_tsc);
    EMIT(e, 0x48, 0x8d, 0x64, 0x24, 8);
    EMIT(e, 0x41, 0x5b, 0x41, 0x5a, 0x41, 0x59, 0x41, 0x58, 0x5f, 0x5e);
    emit_rr(e, OP_W | 0x89, RAX, RDX);
    EMIT(e, 0x48, 0xc1, 0xea, 0x20); /* shr rdx, 32 */
    emit_rr(e, 0x89, RAX, T1);
    emit_rr(e, 0x89, T2, RAX);
    EMIT(e, 0x04, 0x7f, 0x9e); /* add al, 127; sahf */
    emit_rr(e, 0x89, T1, RAX);
    emit_byte(e, 0xc3);
    return at;
}

/* --- accesses that miss --- */

/* Fill the table and return the addend, or do the instruction and return 0. */
static uint64_t thunk_fill(struct dbt *t, struct cpu *cpu, uint64_t lin, uint32_t access, const struct insn *i)
{
    unsigned ways = access >> 28, size = access >> 20 & 255;
    bool handler = ways & MEM_QUIET || (ways & MEM_ALIGNED && lin & (size - 1)); /* alignment is checked first */
    uint64_t addend = handler ? 0 : flat_fill(&t->flat, lin, size, ways & (MEM_READ | MEM_WRITE));
    if (unlikely(t->trace))
        dbt_trace_miss(t, cpu, i, lin, access, addend);
    if (addend)
        return addend;
    t->stats->slow++;
    i->fn(cpu, i);
    if (ways & MEM_QUIET) /* direct the next time */
        flat_peek(&t->flat, lin, ways & (MEM_READ | MEM_WRITE));
    return 0;
}

/* The frame may hold addresses that groups have found before. If any of them may be wrong now, code is left here. */
static uint64_t thunk_access(struct cpu *cpu, uint64_t lin, uint32_t access, const struct insn *i)
{
    const struct interp *it = cpu->engine;
    struct dbt *t = it->translator_data;
    uint64_t addend;
    t->flat.lost = false;
    cpu->start_rip = t->data->page + (access & 0xfff);
    cpu->r[R_RIP] = cpu->start_rip + i->len;
    cpu->insn = i;
    if (access & DBT_ACCESS_GROUP) {
        addend = flat_peek(&t->flat, lin, access >> 28);
        cpu->r[R_RIP] = cpu->start_rip; /* nothing was done */
    } else {
        t->stats->misses++;
        addend = thunk_fill(t, cpu, lin, access, i);
        if (addend)
            cpu->r[R_RIP] = cpu->start_rip;
    }
    if (unlikely(t->flat.lost))
        t->data->stale = 1;
    return addend;
}

static const uint8_t *thunk_miss(struct emit *e, bool host)
{
    const uint8_t *at = emit_rx(e, e->p);
    EMIT(e, 0x48, 0x8d, 0x64, 0x24, 0xf8);
    thunk_store_all(e, host, 16);
    thunk_vec_out(e, false);
    emit_data(e, OP_W | 0x8b, RDI, DATA_OFF(cpu), 0);
    emit_rr(e, OP_W | 0x89, T1, RSI);
    emit_rr(e, 0x89, T0, RDX);
    emit_rr(e, OP_W | 0x89, T2, RCX);
    thunk_call_c(e, (const void *)(uintptr_t)thunk_access);
    emit_rr(e, OP_W | 0x89, RAX, T2);
    thunk_stale(e, 16);
    thunk_vec_again(e);
    thunk_load_all(e, 16);
    EMIT(e, 0x48, 0x8d, 0x64, 0x24, 8);
    emit_rr(e, OP_W | 0x89, T2, T0);
    EMIT(e, 0xe3, 1, 0xc3);                        /* jrcxz over the ret */
    EMIT(e, 0x41, 0x5e, 0x4d, 0x8d, 0x76, 5);      /* pop r14; lea r14, [r14 + 5] */
    EMIT(e, 0x41, 0xff, 0xe6);                     /* jmp r14 */
    return at;
}

/* T0 is to be zero for a canonical address in T1: it goes on behind this. Else to the miss: a non-canonical address may find an entry
 * in the table, with which the access faults, and comes here again. */
static void thunk_canonical(struct emit *e, const uint8_t *miss, int save)
{
    place_pext(e, T0, T1, DATA_OFF(mask_high));
    EMIT(e, 0xe3, 19);                                        /* jrcxz: the lower half */
    EMIT(e, 0x48, 0x8d, 0x89, 0x01, 0x00, 0xfe, 0xff);        /* lea rcx, [rcx - 0x1ffff] */
    EMIT(e, 0xe3, 10);                                        /* jrcxz: the upper one */
    uint8_t *from = e->p;
    emit_rm(e, OP_W | 0x8b, T0, RSP, save);
    emit_jmp_rx(e, miss);
    e->overflow |= e->p - from != 10;
}

/* An access by itself, whose own check said no. T1 and T2 are for the miss. */
static const uint8_t *thunk_single(struct emit *e, const uint8_t *miss, bool write, unsigned log)
{
    const uint8_t *at = emit_rx(e, e->p);
    const int save = 8 + FRAME_SAVE;
    unsigned table = TBASE;
    emit_rm(e, OP_W | 0x89, T0, RSP, save);
    thunk_canonical(e, miss, save);
    if (log) {
        emit_rm(e, OP_W | 0x8d, T0, T1, (1 << log) - 1);
        place_above(e, T0, T0, log);
        EMIT(e, 0xe3, 2, 0xeb, 21); /* jrcxz over the jmp over what follows */
        uint8_t *from = e->p;
        place_pext(e, T0, T1, DATA_OFF(mask_low) + 8 * log);
        EMIT(e, 0xe3, 10); /* jrcxz: the beginning of a page */
        emit_rm(e, OP_W | 0x8b, T0, RSP, save);
        emit_jmp_rx(e, miss);
        e->overflow |= e->p - from != 21;
    }
    place_page(e, T0, T1);
    if (write) {
        emit_rm(e, OP_W | 0x89, T2, RSP, 8 + FRAME_SAVE2);
        emit_rm(e, OP_W | 0x8b, table = T2, TBASE, HEAD_OFF(write));
    }
    emit_rsib(e, OP_W | 0x8b, T0, table, T0, 3, 0);
    if (write)
        emit_rm(e, OP_W | 0x8b, T2, RSP, 8 + FRAME_SAVE2);
    EMIT(e, 0xe3, 1, 0xc3); /* jrcxz over the ret */
    emit_rm(e, OP_W | 0x8b, T0, RSP, save);
    emit_jmp_rx(e, miss);
    return at;
}

bool dbt_thunks_make(struct dbt *t)
{
    struct emit e = { .t = t, .p = t->rw + DBT_SITE_MIN, .end = t->rw + DBT_CODE };
    struct dbt_thunks *k = &t->thunk;
    k->enter = thunk_enter(&e);
    k->tsc = thunk_tsc(&e);
    k->leave = thunk_leave(&e);
    k->leave_to = thunk_leave_to(&e, true, true);
    k->leave_at = thunk_leave_to(&e, false, false);
    k->leave_far = thunk_leave_to(&e, false, true);
    k->far = branch_thunk_far(&e, k->leave_far);
    for (unsigned host = 0; host < 2; host++) {
        k->callout[host] = thunk_callout(&e, host);
        k->callout_end[host] = thunk_callout_end(&e, host);
        k->miss[host] = thunk_miss(&e, host);
        for (unsigned x87 = 0; x87 < 2; x87++)
            k->vec_enter[x87][host] = thunk_vec_enter(&e, x87, host);
        for (unsigned n = 0; n < 14; n++)
            k->single[host][n / 7][n % 7] = thunk_single(&e, k->miss[host], n / 7, n % 7);
    }
    t->shared = t->used = (uint32_t)(e.p - t->rw);
    t->cold = DBT_HOT;
    return !e.overflow;
}
