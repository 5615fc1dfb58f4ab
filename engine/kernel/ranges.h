/* A kernel's work cut into ranges of items, one for each thread. */
#ifndef ENGINE_KERNEL_RANGES_H
#define ENGINE_KERNEL_RANGES_H

#include "engine/kernel/kernel.h"

/* Items first to end - 1, the share of `part`. */
typedef void range_fn(
    const struct kernel_state *s, const struct run_io *io, unsigned part, int64_t first, int64_t end);

/* How many parts are worth it: a thread each, none with less than `min` of the work and none without an item.
 * At least 1. `work` may be any product of shapes and attributes: in double, where it cannot overflow. */
unsigned ranges_count(const struct layer *l, int64_t n_items, double work, double min);

/* fn over [0, n_items) in n_parts ranges of nearly one length; they begin at multiples of `step`. */
void ranges_run(const struct kernel_state *s, const struct run_io *io, range_fn *fn, int64_t n_items,
    int64_t step, unsigned n_parts);

#endif
