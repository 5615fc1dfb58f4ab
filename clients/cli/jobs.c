#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "clients/cli/body.h"
#include "clients/cli/cli.h"

static const struct column columns[] = {
    {"JOB", "id", CELL_TEXT},
    {"KIND", "kind", CELL_TEXT},
    {"MODEL", "model", CELL_TEXT},
    {"VARIANT", "variant", CELL_TEXT},
    {"STATE", "state", CELL_TEXT},
    {"DONE", "progress.fraction", CELL_PERCENT},
    {"CREATED", "created", CELL_TIME},
};

static int run_jobs(struct cli *c, const struct cli_args *a, struct error *err) {
    (void)a;
    return cli_list(c, "/api/v1/jobs?limit=1000", columns, sizeof(columns) / sizeof(columns[0]), err);
}

static int run_watch(struct cli *c, const struct cli_args *a, struct error *err) {
    return cli_watch(c, a->arg[0], err);
}

/* Sends the job and, when asked, follows it. With --json and --watch both documents are printed. */
static int submit(struct cli *c, const json_t *job, bool is_dry, bool is_watched, struct error *err) {
    _cleanup_(json_decrefp) json_t *reply = NULL;
    bool was_json = c->is_json;
    const char *id;
    int r;

    c->is_json = false;
    r = cli_send(c, "POST", is_dry ? "/api/v1/jobs?dry_run=true" : "/api/v1/jobs", job, &reply, err);
    c->is_json = was_json;
    if (r < 0)
        return r;
    id = json_string_value(json_object_get(reply, "id"));
    if (c->is_json || is_dry) {
        json_dumpf(reply, stdout, is_dry && !c->is_json ? JSON_INDENT(2) : JSON_COMPACT);
        putchar('\n');
    } else {
        printf("%s\n", id ? id : "-");
    }
    fflush(stdout);
    return is_watched && id && !is_dry ? cli_watch(c, id, err) : 0;
}

/* A number of the command line into the body. */
static int set_integer(json_t *body, const char *key, const char *text, struct error *err) {
    char *end;
    long long v;

    if (!text)
        return 0;
    errno = 0;
    v = strtoll(text, &end, 10);
    if (errno || *end || end == text)
        return error_set(err, -EINVAL, "--%s: '%s' is not a whole number", key, text);
    json_object_set_new(body, key, json_integer(v));
    return 0;
}

static void set_string(json_t *body, const char *key, const char *text) {
    if (text)
        json_object_set_new(body, key, json_string(text));
}

enum { STEPS, RECIPE, DATASET, AS, FROM, SEED, NO_EVALUATE, DRY_RUN, WATCH };
static const struct cli_option compress_options[] = {
    {"--steps", "JSON", "list of steps, or a file with one"},
    {"--recipe", "NAME", "a recipe of the server, in place of --steps"},
    {"--dataset", "NAME", "data to calibrate and to judge with"},
    {"--as", "VARIANT", "name of the result"},
    {"--from", "VARIANT", "what is compressed (original)"},
    {"--seed", "N", "start of the random numbers (0)"},
    {"--no-evaluate", NULL, "do not measure the result's accuracy and latency"},
    {"--dry-run", NULL, "show what would be done to each layer"},
    {"--watch", NULL, "follow the job to its end"},
};

static int run_compress(struct cli *c, const struct cli_args *a, struct error *err) {
    _cleanup_(json_decrefp) json_t *body = json_pack("{s:s, s:s}", "kind", "compress", "model", a->arg[0]);
    _cleanup_(json_decrefp) json_t *steps = NULL;
    int r = 0;

    if (!a->option[STEPS] == !a->option[RECIPE])
        return error_set(err, -EINVAL, "one of --steps and --recipe is needed");
    if (!a->option[AS])
        return error_set(err, -EINVAL, "--as VARIANT is needed: the name of the result");
    if (a->option[STEPS])
        r = body_json(a->option[STEPS], &steps, err);
    if (r == 0)
        r = set_integer(body, "seed", a->option[SEED], err);
    if (r < 0)
        return r;
    if (steps)
        json_object_set_new(body, "steps", TAKE(steps));
    set_string(body, "recipe", a->option[RECIPE]);
    set_string(body, "dataset", a->option[DATASET]);
    set_string(body, "variant", a->option[AS]);
    set_string(body, "from", a->option[FROM]);
    if (a->option[NO_EVALUATE])
        json_object_set_new(body, "evaluate", json_false());
    return submit(c, body, a->option[DRY_RUN] != NULL, a->option[WATCH] != NULL, err);
}

