#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "engine/kernel/kernel.h"
#include "engine/pool.h"
#include "tests/bench/kernel_bench.h"

/* A net being built; the first failure stays. */
struct builder {
    struct graph *g;
    int status, n;
    uint32_t seed;
};

static int check(struct builder *b, int r) {
    if (r < 0 && b->status == 0)
        b->status = r;
    return r < 0 ? 0 : r;
}

static float next_random(struct builder *b) {
    b->seed = b->seed * 1664525u + 1013904223u;
    return (float)(b->seed >> 8) / 8388608.0f - 1;
}

static int constant(struct builder *b, enum dtype t, const struct shape *s, const void *data) {
    struct tensor x = {.dtype = t, .shape = *s, .data = (void *)(uintptr_t)data};

    return check(b, graph_add_init(b->g, graph_unique_name(b->g, "c"), &x, false));
}

static int scalar_f32(struct builder *b, float v) {
    return constant(b, DT_F32, &(struct shape){.rank = 0}, &v);
}

static int scalar_u8(struct builder *b, uint8_t v) {
    return constant(b, DT_U8, &(struct shape){.rank = 0}, &v);
}

/* Returns the output; *ret_node, if not NULL, is the node for attributes. */
static int node(struct builder *b, const char *op, const int *in, int n_in, struct node **ret_node) {
    int out =
        check(b, graph_add_value(b->g, graph_unique_name(b->g, "v"), DT_NONE, &(struct shape){.rank = -1}));
    int at =
        check(b, graph_insert_node(b->g, b->g->n_nodes, op, graph_unique_name(b->g, op), in, n_in, &out, 1));

    if (ret_node)
        *ret_node = &b->g->nodes[at];
    return out;
}

static int quantize(struct builder *b, int x) {
    const int scale = scalar_f32(b, 1.0f / 64), zero = scalar_u8(b, 128);
    const int q = node(b, "QuantizeLinear", (const int[]){x, scale, zero}, 3, NULL);

    return node(b, "DequantizeLinear", (const int[]){q, scale, zero}, 3, NULL);
}

/* +1 and -1, as a network of signs has it (the operator Sign makes 0 of 0). */
static int sign(struct builder *b, int x) {
    const int is_one = node(b, "GreaterOrEqual", (const int[]){x, scalar_f32(b, 0)}, 2, NULL);

    return node(b, "Where", (const int[]){is_one, scalar_f32(b, 1), scalar_f32(b, -1)}, 3, NULL);
}

/* One number of a weight's alphabet in [-1, 1). */
static float draw(struct builder *b, int levels) {
    float f = next_random(b);

    if (levels == 2)
        return f < 0 ? -1 : 1;
    return levels ? floorf((f + 1) / 2 * (float)levels) * 2 / (float)levels - 1 + 1 / (float)levels : f;
}

/* W[oc][inputs][taps]; zeros come in blocks of `block` neighbouring inputs of one output and tap. */
static float *make_weights(struct builder *b, const struct contender *c, int64_t oc, int64_t inputs,
    int64_t taps, double *ret_left) {
    float *w = malloc((size_t)(oc * inputs * taps) * sizeof(*w));
    int64_t block = or_one(c->block), n = 0;

    for (int64_t k = 0; w && k < oc * taps; k++)
        for (int64_t first = 0; first < inputs; first += block) {
            bool is_zero = (next_random(b) + 1) / 2 < (float)c->zeros;

            for (int64_t i = first; i < first + block && i < inputs; i++) {
                w[(k / taps * inputs + i) * taps + k % taps] = is_zero ? 0 : draw(b, c->levels);
                n += !is_zero;
            }
        }
    *ret_left = (double)n / (double)(oc * inputs * taps);
    if (!w)
        check(b, -ENOMEM);
    return w;
}

/* As int8 codes times a scale a channel. */
static int int8_weights(struct builder *b, const struct shape *s, const float *w, int64_t oc, int64_t cols) {
    int8_t *q = malloc((size_t)(oc * cols)), *zero = calloc((size_t)oc, 1);
    float *scale = malloc((size_t)oc * sizeof(*scale));
    int v = 0;

    for (int64_t i = 0; q && i < oc * cols; i++)
        q[i] = (int8_t)lrintf(w[i] * 127);
    for (int64_t i = 0; scale && i < oc; i++)
        scale[i] = 0.002f + 0.0001f * (float)(i % 7);
    if (q && zero && scale) {
        const struct shape channels = {.rank = 1, .dim = {oc}};
        const int in[] = {constant(b, DT_S8, s, q), constant(b, DT_F32, &channels, scale),
            constant(b, DT_S8, &channels, zero)};
        struct node *n;

        v = node(b, "DequantizeLinear", in, 3, &n);
        check(b, graph_set_attr_int(b->g, n, "axis", 0));
    } else {
        check(b, -ENOMEM);
    }
    free(q);
    free(zero);
    free(scale);
    return v;
}

