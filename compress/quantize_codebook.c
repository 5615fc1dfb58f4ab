/* The scheme `codebook`: weights that share words (Han et al. 2016, "Deep compression", section 3), one book
 * a layer, or one a channel, which the engine decodes when it loads. By default the words are int8 and stand
 * for w / scale of the output channel, so that the expansion ends in integers and DequantizeLinear; words of
 * floats need no scales and run on float activations.
 *
 * Zeros of a pruned layer stay exactly zero: they are not stored where that makes the file smaller (sparse),
 * else they have a word. */
#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "compress/codebook_fit.h"
#include "compress/encode.h"
#include "engine/ops.h"

/* So large a share of exact zeros is no chance: a step before made them (methods.md, Composition). */
#define PRUNED_SHARE 0.2

static const struct quantize_options *options_of(const void *options, const struct layer_entry *e) {
    return e->options ? e->options : options;
}

static bool is_packed(int bits) {
    return bits == 1 || bits == 2 || bits == 4;
}

static double code_bytes(int bits) {
    return is_packed(bits) ? bits / 8.0 : 1;
}

/* What a layer's file holds besides codes and places. */
static int64_t fixed_bytes(const struct quantize_options *o, int64_t rows) {
    int64_t words = (int64_t)1 << o->bits, size = o->codebook.entries == CODEBOOK_FLOAT ? 4 : 1;

    /* packed codes are looked up by the byte */
    words = is_packed(o->bits) ? 256 * 8 / o->bits : words;
    return words * size + (size == 4 ? 0 : 4 * (o->per_channel ? rows : 1));
}

/* Of one book a channel, and their scales. */
static int64_t books_bytes(const struct quantize_options *o, int64_t rows) {
    bool is_float = o->codebook.entries == CODEBOOK_FLOAT;

    return rows * (((int64_t)(is_float ? 4 : 1) << o->bits) + (is_float ? 0 : 4));
}

/* Gaps and codes of what is not zero against codes of all. */
static bool sparse_is_smaller(int bits, int64_t n, int64_t n_nonzero) {
    return (double)n_nonzero * (1 + code_bytes(bits)) < (double)n * code_bytes(bits);
}

static int64_t count_nonzero(const void *w, int64_t n) {
    int64_t count = 0;

    for (int64_t i = 0; i < n; i++)
        count += encode_number(w, i) != 0;
    return count;
}

/* Of a layer as the dry run sees it: the weights are those before the steps that are planned, the bytes what
 * they would leave, which for a sparse layer is a float and a gap a weight. */
static int64_t expected_nonzero(const struct graph *g, const struct layer_entry *e) {
    const struct tensor *w = g->values[g->nodes[e->node].in[1]].init;
    int64_t stored = e->bytes / 5;

    return e->bytes < 4 * e->params && stored > 0 ? stored : count_nonzero(w->data, e->params);
}

static struct effect effect_of(
    const struct graph *g, const struct quantize_options *o, const struct layer_entry *e) {
    int64_t n = expected_nonzero(g, e);
    bool is_sparse = (double)n <= (1 - PRUNED_SHARE) * (double)e->params && n > 0 &&
                     sparse_is_smaller(o->bits, e->params, n);
    double codes =
        is_sparse ? (double)n * (1 + code_bytes(o->bits)) : (double)e->params * code_bytes(o->bits);

    if (o->codebook.scope == CODEBOOK_CHANNEL)
        return (struct effect){.form = "codebook", .bytes = e->params + books_bytes(o, e->rows), .macs = -1};
    return (struct effect){.form = is_sparse ? "sparse" : "codebook",
        .bytes = (int64_t)codes + fixed_bytes(o, e->rows),
        .macs = -1};
}

