#include "engine/kernel/xnor_tile.h"

/* The carry of three words, two of which are known and the sum of all. */
static inline uint64_t carry(uint64_t a, uint64_t b, uint64_t sum) {
    uint64_t t = a ^ b;

    return (a & ~t) | (t & ~sum);
}

static void count_pixel(const struct xnor_job *j, const uint64_t *x, const uint64_t *w, int32_t *count) {
    for (int s = 0; s < j->n_seg; s++) {
        const uint64_t *xs = x + j->seg[s], *sums = xs + j->sums;
        int k = 0;

        for (; k + 3 <= j->seg_len; k += 3, w += 3 * XNOR_BLOCK)
            for (int c = 0; c < XNOR_BLOCK; c++) {
                uint64_t a = xs[k] ^ w[c], b = xs[k + 1] ^ w[XNOR_BLOCK + c];
                uint64_t sum = sums[k] ^ w[2 * XNOR_BLOCK + c];

                count[c] += __builtin_popcountll(sum) + 2 * __builtin_popcountll(carry(a, b, sum));
            }
        for (; k < j->seg_len; k++, w += XNOR_BLOCK)
            for (int c = 0; c < XNOR_BLOCK; c++)
                count[c] += __builtin_popcountll(xs[k] ^ w[c]);
    }
}

static void run_tile(const struct xnor_job *j, const struct xnor_tile *t, int n) {
    for (int i = 0; i < n; i++) {
        int32_t count[XNOR_BLOCK] = {0};

        count_pixel(j, t->x + i * j->pixel, t->w, count);
        xnor_store(j, t, i, count);
    }
}

static void xnor_run(const struct xnor_job *j) {
    xnor_walk(j, run_tile);
}

static void add_triples(const uint64_t *x, uint64_t *sums, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        sums[i] = x[i] ^ x[i + 1] ^ x[i + 2];
}

static bool has(const struct cpu *cpu) {
    (void)cpu;
    return true;
}

const struct xnor_isa xnor_isa_plain = {.has = has, .run = xnor_run, .add_triples = add_triples};
