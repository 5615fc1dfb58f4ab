/* Add, Sub and Mul of two quantised values, each with its own scale:
 *
 *     sum:      (a - za) sa/sy ± (b - zb) sb/sy         product:  (a - za)(b - zb) sa sb/sy
 *
 * (Zero points are taken off before multiplying: sums that lie half-way between two codes stay so.)
 *
 * The second operand may be one number a channel (squeeze and excitation): y[n][pixel][c] = a[n][pixel][c] o
 * b[n or 0][c]. */
#include "engine/kernel/s8_vector.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "engine/kernel/rows.h"
#include "engine/kernel/s8.h"

struct join {
    int32_t za, zb;
    float ra, rb; /* of a product: ra */
    struct s8_output out;
};

typedef void join_fn(const struct join *j, const uint8_t *a, const uint8_t *b, uint8_t *y, int64_t n);

struct kernel_state {
    struct join j;
    join_fn *run;
    int a, b;                    /* which input is which: b may be spread */
    int64_t n, pixels, run_size; /* of y[n][pixel][run] */
    int64_t b_image;             /* step of b from image to image */
    bool is_same;                /* one shape: n and pixels are 1 */
};

S8_LOOP join_sum(const struct join *j, const uint8_t *a, const uint8_t *b, uint8_t *y, int64_t n) {
    const struct join k = *j;

    for (int64_t i = 0; i < n; i++)
        y[i] = s8_encode((float)(a[i] - k.za) * k.ra + (float)(b[i] - k.zb) * k.rb, &k.out);
}
S8_CLONES(join_sum, (const struct join *j, const uint8_t *a, const uint8_t *b, uint8_t *y, int64_t n),
    (j, a, b, y, n))

#if defined(__x86_64__)
#define TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl")))
#define INLINE static inline __attribute__((always_inline)) TARGET

INLINE __m512 scaled(const uint8_t *p, int32_t zero, float ratio) {
    const __m512i codes = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)p));

    return _mm512_mul_ps(
        _mm512_cvtepi32_ps(_mm512_sub_epi32(codes, _mm512_set1_epi32(zero))), _mm512_set1_ps(ratio));
}

INLINE __m512i sum16(const struct join *j, const uint8_t *a, const uint8_t *b) {
    return _mm512_cvtps_epi32(_mm512_add_ps(scaled(a, j->za, j->ra), scaled(b, j->zb, j->rb)));
}

/* The same with the clamp behind the rounding, on bytes; ratios must be such that no sum leaves int32. */
TARGET static void join_sum_tame(
    const struct join *j, const uint8_t *a, const uint8_t *b, uint8_t *y, int64_t n) {
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    const __m512i zero = _mm512_set1_epi16((int16_t)j->out.zero);
    const __m512i low = _mm512_set1_epi8((char)j->out.low_code),
                  high = _mm512_set1_epi8((char)j->out.high_code);
    int64_t i = 0;

    for (; i + 64 <= n; i += 64) {
        __m512i p = _mm512_packs_epi32(sum16(j, a + i, b + i), sum16(j, a + i + 16, b + i + 16));
        __m512i q = _mm512_packs_epi32(sum16(j, a + i + 32, b + i + 32), sum16(j, a + i + 48, b + i + 48));

        p = _mm512_packus_epi16(_mm512_adds_epi16(p, zero), _mm512_adds_epi16(q, zero));
        p = _mm512_min_epu8(_mm512_max_epu8(p, low), high);
        _mm512_storeu_si512(y + i, _mm512_permutexvar_epi32(order, p));
    }
    join_sum_avx512(j, a + i, b + i, y + i, n - i);
}

#define TAME_RATIO 1e6f

static join_fn *pick_sum(const struct join *j, const struct cpu *cpu) {
    bool is_tame = fabsf(j->ra) < TAME_RATIO && fabsf(j->rb) < TAME_RATIO;

    return cpu->avx512 && is_tame ? join_sum_tame : S8_PICK(join_sum, cpu);
}
#else
static join_fn *pick_sum(const struct join *j, const struct cpu *cpu) {
    (void)j;
    return S8_PICK(join_sum, cpu);
}
#endif

S8_LOOP join_product(const struct join *j, const uint8_t *a, const uint8_t *b, uint8_t *y, int64_t n) {
    const struct join k = *j;

    for (int64_t i = 0; i < n; i++)
        y[i] = s8_encode((float)((a[i] - k.za) * (b[i] - k.zb)) * k.ra, &k.out);
}
S8_CLONES(join_product, (const struct join *j, const uint8_t *a, const uint8_t *b, uint8_t *y, int64_t n),
    (j, a, b, y, n))

/* Dimensions of `s` aligned at the back to rank `rank`. */
static int64_t dim_at(const struct shape *s, int rank, int i) {
    int k = i - (rank - s->rank);

    return k < 0 ? 1 : s->dim[k];
}

/* Is `b` one number a channel of `y` (perhaps for each image)? Channels are what lies innermost: dimension 1
 * channels last, else the last. */
