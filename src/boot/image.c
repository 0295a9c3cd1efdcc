/* Kernel files: reading them whole and finding out what they are.
 *
 * Sources: Linux Documentation/arch/x86/boot.rst, the ELF specification, Multiboot 0.6.96; the
 * magic numbers of the files that people give by mistake are in table not_kernels below.
 * Runs on the thread that builds the machine; no state.
 */
#include "boot/parts.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define KERNEL_MAX (1024 * MIB)

/* Files that are no kernels for this machine, but can be told apart. */
static const struct {
    size_t offset;
    const char *magic;
    size_t len;
    const char *what;
} not_kernels[] = {
    { 0x38, "ARM\x64", 4, "is a Linux kernel for 64-bit ARM; this machine runs x86-64 kernels" },
    { 0x38, "RSC\x05", 4, "is a Linux kernel for RISC-V; this machine runs x86-64 kernels" },
    { 0x24, "\x18\x28\x6f\x01", 4, "is a Linux kernel for 32-bit ARM; this machine runs x86-64 kernels" },
    { 0x08, "\xcd\x23\x82\x81", 4, "is a Linux kernel for LoongArch; this machine runs x86-64 kernels" },
    { 0, "\x1f\x8b", 2, "is compressed with gzip; decompress it first (gzip -d), or give the bzImage" },
    { 0,
      "\xfd"
      "7zXZ",
      5, "is compressed with xz; decompress it first (xz -d), or give the bzImage" },
    { 0, "\x28\xb5\x2f\xfd", 4,
      "is compressed with zstd; decompress it first (zstd -d), or give the bzImage" },
    { 0, "\x02\x21\x4c\x18", 4, "is compressed with lz4; decompress it first (lz4 -d), or give the bzImage" },
    { 0, "QFI\xfb", 4, "is a qcow2 disk image; give it as a disk, and a kernel file here" },
    { 0, "070701", 6, "is a cpio archive; give it as the initrd, and a kernel file here" },
    { 0, "!<arch>\n", 8, "is an archive or a Debian package; unpack it and give the vmlinuz file" },
    { 0, "MZ", 2, "is an EFI program without a Linux boot header; give a Linux bzImage or an ELF kernel" },
};

/* Read len bytes from fd. */
static int image_read_all(int fd, uint8_t *buf, size_t len)
{
    size_t done = 0;

    while (done < len) {
        ssize_t n = read(fd, buf + done, len - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0)
            return -EIO; /* shrank while we read it */
        done += (size_t)n;
    }
    return 0;
}

int boot_read_fd(int fd, const char *path, const char *what, size_t max, uint8_t **data, size_t *len,
                 struct err *err)
{
    struct stat st;
    int rc;

    *data = NULL;
    *len = 0;

    if (fstat(fd, &st) < 0)
        return err_set(err, errno, "%s %s: %s", what, path, strerror(errno));
    if (!S_ISREG(st.st_mode))
        return err_set(err, EINVAL, "%s %s: is not a regular file; give the path of the file itself", what,
                       path);
    if ((uint64_t)st.st_size > max)
        return err_set(err, EFBIG,
                       "%s %s: is %lld bytes long, more than the %zu that are possible; is it the "
                       "right file?",
                       what, path, (long long)st.st_size, max);
    *data = malloc(st.st_size ? (size_t)st.st_size : 1);
    if (!*data)
        return err_set(err, ENOMEM, "%s %s: no memory for its %lld bytes", what, path, (long long)st.st_size);
    rc = image_read_all(fd, *data, (size_t)st.st_size);
    if (rc < 0) {
        free(*data);
        *data = NULL;
        return err_set(err, -rc, "%s %s: cannot be read: %s", what, path, strerror(-rc));
    }
    *len = (size_t)st.st_size;
    return 0;
}

