#include "compress/train_job.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "compress/evaluate.h"
#include "compress/finetune.h"
#include "compress/model_props.h"
#include "compress/train_pictures.h"
#include "compress/train_spec.h"
#include "compress/variant_file.h"
#include "engine/onnx.h"
#include "engine/summary.h"

#define LATENCY_SECONDS 1.0

/* A training before its first step. */
struct training {
    struct train_spec spec;
    struct graph *graph;
    json_t *labels, *preprocess; /* NULL: none */
};

static void training_done(struct training *t) {
    train_spec_done(&t->spec);
    graph_free(t->graph);
    json_decref(t->labels);
    json_decref(t->preprocess);
}

static json_t *class_names(const struct pack *p) {
    json_t *names = json_array();

    for (uint32_t i = 0; i < pack_n_classes(p); i++)
        json_array_append_new(names, json_string(pack_class(p, i)));
    return names;
}

static int make_network(
    const struct train_job *job, struct training *t, const struct progress *progress, struct error *err) {
    struct zoo_spec z = {.width = t->spec.network.width,
        .depth = t->spec.network.depth,
        .n_classes = pack_n_classes(job->pack),
        .seed = (uint64_t)t->spec.seed};
    struct preprocess p;
    int64_t dim[4];
    int r = train_pictures_look(job->pack, t->spec.network.size, job->output != NULL, progress, &p, err);

    if (r < 0)
        return r;
    if (z.n_classes < 2)
        return error_code(err, -EBADMSG, "bad_dataset",
            "the data set has pictures of %lld classes; there is nothing to tell apart",
            (long long)z.n_classes);
    preprocess_shape(&p, dim);
    z.channels = dim[1];
    z.height = dim[2];
    z.width_px = dim[3];
    t->labels = class_names(job->pack);
    t->preprocess = preprocess_to_json(&p);
    if (!t->labels || !t->preprocess)
        return error_oom(err);
    return zoo_new(t->spec.net, &z, &t->graph, err);
}

static bool is_set(const json_t *j) {
    return j && !json_is_null(j);
}

static int read_network(const struct train_job *job, struct training *t, struct error *err) {
    _cleanup_(closep) int fd = job->input ? open(job->input, O_RDONLY | O_CLOEXEC) : -1;
    json_auto_t *labels = NULL, *preprocess = NULL;
    int r;

    if (fd < 0)
        return error_errno(err, "from: the model file cannot be opened");
    r = onnx_read_fd(fd, &t->graph, err);
    if (r < 0)
        return r;
    model_props_read(t->graph, &labels, &preprocess);
    t->labels = json_incref(is_set(job->labels) ? job->labels : labels);
    t->preprocess = json_incref(is_set(job->preprocess) ? job->preprocess : preprocess);
    return finetune_prepare(t->graph, err);
}

static int training_open(
    const struct train_job *job, struct training *ret, const struct progress *progress, struct error *err) {
    int r = train_spec_read(job->spec, &ret->spec, err);

    if (r < 0)
        return r;
    return ret->spec.net ? make_network(job, ret, progress, err) : read_network(job, ret, err);
}

/* `source` is what it points to. */
static struct learn_run run_of(
    const struct train_job *job, const struct training *t, struct feed_source *source) {
    *source = (struct feed_source){
        .pack = job->pack, .preprocess = t->preprocess, .labels = t->labels, .cache = job->cache};
    return (struct learn_run){.source = source,
        .seed = (uint64_t)t->spec.seed,
        .checkpoint_seconds = job->checkpoint_seconds,
        .memory_bytes = job->memory_bytes,
        .seconds = t->spec.minutes * 60};
}

/* ---- the dry run ---- */

static json_t *input_json(const struct graph *g) {
    const struct shape *s = &g->values[g->inputs[0]].shape;
    json_t *j = json_array();

    for (int i = 1; i < s->rank; i++)
        json_array_append_new(j, json_integer(s->dim[i]));
    return j;
}

int train_job_plan(const struct train_job *job, json_t **ret, struct error *err) {
    _cleanup_(training_done) struct training t = {0};
    _cleanup_(summary_freep) struct summary *s = NULL;
    struct learn_plan plan = {0};
    struct feed_source source;
    struct learn_run run;
    int r = training_open(job, &t, NULL, err);

    if (r < 0)
        return r;
    run = run_of(job, &t, &source);
    r = learn_plan(t.graph, &run, &t.spec.learn, &plan, err);
    if (r == 0)
        r = summary_new(t.graph, &s, err);
    if (r < 0)
        return r;
    *ret = json_pack("{s:s?, s:o, s:i, s:I, s:I, s:I, s:I, s:I, s:I, s:o, s:O?}", "network",
        t.spec.net ? t.spec.net->name : NULL, "input", input_json(t.graph), "classes",
        (int)pack_n_classes(job->pack), "parameters", (json_int_t)s->parameters, "macs", (json_int_t)s->macs,
        "bytes", (json_int_t)s->bytes, "pictures", (json_int_t)plan.pictures, "steps", (json_int_t)plan.steps,
        "memory_bytes", (json_int_t)plan.bytes, "options", param_json(&learn_table, &t.spec.learn),
        "preprocess", t.preprocess, "labels", t.labels);
    return *ret ? 0 : error_oom(err);
}

