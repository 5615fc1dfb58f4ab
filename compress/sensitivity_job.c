#include "compress/sensitivity_job.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/buf.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "compress/checkpoint.h"
#include "compress/halves.h"
#include "compress/sensitivity_table.h"
#include "compress/session.h"
#include "engine/onnx.h"

#define MAX_NETWORKS 20000
#define LABEL_MAX    200

/* ---- what is asked ---- */

static const struct param rows[] = {
    {
        .name = "methods",
        .type = PARAM_JSON,
        .at = offsetof(struct sensitivity_spec, methods),
        .doc = "list of steps, each measured by itself",
    },
    {
        .name = "samples",
        .type = PARAM_INT,
        .at = offsetof(struct sensitivity_spec, samples),
        .min = 1,
        .max = 100000,
        .dflt = "256",
        .doc = "how many samples are looked at",
    },
    {
        .name = "seed",
        .type = PARAM_SIZE,
        .at = offsetof(struct sensitivity_spec, seed),
        .min = 0,
        .max = 9e15,
        .dflt = "0",
        .doc = "of all that is random in a step",
    },
};
static const struct param_table table = {rows, sizeof(rows) / sizeof(rows[0])};

int sensitivity_spec_read(const json_t *j, struct sensitivity_spec *ret, struct error *err) {
    int r;

    *ret = (struct sensitivity_spec){0};
    if (!json_is_object(j))
        return error_set(err, -EINVAL, "the specification is not an object");
    r = param_defaults(&table, ret, err);
    if (r == 0)
        r = param_set_json(&table, j, NULL, "", ret, err);
    if (r == 0 && !ret->methods)
        r = error_set(err, -EINVAL, "methods is missing");
    if (r == 0)
        r = recipe_new_at(ret->methods, "methods", &ret->recipe, err);
    for (size_t i = 0; r == 0 && i < recipe_n_steps(ret->recipe); i++)
        if (recipe_step_trains(ret->recipe, i))
            r = error_set(err, -EINVAL,
                "methods[%zu]: training is no part of a sensitivity job, which measures what a step does by "
                "itself",
                i);
    return r;
}

void sensitivity_spec_done(struct sensitivity_spec *s) {
    recipe_free(s->recipe);
    param_done(&table, s);
    *s = (struct sensitivity_spec){0};
}

int64_t sensitivity_spec_samples(const struct sensitivity_spec *s) {
    int calibrate = recipe_samples(s->recipe);

    return s->samples > calibrate ? s->samples : calibrate;
}

/* "prune granularity=weight sparsity=0.8" */
static json_t *label_of(const json_t *step) {
    static const char *const not_said[] = {"method", "layers", "recover", "overrides"};
    json_t *any = (json_t *)(uintptr_t)step, *value, *ret;
    const char *key;
    struct buf b;

    buf_init(&b, LABEL_MAX);
    buf_puts(&b, json_string_value(json_object_get(step, "method")));
    json_object_foreach(any, key, value) {
        _cleanup_(freep) char *text =
            json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT | JSON_REAL_PRECISION(6));
        bool is_said = text != NULL;

        for (size_t i = 0; i < sizeof(not_said) / sizeof(not_said[0]); i++)
            is_said = is_said && strcmp(key, not_said[i]) != 0;
        if (is_said)
            buf_printf(&b, " %s=%s", key, json_is_string(value) ? json_string_value(value) : text);
    }
    ret = json_string(b.data ? b.data : "");
    buf_done(&b);
    return ret;
}

/* ---- which networks ---- */

struct table {
    const struct sensitivity_job *job;
    struct graph *parent;
    struct halves halves;
    size_t n_methods;
    json_t *plans; /* of each method */
    json_t *ids;   /* of the layers that a method touches */
};

static void table_done(struct table *t) {
    graph_free(t->parent);
    halves_done(&t->halves);
    json_decref(t->plans);
    json_decref(t->ids);
}

static bool touches(const struct table *t, size_t method, const char *id) {
    const json_t *list = json_object_get(json_array_get(t->plans, method), "affected");

    for (size_t i = 0; i < json_array_size(list); i++)
        if (!strcmp(json_string_value(json_array_get(list, i)), id))
            return true;
    return false;
}

