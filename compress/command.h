/* The commands of bonsai-worker: one row each. Results go to standard output as JSON, one document (or JSON
 * lines for run, train and job); an error is {"error": sentence, "code": code} there and exit status 1, wrong
 * usage exit 2. */
#ifndef COMPRESS_COMMAND_H
#define COMPRESS_COMMAND_H

#include <jansson.h>
#include <stdio.h>

#include "base/error.h"

#define EXIT_USAGE 2

struct command {
    const char *name;
    const char *arguments; /* as usage shows them */
    const char *summary;
    void (*help)(FILE *f); /* more, for --help; NULL: nothing */
    /* argv[0] is the command's name. Returns the exit status. */
    int (*run)(int argc, char **argv);
};

extern const struct command command_bench, command_check, command_evaluate, command_infer, command_job,
    command_methods, command_plan, command_run, command_sensitivity, command_train;

/* Prints the document and a newline; takes the reference. Returns an exit status. */
int command_print(json_t *j);
int command_fail(const struct error *err);
int command_usage(const struct command *c);

/* Whole file into memory (free it); at most `max` bytes. */
int command_read_file(const char *path, size_t max, void **ret, size_t *ret_size, struct error *err);
int command_read_json(const char *path, json_t **ret, struct error *err);

/* A number with bounds, from an option. */
int command_number(const char *option, const char *text, long min, long max, long *ret, struct error *err);

#endif
