#include "api/view.h"

#include <stdlib.h>
#include <string.h>

#include "api/etag.h"
#include "api/target.h"
#include "base/cleanup.h"
#include "daemon/models.h"
#include "daemon/residency.h"

const char *const view_model_keys[] = {
    "description", "labels", "preprocess", "limits", "pinned", "digest", NULL};
const char *const view_variant_keys[] = {"aliases", "pinned", "note", "policy", "digest", NULL};

static json_t *or_null(json_t *j) {
    return j ? json_incref(j) : json_null();
}

static void key_of(const json_t *variant, char *ret, size_t size) {
    variant_key(json_string_value(json_object_get(variant, "model")),
        (int)json_integer_value(json_object_get(variant, "number")), ret, size);
}

/* The kernel of each layer as the plan for one item has it; {} when the variant is not in memory or its size
 * is free. */
static json_t *kernels_of(struct api *api, const char *key) {
    _cleanup_(resident_unrefp) struct resident *r = residency_get(api->residency, key);
    const struct graph *g = r ? net_graph(r->net) : NULL;
    json_t *kernels = json_object();
    struct shape shapes[16];
    struct plan *plan = NULL;

    for (size_t i = 0; g && i < g->n_inputs && i < 16; i++) {
        shapes[i] = g->values[g->inputs[i]].shape;
        if (shapes[i].rank > 0 && shapes[i].dim[0] < 0)
            shapes[i].dim[0] = 1;
        for (int k = 0; k < shapes[i].rank; k++)
            if (shapes[i].dim[k] < 0)
                return kernels;
    }
    if (!g || g->n_inputs > 16 || net_plan(r->net, shapes, r->threads, &plan, NULL) < 0)
        return kernels;
    for (size_t i = 0; i < plan_n_steps(plan); i++) {
        struct plan_step s;

        plan_get_step(plan, i, &s);
        json_object_set_new(
            kernels, s.id, json_pack("{s:s, s:b}", "kernel", s.kernel, "decoded", s.is_decoded));
    }
    plan_unref(plan);
    return kernels;
}

static json_t *form_of(const json_t *variant, const char *id) {
    json_t *list = json_object_get(variant, "layers"), *layer;
    size_t i;

    json_array_foreach(list, i, layer) if (!strcmp(json_string_value(json_object_get(layer, "id")),
                                               id)) return json_object_get(layer, "form");
    return NULL;
}

/* As the variant's own record says; weights without one lie there as plain floats. */
static json_t *form_view(const json_t *variant, const json_t *row) {
    json_t *form = form_of(variant, json_string_value(json_object_get(row, "id")));

    form = form ? form : json_object_get(row, "form");
    if (json_is_string(form))
        return json_incref(form);
    return json_integer_value(json_object_get(row, "params")) > 0 ? json_string("dense") : json_null();
}

static json_t *layers_view(struct api *api, const json_t *variant, const char *key) {
    json_t *rows = json_object_get(json_object_get(variant, "summary"), "layers"), *row, *list = json_array();
    json_t *kernels = kernels_of(api, key);
    size_t i;

    json_array_foreach(rows, i, row) {
        const char *id = json_string_value(json_object_get(row, "id"));
        json_t *k = json_object_get(kernels, id);

        json_array_append_new(list,
            json_pack("{s:s, s:O, s:o, s:o, s:o, s:O, s:O, s:O, s:o, s:o}", "name", id, "op",
                json_object_get(row, "op"), "form", form_view(variant, row), "kernel",
                or_null(json_object_get(k, "kernel")), "decoded", or_null(json_object_get(k, "decoded")),
                "bytes", json_object_get(row, "bytes"), "macs", json_object_get(row, "macs"), "params",
                json_object_get(row, "params"), "nonzero", or_null(json_object_get(row, "nonzero")),
                "latency_us", or_null(json_object_get(json_object_get(variant, "layer_us"), id))));
    }
    json_decref(kernels);
    return list;
}

static void set_measured(json_t *o, const json_t *variant) {
    const json_t *summary = json_object_get(variant, "summary");

    json_object_set_new(o, "parameters", or_null(json_object_get(summary, "parameters")));
    json_object_set_new(o, "nonzero", or_null(json_object_get(summary, "nonzero")));
    json_object_set_new(o, "macs", or_null(json_object_get(summary, "macs")));
    json_object_set_new(o, "evaluation", or_null(json_object_get(variant, "evaluation")));
    json_object_set_new(o, "latency", or_null(json_object_get(variant, "latency")));
    json_object_set_new(o, "verdicts", or_null(json_object_get(variant, "verdicts")));
}

