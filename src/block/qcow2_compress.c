/* Compressed clusters: read only; a write makes a plain one of it.
 *
 * Source: QEMU's docs/interop/qcow2.rst, "Compressed Clusters Descriptor": raw deflate (RFC 1951) or zstd.
 * Input and output are bounded by the cluster size, zstd's window by 8 MiB. The last cluster is kept, since
 * guests read in pieces. Locks: `comp` inside.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

#include "block/qcow2_int.h"

#define COMP_WINDOW_LOG 23

static int comp_zlib(const uint8_t *in, size_t in_len, uint8_t *out, size_t out_len)
{
    z_stream z = { .next_in = (uint8_t *)(uintptr_t)in,
                   .avail_in = (uInt)in_len,
                   .next_out = out,
                   .avail_out = (uInt)out_len };
    int r = inflateInit2(&z, -MAX_WBITS);

    if (r != Z_OK)
        return -ENOMEM;
    r = inflate(&z, Z_FINISH);
    inflateEnd(&z);
    /* The sectors may hold more than the stream: its end is where the cluster is full. */
    if (r == Z_MEM_ERROR)
        return -ENOMEM;
    return (r == Z_STREAM_END || r == Z_BUF_ERROR || r == Z_OK) && z.avail_out == 0 ? 0 : -EIO;
}

static int comp_zstd(const uint8_t *in, size_t in_len, uint8_t *out, size_t out_len)
{
    ZSTD_inBuffer i = { in, in_len, 0 };
    ZSTD_outBuffer o = { out, out_len, 0 };
    ZSTD_DCtx *ctx = ZSTD_createDCtx();
    size_t r = 0;

    if (!ctx)
        return -ENOMEM;
    ZSTD_DCtx_setParameter(ctx, ZSTD_d_windowLogMax, COMP_WINDOW_LOG);
    while (o.pos < out_len) {
        size_t before = o.pos + i.pos;

        r = ZSTD_decompressStream(ctx, &o, &i);
        if (ZSTD_isError(r) || o.pos + i.pos == before)
            break;
    }
    ZSTD_freeDCtx(ctx);
    return o.pos == out_len ? 0 : -EIO;
}

static int comp_buffers(struct qcow2 *q)
{
    if (!q->comp_data)
        q->comp_data = malloc(q->csize);
    if (!q->comp_raw)
        q->comp_raw = malloc(q->csize * 2);
    return q->comp_data && q->comp_raw ? 0 : -ENOMEM;
}

/* Fill q->comp_data. */
static int comp_load(struct qcow2 *q, uint64_t entry)
{
    unsigned shift = 62 - (q->cbits - 8);
    uint64_t host = entry & (BIT(shift) - 1), len = (bits(entry, 61, shift) + 1) * 512 - host % 512;
    int r = comp_buffers(q);

    if (r < 0 || q->comp_entry == entry)
        return r;
    q->comp_entry = 0;
    if (len > q->csize * 2)
        return -EIO;
    r = imgfile_read(q->f, host, q->comp_raw, len);
    if (r == 0)
        r = q->info.zstd ? comp_zstd(q->comp_raw, len, q->comp_data, q->csize)
                         : comp_zlib(q->comp_raw, len, q->comp_data, q->csize);
    if (r == 0)
        q->comp_entry = entry;
    return r;
}

int qcow2_decompress(struct qcow2 *q, uint64_t entry, uint64_t in, uint8_t *buf, uint64_t len)
{
    int r;

    pthread_mutex_lock(&q->comp_lock);
    r = comp_load(q, entry);
    if (r == 0)
        memcpy(buf, q->comp_data + in, len);
    pthread_mutex_unlock(&q->comp_lock);
    return r;
}
