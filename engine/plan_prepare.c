/* Kernels of a plan's steps are prepared: weights packed, primitives made. That is most of what loading
 * costs, and no step needs another's, so that threads that are to spare share them. */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "engine/ops.h"
#include "engine/plan.h"
#include "engine/pool.h"

static void fill_step_layer(
    const struct plan *p, const struct plan_env *env, const struct step *s, struct layer_box *box) {
    enum layout in = LAYOUT_PLAIN, out = LAYOUT_PLAIN;

    if (!s->node) {
        const struct form *from = &p->forms[s->in[0]];

        plan_fill_conversion(p, env, &from->shape, &from->type, &p->forms[s->out[0]].type, box);
        return;
    }
    for (int i = 0; i < s->n_in; i++) {
        if (s->in[i] >= 0 && !plan_is_constant(p, p->forms[s->in[i]].value) &&
            p->forms[s->in[i]].shape.rank >= 3)
            in = p->forms[s->in[i]].type.layout;
    }
    for (int i = 0; i < s->n_out; i++) {
        if (s->out[i] >= 0 && p->forms[s->out[i]].shape.rank >= 3)
            out = p->forms[s->out[i]].type.layout;
    }
    plan_fill_layer(p, env, s->node, in, out, box);
    box->l.in_place_post = s->in_place_post;
}

static void count_step(const struct plan *p, const struct layer_box *box, struct step *s) {
    struct tensor in[LAYER_MAX_IO], out[LAYER_MAX_IO];
    const struct tensor *in_ptr[LAYER_MAX_IO];
    struct op_cost cost = {0};

    if (!s->node || !s->node->op->cost)
        return;
    for (int i = 0; i < s->n_in; i++) {
        in_ptr[i] = NULL;
        if (s->node->in[i] < 0)
            continue;
        in[i] = box->in[i];
        in[i].dtype = p->values[s->node->in[i]].logical;
        in_ptr[i] = &in[i];
    }
    for (int i = 0; i < s->n_out; i++)
        out[i] = box->out[i];
    s->node->op->cost(s->node, in_ptr, out, &cost);
    s->macs = cost.macs;
}

/* After packing so much, what was read of the file leaves memory again: else file and packs are both there.
 */
#define RELEASE_BYTES ((size_t)16 << 20)

struct preparing {
    struct plan *plan;
    const struct plan_env *env;
    size_t *scratch;      /* bytes each step asked for */
    atomic_size_t packed; /* bytes since pages were released */
    atomic_size_t failed; /* the first step that did; the ones behind it are not wanted any more */

    pthread_mutex_t mutex; /* protects what it says */
    int status;
    struct error err;
};

/* The first one decides, as if the steps were done one after the other. */
static void fail(struct preparing *c, size_t step, int status, const struct error *err) {
    pthread_mutex_lock(&c->mutex);
    if (step < atomic_load(&c->failed)) {
        atomic_store(&c->failed, step);
        c->status = status;
        c->err = *err;
    }
    pthread_mutex_unlock(&c->mutex);
}

static void prepare_step(void *ctx, unsigned i) {
    struct preparing *c = ctx;
    struct step *s = &c->plan->steps[i];
    struct error err = {0};
    struct layer_box box;
    int r;

    if (i > atomic_load(&c->failed))
        return;
    fill_step_layer(c->plan, c->env, s, &box);
    pack_take_used();
    r = s->kernel->prepare(&box.l, c->env->packs, &s->state, &c->scratch[i], &err);
    if (r < 0) {
        fail(c, i, r, &err);
        return;
    }
    s->weight_bytes = pack_take_used();
    if (atomic_fetch_add(&c->packed, s->weight_bytes) + s->weight_bytes >= RELEASE_BYTES) {
        atomic_store(&c->packed, 0);
        graph_release_pages(c->env->graph);
    }
    count_step(c->plan, &box, s);
}

/* Weights of fewer elements are packed before a thread would have started to. */
#define MIN_TO_SHARE ((int64_t)1 << 20)

static bool is_worth_threads(const struct plan *p) {
    int64_t sum = 0;

    for (size_t i = 0; i < p->n_steps && sum < MIN_TO_SHARE; i++) {
        const struct node *n = p->steps[i].node;
        int64_t count = 0;

        if (!n || n->n_in < 2 || n->in[1] < 0)
            continue;
        if (n->weight)
            count = n->weight->rows * n->weight->cols;
        else if (plan_is_constant(p, n->in[1]) && !shape_count(&p->values[n->in[1]].tensor.shape, &count))
            count = 0;
        sum += count < MIN_TO_SHARE ? count : MIN_TO_SHARE;
    }
    return sum >= MIN_TO_SHARE;
}

/* Without threads it is done on this one: there is nothing to report. */
static struct pool *pool_to_share(const struct plan *p, const struct plan_env *env) {
    const struct net_options *o = env->options;
    unsigned n = o->spare_threads && is_worth_threads(p) ? o->spare_threads(o->spare_ctx) : 1;
    struct error ignored = {0};
    struct pool *pool = NULL;

    return n > 1 && pool_new(n, &pool, &ignored) == 0 ? pool : NULL;
}

static int place_scratch(struct plan *p, const size_t *scratch) {
    for (size_t i = 0; i < p->n_steps; i++) {
        int b = scratch[i] ? plan_add_buffer(p, BUFFER_ARENA, scratch[i]) : -1;

        if (!scratch[i])
            continue;
        if (b < 0)
            return -ENOMEM;
        p->buffers[b].first = p->buffers[b].last = (int)i;
        p->steps[i].scratch = b;
    }
    return 0;
}

int plan_prepare(
    struct plan *p, const struct plan_env *env, const struct node **ret_node, struct error *err) {
    _cleanup_(freep) size_t *scratch = calloc(p->n_steps + 1, sizeof(*scratch));
    _cleanup_(pool_freep) struct pool *pool = NULL;
    struct preparing c = {.plan = p, .env = env, .scratch = scratch, .mutex = PTHREAD_MUTEX_INITIALIZER};

    if (!scratch)
        return error_oom(err);
    atomic_init(&c.failed, p->n_steps);
    pool = pool_to_share(p, env);
    pool_run(pool, (unsigned)p->n_steps, prepare_step, &c);
    if (c.status < 0) {
        *ret_node = p->steps[c.failed].node;
        error_copy(err, &c.err);
        return c.status;
    }
    return place_scratch(p, scratch) < 0 ? error_oom(err) : 0;
}
