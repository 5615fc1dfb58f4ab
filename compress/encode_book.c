/* Codebooks by k-means (Lloyd 1982): of numbers, from a histogram, started evenly between the ends (Han et
 * al. 2016, "Deep compression", section 3.2: linear), and of vectors, started at some of them. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "compress/encode.h"

#define ROUNDS       20
#define ROUNDS_WORDS 4

void encode_kmeans(const double *bins, int n_bins, float low, float step, float *words, int n) {
    int first = 0, last = n_bins - 1;

    while (first < last && bins[first] <= 0)
        first++;
    while (last > first && bins[last] <= 0)
        last--;
    for (int k = 0; k < n; k++)
        words[k] = low + step * ((float)first + (float)(last - first) * ((float)k + 0.5f) / (float)n);
    for (int round = 0; round < ROUNDS; round++) {
        int i = 0;

        for (int k = 0; k < n; k++) {
            float end = k + 1 < n ? (words[k] + words[k + 1]) / 2 : low + step * (float)n_bins;
            double sum = 0, count = 0;

            for (; i < n_bins && low + step * (float)i < end; i++) {
                sum += bins[i] * (double)(low + step * (float)i);
                count += bins[i];
            }
            if (count > 0)
                words[k] = (float)(sum / count);
        }
    }
}

int64_t encode_nearest_word(const float *v, int dim, const float *words, int n) {
    float least = __builtin_inff();
    int64_t best = 0;

    for (int k = 0; k < n; k++, words += dim) {
        float d = 0;

        for (int i = 0; i < dim; i++)
            d += (v[i] - words[i]) * (v[i] - words[i]);
        if (d < least) {
            least = d;
            best = k;
        }
    }
    return best;
}

int encode_kmeans_words(
    const float *sample, int64_t n_sample, int dim, float *words, int n, uint64_t seed, struct error *err) {
    size_t size = (size_t)n * (size_t)dim;
    _cleanup_(freep) double *sum = calloc(size + 1, sizeof(*sum));
    _cleanup_(freep) int64_t *count = calloc((size_t)n + 1, sizeof(*count));

    if (!sum || !count)
        return error_oom(err);
    for (int k = 0; k < n; k++) {
        /* Knuth's multiplicative step: spread over the sample, the same for the same seed */
        uint64_t at = ((seed + (uint64_t)k) * 0x9e3779b97f4a7c15u >> 32) % (uint64_t)n_sample;

        memcpy(words + k * dim, sample + at * (uint64_t)dim, (size_t)dim * sizeof(*words));
    }
    for (int round = 0; round < ROUNDS_WORDS; round++) {
        memset(sum, 0, size * sizeof(*sum));
        memset(count, 0, (size_t)n * sizeof(*count));
        for (int64_t i = 0; i < n_sample; i++) {
            int64_t k = encode_nearest_word(sample + i * dim, dim, words, n);

            count[k]++;
            for (int d = 0; d < dim; d++)
                sum[k * dim + d] += (double)sample[i * dim + d];
        }
        for (int k = 0; k < n; k++)
            for (int d = 0; count[k] && d < dim; d++)
                words[k * dim + d] = (float)(sum[k * dim + d] / (double)count[k]);
    }
    return 0;
}
