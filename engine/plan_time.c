/* Times of kernels on a layer's real shape. What stands around the layer in a network is imitated: its
 * weights have left the nearest caches since the last image, its input has just been written. The kernels of
 * a layer take turns, so that a slow moment of the machine hits all of them; the smallest of several runs
 * counts. */
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "engine/hugemem.h"
#include "engine/nonzero.h"
#include "engine/onednn.h"
#include "engine/plan.h"

#define MIN_RUNS 9
/* A kernel this much slower than the best is out of the race: after its first run, in which it also meets
 * fresh memory; and after a few. */
#define HOPELESS_AT_FIRST 4.0
#define HOPELESS          2.0
#define HOPELESS_AFTER    3
/* More than the second-level cache of a core has. */
#define SWEEP_BYTES ((size_t)4 << 20)

/* Text in a buffer of TUNE_KEY_MAX; once it does not fit it stays too long. */
struct text {
    char *buf;
    size_t n;
};

__attribute__((format(printf, 2, 3))) static void add(struct text *t, const char *fmt, ...) {
    size_t room = t->n < TUNE_KEY_MAX ? TUNE_KEY_MAX - t->n : 0;
    va_list ap;
    int n;

    va_start(ap, fmt);
    n = vsnprintf(room ? t->buf + t->n : NULL, room, fmt, ap);
    va_end(ap);
    t->n += n < 0 ? TUNE_KEY_MAX : (size_t)n;
}

static bool is_whole(const struct text *t) {
    return t->n < TUNE_KEY_MAX;
}

static void add_type(struct text *t, const struct tensor *x, const struct vtype *type) {
    add(t, " %d%s", (int)type->dtype, type->quant.scale > 0 ? "q" : "");
    for (int d = 0; d < x->shape.rank; d++)
        add(t, "%c%lld", d ? 'x' : ':', (long long)x->shape.dim[d]);
    add(t, "/%d", (int)layout_normal(&x->shape, type->layout));
}

static unsigned cpu_bits(const struct cpu *c) {
    return (unsigned)c->avx2 | (unsigned)c->fma << 1 | (unsigned)c->avx512 << 2 |
           (unsigned)c->avx512_vnni << 3 | (unsigned)c->avx512_bf16 << 4 |
           (unsigned)c->avx512_vpopcntdq << 5 | (unsigned)c->avx512_vbmi << 6;
}

/* Text from the file: with no spaces or line breaks of its own, for a key is a line's end in the tuner's
 * file. */
static void add_word(struct text *t, const char *word, size_t size) {
    for (size_t k = 0; k < size; k++)
        add(t, "%c", (unsigned char)word[k] > ' ' ? word[k] : '_');
}

static void add_attributes(struct text *t, const struct node *n) {
    for (size_t i = 0; i < n->n_attr; i++) {
        const struct attr *a = &n->attr[i];

        add(t, " ");
        add_word(t, a->name, strlen(a->name));
        add(t, "=");
        if (a->type == ATTR_INT)
            add(t, "%lld", (long long)a->i);
        for (size_t k = 0; a->type == ATTR_INTS && k < a->n; k++)
            add(t, "%lld,", (long long)a->ints[k]);
        if (a->type == ATTR_FLOAT)
            add(t, "%g", (double)a->f);
        if (a->type == ATTR_STRING)
            add_word(t, (const char *)a->s.data, a->s.size);
    }
}

/* Per cent of the weights that are not zero, for kernels that leave the zeros out. */
static int density(const struct plan_env *env, const struct node *n, int64_t all) {
    bool is_apart = n->weight && strcmp(n->weight->structure->name, "dense") != 0;
    int64_t stored = is_apart ? weight_count_stored(n->weight) : nonzero_count(env->graph, n->in[1]);

    return stored < 0 || all < 1 ? 100 : (int)((100 * stored + all - 1) / all);
}

static void add_weight(
    struct text *t, const struct plan_env *env, const struct node *n, const struct kernel *k) {
    const struct weight *w = n->weight;
    int64_t all = 0;

    if (w) {
        add(t, " w=%s,%s,%s", w->structure->name, w->code->name, w->scales->name);
        for (int d = 0; d < w->shape.rank; d++)
            add(t, ",%lld", (long long)w->shape.dim[d]);
    }
    if (!k->skips_zeros || n->n_in < 2 || n->in[1] < 0)
        return;
    (void)shape_count(w ? &w->shape : &env->graph->values[n->in[1]].shape, &all);
    add(t, " density=%d", density(env, n, all));
}