/* ---- running ---- */

static int learn_it(
    const struct train_job *job, struct training *t, struct job_io *io, json_t *report, struct error *err) {
    struct feed_source source;
    struct learn_run run = run_of(job, t, &source);
    char checkpoint[4096];

    run.progress = &io->progress;
    if (job->checkpoint) {
        if (mkdir(job->checkpoint, 0700) < 0 && errno != EEXIST)
            return error_errno(err, "the folder for checkpoints");
        if (snprintf(checkpoint, sizeof(checkpoint), "%s/train", job->checkpoint) >= (int)sizeof(checkpoint))
            return error_set(err, -ENAMETOOLONG, "the path of the checkpoint is too long");
        run.checkpoint = checkpoint;
    }
    return learn(t->graph, &run, &t->spec.learn, report, err);
}

static int write_model(const struct train_job *job, struct training *t, struct error *err) {
    json_auto_t *steps = json_pack("[o]", json_deep_copy(job->spec));
    int r;

    json_object_set_new(json_array_get(steps, 0), "method", json_string("train"));
    r = model_props_set(t->graph, t->labels, t->preprocess, err);
    if (r == 0)
        r = variant_describe(t->graph, steps, NULL, err);
    return r < 0 ? r : variant_write(t->graph, job->output, err);
}

/* Of the split `test`, into `ret`. */
static int judge(const struct train_job *job, const struct training *t, struct job_io *io, json_t *ret,
    struct error *err) {
    _cleanup_(evaluation_done) struct evaluation e = {0};
    _cleanup_(session_done) struct session s = {0};
    _cleanup_(feed_done) struct feed feed = {0};
    struct latency latency;
    json_t *layer_us = NULL;
    int r = session_open_file(job->output, NULL, io->progress.threads, &s, err);

    if (r == 0)
        r = feed_open(
            job->pack, "test", &t->graph->values[t->graph->inputs[0]], t->preprocess, 0, &feed, err);
    if (r == 0)
        r = evaluate(&s, &feed, t->labels, &io->progress, &e, err);
    if (r == 0)
        r = evaluate_latency(&s, 1, &feed, LATENCY_SECONDS, &latency, err);
    if (r == 0)
        r = evaluate_layers(&s, &feed, &layer_us, err);
    if (r < 0)
        return r;
    json_object_set_new(ret, "test_accuracy", json_real((double)e.n_correct / (double)e.n));
    json_object_set_new(ret, "evaluation", evaluation_json(&e, &feed, NULL, NULL));
    json_object_set_new(json_object_get(ret, "evaluation"), "dataset",
        job->dataset ? json_string(job->dataset) : json_null());
    json_object_set_new(ret, "latency", latency_json(&latency));
    json_object_set_new(ret, "layer_us", layer_us);
    return 0;
}

static bool has_test(const struct pack *p) {
    int split = pack_find_split(p, "test");

    return split >= 0 && pack_count(p, (uint32_t)split) > 0;
}

/* The model is made already: what cannot be judged is said and does not fail it. */
static int judge_if_possible(const struct train_job *job, const struct training *t, struct job_io *io,
    json_t *ret, struct error *err) {
    struct error why = {0};
    int r = 0;

    if (!has_test(job->pack))
        return 0;
    job_io_step(io, 1, 2, "judging it on the split 'test'");
    r = judge(job, t, io, ret, &why);
    if (r == -ECANCELED || r == -ENOMEM)
        return error_copy(err, &why);
    if (r < 0)
        job_io_log("warning", "no test accuracy: %s", why.text);
    return 0;
}

static int result_json(struct training *t, json_t *training, json_t **ret, struct error *err) {
    _cleanup_(summary_freep) struct summary *s = NULL;
    json_t *layers = NULL;
    int r = summary_new(t->graph, &s, err);

    if (r == 0 && !(layers = variant_layers(t->graph, err)))
        r = error_oom(err);
    if (r < 0)
        return r;
    *ret = json_pack("{s:s?, s:I, s:I, s:O?, s:O?, s:O, s:o, s:n, s:n, s:n, s:n}", "network",
        t->spec.net ? t->spec.net->name : NULL, "parameters", (json_int_t)s->parameters, "macs",
        (json_int_t)s->macs, "labels", t->labels, "preprocess", t->preprocess, "training", training, "layers",
        layers, "test_accuracy", "evaluation", "latency", "layer_us");
    return *ret ? 0 : error_oom(err);
}

int train_job_run(const struct train_job *job, struct job_io *io, json_t **ret, struct error *err) {
    _cleanup_(training_done) struct training t = {0};
    json_auto_t *training = json_object(), *result = NULL;
    int n_steps = has_test(job->pack) ? 2 : 1, r;

    job_io_step(io, 0, n_steps, "train");
    r = training_open(job, &t, &io->progress, err);
    if (r == 0)
        r = learn_it(job, &t, io, training, err);
    if (r == 0)
        r = write_model(job, &t, err);
    if (r == 0)
        r = result_json(&t, training, &result, err);
    if (r == 0)
        r = judge_if_possible(job, &t, io, result, err);
    if (r == 0)
        *ret = json_incref(result);
    return r;
}
