#include "compress/evaluate.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/stats.h"

#define BATCH 16

void evaluation_done(struct evaluation *e) {
    free(e->class_n);
    free(e->class_correct);
    free(e->answer);
    free(e->is_correct);
    *e = (struct evaluation){0};
}

/* The first output of shape [N,K] or [N,K,1,1]; -1: none. */
static int scores_output(const struct session *s, int64_t *ret_classes) {
    for (size_t i = 0; i < s->n_out; i++) {
        const struct shape *t = &s->out[i].shape;

        if (s->out[i].dtype == DT_F32 &&
            (t->rank == 2 || (t->rank == 4 && t->dim[2] == 1 && t->dim[3] == 1)) && t->dim[1] > 1) {
            *ret_classes = t->dim[1];
            return (int)i;
        }
    }
    return -1;
}

static int start(struct session *s, struct feed *f, const json_t *labels, struct evaluation *e,
    int *ret_output, struct error *err) {
    uint32_t present = pack_n_classes(f->pack);
    int r;

    *ret_output = scores_output(s, &e->n_classes);
    if (*ret_output < 0)
        return error_code(
            err, -EBADMSG, "not_a_classifier", "the model has no output of shape [N,K] with class scores");
    if (present < 2)
        return error_code(
            err, -EBADMSG, "bad_dataset", "the data set has %u class: accuracy needs at least two", present);
    r = feed_map_classes(f, labels, e->n_classes, err);
    if (r < 0)
        return r;
    e->class_n = calloc((size_t)e->n_classes + 1, sizeof(*e->class_n));
    e->class_correct = calloc((size_t)e->n_classes + 1, sizeof(*e->class_correct));
    e->answer = calloc(f->n + 1, sizeof(*e->answer));
    e->is_correct = calloc(f->n + 1, sizeof(*e->is_correct));
    return e->class_n && e->class_correct && e->answer && e->is_correct ? 0 : error_oom(err);
}

/* Scores of one item: best class, and how many are better than the right one. */
static void judge(struct evaluation *e, const float *score, int64_t label, uint64_t i) {
    int64_t best = 0, better = 0;

    for (int64_t k = 1; k < e->n_classes; k++)
        if (score[k] > score[best])
            best = k;
    for (int64_t k = 0; k < e->n_classes; k++)
        better += score[k] > score[label] || (score[k] == score[label] && k < label);
    e->answer[i] = (int32_t)best;
    e->is_correct[i] = best == label;
    e->n++;
    e->n_correct += best == label;
    e->n_top5 += better < 5;
    e->class_n[label]++;
    e->class_correct[label] += best == label;
}

static int run_batch(
    struct session *s, const struct feed *f, struct tensor *in, uint64_t first, struct error *err) {
    int r = session_plan(s, &in->shape, 1, err);

    for (int64_t i = 0; r == 0 && i < in->shape.dim[0]; i++)
        r = feed_read(f, first + (uint64_t)i, (float *)in->data + (size_t)i * f->item_floats, err);
    if (r == 0)
        session_run(s, in);
    return r;
}

int evaluate(struct session *s, struct feed *f, const json_t *labels, const struct progress *p,
    struct evaluation *ret, struct error *err) {
    _cleanup_(evaluation_done) struct evaluation e = {0};
    const struct graph *g = net_graph(s->net);
    uint64_t step = g->values[g->inputs[0]].shape.dim[0] > 0 ? 1 : BATCH;
    struct tensor in = {.dtype = DT_F32, .shape = f->shape};
    _cleanup_(freep) float *data = alloc_aligned(step * f->item_floats * sizeof(float));
    int output = -1, r = 0;

    if (!data)
        return error_oom(err);
    in.data = data;
    for (uint64_t first = 0; r == 0 && first < f->n; first += step) {
        uint64_t n = f->n - first < step ? f->n - first : step;

        in.shape.dim[0] = (int64_t)n;
        r = run_batch(s, f, &in, first, err);
        if (r == 0 && output < 0)
            r = start(s, f, labels, &e, &output, err);
        for (uint64_t i = 0; r == 0 && i < n; i++) {
            int64_t label = feed_label(f, first + i);

            if (label < 0)
                return error_code(err, -EBADMSG, "bad_dataset", "the data set has no labels");
            judge(&e, (const float *)s->out[output].data + (int64_t)i * e.n_classes, label, first + i);
        }
        if (r == 0)
            r = progress_at(p, (double)(first + n) / (double)f->n, "evaluating", err);
    }
    if (r < 0)
        return r;
    *ret = e;
    e = (struct evaluation){0};
    return 0;
}

static json_t *share(uint64_t k, uint64_t n) {
    return n ? json_real((double)k / (double)n) : json_null();
}

static json_t *interval_json(struct interval i) {
    return json_pack("[f, f]", i.low, i.high);
}

/* Name of a network's class, as the data set calls it. */
static const char *class_name(const struct feed *f, int64_t class) {
    for (uint32_t i = 0; i < pack_n_classes(f->pack); i++)
        if (f->class_of[i] == class)
            return pack_class(f->pack, i);
    return NULL;
}

