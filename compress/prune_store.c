/* How pruned weights stand in the file: values with gaps between them (weight_sparse.c), blocks, n of m, or
 * zeros among the others, whichever is smallest. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "compress/encode.h"
#include "compress/prune_weight.h"
#include "engine/pass.h"

#define MAX_GAP 255

/* Nodes and constants of a pattern beside its numbers, about. */
#define PATTERN_BYTES 700
#define PATTERN_OPSET 13

int prune_write_zeros(struct graph *g, const struct prune_set *s, struct error *err) {
    for (const struct prune_layer *l = s->layer; l < s->layer + s->n; l++) {
        struct tensor t = *g->values[l->value].init;
        float *w = graph_alloc(g, (size_t)l->n * sizeof(*w));

        if (!w)
            return error_oom(err);
        for (int64_t i = 0; i < l->n; i++)
            w[i] = l->keep[i] ? prune_weight(t.data, i) : 0;
        t.data = w;
        if (graph_set_init(g, l->value, &t) < 0)
            return error_oom(err);
    }
    return 0;
}

/* With those that close gaps too long for a byte. */
static int64_t count_stored(const struct prune_layer *l, bool by_tile) {
    int64_t n = by_tile ? l->n_units : l->n, last = 0, count = 0;

    for (int64_t i = 0; i < n; i++) {
        if (!l->keep[by_tile ? prune_element(l, i, 0) : i])
            continue;
        count += 1 + (i - last > 0 ? (i - last - 1) / MAX_GAP : 0);
        last = i;
    }
    return count;
}

static unsigned place_bits(const struct prune_options *o) {
    return o->nm[1] == 16 ? 4 : o->nm[1] == 4 ? 2 : 1;
}

struct choice {
    const char *structure;
    int64_t bytes;
};

static struct choice choose_form(const struct prune_layer *l) {
    struct choice dense = {"dense", 4 * l->n}, best = {"sparse", 5 * count_stored(l, false) + PATTERN_BYTES};

    if (l->o->granularity == PRUNE_BLOCK)
        best = (struct choice){"block", count_stored(l, true) * (4 * l->unit + 1) + PATTERN_BYTES};
    if (l->o->granularity == PRUNE_NM) {
        int64_t stored = l->n_units * l->o->nm[0], bits = stored * place_bits(l->o);

        best = (struct choice){"nm", 4 * stored + bits / 8 + PATTERN_BYTES};
        if (bits % 8 || l->n_kept > stored) /* places fill no whole bytes; fewer rounds than planned */
            return dense;
    }
    return best.bytes < dense.bytes ? best : dense;
}

static struct weight form_of(const struct prune_layer *l, const char *structure) {
    struct weight w = {
        .structure = weight_structure_find(structure),
        .code = weight_code_find("f32"),
        .scales = weight_scales_find("layer"),
        .shape = l->rows.shape,
        .axis = l->rows.axis,
        .rows = l->rows.rows,
        .cols = l->rows.outer * l->rows.inner,
        .transposed = l->rows.axis != 0,
    };

    if (l->o->granularity != PRUNE_WEIGHT)
        w.tile = l->tiles.tile;
    return w;
}

int64_t prune_bytes(const struct prune_layer *l, const char **ret_form) {
    struct choice c = choose_form(l);
    struct weight w = form_of(l, c.structure);

    *ret_form = weight_form_name(&w);
    return c.bytes;
}

static int64_t kept_tiles(const struct prune_layer *l) {
    int64_t n = 0;

    for (int64_t u = 0; u < l->n_units; u++)
        n += l->keep[prune_element(l, u, 0)];
    return n;
}

/* The layer's weights, zeros in them already, to a pattern in front of it. */
static int write_form(
    struct graph *g, const struct prune_layer *l, const char *structure, struct error *err) {
    _cleanup_(encoded_done) struct encoded e = {0};
    struct encode_options o = {.sparsity = 1 - (double)kept_tiles(l) / (double)l->n_units};
    struct encode_job j = {.w = g->values[l->value].init->data, .rows = &l->rows, .o = &o};
    int value, r;

    j.form = e.w = form_of(l, structure);
    r = strcmp(structure, "sparse") == 0 ? encoded_store_nonzero(j.w, l->n, &e, err)
                                         : encode_places(&j, &e, err);
    if (r == 0)
        r = encode_codes(&j, &e, err);
    if (r < 0)
        return r;
    value = weight_emit(g, (size_t)l->node, l->id, &e.w);
    if (value < 0)
        return error_set(err, value, "its weights could not be written");
    graph_replace_value(g, l->value, value);
    return 0;
}

static int list_layer(const struct prune_layer *l, json_t *list, struct error *err) {
    const char *form;
    int64_t bytes = prune_bytes(l, &form);
    double sparsity = 1 - (double)l->n_kept / (double)l->n;

    if (json_array_append_new(list, json_pack("{s:s, s:s, s:s, s:f, s:I, s:I}", "id", l->id, "action",
                                        "pruned", "form", form, "sparsity", sparsity, "bytes_before",
                                        (json_int_t)(4 * l->n), "bytes", (json_int_t)bytes)) < 0)
        return error_oom(err);
    return 0;
}

/* What the patterns are made of came with this opset. */
static int raise_opset(struct graph *g, struct prune_set *s, struct error *err) {
    bool is_dense = true;
    int r;

    for (size_t i = 0; i < s->n; i++)
        is_dense = is_dense && strcmp(choose_form(&s->layer[i]).structure, "dense") == 0;
    r = is_dense ? 0 : pass_raise_opset(g, PATTERN_OPSET, err);
    return r < 0 ? r : prune_set_find(s, g, err);
}

int prune_store(struct work *work, struct prune_set *s, json_t *list, struct error *err) {
    struct graph *g = work->graph;
    int r = raise_opset(g, s, err);

    for (size_t i = 0; r == 0 && i < s->n; i++) {
        struct prune_layer *l = &s->layer[i];
        const char *structure = choose_form(l).structure;

        r = progress_at(work->progress, (double)i / (double)s->n, "storing", err);
        if (r == 0)
            r = list_layer(l, list, err);
        /* each pattern moves the nodes behind it */
        l->node = graph_find_node(g, l->id);
        if (r == 0 && strcmp(structure, "dense") != 0)
            r = write_form(g, l, structure, err);
        if (r < 0)
            return error_prefix(err, r, "node '%s'", l->id);
    }
    return r < 0 ? r : graph_finish(g, err);
}
