/* The pieces that all translated blocks share: entering and leaving, calling handlers, slow memory accesses.
 *
 * In translated code RSP is the host's stack, 16-byte aligned; nothing but a return address into translated code is ever
 * on it, so that a fault may leave by siglongjmp() anywhere. Guest registers are in host registers (place.h); every piece
 * stores them to struct cpu before it calls C, and loads them again after. */
#include "engine/dbt/place.h"

/* All registers to struct cpu; temp is free; RSP is shift bytes below the frame. */
static void thunk_store_all(struct emit *e, unsigned temp, int shift)
{
    for (unsigned n = 0; n < 16; n++) {
        unsigned h = place_of(n);
        if (h == PLACE_MEMORY)
            emit_rm(e, OP_W | 0x8b, h = temp, RSP, shift + place_slot(n));
        emit_cpu(e, OP_W | 0x89, h, CPU_REG(n));
    }
    emit_rm(e, 0x0fb7, temp, RSP, shift + FRAME_FLAGS);
    emit_cpu(e, 0x89, temp, CPU_OFF(aflags));
}

static void thunk_load_all(struct emit *e, unsigned temp, int shift)
{
    for (unsigned n = 0; n < 16; n++) {
        unsigned h = place_of(n) == PLACE_MEMORY ? temp : place_of(n);
        emit_cpu(e, OP_W | 0x8b, h, CPU_REG(n));
        if (h == temp)
            emit_rm(e, OP_W | 0x89, h, RSP, shift + place_slot(n));
    }
    emit_cpu(e, 0x8b, temp, CPU_OFF(aflags));
    emit_rm(e, 0x89, temp, RSP, shift + FRAME_FLAGS);
    emit_cpu(e, OP_W | 0x8b, temp, CPU_OFF(tlb));
    emit_rm(e, OP_W | 0x89, temp, RSP, shift + FRAME_TLB);
}

/* Prologue and epilogue: RBX RBP R12 to R15, the frame, and eight bytes for alignment. */
static void thunk_epilogue(struct emit *e)
{
    EMIT(e, 0x48, 0x83, 0xc4, 8 + FRAME_SIZE, 0x41, 0x5f, 0x41, 0x5e, 0x41, 0x5d, 0x41, 0x5c, 0x5d, 0x5b, 0xc3);
}

static void thunk_call_c(struct emit *e, const void *fn)
{
    emit_mov_imm64(e, RAX, (uintptr_t)fn);
    EMIT(e, 0xff, 0xd0);
}

/* C code runs with the host's MXCSR. done: the guest's is not wanted again. */
static void thunk_fp_off(struct emit *e, bool done)
{
    emit_data(e, 0x80, 7, DATA_OFF(fp), 1); /* cmp byte, 0 */
    emit_byte(e, 0);
    uint8_t *off = emit_jcc(e, 4);
    emit_cpu(e, 0x0fae, 3, CPU_OFF(mxcsr)); /* stmxcsr */
    emit_data(e, 0x0fae, 2, DATA_OFF(host_mxcsr), 0);
    if (done) {
        emit_data(e, 0xc6, 0, DATA_OFF(fp), 1);
        emit_byte(e, 0);
    }
    emit_here(e, off);
}

static void thunk_fp_on_again(struct emit *e)
{
    emit_data(e, 0x80, 7, DATA_OFF(fp), 1);
    emit_byte(e, 0);
    uint8_t *off = emit_jcc(e, 4);
    emit_cpu(e, 0x0fae, 2, CPU_OFF(mxcsr)); /* ldmxcsr */
    emit_here(e, off);
}

static const uint8_t *thunk_fp_enter(struct emit *e)
{
    const uint8_t *at = emit_rx(e, e->p);
    emit_cpu(e, 0x8b, RAX, CPU_OFF(mxcsr));
    EMIT(e, 0xf7, 0xd0, 0xa9, 0x80, 0x1f, 0, 0); /* not eax; test eax, all masks */
    uint8_t *unmasked = emit_jcc(e, 5);
    emit_cpu(e, 0x0fae, 2, CPU_OFF(mxcsr));
    emit_data(e, 0xc6, 0, DATA_OFF(fp), 1);
    emit_byte(e, 1);
    emit_here(e, unmasked);
    emit_byte(e, 0xc3);
    return at;
}

static const uint8_t *thunk_enter(struct emit *e)
{
    emit_align(e, 16);
    const uint8_t *at = emit_rx(e, e->p);
    EMIT(e, 0xf3, 0x0f, 0x1e, 0xfa); /* endbr64 */
    EMIT(e, 0x53, 0x55, 0x41, 0x54, 0x41, 0x55, 0x41, 0x56, 0x41, 0x57, 0x48, 0x83, 0xec, 8 + FRAME_SIZE);
    emit_rr(e, OP_W | 0x89, RDI, RAX);
    thunk_load_all(e, R15, 0);
    EMIT(e, 0xff, 0xe0); /* jmp rax */
    return at;
}

/* r14: offset of RIP from the page. */
static const uint8_t *thunk_leave_to(struct emit *e)
{
    const uint8_t *at = emit_rx(e, e->p);
    emit_data(e, OP_W | 0x03, R14, DATA_OFF(page), 0);
    emit_cpu(e, OP_W | 0x89, R14, CPU_REG(R_RIP));
    thunk_store_all(e, R15, 0);
    thunk_fp_off(e, true);
    thunk_epilogue(e);
    return at;
}

static const uint8_t *thunk_leave(struct emit *e)
{
    const uint8_t *at = emit_rx(e, e->p);
    thunk_store_all(e, R15, 0);
    thunk_fp_off(e, true);
    EMIT(e, 0x31, 0xc0);
    thunk_epilogue(e);
    return at;
}