json_t *view_variant(struct api *api, const json_t *variant, bool is_row) {
    static const char *const shown[] = {"model", "name", "number", "parent", "steps", "digest", "created",
        "aliases", "pinned", "policy", "note", "bytes_file", "bytes_file_compressed", "job"};
    char key[NAME_MAX_SIZE + 16], reason[RESIDENCY_REASON_MAX];
    json_t *o = json_object();
    enum variant_state state;
    uint64_t bytes;

    if (!o)
        return NULL;
    key_of(variant, key, sizeof(key));
    state = residency_state(api->residency, key, &bytes, reason);
    for (size_t i = 0; i < sizeof(shown) / sizeof(shown[0]); i++)
        json_object_set_new(o, shown[i], or_null(json_object_get(variant, shown[i])));
    json_object_set_new(o, "state", json_string(variant_state_name(state)));
    json_object_set_new(o, "reason", *reason ? json_string(reason) : json_null());
    json_object_set_new(o, "bytes_resident", json_integer((json_int_t)(state == VARIANT_READY ? bytes : 0)));
    set_measured(o, variant);
    if (!is_row)
        json_object_set_new(o, "layers", layers_view(api, variant, key));
    return o;
}

static json_t *variants_view(struct api *api, const char *name) {
    json_t *all = models_variants(api->store, name), *list = json_array(), *v;
    size_t i;

    json_array_foreach(all, i, v) json_array_append_new(list, view_variant(api, v, true));
    json_decref(all);
    return list;
}

static json_int_t resident_sum(const json_t *variants) {
    json_int_t sum = 0;

    for (size_t i = 0; i < json_array_size(variants); i++)
        sum += json_integer_value(json_object_get(json_array_get(variants, i), "bytes_resident"));
    return sum;
}

static void set_summary(json_t *o, const json_t *summary, bool is_row) {
    static const char *const shown[] = {
        "inputs", "outputs", "operators", "parameters", "macs", "opset", "ir_version", "producer"};

    for (size_t i = 0; i < sizeof(shown) / sizeof(shown[0]); i++)
        json_object_set_new(o, shown[i], or_null(json_object_get(summary, shown[i])));
    if (!is_row)
        json_object_set_new(o, "layers", or_null(json_object_get(summary, "layers")));
}

json_t *view_model(struct api *api, const json_t *model, bool is_row) {
    static const char *const shown[] = {
        "name", "digest", "created", "description", "labels", "preprocess", "pinned", "bytes"};
    const char *name = json_string_value(json_object_get(model, "name"));
    json_t *o = json_object(), *variants = variants_view(api, name);

    if (!o || !variants)
        return NULL;
    for (size_t i = 0; i < sizeof(shown) / sizeof(shown[0]); i++)
        json_object_set_new(o, shown[i], or_null(json_object_get(model, shown[i])));
    json_object_set_new(o, "limits",
        json_pack("{s:i, s:i, s:i}", "max_batch", (int)target_limit(api, model, "max_batch"), "queue",
            (int)target_limit(api, model, "queue"), "timeout_ms",
            (int)target_limit(api, model, "timeout_ms")));
    set_summary(o, json_object_get(model, "summary"), is_row);
    json_object_set_new(o, "bytes_resident", json_integer(resident_sum(variants)));
    json_object_set_new(o, "bytes_shared", json_integer((json_int_t)residency_shared(api->residency, name)));
    json_object_set_new(
        o, "route", json_pack("{s:s, s:{s:f}}", "primary", "original", "weights", "original", 1.0));
    if (is_row) {
        json_object_set_new(o, "n_variants", json_integer((json_int_t)json_array_size(variants)));
        json_decref(variants);
    } else {
        json_object_set_new(o, "variants", variants);
    }
    return o;
}

static int by_created(const void *a, const void *b) {
    return strcmp(json_string_value(json_object_get(*(json_t *const *)b, "created")),
        json_string_value(json_object_get(*(json_t *const *)a, "created")));
}

json_t *view_newest_first(json_t *all) {
    size_t n = json_array_size(all);
    _cleanup_(freep) json_t **docs = calloc(n + 1, sizeof(json_t *));
    json_t *sorted = json_array();

    for (size_t i = 0; docs && i < n; i++)
        docs[i] = json_array_get(all, i);
    if (docs)
        qsort(docs, n, sizeof(json_t *), by_created);
    for (size_t i = 0; docs && i < n; i++)
        json_array_append(sorted, docs[i]);
    json_decref(all);
    return sorted;
}

json_t *view_page(json_t *all, const char *key, size_t limit, const char *cursor) {
    json_t *items = json_array(), *next = json_null();
    size_t from = 0, n = json_array_size(all);

    for (size_t i = 0; cursor && i < n; i++) {
        const char *k = json_string_value(json_object_get(json_array_get(all, i), key));

        if (k && !strcmp(k, cursor))
            from = i + 1;
    }
    for (size_t i = from; i < n && i < from + limit; i++)
        json_array_append(items, json_array_get(all, i));
    if (from + limit < n)
        next = json_incref(json_object_get(json_array_get(all, from + limit - 1), key));
    json_decref(all);
    return json_pack("{s:o, s:o}", "items", items, "next_cursor", next);
}

int view_tagged(struct request *r, struct reply *p, const json_t *doc, struct error *err) {
    char *text = json_dumps(doc, JSON_COMPACT), etag[ETAG_MAX];

    if (!text)
        return error_oom(err);
    etag_of_bytes(text, strlen(text), etag);
    return reply_tagged(r, p, "application/json", text, strlen(text), etag);
}
