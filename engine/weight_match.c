/* A pattern is read from its end: scales, structure, code. Each table is tried row by row. */
#include <errno.h>
#include <string.h>

#include "engine/constant.h"
#include "engine/weight_rows.h"

/* What stands behind value v: the scales' axis and block, and the value they multiply. */
struct scaled {
    int value;
    int64_t axis, block;
    bool is_mul;
};

static bool match_dequantize(const struct graph *g, int v, struct weight *w, struct scaled *ret) {
    const struct node *n = weight_producer(g, v, "DequantizeLinear");

    if (!n || n->n_in < 2)
        return false;
    w->scale = weight_input(g, n, 1);
    w->zero = weight_input(g, n, 2);
    if (!w->scale || w->scale->dtype != DT_F32 || (n->n_in > 2 && n->in[2] >= 0 && !w->zero))
        return false;
    *ret = (struct scaled){n->in[0], node_attr_int(n, "axis", 1), node_attr_int(n, "block_size", 0), false};
    return ret->block >= 0;
}

/* All but one dimension are 1: that one is the axis, counted from the end. */
static bool is_scale(const struct tensor *t, int64_t *ret_axis) {
    int n = 0;

    if (!t || t->dtype != DT_F32)
        return false;
    *ret_axis = 0;
    for (int i = 0; i < t->shape.rank; i++)
        if (t->shape.dim[i] != 1) {
            *ret_axis = i - t->shape.rank;
            n++;
        }
    return n <= 1;
}

static bool match_mul(const struct graph *g, int v, struct weight *w, struct scaled *ret) {
    const struct node *n = weight_producer(g, v, "Mul");
    int64_t axis;

    for (int side = 1; n && n->n_in == 2 && side >= 0; side--) {
        w->scale = weight_input(g, n, side);
        if (is_scale(w->scale, &axis)) {
            *ret = (struct scaled){n->in[!side], axis, 0, true};
            return true;
        }
    }
    return false;
}

static int match_code(struct graph *g, int v, struct weight *w, struct shape *ret_shape, int *codes) {
    for (size_t i = 0; i < n_weight_codes; i++) {
        int r = weight_codes[i]->match(g, v, w, ret_shape, codes);

        if (r)
            return r;
    }
    return 0;
}

/* Integers behind DequantizeLinear; floats, or integers cast to them, without and behind Mul. */
static bool type_fits(const struct graph *g, const struct scaled *s, const struct weight *w, int stored) {
    const struct node *cast = weight_producer(g, stored, "Cast");
    bool is_float = (cast && node_attr_int(cast, "to", 0) == DT_F32) || !weight_codes_are_integers(w);

    if (w->scale && !s->is_mul)
        return !is_float &&
               (!w->zero || w->zero->dtype == w->code->dtype || w->zero->dtype == w->codes->dtype);
    return is_float;
}

static bool scales_fit(struct weight *w, const struct scaled *s) {
    for (size_t i = 0; i < n_weight_scales_kinds; i++) {
        w->scales = weight_scales_kinds[i];
        if (w->scales->fits(w, s->axis, s->block))
            return true;
    }
    return false;
}

/* There are weights, and their floats can be counted in memory: a few bytes of a file may say any shape. */
static bool can_be_dense(const struct shape *s) {
    size_t size;

    return s->rank > 0 && shape_bytes(s, DT_F32, &size) && size > 0;
}

static int match_with(struct graph *g, const struct scaled *s, const struct weight_structure *structure,
    struct weight *w, int *codes) {
    struct shape stored_shape, want;
    int stored, r;

    w->structure = structure;
    r = structure->match(g, s->value, w, &stored);
    if (r <= 0)
        return r;
    r = match_code(g, stored, w, &stored_shape, codes);
    if (r <= 0 || !type_fits(g, s, w, stored))
        return r < 0 ? r : 0;
    if (w->shape.rank < 0)
        w->shape = stored_shape;
    if (!structure->stored_shape(w, &want) || !shape_equal(&want, &stored_shape) || !can_be_dense(&w->shape))
        return 0;
    return scales_fit(w, s);
}

static int match(struct graph *g, int value, struct weight *w, int *codes) {
    struct weight scaled = {0};
    struct scaled s;

    if (!match_dequantize(g, value, &scaled, &s)) {
        scaled = (struct weight){0};
        if (!match_mul(g, value, &scaled, &s)) {
            scaled = (struct weight){0};
            s = (struct scaled){.value = value};
        }
    }
    if (scaled.zero && weight_is_zeros(scaled.zero))
        scaled.zero = NULL;
    for (size_t i = 0; i < n_weight_structures; i++) {
        int r;

        *w = scaled;
        r = match_with(g, &s, weight_structures[i], w, codes);
        if (r)
            return r;
    }
    return 0;
}

int weight_match(struct graph *g, int value, const struct weight **ret, int *ret_codes, struct error *err) {
    struct weight w, *kept;
    int codes = -1, r = match(g, value, &w, &codes);

    if (r < 0)
        return error_set(err, r, "weight '%s': reading its form failed", g->values[value].name);
    *ret = NULL;
    if (r == 0)
        return 0;
    kept = graph_alloc(g, sizeof(*kept));
    if (!kept)
        return error_oom(err);
    *kept = w;
    *ret = kept;
    if (ret_codes)
        *ret_codes = codes;
    return 0;
}
