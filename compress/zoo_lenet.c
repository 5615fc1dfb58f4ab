/* The two LeNets that pruning papers use. Both were made for 28 x 28: larger pictures (64 and up) are first
 * averaged over whole blocks down to 32 to 63 pixels a side, which keeps the fully connected layers what they
 * are. */
#include "compress/zoo_rows.h"

#define KEPT_SIDE 32

static struct zoo_map shrink(struct zoo_maker *m, struct zoo_map x) {
    int64_t side = x.h < x.w ? x.h : x.w, block = side / KEPT_SIDE;

    return block < 2 ? x : zoo_pool(m, "shrink", x, ZOO_POOL_AVERAGE, block, block, 0, false);
}

static struct zoo_map build_lenet300(struct zoo_maker *m, struct zoo_map x) {
    x = zoo_flatten(m, "flat", shrink(m, x));
    x = zoo_relu(m, "relu1", zoo_linear(m, "fc1", x, zoo_width(m, 300, 1), 2));
    x = zoo_relu(m, "relu2", zoo_linear(m, "fc2", x, zoo_width(m, 100, 1), 2));
    return zoo_linear(m, "logits", x, m->n_classes, 1);
}

const struct zoo_net zoo_lenet300 = {
    .name = "lenet300",
    .summary = "LeNet-300-100: fully connected, two hidden layers; 266,610 parameters on 28 x 28",
    .source = "LeCun et al. 1998, Gradient-based learning applied to document recognition",
    .min_width = 0.1,
    .max_width = 8,
    .min_depth = 1,
    .max_depth = 1,
    .min_side = 4,
    .defaults = "{\"epochs\": 30, \"lr\": 0.05}",
    .build = build_lenet300,
};

/* As Caffe's example network: no padding, pooled without a non-linearity of its own. */
static struct zoo_map build_lenet5(struct zoo_maker *m, struct zoo_map x) {
    x = zoo_conv(m, "conv1", shrink(m, x),
        (struct zoo_conv){.out = zoo_width(m, 20, 1), .kernel = 5, .is_biased = true, .gain = 1});
    x = zoo_pool(m, "pool1", x, ZOO_POOL_MAX, 2, 2, 0, false);
    x = zoo_conv(m, "conv2", x,
        (struct zoo_conv){.out = zoo_width(m, 50, 1), .kernel = 5, .is_biased = true, .gain = 1});
    x = zoo_flatten(m, "flat", zoo_pool(m, "pool2", x, ZOO_POOL_MAX, 2, 2, 0, false));
    x = zoo_relu(m, "relu1", zoo_linear(m, "fc1", x, zoo_width(m, 500, 1), 2));
    return zoo_linear(m, "logits", x, m->n_classes, 1);
}

const struct zoo_net zoo_lenet5 = {
    .name = "lenet5",
    .summary = "LeNet-5 as Caffe has it, 20-50-500; 431,080 parameters on 28 x 28",
    .source = "LeCun et al. 1998, Gradient-based learning applied to document recognition",
    .min_width = 0.1,
    .max_width = 8,
    .min_depth = 1,
    .max_depth = 1,
    .min_side = 16,
    .defaults = "{\"epochs\": 15, \"lr\": 0.05, \"augment\": {\"crop_padding\": 2, \"flip\": false}}",
    .build = build_lenet5,
};