/* Adds the layer; returns its output and takes the share of multiplications left into *ret_left. */
static int add_layer(
    struct builder *b, int x, const struct layer_shape *s, const struct contender *c, double *ret_left) {
    int64_t taps = s->kernel ? s->kernel * s->kernel : 1, cols = s->ic / or_one(s->groups) * taps;
    struct shape shape = {
        .rank = s->kernel ? 4 : 2, .dim = {s->oc, s->ic / or_one(s->groups), s->kernel, s->kernel}};
    float *w = make_weights(
              b, c, s->oc, s->ic / or_one(s->groups), or_one(s->kernel) * or_one(s->kernel), ret_left),
          *bias = calloc((size_t)s->oc, sizeof(*bias));
    struct node *n;
    int in[3], y;

    if (!w || !bias) {
        check(b, -ENOMEM);
        free(w);
        free(bias);
        return 0;
    }
    in[0] = x;
    in[1] =
        c->weights == WEIGHTS_INT8 ? int8_weights(b, &shape, w, s->oc, cols) : constant(b, DT_F32, &shape, w);
    in[2] = constant(b, DT_F32, &(struct shape){.rank = 1, .dim = {s->oc}}, bias);
    free(w);
    free(bias);
    y = node(b, s->kernel ? "Conv" : "Gemm", in, 3, &n);
    if (s->kernel) {
        const int64_t p = s->kernel / 2, pads[] = {p, p, p, p},
                      strides[] = {or_one(s->stride), or_one(s->stride)};

        check(b, graph_set_attr_ints(b->g, n, "pads", pads, 4));
        check(b, graph_set_attr_ints(b->g, n, "strides", strides, 2));
        check(b, graph_set_attr_int(b->g, n, "group", or_one(s->groups)));
    } else {
        check(b, graph_set_attr_int(b->g, n, "transB", 1));
    }
    return y;
}

static struct layer_shape low_rank_first(const struct layer_shape *s, int64_t rank) {
    struct layer_shape first = *s;

    first.oc = rank;
    return first;
}

static struct layer_shape low_rank_second(const struct layer_shape *s, int64_t rank) {
    return (struct layer_shape){rank, s->oc, s->kernel ? 1 : 0, layer_out_size(s), 1, 1, s->batch};
}

static int add_low_rank(
    struct builder *b, int x, const struct layer_shape *s, const struct contender *c, double *ret_left) {
    const struct layer_shape first = low_rank_first(s, c->rank), second = low_rank_second(s, c->rank);
    int y = add_layer(b, add_layer(b, x, &first, c, ret_left), &second, c, ret_left);

    *ret_left = (layer_macs(&first) + layer_macs(&second)) / layer_macs(s);
    return y;
}

static struct graph *build(const struct layer_shape *s, const struct contender *c, struct shape *input,
    double *ret_left, struct error *err) {
    struct builder b = {.g = graph_new(), .seed = 1};
    int x, y;

    if (!b.g) {
        error_oom(err);
        return NULL;
    }
    b.g->ir_version = 8;
    b.g->opset = 13;
    *input = (struct shape){.rank = s->kernel ? 4 : 2, .dim = {or_one(s->batch), s->ic, s->size, s->size}};
    x = check(&b, graph_add_value(b.g, "x", DT_F32, input));
    check(&b, graph_add_input(b.g, x));
    *ret_left = 1;
    if (c->weights == WEIGHTS_INT8)
        x = quantize(&b, x);
    if (c->weights == WEIGHTS_SIGN)
        x = sign(&b, x);
    y = c->weights == WEIGHTS_LOW_RANK ? add_low_rank(&b, x, s, c, ret_left)
                                       : add_layer(&b, x, s, c, ret_left);
    if (c->weights == WEIGHTS_INT8)
        y = quantize(&b, y);
    check(&b, graph_add_output(b.g, y));
    if (b.status == 0 && graph_finish(b.g, err) == 0)
        return b.g;
    if (b.status)
        error_set(err, b.status, "the layer's net cannot be built");
    graph_free(b.g);
    return NULL;
}

/* Steps that are the layer's: not conversions of layout or type. */
static bool is_layer_step(const struct plan_step *s) {
    return !strcmp(s->op, "Conv") || !strcmp(s->op, "Gemm") || !strcmp(s->op, "MatMul");
}

