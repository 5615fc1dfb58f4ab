#include "tests/unit/net_text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/cmocka_all.h"

struct reader_state {
    struct net_text *t;
    int last; /* output of the node before */
    uint32_t seed;
};

void net_text_fill(float *x, int64_t n, uint32_t seed) {
    for (int64_t i = 0; i < n; i++) {
        uint64_t z = ((uint64_t)seed << 32 | (uint64_t)i) * 0x9e3779b97f4a7c15u;

        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
        z = (z ^ z >> 27) * 0x94d049bb133111ebu;
        x[i] = (float)(z >> 40) / 8388608.0f - 1;
    }
}

static struct shape read_shape(const char *s) {
    struct shape shape = {0};

    while (*s) {
        char *end;

        shape.dim[shape.rank++] = strtoll(s, &end, 10);
        s = *end == 'x' ? end + 1 : end;
        assert_true(*end == 'x' || *end == 0);
    }
    return shape;
}

static bool is_shape(const char *s) {
    return strspn(s, "0123456789x") == strlen(s) && *s;
}

/* Numbers in [-1, 1) made into what the constant's name says, in place. */
static enum dtype shape_numbers(char kind, float *x, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        float f = x[i];

        if (kind == 'p')
            x[i] = 0.004f + 0.003f * f;
        if (kind == 'h')
            x[i] = f < 0 ? -0.5f : 0.5f;
        if (kind == 'q')
            ((int8_t *)x)[i] = (int8_t)(127 * f);
        if (kind == 'r')
            ((int32_t *)(void *)x)[i] = (int32_t)(3000 * f);
        if (kind == 'z')
            x[i] = f > 0.8f ? f - 0.9f : 0;
    }
    return kind == 'q' ? DT_S8 : kind == 'r' ? DT_S32 : DT_F32;
}

static int random_constant(struct reader_state *r, const char *name, const struct shape *shape) {
    struct graph *g = r->t->graph;
    struct tensor t = {.shape = *shape};
    int64_t n;

    assert_true(shape_count(shape, &n));
    t.data = calloc((size_t)n + 1, sizeof(float));
    assert_non_null(t.data);
    net_text_fill(t.data, n, ++r->seed);
    t.dtype = shape_numbers(name[0], t.data, n);
    int v = graph_add_init(g, graph_unique_name(g, name), &t, false);

    free(t.data);
    return v;
}

static int scalar_constant(struct reader_state *r, const char *name, const char *value) {
    struct graph *g = r->t->graph;
    char kind = value[strlen(value) - 1];
    struct tensor t = {.dtype = kind == 'i' ? DT_S64 : kind == 'u' ? DT_U8 : kind == 'b' ? DT_S8 : DT_F32};
    float f = strtof(value, NULL);
    int64_t i = strtoll(value, NULL, 10);
    uint8_t u = (uint8_t)i;

    t.data = kind == 'i' ? (void *)&i : kind == 'u' || kind == 'b' ? (void *)&u : (void *)&f;
    return graph_add_init(g, graph_unique_name(g, name), &t, false);
}

static int input_value(struct reader_state *r, const char *name, const struct shape *shape) {
    struct graph *g = r->t->graph;
    int v = graph_add_value(g, name, DT_F32, shape);

    assert_true(v >= 0 && r->t->n_inputs < NET_TEXT_MAX_INPUTS);
    assert_int_equal(graph_add_input(g, v), 0);
    r->t->input[r->t->n_inputs++] = *shape;
    return v;
}

static int vector_constant(struct reader_state *r, const char *name, const char *values) {
    struct graph *g = r->t->graph;
    bool is_int = values[strlen(values) - 1] == 'i';
    float f[8];
    int64_t i[8];
    struct tensor t = {.dtype = is_int ? DT_S64 : DT_F32, .shape = {.rank = 1}};

    t.data = is_int ? (void *)i : (void *)f;
    for (const char *s = values; *s && *s != 'i';) {
        char *end;

        assert_true(t.shape.dim[0] < 8);
        i[t.shape.dim[0]] = strtoll(s, NULL, 10);
        f[t.shape.dim[0]++] = strtof(s, &end);
        s = *end == ',' ? end + 1 : end;
    }
    return graph_add_init(g, graph_unique_name(g, name), &t, false);
}

