/* The file of --firmware NAME,vars=FILE, in which UEFI's variables outlive the machine. The flash chip has them in memory, so a file has one machine
 * at a time, which has its lock, and each change goes to the file before the guest can see it.
 *
 * A machine that comes from elsewhere brings them in the chip's state. It looks at the file when it is made, and takes the lock when the
 * source has given it up; a file that is not there is made at that moment, whole.
 *
 * Threads: pc_vars_store() under the device lock; all else while no vCPU runs.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/err.h"
#include "base/log.h"
#include "block/file.h"
#include "machine/vm.h"

void pc_firmware_prepare(struct vm *vm) { vm->firmware.vars_fd = vm->firmware.draft.fd = -1; }

/* Make the file from the template: whole or not at all. */
static int pc_vars_make(const struct boot_blob *vars, const char *path, struct err *err)
{
    struct image_draft d;
    int r = image_draft_begin(&d, path, false, err);

    if (r == 0 && (r = block_file_write(d.fd, 0, vars->data, vars->len)) < 0) {
        err_set(err, -r, "'%s' cannot be written: %s", path, strerror(-r));
        image_draft_abort(&d);
    }
    if (r == 0)
        r = image_draft_commit(&d, err);
    if (r < 0)
        err_prefix(err, "firmware variables");
    return r < 0 && access(path, F_OK) < 0 ? r : 0; /* another one may have made it meanwhile */
}

/* Does a file of that size belong to this firmware? Without a template it says how large the flash is. */
static int pc_vars_size(struct boot_blob *vars, const char *path, uint64_t size, struct err *err)
{
    if (vars->data ? size != vars->len : size == 0 || size > PFLASH_MAX || size % PFLASH_BLOCK)
        return err_set(err, EINVAL,
                       "firmware variables '%s': its size of %llu bytes does not belong to this firmware; name "
                       "a file that does not exist, and it is made",
                       path, (unsigned long long)size);
    if (vars->data)
        return 0;
    vars->data = malloc(size);
    vars->len = size;
    return vars->data ? 0 : err_set(err, ENOMEM, "out of memory");
}

static int pc_vars_read(struct vm_firmware *fw, const char *path, bool lock, struct err *err)
{
    struct boot_blob *vars = &fw->image.vars;
    uint64_t size;
    int r;

    fw->vars_fd = block_file_open_how(path, false, lock, &size, err);
    if (fw->vars_fd < 0) {
        err_prefix(err, "firmware variables");
        return fw->vars_fd;
    }
    r = pc_vars_size(vars, path, size, err);
    if (r == 0 && (r = block_file_read(fw->vars_fd, 0, vars->data, size)) < 0)
        err_set(err, -r, "cannot read firmware variables '%s': %s", path, strerror(-r));
    return r;
}

int pc_vars_open(struct vm *vm, struct err *err)
{
    struct vm_firmware *fw = &vm->firmware;
    const char *path = vm->cfg->firmware_vars;
    bool late = vm->cfg->disks_late;
    int r = 0;

    if (!path)
        return 0;
    if (!strcmp(vm->cfg->firmware, "seabios"))
        return err_set(err, EINVAL, "firmware seabios keeps no variables: leave out vars=");
    if (fw->image.vars.data && access(path, F_OK) < 0) {
        if (late)
            return image_draft_begin(&fw->draft, path, false, err);
        r = pc_vars_make(&fw->image.vars, path, err);
    }
    return r < 0 ? r : pc_vars_read(fw, path, !late, err);
}

int pc_vars_store(void *opaque, uint32_t off, const uint8_t *data, uint32_t len)
{
    struct vm_firmware *fw = opaque;
    int r = block_file_write(fw->vars_fd, off, data, len);

    if (r < 0)
        log_guest("firmware: cannot store variables: %s", strerror(-r));
    return r;
}

/* ---- machines that were elsewhere, or at another time ---- */

