#include "engine/kernel/xnor_tile.h"

static void count_pixel(const struct xnor_window *v, const uint64_t *x, const uint64_t *w, int32_t *count) {
    uint64_t ones[XNOR_BLOCK] = {0};
    int i = 0;

    for (; i + 2 <= v->n_words; i += 2) {
        const uint64_t *w0 = w + v->word[i].w, *w1 = w + v->word[i + 1].w;
        uint64_t x0 = x[v->word[i].x], x1 = x[v->word[i + 1].x];

        for (int c = 0; c < XNOR_BLOCK; c++) {
            uint64_t p = ones[c] ^ x0 ^ w0[c], q = p ^ x1 ^ w1[c];

            count[c] += 2 * __builtin_popcountll((p & ~q) | (ones[c] & ~p));
            ones[c] = q;
        }
    }
    for (int c = 0; c < XNOR_BLOCK; c++) {
        if (i < v->n_words)
            count[c] += __builtin_popcountll(x[v->word[i].x] ^ w[v->word[i].w + c]);
        count[c] += __builtin_popcountll(ones[c]);
    }
}

static void run_tile(const struct xnor_job *j, const struct xnor_tile *t, int n) {
    for (int i = 0; i < n; i++) {
        int32_t count[XNOR_BLOCK] = {0};

        count_pixel(t->window, t->x + i * j->pixel, t->w, count);
        xnor_store(j, t, i, count);
    }
}

static void xnor_run(const struct xnor_job *j) {
    xnor_walk(j, run_tile);
}

static bool has(const struct cpu *cpu) {
    (void)cpu;
    return true;
}

const struct xnor_isa xnor_isa_plain = {.has = has, .run = xnor_run};
