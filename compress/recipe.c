#include "compress/recipe.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "compress/fold.h"
#include "engine/summary.h"

/* What every step has besides its method's options (methods.md, Common). */
struct common {
    struct {
        char **include, **exclude;
    } layers;
    bool has_recover;
    struct recover recover;
};

static const struct param layer_rows[] = {
    {
        .name = "include",
        .type = PARAM_LIST,
        .at = offsetof(struct common, layers.include) - offsetof(struct common, layers),
        .doc = "globs over layer ids; default: all, with the method's own skips",
    },
    {
        .name = "exclude",
        .type = PARAM_LIST,
        .at = offsetof(struct common, layers.exclude) - offsetof(struct common, layers),
        .doc = "globs over layer ids that stay as they are",
    },
};
static const struct param_table layer_table = {layer_rows, 2};

static const struct param common_rows[] = {
    {
        .name = "layers",
        .type = PARAM_OBJECT,
        .at = offsetof(struct common, layers),
        .table = &layer_table,
        .given_at = NO_OFFSET,
        .doc = "which layers the step touches",
    },
    {
        .name = "recover",
        .type = PARAM_OBJECT,
        .at = offsetof(struct common, recover),
        .table = &recover_table,
        .given_at = offsetof(struct common, has_recover),
        .doc = "what is done afterwards to win accuracy back",
    },
};
static const struct param_table common_table = {common_rows, 2};
static const char *const common_keys[] = {"method", "layers", "recover", NULL};

struct step {
    const struct method *method;
    void *options;
    struct common common;
};

struct recipe {
    size_t n;
    struct step step[RECIPE_MAX_STEPS];
};

struct recipe *recipe_free(struct recipe *r) {
    if (!r)
        return NULL;
    for (size_t i = 0; i < r->n; i++) {
        if (r->step[i].options)
            param_done(r->step[i].method->options, r->step[i].options);
        free(r->step[i].options);
        param_done(&common_table, &r->step[i].common);
    }
    free(r);
    return NULL;
}

/* The common part of a step's object: the keys that are not the method's. */
static int read_common(
    const struct method *m, const json_t *j, const char *path, struct common *ret, struct error *err) {
    const char *method_keys[64] = {"method"};
    size_t n = 1;
    int r = param_defaults(&common_table, ret, err);

    for (size_t i = 0; i < m->options->n && n < 63; i++)
        method_keys[n++] = m->options->param[i].name;
    return r < 0 ? r : param_set_json(&common_table, j, method_keys, path, ret, err);
}

/* A sentence that begins with ".key: " is about that key: the path goes on. */
static int check_options(const struct step *s, const char *path, struct error *err) {
    struct error e = {0};
    int r = s->method->check(s->options, &e);

    if (r < 0)
        error_code(err, r, e.code, "%s%s%s", path, e.text[0] == '.' ? "" : ": ", e.text);
    return r;
}

static int read_step(const json_t *j, size_t index, struct step *ret, struct error *err) {
    const char *name = json_string_value(json_object_get(j, "method"));
    char path[64];
    int r;

    snprintf(path, sizeof(path), "steps[%zu]", index);
    if (!name)
        return error_set(err, -EINVAL, "%s.method is missing", path);
    ret->method = method_find(name);
    if (!ret->method)
        return error_set(err, -EINVAL,
            "%s.method: there is no method '%.64s' (GET /api/v1/methods lists them)", path, name);
    ret->options = calloc(1, ret->method->options_size);
    if (!ret->options)
        return error_oom(err);
    r = param_defaults(ret->method->options, ret->options, err);
    if (r == 0)
        r = read_common(ret->method, j, path, &ret->common, err);
    if (r == 0)
        r = param_set_json(ret->method->options, j, common_keys, path, ret->options, err);
    if (r == 0 && ret->method->check)
        r = check_options(ret, path, err);
    return r;
}

