/* A changed network is run in two parts: the head, of the base, up to the cut (from the values that are kept,
 * or from the input), and the tail, of the changed one. */
#include <errno.h>
#include <string.h>

#include "compress/sensitivity_priv.h"
#include "compress/session.h"
#include "engine/ops.h"

#define FROM_INPUT (-1) /* the samples */

void kept_done(struct kept *k) {
    for (size_t i = 0; i < k->n_tensors; i++)
        free(k->t[i].data);
    free(k->t);
    free(k->value);
    *k = (struct kept){0};
}

struct part {
    struct session session;
    size_t n_in;
    int *value;        /* [n_in] ids in the base (canonical), FROM_INPUT for the network's input */
    struct tensor *in; /* [n_in] of the present batch */
    struct shape *shape;
};

static void part_done(struct part *p) {
    session_done(&p->session);
    free(p->value);
    free(p->in);
    free(p->shape);
}

struct run {
    struct sensitivity *s;
    struct sensitivity_base *b;
    const struct graph *g;
    const struct cut_digests *d;
    struct part head, tail;
    bool has_head;
    int *missing; /* what the head computes: values of the base */
    size_t n_missing;
    struct kept next; /* of the cut, when it is to be kept */
    bool keeps;
    float *x;
};

static void run_done(struct run *r) {
    part_done(&r->head);
    part_done(&r->tail);
    kept_done(&r->next);
    free(r->missing);
    free(r->x);
}

static int canonical(const struct run *r, const struct cut_digests *d, int value) {
    return cut_digests_find(&r->b->digests, &d->value[value]);
}

static int find_kept(const struct kept *k, int value) {
    for (size_t i = 0; i < k->n; i++)
        if (k->value[i] == value)
            return (int)i;
    return -1;
}

/* ---- which values may be the cut ---- */

static bool is_common(void *ctx, int value) {
    const struct run *r = ctx;
    int v = r->d ? canonical(r, r->d, value) : -1;

    return v >= 0 && r->b->is_cuttable[v];
}

static const struct shape *shape_of_common(void *ctx, int value) {
    const struct run *r = ctx;

    return &r->b->shapes.value[canonical(r, r->d, value)].shape;
}

static bool is_kept(void *ctx, int value) {
    const struct run *r = ctx;

    return find_kept(&r->b->kept, canonical(r, &r->b->digests, value)) >= 0;
}

static const struct shape *shape_of_kept(void *ctx, int value) {
    const struct run *r = ctx;

    return &r->b->shapes.value[value].shape;
}

/* ---- the two parts ---- */

static uint64_t count_layers(const struct graph *g) {
    uint64_t n = 0;

    for (size_t i = 0; i < g->n_nodes; i++)
        n += g->nodes[i].op && g->nodes[i].op->couple == OP_COUPLE_FREE;
    return n;
}

static bool is_input(const struct graph *g, int value) {
    return g->inputs[0] == value;
}

/* `d`: digests of the graph that was cut; NULL: nothing but the input is given. */
static int open_part(struct run *r, struct cut *c, const struct graph *g, const struct cut_digests *d,
    struct part *ret, struct error *err) {
    ret->n_in = c->n_in;
    ret->value = calloc(c->n_in + 1, sizeof(*ret->value));
    ret->in = calloc(c->n_in + 1, sizeof(*ret->in));
    ret->shape = calloc(c->n_in + 1, sizeof(*ret->shape));
    if (!ret->value || !ret->in || !ret->shape)
        return error_oom(err);
    for (size_t i = 0; i < c->n_in; i++)
        ret->value[i] = is_input(g, c->in[i]) ? FROM_INPUT : canonical(r, d, c->in[i]);
    r->s->facts.layers_run += count_layers(c->graph) * (uint64_t)r->s->facts.n;
    return session_open_graph(TAKE(c->graph), &ret->session, err);
}

static int open_tail(struct run *r, const int *wanted, size_t n_wanted, struct error *err) {
    _cleanup_(cut_done) struct cut c = {0};
    int e = cut_new(r->g, wanted, n_wanted, is_common, shape_of_common, r, &c, err);

    return e < 0 ? e : open_part(r, &c, r->g, r->d, &r->tail, err);
}

static uint64_t bytes_of(const struct run *r, int value) {
    const struct shape *s = &r->b->shapes.value[value].shape;
    uint64_t n = sizeof(float) * (uint64_t)r->s->facts.n;

    for (int i = 1; i < s->rank; i++)
        n *= (uint64_t)s->dim[i];
    return n;
}

/* Does the cut fit beside what is kept already? */
static int plan_keeping(struct run *r, struct error *err) {
    uint64_t used = 0, bytes = 0;
    int64_t n_batches = (r->s->facts.n + r->s->batch - 1) / r->s->batch;

    for (size_t i = 0; i < r->s->n_bases; i++)
        used += r->s->base[i].kept.bytes;
    for (size_t i = 0; i < r->tail.n_in; i++)
        bytes += r->tail.value[i] == FROM_INPUT ? 0 : bytes_of(r, r->tail.value[i]);
    r->keeps = used + bytes <= r->s->o.cache_bytes;
    if (!r->keeps)
        return 0;
    r->next.bytes = bytes;
    r->next.value = calloc(r->tail.n_in + 1, sizeof(*r->next.value));
    r->next.t = calloc(r->tail.n_in * (size_t)n_batches + 1, sizeof(*r->next.t));
    if (!r->next.value || !r->next.t)
        return error_oom(err);
    for (size_t i = 0; i < r->tail.n_in; i++)
        if (r->tail.value[i] != FROM_INPUT)
            r->next.value[r->next.n++] = r->tail.value[i];
    return 0;
}

