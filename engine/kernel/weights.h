/* Float weights of a layer, whatever form the file has them in. */
#ifndef ENGINE_KERNEL_WEIGHTS_H
#define ENGINE_KERNEL_WEIGHTS_H

#include "engine/kernel/kernel.h"
#include "engine/pack.h"

/* Are the weights (in[1]) known when the plan is made, as floats or as codes? */
bool kernel_has_weights(const struct layer *l);

/* The weight's logical shape (OIHW, [in][out], …). */
const struct shape *kernel_weight_shape(const struct layer *l);

/* The floats in the file, unaligned, when they lie there as they are; NULL: they have to be decoded. */
const void *kernel_plain_weights(const struct layer *l);

/* Writes them as floats in the order of the shape; `ret` has room for all of them. */
int kernel_copy_weights(const struct layer *l, float *ret, struct error *err);

/* The same as a pack "decoded/<layer>", for kernels that read them as they are. */
int kernel_decoded_weights(
    const struct layer *l, struct pack_cache *packs, const struct pack **ret, struct error *err);

/* "<kernel>/<layer>/<what>"; returns buf. */
#define PACK_KEY_MAX 512
const char *kernel_pack_key(
    char buf[static PACK_KEY_MAX], const char *kernel, const struct layer *l, const char *what);

#endif
