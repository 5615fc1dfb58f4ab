/* Conv on floats or bfloat16, channels last, by oneDNN's three primitives: forward, gradient of the data,
 * gradient of the weights and the bias. Parameters and their gradients are floats either way. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "engine/hugemem.h"
#include "engine/kernel/window.h"
#include "engine/train/passes.h"
#include "engine/train/rows.h"

/* A weight in the library's layout, copied there once a minibatch. */
struct packed {
    struct onednn_prim *copy;
    void *data;
    size_t size;
};

struct train_state {
    bool has_bias, is_bf16;
    int64_t n_in, n_weights, n_bias;
    const struct train_passes *passes;
    struct onednn_prim *forward, *data, *weights; /* `data`, `weights` NULL: not wanted */
    struct packed w_forward, w_data;
    struct onednn_prim *unpack; /* the weights' gradient to plain */
    /* in the lane's scratch, behind the primitives' own: gradients that are added afterwards, the weights' in
     * the library's layout, the bias's */
    size_t at_extra, at_dw, at_bias;
};

static bool conv_fits(const struct train_layer *l) {
    struct kernel_window w;

    enum dtype t = l->in[0]->dtype;

    return (t == DT_F32 || t == DT_BF16) && l->out[0].dtype == t && l->in[1] && l->in[1]->data &&
           l->in[1]->dtype == DT_F32 && train_count(&l->out[0].shape) > 0 && l->in[0]->shape.rank <= 5 &&
           kernel_window_read(l->node, &l->in[0]->shape, &l->out[0].shape, &l->in[1]->shape, &w);
}

struct conv_desc {
    dnnl_memory_desc_t x, y, w, dw, bias, plain; /* w: any layout; dw: in floats */
    dnnl_dims_t stride, dilation, begin, end;
    bool has_bias;
};

static bool weights_desc(const struct train_layer *l, struct conv_desc *d) {
    const struct shape *w = &l->in[1]->shape;
    int64_t g = node_attr_int(l->node, "group", 1), step = 1;
    dnnl_data_type_t type = l->in[0]->dtype == DT_BF16 ? dnnl_bf16 : dnnl_f32;
    dnnl_dims_t dims = {0}, strides = {0};
    int n = 0;

    if (g > 1) {
        dims[n++] = g;
        dims[n++] = w->dim[0] / g;
    } else {
        dims[n++] = w->dim[0];
    }
    for (int i = 1; i < w->rank; i++)
        dims[n++] = w->dim[i];
    for (int i = n - 1; i >= 0; i--) {
        strides[i] = step;
        step *= dims[i];
    }
    return dnnl_memory_desc_init_by_tag(&d->w, n, dims, type, dnnl_format_tag_any) == dnnl_success &&
           dnnl_memory_desc_init_by_tag(&d->dw, n, dims, dnnl_f32, dnnl_format_tag_any) == dnnl_success &&
           dnnl_memory_desc_init_by_strides(&d->plain, n, dims, dnnl_f32, strides) == dnnl_success;
}

static bool describe(const struct train_layer *l, struct conv_desc *d) {
    struct kernel_window w;
    dnnl_dims_t channels = {l->out[0].shape.dim[1]};

    memset(d, 0, sizeof(*d));
    d->has_bias = l->n_in > 2 && l->in[2];
    (void)kernel_window_read(l->node, &l->in[0]->shape, &l->out[0].shape, &l->in[1]->shape, &w);
    for (int i = 0; i < w.rank; i++) {
        d->stride[i] = w.stride[i];
        d->dilation[i] = w.dilation[i] - 1;
        d->begin[i] = w.begin[i];
        d->end[i] = w.end[i] < 0 ? 0 : w.end[i]; /* pixels at the end that no window reads */
    }
    return onednn_desc(&l->in[0]->shape, l->in[0]->dtype, LAYOUT_NHWC, &d->x) &&
           onednn_desc(&l->out[0].shape, l->out[0].dtype, LAYOUT_NHWC, &d->y) && weights_desc(l, d) &&
           dnnl_memory_desc_init_by_tag(&d->bias, 1, channels, dnnl_f32, dnnl_a) == dnnl_success;
}

