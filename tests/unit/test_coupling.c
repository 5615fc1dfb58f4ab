/* Channels that are tied, one kind of coupling a case; and channels taken out: what is left computes what the
 * network with these channels set to zero does, in small nets, in every network of the zoo and in the models
 * at hand (BONSAI_MODELS: more files, names separated by blanks). */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "compress/chance.h"
#include "compress/coupling.h"
#include "compress/prune_remove.h"
#include "compress/session.h"
#include "compress/zoo.h"
#include "engine/onnx.h"
#include "engine/pass.h"
#include "tests/unit/cmocka_all.h"
#include "tests/unit/model_file.h"
#include "tests/unit/net_text.h"

static struct graph *make(const char *text) {
    return net_text_read(text).graph;
}

static void find(const struct graph *g, bool trusts_computed, struct coupling *c) {
    struct error err = {0};

    if (coupling_find(g, trusts_computed, c, &err) < 0)
        fail_msg("%s", err.text);
}

/* ---- a network with channels set to zero ---- */

static void zero_site(struct graph *g, const struct coupling_site *s, const bool *goes) {
    struct node *n = &g->nodes[s->node];
    struct tensor t = *g->values[n->in[s->input]].init;
    int64_t count, inner = 1;
    float *data;

    assert_true(shape_count(&t.shape, &count));
    assert_int_equal(t.dtype, DT_F32);
    assert_int_equal(t.shape.dim[s->axis], s->n);
    data = graph_alloc(g, (size_t)count * sizeof(*data) + 1);
    memcpy(data, t.data, (size_t)count * sizeof(*data));
    t.data = data;
    for (int d = s->axis + 1; d < t.shape.rank; d++)
        inner *= t.shape.dim[d];
    for (int64_t i = 0; i < count; i++)
        if (goes[s->channel[i / inner % s->n]])
            data[i] = 0;
    n->in[s->input] = graph_add_init(g, graph_unique_name(g, "masked"), &t, true);
    assert_true(n->in[s->input] >= 0);
}

/* Rows, biases and norms of what goes are zero; `columns`: also what reads it. */
static void mask(struct graph *g, const struct coupling *c, const bool *goes, bool columns) {
    struct error err = {0};

    for (size_t i = 0; i < c->n_sites; i++) {
        const char *op = g->nodes[c->site[i].node].op_type;

        if ((c->site[i].role == COUPLING_COLUMN && !columns) || !strcmp(op, "Div") || !strcmp(op, "Pow"))
            continue;
        zero_site(g, &c->site[i], goes);
    }
    assert_int_equal(graph_finish(g, &err), 0);
}

/* ---- what a network computes ---- */

struct result {
    size_t n;
    struct tensor *out;
};

static void result_done(struct result *r) {
    for (size_t i = 0; i < r->n; i++)
        free(r->out[i].data);
    free(r->out);
}

/* At the sample; the graph stays the caller's. */
static struct result run(const struct graph *g, const struct shape *sample) {
    _cleanup_(session_done) struct session s = {0};
    struct tensor in[4] = {0};
    struct graph *copy = NULL;
    struct error err = {0};
    struct result r = {0};

    assert_int_equal(graph_clone(g, &copy, &err), 0);
    if (session_open_graph(copy, &s, &err) < 0 || session_plan(&s, sample, g->n_inputs, &err) < 0)
        fail_msg("%s", err.text);
    for (size_t i = 0; i < g->n_inputs; i++) {
        int64_t n;

        in[i] = (struct tensor){.dtype = DT_F32, .shape = sample[i]};
        assert_true(shape_count(&sample[i], &n));
        in[i].data = alloc_aligned((size_t)n * sizeof(float));
        net_text_fill(in[i].data, n, 5 + (uint32_t)i);
    }
    session_run(&s, in);
    r = (struct result){s.n_out, calloc(s.n_out, sizeof(*r.out))};
    for (size_t i = 0; i < s.n_out; i++) {
        size_t size;

        assert_true(shape_bytes(&s.out[i].shape, s.out[i].dtype, &size));
        r.out[i] = s.out[i];
        r.out[i].data = malloc(size + 1);
        memcpy(r.out[i].data, s.out[i].data, size);
    }
    for (size_t i = 0; i < g->n_inputs; i++)
        free(in[i].data);
    return r;
}

