/* Residual networks for small pictures (He et al. 2016, section 4.2): n blocks in each of three stages of 16,
 * 32 and 64 channels, 6n+2 layers. Shortcuts that change the shape are convolutions 1 x 1 with batch norm
 * (their option B: 272,474 parameters for resnet20 on ten classes).
 *
 * Above 64 pixels a side the first convolution has stride 2; above 128 a max pool follows, as in their
 * networks for 224 x 224. Depth is a factor on n. */
#include "compress/zoo_rows.h"

static struct zoo_map block(
    struct zoo_maker *m, const char *name, struct zoo_map x, int64_t channels, int64_t stride) {
    struct zoo_map y = zoo_conv_norm_relu(m, zoo_name(m, "%s/conv1", name), x,
                       (struct zoo_conv){.out = channels, .kernel = 3, .stride = stride}),
                   shortcut = x;

    y = zoo_conv_norm(m, zoo_name(m, "%s/conv2", name), y, (struct zoo_conv){.out = channels, .kernel = 3});
    if (stride != 1 || x.c != channels)
        shortcut = zoo_conv_norm(m, zoo_name(m, "%s/shortcut", name), x,
            (struct zoo_conv){.out = channels, .kernel = 1, .stride = stride});
    return zoo_relu(m, zoo_name(m, "%s/relu", name), zoo_add(m, zoo_name(m, "%s/add", name), y, shortcut));
}

static struct zoo_map resnet(struct zoo_maker *m, struct zoo_map x, int n) {
    int64_t side = x.h < x.w ? x.h : x.w;

    x = zoo_conv_norm_relu(m, "conv1", x,
        (struct zoo_conv){.out = zoo_width(m, 16, 1), .kernel = 3, .stride = side > 64 ? 2 : 1});
    if (side > 128)
        x = zoo_pool(m, "pool1", x, ZOO_POOL_MAX, 3, 2, 1, false);
    for (int stage = 0; stage < 3; stage++)
        for (int i = 0; i < zoo_depth(m, n); i++)
            x = block(m, zoo_name(m, "stage%d/%d", stage + 1, i + 1), x, zoo_width(m, 16 << stage, 1),
                stage > 0 && i == 0 ? 2 : 1);
    return zoo_classifier(m, "logits", x);
}

static struct zoo_map build20(struct zoo_maker *m, struct zoo_map x) {
    return resnet(m, x, 3);
}

static struct zoo_map build32(struct zoo_maker *m, struct zoo_map x) {
    return resnet(m, x, 5);
}

static struct zoo_map build56(struct zoo_maker *m, struct zoo_map x) {
    return resnet(m, x, 9);
}

static const char source[] = "He et al. 2016, Deep residual learning for image recognition";
static const char defaults[] =
    "{\"epochs\": 30, \"lr\": 0.1, \"augment\": {\"crop_padding\": 4, \"flip\": true}}";

const struct zoo_net zoo_resnet20 = {
    .name = "resnet20",
    .summary = "Residual network of 20 layers for small pictures; 0.27 M parameters",
    .source = source,
    .min_width = 0.25,
    .max_width = 8,
    .min_depth = 0.3,
    .max_depth = 4,
    .min_side = 8,
    .defaults = defaults,
    .build = build20,
};

const struct zoo_net zoo_resnet32 = {
    .name = "resnet32",
    .summary = "Residual network of 32 layers for small pictures; 0.47 M parameters",
    .source = source,
    .min_width = 0.25,
    .max_width = 8,
    .min_depth = 0.2,
    .max_depth = 4,
    .min_side = 8,
    .defaults = defaults,
    .build = build32,
};

const struct zoo_net zoo_resnet56 = {
    .name = "resnet56",
    .summary = "Residual network of 56 layers for small pictures; 0.86 M parameters",
    .source = source,
    .min_width = 0.25,
    .max_width = 8,
    .min_depth = 0.1,
    .max_depth = 4,
    .min_side = 8,
    .defaults = defaults,
    .build = build56,
};
