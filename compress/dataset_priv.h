/* What the files of the data set import share. */
#ifndef COMPRESS_DATASET_PRIV_H
#define COMPRESS_DATASET_PRIV_H

#include "compress/dataset.h"

struct import {
    const struct dataset_options *o;
    struct pack_writer *w;
    enum dataset_format kind; /* of the first member that decided it */
    bool is_divided;
    /* folders: the path of each item, by its number in the writer */
    char **path;
    uint64_t n_paths, cap_paths;
    /* arrays: members held until both are there */
    struct held {
        char *name;
        uint8_t *data;
        size_t size;
    } held[16];
    size_t n_held;
};

int dataset_bad(struct error *err, const char *member, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* "train" or "test" by content, four to one. */
int dataset_divide(struct import *m, const uint8_t sha256[32], struct error *err);
void dataset_digest(const void *data, size_t size, uint8_t ret[32]);

/* A picture member; its place is known in folders_finish. */
int folders_add(struct import *m, const char *member, const uint8_t *data, size_t size, struct error *err);
int folders_finish(struct import *m, struct error *err);

/* Takes data. */
int arrays_hold(struct import *m, const char *member, uint8_t *data, size_t size, struct error *err);
int npz_finish(struct import *m, struct error *err);
int idx_finish(struct import *m, struct error *err);
/* One picture of an array: raw pixels. */
int arrays_add(struct import *m, const uint8_t *pixels, uint32_t height, uint32_t width, uint8_t channels,
    int split, uint32_t label, struct error *err);

#endif
