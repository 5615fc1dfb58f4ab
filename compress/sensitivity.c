#include "compress/sensitivity.h"

#include <errno.h>
#include <string.h>

#include "compress/feed.h"
#include "compress/sensitivity_priv.h"
#include "compress/session.h"

#define BATCH 16

/* ---- bases ---- */

static void base_done(struct sensitivity_base *b, size_t n_outputs) {
    for (size_t i = 0; b->answers && i < n_outputs; i++)
        free(b->answers[i]);
    free(b->answers);
    kept_done(&b->kept);
    free(b->is_cuttable);
    shapes_done(&b->shapes);
    cut_digests_done(&b->digests);
    graph_free(b->graph);
    *b = (struct sensitivity_base){0};
}

/* Values that a run rounds to integers go on as integers when the network runs as a whole; a cut behind the
 * rounding would make floats of them. So none is made there. */
static bool is_rounding(const struct node *n) {
    return strstr(n->op_type, "QuantizeLinear") || strstr(n->op_type, "DequantizeLinear");
}

static int find_cuttable(struct sensitivity *s, struct sensitivity_base *b, struct error *err) {
    const struct graph *g = b->graph;
    struct shape in = s->samples->item;
    int r;

    in.dim[0] = s->batch > 1 ? 2 : 1;
    r = shapes_infer(g, &in, &b->shapes, err);
    if (r < 0)
        return r;
    b->is_cuttable = calloc(g->n_values + 1, sizeof(*b->is_cuttable));
    if (!b->is_cuttable)
        return error_oom(err);
    for (size_t v = 0; v < g->n_values; v++) {
        const struct tensor *t = &b->shapes.value[v];

        b->is_cuttable[v] = g->values[v].producer >= 0 && t->dtype == DT_F32 && t->shape.rank > 1 &&
                            t->shape.dim[0] == in.dim[0] && !t->data && !b->shapes.is_counted[v] &&
                            !is_rounding(&g->nodes[g->values[v].producer]);
    }
    return 0;
}

static int check_outputs(struct sensitivity *s, const struct sensitivity_base *b, struct error *err) {
    for (size_t o = 0; o < s->facts.n_outputs; o++) {
        int v = b->graph->outputs[o];
        const struct tensor *t = &b->shapes.value[v];
        int64_t n;

        if (t->dtype != DT_F32 || t->shape.rank < 1 || t->shape.dim[0] != (s->batch > 1 ? 2 : 1) ||
            b->shapes.is_counted[v] || !shape_count(&t->shape, &n))
            return error_code(err, -EBADMSG, "method_not_applicable",
                "output '%s' is not floats of each sample: damage cannot be measured on it",
                b->graph->values[v].name);
        n /= t->shape.dim[0];
        if (s->n_bases > 0 && n != s->per_sample[o])
            return error_code(err, -EBADMSG, "method_not_applicable",
                "output '%s' has another shape than before", b->graph->values[v].name);
        s->per_sample[o] = n;
    }
    return 0;
}

struct answering {
    struct sensitivity *s;
    struct sensitivity_base *b;
};

static int take_answers(
    void *ctx, int64_t first, int64_t count, const struct tensor *out, struct error *err) {
    struct answering *a = ctx;

    (void)err;
    for (size_t o = 0; o < a->s->facts.n_outputs; o++)
        memcpy(a->b->answers[o] + first * a->s->per_sample[o], out[o].data,
            (size_t)(count * a->s->per_sample[o]) * sizeof(float));
    return 0;
}

static int answer(struct sensitivity *s, struct sensitivity_base *b, struct error *err) {
    struct answering a = {s, b};

    b->answers = calloc(s->facts.n_outputs + 1, sizeof(*b->answers));
    if (!b->answers)
        return error_oom(err);
    for (size_t o = 0; o < s->facts.n_outputs; o++) {
        b->answers[o] = calloc((size_t)(s->facts.n * s->per_sample[o]) + 1, sizeof(float));
        if (!b->answers[o])
            return error_oom(err);
    }
    return sensitivity_run(
        s, b, b->graph, NULL, b->graph->outputs, s->facts.n_outputs, take_answers, &a, err);
}

static bool is_same(const struct sensitivity_base *a, const struct sensitivity_base *b) {
    for (size_t o = 0; o < a->graph->n_outputs; o++)
        if (memcmp(&a->digests.value[a->graph->outputs[o]], &b->digests.value[b->graph->outputs[o]],
                sizeof(struct cut_digest)) != 0)
            return false;
    return true;
}

