/* Passes over memory of a batch norm with what follows it: y = clamp(scale x + shift + residual), a line
 * [scale, shift] a channel, over rows of c channels. Compiled for several instruction sets; sums over rows
 * are made in floats for some rows and then in doubles, always in the same order. The elements of rows are
 * floats, or all of them bfloat16; numbers a channel are floats. */
#ifndef ENGINE_TRAIN_NORM_ROWS_H
#define ENGINE_TRAIN_NORM_ROWS_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/cpu.h"

struct norm_forward {
    int64_t rows, c;
    const void *x;
    const float *scale, *shift; /* [c] */
    const void *residual;       /* NULL: none */
    float low, high;            /* of the clamp; infinite: none */
    void *y;                    /* may be the residual's memory */
};

/* dz is the gradient before the clamp: dy where the clamp let through, else 0. Where it did is seen in y, or
 * found again from x when y is NULL. */
struct norm_backward {
    int64_t rows, c;
    const void *x, *y, *dy;
    const float *scale, *shift; /* of forward; read only when y is NULL and there is a clamp */
    float low, high;
    const float *mean; /* [c] */
    void *dz;          /* sum: written when not NULL; may be dy's memory */
    /* spread: dx = k dz + a x + b */
    const float *k, *a, *b; /* [c] */
    void *dx;               /* may be dy's memory; NULL: not wanted */
    bool adds;              /* dx += … */
    void *residual;         /* += dz; NULL: not wanted */
};

struct norm_rows {
    void (*sum)(const struct norm_forward *f, double *sum);       /* [2][c] += x, x² */
    void (*apply)(const struct norm_forward *f);                  /* y */
    void (*sum_back)(const struct norm_backward *b, double *sum); /* [2][c] += dz, dz (x - mean) */
    void (*spread)(const struct norm_backward *b);
};

extern const struct norm_rows norm_rows_avx512, norm_rows_avx2, norm_rows_plain, norm_rows_avx512bf16;

/* Of floats, or of bfloat16, which only processors with avx512_bf16 have. */
const struct norm_rows *norm_rows_for(const struct cpu *cpu, bool is_bf16);

#endif
