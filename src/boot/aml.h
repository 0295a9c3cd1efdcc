/* A writer of ACPI Machine Language (ACPI 6.4, chapter 20) into a growing buffer.
 *
 * Terms are appended in order. Whatever has a package length is opened and closed in pairs, and
 * may be nested. Errors (no memory, nesting too deep) are sticky: check aml->failed at the end.
 */
#ifndef VITRO_BOOT_AML_H
#define VITRO_BOOT_AML_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define AML_DEPTH 12

struct aml {
    uint8_t *data; /* owned */
    size_t len, cap;
    size_t open[AML_DEPTH]; /* where the bodies of open packages start */
    unsigned depth;
    bool failed;
};

void aml_init(struct aml *a);
void aml_fini(struct aml *a);

/* Raw bytes, and numbers in the shortest encoding. */
void aml_bytes(struct aml *a, const void *p, size_t len);
void aml_byte(struct aml *a, uint8_t v);
void aml_int(struct aml *a, uint64_t v);
void aml_string(struct aml *a, const char *s);
/* A name path in ASL notation: "\\_SB.PCI0", "_CRS", "^X"; segments are filled up with '_'. */
void aml_path(struct aml *a, const char *path);
/* The integer form of an EISA id such as "PNP0A08". */
void aml_eisaid(struct aml *a, const char *id);

/* Name(path, ...): the value follows as the next term. */
void aml_name(struct aml *a, const char *path);
void aml_name_int(struct aml *a, const char *path, uint64_t v);
void aml_name_string(struct aml *a, const char *path, const char *s);
void aml_name_eisaid(struct aml *a, const char *path, const char *id);

/* Blocks; close with aml_close(). */
void aml_scope(struct aml *a, const char *path);
void aml_device(struct aml *a, const char *path);
void aml_method(struct aml *a, const char *path, unsigned args, bool serialized);
void aml_package(struct aml *a, uint8_t elements);
void aml_if(struct aml *a);
void aml_else(struct aml *a);
void aml_close(struct aml *a);

/* One byte of I/O ports, which methods reach by the name field; region names it, too. */
void aml_port(struct aml *a, const char *region, uint16_t port, const char *field);

/* Statements and operands of methods. */
void aml_return(struct aml *a);          /* the value follows */
void aml_arg(struct aml *a, unsigned n); /* Arg0..Arg6 */
void aml_op(struct aml *a, uint8_t op);  /* one of the opcodes below; operands follow */

enum {
    AML_STORE = 0x70,       /* source, target */
    AML_AND = 0x7b,         /* a, b, target */
    AML_OR = 0x7d,          /* a, b, target */
    AML_DWORD_FIELD = 0x8a, /* CreateDWordField: buffer, byte index, name */
    AML_NOTIFY = 0x86,      /* device, value */
    AML_LNOT = 0x92,
    AML_LEQUAL = 0x93,
};

/* A resource template: open, descriptors, close (which adds the end tag and the Buffer term). */
void aml_res_open(struct aml *a);
void aml_res_close(struct aml *a);
/* Fixed ports [base, base+len). */
void aml_res_io(struct aml *a, uint16_t base, uint8_t len);
/* ISA interrupt, edge-triggered, active high. */
void aml_res_irq(struct aml *a, unsigned irq);
void aml_res_memory32(struct aml *a, uint32_t base, uint32_t len);
/* Windows that a bridge hands on. */
void aml_res_bus_window(struct aml *a, uint16_t first, uint16_t last);
void aml_res_io_window(struct aml *a, uint16_t first, uint16_t last);
void aml_res_memory32_window(struct aml *a, uint32_t first, uint32_t last);
void aml_res_memory64_window(struct aml *a, uint64_t first, uint64_t last);

#endif
