/* GET /api/v1/models/{m}/comparison: the table. Every figure was measured: accuracy and pairs by evaluation
 * on labelled data, latency by the same evaluation (interleaved, one thread), bytes by counting. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "api/routes.h"
#include "api/view.h"
#include "base/buf.h"
#include "base/cleanup.h"
#include "base/stats.h"
#include "daemon/judge.h"
#include "daemon/models.h"

#define TEXT_MAX (1u << 20)

static json_t *or_null(json_t *j) {
    return j ? json_incref(j) : json_null();
}

static json_t *labelled_of(const json_t *evaluation) {
    if (!json_is_object(evaluation))
        return json_null();
    return json_pack("{s:o, s:o, s:o}", "n", or_null(json_object_get(evaluation, "n")), "accuracy",
        or_null(json_object_get(evaluation, "accuracy")), "ci95",
        or_null(json_object_get(evaluation, "ci95")));
}

static json_t *paired_of(const json_t *evaluation) {
    const json_t *v = json_object_get(evaluation, "vs_reference");

    if (!json_is_object(v))
        return json_null();
    return json_pack("{s:o, s:o, s:o, s:o, s:o}", "reference", or_null(json_object_get(v, "reference")), "n",
        or_null(json_object_get(evaluation, "n")), "difference", or_null(json_object_get(v, "difference")),
        "ci95", or_null(json_object_get(v, "ci95")), "mcnemar_p", or_null(json_object_get(v, "mcnemar_p")));
}

/* The same top-1 as the reference, on the evaluation's pictures. */
static json_t *agreement_of(const json_t *evaluation) {
    const json_t *share = json_object_get(json_object_get(evaluation, "vs_reference"), "agreement");
    double n = json_number_value(json_object_get(evaluation, "n")), value = json_number_value(share);
    struct interval i = stats_wilson95((uint64_t)(value * n + 0.5), (uint64_t)n);

    if (!json_is_number(share) || n < 1)
        return json_null();
    return json_pack("{s:I, s:f, s:[f, f]}", "n", (json_int_t)n, "value", value, "ci95", i.low, i.high);
}

/* By the evaluation where there is one, else by live traffic. */
static json_t *latency_of(struct api *api, const json_t *variant, const char *key) {
    const json_t *l = json_object_get(variant, "latency");
    struct judge_stats s;
    const struct judge_histogram *h = &s.stage[STAGE_INFER];

    if (json_is_object(l))
        return json_pack("{s:o, s:o, s:o}", "p50_us", or_null(json_object_get(l, "p50_us")), "p95_us",
            or_null(json_object_get(l, "p95_us")), "p99_us", or_null(json_object_get(l, "p99_us")));
    judge_get(api->judge, key, &s);
    if (!h->n)
        return json_null();
    return json_pack("{s:f, s:f, s:f}", "p50_us", judge_quantile(h, 0.5) * 1e6, "p95_us",
        judge_quantile(h, 0.95) * 1e6, "p99_us", judge_quantile(h, 0.99) * 1e6);
}

static json_t *throughput_of(const json_t *latency) {
    double p50 = json_number_value(json_object_get(latency, "p50_us"));

    return p50 > 0 ? json_real(1e6 / p50) : json_null();
}

static json_t *row_of(struct api *api, const json_t *variant) {
    json_t *view = view_variant(api, variant, true), *latency, *row;
    const json_t *evaluation = json_object_get(variant, "evaluation");
    char key[NAME_MAX_SIZE + 16];

    variant_key(json_string_value(json_object_get(variant, "model")),
        (int)json_integer_value(json_object_get(variant, "number")), key, sizeof(key));
    latency = latency_of(api, variant, key);
    row = json_pack("{s:O, s:O, s:o, s:n, s:o, s:o, s:o, s:o, s:O, s:O, s:O, s:[], s:O}", "variant",
        json_object_get(variant, "name"), "number", json_object_get(variant, "number"), "labelled",
        labelled_of(evaluation), "live", "agreement", agreement_of(evaluation), "paired",
        paired_of(evaluation), "latency", json_incref(latency), "throughput", throughput_of(latency),
        "bytes_file", json_object_get(view, "bytes_file"), "bytes_resident",
        json_object_get(view, "bytes_resident"), "macs", json_object_get(view, "macs"), "dominated_by",
        "verdicts", json_object_get(view, "verdicts"));
    json_decref(latency);
    json_decref(view);
    return row;
}

