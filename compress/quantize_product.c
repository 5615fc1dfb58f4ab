/* The schemes `product` and `residual`: vectors of neighbouring weights share words (codebook_words.h), whose
 * k-means counts each weight by the energy of its input where there is data (input_energy.h). Words are int8
 * and stand for w / scale of the output channel, which is fitted once more when the codes are known. Residual
 * quantisation (Chen et al. 2010, "Approximate nearest neighbor search by residual vector quantization")
 * gives what is left a codebook of its own, as often as the bits allow; the words add up. */
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

/* Sums of words may be larger than what they stand for; if they leave int8, all is done again, smaller. */
#define TRIES  6
#define SHRINK 0.8f

#define MAX_STAGES 8

static const struct quantize_options *options_of(const void *options, const struct layer_entry *e) {
    return e->options ? e->options : options;
}

/* As many codebooks as the bits of a weight pay for. */
static int count_stages(const struct quantize_options *o) {
    double bits = (double)o->bits * o->product.dim / log2((double)o->product.words);
    int n = (int)(bits + 0.5);

    if (o->scheme == QUANTIZE_PRODUCT)
        return 1;
    return n < 2 ? 2 : n > MAX_STAGES ? MAX_STAGES : n;
}

static int64_t bytes_of(const struct quantize_options *o, const struct layer_entry *e) {
    int64_t stage = e->params / o->product.dim + (int64_t)o->product.words * o->product.dim;

    return stage * count_stages(o) + 4 * e->rows;
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
            effects[i] = (struct effect){.form = o->scheme == QUANTIZE_PRODUCT ? "product" : "residual",
                .bytes = bytes_of(o, e),
                .macs = -1};
    }
    return 0;
}

struct stage {
    float *words;             /* [n][dim] */
    struct tensor book, code; /* [n][dim] int8, [vectors] u8 */
    struct weight form;       /* of all but the first */
};

/* A layer's weights as the k-means sees them: v = w / scale[row], which counts scale² E[x²], less what the
 * stages before say. */
struct site {
    const void *w;
    const struct weight_rows *rows;
    int dim;
    const float *scale;                 /* [rows] */
    const struct input_energy *energy;  /* NULL: not known */
    int64_t channels, inner, per_group; /* input channel of element i: i / inner % channels of its group */
    int n_stages;                       /* that are done */
    struct stage stage[MAX_STAGES];
};

static void site_done(struct site *s) {
    for (int k = 0; k < MAX_STAGES; k++) {
        free(s->stage[k].words);
        free(s->stage[k].book.data);
        free(s->stage[k].code.data);
    }
}

/* The sum of the words of element i. */
static float said(const struct site *s, int64_t i) {
    float sum = 0;

    for (int k = 0; k < s->n_stages; k++) {
        const uint8_t *code = s->stage[k].code.data;

        sum += s->stage[k].words[code[i / s->dim] * s->dim + i % s->dim];
    }
    return sum;
}

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

        v[k] = encode_number(s->w, i) / s->scale[row] - said(s, i);
        if (a)
            a[k] = s->energy ? count_of(s, i, row) : s->scale[row] * s->scale[row];
    }
}

/* Energies are used only where the input's channels are those of the weights. */
static void set_channels(const struct node *n, const struct input_energy *energy, struct site *s) {
    const struct shape *shape = &s->rows->shape;
    int64_t groups = node_attr_int(n, "group", 1), rows = s->rows->rows;

    s->channels = shape->dim[s->rows->axis ? 0 : 1];
    s->inner = 1;
    for (int d = (s->rows->axis ? 0 : 1) + 1; d < shape->rank; d++)
        s->inner *= shape->dim[d];
    s->per_group = groups > 0 && rows % groups == 0 ? rows / groups : rows;
    if (energy && energy->n == s->channels * (rows / s->per_group) && node_attr_int(n, "transA", 0) == 0)
        s->energy = energy;
}

static int start_scales(
    const struct site *s, const float *min_scale, float most, float *scale, struct error *err) {
    int64_t n = s->rows->outer * s->rows->rows * s->rows->inner;

    memset(scale, 0, (size_t)s->rows->rows * sizeof(*scale));
    for (int64_t i = 0; i < n; i++) {
        float v = fabsf(encode_number(s->w, i));
        int64_t row = row_of(s, i);

        if (!isfinite(v))
            return error_set(err, -EBADMSG, "weight %lld is not a finite number", (long long)i);
        scale[row] = fmaxf(scale[row], v / most);
    }
    for (int64_t r = 0; r < s->rows->rows; r++) {
        float v = fmaxf(scale[r], min_scale ? min_scale[r] : 0);

        scale[r] = v > LEAST_SCALE ? v : 1; /* of zeros */
    }
    return 0;
}

/* scale = sum a w word / sum a word², of each row. */
static int fit_scales(const struct site *s, const float *min_scale, float *scale, struct error *err) {
    int64_t n = s->rows->outer * s->rows->rows * s->rows->inner, rows = s->rows->rows;
    _cleanup_(freep) double *up = calloc(2 * (size_t)rows + 1, sizeof(*up));
    double *down = up + rows;

    if (!up)
        return error_oom(err);
    for (int64_t i = 0; i < n; i++) {
        int64_t row = row_of(s, i);
        double a = s->energy ? (double)count_of(s, i, row) : 1;
        double word = (double)said(s, i);

        up[row] += a * (double)encode_number(s->w, i) * word;
        down[row] += a * word * word;
    }
    for (int64_t r = 0; r < rows; r++)
        if (up[r] > 0 && down[r] > 0)
            scale[r] = fmaxf(fmaxf((float)(up[r] / down[r]), min_scale ? min_scale[r] : 0), LEAST_SCALE);
    return 0;
}

