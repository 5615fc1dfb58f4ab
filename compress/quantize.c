#include "compress/quantize.h"

#include <errno.h>

#include "base/cleanup.h"
#include "compress/fold.h"
#include "compress/quantize_control.h"

const struct quantize_scheme *const quantize_schemes[N_QUANTIZE_SCHEMES] = {
    [QUANTIZE_INT8] = &quantize_scheme_int8,
    [QUANTIZE_INT4] = &quantize_scheme_int4,
    [QUANTIZE_CODEBOOK] = &quantize_scheme_codebook,
    [QUANTIZE_PRODUCT] = &quantize_scheme_product,
    [QUANTIZE_BF16] = &quantize_scheme_bf16,
    [QUANTIZE_FIXED] = &quantize_scheme_fixed,
    [QUANTIZE_MIXED] = &quantize_scheme_mixed,
    [QUANTIZE_RESIDUAL] = &quantize_scheme_residual,
    [QUANTIZE_DYNAMIC] = &quantize_scheme_dynamic,
};

static const struct quantize_scheme *scheme_of(const void *options) {
    return quantize_schemes[((const struct quantize_options *)options)->scheme];
}

static int check(const void *options, struct error *err) {
    const struct quantize_options *o = options;
    const struct quantize_scheme *s = scheme_of(o);

    if (!s)
        return error_set(err, -EINVAL, ".scheme: this build does not have it");
    if (o->has_qat && o->has_accuracy_control)
        return error_set(err, -EINVAL,
            ".accuracy_control: layers are not taken back after a training (qat) that counts on them");
    if (o->has_qat && o->adaround)
        return error_set(err, -EINVAL, ".adaround: a training (qat) rounds by itself");
    return s->check ? s->check(options, err) : 0;
}

static bool wants_data(const void *options) {
    const struct quantize_scheme *s = scheme_of(options);

    return s && ((s->wants_data && s->wants_data(options)) || quantize_wants_data(options));
}

static int plan(const struct graph *g, const void *options, struct layers *layers, struct effect *effects,
    struct error *err) {
    return scheme_of(options)->plan(g, options, layers, effects, err);
}

/* The scheme, then a training through the forms it wrote, from the floats before. */
static int apply_qat(struct work *work, const struct quantize_scheme *s, const struct quantize_options *o,
    const struct scope *scope, json_t *report, struct error *err) {
    _cleanup_(graph_freep) struct graph *latents = NULL;
    int r = fold_graph(work->graph, err);

    if (r == 0)
        r = graph_clone(work->graph, &latents, err);
    if (r == 0)
        r = s->apply(work, o, scope, report, err);
    return r < 0 ? r : quantize_qat(work, o, latents, report, err);
}

static int apply(
    struct work *work, const void *options, const struct scope *scope, json_t *report, struct error *err) {
    const struct quantize_options *o = options;
    const struct quantize_scheme *s = scheme_of(o);

    if (o->has_qat)
        return apply_qat(work, s, o, scope, report, err);
    return o->has_accuracy_control ? quantize_controlled(work, s, o, scope, report, err)
                                   : s->apply(work, o, scope, report, err);
}

static bool trains(const void *options) {
    return ((const struct quantize_options *)options)->has_qat;
}

const struct method method_quantize = {
    .name = "quantize",
    .summary = "Fewer bits for weights and activations",
    .source = "Jacob et al. 2018; Krishnamoorthi 2018",
    .options = &quantize_table,
    .options_size = sizeof(struct quantize_options),
    .folds = true,
    .takes_sparse = true,
    .wants_data = wants_data,
    .check = check,
    .trains = trains,
    .plan = plan,
    .apply = apply,
};