int recipe_new(const json_t *steps, struct recipe **ret, struct error *err) {
    _cleanup_(recipe_freep) struct recipe *r = NULL;
    size_t n = json_array_size(steps);

    if (!json_is_array(steps) || n == 0 || n > RECIPE_MAX_STEPS)
        return error_set(err, -EINVAL, "steps is not a list of 1 to %d steps", RECIPE_MAX_STEPS);
    r = calloc(1, sizeof(*r));
    if (!r)
        return error_oom(err);
    for (size_t i = 0; i < n; i++) {
        int e;

        r->n = i + 1;
        e = read_step(json_array_get(steps, i), i, &r->step[i], err);
        if (e < 0)
            return e;
    }
    *ret = TAKE(r);
    return 0;
}

static bool needs_data(const struct recover *r) {
    return r->calibrate.is_wanted || recover_trains(r);
}

bool recipe_needs_data(const struct recipe *r) {
    for (size_t i = 0; i < r->n; i++)
        if (r->step[i].method->needs_data || needs_data(&r->step[i].common.recover))
            return true;
    return false;
}

int recipe_samples(const struct recipe *r) {
    int most = 1;

    for (size_t i = 0; i < r->n; i++)
        if (r->step[i].common.recover.calibrate.samples > most)
            most = r->step[i].common.recover.calibrate.samples;
    return most;
}

static int check_data(const struct recipe *r, bool has_data, struct error *err) {
    for (size_t i = 0; i < r->n; i++) {
        const struct step *s = &r->step[i];

        if (!has_data && s->method->needs_data)
            return error_code(err, -EBADMSG, "data_required", "steps[%zu]: method '%s' needs a data set", i,
                s->method->name);
        if (!has_data && needs_data(&s->common.recover))
            return error_code(err, -EBADMSG, "data_required", "steps[%zu].recover needs a data set", i);
    }
    return 0;
}

static struct scope scope_of(const struct step *s) {
    return (struct scope){
        (const char *const *)s->common.layers.include, (const char *const *)s->common.layers.exclude};
}

static int64_t macs_of(const struct summary *s, const char *id) {
    for (size_t i = 0; i < s->n_layers; i++)
        if (!strcmp(s->layers[i].id, id))
            return s->layers[i].macs;
    return 0;
}

static json_t *effect_json(const struct layer_entry *e, const struct effect *f, const struct summary *now) {
    int64_t before = e->bytes;
    int64_t macs = e->is_selected && f->macs >= 0 ? f->macs : macs_of(now, e->id);

    return json_pack("{s:s, s:s, s:s?, s:s?, s:I, s:I, s:I}", "id", e->id, "action",
        e->is_selected ? "change" : "skip", "reason", e->reason, "form", e->is_selected ? f->form : NULL,
        "bytes_before", (json_int_t)before, "bytes", (json_int_t)(e->is_selected ? f->bytes : before), "macs",
        (json_int_t)macs);
}

/* Steps of a recipe are planned on the network it begins with: what the ones before would encode. */
static void skip_encoded(struct layers *layers, const json_t *steps) {
    const json_t *step, *row;
    size_t i, k;

    json_array_foreach(steps, i, step) json_array_foreach(json_object_get(step, "layers"), k, row) {
        struct layer_entry *e = &layers->entry[k];
        const char *form = json_string_value(json_object_get(row, "form"));

        if (!form || !strcmp(form, "dense"))
            continue;
        e->form = form;
        e->bytes = json_integer_value(json_object_get(row, "bytes"));
        layer_skip(e, layer_encoded);
    }
}

/* What a step encodes is not trained afterwards. */
static int check_training(
    const struct step *s, const struct layers *layers, const struct effect *effects, struct error *err) {
    for (size_t i = 0; i < layers->n && recover_trains(&s->common.recover); i++) {
        const struct layer_entry *e = &layers->entry[i];
        const char *form = e->is_selected ? effects[i].form : e->form;

        if (form && strcmp(form, "dense") != 0)
            return error_code(err, -EBADMSG, "method_not_applicable",
                "recover.%s trains float weights, and those of layer '%s' are encoded (%s) by then",
                s->common.recover.has_finetune ? "finetune" : "distill", e->id, form);
    }
    return 0;
}

