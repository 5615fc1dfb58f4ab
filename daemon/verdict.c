#include "daemon/verdict.h"

#include <errno.h>
#include <string.h>

/* A variant counts as slower from here on: within it, two measurements of one program differ. */
#define SLOWER_RATIO 1.05

static double number_at(const json_t *o, const char *a, const char *b) {
    const json_t *v = json_object_get(json_object_get(o, a), b);

    return json_is_number(v) ? json_number_value(v) : -1;
}

static double bytes_of(const json_t *v) {
    return json_number_value(json_object_get(v, "bytes_file"));
}

static bool is_the_workers(const char *verdict) {
    static const char *const list[] = {
        "calibrated_on_one_colour", "calibrated_on_test", "other_sizes_not_calibrated"};

    for (size_t i = 0; i < sizeof(list) / sizeof(list[0]); i++)
        if (!strcmp(verdict, list[i]))
            return true;
    return false;
}

static bool has_default_preprocess(const json_t *variant, const json_t *model) {
    return !json_is_null(json_object_get(variant, "evaluation")) &&
           json_is_null(json_object_get(model, "preprocess"));
}

void verdict_set(json_t *variant, const json_t *parent, const json_t *done, const json_t *model) {
    const json_t *from = done ? json_object_get(done, "verdicts") : json_object_get(variant, "verdicts");
    json_t *list = json_array();
    bool has_parent = json_is_string(json_object_get(variant, "parent"));
    double own = number_at(variant, "latency", "p50_us"), base = number_at(parent, "latency", "p50_us");
    const json_t *pair = json_object_get(json_object_get(variant, "evaluation"), "vs_reference");
    const json_t *p = json_object_get(pair, "mcnemar_p"), *difference = json_object_get(pair, "difference");

    for (size_t i = 0; i < json_array_size(from); i++)
        if (is_the_workers(json_string_value(json_array_get(from, i))))
            json_array_append(list, json_array_get(from, i));
    if (has_parent && own > 0 && base > 0 && own > SLOWER_RATIO * base)
        json_array_append_new(list, json_string("slower_than_parent"));
    if (has_parent && bytes_of(variant) > bytes_of(parent))
        json_array_append_new(list, json_string("bigger_than_parent"));
    if (has_parent && json_is_number(p) && json_number_value(p) < 0.05 && json_number_value(difference) < 0)
        json_array_append_new(list, json_string("significantly_less_accurate"));
    if (has_default_preprocess(variant, model))
        json_array_append_new(list, json_string("default_preprocess"));
    json_object_set_new(variant, "verdicts", list);
}

bool verdict_meets(
    const json_t *variant, const json_t *parent, const json_t *requirement, struct error *err) {
    const json_t *drop = json_object_get(requirement, "max_accuracy_drop"),
                 *speed = json_object_get(requirement, "min_speedup");
    const json_t *bytes = json_object_get(requirement, "max_bytes");
    double a = number_at(variant, "evaluation", "accuracy"), b = number_at(parent, "evaluation", "accuracy");
    double t = number_at(variant, "latency", "p50_us"), u = number_at(parent, "latency", "p50_us");

    if (json_is_number(drop) && (a < 0 || b < 0))
        error_code(err, -EBADMSG, "requirement_not_met", "max_accuracy_drop: no accuracy was measured");
    else if (json_is_number(drop) && b - a > json_number_value(drop) + 1e-12)
        error_code(err, -EBADMSG, "requirement_not_met",
            "max_accuracy_drop: accuracy fell from %.4f to %.4f, by %.4f; allowed %.4f", b, a, b - a,
            json_number_value(drop));
    else if (json_is_number(speed) && (t <= 0 || u <= 0))
        error_code(err, -EBADMSG, "requirement_not_met", "min_speedup: no latency was measured");
    else if (json_is_number(speed) && u / t < json_number_value(speed))
        error_code(err, -EBADMSG, "requirement_not_met",
            "min_speedup: %.2f times the parent's speed was measured; wanted %.2f", u / t,
            json_number_value(speed));
    else if (json_is_number(bytes) && bytes_of(variant) > json_number_value(bytes))
        error_code(err, -EBADMSG, "requirement_not_met", "max_bytes: the file has %.0f bytes; allowed %.0f",
            bytes_of(variant), json_number_value(bytes));
    return err->err == 0;
}

bool verdict_has_labels(struct store *s, const char *dataset, const char *split) {
    json_t *doc = store_get(s, STORE_DATASET, dataset);
    json_t *part = json_object_get(json_object_get(doc, "splits"), split);
    bool yes = json_array_size(json_object_get(doc, "classes")) > 1 &&
               json_integer_value(json_object_get(part, "count")) > 0;

    json_decref(doc);
    return yes;
}
