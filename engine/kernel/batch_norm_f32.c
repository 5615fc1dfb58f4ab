/* BatchNormalization that no layer before it could take: y = x a[c] + b[c], in either layout. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/kernel/isa.h"
#include "engine/kernel/rows.h"
#include "engine/ops/norm.h"

typedef void scale_fn(const float *x, const float *a, const float *b, float *y, int64_t n, int64_t step);

struct kernel_state {
    int64_t outer, c, inner; /* x[outer][c][inner]; channels last: inner is 1 */
    scale_fn *fn;
    float ab[]; /* a[c], b[c] */
};

/* step 1: a and b move on with x; 0: they stay. */
KERNEL_INLINE void scale_body(
    const float *x, const float *a, const float *b, float *y, int64_t n, int64_t step) {
    if (step) {
        for (int64_t i = 0; i < n; i++)
            y[i] = x[i] * a[i] + b[i];
    } else {
        const float factor = *a, term = *b;

        for (int64_t i = 0; i < n; i++)
            y[i] = x[i] * factor + term;
    }
}

static void scale_c(const float *x, const float *a, const float *b, float *y, int64_t n, int64_t step) {
    scale_body(x, a, b, y, n, step);
}

KERNEL_AVX2 static void scale_avx2(
    const float *x, const float *a, const float *b, float *y, int64_t n, int64_t step) {
    scale_body(x, a, b, y, n, step);
}

KERNEL_AVX512 static void scale_avx512(
    const float *x, const float *a, const float *b, float *y, int64_t n, int64_t step) {
    scale_body(x, a, b, y, n, step);
}

static bool batch_norm_fits(const struct cpu *cpu, const struct layer *l) {
    (void)cpu;
    if (l->n_in != 5 || l->n_out != 1 || l->in[0]->data || l->in[0]->shape.rank < 2 ||
        l->in[0]->dtype != DT_F32 || l->out[0].dtype != DT_F32 || node_attr_int(l->node, "training_mode", 0))
        return false;
    for (int i = 1; i < 5; i++) {
        if (!l->in[i]->data || l->in[i]->dtype != DT_F32 || l->in[i]->shape.rank != 1 ||
            l->in[i]->shape.dim[0] != l->in[0]->shape.dim[1])
            return false;
    }
    return true;
}

static float constant_at(const struct layer *l, int input, int64_t i) {
    float v;

    memcpy(&v, (const char *)l->in[input]->data + (size_t)i * sizeof(v), sizeof(v));
    return v;
}

static int batch_norm_prepare(const struct layer *l, struct pack_cache *packs, struct kernel_state **ret,
    size_t *ret_scratch, struct error *err) {
    const struct shape *x = &l->in[0]->shape;
    const struct batch_norm_param *p = l->node->param;
    struct kernel_state *s = calloc(1, sizeof(*s) + 2 * (size_t)x->dim[1] * sizeof(float));
    int64_t pixels = 1;

    (void)packs;
    (void)ret_scratch;
    if (!s)
        return error_oom(err);
    for (int d = 2; d < x->rank; d++)
        pixels *= x->dim[d];
    s->c = x->dim[1];
    s->inner = l->in_type[0].layout == LAYOUT_NHWC ? 1 : pixels;
    s->outer = x->dim[0] * pixels / s->inner;
    s->fn = l->cpu->avx512 ? scale_avx512 : l->cpu->avx2 ? scale_avx2 : scale_c;
    for (int64_t c = 0; c < s->c; c++) {
        s->ab[c] = constant_at(l, 1, c) / sqrtf(constant_at(l, 4, c) + p->epsilon);
        s->ab[s->c + c] = constant_at(l, 2, c) - constant_at(l, 3, c) * s->ab[c];
    }
    *ret = s;
    return 0;
}

static void batch_norm_run(const struct kernel_state *s, const struct run_io *io) {
    const float *x = io->in[0], *a = s->ab, *b = s->ab + s->c;
    float *y = io->out[0];

    for (int64_t i = 0; i < s->outer; i++) {
        if (s->inner == 1) {
            s->fn(x + i * s->c, a, b, y + i * s->c, s->c, 1);
            continue;
        }
        for (int64_t c = 0; c < s->c; c++) {
            int64_t at = (i * s->c + c) * s->inner;

            s->fn(x + at, a + c, b + c, y + at, s->inner, 0);
        }
    }
}

static struct kernel_state *batch_norm_done(struct kernel_state *s) {
    free(s);
    return NULL;
}

const struct kernel kernel_batch_norm_f32 = {
    .name = "batch_norm_f32",
    .op_types = (const char *const[]){"BatchNormalization", NULL},
    .fits = batch_norm_fits,
    .layouts = {.in = 1u << LAYOUT_NHWC | 1u << LAYOUT_PLAIN, .out = 1u << LAYOUT_NHWC | 1u << LAYOUT_PLAIN},
    .can_run_in_place = true,
    .prepare = batch_norm_prepare,
    .run = batch_norm_run,
    .done = batch_norm_done,
};
