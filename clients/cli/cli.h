/* clients/cli/: the program `bonsai`, which talks HTTP and nothing else (api.md).
 *   main.c      the table of commands, global options, exit codes
 *   http.[ch]   one request with libcurl; the server's error as one sentence
 *   table.[ch]  aligned tables from lists of JSON objects
 *   body.[ch]   request bodies made from files
 *   document.c  documents fetched and sent, files uploaded, lists shown
 *   models.c datasets.c jobs.c watch.c variants.c infer.c   the commands, each a row of a table
 * Uses base/, libcurl and jansson. Start at main.c. */
#ifndef CLIENTS_CLI_CLI_H
#define CLIENTS_CLI_CLI_H

#include <jansson.h>
#include <stdbool.h>

#include "base/error.h"
#include "clients/cli/http.h"
#include "clients/cli/table.h"

/* Exit statuses, as --help shows them. */
enum {
    EXIT_REFUSED = 1,   /* the server answered with an error */
    EXIT_USAGE = 2,     /* the command line or a local file is wrong */
    EXIT_NO_ANSWER = 3, /* the server cannot be reached or broke off */
    EXIT_JOB = 4,       /* the job that was watched failed or was cancelled */
};

struct cli {
    struct http *http;
    bool is_json; /* --json: the server's documents as they came */
};

#define CLI_MAX_ARGS    4
#define CLI_MAX_OPTIONS 12

struct cli_args {
    const char *arg[CLI_MAX_ARGS]; /* NULL past the last */
    int n;
    const char *option[CLI_MAX_OPTIONS]; /* by the option's row; a flag that stands there: "" */
};

struct cli_option {
    const char *name;  /* "--steps" */
    const char *value; /* what follows it, for --help; NULL: a flag */
    const char *doc;
};

struct cli_command {
    const char *name, *args, *summary;
    int min_args, max_args;
    const struct cli_option *options;
    size_t n_options;
    /* Errors: -EPROTO the server refused, -ECONNREFUSED no answer, -ECANCELED the job did not succeed, all
     * others are the caller's. */
    int (*run)(struct cli *c, const struct cli_args *a, struct error *err);
};

/* Ended by a row without a name. */
extern const struct cli_command models_commands[], datasets_commands[], jobs_commands[], variants_commands[],
    infer_commands[];

/* GET of a document. New reference. Prints it and leaves *ret NULL with --json. */
int cli_get(struct cli *c, const char *path, json_t **ret, struct error *err);

/* Any other verb with a JSON body (borrowed, NULL: none); the reply as above, NULL when there is none. */
int cli_send(
    struct cli *c, const char *method, const char *path, const json_t *body, json_t **ret, struct error *err);

/* PUT of a local file ("-": standard input), streamed. */
int cli_upload(struct cli *c, const char *path, const char *file, json_t **ret, struct error *err);

/* GET of a list, shown as a table. */
int cli_list(struct cli *c, const char *path, const struct column *columns, size_t n, struct error *err);

/* Follows a job to its end (watch.c). 0: succeeded; -ECANCELED. */
int cli_watch(struct cli *c, const char *job, struct error *err);

#endif
