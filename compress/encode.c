#include "compress/encode.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "compress/fold.h"
#include "engine/ops.h"
#include "engine/pass.h"
#include "engine/weight_tile.h"

static const char *const structures[] = {"dense", "sparse", "block", "nm", NULL};
static const char *const codes[] = {"s8", "f32", "bf16", "f16", "u8", "s4", "lut1", "lut2", "lut3", "lut4",
    "lut5", "lut6", "lut7", "lut8", "product", "bit", "trit", NULL};
static const char *const scales[] = {"channel", "layer", "group", NULL};
static const char *const entries[] = {"int8", "float", NULL};
static const char *const activations[] = {"u8", "float", NULL};

#define AT(field) offsetof(struct encode_options, field)
#define IN(field) (AT(form.field) - AT(form))

static const struct param form_rows[] = {
    {
        .name = "structure",
        .type = PARAM_ENUM,
        .at = IN(structure),
        .choices = structures,
        .dflt = "dense",
        .doc = "which weights are stored: all; the largest with their places (sparse), in blocks (block), or "
               "some of every few (nm)",
    },
    {
        .name = "code",
        .type = PARAM_ENUM,
        .at = IN(code),
        .choices = codes,
        .dflt = "s8",
        .doc =
            "what one weight is: a number (f32, bf16, f16, s8, u8, s4), an index of 1 to 8 bits into a "
            "codebook (lut1 to lut8), into a codebook of vectors (product), a sign (bit), or -1, 0, 1 (trit)",
        .source = "Han et al. 2016, Deep compression; Li et al. 2016, Ternary weight networks",
    },
    {
        .name = "scales",
        .type = PARAM_ENUM,
        .at = IN(scales),
        .choices = scales,
        .dflt = "channel",
        .doc =
            "which weights share a scale: an output channel's, all, or neighbours among the inputs (group); "
            "f32, bf16 and f16 have none",
    },
};
static const struct param_table form_table = {form_rows, sizeof(form_rows) / sizeof(form_rows[0])};

static const struct param rows[] = {
    {
        .name = "form",
        .type = PARAM_OBJECT,
        .at = AT(form),
        .table = &form_table,
        .given_at = NO_OFFSET,
        .doc = "structure, code and scales that every selected layer gets",
    },
    {
        .name = "sparsity",
        .type = PARAM_REAL,
        .at = AT(sparsity),
        .min = 0,
        .max = 0.9999,
        .dflt = "0",
        .doc = "structures sparse and block: the share of the weights that goes, the smallest",
    },
    {
        .name = "block_outputs",
        .type = PARAM_INT,
        .at = AT(block_outputs),
        .min = 1,
        .max = 64,
        .dflt = "1",
        .doc = "structure block: output channels of a block",
    },
    {
        .name = "block_inputs",
        .type = PARAM_INT,
        .at = AT(block_inputs),
        .min = 1,
        .max = 64,
        .dflt = "4",
        .doc = "structure block: input channels of a block, of one tap",
    },
    {
        .name = "nm_kept",
        .type = PARAM_INT,
        .at = AT(nm_kept),
        .min = 1,
        .max = 16,
        .dflt = "2",
        .doc = "structure nm: weights that stay of every nm_of input channels of a tap",
    },
    {
        .name = "nm_of",
        .type = PARAM_INT,
        .at = AT(nm_of),
        .min = 2,
        .max = 16,
        .dflt = "4",
        .doc = "structure nm: 2, 4 or 16",
    },
    {
        .name = "group",
        .type = PARAM_INT,
        .at = AT(group),
        .min = 2,
        .max = 65536,
        .dflt = "32",
        .doc = "scales group: input channels that share a scale",
    },
    {
        .name = "words",
        .type = PARAM_INT,
        .at = AT(words),
        .min = 2,
        .max = 256,
        .dflt = "256",
        .doc = "code product: vectors in the codebook",
        .source = "Gong et al. 2014, Compressing deep convolutional networks using vector quantization",
    },
    {
        .name = "dim",
        .type = PARAM_INT,
        .at = AT(dim),
        .min = 2,
        .max = 64,
        .dflt = "4",
        .doc = "code product: weights of a vector, neighbours in the tensor",
    },
    {
        .name = "entries",
        .type = PARAM_ENUM,
        .at = AT(entries),
        .choices = entries,
        .dflt = "int8",
        .doc =
            "codes lut1 to lut8 and product: what stands in the codebook; other runtimes are fast with int8",
    },
    {
        .name = "activations",
        .type = PARAM_ENUM,
        .at = AT(activations),
        .choices = activations,
        .dflt = "u8",
        .doc = "u8: layers whose weights are integers get 8-bit inputs and outputs, if there is data; float: "
               "weights only",
    },
};
static const struct param_table table = {rows, sizeof(rows) / sizeof(rows[0])};

