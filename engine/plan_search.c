/* The choice for all nodes at once. A vertex (pbqp.h) is a node, its labels the pairs of layouts some kernel
 * runs it in, each with the fastest such kernel; an edge is a value that has one reader, and costs its
 * conversion. A value with several readers is a vertex of its own, for a conversion is paid once whoever
 * reads the result:
 *
 *     node --- node            label of a value: the layout it was made in and the set of those it is had in
 *
 *     node --- value --- node
 *                   \--- node
 *
 * What the default table chose is replaced only by what is surely faster: its cost counts for less. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fnv.h"
#include "engine/pbqp.h"
#include "engine/plan.h"

/* Another kernel must need no more than this share of the default's time, in the better of the default's
 * rounds and the worse of its own. */
#define SURE 0.93f

/* Where a conversion was not measured: bytes read and written in a microsecond. */
#define BYTES_A_US 4e3f

/* Beyond, the default table has to do: the search would take long, and memory. */
#define MAX_VERTICES 4000
#define MAX_USES     20000

#define MAX_LABELS (LAYOUT_COUNT * LAYOUT_COUNT)
/* of a value: layout it was made in, set of layouts */
#define MAX_VALUE_LABELS (LAYOUT_COUNT << LAYOUT_COUNT)

struct vertex {
    size_t n;
    struct plan_choice label[MAX_LABELS];
    float cost[MAX_LABELS];
    int index; /* in the solver; -1: not needed */
};

/* A reader of a value: a node's input or residual; node -1: the graph's output. */
struct use {
    int node;
    bool is_post;
};

struct search {
    const struct plan *p;
    const struct plan_env *env;
    struct vertex *vertex; /* of each node */
    size_t n_vertices;
    int *producer;   /* node that makes each value, -1 */
    struct use *use; /* of all values, those of value v from first[v] to first[v + 1] - 1 */
    size_t *first;
    struct pbqp *solver;
    bool is_complete; /* all times are known */
};

static enum layout wanted(const struct plan_choice *c, bool is_post) {
    return is_post ? c->out : c->in;
}

static float conversion_cost(const struct search *s, int v, enum layout from, enum layout to) {
    const struct shape *shape = &s->p->values[v].tensor.shape;
    struct vtype a = plan_type_of(s->p, s->env->graph, v, from), b = plan_type_of(s->p, s->env->graph, v, to);
    char key[TUNE_KEY_MAX];
    struct layer_box box;
    struct timing t = {0};
    size_t bytes = 0;

    if (layout_normal(shape, from) == layout_normal(shape, to))
        return 0;
    plan_fill_conversion(s->p, s->env, shape, &a, &b, &box);
    if (!plan_find_conversion(s->env, &box.l))
        return INFINITY;
    if (plan_conversion_key(s->p, s->env, v, from, to, key))
        t = tuner_get(s->env->tuner, key);
    if (t.n_rounds == TUNE_ROUNDS)
        return fminf(t.us[0], t.us[1]);
    (void)shape_bytes(shape, a.dtype, &bytes);
    return 2 * (float)bytes / BYTES_A_US;
}

static bool same_choice(const struct plan_choice *a, const struct plan_choice *b) {
    return a->kernel == b->kernel && a->in == b->in && a->out == b->out;
}

/* Adds a way to run the node, or makes the label of its layouts cheaper. */
static void add_label(struct vertex *x, const struct plan_choice *c, float cost) {
    size_t i = 0;

    while (i < x->n && (x->label[i].in != c->in || x->label[i].out != c->out))
        i++;
    if (i == x->n) {
        x->n++;
        x->cost[i] = INFINITY;
        x->label[i] = *c;
    }
    if (cost >= x->cost[i])
        return;
    x->cost[i] = cost;
    x->label[i] = *c;
}

static struct timing time_of(const struct search *s, const struct node *n, const struct plan_choice *c) {
    char key[TUNE_KEY_MAX];

    if (!plan_time_key(s->p, s->env, n, c, key))
        return (struct timing){0};
    return tuner_get(s->env->tuner, key);
}

