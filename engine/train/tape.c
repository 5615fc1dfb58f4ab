#include "engine/train/tape.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "engine/hugemem.h"

/* The value the loss sees: the first output, before a Softmax at its end unless it was asked for. */
static int find_logits(const struct graph *g, const struct trainer_options *o) {
    int v = g->outputs[0];
    const struct node *n = g->values[v].producer >= 0 ? &g->nodes[g->values[v].producer] : NULL;

    if (!o->tap && n && (!strcmp(n->op_type, "Softmax") || !strcmp(n->op_type, "LogSoftmax")))
        v = n->in[0];
    return v;
}

/* Nodes that the logits need, and that are not constant. */
static void mark_needed(const struct tape *t, int v, bool *is_needed) {
    const struct graph *g = t->graph;

    is_needed[g->values[v].producer] = true;
    for (int i = g->values[v].producer; i >= 0; i--) { /* in topological order: from behind is enough */
        const struct node *n = &g->nodes[i];

        for (int k = 0; is_needed[i] && k < n->n_in; k++) {
            int from = n->in[k] >= 0 && !t->value[n->in[k]].t.data ? g->values[n->in[k]].producer : -1;

            if (from >= 0)
                is_needed[from] = true;
        }
    }
}

static int take_shapes(struct tape *t, const struct shape *item, int64_t lane_batch, struct error *err) {
    const struct graph *g = t->graph;
    struct shape input = *item;
    int r;

    input.dim[0] = lane_batch;
    r = shapes_infer(g, &input, &t->shapes, err);
    if (r < 0)
        return r;
    t->n_values = g->n_values;
    t->value = calloc(g->n_values + 1, sizeof(*t->value));
    if (!t->value)
        return error_oom(err);
    for (size_t i = 0; i < g->n_values; i++) {
        t->value[i].t = t->shapes.value[i];
        t->value[i].t.layout = t->value[i].t.shape.rank >= 3 ? LAYOUT_NHWC : LAYOUT_PLAIN;
        t->value[i].param = t->value[i].producer = -1;
        t->value[i].span = t->value[i].d_span = (struct tape_span){.first = -1, .last = -1, .shares = -1};
    }
    return 0;
}

/* Parameters are the initialisers in the places that the operator's row names; each once, however often it is
 * used. */
static int add_param(struct tape *t, int v, bool is_stat, bool decays, struct error *err) {
    const struct tensor *init = t->graph->values[v].init;
    struct train_param *p;
    int64_t n;

    if (t->value[v].param >= 0 || !init || init->dtype != DT_F32 || !shape_count(&init->shape, &n) || n < 1)
        return 0;
    p = reallocarray(t->param, t->n_params + 1, sizeof(*p));
    if (!p)
        return error_oom(err);
    t->param = p;
    p = &t->param[t->n_params];
    *p = (struct train_param){
        .name = t->graph->values[v].name, .value = v, .n = n, .is_stat = is_stat, .decays = decays};
    p->data = hugemem_new((size_t)n * sizeof(float));
    if (!p->data)
        return error_oom(err);
    memcpy(p->data, init->data, (size_t)n * sizeof(float));
    t->value[v].param = (int)t->n_params++;
    t->value[v].t.data = p->data;
    t->value[v].t.layout = LAYOUT_PLAIN;
    t->value[v].wants = !is_stat;
    return 0;
}

static bool is_frozen(const struct trainer_options *o, int v) {
    for (size_t i = 0; i < o->n_frozen; i++)
        if (o->frozen[i] == v)
            return true;
    return false;
}

static int find_params(
    struct tape *t, const struct trainer_options *o, const bool *is_needed, struct error *err) {
    for (size_t i = 0; i < t->graph->n_nodes; i++) {
        const struct node *n = &t->graph->nodes[i];

        for (int k = 0; is_needed[i] && k < n->n_in && k < 32; k++) {
            bool is_stat = n->op->stats & 1u << k;
            int r = 0;

            if (n->in[k] >= 0 && (is_stat || n->op->params & 1u << k) && !is_frozen(o, n->in[k]))
                r = add_param(t, n->in[k], is_stat, n->op->couple == OP_COUPLE_FREE && k == 1, err);
            if (r < 0)
                return r;
        }
    }
    if (!t->n_params)
        return error_code(err, -EBADMSG, "invalid_model", "the network has no parameters to learn");
    return 0;
}

