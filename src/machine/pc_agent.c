/* --agent: the agent in a Linux guest's initial RAM disk. An uncompressed archive with the agent alone is put before what was given,
 * where the kernel also takes early microcode from: so it does not matter how the rest is packed. The kernel starts the agent first
 * (rdinit=), which goes on as /init.
 *
 * Source: Linux Documentation/driver-api/early-userspace/buffer-format.rst (newc, several archives in one).
 * Thread: whoever builds or resets the machine.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/program.h"
#include "base/bits.h"
#include "base/err.h"
#include "machine/vm.h"

#define AGENT_FILE  ".vitro-agent"
#define AGENT_INIT  "rdinit=/" AGENT_FILE " "
#define CPIO_HEAD   110
#define CPIO_NAMES  64U /* head, name and padding of one of our entries take less than CPIO_HEAD + this */
#define CPIO_ALIGN  512

/* One entry at p, where zeros are; how many bytes it has. */
static size_t agent_entry(uint8_t *p, const char *name, unsigned mode, const void *data, size_t len)
{
    size_t at = ALIGN_UP(CPIO_HEAD + strlen(name) + 1, 4);
    char head[CPIO_HEAD + 1];

    snprintf(head, sizeof(head), "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x", 0, mode, 0, 0, 1, 0, (unsigned)len, 0, 0, 0,
             0, (unsigned)strlen(name) + 1, 0);
    memcpy(p, head, CPIO_HEAD);
    memcpy(p + CPIO_HEAD, name, strlen(name));
    if (len)
        memcpy(p + at, data, len);
    return ALIGN_UP(at + len, 4);
}

int pc_agent_initrd(struct vm *vm, struct err *err)
{
    size_t program = (size_t)(agent_program_end - agent_program), at, len;
    size_t archive = ALIGN_UP(program + 2 * (CPIO_HEAD + CPIO_NAMES), CPIO_ALIGN);
    uint8_t *all;

    if (!vm->cfg->agent || !vm->initrd)
        return 0;
    if (vm->kernel.kind == BOOT_MULTIBOOT1)
        return err_set(err, EINVAL, "agent: kernel '%s' is no Linux kernel: leave --agent out", vm->cfg->kernel);
    len = archive + vm->initrd_len;
    all = calloc(1, len);
    if (!all)
        return err_set(err, ENOMEM, "out of memory for the initrd");
    at = agent_entry(all, AGENT_FILE, 0100700, agent_program, program);
    agent_entry(all + at, "TRAILER!!!", 0, NULL, 0);
    memcpy(all + archive, vm->initrd, vm->initrd_len);
    free(vm->initrd);
    vm->initrd = all;
    vm->initrd_len = len;
    return 0;
}

char *pc_agent_cmdline(const struct vm *vm, const char *text)
{
    bool first = vm->cfg->agent && vm->initrd;
    char *line;

    return asprintf(&line, "%s%s", first ? AGENT_INIT : "", text) < 0 ? NULL : line;
}