/* Everything as a handler expects it, then the handler. */
static void thunk_handler(struct emit *e, int shift)
{
    thunk_store_all(e, R15, shift);
    thunk_fp_off(e, true);
    emit_data(e, OP_W | 0x03, RAX, DATA_OFF(page), 0);
    emit_cpu(e, OP_W | 0x89, RAX, CPU_OFF(start_rip));
    emit_rm(e, 0x0fb6, RCX, R14, offsetof(struct insn, len));
    emit_rr(e, OP_W | 0x01, RCX, RAX);
    emit_cpu(e, OP_W | 0x89, RAX, CPU_REG(R_RIP));
    emit_cpu(e, OP_W | 0x89, R14, CPU_OFF(insn));
    emit_data(e, OP_W | 0x8b, RDI, DATA_OFF(cpu), 0);
    emit_rr(e, OP_W | 0x89, R14, RSI);
    emit_rm(e, 0xff, 2, R14, offsetof(struct insn, fn));
}

static const uint8_t *thunk_callout(struct emit *e)
{
    const uint8_t *at = emit_rx(e, e->p);
    EMIT(e, 0x48, 0x83, 0xec, 8);
    thunk_handler(e, 16);
    EMIT(e, 0x48, 0x83, 0xc4, 8);
    emit_data(e, 0x80, 7, DATA_OFF(stale), 1); /* cmp byte, 0 */
    emit_byte(e, 0);
    uint8_t *stale = emit_jcc(e, 5);
    thunk_load_all(e, R15, 8);
    emit_byte(e, 0xc3);
    emit_here(e, stale); /* RIP is what the handler left */
    EMIT(e, 0x48, 0x83, 0xc4, 8, 0x31, 0xc0);
    thunk_epilogue(e);
    return at;
}

static const uint8_t *thunk_callout_end(struct emit *e)
{
    const uint8_t *at = emit_rx(e, e->p);
    thunk_handler(e, 0);
    EMIT(e, 0x31, 0xc0);
    thunk_epilogue(e);
    return at;
}

/* --- slow accesses: as views, so that the instruction itself stays the same --- */

static void thunk_begin_access(struct cpu *cpu, uint32_t access)
{
    const struct interp *it = cpu->engine;
    const struct dbt *t = it->translator_data;
    cpu->start_rip = t->data->page + (access & 0xfff);
    cpu->r[R_RIP] = cpu->start_rip + (access >> 12 & 15);
    cpu->insn = NULL;
}

static void *thunk_open_read(struct cpu *cpu, uint64_t lin, uint32_t access)
{
    thunk_begin_access(cpu, access);
    return (void *)(uintptr_t)mem_view_r(cpu, access >> 16 & 15, lin, access >> 20 & 255);
}

static void *thunk_open_write(struct cpu *cpu, uint64_t lin, uint32_t access)
{
    thunk_begin_access(cpu, access);
    return mem_view_w(cpu, access >> 16 & 15, lin, access >> 20 & 255);
}

static void *thunk_open_rmw(struct cpu *cpu, uint64_t lin, uint32_t access)
{
    thunk_begin_access(cpu, access);
    return mem_view_rmw(cpu, access >> 16 & 15, lin, access >> 20 & 255, access >> 28 & 1);
}

static void thunk_commit_access(struct cpu *cpu) { mem_commit(cpu); }

static const uint8_t *thunk_open(struct emit *e, void *(*fn)(struct cpu *cpu, uint64_t lin, uint32_t access))
{
    const uint8_t *at = emit_rx(e, e->p);
    EMIT(e, 0x48, 0x83, 0xec, 8);
    thunk_store_all(e, R14, 16);
    thunk_fp_off(e, false);
    emit_data(e, OP_W | 0x8b, RDI, DATA_OFF(cpu), 0);
    emit_rr(e, OP_W | 0x89, R15, RSI);
    emit_rr(e, 0x89, RAX, RDX);
    thunk_call_c(e, (const void *)(uintptr_t)fn);
    emit_rr(e, OP_W | 0x89, RAX, R15);
    thunk_load_all(e, RAX, 16);
    thunk_fp_on_again(e);
    EMIT(e, 0x48, 0x83, 0xc4, 8, 0xc3);
    return at;
}

static const uint8_t *thunk_commit(struct emit *e)
{
    const uint8_t *at = emit_rx(e, e->p);
    EMIT(e, 0x48, 0x83, 0xec, 8);
    thunk_store_all(e, R14, 16);
    thunk_fp_off(e, false);
    emit_data(e, OP_W | 0x8b, RDI, DATA_OFF(cpu), 0);
    thunk_call_c(e, (const void *)(uintptr_t)thunk_commit_access);
    thunk_load_all(e, RAX, 16);
    thunk_fp_on_again(e);
    EMIT(e, 0x48, 0x83, 0xc4, 8, 0xc3);
    return at;
}

bool dbt_thunks_make(struct dbt *t)
{
    struct emit e = { .t = t, .p = t->rw + 64, .end = t->rw + DBT_BLOCK_MAX }; /* offset 0 means "none" */
    t->thunk = (struct dbt_thunks){
        .enter = thunk_enter(&e),
        .callout = thunk_callout(&e),
        .callout_end = thunk_callout_end(&e),
        .open = { thunk_open(&e, thunk_open_read), thunk_open(&e, thunk_open_write), thunk_open(&e, thunk_open_rmw) },
        .commit = thunk_commit(&e),
        .fp_enter = thunk_fp_enter(&e),
        .leave = thunk_leave(&e),
        .leave_to = thunk_leave_to(&e),
    };
    t->shared = t->used = (uint32_t)(e.p - t->rw);
    return !e.overflow;
}
