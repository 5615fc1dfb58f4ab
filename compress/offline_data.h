/* Data for the commands that an operator runs by hand: an archive is imported into a pack of its own,
 * unlinked at once; an .npy file holds ready inputs. */
#ifndef COMPRESS_OFFLINE_DATA_H
#define COMPRESS_OFFLINE_DATA_H

#include <jansson.h>

#include "compress/feed.h"

#define OFFLINE_CACHE_BYTES (1ull << 30) /* of decoded pictures, in a temporary file */

/* `split` NULL: as the archive says, or divided (*ret_divided, may be NULL). */
int offline_pack(
    const char *path, const char *split, struct pack **ret, bool *ret_divided, struct error *err);

/* Both splits of a training: those of the archive `data`, which without any is divided, or wholly `train`
 * when there is an archive `test` (NULL: none), which is wholly the split `test`. */
int offline_splits(const char *data, const char *test, struct pack **ret, struct error *err);

/* A file with a `preprocess` object, or a model's card that has one (and `labels`). *ret: the object (new
 * reference, NULL for path NULL); *ret_labels: may stay NULL. */
int offline_preprocess(const char *path, json_t **ret, json_t **ret_labels, struct error *err);

/* An archive as pictures to learn from, decoded once into a temporary file; feed_source_done. */
int offline_source(const char *data, const char *preprocess, struct feed_source *ret, struct error *err);

/* Calibration samples of an archive (split train, else test) or .npy for a model file; samples_done. */
int offline_samples(const char *model, const char *data, const char *preprocess, int64_t most,
    struct samples *ret, struct error *err);

#endif
