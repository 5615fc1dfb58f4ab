#include "compress/quantize_control.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "compress/held_out.h"
#include "compress/sensitivity.h"

#define DAMAGE_SAMPLES 64

/* ---- layers in the order of their damage ---- */

struct candidate {
    char *id, *glob; /* the id as a pattern that matches it alone */
    double damage;
};

struct control {
    struct work *work;
    const struct quantize_scheme *scheme;
    const struct quantize_options *o;
    const struct scope *scope;
    const struct graph *start; /* the network before the step */
    size_t n;
    struct candidate *layer;
};

static void control_done(struct control *c) {
    for (size_t i = 0; i < c->n; i++) {
        free(c->layer[i].id);
        free(c->layer[i].glob);
    }
    free(c->layer);
}

static char *as_glob(const char *id) {
    char *ret = malloc(2 * strlen(id) + 1), *to = ret;

    for (; ret && *id; id++) {
        if (strchr("*?[\\", *id))
            *to++ = '\\';
        *to++ = *id;
    }
    if (ret)
        *to = 0;
    return ret;
}

/* Runs the scheme on a fresh copy of the start, which becomes the work's graph. */
static int run(struct control *c, const struct quantize_options *o, const struct scope *scope, json_t *report,
    struct error *err) {
    struct graph *copy;
    int r = graph_clone(c->start, &copy, err);

    if (r < 0)
        return r;
    graph_free(c->work->graph);
    c->work->graph = copy;
    return c->scheme->apply(c->work, o, scope, report, err);
}

static int add_candidates(struct control *c, const json_t *report, struct error *err) {
    const json_t *list = json_object_get(report, "layers"), *row;
    size_t i;

    c->layer = calloc(json_array_size(list) + 1, sizeof(*c->layer));
    if (!c->layer)
        return error_oom(err);
    json_array_foreach(list, i, row) {
        const char *id = json_string_value(json_object_get(row, "id"));
        const char *action = json_string_value(json_object_get(row, "action"));

        if (!id || !action || !strcmp(action, "skipped"))
            continue;
        c->layer[c->n] = (struct candidate){.id = strdup(id), .glob = as_glob(id)};
        c->n++;
        if (!c->layer[c->n - 1].id || !c->layer[c->n - 1].glob)
            return error_oom(err);
    }
    return 0;
}

static int most_damage_first(const void *a, const void *b) {
    const struct candidate *x = a, *y = b;

    return x->damage > y->damage ? -1 : x->damage < y->damage ? 1 : strcmp(x->id, y->id);
}

/* With each layer alone, as fast as may be. */
static int find_damages(struct control *c, struct error *err) {
    const struct sensitivity_options options = {.samples = DAMAGE_SAMPLES, .progress = c->work->progress};
    _cleanup_(sensitivity_freep) struct sensitivity *judge = NULL;
    struct quantize_options o = *c->o;
    const struct samples *all = c->work->samples;
    struct samples few = *all;
    int r = sensitivity_open(c->start, all, &options, &judge, err);

    few.n = few.n > DAMAGE_SAMPLES ? DAMAGE_SAMPLES : few.n;
    o.adaround = o.has_qat = false;
    for (size_t i = 0; r == 0 && i < c->n; i++) {
        const char *include[] = {c->layer[i].glob, NULL};
        _cleanup_(sensitivity_damage_done) struct sensitivity_damage d = {0};
        struct scope one = *c->scope;
        json_t *report = json_object();

        one.include = include;
        c->work->samples = &few;
        r = progress_at(c->work->progress, (double)i / (double)c->n, "which layers cost accuracy", err);
        if (r == 0)
            r = run(c, &o, &one, report, err);
        if (r == 0)
            r = sensitivity_judge(judge, 0, c->work->graph, &d, err);
        c->layer[i].damage = r == 0 ? sensitivity_cost(&d) : 0;
        c->work->samples = all;
        json_decref(report);
    }
    qsort(c->layer, c->n, sizeof(*c->layer), most_damage_first);
    return r;
}

/* ---- taking back ---- */

