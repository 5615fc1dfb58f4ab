#include "engine/nonzero.h"

#include <string.h>

/* So much of the mapped file stays in memory at most while it is counted. */
#define RELEASE_BYTES ((size_t)4 << 20)

/* Of n elements of `size` bytes: those that are not `zero` in the bits of `mask`. */
static int64_t count_other(
    const struct graph *g, const void *data, int64_t n, size_t size, uint64_t zero, uint64_t mask) {
    const char *p = data;
    size_t seen = 0;
    int64_t count = 0;

    for (int64_t i = 0; i < n; i++, p += size) {
        uint64_t bits = 0;

        memcpy(&bits, p, size); /* little-endian, as ONNX and this engine are */
        count += (bits & mask) != zero;
        seen += size;
        if (seen >= RELEASE_BYTES) {
            graph_release_pages(g);
            seen = 0;
        }
    }
    return count;
}

/* A float's sign is left out: -0 is zero. */
static int64_t count_floats(const struct graph *g, const struct tensor *t, const struct dtype_info *info) {
    int64_t n;

    if (!shape_count(&t->shape, &n) || info->bits % 8 || info->bits > 64)
        return -1;
    return count_other(g, t->data, n, info->bits / 8, 0, ~0ull >> (65 - info->bits));
}

/* `zero` may be NULL (0) or a list, if all of it is the same. */
static int64_t count_quantised(const struct graph *g, const struct tensor *t, const struct tensor *zero) {
    const struct dtype_info *info = dtype_info(t->dtype);
    int64_t n, n_zero = 0;
    uint64_t bits = 0;
    size_t size;

    if (!info || info->is_float || info->bits % 8 || info->bits > 32 || !shape_count(&t->shape, &n))
        return -1;
    size = info->bits / 8;
    if (zero && (zero->dtype != t->dtype || !shape_count(&zero->shape, &n_zero)))
        return -1;
    if (n_zero)
        memcpy(&bits, zero->data, size);
    if (n_zero && count_other(g, zero->data, n_zero, size, bits, ~0ull >> (64 - info->bits)))
        return -1;
    return count_other(g, t->data, n, size, bits, ~0ull >> (64 - info->bits));
}

static const struct tensor *init_of(const struct graph *g, const struct node *n, int k) {
    return n->n_in > k && n->in[k] >= 0 ? g->values[n->in[k]].init : NULL;
}

int64_t nonzero_count(const struct graph *g, int value) {
    const struct value *v = &g->values[value];
    const struct dtype_info *info = v->init ? dtype_info(v->init->dtype) : NULL;
    const struct node *n = v->producer < 0 ? NULL : &g->nodes[v->producer];

    if (info)
        return info->is_float ? count_floats(g, v->init, info) : -1;
    if (!n || strcmp(n->op_type, "DequantizeLinear") != 0 || !init_of(g, n, 0))
        return -1;
    if (n->n_in > 2 && n->in[2] >= 0 && !init_of(g, n, 2))
        return -1;
    return count_quantised(g, init_of(g, n, 0), init_of(g, n, 2));
}
