/* The method `encode`: brings layers into any weight form (engine/weight.h) without caring for accuracy, so
 * that speed and memory of a form can be measured before a method makes it well. */
#ifndef COMPRESS_ENCODE_H
#define COMPRESS_ENCODE_H

#include "compress/quantize.h"
#include "engine/weight.h"

struct encode_options {
    struct {
        int structure, code, scales; /* places in the lists of encode.c */
    } form;
    double sparsity;
    int block_outputs, block_inputs;
    int nm_kept, nm_of;
    int group;
    int words, dim;
    int entries;     /* enum encode_entries */
    int activations; /* enum quantize_activations, without s8 */
};

enum encode_entries {
    ENTRIES_INT8,
    ENTRIES_FLOAT,
};

/* A layer's weights on their way into a form. */
struct encode_job {
    const void *w; /* f32, unaligned, as in the file */
    const struct weight_rows *rows;
    const struct encode_options *o;
    const float *min_scale; /* [rows] or NULL */
    uint64_t seed;
    struct weight form; /* structure, code, scales, shape, axis, tile, group: what is wanted */
};

/* What comes of it: `w` points into the rest. */
struct encoded {
    struct weight w;
    struct tensor codes, scale, zero, book, place;
    uint32_t *at; /* place of each stored element in the tensor; NULL: all of them in order */
};

void encoded_done(struct encoded *e);

static inline float encode_number(const void *w, int64_t i) {
    float v;

    __builtin_memcpy(&v, (const char *)w + (size_t)i * sizeof(v), sizeof(v));
    return v;
}

/* Element of the tensor that stored element i is. */
static inline int64_t encoded_at(const struct encoded *e, int64_t i) {
    return e->at ? (int64_t)e->at[i] : i;
}

/* Which elements stay: the largest (at, place, n_stored and tile). */
int encode_places(const struct encode_job *j, struct encoded *ret, struct error *err);

/* Of a sparse form: the elements of w[n] that are not zero, and those that close gaps too long for a byte. */
int encoded_store_nonzero(const void *w, int64_t n, struct encoded *ret, struct error *err);

/* One scale for each that the form has. */
int encode_scales(const struct encode_job *j, struct encoded *ret, struct error *err);

/* Stored element i divided by its scale. */
float encoded_quotient(const struct encode_job *j, const struct encoded *e, int64_t i);

/* A tensor of zeros. */
int encoded_put_tensor(struct tensor *t, enum dtype dtype, const struct shape *s, struct error *err);

/* Room for codes of `bits` bits, packed where that many divide a byte, of elements of shape `stored`; and the
 * code of stored element i, each once. */
int encoded_put_codes(struct encoded *ret, unsigned bits, const struct shape *stored, struct error *err);
void encoded_set_code(struct encoded *ret, int64_t i, unsigned code);

/* Room for a book of floats or int8, and its words. */
int encoded_put_book(struct encoded *ret, enum dtype t, const struct shape *s, struct error *err);
void encoded_set_words(struct encoded *ret, const float *words);

/* Codes and book. */
int encode_codes(const struct encode_job *j, struct encoded *ret, struct error *err);

/* Options for a form by the names of its parts, the rest as by default. */
void encode_options_of(
    const char *structure, const char *code, const char *scales_kind, struct encode_options *ret);

extern const struct method method_encode;

#endif