/* In the order of the plans, which is the network's. */
static void list_ids(struct table *t) {
    for (size_t m = 0; m < t->n_methods; m++) {
        const json_t *layers = json_object_get(json_array_get(t->plans, m), "layers");

        for (size_t i = 0; i < json_array_size(layers); i++) {
            json_t *id = json_object_get(json_array_get(layers, i), "id");
            bool is_there = false, is_touched = false;

            for (size_t k = 0; k < json_array_size(t->ids); k++)
                is_there = is_there || json_equal(json_array_get(t->ids, k), id);
            for (size_t k = 0; k < t->n_methods; k++)
                is_touched = is_touched || touches(t, k, json_string_value(id));
            if (!is_there && is_touched)
                json_array_append(t->ids, id);
        }
    }
}

static size_t count_networks(const struct table *t) {
    size_t n = t->n_methods;

    for (size_t m = 0; m < t->n_methods; m++)
        n += 2 * json_array_size(json_object_get(json_array_get(t->plans, m), "affected"));
    return n;
}

static int open_table(const struct sensitivity_job *job, struct table *t, struct error *err) {
    _cleanup_(closep) int fd = open(job->input, O_RDONLY | O_CLOEXEC);
    int r;

    t->job = job;
    t->n_methods = recipe_n_steps(job->spec->recipe);
    t->plans = json_array();
    t->ids = json_array();
    if (fd < 0)
        return error_errno(err, "the model file cannot be opened");
    r = onnx_read_fd(fd, &t->parent, err);
    if (r == 0)
        r = halves_widen(t->parent, &t->halves, err);
    if (r == 0 && t->parent->n_inputs != 1)
        r = error_code(err, -EBADMSG, "method_not_applicable",
            "the model has %zu inputs; damage is measured on networks of one input", t->parent->n_inputs);
    for (size_t m = 0; r == 0 && m < t->n_methods; m++) {
        _cleanup_(graph_freep) struct graph *g = NULL;
        json_t *plan = NULL;

        r = graph_clone(t->parent, &g, err);
        if (r == 0)
            r = recipe_plan_step(job->spec->recipe, m, g, true, &plan, err);
        json_array_append_new(t->plans, plan);
    }
    if (r < 0)
        return r;
    list_ids(t);
    return count_networks(t) <= MAX_NETWORKS
               ? 0
               : error_set(err, -EINVAL, "methods: %zu networks would be judged; there may be %d",
                     count_networks(t), MAX_NETWORKS);
}

static json_t *plan_row(const struct table *t, json_t *id) {
    json_t *list = json_array();

    for (size_t m = 0; m < t->n_methods; m++)
        if (touches(t, m, json_string_value(id)))
            json_array_append_new(list, json_integer((json_int_t)m));
    return json_pack("{s:O, s:o}", "id", id, "methods", list);
}

int sensitivity_job_plan(const struct sensitivity_job *job, json_t **ret, struct error *err) {
    static const char *const keys[] = {"affected", "skipped", "weight_bytes_before", "weight_bytes"};
    _cleanup_(table_done) struct table t = {0};
    json_t *layers, *methods;
    int r = open_table(job, &t, err);

    if (r < 0)
        return r;
    layers = json_array();
    methods = json_array();
    for (size_t i = 0; i < json_array_size(t.ids); i++)
        json_array_append_new(layers, plan_row(&t, json_array_get(t.ids, i)));
    for (size_t m = 0; m < t.n_methods; m++) {
        json_t *o = json_object(), *plan = json_array_get(t.plans, m);

        json_object_set_new(o, "label", label_of(json_array_get(job->spec->methods, m)));
        for (size_t k = 0; k < sizeof(keys) / sizeof(keys[0]); k++)
            json_object_set(o, keys[k], json_object_get(plan, keys[k]));
        json_array_append_new(methods, o);
    }
    *ret = json_pack("{s:o, s:o, s:I, s:i}", "layers", layers, "methods", methods, "networks",
        (json_int_t)count_networks(&t), "samples", job->spec->samples);
    return *ret ? 0 : error_oom(err);
}

/* ---- running ---- */

/* Samples read once. Methods see as many as they calibrate with. */
struct memory_samples {
    float *x;
    int64_t item;
};

