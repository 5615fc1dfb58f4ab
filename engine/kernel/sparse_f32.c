/* Conv, Gemm and MatMul on floats, most of whose weights are zero. */
#include <string.h>

#include "engine/kernel/rows.h"
#include "engine/kernel/sparse_layer.h"
#include "engine/kernel/sparse_post.h"
#include "engine/kernel/weights.h"

/* Fewer zeros run as fast or faster in the dense kernels, over the layers of ResNet-50; for memory alone half
 * of them will do. */
#define MIN_ZEROS         0.65f
#define MIN_ZEROS_COMPACT 0.5f
#define MIN_INPUTS        16

static const struct tensor *bias_of(const struct layer *l) {
    return strcmp(l->node->op_type, "MatMul") != 0 && l->n_in > 2 ? l->in[2] : NULL;
}

static bool is_sparse_layer(const struct layer *l) {
    return l->n_in >= 2 && l->in[0] && !l->in[0]->data && l->in[0]->dtype == DT_F32 &&
           l->in_type[0].quant.scale <= 0 && l->out[0].dtype == DT_F32 && kernel_has_weights(l) &&
           sparse_posts_fit(l);
}

static bool shape_fits(const struct layer *l, const struct sparse_shape *sh) {
    const struct tensor *b = bias_of(l);
    int64_t n;

    if (b && (!b->data || b->dtype != DT_F32 || !shape_count(&b->shape, &n) ||
                 (n != 1 && (n != sh->groups * sh->oc || b->shape.dim[b->shape.rank - 1] != n))))
        return false;
    return sh->ic >= MIN_INPUTS && sparse_f32_zeros(l) >= (l->is_compact ? MIN_ZEROS_COMPACT : MIN_ZEROS);
}

static bool conv_fits(const struct layer *l) {
    struct conv_geometry g;
    struct sparse_shape sh;

    return is_sparse_layer(l) && sparse_conv_shape(l, 1, &g, &sh) && shape_fits(l, &sh);
}

static bool gemm_fits(const struct layer *l) {
    struct conv_geometry g;
    struct sparse_shape sh;

    return is_sparse_layer(l) && sparse_gemm_shape(l, 1, &g, &sh) && shape_fits(l, &sh);
}

static int prepare(const struct layer *l, const struct sparse_isa *isa, struct pack_cache *packs,
    struct kernel_state **ret, size_t *ret_scratch, struct error *err) {
    struct sparse_spec spec = {.isa = isa};
    bool is_gemm = strcmp(l->node->op_type, "Gemm") == 0;
    int r;

    (void)(strcmp(l->node->op_type, "Conv") == 0 ? sparse_conv_shape(l, 1, &spec.g, &spec.sh)
                                                 : sparse_gemm_shape(l, 1, &spec.g, &spec.sh));
    r = sparse_pack_f32(l, &spec.sh, is_gemm ? node_attr_float(l->node, "alpha", 1) : 1,
        is_gemm ? node_attr_float(l->node, "beta", 1) : 1, packs, &spec.w, err);
    return r < 0 ? r : sparse_layer_prepare(l, &spec, ret, ret_scratch, err);
}

static const char *const conv_ops[] = {"Conv", NULL};
static const char *const gemm_ops[] = {"Gemm", "MatMul", NULL};

#define ROW(kind, isa_name, layout)                                                                          \
    static bool kind##_##isa_name##_fits(const struct cpu *cpu, const struct layer *l) {                     \
        return sparse_isa_##isa_name.has(cpu) && kind##_fits(l);                                             \
    }                                                                                                        \
    static int kind##_##isa_name##_prepare(const struct layer *l, struct pack_cache *packs,                  \
        struct kernel_state **ret, size_t *ret_scratch, struct error *err) {                                 \
        return prepare(l, &sparse_isa_##isa_name, packs, ret, ret_scratch, err);                             \
    }                                                                                                        \
    const struct kernel kernel_##kind##_sparse_f32_##isa_name = {                                            \
        .name = #kind "_sparse_f32_" #isa_name,                                                              \
        .op_types = kind##_ops,                                                                              \
        .fits = kind##_##isa_name##_fits,                                                                    \
        .layouts = {.in = 1u << (layout), .out = 1u << (layout)},                                            \
        .skips_zeros = true,                                                                                 \
        .max_posts = NODE_MAX_POSTS,                                                                         \
        .can_sum_in_place = true,                                                                            \
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