/* What the tail wants and nobody has kept. */
static int open_head(struct run *r, struct error *err) {
    _cleanup_(cut_done) struct cut c = {0};
    int e;

    r->missing = calloc(r->tail.n_in + 1, sizeof(*r->missing));
    if (!r->missing)
        return error_oom(err);
    for (size_t i = 0; i < r->tail.n_in; i++)
        if (r->tail.value[i] != FROM_INPUT && find_kept(&r->b->kept, r->tail.value[i]) < 0)
            r->missing[r->n_missing++] = r->tail.value[i];
    if (r->n_missing == 0)
        return 0;
    r->has_head = true;
    e = cut_new(r->b->graph, r->missing, r->n_missing, is_kept, shape_of_kept, r, &c, err);
    if (e == 0)
        e = open_part(r, &c, r->b->graph, &r->b->digests, &r->head, err);
    return e < 0 ? e : plan_keeping(r, err);
}

/* ---- batches ---- */

static int read_input(struct run *r, int64_t first, int64_t count, struct tensor *ret, struct error *err) {
    struct sensitivity *s = r->s;

    *ret = (struct tensor){.dtype = DT_F32, .shape = s->samples->item};
    ret->shape.dim[0] = count;
    if (s->x) {
        ret->data = s->x + first * s->item;
        return 0;
    }
    if (!r->x && !(r->x = alloc_aligned((size_t)(s->batch * s->item) * sizeof(*r->x))))
        return error_oom(err);
    ret->data = r->x;
    return s->samples->read(s->samples->ctx, first, count, r->x, err);
}

/* The present batch of a value: kept, or what the head has just computed. */
static struct tensor value_of(const struct run *r, int value, size_t batch) {
    int k = find_kept(&r->b->kept, value);

    if (k >= 0)
        return r->b->kept.t[batch * r->b->kept.n + (size_t)k];
    for (size_t i = 0; i < r->n_missing; i++)
        if (r->missing[i] == value)
            return r->head.session.out[i];
    return (struct tensor){0};
}

static int run_part(
    struct run *r, struct part *p, int64_t first, int64_t count, size_t batch, struct error *err) {
    int e = 0;

    for (size_t i = 0; e == 0 && i < p->n_in; i++) {
        if (p->value[i] == FROM_INPUT)
            e = read_input(r, first, count, &p->in[i], err);
        else
            p->in[i] = value_of(r, p->value[i], batch);
        p->shape[i] = p->in[i].shape;
    }
    if (e == 0)
        e = session_plan(&p->session, p->shape, p->n_in, err);
    if (e == 0)
        session_run(&p->session, p->in);
    return e;
}

static int keep_batch(struct run *r, size_t batch, struct error *err) {
    struct kept *k = &r->next;

    for (size_t i = 0; i < k->n; i++) {
        struct tensor from = value_of(r, k->value[i], batch), *to = &k->t[batch * k->n + i];
        size_t size;

        *to = from;
        to->data = NULL;
        k->n_tensors = batch * k->n + i + 1;
        if (!shape_bytes(&from.shape, from.dtype, &size) || !(to->data = alloc_aligned(size)))
            return error_oom(err);
        memcpy(to->data, from.data, size);
    }
    return 0;
}

static int run_batch(
    struct run *r, int64_t first, int64_t count, sensitivity_sink *sink, void *ctx, struct error *err) {
    size_t batch = (size_t)(first / r->s->batch);
    int e = r->has_head ? run_part(r, &r->head, first, count, batch, err) : 0;

    if (e == 0 && r->keeps)
        e = keep_batch(r, batch, err);
    if (e == 0)
        e = run_part(r, &r->tail, first, count, batch, err);
    return e < 0 ? e : sink(ctx, first, count, r->tail.session.out, err);
}

static int check_cancelled(const struct sensitivity *s, struct error *err) {
    const struct progress *p = s->o.progress;

    return p && p->is_cancelled && p->is_cancelled(p->ctx)
               ? error_code(err, -ECANCELED, "cancelled", "cancelled")
               : 0;
}

int sensitivity_run(struct sensitivity *s, struct sensitivity_base *b, const struct graph *g,
    const struct cut_digests *d, const int *wanted, size_t n_wanted, sensitivity_sink *sink, void *ctx,
    struct error *err) {
    _cleanup_(run_done) struct run r = {.s = s, .b = b, .g = g, .d = d};
    int e = 0;

    s->facts.layers_whole += count_layers(g) * (uint64_t)s->facts.n;
    if (n_wanted > 0)
        e = open_tail(&r, wanted, n_wanted, err);
    if (e == 0 && n_wanted > 0)
        e = open_head(&r, err);
    for (int64_t first = 0; e == 0 && first < s->facts.n; first += s->batch) {
        int64_t count = s->facts.n - first < s->batch ? s->facts.n - first : s->batch;

        e = check_cancelled(s, err);
        if (e == 0)
            e = n_wanted > 0 ? run_batch(&r, first, count, sink, ctx, err)
                             : sink(ctx, first, count, NULL, err);
    }
    if (e == 0 && r.keeps) {
        kept_done(&b->kept);
        b->kept = r.next;
        r.next = (struct kept){0};
    }
    return e;
}
