/* struct user_regs_struct of the host, without the names that its header has in common with ram/ram.h. */
#ifndef VITRO_DIRECT_REGS_H
#define VITRO_DIRECT_REGS_H

#include <sys/user.h>

#undef PAGE_SHIFT
#undef PAGE_SIZE
#undef PAGE_MASK

#endif
