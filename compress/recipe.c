#include "compress/recipe_priv.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "compress/presets.h"
#include "engine/pass.h"

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
static const char *const common_keys[] = {"method", "layers", "recover", "overrides", NULL};

struct recipe *recipe_free(struct recipe *r) {
    if (!r)
        return NULL;
    for (size_t i = 0; i < r->n; i++) {
        if (r->step[i].options)
            param_done(r->step[i].method->options, r->step[i].options);
        free(r->step[i].options);
        param_done(&common_table, &r->step[i].common);
        overrides_done(&r->step[i].overrides);
    }
    free(r);
    return NULL;
}

/* The common part of a step's object: the keys that are not the method's. */
static int read_common(
    const struct method *m, const json_t *j, const char *path, struct common *ret, struct error *err) {
    const char *method_keys[64] = {"method", "overrides"};
    size_t n = 2;
    int r = param_defaults(&common_table, ret, err);

    for (size_t i = 0; i < m->options->n && n < 63; i++)
        method_keys[n++] = m->options->param[i].name;
    return r < 0 ? r : param_set_json(&common_table, j, method_keys, path, ret, err);
}

static int check_options(const struct method *m, const void *options, const char *path, struct error *err) {
    int r = m->check ? m->check(options, err) : 0;

    return r < 0 ? error_prefix(err, r, "%s", path) : 0;
}

static int read_overrides(const json_t *j, const char *path, struct step *s, struct error *err) {
    char at[320];
    int r;

    snprintf(at, sizeof(at), "%s.overrides", path);
    r = overrides_read(json_object_get(j, "overrides"), s->method->options, s->method->options_size, j,
        common_keys, at, &s->overrides, err);
    for (size_t i = 0; r == 0 && i < s->overrides.n; i++) {
        snprintf(at, sizeof(at), "%s.overrides[\"%.200s\"]", path, s->overrides.item[i].glob);
        r = check_options(s->method, s->overrides.item[i].options, at, err);
    }
    return r;
}

static int read_step(const json_t *j, const char *key, size_t index, struct step *ret, struct error *err) {
    const char *name = json_string_value(json_object_get(j, "method"));
    char path[64];
    int r;

    snprintf(path, sizeof(path), "%s[%zu]", key, index);
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
    if (r == 0)
        r = check_options(ret->method, ret->options, path, err);
    if (r == 0 && ret->method->check_recover) {
        r = ret->method->check_recover(ret->options, &ret->common.recover, err);
        r = r < 0 ? error_prefix(err, r, "%s", path) : 0;
    }
    return r < 0 ? r : read_overrides(j, path, ret, err);
}

int recipe_new(const json_t *steps, struct recipe **ret, struct error *err) {
    return recipe_new_at(steps, "steps", ret, err);
}

int recipe_new_at(const json_t *steps, const char *key, struct recipe **ret, struct error *err) {
    _cleanup_(recipe_freep) struct recipe *r = NULL;
    size_t n = json_array_size(steps);

    if (!json_is_array(steps) || n == 0 || n > RECIPE_MAX_STEPS)
        return error_set(err, -EINVAL, "%s is not a list of 1 to %d steps", key, RECIPE_MAX_STEPS);
    r = calloc(1, sizeof(*r));
    if (!r)
        return error_oom(err);
    r->key = key;
    for (size_t i = 0; i < n; i++) {
        int e;

        r->n = i + 1;
        e = read_step(json_array_get(steps, i), key, i, &r->step[i], err);
        if (e < 0)
            return e;
    }
    *ret = TAKE(r);
    return 0;
}

static bool method_needs_data(const struct step *s) {
    bool needs = s->method->needs_data || (s->method->wants_data && s->method->wants_data(s->options));

    for (size_t i = 0; !needs && s->method->wants_data && i < s->overrides.n; i++)
        needs = s->method->wants_data(s->overrides.item[i].options);
    return needs;
}

static bool needs_data(const struct recover *r) {
    return r->calibrate.is_wanted || recover_trains(r);
}

