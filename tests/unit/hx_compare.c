/* See hx_fake.h: two CPU states, all that an instruction can change. Differences are printed. */
#include <stdio.h>

#include "hx_fake.h"

static bool same_vectors(const struct cpu *a, const struct cpu *b, const char **what)
{
    for (unsigned n = 0; n < 32; n++)
        if (memcmp(a->zmm[n], b->zmm[n], 64)) {
            *what = "vector register";
            fprintf(stderr, "zmm%u:\n", n);
            for (unsigned h = 0; h < 2; h++) {
                for (unsigned k = 64; k-- > 0;)
                    fprintf(stderr, "%02x%s", (h ? b : a)->zmm[n][k], k % 8 ? "" : " ");
                fprintf(stderr, "\n");
            }
            return false;
        }
    *what = "mask register";
    return memcmp(a->k, b->k, sizeof(a->k)) == 0;
}

static bool same_x87(const struct x87_image *a, const struct x87_image *b, const char **what)
{
    *what = "x87 control, status or tags";
    if (a->fcw != b->fcw || a->fsw != b->fsw || a->ftw != b->ftw) {
        fprintf(stderr, "fcw %x fsw %x ftw %x, native fcw %x fsw %x ftw %x\n", a->fcw, a->fsw, a->ftw, b->fcw,
                b->fsw, b->ftw);
        return false;
    }
    *what = "x87 register";
    for (unsigned n = 0; n < 8; n++)
        if (memcmp(a->st[n], b->st[n], 10))
            return false;
    *what = "x87 pointers";
    return !(b->fsw & HX_FSW_ES) || (a->fip == b->fip && a->fdp == b->fdp && a->fop == b->fop);
}

bool hx_same_state(const struct cpu *a, const struct cpu *b, const char **what)
{
    *what = "general register";
    for (unsigned n = 0; n < 16; n++)
        if (a->r[n] != b->r[n]) {
            fprintf(stderr, "r%u: %lx native %lx\n", n, a->r[n], b->r[n]);
            return false;
        }
    *what = "flags";
    if (a->aflags != b->aflags)
        return false;
    *what = "MXCSR";
    if (a->mxcsr != b->mxcsr) {
        fprintf(stderr, "mxcsr %x native %x\n", a->mxcsr, b->mxcsr);
        return false;
    }
    return same_vectors(a, b, what) && same_x87(&a->fx, &b->fx, what);
}
