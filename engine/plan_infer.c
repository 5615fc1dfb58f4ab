#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "engine/hugemem.h"
#include "engine/ops.h"
#include "engine/plan.h"

/* Constants computed at plan time may be this big, each and in all; what is over it is computed at every run:
 * a small file can ask for much. */
#define FOLD_MAX     ((size_t)64 << 20)
#define FOLD_MAX_ALL ((size_t)256 << 20)

struct owned_block {
    size_t size;
    char pad[56]; /* data begins at 64 */
};

void *plan_own(struct plan *p, size_t size) {
    struct owned_block *b;

    if (size > SIZE_MAX - sizeof(*b))
        return NULL;
    if (p->n_owned == p->owned_cap) {
        size_t cap = p->owned_cap ? 2 * p->owned_cap : 16;
        void **owned = realloc(p->owned, cap * sizeof(void *));

        if (!owned)
            return NULL;
        p->owned = owned;
        p->owned_cap = cap;
    }
    b = hugemem_new(size + sizeof(*b));
    if (!b)
        return NULL;
    b->size = size + sizeof(*b);
    p->owned[p->n_owned++] = b;
    p->owned_bytes += b->size;
    return b + 1;
}

static const char *node_label(const struct node *n) {
    return n->id && *n->id ? n->id : n->name;
}

static bool is_quantised(const struct value *v) {
    return v->quant.scale > 0;
}

/* Input `i` of the node as its operator sees it: numbers, not codes. */
static struct tensor logical_tensor(
    const struct plan *p, const struct graph *g, const struct node *n, int i) {
    int v = n->in[i];
    struct tensor t = p->values[v].tensor;

    if (n->weight && i == 1 && !weight_is_plain(n->weight)) {
        t.shape = n->weight->shape;
        t.dtype = DT_F32;
        t.data = NULL;
    } else if (is_quantised(&g->values[v]) && !n->op->sees_codes) {
        t.dtype = p->values[v].logical;
        t.data = NULL;
    }
    return t;
}

static int set_input_shapes(struct plan *p, const struct graph *g, struct error *err) {
    for (size_t i = 0; i < p->n_inputs; i++) {
        const struct value *v = &g->values[g->inputs[i]];
        struct tensor *t = &p->values[g->inputs[i]].tensor;
        const struct shape *s = &p->inputs[i];
        char want[SHAPE_TEXT_MAX], got[SHAPE_TEXT_MAX];
        bool ok =
            s->rank >= 0 && s->rank <= SHAPE_MAX_RANK && (v->shape.rank < 0 || v->shape.rank == s->rank);
        size_t bytes;

        for (int d = 0; ok && d < s->rank; d++)
            ok = s->dim[d] >= 0 && (v->shape.rank < 0 || v->shape.dim[d] < 0 || v->shape.dim[d] == s->dim[d]);
        if (!ok)
            return error_code(err, -EINVAL, "shape_mismatch", "input '%s' has shape %s, the model takes %s",
                v->name, s->rank >= 0 && s->rank <= SHAPE_MAX_RANK ? shape_text(s, got) : "?",
                v->shape.rank < 0 ? "any" : shape_text(&v->shape, want));
        if (!dtype_info(v->dtype) || !shape_bytes(s, v->dtype, &bytes))
            return error_code(err, -EINVAL, "shape_mismatch", "input '%s' is too large", v->name);
        *t = (struct tensor){.dtype = v->dtype, .shape = *s};
        p->values[g->inputs[i]].logical = is_quantised(v) ? DT_F32 : v->dtype;
    }
    return 0;
}

static void set_constants(struct plan *p, const struct graph *g) {
    for (size_t i = 0; i < g->n_values; i++) {
        p->values[i].late_node = p->values[i].count = -1;
        if (g->values[i].init) {
            p->values[i].tensor = *g->values[i].init;
            p->values[i].logical = is_quantised(&g->values[i]) ? DT_F32 : g->values[i].init->dtype;
        }
    }
}

/* An aligned copy: initialisers lie anywhere in the file. */
static int align_constant(struct plan *p, struct tensor *t, struct error *err) {
    size_t bytes;
    void *copy;

    if (!t->data || (uintptr_t)t->data % 64 == 0)
        return 0;
    if (!shape_bytes(&t->shape, t->dtype, &bytes))
        return error_set(err, -EFBIG, "a constant is too large");
    copy = plan_own(p, bytes);
    if (!copy)
        return error_oom(err);
    memcpy(copy, t->data, bytes);
    t->data = copy;
    return 0;
}

/* Is a shape among the node's inputs that only a run knows? */
static bool reads_counted(const struct plan *p, const struct node *n) {
    for (int i = 0; i < n->n_in; i++)
        if (n->in[i] >= 0 && p->values[n->in[i]].count >= 0)
            return true;
    return false;
}