/* Largest difference relative to the largest output. */
static double difference(const struct result *a, const struct result *b) {
    double worst = 0, largest = 1e-30;

    assert_int_equal(a->n, b->n);
    for (size_t i = 0; i < a->n; i++) {
        const float *x = a->out[i].data, *y = b->out[i].data;
        int64_t n;

        assert_true(shape_equal(&a->out[i].shape, &b->out[i].shape));
        assert_true(shape_count(&a->out[i].shape, &n));
        for (int64_t k = 0; a->out[i].dtype == DT_F32 && k < n; k++) {
            assert_true(isfinite(x[k]) && isfinite(y[k]));
            worst = fmax(worst, fabs((double)x[k] - (double)y[k]));
            largest = fmax(largest, fabs((double)x[k]));
        }
    }
    return worst / largest;
}

/* About `share` of the channels that may go, and of no value all. */
static int draw(const struct coupling *c, double share, uint64_t seed, bool *goes) {
    int n = 0;

    for (int i = 0; i < c->n; i++)
        goes[i] = !c->reason[i] && chance_unit(chance_key(seed, 0, (uint64_t)i), 0) < share;
    for (size_t v = 0; v < c->n_values; v++) {
        const struct coupling_value *x = &c->value[v];

        if (x->n > 0 && prune_count_kept(x->channel, x->n, goes) == 0)
            goes[x->channel[0]] = false;
    }
    for (size_t s = 0; s < c->n_sites; s++)
        if (prune_count_kept(c->site[s].channel, c->site[s].n, goes) == 0)
            goes[c->site[s].channel[0]] = false;
    for (int i = 0; i < c->n; i++)
        n += goes[i];
    return n;
}

/* Takes `goes` out and compares. Returns whether the network could be followed (computed shapes). */
static bool check_removal(const struct graph *g, const struct coupling *c, const bool *goes, bool columns,
    double within, const char *what) {
    struct graph *masked = NULL, *pruned = NULL;
    struct result want, got;
    struct error err = {0};
    int r;

    assert_int_equal(graph_clone(g, &pruned, &err), 0);
    r = prune_remove(pruned, c, goes, &err);
    if (r == -ESTALE) {
        graph_free(pruned);
        return false;
    }
    if (r < 0)
        fail_msg("%s: %s", what, err.text);
    assert_int_equal(graph_clone(g, &masked, &err), 0);
    mask(masked, c, goes, columns);
    want = run(masked, c->sample);
    got = run(pruned, c->sample);
    if (difference(&want, &got) > within)
        fail_msg("%s: pruned and masked differ by %g", what, difference(&want, &got));
    result_done(&want);
    result_done(&got);
    graph_free(masked);
    graph_free(pruned);
    return true;
}

static int check_net(
    const struct graph *g, double share, uint64_t seed, bool columns, double within, const char *what) {
    _cleanup_(coupling_done) struct coupling c = {0};
    _cleanup_(freep) bool *goes = NULL;
    int n = 0;

    for (int trusts = 1; trusts >= 0; trusts--) {
        coupling_done(&c);
        free(goes);
        find(g, trusts, &c);
        goes = calloc((size_t)c.n + 1, sizeof(*goes));
        n = draw(&c, share, seed, goes);
        if (check_removal(g, &c, goes, columns, within, what))
            break;
        if (!trusts)
            fail_msg("%s: it cannot be followed", what);
    }
    return n;
}

/* ---- one kind of coupling a case ---- */

