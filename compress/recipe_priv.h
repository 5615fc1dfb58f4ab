/* A recipe as its files see it: read and run (recipe.c), planned (recipe_plan.c). */
#ifndef COMPRESS_RECIPE_PRIV_H
#define COMPRESS_RECIPE_PRIV_H

#include "compress/recipe.h"

/* What every step has besides its method's options (methods.md, Common). */
struct common {
    struct {
        char **include, **exclude;
    } layers;
    bool has_recover;
    struct recover recover;
};

struct step {
    const struct method *method;
    void *options;
    struct common common;
    struct overrides overrides;
};

struct recipe {
    const char *key; /* what errors call the list */
    size_t n;
    struct step step[RECIPE_MAX_STEPS];
};

/* data_required, naming the first step that needs data where there are none. */
int recipe_check_data(const struct recipe *r, bool has_data, struct error *err);

/* method_not_applicable with the first layer's reason where none is selected. */
int recipe_check_layers(const struct step *s, const struct layers *layers, struct error *err);

/* The graph as the step's method takes it. */
int recipe_fold(const struct step *s, struct graph *g, struct error *err);

struct scope recipe_scope(const struct step *s);

/* `g` as the step finds it when its method rewrites it. */
int recipe_prepare(const struct step *s, struct graph *g, struct error *err);
/* The step and what it recovers, on work->graph. */
int recipe_apply(
    const struct step *s, struct scope scope, struct work *work, json_t *report, struct error *err);

/* The dry run of a step after others: `steps` are their plans. Leaves `g` in the shape that it would. */
int recipe_plan_after(
    const struct step *s, const json_t *steps, struct graph *g, json_t *ret, struct error *err);

#endif