int boot_read_file(const char *path, const char *what, size_t max, uint8_t **data, size_t *len,
                   struct err *err)
{
    /* O_NONBLOCK: a FIFO must not block here; it is refused below. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    int rc;

    *data = NULL;
    *len = 0;
    if (fd < 0) {
        rc = errno;
        return err_set(err, rc, "%s %s: cannot be opened: %s; check the path and its permissions", what, path,
                       strerror(rc));
    }
    rc = boot_read_fd(fd, path, what, max, data, len, err);
    close(fd);
    return rc;
}

/* No kernel that we know: say what it seems to be. */
static int image_refuse(const struct boot_image *img, struct err *err)
{
    for (size_t i = 0; i < ARRAY_LEN(not_kernels); i++) {
        if (range_outside(not_kernels[i].offset, not_kernels[i].len, img->len))
            continue;
        if (memcmp(img->data + not_kernels[i].offset, not_kernels[i].magic, not_kernels[i].len) == 0)
            return err_set(err, EINVAL, "kernel %s: %s", img->name, not_kernels[i].what);
    }
    return err_set(err, EINVAL,
                   "kernel %s: is neither a bzImage, nor an ELF file, nor has it a Multiboot header; "
                   "give a Linux bzImage (vmlinuz) or an ELF kernel",
                   img->name);
}

static int image_identify_elf(struct boot_image *img, struct err *err)
{
    bool has_pvh;
    int rc = elf_check(img, &has_pvh, err);

    if (rc < 0)
        return rc;
    if (has_pvh) {
        img->kind = BOOT_PVH_ELF;
        return 0;
    }
    if (multiboot_find(img)) {
        img->kind = BOOT_MULTIBOOT1;
        return multiboot_check(img, err);
    }
    return err_set(err, EINVAL,
                   "kernel %s: is an ELF file with neither a PVH note nor a Multiboot 1 header, so its "
                   "entry point is unknown; build it with CONFIG_PVH=y or give the bzImage",
                   img->name);
}

static int image_identify(struct boot_image *img, struct err *err)
{
    if (img->len == 0)
        return err_set(err, EINVAL, "kernel %s: is empty; give a Linux bzImage or an ELF kernel", img->name);
    if (elf_is(img->data, img->len))
        return image_identify_elf(img, err);
    if (img->len >= 0x206 && memcmp(img->data + 0x202, "HdrS", 4) == 0) {
        img->kind = BOOT_BZIMAGE;
        return bzimage_check(img, err);
    }
    if (multiboot_find(img)) {
        img->kind = BOOT_MULTIBOOT1;
        return multiboot_check(img, err);
    }
    return image_refuse(img, err);
}

/* The file's last path component, for messages and as the kernel's own name. */
static void image_set_name(struct boot_image *img, const char *path)
{
    const char *slash = strrchr(path, '/');
    const char *base = slash && slash[1] ? slash + 1 : path;

    strncpy(img->name, base, sizeof(img->name) - 1);
    img->name[sizeof(img->name) - 1] = 0;
}

/* Take over data and check it; frees it when it is not good. */
static int image_adopt(struct boot_image *img, struct err *err)
{
    int rc = image_identify(img, err);

    if (rc < 0)
        boot_image_close(img);
    return rc;
}

int boot_image_open(struct boot_image *img, const char *path, struct err *err)
{
    int rc;

    memset(img, 0, sizeof(*img));
    rc = boot_read_file(path, "kernel", KERNEL_MAX, &img->data, &img->len, err);
    if (rc < 0)
        return rc;
    image_set_name(img, path);
    return image_adopt(img, err);
}

int boot_image_read(struct boot_image *img, int fd, const char *path, struct err *err)
{
    int rc;

    memset(img, 0, sizeof(*img));
    rc = boot_read_fd(fd, path, "kernel", KERNEL_MAX, &img->data, &img->len, err);
    if (rc < 0)
        return rc;
    image_set_name(img, path);
    return image_adopt(img, err);
}

int boot_image_from_memory(struct boot_image *img, const void *data, size_t len, const char *name,
                           struct err *err)
{
    memset(img, 0, sizeof(*img));
    image_set_name(img, name);
    img->data = malloc(len ? len : 1);
    if (!img->data)
        return err_set(err, ENOMEM, "kernel %s: no memory for its %zu bytes", name, len);
    if (len)
        memcpy(img->data, data, len);
    img->len = len;
    return image_adopt(img, err);
}

void boot_image_close(struct boot_image *img)
{
    free(img->data);
    img->data = NULL;
    img->len = 0;
}
