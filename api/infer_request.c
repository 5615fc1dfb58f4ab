#include "api/infer_request.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "api/api.h"
#include "api/tensor_json.h"
#include "base/cleanup.h"

void infer_init(struct infer *in) {
    memset(in, 0, sizeof(*in));
    tensor_json_init(&in->json);
}

void infer_done(struct infer *in) {
    for (size_t i = 0; i < INFER_MAX_PORTS; i++)
        free(in->owned[i]);
    json_decref(in->doc);
    tensor_json_done(&in->json);
    infer_init(in);
}

bool infer_is_picture(const struct request *r) {
    if (request_header(r, "Inference-Header-Content-Length") || r->body_size < 4)
        return false;
    return !memcmp(r->body, "\xff\xd8\xff", 3) || !memcmp(r->body, "\x89PNG", 4);
}

/* *ret: bytes of JSON at the start of the body. */
static int split_body(const struct request *r, struct infer *in, size_t *ret, struct error *err) {
    const char *header = request_header(r, "Inference-Header-Content-Length");
    size_t n = r->body_size;

    if (header) {
        if (!*header || strspn(header, "0123456789") != strlen(header) || strlen(header) > 18)
            return error_set(err, -EINVAL, "Inference-Header-Content-Length is not a number of bytes");
        n = strtoull(header, NULL, 10);
        if (n > r->body_size)
            return error_set(err, -EINVAL, "Inference-Header-Content-Length is %zu, the body has %zu bytes",
                n, r->body_size);
    }
    in->binary = r->body ? r->body + n : NULL;
    in->binary_size = r->body_size - n;
    in->is_raw = header && !n;
    *ret = n;
    return 0;
}

/* ---- the model's side ---- */

static const struct value *graph_input(const struct graph *g, size_t i) {
    return &g->values[g->inputs[i]];
}

static const struct value *graph_output(const struct graph *g, size_t i) {
    return &g->values[g->outputs[i]];
}

static int find_input(const struct graph *g, const char *name, size_t *ret, struct error *err) {
    for (size_t i = 0; i < g->n_inputs; i++)
        if (!strcmp(graph_input(g, i)->name, name)) {
            *ret = i;
            return 0;
        }
    return error_set(err, -EINVAL, "the model has no input '%.128s'", name);
}

static int check_against_model(
    const struct value *v, bool is_image_model, const struct tensor *t, struct infer *in, struct error *err) {
    char got[SHAPE_TEXT_MAX], want[SHAPE_TEXT_MAX];
    bool fits = v->shape.rank == t->shape.rank;

    if (t->dtype == DT_U8 && v->dtype == DT_F32 && is_image_model) {
        in->needs_preprocess = true;
        return 0;
    }
    if (t->dtype != v->dtype)
        return error_set(err, -EINVAL, "input '%s': the model wants %s, the request says %s", v->name,
            dtype_info(v->dtype)->v2, dtype_info(t->dtype)->v2);
    for (int d = 0; fits && d < t->shape.rank; d++)
        fits = v->shape.dim[d] < 0 || v->shape.dim[d] == t->shape.dim[d];
    if (fits || v->shape.rank < 0)
        return 0;
    return error_code(err, -EINVAL, "shape_mismatch", "input '%s' has the shape %s, the model wants %s",
        v->name, shape_text(&t->shape, got), shape_text(&v->shape, want));
}

/* ---- JSON ---- */

static int parse_shape(const json_t *j, struct shape *ret, struct error *err) {
    size_t i;
    json_t *dim;
    struct shape s = {.rank = (int)json_array_size(j)};

    if (!json_is_array(j))
        return error_set(err, -EINVAL, "'shape' must be an array of integers");
    if (json_array_size(j) > SHAPE_MAX_RANK)
        return error_set(err, -EINVAL, "'shape' has more than %d dimensions", SHAPE_MAX_RANK);
    json_array_foreach(j, i, dim) {
        if (!json_is_integer(dim) || json_integer_value(dim) < 1)
            return error_set(err, -EINVAL, "shape[%zu] must be an integer above 0", i);
        s.dim[i] = json_integer_value(dim);
    }
    *ret = s;
    return 0;
}

