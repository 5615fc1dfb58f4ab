/* Transpose of any type of whole bytes, from either layout: what lies channels last needs no conversion
 * first, and a transposition to N H W C is then a plain copy. Dimensions that stay together are one; the
 * innermost output dimension and the one that lies densely in the input are walked in tiles, so that both
 * sides use whole cache lines. */
#include <stdlib.h>
#include <string.h>

#include "engine/kernel/isa.h"
#include "engine/kernel/rows.h"

#define TILE 16

struct kernel_state {
    size_t element;
    int rank;                                           /* of what is left after joining */
    int dense;                                          /* the dimension with input stride 1 */
    int64_t size[SHAPE_MAX_RANK], from[SHAPE_MAX_RANK]; /* output sizes, input strides in elements */
    int64_t to[SHAPE_MAX_RANK];                         /* output strides */
};

static bool transpose_fits(const struct cpu *cpu, const struct layer *l) {
    const struct dtype_info *info = dtype_info(l->in[0]->dtype);
    const struct quant *x = &l->in_type[0].quant, *y = &l->out_type[0].quant;

    (void)cpu;
    return info && info->bits >= 8 && l->in[0]->dtype == l->out[0].dtype && !l->in[0]->data &&
           !l->node->n_post && x->zero == y->zero && !(x->scale < y->scale) && !(x->scale > y->scale) &&
           l->in[0]->shape.rank >= 1;
}

static void read_perm(const struct layer *l, int *ret) {
    const struct attr *a = node_attr(l->node, "perm");
    int rank = l->in[0]->shape.rank;

    for (int d = 0; d < rank; d++)
        ret[d] = a && a->type == ATTR_INTS && a->n == (size_t)rank ? (int)a->ints[d] : rank - 1 - d;
}

/* Element strides of the dimensions as the tensor lies in memory. */
static void input_strides(const struct tensor *t, enum layout layout, int64_t *ret) {
    int rank = t->shape.rank;
    int64_t stride = 1;

    if (layout == LAYOUT_NHWC && rank > 2) {
        ret[1] = 1;
        stride = t->shape.dim[1];
    }
    for (int d = rank - 1; d >= 0; d--) {
        if (layout == LAYOUT_NHWC && rank > 2 && d == 1)
            continue;
        ret[d] = stride;
        stride *= t->shape.dim[d];
    }
}

static int transpose_prepare(const struct layer *l, struct pack_cache *packs, struct kernel_state **ret,
    size_t *ret_scratch, struct error *err) {
    const struct shape *y = &l->out[0].shape;
    int64_t stride[SHAPE_MAX_RANK], to = 1;
    struct kernel_state *s = calloc(1, sizeof(*s));
    int perm[SHAPE_MAX_RANK];

    (void)packs;
    (void)ret_scratch;
    if (!s)
        return error_oom(err);
    read_perm(l, perm);
    input_strides(l->in[0], l->in_type[0].layout, stride);
    s->element = dtype_info(l->in[0]->dtype)->bits / 8;
    for (int d = 0; d < y->rank; d++) {
        int64_t from = stride[perm[d]], size = y->dim[d];

        if (size == 1)
            continue;
        if (s->rank && s->from[s->rank - 1] == from * size) {
            s->size[s->rank - 1] *= size;
            s->from[s->rank - 1] = from;
            continue;
        }
        s->size[s->rank] = size;
        s->from[s->rank++] = from;
    }
    if (s->rank == 0) {
        s->size[0] = s->from[0] = 1;
        s->rank = 1;
    }
    for (int d = s->rank - 1; d >= 0; d--) {
        s->to[d] = to;
        to *= s->size[d];
        if (s->from[d] == 1)
            s->dense = d;
    }
    *ret = s;
    return 0;
}

/* y[i * to][k] = x[i][k * from] for a plane: i along the dense input dimension, k along the output's
 * innermost. */
KERNEL_INLINE void plane_body(
    const char *x, char *y, int64_t n_i, int64_t n_k, int64_t to, int64_t from, size_t size) {
    for (int64_t i0 = 0; i0 < n_i; i0 += TILE) {
        int64_t i1 = i0 + TILE < n_i ? i0 + TILE : n_i;

        for (int64_t k0 = 0; k0 < n_k; k0 += TILE) {
            int64_t k1 = k0 + TILE < n_k ? k0 + TILE : n_k;

            for (int64_t i = i0; i < i1; i++) {
                for (int64_t k = k0; k < k1; k++)
                    memcpy(y + (size_t)(i * to + k) * size, x + (size_t)(i + k * from) * size, size);
            }
        }
    }
}

static void copy_plane(
    const char *x, char *y, int64_t n_i, int64_t n_k, int64_t to, int64_t from, size_t size) {
    switch (size) {
    case 1: plane_body(x, y, n_i, n_k, to, from, 1); break;
    case 2: plane_body(x, y, n_i, n_k, to, from, 2); break;
    case 4: plane_body(x, y, n_i, n_k, to, from, 4); break;
    default: plane_body(x, y, n_i, n_k, to, from, size); break;
    }
}

static void transpose_run(const struct kernel_state *s, const struct run_io *io) {
    const char *x = io->in[0];
    char *y = io->out[0];
    int last = s->rank - 1, d;
    int64_t at[SHAPE_MAX_RANK] = {0};

    do {
        if (s->dense == last)
            memcpy(y, x, (size_t)s->size[last] * s->element);
        else
            copy_plane(x, y, s->size[s->dense], s->size[last], s->to[s->dense], s->from[last], s->element);
        for (d = last - 1; d >= 0; d--) {
            if (d == s->dense)
                continue;
            x += (size_t)s->from[d] * s->element;
            y += (size_t)s->to[d] * s->element;
            if (++at[d] < s->size[d])
                break;
            x -= (size_t)(s->from[d] * s->size[d]) * s->element;
            y -= (size_t)(s->to[d] * s->size[d]) * s->element;
            at[d] = 0;
        }
    } while (d >= 0);
}

static struct kernel_state *transpose_done(struct kernel_state *s) {
    free(s);
    return NULL;
}

const struct kernel kernel_transpose_copy = {
    .name = "transpose_copy",
    .op_types = (const char *const[]){"Transpose", NULL},
    .fits = transpose_fits,
    .layouts = {.in = 1u << LAYOUT_NHWC | 1u << LAYOUT_PLAIN, .out = 1u << LAYOUT_PLAIN, .free_out = true},
    .prepare = transpose_prepare,
    .run = transpose_run,
    .done = transpose_done,
};
