/* Tuning: sketch → measure its layers → search → if that is another choice: build it, time both as a whole,
 * and let the better one be. Nothing is locked while it is measured. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "engine/net_priv.h"
#include "engine/pool.h"

#define WHOLE_RUNS    9
#define WHOLE_SECONDS 1.0 /* for one round of runs, at least three of each */

/* One plan with memory to run it in. */
struct contender {
    struct plan *plan;
    struct arena arena;
    struct tensor *in, *out;
    double best;
};

struct tuning {
    struct net *net;
    const struct tune_limits *limits;
    struct pool *pool;
    struct net_build build; /* of the sketch */
    struct pack_cache *packs;
    struct plan *sketch;
    struct plan_choice *old; /* what runs now */
    bool is_complete;
};

int net_choose(struct plan *sketch, const struct plan_env *env, bool *ret_is_complete) {
    _cleanup_(freep) struct plan_choice *dflt = NULL;
    size_t n = env->graph->n_nodes;
    char key[TUNE_KEY_MAX];
    struct timing whole;

    if (net_copy_choices(n, sketch->choices, &dflt) < 0 || plan_search(sketch, env, ret_is_complete) < 0)
        return -ENOMEM;
    plan_choices_key(sketch, env, key);
    whole = tuner_get(env->tuner, key);
    if (whole.n_rounds == TUNE_ROUNDS && whole.us[0] >= whole.us[1])
        memcpy(sketch->choices, dflt, n * sizeof(*dflt));
    return 0;
}

static void contender_done(struct contender *c, size_t n_in) {
    for (size_t i = 0; c->in && i < n_in; i++)
        free(c->in[i].data);
    for (size_t i = 0; c->out && i < plan_n_outputs(c->plan); i++)
        free(c->out[i].data);
    free(c->in);
    free(c->out);
    arena_done(&c->arena);
}

static bool give_memory(struct tensor *t) {
    size_t size = 0;

    if (!shape_bytes(&t->shape, t->dtype, &size))
        return false;
    t->data = calloc(1, size + 1);
    for (size_t i = 0; t->data && t->dtype == DT_F32 && i < size / sizeof(float); i++)
        ((float *)t->data)[i] = (float)(i % 251) / 125 - 1;
    return t->data;
}

static int contender_init(struct contender *c, const struct graph *g, struct error *err) {
    int r = arena_reserve(&c->arena, plan_arena_size(c->plan), err);
    bool ok;

    c->best = HUGE_VAL;
    c->in = calloc(g->n_inputs + 1, sizeof(*c->in));
    c->out = calloc(plan_n_outputs(c->plan) + 1, sizeof(*c->out));
    ok = c->in && c->out;
    for (size_t i = 0; ok && i < g->n_inputs; i++) {
        c->in[i] = (struct tensor){.dtype = g->values[g->inputs[i]].dtype, .shape = c->plan->inputs[i]};
        ok = give_memory(&c->in[i]);
    }
    for (size_t i = 0; ok && i < plan_n_outputs(c->plan); i++) {
        c->out[i] = *plan_output(c->plan, i);
        ok = give_memory(&c->out[i]);
    }
    return r < 0 ? r : ok ? 0 : error_oom(err);
}

static void run_contender(struct contender *c, struct pool *pool) {
    double start = clock_now_us();

    plan_run(c->plan, &c->arena, c->in, c->out, pool, NULL);
    c->best = fmin(c->best, clock_now_us() - start);
}

static bool should_stop(const struct tuning *t) {
    return t->limits->should_stop && t->limits->should_stop(t->limits->ctx);
}

/* One round by turns. 1: it was stopped. */
static int time_round(const struct tuning *t, struct contender *a, struct contender *b) {
    double end = clock_now_s() + WHOLE_SECONDS;

    for (int i = 0; i < WHOLE_RUNS && (i < 3 || clock_now_s() < end); i++) {
        if (should_stop(t))
            return 1;
        run_contender(a, t->pool);
        run_contender(b, t->pool);
    }
    return 0;
}

/* Is the new plan the faster one, twice? What was found is kept for the next time. 0, 1: stopped, or
 * negative. */
static int time_whole(const struct tuning *t, struct plan *new, struct plan *old, const char *key, bool *ret,
    struct error *err) {
    struct contender c[2] = {{.plan = new}, {.plan = old}};
    const struct graph *g = net_graph(t->net);
    struct timing kept = {.n_rounds = TUNE_ROUNDS};
    int r = contender_init(&c[0], g, err);

    if (r == 0)
        r = contender_init(&c[1], g, err);
    *ret = true;
    if (r == 0)
        r = time_round(t, &c[0], &c[1]); /* warm */
    for (int round = 0; r == 0 && round < TUNE_ROUNDS; round++) {
        c[0].best = c[1].best = HUGE_VAL;
        r = time_round(t, &c[0], &c[1]);
        if (*ret || c[0].best >= c[1].best) {
            kept.us[0] = (float)c[0].best;
            kept.us[1] = (float)c[1].best;
        }
        *ret = *ret && c[0].best < c[1].best;
    }
    contender_done(&c[0], g->n_inputs);
    contender_done(&c[1], g->n_inputs);
    if (r == 0 && tuner_put(t->net->options.tuner, key, &kept) < 0)
        r = error_oom(err);
    return r;
}