/* At least as good in accuracy, latency and bytes, and better in one. Unknown figures compare with nothing.
 */
static bool dominates(const json_t *a, const json_t *b) {
    const json_t *accuracy_a = json_object_get(json_object_get(a, "labelled"), "accuracy");
    const json_t *accuracy_b = json_object_get(json_object_get(b, "labelled"), "accuracy");
    const json_t *p50_a = json_object_get(json_object_get(a, "latency"), "p50_us");
    const json_t *p50_b = json_object_get(json_object_get(b, "latency"), "p50_us");
    double gain[3];
    bool is_better = false;

    if (!json_is_number(accuracy_a) || !json_is_number(accuracy_b) || !json_is_number(p50_a) ||
        !json_is_number(p50_b))
        return false;
    gain[0] = json_number_value(accuracy_a) - json_number_value(accuracy_b);
    gain[1] = json_number_value(p50_b) - json_number_value(p50_a);
    gain[2] = json_number_value(json_object_get(b, "bytes_file")) -
              json_number_value(json_object_get(a, "bytes_file"));
    for (int i = 0; i < 3; i++) {
        if (gain[i] < 0)
            return false;
        is_better = is_better || gain[i] > 0;
    }
    return is_better;
}

static void set_dominated(json_t *rows) {
    for (size_t i = 0; i < json_array_size(rows); i++)
        for (size_t k = 0; k < json_array_size(rows); k++) {
            json_t *a = json_array_get(rows, k), *b = json_array_get(rows, i);

            if (i != k && dominates(a, b))
                json_array_append(json_object_get(b, "dominated_by"), json_object_get(a, "variant"));
        }
}

/* The columns of the text and CSV forms. */
static const struct column {
    const char *head, *csv;
    const char *a, *b; /* member, and member of it; b NULL: the first itself */
    int decimals;
    bool has_sign;
} columns[] = {
    {"variant", "variant", "variant", NULL, 0, false},
    {"n", "n", "labelled", "n", 0, false},
    {"accuracy", "accuracy", "labelled", "accuracy", 4, false},
    {"difference", "difference", "paired", "difference", 4, true},
    {"p", "mcnemar_p", "paired", "mcnemar_p", 3, false},
    {"p50 us", "p50_us", "latency", "p50_us", 1, false},
    {"p99 us", "p99_us", "latency", "p99_us", 1, false},
    {"file bytes", "bytes_file", "bytes_file", NULL, 0, false},
    {"memory bytes", "bytes_resident", "bytes_resident", NULL, 0, false},
};
#define N_COLUMNS (sizeof(columns) / sizeof(columns[0]))
#define CELL_MAX  80

static void cell_text(const json_t *row, const struct column *c, char ret[static CELL_MAX]) {
    const json_t *v = json_object_get(row, c->a);

    if (c->b)
        v = json_object_get(v, c->b);
    if (json_is_string(v))
        snprintf(ret, CELL_MAX, "%s", json_string_value(v));
    else if (json_is_number(v))
        snprintf(ret, CELL_MAX, c->has_sign ? "%+.*f" : "%.*f", c->decimals, json_number_value(v));
    else
        snprintf(ret, CELL_MAX, "-");
}

static void put_verdicts(struct buf *b, const json_t *row, const char *separator) {
    const json_t *list = json_object_get(row, "verdicts");

    for (size_t i = 0; i < json_array_size(list); i++)
        buf_printf(b, "%s%s", i ? separator : "", json_string_value(json_array_get(list, i)));
}