static const struct {
    const char *what, *net;
    int free, kept;   /* channels that may go, and must stay */
    const char *tied; /* "0.3=1.3": channel 3 of y0 is channel 3 of y1; "0.3!1.3": it is not */
} cases[] = {
    {"a chain", "Conv x=2x3x6x6 w=8x3x3x3 b=8; Relu $; Conv $ w2=5x8x3x3; GlobalAveragePool $", 8, 5,
        "0.3=1.3 0.3!2.3"},
    {"residual addition",
        "Conv x=2x3x6x6 w=8x3x3x3 b=8 pads=1,1,1,1; Relu $; Conv $ w2=8x8x3x3 b2=8 pads=1,1,1,1; Add $ y1; "
        "Relu $; Conv $ w5=4x8x1x1",
        8, 4, "0.3=2.3 2.5=3.5 0.3!0.4"},
    {"concatenation",
        "Conv x=2x3x6x6 w=5x3x1x1 b=5; Conv x w1=4x3x1x1; Concat y0 y1 axis=1; Conv $ w3=3x9x3x3", 9, 3,
        "0.2=2.2 1.2=2.7"},
    {"concatenation beside an addition",
        "Conv x=2x3x6x6 w=5x3x1x1 b=5; Conv x w1=4x3x1x1; Concat y0 y1 axis=1; Conv x w3=9x3x1x1; Add $ y2; "
        "Conv $ w5=3x9x3x3",
        9, 3, "0.2=3.2 1.2=3.7"},
    {"depthwise convolution",
        "Conv x=2x3x6x6 w=8x3x1x1 b=8; Conv $ w1=8x1x3x3 b1=8 group=8; Relu $; Conv $ w3=3x8x1x1", 8, 3,
        "0.3=1.3"},
    {"depthwise convolution with two outputs a channel",
        "Conv x=2x3x6x6 w=4x3x1x1 b=4; Conv $ w1=8x1x3x3 b1=8 group=4; Relu $; Conv $ w3=3x8x1x1", 4, 3,
        "0.3=1.6 0.3=1.7"},
    {"one channel in is no depthwise convolution",
        "Conv x=2x3x6x6 w=1x3x1x1; Conv $ w1=6x1x3x3; Relu $; Conv $ w3=3x6x1x1", 7, 3, "0.0!1.0 1.0!1.1"},
    {"grouped convolution",
        "Conv x=2x3x6x6 w=8x3x1x1 b=8; Conv $ w1=12x4x3x3 b1=12 group=2; Relu $; Conv $ w3=3x12x1x1", 10, 3,
        "0.1=0.5 1.2=1.8 0.1!1.1"},
    {"squeeze and excitation",
        "Conv x=2x3x6x6 w=8x3x1x1 b=8; GlobalAveragePool $; Conv $ w2=4x8x1x1 b2=4; Relu $; "
        "Conv $ w4=8x4x1x1 b4=8; HardSigmoid $; Mul $ y0; Conv $ w7=3x8x1x1",
        12, 3, "0.3=4.3 0.3!2.3"},
    {"attention over pixels",
        "Conv x=2x3x6x6 w=8x3x1x1 b=8; Conv x w1=1x3x1x1; Sigmoid $; Mul y0 $; Conv $ w4=3x8x1x1", 8, 4,
        "0.3=3.3"},
    {"channel shuffle",
        "Conv x=2x3x4x4 w=8x3x1x1 b=8; Reshape $ s:2,2,4,4,4i; Transpose $ perm=0,2,1,3,4; "
        "Reshape $ s3:2,8,4,4i; Conv $ w4=3x8x1x1",
        4, 3, "0.1=0.5 0.1=3.2 0.5=3.3"},
    {"split in halves", "Conv x=2x3x4x4 w=8x3x1x1 b=8; Split $ s:4,4i axis=1 >2; Conv y1 w2=3x4x1x1", 8, 3,
        "0.2=1.2"},
    {"slice", "Conv x=2x3x4x4 w=8x3x1x1 b=8; Slice $ a:2,0i e:7,9i c:1,2i; Conv $ w2=3x5x1x1", 8, 3,
        "0.2=1.0 0.6=1.4"},
    {"flatten into a fully connected layer",
        "Conv x=2x3x4x4 w=6x3x1x1 b=6; Relu $; Flatten $; Gemm $ w3=96x5 b3=5; Relu $; Gemm $ w5=4x5 transB=1",
        11, 4, "0.1=2.16 0.1=2.31 0.1!2.32 3.1!0.1"},
    {"reshape into a fully connected layer",
        "Conv x=2x3x4x4 w=6x3x1x1 b=6; Reshape $ s:2,96i; MatMul $ w2=96x5; Add $ b3=5; Gemm $ w4=5x4", 11, 4,
        "0.1=1.16 2.1=3.1"},
    {"features and channels again", "Gemm x=2x7 w=7x24 b=24; Reshape $ s:2,6,2,2i; Conv $ w2=3x6x1x1", 0, 27,
        "0.4!0.5"},
    {"transposed convolution",
        "Conv x=2x3x4x4 w=6x3x1x1 b=6; ConvTranspose $ w1=6x5x2x2 b1=5 strides=2,2; Relu $; Conv $ w3=3x5x1x1",
        11, 3, "0.1!1.1 1.2=2.2"},
    {"grouped transposed convolution",
        "Conv x=2x3x4x4 w=6x3x1x1 b=6; ConvTranspose $ w1=6x2x2x2 b1=4 strides=2,2 group=2; Relu $; "
        "Conv $ w3=3x4x1x1",
        5, 3, "0.1=0.4 1.0=1.2"},
    {"batch norm, slopes and constants",
        "Conv x=2x3x4x4 w=6x3x1x1 b=6; BatchNormalization $ g=6 h=6 m=6 pv=6; PRelu $ s=6x1x1; Mul $ t=1x6x1x1; "
        "Add $ u=6x1x1; Conv $ w5=3x6x1x1",
        6, 3, "0.1=4.1"},
    {"pad, resize and pools",
        "Conv x=2x3x8x8 w=6x3x1x1 b=6; Pad $ p:0,0,1,1,0,0,1,1i; MaxPool $ kernel_shape=2,2; "
        "AveragePool $ kernel_shape=2,2; Conv $ w4=3x6x1x1",
        6, 3, "0.1=3.1"},
    {"channels padded for a residual addition",
        "Conv x=2x3x8x8 w=4x3x1x1 b=4; Pad $ p:0,2,0,0,0,2,0,0i; Conv x w2=8x3x1x1 b2=8; Add $ y1; "
        "Conv $ w4=3x8x1x1",
        8, 3, "0.1=2.3 1.2=2.2"},
    {"hard-swish spelled out",
        "Conv x=2x3x4x4 w=6x3x1x1 b=6; Add $ a:3; Clip $ m:0 s:6; Mul $ y0; Div $ c:6; Conv $ w5=3x6x1x1", 6,
        3, "0.1=4.1"},
    {"means over pixels",
        "Conv x=2x3x4x4 w=6x3x1x1 b=6; ReduceMean $ axes=2,3 keepdims=0; Gemm $ w2=6x4 b2=4", 6, 4,
        "0.1=1.1"},
    {"outputs stay", "Conv x=2x3x4x4 w=6x3x1x1 b=6; Relu $", 0, 6, "0.1=1.1"},
    {"softmax over channels stays", "Conv x=2x3x4x4 w=6x3x1x1; Softmax $ axis=1; Conv $ w2=3x6x1x1", 0, 9,
        "0.1!0.2"},
    {"local response norm stays", "Conv x=2x3x4x4 w=6x3x1x1; LRN $ size=3; Conv $ w2=3x6x1x1", 0, 9,
        "0.1!0.2"},
};

