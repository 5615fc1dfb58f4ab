/* Sparse loops in plain C: vectors of four, which the compiler makes of whatever there is. */
#include <string.h>

#include "engine/kernel/sparse.h"

#define LANES       4
#define N_REGISTERS 16
#define TARGET

typedef float vec __attribute__((vector_size(16)));
typedef int32_t ivec __attribute__((vector_size(16)));

#define EARLY static inline __attribute__((always_inline))

EARLY vec load_quads(const uint8_t *const *pixel, size_t offset) {
    vec v;

    memcpy(&v, pixel[0] + offset, sizeof(v));
    return v;
}

EARLY void transpose_lanes(const vec from[4], vec *to) {
    for (int i = 0; i < 4; i++)
        to[i] = (vec){from[0][i], from[1][i], from[2][i], from[3][i]};
}

EARLY vec multiply_add(vec a, vec w, vec x) {
    return a + w * x;
}

struct quad {
    int32_t code[4];
};

EARLY struct quad quad_of(uint32_t codes) {
    struct quad q;

    for (int i = 0; i < 4; i++)
        q.code[i] = (int8_t)(codes >> 8 * i);
    return q;
}

EARLY ivec quad_dot(ivec sum, ivec x, struct quad w) {
    for (int i = 0; i < 4; i++)
        sum += (x >> 8 * i & 255) * w.code[i];
    return sum;
}

EARLY ivec encode_quad(const vec v[4], const struct s8_output *o) {
    ivec q = {0};

    for (int i = 0; i < 4; i++)
        for (int p = 0; p < LANES; p++)
            q[p] |= (int32_t)((uint32_t)s8_encode(v[i][p], o) << 8 * i);
    return q;
}

#include "engine/kernel/sparse_body.h"

static bool has(const struct cpu *cpu) {
    (void)cpu;
    return true;
}

const struct sparse_isa sparse_isa_plain = {
    .name = "plain",
    .lanes = LANES,
    .has = has,
    .gather = gather,
    .multiply_f32 = multiply_f32,
    .multiply_s8 = multiply_s8,
    .store_f32 = store_f32,
    .store_s8 = store_s8,
};
