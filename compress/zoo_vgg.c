/* VGG8 as the distillation papers use it on small pictures, at half the width of VGG: three stages of
 * convolutions 3 x 3 with batch norm, a pool after each, and the mean of what is left. Depth is the number of
 * convolutions in a stage, two in the original. */
#include "compress/zoo_rows.h"

static struct zoo_map build(struct zoo_maker *m, struct zoo_map x) {
    static const int64_t channels[] = {64, 128, 256};

    for (int stage = 0; stage < 3; stage++) {
        for (int i = 0; i < zoo_depth(m, 2); i++)
            x = zoo_conv_norm_relu(m, zoo_name(m, "conv%d_%d", stage + 1, i + 1), x,
                (struct zoo_conv){.out = zoo_width(m, channels[stage], 1), .kernel = 3});
        x = zoo_pool(m, zoo_name(m, "pool%d", stage + 1), x, ZOO_POOL_MAX, 2, 2, 0, false);
    }
    return zoo_classifier(m, "logits", x);
}

const struct zoo_net zoo_vgg8 = {
    .name = "vgg8",
    .summary = "Convolutions 3 x 3 with batch norm, 64-64-128-128-256-256, pooled after each pair",
    .source = "Simonyan and Zisserman 2015; Tian et al. 2020, Contrastive representation distillation",
    .min_width = 0.05,
    .max_width = 4,
    .min_depth = 0.5,
    .max_depth = 4,
    .min_side = 8,
    .defaults = "{\"epochs\": 30, \"lr\": 0.1, \"augment\": {\"crop_padding\": 4, \"flip\": true}}",
    .build = build,
};