struct context {
    struct work *work;
    struct input_energies energies;
};

static int64_t count_vectors(const struct site *s) {
    return s->rows->outer * s->rows->rows * s->rows->inner / s->dim;
}

static int find_stage(const struct weight_coder *c, const struct quantize_options *o, struct site *s,
    struct stage *ret, struct error *err) {
    const struct context *ctx = c->ctx;
    const struct codebook_vectors v = {
        .dim = s->dim, .n = count_vectors(s), .read = read_vectors, .ctx = s, .is_weighted = true};
    const struct codebook_words_options w = {.n_words = o->product.words,
        .seed = c->seed + (uint64_t)s->n_stages,
        .is_int8 = true,
        .threads = ctx->work->progress ? ctx->work->progress->threads : 1};
    size_t n = (size_t)(w.n_words * s->dim);

    if (!ret->words) {
        ret->words = calloc(n + 1, sizeof(*ret->words));
        ret->book = (struct tensor){
            .dtype = DT_S8, .shape = {.rank = 2, .dim = {w.n_words, s->dim}}, .data = calloc(n + 1, 1)};
        ret->code = (struct tensor){.dtype = DT_U8, .shape = {.rank = 1, .dim = {v.n}}};
        ret->code.data = malloc((size_t)v.n + 1);
    }
    if (!ret->words || !ret->book.data || !ret->code.data)
        return error_oom(err);
    return codebook_words(&v, &w, ret->words, ret->code.data, err);
}

static bool sums_fit(const struct site *s) {
    int64_t n = count_vectors(s) * s->dim;

    for (int64_t i = 0; s->n_stages > 1 && i < n; i++)
        if (fabsf(said(s, i)) > MOST)
            return false;
    return true;
}

/* All stages; with more than one, so small that their sums are int8. */
static int find_stages(const struct weight_coder *c, const struct quantize_options *o, struct site *s,
    const float *min_scale, float *scale, struct error *err) {
    int n = count_stages(o), r = 0;
    float most = MOST;

    for (int try = 0; try < TRIES; try++, most *= SHRINK) {
        s->n_stages = 0;
        r = start_scales(s, min_scale, most, scale, err);
        for (int k = 0; r == 0 && k < n; k++) {
            r = find_stage(c, o, s, &s->stage[k], err);
            s->n_stages = k + 1;
        }
        if (r < 0)
            return r;
        if (sums_fit(s))
            return fit_scales(s, min_scale, scale, err);
    }
    return error_set(err, -ERANGE, "its residual codebooks add up to more than int8 can say");
}

/* The stages as the form has them: the first is the form itself. */
static void set_form(const struct quantize_options *o, struct site *s, struct weight *ret) {
    for (int k = 0; k < s->n_stages; k++) {
        struct stage *stage = &s->stage[k];

        for (int i = 0; i < o->product.words * s->dim; i++)
            ((int8_t *)stage->book.data)[i] = (int8_t)stage->words[i];
        stage->form = (struct weight){.structure = ret->structure,
            .code = weight_code_find("product"),
            .scales = weight_scales_find("layer"),
            .shape = ret->shape,
            .rows = ret->rows,
            .cols = ret->cols,
            .codes = &stage->code,
            .book = &stage->book,
            .more = k + 1 < s->n_stages ? &s->stage[k + 1].form : NULL};
    }
    ret->codes = &s->stage[0].code;
    ret->book = &s->stage[0].book;
    ret->more = s->stage[0].form.more;
}

static int write_words(const struct weight_coder *c, struct graph *g, const struct layer_entry *e,
    const struct weight_rows *rows, const float *min_scale, float **ret_scale, int64_t *ret_n,
    struct error *err) {
    const struct quantize_options *o = options_of(c->options, e);
    const struct context *ctx = c->ctx;
    const struct node *n = &g->nodes[e->node];
    _cleanup_(freep) float *scale = calloc((size_t)rows->rows + 1, sizeof(*scale));
    _cleanup_(site_done) struct site s = {
        .w = g->values[n->in[1]].init->data, .rows = rows, .dim = o->product.dim, .scale = scale};
    struct tensor scales = {.dtype = DT_F32, .shape = {.rank = 1, .dim = {rows->rows}}, .data = scale};
    struct weight w = {.structure = weight_structure_find("dense"),
        .code = weight_code_find(o->scheme == QUANTIZE_PRODUCT ? "product" : "residual"),
        .scales = weight_scales_find("channel"),
        .shape = rows->shape,
        .axis = rows->axis,
        .rows = rows->rows,
        .cols = rows->outer * rows->inner,
        .transposed = rows->axis != 0,
        .scale = &scales};
    int r, value;

    if (!scale)
        return error_oom(err);
    set_channels(n, input_energy_of(&ctx->energies, e->id), &s);
    r = progress_at(ctx->work->progress, 0, e->id, err);
    if (r == 0)
        r = find_stages(c, o, &s, min_scale, scale, err);
    if (r < 0)
        return r;
    set_form(o, &s, &w);
    value = weight_emit(g, g->n_nodes, e->id, &w);
    if (value < 0)
        return error_set(err, value, "its weights could not be written");
    g->nodes[e->node].in[1] = value;
    *ret_scale = TAKE(scale);
    *ret_n = rows->rows;
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

const struct quantize_scheme quantize_scheme_residual = {
    .name = "residual",
    .wants_data = quantize_wants_data,
    .plan = plan,
    .apply = apply,
};
