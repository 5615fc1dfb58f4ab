#include "compress/overrides.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "compress/layers.h"

#define MAX_OVERRIDES 1000

void overrides_done(struct overrides *o) {
    for (size_t i = 0; i < o->n; i++) {
        free(o->item[i].glob);
        if (o->item[i].options)
            param_done(o->table, o->item[i].options);
        free(o->item[i].options);
    }
    free(o->item);
    *o = (struct overrides){0};
}

static int check_keys(const struct param_table *t, const json_t *j, const char *path, struct error *err) {
    json_t *keys = (json_t *)(uintptr_t)j, *value; /* the iterator wants it mutable and changes nothing */
    const char *key;

    json_object_foreach(keys, key, value) {
        const struct param *p = param_find(t, key);

        if (p && !p->per_layer)
            return error_set(err, -EINVAL, "%s.%s holds for a whole step, not for single layers", path, key);
    }
    return 0;
}

static int read_one(const json_t *j, const struct overrides *o, size_t size, const json_t *step,
    const char *const *skip, const char *path, struct override *ret, struct error *err) {
    char at[320];
    int r;

    snprintf(at, sizeof(at), "%s[\"%.200s\"]", path, ret->glob);
    ret->options = calloc(1, size);
    if (!ret->options)
        return error_oom(err);
    if (!json_is_object(j))
        return error_set(err, -EINVAL, "%s is not an object", at);
    r = param_defaults(o->table, ret->options, err);
    if (r == 0) /* has been read before: no errors */
        r = param_set_json(o->table, step, skip, "", ret->options, err);
    if (r == 0)
        r = check_keys(o->table, j, at, err);
    return r < 0 ? r : param_set_json(o->table, j, NULL, at, ret->options, err);
}

int overrides_read(const json_t *j, const struct param_table *table, size_t options_size, const json_t *step,
    const char *const *skip, const char *path, struct overrides *ret, struct error *err) {
    json_t *object = (json_t *)(uintptr_t)j, *value;
    const char *glob;
    int r = 0;

    *ret = (struct overrides){.table = table};
    if (!j)
        return 0;
    if (!json_is_object(j) || json_object_size(j) > MAX_OVERRIDES)
        return error_set(err, -EINVAL, "%s is not an object of at most %d globs", path, MAX_OVERRIDES);
    ret->item = calloc(json_object_size(j) + 1, sizeof(*ret->item));
    if (!ret->item)
        return error_oom(err);
    json_object_foreach(object, glob, value) {
        struct override *item = &ret->item[ret->n++];

        item->glob = strdup(glob);
        r = item->glob ? read_one(value, ret, options_size, step, skip, path, item, err) : error_oom(err);
        if (r < 0)
            return r;
    }
    return 0;
}

const void *overrides_find(const struct overrides *o, const char *id, const void *options) {
    for (size_t i = o ? o->n : 0; i > 0; i--)
        if (layer_matches(o->item[i - 1].glob, id))
            return o->item[i - 1].options;
    return options;
}
