#include "compress/zoo_layers.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "compress/chance.h"

static const struct zoo_map nothing = {.value = -1};

/* ---- numbers ---- */

static uint64_t key_of(uint64_t seed, const char *name) {
    uint64_t key = chance_mix(seed);

    for (; *name; name++)
        key = chance_mix(key ^ (unsigned char)*name);
    return key;
}

/* U(-bound, bound) from 24 bits: symmetric, never the bound itself. */
static void fill_uniform(uint64_t seed, const char *name, double bound, int64_t n, float *ret) {
    uint64_t key = key_of(seed, name);

    for (int64_t i = 0; i < n; i++)
        ret[i] = (float)((((double)(chance_mix(key + (uint64_t)i) >> 40) + 0.5) / 8388608.0 - 1) * bound);
}

int64_t zoo_width(const struct zoo_maker *m, int64_t n, int64_t unit) {
    double want = (double)n * m->width;
    int64_t have = (int64_t)floor(want / (double)unit + 0.5) * unit;

    have = have < unit ? unit : have;
    return (double)have < 0.9 * want ? have + unit : have;
}

int zoo_depth(const struct zoo_maker *m, int n) {
    int have = (int)floor(n * m->depth + 0.5);

    return have < 1 ? 1 : have;
}

void zoo_strides(struct zoo_maker *m, const struct zoo_map *x, int n) {
    int64_t side = x->h < x->w ? x->h : x->w;
    int fits = 0;

    while (fits < n && side >> (fits + 1) >= 3)
        fits++;
    m->n_strides_skipped = n - fits;
}

int64_t zoo_stride(struct zoo_maker *m) {
    if (m->n_strides_skipped == 0)
        return 2;
    m->n_strides_skipped--;
    return 1;
}

/* ---- graph ---- */

static struct zoo_map fail(struct zoo_maker *m, int r) {
    if (m->failed == 0)
        m->failed = r == -ENOMEM ? error_oom(m->err) : error_set(m->err, r, "the network cannot be built");
    return nothing;
}

const char *zoo_name(struct zoo_maker *m, const char *fmt, ...) {
    char text[128];
    const char *name;
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    name = graph_strdup(m->graph, text, strlen(text));
    if (!name)
        fail(m, -ENOMEM);
    return name ? name : "";
}

/* A constant named STEM.PART; owns no `t->data`. */
static int constant(struct zoo_maker *m, const char *stem, const char *part, const struct tensor *t) {
    int v = graph_add_init(m->graph, zoo_name(m, "%s.%s", stem, part), t, false);

    if (v < 0)
        fail(m, v);
    return v;
}

/* Random weights of this shape, or, without a bound, all elements the same number. */
static int floats(struct zoo_maker *m, const char *stem, const char *part, const struct shape *shape,
    double bound, float same) {
    struct tensor t = {.dtype = DT_F32, .shape = *shape};
    _cleanup_(freep) float *data = NULL;
    size_t size;
    int64_t n;

    if (!shape_count(shape, &n) || n > SHAPE_MAX_COUNT || !shape_bytes(shape, DT_F32, &size)) {
        fail(m, -EFBIG);
        return -1;
    }
    data = malloc(size + 1);
    if (!data) {
        fail(m, -ENOMEM);
        return -1;
    }
    if (bound > 0)
        fill_uniform(m->seed, zoo_name(m, "%s.%s", stem, part), bound, n, data);
    for (int64_t i = 0; bound <= 0 && i < n; i++)
        data[i] = same;
    t.data = data;
    return constant(m, stem, part, &t);
}

static int per_channel(struct zoo_maker *m, const char *stem, const char *part, int64_t n, float same) {
    return floats(m, stem, part, &(struct shape){.rank = 1, .dim = {n}}, 0, same);
}

static int whole_numbers(
    struct zoo_maker *m, const char *stem, const char *part, const int64_t *v, int64_t n) {
    return constant(m, stem, part,
        &(struct tensor){.dtype = DT_S64, .shape = {.rank = 1, .dim = {n}}, .data = (void *)(uintptr_t)v});
}

/* A node `name` whose outputs are named as it (and NAME.1 …); its shape follows later. NULL after a failure.
 */
static struct node *node(struct zoo_maker *m, const char *type, const char *name, const int *in, int n_in,
    int *ret_out, int n_out) {
    int index;

    if (m->failed)
        return NULL;
    for (int i = 0; i < n_out; i++) {
        ret_out[i] = graph_add_value(
            m->graph, i ? zoo_name(m, "%s.%d", name, i) : name, DT_F32, &(struct shape){.rank = -1});
        if (ret_out[i] < 0) {
            fail(m, ret_out[i]);
            return NULL;
        }
    }
    index = graph_insert_node(m->graph, m->graph->n_nodes, type, name, in, n_in, ret_out, n_out);
    if (index < 0) {
        fail(m, index);
        return NULL;
    }
    return &m->graph->nodes[index];
}