static int make_forward(
    const struct train_layer *l, struct conv_desc *d, struct train_state *s, struct error *err) {
    static const int args[] = {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DST, DNNL_ARG_BIAS};
    dnnl_convolution_desc_t c;
    dnnl_status_t st =
        dnnl_dilated_convolution_forward_desc_init(&c, dnnl_forward_training, dnnl_convolution_direct, &d->x,
            &d->w, d->has_bias ? &d->bias : NULL, &d->y, d->stride, d->dilation, d->begin, d->end);

    if (st != dnnl_success)
        return onednn_error(err, st, "convolution");
    return onednn_prim_new(l->onednn, &c, NULL, args, d->has_bias ? 4 : 3, NULL, &s->forward, err);
}

static int make_data(
    const struct train_layer *l, struct conv_desc *d, struct train_state *s, struct error *err) {
    static const int args[] = {DNNL_ARG_DIFF_DST, DNNL_ARG_WEIGHTS, DNNL_ARG_DIFF_SRC};
    dnnl_convolution_desc_t c;
    dnnl_status_t st = dnnl_dilated_convolution_backward_data_desc_init(
        &c, dnnl_convolution_direct, &d->x, &d->w, &d->y, d->stride, d->dilation, d->begin, d->end);

    if (st != dnnl_success)
        return onednn_error(err, st, "gradient of a convolution's data");
    return onednn_prim_new_backward(l->onednn, &c, s->forward, args, 3, &s->data, err);
}

static int make_weights(
    const struct train_layer *l, struct conv_desc *d, struct train_state *s, struct error *err) {
    static const int args[] = {DNNL_ARG_SRC, DNNL_ARG_DIFF_DST, DNNL_ARG_DIFF_WEIGHTS, DNNL_ARG_DIFF_BIAS};
    dnnl_convolution_desc_t c;
    dnnl_status_t st = dnnl_dilated_convolution_backward_weights_desc_init(&c, dnnl_convolution_direct, &d->x,
        &d->dw, d->has_bias ? &d->bias : NULL, &d->y, d->stride, d->dilation, d->begin, d->end);
    int r;

    if (st != dnnl_success)
        return onednn_error(err, st, "gradient of a convolution's weights");
    r = onednn_prim_new_backward(l->onednn, &c, s->forward, args, d->has_bias ? 4 : 3, &s->weights, err);
    if (r == 0)
        r = onednn_reorder_new(
            l->onednn, onednn_prim_desc(s->weights, DNNL_ARG_DIFF_WEIGHTS), &d->plain, &s->unpack, err);
    return r;
}

static int make_packed(const struct train_layer *l, const dnnl_memory_desc_t *plain,
    const struct onednn_prim *prim, struct packed *ret, struct error *err) {
    const dnnl_memory_desc_t *to = onednn_prim_desc(prim, DNNL_ARG_WEIGHTS);

    ret->size = dnnl_memory_desc_get_size(to);
    ret->data = hugemem_new(ret->size);
    if (!ret->data)
        return error_oom(err);
    return onednn_reorder_new(l->onednn, plain, to, &ret->copy, err);
}

static size_t max_scratch(size_t size, const struct onednn_prim *p) {
    size_t own = p ? onednn_prim_scratch(p) : 0;

    return own > size ? own : size;
}

static void packed_done(struct packed *p) {
    onednn_prim_free(p->copy);
    hugemem_free(p->data, p->size);
}

static struct train_state *conv_done(struct train_state *s) {
    if (!s)
        return NULL;
    packed_done(&s->w_forward);
    packed_done(&s->w_data);
    onednn_prim_free(s->forward);
    onednn_prim_free(s->data);
    onednn_prim_free(s->weights);
    onednn_prim_free(s->unpack);
    free(s);
    return NULL;
}
DEFINE_CLEANUP(struct train_state *, conv_done)

static void place_scratch(struct train_state *s, struct train_needs *needs) {
    size_t prims = 0, dw = 0;

    prims = max_scratch(max_scratch(max_scratch(prims, s->forward), s->data), s->weights);
    prims = max_scratch(max_scratch(max_scratch(prims, s->w_forward.copy), s->w_data.copy), s->unpack);
    if (s->weights)
        dw = dnnl_memory_desc_get_size(onednn_prim_desc(s->weights, DNNL_ARG_DIFF_WEIGHTS));
    s->at_extra = (prims + 63) / 64 * 64;
    s->at_dw = s->at_extra + (size_t)(s->n_in > s->n_weights ? s->n_in + 15 : s->n_weights + 15) / 16 * 64;
    s->at_bias = s->at_dw + (dw + 63) / 64 * 64;
    needs->scratch = s->at_bias + (size_t)s->n_bias * sizeof(float);
}