static bool is_integer(const struct encode_options *o) {
    const struct weight_code *c = weight_code_find(codes[o->form.code]);

    return c->dtype != DT_F32 && !(c->is_looked_up && o->entries == ENTRIES_FLOAT);
}

static bool has_words(const struct encode_options *o) {
    return strcmp(codes[o->form.code], "product") == 0;
}

/* Weights of a stored run: words must not cross it. */
static int run_of(const struct encode_options *o) {
    const char *s = structures[o->form.structure];

    return strcmp(s, "sparse") == 0  ? 1
           : strcmp(s, "block") == 0 ? o->block_outputs * o->block_inputs
           : strcmp(s, "nm") == 0    ? o->nm_kept
                                     : o->dim;
}

static int check(const void *options, struct error *err) {
    const struct encode_options *o = options;
    const char *structure = structures[o->form.structure], *code = codes[o->form.code];
    const struct weight_code *c = weight_code_find(code);
    bool is_sign = strcmp(code, "bit") == 0 || strcmp(code, "trit") == 0;

    if (o->sparsity > 0 && strcmp(structure, "sparse") != 0 && strcmp(structure, "block") != 0)
        return error_set(err, -EINVAL,
            ".sparsity: structure '%s' leaves nothing out by share; 'sparse' and 'block' do", structure);
    if (strcmp(structure, "nm") == 0 && o->nm_of != 2 && o->nm_of != 4 && o->nm_of != 16)
        return error_set(err, -EINVAL, ".nm_of: places of %d cannot be packed; 2, 4 and 16 can", o->nm_of);
    if (strcmp(structure, "nm") == 0 && o->nm_kept > o->nm_of)
        return error_set(err, -EINVAL, ".nm_kept: %d of %d cannot stay", o->nm_kept, o->nm_of);
    if (strcmp(scales[o->form.scales], "group") == 0 && !is_integer(o))
        return error_set(err, -EINVAL, ".form.scales: groups share scales of integers, '%s' %s are none",
            code, c->is_looked_up ? "with entries in float" : "codes");
    if (o->entries == ENTRIES_FLOAT && (!c->is_looked_up || is_sign))
        return error_set(err, -EINVAL, ".entries: code '%s' has no codebook of floats", code);
    if (has_words(o) && run_of(o) % o->dim)
        return error_set(err, -EINVAL,
            ".form: vectors of %d weights do not fit structure '%s', which keeps runs of %d", o->dim,
            structure, run_of(o));
    return 0;
}

/* The form that layer `n` would have. */
static int form_of(const struct graph *g, const struct node *n, const struct encode_options *o,
    struct weight_rows *ret_rows, struct weight *ret, struct error *err) {
    int r = weight_rows_of(g, n, ret_rows, err);
    bool is_block = strcmp(structures[o->form.structure], "block") == 0;

    if (r < 0)
        return r;
    *ret = (struct weight){
        .structure = weight_structure_find(structures[o->form.structure]),
        .code = weight_code_find(codes[o->form.code]),
        .scales = weight_scales_find(scales[o->form.scales]),
        .shape = ret_rows->shape,
        .axis = ret_rows->axis,
        .rows = ret_rows->rows,
        .cols = ret_rows->outer * ret_rows->inner,
        .transposed = ret_rows->axis != 0,
        .tile = {.out = is_block ? o->block_outputs : 1,
            .in = is_block ? o->block_inputs : o->nm_of,
            .kept = is_block ? o->block_outputs * o->block_inputs : o->nm_kept,
            .out_axis = ret_rows->axis},
    };
    if (strcmp(ret->scales->name, "group") == 0) {
        ret->group = o->group;
        ret->group_axis = !ret->axis;
    }
    return 0;
}

