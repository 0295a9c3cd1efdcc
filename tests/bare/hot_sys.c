/* SPDX-License-Identifier: Apache-2.0 */
/* Of hot_sys.S: what each must do. */
#include "rt.h"
#include "hot.h"

#define STEPS       30000
#define MSR_TSC_AUX 0xc0000103
#define PT_USER     (TPA | PT_P | PT_W | PT_U)

void do_swapgs(void);
void do_stac(void);
void do_smap(void);
void do_wrfs(void);
void do_wrgs(void);
void do_wrfs32(void);
void do_rdfs(void);
void do_rdgs32(void);
void do_df(void);
void do_sel(void);
void do_fence(void);
void do_tsc(void);
void do_tsc_vec(void);
void do_cr(void);

static struct hot_state s;
static u64 user, smap, fsgs, tsd, wrong; /* wrong: vectors that were not as wanted */

static u64 canonical(u64 v) { return (u64)((long)(v << 16) >> 16); }

static u64 last; /* RDTSC */

static void change(u64 rings)
{
    u64 r = hot_random();
    if (r % 8 == 0)
        user = rings && r & 8;
    if (r % 16 == 1) {
        smap = !rings && r & 32;
        fsgs = (r & 0xc0) != 0;
        tsd = (r & 0x300) == 0;
        u64 v = read_cr4() & ~(u64)(CR4_SMAP | CR4_FSGSBASE | CR4_TSD);
        write_cr4(v | (smap ? CR4_SMAP : 0) | (fsgs ? CR4_FSGSBASE : 0) | (tsd ? CR4_TSD : 0));
    }
}

/* want: the vector, or -1; returns whether it ran. */
static int run(const char *name, void (*fn)(void), u64 want)
{
    s.fn = fn;
    hot_user = user;
    hot_call(&s);
    hot_expect(hot_name(name, "vector"), x_vec, want);
    wrong += x_vec != want;
    if (want == -1UL || x_vec == -1UL)
        return want == x_vec;
    hot_expect(hot_name(name, "flags"), x_flags & 0x8d5, s.flags & 0x8d5);
    if (want == GP)
        hot_expect(hot_name(name, "error code"), x_err, 0);
    return 0;
}

static void swapgs(void)
{
    u64 a = canonical(hot_random() * 0x9e3779b97f4a7c15UL), b = canonical(hot_random());
    wrmsr(MSR_GS_BASE, a);
    wrmsr(MSR_KERNEL_GS_BASE, b);
    int ran = run("swapgs", do_swapgs, user ? GP : -1UL);
    hot_expect("swapgs: GS_BASE", rdmsr(MSR_GS_BASE), ran ? b : a);
    hot_expect("swapgs: KERNEL_GS_BASE", rdmsr(MSR_KERNEL_GS_BASE), ran ? a : b);
}

static void stac(void)
{
    if (run("stac", do_stac, user ? UD : -1UL))
        hot_expect("stac: AC", s.flags & FL_AC, FL_AC);
}

static void smap_loads(void)
{
    static int super; /* the page is the supervisor's: no SMAP for it */
    volatile u64 *word = (volatile u64 *)(TPA + 0x200);
    u64 a = word[0] = hot_random(), b = word[1] = hot_random();
    if (hot_random() % 8 == 0) { /* seldom, so that accesses are direct most times */
        super = hot_random() & 1;
        rt_pt[0] = super ? TPA | PT_P | PT_W : PT_USER;
        invlpg(TVA);
    }
    s.r[RDI] = TVA + 0x200;
    u64 want = user ? UD : smap && !super ? PF : -1UL;
    if (run("smap", do_smap, want)) {
        hot_expect("smap: second load", s.r[RBX], b);
        hot_expect("smap: AC is clear", s.flags & FL_AC, 0);
    }
    if (!user)
        hot_expect("smap: first load", s.r[RAX], a);
    if (want == PF && x_vec == PF) {
        hot_expect("smap: error code", x_err, 1);
        hot_expect("smap: CR2", x_cr2, TVA + 0x208);
        hot_expect("smap: behind CLAC", s.r[RSI], KCS64);
        hot_expect("smap: AC in the frame", x_flags & FL_AC, 0);
    }
}

static u64 any_base(void)
{
    u64 r = hot_random() << 20 ^ hot_random();
    return r % 4 ? canonical(r) : r % 3 ? r : r & 4 ? 1UL << 47 : (1UL << 47) - 1;
}

