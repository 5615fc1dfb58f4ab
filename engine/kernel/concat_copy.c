/* Concat by copying runs, in any layout of whole elements and any type; all tensors share one quantisation.
 *
 *   y[outer][sum of runs] = x0[outer][run 0], x1[outer][run 1], …
 *
 * outer: the dimensions stored before the axis; a run: the axis and what is stored after it. */
#include <stdlib.h>
#include <string.h>

#include "engine/kernel/ranges.h"
#include "engine/kernel/rows.h"

struct kernel_state {
    size_t outer, total;
    int n;
    size_t run[LAYER_MAX_IO]; /* bytes */
    unsigned n_parts;         /* of the outer dimensions, for threads */
};

static int axis_of(const struct layer *l) {
    int64_t axis = node_attr_int(l->node, "axis", 1);

    return (int)(axis < 0 ? axis + l->out[0].shape.rank : axis);
}

static bool concat_fits(const struct cpu *cpu, const struct layer *l) {
    const struct vtype *y = &l->out_type[0];
    const struct dtype_info *info = dtype_info(y->dtype);
    int axis = axis_of(l);

    (void)cpu;
    if (!info || info->bits < 8 || axis < 0 || axis >= l->out[0].shape.rank)
        return false;
    for (int i = 0; i < l->n_in; i++) {
        const struct vtype *x = &l->in_type[i];

        if (!l->in[i] || x->dtype != y->dtype || x->quant.scale != y->quant.scale ||
            x->quant.zero != y->quant.zero || (l->in[i]->data && y->layout != LAYOUT_PLAIN))
            return false;
    }
    return true;
}

/* Below so many bytes (some 10 us) waking another thread costs more than it brings. */
#define MIN_BYTES_A_PART ((size_t)1 << 17)

static int concat_prepare(const struct layer *l, struct pack_cache *packs, struct kernel_state **ret,
    size_t *ret_scratch, struct error *err) {
    const struct shape *y = &l->out[0].shape;
    struct kernel_state *s = calloc(1, sizeof(*s));
    size_t element = dtype_info(l->out[0].dtype)->bits / 8;
    int axis = axis_of(l), order[SHAPE_MAX_RANK], at = 0;

    (void)packs;
    (void)ret_scratch;
    if (!s)
        return error_oom(err);
    /* order[]: dimensions as they are stored */
    for (int d = 0; d < y->rank; d++)
        order[d] = d;
    if (l->out_type[0].layout == LAYOUT_NHWC && y->rank > 2) {
        for (int d = 1; d < y->rank - 1; d++)
            order[d] = d + 1;
        order[y->rank - 1] = 1;
    }
    while (order[at] != axis)
        at++;
    s->outer = 1;
    for (int d = 0; d < at; d++)
        s->outer *= (size_t)y->dim[order[d]];
    s->n = l->n_in;
    for (int i = 0; i < l->n_in; i++) {
        s->run[i] = element;
        for (int d = at; d < y->rank; d++)
            s->run[i] *= (size_t)l->in[i]->shape.dim[order[d]];
        s->total += s->run[i];
    }
    s->n_parts = ranges_count(l, (int64_t)s->outer, (double)s->outer * (double)s->total, MIN_BYTES_A_PART);
    *ret = s;
    return 0;
}

static void run_range(
    const struct kernel_state *s, const struct run_io *io, unsigned part, int64_t first, int64_t end) {
    char *y = (char *)io->out[0] + (size_t)first * s->total;

    (void)part;
    for (size_t k = (size_t)first; k < (size_t)end; k++) {
        for (int i = 0; i < s->n; i++) {
            memcpy(y, (const char *)io->in[i] + k * s->run[i], s->run[i]);
            y += s->run[i];
        }
    }
}

static void concat_run(const struct kernel_state *s, const struct run_io *io) {
    ranges_run(s, io, run_range, (int64_t)s->outer, 1, s->n_parts);
}

static struct kernel_state *concat_done(struct kernel_state *s) {
    free(s);
    return NULL;
}

const struct kernel kernel_concat_copy = {
    .name = "concat_copy",
    .op_types = (const char *const[]){"Concat", NULL},
    .fits = concat_fits,
    .layouts = {.in = 1u << LAYOUT_NHWC | 1u << LAYOUT_PLAIN, .out = 1u << LAYOUT_NHWC | 1u << LAYOUT_PLAIN},
    .reads_constants = true,
    .prepare = concat_prepare,
    .run = concat_run,
    .done = concat_done,
};