static int read_memory(void *ctx, int64_t first, int64_t count, float *ret, struct error *err) {
    const struct memory_samples *m = ctx;

    (void)err;
    memcpy(ret, m->x + first * m->item, (size_t)(count * m->item) * sizeof(*ret));
    return 0;
}

struct running {
    struct table t;
    struct job_io *io;
    struct progress quiet; /* for steps */
    struct memory_samples memory;
    struct samples samples, calibration;
    struct sensitivity *s;
    struct sensitivity_classes classes;
    size_t alone[RECIPE_MAX_STEPS], whole[RECIPE_MAX_STEPS]; /* bases: parent as the step finds it; all its
                                                                layers compressed */
    json_t *methods, *rows;
    size_t n_done, n_networks;
    char key[2 * EVP_MAX_MD_SIZE + 1], path[4096];
    double kept_s;
};

static void running_done(struct running *r) {
    sensitivity_free(r->s);
    sensitivity_classes_done(&r->classes);
    json_decref(r->methods);
    json_decref(r->rows);
    free(r->memory.x);
    table_done(&r->t);
}

static int keep_samples(struct running *r, struct error *err) {
    const struct samples *from = r->t.job->samples;
    uint64_t bytes;

    r->samples = *from;
    r->samples.done = NULL; /* they stay the caller's */
    if (!shape_count(&from->item, &r->memory.item) || r->memory.item > INT32_MAX)
        return error_set(err, -EFBIG, "the network's input is too large");
    bytes = (uint64_t)(r->memory.item * from->n) * sizeof(float);
    if (bytes <= SENSITIVITY_CACHE_BYTES / 2) {
        r->memory.x = alloc_aligned((size_t)bytes);
        if (!r->memory.x)
            return error_oom(err);
        r->samples.ctx = &r->memory;
        r->samples.read = read_memory;
        if (from->read(from->ctx, 0, from->n, r->memory.x, err) < 0)
            return err ? err->err : -EIO;
    }
    r->calibration = r->samples;
    if (r->calibration.n > recipe_samples(r->t.job->spec->recipe))
        r->calibration.n = recipe_samples(r->t.job->spec->recipe);
    return 0;
}

/* What goes on must be the same question of the same network, on the same samples: the parent's answers say
 * both. */
static int make_key(struct running *r, struct error *err) {
    _cleanup_(freep) char *methods = json_dumps(r->t.job->spec->methods, JSON_COMPACT | JSON_SORT_KEYS);
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned size = 0;
    bool ok = methods && md && EVP_DigestInit_ex(md, EVP_sha256(), NULL) &&
              EVP_DigestUpdate(md, methods, strlen(methods)) &&
              EVP_DigestUpdate(md, &r->t.job->spec->seed, sizeof(r->t.job->spec->seed));

    for (size_t o = 0; ok && o < r->t.parent->n_outputs; o++) {
        int64_t n;
        const float *y = sensitivity_answers(r->s, o, &n);

        ok = EVP_DigestUpdate(md, y, (size_t)n * sizeof(*y));
    }
    ok = ok && EVP_DigestFinal_ex(md, digest, &size);
    EVP_MD_CTX_free(md);
    for (unsigned i = 0; i < size; i++)
        sprintf(r->key + 2 * i, "%02x", digest[i]);
    return ok ? 0 : error_oom(err);
}

static int open_checkpoint(struct running *r, struct error *err) {
    const char *folder = r->t.job->checkpoint;
    json_t *state = NULL;

    if (!folder)
        return 0;
    if (mkdir(folder, 0700) < 0 && errno != EEXIST)
        return error_errno(err, "the folder for checkpoints");
    if (snprintf(r->path, sizeof(r->path), "%s/sensitivity", folder) >= (int)sizeof(r->path))
        return error_set(err, -ENAMETOOLONG, "the path of the checkpoint is too long");
    if (checkpoint_read(r->path, r->key, NULL, 0, &state)) {
        json_decref(r->rows);
        r->rows = json_incref(json_object_get(state, "layers"));
        job_io_log(
            "info", "goes on behind layer %zu of %zu", json_array_size(r->rows), json_array_size(r->t.ids));
    }
    json_decref(state);
    return 0;
}

