#include "engine/shape_infer.h"

#include <errno.h>
#include <string.h>

#include "engine/ops.h"

/* Values up to this size are computed when all they need is known: shapes, indices, small tables. */
#define MAX_CONSTANT_BYTES ((size_t)64 << 10)

void shapes_done(struct shapes *s) {
    for (size_t i = 0; i < s->n_blocks; i++)
        free(s->blocks[i]);
    free(s->blocks);
    free(s->is_counted);
    free(s->value);
    *s = (struct shapes){0};
}

static void *shapes_alloc(struct shapes *s, size_t size) {
    void *p;

    if (s->n_blocks == s->cap_blocks) {
        size_t cap = s->cap_blocks ? s->cap_blocks * 2 : 16;
        void **more = reallocarray(s->blocks, cap, sizeof(*more));

        if (!more)
            return NULL;
        s->blocks = more;
        s->cap_blocks = cap;
    }
    p = aligned_alloc(64, (size + 64) & ~(size_t)63);
    if (p)
        s->blocks[s->n_blocks++] = p;
    return p;
}

/* One node's view of the values. */
struct at_node {
    const struct graph *g;
    const struct node *n;
    struct shapes *s;
    const struct tensor **in; /* n_in */
    struct tensor *out;       /* n_out */
};

static bool is_sane(const struct shape *s) {
    int64_t n;

    return shape_count(s, &n) && n <= SHAPE_MAX_COUNT;
}

static int check_outputs(const struct at_node *a, struct error *err) {
    for (int k = 0; k < a->n->n_out; k++) {
        char text[SHAPE_TEXT_MAX];

        if (a->n->out[k] >= 0 && (!is_sane(&a->out[k].shape) || !dtype_info(a->out[k].dtype)))
            return error_code(err, -EBADMSG, "invalid_model", "output %d of shape %s is too large", k,
                shape_text(&a->out[k].shape, text));
    }
    return 0;
}

static bool reads_counted(const struct at_node *a) {
    for (int k = 0; k < a->n->n_in; k++)
        if (a->n->in[k] >= 0 && a->s->is_counted[a->n->in[k]])
            return true;
    return false;
}

/* Small, and made of known values only? */
static bool can_compute(const struct at_node *a) {
    if (!a->n->op->forward || reads_counted(a))
        return false;
    for (int k = 0; k < a->n->n_out; k++) {
        size_t size;

        if (!shape_bytes(&a->out[k].shape, a->out[k].dtype, &size) || size > MAX_CONSTANT_BYTES)
            return false;
    }
    for (int k = 0; k < a->n->n_in && !a->n->op->reads_shape_only; k++) {
        size_t size;

        if (!a->in[k])
            continue;
        if (!a->in[k]->data || !shape_bytes(&a->in[k]->shape, a->in[k]->dtype, &size) ||
            size > MAX_CONSTANT_BYTES)
            return false;
    }
    return true;
}

/* forward wants its inputs aligned to 64; the file's are not. */
static int align_inputs(const struct at_node *a) {
    for (int k = 0; k < a->n->n_in && !a->n->op->reads_shape_only; k++) {
        struct tensor *t = a->in[k] ? &a->s->value[a->n->in[k]] : NULL;
        size_t size;
        void *copy;

        if (!t || (uintptr_t)t->data % 64 == 0 || !shape_bytes(&t->shape, t->dtype, &size))
            continue;
        copy = shapes_alloc(a->s, size);
        if (!copy)
            return -ENOMEM;
        memcpy(copy, t->data, size);
        t->data = copy;
    }
    return 0;
}

static int compute(const struct at_node *a) {
    const struct op *op = a->n->op;
    _cleanup_(freep) void *scratch = NULL;
    size_t size;

    if (align_inputs(a) < 0)
        return -ENOMEM;
    for (int k = 0; k < a->n->n_out; k++) {
        if (!shape_bytes(&a->out[k].shape, a->out[k].dtype, &size))
            return -EINVAL;
        a->out[k].data = shapes_alloc(a->s, size);
        if (!a->out[k].data)
            return -ENOMEM;
    }
    size = op->scratch ? op->scratch(a->n, a->in, a->out) : 0;
    if (size) {
        scratch = aligned_alloc(64, (size + 63) & ~(size_t)63);
        if (!scratch)
            return -ENOMEM;
    }
    op->forward(a->n, a->in, a->out, scratch);
    return 0;
}

