/* Raises a graph's opset. Where an operator changed between the two versions, its row of the table rewrites
 * the node into the newer form with the same meaning (ONNX Changelog); operators without a row mean the same
 * in both. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "engine/pass.h"

#define OLDEST_OPSET 7

static void drop_attr(struct node *n, const char *name) {
    for (size_t i = 0; i < n->n_attr; i++)
        if (!strcmp(n->attr[i].name, name)) {
            memmove(&n->attr[i], &n->attr[i + 1], (n->n_attr - i - 1) * sizeof(*n->attr));
            n->n_attr--;
            return;
        }
}

/* Makes room for input `index`; inputs between are left out. */
static int set_input(struct graph *g, struct node *n, int index, int value, struct error *err) {
    if (index >= n->n_in) {
        int *in = graph_alloc(g, (size_t)(index + 1) * sizeof(*in));

        if (!in)
            return error_oom(err);
        for (int i = 0; i <= index; i++)
            in[i] = i < n->n_in ? n->in[i] : -1;
        n->in = in;
        n->n_in = index + 1;
    }
    n->in[index] = value;
    return 0;
}

static int add_const(
    struct graph *g, const struct node *n, const char *what, const struct tensor *t, struct error *err) {
    char base[256];
    const char *name;
    int id;

    snprintf(base, sizeof(base), "%.200s_%s", n->id ? n->id : n->op_type, what);
    name = graph_unique_name(g, base);
    id = name ? graph_add_init(g, name, t, /* data_lives= */ false) : -ENOMEM;
    return id < 0 ? error_oom(err) : id;
}

/* Attribute `name` (ints) becomes the int64 vector input `index`; absent stays absent. */
static int ints_to_input(struct graph *g, struct node *n, const char *name, int index, struct error *err) {
    const struct attr *a = node_attr(n, name);
    struct tensor t = {.dtype = DT_S64, .shape = {.rank = 1}};
    _cleanup_(freep) int64_t *copy = NULL;
    int id;

    if (!a || a->type != ATTR_INTS)
        return 0;
    t.shape.dim[0] = (int64_t)a->n;
    copy = calloc(a->n + 1, sizeof(*copy));
    if (!copy)
        return error_oom(err);
    if (a->n)
        memcpy(copy, a->ints, a->n * sizeof(*copy));
    t.data = copy;
    id = add_const(g, n, name, &t, err);
    if (id < 0)
        return id;
    drop_attr(n, name);
    return set_input(g, n, index, id, err);
}

static int float_to_input(struct graph *g, struct node *n, const char *name, int index, struct error *err) {
    const struct attr *a = node_attr(n, name);
    float v = a && a->type == ATTR_FLOAT ? a->f : 0;
    struct tensor t = {.dtype = DT_F32, .data = &v};
    int id;

    if (!a)
        return 0;
    id = add_const(g, n, name, &t, err);
    if (id < 0)
        return id;
    drop_attr(n, name);
    return set_input(g, n, index, id, err);
}

static int raise_clip(struct graph *g, struct node *n, struct error *err) {
    int r = float_to_input(g, n, "min", 1, err);

    return r < 0 ? r : float_to_input(g, n, "max", 2, err);
}

static int raise_pad(struct graph *g, struct node *n, struct error *err) {
    int r = ints_to_input(g, n, "pads", 1, err);

    return r < 0 ? r : float_to_input(g, n, "value", 2, err);
}

static int raise_slice(struct graph *g, struct node *n, struct error *err) {
    int r = ints_to_input(g, n, "starts", 1, err);

    if (r == 0)
        r = ints_to_input(g, n, "ends", 2, err);
    return r < 0 ? r : ints_to_input(g, n, "axes", 3, err);
}

static int raise_axes(struct graph *g, struct node *n, struct error *err) {
    return ints_to_input(g, n, "axes", 1, err);
}

static int raise_split(struct graph *g, struct node *n, struct error *err) {
    return ints_to_input(g, n, "split", 1, err);
}

/* Before 13 the input is flattened to 2D at `axis` (default 1); afterwards one dimension is normalised
 * (default -1). */
