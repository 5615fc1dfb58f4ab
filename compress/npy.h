/* NumPy's .npy files (format 1.0 to 3.0): the header read and written; little-endian, C order only. */
#ifndef COMPRESS_NPY_H
#define COMPRESS_NPY_H

#include "base/reader.h"
#include "engine/tensor.h"

/* Reads magic and header at the cursor; afterwards the cursor stands at the data. Refuses objects, big-endian
 * and Fortran order (bad_dataset), and rank above 8. */
int npy_read_header(struct reader *r, enum dtype *ret_type, struct shape *ret_shape, struct error *err);

/* A whole file in memory as a tensor over its bytes; sizes checked against each other. */
int npy_read(const void *data, size_t size, struct tensor *ret, struct error *err);

/* A one-dimensional array of text ('<U…' or '|S…') as strings, owned: free each and the list; n of them. */
int npy_read_texts(const void *data, size_t size, char ***ret, size_t *ret_n, struct error *err);

/* Header (at most NPY_HEADER_MAX bytes, multiple of 64) for t to `ret`; returns its size, or -EINVAL: a type
 * NumPy has not (bfloat16, sub-byte). */
#define NPY_HEADER_MAX 256
int npy_write_header(enum dtype t, const struct shape *s, char ret[static NPY_HEADER_MAX]);

#endif