static int conv_prepare(
    const struct train_layer *l, struct train_state **ret, struct train_needs *needs, struct error *err) {
    _cleanup_(conv_donep) struct train_state *s = calloc(1, sizeof(*s));
    struct conv_desc d;
    int r;

    if (!s)
        return error_oom(err);
    if (!describe(l, &d))
        return error_set(err, -EOPNOTSUPP, "not a convolution of oneDNN's");
    s->has_bias = d.has_bias;
    s->passes = train_passes_for(l->cpu);
    s->is_bf16 = l->in[0]->dtype == DT_BF16;
    s->n_in = train_count(&l->in[0]->shape);
    s->n_weights = train_count(&l->in[1]->shape);
    s->n_bias = d.has_bias ? l->out[0].shape.dim[1] : 0;
    r = make_forward(l, &d, s, err);
    if (r == 0)
        r = make_packed(l, &d.plain, s->forward, &s->w_forward, err);
    if (r == 0 && l->wants[0])
        r = make_data(l, &d, s, err);
    if (r == 0 && l->wants[0])
        r = make_packed(l, &d.plain, s->data, &s->w_data, err);
    if (r == 0 && (l->wants[1] || (d.has_bias && l->wants[2])))
        r = make_weights(l, &d, s, err);
    if (r < 0)
        return r;
    place_scratch(s, needs);
    *ret = TAKE(s);
    return 0;
}

/* Copies of weights: the library needs no scratchpad for them (place_scratch counts it all the same). */
static void conv_pack(const struct train_state *s, const void *const *in) {
    void *w = (void *)(uintptr_t)in[1];

    onednn_enter();
    onednn_prim_run(s->w_forward.copy, (void *[]){w, s->w_forward.data}, NULL);
    if (s->data)
        onednn_prim_run(s->w_data.copy, (void *[]){w, s->w_data.data}, NULL);
}

static void *input(const void *p) {
    return (void *)(uintptr_t)p;
}

static void conv_forward(const struct train_state *s, const struct train_io *io, int phase) {
    (void)phase;
    onednn_enter();
    onednn_prim_run(s->forward,
        (void *[]){input(io->in[0]), s->w_forward.data, io->out[0], s->has_bias ? input(io->in[2]) : NULL},
        io->scratch);
}

/* A gradient goes where it belongs, or beside it first when that holds a sum already. */
static void run_data(const struct train_state *s, const struct train_io *io) {
    void *beside = (char *)io->scratch + s->at_extra, *to = io->adds[0] ? beside : io->d_in[0];

    onednn_prim_run(s->data, (void *[]){input(io->d_out[0]), s->w_data.data, to}, io->scratch);
    if (io->adds[0] && s->is_bf16)
        s->passes->add_bf16(s->n_in, io->d_in[0], beside, io->d_in[0]);
    else if (io->adds[0])
        s->passes->add(s->n_in, io->d_in[0], beside, io->d_in[0]);
}

static void run_weights(const struct train_state *s, const struct train_io *io) {
    char *scratch = io->scratch;
    float *beside = (float *)(void *)(scratch + s->at_extra), *packed = (float *)(void *)(scratch + s->at_dw);
    float *bias = (float *)(void *)(scratch + s->at_bias);
    float *d_weights = io->d_in[1], *d_bias = s->has_bias ? io->d_in[2] : NULL;

    onednn_prim_run(s->weights, (void *[]){input(io->in[0]), input(io->d_out[0]), packed, bias}, scratch);
    if (d_weights) {
        onednn_prim_run(s->unpack, (void *[]){packed, io->adds[1] ? beside : d_weights}, scratch);
        if (io->adds[1])
            train_store(d_weights, beside, s->n_weights, true);
    }
    if (d_bias)
        train_store(d_bias, bias, s->n_bias, io->adds[2]);
}

static void conv_backward(const struct train_state *s, const struct train_io *io, int phase) {
    (void)phase;
    onednn_enter();
    if (s->weights)
        run_weights(s, io);
    if (s->data && io->d_in[0])
        run_data(s, io);
}

const struct train_kernel train_conv = {
    .name = "conv_onednn",
    .op_types = (const char *const[]){"Conv", NULL},
    .fits = conv_fits,
    .prepare = conv_prepare,
    .pack = conv_pack,
    .n_forward = 1,
    .n_backward = 1,
    .forward = conv_forward,
    .backward = conv_backward,
    .done = conv_done,
    .saves_in = true,
};
