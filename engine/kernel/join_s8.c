/* Add, Sub and Mul of two quantised values, each with its own scale:
 *
 *     sum:      (a - za) sa/sy + (b - zb) sb/sy         product:  (a - za)(b - zb) sa sb/sy
 *
 * The second operand may be one number a channel (squeeze and excitation): y[n][pixel][c] = a[n][pixel][c] o
 * b[n or 0][c]. */
#include "engine/kernel/s8_vector.h"

#include <stdlib.h>
#include <string.h>

#include "engine/kernel/rows.h"
#include "engine/kernel/s8.h"

struct join {
    int32_t za, zb;
    float ra, rb; /* of a sum; of a product: ra */
    struct s8_output out;
};

typedef void join_fn(const struct join *j, const uint8_t *a, const uint8_t *b, uint8_t *y, int64_t n);

struct kernel_state {
    struct join j;
    join_fn *run;
    int a, b;                    /* which input is which: b may be spread */
    int64_t n, pixels, run_size; /* of y[n][pixel][run] */
    int64_t b_image;             /* step of b from image to image */
};

S8_LOOP join_sum(const struct join *j, const uint8_t *a, const uint8_t *b, uint8_t *y, int64_t n) {
    const struct join k = *j;

    for (int64_t i = 0; i < n; i++)
        y[i] = s8_encode((float)(a[i] - k.za) * k.ra + (float)(b[i] - k.zb) * k.rb, &k.out);
}
S8_CLONES(join_sum, (const struct join *j, const uint8_t *a, const uint8_t *b, uint8_t *y, int64_t n),
    (j, a, b, y, n))

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
    if (same0 && same1)
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
        s->run = S8_PICK(join_sum, l->cpu);
        if (strcmp(l->node->op_type, "Sub") == 0)
            *(s->b == 1 ? &s->j.rb : &s->j.ra) *= -1;
    }
    *ret = s;
    return 0;
}

static void join_run(const struct kernel_state *s, const struct run_io *io) {
    const uint8_t *a = io->in[s->a], *b = io->in[s->b];
    uint8_t *y = io->out[0];

    for (int64_t n = 0; n < s->n; n++)
        for (int64_t p = 0; p < s->pixels; p++) {
            s->run(&s->j, a, b + n * s->b_image, y, s->run_size);
            a += s->run_size;
            y += s->run_size;
        }
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
