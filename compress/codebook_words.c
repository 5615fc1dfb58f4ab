#include "compress/codebook_words.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "compress/chance.h"
#include "engine/pool.h"

#define SAMPLE_A_WORD 256 /* vectors, as much as a mean of them needs */
#define ROUNDS        16
#define CHUNK         1024 /* vectors that are read at a time */
#define BLOCK         16   /* words whose distances are computed side by side */

typedef float block __attribute__((vector_size(BLOCK * sizeof(float)), aligned(4)));

/* Words turned so that the same place of neighbouring words stands together: [blocks][dim][BLOCK]; the last
 * block's missing words are so far away that nothing is nearest to them. */
struct turned {
    int dim, n_blocks;
    float *word, *square; /* word², which a weighted distance multiplies by a */
};

static void turned_done(struct turned *t) {
    free(t->word);
    free(t->square);
}

static int turned_init(struct turned *t, int dim, int n_words, struct error *err) {
    size_t n;

    *t = (struct turned){.dim = dim, .n_blocks = (n_words + BLOCK - 1) / BLOCK};
    n = (size_t)(t->n_blocks * dim * BLOCK);
    t->word = calloc(n, sizeof(*t->word));
    t->square = calloc(n, sizeof(*t->square));
    return t->word && t->square ? 0 : error_oom(err);
}

static void turn(struct turned *t, const float *words, int n_words) {
    for (int k = 0; k < t->n_blocks * BLOCK; k++)
        for (int d = 0; d < t->dim; d++) {
            int at = (k / BLOCK * t->dim + d) * BLOCK + k % BLOCK;
            float w = k < n_words ? words[k * t->dim + d] : 1e15f;

            t->word[at] = w;
            t->square[at] = w * w;
        }
}

/* The word with the least sum a (word² - 2 v word): the distance without what is the same for all words. */
static int nearest(const struct turned *t, const float *v, const float *a) {
    float minus[CODEBOOK_MAX_DIM], least = INFINITY;
    int best = 0;

    for (int d = 0; d < t->dim; d++)
        minus[d] = -2 * v[d] * a[d];
    for (int b = 0; b < t->n_blocks; b++) {
        const float *word = t->word + b * t->dim * BLOCK, *square = t->square + b * t->dim * BLOCK;
        block sum = {0};

        for (int d = 0; d < t->dim; d++, word += BLOCK, square += BLOCK) {
            block w, s;

            memcpy(&w, word, sizeof(w));
            memcpy(&s, square, sizeof(s));
            sum += a[d] * s + minus[d] * w;
        }
        for (int k = 0; k < BLOCK; k++)
            if (sum[k] < least) {
                least = sum[k];
                best = b * BLOCK + k;
            }
    }
    return best;
}

/* Codes of vectors that are in memory, or of all of them as they are read. */
struct assignment {
    const struct codebook_vectors *from; /* NULL: v and a */
    const float *v, *a;
    int64_t n;
    const struct turned *t;
    uint8_t *code;
};

static void read_vectors(const struct codebook_vectors *from, int64_t first, int64_t n, float *v, float *a) {
    from->read(from->ctx, first, n, v, from->is_weighted ? a : NULL);
    for (int64_t i = 0; !from->is_weighted && i < n * from->dim; i++)
        a[i] = 1;
}

static void assign_chunk(void *ctx, unsigned part) {
    const struct assignment *j = ctx;
    int64_t first = (int64_t)part * CHUNK, n = j->n - first < CHUNK ? j->n - first : CHUNK;
    int dim = j->t->dim;
    float v[64 * CODEBOOK_MAX_DIM], a[64 * CODEBOOK_MAX_DIM];

    for (int64_t i = 0; i < n; i++) {
        const float *at = v + i % 64 * dim, *counts = a + i % 64 * dim;

        if (!j->from) {
            at = j->v + (first + i) * dim;
            counts = j->a + (first + i) * dim;
        } else if (i % 64 == 0) {
            read_vectors(j->from, first + i, n - i < 64 ? n - i : 64, v, a);
        }
        j->code[first + i] = (uint8_t)nearest(j->t, at, counts);
    }
}

static void assign(struct pool *pool, struct assignment *j) {
    pool_run(pool, (unsigned)((j->n + CHUNK - 1) / CHUNK), assign_chunk, j);
}

struct search {
    const struct codebook_words_options *o;
    int dim, n_words;
    int64_t n; /* of the sample */
    float *v, *a;
    uint8_t *code;
    double *sum, *weight; /* [n_words][dim] */
    int64_t *count;
    float *error; /* [n]: of each vector of the sample */
};

static void search_done(struct search *s) {
    free(s->v);
    free(s->a);
    free(s->code);
    free(s->sum);
    free(s->weight);
    free(s->count);
    free(s->error);
}

