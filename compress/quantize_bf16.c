/* Weights in bfloat16 behind a Cast: half of the file, nothing else changes. */
#include "compress/encode.h"
#include "compress/quantize.h"

static int plan(const struct graph *g, const void *options, struct layers *layers, struct effect *effects,
    struct error *err) {
    struct encode_options o;

    (void)options;
    encode_options_of("dense", "bf16", "layer", &o);
    return method_encode.plan(g, &o, layers, effects, err);
}

static int apply(struct work *work, const struct quantize_options *options, const struct scope *scope,
    json_t *report, struct error *err) {
    struct encode_options o;

    (void)options;
    encode_options_of("dense", "bf16", "layer", &o);
    return method_encode.apply(work, &o, scope, report, err);
}

const struct quantize_scheme quantize_scheme_bf16 = {.name = "bf16", .plan = plan, .apply = apply};