static int scan_data(
    const struct tensor_json *t, const json_t *data, struct tensor *x, void **owned, struct error *err) {
    const struct tensor_span *span;
    json_int_t k = json_integer_value(data);
    size_t bytes = 0;
    int64_t n = 0;

    if (!json_is_integer(data) || k < 0 || (size_t)k >= t->n_spans)
        return error_set(err, -EINVAL, "'data' must be an array of numbers, its key written plainly");
    span = &t->span[k];
    if (!shape_count(&x->shape, &n) || !shape_bytes(&x->shape, x->dtype, &bytes))
        return error_set(err, -EINVAL, "the shape has too many values");
    /* a value needs two bytes of text at least: nothing is allocated for a shape that cannot be filled */
    *owned = malloc(n > (int64_t)span->size ? 1 : bytes);
    if (!*owned)
        return error_oom(err);
    if (n > (int64_t)span->size)
        return error_set(
            err, -EINVAL, "data has at most %zu values, the shape wants %" PRId64, span->size / 2, n);
    x->data = *owned;
    return tensor_json_scan(span, x->dtype, &x->shape, *owned, err);
}

static int take_binary(const json_t *size, struct infer *in, struct tensor *x, struct error *err) {
    json_int_t n = json_integer_value(size);
    size_t want = 0;

    if (!json_is_integer(size) || n < 0)
        return error_set(err, -EINVAL, "'binary_data_size' must be a number of bytes");
    if (!shape_bytes(&x->shape, x->dtype, &want))
        return error_set(err, -EINVAL, "the shape has too many values");
    if ((uint64_t)n != want)
        return error_set(
            err, -EINVAL, "binary_data_size is %lld, shape and datatype need %zu bytes", (long long)n, want);
    if (want > in->binary_size)
        return error_set(
            err, -EINVAL, "binary_data_size is %zu, the body has only %zu bytes left", want, in->binary_size);
    x->data = in->binary;
    in->binary += want;
    in->binary_size -= want;
    return 0;
}

static int parse_input(struct infer *in, const json_t *j, struct tensor *x, void **owned, struct error *err) {
    const char *type = json_string_value(json_object_get(j, "datatype"));
    const json_t *data = json_object_get(j, "data");
    const json_t *size = json_object_get(json_object_get(j, "parameters"), "binary_data_size");
    const struct dtype_info *info = type ? dtype_by_v2(type) : NULL;
    int rc;

    if (!info)
        return error_set(
            err, -EINVAL, "'datatype' %s", type ? "is not a type that is served here" : "is missing");
    *x = (struct tensor){.dtype = info->dtype, .layout = LAYOUT_PLAIN};
    rc = parse_shape(json_object_get(j, "shape"), &x->shape, err);
    if (rc)
        return rc;
    if (!data == !size)
        return error_set(err, -EINVAL, "needs either 'data' or parameters.binary_data_size");
    return size ? take_binary(size, in, x, err) : scan_data(&in->json, data, x, owned, err);
}

static int parse_inputs(struct infer *in, const struct graph *g, bool is_image_model, struct error *err) {
    const json_t *inputs = json_object_get(in->doc, "inputs");
    size_t i;
    json_t *j;

    if (!json_is_array(inputs))
        return error_set(err, -EINVAL, "'inputs' must be an array");
    json_array_foreach(inputs, i, j) {
        const char *name = json_string_value(json_object_get(j, "name"));
        size_t k = 0;
        int rc =
            name ? find_input(g, name, &k, err) : error_set(err, -EINVAL, "inputs[%zu] has no 'name'", i);

        if (!rc && in->in[k].dtype != DT_NONE)
            rc = error_set(err, -EINVAL, "input '%s' is there twice", name);
        if (rc)
            return rc;
        rc = parse_input(in, j, &in->in[k], &in->owned[k], err);
        if (rc)
            return error_prefix(err, rc, "input '%s'", name);
        rc = check_against_model(graph_input(g, k), is_image_model, &in->in[k], in, err);
        if (rc)
            return rc;
    }
    for (i = 0; i < g->n_inputs; i++)
        if (in->in[i].dtype == DT_NONE)
            return error_set(err, -EINVAL, "input '%s' is missing", graph_input(g, i)->name);
    if (in->binary_size)
        return error_set(err, -EINVAL, "%zu bytes follow the last input's", in->binary_size);
    return 0;
}

