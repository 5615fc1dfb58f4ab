#include "compress/codebook_fit.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

#define N_BINS      16384
#define MOST        127 /* of int8, symmetric */
#define MAX_TURNS   6
#define LEAST_SCALE 1e-30f

/* The stored elements, as all parts of a fit see them. */
struct stored {
    const char *w;
    const struct weight_rows *rows;
    const uint32_t *at;
    int64_t n;
    const struct codebook_fit_options *o;
};

static int64_t place_of(const struct stored *s, int64_t i) {
    return s->at ? (int64_t)s->at[i] : i;
}

static float number_at(const struct stored *s, int64_t place) {
    float v;

    memcpy(&v, s->w + (size_t)place * sizeof(v), sizeof(v));
    return v;
}

static int64_t scale_of(const struct stored *s, const struct codebook_fit *f, int64_t place) {
    return f->n_scale > 1 ? place / s->rows->inner % s->rows->rows : 0;
}

static float quotient(const struct stored *s, const struct codebook_fit *f, int64_t place) {
    float v = number_at(s, place);

    return f->scale ? v / f->scale[scale_of(s, f, place)] : v;
}

static int check_finite(const struct stored *s, float *ret_low, float *ret_high, struct error *err) {
    *ret_low = *ret_high = 0;
    for (int64_t i = 0; i < s->n; i++) {
        int64_t at = place_of(s, i);
        float v = number_at(s, at);

        if (!isfinite(v))
            return error_set(err, -EBADMSG, "weight %lld is not a finite number", (long long)at);
        *ret_low = i ? fminf(*ret_low, v) : v;
        *ret_high = i ? fmaxf(*ret_high, v) : v;
    }
    return 0;
}

static float least_scale(const struct stored *s, const struct codebook_fit *f, int64_t k) {
    float least = LEAST_SCALE;

    if (!s->o->min_scale)
        return least;
    if (f->n_scale > 1)
        return fmaxf(least, s->o->min_scale[k]);
    for (int64_t r = 0; r < s->rows->rows; r++)
        least = fmaxf(least, s->o->min_scale[r]);
    return least;
}

/* To begin with the largest weight of each range is 127. */
static int start_scales(const struct stored *s, struct codebook_fit *f, struct error *err) {
    f->n_scale = s->o->per_channel ? s->rows->rows : 1;
    f->scale = calloc((size_t)f->n_scale + 1, sizeof(*f->scale));
    if (!f->scale)
        return error_oom(err);
    for (int64_t i = 0; i < s->n; i++) {
        int64_t at = place_of(s, i);
        float *most = &f->scale[scale_of(s, f, at)];

        *most = fmaxf(*most, fabsf(number_at(s, at)));
    }
    for (int64_t k = 0; k < f->n_scale; k++) {
        float v = fmaxf(f->scale[k] / MOST, least_scale(s, f, k));

        f->scale[k] = v > LEAST_SCALE ? v : 1; /* of zeros */
    }
    return 0;
}

static void fill_bins(const struct stored *s, const struct codebook_fit *f, struct codebook_bins *b) {
    codebook_bins_clear(b);
    for (int64_t i = 0; i < s->n; i++) {
        int64_t at = place_of(s, i);
        double scale = f->scale ? (double)f->scale[scale_of(s, f, at)] : 1;
        float v = quotient(s, f, at);

        if (!(s->o->keeps_zero && v == 0))
            codebook_bins_add(b, (double)v, scale * scale);
    }
}

static void round_words(struct codebook_fit *f) {
    for (int k = 0; k < f->n_words; k++)
        f->words[k] = fminf(fmaxf(rintf(f->words[k]), -MOST), MOST);
}

/* The word of an exact zero that is to stay one: nearest finds it, unless another word is as near. */
static int code_of(const struct codebook_fit *f, float v) {
    return codebook_nearest(f->words, f->n_words, v);
}

static double set_codes(const struct stored *s, struct codebook_fit *f) {
    double error = 0;

    for (int64_t i = 0; i < s->n; i++) {
        int64_t at = place_of(s, i);
        float v = quotient(s, f, at);
        double scale = f->scale ? (double)f->scale[scale_of(s, f, at)] : 1, d;
        int code = code_of(f, v);

        f->code[i] = (uint8_t)code;
        d = scale * (double)(v - f->words[code]);
        error += d * d;
    }
    return error;
}