static int search_init(struct search *s, const struct codebook_vectors *from,
    const struct codebook_words_options *o, struct error *err) {
    int64_t most = (int64_t)SAMPLE_A_WORD * o->n_words, step = (from->n + most - 1) / most;
    size_t size, words = (size_t)(o->n_words * from->dim);
    uint64_t key = chance_key(o->seed, 1, (uint64_t)from->dim);

    *s = (struct search){.o = o, .dim = from->dim, .n_words = o->n_words, .n = (from->n + step - 1) / step};
    size = (size_t)(s->n * s->dim);
    s->v = calloc(size + 1, sizeof(*s->v));
    s->a = calloc(size + 1, sizeof(*s->a));
    s->code = calloc((size_t)s->n + 1, 1);
    s->sum = calloc(words + 1, sizeof(*s->sum));
    s->weight = calloc(words + 1, sizeof(*s->weight));
    s->count = calloc((size_t)o->n_words + 1, sizeof(*s->count));
    s->error = calloc((size_t)s->n + 1, sizeof(*s->error));
    if (!s->v || !s->a || !s->code || !s->sum || !s->weight || !s->count || !s->error)
        return error_oom(err);
    /* one of each `step`, drawn: a fixed stride would see few columns of a matrix */
    for (int64_t i = 0; i < s->n; i++) {
        int64_t left = from->n - i * step;
        uint64_t at = chance_below(key, (uint64_t)i, (uint64_t)(left < step ? left : step));

        read_vectors(from, i * step + (int64_t)at, 1, s->v + i * s->dim, s->a + i * s->dim);
    }
    return 0;
}

static float distance(const struct search *s, int64_t i, const float *word) {
    const float *v = s->v + i * s->dim, *a = s->a + i * s->dim;
    float sum = 0;

    for (int d = 0; d < s->dim; d++)
        sum += a[d] * (v[d] - word[d]) * (v[d] - word[d]);
    return sum;
}

/* Drawn by the distance to the nearest word before (Arthur and Vassilvitskii 2007). */
static void start(struct search *s, float *words) {
    uint64_t key = chance_key(s->o->seed, 0, (uint64_t)s->dim);

    for (int k = 0; k < s->n_words; k++) {
        int64_t at = (int64_t)chance_below(key, 0, (uint64_t)s->n);
        double all = 0, want;

        for (int64_t i = 0; k > 0 && i < s->n; i++) {
            float d = distance(s, i, words + (k - 1) * s->dim);

            s->error[i] = k == 1 || d < s->error[i] ? d : s->error[i];
            all += (double)s->error[i];
        }
        want = chance_unit(key, (uint64_t)k) * all;
        if (k > 0)
            for (at = 0; at < s->n - 1 && want >= (double)s->error[at]; at++)
                want -= (double)s->error[at];
        memcpy(words + k * s->dim, s->v + at * s->dim, (size_t)s->dim * sizeof(*words));
    }
}

/* The vector of the sample that its word says worst; each is taken once. */
static int64_t take_worst(struct search *s) {
    int64_t worst = 0;

    for (int64_t i = 1; i < s->n; i++)
        if (s->error[i] > s->error[worst])
            worst = i;
    s->error[worst] = 0;
    return worst;
}

/* Each word becomes the weighted mean of its vectors; one that has none goes to where the error is largest.
 */
static void update(struct search *s, float *words) {
    size_t n = (size_t)(s->n_words * s->dim);

    memset(s->sum, 0, n * sizeof(*s->sum));
    memset(s->weight, 0, n * sizeof(*s->weight));
    memset(s->count, 0, (size_t)s->n_words * sizeof(*s->count));
    for (int64_t i = 0; i < s->n; i++) {
        int k = s->code[i];

        s->error[i] = distance(s, i, words + k * s->dim);
        s->count[k]++;
        for (int d = 0; d < s->dim; d++) {
            double a = (double)s->a[i * s->dim + d];

            s->sum[k * s->dim + d] += a * (double)s->v[i * s->dim + d];
            s->weight[k * s->dim + d] += a;
        }
    }
    for (int k = 0; k < s->n_words; k++) {
        if (!s->count[k])
            memcpy(words + k * s->dim, s->v + take_worst(s) * s->dim, (size_t)s->dim * sizeof(*words));
        for (int d = 0; s->count[k] && d < s->dim; d++)
            if (s->weight[k * s->dim + d] > 0)
                words[k * s->dim + d] = (float)(s->sum[k * s->dim + d] / s->weight[k * s->dim + d]);
    }
}

int codebook_words(const struct codebook_vectors *v, const struct codebook_words_options *o, float *words,
    uint8_t *code, struct error *err) {
    _cleanup_(search_done) struct search s = {0};
    _cleanup_(turned_done) struct turned t = {0};
    _cleanup_(pool_freep) struct pool *pool = NULL;
    struct assignment sample = {.t = &t}, all = {.from = v, .n = v->n, .t = &t, .code = code};
    int r = search_init(&s, v, o, err);

    if (r == 0)
        r = turned_init(&t, v->dim, o->n_words, err);
    if (r == 0)
        r = pool_new(o->threads ? o->threads : 1, &pool, err);
    if (r < 0)
        return r;
    sample.v = s.v;
    sample.a = s.a;
    sample.n = s.n;
    sample.code = s.code;
    start(&s, words);
    for (int round = 0; round < ROUNDS; round++) {
        turn(&t, words, o->n_words);
        assign(pool, &sample);
        update(&s, words);
    }
    for (int i = 0; o->is_int8 && i < o->n_words * v->dim; i++)
        words[i] = fminf(fmaxf(rintf(words[i]), -127), 127);
    turn(&t, words, o->n_words);
    assign(pool, &all);
    return 0;
}