/* A word that is an input of the node: its value, -1: left out; -2: it is an attribute. */
static int read_input(struct reader_state *r, char *word) {
    char *eq = strchr(word, '='), *colon = strchr(word, ':');
    struct shape shape;

    if (strcmp(word, "$") == 0)
        return r->last;
    if (strcmp(word, "_") == 0)
        return -1;
    if (*word == '.')
        return -2;
    if (colon) {
        *colon = 0;
        if (strchr(colon + 1, ','))
            return vector_constant(r, word, colon + 1);
        return scalar_constant(r, word, colon + 1);
    }
    if (!eq) {
        int v = graph_find_value(r->t->graph, word);

        assert_true(v >= 0);
        return v;
    }
    if (!is_shape(eq + 1) || eq - word > 2) /* names of tensors have one or two letters */
        return -2;
    *eq = 0;
    shape = read_shape(eq + 1);
    return word[0] == 'x' ? input_value(r, word, &shape) : random_constant(r, word, &shape);
}

static void read_attribute(struct reader_state *r, int node, char *word) {
    struct node *n = &r->t->graph->nodes[node];
    char *eq = strchr(word, '=');
    int64_t ints[8];
    size_t count = 0;

    assert_non_null(eq);
    word += *word == '.';
    *eq++ = 0;
    if (strchr(eq, '.')) {
        graph_set_attr_float(r->t->graph, n, word, strtof(eq, NULL));
        return;
    }
    if (!strchr(eq, ',') && strspn(eq, "-0123456789") == strlen(eq)) {
        graph_set_attr_int(r->t->graph, n, word, atoll(eq));
        return;
    }
    if (strspn(eq, "-0123456789,") != strlen(eq)) {
        graph_set_attr_string(r->t->graph, n, word, eq);
        return;
    }
    while (*eq) {
        char *end;

        ints[count++] = strtoll(eq, &end, 10);
        eq = *end == ',' ? end + 1 : end;
    }
    graph_set_attr_ints(r->t->graph, n, word, ints, count);
}

static void read_node(struct reader_state *r, char *text) {
    struct graph *g = r->t->graph;
    int in[16], n_in = 0, out[8], n_out = 1, node, n_words = 0;
    char *words[16], *save = NULL, name[32];
    const char *op = strtok_r(text, " ", &save);

    for (char *w; (w = strtok_r(NULL, " ", &save));) {
        assert_true(n_in < 16 && n_words < 16);
        int v = *w == '>' ? -2 : read_input(r, w);

        if (*w == '>')
            n_out = (int)strtol(w + 1, NULL, 10);
        else if (v == -2)
            words[n_words++] = w;
        else
            in[n_in++] = v;
    }
    assert_true(n_out >= 1 && n_out <= 8);
    snprintf(name, sizeof(name), "y%zu", g->n_nodes);
    for (int i = 0; i < n_out; i++) {
        out[i] = graph_add_value(g, graph_unique_name(g, name), DT_NONE, &(struct shape){.rank = -1});
        assert_true(out[i] >= 0);
    }
    node = graph_insert_node(g, g->n_nodes, op, name, in, n_in, out, n_out);
    assert_true(node >= 0);
    for (int i = 0; i < n_words; i++)
        read_attribute(r, node, words[i]);
    r->last = out[0];
}

struct net_text net_text_read(const char *text) {
    struct net_text t = {.graph = graph_new()};
    struct reader_state r = {.t = &t, .seed = 1};
    char *copy = strdup(text), *save = NULL;
    struct error err = {0};
    long long opset = 13;

    assert_non_null(t.graph);
    assert_non_null(copy);
    if (sscanf(copy, "opset %lld", &opset) == 1)
        (void)strtok_r(copy, ";", &save);
    t.graph->opset = opset;
    t.graph->ir_version = 8;
    for (char *node = strtok_r(save ? NULL : copy, ";", &save); node; node = strtok_r(NULL, ";", &save))
        read_node(&r, node);
    free(copy);
    assert_int_equal(graph_add_output(t.graph, r.last), 0);
    if (graph_finish(t.graph, &err) < 0)
        fail_msg("%s: %s", text, err.text);
    return t;
}
