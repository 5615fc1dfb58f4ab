/* bonsai-worker train: a network from pictures, offline. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "compress/command.h"
#include "compress/compress_job.h"
#include "compress/offline_data.h"
#include "compress/train_job.h"
#include "compress/train_spec.h"

struct train {
    const char *spec, *data, *test, *preprocess, *checkpoint, *output;
    long threads, checkpoint_seconds, seed; /* seed -1: as the spec says */
    double minutes;                         /* -1: as the spec says */
};

static int read_minutes(const char *text, double *ret, struct error *err) {
    char *end;
    double v = strtod(text, &end);

    if (end == text || *end || !(v > 0 && v <= 100000))
        return error_set(err, -EINVAL, "--minutes: '%s' is not a number above 0", text);
    *ret = v;
    return 0;
}

static int parse(int argc, char **argv, struct train *t, struct error *err) {
    static const struct option options[] = {
        {"checkpoint", required_argument, NULL, 'c'},
        {"checkpoint-seconds", required_argument, NULL, 'k'},
        {"data", required_argument, NULL, 'd'},
        {"minutes", required_argument, NULL, 'm'},
        {"preprocess", required_argument, NULL, 'p'},
        {"seed", required_argument, NULL, 's'},
        {"test", required_argument, NULL, 'e'},
        {"threads", required_argument, NULL, 't'},
        {0},
    };
    int c, r = 0;

    while (r == 0 && (c = getopt_long(argc, argv, "o:", options, NULL)) != -1)
        switch (c) {
        case 'c': t->checkpoint = optarg; break;
        case 'd': t->data = optarg; break;
        case 'e': t->test = optarg; break;
        case 'k':
            r = command_number("checkpoint-seconds", optarg, 0, 86400, &t->checkpoint_seconds, err);
            break;
        case 'm': r = read_minutes(optarg, &t->minutes, err); break;
        case 'o': t->output = optarg; break;
        case 'p': t->preprocess = optarg; break;
        case 's': r = command_number("seed", optarg, 0, INT32_MAX, &t->seed, err); break;
        case 't': r = command_number("threads", optarg, 1, 256, &t->threads, err); break;
        default: return error_set(err, -EINVAL, "unknown option");
        }
    if (r == 0 && (optind != argc - 1 || !t->data || !t->output))
        return error_set(err, -EINVAL, "SPEC.json, --data and -o are needed");
    t->spec = r == 0 ? argv[optind] : NULL;
    return r;
}

/* The path of `from`; the model's metadata gets its last part only. */
static int take_from(json_t *spec, char **ret, struct error *err) {
    const char *from = json_string_value(json_object_get(spec, "from")), *slash;

    if (!from)
        return 0;
    *ret = strdup(from);
    if (!*ret)
        return error_oom(err);
    slash = strrchr(*ret, '/');
    json_object_set_new(spec, "from", json_string(slash ? slash + 1 : *ret));
    return 0;
}

static int train(const struct train *t, struct job_io *io, json_t **ret, struct error *err) {
    _cleanup_(pack_freep) struct pack *pack = NULL;
    _cleanup_(freep) char *from = NULL;
    json_auto_t *spec = NULL, *preprocess = NULL, *labels = NULL;
    struct train_job job = {.output = t->output,
        .checkpoint = t->checkpoint,
        .checkpoint_seconds = (int)t->checkpoint_seconds,
        .cache = {.budget = OFFLINE_CACHE_BYTES}};
    int r = command_read_json(t->spec, &spec, err);

    if (r == 0 && t->seed >= 0)
        json_object_set_new(spec, "seed", json_integer(t->seed));
    if (r == 0 && t->minutes >= 0)
        json_object_set_new(spec, "minutes", json_real(t->minutes));
    if (r == 0)
        r = offline_preprocess(t->preprocess, &preprocess, &labels, err);
    if (r == 0)
        r = take_from(spec, &from, err);
    if (r == 0)
        r = offline_splits(t->data, t->test, &pack, err);
    if (r < 0)
        return r;
    job.spec = spec;
    job.pack = pack;
    job.input = from;
    job.preprocess = preprocess;
    job.labels = labels;
    return train_job_run(&job, io, ret, err);
}

static int run(int argc, char **argv) {
    struct train t = {.threads = 1, .seed = -1, .minutes = -1, .checkpoint_seconds = CHECKPOINT_SECONDS};
    struct error err = {0};
    json_t *result = NULL;
    struct job_io io;

    if (parse(argc, argv, &t, &err) < 0) {
        fprintf(stderr, "bonsai-worker train: %s\n", err.text);
        return command_usage(&command_train);
    }
    job_io_init(&io, (unsigned)t.threads);
    if (train(&t, &io, &result, &err) < 0)
        return job_io_fail(&err);
    return job_io_done(result);
}

static void print_options(FILE *f) {
    for (size_t i = 0; i < learn_table.n; i++) {
        const struct param *p = &learn_table.param[i];

        fprintf(f, "  %-16s %s%s%s%s\n", p->name, p->doc, p->dflt ? " (" : "", p->dflt ? p->dflt : "",
            p->dflt ? ")" : "");
    }
}

static void help(FILE *f) {
    fprintf(f,
        "\nSPEC.json: {\"network\": {\"zoo\": NAME, \"width\": 1, \"depth\": 1, \"size\": 0}, OPTION: VALUE, …},\n"
        "or {\"from\": \"FILE.onnx\", …} to go on with a network; also \"minutes\" and \"seed\".\n"
        "The model gets the classes as labels, and its preprocessing, in its metadata.\n\nNetworks, with their own "
        "defaults:\n");
    for (size_t i = 0; i < zoo_table_size; i++)
        fprintf(f, "  %-16s %s\n  %-16s %s\n", zoo_table[i]->name, zoo_table[i]->summary, "",
            zoo_table[i]->defaults);
    fprintf(f, "\nOptions (default):\n");
    print_options(f);
}

const struct command command_train = {
    .name = "train",
    .arguments =
        "SPEC.json --data PATH [--test PATH] [--preprocess FILE.json] [--threads N] [--seed N] [--minutes M] "
        "[--checkpoint DIR [--checkpoint-seconds N]] -o OUT.onnx",
    .summary =
        "Trains a network on an archive's pictures, its split 'train', and judges it on its split 'test' or on all "
        "of --test.",
    .help = help,
    .run = run,
};
