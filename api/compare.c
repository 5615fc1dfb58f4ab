/* POST /api/v1/models/{m}/compare: one input, decoded once, run by every variant in turn on one slot. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "api/api.h"
#include "api/picture.h"
#include "api/routes.h"
#include "api/target.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "daemon/models.h"
#include "daemon/scheduler.h"

#define MAX_VARIANTS 32
#define ROUNDS       2 /* variants take turns; the quicker run counts, so that making a plan is not timed */

struct compare_row {
    struct target target;
    struct resident *resident; /* NULL: see err */
    struct error err;
    struct buf outputs, classes; /* JSON */
    double infer_us;
    bool has_run, is_compared;
    bool top1_agrees;
    double max_abs_diff, cosine;
};

struct compare_call {
    struct sched_work work; /* first: the scheduler's pointer is the call's */
    struct request *r;
    json_t *model;
    struct infer in;
    struct compare_row row[MAX_VARIANTS];
    size_t n;
    struct tensor reference; /* the first output of row 0; data owned, NULL: none */
    uint64_t decode_ns;
};

static void release(struct request *r) {
    struct compare_call *c = r->state;

    if (!c)
        return;
    for (size_t i = 0; i < c->n; i++) {
        target_done(&c->row[i].target);
        resident_unref(c->row[i].resident);
        buf_done(&c->row[i].outputs);
        buf_done(&c->row[i].classes);
    }
    infer_done(&c->in);
    json_decref(c->model);
    free(c->reference.data);
    free(c);
    r->state = NULL;
}

/* ---- which variants ---- */

static int add_row(struct compare_call *c, json_t *variant, struct error *err) {
    struct compare_row *row = &c->row[c->n];
    int rc;

    if (c->n == MAX_VARIANTS) {
        json_decref(variant);
        return error_set(err, -EINVAL, "at most %d variants are compared", MAX_VARIANTS);
    }
    rc = target_of_variant(c->r, variant, &row->target, err);
    if (rc)
        return rc;
    buf_init(&row->outputs, INFER_REPLY_MAX);
    buf_init(&row->classes, INFER_REPLY_MAX);
    c->n++;
    for (size_t i = 0; i + 1 < c->n; i++)
        if (c->row[i].target.number == row->target.number)
            return error_set(err, -EINVAL, "variant '%s' is named twice", row->target.variant_name);
    return 0;
}

/* "a,b,c": names, aliases or numbers. */
static int add_named(struct compare_call *c, const char *model, const char *list, struct error *err) {
    _cleanup_(freep) char *copy = strdup(list);
    char *save = NULL;

    if (!copy)
        return error_oom(err);
    for (char *name = strtok_r(copy, ",", &save); name; name = strtok_r(NULL, ",", &save)) {
        json_t *variant = NULL;
        int rc = models_variant(c->r->api->store, model, name, &variant, err);

        if (!rc)
            rc = add_row(c, variant, err);
        if (rc)
            return rc;
    }
    return 0;
}

/* All that are ready, by number: `original` is 1. */
static int add_ready(struct compare_call *c, const char *model, struct error *err) {
    json_t *all = models_variants(c->r->api->store, model), *v;
    size_t i;
    int rc = 0;

    json_array_foreach(all, i, v) {
        char key[TARGET_KEY_MAX], reason[RESIDENCY_REASON_MAX];
        uint64_t bytes;

        variant_key(model, (int)json_integer_value(json_object_get(v, "number")), key, sizeof(key));
        if (!rc && residency_state(c->r->api->residency, key, &bytes, reason) == VARIANT_READY)
            rc = add_row(c, json_incref(v), err);
    }
    json_decref(all);
    return rc;
}

static int find_rows(struct compare_call *c, struct error *err) {
    const char *model = request_param(c->r, "model");
    const char *list = request_query(c->r, "variants");
    int rc;

    c->model = store_get(c->r->api->store, STORE_MODEL, model);
    if (!c->model)
        return error_set(err, -ENOENT, "there is no model '%.64s'", model);
    rc = list ? add_named(c, model, list, err) : add_ready(c, model, err);
    if (!rc && !c->n)
        rc = list ? error_set(err, -EINVAL, "'variants' names none")
                  : error_code(err, -EAGAIN, "not_loaded", "no variant of the model is in memory");
    for (size_t i = 0; !rc && i < c->n; i++)
        residency_acquire(
            c->r->api->residency, c->row[i].target.key, true, &c->row[i].resident, &c->row[i].err);
    return rc;
}

/* ---- on the slot ---- */

static int keep_reference(struct compare_call *c, const struct tensor *out, struct error *err) {
    size_t bytes = 0;

    if (out->dtype != DT_F32 || !shape_bytes(&out->shape, out->dtype, &bytes))
        return 0;
    c->reference = *out;
    c->reference.data = malloc(bytes + 1);
    if (!c->reference.data)
        return error_oom(err);
    memcpy(c->reference.data, out->data, bytes);
    return 0;
}