/* `steps`: the plans of those before it. */
static int plan_step(const struct step *s, const json_t *steps, struct graph *g, const struct summary *now,
    json_t *ret, struct error *err) {
    _cleanup_(layers_done) struct layers layers = {0};
    struct scope scope = scope_of(s);
    _cleanup_(freep) struct effect *effects = NULL;
    json_t *list = json_array(), *affected = json_array(), *skipped = json_array();
    int64_t bytes = 0, before = 0;
    int r = layers_list(g, &scope, &layers, err);

    if (r < 0)
        return r;
    skip_encoded(&layers, steps);
    effects = calloc(layers.n + 1, sizeof(*effects));
    if (!effects)
        return error_oom(err);
    r = s->method->plan(g, s->options, &layers, effects, err);
    if (r == 0)
        r = check_training(s, &layers, effects, err);
    if (r < 0)
        return r;
    for (size_t i = 0; i < layers.n; i++) {
        const struct layer_entry *e = &layers.entry[i];

        json_array_append_new(list, effect_json(e, &effects[i], now));
        json_array_append_new(e->is_selected ? affected : skipped, json_string(e->id));
        before += e->bytes;
        bytes += e->is_selected ? effects[i].bytes : e->bytes;
    }
    if (json_array_size(affected) == 0)
        return error_code(err, -EBADMSG, "method_not_applicable", "method '%s' applies to no layer%s%s",
            s->method->name, layers.n ? ": " : "",
            layers.n && layers.entry[0].reason ? layers.entry[0].reason : "");
    json_object_set_new(ret, "method", json_string(s->method->name));
    json_object_set_new(ret, "layers", list);
    json_object_set_new(ret, "affected", affected);
    json_object_set_new(ret, "skipped", skipped);
    json_object_set_new(ret, "weight_bytes_before", json_integer(before));
    json_object_set_new(ret, "weight_bytes", json_integer(bytes));
    return 0;
}

static bool has_text(const json_t *list, const char *text) {
    for (size_t i = 0; i < json_array_size(list); i++)
        if (!strcmp(json_string_value(json_array_get(list, i)), text))
            return true;
    return false;
}

/* What all steps together come to: the last one's layers and bytes, every layer that some step touches. */
static json_t *plan_totals(const struct summary *now, json_t *steps) {
    json_t *last = json_array_get(steps, json_array_size(steps) - 1), *affected = json_array();

    for (size_t i = 0; i < json_array_size(steps); i++) {
        const json_t *list = json_object_get(json_array_get(steps, i), "affected");

        for (size_t k = 0; k < json_array_size(list); k++)
            if (!has_text(affected, json_string_value(json_array_get(list, k))))
                json_array_append(affected, json_array_get(list, k));
    }
    /* no step there is changes the work, only its precision */
    return json_pack("{s:o, s:o, s:O, s:O, s:O, s:O, s:I}", "steps", steps, "affected", affected, "skipped",
        json_object_get(last, "skipped"), "layers", json_object_get(last, "layers"), "bytes_before",
        json_object_get(last, "weight_bytes_before"), "bytes", json_object_get(last, "weight_bytes"), "macs",
        (json_int_t)now->macs);
}