static const char *misfit(const struct encode_options *o, const struct weight *w) {
    const char *structure = w->structure->name;
    bool is_tiled = strcmp(structure, "block") == 0 || strcmp(structure, "nm") == 0;
    int64_t n = w->rows * w->cols, n_tiles = is_tiled ? weight_count_tiles(&w->shape, &w->tile) : 0;
    unsigned bits = o->nm_of == 16 ? 4 : o->nm_of == 4 ? 2 : 1;

    if (n < 1)
        return "it has no weights";
    if (w->axis > 1 || w->shape.rank < 2)
        return "its weights are more than one matrix";
    if (is_tiled && !n_tiles)
        return "its channels cannot be cut into such blocks";
    if (strcmp(structure, "nm") == 0 && n_tiles * o->nm_kept * bits % 8)
        return "the places of its weights fill no whole bytes";
    if (has_words(o) && strcmp(structure, "dense") == 0 && n % o->dim)
        return "its weights cannot be cut into vectors of that size";
    return NULL;
}

static int64_t bytes_of(const struct encode_options *o, const struct weight *w) {
    double kept = strcmp(w->structure->name, "nm") == 0
                      ? (double)o->nm_kept / o->nm_of
                      : 1 - (strcmp(w->structure->name, "dense") != 0 ? o->sparsity : 0);
    double n = (double)(w->rows * w->cols) * kept, places = 0, bits = w->code->bits;

    if (strcmp(w->structure->name, "sparse") == 0)
        places = n;
    if (strcmp(w->structure->name, "block") == 0)
        places = n / (double)(w->tile.out * w->tile.in);
    if (strcmp(w->structure->name, "nm") == 0)
        places = n * (o->nm_of == 16 ? 4 : o->nm_of == 4 ? 2 : 1) / 8;
    if (bits == 3 || (bits > 4 && bits < 8))
        bits = 8; /* one a byte in the file */
    return (int64_t)(n * bits / 8 / (has_words(o) ? o->dim : 1) + places);
}

static int plan(const struct graph *g, const void *options, struct layers *layers, struct effect *effects,
    struct error *err) {
    const struct encode_options *o = options;

    for (size_t i = 0; i < layers->n; i++) {
        struct layer_entry *e = &layers->entry[i];
        const struct node *n = &g->nodes[e->node];
        struct weight_rows k;
        const char *reason;
        struct weight w;
        int r;

        if (e->form)
            continue;
        if (g->values[n->in[1]].init->dtype != DT_F32) {
            layer_skip(e, "its weights are not float");
            continue;
        }
        if (is_integer(o) && o->activations == ACTIVATIONS_U8 && n->op->quant != OP_QUANT_OWN) {
            layer_skip(e, "the operator runs in float only");
            continue;
        }
        r = form_of(g, n, o, &k, &w, err);
        if (r < 0)
            return r;
        reason = misfit(o, &w);
        if (reason)
            layer_skip(e, reason);
        else if (effects && e->is_selected)
            effects[i] = (struct effect){.form = weight_form_name(&w), .bytes = bytes_of(o, &w), .macs = -1};
    }
    return 0;
}

void encoded_done(struct encoded *e) {
    free(e->codes.data);
    free(e->scale.data);
    free(e->zero.data);
    free(e->book.data);
    free(e->place.data);
    free(e->at);
}

static int encode(const struct encode_job *j, struct encoded *ret, struct error *err) {
    bool has_scales =
        j->form.code->dtype != DT_F32 && !(j->form.code->is_looked_up && j->o->entries == ENTRIES_FLOAT &&
                                             strcmp(j->form.scales->name, "layer") == 0);
    int r;

    ret->w = j->form;
    r = encode_places(j, ret, err);
    if (r == 0 && has_scales)
        r = encode_scales(j, ret, err);
    return r < 0 ? r : encode_codes(j, ret, err);
}

