/* Codebooks of vectors: product quantisation of weights (Gong et al. 2014, "Compressing deep convolutional
 * networks using vector quantization", section 3.3.3), whose k-means minimises the error of a layer's output
 * rather than of its weights when told how much each weight counts (Wu et al. 2016, "Quantized convolutional
 * neural networks", section 3.3; Stock et al. 2020, "And the bit goes down", equation 3, with the diagonal of
 * the inputs' second moments):
 *
 *     sum over vectors i and places d:  a[i][d] (v[i][d] - word(i)[d])²
 *
 * Words come from a sample of the vectors, codes from all of them, some thousand at a time: memory does not
 * grow with the layer. The same seed gives the same bytes, whatever the threads. */
#ifndef COMPRESS_CODEBOOK_WORDS_H
#define COMPRESS_CODEBOOK_WORDS_H

#include "compress/codebook.h"
#include "compress/progress.h"

#define CODEBOOK_MAX_DIM 64

struct codebook_vectors {
    int dim; /* 1 to CODEBOOK_MAX_DIM */
    int64_t n;
    /* Vectors first … first + n - 1 to v[n][dim], and to a[n][dim] what their places count (not negative; a
     * NULL: not wanted). Any thread may ask. */
    void (*read)(const void *ctx, int64_t first, int64_t n, float *v, float *a);
    const void *ctx;
    bool is_weighted; /* false: every place counts 1 */
};

struct codebook_words_options {
    int n_words; /* 1 to CODEBOOK_MAX */
    uint64_t seed;
    bool is_int8;     /* words are whole numbers within ±127 */
    unsigned threads; /* 0: 1 */
};

/* words [n_words][dim], code [n]. Errors: -ENOMEM. */
int codebook_words(const struct codebook_vectors *v, const struct codebook_words_options *o, float *words,
    uint8_t *code, struct error *err);

#endif
