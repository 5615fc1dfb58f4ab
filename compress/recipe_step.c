/* Steps looked at one by one, not in a row. */
#include "compress/recipe_priv.h"

size_t recipe_n_steps(const struct recipe *r) {
    return r->n;
}

bool recipe_step_trains(const struct recipe *r, size_t i) {
    const struct step *s = &r->step[i];

    return (s->method->trains && s->method->trains(s->options)) || recover_trains(&s->common.recover);
}

int recipe_prepare_step(const struct recipe *r, size_t i, struct graph *g, struct error *err) {
    return recipe_prepare(&r->step[i], g, err);
}

int recipe_plan_step(
    const struct recipe *r, size_t i, struct graph *g, bool has_data, json_t **ret, struct error *err) {
    json_t *none = json_array(), *plan = json_object();
    int e = recipe_check_data(r, has_data, err);

    if (e == 0) {
        e = recipe_plan_after(&r->step[i], none, g, plan, err);
        if (e < 0)
            error_prefix(err, e, "%s[%zu]", r->key, i);
    }
    json_decref(none);
    if (e < 0)
        json_decref(plan);
    else
        *ret = plan;
    return e;
}

int recipe_run_step(const struct recipe *r, size_t i, const char *only, const char *but, struct work *work,
    json_t *report, struct error *err) {
    struct scope scope = recipe_scope(&r->step[i]);

    scope.only = only;
    scope.but = but;
    work->step = i;
    return recipe_apply(&r->step[i], scope, work, report, err);
}