static int keep_rows(struct running *r, struct error *err) {
    json_auto_t *state = NULL;
    int e;

    if (!*r->path || clock_now_s() - r->kept_s < r->t.job->checkpoint_seconds)
        return 0;
    state = json_pack("{s:O}", "layers", r->rows);
    e = state ? checkpoint_write(r->path, r->key, state, NULL, 0, err) : error_oom(err);
    r->kept_s = clock_now_s();
    return e;
}

static int tell(struct running *r, const char *id, size_t method, struct error *err) {
    char text[256];

    snprintf(text, sizeof(text), "%.100s: %.100s", id,
        json_string_value(json_object_get(json_array_get(r->methods, method), "label")));
    return progress_at(&r->io->progress, (double)r->n_done++ / (double)r->n_networks, text, err);
}

/* The step on a copy of the parent. A step that cannot be done so is an answer, too. */
static int compress(struct running *r, size_t method, const char *only, const char *but, struct graph **ret,
    struct error *err) {
    struct work work = {.samples = &r->calibration,
        .parent = r->t.parent,
        .progress = &r->quiet,
        .seed = (uint64_t)r->t.job->spec->seed,
        .memory_bytes = r->t.job->memory_bytes};
    json_auto_t *report = json_object();
    int e = graph_clone(r->t.parent, &work.graph, err);

    if (e == 0)
        e = recipe_run_step(r->t.job->spec->recipe, method, only, but, &work, report, err);
    if (e == 0)
        *ret = TAKE(work.graph);
    graph_free(work.graph);
    return e;
}

static bool is_fatal(int r) {
    return r == -ECANCELED || r == -ENOMEM || r == -ENOSPC || r == -EIO;
}

static int judge(
    struct running *r, size_t base, const struct graph *g, bool *ret_same, json_t **ret, struct error *err) {
    _cleanup_(sensitivity_damage_done) struct sensitivity_damage d = {0};
    int e = sensitivity_judge(r->s, base, g, &d, err);

    if (e < 0)
        return e;
    *ret_same = d.is_same;
    *ret = sensitivity_cell(sensitivity_facts(r->s), &r->classes, &r->samples, &d);
    return *ret ? 0 : error_oom(err);
}

static int fill(
    struct running *r, size_t method, const char *only, const char *but, json_t **ret, struct error *err) {
    _cleanup_(graph_freep) struct graph *g = NULL;
    struct error why = {0};
    bool is_same = false;
    int e = compress(r, method, only, but, &g, &why);

    if (e == 0)
        e = judge(r, only ? r->alone[method] : r->whole[method], g, &is_same, ret, &why);
    if (e == 0 && is_same && only) /* the step has thought better of it */
        json_object_set_new(*ret, "unchanged", json_true());
    if (e == 0)
        return 0;
    if (is_fatal(e))
        return error_copy(err, &why);
    *ret = sensitivity_no_cell(why.text);
    return *ret ? 0 : error_oom(err);
}

/* The only layer of a step restored: the parent as the step finds it. */
static int fill_none(struct running *r, size_t method, json_t **ret, struct error *err) {
    _cleanup_(graph_freep) struct graph *g = NULL;
    bool is_same;
    int e = graph_clone(r->t.parent, &g, err);

    if (e == 0)
        e = recipe_prepare_step(r->t.job->spec->recipe, method, g, err);
    return e < 0 ? e : judge(r, r->alone[method], g, &is_same, ret, err);
}

static int fill_cell(struct running *r, size_t method, const char *id, json_t *cells, struct error *err) {
    const json_t *plan = json_array_get(r->t.plans, method);
    json_t *compressed = NULL, *restored = NULL;
    int e = tell(r, id, method, err);

    if (e == 0)
        e = fill(r, method, id, NULL, &compressed, err);
    if (e == 0)
        e = tell(r, id, method, err);
    if (e == 0)
        e = json_array_size(json_object_get(plan, "affected")) > 1 ? fill(r, method, NULL, id, &restored, err)
                                                                   : fill_none(r, method, &restored, err);
    if (e < 0) {
        json_decref(compressed);
        return e;
    }
    return json_array_append_new(cells, json_pack("{s:i, s:o, s:o}", "method", (int)method, "compressed",
                                            compressed, "restored", restored)) < 0
               ? error_oom(err)
               : 0;
}

