/* Finding and writing the nodes that weight forms are made of. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "engine/constant.h"
#include "engine/weight_rows.h"

const struct node *weight_producer(const struct graph *g, int v, const char *op_type) {
    const struct node *n = v < 0 || g->values[v].producer < 0 ? NULL : &g->nodes[g->values[v].producer];

    if (!n || n->n_out != 1 || strcmp(n->op_type, op_type) != 0)
        return NULL;
    return !*n->domain || strcmp(n->domain, "ai.onnx") == 0 ? n : NULL;
}

const struct tensor *weight_input(const struct graph *g, const struct node *n, int i) {
    const struct tensor *t = i < n->n_in ? constant_of(g, n->in[i]) : NULL;

    return t && t->layout == LAYOUT_PLAIN ? t : NULL;
}

bool weight_resolve(struct shape *s, int64_t count) {
    int64_t known = 1;
    int free_dim = -1;

    for (int i = 0; i < s->rank; i++) {
        if (s->dim[i] == -1 && free_dim < 0)
            free_dim = i;
        else if (s->dim[i] < 1 || __builtin_mul_overflow(known, s->dim[i], &known))
            return false;
    }
    if (free_dim >= 0 && count % known == 0)
        s->dim[free_dim] = count / known;
    return shape_count(s, &known) && known == count;
}

int weight_match_reshape(const struct graph *g, int v, struct shape *ret) {
    const struct node *n = weight_producer(g, v, "Reshape");

    if (!n || n->n_in != 2)
        return -1;
    ret->rank = constant_ints(g, n->in[1], ret->dim, SHAPE_MAX_RANK);
    return ret->rank < 0 ? -1 : n->in[0];
}

int weight_match_cast(const struct graph *g, int v, enum dtype *ret_to) {
    const struct node *n = weight_producer(g, v, "Cast");

    *ret_to = n ? (enum dtype)node_attr_int(n, "to", 0) : DT_NONE;
    v = n ? n->in[0] : v;
    return constant_of(g, v) && constant_of(g, v)->layout == LAYOUT_PLAIN ? v : -1;
}

bool weight_is_zeros(const struct tensor *t) {
    const uint8_t *p = t->data;
    size_t size;

    if (!shape_bytes(&t->shape, t->dtype, &size))
        return false;
    for (size_t i = 0; i < size; i++)
        if (p[i])
            return false;
    return true;
}

bool weight_match_zeros(const struct graph *g, int v, struct shape *ret) {
    const struct node *n = weight_producer(g, v, "ConstantOfShape");
    const struct attr *a = n ? node_attr(n, "value") : NULL;
    const struct tensor *t = constant_of(g, v);
    int64_t count;

    if (t && weight_is_zeros(t)) {
        *ret = t->shape;
        return true;
    }
    if (!n || (a && (a->type != ATTR_TENSOR || !a->t->data || !weight_is_zeros(a->t))))
        return false;
    ret->rank = constant_ints(g, n->in[0], ret->dim, SHAPE_MAX_RANK);
    return ret->rank >= 0 && shape_count(ret, &count);
}

static const char *name_of(struct weight_writer *to, const char *suffix) {
    char text[512];

    snprintf(text, sizeof(text), "%.400s_%s", to->name, suffix);
    return graph_unique_name(to->g, text);
}

int weight_write_init(struct weight_writer *to, const char *suffix, const struct tensor *t) {
    const char *unique = name_of(to, suffix);

    return unique ? graph_add_init(to->g, unique, t, /* data_lives= */ false) : -ENOMEM;
}

int weight_write_ints(struct weight_writer *to, const char *suffix, const int64_t *v, int n) {
    int64_t copy[SHAPE_MAX_RANK];
    struct tensor t = {.dtype = DT_S64, .shape = {.rank = 1, .dim = {n}}, .data = copy};

    memcpy(copy, v, (size_t)n * sizeof(*v));
    return weight_write_init(to, suffix, &t);
}

int weight_write_node(struct weight_writer *to, const char *op_type, const char *suffix, const int *in,
    int n_in, enum dtype dtype, const struct shape *shape) {
    const char *unique = name_of(to, suffix);
    int out, node;

    for (int i = 0; i < n_in; i++)
        if (in[i] < -1)
            return in[i]; /* an earlier step failed */
    out = unique ? graph_add_value(to->g, unique, dtype, shape) : -ENOMEM;
    if (out < 0)
        return out;
    node = graph_insert_node(to->g, to->before, op_type, unique, in, n_in, &out, 1);
    if (node < 0)
        return node;
    to->before++;
    return out;
}

static struct node *last_node(struct weight_writer *to) {
    return &to->g->nodes[to->before - 1];
}

int weight_write_attr(struct weight_writer *to, const char *name, int64_t v) {
    return graph_set_attr_int(to->g, last_node(to), name, v);
}

int weight_write_attr_ints(struct weight_writer *to, const char *name, const int64_t *v, size_t n) {
    return graph_set_attr_ints(to->g, last_node(to), name, v, n);
}

int weight_write_cast(
    struct weight_writer *to, const char *suffix, int value, enum dtype t, const struct shape *s) {
    int v = weight_write_node(to, "Cast", suffix, &value, 1, t, s);
    int r = v < 0 ? v : weight_write_attr(to, "to", t);

    return r < 0 ? r : v;
}

int weight_write_reshape(
    struct weight_writer *to, const char *suffix, int value, enum dtype t, const struct shape *s) {
    char text[64];
    int in[2] = {value, -ENOMEM};

    snprintf(text, sizeof(text), "%s_shape", suffix);
    in[1] = weight_write_ints(to, text, s->dim, s->rank);
    return weight_write_node(to, "Reshape", suffix, in, 2, t, s);
}

int weight_write_zeros(struct weight_writer *to, const char *suffix, enum dtype t, const struct shape *s) {
    char text[64];
    static const uint64_t zero;
    struct shape one = {.rank = 1, .dim = {1}};
    struct tensor value = tensor_view(t, &one, &zero);
    int shape, v, r;

    snprintf(text, sizeof(text), "%s_shape", suffix);
    shape = weight_write_ints(to, text, s->dim, s->rank);
    v = weight_write_node(to, "ConstantOfShape", suffix, &shape, 1, t, s);
    r = v < 0 ? v : graph_set_attr_tensor(to->g, last_node(to), "value", &value);
    return r < 0 ? r : v;
}