/* Nothing is known of the default: it stays. One way to run it: no time is needed. */
static void add_labels(
    struct search *s, const struct node *n, const struct plan_choice *dflt, struct vertex *x) {
    struct plan_choice c[PLAN_MAX_CANDIDATES];
    size_t count = plan_candidates(s->p, s->env, n, c);
    struct timing known = time_of(s, n, dflt);
    bool is_sole = true;

    for (size_t i = 0; i < count; i++)
        is_sole = is_sole && same_choice(&c[i], dflt);
    s->is_complete = s->is_complete && (is_sole || known.n_rounds == TUNE_ROUNDS);
    if (is_sole || known.n_rounds < TUNE_ROUNDS) {
        add_label(x, dflt, 0);
        return;
    }
    for (size_t i = 0; i < count; i++) {
        struct timing t = time_of(s, n, &c[i]);

        s->is_complete = s->is_complete && t.n_rounds == TUNE_ROUNDS;
        if (same_choice(&c[i], dflt))
            add_label(x, dflt, SURE * fminf(t.us[0], t.us[1]));
        else if (t.n_rounds == TUNE_ROUNDS)
            add_label(x, &c[i], fmaxf(t.us[0], t.us[1]));
    }
    /* the default may have been refused when it was measured */
    if (x->n == 0)
        add_label(x, dflt, 0);
}

static void fill_vertex(struct search *s, size_t node, struct vertex *x) {
    const struct node *n = &s->env->graph->nodes[node];
    bool keeps;

    x->index = -1;
    if (!plan_is_node_needed(s->p, n))
        return;
    if (!plan_is_view(s->p, s->env->graph, n, &keeps)) {
        add_labels(s, n, &s->p->choices[node], x);
        return;
    }
    for (int l = 0; l < LAYOUT_COUNT; l++) {
        if (l == LAYOUT_PLAIN || keeps)
            add_label(x, &(struct plan_choice){.in = (enum layout)l, .out = (enum layout)l}, 0);
    }
}

/* The values a needed node reads that have layouts to choose from. */
static bool counts(const struct search *s, int v) {
    return v >= 0 && !plan_is_constant(s->p, v) && s->p->values[v].tensor.shape.rank >= 3;
}

/* Called twice: once to count (`use` NULL), once to write. */
static void walk_uses(struct search *s, size_t *n_of, struct use *use) {
    const struct graph *g = s->env->graph;

    for (size_t k = 0; k < g->n_nodes; k++) {
        const struct node *n = &g->nodes[k];

        for (int i = 0; i < n->n_out; i++) {
            if (n->out[i] >= 0)
                s->producer[n->out[i]] = (int)k;
        }
        for (int i = 0; s->vertex[k].n && i < n->n_in + n->n_post; i++) {
            bool is_post = i >= n->n_in;
            int v = is_post ? n->post[i - n->n_in].other : n->in[i];

            if (!counts(s, v))
                continue;
            if (use)
                use[s->first[v] + n_of[v]] = (struct use){.node = (int)k, .is_post = is_post};
            n_of[v]++;
        }
    }
    for (size_t i = 0; i < g->n_outputs; i++) {
        int v = g->outputs[i];

        if (!counts(s, v))
            continue;
        if (use)
            use[s->first[v] + n_of[v]] = (struct use){.node = -1};
        n_of[v]++;
    }
}

/* 0, -ENOMEM, or -E2BIG: too many for a search. */
static int collect_uses(struct search *s) {
    size_t n_values = s->env->graph->n_values;
    _cleanup_(freep) size_t *n_of = calloc(n_values + 1, sizeof(*n_of));

    s->first = calloc(n_values + 1, sizeof(*s->first));
    s->producer = calloc(n_values + 1, sizeof(*s->producer));
    if (!n_of || !s->first || !s->producer)
        return -ENOMEM;
    for (size_t v = 0; v < n_values; v++)
        s->producer[v] = -1;
    walk_uses(s, n_of, NULL);
    for (size_t v = 0; v < n_values; v++) {
        s->first[v + 1] = s->first[v] + n_of[v];
        if (n_of[v] > 1)
            s->n_vertices++;
    }
    if (s->n_vertices > MAX_VERTICES || s->first[n_values] > MAX_USES)
        return -E2BIG;
    s->use = calloc(s->first[n_values] + 1, sizeof(*s->use));
    if (!s->use)
        return -ENOMEM;
    memset(n_of, 0, n_values * sizeof(*n_of));
    walk_uses(s, n_of, s->use);
    return 0;
}

