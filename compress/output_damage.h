/* How far a changed network's outputs are from those of the one it was made of, on some samples: what layers
 * are compared by. */
#ifndef COMPRESS_OUTPUT_DAMAGE_H
#define COMPRESS_OUTPUT_DAMAGE_H

#include "compress/samples.h"
#include "engine/graph.h"

struct output_reference {
    struct samples samples; /* as many as are looked at */
    float *data;            /* outputs, batch by batch as they came */
    size_t n, room;
};

/* `most` samples of the caller's, who keeps them. Errors: those of probe_run. */
int output_reference_init(struct output_reference *r, const struct graph *parent,
    const struct samples *samples, int64_t most, struct error *err);
void output_reference_done(struct output_reference *r);

/* *ret: |y - z|² / |z|² over all outputs; y of `changed`, which has the same ones. Errors: those of
 * probe_run; -EINVAL: its outputs are other ones. */
int output_damage(
    const struct output_reference *r, const struct graph *changed, double *ret, struct error *err);

#endif