/* What the first `n` candidates were called in a report becomes what they are. */
static void tell_reverted(const struct control *c, size_t n, json_t *report) {
    json_t *row;
    size_t i;

    json_array_foreach(json_object_get(report, "layers"), i,
        row) for (size_t k = 0; k < n;
                  k++) if (!strcmp(json_string_value(json_object_get(row, "id")), c->layer[k].id))
        json_object_set_new(row, "reason", json_string("taken back to float by accuracy_control"));
}

/* The scheme on all but the first n candidates. */
static int run_without(struct control *c, size_t n, json_t *report, double *ret, struct error *err) {
    _cleanup_(freep) const char **exclude = NULL;
    struct scope scope = *c->scope;
    size_t n_old = 0;
    int r;

    while (scope.exclude && scope.exclude[n_old])
        n_old++;
    exclude = calloc(n_old + n + 1, sizeof(*exclude));
    if (!exclude)
        return error_oom(err);
    for (size_t i = 0; i < n_old; i++)
        exclude[i] = scope.exclude[i];
    for (size_t i = 0; i < n; i++)
        exclude[n_old + i] = c->layer[i].glob;
    scope.exclude = exclude;
    json_object_clear(report);
    r = run(c, c->o, &scope, report, err);
    if (r == 0)
        r = held_out_accuracy(c->work, c->work->graph, ret, err);
    if (r == 0)
        tell_reverted(c, n, report);
    return r;
}

static int tell(const struct control *c, size_t n, double before, double first, double accuracy,
    json_t *report, struct error *err) {
    json_t *reverted = json_array(),
           *found = json_pack("{s:f, s:f, s:f, s:f, s:o}", "before", before, "quantized", first, "accuracy",
               accuracy, "max_drop", c->o->accuracy_control.max_drop, "reverted", reverted);

    if (!found)
        return error_oom(err);
    for (size_t i = 0; i < n; i++)
        json_array_append_new(
            reverted, json_pack("{s:s, s:f}", "id", c->layer[i].id, "damage", c->layer[i].damage));
    return json_object_set_new(report, "accuracy_control", found) < 0 ? error_oom(err) : 0;
}

static int take_back(struct control *c, double before, double first, json_t *report, struct error *err) {
    double limit = before - c->o->accuracy_control.max_drop, accuracy = first;
    size_t n = 0;
    int r = find_damages(c, err);

    while (r == 0 && accuracy < limit) {
        n += 1 + n / 6; /* long lists in longer steps */
        if (n >= c->n)
            return error_code(err, -EBADMSG, "method_not_applicable",
                "accuracy_control: no layer can be quantised so that held-out accuracy falls by at most %g: from "
                "%.4f to %.4f with the last few",
                c->o->accuracy_control.max_drop, before, accuracy);
        r = progress_at(c->work->progress, (double)n / (double)c->n, "layers go back to float", err);
        if (r == 0)
            r = run_without(c, n, report, &accuracy, err);
    }
    return r < 0 ? r : tell(c, n, before, first, accuracy, report, err);
}

int quantize_controlled(struct work *work, const struct quantize_scheme *s, const struct quantize_options *o,
    const struct scope *scope, json_t *report, struct error *err) {
    static const struct scope everything = {0};
    _cleanup_(graph_freep) struct graph *start = NULL;
    _cleanup_(control_done) struct control c = {
        .work = work, .scheme = s, .o = o, .scope = scope ? scope : &everything};
    double before, first;
    int r = graph_clone(work->graph, &start, err);

    c.start = start;
    if (r == 0)
        r = held_out_accuracy(work, start, &before, err);
    if (r == 0 && before < 0)
        return error_code(err, -EBADMSG, "data_required",
            "accuracy_control needs labelled pictures, of which some are held out of the training split");
    if (r == 0)
        r = s->apply(work, o, scope, report, err);
    if (r == 0)
        r = held_out_accuracy(work, work->graph, &first, err);
    if (r < 0)
        return r;
    if (first >= before - o->accuracy_control.max_drop)
        return tell(&c, 0, before, first, first, report, err);
    r = add_candidates(&c, report, err);
    return r < 0 ? r : take_back(&c, before, first, report, err);
}
