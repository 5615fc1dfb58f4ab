#include "engine/kernel/window.h"

#include <string.h>

static bool read_ints(const struct node *n, const char *name, int rank, int64_t dflt, int64_t *ret) {
    const struct attr *a = node_attr(n, name);

    for (int i = 0; i < rank; i++)
        ret[i] = a && a->type == ATTR_INTS && a->n > (size_t)i ? a->ints[i] : dflt;
    return !a || a->type == ATTR_INTS;
}

static bool string_is(const struct node *n, const char *name, const char *value) {
    const struct attr *a = node_attr(n, name);

    return a && a->type == ATTR_STRING && a->s.size == strlen(value) &&
           memcmp(a->s.data, value, a->s.size) == 0;
}

static bool read_common(
    const struct node *n, const struct shape *in, const struct shape *weight, struct window *w) {
    w->rank = in->rank - 2;
    if (w->rank < 1 || w->rank > WINDOW_MAX_RANK || !read_ints(n, "strides", w->rank, 1, w->stride) ||
        !read_ints(n, "dilations", w->rank, 1, w->dilation) || !read_ints(n, "pads", w->rank, 0, w->begin))
        return false;
    if (weight) {
        for (int i = 0; i < w->rank; i++)
            w->kernel[i] = weight->dim[i + 2];
        return true;
    }
    return read_ints(n, "kernel_shape", w->rank, 1, w->kernel);
}

/* auto_pad spreads the total: the odd pixel goes to the end (UPPER) or the beginning (LOWER). */
static int64_t auto_begin(const struct node *n, int64_t total, int64_t explicit_begin) {
    total = total > 0 ? total : 0;
    if (string_is(n, "auto_pad", "SAME_UPPER"))
        return total / 2;
    if (string_is(n, "auto_pad", "SAME_LOWER"))
        return (total + 1) / 2;
    if (string_is(n, "auto_pad", "VALID"))
        return 0;
    return explicit_begin;
}

bool window_read(const struct node *n, const struct shape *in, const struct shape *out,
    const struct shape *weight, struct window *ret) {
    struct window w = {0};

    if (!read_common(n, in, weight, &w))
        return false;
    for (int i = 0; i < w.rank; i++) {
        int64_t extent = (w.kernel[i] - 1) * w.dilation[i] + 1;
        int64_t total = (out->dim[i + 2] - 1) * w.stride[i] + extent - in->dim[i + 2];

        w.begin[i] = auto_begin(n, total, w.begin[i]);
        w.end[i] = total - w.begin[i];
    }
    *ret = w;
    return true;
}

bool window_read_transposed(const struct node *n, const struct shape *in, const struct shape *out,
    const struct shape *weight, struct window *ret) {
    struct window w = {0};

    if (!read_common(n, in, weight, &w))
        return false;
    for (int i = 0; i < w.rank; i++) {
        int64_t extent = (w.kernel[i] - 1) * w.dilation[i] + 1;
        int64_t total = (in->dim[i + 2] - 1) * w.stride[i] + extent - out->dim[i + 2];

        /* output_shape and auto_pad spread the total as for a convolution, except that without auto_pad the
         * odd pixel goes to the beginning (ONNX ConvTranspose) */
        if (node_attr(n, "output_shape") && !string_is(n, "auto_pad", "SAME_UPPER"))
            w.begin[i] = total - total / 2;
        else
            w.begin[i] = auto_begin(n, total, w.begin[i]);
        w.end[i] = total - w.begin[i];
    }
    *ret = w;
    return true;
}
