/* The matchers of weight forms, over any file: what is recognised and passes its check is decoded, and its
 * integers times its scales are the numbers. */
#include <math.h>
#include <stdlib.h>

#include "engine/onnx.h"
#include "engine/onnx_read.h"
#include "engine/ops.h"
#include "engine/pass.h"
#include "engine/weight.h"
#include "tests/fuzz/fuzz.h"

#define ELEMENTS_MAX ((int64_t)1 << 20)

static void check_codes(const struct weight *w, const float *dense) {
    int64_t n = w->rows * w->cols;
    _cleanup_(freep) int16_t *codes = calloc((size_t)n + 1, sizeof(*codes));
    struct error err = {0};

    if (!codes || weight_get_codes(w, codes, &err) < 0)
        abort();
    /* rows follow each other in the tensor, too */
    for (int64_t i = 0; !w->transposed && i < n; i++) {
        float v = (float)codes[i] * weight_scale_at(w, i / w->cols);

        if (!(v == dense[i]) && isfinite(v))
            abort();
    }
}

static void check_weight(const struct weight *w) {
    int64_t n = w->rows * w->cols;
    _cleanup_(freep) float *dense = NULL;
    struct error err = {0};

    if (weight_check(w, &err) < 0) {
        if (!err.text[0])
            abort(); /* a refusal says why */
        return;
    }
    if (n > ELEMENTS_MAX)
        return;
    dense = calloc((size_t)n + 1, sizeof(*dense));
    if (!dense || weight_decode(w, dense, &err) < 0)
        abort();
    if (weight_is_integer(w))
        check_codes(w, dense);
    (void)weight_bytes(w);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    _cleanup_(graph_freep) struct graph *g = NULL;
    struct error err = {0};

    if (onnx_read(data, size, &g, &err) < 0 || pass_fold_constants(g, &err) < 0)
        return 0;
    for (size_t i = 0; i < g->n_nodes; i++) {
        const struct weight *w = NULL;

        if (g->nodes[i].op->couple != OP_COUPLE_FREE || g->nodes[i].n_in < 2 || g->nodes[i].in[1] < 0)
            continue;
        if (weight_match(g, g->nodes[i].in[1], &w, NULL, &err) == 0 && w)
            check_weight(w);
    }
    return 0;
}
