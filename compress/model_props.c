#include "compress/model_props.h"

#include "base/cleanup.h"
#include "image/preprocess.h"

#define LABELS_KEY     "bonsai.labels"
#define PREPROCESS_KEY "bonsai.preprocess"

static int set(struct graph *g, const char *key, const json_t *j, struct error *err) {
    _cleanup_(freep) char *text = NULL;

    if (!j || json_is_null(j))
        return 0;
    text = json_dumps(j, JSON_COMPACT | JSON_SORT_KEYS | JSON_REAL_PRECISION(17));
    return text && graph_set_prop(g, key, text) == 0 ? 0 : error_oom(err);
}

int model_props_set(struct graph *g, const json_t *labels, const json_t *preprocess, struct error *err) {
    int r = set(g, LABELS_KEY, labels, err);

    return r < 0 ? r : set(g, PREPROCESS_KEY, preprocess, err);
}

static json_t *prop_json(const struct graph *g, const char *key) {
    const char *text = graph_prop(g, key);

    return text ? json_loads(text, JSON_REJECT_DUPLICATES, NULL) : NULL;
}

/* One string a class of an output [N,K] or [N,K,1,1]. */
static bool labels_fit(const struct graph *g, const json_t *labels) {
    const struct shape *s = &g->values[g->outputs[0]].shape;

    if (!json_is_array(labels) || s->rank < 2 || (int64_t)json_array_size(labels) != s->dim[1])
        return false;
    for (int i = 2; i < s->rank; i++)
        if (s->dim[i] != 1)
            return false;
    for (size_t i = 0; i < json_array_size(labels); i++)
        if (!json_is_string(json_array_get(labels, i)))
            return false;
    return true;
}

static bool preprocess_fits(const struct graph *g, const json_t *j) {
    const struct shape *s = &g->values[g->inputs[0]].shape;
    struct preprocess p;
    struct error ignored = {0};

    return json_is_object(j) && s->rank >= 0 && preprocess_from_json(j, s->dim, s->rank, &p, &ignored) == 0;
}

void model_props_read(const struct graph *g, json_t **ret_labels, json_t **ret_preprocess) {
    json_auto_t *labels = prop_json(g, LABELS_KEY), *preprocess = prop_json(g, PREPROCESS_KEY);

    *ret_labels = g->n_outputs > 0 && labels_fit(g, labels) ? json_incref(labels) : NULL;
    *ret_preprocess = g->n_inputs == 1 && preprocess_fits(g, preprocess) ? json_incref(preprocess) : NULL;
}