enum { NETWORK, TRAIN_FROM, TRAIN_DATASET, OPTIONS, MINUTES, TRAIN_SEED, TRAIN_DRY_RUN, TRAIN_WATCH };
static const struct cli_option train_options[] = {
    {"--network", "NAME",
        "made from nothing: one that the server lists, or JSON with zoo, width, depth, size"},
    {"--from", "MODEL", "goes on from this model, or model~variant, in place of --network"},
    {"--dataset", "NAME", "the pictures; its split 'test' judges the result"},
    {"--options", "JSON", "epochs, lr, augment and others, or a file with them"},
    {"--minutes", "M", "how long it may take, whatever the epochs"},
    {"--seed", "N", "start of the random numbers (0)"},
    {"--dry-run", NULL, "show what would be trained"},
    {"--watch", NULL, "follow the job to its end"},
};

/* A name, or the whole object. */
static int set_network(json_t *body, const char *text, struct error *err) {
    json_t *network = NULL;
    int r = 0;

    if (text && *text == '{')
        r = body_json(text, &network, err);
    else if (text)
        network = json_pack("{s:s}", "zoo", text);
    if (network)
        json_object_set_new(body, "network", network);
    return r;
}

static int set_minutes(json_t *body, const char *text, struct error *err) {
    char *end;
    double v;

    if (!text)
        return 0;
    v = strtod(text, &end);
    if (*end || end == text || !(v > 0))
        return error_set(err, -EINVAL, "--minutes: '%s' is not a number above 0", text);
    json_object_set_new(body, "minutes", json_real(v));
    return 0;
}

static int run_train(struct cli *c, const struct cli_args *a, struct error *err) {
    _cleanup_(json_decrefp) json_t *body = NULL;
    int r = 0;

    if (!a->option[NETWORK] == !a->option[TRAIN_FROM])
        return error_set(err, -EINVAL, "one of --network and --from is needed");
    if (!a->option[TRAIN_DATASET])
        return error_set(err, -EINVAL, "--dataset NAME is needed");
    if (a->option[OPTIONS])
        r = body_json(a->option[OPTIONS], &body, err);
    if (r == 0 && body && !json_is_object(body))
        r = error_set(err, -EINVAL, "--options is not a JSON object");
    if (r < 0)
        return r;
    body = body ? body : json_object();
    set_string(body, "kind", "train");
    set_string(body, "model", a->arg[0]);
    set_string(body, "dataset", a->option[TRAIN_DATASET]);
    set_string(body, "from", a->option[TRAIN_FROM]);
    r = set_network(body, a->option[NETWORK], err);
    if (r == 0)
        r = set_minutes(body, a->option[MINUTES], err);
    if (r == 0)
        r = set_integer(body, "seed", a->option[TRAIN_SEED], err);
    return r < 0 ? r : submit(c, body, a->option[TRAIN_DRY_RUN] != NULL, a->option[TRAIN_WATCH] != NULL, err);
}

enum {
    METHODS,
    SENSITIVITY_DATASET,
    SENSITIVITY_FROM,
    SENSITIVITY_SAMPLES,
    SENSITIVITY_SEED,
    SENSITIVITY_DRY_RUN,
    SENSITIVITY_WATCH
};
static const struct cli_option sensitivity_options[] = {
    {"--methods", "JSON", "list of steps, each measured by itself, or a file with one"},
    {"--dataset", "NAME", "the pictures it is measured on"},
    {"--from", "VARIANT", "what is compressed (original)"},
    {"--samples", "N", "how many pictures are looked at (256)"},
    {"--seed", "N", "start of the random numbers (0)"},
    {"--dry-run", NULL, "show which layers would be looked at"},
    {"--watch", NULL, "follow the job to its end and print the table"},
};

