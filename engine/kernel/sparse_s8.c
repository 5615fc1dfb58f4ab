/* Conv, Gemm and MatMul on codes, most of whose blocks of 1 output x 4 inputs are zero: the bytes of the
 * dense kernels. */
#include <string.h>

#include "engine/kernel/rows.h"
#include "engine/kernel/s8_pack.h"
#include "engine/kernel/sparse_layer.h"

/* Fewer zeros run as fast or faster in the dense kernels, over the layers of ResNet-50; for memory alone half
 * of them will do. */
#define MIN_ZEROS         0.65f
#define MIN_ZEROS_COMPACT 0.5f

/* With few inputs the time goes into storing, where dense is better. */
#define MIN_INPUTS         128
#define MIN_INPUTS_COMPACT 16

typedef bool shape_fn(const struct layer *l, int per_dword, struct conv_geometry *g, struct sparse_shape *sh);

static bool fits(const struct layer *l, shape_fn *shape) {
    struct s8_shape dense;
    struct sparse_shape sh;
    struct conv_geometry g;
    struct s8_output out;

    if (l->n_in < 2 || !l->in[0] || !l->in[1] || l->in[0]->data || !s8_is_codes(&l->in_type[0]) ||
        !l->node->weight || !s8_output_init(l, &out) || !shape(l, 4, &g, &sh) ||
        sh.ic * sh.taps < (l->is_compact ? MIN_INPUTS_COMPACT : MIN_INPUTS) ||
        node_attr_float(l->node, "alpha", 1) != 1.0f || node_attr_float(l->node, "beta", 1) != 1.0f)
        return false;
    dense =
        (struct s8_shape){.groups = sh.groups, .oc = sh.oc, .ic = sh.ic, .taps = sh.taps, .is_kn = sh.is_kn};
    return s8_weights_fit(l, &s8_isa_avx512vnni, &dense) &&
           sparse_s8_zeros(l, &sh) >= (l->is_compact ? MIN_ZEROS_COMPACT : MIN_ZEROS);
}

static int prepare(const struct layer *l, const struct sparse_isa *isa, shape_fn *shape,
    struct pack_cache *packs, struct kernel_state **ret, size_t *ret_scratch, struct error *err) {
    struct sparse_spec spec = {.isa = isa, .is_s8 = true};
    int r;

    (void)shape(l, 4, &spec.g, &spec.sh);
    (void)s8_output_init(l, &spec.out); /* fits() said it can */
    r = sparse_pack_s8(l, &spec.sh, packs, &spec.w, err);
    return r < 0 ? r : sparse_layer_prepare(l, &spec, ret, ret_scratch, err);
}

static const char *const conv_ops[] = {"Conv", NULL};
static const char *const gemm_ops[] = {"Gemm", "MatMul", NULL};

#define ROW(kind, isa_name, layout)                                                                          \
    static bool kind##_##isa_name##_fits(const struct cpu *cpu, const struct layer *l) {                     \
        return sparse_isa_##isa_name.has(cpu) && fits(l, sparse_##kind##_shape);                             \
    }                                                                                                        \
    static int kind##_##isa_name##_prepare(const struct layer *l, struct pack_cache *packs,                  \
        struct kernel_state **ret, size_t *ret_scratch, struct error *err) {                                 \
        return prepare(l, &sparse_isa_##isa_name, sparse_##kind##_shape, packs, ret, ret_scratch, err);      \
    }                                                                                                        \
    const struct kernel kernel_##kind##_sparse_s8_##isa_name = {                                             \
        .name = #kind "_sparse_s8_" #isa_name,                                                               \
        .op_types = kind##_ops,                                                                              \
        .fits = kind##_##isa_name##_fits,                                                                    \
        .layouts = {.in = 1u << (layout), .out = 1u << (layout)},                                            \
        .skips_zeros = true,                                                                                 \
        .max_posts = NODE_MAX_POSTS,                                                                         \
        .prepare = kind##_##isa_name##_prepare,                                                              \
        .run = sparse_layer_run,                                                                             \
        .done = sparse_layer_done,                                                                           \
    };

ROW(conv, avx512, LAYOUT_NHWC)
ROW(conv, avx2, LAYOUT_NHWC)
ROW(conv, plain, LAYOUT_NHWC)
ROW(gemm, avx512, LAYOUT_PLAIN)
ROW(gemm, avx2, LAYOUT_PLAIN)
ROW(gemm, plain, LAYOUT_PLAIN)