static json_t *per_class_json(const struct evaluation *e, const struct feed *f) {
    json_t *list = json_array();

    for (int64_t c = 0; c < e->n_classes; c++)
        if (e->class_n[c])
            json_array_append_new(list,
                json_pack("{s:I, s:s?, s:I, s:I, s:o}", "index", (json_int_t)c, "class", class_name(f, c),
                    "n", (json_int_t)e->class_n[c], "correct", (json_int_t)e->class_correct[c], "accuracy",
                    share(e->class_correct[c], e->class_n[c])));
    return list;
}

/* n01: the reference right, this one wrong; n10 the other way. */
static json_t *pair_json(const struct evaluation *e, const struct evaluation *reference, const char *name) {
    uint64_t n01 = 0, n10 = 0, same = 0;

    if (!reference || reference == e || reference->n != e->n)
        return json_null();
    for (uint64_t i = 0; i < e->n; i++) {
        n01 += reference->is_correct[i] && !e->is_correct[i];
        n10 += !reference->is_correct[i] && e->is_correct[i];
        same += reference->answer[i] == e->answer[i];
    }
    return json_pack("{s:s, s:I, s:I, s:f, s:f, s:o, s:o}", "reference", name, "n01", (json_int_t)n01, "n10",
        (json_int_t)n10, "mcnemar_p", stats_mcnemar(n01, n10), "difference",
        ((double)n10 - (double)n01) / (double)e->n, "ci95",
        interval_json(stats_paired_difference95(n01, n10, e->n)), "agreement", share(same, e->n));
}

json_t *evaluation_json(
    const struct evaluation *e, const struct feed *f, const struct evaluation *reference, const char *name) {
    return json_pack("{s:s, s:I, s:o, s:o, s:o, s:o, s:o}", "split", pack_split(f->pack, f->split), "n",
        (json_int_t)e->n, "accuracy", share(e->n_correct, e->n), "ci95",
        interval_json(stats_wilson95(e->n_correct, e->n)), "top5", share(e->n_top5, e->n), "per_class",
        per_class_json(e, f), "vs_reference", pair_json(e, reference, name));
}

#define LATENCY_ITEMS 16
#define LATENCY_MAX   20000

static int prepare_latency(
    struct session *s, size_t n, const struct feed *f, float **ret, uint64_t *ret_items, struct error *err) {
    uint64_t items = f->n < LATENCY_ITEMS ? f->n : LATENCY_ITEMS;
    float *data = alloc_aligned(items * f->item_floats * sizeof(float));
    int r = data ? 0 : error_oom(err);

    for (uint64_t i = 0; r == 0 && i < items; i++)
        r = feed_read(f, i, data + i * f->item_floats, err);
    for (size_t k = 0; r == 0 && k < n; k++)
        r = session_plan(&s[k], &f->shape, 1, err);
    *ret = data;
    *ret_items = items;
    return r;
}

int evaluate_latency(
    struct session *s, size_t n, struct feed *f, double seconds, struct latency *ret, struct error *err) {
    _cleanup_(freep) float *data = NULL;
    _cleanup_(freep) double *us = calloc(n * LATENCY_MAX + 1, sizeof(*us));
    uint64_t items = 1, runs = 0;
    double end;
    int r = us ? prepare_latency(s, n, f, &data, &items, err) : error_oom(err);

    if (r < 0)
        return r;
    end = clock_now_us() + seconds * 1e6;
    for (; runs < LATENCY_MAX && (runs < 20 || clock_now_us() < end); runs++)
        for (size_t k = 0; k < n; k++) {
            struct tensor in = {
                .dtype = DT_F32, .shape = f->shape, .data = data + runs % items * f->item_floats};
            double start;

            in.shape.dim[0] = 1;
            session_run(&s[k],
                &in); /* its weights are in the caches when it is timed, as in a server that runs it often */
            start = clock_now_us();
            session_run(&s[k], &in);
            us[k * LATENCY_MAX + runs] = clock_now_us() - start;
        }
    for (size_t k = 0; k < n; k++)
        ret[k] = latency_of(us + k * LATENCY_MAX, runs);
    return 0;
}

json_t *latency_json(const struct latency *l) {
    return json_pack("{s:i, s:i, s:f, s:f, s:f}", "batch", 1, "threads", 1, "p50_us", l->p50, "p95_us",
        l->p95, "p99_us", l->p99);
}

#define LAYER_RUNS 20

int evaluate_layers(struct session *s, struct feed *f, json_t **ret, struct error *err) {
    size_t n = plan_n_steps(s->plan);
    _cleanup_(freep) float *us = calloc(2 * n + 1, sizeof(*us));
    _cleanup_(freep) float *data = NULL;
    struct tensor in = {.dtype = DT_F32, .shape = f->shape};
    float *least = us + n;
    uint64_t items = 1;
    int r = us ? prepare_latency(s, 1, f, &data, &items, err) : error_oom(err);

    if (r < 0)
        return r;
    in.shape.dim[0] = 1;
    for (uint64_t run = 0; run < LAYER_RUNS; run++) {
        in.data = data + run % items * f->item_floats;
        plan_run(s->plan, &s->arena, &in, s->out, s->pool, us);
        for (size_t i = 0; i < n; i++)
            least[i] = run ? fminf(least[i], us[i]) : us[i];
    }
    *ret = json_object();
    for (size_t i = 0; *ret && i < n; i++) {
        struct plan_step step;

        plan_get_step(s->plan, i, &step);
        json_object_set_new(*ret, step.id, json_real((double)least[i]));
    }
    return *ret ? 0 : error_oom(err);
}