static int plan(const struct graph *g, const void *options, struct layers *layers, struct effect *effects,
    struct error *err) {
    (void)err;
    for (size_t i = 0; i < layers->n; i++) {
        struct layer_entry *e = &layers->entry[i];
        const struct quantize_options *o = options_of(options, e);
        const struct node *n = &g->nodes[e->node];

        if (e->form)
            continue;
        if (g->values[n->in[1]].init->dtype != DT_F32)
            layer_skip(e, "its weights are not float");
        else if (o->codebook.entries == CODEBOOK_INT8 && o->activations != ACTIVATIONS_FLOAT &&
                 n->op->quant != OP_QUANT_OWN)
            layer_skip(e, "the operator runs in float only");
        else if (effects && e->is_selected)
            effects[i] = effect_of(g, o, e);
    }
    return 0;
}

static int put_scales(const struct codebook_fit *f, struct encoded *ret, struct error *err) {
    float *scale;

    if (!f->scale)
        return 0;
    scale = malloc((size_t)f->n_scale * sizeof(*scale));
    if (!scale)
        return error_oom(err);
    for (int64_t i = 0; i < f->n_scale; i++)
        scale[i] = f->scale[i];
    ret->scale = (struct tensor){.dtype = DT_F32, .data = scale};
    ret->scale.shape = (struct shape){.rank = f->n_scale > 1, .dim = {f->n_scale}};
    ret->w.scale = &ret->scale;
    return 0;
}

/* Words that nothing uses, or that are the same, are left out where codes are not packed. */
static int compact(struct codebook_fit *f, int64_t n) {
    uint8_t to[CODEBOOK_MAX];
    bool is_used[CODEBOOK_MAX] = {false};
    int count = 0;

    for (int64_t i = 0; i < n; i++)
        is_used[f->code[i]] = true;
    for (int k = 0; k < f->n_words; k++) {
        to[k] = (uint8_t)count;
        if (is_used[k])
            f->words[count++] = f->words[k];
    }
    for (int64_t i = 0; i < n; i++)
        f->code[i] = to[f->code[i]];
    return count;
}

static int put_fit(struct codebook_fit *f, int bits, struct encoded *ret, struct error *err) {
    int64_t n = weight_count_stored(&ret->w);
    int n_words = is_packed(bits) ? f->n_words : compact(f, n), r;
    struct shape stored;
    enum dtype t = f->scale ? DT_S8 : DT_F32;

    if (!ret->w.structure->stored_shape(&ret->w, &stored))
        return error_set(err, -EINVAL, "its shape cannot be stored so");
    r = encoded_put_book(ret, t, &(struct shape){.rank = 1, .dim = {n_words}}, err);
    if (r == 0)
        r = encoded_put_codes(ret, (unsigned)bits, &stored, err);
    if (r == 0)
        r = put_scales(f, ret, err);
    if (r < 0)
        return r;
    encoded_set_words(ret, f->words);
    for (int64_t i = 0; i < n; i++)
        encoded_set_code(ret, i, f->code[i]);
    ret->w.codes = &ret->codes;
    return 0;
}

/* Structure and scales of the form, and the places of a sparse one. */
static int begin(const void *w, const struct weight_rows *rows, const struct quantize_options *o,
    struct encoded *ret, bool *ret_keeps_zero, struct error *err) {
    int64_t n = rows->outer * rows->rows * rows->inner, n_nonzero = count_nonzero(w, n);
    bool is_pruned = (double)n_nonzero <= (1 - PRUNED_SHARE) * (double)n;
    bool is_sparse = is_pruned && n_nonzero > 0 && sparse_is_smaller(o->bits, n, n_nonzero);
    static const char *const codes[] = {"lut1", "lut2", "lut3", "lut4", "lut5", "lut6", "lut7", "lut8"};
    bool has_rows = o->per_channel && o->codebook.entries == CODEBOOK_INT8 && rows->rows > 1;
    int r = 0;

    ret->w = (struct weight){.structure = weight_structure_find(is_sparse ? "sparse" : "dense"),
        .code = weight_code_find(codes[o->bits - 1]),
        .scales = weight_scales_find(has_rows ? "channel" : "layer"),
        .shape = rows->shape,
        .axis = has_rows ? rows->axis : 0,
        .rows = rows->rows,
        .cols = rows->outer * rows->inner,
        .transposed = rows->axis != 0};
    if (is_sparse)
        r = encoded_store_nonzero(w, n, ret, err);
    *ret_keeps_zero = is_sparse ? ret->w.n_stored > n_nonzero : is_pruned;
    return r;
}

