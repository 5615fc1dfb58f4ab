#include "compress/codebook.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "compress/chance.h"

/* Lloyd's rounds end when nothing moves, which in practice is well before; moves when none helps. */
#define MAX_ROUNDS 500
#define MAX_MOVES  4 /* times the words */

int codebook_bins_init(struct codebook_bins *b, int n, double low, double high, struct error *err) {
    *b = (struct codebook_bins){.n = n, .low = low, .step = n > 1 && high > low ? (high - low) / (n - 1) : 1};
    b->weight = calloc(3 * (size_t)n + 1, sizeof(*b->weight));
    if (!b->weight)
        return error_oom(err);
    b->sum = b->weight + n;
    b->square = b->sum + n;
    return 0;
}

void codebook_bins_done(struct codebook_bins *b) {
    free(b->weight);
    *b = (struct codebook_bins){0};
}

void codebook_bins_clear(struct codebook_bins *b) {
    memset(b->weight, 0, 3 * (size_t)b->n * sizeof(*b->weight));
}

void codebook_bins_add(struct codebook_bins *b, double v, double weight) {
    double at = (v - b->low) / b->step + 0.5;
    int i = at < 0 ? 0 : at >= b->n ? b->n - 1 : (int)at;

    b->weight[i] += weight;
    b->sum[i] += weight * v;
    b->square[i] += weight * v * v;
}

/* The values in their order: only bins that hold some, and what lies before each. */
struct sums {
    int n;
    double *value;                 /* [n]: mean of each */
    double *weight, *sum, *square; /* [n + 1]: running */
};

static void sums_done(struct sums *s) {
    free(s->value);
}

static int sums_init(struct sums *s, const struct codebook_bins *b, struct error *err) {
    *s = (struct sums){.value = calloc(4 * (size_t)b->n + 4, sizeof(*s->value))};
    if (!s->value)
        return error_oom(err);
    s->weight = s->value + b->n;
    s->sum = s->weight + b->n + 1;
    s->square = s->sum + b->n + 1;
    for (int i = 0; i < b->n; i++) {
        int k = s->n;

        if (!(b->weight[i] > 0))
            continue;
        s->value[k] = b->sum[i] / b->weight[i];
        s->weight[k + 1] = s->weight[k] + b->weight[i];
        s->sum[k + 1] = s->sum[k] + b->sum[i];
        s->square[k + 1] = s->square[k] + b->square[i];
        s->n++;
    }
    return 0;
}

