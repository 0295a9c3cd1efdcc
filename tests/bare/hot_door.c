/* SPDX-License-Identifier: Apache-2.0 */
/* Of hot_door.S: what each system call must do. */
#include "rt.h"
#include "hot.h"

#define STEPS   30000
#define FL_ID   0x200000UL
#define FL_IOPL 0x3000UL
#define ARITH   (FL_CF | FL_PF | FL_AF | FL_ZF | FL_SF | FL_OF)
#define ALL_FL  (ARITH | FL_TF | FL_IF | FL_DF | FL_IOPL | FL_NT | FL_AC | FL_ID | 2) /* as SYSRET takes them from R11, less VIF, VIP */
#define USER_FL (ARITH | FL_DF | FL_NT | FL_AC | FL_ID) /* what ring 3 changes */
#define LINUX   (ARITH | FL_TF | FL_IF | FL_DF | FL_IOPL | FL_NT | FL_AC | FL_ID)

extern u8 door_after[], door_other[], door_entry[], door_entry2[], door_syscall[], door_sysret[];
extern volatile u64 u_in, u_where, u_flags, u_cs, u_ss, u_probe, k_where, k_flags, k_rcx, k_r11, k_cs, k_ss, k_loaded, k_back, k_out;
void door_run(void);

static u64 fmask, star, entry, sce, word;

/* Seldom, so that system calls are direct most times; what is usual comes back. */
static void change(void)
{
    u64 r = hot_random(), which = r % 48;
    if (which == 0)
        fmask = r & 0x100000 ? LINUX : (hot_random() << 8 ^ hot_random()) & LINUX;
    else if (which == 1)
        star = (u64)KCS64 << 32 | (u64)(UCS32 & ~3UL) << 48 | (r & 0x300000) << 12 | (r & 0xc00000) << 26;
    else if (which == 2)
        entry = r & 0x100000 ? 2 : 1;
    else if (which == 3)
        sce = (r & 0x700000) != 0;
    else
        return;
    wrmsr(MSR_FMASK, fmask);
    wrmsr(MSR_STAR, star);
    wrmsr(MSR_LSTAR, (u64)(entry == 1 ? door_entry : door_entry2));
    wrmsr(MSR_EFER, (rdmsr(MSR_EFER) & ~(u64)EFER_SCE) | (sce ? EFER_SCE : 0));
}

static void choose(void)
{
    u64 r = hot_random(), odd = r % 16;
    u_in = 2 | (hot_random() & USER_FL & (r & 0x100 ? ~0UL : ARITH));
    k_out = 2 | (odd ? FL_IF : 0) | (hot_random() & (ARITH | FL_DF | FL_ID));
    if (odd == 1)
        k_out |= (hot_random() << 8 ^ hot_random()) & (ALL_FL | FL_RF | FL_VM);
    k_back = (u64)(r & 0x200 ? door_other : door_after);
    if (odd == 2 && (r & 0x1c00) == 0)
        k_back ^= 1UL << 47 | (r & 0x2000 ? 1UL << 62 : 0);
    u_probe = odd == 3;
    word = *(volatile u64 *)(TPA + (TVA & 0xfff)) = hot_random();
}

static void check_entry(u64 before)
{
    hot_expect("entry: which", k_where, entry);
    hot_expect("entry: rcx", k_rcx, (u64)door_after);
    hot_expect("entry: r11", k_r11, before);
    hot_expect("entry: flags", k_flags, (before & ~fmask) | 2);
    hot_expect("entry: cs", k_cs, KCS64);
    hot_expect("entry: ss", k_ss, (KCS64 & ~3) + 8);
    hot_expect("entry: the supervisor's page", k_loaded, word);
}

static void check_return(void)
{
    hot_expect("return: where", u_where, k_back == (u64)door_other ? 2 : 1);
    hot_expect("return: flags", u_flags, (k_out & ALL_FL & ~(u64)FL_TF) | 2);
    hot_expect("return: cs", u_cs, UCS64);
    hot_expect("return: ss", u_ss, UDS);
}

static void step(void)
{
    u64 before = (u_in & ~(u64)FL_IF) | 2, far = k_back >> 47;
    u_where = k_where = 0;
    door_run();
    if (!sce) {
        hot_expect("SCE clear: vector", x_vec, UD);
        hot_expect("SCE clear: RIP", x_rip, (u64)door_syscall);
        return;
    }
    check_entry(before);
    if (far) {
        hot_expect("not canonical: vector", x_vec, GP);
        hot_expect("not canonical: RIP", x_rip, rt_amd ? k_back : (u64)door_sysret);
    } else if (k_out & FL_TF) {
        hot_expect("trap flag: vector", x_vec, 1);
        hot_expect("trap flag: RIP", x_rip, k_back);
    } else if (u_probe) {
        check_return();
        hot_expect("the supervisor's page in ring 3: vector", x_vec, PF);
        hot_expect("its error code", x_err, 5);
    } else {
        check_return();
        hot_expect("vector", x_vec, -1UL);
    }
}

void hot_door(void);
void hot_door(void)
{
    fmask = LINUX;
    star = (u64)KCS64 << 32 | (u64)UCS32 << 48;
    entry = sce = 1;
    rt_pt[0] = TPA | PT_P | PT_W;
    invlpg(TVA);
    wrmsr(MSR_FMASK, fmask);
    wrmsr(MSR_STAR, star);
    wrmsr(MSR_LSTAR, (u64)door_entry);
    wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_SCE);
    for (u64 n = hot_count(STEPS); n; n--) {
        change();
        choose();
        step();
    }
    sce = 1;
    wrmsr(MSR_STAR, (u64)KCS64 << 32 | (u64)UCS32 << 48);
    wrmsr(MSR_EFER, rdmsr(MSR_EFER) | EFER_SCE);
}
