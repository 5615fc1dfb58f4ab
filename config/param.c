#include "config/param.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

static void *member(const struct param *p, void *of) {
    return (char *)of + p->at;
}

static const void *const_member(const struct param *p, const void *of) {
    return (const char *)of + p->at;
}

static bool same_name(const char *a, const char *b) {
    for (; *a && *b; a++, b++)
        if (*a != *b && !((*a == '-' || *a == '_') && (*b == '-' || *b == '_')))
            return false;
    return *a == *b;
}

const struct param *param_find(const struct param_table *t, const char *name) {
    for (size_t i = 0; i < t->n; i++)
        if (same_name(t->param[i].name, name))
            return &t->param[i];
    return NULL;
}

static void free_list(char **list) {
    for (size_t i = 0; list && list[i]; i++)
        free(list[i]);
    free(list);
}

static void free_listp(char ***list) {
    free_list(*list);
}

static int check_range(const struct param *p, double v, const char *path, struct error *err) {
    if ((p->min == 0 && p->max == 0) || (v >= p->min && v <= p->max))
        return 0;
    return error_set(err, -EINVAL, "%s: %.12g is not from %.12g to %.12g", path, v, p->min, p->max);
}

static int bad_choice(const struct param *p, const char *text, const char *path, struct error *err) {
    char list[256] = "";
    size_t at = 0;

    for (size_t i = 0; p->choices[i] && at < sizeof(list); i++)
        at += (size_t)snprintf(list + at, sizeof(list) - at, "%s%s", i ? ", " : "", p->choices[i]);
    return error_set(err, -EINVAL, "%s: '%.64s' is not one of %s", path, text, list);
}

static int set_enum(const struct param *p, const char *text, const char *path, void *ret, struct error *err) {
    for (int i = 0; p->choices[i]; i++)
        if (!strcmp(p->choices[i], text)) {
            *(int *)member(p, ret) = i;
            return 0;
        }
    return bad_choice(p, text, path, err);
}

static int set_bool(const struct param *p, const char *text, void *ret, struct error *err) {
    static const char *const yes[] = {"true", "yes", "on", "1"}, *const no[] = {"false", "no", "off", "0"};

    for (size_t i = 0; i < sizeof(yes) / sizeof(yes[0]); i++)
        if (!strcmp(text, yes[i]) || !strcmp(text, no[i])) {
            *(bool *)member(p, ret) = !strcmp(text, yes[i]);
            return 0;
        }
    return error_set(err, -EINVAL, "%s: '%.64s' is neither true nor false", p->name, text);
}

static int set_number(const struct param *p, double v, const char *path, void *ret, struct error *err) {
    int r = check_range(p, v, path, err);

    if (r < 0)
        return r;
    if (p->type != PARAM_REAL &&
        (v != floor(v) || fabs(v) > (p->type == PARAM_INT ? (double)INT32_MAX : 9e15)))
        return error_set(err, -EINVAL, "%s: %.12g is not a whole number in range", path, v);
    if (p->type == PARAM_REAL)
        *(double *)member(p, ret) = v;
    else if (p->type == PARAM_INT)
        *(int *)member(p, ret) = (int)v;
    else
        *(int64_t *)member(p, ret) = (int64_t)v;
    return 0;
}

static int set_number_text(const struct param *p, const char *text, void *ret, struct error *err) {
    static const struct {
        char suffix;
        double factor;
    } units[] = {{'K', 1024.0}, {'M', 1024.0 * 1024}, {'G', 1024.0 * 1024 * 1024}};
    char *end;
    double v;

    errno = 0;
    v = strtod(text, &end);
    for (size_t i = 0; p->type == PARAM_SIZE && i < 3; i++)
        if (toupper((unsigned char)*end) == units[i].suffix) {
            v *= units[i].factor;
            end++;
            break;
        }
    if (end == text || *end || errno || !isfinite(v))
        return error_set(err, -EINVAL, "%s: '%.64s' is not a number", p->name, text);
    return set_number(p, v, p->name, ret, err);
}