static void attr_int(struct zoo_maker *m, struct node *n, const char *name, int64_t v) {
    int r = n && !m->failed ? graph_set_attr_int(m->graph, n, name, v) : 0;

    if (r < 0)
        fail(m, r);
}

static void attr_ints(struct zoo_maker *m, struct node *n, const char *name, const int64_t *v, size_t count) {
    int r = n && !m->failed ? graph_set_attr_ints(m->graph, n, name, v, count) : 0;

    if (r < 0)
        fail(m, r);
}

static void attr_float(struct zoo_maker *m, struct node *n, const char *name, float v) {
    int r = n && !m->failed ? graph_set_attr_float(m->graph, n, name, v) : 0;

    if (r < 0)
        fail(m, r);
}

/* A node of one output, that of shape c, h, w; *ret_node may get attributes until the next call. */
static struct zoo_map one(struct zoo_maker *m, const char *type, const char *name, const int *in, int n_in,
    struct zoo_map shape, struct node **ret_node) {
    struct node *n = node(m, type, name, in, n_in, &shape.value, 1);

    if (ret_node)
        *ret_node = n;
    return n ? shape : nothing;
}

static int64_t side_after(int64_t side, int64_t kernel, int64_t stride, int64_t pad, bool is_ceil) {
    return (side + 2 * pad - kernel + (is_ceil ? stride - 1 : 0)) / stride + 1;
}

/* kernel_shape, strides and pads, as Conv and the pools have them. */
static void window(struct zoo_maker *m, struct node *n, int64_t kernel, int64_t stride, int64_t pad) {
    attr_ints(m, n, "kernel_shape", (int64_t[]){kernel, kernel}, 2);
    attr_ints(m, n, "strides", (int64_t[]){stride, stride}, 2);
    attr_ints(m, n, "pads", (int64_t[]){pad, pad, pad, pad}, 4); /* t l b r */
}

struct zoo_map zoo_conv(struct zoo_maker *m, const char *name, struct zoo_map x, struct zoo_conv c) {
    int64_t stride = c.stride ? c.stride : 1, groups = c.groups ? c.groups : 1, fan_in;
    int in[3] = {x.value, -1, -1};
    struct zoo_map y = {.c = c.out};
    struct node *n;

    if (m->failed)
        return nothing;
    fan_in = x.c / groups * c.kernel * c.kernel;
    in[1] = floats(m, name, "weight",
        &(struct shape){.rank = 4, .dim = {c.out, x.c / groups, c.kernel, c.kernel}},
        sqrt(3 * (c.gain > 0 ? c.gain : 2) / (double)fan_in), 0);
    if (c.is_biased)
        in[2] = per_channel(m, name, "bias", c.out, 0);
    y.h = side_after(x.h, c.kernel, stride, c.pad, false);
    y.w = side_after(x.w, c.kernel, stride, c.pad, false);
    y = one(m, "Conv", name, in, c.is_biased ? 3 : 2, y, &n);
    window(m, n, c.kernel, stride, c.pad);
    attr_int(m, n, "group", groups);
    return y;
}

struct zoo_map zoo_norm(struct zoo_maker *m, const char *name, struct zoo_map x) {
    int in[5] = {x.value};
    struct node *n;

    if (m->failed)
        return nothing;
    in[1] = per_channel(m, name, "gamma", x.c, 1);
    in[2] = per_channel(m, name, "beta", x.c, 0);
    in[3] = per_channel(m, name, "mean", x.c, 0);
    in[4] = per_channel(m, name, "variance", x.c, 1);
    x = one(m, "BatchNormalization", name, in, 5, x, &n);
    attr_float(m, n, "epsilon", 1e-5f);
    return x;
}

struct zoo_map zoo_relu(struct zoo_maker *m, const char *name, struct zoo_map x) {
    return one(m, "Relu", name, &x.value, 1, x, NULL);
}

struct zoo_map zoo_relu6(struct zoo_maker *m, const char *name, struct zoo_map x) {
    float bounds[2] = {0, 6};
    int in[3] = {x.value};

    if (m->failed)
        return nothing;
    in[1] = constant(m, name, "low", &(struct tensor){.dtype = DT_F32, .data = &bounds[0]});
    in[2] = constant(m, name, "high", &(struct tensor){.dtype = DT_F32, .data = &bounds[1]});
    return one(m, "Clip", name, in, 3, x, NULL);
}