/* The elements of a channel. */
static void list_row(const struct weight_rows *rows, int64_t row, uint32_t *ret) {
    for (int64_t o = 0; o < rows->outer; o++)
        for (int64_t i = 0; i < rows->inner; i++)
            *ret++ = (uint32_t)((o * rows->rows + row) * rows->inner + i);
}

/* What the channels' fits come to: the tensors of a form `books`. */
struct books {
    const struct weight_rows *rows;
    int n_words;
    float *scale;             /* [rows] */
    struct tensor book, code; /* [rows][words] and [rows][cols], or the other way round */
};

static void books_done(struct books *b) {
    free(b->scale);
    free(b->book.data);
    free(b->code.data);
}

static int books_init(
    struct books *b, const struct weight_rows *rows, int n_words, bool is_float, struct error *err) {
    int first = rows->axis == 0 ? 0 : 1;
    int64_t cols = rows->outer * rows->inner;

    *b = (struct books){.rows = rows, .n_words = n_words};
    b->book = (struct tensor){.dtype = is_float ? DT_F32 : DT_S8, .shape = {.rank = 2}};
    b->book.shape.dim[first] = rows->rows;
    b->book.shape.dim[!first] = n_words;
    b->code = (struct tensor){.dtype = DT_U8, .shape = {.rank = 2}};
    b->code.shape.dim[first] = rows->rows;
    b->code.shape.dim[!first] = cols;
    b->scale = calloc((size_t)rows->rows + 1, sizeof(*b->scale));
    b->book.data = calloc((size_t)(rows->rows * n_words) + 1, is_float ? sizeof(float) : 1);
    b->code.data = malloc((size_t)(rows->rows * cols) + 1);
    return b->scale && b->book.data && b->code.data ? 0 : error_oom(err);
}

static void books_put(struct books *b, int64_t row, const uint32_t *at, const struct codebook_fit *f) {
    int64_t cols = b->rows->outer * b->rows->inner;

    for (int k = 0; k < b->n_words; k++) {
        int64_t place = b->rows->axis == 0 ? row * b->n_words + k : k * b->rows->rows + row;

        if (b->book.dtype == DT_F32)
            ((float *)b->book.data)[place] = f->words[k];
        else
            ((int8_t *)b->book.data)[place] = (int8_t)f->words[k];
    }
    for (int64_t i = 0; i < cols; i++)
        ((uint8_t *)b->code.data)[at[i]] = f->code[i];
    b->scale[row] = f->scale ? f->scale[0] : 1;
}

static int fit_channels(
    const void *w, struct books *b, const struct codebook_fit_options *o, struct error *err) {
    const struct weight_rows one = {.shape = b->rows->shape, .rows = 1, .outer = 1, .inner = 1};
    int64_t cols = b->rows->outer * b->rows->inner;
    _cleanup_(freep) uint32_t *at = malloc((size_t)cols * sizeof(*at) + 1);
    struct codebook_fit_options own = *o;
    int r = at ? 0 : error_oom(err);

    own.per_channel = false;
    for (int64_t row = 0; r == 0 && row < b->rows->rows; row++) {
        _cleanup_(codebook_fit_done) struct codebook_fit f = {0};

        list_row(b->rows, row, at);
        own.min_scale = o->min_scale ? o->min_scale + row : NULL;
        r = codebook_fit(w, &one, at, cols, &own, &f, err);
        if (r == 0)
            books_put(b, row, at, &f);
    }
    return r;
}