static void mark_counted(struct plan *p, const struct node *n) {
    for (int i = 0; i < n->n_out; i++)
        if (n->out[i] >= 0)
            p->values[n->out[i]].count = (int)p->n_counted++;
}

/* Weights stored as codes are decoded only when a kernel cannot take the codes: such a constant is late. */
enum fold { FOLD_NO, FOLD_NOW, FOLD_LATE };

static enum fold fold_kind(
    const struct plan *p, const struct node *n, const struct tensor *const *in, size_t out_bytes) {
    bool late = n->op->sees_codes || n->is_encoding;

    if (n->n_post || reads_counted(p, n))
        return FOLD_NO;
    if (n->op->reads_shape_only)
        return FOLD_NOW;
    for (int i = 0; i < n->n_in; i++) {
        bool comes_late = in[i] && p->values[n->in[i]].late_node >= 0;

        if (in[i] && !in[i]->data && !comes_late)
            return FOLD_NO;
        late = late || comes_late;
    }
    if (late)
        return n->op->is_counted ? FOLD_NO : FOLD_LATE;
    return out_bytes > FOLD_MAX || p->owned_bytes > FOLD_MAX_ALL ? FOLD_NO : FOLD_NOW;
}

static int fold_node(
    struct plan *p, const struct node *n, struct tensor *in, struct tensor *out, struct error *err) {
    const struct tensor *in_ptr[LAYER_MAX_IO];
    void *scratch = NULL;
    size_t scratch_size;

    for (int i = 0; i < n->n_in; i++) {
        int r = n->in[i] < 0 ? 0 : align_constant(p, &in[i], err);

        if (r < 0)
            return r;
        in_ptr[i] = n->in[i] < 0 ? NULL : &in[i];
    }
    for (int i = 0; i < n->n_out; i++) {
        size_t bytes;

        if (!shape_bytes(&out[i].shape, out[i].dtype, &bytes))
            return error_set(err, -EFBIG, "the result is too large");
        out[i].data = plan_own(p, bytes);
        if (!out[i].data)
            return error_oom(err);
    }
    scratch_size = n->op->scratch ? n->op->scratch(n, in_ptr, out) : 0;
    if (scratch_size) {
        scratch = hugemem_new(scratch_size);
        if (!scratch)
            return error_oom(err);
    }
    n->op->forward(n, in_ptr, out, scratch);
    hugemem_free(scratch, scratch_size);
    return 0;
}

static int set_output(struct plan *p, const struct graph *g, const struct node *n, int i,
    const struct tensor *out, size_t *bytes, struct error *err) {
    int v = n->out[i];
    struct plan_value *pv = &p->values[v];
    size_t size;

    pv->tensor = *out;
    pv->tensor.layout = LAYOUT_PLAIN;
    pv->logical = out->dtype;
    if (is_quantised(&g->values[v])) {
        pv->logical = DT_F32;
        pv->tensor.dtype = g->values[v].dtype;
    }
    /* oneDNN is only trusted below 2^31 elements, so nothing bigger is planned */
    if (!shape_bytes(&out->shape, pv->tensor.dtype, &size) || size > (size_t)INT32_MAX * 4)
        return error_code(err, -EINVAL, "shape_mismatch", "value '%s' would be too large", g->values[v].name);
    *bytes += size;
    return 0;
}

static int compute_late(struct plan *p, const struct node *n, struct error *err) {
    struct tensor in[LAYER_MAX_IO], out[LAYER_MAX_IO];
    int r;

    for (int i = 0; i < n->n_in; i++) {
        if (n->in[i] >= 0)
            in[i] = p->values[n->in[i]].tensor;
    }
    for (int i = 0; i < n->n_out; i++)
        out[i] = n->out[i] >= 0 ? p->values[n->out[i]].tensor : (struct tensor){.dtype = DT_U8};
    r = fold_node(p, n, in, out, err);
    for (int i = 0; r == 0 && i < n->n_out; i++) {
        if (n->out[i] >= 0)
            p->values[n->out[i]].tensor.data = out[i].data;
    }
    return r;
}

static bool is_late(const struct plan *p, int v) {
    return v >= 0 && !p->values[v].tensor.data && p->values[v].late_node >= 0;
}

/* Finds what is needed walking back from the value's node, then computes it walking forward: chains in a file
 * may be long, so there is no recursion. */
