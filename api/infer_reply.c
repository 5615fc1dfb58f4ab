#include "api/infer_reply.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "api/tensor_json.h"
#include "base/buf.h"
#include "base/cleanup.h"

static int append_text(const char *text, size_t size, void *ctx) {
    return buf_append(ctx, text, size);
}

int infer_put_string(struct buf *b, const char *text) {
    json_t *s = json_string(text);
    int rc = s ? json_dump_callback(s, append_text, b, JSON_ENCODE_ANY) : buf_puts(b, "\"\"");

    json_decref(s);
    return rc ? -ENOMEM : 0;
}

void infer_softmax(const float *x, size_t n, float *ret) {
    double max = -HUGE_VAL, sum = 0;

    for (size_t i = 0; i < n; i++)
        max = fmax(max, (double)x[i]);
    for (size_t i = 0; i < n; i++)
        sum += exp((double)x[i] - max);
    for (size_t i = 0; i < n; i++)
        ret[i] = (float)(exp((double)x[i] - max) / sum);
}

static bool is_behind(const struct infer_class *a, const struct infer_class *b) {
    return a->score < b->score || (a->score <= b->score && a->index > b->index);
}

static void swap_classes(struct infer_class *a, struct infer_class *b) {
    struct infer_class t = *a;

    *a = *b;
    *b = t;
}

/* Mends the heap h[0..n-1], whose root is behind all others, at `at`. */
static void sift_down(struct infer_class *h, size_t n, size_t at) {
    for (size_t child; (child = 2 * at + 1) < n; at = child) {
        if (child + 1 < n && is_behind(&h[child + 1], &h[child]))
            child++;
        if (is_behind(&h[at], &h[child]))
            return;
        swap_classes(&h[at], &h[child]);
    }
}

/* A heap of the best so far: a client may ask for all classes of a large output. */
size_t infer_top(const float *scores, size_t n, size_t k, struct infer_class *ret) {
    size_t kept = k < n ? k : n;

    for (size_t i = 0; i < n && kept; i++) {
        struct infer_class c = {i, isnan(scores[i]) ? -HUGE_VAL : (double)scores[i]};

        if (i < kept) {
            ret[i] = c;
            for (size_t at = i + 1 == kept ? kept / 2 : 0; at-- > 0;)
                sift_down(ret, kept, at);
        } else if (is_behind(&ret[0], &c)) {
            ret[0] = c;
            sift_down(ret, kept, 0);
        }
    }
    for (size_t left = kept; left > 1; left--) {
        swap_classes(&ret[0], &ret[left - 1]);
        sift_down(ret, left - 1, 0);
    }
    return kept;
}

static size_t count_of(const struct tensor *t) {
    int64_t n = 0;

    return shape_count(&t->shape, &n) ? (size_t)n : 0;
}

static int put_shape(struct buf *b, const struct shape *s) {
    int rc = buf_puts(b, ",\"shape\":[");

    for (int i = 0; !rc && i < s->rank; i++)
        rc = buf_printf(b, "%s%" PRId64, i ? "," : "", s->dim[i]);
    return rc ? rc : buf_puts(b, "]");
}

/* Rows and members a classification works on: [N,K…] or, with one dimension, [K]. */
static void class_rows(const struct tensor *t, size_t *rows, size_t *members) {
    size_t n = count_of(t);

    *rows = t->shape.rank > 1 ? (size_t)t->shape.dim[0] : 1;
    *members = *rows ? n / *rows : 0;
}

static int put_class_text(
    struct buf *text, const struct infer_class *c, const struct infer_answer *a, struct error *err) {
    float score = (float)c->score;
    int rc;

    text->size = 0;
    rc = tensor_json_write(text, DT_F32, &score, 1, err);
    if (rc)
        return rc;
    memmove(text->data, text->data + 1, text->size - 2); /* without its brackets */
    text->size -= 2;
    rc = buf_printf(text, ":%zu", c->index);
    if (!rc && c->index < a->n_labels)
        rc = buf_printf(text, ":%s", a->labels[c->index]);
    return rc ? error_oom(err) : 0;
}

