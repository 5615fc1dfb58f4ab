/* Where floats become codes and codes floats: QuantizeLinear, which also turns an NCHW picture into NHWC
 * codes in one pass, and DequantizeLinear. Both as ONNX has them: round_half_even(x / scale) + zero,
 * saturated. */
#include "engine/kernel/s8_vector.h"

#include <stdlib.h>
#include <string.h>

#include "engine/kernel/rows.h"
#include "engine/kernel/s8.h"

#define CHUNK 512 /* pixels turned at a time */

struct kernel_state {
    float scale;
    struct s8_output out;
    int32_t zero;
    bool turns;           /* PLAIN in, NHWC out */
    int64_t n, c, pixels; /* not turning: n numbers in all */
    void (*encode)(const struct s8_output *o, float scale, const float *x, uint8_t *y, int64_t n);
    void (*decode)(float scale, int32_t zero, const uint8_t *x, float *y, int64_t n);
    void (*turn)(const uint8_t *planes, uint8_t *y, int64_t n);
};

S8_LOOP border_encode(const struct s8_output *o, float scale, const float *x, uint8_t *y, int64_t n) {
    const struct s8_output k = *o;

    for (int64_t i = 0; i < n; i++)
        y[i] = s8_encode(x[i] / scale, &k);
}
S8_CLONES(border_encode, (const struct s8_output *o, float scale, const float *x, uint8_t *y, int64_t n),
    (o, scale, x, y, n))

S8_LOOP border_decode(float scale, int32_t zero, const uint8_t *x, float *y, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        y[i] = scale * (float)(x[i] - zero);
}
S8_CLONES(
    border_decode, (float scale, int32_t zero, const uint8_t *x, float *y, int64_t n), (scale, zero, x, y, n))

/* three planes of CHUNK bytes, as pictures have */
S8_LOOP border_turn3(const uint8_t *planes, uint8_t *y, int64_t n) {
    const uint8_t *r = planes, *g = r + CHUNK, *b = g + CHUNK;

    for (int64_t i = 0; i < n; i++) {
        y[3 * i] = r[i];
        y[3 * i + 1] = g[i];
        y[3 * i + 2] = b[i];
    }
}
S8_CLONES(border_turn3, (const uint8_t *planes, uint8_t *y, int64_t n), (planes, y, n))

/* Do the node's own scale and zero point say what the value's do? (One value may be read as different
 * numbers.) */
static bool params_are(const struct layer *l, struct quant q) {
    const struct tensor *scale = l->n_in > 1 ? l->in[1] : NULL, *zero = l->n_in > 2 ? l->in[2] : NULL;
    int64_t n;
    float f;

    if (!scale || !scale->data || scale->dtype != DT_F32 || !shape_count(&scale->shape, &n) || n != 1)
        return false;
    memcpy(&f, scale->data, sizeof(f));
    if (f < q.scale || f > q.scale)
        return false;
    if (!zero)
        return q.zero == 0;
    return zero->data && zero->dtype == DT_U8 && shape_count(&zero->shape, &n) && n == 1 &&
           *(const uint8_t *)zero->data == q.zero;
}

static bool quantize_fits(const struct cpu *cpu, const struct layer *l) {
    (void)cpu;
    return l->in[0] && l->in_type[0].dtype == DT_F32 && !l->in[0]->data && s8_is_codes(&l->out_type[0]) &&
           !l->node->n_post && params_are(l, l->out_type[0].quant) &&
           (l->in_type[0].layout == LAYOUT_PLAIN || l->in_type[0].layout == l->out_type[0].layout);
}

static bool dequantize_fits(const struct cpu *cpu, const struct layer *l) {
    (void)cpu;
    return l->in[0] && s8_is_codes(&l->in_type[0]) && !l->in[0]->data && l->out_type[0].dtype == DT_F32 &&
           !l->node->n_post && params_are(l, l->in_type[0].quant);
}

