/* Importing a data set (api.md, section 3): an uploaded archive becomes a pack. Foreign bytes are touched
 * here, in the worker, and nowhere else: libarchive restricted to tar, zip, gzip and zstd; member names never
 * become paths.
 *
 *   dataset.c          the archive's members, one by one, within limits
 *   dataset_folders.c  pictures in class folders          dataset_arrays.c  npz, IDX
 * All errors are bad_dataset and name the member. */
#ifndef COMPRESS_DATASET_H
#define COMPRESS_DATASET_H

#include <jansson.h>

#include "compress/progress.h"
#include "image/pack.h"

enum dataset_format { DATASET_DETECT, DATASET_FOLDERS, DATASET_NPZ, DATASET_IDX };

struct dataset_options {
    enum dataset_format format;
    const char *split;      /* everything goes there; NULL: by folders, names, or divided 80/20 by content */
    const struct pack *old; /* the other splits of an existing data set are carried over; NULL: none */
    uint64_t max_bytes;     /* expanded, all members together */
    uint64_t max_members;
    uint64_t max_pixels;
};

/* Reads the archive behind `in`, writes the pack to `out`. *ret:
 * {"count","classes","shape","splits","divided"}. */
int dataset_import(int in, int out, const struct dataset_options *o, const struct progress *p, json_t **ret,
    struct error *err);

/* The summary of a pack: what dataset_import returns, without "divided". */
json_t *dataset_summary(const struct pack *p);

#endif