/* Returns the value id of the weights, or a negative errno. */
static int emit_channels(struct graph *g, const char *id, const void *w, const struct weight_rows *rows,
    const struct codebook_fit_options *o, struct books *b, struct error *err) {
    struct tensor scale = {.dtype = DT_F32, .shape = {.rank = 1, .dim = {rows->rows}}};
    struct weight form = {.structure = weight_structure_find("dense"),
        .code = weight_code_find("books"),
        .scales = weight_scales_find(o->is_float ? "layer" : "channel"),
        .shape = rows->shape,
        .axis = o->is_float ? 0 : rows->axis,
        .rows = rows->rows,
        .cols = rows->outer * rows->inner,
        .transposed = rows->axis != 0,
        .codes = &b->code,
        .book = &b->book,
        .books = rows->axis == 0 ? WEIGHT_BOOKS_FIRST : WEIGHT_BOOKS_LAST,
        .scale = o->is_float ? NULL : &scale};
    int r = books_init(b, rows, o->n_words, o->is_float, err);

    if (r == 0)
        r = fit_channels(w, b, o, err);
    if (r < 0)
        return r;
    scale.data = b->scale;
    return weight_emit(g, g->n_nodes, id, &form);
}

static int write_channels(struct graph *g, const struct layer_entry *e, const void *w,
    const struct weight_rows *rows, struct codebook_fit_options *o, float **ret_scale, int64_t *ret_n,
    struct error *err) {
    _cleanup_(books_done) struct books b = {0};
    int64_t n = rows->outer * rows->rows * rows->inner;
    int value;

    o->keeps_zero = (double)count_nonzero(w, n) <= (1 - PRUNED_SHARE) * (double)n;
    value = emit_channels(g, e->id, w, rows, o, &b, err);
    if (value < 0)
        return error_set(err, value, "its weights could not be written");
    g->nodes[e->node].in[1] = value;
    *ret_scale = TAKE(b.scale);
    *ret_n = rows->rows;
    return 0;
}

static int write_book(const struct weight_coder *c, struct graph *g, const struct layer_entry *e,
    const struct weight_rows *rows, const float *min_scale, float **ret_scale, int64_t *ret_n,
    struct error *err) {
    const struct quantize_options *o = options_of(c->options, e);
    _cleanup_(encoded_done) struct encoded to = {0};
    _cleanup_(codebook_fit_done) struct codebook_fit f = {0};
    const void *w = g->values[g->nodes[e->node].in[1]].init->data;
    struct codebook_fit_options fit = {.n_words = 1 << o->bits,
        .is_float = o->codebook.entries == CODEBOOK_FLOAT,
        .per_channel = o->per_channel && rows->rows > 1,
        .init = (enum codebook_start)o->codebook.init,
        .seed = c->seed,
        .min_scale = min_scale};
    int r, value;

    if (o->codebook.scope == CODEBOOK_CHANNEL)
        return write_channels(g, e, w, rows, &fit, ret_scale, ret_n, err);
    r = begin(w, rows, o, &to, &fit.keeps_zero, err);
    if (r == 0)
        r = codebook_fit(w, rows, to.at, weight_count_stored(&to.w), &fit, &f, err);
    if (r == 0)
        r = put_fit(&f, o->bits, &to, err);
    if (r < 0)
        return r;
    value = weight_emit(g, g->n_nodes, e->id, &to.w);
    if (value < 0)
        return error_set(err, value, "its weights could not be written");
    g->nodes[e->node].in[1] = value;
    *ret_scale = f.scale;
    *ret_n = f.n_scale;
    f.scale = NULL;
    return 0;
}

static int apply(struct work *work, const struct quantize_options *o, const struct scope *scope,
    json_t *report, struct error *err) {
    struct quantize_options q = *o;
    struct weight_coder coder = {.plan = plan, .options = o, .seed = work->seed, .write = write_book};

    if (o->codebook.entries == CODEBOOK_FLOAT)
        q.activations = ACTIVATIONS_FLOAT; /* integers are what kernels of integers take */
    return quantize_int8(work, &q, &coder, scope, report, err);
}

const struct quantize_scheme quantize_scheme_codebook = {
    .name = "codebook",
    .wants_data = quantize_wants_data,
    .plan = plan,
    .apply = apply,
};