int recipe_plan(
    const struct recipe *r, const struct graph *g, bool has_data, json_t **ret, struct error *err) {
    _cleanup_(graph_freep) struct graph *folded = NULL;
    _cleanup_(summary_freep) struct summary *now = NULL;
    json_t *steps = json_array();
    int e = check_data(r, has_data, err);

    if (e == 0)
        e = graph_clone(g, &folded, err);
    if (e == 0)
        e = fold_graph(folded, err);
    if (e == 0)
        e = summary_new(folded, &now, err);
    for (size_t i = 0; e == 0 && i < r->n; i++) {
        json_t *step = json_object();

        e = plan_step(&r->step[i], steps, folded, now, step, err);
        json_array_append_new(steps, step);
        if (e < 0)
            error_prefix(err, e, "steps[%zu]", i);
    }
    if (e < 0) {
        json_decref(steps);
        return e;
    }
    *ret = plan_totals(now, steps);
    return *ret ? 0 : error_oom(err);
}

static int run_step(
    const struct step *s, struct work *work, const struct graph *parent, json_t *report, struct error *err) {
    struct scope scope = scope_of(s);
    int r = s->method->apply(work, s->options, &scope, report, err);

    if (r == 0)
        r = recover_run(work, parent, &s->common.recover, report, err);
    if (r == 0 && graph_drop_unused(work->graph) < 0)
        r = error_oom(err);
    return r;
}

int recipe_run(
    const struct recipe *r, struct work *work, struct job_io *io, json_t **ret, struct error *err) {
    _cleanup_(graph_freep) struct graph *parent = NULL;
    json_t *reports = json_array();
    int e = check_data(r, work->samples != NULL, err);

    if (e == 0)
        e = graph_clone(work->graph, &parent, err);
    for (size_t i = 0; e == 0 && i < r->n; i++) {
        json_t *report = json_object();

        if (io)
            job_io_step(io, (int)i, (int)r->n, r->step[i].method->name);
        work->step = i;
        json_object_set_new(report, "method", json_string(r->step[i].method->name));
        json_object_set_new(report, "options", param_json(r->step[i].method->options, r->step[i].options));
        e = run_step(&r->step[i], work, parent, report, err);
        json_array_append_new(reports, report);
        if (e < 0 && e != -ECANCELED)
            error_prefix(err, e, "steps[%zu]", i);
    }
    if (e < 0) {
        json_decref(reports);
        return e;
    }
    *ret = reports;
    return 0;
}

static const struct {
    const char *name, *summary, *steps;
} named[] = {
    {"int8", "8-bit weights and activations, means recovered",
        "[{\"method\":\"quantize\",\"scheme\":\"int8\",\"recover\":{\"calibrate\":{\"variance\":false}}}]"},
};

json_t *recipe_named(const char *name) {
    for (size_t i = 0; i < sizeof(named) / sizeof(named[0]); i++)
        if (!strcmp(named[i].name, name))
            return json_loads(named[i].steps, 0, NULL);
    return NULL;
}

json_t *recipe_list(void) {
    json_t *items = json_array();

    for (size_t i = 0; i < sizeof(named) / sizeof(named[0]); i++)
        json_array_append_new(items, json_pack("{s:s, s:s, s:o}", "name", named[i].name, "summary",
                                         named[i].summary, "steps", recipe_named(named[i].name)));
    return json_pack("{s:o, s:n}", "items", items, "next_cursor");
}

static json_t *method_json(const struct method *m) {
    json_t *schema = param_schema(m->options), *common = param_schema(&common_table);
    json_t *properties = json_object_get(schema, "properties");

    json_object_update(properties, json_object_get(common, "properties"));
    json_object_set_new(properties, "method", json_pack("{s:s}", "const", m->name));
    json_object_set_new(schema, "required", json_pack("[s]", "method"));
    json_decref(common);
    return json_pack("{s:s, s:s, s:s, s:b, s:o}", "name", m->name, "summary", m->summary, "source", m->source,
        "needs_data", m->needs_data, "schema", schema);
}

json_t *recipe_methods(void) {
    json_t *items = json_array();

    for (size_t i = 0; i < method_table_size; i++)
        json_array_append_new(items, method_json(method_table[i]));
    return json_pack("{s:o, s:n}", "items", items, "next_cursor");
}