bool recipe_needs_data(const struct recipe *r) {
    for (size_t i = 0; i < r->n; i++)
        if (method_needs_data(&r->step[i]) || needs_data(&r->step[i].common.recover))
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

int recipe_check_data(const struct recipe *r, bool has_data, struct error *err) {
    for (size_t i = 0; i < r->n; i++) {
        const struct step *s = &r->step[i];

        if (!has_data && method_needs_data(s))
            return error_code(err, -EBADMSG, "data_required", "%s[%zu]: method '%s' needs a data set%s",
                r->key, i, s->method->name, s->method->needs_data ? "" : " with these options");
        if (!has_data && needs_data(&s->common.recover))
            return error_code(err, -EBADMSG, "data_required", "%s[%zu].recover needs a data set", r->key, i);
    }
    return 0;
}

struct scope recipe_scope(const struct step *s) {
    return (struct scope){.include = (const char *const *)s->common.layers.include,
        .exclude = (const char *const *)s->common.layers.exclude,
        .options = s->options,
        .overrides = &s->overrides,
        .takes_sparse = s->method->takes_sparse,
        .takes_encoded = s->method->takes_encoded};
}

/* What the dry run refuses is refused here, too: offline, and where an earlier step left something else. */
static int check_step(
    const struct step *s, const struct scope *scope, const struct graph *before, struct error *err) {
    _cleanup_(layers_done) struct layers layers = {0};
    _cleanup_(graph_freep) struct graph *g = NULL;
    _cleanup_(freep) struct effect *effects = NULL;
    int r = graph_clone(before, &g, err);

    if (r == 0)
        r = pass_remove_identities(g, err);
    if (r == 0)
        r = pass_fold_constants(g, err);
    if (r == 0)
        r = layers_list(g, scope, &layers, err);
    if (r == 0)
        r = layers_check_scope(&layers, scope, err);
    if (r < 0)
        return r;
    effects = calloc(layers.n + 1, sizeof(*effects));
    if (!effects)
        return error_oom(err);
    r = s->method->plan(g, s->options, &layers, effects, err);
    return r < 0 ? r : recipe_check_layers(s, &layers, err);
}

int recipe_prepare(const struct step *s, struct graph *g, struct error *err) {
    int r = s->method->takes_sparse ? layers_spread(g, err) : 0;

    return r < 0 ? r : recipe_fold(s, g, err);
}

int recipe_apply(
    const struct step *s, struct scope scope, struct work *work, json_t *report, struct error *err) {
    _cleanup_(graph_freep) struct graph *before = NULL;
    int r = recipe_prepare(s, work->graph, err);

    work->recover = &s->common.recover;
    work->has_calibrated = work->has_trained = false;
    if (r == 0)
        r = graph_clone(work->graph, &before, err);
    if (r == 0)
        r = check_step(s, &scope, before, err);
    if (r == 0)
        r = s->method->apply(work, s->options, &scope, report, err);
    if (r == 0)
        r = recover_run(work, before, &s->common.recover, report, err);
    if (r == 0 && graph_drop_unused(work->graph) < 0)
        r = error_oom(err);
    return r;
}

int recipe_run(
    const struct recipe *r, struct work *work, struct job_io *io, json_t **ret, struct error *err) {
    _cleanup_(graph_freep) struct graph *parent = NULL;
    json_t *reports = json_array();
    int e = recipe_check_data(r, work->samples != NULL, err);

    if (e == 0)
        e = graph_clone(work->graph, &parent, err);
    work->parent = parent;
    for (size_t i = 0; e == 0 && i < r->n; i++) {
        json_t *report = json_object();

        if (io)
            job_io_step(io, (int)i, (int)r->n, r->step[i].method->name);
        work->step = i;
        json_object_set_new(report, "method", json_string(r->step[i].method->name));
        json_object_set_new(report, "options", param_json(r->step[i].method->options, r->step[i].options));
        e = recipe_apply(&r->step[i], recipe_scope(&r->step[i]), work, report, err);
        json_array_append_new(reports, report);
        if (e < 0 && e != -ECANCELED)
            error_prefix(err, e, "steps[%zu]", i);
    }
    work->parent = NULL;
    if (e < 0) {
        json_decref(reports);
        return e;
    }
    *ret = reports;
    return 0;
}

json_t *recipe_named(const char *name) {
    const struct preset *p = preset_find(name);

    return p ? json_loads(p->steps, 0, NULL) : NULL;
}

json_t *recipe_list(void) {
    json_t *items = json_array();

    for (size_t i = 0; i < n_presets; i++)
        json_array_append_new(
            items, json_pack("{s:s, s:s, s:s, s:o}", "name", presets[i].name, "summary", presets[i].summary,
                       "needs", presets[i].needs, "steps", recipe_named(presets[i].name)));
    return json_pack("{s:o, s:n}", "items", items, "next_cursor");
}

/* `properties` of the method: those that single layers may have otherwise. */
static json_t *overrides_schema(const json_t *properties) {
    json_t *per_layer = json_object(), *all = (json_t *)(uintptr_t)properties, *value;
    const char *key;

    json_object_foreach(all, key, value) if (json_object_get(value, "x-per-layer"))
        json_object_set(per_layer, key, value);
    return json_pack("{s:s, s:s, s:{s:s, s:b, s:o}}", "type", "object", "description",
        "options of the layers that a glob matches; the last that matches wins", "additionalProperties",
        "type", "object", "additionalProperties", 0, "properties", per_layer);
}

static json_t *method_json(const struct method *m) {
    json_t *schema = param_schema(m->options), *common = param_schema(&common_table);
    json_t *properties = json_object_get(schema, "properties");

    json_object_set_new(properties, "overrides", overrides_schema(properties));
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
