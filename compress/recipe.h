/* Recipes: a list of steps read from JSON, planned without touching anything (dry run), and run. */
#ifndef COMPRESS_RECIPE_H
#define COMPRESS_RECIPE_H

#include "base/cleanup.h"
#include "compress/job_io.h"
#include "compress/method.h"
#include "compress/recover.h"

#define RECIPE_MAX_STEPS 32

struct recipe;

/* `steps`: the array of methods.md ("JSON of a step"). Errors carry the JSON path. */
int recipe_new(const json_t *steps, struct recipe **ret, struct error *err);
struct recipe *recipe_free(struct recipe *r);
DEFINE_CLEANUP(struct recipe *, recipe_free)

/* A list of steps that are looked at one by one, not in a row (sensitivity.h); errors name it `key`. */
int recipe_new_at(const json_t *steps, const char *key, struct recipe **ret, struct error *err);

size_t recipe_n_steps(const struct recipe *r);
/* Does the step train afterwards, or do nothing but train? */
bool recipe_step_trains(const struct recipe *r, size_t i);

/* `g` as step i finds it at its begin: folded as its method wants. */
int recipe_prepare_step(const struct recipe *r, size_t i, struct graph *g, struct error *err);

/* The dry run of step i by itself. `g` is left as recipe_prepare_step would and may change further. */
int recipe_plan_step(
    const struct recipe *r, size_t i, struct graph *g, bool has_data, json_t **ret, struct error *err);

/* Step i by itself on work->graph: only on its layer `only` (an id; NULL: on all of its layers), and not on
 * `but` (NULL: none is left out). work->parent is the caller's. */
int recipe_run_step(const struct recipe *r, size_t i, const char *only, const char *but, struct work *work,
    json_t *report, struct error *err);

/* Does a step need calibration data? */
bool recipe_needs_data(const struct recipe *r);
/* The most samples a step calibrates with. */
int recipe_samples(const struct recipe *r);

/* The dry run: layers with action, reason, form, bytes and MACs before and after; totals. */
int recipe_plan(
    const struct recipe *r, const struct graph *g, bool has_data, json_t **ret, struct error *err);

/* Runs all steps on work->graph; *ret: an array, one report a step. `io` may be NULL (no step numbers
 * reported). */
int recipe_run(const struct recipe *r, struct work *work, struct job_io *io, json_t **ret, struct error *err);

/* A named recipe's steps (new reference), or NULL. All of them as the API lists them. */
json_t *recipe_named(const char *name);
json_t *recipe_list(void);

/* The methods with their options as JSON Schema: GET /api/v1/methods. */
json_t *recipe_methods(void);

#endif
