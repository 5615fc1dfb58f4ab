/* The daemon's own state: status, configuration, log level, drain. */
#include <errno.h>
#include <string.h>

#include "api/api.h"
#include "api/body.h"
#include "api/routes.h"
#include "base/clock.h"
#include "config/config.h"
#include "daemon/jobs.h"
#include "daemon/log.h"
#include "daemon/models.h"
#include "daemon/residency.h"
#include "daemon/scheduler.h"
#include "engine/cpu.h"

static json_t *limits_json(const struct api *api) {
    const struct api_limits *l = &api->limits;

    return json_pack("{s:I, s:I, s:I, s:I, s:i, s:i, s:i, s:i, s:I}", "model_bytes",
        (json_int_t)l->model_bytes, "dataset_bytes", (json_int_t)l->dataset_bytes, "body_bytes",
        (json_int_t)l->body_bytes, "bodies_bytes", (json_int_t)l->bodies_bytes, "json_depth",
        (int)l->json_depth, "uploads", (int)l->uploads, "event_streams", (int)l->streams, "connections",
        (int)l->connections, "picture_pixels", (json_int_t)l->picture_pixels);
}

static json_t *variant_memory(const struct api *api) {
    json_t *rows = json_array(), *all = store_list(api->store, STORE_VARIANT, NULL), *v;
    size_t i;

    json_array_foreach(all, i, v) {
        const char *model = json_string_value(json_object_get(v, "model"));
        int number = (int)json_integer_value(json_object_get(v, "number"));
        char key[2 * NAME_MAX_SIZE], reason[RESIDENCY_REASON_MAX];
        enum variant_state state;
        uint64_t bytes = 0;

        if (!model)
            continue;
        variant_key(model, number, key, sizeof(key));
        state = residency_state(api->residency, key, &bytes, reason);
        json_array_append_new(rows,
            json_pack("{s:s, s:O, s:i, s:s, s:I, s:i}", "model", model, "variant", json_object_get(v, "name"),
                "number", number, "state", variant_state_name(state), "bytes_resident", (json_int_t)bytes,
                "waiting", (int)scheduler_waiting_for(api->scheduler, key)));
    }
    json_decref(all);
    return rows;
}

static json_t *job_counts(const struct api *api) {
    unsigned n[JOB_STATES];
    json_t *counts = json_object();

    jobs_count(api->jobs, n);
    for (int i = 0; i < JOB_STATES; i++)
        json_object_set_new(counts, job_state_names[i], json_integer(n[i]));
    return counts;
}

static json_t *cpu_features(void) {
    struct error err = {0};
    struct cpu cpu;

    if (cpu_detect(NULL, &cpu, &err))
        return json_null();
    return json_pack("{s:b, s:b, s:b, s:b, s:b, s:b, s:b}", "avx2", cpu.avx2, "fma", cpu.fma, "avx512",
        cpu.avx512, "avx512_vnni", cpu.avx512_vnni, "avx512_bf16", cpu.avx512_bf16, "avx512_vpopcntdq",
        cpu.avx512_vpopcntdq, "avx512_vbmi", cpu.avx512_vbmi);
}

/* Why something works less well than it should. */
static json_t *degraded_reasons(const struct api *api) {
    json_t *list = json_array();
    uint64_t used, budget;

    if (atomic_load(&api->is_draining))
        json_array_append_new(list, json_string("the daemon is draining"));
    else if (!atomic_load(&api->is_ready))
        json_array_append_new(list, json_string("variants are still being loaded after the start"));
    store_disk(api->store, &used, &budget);
    if (used > budget)
        json_array_append_new(list, json_string("the disk is fuller than uploads may make it"));
    return list;
}

static int get_status(struct request *r, struct reply *p, struct error *err) {
    struct api *api = r->api;
    uint64_t used = 0, budget = 0, disk_used = 0, disk_budget = 0;

    residency_count(api->residency, &used, &budget);
    store_disk(api->store, &disk_used, &disk_budget);
    return reply_json(p, 200,
        json_pack(
            "{s:s, s:f, s:b, s:b, s:o, s:o, s:{s:I, s:I}, s:{s:I, s:I}, s:o, s:{s:i, s:b}, s:o, s:{s:i, s:i, s:i}, s:o}",
            "version", BONSAI_VERSION, "uptime_seconds", (double)(clock_now_ns() - api->started_ns) / 1e9,
            "ready", atomic_load(&api->is_ready) && !atomic_load(&api->is_draining), "draining",
            atomic_load(&api->is_draining), "cpu", cpu_features(), "limits", limits_json(api), "memory",
            "used_bytes", (json_int_t)used, "budget_bytes", (json_int_t)budget, "disk", "used_bytes",
            (json_int_t)disk_used, "budget_bytes", (json_int_t)disk_budget, "variants", variant_memory(api),
            "queue", "waiting", (int)scheduler_waiting(api->scheduler), "busy",
            scheduler_is_busy(api->scheduler), "jobs", job_counts(api), "http", "connections",
            (int)atomic_load(&api->n_connections), "event_streams", (int)atomic_load(&api->n_streams),
            "uploads", (int)atomic_load(&api->n_uploads), "degraded", degraded_reasons(api)),
        err);
}

static int get_config(struct request *r, struct reply *p, struct error *err) {
    json_t *doc = param_json(&config_table, r->api->config);

    if (!doc)
        return error_oom(err);
    return reply_json(p, 200, doc, err);
}

static int put_log_level(struct request *r, struct reply *p, struct error *err) {
    json_auto_t *body = NULL;
    const char *level;
    int rc = body_json(r, false, &body, err);

    if (!rc)
        rc = body_check_keys(body, "level", "", err);
    if (rc)
        return rc;
    level = json_string_value(json_object_get(body, "level"));
    for (int i = 0; level && i < LOG_LEVELS; i++)
        if (!strcmp(level, log_level_names[i])) {
            log_set_level((enum log_level)i);
            return reply_json(p, 200, json_pack("{s:s}", "level", level), err);
        }
    return error_set(err, -EINVAL, "level must be one of debug, info, warning, error");
}

static int post_drain(struct request *r, struct reply *p, struct error *err) {
    int rc = reply_json(p, 202, json_pack("{s:b}", "draining", 1), err);

    if (!rc)
        r->api->drain(r->api->drain_ctx);
    return rc;
}

const struct route system_routes[] = {
    {.method = HTTP_GET,
        .path = "/api/v1/status",
        .scope = SCOPE_READ,
        .run = RUN_POOL,
        .handle = get_status,
        .id = "getStatus",
        .summary = "Version, limits, memory, queues, jobs, and what is degraded.",
        .statuses = "200"},
    {.method = HTTP_GET,
        .path = "/api/v1/config",
        .scope = SCOPE_ADMIN,
        .handle = get_config,
        .id = "getConfig",
        .summary = "Every option as it is in force.",
        .statuses = "200"},
    {.method = HTTP_PUT,
        .path = "/api/v1/log-level",
        .scope = SCOPE_ADMIN,
        .body = BODY_MEMORY,
        .limit = LIMIT_SMALL,
        .handle = put_log_level,
        .id = "setLogLevel",
        .summary = "Sets the level of the log: {\"level\":\"debug\"}.",
        .statuses = "200"},
    {.method = HTTP_POST,
        .path = "/api/v1/drain",
        .scope = SCOPE_ADMIN,
        .in_drain = true,
        .handle = post_drain,
        .id = "drain",
        .summary = "Begins the orderly end: readiness off, what runs ends, then the daemon exits.",
        .statuses = "202"},
    {0},
};
