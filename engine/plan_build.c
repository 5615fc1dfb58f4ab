#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/ops.h"
#include "engine/plan.h"

/* Views share the memory of what they view, in the operator's order of elements. */
bool plan_is_view(const struct plan *p, const struct graph *g, const struct node *n, bool *ret_keeps) {
    const struct value *in, *out;

    if (!n->op->is_view || n->n_post || plan_is_counted(p, n) || n->in[0] < 0 || n->out[0] < 0 ||
        plan_is_constant(p, n->in[0]))
        return false;
    for (int i = 1; i < n->n_out; i++) {
        if (n->out[i] >= 0 && p->values[n->out[i]].is_needed)
            return false;
    }
    in = &g->values[n->in[0]];
    out = &g->values[n->out[0]];
    *ret_keeps = shape_equal(&p->values[n->in[0]].tensor.shape, &p->values[n->out[0]].tensor.shape);
    return p->values[n->in[0]].tensor.dtype == p->values[n->out[0]].tensor.dtype &&
           in->quant.scale == out->quant.scale && in->quant.zero == out->quant.zero;
}

/* Identity and friends keep every layout: that at hand, unless another was found to be better. */
static int build_view(struct plan *p, const struct plan_env *env, const struct node *n, bool keeps,
    struct plan_choice *c, struct error *err) {
    enum layout layout = LAYOUT_PLAIN;
    struct vtype type;
    int form;

    if (keeps && c->is_fixed)
        layout = c->in;
    else if (keeps && p->first_form[n->in[0]] >= 0)
        layout = p->forms[p->first_form[n->in[0]]].type.layout;
    form = plan_want_form(p, env, n->in[0], layout, err);
    if (form < 0)
        return form;
    c->in = c->out = layout;
    type = p->forms[form].type;
    form = plan_add_form(p, n->out[0], &type, p->forms[form].buffer);
    return form < 0 ? error_oom(err) : 0;
}

/* Forms of the inputs and residuals, in the layouts chosen. */
static int want_inputs(struct plan *p, const struct plan_env *env, const struct node *n,
    const struct plan_choice *c, int *ret_in, int *ret_post, struct error *err) {
    for (int i = 0; i < n->n_in; i++) {
        int v = n->in[i];

        ret_in[i] = -1;
        if (v < 0 || (plan_is_constant(p, v) && !c->kernel->reads_constants))
            continue;
        ret_in[i] = plan_is_constant(p, v) ? plan_constant_form(p, env, v, err)
                                           : plan_want_form(p, env, v, c->in, err);
        if (ret_in[i] < 0)
            return ret_in[i];
    }
    for (int i = 0; i < n->n_post; i++) {
        int v = n->post[i].other;

        ret_post[i] = -1;
        if (v < 0)
            continue;
        ret_post[i] = plan_is_constant(p, v) ? plan_constant_form(p, env, v, err)
                                             : plan_want_form(p, env, v, c->out, err);
        if (ret_post[i] < 0)
            return ret_post[i];
    }
    return 0;
}

static int build_node(struct plan *p, const struct plan_env *env, const struct node *n, struct error *err) {
    struct plan_choice *c = &p->choices[n - env->graph->nodes];
    int in[LAYER_MAX_IO], post[NODE_MAX_POSTS], r = 0;
    struct step *s;
    bool keeps;

    if (plan_is_view(p, env->graph, n, &keeps))
        return build_view(p, env, n, keeps, c, err);
    if (!c->is_fixed || !c->kernel)
        r = plan_choose(p, env, n, c, err);
    if (r == 0)
        r = want_inputs(p, env, n, c, in, post, err);
    if (r < 0)
        return r;
    s = plan_add_step(p, c->kernel, n, n->n_in, n->n_out);
    if (!s)
        return error_oom(err);
    memcpy(s->in, in, (size_t)n->n_in * sizeof(int));
    s->n_post = n->n_post;
    memcpy(s->post_in, post, (size_t)n->n_post * sizeof(int));
    for (int i = 0; i < n->n_out; i++) {
        int v = n->out[i];
        struct vtype type;

        s->out[i] = -1;
        if (v < 0)
            continue;
        type = plan_type_of(p, env->graph, v, c->out);
        s->out[i] = plan_add_form(p, v, &type, -1);
        if (s->out[i] < 0)
            return error_oom(err);
    }
    return 0;
}

bool plan_is_node_needed(const struct plan *p, const struct node *n) {
    for (int i = 0; i < n->n_out; i++) {
        if (n->out[i] >= 0 && p->values[n->out[i]].is_needed && !plan_is_constant(p, n->out[i]))
            return true;
    }
    return false;
}

static int add_inputs(struct plan *p, const struct graph *g) {
    for (size_t i = 0; i < p->n_inputs; i++) {
        int v = g->inputs[i];
        struct vtype type = {
            .dtype = p->values[v].tensor.dtype, .layout = LAYOUT_PLAIN, .quant = g->values[v].quant};
        int form = plan_add_form(p, v, &type, -1);

        if (form < 0)
            return form;
        p->buffers[p->forms[form].buffer].kind = BUFFER_INPUT;
        p->buffers[p->forms[form].buffer].index = i;
    }
    return 0;
}

static int add_outputs(struct plan *p, const struct plan_env *env, struct error *err) {
    const struct graph *g = env->graph;

    for (size_t i = 0; i < p->n_outputs; i++) {
        int v = g->outputs[i], form;

        form = plan_is_constant(p, v) ? plan_constant_form(p, env, v, err)
                                      : plan_want_form(p, env, v, LAYOUT_PLAIN, err);
        if (form < 0)
            return form;
        p->output_forms[i] = form;
        p->outputs[i] = (struct tensor){.dtype = p->forms[form].type.dtype, .shape = p->forms[form].shape};
    }
    return 0;
}

