/* Pictures as the first step of preprocessing leaves them (preprocess_pixels(): decoded, resized, cropped,
 * bytes), kept in a file so that they are decoded once and not in each epoch, by each job.
 *
 *   128 bytes   "BONSPICS" u32 version  u32 0  u64 n  u64 bytes of a picture  u8 key[32]  zeros
 *   n records   u64 sum over the picture and its number  the picture  zeros to a multiple of 8
 * Numbers are the machine's own: the file does not leave it.
 *
 * The file has its full size from the start and is full of holes; who decodes a picture writes it there, with
 * its sum last. A picture counts only when its sum agrees with a copy of it: what was never written, is just
 * being written by another job, was torn by a kill or a power cut, or was damaged, is decoded again. So jobs
 * share a file without a lock, and no state of it gives a wrong picture.
 *
 * A folder of such files has a budget; the ones not used for longest are removed for a new one. In use they
 * may be removed too: who has one open keeps it. */
#ifndef COMPRESS_PICTURE_CACHE_H
#define COMPRESS_PICTURE_CACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"

struct picture_cache_place {
    const char *folder; /* NULL: a temporary file, gone with its user */
    const char *owner;  /* the data set's digest, hexadecimal: names of files begin with it; NULL: none */
    uint64_t budget;    /* bytes of the folder, or of the temporary file; 0: nothing is kept */
};

struct picture_cache;

/* For n pictures of `size` bytes each; `what`: where they come from and how they are made, in words that
 * differ when the pictures may. NULL: nothing is kept (too large for the budget, for half of what the disk
 * has free, or for a quarter of the address space allowed; the folder cannot be written; no memory). */
struct picture_cache *picture_cache_open(
    const struct picture_cache_place *at, const char *what, uint64_t n, size_t size);
struct picture_cache *picture_cache_free(struct picture_cache *c);
DEFINE_CLEANUP(struct picture_cache *, picture_cache_free)

/* Picture i to ret; false: it is not there. Any number of threads. */
bool picture_cache_get(const struct picture_cache *c, uint64_t i, uint8_t *ret);

/* Keeps picture i; silently not when the disk is full. Any number of threads. */
void picture_cache_put(struct picture_cache *c, uint64_t i, const uint8_t *pixels);

#endif
