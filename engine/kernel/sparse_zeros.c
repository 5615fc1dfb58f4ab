#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "engine/kernel/sparse_pack.h"
#include "engine/kernel/weights.h"

/* Whether a layer is sparse is asked whenever a net is planned: it must not read all weights of ordinary
 * nets. So many runs of neighbours are looked at, and after the first few a dense layer is known. */
#define RUNS       64
#define RUN        64
#define FIRST_RUNS 4
#define FIRST_MIN  0.3f

struct sample {
    uint64_t rng;
    int64_t n; /* elements there are */
};

static int64_t next_run(struct sample *s, int64_t length) {
    s->rng = s->rng * 6364136223846793005u + 1442695040888963407u;
    return (int64_t)((s->rng >> 33) % (uint64_t)(s->n - length + 1));
}

/* is_zero(ctx, i) of 0 <= i < n. */
static float zeros_of(int64_t n, bool (*is_zero)(const void *ctx, int64_t i), const void *ctx) {
    struct sample s = {.rng = 1, .n = n};
    int64_t length = n < RUN ? n : RUN, zeros = 0, seen = 0;

    if (n < 1)
        return 0;
    for (int r = 0; r < RUNS; r++) {
        int64_t first = next_run(&s, length);

        for (int64_t i = first; i < first + length; i++)
            zeros += is_zero(ctx, i);
        seen += length;
        if (r + 1 == FIRST_RUNS && (float)zeros < FIRST_MIN * (float)seen)
            return 0;
    }
    return (float)zeros / (float)seen;
}

/* Of structures that do not store zeros; 0: dense. */
static float zeros_not_stored(const struct weight *w) {
    int64_t all = w->rows * w->cols;

    return all > 0 ? 1 - (float)weight_count_stored(w) / (float)all : 0;
}

static bool is_float_zero(const void *ctx, int64_t i) {
    float f;

    memcpy(&f, (const char *)ctx + (size_t)i * sizeof(f), sizeof(f));
    return f == 0;
}

float sparse_f32_zeros(const struct layer *l) {
    const void *floats = kernel_plain_weights(l);
    int64_t n;

    if (!floats)
        return zeros_not_stored(l->node->weight);
    return shape_count(kernel_weight_shape(l), &n) ? zeros_of(n, is_float_zero, floats) : 0;
}

struct quads {
    const struct weight *w;
    const struct sparse_shape *sh;
    const int16_t *codes; /* NULL: the bytes of w */
};

/* Quad i: output, tap, and then four neighbouring inputs. */
static bool is_quad_zero(const void *ctx, int64_t i) {
    const struct quads *q = ctx;
    const struct sparse_shape *sh = q->sh;
    int64_t per_tap = sh->ic / 4, ic = i % per_tap * 4, tap = i / per_tap % sh->taps;
    int64_t oc = i / per_tap / sh->taps;
    const uint8_t *bytes = q->codes ? NULL : q->w->codes->data;
    uint8_t zero = 0;

    if (bytes && q->w->zero)
        zero = (uint8_t)weight_zero_at(q->w, q->w->scales->n(q->w) == 1 ? 0 : oc);
    for (int k = 0; k < 4; k++) {
        size_t at = (size_t)(sh->is_kn ? (ic + k) * sh->groups * sh->oc + oc
                                       : (oc * sh->ic + ic + k) * sh->taps + tap);

        if (bytes ? bytes[at] != zero : q->codes[at] != 0)
            return false;
    }
    return true;
}

float sparse_s8_zeros(const struct layer *l, const struct sparse_shape *sh) {
    const struct weight *w = l->node->weight;
    int64_t n = sh->groups * sh->oc * sh->taps * (sh->ic / 4);
    struct quads q = {.w = w, .sh = sh};
    _cleanup_(freep) int16_t *codes = NULL;
    struct sparse_shape by_rows = *sh;
    struct error err = {0};

    if (strcmp(w->structure->name, "dense") == 0) {
        bool is_byte = !w->book && !w->stored_bits && (w->codes->dtype == DT_S8 || w->codes->dtype == DT_U8);

        return is_byte ? zeros_of(n, is_quad_zero, &q) : 0;
    }
    if (zeros_not_stored(w) < FIRST_MIN)
        return 0;
    codes = malloc((size_t)(w->rows * w->cols) * sizeof(*codes));
    if (!codes || weight_get_codes(w, codes, &err) < 0)
        return 0;
    by_rows.is_kn = sh->is_kn && !w->transposed;
    q.sh = &by_rows;
    q.codes = codes;
    return zeros_of(n, is_quad_zero, &q);
}