/* Digests first: a base that is there already costs no run. */
static int make_base(struct sensitivity *s, const struct graph *g, size_t *ret, struct error *err) {
    struct sensitivity_base *b = &s->base[s->n_bases];
    int r = graph_clone(g, &b->graph, err);

    if (r == 0 && b->graph->n_outputs != s->facts.n_outputs)
        r = error_code(err, -EBADMSG, "method_not_applicable", "the number of outputs has changed");
    if (r == 0)
        r = cut_digests_new(b->graph, NULL, &b->digests, err);
    for (size_t i = 0; r == 0 && i < s->n_bases; i++)
        if (is_same(&s->base[i], b)) {
            base_done(b, s->facts.n_outputs);
            *ret = i;
            return 0;
        }
    if (r == 0)
        r = find_cuttable(s, b, err);
    if (r == 0)
        r = check_outputs(s, b, err);
    if (r == 0)
        r = answer(s, b, err);
    if (r < 0) {
        base_done(b, s->facts.n_outputs);
        return r;
    }
    *ret = s->n_bases++;
    return 0;
}

int sensitivity_add_base(struct sensitivity *s, const struct graph *g, size_t *ret, struct error *err) {
    if (s->n_bases == SENSITIVITY_MAX_BASES)
        return error_set(err, -EINVAL, "more than %d networks to compare with", SENSITIVITY_MAX_BASES);
    return make_base(s, g, ret, err);
}

/* ---- opening ---- */

static int read_samples(struct sensitivity *s, struct error *err) {
    uint64_t bytes;

    if (!shape_count(&s->samples->item, &s->item) || s->item > INT32_MAX)
        return error_set(err, -EFBIG, "the network's input is too large");
    bytes = (uint64_t)(s->item * s->facts.n) * sizeof(*s->x);
    if (bytes > s->o.cache_bytes / 2)
        return 0;
    s->o.cache_bytes -= bytes;
    s->x = alloc_aligned((size_t)bytes);
    return s->x ? s->samples->read(s->samples->ctx, 0, s->facts.n, s->x, err) : error_oom(err);
}

/* Labels of other classes than the network's are none. */
static int read_labels(struct sensitivity *s, struct error *err) {
    struct sensitivity_facts *f = &s->facts;
    struct feed *feed = s->samples->feed;

    if (!feed || !f->n_classes || pack_n_classes(feed->pack) < 2 ||
        feed_map_classes(feed, s->samples->source ? s->samples->source->labels : NULL, f->n_classes, NULL) <
            0)
        return 0;
    s->label = calloc((size_t)f->n + 1, sizeof(*s->label));
    if (!s->label)
        return error_oom(err);
    for (int64_t i = 0; i < f->n; i++) {
        s->label[i] = feed_label(feed, (uint64_t)i);
        f->n_labels += s->label[i] >= 0;
        f->n_correct += s->label[i] >= 0 && s->label[i] == s->answer[i];
    }
    f->label = f->n_labels > 0 ? s->label : NULL;
    return 0;
}

static int check_parent(const struct graph *g, const struct samples *samples, struct error *err) {
    if (g->n_inputs != 1)
        return error_code(err, -EBADMSG, "method_not_applicable",
            "the model has %zu inputs; damage is measured on networks of one input", g->n_inputs);
    if (g->n_outputs < 1)
        return error_code(err, -EBADMSG, "method_not_applicable", "the model has no output");
    return samples && samples->n > 0 ? 0 : error_code(err, -EBADMSG, "data_required", "a data set is needed");
}

int sensitivity_open(const struct graph *parent, const struct samples *samples,
    const struct sensitivity_options *o, struct sensitivity **ret, struct error *err) {
    _cleanup_(sensitivity_freep) struct sensitivity *s = NULL;
    size_t base;
    int r = check_parent(parent, samples, err);

    if (r < 0)
        return r;
    s = calloc(1, sizeof(*s));
    if (!s)
        return error_oom(err);
    s->samples = samples;
    s->o = o ? *o : (struct sensitivity_options){0};
    s->o.samples = s->o.samples > 0 ? s->o.samples : SENSITIVITY_SAMPLES;
    s->o.cache_bytes = s->o.cache_bytes > 0 ? s->o.cache_bytes : SENSITIVITY_CACHE_BYTES;
    s->batch = parent->values[parent->inputs[0]].shape.dim[0] > 0 ? 1 : BATCH;
    s->facts.n = samples->n < s->o.samples ? samples->n : s->o.samples;
    s->facts.n_outputs = parent->n_outputs;
    s->per_sample = calloc(parent->n_outputs + 1, sizeof(*s->per_sample));
    r = s->per_sample ? read_samples(s, err) : error_oom(err);
    if (r == 0)
        r = make_base(s, parent, &base, err);
    if (r == 0)
        r = score_parent(s, err);
    if (r == 0)
        r = read_labels(s, err);
    if (r < 0)
        return r;
    *ret = TAKE(s);
    return 0;
}

struct sensitivity *sensitivity_free(struct sensitivity *s) {
    if (!s)
        return NULL;
    for (size_t i = 0; i < s->n_bases; i++)
        base_done(&s->base[i], s->facts.n_outputs);
    free(s->x);
    free(s->per_sample);
    free(s->answer);
    free(s->label);
    free(s);
    return NULL;
}