/* ---- outputs ---- */

int infer_want_all(const struct graph *g, bool is_binary, struct infer *ret, struct error *err) {
    if (g->n_outputs > INFER_MAX_PORTS)
        return error_set(err, -EOPNOTSUPP, "the model has more than %d outputs", INFER_MAX_PORTS);
    for (size_t i = 0; i < g->n_outputs; i++)
        ret->want[i] = (struct infer_want){.output = i, .is_binary = is_binary};
    ret->n_want = g->n_outputs;
    return 0;
}

static int parse_want(const json_t *j, size_t i, const struct graph *g, struct infer *in, struct error *err) {
    const char *name = json_string_value(json_object_get(j, "name"));
    const json_t *params = json_object_get(j, "parameters");
    const json_t *binary = json_object_get(params, "binary_data");
    const json_t *classes = json_object_get(params, "classification");
    struct infer_want w = {.is_binary = binary ? json_is_true(binary) : in->is_binary};

    if (!name)
        return error_set(err, -EINVAL, "outputs[%zu] has no 'name'", i);
    if (binary && !json_is_boolean(binary))
        return error_set(err, -EINVAL, "outputs[%zu].parameters.binary_data must be true or false", i);
    if (classes && (!json_is_integer(classes) || json_integer_value(classes) < 0 ||
                       json_integer_value(classes) > INT32_MAX))
        return error_set(
            err, -EINVAL, "outputs[%zu].parameters.classification must be a number of classes", i);
    w.classification = (unsigned)json_integer_value(classes);
    while (w.output < g->n_outputs && strcmp(graph_output(g, w.output)->name, name) != 0)
        w.output++;
    if (w.output == g->n_outputs)
        return error_set(err, -EINVAL, "the model has no output '%.128s'", name);
    for (size_t k = 0; k < in->n_want; k++)
        if (in->want[k].output == w.output)
            return error_set(err, -EINVAL, "output '%s' is asked for twice", name);
    in->want[in->n_want++] = w;
    return 0;
}

static int parse_outputs(struct infer *in, const struct graph *g, struct error *err) {
    const json_t *outputs = json_object_get(in->doc, "outputs");
    size_t i;
    json_t *j;

    if (!outputs || (json_is_array(outputs) && !json_array_size(outputs)))
        return infer_want_all(g, in->is_binary, in, err);
    if (!json_is_array(outputs))
        return error_set(err, -EINVAL, "'outputs' must be an array");
    json_array_foreach(outputs, i, j) {
        int rc = i < INFER_MAX_PORTS
                     ? parse_want(j, i, g, in, err)
                     : error_set(err, -EINVAL, "'outputs' has more than %d entries", INFER_MAX_PORTS);

        if (rc)
            return rc;
    }
    return 0;
}

/* ---- parameters ---- */

static int parse_uint_param(
    const json_t *params, const char *name, uint64_t max, uint64_t *ret, struct error *err) {
    const json_t *v = json_object_get(params, name);

    if (!v)
        return 0;
    if (!json_is_integer(v) || json_integer_value(v) < 0 || (uint64_t)json_integer_value(v) > max)
        return error_set(err, -EINVAL, "parameters.%s must be an integer from 0 to %" PRIu64, name, max);
    *ret = (uint64_t)json_integer_value(v);
    return 0;
}

