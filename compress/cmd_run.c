/* bonsai-worker run: a recipe on a model file, offline. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "compress/command.h"
#include "compress/compress_job.h"
#include "compress/offline_data.h"
#include "compress/recipe.h"

struct run {
    const char *recipe, *model, *data, *preprocess, *checkpoint, *output;
    long threads, seed, checkpoint_seconds;
};

static int parse(int argc, char **argv, struct run *r, struct error *err) {
    static const struct option options[] = {
        {"checkpoint", required_argument, NULL, 'c'},
        {"checkpoint-seconds", required_argument, NULL, 'e'},
        {"data", required_argument, NULL, 'd'},
        {"model", required_argument, NULL, 'm'},
        {"preprocess", required_argument, NULL, 'p'},
        {"seed", required_argument, NULL, 's'},
        {"threads", required_argument, NULL, 't'},
        {0},
    };
    int c, e = 0;

    while (e == 0 && (c = getopt_long(argc, argv, "o:", options, NULL)) != -1)
        switch (c) {
        case 'c': r->checkpoint = optarg; break;
        case 'd': r->data = optarg; break;
        case 'e':
            e = command_number("checkpoint-seconds", optarg, 0, 86400, &r->checkpoint_seconds, err);
            break;
        case 'm': r->model = optarg; break;
        case 'o': r->output = optarg; break;
        case 'p': r->preprocess = optarg; break;
        case 's': e = command_number("seed", optarg, 0, INT32_MAX, &r->seed, err); break;
        case 't': e = command_number("threads", optarg, 1, 256, &r->threads, err); break;
        default: return error_set(err, -EINVAL, "unknown option");
        }
    if (e == 0 && (optind != argc - 1 || !r->model || !r->output))
        return error_set(err, -EINVAL, "RECIPE.json, --model and -o are needed");
    r->recipe = e == 0 ? argv[optind] : NULL;
    return e;
}

/* A recipe file holds the list of steps, or an object with `steps`. */
static json_t *steps_of(json_t *file) {
    return json_is_object(file) ? json_object_get(file, "steps") : file;
}

static int open_samples(const struct run *a, const json_t *steps, struct samples *ret, struct error *err) {
    _cleanup_(recipe_freep) struct recipe *recipe = NULL;
    int r = recipe_new(steps, &recipe, err);

    return r < 0 ? r : offline_samples(a->model, a->data, a->preprocess, recipe_samples(recipe), ret, err);
}

static int run_recipe(const struct run *a, struct job_io *io, json_t **ret, struct error *err) {
    _cleanup_(samples_done) struct samples samples = {0};
    struct compress_job job = {.input = a->model,
        .output = a->output,
        .seed = (uint64_t)a->seed,
        .checkpoint = a->checkpoint,
        .checkpoint_seconds = (int)a->checkpoint_seconds};
    json_t *file = NULL;
    int r = command_read_json(a->recipe, &file, err);

    if (r == 0 && a->data)
        r = open_samples(a, steps_of(file), &samples, err);
    if (r == 0) {
        job.steps = steps_of(file);
        job.samples = a->data ? &samples : NULL;
        r = compress_job_run(&job, io, ret, err);
    }
    json_decref(file);
    return r;
}

static int run(int argc, char **argv) {
    struct run a = {.threads = 1, .checkpoint_seconds = CHECKPOINT_SECONDS};
    struct error err = {0};
    json_t *result = NULL;
    struct job_io io;

    if (parse(argc, argv, &a, &err) < 0) {
        fprintf(stderr, "bonsai-worker run: %s\n", err.text);
        return command_usage(&command_run);
    }
    job_io_init(&io, (unsigned)a.threads);
    if (run_recipe(&a, &io, &result, &err) < 0)
        return job_io_fail(&err);
    return job_io_done(result);
}

const struct command command_run = {
    .name = "run",
    .arguments =
        "RECIPE.json --model IN.onnx [--data PATH] [--preprocess FILE.json] [--threads N] [--seed N] "
        "[--checkpoint DIR [--checkpoint-seconds N]] -o OUT.onnx",
    .summary = "Applies a recipe to a model; PATH is a data set's archive, or an .npy of ready inputs.",
    .run = run,
};
