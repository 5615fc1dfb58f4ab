/* The statistics extension: true counts of the judge, by variant. */
#include <stdio.h>

#include "api/api.h"
#include "api/routes.h"
#include "api/target.h"
#include "base/cleanup.h"
#include "daemon/judge.h"
#include "daemon/models.h"
#include "daemon/residency.h"

static json_t *count_ns(uint64_t n, uint64_t ns) {
    return json_pack("{s:I, s:I}", "count", (json_int_t)n, "ns", (json_int_t)ns);
}

/* Clients want the three compute counts equal: each success went through all three. */
static json_t *inference_stats(const struct judge_stats *s) {
    return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "success",
        count_ns(s->n_success, s->success_ns), "fail", count_ns(s->n_fail, s->fail_ns), "queue",
        count_ns(s->n_success, s->stage[STAGE_QUEUE].sum_ns), "compute_input",
        count_ns(s->n_success, s->stage[STAGE_DECODE].sum_ns), "compute_infer",
        count_ns(s->n_success, s->stage[STAGE_INFER].sum_ns), "compute_output",
        count_ns(s->n_success, s->stage[STAGE_ENCODE].sum_ns), "cache_hit", count_ns(0, 0), "cache_miss",
        count_ns(0, 0));
}

static json_t *batch_stats(const struct judge_stats *s) {
    json_t *list = json_array();

    for (size_t i = 0; i < JUDGE_BATCHES; i++)
        if (s->batch[i].n)
            json_array_append_new(
                list, json_pack("{s:i, s:o, s:o, s:o}", "batch_size", (int)s->batch[i].size, "compute_input",
                          count_ns(s->batch[i].n, s->batch[i].decode_ns), "compute_infer",
                          count_ns(s->batch[i].n, s->batch[i].infer_ns), "compute_output",
                          count_ns(s->batch[i].n, s->batch[i].encode_ns)));
    return list;
}

static int add_stats(const struct request *r, const struct target *t, void *ctx, struct error *err) {
    char reason[RESIDENCY_REASON_MAX];
    struct judge_stats s;
    uint64_t bytes = 0;

    judge_get(r->api->judge, t->key, &s);
    residency_state(r->api->residency, t->key, &bytes, reason);
    if (json_array_append_new(
            ctx, json_pack("{s:s, s:s, s:I, s:I, s:I, s:o, s:{}, s:o, s:[{s:s, s:i, s:I}]}", "name",
                     t->model_name, "version", t->version, "last_inference", (json_int_t)s.last_ms,
                     "inference_count", (json_int_t)s.n_items, "execution_count", (json_int_t)s.n_executed,
                     "inference_stats", inference_stats(&s), "response_stats", "batch_stats", batch_stats(&s),
                     "memory_usage", "type", "CPU", "id", 0, "byte_size", (json_int_t)bytes)))
        return error_oom(err);
    return 0;
}

static int get_stats(struct request *r, struct reply *p, struct error *err) {
    json_t *list = json_array();
    int rc = target_each(r, add_stats, list, err);

    if (rc) {
        json_decref(list);
        return rc;
    }
    return reply_json(p, 200, json_pack("{s:o}", "model_stats", list), err);
}

static int get_all_stats(struct request *r, struct reply *p, struct error *err) {
    json_t *list = json_array(), *all = store_list(r->api->store, STORE_VARIANT, NULL), *v;
    size_t i;

    json_array_foreach(all, i, v) {
        _cleanup_(target_done) struct target t = {0};
        struct error gone = {0};

        if (!target_of_variant(r, json_incref(v), &t, &gone))
            add_stats(r, &t, list, &gone);
    }
    json_decref(all);
    return reply_json(p, 200, json_pack("{s:o}", "model_stats", list), err);
}

const struct route v2_stats_routes[] = {
    {.method = HTTP_GET,
        .path = "/v2/models/stats",
        .scope = SCOPE_READ | SCOPE_INFER,
        .handle = get_all_stats,
        .id = "getAllStats",
        .summary = "Statistics of every variant of every model.",
        .statuses = "200"},
    {.method = HTTP_GET,
        .path = "/v2/models/{model}/stats",
        .scope = SCOPE_READ | SCOPE_INFER,
        .handle = get_stats,
        .id = "getModelStats",
        .summary = "Statistics of a model's variants.",
        .statuses = "200 404"},
    {.method = HTTP_GET,
        .path = "/v2/models/{model}/versions/{version}/stats",
        .scope = SCOPE_READ | SCOPE_INFER,
        .handle = get_stats,
        .id = "getModelVersionStats",
        .summary = "Statistics of one variant.",
        .statuses = "200 404"},
    {0},
};
