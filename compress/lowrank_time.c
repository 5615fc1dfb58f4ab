/* A layer and its parts side by side in this engine, each a network by itself at the layer's shapes. What
 * conversions between layouts cost is not counted: it depends on the neighbours. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "compress/chance.h"
#include "compress/lowrank_plan.h"
#include "compress/session.h"

#define MIN_ROUNDS 8
#define MAX_ROUNDS 200
#define BUDGET_US  40e3 /* of one layer, both sides together */

/* Not zeros: kernels for sparse weights would have an easy time. */
static void fill(double *x, int64_t n, uint64_t key) {
    for (int64_t i = 0; i < n; i++)
        x[i] = chance_between(chance_key(1, key, 0), (uint64_t)i, -1, 1);
}

static int add_noise(
    struct graph *g, const char *name, const struct shape *shape, uint64_t key, struct error *err) {
    struct tensor t = {.dtype = DT_F32, .shape = *shape};
    _cleanup_(freep) float *data = NULL;
    int64_t n;
    int v;

    if (!shape_count(shape, &n))
        return error_set(err, -EFBIG, "weights are too large");
    t.data = data = malloc((size_t)n * sizeof(*data) + 1);
    if (!data)
        return error_oom(err);
    for (int64_t i = 0; i < n; i++)
        data[i] = (float)chance_between(chance_key(1, key, 0), (uint64_t)i, -1, 1);
    v = graph_add_init(g, name, &t, false);
    return v < 0 ? error_oom(err) : v;
}

/* The layer alone, with other numbers. */
static int alone(const struct graph *g, const struct lowrank_layer *l, const struct shape *input,
    struct graph **ret, struct error *err) {
    _cleanup_(graph_freep) struct graph *t = graph_new();
    const struct node *n = &g->nodes[l->node];
    int in[3] = {-1, -1, -1}, n_in = n->n_in > 2 && n->in[2] >= 0 && g->values[n->in[2]].init ? 3 : 2, y,
        node;

    if (!t)
        return error_oom(err);
    t->opset = g->opset;
    t->ir_version = g->ir_version;
    in[0] = graph_add_value(t, "x", DT_F32, input);
    if (in[0] < 0 || graph_add_input(t, in[0]) < 0)
        return error_oom(err);
    for (int k = 1; k < n_in; k++) {
        in[k] = add_noise(t, k == 1 ? "w" : "b", &g->values[n->in[k]].init->shape, (uint64_t)k, err);
        if (in[k] < 0)
            return in[k];
    }
    y = graph_add_value(t, "y", DT_F32, NULL);
    node = y < 0 ? y : graph_insert_node(t, 0, n->op_type, l->id, in, n_in, &y, 1);
    if (node < 0 || graph_add_output(t, y) < 0)
        return error_oom(err);
    t->nodes[node].id = l->id;
    t->nodes[node].attr = n->attr; /* of g, which lives longer */
    t->nodes[node].n_attr = n->n_attr;
    *ret = TAKE(t);
    return 0;
}

static int factorise(
    struct graph *t, const struct lowrank_layer *l, const struct lowrank_choice *c, struct error *err) {
    _cleanup_(lowrank_factors_done) struct lowrank_factors f = {0};
    struct lowrank_layer at = *l;
    struct lowrank_part part[LOWRANK_MAX_PARTS];
    int n = lowrank_parts(l, c, part), r = lowrank_factors_init(l, c, &f, err);

    for (int k = 0; r == 0 && k < n; k++)
        fill(f.part[k], lowrank_part_params(l, &part[k]), (uint64_t)(k + 10));
    at.node = 0;
    return r < 0 ? r : lowrank_replace(t, &at, &f, NULL, err);
}

struct side {
    struct session session;
    float *us;
    double best; /* steps of one run, without conversions */
};

static void sides_done(struct side (*s)[2]) {
    for (int k = 0; k < 2; k++) {
        session_done(&(*s)[k].session);
        free((*s)[k].us);
    }
}

static int open_side(struct graph *t, const struct shape *input, struct side *s, struct error *err) {
    int r = graph_finish(t, err);

    if (r < 0) {
        graph_free(t);
        return r;
    }
    r = session_open_graph(t, &s->session, err);
    if (r == 0)
        r = session_plan(&s->session, input, 1, err);
    if (r < 0)
        return r;
    s->best = HUGE_VAL;
    s->us = calloc(plan_n_steps(s->session.plan) + 1, sizeof(*s->us));
    return s->us ? 0 : error_oom(err);
}

static void run_side(struct side *s, const struct tensor *x) {
    double sum = 0;

    plan_run(s->session.plan, &s->session.arena, x, s->session.out, NULL, s->us);
    for (size_t i = 0; i < plan_n_steps(s->session.plan); i++) {
        struct plan_step step;

        plan_get_step(s->session.plan, i, &step);
        if (strcmp(step.id, "convert"))
            sum += (double)s->us[i];
    }
    s->best = fmin(s->best, sum);
}

static int time_sides(struct side *s, const struct shape *input, struct error *err) {
    struct tensor x = {.dtype = DT_F32, .shape = *input};
    _cleanup_(freep) float *data = NULL;
    double end;
    int64_t n;

    if (!shape_count(input, &n))
        return error_set(err, -EFBIG, "its input is too large to be timed");
    x.data = data = alloc_aligned((size_t)n * sizeof(*data));
    if (!data)
        return error_oom(err);
    for (int64_t i = 0; i < n; i++)
        data[i] = (float)chance_unit(1, (uint64_t)i);
    for (int k = 0; k < 2; k++)
        session_run(&s[k].session, &x);
    end = clock_now_us() + BUDGET_US;
    for (int i = 0; i < MAX_ROUNDS && (i < MIN_ROUNDS || clock_now_us() < end); i++)
        for (int k = 0; k < 2; k++)
            run_side(&s[k], &x);
    return 0;
}

int lowrank_time(const struct graph *g, const struct lowrank_layer *l, const struct shape *input,
    const struct lowrank_choice *c, double *ret_dense, double *ret_factors, struct error *err) {
    _cleanup_(sides_done) struct side side[2] = {0};
    int r = 0;

    for (int k = 0; r == 0 && k < 2; k++) {
        struct graph *t = NULL;

        r = alone(g, l, input, &t, err);
        if (r == 0 && k == 1)
            r = factorise(t, l, c, err);
        if (r < 0)
            graph_free(t);
        else
            r = open_side(t, input, &side[k], err);
    }
    if (r == 0)
        r = time_sides(side, input, err);
    if (r < 0)
        return error_prefix(err, r, "layer '%.100s' alone", l->id);
    *ret_dense = side[0].best;
    *ret_factors = side[1].best;
    return 0;
}
