/* Transforms: what stands between a stored parameter and the operators that read it (pruning masks,
 * codebooks, low-bit weights, low-rank pairs), or between a value and its consumers (low-bit activations).
 * One row a transform, beside its code in transform_NAME.c, one line in a table of transform.c. Whatever is
 * learned goes through the trainer's one step: parameters that a transform brings along (codebook entries,
 * scales) are moved, averaged, and saved in checkpoints like all others.
 *
 *   stored w ──forward──> seen w ──> operator        once a minibatch, before its first node
 *   dL/dw    <──backward── dL/dseen                  once a minibatch, after the sum over the lanes
 *
 * A gradient is exact where the transform has one; where it is flat (rounding, sign) it is the row's
 * straight-through estimator, written beside it with its source. */
#ifndef ENGINE_TRAIN_TRANSFORM_H
#define ENGINE_TRAIN_TRANSFORM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/* ---- weights ---- */

/* A parameter as a transform sees it: [outer][channels][inner], element (o, c, k) at (o channels + c) inner +
 * k; channels are the operator's output channels. Convolutions, and Gemm with transB, have outer 1; Gemm's
 * and MatMul's [K][N] has outer K and inner 1. Work is cut into parts of whole channels, whose number depends
 * on the shape alone. */
struct transform_site {
    const char *name;  /* of the parameter */
    const float *data; /* as stored when the trainer is made */
    int64_t n, outer, channels, inner;
    int64_t part_channels; /* of each part but the last */
    unsigned n_parts;
};

#define TRANSFORM_MAX_OWN 2

/* What a row brings along and needs; filled by prepare(). */
struct transform_needs {
    int n_own;
    struct {
        const char *name; /* it is called PARAMETER/name */
        int64_t n;
        bool decays;
    } own[TRANSFORM_MAX_OWN];
    size_t n_sums; /* doubles that parts share */
    bool replaces; /* the stored parameter is not learned: only what the transform brings along is */
};

struct transform_io {
    const struct transform_site *site;
    const void *param;
    const float *x; /* stored, or what the transform before makes of it */
    float *y;       /* seen, or what the next one takes; in backward as forward left it */
    const float *dy;
    float *dx; /* to be written; may be dy's memory; NULL: not wanted (backward) */
    float *own[TRANSFORM_MAX_OWN], *d_own[TRANSFORM_MAX_OWN]; /* d_own: to be written (backward) */
    double *sums;                                             /* [n_sums], kept from forward to backward */
    uint64_t step;    /* steps made so far: what depends on chance depends on it */
    bool is_training; /* false: what the result is to be, without chance */
};

/* Phases: before each further one all parts have done the phase before. */
struct transform {
    const char *name;
    bool stops_decay; /* the stored parameter does not decay */
    int n_forward, n_backward;
    /* Checks `param` against the site. Errors: -EINVAL naming what does not fit. */
    int (*prepare)(
        const struct transform_site *site, const void *param, struct transform_needs *ret, struct error *err);
    /* First values of what it brings along. NULL: nothing. */
    void (*start)(const struct transform_site *site, const void *param, float *const *own);
    void (*forward)(const struct transform_io *io, int phase, unsigned part);
    void (*backward)(const struct transform_io *io, int phase, unsigned part);
    /* After each step: brings the stored parameter `x` and its own back to where they may be. NULL: they may
     * be anywhere. */
    void (*confine)(const struct transform_site *site, const void *param, float *x, float *const *own);
};

static inline int64_t transform_first_channel(const struct transform_site *s, unsigned part) {
    int64_t c = (int64_t)part * s->part_channels;

    return c < s->channels ? c : s->channels;
}

/* Where the elements of (outer o, channel c) begin. */
static inline int64_t transform_at(const struct transform_site *s, int64_t o, int64_t c) {
    return (o * s->channels + c) * s->inner;
}

/* "codebook", "fake_quantize", "low_rank", "mask", "scale", "sign", "ternary". NULL: none such. */
const struct transform *transform_find(const char *name);

/* One weight transform of a session: several of one value act in the order of the list. `param` is the row's
 * struct below; it and what it points to live as long as the trainer. */
struct weight_transform {
    int value; /* the initialiser, in the graph */
    const struct transform *row;
    const void *param;
};

/* "mask": seen = keep ? w : 0 (LeCun 1990, Han 2015). */
struct transform_mask {
    const uint8_t *keep; /* [n] */
    bool is_dense;       /* the gradient goes to masked weights too: they may come back when the mask changes
                            (dynamic       network surgery, Guo 2016) */
};

enum transform_range { TRANSFORM_LAYER, TRANSFORM_CHANNEL };

/* "fake_quantize": seen = s clip(round(w / s), -q, q), q = 2^(bits-1) - 1, round half to even. Gradient: 1
 * for |w / s| <= q, else 0 (clipped straight-through). A learned s follows Esser 2020 (LSQ, equations 3 and
 * 5): ds = g sum dy (round(w / s) - w / s inside, else ±q), g = 1 / sqrt(N q) with N the weights of that
 * scale. */
struct transform_fake_quantize {
    int bits; /* 2 to 8 */
    enum transform_range range;
    const float *scale; /* [1] or [channels]; NULL: 2 mean |w| / sqrt(q) (Esser 2020, 2.1) */
    bool learns_scale;  /* … as PARAMETER/scale */
};

