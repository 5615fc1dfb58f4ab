/* The scheme `product`: vectors of neighbouring weights share words (codebook_words.h), whose k-means counts
 * each weight by the energy of its input where there is data (input_energy.h). Words are int8 and stand for
 * w / scale of the output channel, which is fitted once more when the codes are known. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "compress/codebook_words.h"
#include "compress/encode.h"
#include "compress/fold.h"
#include "compress/input_energy.h"
#include "engine/ops.h"

#define MOST        127
#define LEAST_SCALE 1e-30f

static const struct quantize_options *options_of(const void *options, const struct layer_entry *e) {
    return e->options ? e->options : options;
}

static int64_t bytes_of(const struct quantize_options *o, const struct layer_entry *e) {
    return e->params / o->product.dim + (int64_t)o->product.words * o->product.dim + 4 * e->rows;
}

static bool is_pruned(const struct graph *g, const struct layer_entry *e) {
    const void *w = g->values[g->nodes[e->node].in[1]].init->data;
    int64_t zeros = 0;

    for (int64_t i = 0; i < e->params; i++)
        zeros += encode_number(w, i) == 0;
    return e->bytes < 4 * e->params || 5 * zeros >= e->params;
}

static const char *misfit(
    const struct graph *g, const struct quantize_options *o, const struct layer_entry *e) {
    const struct node *n = &g->nodes[e->node];

    if (g->values[n->in[1]].init->dtype != DT_F32)
        return "its weights are not float";
    if (o->activations != ACTIVATIONS_FLOAT && n->op->quant != OP_QUANT_OWN)
        return "the operator runs in float only";
    if (e->params % o->product.dim)
        return "its weights cannot be cut into vectors of that size";
    if (bytes_of(o, e) >= e->params && !e->is_named)
        return "no gain: with its codebook it would be larger than in int8";
    return is_pruned(g, e) ? "its exact zeros would not stay" : NULL;
}

static int plan(const struct graph *g, const void *options, struct layers *layers, struct effect *effects,
    struct error *err) {
    (void)err;
    for (size_t i = 0; i < layers->n; i++) {
        struct layer_entry *e = &layers->entry[i];
        const struct quantize_options *o = options_of(options, e);
        const char *reason = e->form || !e->is_selected ? NULL : misfit(g, o, e);

        if (reason)
            layer_skip(e, reason);
        else if (effects && e->is_selected)
            effects[i] = (struct effect){.form = "product", .bytes = bytes_of(o, e), .macs = -1};
    }
    return 0;
}

/* A layer's weights as the k-means sees them: v = w / scale[row], which counts scale² E[x²]. */
struct site {
    const void *w;
    const struct weight_rows *rows;
    int dim;
    const float *scale;                 /* [rows] */
    const struct input_energy *energy;  /* NULL: not known */
    int64_t channels, inner, per_group; /* input channel of element i: i / inner % channels of its group */
};

static int64_t row_of(const struct site *s, int64_t i) {
    return i / s->rows->inner % s->rows->rows;
}

static float count_of(const struct site *s, int64_t i, int64_t row) {
    int64_t c = i / s->inner % s->channels + row / s->per_group * s->channels;

    return s->scale[row] * s->scale[row] * s->energy->channel[c];
}

static void read_vectors(const void *ctx, int64_t first, int64_t n, float *v, float *a) {
    const struct site *s = ctx;

    for (int64_t k = 0; k < n * s->dim; k++) {
        int64_t i = first * s->dim + k, row = row_of(s, i);

        v[k] = encode_number(s->w, i) / s->scale[row];
        if (a)
            a[k] = s->energy ? count_of(s, i, row) : s->scale[row] * s->scale[row];
    }
}

/* Energies are used only where the input's channels are those of the weights. */
static void set_channels(
    const struct graph *g, const struct node *n, const struct input_energy *energy, struct site *s) {
    const struct shape *shape = &s->rows->shape;
    int64_t groups = node_attr_int(n, "group", 1), rows = s->rows->rows;

    (void)g;
    s->channels = shape->dim[s->rows->axis ? 0 : 1];
    s->inner = 1;
    for (int d = (s->rows->axis ? 0 : 1) + 1; d < shape->rank; d++)
        s->inner *= shape->dim[d];
    s->per_group = groups > 0 && rows % groups == 0 ? rows / groups : rows;
    if (energy && energy->n == s->channels * (rows / s->per_group) && node_attr_int(n, "transA", 0) == 0)
        s->energy = energy;
}

static int start_scales(const struct site *s, const float *min_scale, float *scale, struct error *err) {
    int64_t n = s->rows->outer * s->rows->rows * s->rows->inner;

    for (int64_t i = 0; i < n; i++) {
        float v = fabsf(encode_number(s->w, i));
        int64_t row = row_of(s, i);

        if (!isfinite(v))
            return error_set(err, -EBADMSG, "weight %lld is not a finite number", (long long)i);
        scale[row] = fmaxf(scale[row], v / MOST);
    }
    for (int64_t r = 0; r < s->rows->rows; r++) {
        float v = fmaxf(scale[r], min_scale ? min_scale[r] : 0);

        scale[r] = v > LEAST_SCALE ? v : 1; /* of zeros */
    }
    return 0;
}