struct zoo_map zoo_pool(struct zoo_maker *m, const char *name, struct zoo_map x, enum zoo_pool kind,
    int64_t kernel, int64_t stride, int64_t pad, bool is_ceil) {
    struct zoo_map y = {.c = x.c,
        .h = side_after(x.h, kernel, stride, pad, is_ceil),
        .w = side_after(x.w, kernel, stride, pad, is_ceil)};
    struct node *n;

    y = one(m, kind == ZOO_POOL_MAX ? "MaxPool" : "AveragePool", name, &x.value, 1, y, &n);
    window(m, n, kernel, stride, pad);
    if (is_ceil)
        attr_int(m, n, "ceil_mode", 1);
    return y;
}

struct zoo_map zoo_flatten(struct zoo_maker *m, const char *name, struct zoo_map x) {
    return one(m, "Flatten", name, &x.value, 1, (struct zoo_map){.c = x.c * x.h * x.w}, NULL);
}

struct zoo_map zoo_global_average(struct zoo_maker *m, const char *name, struct zoo_map x) {
    x.h = x.w = 1;
    return one(m, "GlobalAveragePool", name, &x.value, 1, x, NULL);
}

/* y[n][out] = x[n][in] W[out][in]^T + b[out] */
struct zoo_map zoo_linear(struct zoo_maker *m, const char *name, struct zoo_map x, int64_t out, double gain) {
    int in[3] = {x.value};
    struct zoo_map y = {.c = out};
    struct node *n;

    if (m->failed)
        return nothing;
    in[1] = floats(
        m, name, "weight", &(struct shape){.rank = 2, .dim = {out, x.c}}, sqrt(3 * gain / (double)x.c), 0);
    in[2] = per_channel(m, name, "bias", out, 0);
    y = one(m, "Gemm", name, in, 3, y, &n);
    attr_int(m, n, "transB", 1);
    return y;
}

struct zoo_map zoo_add(struct zoo_maker *m, const char *name, struct zoo_map a, struct zoo_map b) {
    return one(m, "Add", name, (int[]){a.value, b.value}, 2, a, NULL);
}

struct zoo_map zoo_concat(struct zoo_maker *m, const char *name, struct zoo_map a, struct zoo_map b) {
    struct zoo_map y = a;
    struct node *n;

    y.c = a.c + b.c;
    y = one(m, "Concat", name, (int[]){a.value, b.value}, 2, y, &n);
    attr_int(m, n, "axis", 1);
    return y;
}

void zoo_halves(struct zoo_maker *m, const char *name, struct zoo_map x, struct zoo_map ret[static 2]) {
    int out[2] = {-1, -1};
    struct node *n = node(m, "Split", name, &x.value, 1, out, 2);

    attr_int(m, n, "axis", 1);
    for (int i = 0; i < 2; i++)
        ret[i] = n ? (struct zoo_map){out[i], x.c / 2, x.h, x.w} : nothing;
}

static struct zoo_map reshape(
    struct zoo_maker *m, const char *name, struct zoo_map x, const int64_t dim[static 4]) {
    int in[2] = {x.value};

    if (m->failed)
        return nothing;
    in[1] = whole_numbers(m, name, "shape", dim, 4);
    return one(m, "Reshape", name, in, 2, x, NULL);
}

/* [N][2 groups][c/2][h w] → [N][c/2][2 groups][h w]; 0: the size as it is */
struct zoo_map zoo_shuffle(struct zoo_maker *m, const char *name, struct zoo_map x) {
    struct node *n;

    x = reshape(m, zoo_name(m, "%s/groups", name), x, (int64_t[4]){0, 2, x.c / 2, x.h * x.w});
    x = one(m, "Transpose", zoo_name(m, "%s/deal", name), &x.value, 1, x, &n);
    attr_ints(m, n, "perm", (int64_t[]){0, 2, 1, 3}, 4);
    return reshape(m, name, x, (int64_t[4]){0, x.c, x.h, x.w});
}

struct zoo_map zoo_conv_norm(struct zoo_maker *m, const char *name, struct zoo_map x, struct zoo_conv c) {
    c.pad = c.kernel / 2;
    x = zoo_conv(m, name, x, c);
    return zoo_norm(m, zoo_name(m, "%s/norm", name), x);
}

struct zoo_map zoo_conv_norm_relu(
    struct zoo_maker *m, const char *name, struct zoo_map x, struct zoo_conv c) {
    return zoo_relu(m, zoo_name(m, "%s/relu", name), zoo_conv_norm(m, name, x, c));
}

struct zoo_map zoo_conv_norm_relu6(
    struct zoo_maker *m, const char *name, struct zoo_map x, struct zoo_conv c) {
    return zoo_relu6(m, zoo_name(m, "%s/relu", name), zoo_conv_norm(m, name, x, c));
}

struct zoo_map zoo_classifier(struct zoo_maker *m, const char *name, struct zoo_map x) {
    x = zoo_global_average(m, zoo_name(m, "%s/mean", name), x);
    x = zoo_flatten(m, zoo_name(m, "%s/flat", name), x);
    return zoo_linear(m, name, x, m->n_classes, 1);
}
