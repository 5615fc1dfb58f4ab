/* The kinds of jobs that read data sets: dataset, evaluate, and the samples of compress. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "compress/dataset.h"
#include "compress/evaluate.h"
#include "compress/job_kinds.h"

#define MAX_VARIANTS    64
#define LATENCY_SECONDS 1.0

int job_pack_open(const char *path, struct pack **ret, struct error *err) {
    _cleanup_(closep) int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;

    if (!path)
        return error_code(err, -EBADMSG, "data_required", "a data set is needed");
    return fd < 0 ? error_errno(err, "the data set cannot be opened") : pack_open(fd, ret, err);
}

static const struct {
    const char *name;
    enum dataset_format format;
} formats[] = {{"folders", DATASET_FOLDERS}, {"idx", DATASET_IDX}, {"npz", DATASET_NPZ}};

static int read_options(const json_t *job, struct dataset_options *o, struct error *err) {
    const char *format = json_string_value(json_object_get(job, "format"));
    const json_t *limits = json_object_get(job, "limits");
    json_int_t bytes = json_integer_value(json_object_get(limits, "expanded_bytes"));
    json_int_t members = json_integer_value(json_object_get(limits, "members"));

    *o = (struct dataset_options){.split = json_string_value(json_object_get(job, "split")),
        .max_bytes = bytes > 0 ? (uint64_t)bytes : 16ull << 30,
        .max_members = members > 0 ? (uint64_t)members : 1000000};
    if (!format)
        return 0;
    for (size_t i = 0; i < sizeof(formats) / sizeof(formats[0]); i++)
        if (!strcmp(formats[i].name, format)) {
            o->format = formats[i].format;
            return 0;
        }
    return error_set(err, -EINVAL, "format is not one of folders, idx, npz");
}

static int run_dataset(const json_t *job, struct job_io *io, json_t **ret, struct error *err) {
    const char *input, *output, *old = json_string_value(json_object_get(job, "old_pack"));
    _cleanup_(pack_freep) struct pack *old_pack = NULL;
    _cleanup_(closep) int in = -1, out = -1;
    struct dataset_options o;
    int r = read_options(job, &o, err);

    if (r == 0)
        r = job_string(job, "input", &input, err);
    if (r == 0)
        r = job_string(job, "output", &output, err);
    if (r == 0 && old)
        r = job_pack_open(old, &old_pack, err);
    if (r < 0)
        return r;
    o.old = old_pack;
    in = open(input, O_RDONLY | O_CLOEXEC);
    out = open(output, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (in < 0 || out < 0)
        return error_errno(err, "the data set's files");
    return dataset_import(in, out, &o, &io->progress, ret, err);
}

const struct job_kind job_dataset = {.name = "dataset", .run = run_dataset};

struct job_samples {
    struct feed_source source;
    struct feed feed;
};

static void job_samples_done(void *ctx) {
    struct job_samples *s = ctx;

    feed_done(&s->feed);
    feed_source_done(&s->source);
    free(s);
}

int job_samples_of(struct feed_source *source, const struct graph *g, uint64_t most, struct samples *ret,
    bool *ret_is_test, struct error *err) {
    struct job_samples *s = calloc(1, sizeof(*s));
    int train, r;

    if (!s) {
        feed_source_done(source);
        return error_oom(err);
    }
    s->source = *source;
    *source = (struct feed_source){0};
    train = pack_find_split(s->source.pack, "train");
    *ret_is_test = train < 0 || pack_count(s->source.pack, (uint32_t)train) == 0;
    r = g->n_inputs == 1 ? feed_open(s->source.pack, *ret_is_test ? "test" : "train",
                               &g->values[g->inputs[0]], s->source.preprocess, most, &s->feed, err)
                         : error_code(err, -EBADMSG, "method_not_applicable",
                               "the model has %zu inputs; pictures fit a model of one", g->n_inputs);
    if (r < 0) {
        job_samples_done(s);
        return r;
    }
    *ret = feed_samples(&s->feed);
    ret->source = &s->source;
    ret->feed = &s->feed;
    ret->owner = s;
    ret->done = job_samples_done;
    return 0;
}

struct picture_cache_place job_cache(const json_t *job) {
    const json_t *cache = json_object_get(job, "cache");
    json_int_t bytes = json_integer_value(json_object_get(cache, "bytes"));
    const char *folder = json_string_value(json_object_get(cache, "folder"));

    return (struct picture_cache_place){.folder = folder,
        .owner = json_string_value(json_object_get(cache, "owner")),
        .budget = folder && bytes > 0 ? (uint64_t)bytes : 0};
}

int job_samples_open(const json_t *job, const struct graph *g, uint64_t most, struct samples *ret,
    bool *ret_is_test, struct error *err) {
    struct feed_source source = {.cache = job_cache(job)};
    int r = job_pack_open(json_string_value(json_object_get(job, "pack")), &source.pack, err);

    if (r < 0)
        return r;
    source.preprocess = json_incref(json_object_get(job, "preprocess"));
    source.labels = json_incref(json_object_get(job, "labels"));
    return job_samples_of(&source, g, most, ret, ret_is_test, err);
}

struct evaluated {
    size_t n;
    const char *name[MAX_VARIANTS];
    struct session session[MAX_VARIANTS];
    struct evaluation evaluation[MAX_VARIANTS];
    struct latency latency[MAX_VARIANTS];
    json_t *layer_us[MAX_VARIANTS];
};

static void evaluated_free(struct evaluated **e) {
    for (size_t i = 0; *e && i < (*e)->n; i++) {
        session_done(&(*e)->session[i]);
        evaluation_done(&(*e)->evaluation[i]);
        json_decref((*e)->layer_us[i]);
    }
    free(*e);
}

static int open_variants(const json_t *job, struct evaluated *e, struct error *err) {
    const json_t *list = json_object_get(job, "variants");

    if (json_array_size(list) == 0 || json_array_size(list) > MAX_VARIANTS)
        return error_set(err, -EINVAL, "variants is not a list of 1 to %d", MAX_VARIANTS);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *v = json_array_get(list, i);
        const char *path;
        int r = job_string(v, "name", &e->name[i], err);

        if (r == 0)
            r = job_string(v, "path", &path, err);
        if (r == 0)
            r = session_open_file(path, &(struct net_options){.float_io = true}, 1, &e->session[i], err);
        if (r < 0)
            return r;
        e->n = i + 1;
    }
    return 0;
}

static size_t reference_of(const json_t *job, const struct evaluated *e) {
    const char *name = json_string_value(json_object_get(job, "reference"));

    for (size_t i = 0; name && i < e->n; i++)
        if (!strcmp(e->name[i], name))
            return i;
    return 0;
}

static json_t *variants_json(const json_t *job, const struct evaluated *e, const struct feed *f) {
    size_t reference = reference_of(job, e);
    json_t *o = json_object();

    for (size_t i = 0; i < e->n; i++) {
        json_t *evaluation = evaluation_json(
            &e->evaluation[i], f, i == reference ? NULL : &e->evaluation[reference], e->name[reference]);

        json_object_set(evaluation, "dataset", json_object_get(job, "dataset"));
        json_object_set_new(o, e->name[i],
            json_pack("{s:o, s:o, s:O}", "evaluation", evaluation, "latency", latency_json(&e->latency[i]),
                "layer_us", e->layer_us[i]));
    }
    return o;
}

static int run_evaluate(const json_t *job, struct job_io *io, json_t **ret, struct error *err) {
    const char *split = json_string_value(json_object_get(job, "split"));
    _cleanup_(evaluated_free) struct evaluated *e = calloc(1, sizeof(*e));
    _cleanup_(pack_freep) struct pack *pack = NULL;
    _cleanup_(feed_done) struct feed feed = {0};
    const struct graph *g;
    int r = e ? job_pack_open(json_string_value(json_object_get(job, "pack")), &pack, err) : error_oom(err);

    if (r == 0)
        r = open_variants(job, e, err);
    if (r < 0)
        return r;
    g = net_graph(e->session[0].net);
    r = g->n_inputs == 1
            ? feed_open(pack, split ? split : "test", &g->values[g->inputs[0]],
                  json_object_get(job, "preprocess"), 0, &feed, err)
            : error_code(err, -EBADMSG, "not_a_classifier", "the model has %zu inputs", g->n_inputs);
    for (size_t i = 0; r == 0 && i < e->n; i++) {
        job_io_step(io, (int)i, (int)e->n, e->name[i]);
        r = evaluate(
            &e->session[i], &feed, json_object_get(job, "labels"), &io->progress, &e->evaluation[i], err);
    }
    if (r == 0)
        r = evaluate_latency(e->session, e->n, &feed, LATENCY_SECONDS * (double)e->n, e->latency, err);
    for (size_t i = 0; r == 0 && i < e->n; i++)
        r = evaluate_layers(&e->session[i], &feed, &e->layer_us[i], err);
    if (r < 0)
        return r;
    *ret = json_pack("{s:o}", "variants", variants_json(job, e, &feed));
    return *ret ? 0 : error_oom(err);
}

const struct job_kind job_evaluate = {.name = "evaluate", .run = run_evaluate};