static int channel_of(const struct graph *g, const struct coupling *c, int y, int i, const char *what) {
    char name[16];
    int v;

    snprintf(name, sizeof(name), "y%d", y);
    v = graph_find_value(g, name);
    if (v < 0 || c->value[v].n <= i)
        fail_msg("%s: channel %d of %s is not followed", what, i, name);
    return c->value[v].channel[i];
}

static void check_tied(const struct graph *g, const struct coupling *c, const char *tied, const char *what) {
    int a, b, x, y, size;
    char sign;

    for (; sscanf(tied, " %d.%d%c%d.%d%n", &a, &x, &sign, &b, &y, &size) == 5; tied += size)
        if ((channel_of(g, c, a, x, what) == channel_of(g, c, b, y, what)) != (sign == '='))
            fail_msg("%s: %d.%d%c%d.%d does not hold", what, a, x, sign, b, y);
}

static void test_each_coupling_is_found(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct graph *g = make(cases[i].net);
        struct coupling c;
        int n_free = 0;

        find(g, false, &c);
        for (int k = 0; k < c.n; k++)
            n_free += !c.reason[k];
        check_tied(g, &c, cases[i].tied, cases[i].what);
        if (n_free != cases[i].free || c.n - n_free != cases[i].kept)
            fail_msg("%s: %d channels may go and %d stay, not %d and %d", cases[i].what, n_free, c.n - n_free,
                cases[i].free, cases[i].kept);
        coupling_done(&c);
        graph_free(g);
    }
}