static const struct vertex *producer_of(const struct search *s, int v) {
    int node = s->producer[v];

    return node < 0 || !s->vertex[node].n ? NULL : &s->vertex[node];
}

/* One reader: what it pays for the conversion is an edge, or stands with the one end that has a choice. */
static void price_ends(struct search *s, int v) {
    struct vertex *x = (struct vertex *)(uintptr_t)producer_of(s, v);
    const struct use *u = &s->use[s->first[v]];

    for (size_t i = 0; !x && u->node >= 0 && i < s->vertex[u->node].n; i++)
        s->vertex[u->node].cost[i] +=
            conversion_cost(s, v, LAYOUT_PLAIN, wanted(&s->vertex[u->node].label[i], u->is_post));
    for (size_t i = 0; x && u->node < 0 && i < x->n; i++)
        x->cost[i] += conversion_cost(s, v, x->label[i].out, LAYOUT_PLAIN);
}

static int add_direct_edge(struct search *s, int v) {
    const struct vertex *x = producer_of(s, v), *y;
    const struct use *u = &s->use[s->first[v]];
    float cost[MAX_LABELS * MAX_LABELS];

    if (!x || u->node < 0)
        return 0;
    y = &s->vertex[u->node];
    for (size_t i = 0; i < x->n; i++) {
        for (size_t k = 0; k < y->n; k++)
            cost[i * y->n + k] = conversion_cost(s, v, x->label[i].out, wanted(&y->label[k], u->is_post));
    }
    return pbqp_add_edge(s->solver, (size_t)x->index, (size_t)y->index, cost);
}

struct value_label {
    enum layout made;
    unsigned had; /* set of layouts */
};

/* Layouts the value may be made in, and may be wanted in. */
static void value_layouts(const struct search *s, int v, unsigned *ret_made, unsigned *ret_wanted) {
    const struct vertex *x = producer_of(s, v);

    *ret_made = x ? 0 : 1u << LAYOUT_PLAIN;
    *ret_wanted = 0;
    for (size_t i = 0; x && i < x->n; i++)
        *ret_made |= 1u << x->label[i].out;
    for (size_t k = s->first[v]; k < s->first[v + 1]; k++) {
        const struct use *u = &s->use[k];

        if (u->node < 0)
            *ret_wanted |= 1u << LAYOUT_PLAIN;
        for (size_t i = 0; u->node >= 0 && i < s->vertex[u->node].n; i++)
            *ret_wanted |= 1u << wanted(&s->vertex[u->node].label[i], u->is_post);
    }
}

static bool is_output(const struct search *s, int v) {
    for (size_t k = s->first[v]; k < s->first[v + 1]; k++) {
        if (s->use[k].node < 0)
            return true;
    }
    return false;
}

static size_t value_labels(const struct search *s, int v, struct value_label *ret, float *cost) {
    unsigned made, want, must = is_output(s, v) ? 1u << LAYOUT_PLAIN : 0;
    float conversion[LAYOUT_COUNT];
    size_t n = 0;

    value_layouts(s, v, &made, &want);
    for (int from = 0; from < LAYOUT_COUNT; from++) {
        if (!(made & 1u << from))
            continue;
        for (int to = 0; to < LAYOUT_COUNT; to++)
            conversion[to] = want & 1u << to ? conversion_cost(s, v, (enum layout)from, (enum layout)to) : 0;
        for (unsigned had = 1; had < 1u << LAYOUT_COUNT; had++) {
            if (had & ~want || must & ~had)
                continue;
            ret[n] = (struct value_label){.made = (enum layout)from, .had = had};
            cost[n] = 0;
            for (int to = 0; to < LAYOUT_COUNT; to++)
                cost[n] += had & 1u << to ? conversion[to] : 0;
            n++;
        }
    }
    return n;
}

