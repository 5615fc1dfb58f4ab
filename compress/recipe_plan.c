/* The dry run: what each step would do to each layer, planned on the shapes that the steps before it leave.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "compress/fold.h"
#include "compress/recipe_priv.h"
#include "engine/summary.h"

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

int recipe_check_layers(const struct step *s, const struct layers *layers, struct error *err) {
    const char *first = NULL, *other = NULL;

    for (size_t i = 0; i < layers->n; i++) {
        const char *reason = layers->entry[i].reason;

        if (layers->entry[i].is_selected)
            return 0;
        if (!first)
            first = reason;
        else if (!other && reason && strcmp(first, reason) != 0)
            other = reason;
    }
    return error_code(err, -EBADMSG, "method_not_applicable", "method '%s' applies to no layer%s%s%s%s",
        s->method->name, first ? ": " : "", first ? first : "", other ? "; " : "", other ? other : "");
}

int recipe_fold(const struct step *s, struct graph *g, struct error *err) {
    return s->method->folds ? fold_graph(g, err) : s->method->keeps_norms ? fold_but_norms(g, err) : 0;
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
    return recipe_check_layers(s, layers, err);
}

int recipe_plan_after(
    const struct step *s, const json_t *steps, struct graph *g, json_t *ret, struct error *err) {
    _cleanup_(layers_done) struct layers layers = {0};
    _cleanup_(summary_freep) struct summary *now = NULL;
    _cleanup_(freep) struct effect *effects = NULL;
    struct scope scope = recipe_scope(s);
    int r = recipe_fold(s, g, err);

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
    int e = recipe_check_data(r, has_data, err);

    if (e == 0)
        e = graph_clone(g, &planned, err);
    if (e == 0)
        e = summary_new(planned, &first, err);
    for (size_t i = 0; e == 0 && i < r->n; i++) {
        json_t *step = json_object();

        e = recipe_plan_after(&r->step[i], steps, planned, step, err);
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
