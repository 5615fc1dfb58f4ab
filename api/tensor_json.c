/* Cutting: the document without its data arrays. tensor_scan.c reads the arrays, tensor_text.c writes them.
 */
#include "api/tensor_json.h"

#include <errno.h>
#include <string.h>

void tensor_json_init(struct tensor_json *t) {
    memset(t, 0, sizeof(*t));
    buf_init(&t->rest, TENSOR_JSON_MAX_REST);
}

void tensor_json_done(struct tensor_json *t) {
    buf_done(&t->rest);
}

static const char *skip_space(const char *p, const char *end) {
    while (p < end && memchr(" \n\t\r", *p, 4))
        p++;
    return p;
}

/* One past the quote that ends the string at p; NULL: none. */
static const char *string_end(const char *p, const char *end) {
    for (p++; p < end; p++) {
        if (*p == '\\')
            p++;
        else if (*p == '"')
            return p + 1;
    }
    return NULL;
}

/* One past the ']' of the array at p, by searches that run at memory speed: a flat array has one ']', a
 * nested one has one a row. Strings inside are walked. NULL: it does not end. */
static const char *array_end(const char *p, const char *end) {
    unsigned depth = 0;

    while (p < end) {
        const char *close = memchr(p, ']', (size_t)(end - p));
        const char *quote = close ? memchr(p, '"', (size_t)(close - p)) : NULL;
        const char *stop = quote ? quote : close;

        if (!close)
            return NULL;
        for (const char *q = p; (q = memchr(q, '[', (size_t)(stop - q))); q++)
            depth++;
        if (quote) {
            p = string_end(quote, end);
            if (!p)
                return NULL;
            continue;
        }
        p = close + 1;
        if (!--depth)
            return p;
    }
    return NULL;
}

struct cutter {
    struct tensor_json *t;
    const char *start, *p, *end;
    unsigned depth, max_depth;
    bool next_is_inputs; /* the key just read at depth 1 was "inputs" */
    bool in_inputs;      /* inside that array */
};

static int bad_json(struct cutter *c, const char *what, struct error *err) {
    return error_code(err, -EINVAL, "bad_json", "%s at byte %zu", what, (size_t)(c->p - c->start));
}

static int copy(struct cutter *c, const char *to, struct error *err) {
    int rc = buf_append(&c->t->rest, c->p, (size_t)(to - c->p));

    if (rc == -EFBIG)
        return error_set(
            err, rc, "the JSON beside the data arrays is larger than %u bytes", TENSOR_JSON_MAX_REST);
    if (rc)
        return error_oom(err);
    c->p = to;
    return 0;
}

/* The array at c->p becomes the number of its span. */
static int cut_array(struct cutter *c, struct error *err) {
    const char *end = array_end(c->p, c->end);
    struct tensor_json *t = c->t;

    if (!end)
        return bad_json(c, "an array that does not end", err);
    if (t->n_spans == TENSOR_JSON_MAX_SPANS)
        return bad_json(c, "too many inputs", err);
    if (buf_printf(&t->rest, "%zu", t->n_spans))
        return error_oom(err);
    t->span[t->n_spans++] = (struct tensor_span){c->p, (size_t)(end - c->p)};
    c->p = end;
    return 0;
}

static bool is_key(const char *p, const char *end, const char *name) {
    size_t n = strlen(name);

    return (size_t)(end - p) == n + 2 && !memcmp(p + 1, name, n);
}

static int take_string(struct cutter *c, struct error *err) {
    const char *key = c->p;
    const char *end = string_end(key, c->end);
    const char *next;
    int rc;

    if (!end)
        return bad_json(c, "a string that does not end", err);
    next = skip_space(end, c->end);
    rc = copy(c, end, err);
    if (rc || next == c->end || *next != ':')
        return rc;
    if (c->depth == 1)
        c->next_is_inputs = is_key(key, end, "inputs");
    if (c->depth != 3 || !c->in_inputs || !is_key(key, end, "data"))
        return 0;
    rc = copy(c, skip_space(next + 1, c->end), err);
    if (rc)
        return rc;
    if (c->p == c->end || *c->p != '[')
        return bad_json(c, "'data' is not an array", err);
    return cut_array(c, err);
}

static int take_bracket(struct cutter *c, struct error *err) {
    char b = *c->p;

    if (b == '[' || b == '{') {
        if (++c->depth > c->max_depth)
            return bad_json(c, "the JSON is nested too deeply", err);
        if (c->depth == 2)
            c->in_inputs = c->next_is_inputs && b == '[';
    } else {
        if (!c->depth)
            return bad_json(c, "a bracket that nothing opened", err);
        c->depth--;
    }
    return copy(c, c->p + 1, err);
}

int tensor_json_cut(struct tensor_json *t, const char *text, size_t size, unsigned depth, struct error *err) {
    struct cutter c = {.t = t, .start = text, .p = text, .end = text + size, .max_depth = depth};
    int rc = 0;

    while (!rc && c.p < c.end) {
        const char *q = c.p;

        while (q < c.end && !strchr("\"[]{}", *q)) /* also stops at a zero byte */
            q++;
        rc = copy(&c, q, err);
        if (rc || q == c.end)
            break;
        if (!*q)
            rc = bad_json(&c, "a zero byte", err);
        else if (*q == '"')
            rc = take_string(&c, err);
        else
            rc = take_bracket(&c, err);
    }
    return rc;
}
