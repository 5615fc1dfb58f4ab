/* MobileNet, both: depthwise and pointwise convolutions, batch norm, ReLU6. The sides are divided by 32 in
 * all; on small pictures the first strides are left out (zoo_strides). Width is the papers' multiplier. */
#include "compress/zoo_rows.h"

/* ---- v1: depthwise separable (table 1; its last stride of 2 is a misprint for 1, as their code has it) ----
 */

static struct zoo_map separable(
    struct zoo_maker *m, const char *name, struct zoo_map x, int64_t out, int64_t stride) {
    x = zoo_conv_norm_relu6(m, zoo_name(m, "%s/depthwise", name), x,
        (struct zoo_conv){.out = x.c, .kernel = 3, .stride = stride, .groups = x.c});
    return zoo_conv_norm_relu6(
        m, zoo_name(m, "%s/pointwise", name), x, (struct zoo_conv){.out = out, .kernel = 1});
}

static struct zoo_map build_v1(struct zoo_maker *m, struct zoo_map x) {
    static const struct {
        int64_t channels;
        int n;
        bool is_strided;
    } rows[] = {{64, 1, false}, {128, 1, true}, {128, 1, false}, {256, 1, true}, {256, 1, false},
        {512, 1, true}, {512, 5, false}, {1024, 1, true}, {1024, 1, false}};
    int k = 0;

    zoo_strides(m, &x, 5);
    x = zoo_conv_norm_relu6(
        m, "conv1", x, (struct zoo_conv){.out = zoo_width(m, 32, 8), .kernel = 3, .stride = zoo_stride(m)});
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        for (int b = 0; b < (rows[i].n == 1 ? 1 : zoo_depth(m, rows[i].n)); b++)
            x = separable(m, zoo_name(m, "block%d", ++k), x, zoo_width(m, rows[i].channels, 8),
                rows[i].is_strided ? zoo_stride(m) : 1);
    return zoo_classifier(m, "logits", x);
}

const struct zoo_net zoo_mobilenet_v1 = {
    .name = "mobilenet_v1",
    .summary = "Depthwise separable convolutions; depth is a factor on its five equal blocks",
    .source = "Howard et al. 2017, MobileNets: efficient convolutional neural networks for mobile vision",
    .min_width = 0.1,
    .max_width = 2,
    .min_depth = 0.2,
    .max_depth = 4,
    .min_side = 8,
    .defaults =
        "{\"epochs\": 30, \"lr\": 0.1, \"weight_decay\": 4e-5, \"augment\": {\"crop_padding\": 4, \"flip\": true}}",
    .build = build_v1,
};

/* ---- v2: inverted residuals (table 2) ---- */

static struct zoo_map inverted(
    struct zoo_maker *m, const char *name, struct zoo_map x, int64_t expansion, int64_t out, int64_t stride) {
    struct zoo_map y = x;

    if (expansion != 1)
        y = zoo_conv_norm_relu6(
            m, zoo_name(m, "%s/expand", name), y, (struct zoo_conv){.out = x.c * expansion, .kernel = 1});
    y = zoo_conv_norm_relu6(m, zoo_name(m, "%s/depthwise", name), y,
        (struct zoo_conv){.out = y.c, .kernel = 3, .stride = stride, .groups = y.c});
    y = zoo_conv_norm(m, zoo_name(m, "%s/project", name), y,
        (struct zoo_conv){.out = out, .kernel = 1, .gain = 1}); /* no ReLU behind it */
    return stride == 1 && x.c == out ? zoo_add(m, zoo_name(m, "%s/add", name), x, y) : y;
}

static struct zoo_map build_v2(struct zoo_maker *m, struct zoo_map x) {
    static const struct {
        int64_t expansion, channels;
        int n;
        bool is_strided;
    } rows[] = {{1, 16, 1, false}, {6, 24, 2, true}, {6, 32, 3, true}, {6, 64, 4, true}, {6, 96, 3, false},
        {6, 160, 3, true}, {6, 320, 1, false}};
    int k = 0;

    zoo_strides(m, &x, 5);
    x = zoo_conv_norm_relu6(
        m, "conv1", x, (struct zoo_conv){.out = zoo_width(m, 32, 8), .kernel = 3, .stride = zoo_stride(m)});
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        for (int b = 0; b < zoo_depth(m, rows[i].n); b++)
            x = inverted(m, zoo_name(m, "block%d", ++k), x, rows[i].expansion,
                zoo_width(m, rows[i].channels, 8), rows[i].is_strided && b == 0 ? zoo_stride(m) : 1);
    x = zoo_conv_norm_relu6(
        m, "conv2", x, (struct zoo_conv){.out = m->width > 1 ? zoo_width(m, 1280, 8) : 1280, .kernel = 1});
    return zoo_classifier(m, "logits", x);
}

const struct zoo_net zoo_mobilenet_v2 = {
    .name = "mobilenet_v2",
    .summary = "Inverted residuals with linear bottlenecks; depth is a factor on the blocks of each row",
    .source = "Sandler et al. 2018, MobileNetV2: inverted residuals and linear bottlenecks",
    .min_width = 0.1,
    .max_width = 2,
    .min_depth = 0.3,
    .max_depth = 4,
    .min_side = 8,
    .defaults =
        "{\"epochs\": 30, \"lr\": 0.1, \"weight_decay\": 4e-5, \"augment\": {\"crop_padding\": 4, \"flip\": true}}",
    .build = build_v2,
};
