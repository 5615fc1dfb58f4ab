/* Add, Sub, Mul, Div, Max, Min, PRelu of two float tensors with broadcasting, in any layout of whole
 * elements. Dimensions are put in the order they are stored in and neighbours that move together become one,
 * so that an image plus an image is one loop, and an image times a value per channel two. A clamp (Relu,
 * Clip) may follow. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/kernel/isa.h"
#include "engine/kernel/rows.h"
#include "engine/ops/binary_fn.h"

enum binary { BINARY_ADD, BINARY_SUB, BINARY_MUL, BINARY_DIV, BINARY_MAX, BINARY_MIN, BINARY_PRELU };

static const char *const binary_ops[] = {"Add", "Sub", "Mul", "Div", "Max", "Min", "PRelu", NULL};

struct clamp {
    bool on;
    float low, high;
};

typedef void binary_fn(enum binary op, const float *a, int64_t sa, const float *b, int64_t sb, float *y,
    int64_t n, const struct clamp *c);

struct kernel_state {
    enum binary op;
    int rank;
    int64_t size[SHAPE_MAX_RANK];      /* the last is the inner loop */
    int64_t stride[2][SHAPE_MAX_RANK]; /* in elements, of a and b; y is dense */
    struct clamp clamp;
    binary_fn *fn;
};

static int op_of(const struct layer *l) {
    for (int i = 0; binary_ops[i]; i++) {
        if (strcmp(binary_ops[i], l->node->op_type) == 0)
            return i;
    }
    return -1;
}

static bool has_clamps(const struct layer *l) {
    for (int i = 0; i < l->node->n_post; i++) {
        if (!l->node->post[i].op->is_clamp)
            return false;
    }
    return true;
}

static bool binary_fits(const struct cpu *cpu, const struct layer *l) {
    (void)cpu;
    if (l->n_in != 2 || !l->in[0] || !l->in[1] || l->in[0]->dtype != DT_F32 || l->in[1]->dtype != DT_F32 ||
        l->out[0].dtype != DT_F32 || l->node->weight || binary_fn_of(l->node)->by_channel)
        return false;
    /* below the output's rank a tensor has no channels in dimension 1: only constants are stored plainly then
     */
    for (int i = 0; i < 2; i++) {
        if (l->out_type[0].layout != LAYOUT_PLAIN && l->in[i]->shape.rank != l->out[0].shape.rank &&
            !l->in[i]->data)
            return false;
    }
    return has_clamps(l);
}

/* Dimensions of `rank` in the order they are stored. */
static void stored_order(int rank, enum layout l, int *ret) {
    for (int d = 0; d < rank; d++)
        ret[d] = d;
    if (l != LAYOUT_NHWC || rank < 3)
        return;
    for (int d = 1; d < rank - 1; d++)
        ret[d] = d + 1;
    ret[rank - 1] = 1;
}

/* Strides of tensor `t` along the output's dimensions; 0 where it is repeated. */
static void strides_of(const struct tensor *t, enum layout layout, int rank, int64_t *ret) {
    int order[SHAPE_MAX_RANK], shift = rank - t->shape.rank;
    int64_t stride = 1;

    stored_order(t->shape.rank, layout, order);
    for (int d = 0; d < rank; d++)
        ret[d] = 0;
    for (int k = t->shape.rank; k-- > 0;) {
        int64_t size = t->shape.dim[order[k]];

        ret[order[k] + shift] = size == 1 ? 0 : stride;
        stride *= size;
    }
}

/* Joins dimension `d` into the one before it when both operands move on as over one long dimension. */
static void collapse(struct kernel_state *s) {
    int n = 1;

    for (int d = 1; d < s->rank; d++) {
        bool joined = true;

        for (int i = 0; i < 2; i++)
            joined = joined && s->stride[i][n - 1] == s->stride[i][d] * s->size[d];
        if (joined) {
            s->size[n - 1] *= s->size[d];
        } else {
            s->size[n] = s->size[d];
            n++;
        }
        for (int i = 0; i < 2; i++)
            s->stride[i][n - 1] = s->stride[i][d];
    }
    s->rank = n;
}

KERNEL_INLINE float binary_apply(enum binary op, float a, float b) {
    switch (op) {
    case BINARY_ADD: return a + b;
    case BINARY_SUB: return a - b;
    case BINARY_MUL: return a * b;
    case BINARY_DIV: return a / b;
    case BINARY_MAX: return a > b || a != a ? a : b;
    case BINARY_MIN: return a < b || a != a ? a : b;
    case BINARY_PRELU: return a < 0 ? a * b : a;
    }
    return 0;
}

KERNEL_INLINE float clamp_apply(const struct clamp *c, float v) {
    v = v < c->low ? c->low : v;
    return v > c->high ? c->high : v;
}

KERNEL_INLINE void binary_loop(enum binary op, const float *a, int64_t sa, const float *b, int64_t sb,
    float *y, int64_t n, const struct clamp *c) {
    if (c->on) {
        for (int64_t i = 0; i < n; i++)
            y[i] = clamp_apply(c, binary_apply(op, a[i * sa], b[i * sb]));
    } else {
        for (int64_t i = 0; i < n; i++)
            y[i] = binary_apply(op, a[i * sa], b[i * sb]);
    }
}