static void place_gradient(struct tape *t, size_t i) {
    t->param_at[i] = t->n_block;
    t->n_block += (t->param[i].n + 15) / 16 * 16;
}

/* What is moved comes first. Weights that a transform replaces have a gradient, which only it reads. */
static int place_gradients(struct tape *t, struct error *err) {
    t->param_at = calloc(t->n_params, sizeof(*t->param_at));
    if (!t->param_at)
        return error_oom(err);
    for (size_t i = 0; i < t->n_params; i++)
        if (!t->param[i].is_stat)
            place_gradient(t, i);
    t->n_grad = t->n_block;
    for (size_t i = 0; i < t->n_params; i++)
        if (t->param[i].is_stat && t->value[t->param[i].value].wants)
            place_gradient(t, i);
    return 0;
}

/* ---- steps ---- */

/* Frozen statistics are what the node normalises by. */
static bool learns_stats(const struct tape_step *s, const bool *is_param) {
    for (int i = 0; i < s->n_in && i < 32; i++)
        if (s->node->op->stats & 1u << i && !is_param[i])
            return false;
    return true;
}

static void fill_layer(const struct tape *t, const struct trainer_options *o, const struct tape_step *s,
    const struct tensor **in, struct tensor *out, bool *is_param, struct train_layer *ret) {
    for (int i = 0; i < s->n_in; i++) {
        in[i] = s->in[i] < 0 ? NULL : &t->value[s->in[i]].t;
        is_param[i] = s->in[i] >= 0 && t->value[s->in[i]].param >= 0;
    }
    for (int i = 0; i < s->n_out; i++)
        out[i] = s->out[i] < 0 ? (struct tensor){0} : t->value[s->out[i]].t;
    *ret = (struct train_layer){.graph = t->graph,
        .node = s->node,
        .n_in = s->n_in,
        .n_out = s->n_out,
        .in = in,
        .out = out,
        .wants = s->wants,
        .is_param = is_param,
        .uses_batch_stats = o->uses_batch_stats && learns_stats(s, is_param),
        .momentum = o->momentum > 0 ? o->momentum : 0.9f,
        .n_lanes = o->lanes,
        .cpu = &t->cpu,
        .reference = o->reference,
        .onednn = t->onednn};
}

/* A gradient is wanted of what depends on a parameter. */
static bool decide_wants(struct tape *t, struct tape_step *s) {
    bool any = false;

    for (int i = 0; i < s->n_in; i++) {
        s->wants[i] = s->in[i] >= 0 && t->value[s->in[i]].wants && !(s->node->op->stats & 1u << (i & 31));
        any |= s->wants[i];
    }
    return any;
}

/* What the step reads and writes: the node's, then what its tail adds. */
static int step_new(
    const struct node *n, const struct tape_tail *tail, const struct graph *g, struct tape_step *ret) {
    *ret = (struct tape_step){.node = n, .n_in = n->n_in + (tail->other >= 0), .n_out = n->n_out};
    ret->in = calloc((size_t)(ret->n_in + ret->n_out) + 1, sizeof(*ret->in));
    ret->wants = calloc(2 * (size_t)ret->n_in + 1, sizeof(bool));
    if (!ret->in || !ret->wants)
        return -ENOMEM;
    ret->adds = ret->wants + ret->n_in;
    ret->out = ret->in + ret->n_in;
    for (int i = 0; i < n->n_in; i++)
        ret->in[i] = n->in[i];
    for (int i = 0; i < n->n_out; i++)
        ret->out[i] = n->out[i];
    if (tail->other >= 0)
        ret->in[n->n_in] = tail->other;
    if (tail->head >= 0)
        ret->out[0] = g->nodes[tail->last].out[0];
    return 0;
}

static void step_done(struct tape_step *s) {
    if (s->state)
        s->kernel->done(s->state);
    if (s->shared)
        hugemem_free(s->shared, s->needs.shared);
    free(s->in);
    free(s->wants);
}

