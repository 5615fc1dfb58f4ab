/* The codebook of a layer: its weights as w = scale[row] * word[code], by turns the words (codebook.h) and
 * the scales (least squares), each time with less error sum (w - scale word)². Words of int8 are rounded with
 * the rest fitted to what rounding leaves. */
#ifndef COMPRESS_CODEBOOK_FIT_H
#define COMPRESS_CODEBOOK_FIT_H

#include "compress/codebook.h"
#include "compress/quantize.h"

struct codebook_fit_options {
    int n_words;      /* 2 to CODEBOOK_MAX */
    bool is_float;    /* words are floats, without scales; else of int8, with */
    bool per_channel; /* int8: a scale a row, else one */
    bool keeps_zero;  /* one word is exactly 0, which weights of exactly 0 get */
    enum codebook_start init;
    uint64_t seed;
    const float *min_scale; /* [rows] or NULL: scales are not smaller */
};

struct codebook_fit {
    int n_words;
    float words[CODEBOOK_MAX]; /* sorted; whole numbers within ±127 unless floats */
    uint8_t *code;             /* [n], of the elements that are stored */
    float *scale;              /* [n_scale]; NULL: floats */
    int64_t n_scale;           /* rows or 1 */
    double error;              /* sum (w - scale word)² */
};

/* w: floats as in a file, of rows->outer * rows->rows * rows->inner elements, of which `n` are stored: those
 * at `at`, or all of them in order (NULL). Free with codebook_fit_done. Errors: -ENOMEM, -EBADMSG: a weight
 * is not finite. */
int codebook_fit(const void *w, const struct weight_rows *rows, const uint32_t *at, int64_t n,
    const struct codebook_fit_options *o, struct codebook_fit *ret, struct error *err);
void codebook_fit_done(struct codebook_fit *f);

#endif