/* The first place in running (or sorted) numbers that is not below `v`. */
static int first_from(const double *a, int n, double v) {
    int low = 0, high = n;

    while (low < high) {
        int middle = (low + high) / 2;

        if (a[middle] < v)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static double weight_of(const struct sums *s, int first, int end) {
    return s->weight[end] - s->weight[first];
}

static double mean_of(const struct sums *s, int first, int end) {
    return (s->sum[end] - s->sum[first]) / weight_of(s, first, end);
}

/* sum weight (v - word)² */
static double error_of(const struct sums *s, int first, int end, double word) {
    double e = s->square[end] - s->square[first] - 2 * word * (s->sum[end] - s->sum[first]) +
               word * word * weight_of(s, first, end);

    return e > 0 ? e : 0;
}

/* Values first[k] … first[k + 1] - 1 are nearest to word k. */
static void assign(const struct sums *s, const float *words, int n, int *first) {
    first[0] = 0;
    for (int k = 1; k < n; k++)
        first[k] = first_from(s->value, s->n, ((double)words[k - 1] + (double)words[k]) / 2);
    first[n] = s->n;
}

static double inertia_of(const struct sums *s, const float *words, int n) {
    int first[CODEBOOK_MAX + 1];
    double sum = 0;

    assign(s, words, n, first);
    for (int k = 0; k < n; k++)
        sum += error_of(s, first[k], first[k + 1], (double)words[k]);
    return sum;
}

static int by_value(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;

    return (x > y) - (x < y);
}

static void sort(float *words, int n) {
    qsort(words, (size_t)n, sizeof(*words), by_value);
}

/* The value where `share` of the weight lies before. */
static float value_at(const struct sums *s, double share) {
    int k = first_from(s->weight + 1, s->n, share * s->weight[s->n]);

    return (float)s->value[k < s->n ? k : s->n - 1];
}

/* Drawn by the squared distance to the nearest of those before. */
static int start_far_apart(const struct sums *s, uint64_t key, float *words, int n, struct error *err) {
    _cleanup_(freep) double *near = calloc((size_t)s->n + 1, sizeof(*near));

    if (!near)
        return error_oom(err);
    words[0] = value_at(s, chance_unit(key, 0));
    for (int k = 1; k < n; k++) {
        double all = 0, want;
        int i;

        for (i = 0; i < s->n; i++) {
            double d = s->value[i] - (double)words[k - 1];

            near[i] = k == 1 || d * d < near[i] ? d * d : near[i];
            all += near[i] * weight_of(s, i, i + 1);
        }
        want = chance_unit(key, (uint64_t)k) * all;
        for (i = 0; i < s->n - 1 && want >= 0; i++)
            want -= near[i] * weight_of(s, i, i + 1);
        words[k] = (float)s->value[i > 0 && want < 0 ? i - 1 : i];
    }
    return 0;
}

static int start(
    const struct sums *s, const struct codebook_options *o, float *words, int n, struct error *err) {
    double low = s->value[0], high = s->value[s->n - 1];
    uint64_t key = chance_key(o->seed, 0, (uint64_t)n);

    if (o->init == START_PLUSPLUS)
        return start_far_apart(s, key, words, n, err);
    for (int k = 0; k < n; k++) {
        if (o->init == START_LINEAR)
            words[k] = (float)(n > 1 ? low + (high - low) * k / (n - 1) : (low + high) / 2);
        else
            words[k] = value_at(s, o->init == START_DENSITY ? (k + 0.5) / n : chance_unit(key, (uint64_t)k));
    }
    return 0;
}

static bool is_fixed(const struct codebook_options *o, float word) {
    return o->keeps_zero && word == 0;
}

/* Where the values of a word are cut in two: at their mean. -1: they are one. */
static int cut_of(const struct sums *s, int first, int end) {
    int cut;

    if (end - first < 2)
        return -1;
    cut = first_from(s->value, s->n, mean_of(s, first, end));
    return cut <= first ? first + 1 : cut >= end ? end - 1 : cut;
}

/* A word more where it helps most. */
struct split {
    int word;           /* whose values are shared; -1: no word has two different ones */
    double gain;        /* error less, at least */
    float upper, lower; /* the two words */
};

static void find_split(
    const struct sums *s, const struct codebook_options *o, const float *words, int n, struct split *ret) {
    int first[CODEBOOK_MAX + 1];

    *ret = (struct split){.word = -1};
    assign(s, words, n, first);
    for (int k = 0; k < n; k++) {
        int cut = cut_of(s, first[k], first[k + 1]);
        double lower, upper, gain;

        if (cut < 0)
            continue;
        lower = mean_of(s, first[k], cut);
        upper = mean_of(s, cut, first[k + 1]);
        if (is_fixed(o, words[k])) /* zero stays: the half that is further away gets the word */
            *(fabs(upper) > fabs(lower) ? &lower : &upper) = 0;
        gain = error_of(s, first[k], first[k + 1], (double)words[k]) - error_of(s, first[k], cut, lower) -
               error_of(s, cut, first[k + 1], upper);
        if (gain > ret->gain)
            *ret = (struct split){k, gain, (float)upper, (float)lower};
    }
}

/* The word without which the error grows least, its neighbours taking its values. */
static int find_spare(
    const struct sums *s, const struct codebook_options *o, const float *words, int n, double *ret_cost) {
    int first[CODEBOOK_MAX + 1], best = -1;

    assign(s, words, n, first);
    for (int k = 0; k < n; k++) {
        double below = k > 0 ? (double)words[k - 1] : (double)words[k + 1];
        double above = k + 1 < n ? (double)words[k + 1] : below, cost;
        int cut = first_from(s->value, s->n, (below + above) / 2);

        if (is_fixed(o, words[k]))
            continue;
        cut = k == 0 ? first[k] : k + 1 == n ? first[k + 1] : cut;
        cut = cut < first[k] ? first[k] : cut > first[k + 1] ? first[k + 1] : cut;
        cost = error_of(s, first[k], cut, below) + error_of(s, cut, first[k + 1], above) -
               error_of(s, first[k], first[k + 1], (double)words[k]);
        if (best < 0 || cost < *ret_cost) {
            best = k;
            *ret_cost = cost;
        }
    }
    return best;
}

/* Lloyd's rounds end where each word is the mean of its values, which may be far from the best. A word that
 * is hardly missed moves to where one is missing most; false: no such move helps. */
static bool move_word(const struct sums *s, const struct codebook_options *o, float *words, int n) {
    double cost = 0;
    struct split to;
    int from = n > 1 ? find_spare(s, o, words, n, &cost) : -1;

    find_split(s, o, words, n, &to);
    if (from < 0 || to.word < 0 || from == to.word || to.gain <= cost * (1 + 1e-6))
        return false;
    words[to.word] = to.lower;
    words[from] = to.upper;
    sort(words, n);
    return true;
}

/* One of Lloyd's rounds; false: nothing moved. */
static bool improve(const struct sums *s, const struct codebook_options *o, float *words, int n) {
    int first[CODEBOOK_MAX + 1];
    bool has_moved = false;

    assign(s, words, n, first);
    for (int k = 0; k < n; k++) {
        float mean = first[k] == first[k + 1] ? words[k] : (float)mean_of(s, first[k], first[k + 1]);

        if (is_fixed(o, words[k]) || mean == words[k])
            continue;
        words[k] = mean;
        has_moved = true;
    }
    sort(words, n);
    return has_moved;
}

static double settle(const struct sums *s, const struct codebook_options *o, float *words, int n) {
    for (int round = 0; round < MAX_ROUNDS && improve(s, o, words, n); round++) {
    }
    return inertia_of(s, words, n);
}

/* Rounds and moves by turns, as long as the error falls. */
static double find(const struct sums *s, const struct codebook_options *o, float *words, int n) {
    double inertia = settle(s, o, words, n);
    float before[CODEBOOK_MAX];

    for (int i = 0; i < MAX_MOVES * n; i++) {
        double next;

        memcpy(before, words, (size_t)n * sizeof(*words));
        if (!move_word(s, o, words, n))
            break;
        next = settle(s, o, words, n);
        if (next >= inertia * (1 - 1e-7)) {
            memcpy(words, before, (size_t)n * sizeof(*words));
            break;
        }
        inertia = next;
    }
    return inertia;
}

int codebook_find(const struct codebook_bins *b, const struct codebook_options *o, float *words, int n,
    double *ret_inertia, struct error *err) {
    _cleanup_(sums_done) struct sums s = {0};
    int r = sums_init(&s, b, err), n_free = o->keeps_zero ? n - 1 : n;
    double inertia;

    if (r < 0)
        return r;
    if (s.n == 0) {
        memset(words, 0, (size_t)n * sizeof(*words));
        if (ret_inertia)
            *ret_inertia = 0;
        return 0;
    }
    if (!o->goes_on) {
        r = n_free > 0 ? start(&s, o, words, n_free, err) : 0;
        if (r < 0)
            return r;
        if (o->keeps_zero)
            words[n - 1] = 0;
        sort(words, n);
    }
    inertia = find(&s, o, words, n);
    if (ret_inertia)
        *ret_inertia = inertia;
    return 0;
}

int codebook_nearest(const float *words, int n, float v) {
    int low = 0, high = n - 1;

    while (low < high) {
        int middle = (low + high) / 2;

        if ((double)v > ((double)words[middle] + (double)words[middle + 1]) / 2)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}