static void add_setting(struct text *t, const struct plan *p, const struct plan_env *env) {
    add(t, " cpu=%x threads=%u%s", cpu_bits(&env->options->cpu), p->n_threads,
        env->options->policy == NET_MEMORY ? " memory" : "");
}

bool plan_time_key(const struct plan *p, const struct plan_env *env, const struct node *n,
    const struct plan_choice *c, char ret[static TUNE_KEY_MAX]) {
    struct text t = {.buf = ret};
    struct layer_box box;

    plan_fill_layer(p, env, n, c->in, c->out, &box);
    add(&t, "%s", c->kernel->name);
    add_setting(&t, p, env);
    add(&t, " %s", n->op_type);
    for (int i = 0; i < n->n_in; i++) {
        if (n->in[i] >= 0)
            add_type(&t, &box.in[i], &box.in_type[i]);
        add(&t, "%s", n->in[i] < 0 ? " -" : plan_is_constant(p, n->in[i]) ? "c" : "");
    }
    add(&t, " >");
    for (int i = 0; i < n->n_out; i++) {
        if (n->out[i] >= 0)
            add_type(&t, &box.out[i], &box.out_type[i]);
    }
    for (int i = 0; i < n->n_post; i++)
        add(&t, " +%s%s", n->post[i].op->name, n->post[i].other >= 0 ? "2" : "");
    add_attributes(&t, n);
    add_weight(&t, env, n, c->kernel);
    return is_whole(&t);
}

bool plan_conversion_key(const struct plan *p, const struct plan_env *env, int v, enum layout from,
    enum layout to, char ret[static TUNE_KEY_MAX]) {
    struct vtype a = plan_type_of(p, env->graph, v, from), b = plan_type_of(p, env->graph, v, to);
    struct text t = {.buf = ret};

    add(&t, "convert");
    add_setting(&t, p, env);
    add_type(&t, &p->values[v].tensor, &a);
    add(&t, " > /%d", (int)b.layout);
    return is_whole(&t);
}

/* One kernel in the race: prepared, with memory to run on. */
struct runner {
    const struct kernel *kernel;
    struct kernel_state *state;
    char key[TUNE_KEY_MAX];
    struct timing timing; /* as known before */
    double best;
    bool is_out;
    struct layer_box box;
    const void *in[LAYER_MAX_IO], *post[NODE_MAX_POSTS];
    void *out[LAYER_MAX_IO];
    void *memory;
    size_t memory_size, touch; /* the first `touch` bytes are inputs */
    struct run_io io;
};

struct race {
    struct plan *p;
    const struct plan_env *env;
    const struct tune_limits *limits;
    struct pool *pool;
    struct pack_cache *packs;
    double end;
    bool was_stopped;
    char *sweep;
    size_t n;
    struct runner *runner; /* PLAN_MAX_CANDIDATES */
    unsigned sum;          /* of what was read, so that reading is done */
};

static bool is_over(struct race *c) {
    c->was_stopped = c->was_stopped || (c->limits->should_stop && c->limits->should_stop(c->limits->ctx));
    return c->was_stopped || clock_now_s() > c->end;
}

static size_t stored_bytes(const struct tensor *t, const struct vtype *type) {
    struct form f = {.shape = t->shape, .type = *type};

    return (plan_form_bytes(&f) + 127) / 64 * 64;
}

/* Numbers in [-1, 1) and codes of all kinds; what may be an index is 0. */
static void fill_noise(void *data, size_t size, const struct vtype *type) {
    uint32_t state = 1;

    for (size_t i = 0; type->dtype == DT_F32 && i < size / sizeof(float); i++) {
        state = state * 1664525u + 1013904223u;
        ((float *)data)[i] = (float)(state >> 8) / 8388608.0f - 1;
    }
    for (size_t i = 0; (type->quant.scale > 0 || type->layout == LAYOUT_BITS) && i < size; i++) {
        state = state * 1664525u + 1013904223u;
        ((uint8_t *)data)[i] = (uint8_t)(state >> 24);
    }
}

static void *place(char *base, size_t *used, const struct tensor *t, const struct vtype *type) {
    size_t at = *used;

    *used += stored_bytes(t, type);
    return base ? base + at : NULL;
}

