/* The kind of job that measures what each layer bears, and its dry run. */
#include <fcntl.h>

#include "base/cleanup.h"
#include "compress/compress_job.h"
#include "compress/job_kinds.h"
#include "compress/sensitivity_job.h"
#include "engine/onnx.h"

static int read_job(
    const json_t *job, struct sensitivity_spec *spec, struct sensitivity_job *ret, struct error *err) {
    int r = sensitivity_spec_read(json_object_get(job, "sensitivity"), spec, err);

    *ret = (struct sensitivity_job){.spec = spec,
        .checkpoint = json_string_value(json_object_get(job, "checkpoint")),
        .checkpoint_seconds = 1,
        .memory_bytes =
            (uint64_t)json_integer_value(json_object_get(json_object_get(job, "limits"), "memory_bytes"))};
    return r < 0 ? r : job_string(job, "input", &ret->input, err);
}

int job_sensitivity_plan(const json_t *job, json_t **ret, struct error *err) {
    _cleanup_(sensitivity_spec_done) struct sensitivity_spec spec = {0};
    struct sensitivity_job s;
    int r = read_job(job, &spec, &s, err);

    return r < 0 ? r : sensitivity_job_plan(&s, ret, err);
}

static int open_samples(
    const json_t *job, const struct sensitivity_job *s, struct samples *ret, struct error *err) {
    _cleanup_(closep) int fd = open(s->input, O_RDONLY | O_CLOEXEC);
    _cleanup_(graph_freep) struct graph *g = NULL;
    bool is_test = false;
    int r = fd < 0 ? error_errno(err, "the model file cannot be opened") : onnx_read_fd(fd, &g, err);

    if (r == 0)
        r = job_samples_open(job, g, (uint64_t)sensitivity_spec_samples(s->spec), ret, &is_test, err);
    if (r == 0 && is_test)
        job_io_log("warning", "the data set has no split 'train': measured on 'test'");
    return r;
}

static int run_sensitivity(const json_t *job, struct job_io *io, json_t **ret, struct error *err) {
    _cleanup_(sensitivity_spec_done) struct sensitivity_spec spec = {0};
    _cleanup_(samples_done) struct samples samples = {0};
    struct sensitivity_job s;
    int r = read_job(job, &spec, &s, err);

    if (r == 0)
        r = open_samples(job, &s, &samples, err);
    s.samples = &samples;
    return r < 0 ? r : sensitivity_job_run(&s, io, ret, err);
}

const struct job_kind job_sensitivity = {.name = "sensitivity", .run = run_sensitivity};