/* BYTES elements: in JSON strings, in binary a length of four bytes and the bytes. */
static int put_element(
    struct buf *json, struct buf *binary, bool is_binary, bool is_first, const struct buf *text) {
    uint32_t size = (uint32_t)text->size; /* little endian, as the machine's */
    int rc;

    if (!is_binary) {
        rc = is_first ? 0 : buf_puts(json, ",");
        return rc ? rc : infer_put_string(json, text->data);
    }
    rc = buf_append(binary, &size, sizeof(size));
    return rc ? rc : buf_append(binary, text->data, size);
}

static int put_classification(struct buf *json, struct buf *binary, const struct infer_want *w,
    const struct tensor *t, const struct infer_answer *a, struct error *err) {
    _cleanup_(freep) struct infer_class *best = NULL;
    _cleanup_(buf_done) struct buf text, elements;
    struct shape shape = {.rank = t->shape.rank > 1 ? 2 : 1};
    size_t rows, members, k, start = binary->size;
    int rc = 0;

    buf_init(&text, INFER_REPLY_MAX);
    buf_init(&elements, INFER_REPLY_MAX);
    if (t->dtype != DT_F32)
        return error_set(err, -EINVAL, "classification needs an FP32 output");
    class_rows(t, &rows, &members);
    k = w->classification < members ? w->classification : members;
    best = calloc(k + 1, sizeof(*best));
    if (!best)
        return error_oom(err);
    for (size_t i = 0; i < rows; i++) {
        size_t n = infer_top((const float *)t->data + i * members, members, k, best);

        for (size_t j = 0; j < n; j++) {
            rc = put_class_text(&text, &best[j], a, err);
            if (!rc && put_element(&elements, binary, w->is_binary, !i && !j, &text))
                rc = error_oom(err);
            if (rc)
                return rc;
        }
    }
    shape.dim[0] = shape.rank > 1 ? (int64_t)rows : (int64_t)k;
    shape.dim[1] = (int64_t)k;
    rc = buf_puts(json, ",\"datatype\":\"BYTES\"") ?: put_shape(json, &shape);
    if (!rc && w->is_binary)
        rc = buf_printf(json, ",\"parameters\":{\"binary_data_size\":%zu}}", binary->size - start);
    else if (!rc)
        rc = buf_puts(json, ",\"data\":[") ?: buf_append(json, elements.data, elements.size) ?: buf_puts(json, "]}");
    return rc ? error_oom(err) : 0;
}

static int put_tensor(struct buf *json, struct buf *binary, const struct infer_want *w,
    const struct tensor *t, struct error *err) {
    size_t bytes = 0;
    int rc = buf_printf(json, ",\"datatype\":\"%s\"", dtype_info(t->dtype)->v2) ?: put_shape(json, &t->shape);

    if (rc || !shape_bytes(&t->shape, t->dtype, &bytes))
        return error_oom(err);
    if (w->is_binary) {
        rc = buf_printf(json, ",\"parameters\":{\"binary_data_size\":%zu}}", bytes);
        if (!rc)
            rc = buf_append(binary, t->data, bytes);
        return rc ? error_set(err, rc, "the reply is larger than %zu bytes", INFER_REPLY_MAX) : 0;
    }
    rc = buf_puts(json, ",\"data\":") ? error_oom(err)
                                      : tensor_json_write(json, t->dtype, t->data, count_of(t), err);
    return rc ? rc : buf_puts(json, "}") ? error_oom(err) : 0;
}

static int put_outputs(struct buf *json, struct buf *binary, const struct infer *in,
    const struct infer_answer *a, struct error *err) {
    int rc = buf_puts(json, "[");

    for (size_t i = 0; !rc && i < in->n_want; i++) {
        const struct infer_want *w = &in->want[i];
        const struct tensor *t = &a->out[w->output];

        rc = buf_puts(json, i ? ",{\"name\":" : "{\"name\":")
                 ?: infer_put_string(json, a->graph->values[a->graph->outputs[w->output]].name);
        if (rc)
            break;
        rc = w->classification ? put_classification(json, binary, w, t, a, err)
                               : put_tensor(json, binary, w, t, err);
        if (rc)
            return rc;
    }
    rc = rc ?: buf_puts(json, "]");
    return rc ? error_oom(err) : 0;
}