static void bases(void)
{
    u64 before = wrong, fs = canonical(hot_random() << 9), gs = canonical(hot_random() << 7), a = any_base(), b = any_base();
    wrmsr(MSR_FS_BASE, fs);
    wrmsr(MSR_GS_BASE, gs);
    s.r[RDI] = a;
    s.r[R10] = b;
    s.r[RAX] = s.r[R11] = ~0UL;
    if (run("rdfsbase", do_rdfs, fsgs ? -1UL : UD))
        hot_expect("rdfsbase: value", s.r[R11], fs);
    if (run("rdgsbase r32", do_rdgs32, fsgs ? -1UL : UD))
        hot_expect("rdgsbase r32: value", s.r[RAX], (u32)gs);
    fs = run("wrfsbase", do_wrfs, !fsgs ? UD : a == canonical(a) ? -1UL : GP) ? a : fs;
    gs = run("wrgsbase", do_wrgs, !fsgs ? UD : b == canonical(b) ? -1UL : GP) ? b : gs;
    if (wrong == before) {
        hot_expect("wrfsbase: base", rdmsr(MSR_FS_BASE), fs);
        hot_expect("wrgsbase: base", rdmsr(MSR_GS_BASE), gs);
    }
    if (run("wrfsbase r32", do_wrfs32, fsgs ? -1UL : UD))
        hot_expect("wrfsbase r32: base", rdmsr(MSR_FS_BASE), (u32)a);
}

static void rest(void)
{
    u64 r11 = s.r[R11] = hot_random() << 16, rbx = s.r[RBX] = hot_random();
    u64 ss;
    __asm__ volatile("mov %%ss, %0" : "=r"(ss));
    s.r[R10] = ~0UL;
    s.r[RDI] = TPA + 0x200;
    if (run("selectors", do_sel, -1UL)) {
        hot_expect("mov r32, ss", s.r[RAX], user ? UDS : ss);
        hot_expect("mov r16, cs", s.r[RBX], (rbx & ~0xffffUL) | (user ? UCS64 : KCS64));
        hot_expect("mov r64, fs", s.r[R10] >> 16, 0);
        hot_expect("mov r16, ds", s.r[R11] & ~0xffffUL, r11);
    }
    if (run("fences", do_fence, -1UL))
        hot_expect("fences: value", s.r[RAX], s.r[R11]);
    if (run("std, cld", do_df, -1UL)) {
        hot_expect("std", s.r[RAX] & FL_DF, FL_DF);
        hot_expect("cld", s.r[RBX] & FL_DF, 0);
    }
}

static void control(void)
{
    u64 cr2 = hot_random() * 0x9e3779b97f4a7c15UL, flags = s.flags;
    __asm__ volatile("mov %0, %%cr2" ::"r"(cr2));
    if (!run("mov from cr", do_cr, user ? GP : -1UL))
        return;
    hot_expect("mov from cr0", s.r[RAX], read_cr0());
    hot_expect("mov from cr2", s.r[RBX], cr2);
    hot_expect("mov from cr3", s.r[R10], read_cr3());
    hot_expect("mov from cr4", s.r[R11], read_cr4());
    hot_expect("mov from cr8", s.r[RSI], 0);
    hot_expect("mov from cr: flags", s.flags & 0x8d5, flags & 0x8d5);
}

static void tsc(void)
{
    u64 vec = hot_random() & 1, aux = hot_random() & 0xffffffff, flags = s.flags, *old = (u64 *)s.vec[0], *new = (u64 *)s.vec[2];
    wrmsr(MSR_TSC_AUX, aux);
    for (u64 n = RAX; n <= R11; n++)
        s.r[n] = n == RSP ? s.r[n] : hot_random() * 0x9e3779b97f4a7c15UL;
    u64 r8 = s.r[R8], r9 = s.r[R9], r10 = s.r[R10], r11 = s.r[R11], rbp = s.r[RBP];
    old[0] = hot_random();
    if (!run("rdtsc", vec ? do_tsc_vec : do_tsc, user && tsd ? GP : -1UL))
        return;
    u64 a = s.r[RSI] | s.r[RDI] << 32, b = s.r[RAX] | s.r[RDX] << 32;
    hot_expect("rdtsc: upper halves", (s.r[RAX] | s.r[RDX] | s.r[RSI] | s.r[RDI]) >> 32, 0);
    hot_expect("rdtsc: goes forward", a <= b && last <= a, 1);
    hot_expect("rdtscp: TSC_AUX", s.r[RCX], aux);
    hot_expect("rdtsc: flags", s.flags & 0x8d5, flags & 0x8d5);
    hot_expect("rdtsc: other registers", s.r[R8] == r8 && s.r[R9] == r9 && s.r[R10] == r10 && s.r[R11] == r11 && s.r[RBP] == rbp, 1);
    if (vec)
        hot_expect("rdtsc: vectors", new[0], old[0]);
    last = b;
}

void hot_sys(u64 rings);
void hot_sys(u64 rings)
{
    static void (*const parts[])(void) = { swapgs, stac, smap_loads, bases, rest, tsc, control };
    user = smap = fsgs = tsd = 0;
    write_cr4(read_cr4() & ~(u64)(CR4_SMAP | CR4_FSGSBASE | CR4_TSD));
    rt_pt[0] = PT_USER;
    rt_pd[TVA >> 21] |= PT_U;
    invlpg(TVA);
    for (u64 n = hot_count(STEPS); n; n--) {
        change(rings);
        s.flags = 2 | (n & 1 ? 0x8d5 : 0);
        parts[hot_random() % 7]();
    }
    write_cr4(read_cr4() & ~(u64)(CR4_SMAP | CR4_FSGSBASE | CR4_TSD));
}