/* 1: the file holds what the chip does. 0: it does not. */
static int pc_vars_same(const struct vm_firmware *fw)
{
    uint8_t *now = malloc(fw->flash.size);
    int r = now ? block_file_read(fw->vars_fd, 0, now, fw->flash.size) : -ENOMEM;

    if (r == 0)
        r = !memcmp(now, fw->flash.data, fw->flash.size);
    free(now);
    return r;
}

int pc_vars_settle(struct vm *vm, struct err *err)
{
    struct vm_firmware *fw = &vm->firmware;
    int r = fw->vars_fd < 0 ? 1 : pc_vars_same(fw);

    if (r == 0)
        r = block_file_write(fw->vars_fd, 0, fw->flash.data, fw->flash.size);
    if (r == 0)
        r = block_file_flush(fw->vars_fd);
    return r < 0 ? err_set(err, -r, "firmware variables '%s' cannot be written: %s", vm->cfg->firmware_vars, strerror(-r)) : 0;
}

int pc_vars_arrive(struct vm *vm, bool replace, struct err *err)
{
    struct vm_firmware *fw = &vm->firmware;
    const char *path = vm->cfg->firmware_vars;
    int r = 1;

    if (fw->draft.path) {
        r = block_file_write(fw->draft.fd, 0, fw->flash.data, fw->flash.size);
        r = r < 0 ? r : block_file_flush(fw->draft.fd) < 0 ? -EIO : 1;
    } else if (path && !replace) {
        r = pc_vars_same(fw);
    }
    if (r < 0)
        return err_set(err, -r, "firmware variables '%s' cannot be read or written: %s", path, strerror(-r));
    if (r == 0)
        return err_set(err, ESTALE,
                       "firmware variables '%s' are not the guest's: name a file that does not exist, and it is made, or say --trust-disks and this "
                       "one is replaced",
                       path);
    return 0;
}

/* The new file gets its lock before its name. */
static int pc_vars_name(struct vm_firmware *fw, struct err *err)
{
    int r = -EMFILE;

    fw->vars_fd = fcntl(fw->draft.fd, F_DUPFD_CLOEXEC, 3);
    if (fw->vars_fd < 0 || (r = block_file_take(fw->vars_fd, false)) < 0)
        return err_set(err, -r, "firmware variables cannot be locked: %s", strerror(-r));
    return image_draft_commit(&fw->draft, err);
}

int pc_vars_take(struct vm *vm, struct err *err)
{
    struct vm_firmware *fw = &vm->firmware;
    int r;

    if (fw->draft.path)
        return pc_vars_name(fw, err);
    if (fw->vars_fd < 0)
        return 0;
    r = block_file_take(fw->vars_fd, false);
    if (r < 0)
        return err_set(err, -r, "firmware variables '%s' cannot be locked: %s", vm->cfg->firmware_vars,
                       r == -EAGAIN ? "they are in use by another machine" : strerror(-r));
    return pc_vars_settle(vm, err);
}

void pc_vars_give(struct vm *vm)
{
    if (vm->firmware.vars_fd >= 0)
        block_file_give(vm->firmware.vars_fd);
}

int pc_vars_flush(struct vm *vm, struct err *err)
{
    int r = vm->firmware.vars_fd < 0 ? 0 : block_file_flush(vm->firmware.vars_fd);

    return r < 0 ? err_set(err, -r, "firmware variables '%s' cannot be written: %s", vm->cfg->firmware_vars, strerror(-r)) : 0;
}

void pc_vars_close(struct vm *vm)
{
    struct vm_firmware *fw = &vm->firmware;
    struct err err = { "" };

    image_draft_abort(&fw->draft);
    if (pc_vars_flush(vm, &err) < 0)
        log_msg(LOG_ERROR, "%s", err.text);
    if (fw->vars_fd >= 0)
        close(fw->vars_fd);
    fw->vars_fd = -1;
}