static void test_what_is_left_computes_what_the_masked_net_does(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        for (int share = 1; share < 4; share++) {
            struct graph *g = make(cases[i].net);
            int n = check_net(g, share * 0.25, 5 + (uint64_t)share, false, 1e-5, cases[i].what);

            if (n == 0 && cases[i].free > 3 && share > 1)
                fail_msg("%s: nothing was taken out", cases[i].what);
            graph_free(g);
        }
}

/* ---- whole networks ---- */

/* Drawn weights leave dead nets now and then: what is compared must be alive. */
static void test_every_net_of_the_zoo_is_pruned_as_masked(void **state) {
    (void)state;
    for (size_t i = 0; i < zoo_table_size; i++) {
        struct zoo_spec spec = {
            .width = 1, .depth = 1, .channels = 3, .height = 32, .width_px = 32, .n_classes = 7, .seed = 2};
        struct graph *g = NULL;
        struct error err = {0};

        spec.channels = strncmp(zoo_table[i]->name, "lenet", 5) ? 3 : 1;
        spec.height = spec.width_px = spec.channels == 1 ? 28 : 32;
        if (zoo_new(zoo_table[i], &spec, &g, &err) < 0)
            fail_msg("%s: %s", zoo_table[i]->name, err.text);
        if (check_net(g, 0.4, 11, false, 1e-4, zoo_table[i]->name) < 20)
            fail_msg("%s: hardly a channel may go", zoo_table[i]->name);
        graph_free(g);
    }
}

static void check_file(const char *path) {
    struct error err = {0};
    struct graph *g = NULL;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    int n;

    if (fd < 0 || onnx_read_fd(fd, &g, &err) < 0 || pass_fold_constants(g, &err) < 0 ||
        pass_remove_identities(g, &err) < 0)
        fail_msg("%s: %s", path, err.text);
    close(fd);
    n = check_net(g, 0.4, 11, true, 1e-4, path);
    if (getenv("BONSAI_MODELS"))
        printf("%s: %d channels less\n", path, n);
    graph_free(g);
}

static void test_models_are_pruned_as_masked(void **state) {
    static const char *const files[] = {"conv_pad_bn", "gemm_arithmetic", "mnist-8", "pool_pad", "qdq",
        "shape_subgraph", "shared_identity", "transposed_bn"};
    const char *more = getenv("BONSAI_MODELS");
    char path[1024];
    int size;

    (void)state;
    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        snprintf(path, sizeof(path), "%s/models/%s.onnx", TEST_DATA, files[i]);
        check_file(path);
    }
    for (; more && sscanf(more, " %1000s%n", path, &size) == 1; more += size)
        check_file(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_coupling_is_found),
        cmocka_unit_test(test_what_is_left_computes_what_the_masked_net_does),
        cmocka_unit_test(test_every_net_of_the_zoo_is_pruned_as_masked),
        cmocka_unit_test(test_models_are_pruned_as_masked),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