static int raise_softmax(struct graph *g, struct node *n, struct error *err) {
    const struct shape *s = &g->values[n->in[0]].shape;
    int64_t axis = node_attr_int(n, "axis", 1);

    if (s->rank < 1)
        return error_code(err, -EBADMSG, "method_not_applicable",
            "node '%s': the rank of its input is not known, so opset %d "
            "cannot be raised",
            n->id, (int)g->opset);
    axis = axis < 0 ? axis + s->rank : axis;
    for (int i = (int)axis + 1; i < s->rank; i++)
        if (s->dim[i] != 1)
            return error_code(err, -EBADMSG, "method_not_applicable",
                "node '%s': it normalises several dimensions at once, which opset 13 cannot say", n->id);
    return graph_set_attr_int(g, n, "axis", axis);
}

/* Opset 10 knows no roi and means asymmetric coordinates with rounding down. */
static int raise_resize(struct graph *g, struct node *n, struct error *err) {
    int scales = n->n_in > 1 ? n->in[1] : -1, r;
    struct tensor none = {.dtype = DT_F32, .shape = {.rank = 1}};
    int roi = add_const(g, n, "roi", &none, err);

    if (roi < 0)
        return roi;
    r = set_input(g, n, 1, roi, err);
    if (r == 0)
        r = set_input(g, n, 2, scales, err);
    if (r == 0)
        r = graph_set_attr_string(g, n, "coordinate_transformation_mode", "asymmetric");
    return r < 0 ? r : graph_set_attr_string(g, n, "nearest_mode", "floor");
}

static int raise_upsample(struct graph *g, struct node *n, struct error *err) {
    const struct attr *a = node_attr(n, "scales");

    if (a && a->type == ATTR_FLOATS) {
        struct tensor t = {.dtype = DT_F32, .shape = {.rank = 1, .dim = {(int64_t)a->n}}};
        _cleanup_(freep) float *copy = calloc(a->n + 1, sizeof(*copy));
        int id, r;

        if (!copy)
            return error_oom(err);
        memcpy(copy, a->floats, a->n * sizeof(*copy));
        t.data = copy;
        id = add_const(g, n, "scales", &t, err);
        if (id < 0)
            return id;
        drop_attr(n, "scales");
        r = set_input(g, n, 1, id, err);
        if (r < 0)
            return r;
    }
    n->op_type = "Resize";
    return raise_resize(g, n, err);
}

/* sorted by name */
static const struct raise {
    const char *op_type;
    int since; /* the version that changed it */
    int (*run)(struct graph *g, struct node *n, struct error *err);
} raises[] = {
    {"Clip", 11, raise_clip},
    {"LogSoftmax", 13, raise_softmax},
    {"Pad", 11, raise_pad},
    {"ReduceSum", 13, raise_axes},
    {"Resize", 11, raise_resize},
    {"Slice", 10, raise_slice},
    {"Softmax", 13, raise_softmax},
    {"Split", 13, raise_split},
    {"Squeeze", 13, raise_axes},
    {"Unsqueeze", 13, raise_axes},
    {"Upsample", 10, raise_upsample},
};

int pass_raise_opset(struct graph *g, int64_t opset, struct error *err) {
    if (g->opset >= opset)
        return 0;
    if (g->opset < OLDEST_OPSET)
        return error_code(err, -EBADMSG, "method_not_applicable",
            "the model's opset %d is too old to be raised to %d", (int)g->opset, (int)opset);
    for (size_t i = 0; i < g->n_nodes; i++)
        for (size_t k = 0; k < sizeof(raises) / sizeof(raises[0]); k++) {
            struct node *n = &g->nodes[i];
            int r;

            if (strcmp(n->op_type, raises[k].op_type) || g->opset >= raises[k].since ||
                opset < raises[k].since)
                continue;
            r = raises[k].run(g, n, err);
            if (r < 0)
                return r;
            break;
        }
    g->opset = opset;
    if (g->ir_version < 7)
        g->ir_version = 7; /* opset 13 came with IR 7 */
    if (opset >= 21 && g->ir_version < 10)
        g->ir_version = 10; /* and opset 21, whose types have 4 bits, with IR 10 */
    return graph_finish(g, err);
}