/* With the strides known to the compiler the common cases become vector loops. */
KERNEL_INLINE void binary_strides(enum binary op, const float *a, int64_t sa, const float *b, int64_t sb,
    float *y, int64_t n, const struct clamp *c) {
    if (sa == 1 && sb == 1)
        binary_loop(op, a, 1, b, 1, y, n, c);
    else if (sa == 1 && sb == 0)
        binary_loop(op, a, 1, b, 0, y, n, c);
    else if (sa == 0 && sb == 1)
        binary_loop(op, a, 0, b, 1, y, n, c);
    else
        binary_loop(op, a, sa, b, sb, y, n, c);
}

KERNEL_INLINE void binary_body(enum binary op, const float *a, int64_t sa, const float *b, int64_t sb,
    float *y, int64_t n, const struct clamp *c) {
    switch (op) {
    case BINARY_ADD: binary_strides(BINARY_ADD, a, sa, b, sb, y, n, c); break;
    case BINARY_SUB: binary_strides(BINARY_SUB, a, sa, b, sb, y, n, c); break;
    case BINARY_MUL: binary_strides(BINARY_MUL, a, sa, b, sb, y, n, c); break;
    case BINARY_DIV: binary_strides(BINARY_DIV, a, sa, b, sb, y, n, c); break;
    case BINARY_MAX: binary_strides(BINARY_MAX, a, sa, b, sb, y, n, c); break;
    case BINARY_MIN: binary_strides(BINARY_MIN, a, sa, b, sb, y, n, c); break;
    case BINARY_PRELU: binary_strides(BINARY_PRELU, a, sa, b, sb, y, n, c); break;
    }
}

static void binary_c(enum binary op, const float *a, int64_t sa, const float *b, int64_t sb, float *y,
    int64_t n, const struct clamp *c) {
    binary_body(op, a, sa, b, sb, y, n, c);
}

KERNEL_AVX2 static void binary_avx2(enum binary op, const float *a, int64_t sa, const float *b, int64_t sb,
    float *y, int64_t n, const struct clamp *c) {
    binary_body(op, a, sa, b, sb, y, n, c);
}

KERNEL_AVX512 static void binary_avx512(enum binary op, const float *a, int64_t sa, const float *b,
    int64_t sb, float *y, int64_t n, const struct clamp *c) {
    binary_body(op, a, sa, b, sb, y, n, c);
}

static void read_clamp(const struct layer *l, struct clamp *ret) {
    *ret = (struct clamp){.on = l->node->n_post > 0, .low = -INFINITY, .high = INFINITY};
    for (int i = 0; i < l->node->n_post; i++) {
        const struct post *p = &l->node->post[i];
        bool relu = strcmp(p->op->name, "Relu") == 0;
        float low = relu ? 0 : p->alpha, high = relu ? INFINITY : p->beta;

        /* clamps one after the other are one: both bounds pass through the later one */
        ret->low = fminf(fmaxf(ret->low, low), high);
        ret->high = fminf(fmaxf(ret->high, low), high);
    }
}

static int binary_prepare(const struct layer *l, struct pack_cache *packs, struct kernel_state **ret,
    size_t *ret_scratch, struct error *err) {
    const struct shape *y = &l->out[0].shape;
    int64_t stride[2][SHAPE_MAX_RANK];
    int order[SHAPE_MAX_RANK];
    struct kernel_state *s = calloc(1, sizeof(*s));

    (void)packs;
    (void)ret_scratch;
    if (!s)
        return error_oom(err);
    s->op = (enum binary)op_of(l);
    s->fn = l->cpu->avx512 ? binary_avx512 : l->cpu->avx2 ? binary_avx2 : binary_c;
    read_clamp(l, &s->clamp);
    for (int i = 0; i < 2; i++)
        strides_of(l->in[i], l->in_type[i].layout, y->rank, stride[i]);
    stored_order(y->rank, l->out_type[0].layout, order);
    for (int k = 0; k < y->rank; k++) {
        if (y->dim[order[k]] == 1)
            continue;
        s->size[s->rank] = y->dim[order[k]];
        for (int i = 0; i < 2; i++)
            s->stride[i][s->rank] = stride[i][order[k]];
        s->rank++;
    }
    if (s->rank == 0)
        s->size[s->rank++] = 1;
    collapse(s);
    *ret = s;
    return 0;
}

static void binary_run(const struct kernel_state *s, const struct run_io *io) {
    const float *a = io->in[0], *b = io->in[1];
    int64_t at[SHAPE_MAX_RANK] = {0}, n = s->size[s->rank - 1];
    float *y = io->out[0];
    int d;

    do {
        s->fn(s->op, a, s->stride[0][s->rank - 1], b, s->stride[1][s->rank - 1], y, n, &s->clamp);
        y += n;
        for (d = s->rank - 2; d >= 0; d--) {
            a += s->stride[0][d];
            b += s->stride[1][d];
            if (++at[d] < s->size[d])
                break;
            a -= s->stride[0][d] * s->size[d];
            b -= s->stride[1][d] * s->size[d];
            at[d] = 0;
        }
    } while (d >= 0);
}

static struct kernel_state *binary_done(struct kernel_state *s) {
    free(s);
    return NULL;
}

const struct kernel kernel_binary_f32 = {
    .name = "binary_f32",
    .op_types = binary_ops,
    .fits = binary_fits,
    .layouts = {.in = 1u << LAYOUT_NHWC | 1u << LAYOUT_PLAIN, .out = 1u << LAYOUT_NHWC | 1u << LAYOUT_PLAIN},
    .max_posts = NODE_MAX_POSTS,
    .reads_constants = true,
    .prepare = binary_prepare,
    .run = binary_run,
    .done = binary_done,
};