int plan_materialise(struct plan *p, const struct graph *g, int v, struct error *err) {
    _cleanup_(freep) bool *wanted = NULL;
    int last = p->values[v].late_node, first = last, r = 0;

    if (!is_late(p, v))
        return 0;
    wanted = calloc((size_t)last + 1, sizeof(*wanted));
    if (!wanted)
        return error_oom(err);
    wanted[last] = true;
    for (int k = last; k >= 0; k--) {
        const struct node *n = &g->nodes[k];

        for (int i = 0; wanted[k] && i < n->n_in; i++) {
            if (is_late(p, n->in[i]))
                wanted[p->values[n->in[i]].late_node] = true;
        }
        first = wanted[k] ? k : first;
    }
    for (int k = first; r == 0 && k <= last; k++) {
        if (wanted[k])
            r = compute_late(p, &g->nodes[k], err);
    }
    return r;
}

/* What is known of the node's outputs besides their shapes: the data, or who computes them when asked, or
 * that a run has shapes of its own. */
static int settle(struct plan *p, const struct node *n, struct tensor *in, struct tensor *out, enum fold fold,
    int index, struct error *err) {
    int r;

    for (int i = 0; fold == FOLD_LATE && i < n->n_out; i++) {
        if (n->out[i] >= 0)
            p->values[n->out[i]].late_node = index;
    }
    if (fold == FOLD_NO && (n->op->is_counted || reads_counted(p, n)))
        mark_counted(p, n);
    if (fold != FOLD_NOW)
        return 0;
    r = fold_node(p, n, in, out, err);
    for (int i = 0; r == 0 && i < n->n_out; i++) {
        if (n->out[i] < 0)
            continue;
        p->values[n->out[i]].tensor.data = out[i].data;
        p->values[n->out[i]].tensor.shape = out[i].shape;
    }
    return r;
}

static int infer_node(struct plan *p, const struct graph *g, size_t index, struct error *err) {
    struct tensor in[LAYER_MAX_IO], out[LAYER_MAX_IO] = {0};
    const struct tensor *in_ptr[LAYER_MAX_IO];
    const struct node *n = &g->nodes[index];
    bool quantised = false;
    size_t bytes = 0;
    int r;

    if (n->n_in > LAYER_MAX_IO || n->n_out > LAYER_MAX_IO)
        return error_code(err, -EINVAL, "invalid_model", "more than %d inputs or outputs", LAYER_MAX_IO);
    for (int i = 0; i < n->n_in; i++) {
        in_ptr[i] = NULL;
        if (n->in[i] < 0)
            continue;
        in[i] = logical_tensor(p, g, n, i);
        in_ptr[i] = &in[i];
        quantised = quantised || is_quantised(&g->values[n->in[i]]);
    }
    r = n->op->shape(n, in_ptr, out, err);
    if (r == -EAGAIN)
        return error_code(
            err, -EINVAL, "invalid_model", "its shape depends on values only known at run time");
    if (r < 0)
        return r;
    for (int i = 0; i < n->n_out; i++) {
        if (n->out[i] < 0)
            continue;
        r = set_output(p, g, n, i, &out[i], &bytes, err);
        if (r < 0)
            return r;
        quantised = quantised || is_quantised(&g->values[n->out[i]]);
    }
    return settle(p, n, in, out, quantised ? FOLD_NO : fold_kind(p, n, in_ptr, bytes), (int)index, err);
}

bool plan_is_counted(const struct plan *p, const struct node *n) {
    for (int i = 0; i < n->n_out; i++)
        if (n->out[i] >= 0 && p->values[n->out[i]].count >= 0)
            return true;
    return false;
}

bool plan_is_constant(const struct plan *p, int v) {
    return p->values[v].tensor.data || p->values[v].late_node >= 0;
}

/* Values some output depends on and that are not constant. */
static void mark_needed(struct plan *p, const struct graph *g) {
    for (size_t i = 0; i < g->n_outputs; i++)
        p->values[g->outputs[i]].is_needed = true;
    for (size_t k = g->n_nodes; k-- > 0;) {
        const struct node *n = &g->nodes[k];
        bool needed = false;

        for (int i = 0; i < n->n_out; i++)
            needed = needed ||
                     (n->out[i] >= 0 && p->values[n->out[i]].is_needed && !plan_is_constant(p, n->out[i]));
        for (int i = 0; needed && i < n->n_in; i++) {
            if (n->in[i] >= 0)
                p->values[n->in[i]].is_needed = true;
        }
        for (int i = 0; needed && i < n->n_post; i++) {
            if (n->post[i].other >= 0)
                p->values[n->post[i].other].is_needed = true;
        }
    }
}

int plan_infer(struct plan *p, const struct plan_env *env, struct error *err) {
    const struct graph *g = env->graph;
    int r;

    set_constants(p, g);
    r = set_input_shapes(p, g, err);
    if (r < 0)
        return r;
    for (size_t i = 0; i < g->n_nodes; i++) {
        const struct node *n = &g->nodes[i];

        r = infer_node(p, g, i, err);
        if (r < 0)
            return error_prefix(err, r, "node '%s' (%s)", node_label(n), n->op_type);
    }
    mark_needed(p, g);
    return 0;
}