/* scale = sum a w word / sum a word², of each row. */
static int fit_scales(const struct site *s, const float *words, const uint8_t *code, const float *min_scale,
    float *scale, struct error *err) {
    int64_t n = s->rows->outer * s->rows->rows * s->rows->inner, rows = s->rows->rows;
    _cleanup_(freep) double *up = calloc(2 * (size_t)rows + 1, sizeof(*up));
    double *down = up + rows;

    if (!up)
        return error_oom(err);
    for (int64_t i = 0; i < n; i++) {
        int64_t row = row_of(s, i);
        double a = s->energy ? (double)count_of(s, i, row) : 1;
        double word = (double)words[code[i / s->dim] * s->dim + i % s->dim];

        up[row] += a * (double)encode_number(s->w, i) * word;
        down[row] += a * word * word;
    }
    for (int64_t r = 0; r < rows; r++)
        if (up[r] > 0 && down[r] > 0)
            scale[r] = fmaxf(fmaxf((float)(up[r] / down[r]), min_scale ? min_scale[r] : 0), LEAST_SCALE);
    return 0;
}

static float *put_scales(struct encoded *to, int64_t rows) {
    to->scale = (struct tensor){.dtype = DT_F32, .shape = {.rank = 1, .dim = {rows}}};
    to->scale.data = calloc((size_t)rows + 1, sizeof(float));
    to->w.scale = &to->scale;
    return to->scale.data;
}

struct context {
    struct work *work;
    struct input_energies energies;
};

static int find_words(const struct weight_coder *c, const struct quantize_options *o, const struct site *s,
    const float *min_scale, struct encoded *to, struct error *err) {
    const struct context *ctx = c->ctx;
    const struct codebook_vectors v = {.dim = s->dim,
        .n = s->rows->outer * s->rows->rows * s->rows->inner / s->dim,
        .read = read_vectors,
        .ctx = s,
        .is_weighted = true};
    const struct codebook_words_options w = {.n_words = o->product.words,
        .seed = c->seed,
        .is_int8 = true,
        .threads = ctx->work->progress ? ctx->work->progress->threads : 1};
    _cleanup_(freep) float *words = calloc((size_t)(o->product.words * s->dim) + 1, sizeof(*words));
    int r;

    to->codes = (struct tensor){.dtype = DT_U8, .shape = {.rank = 1, .dim = {v.n}}};
    to->codes.data = malloc((size_t)v.n + 1);
    to->w.codes = &to->codes;
    if (!words || !to->codes.data)
        return error_oom(err);
    r = codebook_words(&v, &w, words, to->codes.data, err);
    if (r == 0)
        r = fit_scales(s, words, to->codes.data, min_scale, to->scale.data, err);
    if (r == 0)
        r = encoded_put_book(to, DT_S8, &(struct shape){.rank = 2, .dim = {w.n_words, s->dim}}, err);
    if (r == 0)
        encoded_set_words(to, words);
    return r;
}

static int write_words(const struct weight_coder *c, struct graph *g, const struct layer_entry *e,
    const struct weight_rows *rows, const float *min_scale, float **ret_scale, int64_t *ret_n,
    struct error *err) {
    const struct quantize_options *o = options_of(c->options, e);
    const struct context *ctx = c->ctx;
    const struct node *n = &g->nodes[e->node];
    _cleanup_(encoded_done) struct encoded to = {.w = {.structure = weight_structure_find("dense"),
                                                     .code = weight_code_find("product"),
                                                     .scales = weight_scales_find("channel"),
                                                     .shape = rows->shape,
                                                     .axis = rows->axis,
                                                     .rows = rows->rows,
                                                     .cols = rows->outer * rows->inner,
                                                     .transposed = rows->axis != 0}};
    struct site s = {.w = g->values[n->in[1]].init->data, .rows = rows, .dim = o->product.dim};
    int r, value;

    s.scale = put_scales(&to, rows->rows);
    if (!s.scale)
        return error_oom(err);
    set_channels(g, n, input_energy_of(&ctx->energies, e->id), &s);
    r = progress_at(ctx->work->progress, 0, e->id, err);
    if (r == 0)
        r = start_scales(&s, min_scale, to.scale.data, err);
    if (r == 0)
        r = find_words(c, o, &s, min_scale, &to, err);
    if (r < 0)
        return r;
    value = weight_emit(g, g->n_nodes, e->id, &to.w);
    if (value < 0)
        return error_set(err, value, "its weights could not be written");
    g->nodes[e->node].in[1] = value;
    *ret_scale = to.scale.data;
    *ret_n = rows->rows;
    to.scale.data = NULL;
    return 0;
}

/* Before anything is written: energies of the float network's inputs. */
static int look(
    struct context *c, const struct quantize_options *o, const struct scope *scope, struct error *err) {
    _cleanup_(layers_done) struct layers layers = {0};
    int r = fold_graph(c->work->graph, err);

    if (r == 0)
        r = fold_infer_shapes(c->work->graph, &c->work->samples->item, err);
    if (r == 0)
        r = layers_list(c->work->graph, scope, &layers, err);
    if (r == 0)
        r = plan(c->work->graph, o, &layers, NULL, err);
    return r < 0 ? r : input_energies_find(c->work, &layers, &c->energies, err);
}

static void context_done(struct context *c) {
    input_energies_done(&c->energies);
}

static int apply(struct work *work, const struct quantize_options *o, const struct scope *scope,
    json_t *report, struct error *err) {
    _cleanup_(context_done) struct context ctx = {.work = work};
    struct weight_coder coder = {
        .plan = plan, .options = o, .seed = work->seed, .write = write_words, .ctx = &ctx};
    int r = work->samples ? look(&ctx, o, scope, err) : 0;

    return r < 0 ? r : quantize_int8(work, o, &coder, scope, report, err);
}

const struct quantize_scheme quantize_scheme_product = {
    .name = "product",
    .wants_data = quantize_wants_data,
    .plan = plan,
    .apply = apply,
};
