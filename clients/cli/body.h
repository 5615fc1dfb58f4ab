/* Request bodies made from local files. Errors name the file. */
#ifndef CLIENTS_CLI_BODY_H
#define CLIENTS_CLI_BODY_H

#include <jansson.h>
#include <stdint.h>
#include <stdio.h>

#include "base/buf.h"
#include "base/error.h"

/* "-" is standard input; its size is -1. The caller closes. */
int body_open(const char *path, FILE **ret, int64_t *ret_size, struct error *err);

/* The whole file, at most 1 GiB; `ret` is initialised here, release it in any case. */
int body_read(const char *path, struct buf *ret, struct error *err);

/* A JSON file, or JSON text when it starts with '[' or '{'. New reference. */
int body_json(const char *path_or_text, json_t **ret, struct error *err);

/* Names of classes: a JSON list, or one name a line. New reference. */
int body_labels(const char *path, json_t **ret, struct error *err);

/* A NumPy array as datatype ("FP32") and shape of the v2 protocol; the values start at *ret_offset. Little
 * endian, C order (NumPy's format description, versions 1 to 3). */
int body_npy(const struct buf *file, const char **ret_datatype, json_t **ret_shape, size_t *ret_offset,
    struct error *err);

#endif
