/* SqueezeNet 1.1 (the authors' own revision, 2.4 times less work at the same accuracy). No batch norm, as in
 * the paper. Two differences: no dropout, and no ReLU on the logits, which from random weights may leave all
 * of them 0 and nothing to learn from. The sides are divided by 16 in all; on small pictures the first
 * strides are left out (zoo_strides), of pools with the pool. */
#include "compress/zoo_rows.h"

static struct zoo_map conv_relu(struct zoo_maker *m, const char *name, struct zoo_map x, struct zoo_conv c) {
    c.is_biased = true;
    return zoo_relu(m, zoo_name(m, "%s/relu", name), zoo_conv(m, name, x, c));
}

static struct zoo_map fire(struct zoo_maker *m, int k, struct zoo_map x, int64_t squeeze) {
    int64_t expand = 4 * squeeze; /* each half */
    struct zoo_map one, three;

    x = conv_relu(m, zoo_name(m, "fire%d/squeeze", k), x, (struct zoo_conv){.out = squeeze, .kernel = 1});
    one = conv_relu(m, zoo_name(m, "fire%d/expand1", k), x, (struct zoo_conv){.out = expand, .kernel = 1});
    three = conv_relu(
        m, zoo_name(m, "fire%d/expand3", k), x, (struct zoo_conv){.out = expand, .kernel = 3, .pad = 1});
    return zoo_concat(m, zoo_name(m, "fire%d", k), one, three);
}

static struct zoo_map pool(struct zoo_maker *m, int k, struct zoo_map x) {
    return zoo_stride(m) == 1 ? x : zoo_pool(m, zoo_name(m, "pool%d", k), x, ZOO_POOL_MAX, 3, 2, 0, true);
}

static struct zoo_map build(struct zoo_maker *m, struct zoo_map x) {
    static const struct {
        int64_t squeeze;
        bool is_pooled; /* in front of it */
    } rows[] = {
        {16, true}, {16, false}, {32, true}, {32, false}, {48, true}, {48, false}, {64, false}, {64, false}};

    zoo_strides(m, &x, 4);
    x = conv_relu(
        m, "conv1", x, (struct zoo_conv){.out = zoo_width(m, 64, 8), .kernel = 3, .stride = zoo_stride(m)});
    for (int i = 0; i < (int)(sizeof(rows) / sizeof(rows[0])); i++) {
        x = rows[i].is_pooled ? pool(m, i + 1, x) : x;
        x = fire(m, i + 2, x, zoo_width(m, rows[i].squeeze, 4));
    }
    x = zoo_conv(
        m, "conv10", x, (struct zoo_conv){.out = m->n_classes, .kernel = 1, .is_biased = true, .gain = 1});
    return zoo_flatten(m, "logits", zoo_global_average(m, "mean", x));
}

const struct zoo_net zoo_squeezenet = {
    .name = "squeezenet",
    .summary = "SqueezeNet 1.1: fire modules, no fully connected layer, no batch norm",
    .source = "Iandola et al. 2016, SqueezeNet: AlexNet-level accuracy with 50x fewer parameters",
    .min_width = 0.25,
    .max_width = 4,
    .min_depth = 1,
    .max_depth = 1,
    .min_side = 8,
    .defaults =
        "{\"epochs\": 30, \"lr\": 0.02, \"weight_decay\": 2e-4, \"clip\": 5, \"batch_norm\": \"keep\", \"augment\": {\"crop_padding\": 4, \"flip\": true}}",
    .build = build,
};