static int set_pair(
    const struct param *p, double a, double b, const char *path, void *ret, struct error *err) {
    const double v[2] = {a, b};

    for (int i = 0; i < 2; i++) {
        int r = check_range(p, v[i], path, err);

        if (r < 0)
            return r;
        if (v[i] != floor(v[i]) || fabs(v[i]) > (double)INT32_MAX)
            return error_set(err, -EINVAL, "%s: %.12g is not a whole number in range", path, v[i]);
    }
    for (int i = 0; i < 2; i++)
        ((int *)member(p, ret))[i] = (int)v[i];
    return 0;
}

static int set_pair_text(const struct param *p, const char *text, void *ret, struct error *err) {
    char *comma, *end;
    double a = strtod(text, &comma), b;

    if (comma == text || *comma != ',')
        return error_set(err, -EINVAL, "%s: '%.64s' is not two numbers with a comma between", p->name, text);
    b = strtod(comma + 1, &end);
    if (end == comma + 1 || *end)
        return error_set(err, -EINVAL, "%s: '%.64s' is not two numbers with a comma between", p->name, text);
    return set_pair(p, a, b, p->name, ret, err);
}

static int set_string(const struct param *p, const char *text, void *ret, struct error *err) {
    char **at = member(p, ret), *copy = *text ? strdup(text) : NULL;

    if (*text && !copy)
        return error_oom(err);
    free(*at);
    *at = copy;
    return 0;
}

static int add_item(char ***list, size_t *n, const char *text, size_t size) {
    char **bigger = realloc(*list, (*n + 2) * sizeof(*bigger));

    if (!bigger)
        return -ENOMEM;
    *list = bigger;
    bigger[*n] = strndup(text, size);
    bigger[*n + 1] = NULL;
    if (!bigger[*n])
        return -ENOMEM;
    (*n)++;
    return 0;
}

static int set_list(const struct param *p, const char *text, void *ret, struct error *err) {
    _cleanup_(free_listp) char **list = NULL;
    char ***at = member(p, ret);
    size_t n = 0;

    for (const char *s = text; *s;) {
        size_t size = strcspn(s, ", \t");

        if (size && add_item(&list, &n, s, size) < 0)
            return error_oom(err);
        s += size;
        s += strspn(s, ", \t");
    }
    free_list(*at);
    *at = TAKE(list);
    return 0;
}

int param_set_text(const struct param *p, const char *text, void *ret, struct error *err) {
    switch (p->type) {
    case PARAM_BOOL: return set_bool(p, text, ret, err);
    case PARAM_INT:
    case PARAM_SIZE:
    case PARAM_REAL: return set_number_text(p, text, ret, err);
    case PARAM_ENUM: return set_enum(p, text, p->name, ret, err);
    case PARAM_STRING: return set_string(p, text, ret, err);
    case PARAM_LIST: return set_list(p, text, ret, err);
    case PARAM_PAIR: return set_pair_text(p, text, ret, err);
    case PARAM_OBJECT:
    case PARAM_OBJECTS:
    case PARAM_JSON:
    default: return error_set(err, -EINVAL, "%s: an object cannot be given as text", p->name);
    }
}

/* The word that stands in an object's place. */
static int set_word(const struct param *p, const char *text, const char *path, void *ret, struct error *err) {
    for (int i = 0; p->choices[i]; i++)
        if (!strcmp(p->choices[i], text)) {
            *(int *)((char *)ret + p->word_at) = i;
            return 0;
        }
    return bad_choice(p, text, path, err);
}

int param_defaults(const struct param_table *t, void *ret, struct error *err) {
    for (size_t i = 0; i < t->n; i++) {
        const struct param *p = &t->param[i];
        int r = 0;

        if (p->type == PARAM_OBJECT) {
            r = param_defaults(p->table, member(p, ret), err);
            if (r == 0 && p->choices)
                r = set_word(p, p->dflt, p->name, ret, err);
        } else if (p->dflt)
            r = param_set_text(p, p->dflt, ret, err);
        if (r < 0)
            return r;
    }
    return 0;
}

