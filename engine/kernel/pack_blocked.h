/* Plain floats into the library's blocked layouts. Its own reorder needs as long for the weights of a network
 * as the network for four images, and the whole source in memory at once. */
#ifndef ENGINE_KERNEL_PACK_BLOCKED_H
#define ENGINE_KERNEL_PACK_BLOCKED_H

#include <dnnl.h>
#include <stdbool.h>

/* `ret` is zeroed and `from` may be unaligned. False: not such layouts, nothing was done. `between`, if not
 * NULL, is called every 16 MiB or so, when what was read until then will not be read again. */
bool pack_blocked_f32(const dnnl_memory_desc_t *from_desc, const void *from,
    const dnnl_memory_desc_t *to_desc, float *ret, void (*between)(void *ctx), void *ctx);

#endif