static int run_sensitivity(struct cli *c, const struct cli_args *a, struct error *err) {
    _cleanup_(json_decrefp) json_t *body = json_pack("{s:s, s:s}", "kind", "sensitivity", "model", a->arg[0]);
    json_t *methods = NULL;
    int r;

    if (!a->option[METHODS])
        return error_set(err, -EINVAL, "--methods JSON is needed");
    if (!a->option[SENSITIVITY_DATASET])
        return error_set(err, -EINVAL, "--dataset NAME is needed");
    r = body_json(a->option[METHODS], &methods, err);
    if (r == 0) {
        json_object_set_new(body, "methods", methods);
        r = set_integer(body, "samples", a->option[SENSITIVITY_SAMPLES], err);
    }
    if (r == 0)
        r = set_integer(body, "seed", a->option[SENSITIVITY_SEED], err);
    if (r < 0)
        return r;
    set_string(body, "dataset", a->option[SENSITIVITY_DATASET]);
    set_string(body, "from", a->option[SENSITIVITY_FROM]);
    return submit(c, body, a->option[SENSITIVITY_DRY_RUN] != NULL, a->option[SENSITIVITY_WATCH] != NULL, err);
}

enum { EVALUATE_DATASET, EVALUATE_SPLIT, EVALUATE_VARIANTS, EVALUATE_WATCH };
static const struct cli_option evaluate_options[] = {
    {"--dataset", "NAME", "labelled data"},
    {"--split", "NAME", "which part of it (test)"},
    {"--variants", "A,B", "which variants (all)"},
    {"--watch", NULL, "follow the job to its end"},
};

static int run_evaluate(struct cli *c, const struct cli_args *a, struct error *err) {
    _cleanup_(json_decrefp) json_t *body = json_pack("{s:s, s:s}", "kind", "evaluate", "model", a->arg[0]);
    const char *names = a->option[EVALUATE_VARIANTS];

    if (!a->option[EVALUATE_DATASET])
        return error_set(err, -EINVAL, "--dataset NAME is needed");
    set_string(body, "dataset", a->option[EVALUATE_DATASET]);
    set_string(body, "split", a->option[EVALUATE_SPLIT]);
    if (names) {
        json_t *list = json_array();

        for (; *names; names += strspn(names, ",")) {
            size_t size = strcspn(names, ",");

            json_array_append_new(list, json_stringn(names, size));
            names += size;
        }
        json_object_set_new(body, "variants", list);
    }
    return submit(c, body, false, a->option[EVALUATE_WATCH] != NULL, err);
}

static int run_cancel(struct cli *c, const struct cli_args *a, struct error *err) {
    _cleanup_(freep) char *path = http_path(c->http, "/api/v1/jobs/%/cancel", a->arg[0]);
    _cleanup_(json_decrefp) json_t *reply = NULL;

    return cli_send(c, "POST", path, NULL, &reply, err);
}

const struct cli_command jobs_commands[] = {
    {"compress", "MODEL", "starts a job that makes a smaller variant", 1, 1, compress_options,
        sizeof(compress_options) / sizeof(compress_options[0]), run_compress},
    {"evaluate", "MODEL", "starts a job that measures variants on labelled data", 1, 1, evaluate_options,
        sizeof(evaluate_options) / sizeof(evaluate_options[0]), run_evaluate},
    {"sensitivity", "MODEL", "starts a job that measures what each layer bears", 1, 1, sensitivity_options,
        sizeof(sensitivity_options) / sizeof(sensitivity_options[0]), run_sensitivity},
    {"train", "MODEL", "starts a job that makes a model from pictures", 1, 1, train_options,
        sizeof(train_options) / sizeof(train_options[0]), run_train},
    {"jobs", "", "lists the jobs", 0, 0, NULL, 0, run_jobs},
    {"watch", "JOB", "follows a job to its end", 1, 1, NULL, 0, run_watch},
    {"cancel", "JOB", "ends a job", 1, 1, NULL, 0, run_cancel},
    {.name = NULL},
};
