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
static const char *const common_keys[] = {"method", "layers", "recover", "overrides", NULL};

struct step {
    const struct method *method;
    void *options;
    struct common common;
    struct overrides overrides;
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
    if (r == 0)
        r = check_options(ret->method, ret->options, path, err);
    if (r == 0 && ret->method->check_recover) {
        r = ret->method->check_recover(ret->options, &ret->common.recover, err);
        r = r < 0 ? error_prefix(err, r, "%s", path) : 0;
    }
    return r < 0 ? r : read_overrides(j, path, ret, err);
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

static int check_data(const struct recipe *r, bool has_data, struct error *err) {
    for (size_t i = 0; i < r->n; i++) {
        const struct step *s = &r->step[i];

        if (!has_data && method_needs_data(s))
            return error_code(err, -EBADMSG, "data_required", "steps[%zu]: method '%s' needs a data set%s", i,
                s->method->name, s->method->needs_data ? "" : " with these options");
        if (!has_data && needs_data(&s->common.recover))
            return error_code(err, -EBADMSG, "data_required", "steps[%zu].recover needs a data set", i);
    }
    return 0;
}

static struct scope scope_of(const struct step *s) {
    return (struct scope){.include = (const char *const *)s->common.layers.include,
        .exclude = (const char *const *)s->common.layers.exclude,
        .options = s->options,
        .overrides = &s->overrides,
        .takes_sparse = s->method->takes_sparse,
        .takes_encoded = s->method->takes_encoded};
}

static int64_t macs_of(const struct summary *s, const char *id) {
    for (size_t i = 0; i < s->n_layers; i++)
        if (!strcmp(s->layers[i].id, id))
            return s->layers[i].macs;
    return 0;
}

static json_t *effect_json(const struct layer_entry *e, const struct effect *f, int64_t macs) {
    int64_t before = e->bytes;

    return json_pack("{s:s, s:s, s:s?, s:s?, s:I, s:I, s:I}", "id", e->id, "action",
        e->is_selected ? "change" : "skip", "reason", e->reason, "form", e->is_selected ? f->form : NULL,
        "bytes_before", (json_int_t)before, "bytes", (json_int_t)(e->is_selected ? f->bytes : before), "macs",
        (json_int_t)(e->is_selected && f->macs >= 0 ? f->macs : macs));
}

/* What the step before says of a layer; NULL: it is the first, or the layer is new. */
static const json_t *row_before(const json_t *steps, const char *id) {
    const json_t *list = json_object_get(json_array_get(steps, json_array_size(steps) - 1), "layers");

    for (size_t i = 0; json_array_size(steps) && i < json_array_size(list); i++)
        if (!strcmp(json_string_value(json_object_get(json_array_get(list, i), "id")), id))
            return json_array_get(list, i);
    return NULL;
}

static struct layer_entry *find_layer(struct layers *l, const char *id) {
    for (size_t i = 0; i < l->n; i++)
        if (!strcmp(l->entry[i].id, id))
            return &l->entry[i];
    return NULL;
}

/* Steps of a recipe are planned on the shapes that the ones before leave, with weights that they do not
 * touch: forms, bytes and zeros are what their plans say. */
static void take_plans(struct layers *layers, const json_t *steps, const struct method *now) {
    const json_t *step, *row;
    size_t i, k;

    json_array_foreach(steps, i, step) json_array_foreach(json_object_get(step, "layers"), k, row) {
        const struct method *m = method_find(json_string_value(json_object_get(step, "method")));
        struct layer_entry *e = find_layer(layers, json_string_value(json_object_get(row, "id")));
        const char *form = json_string_value(json_object_get(row, "form"));

        if (!e || !form)
            continue;
        e->bytes = json_integer_value(json_object_get(row, "bytes"));
        e->form = !strcmp(form, "dense") || (m->leaves_float && now->takes_sparse) ? NULL : form;
        if (e->form && !now->takes_encoded)
            layer_skip(e, layer_encoded);
    }
}

/* A layer's MACs: of the shape, or the fewer that an earlier step leaves. */
static int64_t macs_before(const json_t *steps, const struct summary *now, const char *id) {
    int64_t macs = macs_of(now, id);
    const json_t *row = row_before(steps, id);
    int64_t planned = row ? json_integer_value(json_object_get(row, "macs")) : macs;

    return planned < macs ? planned : macs;
}

static int list_effects(const struct step *s, const json_t *steps, const struct layers *layers,
    const struct effect *effects, const struct summary *now, json_t *ret, struct error *err) {
    json_t *list = json_array(), *affected = json_array(), *skipped = json_array();
    int64_t bytes = 0, before = 0;

    for (size_t i = 0; i < layers->n; i++) {
        const struct layer_entry *e = &layers->entry[i];

        json_array_append_new(list, effect_json(e, &effects[i], macs_before(steps, now, e->id)));
        json_array_append_new(e->is_selected ? affected : skipped, json_string(e->id));
        before += e->bytes;
        bytes += e->is_selected ? effects[i].bytes : e->bytes;
    }
    json_object_set_new(ret, "method", json_string(s->method->name));
    json_object_set_new(ret, "layers", list);
    json_object_set_new(ret, "affected", affected);
    json_object_set_new(ret, "skipped", skipped);
    json_object_set_new(ret, "weight_bytes_before", json_integer(before));
    json_object_set_new(ret, "weight_bytes", json_integer(bytes));
    if (json_array_size(affected) > 0)
        return 0;
    return error_code(err, -EBADMSG, "method_not_applicable", "method '%s' applies to no layer%s%s",
        s->method->name, layers->n ? ": " : "",
        layers->n && layers->entry[0].reason ? layers->entry[0].reason : "");
}

/* `steps`: the plans of those before it. Leaves `g` in the shape that the step would. */
static int plan_step(
    const struct step *s, const json_t *steps, struct graph *g, json_t *ret, struct error *err) {
    _cleanup_(layers_done) struct layers layers = {0};
    _cleanup_(summary_freep) struct summary *now = NULL;
    _cleanup_(freep) struct effect *effects = NULL;
    struct scope scope = scope_of(s);
    int r = s->method->folds ? fold_graph(g, err) : s->method->keeps_norms ? fold_but_norms(g, err) : 0;

    if (r == 0)
        r = summary_new(g, &now, err);
    if (r == 0)
        r = layers_list(g, &scope, &layers, err);
    if (r == 0)
        r = layers_check_scope(&layers, &scope, err);
    if (r < 0)
        return r;
    take_plans(&layers, steps, s->method);
    effects = calloc(layers.n + 1, sizeof(*effects));
    if (!effects)
        return error_oom(err);
    for (size_t i = 0; i < layers.n; i++)
        effects[i].macs = -1;
    r = s->method->plan(g, s->options, &layers, effects, err);
    if (r == 0)
        r = list_effects(s, steps, &layers, effects, now, ret, err);
    if (r == 0 && s->method->outline)
        r = s->method->outline(g, s->options, &layers, err);
    return r;
}

static bool has_text(const json_t *list, const char *text) {
    for (size_t i = 0; i < json_array_size(list); i++)
        if (!strcmp(json_string_value(json_array_get(list, i)), text))
            return true;
    return false;
}

/* MACs of the network that is left: of its shapes, without what the plans of its layers say is zero. */
static int64_t macs_left(const struct summary *now, const json_t *last) {
    int64_t macs = now->macs;
    const json_t *row;
    size_t i;

    json_array_foreach(json_object_get(last, "layers"), i, row) {
        int64_t whole = macs_of(now, json_string_value(json_object_get(row, "id")));
        int64_t planned = json_integer_value(json_object_get(row, "macs"));

        if (planned < whole)
            macs -= whole - planned;
    }
    return macs;
}

/* What all steps together come to: the last one's layers and bytes, every layer that some step touches. */
static json_t *plan_totals(const struct summary *now, int64_t macs_at_first, json_t *steps) {
    json_t *last = json_array_get(steps, json_array_size(steps) - 1), *affected = json_array();

    for (size_t i = 0; i < json_array_size(steps); i++) {
        const json_t *list = json_object_get(json_array_get(steps, i), "affected");

        for (size_t k = 0; k < json_array_size(list); k++)
            if (!has_text(affected, json_string_value(json_array_get(list, k))))
                json_array_append(affected, json_array_get(list, k));
    }
    return json_pack("{s:o, s:o, s:O, s:O, s:O, s:O, s:I, s:I}", "steps", steps, "affected", affected,
        "skipped", json_object_get(last, "skipped"), "layers", json_object_get(last, "layers"),
        "bytes_before", json_object_get(json_array_get(steps, 0), "weight_bytes_before"), "bytes",
        json_object_get(last, "weight_bytes"), "macs_before", (json_int_t)macs_at_first, "macs",
        (json_int_t)macs_left(now, last));
}

int recipe_plan(
    const struct recipe *r, const struct graph *g, bool has_data, json_t **ret, struct error *err) {
    _cleanup_(graph_freep) struct graph *planned = NULL;
    _cleanup_(summary_freep) struct summary *first = NULL, *last = NULL;
    json_t *steps = json_array();
    int e = check_data(r, has_data, err);

    if (e == 0)
        e = graph_clone(g, &planned, err);
    if (e == 0)
        e = summary_new(planned, &first, err);
    for (size_t i = 0; e == 0 && i < r->n; i++) {
        json_t *step = json_object();

        e = plan_step(&r->step[i], steps, planned, step, err);
        json_array_append_new(steps, step);
        if (e < 0)
            error_prefix(err, e, "steps[%zu]", i);
    }
    if (e == 0)
        e = summary_new(planned, &last, err);
    if (e < 0) {
        json_decref(steps);
        return e;
    }
    *ret = plan_totals(last, first->macs, steps);
    return *ret ? 0 : error_oom(err);
}

static int check_scope(struct graph *g, const struct scope *scope, struct error *err) {
    _cleanup_(layers_done) struct layers layers = {0};
    int r = layers_list(g, scope, &layers, err);

    return r < 0 ? r : layers_check_scope(&layers, scope, err);
}

static int run_step(const struct step *s, struct work *work, json_t *report, struct error *err) {
    _cleanup_(graph_freep) struct graph *before = NULL;
    struct scope scope = scope_of(s);
    int r = check_scope(work->graph, &scope, err);

    if (r == 0 && s->method->takes_sparse)
        r = layers_spread(work->graph, err);
    work->recover = &s->common.recover;
    work->has_calibrated = work->has_trained = false;
    if (r == 0 && s->method->folds)
        r = fold_graph(work->graph, err);
    if (r == 0)
        r = graph_clone(work->graph, &before, err);
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
    int e = check_data(r, work->samples != NULL, err);

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
        e = run_step(&r->step[i], work, report, err);
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