static int parse_parameters(struct infer *in, struct error *err) {
    const json_t *params = json_object_get(in->doc, "parameters");
    const json_t *binary = json_object_get(params, "binary_data_output");
    const json_t *id = json_object_get(in->doc, "id");
    uint64_t priority = 0;
    int rc;

    if (params && !json_is_object(params))
        return error_set(err, -EINVAL, "'parameters' must be an object");
    if (id && !json_is_string(id))
        return error_set(err, -EINVAL, "'id' must be a string");
    if (binary && !json_is_boolean(binary))
        return error_set(err, -EINVAL, "parameters.binary_data_output must be true or false");
    in->id = json_string_value(id);
    in->is_binary = json_is_true(binary);
    rc = parse_uint_param(params, "priority", UINT32_MAX, &priority, err);
    if (!rc)
        rc = parse_uint_param(params, "timeout", UINT64_MAX / 4000, &in->timeout_us, err);
    in->priority = (unsigned)priority;
    return rc;
}

/* ---- raw ---- */

/* One input, whose one free dimension, if any besides the batch of 1, follows from the size. */
static int parse_raw(const struct graph *g, struct infer *in, struct error *err) {
    const struct value *v = graph_input(g, 0);
    struct shape s = v->shape;
    int free_dim = -1;
    size_t unit = 0;

    if (g->n_inputs != 1 || s.rank < 0)
        return error_set(
            err, -EINVAL, "a raw body needs a model with exactly one input, this one has %zu", g->n_inputs);
    if (s.rank > 0 && s.dim[0] < 0)
        s.dim[0] = 1;
    for (int d = 0; d < s.rank; d++) {
        if (s.dim[d] >= 0)
            continue;
        if (free_dim >= 0)
            return error_set(
                err, -EINVAL, "a raw body needs an input with at most one free dimension beside the batch");
        free_dim = d;
        s.dim[d] = 1;
    }
    if (!shape_bytes(&s, v->dtype, &unit) || !unit)
        return error_set(err, -EINVAL, "input '%s' cannot be sent raw", v->name);
    if (free_dim >= 0)
        s.dim[free_dim] = (int64_t)(in->binary_size / unit);
    if (!in->binary_size || in->binary_size % unit || (free_dim < 0 && in->binary_size != unit))
        return error_set(err, -EINVAL, "input '%s' needs %s%zu bytes, the body has %zu", v->name,
            free_dim < 0 ? "" : "a multiple of ", unit, in->binary_size);
    in->in[0] = (struct tensor){.dtype = v->dtype, .shape = s, .layout = LAYOUT_PLAIN, .data = in->binary};
    return infer_want_all(g, true, in, err);
}

int infer_open(struct request *r, struct infer *ret, struct error *err) {
    const struct buf *rest = &ret->json.rest;
    json_error_t where;
    size_t n = 0;
    int rc = split_body(r, ret, &n, err);

    if (rc || ret->is_raw)
        return rc;
    rc = tensor_json_cut(&ret->json, r->body ? r->body : "", n, r->api->limits.json_depth, err);
    if (rc)
        return rc;
    ret->doc = json_loadb(rest->data ? rest->data : "", rest->size, JSON_REJECT_DUPLICATES, &where);
    if (!json_is_object(ret->doc))
        return error_code(err, -EINVAL, "bad_json", "the body is not a JSON object%s%s", ret->doc ? "" : ": ",
            ret->doc ? "" : where.text);
    rc = parse_parameters(ret, err);
    if (!rc && ret->id)
        request_use_body_id(r, ret->id);
    return rc;
}

int infer_bind(struct infer *in, const struct graph *g, bool is_image_model, struct error *err) {
    int rc;

    if (g->n_inputs > INFER_MAX_PORTS)
        return error_set(err, -EOPNOTSUPP, "the model has more than %d inputs", INFER_MAX_PORTS);
    in->n_in = g->n_inputs;
    if (in->is_raw)
        return parse_raw(g, in, err);
    rc = parse_inputs(in, g, is_image_model, err);
    return rc ? rc : parse_outputs(in, g, err);
}
