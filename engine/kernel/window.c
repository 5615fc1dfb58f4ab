#include "engine/kernel/window.h"

#include <string.h>

#include "engine/ops/conv.h"
#include "engine/ops/pool.h"

static void copy_window(const struct window_at *at, struct kernel_window *ret) {
    *ret = (struct kernel_window){.rank = at->dims};
    for (int i = 0; i < at->dims; i++) {
        ret->kernel[i] = at->kernel[i];
        ret->stride[i] = at->stride[i];
        ret->dilation[i] = at->dilation[i];
        ret->begin[i] = at->begin[i];
    }
}

static int64_t extent(const struct kernel_window *w, int i) {
    return (w->kernel[i] - 1) * w->dilation[i] + 1;
}

bool kernel_window_read(const struct node *n, const struct shape *in, const struct shape *out,
    const struct shape *weight, struct kernel_window *ret) {
    struct window_at at;

    if (in->rank < 3 || in->rank - 2 > KERNEL_WINDOW_MAX ||
        (weight ? conv_place(n, in, weight, &at, NULL) : pool_place(n, in, &at, NULL)) < 0)
        return false;
    copy_window(&at, ret);
    for (int i = 0; i < ret->rank; i++)
        ret->end[i] =
            (out->dim[i + 2] - 1) * ret->stride[i] + extent(ret, i) - in->dim[i + 2] - ret->begin[i];
    return true;
}

bool kernel_window_read_transposed(const struct node *n, const struct shape *in, const struct shape *out,
    const struct shape *weight, struct kernel_window *ret) {
    struct window_at at;

    if (in->rank < 3 || in->rank - 2 > KERNEL_WINDOW_MAX ||
        conv_transpose_place(n, in, weight, &at, NULL) < 0)
        return false;
    copy_window(&at, ret);
    for (int i = 0; i < ret->rank; i++)
        ret->end[i] =
            (in->dim[i + 2] - 1) * ret->stride[i] + extent(ret, i) - out->dim[i + 2] - ret->begin[i];
    return true;
}
