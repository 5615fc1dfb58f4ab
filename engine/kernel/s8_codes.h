/* A layer's weights as integers, and which loader (s8.h) their values allow. */
#ifndef ENGINE_KERNEL_S8_CODES_H
#define ENGINE_KERNEL_S8_CODES_H

#include "engine/kernel/s8_pack.h"

/* Codes less zero points: output channel oc (of all), input k = ci * taps + tap. */
struct s8_codes {
    const int8_t *bytes; /* as they lie in the file; NULL: `code` has them */
    int16_t *code;
    int64_t oc_stride, k_stride;
};

/* Errors: -ENOMEM, -EFBIG. The caller frees `code`, which may be NULL. */
int s8_codes_read(const struct weight *w, const struct s8_shape *sh, struct s8_codes *ret, struct error *err);

static inline int16_t s8_codes_at(const struct s8_codes *c, int64_t oc, int64_t k) {
    int64_t at = oc * c->oc_stride + k * c->k_stride;

    return c->bytes ? c->bytes[at] : c->code[at];
}

/* Are all integers of `w` within s8? May have to look at all of them. */
bool s8_codes_are_bytes(const struct weight *w);

/* The values that occur, 0 among them if `needs_zero`, in order and repeated to S8_TABLE entries, and where
 * each value + 128 stands. Returns the bits of a code: 8 where a table would not help. */
int s8_codes_table(const struct s8_codes *c, const struct weight *w, bool needs_zero, int8_t table[S8_TABLE],
    uint8_t place[256]);

/* The first loader of `isa` that takes codes of `bits` bits; NULL: none. */
const struct s8_loader *s8_loader_find(const struct s8_isa *isa, const struct cpu *cpu, int bits);

#endif