static void *place_noise(char *base, size_t *used, const struct tensor *t, const struct vtype *type) {
    void *data = place(base, used, t, type);

    if (data)
        fill_noise(data, stored_bytes(t, type), type);
    return data;
}

static void *place_constant(char *base, size_t *used, const struct tensor *t, const struct vtype *type) {
    void *data = place(base, used, t, type);
    size_t bytes = 0;

    if (data && t->data && shape_bytes(&t->shape, t->dtype, &bytes))
        memcpy(data, t->data, bytes);
    return data;
}

/* Memory of a run: inputs, residuals, results, scratch. `base` NULL: only says how much that is. */
static size_t lay_out(const struct race *c, struct runner *r, char *base, size_t scratch) {
    const struct layer *l = &r->box.l;
    size_t used = 0;

    for (int i = 0; i < l->n_in; i++) {
        bool is_constant = l->in[i] && l->node && plan_is_constant(c->p, l->node->in[i]);

        if (l->in[i] && !is_constant)
            r->in[i] = place_noise(base, &used, l->in[i], &l->in_type[i]);
        else if (is_constant && r->kernel->reads_constants)
            r->in[i] = place_constant(base, &used, l->in[i], &l->in_type[i]);
    }
    for (int i = 0; l->node && i < l->node->n_post; i++) {
        if (l->node->post[i].other >= 0)
            r->post[i] = place_noise(base, &used, &l->post_in[i], &l->post_type[i]);
    }
    r->touch = used;
    for (int i = 0; i < l->n_out; i++) {
        if (!l->node || l->node->out[i] >= 0)
            r->out[i] = place(base, &used, &l->out[i], &l->out_type[i]);
    }
    r->io.scratch = base ? base + used : NULL;
    return used + scratch + 64;
}

static int prepare_memory(const struct race *c, struct runner *r, size_t scratch) {
    r->memory_size = lay_out(c, r, NULL, scratch);
    r->memory = hugemem_new(r->memory_size);
    if (!r->memory)
        return -ENOMEM;
    lay_out(c, r, r->memory, scratch);
    r->io.in = r->in;
    r->io.out = r->out;
    r->io.post_in = r->post;
    r->io.pool = c->p->n_threads > 1 ? c->pool : NULL;
    return 0;
}

static void runner_done(struct runner *r) {
    if (r->state)
        r->kernel->done(r->state);
    hugemem_free(r->memory, r->memory_size);
    r->state = NULL;
    r->memory = NULL;
}

/* 0, or -ENOMEM. A kernel that refuses is known to from now on. */
static int runner_prepare(const struct race *c, struct runner *r, struct error *err) {
    struct error why = {0};
    size_t scratch = 0;
    int e = r->kernel->prepare(&r->box.l, c->packs, &r->state, &scratch, &why);

    if (e == -ENOMEM || (e == 0 && prepare_memory(c, r, scratch) < 0))
        return error_oom(err);
    if (e == 0)
        return 0;
    r->is_out = true;
    r->timing = (struct timing){.n_rounds = TUNE_ROUNDS, .us = {INFINITY, INFINITY}};
    return tuner_put(c->env->tuner, r->key, &r->timing) < 0 ? error_oom(err) : 0;
}

static unsigned read_through(const char *data, size_t size) {
    unsigned sum = 0;

    for (size_t i = 0; i < size; i += 64)
        sum += (unsigned char)data[i];
    return sum;
}

static double run_once(struct race *c, const struct runner *r) {
    double start;

    c->sum += read_through(c->sweep, SWEEP_BYTES);
    c->sum += read_through(r->memory, r->touch);
    start = clock_now_us();
    r->kernel->run(r->state, &r->io);
    return clock_now_us() - start;
}

static void drop_hopeless(struct race *c, double limit) {
    double least = HUGE_VAL;

    for (size_t i = 0; i < c->n; i++)
        least = fmin(least, c->runner[i].best);
    for (size_t i = 0; i < c->n; i++)
        c->runner[i].is_out = c->runner[i].is_out || c->runner[i].best > limit * least;
}

/* All that are in the race, by turns. The first run touches what the others find warm. False: stopped before
 * the end. */