static const struct net_image *first_untuned(const struct net *n) {
    for (size_t i = 0; i < n->n_images; i++) {
        if (!n->image[i].is_tuned)
            return &n->image[i];
    }
    return NULL;
}

/* 0 without a sketch: nothing is to be done. */
static int draw_sketch(struct tuning *t, struct error *err) {
    struct net *n = t->net;
    const struct net_image *i;
    int r = 0;

    pthread_mutex_lock(&n->building);
    i = first_untuned(n);
    if (i) {
        t->packs = pack_cache_new(n->options.store);
        r = t->packs ? net_begin_build(n, t->packs, &t->build, err) : error_oom(err);
        if (r == 0)
            r = plan_sketch(&t->build.env, i->inputs, i->threads, &t->sketch, err);
        if (r == 0 && net_copy_choices(t->build.env.graph->n_nodes, i->choices, &t->old) < 0)
            r = error_oom(err);
    }
    pthread_mutex_unlock(&n->building);
    return r;
}

static bool same_choices(const struct plan_choice *a, const struct plan_choice *b, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (a[i].kernel != b[i].kernel || (a[i].kernel && (a[i].in != b[i].in || a[i].out != b[i].out)))
            return false;
    }
    return true;
}

/* `p` NULL: it stays as it is. */
static int settle(struct tuning *t, struct plan *p, struct net_packs *packs, struct error *err) {
    struct net *n = t->net;
    struct plan_choice *choices = NULL;
    struct net_image *i;

    if (p && net_copy_choices(t->build.env.graph->n_nodes, t->sketch->choices, &choices) < 0)
        return error_oom(err);
    pthread_mutex_lock(&n->building);
    i = net_find_image(n, t->sketch->inputs);
    if (i)
        i->is_tuned = true;
    if (i && p) {
        free(i->choices);
        i->choices = choices;
        choices = NULL;
        net_swap(n, p, packs);
    }
    pthread_mutex_unlock(&n->building);
    free(choices);
    return i && p ? 1 : 0;
}

/* A plan of the new choices, over packs of its own: those of the old ones go with the plans that use them. */
static int build_new(struct tuning *t, struct net_packs *packs, struct plan **ret, struct error *err) {
    _cleanup_(net_build_done) struct net_build b = {0};
    int r;

    pthread_mutex_lock(&t->net->building);
    r = net_begin_build(t->net, packs->cache, &b, err);
    if (r == 0)
        r = net_build_plan(t->net, &b, t->sketch->choices, t->sketch->inputs, t->sketch->n_threads, ret, err);
    pthread_mutex_unlock(&t->net->building);
    return r;
}

/* 0, 1: stopped, or negative. */
static int try_new(struct tuning *t, bool *ret_changed, struct error *err) {
    struct net_packs *packs = net_packs_new(t->net->options.store);
    struct plan *new = NULL, *old = NULL;
    bool is_faster = false;
    char key[TUNE_KEY_MAX];
    int r;

    if (!packs)
        return error_oom(err);
    plan_choices_key(t->sketch, &t->build.env, key);
    r = build_new(t, packs, &new, err);
    if (r == 0)
        r = net_plan(t->net, t->sketch->inputs, t->sketch->n_threads, &old, err);
    if (r == 0)
        r = time_whole(t, new, old, key, &is_faster, err);
    plan_unref(old);
    if (r == 0) {
        r = settle(t, is_faster ? new : NULL, packs, err);
        *ret_changed = r == 1;
    }
    if (*ret_changed) {
        plan_unref(new); /* the cache has it */
        return 0;
    }
    plan_free(new);
    pack_cache_free(packs->cache);
    free(packs);
    return r;
}

static int tune(struct tuning *t, bool *ret_changed, struct error *err) {
    size_t n_nodes;
    int r = draw_sketch(t, err);

    if (r < 0 || !t->sketch)
        return r;
    n_nodes = t->build.env.graph->n_nodes;
    if (t->sketch->n_threads > 1)
        r = pool_new(t->sketch->n_threads, &t->pool, err);
    if (r == 0)
        r = plan_measure(t->sketch, &t->build.env, t->limits, t->pool, err);
    if (r == 0 && net_choose(t->sketch, &t->build.env, &t->is_complete) < 0)
        r = error_oom(err);
    if (r != 0)
        return r;
    if (same_choices(t->old, t->sketch->choices, n_nodes))
        return settle(t, NULL, NULL, err);
    return try_new(t, ret_changed, err);
}

int net_tune(struct net *n, const struct tune_limits *limits, bool *ret_changed, struct error *err) {
    struct tuning t = {.net = n, .limits = limits};
    bool changed = false;
    int r;

    if (!n->options.tuner || n->options.reference)
        return 0;
    r = tune(&t, &changed, err);
    if (r == 0) {
        pthread_mutex_lock(&n->building);
        r = first_untuned(n) != NULL;
        pthread_mutex_unlock(&n->building);
    }
    pool_free(t.pool);
    plan_free(t.sketch);
    net_build_done(&t.build);
    pack_cache_free(t.packs);
    free(t.old);
    if (ret_changed)
        *ret_changed = changed;
    return r;
}
