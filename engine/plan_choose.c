#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/plan.h"

enum layout layout_normal(const struct shape *s, enum layout l) {
    int64_t pixels = 1;

    if (s->rank < 3)
        return LAYOUT_PLAIN;
    if (l != LAYOUT_NHWC)
        return l;
    for (int d = 2; d < s->rank; d++)
        pixels *= s->dim[d];
    return pixels == 1 || s->dim[1] == 1 ? LAYOUT_PLAIN : l;
}

struct vtype plan_type_of(const struct plan *p, const struct graph *g, int v, enum layout l) {
    const struct tensor *t = &p->values[v].tensor;

    return (struct vtype){
        .dtype = t->dtype, .layout = t->shape.rank < 3 ? LAYOUT_PLAIN : l, .quant = g->values[v].quant};
}

void plan_fill_layer(const struct plan *p, const struct plan_env *env, const struct node *n, enum layout in,
    enum layout out, struct layer_box *ret) {
    const struct graph *g = env->graph;

    memset(ret, 0, sizeof(*ret));
    for (int i = 0; i < LAYER_MAX_IO; i++)
        ret->in_count[i] = ret->out_count[i] = -1;
    for (int i = 0; i < n->n_in; i++) {
        if (n->in[i] < 0)
            continue;
        ret->in[i] = p->values[n->in[i]].tensor;
        ret->in_type[i] = plan_type_of(p, g, n->in[i], plan_is_constant(p, n->in[i]) ? LAYOUT_PLAIN : in);
        ret->in[i].layout = ret->in_type[i].layout;
        ret->in_ptr[i] = &ret->in[i];
        ret->in_count[i] = p->values[n->in[i]].count;
    }
    for (int i = 0; i < n->n_out; i++) {
        if (n->out[i] < 0)
            continue;
        ret->out[i] = p->values[n->out[i]].tensor;
        ret->out_type[i] = plan_type_of(p, g, n->out[i], out);
        ret->out[i].layout = ret->out_type[i].layout;
        ret->out_count[i] = p->values[n->out[i]].count;
    }
    for (int i = 0; i < n->n_post; i++) {
        if (n->post[i].other < 0)
            continue;
        ret->post[i] = p->values[n->post[i].other].tensor;
        ret->post_type[i] = plan_type_of(p, g, n->post[i].other, out);
        ret->post[i].layout = ret->post_type[i].layout;
    }
    ret->l = (struct layer){
        .graph = g,
        .node = n,
        .n_in = n->n_in,
        .n_out = n->n_out,
        .in = ret->in_ptr,
        .out = ret->out,
        .in_type = ret->in_type,
        .out_type = ret->out_type,
        .in_count = ret->in_count,
        .out_count = ret->out_count,
        .post_in = ret->post,
        .post_type = ret->post_type,
        .in_place_post = -1,
        .n_threads = p->n_threads,
        .is_compact = env->options->policy == NET_MEMORY,
        .cpu = &env->options->cpu,
        .onednn = env->onednn,
    };
}

static bool runs_op(const struct kernel *k, const struct node *n) {
    if (!k->op_types)
        return true;
    for (const char *const *op = k->op_types; *op; op++) {
        if (strcmp(*op, n->op_type) == 0)
            return true;
    }
    return false;
}

/* `list`: names separated by commas, "-" before a forbidden one. When any name is given without "-" and fits
 * the node's operator, only named kernels are tried (and the reference). */
static bool is_listed(const char *list, const char *name, bool forbidden) {
    size_t size = strlen(name);

    for (const char *s = list; s && *s;) {
        size_t n = strcspn(s, ",");
        bool minus = *s == '-';

        if (minus == forbidden && n - minus == size && memcmp(s + minus, name, size) == 0)
            return true;
        s += n;
        s += *s == ',';
    }
    return false;
}

static bool has_forced(const char *list, const struct node *n) {
    for (size_t i = 0; list && i < kernel_table_size; i++) {
        if (!kernel_table[i]->is_reference && runs_op(kernel_table[i], n) &&
            is_listed(list, kernel_table[i]->name, false))
            return true;
    }
    return false;
}

/* The layout most of the computed input bytes are in already. */
static enum layout current_layout(const struct plan *p, const struct node *n) {
    size_t weight[LAYOUT_COUNT] = {0};
    enum layout best = LAYOUT_PLAIN;

    for (int i = 0; i < n->n_in; i++) {
        int v = n->in[i];
        size_t bytes = 0;

        if (v < 0 || plan_is_constant(p, v))
            continue;
        for (int f = p->first_form[v]; f >= 0; f = p->forms[f].next) {
            bytes = plan_form_bytes(&p->forms[f]);
            weight[p->forms[f].type.layout] += bytes;
        }
    }
    for (int l = 0; l < LAYOUT_COUNT; l++) {
        if (weight[l] > weight[best])
            best = (enum layout)l;
    }
    return best;
}

/* Where the kernel is free: what it was given, else channels last. */
static bool output_layout(const struct layouts *l, enum layout in, enum layout *ret) {
    static const enum layout order[] = {LAYOUT_NHWC, LAYOUT_PLAIN, LAYOUT_nChw16c, LAYOUT_BITS};

    if (!l->free_out) {
        *ret = in;
        return true;
    }
    for (size_t i = 0; i < sizeof(order) / sizeof(*order); i++) {
        if (l->out & 1u << order[i]) {
            *ret = order[i];
            return true;
        }
    }
    return false;
}