static int wrong_type(const char *path, const char *wanted, struct error *err) {
    return error_set(err, -EINVAL, "%s is not %s", path, wanted);
}

static int list_from_json(
    const struct param *p, const json_t *j, const char *path, void *ret, struct error *err) {
    _cleanup_(free_listp) char **list = NULL;
    char ***at = member(p, ret);
    size_t n = 0;

    if (!json_is_array(j))
        return wrong_type(path, "a list of strings", err);
    for (size_t i = 0; i < json_array_size(j); i++) {
        const char *s = json_string_value(json_array_get(j, i));

        if (!s)
            return error_set(err, -EINVAL, "%s[%zu] is not a string", path, i);
        if (add_item(&list, &n, s, strlen(s)) < 0)
            return error_oom(err);
    }
    free_list(*at);
    *at = TAKE(list);
    return 0;
}

static int pair_from_json(
    const struct param *p, const json_t *j, const char *path, void *ret, struct error *err) {
    const json_t *a = json_array_get(j, 0), *b = json_array_get(j, 1);

    if (json_array_size(j) != 2 || !json_is_integer(a) || !json_is_integer(b))
        return wrong_type(path, "a list of two whole numbers", err);
    return set_pair(p, (double)json_integer_value(a), (double)json_integer_value(b), path, ret, err);
}

static void *item_of(const struct param *p, const struct param_objects *o, size_t i) {
    return (char *)o->item + i * p->item_size;
}

static void free_objects(const struct param *p, struct param_objects *o) {
    for (size_t i = 0; i < o->n; i++)
        param_done(p->table, item_of(p, o, i));
    free(o->item);
    *o = (struct param_objects){0};
}

static int objects_from_json(
    const struct param *p, const json_t *j, const char *path, void *ret, struct error *err) {
    struct param_objects list = {0}, *at = member(p, ret);
    size_t n = json_array_size(j);
    char name[320];
    int r = 0;

    if (!json_is_array(j) || n < 1 || n > (size_t)p->max)
        return error_set(err, -EINVAL, "%s is not a list of 1 to %.0f objects", path, p->max);
    list.item = calloc(n, p->item_size);
    if (!list.item)
        return error_oom(err);
    for (; r == 0 && list.n < n; list.n++) {
        snprintf(name, sizeof(name), "%s[%zu]", path, list.n);
        r = param_defaults(p->table, item_of(p, &list, list.n), err);
        if (r == 0)
            r = param_set_json(
                p->table, json_array_get(j, list.n), NULL, name, item_of(p, &list, list.n), err);
    }
    if (r == 0) {
        free_objects(p, at);
        *at = list;
    } else {
        free_objects(p, &list);
    }
    return r;
}

/* An object in a word's place stands for itself: nothing of one before it stays. */
static int clear(const struct param_table *t, void *of, struct error *err) {
    static const size_t size[] = {[PARAM_BOOL] = sizeof(bool),
        [PARAM_INT] = sizeof(int),
        [PARAM_SIZE] = sizeof(int64_t),
        [PARAM_REAL] = sizeof(double),
        [PARAM_ENUM] = sizeof(int),
        [PARAM_PAIR] = sizeof(int[2]),
        [PARAM_JSON] = 0};

    param_done(t, of);
    for (size_t i = 0; i < t->n; i++)
        if (t->param[i].type <= PARAM_JSON)
            memset(member(&t->param[i], of), 0, size[t->param[i].type]);
    return param_defaults(t, of, err);
}

static int object_from_json(
    const struct param *p, const json_t *j, const char *path, void *ret, struct error *err) {
    if (p->choices && json_is_string(j))
        return set_word(p, json_string_value(j), path, ret, err);
    if (p->choices && clear(p->table, member(p, ret), err) < 0)
        return -EINVAL;
    if (p->choices)
        *(int *)((char *)ret + p->word_at) = -1;
    if (p->given_at != NO_OFFSET)
        *(bool *)((char *)ret + p->given_at) = true;
    return param_set_json(p->table, j, NULL, path, member(p, ret), err);
}

