/* bonsai-worker sensitivity: what each layer of a network bears, offline. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>

#include "base/cleanup.h"
#include "compress/command.h"
#include "compress/offline_data.h"
#include "compress/sensitivity_job.h"

struct arguments {
    const char *spec, *model, *data, *preprocess, *checkpoint;
    long threads, seed, samples, checkpoint_seconds;
    bool is_uncached;
};

static int parse(int argc, char **argv, struct arguments *a, struct error *err) {
    static const struct option options[] = {
        {"checkpoint", required_argument, NULL, 'c'},
        {"checkpoint-seconds", required_argument, NULL, 'e'},
        {"data", required_argument, NULL, 'd'},
        {"model", required_argument, NULL, 'm'},
        {"no-cache", no_argument, NULL, 'u'},
        {"preprocess", required_argument, NULL, 'p'},
        {"samples", required_argument, NULL, 'n'},
        {"seed", required_argument, NULL, 's'},
        {"threads", required_argument, NULL, 't'},
        {0},
    };
    int c, r = 0;

    while (r == 0 && (c = getopt_long(argc, argv, "", options, NULL)) != -1)
        switch (c) {
        case 'c': a->checkpoint = optarg; break;
        case 'd': a->data = optarg; break;
        case 'e':
            r = command_number("checkpoint-seconds", optarg, 0, 86400, &a->checkpoint_seconds, err);
            break;
        case 'm': a->model = optarg; break;
        case 'n': r = command_number("samples", optarg, 1, 100000, &a->samples, err); break;
        case 'p': a->preprocess = optarg; break;
        case 's': r = command_number("seed", optarg, 0, INT32_MAX, &a->seed, err); break;
        case 't': r = command_number("threads", optarg, 1, 256, &a->threads, err); break;
        case 'u': a->is_uncached = true; break;
        default: return error_set(err, -EINVAL, "unknown option");
        }
    if (r == 0 && (optind != argc - 1 || !a->model || !a->data))
        return error_set(err, -EINVAL, "SPEC.json, --model and --data are needed");
    a->spec = r == 0 ? argv[optind] : NULL;
    return r;
}

/* A file with a list of steps, or the whole specification. */
static int read_spec(const struct arguments *a, struct sensitivity_spec *ret, struct error *err) {
    json_auto_t *file = NULL, *spec = NULL;
    int r = command_read_json(a->spec, &file, err);

    if (r < 0)
        return r;
    spec = json_is_array(file) ? json_pack("{s:O}", "methods", file) : json_incref(file);
    if (a->seed >= 0)
        json_object_set_new(spec, "seed", json_integer(a->seed));
    if (a->samples > 0)
        json_object_set_new(spec, "samples", json_integer(a->samples));
    return sensitivity_spec_read(spec, ret, err);
}

static int measure(const struct arguments *a, struct job_io *io, json_t **ret, struct error *err) {
    _cleanup_(sensitivity_spec_done) struct sensitivity_spec spec = {0};
    _cleanup_(samples_done) struct samples samples = {0};
    struct sensitivity_job job = {.spec = &spec,
        .input = a->model,
        .samples = &samples,
        .checkpoint = a->checkpoint,
        .checkpoint_seconds = (int)a->checkpoint_seconds,
        .is_uncached = a->is_uncached};
    int r = read_spec(a, &spec, err);

    if (r == 0)
        r = offline_samples(a->model, a->data, a->preprocess, sensitivity_spec_samples(&spec), &samples, err);
    return r < 0 ? r : sensitivity_job_run(&job, io, ret, err);
}

static int run(int argc, char **argv) {
    struct arguments a = {.threads = 1, .seed = -1, .checkpoint_seconds = 1};
    struct error err = {0};
    json_t *result = NULL;
    struct job_io io;

    if (parse(argc, argv, &a, &err) < 0) {
        fprintf(stderr, "bonsai-worker sensitivity: %s\n", err.text);
        return command_usage(&command_sensitivity);
    }
    job_io_init(&io, (unsigned)a.threads);
    if (measure(&a, &io, &result, &err) < 0)
        return job_io_fail(&err);
    return job_io_done(result);
}

const struct command command_sensitivity = {
    .name = "sensitivity",
    .arguments =
        "SPEC.json --model IN.onnx --data PATH [--preprocess FILE.json] [--samples N] [--seed N] [--threads N] "
        "[--no-cache] [--checkpoint DIR [--checkpoint-seconds N]]",
    .summary =
        "Measures what each layer bears: SPEC.json is {\"methods\": [step, …], \"samples\": 256} or the list.",
    .run = run,
};