/* The first column is flush left, figures are flush right. */
static void put_cell(struct buf *b, bool is_first, int width, const char *text) {
    if (is_first)
        buf_printf(b, "%-*s", width, text);
    else
        buf_printf(b, "  %*s", width, text);
}

static void put_text(struct buf *b, const json_t *rows) {
    int width[N_COLUMNS];
    char cell[CELL_MAX];

    for (size_t c = 0; c < N_COLUMNS; c++) {
        width[c] = (int)strlen(columns[c].head);
        for (size_t i = 0; i < json_array_size(rows); i++) {
            cell_text(json_array_get(rows, i), &columns[c], cell);
            width[c] = (int)strlen(cell) > width[c] ? (int)strlen(cell) : width[c];
        }
    }
    for (size_t c = 0; c < N_COLUMNS; c++)
        put_cell(b, c == 0, width[c], columns[c].head);
    buf_puts(b, "  verdicts\n");
    for (size_t i = 0; i < json_array_size(rows); i++) {
        for (size_t c = 0; c < N_COLUMNS; c++) {
            cell_text(json_array_get(rows, i), &columns[c], cell);
            put_cell(b, c == 0, width[c], cell);
        }
        buf_puts(b, "  ");
        put_verdicts(b, json_array_get(rows, i), ", ");
        buf_puts(b, "\n");
    }
}

static void put_csv(struct buf *b, const json_t *rows) {
    char cell[CELL_MAX];

    for (size_t c = 0; c < N_COLUMNS; c++)
        buf_printf(b, "%s,", columns[c].csv);
    buf_puts(b, "verdicts\r\n");
    for (size_t i = 0; i < json_array_size(rows); i++) {
        for (size_t c = 0; c < N_COLUMNS; c++) {
            cell_text(json_array_get(rows, i), &columns[c], cell);
            buf_printf(b, "%s,", strcmp(cell, "-") ? cell : "");
        }
        put_verdicts(b, json_array_get(rows, i), ";");
        buf_puts(b, "\r\n");
    }
}

static int reply_rows(struct reply *p, const json_t *rows, bool is_csv, struct error *err) {
    struct buf b;
    int e;

    buf_init(&b, TEXT_MAX);
    if (is_csv)
        put_csv(&b, rows);
    else
        put_text(&b, rows);
    e = reply_text(
        p, 200, is_csv ? "text/csv; charset=utf-8" : "text/plain; charset=utf-8", b.data ? b.data : "", err);
    buf_done(&b);
    return e;
}

static int get_comparison(struct request *r, struct reply *p, struct error *err) {
    const char *model = request_param(r, "model");
    json_t *doc = store_get(r->api->store, STORE_MODEL, model), *all, *rows, *v;
    size_t i;
    int e;

    json_decref(doc);
    if (!doc)
        return error_set(err, -ENOENT, "there is no model '%.64s'", model);
    all = models_variants(r->api->store, model);
    rows = json_array();
    json_array_foreach(all, i, v) json_array_append_new(rows, row_of(r->api, v));
    json_decref(all);
    set_dominated(rows);
    if (request_accepts(r, "text/csv") || request_accepts(r, "text/plain")) {
        e = reply_rows(p, rows, request_accepts(r, "text/csv"), err);
        json_decref(rows);
        return e;
    }
    return reply_json(p, 200,
        json_pack("{s:s, s:n, s:o}", "reference", "original", "window_seconds", "variants", rows), err);
}

const struct route comparison_routes[] = {
    {.method = HTTP_GET,
        .path = "/api/v1/models/{model}/comparison",
        .scope = SCOPE_READ,
        .run = RUN_POOL,
        .handle = get_comparison,
        .query = {{"window", QUERY_STRING, 0, 0, NULL,
            "Live figures of the last while, as 60s; all since the start without it."}},
        .id = "getComparison",
        .summary = "What each variant costs in accuracy and brings in time and bytes.",
        .statuses = "200 404",
        .produces = "application/json, text/plain, text/csv"},
    {0},
};
