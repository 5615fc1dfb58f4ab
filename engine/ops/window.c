#include "engine/ops/window.h"

#include "engine/ops/common.h"

static int read_ints(const struct node *n, const char *name, int64_t *ret, int max, int *ret_n, int64_t least,
    struct error *err) {
    const struct attr *a = node_attr(n, name);

    if (!a)
        return 0;
    if (a->type != ATTR_INTS || a->n > (size_t)max)
        return error_code(err, -EBADMSG, "unsupported_operator",
            "%s has %zu entries, at most %d spatial dimensions are "
            "supported",
            name, a->n, WINDOW_MAX_DIMS);
    for (size_t i = 0; i < a->n; i++) {
        if (a->ints[i] < least || a->ints[i] > INT32_MAX)
            return error_code(
                err, -EBADMSG, "invalid_model", "%s has the entry %lld", name, (long long)a->ints[i]);
        ret[i] = a->ints[i];
    }
    *ret_n = (int)a->n;
    return 0;
}

static int parse_auto_pad(const struct node *n, enum auto_pad *ret, struct error *err) {
    static const char *const names[] = {"NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"};
    const char *s = node_attr_string(n, "auto_pad", "NOTSET");

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (!strcmp(s, names[i])) {
            *ret = (enum auto_pad)i;
            return 0;
        }
    return error_code(err, -EBADMSG, "invalid_model", "auto_pad is '%.32s'", s);
}

int window_parse(const struct node *n, struct window *ret, struct error *err) {
    struct window w = {.ceil_mode = node_attr_int(n, "ceil_mode", 0) != 0};
    int r = read_ints(n, "kernel_shape", w.kernel, WINDOW_MAX_DIMS, &w.n_kernel, 1, err);

    if (r == 0)
        r = read_ints(n, "strides", w.stride, WINDOW_MAX_DIMS, &w.n_stride, 1, err);
    if (r == 0)
        r = read_ints(n, "dilations", w.dilation, WINDOW_MAX_DIMS, &w.n_dilation, 1, err);
    if (r == 0)
        r = read_ints(n, "pads", w.pad, 2 * WINDOW_MAX_DIMS, &w.n_pad, 0, err);
    if (r == 0)
        r = parse_auto_pad(n, &w.auto_pad, err);
    if (r < 0)
        return r;
    *ret = w;
    return 0;
}

static int64_t div_up(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}

static int place_axis(const struct window *w, struct window_at *p, int i, struct error *err) {
    int64_t extent = (p->kernel[i] - 1) * p->dilation[i] + 1, room, total;

    if (w->auto_pad == AUTO_PAD_SAME_UPPER || w->auto_pad == AUTO_PAD_SAME_LOWER) {
        p->out[i] = div_up(p->in[i], p->stride[i]);
        total = (p->out[i] - 1) * p->stride[i] + extent - p->in[i];
        total = total < 0 ? 0 : total;
        p->begin[i] = w->auto_pad == AUTO_PAD_SAME_UPPER ? total / 2 : total - total / 2;
        p->end[i] = total - p->begin[i];
        return 0;
    }
    room = p->in[i] + p->begin[i] + p->end[i] - extent;
    if (room < 0)
        return error_code(err, -EBADMSG, "shape_mismatch",
            "dimension %d: a kernel of %lld (dilation %lld) does not fit an input of %lld with padding %lld and %lld",
            i + 2, (long long)p->kernel[i], (long long)p->dilation[i], (long long)p->in[i],
            (long long)p->begin[i], (long long)p->end[i]);
    p->out[i] = (w->ceil_mode ? div_up(room, p->stride[i]) : room / p->stride[i]) + 1;
    /* a window that starts in the padding behind the input is dropped */
    if (w->ceil_mode && (p->out[i] - 1) * p->stride[i] >= p->in[i] + p->begin[i])
        p->out[i]--;
    return 0;
}

/* Do the attributes that stand there have an entry for each of the dimensions? */
static bool fits_dims(const struct window *w, int dims, bool has_kernel) {
    return (has_kernel || w->n_kernel == dims) && (!w->n_kernel || w->n_kernel == dims) &&
           (!w->n_stride || w->n_stride == dims) && (!w->n_dilation || w->n_dilation == dims) &&
           (!w->n_pad || w->n_pad == 2 * dims);
}

int window_place(const struct window *w, const struct shape *x, const int64_t *kernel, struct window_at *ret,
    struct error *err) {
    struct window_at p = {.dims = x->rank - 2};

    if (p.dims < 1 || p.dims > WINDOW_MAX_DIMS)
        return error_code(err, -EBADMSG, "unsupported_operator",
            "inputs of rank %d are not supported here, only 3 to 5", x->rank);
    if (!fits_dims(w, p.dims, kernel != NULL))
        return error_code(err, -EBADMSG, "shape_mismatch",
            "kernel_shape, strides, dilations or pads are not for the %d spatial dimensions of the input",
            p.dims);
    for (int i = 0; i < p.dims; i++) {
        int r;

        p.in[i] = x->dim[i + 2];
        p.kernel[i] = kernel ? kernel[i] : w->kernel[i];
        p.stride[i] = w->n_stride ? w->stride[i] : 1;
        p.dilation[i] = w->n_dilation ? w->dilation[i] : 1;
        p.begin[i] = w->n_pad && w->auto_pad == AUTO_PAD_NOTSET ? w->pad[i] : 0;
        p.end[i] = w->n_pad && w->auto_pad == AUTO_PAD_NOTSET ? w->pad[p.dims + i] : 0;
        if (kernel && w->n_kernel && w->kernel[i] != kernel[i])
            return error_code(err, -EBADMSG, "shape_mismatch",
                "kernel_shape says %lld, the weights have %lld", (long long)w->kernel[i],
                (long long)kernel[i]);
        r = place_axis(w, &p, i, err);
        if (r < 0)
            return r;
    }
    *ret = p;
    return 0;
}

struct window_at window_to_3d(const struct window_at *at) {
    struct window_at p = {.dims = 3};
    int skip = 3 - at->dims;

    for (int i = 0; i < 3; i++) {
        bool is_given = i >= skip;

        p.in[i] = is_given ? at->in[i - skip] : 1;
        p.out[i] = is_given ? at->out[i - skip] : 1;
        p.kernel[i] = is_given ? at->kernel[i - skip] : 1;
        p.stride[i] = is_given ? at->stride[i - skip] : 1;
        p.dilation[i] = is_given ? at->dilation[i - skip] : 1;
        p.begin[i] = is_given ? at->begin[i - skip] : 0;
        p.end[i] = is_given ? at->end[i - skip] : 0;
    }
    return p;
}
