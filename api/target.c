#include "api/target.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "api/api.h"
#include "base/cleanup.h"
#include "config/config.h"
#include "daemon/models.h"
#include "engine/ops.h"

void target_done(struct target *t) {
    json_decref(t->variant);
    json_decref(t->model);
    memset(t, 0, sizeof(*t));
}

int target_of_variant(const struct request *r, json_t *variant, struct target *ret, struct error *err) {
    struct target t = {.variant = variant};

    t.model_name = json_string_value(json_object_get(variant, "model"));
    t.variant_name = json_string_value(json_object_get(variant, "name"));
    t.number = (int)json_integer_value(json_object_get(variant, "number"));
    t.model = t.model_name ? store_get(r->api->store, STORE_MODEL, t.model_name) : NULL;
    if (!t.model || !t.variant_name) { /* deleted between two look-ups */
        target_done(&t);
        return error_set(err, -ENOENT, "the model was deleted meanwhile");
    }
    snprintf(t.version, sizeof(t.version), "%d", t.number);
    variant_key(t.model_name, t.number, t.key, sizeof(t.key));
    *ret = t;
    return 0;
}

int target_find(const struct request *r, struct target *ret, struct error *err) {
    const char *name = request_param(r, "model");
    const char *version = request_param(r, "version");
    json_t *variant = NULL;
    int rc = models_resolve(r->api->store, name, *version ? version : NULL, &variant, err);

    if (!rc)
        rc = target_of_variant(r, variant, ret, err);
    if (!rc)
        ret->is_pinned = *version || strchr(name, '~');
    return rc;
}

/* Outputs whose size depends on data have no row for each of the batch. */
static bool has_counted_operators(const json_t *summary) {
    json_t *operators = json_object_get(summary, "operators"), *count;
    const char *name;

    json_object_foreach(operators, name, count) {
        const struct op *op = op_find("", name);

        if (op && op->is_counted)
            return true;
    }
    return false;
}

bool target_is_batched(const struct target *t) {
    const json_t *summary = json_object_get(t->variant, "summary"),
                 *inputs = json_object_get(summary, "inputs");
    size_t i;
    json_t *in;

    if (has_counted_operators(summary))
        return false;
    json_array_foreach(inputs, i,
        in) if (json_integer_value(json_array_get(json_object_get(in, "shape"), 0)) != -1) return false;
    return json_array_size(inputs) > 0;
}

unsigned target_limit(const struct api *api, const json_t *model, const char *name) {
    json_int_t own = json_integer_value(json_object_get(json_object_get(model, "limits"), name));
    const struct param *option = param_find(&config_table, name);

    return (unsigned)(own > 0 ? own : *(const int *)((const char *)api->config + option->at));
}

int target_check_batch(
    const struct api *api, const json_t *model, const char *input, int64_t n, struct error *err) {
    unsigned most = target_limit(api, model, "max_batch");

    if (n <= (int64_t)most)
        return 0;
    return error_set(err, -EINVAL, "input '%s' has a batch of %lld, the model's limits.max_batch is %u",
        input, (long long)n, most);
}

int target_each(const struct request *r,
    int (*fn)(const struct request *r, const struct target *t, void *ctx, struct error *err), void *ctx,
    struct error *err) {
    _cleanup_(target_done) struct target one = {0};
    json_t *all, *v;
    size_t i;
    int rc = target_find(r, &one, err);

    if (rc)
        return rc;
    if (one.is_pinned)
        return fn(r, &one, ctx, err);
    all = models_variants(r->api->store, one.model_name);
    json_array_foreach(all, i, v) {
        _cleanup_(target_done) struct target t = {0};

        rc = target_of_variant(r, json_incref(v), &t, err);
        if (!rc)
            rc = fn(r, &t, ctx, err);
        if (rc)
            break;
    }
    json_decref(all);
    return rc;
}