/* Replaces the weights of a layer; the scales go to the caller, if it wants them. */
static int write_layer(const struct encode_options *o, uint64_t seed, struct graph *g, int node,
    const float *min_scale, float **ret_scale, int64_t *ret_n, struct error *err) {
    _cleanup_(encoded_done) struct encoded e = {0};
    const struct node *n = &g->nodes[node];
    struct encode_job j = {.w = g->values[n->in[1]].init->data, .o = o, .min_scale = min_scale, .seed = seed};
    struct weight_rows k;
    int r = form_of(g, n, o, &k, &j.form, err), value;

    if (r < 0)
        return r;
    j.rows = &k;
    r = encode(&j, &e, err);
    if (r < 0)
        return r;
    value = weight_emit(g, g->n_nodes, n->id, &e.w);
    if (value < 0)
        return error_set(err, value, "its weights could not be written");
    g->nodes[node].in[1] = value;
    if (ret_scale && shape_count(&e.scale.shape, ret_n)) {
        *ret_scale = e.scale.data;
        e.scale.data = NULL;
    }
    return 0;
}

static int write_integers(const struct weight_coder *c, struct graph *g, const struct layer_entry *e,
    const struct weight_rows *rows_of, const float *min_scale, float **ret_scale, int64_t *ret_n,
    struct error *err) {
    (void)rows_of;
    return write_layer(c->options, c->seed, g, e->node, min_scale, ret_scale, ret_n, err);
}

static int write_layers(struct work *work, const struct encode_options *o, const struct layers *layers,
    json_t *report, struct error *err) {
    json_t *list = json_array();

    json_object_set_new(report, "layers", list);
    for (size_t i = 0; i < layers->n; i++) {
        const struct layer_entry *e = &layers->entry[i];
        int r = e->is_selected ? write_layer(o, work->seed, work->graph, e->node, NULL, NULL, NULL, err) : 0;

        if (r < 0)
            return error_prefix(err, r, "node '%s'", e->id);
        if (json_array_append_new(list, json_pack("{s:s, s:s, s:s?}", "id", e->id, "action",
                                            e->is_selected ? "encoded" : "skipped", "reason", e->reason)) < 0)
            return error_oom(err);
    }
    return graph_finish(work->graph, err);
}

/* The lowest opset that can hold the form. */
static int opset_of(const struct encode_options *o) {
    return strcmp(scales[o->form.scales], "group") == 0 ? 21 : 13;
}

static int apply(
    struct work *work, const void *options, const struct scope *scope, json_t *report, struct error *err) {
    const struct encode_options *o = options;
    struct quantize_options q = {
        .activations = o->activations == ACTIVATIONS_U8 ? ACTIVATIONS_U8 : ACTIVATIONS_FLOAT,
        .observer = OBSERVER_MSE,
        .per_channel = true};
    struct weight_coder coder = {.plan = plan, .options = o, .seed = work->seed, .write = write_integers};
    _cleanup_(layers_done) struct layers layers = {0};
    bool on_codes = is_integer(o) && opset_of(o) < 21 && o->activations == ACTIVATIONS_U8 && work->samples;
    int r;

    if (on_codes)
        return quantize_int8(work, &q, &coder, scope, report, err);
    r = fold_graph(work->graph, err);
    if (r == 0)
        r = pass_raise_opset(work->graph, opset_of(o), err);
    if (r == 0)
        r = layers_list(work->graph, scope, &layers, err);
    if (r == 0)
        r = plan(work->graph, o, &layers, NULL, err);
    return r < 0 ? r : write_layers(work, o, &layers, report, err);
}

static int place_of(const char *const *list, const char *name) {
    int i = 0;

    while (list[i] && strcmp(list[i], name) != 0)
        i++;
    return i;
}

void encode_options_of(
    const char *structure, const char *code, const char *scales_kind, struct encode_options *ret) {
    *ret = (struct encode_options){0};
    param_defaults(&table, ret, NULL);
    ret->form.structure = place_of(structures, structure);
    ret->form.code = place_of(codes, code);
    ret->form.scales = place_of(scales, scales_kind);
}

const struct method method_encode = {
    .name = "encode",
    .summary = "Layers in any weight form without caring for accuracy: for measuring",
    .source = "engine/weight.h",
    .options = &table,
    .options_size = sizeof(struct encode_options),
    .check = check,
    .folds = true,
    .plan = plan,
    .apply = apply,
};