static bool run_race(struct race *c) {
    for (int k = 0; k <= MIN_RUNS; k++) {
        for (size_t i = 0; i < c->n; i++) {
            struct runner *r = &c->runner[i];
            double us;

            if (r->is_out)
                continue;
            if (is_over(c))
                return false;
            us = run_once(c, r);
            r->best = k > 1 ? fmin(r->best, us) : us;
        }
        if (k == 0)
            drop_hopeless(c, HOPELESS_AT_FIRST);
        else if (k >= HOPELESS_AFTER)
            drop_hopeless(c, HOPELESS);
    }
    return true;
}

/* What was far behind in the first round need not run in the second. */
static void skip_hopeless(struct race *c) {
    float least = INFINITY;

    for (size_t i = 0; i < c->n; i++) {
        if (c->runner[i].timing.n_rounds)
            least = fminf(least, c->runner[i].timing.us[0]);
    }
    for (size_t i = 0; i < c->n; i++) {
        struct runner *r = &c->runner[i];

        r->is_out = r->timing.n_rounds && r->timing.us[0] > (float)HOPELESS * least;
        r->best = r->is_out ? (double)r->timing.us[0] : HUGE_VAL;
    }
}

/* Everybody's time of this round. */
static int keep_times(const struct race *c, struct error *err) {
    for (size_t i = 0; i < c->n; i++) {
        struct runner *r = &c->runner[i];

        if (r->best >= HUGE_VAL || r->timing.n_rounds == TUNE_ROUNDS)
            continue;
        r->timing.us[r->timing.n_rounds++] = (float)r->best;
        if (tuner_put(c->env->tuner, r->key, &r->timing) < 0)
            return error_oom(err);
    }
    return 0;
}

static int hold_race(struct race *c, struct error *err) {
    bool is_done = false;
    int e = 0;

    c->packs = pack_cache_new(c->env->options->store);
    if (!c->packs)
        return error_oom(err);
    skip_hopeless(c);
    for (size_t i = 0; e == 0 && i < c->n; i++)
        e = c->runner[i].is_out ? 0 : runner_prepare(c, &c->runner[i], err);
    if (e == 0)
        is_done = run_race(c);
    if (is_done)
        e = keep_times(c, err);
    for (size_t i = 0; i < c->n; i++)
        runner_done(&c->runner[i]);
    c->packs = pack_cache_free(c->packs);
    return e;
}

/* Constants the kernels of this node may read, computed if that was put off. */
static int find_constants(struct race *c, const struct node *n, struct error *err) {
    for (int i = 0; i < n->n_in; i++) {
        int e = n->in[i] >= 0 && plan_is_constant(c->p, n->in[i])
                    ? plan_materialise(c->p, c->env->graph, n->in[i], err)
                    : 0;

        if (e < 0)
            return e;
    }
    return 0;
}

/* Layouts of one meaning make one key. */
static bool is_twin(const struct race *c, const struct runner *r) {
    for (size_t i = 0; i < c->n; i++) {
        if (strcmp(c->runner[i].key, r->key) == 0)
            return true;
    }
    return false;
}

/* A node with one way to run needs no times. */
static int race_node(struct race *c, const struct node *n, int round, struct error *err) {
    struct plan_choice choice[PLAN_MAX_CANDIDATES];
    size_t count = plan_candidates(c->p, c->env, n, choice), index[PLAN_MAX_CANDIDATES];
    int e;

    c->n = 0;
    for (size_t i = 0; count > 1 && i < count; i++) {
        struct runner *r = &c->runner[c->n];

        *r = (struct runner){.kernel = choice[i].kernel};
        if (!plan_time_key(c->p, c->env, n, &choice[i], r->key))
            continue;
        r->timing = tuner_get(c->env->tuner, r->key);
        index[c->n] = i;
        c->n += r->timing.n_rounds < round && !is_twin(c, r);
    }
    if (c->n == 0)
        return 0;
    e = find_constants(c, n, err);
    for (size_t i = 0; i < c->n; i++)
        plan_fill_layer(c->p, c->env, n, choice[index[i]].in, choice[index[i]].out, &c->runner[i].box);
    return e < 0 ? e : hold_race(c, err);
}