/* Node i, or the nodes that are done in one step and of which it is the last. */
static int add_step(struct tape *t, const struct trainer_options *o, const struct node *n,
    const struct tape_tail *tail, struct error *err) {
    struct tape_step *s = &t->step[t->n_steps];
    const struct tensor *in[TRAIN_MAX_IO];
    struct tensor out[TRAIN_MAX_IO];
    bool is_param[TRAIN_MAX_IO], any;
    struct train_layer l;
    int r;

    if (n->n_in >= TRAIN_MAX_IO || n->n_out > TRAIN_MAX_IO)
        return error_code(err, -EOPNOTSUPP, "unsupported_operator",
            "node '%s' has %d inputs or more, or more outputs", n->id, TRAIN_MAX_IO);
    t->n_steps++; /* tape_done() frees it from here on */
    if (step_new(n, tail, t->graph, s) < 0)
        return error_oom(err);
    any = decide_wants(t, s);
    fill_layer(t, o, s, in, out, is_param, &l);
    l.tail = (struct train_tail){tail->other >= 0 ? n->n_in : -1, tail->low, tail->high};
    r = train_kernel_pick(&l, &s->kernel, &s->state, &s->needs, err);
    if (r < 0)
        return error_prefix(err, r, "node '%s'", n->id);
    for (int i = 0; i < s->n_out; i++) {
        if (s->out[i] < 0)
            continue;
        t->value[s->out[i]].is_lane = true;
        t->value[s->out[i]].wants = any;
        t->value[s->out[i]].producer = t->n_steps - 1;
    }
    s->shared = s->needs.shared ? hugemem_new(s->needs.shared) : NULL;
    return s->needs.shared && !s->shared ? error_oom(err) : 0;
}

static int add_steps(struct tape *t, const struct trainer_options *o, bool *is_needed, struct error *err) {
    static const struct tape_tail no_tail = {.head = -1, .other = -1, .low = -HUGE_VALF, .high = HUGE_VALF};
    _cleanup_(freep) struct tape_tail *tail = NULL;
    int r = o->reference ? 0 : tape_find_tails(t, is_needed, &tail, err);

    if (r == 0 && tail && o->bf16)
        r = tape_choose_types(t, is_needed, tail, err);
    if (r < 0)
        return r;
    t->step = calloc(t->graph->n_nodes + 1, sizeof(*t->step));
    if (!t->step)
        return error_oom(err);
    t->value[t->input].is_lane = true;
    for (size_t i = 0; i < t->graph->n_nodes; i++) {
        const struct tape_tail *own = tail && tail[i].head >= 0 ? &tail[i] : &no_tail;

        if (own->head >= 0)
            r = add_step(t, o, &t->graph->nodes[own->head], own, err);
        else if (is_needed[i])
            r = add_step(t, o, &t->graph->nodes[i], own, err);
        if (r < 0)
            return r;
    }
    if (!t->value[t->logits].wants)
        return error_code(err, -EBADMSG, "invalid_model", "no parameter lies before the output");
    return 0;
}

/* Who writes a gradient first and who adds to it; what no gradient comes back to is not run backward. */
static int write_program(struct tape *t, struct error *err) {
    _cleanup_(freep) bool *has_gradient = calloc(t->n_values + 1, sizeof(bool));
    size_t cap = 1;

    for (int i = 0; i < t->n_steps; i++)
        cap += (size_t)(t->step[i].kernel->n_forward + t->step[i].kernel->n_backward);
    t->program = calloc(cap, sizeof(*t->program));
    if (!t->program || !has_gradient)
        return error_oom(err);
    for (int i = 0; i < t->n_steps; i++)
        for (int phase = 0; phase < t->step[i].kernel->n_forward; phase++)
            t->program[t->n_items++] = (struct tape_item){TAPE_FORWARD, i, phase, phase > 0};
    t->program[t->n_items++] = (struct tape_item){.pass = TAPE_LOSS, .step = t->n_steps};
    has_gradient[t->logits] = true;
    for (int i = t->n_steps - 1; i >= 0; i--) {
        struct tape_step *s = &t->step[i];
        bool comes_back = false;

        for (int k = 0; k < s->n_out; k++)
            comes_back |= s->out[k] >= 0 && has_gradient[s->out[k]];
        for (int k = 0; k < s->n_in; k++) {
            s->wants[k] &= comes_back;
            if (!s->wants[k])
                continue;
            s->adds[k] = has_gradient[s->in[k]];
            has_gradient[s->in[k]] = true;
        }
        for (int phase = 0; comes_back && phase < s->kernel->n_backward; phase++)
            t->program[t->n_items++] = (struct tape_item){TAPE_BACKWARD, i, phase, phase > 0};
    }
    return 0;
}