static int border_prepare(const struct layer *l, struct pack_cache *packs, struct kernel_state **ret,
    size_t *ret_scratch, struct error *err) {
    struct kernel_state *s = calloc(1, sizeof(*s));
    const struct shape *x = &l->in[0]->shape;
    bool encodes = l->in_type[0].dtype == DT_F32;
    struct quant q = encodes ? l->out_type[0].quant : l->in_type[0].quant;

    (void)packs;
    if (!s)
        return error_oom(err);
    s->scale = q.scale;
    s->zero = q.zero;
    s->out = (struct s8_output){.zero = q.zero, .low = (float)(0 - q.zero), .high = (float)(255 - q.zero)};
    s->encode = S8_PICK(border_encode, l->cpu);
    s->decode = S8_PICK(border_decode, l->cpu);
    s->turns = l->in_type[0].layout != l->out_type[0].layout;
    if (!s->turns) {
        (void)shape_count(x, &s->n);
    } else {
        s->n = x->dim[0];
        s->c = x->dim[1];
        s->pixels = 1;
        for (int i = 2; i < x->rank; i++)
            s->pixels *= x->dim[i];
        s->turn = s->c == 3 ? S8_PICK(border_turn3, l->cpu) : NULL;
        *ret_scratch = (size_t)s->c * CHUNK * l->n_threads;
    }
    *ret = s;
    return 0;
}

static void turn_any(const uint8_t *planes, int64_t c, uint8_t *y, int64_t n) {
    for (int64_t k = 0; k < c; k++)
        for (int64_t i = 0; i < n; i++)
            y[i * c + k] = planes[k * CHUNK + i];
}

static void encode_range(
    const struct kernel_state *s, const struct run_io *io, unsigned part, int64_t first, int64_t end) {
    (void)part;
    s->encode(
        &s->out, s->scale, (const float *)io->in[0] + first, (uint8_t *)io->out[0] + first, end - first);
}

static void decode_range(
    const struct kernel_state *s, const struct run_io *io, unsigned part, int64_t first, int64_t end) {
    (void)part;
    s->decode(
        s->scale, s->zero, (const uint8_t *)io->in[0] + first, (float *)io->out[0] + first, end - first);
}

/* Chunks first to end, of all pictures. */
static void turn_range(
    const struct kernel_state *s, const struct run_io *io, unsigned part, int64_t first, int64_t end) {
    uint8_t *planes = (uint8_t *)io->scratch + part * (size_t)s->c * CHUNK;
    int64_t per_image = (s->pixels + CHUNK - 1) / CHUNK;

    for (int64_t i = first; i < end; i++) {
        int64_t image = i / per_image * s->c * s->pixels, p = i % per_image * CHUNK;
        int64_t size = s->pixels - p < CHUNK ? s->pixels - p : CHUNK;
        uint8_t *y = (uint8_t *)io->out[0] + image + p * s->c;

        for (int64_t k = 0; k < s->c; k++)
            s->encode(&s->out, s->scale, (const float *)io->in[0] + image + k * s->pixels + p,
                planes + k * CHUNK, size);
        if (s->turn)
            s->turn(planes, y, size);
        else
            turn_any(planes, s->c, y, size);
    }
}

static void quantize_run(const struct kernel_state *s, const struct run_io *io) {
    if (s->turns)
        s8_run_ranges(
            s, io, turn_range, s->n * ((s->pixels + CHUNK - 1) / CHUNK), 1, s->n * s->c * s->pixels * 4);
    else
        s8_run_ranges(s, io, encode_range, s->n, 64, s->n * 4);
}

static void dequantize_run(const struct kernel_state *s, const struct run_io *io) {
    s8_run_ranges(s, io, decode_range, s->n, 64, s->n * 4);
}

static struct kernel_state *border_done(struct kernel_state *s) {
    free(s);
    return NULL;
}

static const char *const quantize_ops[] = {"QuantizeLinear", NULL};
static const char *const dequantize_ops[] = {"DequantizeLinear", NULL};

const struct kernel kernel_quantize_s8 = {
    .name = "quantize_s8",
    .op_types = quantize_ops,
    .fits = quantize_fits,
    .layouts = {.in = 1u << LAYOUT_PLAIN | 1u << LAYOUT_NHWC, .out = 1u << LAYOUT_NHWC, .free_out = true},
    .prepare = border_prepare,
    .run = quantize_run,
    .done = border_done,
};

const struct kernel kernel_dequantize_s8 = {
    .name = "dequantize_s8",
    .op_types = dequantize_ops,
    .fits = dequantize_fits,
    .layouts = {.in = 1u << LAYOUT_PLAIN | 1u << LAYOUT_NHWC, .out = 1u << LAYOUT_PLAIN | 1u << LAYOUT_NHWC},
    .prepare = border_prepare,
    .run = dequantize_run,
    .done = border_done,
};