static int race_conversion(
    struct race *c, int v, enum layout from, enum layout to, int round, struct error *err) {
    struct vtype a = plan_type_of(c->p, c->env->graph, v, from), b = plan_type_of(c->p, c->env->graph, v, to);
    const struct shape *shape = &c->p->values[v].tensor.shape;
    struct runner *r = &c->runner[0];

    *r = (struct runner){0};
    if (layout_normal(shape, from) == layout_normal(shape, to) ||
        !plan_conversion_key(c->p, c->env, v, from, to, r->key))
        return 0;
    r->timing = tuner_get(c->env->tuner, r->key);
    plan_fill_conversion(c->p, c->env, shape, &a, &b, &r->box);
    r->kernel = plan_find_conversion(c->env, &r->box.l);
    c->n = 1;
    return r->kernel && r->timing.n_rounds < round ? hold_race(c, err) : 0;
}

/* Layouts a value may be made in and wanted in, whoever runs its neighbours. */
struct crossing {
    unsigned made, wanted;
};

static void find_crossings(const struct plan *p, const struct plan_env *env, struct crossing *ret) {
    const struct graph *g = env->graph;

    for (size_t i = 0; i < g->n_inputs; i++)
        ret[g->inputs[i]].made |= 1u << LAYOUT_PLAIN;
    for (size_t i = 0; i < g->n_outputs; i++)
        ret[g->outputs[i]].wanted |= 1u << LAYOUT_PLAIN;
    for (size_t k = 0; k < g->n_nodes; k++) {
        const struct node *n = &g->nodes[k];
        struct plan_choice c[PLAN_MAX_CANDIDATES];
        size_t count = plan_is_node_needed(p, n) ? plan_candidates(p, env, n, c) : 0;

        for (size_t i = 0; i < count; i++) {
            for (int v = 0; v < n->n_in; v++) {
                if (n->in[v] >= 0)
                    ret[n->in[v]].wanted |= 1u << c[i].in;
            }
            for (int v = 0; v < n->n_post; v++) {
                if (n->post[v].other >= 0)
                    ret[n->post[v].other].wanted |= 1u << c[i].out;
            }
            for (int v = 0; v < n->n_out; v++) {
                if (n->out[v] >= 0)
                    ret[n->out[v]].made |= 1u << c[i].out;
            }
        }
    }
}

static int race_crossings(struct race *c, const struct crossing *x, int round, struct error *err) {
    int e = 0;

    for (size_t v = 0; v < c->env->graph->n_values; v++) {
        if (plan_is_constant(c->p, (int)v) || c->p->values[v].tensor.shape.rank < 3)
            continue;
        for (int pair = 0; pair < LAYOUT_COUNT * LAYOUT_COUNT; pair++) {
            int from = pair / LAYOUT_COUNT, to = pair % LAYOUT_COUNT;

            if (e == 0 && x[v].made & 1u << from && x[v].wanted & 1u << to && !is_over(c))
                e = race_conversion(c, (int)v, (enum layout)from, (enum layout)to, round, err);
        }
    }
    return e;
}

static int measure_rounds(struct race *c, const struct crossing *x, struct error *err) {
    const struct graph *g = c->env->graph;
    int e = 0;

    for (int round = 1; e == 0 && round <= TUNE_ROUNDS; round++) {
        for (size_t k = 0; e == 0 && k < g->n_nodes && !is_over(c); k++) {
            bool keeps;

            if (plan_is_node_needed(c->p, &g->nodes[k]) && !plan_is_view(c->p, g, &g->nodes[k], &keeps))
                e = race_node(c, &g->nodes[k], round, err);
        }
        if (e == 0)
            e = race_crossings(c, x, round, err);
    }
    return e;
}

int plan_measure(struct plan *p, const struct plan_env *env, const struct tune_limits *limits,
    struct pool *pool, struct error *err) {
    _cleanup_(freep) struct crossing *x = calloc(env->graph->n_values + 1, sizeof(*x));
    struct race c = {.p = p, .env = env, .limits = limits, .pool = pool};
    int e;

    c.end = clock_now_s() + limits->seconds;
    c.runner = calloc(PLAN_MAX_CANDIDATES, sizeof(*c.runner));
    c.sweep = hugemem_new(SWEEP_BYTES);
    if (!x || !c.runner || !c.sweep) {
        e = error_oom(err);
    } else {
        onednn_enter();
        find_crossings(p, env, x);
        e = measure_rounds(&c, x, err);
    }
    free(c.runner);
    hugemem_free(c.sweep, SWEEP_BYTES);
    return e < 0 ? e : c.was_stopped;
}