/* All names of the table that hold `part`, for net_options.kernels. */
static void names_with(const char *part, char *ret, size_t size) {
    size_t at = 0;

    ret[0] = 0;
    for (size_t i = 0; i < kernel_table_size; i++) {
        int n;

        if (!strstr(kernel_table[i]->name, part))
            continue;
        n = snprintf(ret + at, size - at, "%s%s", at ? "," : "", kernel_table[i]->name);
        at = n > 0 && (size_t)n < size - at ? at + (size_t)n : at;
    }
}

/* -ENOENT: another kernel than was asked for runs the layer. */
static int find_kernel(struct entry *e, const struct contender *c, struct error *err) {
    for (size_t i = 0; i < plan_n_steps(e->plan); i++) {
        struct plan_step s;

        plan_get_step(e->plan, i, &s);
        if (!is_layer_step(&s))
            continue;
        if (c->kernel && !strstr(s.kernel, c->kernel))
            return error_set(err, -ENOENT, "no kernel '%s' takes the layer (%s does)", c->kernel, s.kernel);
        snprintf(e->kernel, sizeof(e->kernel), "%s", s.kernel);
        e->bytes += s.weight_bytes;
    }
    return e->kernel[0] ? 0 : error_set(err, -ENOENT, "the layer is not a step of the plan");
}

static int open_net(struct entry *e, const struct layer_shape *s, const struct contender *c, unsigned threads,
    struct error *err) {
    char names[1024];
    struct net_options o = {.policy = c->is_compact ? NET_MEMORY : NET_SPEED};
    struct shape input;
    struct graph *g;
    double left;
    int r;

    if (c->kernel) {
        names_with(c->kernel, names, sizeof(names));
        if (!names[0])
            return error_set(err, -ENOENT, "there is no kernel '%s'", c->kernel);
        o.kernels = names;
    }
    r = cpu_detect(getenv("BONSAI_HIDE_CPU"), &o.cpu, err);
    g = r < 0 ? NULL : build(s, c, &input, &left, err);
    if (!g)
        return err->err ? err->err : -ENOMEM;
    r = net_new(g, &o, &e->net, err);
    if (r == 0)
        r = net_plan(e->net, &input, threads, &e->plan, err);
    if (r == 0)
        r = find_kernel(e, c, err);
    if (r == 0)
        r = pool_new(threads, &e->pool, err);
    if (r == 0)
        r = arena_reserve(&e->arena, plan_arena_size(e->plan), err);
    if (r < 0)
        return r;
    e->macs = layer_macs(s) * left;
    e->in = (struct tensor){.dtype = DT_F32, .shape = input};
    e->out = *plan_output(e->plan, 0);
    return 0;
}

static void *random_floats(const struct shape *s) {
    struct builder b = {.seed = 7};
    int64_t n = 0;
    float *x = shape_count(s, &n) ? malloc((size_t)n * sizeof(*x)) : NULL;

    for (int64_t i = 0; x && i < n; i++)
        x[i] = next_random(&b);
    return x;
}

int entry_open(struct entry *e, const struct layer_shape *s, const struct contender *c, unsigned threads,
    struct error *err) {
    int r;

    if (c->weights == WEIGHTS_PEER) {
        r = peer_new(s, &e->peer, err);
        e->macs = layer_macs(s);
        if (r < 0)
            return r;
        e->bytes = peer_weight_bytes(e->peer);
        snprintf(e->kernel, sizeof(e->kernel), "%s", peer_name(e->peer));
        return 0;
    }
    r = open_net(e, s, c, threads, err);
    if (r < 0)
        return r;
    e->in.data = random_floats(&e->in.shape);
    e->out.data = random_floats(&e->out.shape);
    e->step_us = calloc(plan_n_steps(e->plan), sizeof(*e->step_us));
    return e->in.data && e->out.data && e->step_us ? 0 : error_oom(err);
}

void entry_close(struct entry *e) {
    peer_free(e->peer);
    plan_unref(e->plan);
    net_unref(e->net);
    pool_free(e->pool);
    arena_done(&e->arena);
    free(e->in.data);
    free(e->out.data);
    free(e->step_us);
    *e = (struct entry){0};
}

double entry_run(struct entry *e) {
    double sum = 0;

    if (e->peer) {
        double begin = clock_now_us();

        peer_run(e->peer);
        return clock_now_us() - begin;
    }
    plan_run(e->plan, &e->arena, &e->in, &e->out, e->pool, e->step_us);
    for (size_t i = 0; i < plan_n_steps(e->plan); i++) {
        struct plan_step s;

        plan_get_step(e->plan, i, &s);
        sum += is_layer_step(&s) ? (double)e->step_us[i] : 0;
    }
    return sum;
}
