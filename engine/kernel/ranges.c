#include "engine/kernel/ranges.h"

#include "engine/pool.h"

unsigned ranges_count(const struct layer *l, int64_t n_items, double work, double min) {
    int64_t n = l->n_threads < n_items ? (int64_t)l->n_threads : n_items;

    if (work < min * (double)n)
        n = (int64_t)(work / min) + 1 < n ? (int64_t)(work / min) + 1 : n;
    return n > 1 ? (unsigned)n : 1;
}

struct ranges {
    const struct kernel_state *s;
    const struct run_io *io;
    range_fn *fn;
    int64_t n_items, step, n_steps;
    unsigned n_parts;
};

static void run_range(void *ctx, unsigned part) {
    const struct ranges *r = ctx;
    int64_t first = r->n_steps * part / r->n_parts * r->step;
    int64_t end = r->n_steps * (part + 1) / r->n_parts * r->step;

    r->fn(r->s, r->io, part, first, end < r->n_items ? end : r->n_items);
}

void ranges_run(const struct kernel_state *s, const struct run_io *io, range_fn *fn, int64_t n_items,
    int64_t step, unsigned n_parts) {
    struct ranges r = {s, io, fn, n_items, step, (n_items + step - 1) / step, n_parts};

    pool_run(n_parts > 1 ? io->pool : NULL, n_parts, run_range, &r);
}