static size_t argmax(const float *x, size_t n) {
    size_t best = 0;

    for (size_t i = 1; i < n; i++)
        if (x[i] > x[best])
            best = i;
    return best;
}

/* Against the reference: the first output, all rows of the batch. */
static void measure(struct compare_row *row, const struct tensor *ref, const struct tensor *out) {
    const float *a = ref->data, *b = out->data;
    double dot = 0, aa = 0, bb = 0;
    int64_t n = 0;
    size_t rows, members;

    if (!a || out->dtype != DT_F32 || !shape_equal(&ref->shape, &out->shape) || !shape_count(&out->shape, &n))
        return;
    rows = out->shape.rank > 1 ? (size_t)out->shape.dim[0] : 1;
    members = rows ? (size_t)n / rows : 0;
    row->is_compared = true;
    row->top1_agrees = true;
    for (size_t i = 0; i < rows; i++)
        row->top1_agrees &= argmax(a + i * members, members) == argmax(b + i * members, members);
    for (int64_t i = 0; i < n; i++) {
        double diff = fabs((double)a[i] - (double)b[i]);

        if (!(diff <= row->max_abs_diff) && !isnan(row->max_abs_diff)) /* NaN stays, fmax() would hide it */
            row->max_abs_diff = diff;
        dot += (double)a[i] * (double)b[i];
        aa += (double)a[i] * (double)a[i];
        bb += (double)b[i] * (double)b[i];
    }
    if (isfinite(aa) && isfinite(bb))
        row->cosine = aa > 0 && bb > 0 ? fmin(1, dot / sqrt(aa * bb)) : (double)(aa == bb);
    else
        row->cosine = (double)NAN;
}

static int write_row(
    struct compare_call *c, struct compare_row *row, const struct tensor *out, struct error *err) {
    _cleanup_(freep) const char **labels = NULL;
    struct infer_answer a = {.graph = net_graph(row->resident->net), .out = out};
    int rc = row == &c->row[0] ? keep_reference(c, &out[0], err) : 0;

    measure(row, &c->reference, &out[0]);
    a.n_labels = infer_labels(c->model, &labels);
    a.labels = labels;
    a.top = (unsigned)request_query_uint(c->r, "top", 0);
    picture_describe(a.graph, out, &a);
    if (!rc)
        rc = infer_write_outputs(&row->outputs, &c->in, &a, err);
    return rc ? rc : infer_write_classes(&row->classes, &a, err);
}

static void run_row(struct compare_call *c, struct compare_row *row, struct slot *slot) {
    struct tensor out[SCHED_MAX_IO];
    size_t n_out = 0;
    double us = 0;

    if (!row->resident || row->err.err)
        return;
    if (slot_run(slot, row->resident->net, c->in.in, out, SCHED_MAX_IO, &n_out, &us, &row->err))
        return;
    if (!row->has_run && write_row(c, row, out, &row->err))
        return;
    row->infer_us = row->has_run ? fmin(row->infer_us, us) : us;
    row->has_run = true;
}

static int bind_input(struct compare_call *c, struct error *err) {
    size_t i = 0;
    int rc;

    while (i < c->n && !c->row[i].resident)
        i++;
    rc = picture_bind(c->r, c->model, net_graph(c->row[i].resident->net), &c->in, err);
    for (i = 0; !rc && i < c->in.n_want; i++)
        c->in.want[i].is_binary = false;
    return rc;
}

static json_t *row_error(const struct compare_row *row) {
    if (!row->err.err)
        return json_null();
    return json_pack("{s:s, s:s}", "code", error_row_of(&row->err)->code, "message", row->err.text);
}

/* JSON has no infinity: a variant may overflow where another does not. */
static json_t *figure(bool is_known, double v) {
    return is_known && isfinite(v) ? json_real(v) : json_null();
}