/* Edges that allow what goes together: made as its producer makes it, had as each reader wants it. */
static int add_value_vertex(struct search *s, int v, size_t index) {
    struct value_label label[MAX_VALUE_LABELS];
    float value_cost[MAX_VALUE_LABELS], cost[MAX_VALUE_LABELS * MAX_LABELS];
    size_t n = value_labels(s, v, label, value_cost);
    const struct vertex *x = producer_of(s, v);
    int r = pbqp_set_vertex(s->solver, index, n, value_cost);

    for (size_t i = 0; r == 0 && x && i < n; i++) {
        for (size_t k = 0; k < x->n; k++)
            cost[i * x->n + k] = label[i].made == x->label[k].out ? 0 : INFINITY;
    }
    if (r == 0 && x)
        r = pbqp_add_edge(s->solver, index, (size_t)x->index, cost);
    for (size_t u = s->first[v]; r == 0 && u < s->first[v + 1]; u++) {
        const struct vertex *y = s->use[u].node < 0 ? NULL : &s->vertex[s->use[u].node];

        for (size_t i = 0; y && i < n; i++) {
            for (size_t k = 0; k < y->n; k++)
                cost[i * y->n + k] =
                    label[i].had & 1u << wanted(&y->label[k], s->use[u].is_post) ? 0 : INFINITY;
        }
        if (y)
            r = pbqp_add_edge(s->solver, index, (size_t)y->index, cost);
    }
    return r;
}

static int pose(struct search *s) {
    size_t n_values = s->env->graph->n_values, n_nodes = s->env->graph->n_nodes, at = 0;
    int r = 0;

    for (size_t v = 0; v < n_values; v++) {
        if (s->first[v + 1] - s->first[v] == 1)
            price_ends(s, (int)v);
    }
    for (size_t k = 0; r == 0 && k < n_nodes; k++) {
        if (!s->vertex[k].n)
            continue;
        s->vertex[k].index = (int)at;
        r = pbqp_set_vertex(s->solver, at++, s->vertex[k].n, s->vertex[k].cost);
    }
    for (size_t v = 0; r == 0 && v < n_values; v++) {
        size_t n = s->first[v + 1] - s->first[v];

        if (n == 1)
            r = add_direct_edge(s, (int)v);
        else if (n > 1)
            r = add_value_vertex(s, (int)v, at++);
    }
    return r;
}

static int search_free(struct search *s, int r) {
    pbqp_free(s->solver);
    free(s->vertex);
    free(s->use);
    free(s->first);
    free(s->producer);
    return r;
}

void plan_choices_key(const struct plan *p, const struct plan_env *env, char ret[static TUNE_KEY_MAX]) {
    uint64_t h = FNV_START;

    for (size_t k = 0; k < env->graph->n_nodes; k++) {
        const struct node *n = &env->graph->nodes[k];
        char key[TUNE_KEY_MAX];

        if (p->choices[k].kernel && plan_time_key(p, env, n, &p->choices[k], key))
            h = fnv_text(h, key);
    }
    snprintf(ret, TUNE_KEY_MAX, "whole net %016llx", (unsigned long long)h);
}

int plan_search(struct plan *p, const struct plan_env *env, bool *ret_is_complete) {
    struct search s = {.p = p, .env = env, .is_complete = true};
    _cleanup_(freep) size_t *label = NULL;
    size_t n_nodes = env->graph->n_nodes;
    int r;

    *ret_is_complete = true;
    if (n_nodes > MAX_VERTICES)
        return 0;
    s.vertex = calloc(n_nodes + 1, sizeof(*s.vertex));
    if (!s.vertex)
        return -ENOMEM;
    for (size_t k = 0; k < n_nodes; k++) {
        fill_vertex(&s, k, &s.vertex[k]);
        s.n_vertices += s.vertex[k].n > 0;
    }
    *ret_is_complete = s.is_complete;
    r = collect_uses(&s);
    if (r < 0)
        return search_free(&s, r == -E2BIG ? 0 : r);
    s.solver = pbqp_new(s.n_vertices);
    label = calloc(s.n_vertices + 1, sizeof(*label));
    r = !s.solver || !label ? -ENOMEM : pose(&s);
    if (r == 0)
        r = pbqp_solve(s.solver, label);
    for (size_t k = 0; r == 0 && k < n_nodes; k++) {
        if (!s.vertex[k].n)
            continue;
        p->choices[k] = s.vertex[k].label[label[s.vertex[k].index]];
        p->choices[k].is_fixed = true;
    }
    return search_free(&s, r == -ENOENT ? 0 : r);
}