static int fill_row(struct running *r, json_t *id, struct error *err) {
    json_t *cells = json_array();
    int e = 0;

    for (size_t m = 0; e == 0 && m < r->t.n_methods; m++)
        if (touches(&r->t, m, json_string_value(id)))
            e = fill_cell(r, m, json_string_value(id), cells, err);
    if (e < 0) {
        json_decref(cells);
        return e;
    }
    json_array_append_new(r->rows, json_pack("{s:O, s:o}", "id", id, "cells", cells));
    return keep_rows(r, err);
}

/* A method with all its layers, and what its networks are compared with. */
static int fill_method(struct running *r, size_t method, struct error *err) {
    const json_t *step = json_array_get(r->t.job->spec->methods, method);
    _cleanup_(graph_freep) struct graph *before = NULL, *g = NULL;
    json_t *all = NULL;
    bool is_same;
    int e;

    json_array_append_new(r->methods,
        json_pack("{s:o, s:O, s:i}", "label", label_of(step), "step", step, "layers",
            (int)json_array_size(json_object_get(json_array_get(r->t.plans, method), "affected"))));
    e = tell(r, "all layers", method, err);
    if (e == 0)
        e = graph_clone(r->t.parent, &before, err);
    if (e == 0)
        e = recipe_prepare_step(r->t.job->spec->recipe, method, before, err);
    if (e == 0)
        e = sensitivity_add_base(r->s, before, &r->alone[method], err);
    if (e == 0)
        e = compress(r, method, NULL, NULL, &g, err);
    if (e == 0)
        e = sensitivity_add_base(r->s, g, &r->whole[method], err);
    if (e == 0)
        e = judge(r, r->whole[method], g, &is_same, &all, err);
    if (e < 0)
        return e == -ECANCELED ? e : error_prefix(err, e, "methods[%zu]", method);
    json_object_set_new(json_array_get(r->methods, method), "all", all);
    return 0;
}

static int open_running(const struct sensitivity_job *job, struct running *r, struct error *err) {
    struct sensitivity_options o = {.samples = job->spec->samples,
        .cache_bytes = job->memory_bytes / 4 < SENSITIVITY_CACHE_BYTES ? job->memory_bytes / 4 : 0,
        .is_uncached = job->is_uncached,
        .progress = &r->quiet};
    int e = open_table(job, &r->t, err);

    r->quiet = (struct progress){.ctx = r->io->progress.ctx,
        .threads = r->io->progress.threads,
        .allowed = r->io->progress.allowed,
        .is_cancelled = r->io->progress.is_cancelled};
    r->n_networks = count_networks(&r->t);
    r->methods = json_array();
    r->rows = json_array();
    if (e == 0)
        e = keep_samples(r, err);
    if (e == 0)
        e = sensitivity_open(r->t.parent, &r->samples, &o, &r->s, err);
    if (e == 0)
        e = sensitivity_classes_of(sensitivity_facts(r->s), &r->classes, err);
    if (e == 0)
        e = make_key(r, err);
    return e < 0 ? e : open_checkpoint(r, err);
}

static void tell_work(const struct running *r) {
    const struct sensitivity_facts *f = sensitivity_facts(r->s);

    progress_event(&r->io->progress,
        "%zu networks judged; %.0f%% of their layers computed, the rest is what they have in common",
        r->n_networks, 100 * (double)f->layers_run / (double)(f->layers_whole ? f->layers_whole : 1));
}

int sensitivity_job_run(
    const struct sensitivity_job *job, struct job_io *io, json_t **ret, struct error *err) {
    _cleanup_(running_done) struct running r = {.io = io};
    int e;

    job_io_step(io, 0, 1, "sensitivity");
    e = open_running(job, &r, err);
    for (size_t m = 0; e == 0 && m < r.t.n_methods; m++)
        e = fill_method(&r, m, err);
    for (size_t i = 0; e == 0 && i < json_array_size(r.rows); i++)
        r.n_done += 2 * json_array_size(json_object_get(json_array_get(r.rows, i), "cells"));
    for (size_t i = json_array_size(r.rows); e == 0 && i < json_array_size(r.t.ids); i++)
        e = fill_row(&r, json_array_get(r.t.ids, i), err);
    if (e < 0)
        return e;
    tell_work(&r);
    *ret = sensitivity_table(sensitivity_facts(r.s), &r.classes, &r.samples, r.methods, r.rows);
    return *ret ? 0 : error_oom(err);
}