static int put_class(struct buf *json, const struct infer_class *c, bool is_first,
    const struct infer_answer *a, struct error *err) {
    const char *label = c->index < a->n_labels ? a->labels[c->index] : NULL;
    float score = (float)c->score;
    int rc = buf_printf(json, "%s{\"index\":%zu,\"label\":", is_first ? "" : ",", c->index);
    size_t at;

    rc = rc ?: label ? infer_put_string(json, label) : buf_puts(json, "null");
    rc = rc ?: buf_puts(json, ",\"score\":");
    at = json->size;
    rc = rc ?: tensor_json_write(json, DT_F32, &score, 1, err);
    if (rc)
        return rc;
    memmove(json->data + at, json->data + at + 1, json->size - at - 2); /* the number without its brackets */
    json->size -= 2;
    return buf_puts(json, "}");
}

int infer_write_classes(struct buf *json, const struct infer_answer *a, struct error *err) {
    const struct tensor *t = &a->out[0];
    _cleanup_(freep) float *scores = NULL;
    _cleanup_(freep) struct infer_class *best = NULL;
    size_t rows, members, n;
    int rc;

    if (!a->has_classes)
        return buf_puts(json, "null") ? error_oom(err) : 0;
    class_rows(t, &rows, &members);
    scores = calloc(members + 1, sizeof(*scores));
    best = calloc((size_t)a->top + 1, sizeof(*best));
    if (!scores || !best)
        return error_oom(err);
    if (a->is_softmax)
        memcpy(scores, t->data, members * sizeof(*scores));
    else
        infer_softmax(t->data, members, scores);
    n = infer_top(scores, members, a->top, best);
    rc = buf_puts(json, "[");
    for (size_t i = 0; !rc && i < n; i++)
        rc = put_class(json, &best[i], !i, a, err);
    rc = rc ?: buf_puts(json, "]");
    return rc ? error_oom(err) : 0;
}

int infer_write_outputs(
    struct buf *json, const struct infer *in, const struct infer_answer *a, struct error *err) {
    _cleanup_(buf_done) struct buf binary;
    int rc;

    buf_init(&binary, INFER_REPLY_MAX);
    rc = put_outputs(json, &binary, in, a, err);
    if (!rc && binary.size)
        rc = error_set(err, -EINVAL, "binary outputs cannot be part of this reply");
    return rc;
}

size_t infer_labels(const json_t *model, const char ***ret) {
    const json_t *labels = json_object_get(model, "labels");
    size_t n = json_array_size(labels);
    const char **list = n ? malloc(n * sizeof(*list)) : NULL;

    for (size_t i = 0; list && i < n; i++)
        list[i] = json_string_value(json_array_get(labels, i)) ?: "";
    *ret = list;
    return list ? n : 0;
}

/* Triton's order of keys: id, model_name, model_version, outputs. */
static int put_head(struct buf *json, const struct infer *in, const struct infer_answer *a) {
    int rc = buf_puts(json, "{");

    if (!rc && in->id)
        rc = buf_puts(json, "\"id\":") ?: infer_put_string(json, in->id) ?: buf_puts(json, ",");
    return rc ?: buf_puts(json, "\"model_name\":") ?: infer_put_string(json, a->model) ?:
                 buf_printf(json, ",\"model_version\":\"%s\",\"outputs\":", a->version);
}

int infer_reply(const struct infer *in, const struct infer_answer *a, struct reply *p, struct error *err) {
    _cleanup_(buf_done) struct buf json, binary;
    bool has_binary = false;
    size_t json_size, size;
    char *bytes;
    int rc;

    buf_init(&json, INFER_REPLY_MAX);
    buf_init(&binary, INFER_REPLY_MAX);
    for (size_t i = 0; i < in->n_want; i++)
        has_binary |= in->want[i].is_binary;
    rc = put_head(&json, in, a) ? error_oom(err) : put_outputs(&json, &binary, in, a, err);
    if (!rc && a->wants_classes)
        rc = buf_puts(&json, ",\"classes\":") ? error_oom(err) : infer_write_classes(&json, a, err);
    if (!rc && buf_puts(&json, "}"))
        rc = error_oom(err);
    json_size = json.size;
    if (!rc && binary.size && buf_append(&json, binary.data, binary.size))
        rc = error_oom(err);
    if (rc)
        return rc;
    size = json.size;
    bytes = buf_take(&json);
    if (!bytes)
        return error_oom(err);
    if (has_binary)
        reply_header(p, "Inference-Header-Content-Length", "%zu", json_size);
    return reply_bytes(p, 200, has_binary ? "application/octet-stream" : "application/json", bytes, size);
}