static bool spreads(const struct layer *l, int b, struct kernel_state *s) {
    const struct shape *y = &l->out[0].shape, *x = &l->in[b]->shape;
    bool is_nhwc = l->out_type[0].layout == LAYOUT_NHWC && y->rank > 2;
    int channel = is_nhwc ? 1 : y->rank - 1;
    int64_t per_image;

    if (y->rank < 2)
        return false;
    per_image = dim_at(x, y->rank, 0);
    for (int i = 1; i < y->rank; i++)
        if (dim_at(x, y->rank, i) != (i == channel ? y->dim[i] : 1))
            return false;
    if (per_image != 1 && per_image != y->dim[0])
        return false;
    s->n = y->dim[0];
    s->run_size = y->dim[channel];
    s->pixels = 1;
    for (int i = 1; i < y->rank; i++)
        if (i != channel)
            s->pixels *= y->dim[i];
    s->b_image = per_image == 1 ? 0 : s->run_size;
    return true;
}

static bool join_shape(const struct layer *l, struct kernel_state *s) {
    const struct shape *y = &l->out[0].shape;
    bool same0 = shape_equal(&l->in[0]->shape, y), same1 = shape_equal(&l->in[1]->shape, y);

    s->a = same0 ? 0 : 1;
    s->b = 1 - s->a;
    s->n = s->pixels = 1;
    s->is_same = same0 && same1;
    if (s->is_same)
        return shape_count(y, &s->run_size);
    return (same0 || same1) && spreads(l, s->b, s);
}

static bool is_product(const struct layer *l) {
    return strcmp(l->node->op_type, "Mul") == 0;
}

static bool join_fits(const struct cpu *cpu, const struct layer *l) {
    struct kernel_state s = {0};

    (void)cpu;
    if (l->n_in != 2 || !l->in[0] || !l->in[1] || !s8_is_codes(&l->in_type[0]) ||
        !s8_is_codes(&l->in_type[1]) || !s8_is_codes(&l->out_type[0]) || !s8_output_init(l, &s.j.out))
        return false;
    /* a constant lies in ONNX order: as the others do only where that is theirs */
    for (int i = 0; i < 2; i++)
        if (l->in[i]->data && l->out_type[0].layout != LAYOUT_PLAIN &&
            shape_equal(&l->in[i]->shape, &l->out[0].shape))
            return false;
    return join_shape(l, &s);
}

static int join_prepare(const struct layer *l, struct pack_cache *packs, struct kernel_state **ret,
    size_t *ret_scratch, struct error *err) {
    struct kernel_state *s = calloc(1, sizeof(*s));
    const struct quant *a, *b, *y = &l->out_type[0].quant;

    (void)packs;
    (void)ret_scratch;
    if (!s)
        return error_oom(err);
    (void)join_shape(l, s); /* fits() said it can */
    (void)s8_output_init(l, &s->j.out);
    a = &l->in_type[s->a].quant;
    b = &l->in_type[s->b].quant;
    s->j.za = a->zero;
    s->j.zb = b->zero;
    if (is_product(l)) {
        s->j.ra = a->scale * b->scale / y->scale;
        s->run = S8_PICK(join_product, l->cpu);
    } else {
        s->j.ra = a->scale / y->scale;
        s->j.rb = b->scale / y->scale;
        if (strcmp(l->node->op_type, "Sub") == 0)
            *(s->b == 1 ? &s->j.rb : &s->j.ra) *= -1;
        s->run = pick_sum(&s->j, l->cpu);
    }
    *ret = s;
    return 0;
}

/* Elements first to end of operands of one shape. */
static void same_range(
    const struct kernel_state *s, const struct run_io *io, unsigned part, int64_t first, int64_t end) {
    const uint8_t *a = io->in[s->a], *b = io->in[s->b];

    (void)part;
    s->run(&s->j, a + first, b + first, (uint8_t *)io->out[0] + first, end - first);
}

/* Pixels first to end, of all images. */
static void spread_range(
    const struct kernel_state *s, const struct run_io *io, unsigned part, int64_t first, int64_t end) {
    const uint8_t *a = io->in[s->a], *b = io->in[s->b];
    uint8_t *y = io->out[0];

    (void)part;
    for (int64_t p = first; p < end; p++)
        s->run(&s->j, a + p * s->run_size, b + p / s->pixels * s->b_image, y + p * s->run_size, s->run_size);
}

static void join_run(const struct kernel_state *s, const struct run_io *io) {
    int64_t rows = s->n * s->pixels;

    if (s->is_same)
        s8_run_ranges(s, io, same_range, s->run_size, 64, s->run_size);
    else
        s8_run_ranges(s, io, spread_range, rows, 1, rows * s->run_size);
}

static struct kernel_state *join_done(struct kernel_state *s) {
    free(s);
    return NULL;
}

static const char *const join_ops[] = {"Add", "Mul", "Sub", NULL};

const struct kernel kernel_join_s8 = {
    .name = "join_s8",
    .op_types = join_ops,
    .fits = join_fits,
    .layouts = {.in = 1u << LAYOUT_PLAIN | 1u << LAYOUT_NHWC, .out = 1u << LAYOUT_PLAIN | 1u << LAYOUT_NHWC},
    .max_posts = NODE_MAX_POSTS,
    .reads_constants = true,
    .can_run_in_place = true,
    .prepare = join_prepare,
    .run = join_run,
    .done = join_done,
};