static int check_graph(const struct graph *g, const struct shape *item, struct error *err) {
    if (g->n_inputs != 1 || g->n_outputs < 1)
        return error_code(err, -EBADMSG, "invalid_model",
            "only networks with one input can be trained, this one has %zu", g->n_inputs);
    if (g->values[g->inputs[0]].dtype != DT_F32)
        return error_code(err, -EBADMSG, "invalid_model", "only networks with a float input can be trained");
    if (item->rank < 2 || item->dim[0] != 1)
        return error_code(err, -EBADMSG, "shape_mismatch", "a sample has no batch dimension of 1");
    return 0;
}

/* [N][K], or that with dimensions of 1 behind it; of a tap, whatever begins with the batch. */
static int check_logits(const struct tensor *t, int64_t lane_batch, bool is_tap, struct error *err) {
    bool is_ok = t->dtype == DT_F32 && t->shape.rank >= 2 && t->shape.dim[0] == lane_batch;
    char text[SHAPE_TEXT_MAX];

    for (int i = 2; i < t->shape.rank && !is_tap; i++)
        is_ok = is_ok && t->shape.dim[i] == 1;
    if (is_ok)
        return 0;
    return error_code(err, -EBADMSG, "not_a_classifier",
        "the output of %lld samples is %s, not one row of scores for each", (long long)lane_batch,
        shape_text(&t->shape, text));
}

int tape_build(const struct graph *g, const struct shape *item, const struct trainer_options *o,
    struct tape *ret, struct error *err) {
    _cleanup_(freep) bool *is_needed = calloc(g->n_nodes + 1, sizeof(bool));
    int r = check_graph(g, item, err);

    *ret = (struct tape){.graph = g};
    if (o->cpu)
        ret->cpu = *o->cpu;
    else if (r == 0)
        r = cpu_detect(NULL, &ret->cpu, err);
    if (!is_needed)
        return error_oom(err);
    if (r == 0)
        r = onednn_new(&ret->onednn, err);
    if (r == 0)
        r = take_shapes(ret, item, o->batch / o->lanes, err);
    if (r < 0)
        return r;
    ret->input = g->inputs[0];
    ret->logits = find_logits(g, o);
    if (g->values[ret->logits].producer < 0 || ret->value[ret->logits].t.data)
        return error_code(err, -EBADMSG, "invalid_model", "the output does not depend on the input");
    r = check_logits(&ret->value[ret->logits].t, o->batch / o->lanes, o->tap != NULL, err);
    if (r < 0)
        return r;
    mark_needed(ret, ret->logits, is_needed);
    r = find_params(ret, o, is_needed, err);
    if (r == 0)
        r = transforms_build(ret, o->weights, o->n_weights, err);
    if (r == 0)
        r = place_gradients(ret, err);
    if (r == 0)
        r = add_steps(ret, o, is_needed, err);
    if (r == 0)
        r = write_program(ret, err);
    return r == 0 ? tape_place(ret, err) : r;
}

void tape_done(struct tape *t) {
    for (int i = 0; i < t->n_steps; i++)
        step_done(&t->step[i]);
    for (size_t i = 0; i < t->n_params; i++)
        hugemem_free(t->param[i].data, (size_t)t->param[i].n * sizeof(float));
    transforms_done(&t->transforms);
    free(t->param);
    free(t->param_at);
    free(t->step);
    free(t->program);
    free(t->value);
    shapes_done(&t->shapes);
    onednn_free(t->onednn);
}
