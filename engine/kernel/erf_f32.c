/* Erf, and Gelu by it, on floats in any layout: erf(x) = x P(x^2) / Q(x^2) inside of [-4, 4], a rational
 * approximation good to the last bits of a float (the coefficients are Eigen's), +-1 outside. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "engine/kernel/isa.h"
#include "engine/kernel/rows.h"

typedef void erf_fn(const float *x, float *y, int64_t n);

struct kernel_state {
    int64_t n;
    erf_fn *fn;
};

KERNEL_INLINE float erf_of(float x) {
    float c = x < -4 ? -4 : x > 4 ? 4 : x, q = c * c, p, d;

    p = -2.72614225801306e-10f;
    p = p * q + 2.77068142495902e-08f;
    p = p * q - 2.10102402082508e-06f;
    p = p * q - 5.69250639462346e-05f;
    p = p * q - 7.34990630326855e-04f;
    p = p * q - 2.95459980854025e-03f;
    p = p * q - 1.60960333262415e-02f;
    d = -1.45660718464996e-05f;
    d = d * q - 2.13374055278905e-04f;
    d = d * q - 1.68282697438203e-03f;
    d = d * q - 7.37332916720468e-03f;
    d = d * q - 1.42647390514189e-02f;
    return c * p / d;
}

KERNEL_INLINE void erf_body(const float *x, float *y, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        y[i] = erf_of(x[i]);
}

KERNEL_INLINE void gelu_body(const float *x, float *y, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        y[i] = 0.5f * x[i] * (1.0f + erf_of(x[i] * 0.70710678f));
}

static void erf_c(const float *x, float *y, int64_t n) {
    erf_body(x, y, n);
}

KERNEL_AVX2 static void erf_avx2(const float *x, float *y, int64_t n) {
    erf_body(x, y, n);
}

KERNEL_AVX512 static void erf_avx512(const float *x, float *y, int64_t n) {
    erf_body(x, y, n);
}

static void gelu_c(const float *x, float *y, int64_t n) {
    gelu_body(x, y, n);
}

KERNEL_AVX2 static void gelu_avx2(const float *x, float *y, int64_t n) {
    gelu_body(x, y, n);
}

KERNEL_AVX512 static void gelu_avx512(const float *x, float *y, int64_t n) {
    gelu_body(x, y, n);
}

static bool erf_fits(const struct cpu *cpu, const struct layer *l) {
    (void)cpu;
    return l->in[0]->dtype == DT_F32 && l->out[0].dtype == DT_F32 && !l->in[0]->data && l->n_out == 1 &&
           !l->node->n_post && shape_equal(&l->in[0]->shape, &l->out[0].shape) &&
           !strcmp(node_attr_string(l->node, "approximate", "none"), "none");
}

static int erf_prepare(const struct layer *l, struct pack_cache *packs, struct kernel_state **ret,
    size_t *ret_scratch, struct error *err) {
    bool is_gelu = !strcmp(l->node->op_type, "Gelu");
    struct kernel_state *s = calloc(1, sizeof(*s));

    (void)packs;
    (void)ret_scratch;
    if (!s)
        return error_oom(err);
    (void)shape_count(&l->in[0]->shape, &s->n);
    if (l->cpu->avx512)
        s->fn = is_gelu ? gelu_avx512 : erf_avx512;
    else if (l->cpu->avx2)
        s->fn = is_gelu ? gelu_avx2 : erf_avx2;
    else
        s->fn = is_gelu ? gelu_c : erf_c;
    *ret = s;
    return 0;
}

static void erf_run(const struct kernel_state *s, const struct run_io *io) {
    s->fn(io->in[0], io->out[0], s->n);
}

static struct kernel_state *erf_done(struct kernel_state *s) {
    free(s);
    return NULL;
}

const struct kernel kernel_erf_f32 = {
    .name = "erf_f32",
    .op_types = (const char *const[]){"Erf", "Gelu", NULL},
    .fits = erf_fits,
    .layouts = {.in = 1u << LAYOUT_NHWC | 1u << LAYOUT_PLAIN, .out = 1u << LAYOUT_NHWC | 1u << LAYOUT_PLAIN},
    .can_run_in_place = true,
    .prepare = erf_prepare,
    .run = erf_run,
    .done = erf_done,
};
