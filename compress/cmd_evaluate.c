/* bonsai-worker evaluate: a model's accuracy on labelled data. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "compress/command.h"
#include "compress/evaluate.h"
#include "compress/model_props.h"
#include "compress/offline_data.h"

struct options {
    const char *model, *data, *split, *preprocess;
    long threads;
};

static int parse(int argc, char **argv, struct options *o, struct error *err) {
    static const struct option options[] = {
        {"data", required_argument, NULL, 'd'},
        {"preprocess", required_argument, NULL, 'p'},
        {"split", required_argument, NULL, 's'},
        {"threads", required_argument, NULL, 't'},
        {0},
    };
    int c, r = 0;

    while (r == 0 && (c = getopt_long(argc, argv, "", options, NULL)) != -1)
        switch (c) {
        case 'd': o->data = optarg; break;
        case 'p': o->preprocess = optarg; break;
        case 's': o->split = optarg; break;
        case 't': r = command_number("threads", optarg, 1, 256, &o->threads, err); break;
        default: return error_set(err, -EINVAL, "unknown option");
        }
    if (r == 0 && (optind != argc - 1 || !o->data))
        return error_set(err, -EINVAL, "FILE and --data are needed");
    o->model = r == 0 ? argv[optind] : NULL;
    return r;
}

/* An archive without splits of its own, or without the wanted one, is judged whole. */
static int open_data(const struct options *o, struct pack **ret, struct error *err) {
    bool is_divided = false;
    int r = offline_pack(o->data, NULL, ret, &is_divided, err);

    if (r < 0 || (!is_divided && pack_find_split(*ret, o->split) >= 0))
        return r;
    *ret = pack_free(*ret);
    return offline_pack(o->data, o->split, ret, NULL, err);
}

static int run_evaluation(const struct options *o, json_t **ret, struct error *err) {
    _cleanup_(evaluation_done) struct evaluation e = {0};
    _cleanup_(session_done) struct session s = {0};
    _cleanup_(pack_freep) struct pack *pack = NULL;
    _cleanup_(feed_done) struct feed feed = {0};
    json_auto_t *preprocess = NULL, *labels = NULL;
    const struct graph *g;
    double start;
    int r = offline_preprocess(o->preprocess, &preprocess, &labels, err);

    if (r == 0)
        r = session_open_file(
            o->model, &(struct net_options){.float_io = true}, (unsigned)o->threads, &s, err);
    if (r == 0)
        r = open_data(o, &pack, err);
    if (r < 0)
        return r;
    g = net_graph(s.net);
    if (g->n_inputs != 1)
        return error_code(err, -EBADMSG, "not_a_classifier", "the model has %zu inputs", g->n_inputs);
    if (!preprocess) /* as the file says of itself */
        model_props_read(g, &labels, &preprocess);
    r = feed_open(pack, o->split, &g->values[g->inputs[0]], preprocess, 0, &feed, err);
    start = clock_now_us();
    if (r == 0)
        r = evaluate(&s, &feed, labels, NULL, &e, err);
    if (r < 0)
        return r;
    *ret = evaluation_json(&e, &feed, NULL, NULL);
    json_object_set_new(*ret, "images_per_second", json_real((double)e.n * 1e6 / (clock_now_us() - start)));
    return 0;
}

static int run(int argc, char **argv) {
    struct options o = {.split = "test", .threads = 1};
    struct error err = {0};
    json_t *result = NULL;

    if (parse(argc, argv, &o, &err) < 0) {
        fprintf(stderr, "bonsai-worker evaluate: %s\n", err.text);
        return command_usage(&command_evaluate);
    }
    return run_evaluation(&o, &result, &err) < 0 ? command_fail(&err) : command_print(result);
}

const struct command command_evaluate = {
    .name = "evaluate",
    .arguments = "FILE --data PATH [--split test] [--preprocess FILE.json] [--threads N]",
    .summary =
        "Accuracy of a model on an archive's pictures; FILE.json is a preprocess, or a card with labels too, in place "
        "of what the model's metadata says.",
    .run = run,
};
