/* Passes over memory of a batch norm with what follows it: y = clamp(scale x + shift + residual), a line
 * [scale, shift] a channel, over rows of c channels. Compiled for several instruction sets; sums over rows
 * are made in floats for some rows and then in doubles, always in the same order. */
#ifndef ENGINE_TRAIN_NORM_ROWS_H
#define ENGINE_TRAIN_NORM_ROWS_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/cpu.h"

struct norm_forward {
    int64_t rows, c;
    const float *x;
    const float *scale, *shift; /* [c] */
    const float *residual;      /* NULL: none */
    float low, high;            /* of the clamp; infinite: none */
    float *y;                   /* may be the residual's memory */
};

/* dz is the gradient before the clamp: dy where the clamp let through, else 0. Where it did is seen in y, or
 * found again from x when y is NULL. */
struct norm_backward {
    int64_t rows, c;
    const float *x, *y, *dy;
    const float *scale, *shift; /* of forward; read only when y is NULL and there is a clamp */
    float low, high;
    const float *mean; /* [c] */
    float *dz;         /* sum: written when not NULL; may be dy's memory */
    /* spread: dx = k dz + a x + b */
    const float *k, *a, *b; /* [c] */
    float *dx;              /* may be dy's memory; NULL: not wanted */
    bool adds;              /* dx += … */
    float *residual;        /* += dz; NULL: not wanted */
};

struct norm_rows {
    void (*sum)(const struct norm_forward *f, double *sum);       /* [2][c] += x, x² */
    void (*apply)(const struct norm_forward *f);                  /* y */
    void (*sum_back)(const struct norm_backward *b, double *sum); /* [2][c] += dz, dz (x - mean) */
    void (*spread)(const struct norm_backward *b);
};

extern const struct norm_rows norm_rows_avx512, norm_rows_avx2, norm_rows_plain;

const struct norm_rows *norm_rows_for(const struct cpu *cpu);

#endif
