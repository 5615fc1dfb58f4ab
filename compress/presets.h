/* Recipes with a name: {"recipe": "small"} in place of steps (GET /api/v1/recipes). What each came to on the
 * shipped networks stands in docs/presets.md, which tests/reach/presets.py measures. */
#ifndef COMPRESS_PRESETS_H
#define COMPRESS_PRESETS_H

#include <jansson.h>

struct preset {
    const char *name;
    const char *summary;
    const char *needs; /* what of the operator's: "nothing", "pictures", "labelled pictures" */
    const char *steps; /* JSON */
};

/* sorted by name */
extern const struct preset presets[];
extern const size_t n_presets;

/* NULL: none such. */
const struct preset *preset_find(const char *name);

#endif