/* Tensors without elements are the reference's: kernels may take it that there is something to do. */
static bool has_empty(const struct plan *p, const struct node *n) {
    int64_t count;

    for (int i = 0; i < n->n_in; i++) {
        if (n->in[i] >= 0 && !plan_is_constant(p, n->in[i]) &&
            shape_count(&p->values[n->in[i]].tensor.shape, &count) && count == 0)
            return true;
    }
    for (int i = 0; i < n->n_out; i++) {
        if (n->out[i] >= 0 && shape_count(&p->values[n->out[i]].tensor.shape, &count) && count == 0)
            return true;
    }
    return false;
}

static bool fits(
    const struct plan *p, const struct plan_env *env, const struct node *n, const struct plan_choice *c) {
    struct layer_box box;

    for (size_t i = 0; i < p->n_refused; i++) {
        const struct plan_refusal *r = &p->refused[i];

        if (r->node == n && r->choice.kernel == c->kernel && r->choice.in == c->in && r->choice.out == c->out)
            return false;
    }
    if (plan_is_counted(p, n) != c->kernel->takes_counts)
        return false;
    plan_fill_layer(p, env, n, c->in, c->out, &box);
    return c->kernel->fits(&env->options->cpu, &box.l);
}

int plan_refuse(struct plan *p, const struct node *n, const struct plan_choice *c) {
    if (p->n_refused == p->refused_cap) {
        size_t cap = p->refused_cap ? 2 * p->refused_cap : 16;
        struct plan_refusal *grown = realloc(p->refused, cap * sizeof(*grown));

        if (!grown)
            return -ENOMEM;
        p->refused = grown;
        p->refused_cap = cap;
    }
    p->refused[p->n_refused++] = (struct plan_refusal){.node = n, .choice = *c};
    return 0;
}

static bool try_kernel(const struct plan *p, const struct plan_env *env, const struct node *n,
    const struct kernel *k, struct plan_choice *ret) {
    enum layout order[] = {current_layout(p, n), LAYOUT_NHWC, LAYOUT_PLAIN, LAYOUT_nChw16c, LAYOUT_BITS};

    for (size_t i = 0; i < sizeof(order) / sizeof(*order); i++) {
        struct plan_choice c = {.kernel = k, .in = order[i]};

        if ((i > 0 && order[i] == order[0]) || !(k->layouts.in & 1u << order[i]) ||
            !output_layout(&k->layouts, order[i], &c.out) || !fits(p, env, n, &c))
            continue;
        *ret = c;
        return true;
    }
    return false;
}

/* Rules that hold for the node whatever its layouts: the lists of names, the operator, its posts. */
struct rules {
    bool forced, is_empty;
};

static struct rules rules_for(const struct plan *p, const struct plan_env *env, const struct node *n) {
    return (struct rules){.forced = has_forced(env->options->kernels, n), .is_empty = has_empty(p, n)};
}

static bool is_allowed(
    const struct plan_env *env, const struct node *n, const struct kernel *k, const struct rules *rules) {
    const struct net_options *o = env->options;

    if (!k->is_reference && (o->reference || rules->is_empty || is_listed(o->kernels, k->name, true) ||
                                (rules->forced && !is_listed(o->kernels, k->name, false))))
        return false;
    return runs_op(k, n) && n->n_post <= (int)k->max_posts;
}

int plan_choose(const struct plan *p, const struct plan_env *env, const struct node *n,
    struct plan_choice *ret, struct error *err) {
    struct rules rules = rules_for(p, env, n);

    for (size_t i = 0; i < kernel_table_size; i++) {
        if (is_allowed(env, n, kernel_table[i], &rules) && try_kernel(p, env, n, kernel_table[i], ret))
            return 0;
    }
    return error_set(err, -EOPNOTSUPP, "no kernel runs node '%s' (%s)", n->id ? n->id : n->name, n->op_type);
}

bool plan_can_run(
    const struct plan *p, const struct plan_env *env, const struct node *n, const struct plan_choice *c) {
    struct rules rules = rules_for(p, env, n);

    return is_allowed(env, n, c->kernel, &rules) && fits(p, env, n, c);
}

/* The pairs of layouts of one kernel. */
static size_t add_candidates(const struct plan *p, const struct plan_env *env, const struct node *n,
    const struct kernel *k, struct plan_choice *ret, size_t max) {
    size_t found = 0;

    for (int in = 0; in < LAYOUT_COUNT; in++) {
        for (int out = 0; out < LAYOUT_COUNT; out++) {
            struct plan_choice c = {.kernel = k, .in = (enum layout)in, .out = (enum layout)out};

            if (found < max && k->layouts.in & 1u << in && k->layouts.out & 1u << out &&
                (in == out || k->layouts.free_out) && fits(p, env, n, &c))
                ret[found++] = c;
        }
    }
    return found;
}

size_t plan_candidates(const struct plan *p, const struct plan_env *env, const struct node *n,
    struct plan_choice ret[static PLAN_MAX_CANDIDATES]) {
    struct rules rules = rules_for(p, env, n);
    size_t found = 0;

    for (size_t i = 0; i < kernel_table_size; i++) {
        const struct kernel *k = kernel_table[i];

        if ((!k->is_reference || found == 0) && is_allowed(env, n, k, &rules))
            found += add_candidates(p, env, n, k, ret + found, PLAN_MAX_CANDIDATES - found);
    }
    return found;
}