/* Forgets the steps and all that came of them; what was inferred stays. */
static void clear_steps(struct plan *p, const struct graph *g) {
    for (size_t i = 0; i < p->n_steps; i++) {
        if (p->steps[i].state)
            p->steps[i].kernel->done(p->steps[i].state);
        free(p->steps[i].in);
    }
    p->n_steps = p->n_forms = p->n_buffers = 0;
    for (size_t i = 0; i < g->n_values; i++)
        p->first_form[i] = -1;
}

static int build_steps(struct plan *p, const struct plan_env *env, struct error *err) {
    const struct graph *g = env->graph;

    clear_steps(p, g);
    if (add_inputs(p, g) < 0)
        return error_oom(err);
    for (size_t i = 0; i < g->n_nodes; i++) {
        int r = plan_is_node_needed(p, &g->nodes[i]) ? build_node(p, env, &g->nodes[i], err) : 0;

        if (r < 0)
            return r;
    }
    return add_outputs(p, env, err);
}

/* What another plan of the same image size runs, where that can be had here too. */
static void take_choices(struct plan *p, const struct plan_env *env) {
    for (size_t i = 0; i < env->graph->n_nodes; i++) {
        p->choices[i] = env->choices[i];
        p->choices[i].is_fixed =
            !p->choices[i].kernel || plan_can_run(p, env, &env->graph->nodes[i], &p->choices[i]);
    }
}

/* Sizes come from requests: what is too large is refused before kernels are prepared for it, and again with
 * their scratch. */
static int place(struct plan *p, const struct plan_env *env, struct error *err) {
    int r = plan_place_buffers(p, err);

    if (r == 0 && p->arena_size > env->max_arena)
        r = error_code(err, -ENOSPC, "memory_budget",
            "inputs of this size take %zu MiB to run, %zu can be had within the memory budget",
            p->arena_size >> 20, env->max_arena >> 20);
    return r;
}

/* A kernel may refuse in prepare (oneDNN has only its reference code for the shape): another takes the node
 * and the steps are laid out anew. Ends because every round uses up a kernel. */
static int build_until_prepared(struct plan *p, const struct plan_env *env, struct error *err) {
    int r;

    if (env->choices)
        take_choices(p, env);
    r = build_steps(p, env, err);
    for (;;) {
        const struct node *refused = NULL;
        struct error e = {0};
        struct plan_choice *c;

        if (r == 0)
            r = plan_share_buffers(p);
        if (r == 0)
            r = place(p, env, err);
        if (r < 0)
            return r == -ENOMEM ? error_oom(err) : r;
        r = plan_prepare(p, env, &refused, &e);
        if (r == 0)
            return 0;
        if (r != -EOPNOTSUPP || !refused) {
            error_copy(err, &e);
            return r;
        }
        c = &p->choices[refused - env->graph->nodes];
        if (plan_refuse(p, refused, c) < 0)
            return error_oom(err);
        c->is_fixed = false;
        r = build_steps(p, env, err);
    }
}

static int allocate(struct plan *p, const struct graph *g, const struct shape *inputs) {
    p->n_inputs = g->n_inputs;
    p->n_outputs = g->n_outputs;
    p->inputs = calloc(g->n_inputs + 1, sizeof(*p->inputs));
    p->outputs = calloc(g->n_outputs + 1, sizeof(*p->outputs));
    p->output_forms = calloc(g->n_outputs + 1, sizeof(*p->output_forms));
    p->values = calloc(g->n_values + 1, sizeof(*p->values));
    p->first_form = calloc(g->n_values + 1, sizeof(*p->first_form));
    p->choices = calloc(g->n_nodes + 1, sizeof(*p->choices));
    if (!p->choices || !p->inputs || !p->outputs || !p->output_forms || !p->values || !p->first_form)
        return -ENOMEM;
    if (g->n_inputs)
        memcpy(p->inputs, inputs, g->n_inputs * sizeof(*inputs));
    return 0;
}

/* Laying out takes time with the square of the steps: a second for this many. The deepest CNNs have a tenth.
 */
#define MAX_NODES 20000

static int begin(const struct plan_env *env, const struct shape *inputs, unsigned threads, struct plan **ret,
    struct error *err) {
    _cleanup_(plan_freep) struct plan *p = calloc(1, sizeof(*p));
    int r;

    if (env->graph->n_nodes > MAX_NODES)
        return error_code(err, -EBADMSG, "invalid_model",
            "the model has %zu nodes, more than %d cannot be planned", env->graph->n_nodes, MAX_NODES);
    if (!p || allocate(p, env->graph, inputs) < 0)
        return error_oom(err);
    p->n_threads = threads ? threads : 1;
    r = plan_infer(p, env, err);
    if (r < 0)
        return r;
    *ret = TAKE(p);
    return 0;
}

int plan_sketch(const struct plan_env *env, const struct shape *inputs, unsigned threads, struct plan **ret,
    struct error *err) {
    _cleanup_(plan_freep) struct plan *p = NULL;
    int r = begin(env, inputs, threads, &p, err);

    if (r == 0)
        r = build_steps(p, env, err);
    if (r < 0)
        return r;
    *ret = TAKE(p);
    return 0;
}

int plan_build(const struct plan_env *env, const struct shape *inputs, unsigned threads, struct plan **ret,
    struct error *err) {
    _cleanup_(plan_freep) struct plan *p = NULL;
    int r = begin(env, inputs, threads, &p, err);

    if (r == 0)
        r = build_until_prepared(p, env, err);
    if (r == 0)
        r = place(p, env, err);
    if (r < 0)
        return r;
    *ret = TAKE(p);
    return 0;
}