const struct sensitivity_facts *sensitivity_facts(const struct sensitivity *s) {
    return &s->facts;
}

const float *sensitivity_answers(const struct sensitivity *s, size_t i, int64_t *ret_n) {
    *ret_n = s->facts.n * s->per_sample[i];
    return s->base[0].answers[i];
}

/* ---- judging ---- */

struct judging {
    struct sensitivity *s;
    const struct sensitivity_base *b;
    struct score score;
    int *wanted;    /* outputs that are not the base's */
    int *of_output; /* [n_outputs] which of them; -1: the base's own */
    size_t n_wanted;
    const float **y; /* [n_outputs] */
    struct cut_digests digests;
};

static void judging_done(struct judging *j) {
    score_done(&j->score);
    cut_digests_done(&j->digests);
    free(j->wanted);
    free(j->of_output);
    free(j->y);
}

static int check_output(
    const struct judging *j, size_t o, const struct tensor *t, int64_t count, struct error *err) {
    int64_t n;

    return t->dtype == DT_F32 && shape_count(&t->shape, &n) && n == count * j->s->per_sample[o]
               ? 0
               : error_code(
                     err, -EBADMSG, "method_not_applicable", "output %zu has another shape than before", o);
}

static int take_changed(
    void *ctx, int64_t first, int64_t count, const struct tensor *out, struct error *err) {
    struct judging *j = ctx;
    int r = 0;

    for (size_t o = 0; r == 0 && o < j->s->facts.n_outputs; o++) {
        if (j->of_output[o] >= 0)
            r = check_output(j, o, &out[j->of_output[o]], count, err);
        j->y[o] =
            j->of_output[o] >= 0 ? out[j->of_output[o]].data : j->b->answers[o] + first * j->s->per_sample[o];
    }
    if (r == 0)
        score_add(&j->score, first, count, j->y);
    return r;
}

static void find_wanted(struct judging *j, const struct graph *g, bool *ret_same) {
    *ret_same = true;
    for (size_t o = 0; o < g->n_outputs; o++) {
        bool same = !memcmp(&j->digests.value[g->outputs[o]], &j->b->digests.value[j->b->graph->outputs[o]],
            sizeof(struct cut_digest));

        *ret_same = *ret_same && same;
        same = same && !j->s->o.is_uncached;
        j->of_output[o] = same ? -1 : (int)j->n_wanted;
        if (!same)
            j->wanted[j->n_wanted++] = g->outputs[o];
    }
}

int sensitivity_judge(struct sensitivity *s, size_t base, const struct graph *g,
    struct sensitivity_damage *ret, struct error *err) {
    struct sensitivity_base *b = &s->base[base];
    _cleanup_(sensitivity_damage_done) struct sensitivity_damage d = {0};
    _cleanup_(judging_done) struct judging j = {.s = s,
        .b = b,
        .wanted = calloc(g->n_outputs + 1, sizeof(*j.wanted)),
        .of_output = calloc(s->facts.n_outputs + 1, sizeof(*j.of_output)),
        .y = calloc(s->facts.n_outputs + 1, sizeof(*j.y))};
    int r = j.wanted && j.of_output && j.y ? 0 : error_oom(err);

    if (r == 0 && g->n_outputs != s->facts.n_outputs)
        r = error_code(err, -EBADMSG, "method_not_applicable", "the number of outputs has changed");
    if (r == 0)
        r = cut_digests_new(g, &b->digests, &j.digests, err);
    if (r == 0)
        r = score_begin(s, &d, &j.score, err);
    if (r < 0)
        return r;
    find_wanted(&j, g, &d.is_same);
    r = sensitivity_run(
        s, b, g, s->o.is_uncached ? NULL : &j.digests, j.wanted, j.n_wanted, take_changed, &j, err);
    if (r < 0)
        return r;
    score_end(&j.score);
    *ret = d;
    d = (struct sensitivity_damage){0};
    return 0;
}

void sensitivity_damage_done(struct sensitivity_damage *d) {
    free(d->relative_l2);
    free(d->sample);
    free(d->answer);
    *d = (struct sensitivity_damage){0};
}

int sensitivity_measure(const struct graph *parent, const struct samples *samples,
    const struct sensitivity_options *o, const struct sensitivity_ask *asks, size_t n,
    struct sensitivity_damage *ret, struct error *err) {
    _cleanup_(sensitivity_freep) struct sensitivity *s = NULL;
    size_t done = 0;
    int r = sensitivity_open(parent, samples, o, &s, err);

    for (; r == 0 && done < n; done++) {
        _cleanup_(graph_freep) struct graph *g = NULL;

        r = asks[done].make(asks[done].ctx, parent, &g, err);
        if (r == 0)
            r = sensitivity_judge(s, 0, g, &ret[done], err);
        if (r < 0)
            break;
    }
    for (size_t i = 0; r < 0 && i < done; i++)
        sensitivity_damage_done(&ret[i]);
    return r;
}