/* "codebook": seen = scale[c] entry[book][index], PARAMETER/entries learned by the sum of the gradients of
 * all that share an entry (Han 2016, equation 3). The stored parameter is not learned. */
struct transform_codebook {
    const uint8_t *index;       /* [n] */
    const float *entries;       /* [1 or channels][n_entries], to begin with */
    int n_entries;              /* of a book, at most 256 */
    enum transform_range range; /* one book, or one a channel */
    const float *scale;         /* [channels]; NULL: 1 */
    int zero;                   /* entry that stays as it is (0 of pruned weights); -1: none */
};

enum transform_gradient {
    TRANSFORM_STE,    /* 1 for |x| <= 1 (hard tanh: Courbariaux 2015, Hubara 2016) */
    TRANSFORM_BIREAL, /* 2 - 2 |x| for |x| <= 1 (Liu 2018, equation 9) */
    TRANSFORM_SWISH,  /* derivative of SignSwish, b (2 - b x tanh(b x / 2)) / (1 + cosh(b x)), b = 5 (Darabi
                         2018) */
};

enum transform_rounding {
    TRANSFORM_DETERMINISTIC,
    TRANSFORM_STOCHASTIC, /* P(+1) = clip((w + 1) / 2, 0, 1) (Courbariaux 2015, equation 2) in training */
};

enum transform_magnitude {
    TRANSFORM_ONE,          /* ±1: BinaryConnect */
    TRANSFORM_MEAN_CHANNEL, /* mean |w| of each output channel: BWN, XNOR (Rastegari 2016, equation 6) */
    TRANSFORM_MEAN_LAYER,
};

/* "sign": seen = a sign(w), sign(0) = 1. Gradient: dw = a g(w) dy + sign(w) / n sum(dy sign(w)), the second
 * for what the mean a depends on (exact; Rastegari 2016 keep of that sum only the weight's own term). Stored
 * weights are kept within [-1, 1] where the magnitude is 1 (Courbariaux 2015, 2.4). */
struct transform_sign {
    enum transform_magnitude magnitude;
    enum transform_gradient gradient;
    enum transform_rounding rounding;
    uint64_t seed; /* of stochastic rounding: depends on (seed, step, element) */
};

/* "ternary": seen = a {-1, 0, 1} with threshold t = 0.7 mean |w| and a the mean of the |w| above it;
 * gradient: dw = dy (Li 2016, equations 6 and 7, section 3). */
struct transform_ternary {
    enum transform_range range;
};

/* "scale": seen = w s[c], both learned; s is PARAMETER/scale, 1 at first. */
struct transform_scale {
    bool only_scale; /* w itself stays as it is */
};

/* "low_rank": seen = A B of the parameter as a matrix [rows][cols], rows its first dimension;
 * PARAMETER/a [rows][rank], PARAMETER/b [rank][cols]. The stored parameter is not learned. */
struct transform_low_rank {
    int64_t rows, rank;
    const float *a, *b; /* to begin with */
};

/* ---- activations ---- */

/* Elementwise y = f(x), with one learned number or none. `n` elements of `n_samples` samples. */
struct activation {
    const char *name;
    /* Errors: -EINVAL naming what does not fit. ret_own: the learned number's first value; NAN: there is
     * none. */
    int (*prepare)(const void *param, float *ret_own, struct error *err);
    void (*forward)(const void *param, float own, const float *x, int64_t n, float *y);
    /* dx = …, or with `adds` dx += …; returns the learned number's gradient. dx NULL: not wanted. `features`:
     * elements of one sample. */
    double (*backward)(const void *param, float own, const float *x, const float *dy, int64_t n,
        int64_t features, float *dx, bool adds);
};

/* "clip_quantize", "lsq", "pact", "sign". NULL: none such. */
const struct activation *activation_find(const char *name);

/* One activation transform of a session: several of one value act in the order of the list. A learned number
 * is the parameter VALUE/scale. `param` lives as long as the trainer. */
struct activation_transform {
    int value;            /* in the graph: the input, or what a node makes */
    const char *consumer; /* id of the one node that sees the transformed value; NULL: all, and the loss */
    const struct activation *row;
    const void *param;
};

/* "clip_quantize": y = s (clip(round(x / s) + zero, low, high) - zero); gradient 1 where nothing was clipped.
 * u8: low 0, high 255; k bits of DoReFa (Zhou 2016): s = 1 / (2^k - 1), zero 0, low 0, high 2^k - 1. */
struct activation_clip_quantize {
    float scale;
    int zero, low, high;
};

/* "lsq": y = s clip(round(x / s), low, high), s learned (Esser 2020; its gradient times
 * 1 / sqrt(features high)). */
struct activation_lsq {
    float scale; /* to begin with */
    int low, high;
};

/* "pact": y = s round(clip(x, 0, a) / s), s = a / (2^bits - 1), a learned (Choi 2018, equations 1 to 3):
 * da = sum of dy where x >= a. */
struct activation_pact {
    int bits;    /* 1 to 8 */
    float bound; /* a to begin with */
};

/* "sign": y = x >= 0 ? 1 : -1. */
struct activation_sign {
    enum transform_gradient gradient;
};

/* g(x) of a gradient of sign. */
float transform_sign_slope(enum transform_gradient g, float x);

#endif