/* What was measured; outputs and classes are text already and follow it. */
static int put_row(
    struct buf *b, const struct compare_call *c, const struct compare_row *row, bool is_first) {
    json_t *doc;
    char *text;
    int rc;

    doc = json_pack("{s:s, s:i, s:{s:f, s:o}, s:o, s:o, s:o, s:o}", "variant", row->target.variant_name,
        "number", row->target.number, "timing_us", "queue", (double)c->work.timing.queue_ns / 1e3, "infer",
        figure(row->has_run, row->infer_us), "top1_agrees",
        row->is_compared ? json_boolean(row->top1_agrees) : json_null(), "max_abs_diff",
        figure(row->is_compared, row->max_abs_diff), "cosine", figure(row->is_compared, row->cosine), "error",
        row_error(row));
    text = doc ? json_dumps(doc, JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;
    json_decref(doc);
    if (!text)
        return -ENOMEM;
    text[strlen(text) - 1] = 0; /* its last brace comes after the rest */
    rc = buf_printf(b, "%s%s,\"outputs\":", is_first ? "" : ",", text);
    free(text);
    if (!row->has_run || row->err.err)
        return rc ?: buf_puts(b, "null,\"classes\":null}");
    rc = rc ?: buf_append(b, row->outputs.data, row->outputs.size) ?: buf_puts(b, ",\"classes\":");
    return rc ?: buf_append(b, row->classes.data, row->classes.size) ?: buf_puts(b, "}");
}

static int write_reply(struct compare_call *c, struct error *err) {
    _cleanup_(buf_done) struct buf b;
    size_t size;
    char *text;
    int rc;

    buf_init(&b, INFER_REPLY_MAX);
    rc = buf_printf(&b, "{\"request_id\":\"%s\",\"reference\":\"%s\",\"variants\":[", c->r->id,
        c->row[0].target.variant_name);
    for (size_t i = 0; !rc && i < c->n; i++)
        rc = put_row(&b, c, &c->row[i], !i);
    rc = rc ?: buf_puts(&b, "]}");
    size = b.size;
    text = rc ? NULL : buf_take(&b);
    return text ? reply_bytes(c->r->reply, 200, "application/json", text, size) : error_oom(err);
}

static void task(struct sched_work *w, struct slot *slot) {
    struct compare_call *c = (struct compare_call *)w;
    struct error err = {0};
    uint64_t begin = clock_now_ns(), decoded;
    int rc = bind_input(c, &err);

    decoded = clock_now_ns();
    for (int round = 0; !rc && round < ROUNDS; round++)
        for (size_t i = 0; i < c->n && !atomic_load(&c->r->is_gone); i++)
            run_row(c, &c->row[i], slot);
    c->r->reply->timing = (struct reply_timing){(double)w->timing.queue_ns / 1e6,
        (double)(decoded - begin + c->decode_ns) / 1e6, (double)(clock_now_ns() - decoded) / 1e6, 0};
    if (!rc)
        rc = write_reply(c, &err);
    request_complete(c->r, rc ? &err : NULL);
}

/* When it never ran. */
static void finish(struct sched_work *w, const struct tensor *out, size_t n_out, const struct error *err) {
    (void)out;
    (void)n_out;
    request_complete(((struct compare_call *)w)->r, err);
}

/* ---- before ---- */

static void on_gone(struct request *r) {
    struct compare_call *c = r->state;

    scheduler_cancel(r->api->scheduler, &c->work);
}

static int submit(struct compare_call *c, struct error *err) {
    uint64_t timeout_us = c->in.timeout_us;
    size_t i = 0;
    int rc;

    while (i < c->n && !c->row[i].resident)
        i++;
    if (i == c->n) /* none can run: the rows' errors are the answer */
        return write_reply(c, err);
    if (!timeout_us)
        timeout_us = (uint64_t)target_limit(c->r->api, c->model, "timeout_ms") * 1000;
    c->work.resident = resident_ref(c->row[i].resident);
    c->work.deadline_ns = timeout_us ? c->r->body_ns + timeout_us * 1000 : 0;
    c->work.priority = c->in.priority;
    c->work.task = task;
    c->work.finish = finish;
    c->r->on_gone = on_gone;
    rc = scheduler_submit(c->r->api->scheduler, &c->work, err);
    if (rc)
        resident_unref(c->work.resident);
    return rc ? rc : REQUEST_PENDING;
}

static int post_compare(struct request *r, struct reply *p, struct error *err) {
    struct compare_call *c = calloc(1, sizeof(*c));
    uint64_t begin = clock_now_ns();
    int rc;

    (void)p;
    if (!c)
        return error_oom(err);
    infer_init(&c->in);
    c->r = r;
    r->state = c;
    r->release = release;
    rc = infer_is_picture(r) ? 0 : infer_open(r, &c->in, err);
    c->decode_ns = clock_now_ns() - begin;
    if (!rc)
        rc = find_rows(c, err);
    return rc ? rc : submit(c, err);
}

static int check_model(struct request *r, struct reply *p, struct error *err) {
    json_t *model = store_get(r->api->store, STORE_MODEL, request_param(r, "model"));

    (void)p;
    if (!model)
        return error_set(err, -ENOENT, "there is no model '%.64s'", request_param(r, "model"));
    json_decref(model);
    return 0;
}

const struct route compare_routes[] = {
    {.method = HTTP_POST,
        .path = "/api/v1/models/{model}/compare",
        .scope = SCOPE_INFER,
        .body = BODY_MEMORY,
        .limit = LIMIT_JSON,
        .run = RUN_POOL,
        .check = check_model,
        .handle = post_compare,
        .query = {{"variants", QUERY_STRING, 0, 0, NULL,
                      "Names, separated by commas; the first is the reference (all ready ones)."},
            {"top", QUERY_UINT, 1, 1000, NULL, "How many classes each variant names (5)."},
            {"outputs", QUERY_BOOL, 0, 0, NULL, "false leaves the tensors out of a picture's reply."}},
        .id = "compareVariants",
        .summary = "Runs one input on every variant and says how far they agree.",
        .statuses = "200 404 422 504",
        .consumes = "application/json, application/octet-stream, image/jpeg, image/png"},
    {0},
};