static int set_json(const struct param *p, const json_t *j, const char *path, void *ret, struct error *err) {
    switch (p->type) {
    case PARAM_BOOL:
        if (!json_is_boolean(j))
            return wrong_type(path, "true or false", err);
        *(bool *)member(p, ret) = json_is_true(j);
        return 0;
    case PARAM_INT:
    case PARAM_SIZE:
        if (!json_is_integer(j))
            return wrong_type(path, "a whole number", err);
        return set_number(p, (double)json_integer_value(j), path, ret, err);
    case PARAM_REAL:
        return json_is_number(j) ? set_number(p, json_number_value(j), path, ret, err)
                                 : wrong_type(path, "a number", err);
    case PARAM_ENUM:
        return json_is_string(j) ? set_enum(p, json_string_value(j), path, ret, err)
                                 : wrong_type(path, "a string", err);
    case PARAM_STRING:
        return json_is_string(j) ? set_string(p, json_string_value(j), ret, err)
                                 : wrong_type(path, "a string", err);
    case PARAM_LIST: return list_from_json(p, j, path, ret, err);
    case PARAM_PAIR: return pair_from_json(p, j, path, ret, err);
    case PARAM_OBJECTS: return objects_from_json(p, j, path, ret, err);
    case PARAM_JSON:
        json_decref(*(json_t **)member(p, ret));
        *(json_t **)member(p, ret) = json_deep_copy(j);
        return *(json_t **)member(p, ret) ? 0 : error_oom(err);
    case PARAM_OBJECT:
    default: return object_from_json(p, j, path, ret, err);
    }
}

static bool is_skipped(const char *const *skip, const char *key) {
    for (; skip && *skip; skip++)
        if (!strcmp(*skip, key))
            return true;
    return false;
}

/* Does the row's `when` hold, given the struct? */
static bool holds(const struct param_table *t, const struct param *p, const void *of) {
    const struct param *other;
    char name[64];
    const char *eq;
    size_t size;

    if (!p->when)
        return true;
    eq = strchr(p->when, '=');
    size = (size_t)(eq - p->when);
    memcpy(name, p->when, size);
    name[size] = 0;
    other = param_find(t, name);
    for (const char *s = eq + 1; other && *s; s += *s == ',') {
        const char *have = other->choices[*(const int *)const_member(other, of)];

        size = strcspn(s, ",");
        if (strlen(have) == size && !strncmp(have, s, size))
            return true;
        s += size;
    }
    return false;
}

int param_set_json(const struct param_table *t, const json_t *object, const char *const *skip,
    const char *path, void *ret, struct error *err) {
    json_t *keys = (json_t *)(uintptr_t)object,
           *value; /* the iterator wants it mutable and changes nothing */
    const char *key;
    char at[256];
    int r = 0;

    if (!json_is_object(object))
        return wrong_type(path, "an object", err);
    json_object_foreach(keys, key, value) {
        const struct param *p = is_skipped(skip, key) ? NULL : param_find(t, key);

        snprintf(at, sizeof(at), "%s%s%s", path, *path ? "." : "", key);
        if (is_skipped(skip, key))
            continue;
        if (!p || strcmp(p->name, key) != 0)
            return error_code(err, -EINVAL, "unknown_field", "%s is not known here", at);
        r = set_json(p, value, at, ret, err);
        if (r < 0)
            return r;
    }
    /* after all keys are in: which of them may stand together */
    json_object_foreach(keys, key, value) {
        const struct param *p = is_skipped(skip, key) ? NULL : param_find(t, key);

        if (p && !holds(t, p, ret))
            return error_set(err, -EINVAL, "%s%s%s is only for %s", path, *path ? "." : "", key, p->when);
    }
    return 0;
}

static int print_list(char *const *list, struct buf *ret) {
    int r = 0;

    for (size_t i = 0; r == 0 && list && list[i]; i++)
        r = buf_printf(ret, "%s%s", i ? ", " : "", list[i]);
    return r;
}