/* scale = sum w word / sum word², of each range. */
static int fit_scales(const struct stored *s, struct codebook_fit *f, struct error *err) {
    _cleanup_(freep) double *up = calloc(2 * (size_t)f->n_scale + 1, sizeof(*up));
    double *down = up + f->n_scale;

    if (!up)
        return error_oom(err);
    for (int64_t i = 0; i < s->n; i++) {
        int64_t at = place_of(s, i), k = scale_of(s, f, at);
        double word = (double)f->words[f->code[i]];

        up[k] += (double)number_at(s, at) * word;
        down[k] += word * word;
    }
    for (int64_t k = 0; k < f->n_scale; k++)
        if (down[k] > 0 && up[k] > 0)
            f->scale[k] = fmaxf((float)(up[k] / down[k]), least_scale(s, f, k));
    return 0;
}

/* One turn from the present scales: words, codes and the error. */
static int turn(const struct stored *s, bool goes_on, struct codebook_bins *b, struct codebook_fit *f,
    struct error *err) {
    const struct codebook_options o = {
        .init = s->o->init, .seed = s->o->seed, .keeps_zero = s->o->keeps_zero, .goes_on = goes_on};
    int r;

    fill_bins(s, f, b);
    r = codebook_find(b, &o, f->words, f->n_words, NULL, err);
    if (r < 0)
        return r;
    if (f->scale)
        round_words(f);
    f->error = set_codes(s, f);
    return 0;
}

struct best {
    float words[CODEBOOK_MAX];
    float *scale;
    double error;
};

static void best_done(struct best *b) {
    free(b->scale);
}

static void keep(struct best *b, const struct codebook_fit *f) {
    memcpy(b->words, f->words, sizeof(b->words));
    memcpy(b->scale, f->scale, (size_t)f->n_scale * sizeof(*b->scale));
    b->error = f->error;
}

/* Scales and words by turns while that helps; the best of all turns is what remains. */
static int take_turns(
    const struct stored *s, struct codebook_bins *b, struct codebook_fit *f, struct error *err) {
    _cleanup_(best_done) struct best best = {.scale = calloc((size_t)f->n_scale + 1, sizeof(float))};
    int r = best.scale ? 0 : error_oom(err);

    if (r == 0)
        keep(&best, f);
    for (int i = 0; r == 0 && i < MAX_TURNS; i++) {
        r = fit_scales(s, f, err);
        if (r == 0)
            r = turn(s, true, b, f, err);
        if (r < 0 || f->error > best.error * (1 - 1e-4))
            break;
        keep(&best, f);
    }
    if (r < 0)
        return r;
    memcpy(f->words, best.words, sizeof(f->words));
    memcpy(f->scale, best.scale, (size_t)f->n_scale * sizeof(*f->scale));
    f->error = set_codes(s, f);
    return 0;
}

int codebook_fit(const void *w, const struct weight_rows *rows, const uint32_t *at, int64_t n,
    const struct codebook_fit_options *o, struct codebook_fit *ret, struct error *err) {
    const struct stored s = {.w = w, .rows = rows, .at = at, .n = n, .o = o};
    _cleanup_(codebook_bins_done) struct codebook_bins b = {0};
    _cleanup_(codebook_fit_done) struct codebook_fit f = {.n_words = o->n_words};
    float low, high;
    int r = check_finite(&s, &low, &high, err);

    if (r < 0)
        return r;
    f.code = malloc((size_t)n + 1);
    if (!f.code)
        return error_oom(err);
    if (!o->is_float)
        r = start_scales(&s, &f, err);
    if (r == 0)
        r = codebook_bins_init(
            &b, N_BINS, o->is_float ? (double)low : -MOST, o->is_float ? (double)high : MOST, err);
    if (r == 0)
        r = turn(&s, false, &b, &f, err);
    if (r == 0 && f.scale)
        r = take_turns(&s, &b, &f, err);
    if (r < 0)
        return r;
    *ret = f;
    f = (struct codebook_fit){0};
    return 0;
}

void codebook_fit_done(struct codebook_fit *f) {
    free(f->code);
    free(f->scale);
    *f = (struct codebook_fit){0};
}
