/* config/: options, declared once and read from everywhere.
 *   param.h   typed option tables: from a row come the line of the configuration file, the BONSAI_* variable,
 * the flag, the JSON key, its check and its JSON Schema config.h  the daemon's own options Uses base/ and
 * jansson. Start at struct param.
 *
 * A table describes a struct: each row names a member by offset. Strings and lists are owned by the struct
 * (param_done); everything else lies inline. */
#ifndef CONFIG_PARAM_H
#define CONFIG_PARAM_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/error.h"

enum param_type {
    PARAM_BOOL,    /* bool; text: true/false, yes/no, on/off, 1/0 */
    PARAM_INT,     /* int */
    PARAM_SIZE,    /* int64_t, bytes; text with K, M, G (powers of 1024) */
    PARAM_REAL,    /* double */
    PARAM_ENUM,    /* int: index into choices */
    PARAM_STRING,  /* char *, owned, NULL: not set */
    PARAM_LIST,    /* char **, owned, NULL-terminated, NULL: empty; text: separated by commas or blanks */
    PARAM_PAIR,    /* int[2]; text: separated by a comma */
    PARAM_OBJECT,  /* a nested struct, inline; its bool `is_given` tells whether it stood there */
    PARAM_OBJECTS, /* struct param_objects: a list of structs of one table; at most `max` of them */
    PARAM_JSON,    /* json_t *, owned, NULL: not set; any value, which its reader checks */
};

struct param_objects {
    void *item; /* owned; n structs of the row's item_size */
    size_t n;
};

struct param_table;

struct param {
    const char *name; /* snake_case; the flag is --name with '-' for '_', the variable BONSAI_NAME */
    enum param_type type;
    size_t at;
    double min, max;            /* INT, SIZE, REAL, PAIR (each); both 0: unbounded */
    const char *dflt;           /* as text; NULL: 0, NULL or empty */
    const char *const *choices; /* ENUM: NULL-terminated; OBJECT: words that may stand in its place */
    size_t word_at;             /* OBJECT with choices: offset of an int in the outer struct, the word's index
                                   (by default `dflt`'s), -1: the object stood there */
    const struct param_table *table; /* OBJECT, OBJECTS */
    size_t item_size;                /* OBJECTS */
    size_t given_at;                 /* OBJECT: offset of the bool in the outer struct; NO_OFFSET: none */
    /* "scheme=int8,int4": the key may stand only when that ENUM of the same table has one of the values.
     * NULL: always */
    const char *when;
    bool per_layer; /* may stand in a step's overrides of single layers */
    const char *doc;
    const char *source; /* paper; NULL: none */
};

#define NO_OFFSET SIZE_MAX

struct param_table {
    const struct param *param;
    size_t n;
};

/* The row of a name, '-' and '_' alike. NULL: none. */
const struct param *param_find(const struct param_table *t, const char *name);

/* Fills the struct (its memory zeroed by the caller) with the defaults. */
int param_defaults(const struct param_table *t, void *ret, struct error *err);

/* One value from text; errors start with the option's name. Not for objects. */
int param_set_text(const struct param *p, const char *text, void *ret, struct error *err);

/* The keys of a JSON object. `path` ("steps[0]") starts every error. Keys in `skip` (NULL-terminated, may be
 * NULL) are left alone. Errors: unknown_field with its path, bad_request. The struct holds defaults already.
 */
int param_set_json(const struct param_table *t, const json_t *object, const char *const *skip,
    const char *path, void *ret, struct error *err);

/* The present value as text that param_set_text reads back. Not for objects. */
int param_print(const struct param *p, const void *from, struct buf *ret);

/* All values as a JSON object (new reference), without the objects that did not stand there; NULL: out of
 * memory. */
json_t *param_json(const struct param_table *t, const void *from);

/* JSON Schema (2020-12) of the table: an object without other keys. New reference. */
json_t *param_schema(const struct param_table *t);

/* Frees strings and lists. */
void param_done(const struct param_table *t, void *of);

#endif