static int print_size(int64_t v, struct buf *ret) {
    static const char *const suffix[] = {"", "K", "M", "G"};
    int unit = 0;

    for (; v && v % 1024 == 0 && unit < 3; unit++)
        v /= 1024;
    return buf_printf(ret, "%lld%s", (long long)v, suffix[unit]);
}

int param_print(const struct param *p, const void *from, struct buf *ret) {
    const void *m = const_member(p, from);

    switch (p->type) {
    case PARAM_BOOL: return buf_puts(ret, *(const bool *)m ? "true" : "false");
    case PARAM_INT: return buf_printf(ret, "%d", *(const int *)m);
    case PARAM_SIZE: return print_size(*(const int64_t *)m, ret);
    case PARAM_REAL: return buf_printf(ret, "%.9g", *(const double *)m);
    case PARAM_ENUM: return buf_puts(ret, p->choices[*(const int *)m]);
    case PARAM_STRING: return buf_puts(ret, *(char *const *)m ? *(char *const *)m : "");
    case PARAM_LIST: return print_list(*(char **const *)m, ret);
    case PARAM_PAIR: return buf_printf(ret, "%d,%d", ((const int *)m)[0], ((const int *)m)[1]);
    case PARAM_OBJECT:
    case PARAM_OBJECTS:
    case PARAM_JSON:
    default: return -EINVAL;
    }
}

static json_t *objects_json(const struct param *p, const struct param_objects *o) {
    json_t *list = json_array();

    for (size_t i = 0; list && i < o->n; i++)
        json_array_append_new(list, param_json(p->table, item_of(p, o, i)));
    return list;
}

/* What stands in an object's place; NULL: the object does. */
static const char *word_of(const struct param *p, const void *from) {
    int word = p->choices ? *(const int *)((const char *)from + p->word_at) : -1;

    return word >= 0 ? p->choices[word] : NULL;
}

static json_t *value_json(const struct param *p, const void *from) {
    const void *m = const_member(p, from);
    json_t *list;

    switch (p->type) {
    case PARAM_BOOL: return json_boolean(*(const bool *)m);
    case PARAM_INT: return json_integer(*(const int *)m);
    case PARAM_SIZE: return json_integer(*(const int64_t *)m);
    case PARAM_REAL: return json_real(*(const double *)m);
    case PARAM_ENUM: return json_string(p->choices[*(const int *)m]);
    case PARAM_STRING: return *(char *const *)m ? json_string(*(char *const *)m) : json_null();
    case PARAM_LIST:
        list = json_array();
        for (char *const *s = *(char **const *)m; s && *s; s++)
            json_array_append_new(list, json_string(*s));
        return list;
    case PARAM_PAIR: return json_pack("[i, i]", ((const int *)m)[0], ((const int *)m)[1]);
    case PARAM_OBJECTS: return objects_json(p, m);
    case PARAM_JSON: return *(json_t *const *)m ? json_deep_copy(*(json_t *const *)m) : json_null();
    case PARAM_OBJECT:
    default: {
        const char *word = word_of(p, from);

        return word ? json_string(word) : param_json(p->table, m);
    }
    }
}

static bool is_absent(const struct param *p, const void *from) {
    if (p->type == PARAM_JSON)
        return !*(json_t *const *)const_member(p, from);
    return p->type == PARAM_OBJECT && !word_of(p, from) && p->given_at != NO_OFFSET &&
           !*(const bool *)((const char *)from + p->given_at);
}

json_t *param_json(const struct param_table *t, const void *from) {
    json_t *o = json_object();

    for (size_t i = 0; o && i < t->n; i++)
        if (!is_absent(&t->param[i], from))
            json_object_set_new(o, t->param[i].name, value_json(&t->param[i], from));
    return o;
}

static json_t *choices_schema(const struct param *p) {
    json_t *choices = json_array();

    for (size_t i = 0; p->choices[i]; i++)
        json_array_append_new(choices, json_string(p->choices[i]));
    return json_pack("{s:s, s:o}", "type", "string", "enum", choices);
}

