/* Private to depthwise_s8*.c. */
#ifndef ENGINE_KERNEL_DEPTHWISE_S8_H
#define ENGINE_KERNEL_DEPTHWISE_S8_H

#include "engine/kernel/conv_geometry.h"
#include "engine/kernel/s8_pack.h"

#define DEPTHWISE_MAX_GROUPS 4 /* of four filter rows */

struct depthwise {
    struct conv_geometry g;
    struct s8_output out;
    int32_t zero_in;
    const void *w;       /* plain: s16 [tap][c]; VNNI: see there */
    const int32_t *bias; /* plain: of the bias alone; VNNI: zero point folded in */
    const float *scale;
    bool is_tame;   /* all scales at most 1 */
    int64_t rows;   /* output rows of one call */
    size_t scratch; /* bytes of a part */
};

bool depthwise_shape(const struct layer *l, struct conv_geometry *g, struct s8_shape *sh);
unsigned depthwise_parts(const struct layer *l, const struct conv_geometry *g);

int depthwise_pack(const struct layer *l, struct pack_cache *packs, struct depthwise *d, struct error *err);

int depthwise_pack_avx512vnni(
    const struct layer *l, struct pack_cache *packs, struct depthwise *d, struct error *err);

/* Output rows oy to oy + d->rows, as far as there are; x and y: the images. */
void depthwise_rows_avx512vnni(
    const struct depthwise *d, const uint8_t *x, int64_t oy, uint8_t *y, void *scratch);

#endif
