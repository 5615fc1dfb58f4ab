/* A weight of every form, with what it means computed the plain way. */
#ifndef TESTS_UNIT_WEIGHT_SAMPLE_H
#define TESTS_UNIT_WEIGHT_SAMPLE_H

#include "engine/weight.h"

#define SAMPLE_MAX 512

struct sample_kind {
    const struct weight_structure *structure;
    const struct weight_code *code;
    const struct weight_scales *scales;
    struct shape shape;
    int axis;            /* of the output channels */
    bool has_float_book; /* codes that are looked up: in floats */
};

struct sample {
    uint8_t codes[SAMPLE_MAX * 4], place[SAMPLE_MAX * 4], zero[SAMPLE_MAX], book[256 * 4 * 4];
    float scale[SAMPLE_MAX];
    struct tensor t_codes, t_place, t_zero, t_book, t_scale;
    uint8_t more_codes[SAMPLE_MAX], more_book[16]; /* residual: of the second stage */
    struct tensor t_more_codes, t_more_book;
    struct weight w, more;
    int64_t at[SAMPLE_MAX]; /* of each stored element in the shape's order */
    double stored[SAMPLE_MAX];
    float want[SAMPLE_MAX];   /* the weights, in the shape's order */
    int16_t ints[SAMPLE_MAX]; /* their integers, zero point off, row by row */
};

/* false: there is no such combination. */
bool sample_init(struct sample *s, const struct sample_kind *k);

/* Every combination over several shapes. */
void sample_each(void (*check)(struct sample *s, const struct sample_kind *k));

#endif