static json_t *type_schema(const struct param *p) {
    static const char *const types[] = {
        [PARAM_BOOL] = "boolean",
        [PARAM_INT] = "integer",
        [PARAM_SIZE] = "integer",
        [PARAM_REAL] = "number",
        [PARAM_STRING] = "string",
    };
    json_t *o;

    if (p->type == PARAM_JSON)
        return json_object();
    if (p->type == PARAM_OBJECT && p->choices)
        return json_pack("{s:[o, o]}", "oneOf", choices_schema(p), param_schema(p->table));
    if (p->type == PARAM_OBJECT)
        return param_schema(p->table);
    if (p->type == PARAM_OBJECTS)
        return json_pack("{s:s, s:i, s:i, s:o}", "type", "array", "minItems", 1, "maxItems", (int)p->max,
            "items", param_schema(p->table));
    if (p->type == PARAM_LIST)
        return json_pack("{s:s, s:{s:s}}", "type", "array", "items", "type", "string");
    if (p->type == PARAM_PAIR)
        return json_pack("{s:s, s:i, s:i, s:{s:s, s:f, s:f}}", "type", "array", "minItems", 2, "maxItems", 2,
            "items", "type", "integer", "minimum", p->min, "maximum", p->max);
    if (p->type != PARAM_ENUM) {
        o = json_pack("{s:s}", "type", types[p->type]);
        if (o && (p->min != 0 || p->max != 0)) {
            json_object_set_new(o, "minimum", json_real(p->min));
            json_object_set_new(o, "maximum", json_real(p->max));
        }
        return o;
    }
    return choices_schema(p);
}

/* The default as the JSON value it stands for; NULL: none. */
static json_t *default_json(const struct param *p) {
    union {
        bool b;
        int i;
        int pair[2];
        int64_t size;
        double real;
        char *text;
        char **list;
    } v = {.size = 0};
    struct param alone = *p;
    struct param_table one = {&alone, 1};
    json_t *j;

    alone.at = 0;
    if (p->type == PARAM_OBJECT && p->choices)
        return json_string(p->dflt);
    if (!p->dflt || p->type == PARAM_OBJECT || param_set_text(&alone, p->dflt, &v, NULL) < 0)
        return NULL;
    j = value_json(&alone, &v);
    param_done(&one, &v);
    return j;
}

static json_t *row_schema(const struct param *p) {
    json_t *o = type_schema(p), *dflt = default_json(p);
    static const struct {
        const char *key;
        size_t at;
    } notes[] = {
        {"description", offsetof(struct param, doc)},
        {"x-source", offsetof(struct param, source)},
        {"x-when", offsetof(struct param, when)},
    };

    for (size_t i = 0; i < sizeof(notes) / sizeof(notes[0]); i++) {
        const char *text = *(const char *const *)((const char *)p + notes[i].at);

        if (text)
            json_object_set_new(o, notes[i].key, json_string(text));
    }
    if (dflt)
        json_object_set_new(o, "default", dflt);
    if (p->per_layer)
        json_object_set_new(o, "x-per-layer", json_true());
    return o;
}

json_t *param_schema(const struct param_table *t) {
    json_t *properties = json_object();

    for (size_t i = 0; properties && i < t->n; i++)
        json_object_set_new(properties, t->param[i].name, row_schema(&t->param[i]));
    return json_pack(
        "{s:s, s:b, s:o}", "type", "object", "additionalProperties", 0, "properties", properties);
}

void param_done(const struct param_table *t, void *of) {
    for (size_t i = 0; i < t->n; i++) {
        const struct param *p = &t->param[i];

        if (p->type == PARAM_STRING) {
            free(*(char **)member(p, of));
            *(char **)member(p, of) = NULL;
        }
        if (p->type == PARAM_JSON) {
            json_decref(*(json_t **)member(p, of));
            *(json_t **)member(p, of) = NULL;
        }
        if (p->type == PARAM_LIST) {
            free_list(*(char ***)member(p, of));
            *(char ***)member(p, of) = NULL;
        }
        if (p->type == PARAM_OBJECT)
            param_done(p->table, member(p, of));
        if (p->type == PARAM_OBJECTS)
            free_objects(p, member(p, of));
    }
}
