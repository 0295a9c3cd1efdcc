/* The frames that name files. See tree.h. */
#include <errno.h>
#include <string.h>

#include "agent/tree.h"
#include "base/bits.h"

int tree_put_entry(struct wire *w, enum wire_type type, const struct tree_entry *e)
{
    uint8_t buf[TREE_HEAD + TREE_NAME + 4096];
    size_t len = TREE_HEAD;

    st_le32(buf, e->mode);
    st_le32(buf + 4, e->nsec);
    st_le64(buf + 8, (uint64_t)e->sec);
    for (unsigned n = 0; n < 2; n++) {
        const char *text = n ? e->target : e->name;
        size_t add = text ? strlen(text) + 1 : 0;

        if (add > sizeof(buf) - len)
            return -EMSGSIZE;
        if (add)
            memcpy(buf + len, text, add);
        len += add;
    }
    return wire_send(w, type, buf, len, -1);
}

static bool tree_is_name(const char *name)
{
    return *name && strlen(name) < TREE_NAME && !strchr(name, '/') && strcmp(name, ".") && strcmp(name, "..");
}

bool tree_get_entry(const struct wire *w, struct tree_entry *e)
{
    size_t len, used;
    const uint8_t *d = wire_data(w, &len);
    bool link = wire_type(w) == WIRE_LINK;

    if (len < TREE_HEAD + 2 || d[len - 1])
        return false;
    *e = (struct tree_entry){ .mode = ld_le32(d), .nsec = ld_le32(d + 4), .sec = (int64_t)ld_le64(d + 8), .name = (const char *)d + TREE_HEAD };
    used = TREE_HEAD + strlen(e->name) + 1;
    if (link && used < len) {
        e->target = (const char *)d + used;
        used += strlen(e->target) + 1;
    }
    return used == len && tree_is_name(e->name) && e->nsec < 1000000000 && (!link || (e->target && *e->target));
}
