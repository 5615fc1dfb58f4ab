/* ShuffleNet V2. The sides are divided by 32 in all; on small pictures the first strides are left out
 * (zoo_strides). Width is the paper's factor: its four sizes 0.5, 1, 1.5 and 2 have the channels of table 5,
 * those between are interpolated. Depth is a factor on the units of each stage. */
#include "compress/zoo_rows.h"

/* Channels of stage 2, even; stages 3 and 4 have twice and four times as many. */
static int64_t stage_channels(double width) {
    static const double at[] = {0.25, 0.5, 1, 1.5, 2}, channels[] = {24, 48, 116, 176, 244};
    int i = 0;

    while (i < 3 && width > at[i + 1])
        i++;
    return 2 *
           (int64_t)((channels[i] + (channels[i + 1] - channels[i]) * (width - at[i]) / (at[i + 1] - at[i])) /
                     2);
}

static struct zoo_map depthwise(struct zoo_maker *m, const char *name, struct zoo_map x, int64_t stride) {
    return zoo_conv_norm(m, zoo_name(m, "%s/depthwise", name), x,
        (struct zoo_conv){.out = x.c, .kernel = 3, .stride = stride, .groups = x.c, .gain = 1});
}

/* 1 x 1, depthwise, 1 x 1: the branch that computes, to `out` channels. */
static struct zoo_map branch(
    struct zoo_maker *m, const char *name, struct zoo_map x, int64_t out, int64_t stride) {
    x = zoo_conv_norm_relu(m, zoo_name(m, "%s/first", name), x, (struct zoo_conv){.out = out, .kernel = 1});
    x = depthwise(m, name, x, stride);
    return zoo_conv_norm_relu(m, zoo_name(m, "%s/last", name), x, (struct zoo_conv){.out = out, .kernel = 1});
}

/* Figure 3 (c): half of the channels pass by. */
static struct zoo_map unit(struct zoo_maker *m, const char *name, struct zoo_map x) {
    struct zoo_map half[2];

    zoo_halves(m, zoo_name(m, "%s/split", name), x, half);
    half[1] = branch(m, name, half[1], half[1].c, 1);
    return zoo_shuffle(m, name, zoo_concat(m, zoo_name(m, "%s/concat", name), half[0], half[1]));
}

/* Figure 3 (d): both halves computed from all channels; the sides may be halved. */
static struct zoo_map unit_down(
    struct zoo_maker *m, const char *name, struct zoo_map x, int64_t out, int64_t stride) {
    struct zoo_map left = depthwise(m, zoo_name(m, "%s/left", name), x, stride);

    left = zoo_conv_norm_relu(
        m, zoo_name(m, "%s/left/last", name), left, (struct zoo_conv){.out = out / 2, .kernel = 1});
    x = branch(m, name, x, out / 2, stride);
    return zoo_shuffle(m, name, zoo_concat(m, zoo_name(m, "%s/concat", name), left, x));
}

static struct zoo_map build(struct zoo_maker *m, struct zoo_map x) {
    static const int n_units[] = {4, 8, 4};
    int64_t channels = stage_channels(m->width);

    zoo_strides(m, &x, 5);
    x = zoo_conv_norm_relu(m, "conv1", x, (struct zoo_conv){.out = 24, .kernel = 3, .stride = zoo_stride(m)});
    if (zoo_stride(m) == 2)
        x = zoo_pool(m, "pool1", x, ZOO_POOL_MAX, 3, 2, 1, false);
    for (int stage = 0; stage < 3; stage++) {
        x = unit_down(m, zoo_name(m, "stage%d/1", stage + 2), x, channels << stage, zoo_stride(m));
        for (int i = 1; i < zoo_depth(m, n_units[stage]); i++)
            x = unit(m, zoo_name(m, "stage%d/%d", stage + 2, i + 1), x);
    }
    x = zoo_conv_norm_relu(
        m, "conv5", x, (struct zoo_conv){.out = m->width > 1.5 ? 2048 : 1024, .kernel = 1});
    return zoo_classifier(m, "logits", x);
}

const struct zoo_net zoo_shufflenet_v2 = {
    .name = "shufflenet_v2",
    .summary = "Channel split and shuffle; 0.5, 1, 1.5 and 2 are the paper's widths",
    .source = "Ma et al. 2018, ShuffleNet V2: practical guidelines for efficient CNN architecture design",
    .min_width = 0.25,
    .max_width = 2,
    .min_depth = 0.25,
    .max_depth = 4,
    .min_side = 8,
    .defaults =
        "{\"epochs\": 30, \"lr\": 0.1, \"weight_decay\": 4e-5, \"augment\": {\"crop_padding\": 4, \"flip\": true}}",
    .build = build,
};
