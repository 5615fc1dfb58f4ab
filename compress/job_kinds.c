#include "compress/job_kinds.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "base/cleanup.h"
#include "compress/check.h"
#include "compress/compress_job.h"
#include "compress/halves.h"
#include "compress/recipe.h"
#include "compress/train_spec.h"
#include "engine/onnx.h"

int job_string(const json_t *job, const char *key, const char **ret, struct error *err) {
    *ret = json_string_value(json_object_get(job, key));
    return *ret ? 0 : error_set(err, -EINVAL, "%s is missing", key);
}

int job_steps(const json_t *job, json_t **ret, struct error *err) {
    const char *name = json_string_value(json_object_get(job, "recipe"));

    *ret = name ? recipe_named(name) : json_incref(json_object_get(job, "steps"));
    if (*ret)
        return 0;
    return name ? error_set(err, -EINVAL,
                      "recipe: there is no recipe '%.64s' (GET /api/v1/recipes lists them)", name)
                : error_set(err, -EINVAL, "steps is missing");
}

static int run_check(const json_t *job, struct job_io *io, json_t **ret, struct error *err) {
    const char *input;
    int r = job_string(job, "input", &input, err);

    (void)io;
    return r < 0 ? r : check_model(input, ret, err);
}

const struct job_kind job_check = {.name = "check", .run = run_check};

json_t *methods_json(void) {
    json_t *methods = recipe_methods();

    json_object_set_new(methods, "networks", zoo_list());
    json_object_set_new(methods, "train", train_spec_schema());
    return json_pack("{s:o, s:o}", "methods", methods, "recipes", recipe_list());
}

static int run_methods(const json_t *job, struct job_io *io, json_t **ret, struct error *err) {
    (void)job;
    (void)io;
    *ret = methods_json();
    return *ret ? 0 : error_oom(err);
}

const struct job_kind job_methods = {.name = "methods", .run = run_methods};

static int plan_file(const char *input, const json_t *steps, bool has_data, json_t **ret, struct error *err) {
    _cleanup_(closep) int fd = open(input, O_RDONLY | O_CLOEXEC);
    _cleanup_(recipe_freep) struct recipe *recipe = NULL;
    _cleanup_(graph_freep) struct graph *g = NULL;
    _cleanup_(halves_done) struct halves halves = {0};
    int r;

    if (fd < 0)
        return error_errno(err, "the model file cannot be opened");
    r = recipe_new(steps, &recipe, err);
    if (r == 0)
        r = onnx_read_fd(fd, &g, err);
    if (r == 0)
        r = halves_widen(g, &halves, err);
    return r < 0 ? r : recipe_plan(recipe, g, has_data, ret, err);
}

static int run_plan(const json_t *job, struct job_io *io, json_t **ret, struct error *err) {
    const char *input;
    json_t *steps = NULL;
    int r;

    (void)io;
    if (json_object_get(job, "train"))
        return job_train_plan(job, ret, err);
    if (json_object_get(job, "sensitivity"))
        return job_sensitivity_plan(job, ret, err);
    r = job_string(job, "input", &input, err);
    if (r == 0)
        r = job_steps(job, &steps, err);
    if (r == 0)
        r = plan_file(input, steps, json_is_string(json_object_get(job, "pack")), ret, err);
    json_decref(steps);
    return r;
}

const struct job_kind job_plan = {.name = "plan", .run = run_plan};

/* The network's own view of the data: opened once more only for its input. */
static int open_samples(const json_t *job, const char *input, const json_t *steps, struct samples *ret,
    json_t *verdicts, struct error *err) {
    _cleanup_(closep) int fd = open(input, O_RDONLY | O_CLOEXEC);
    _cleanup_(recipe_freep) struct recipe *recipe = NULL;
    _cleanup_(graph_freep) struct graph *g = NULL;
    bool is_test = false;
    int r;

    if (fd < 0)
        return error_errno(err, "the model file cannot be opened");
    r = recipe_new(steps, &recipe, err);
    if (r == 0)
        r = onnx_read_fd(fd, &g, err);
    if (r == 0)
        r = job_samples_open(job, g, (uint64_t)recipe_samples(recipe), ret, &is_test, err);
    if (r == 0 && is_test)
        json_array_append_new(verdicts, json_string("calibrated_on_test"));
    return r;
}

static bool is_in(const json_t *list, const char *text) {
    const json_t *item;
    size_t i;

    json_array_foreach(list, i, item) if (!strcmp(json_string_value(item), text)) return true;
    return false;
}

/* What steps warn of is said of the variant. */
static void take_warnings(const json_t *steps, json_t *verdicts) {
    const json_t *step, *warning;
    size_t i, k;

    json_array_foreach(steps, i, step) json_array_foreach(json_object_get(step, "warnings"), k, warning) {
        if (!is_in(verdicts, json_string_value(warning)))
            json_array_append_new(verdicts, json_string(json_string_value(warning)));
    }
}

static int run_compress(const json_t *job, struct job_io *io, json_t **ret, struct error *err) {
    struct compress_job c = {.seed = (uint64_t)json_integer_value(json_object_get(job, "seed")),
        .parent_digest = json_string_value(json_object_get(job, "parent_digest")),
        .checkpoint = json_string_value(json_object_get(job, "checkpoint")),
        .checkpoint_seconds = CHECKPOINT_SECONDS,
        .memory_bytes =
            (uint64_t)json_integer_value(json_object_get(json_object_get(job, "limits"), "memory_bytes"))};
    _cleanup_(samples_done) struct samples samples = {0};
    json_t *steps = NULL, *verdicts = json_array();
    int r = job_string(job, "input", &c.input, err);

    if (r == 0)
        r = job_string(job, "output", &c.output, err);
    if (r == 0)
        r = job_steps(job, &steps, err);
    if (r == 0 && json_is_string(json_object_get(job, "pack"))) {
        r = open_samples(job, c.input, steps, &samples, verdicts, err);
        c.samples = &samples;
    }
    if (r == 0) {
        c.steps = steps;
        r = compress_job_run(&c, io, ret, err);
    }
    if (r == 0) {
        take_warnings(json_object_get(*ret, "steps"), verdicts);
        json_object_set(*ret, "verdicts", verdicts);
    }
    json_decref(steps);
    json_decref(verdicts);
    return r;
}

const struct job_kind job_compress = {.name = "compress", .run = run_compress};