static int infer_node(const struct at_node *a, struct error *err) {
    const struct node *n = a->n;
    bool is_known, is_counted = n->op->is_counted || reads_counted(a);
    int r;

    for (int k = 0; k < n->n_in; k++)
        a->in[k] = n->in[k] < 0 ? NULL : &a->s->value[n->in[k]];
    for (int k = 0; k < n->n_out; k++)
        a->out[k] = (struct tensor){.shape.rank = -1};
    r = n->op->shape(n, a->in, a->out, err);
    if (r == -EAGAIN && err && !err->err)
        error_code(err, -EBADMSG, "invalid_model", "the shape of its output depends on data");
    if (r == 0)
        r = check_outputs(a, err);
    if (r < 0)
        return error_prefix(err, r == -EAGAIN ? -EBADMSG : r, "node '%.100s'", graph_node_label(a->g, n));
    is_known = can_compute(a);
    if (is_known && compute(a) < 0)
        return error_oom(err);
    for (int k = 0; k < n->n_out; k++) {
        if (n->out[k] < 0)
            continue;
        a->s->value[n->out[k]] = a->out[k];
        a->s->is_counted[n->out[k]] = is_counted && !is_known;
    }
    return 0;
}

static int check_input(const struct value *v, const struct shape *s, struct error *err) {
    char have[SHAPE_TEXT_MAX], want[SHAPE_TEXT_MAX];
    bool fits = v->shape.rank < 0 || v->shape.rank == s->rank;

    for (int i = 0; fits && v->shape.rank > 0 && i < s->rank; i++)
        fits = v->shape.dim[i] < 0 || v->shape.dim[i] == s->dim[i];
    if (fits && is_sane(s))
        return 0;
    return error_code(err, -EINVAL, "shape_mismatch", "input '%.100s': shape %s does not fit the declared %s",
        v->name, shape_text(s, have), shape_text(&v->shape, want));
}

static int start_values(
    const struct graph *g, const struct shape *inputs, struct shapes *s, struct error *err) {
    for (size_t i = 0; i < g->n_values; i++) {
        s->value[i].shape.rank = -1;
        if (g->values[i].init)
            s->value[i] = *g->values[i].init;
    }
    for (size_t i = 0; i < g->n_inputs; i++) {
        const struct value *v = &g->values[g->inputs[i]];
        int r = check_input(v, &inputs[i], err);

        if (r < 0)
            return r;
        s->value[g->inputs[i]] = (struct tensor){.dtype = v->dtype, .shape = inputs[i]};
    }
    return 0;
}

int shapes_infer(const struct graph *g, const struct shape *inputs, struct shapes *ret, struct error *err) {
    _cleanup_(shapes_done) struct shapes s = {.n = g->n_values};
    _cleanup_(freep) const struct tensor **in = NULL;
    _cleanup_(freep) struct tensor *out = NULL;
    int max_in = 1, max_out = 1, r;

    for (size_t i = 0; i < g->n_nodes; i++) {
        max_in = g->nodes[i].n_in > max_in ? g->nodes[i].n_in : max_in;
        max_out = g->nodes[i].n_out > max_out ? g->nodes[i].n_out : max_out;
    }
    s.value = calloc(g->n_values + 1, sizeof(*s.value));
    s.is_counted = calloc(g->n_values + 1, sizeof(*s.is_counted));
    in = calloc((size_t)max_in, sizeof(*in));
    out = calloc((size_t)max_out, sizeof(*out));
    if (!s.value || !s.is_counted || !in || !out)
        return error_oom(err);
    r = start_values(g, inputs, &s, err);
    for (size_t i = 0; r == 0 && i < g->n_nodes; i++) {
        struct at_node a = {.g = g, .n = &g->nodes[i], .s = &s, .in = in, .out = out};

        r = infer_node(&a, err);
    }
    if (r < 0)
        return r;
    *ret = s;
    s = (struct shapes){0};
    return 0;
}

void shapes_sample(const struct graph *g, int64_t batch, int64_t side, struct shape *ret) {
    for (size_t i = 0; i < g->n_inputs; i++) {
        const struct value *v = &g->values[g->inputs[i]];

        ret[i] = v->shape;
        if (ret[i].rank < 0)
            ret[i].rank = 0;
        for (int d = 0; d < ret[i].rank; d++)
            if (ret[i].dim[d] < 0)
                ret[i].dim[d] = d == 0 ? batch : d >= 2 ? side : 1;
    }
}

bool shapes_guess(const struct graph *g, struct shapes *ret) {
    _cleanup_(freep) struct shape *inputs = calloc(g->n_inputs + 1, sizeof(*inputs));
    struct error ignored = {0};

    *ret = (struct shapes){0};
    if (!inputs)
        return false;
    shapes_sample(g, 2, 224, inputs);
    return shapes_infer(g, inputs, ret, &ignored) == 0;
}
