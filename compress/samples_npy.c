/* Samples from an .npy file of ready float inputs, N first. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "compress/command.h"
#include "compress/npy.h"
#include "compress/samples.h"

#define FILE_MAX (4ull << 30)

struct npy_samples {
    void *file;
    const float *data;
    size_t item; /* bytes */
};

static int npy_samples_read(void *ctx, int64_t first, int64_t count, float *ret, struct error *err) {
    const struct npy_samples *s = ctx;

    (void)err;
    memcpy(ret, (const char *)s->data + (size_t)first * s->item, (size_t)count * s->item);
    return 0;
}

static void npy_samples_done(void *ctx) {
    struct npy_samples *s = ctx;

    free(s->file);
    free(s);
}

int samples_from_npy(const char *path, struct samples *ret, struct error *err) {
    struct npy_samples *s = calloc(1, sizeof(*s));
    struct tensor t;
    size_t size;
    int r;

    if (!s)
        return error_oom(err);
    r = command_read_file(path, FILE_MAX, &s->file, &size, err);
    if (r == 0)
        r = npy_read(s->file, size, &t, err);
    if (r == 0 && (t.dtype != DT_F32 || t.shape.rank < 2 || t.shape.dim[0] < 1))
        r = error_code(err, -EBADMSG, "bad_dataset", "the array is not N float inputs");
    if (r < 0) {
        npy_samples_done(s);
        return r;
    }
    *ret = (struct samples){.ctx = s,
        .owner = s,
        .n = t.shape.dim[0],
        .item = t.shape,
        .read = npy_samples_read,
        .done = npy_samples_done};
    ret->item.dim[0] = 1;
    (void)shape_bytes(&ret->item, DT_F32, &s->item);
    s->data = t.data;
    return 0;
}
