/* bonsai-worker: what touches foreign models, archives and training data, one process a job. The daemon runs
 * it for every upload and job; an operator runs it by hand. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "compress/command.h"

/* sorted */
static const struct command *const commands[] = {
    &command_bench,
    &command_check,
    &command_evaluate,
    &command_infer,
    &command_job,
    &command_methods,
    &command_plan,
    &command_run,
    &command_sensitivity,
    &command_train,
};

static void usage(FILE *f) {
    fprintf(f, "usage: bonsai-worker COMMAND …\n\n");
    for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
        fprintf(f, "  %-11s %s\n              %s\n", commands[i]->name, commands[i]->arguments,
            commands[i]->summary);
    fprintf(f, "\nExit status: 0 done, 1 failed (the reason as JSON on standard output), 2 wrong usage.\n");
}

/* libgomp and OpenBLAS read their variables when they are loaded: spinning threads ruin a shared machine, so
 * the program starts again with the right ones when they are missing. */
static void ensure_passive_openmp(char **argv) {
    if (getenv("OMP_WAIT_POLICY") && getenv("OPENBLAS_NUM_THREADS"))
        return;
    setenv("OMP_WAIT_POLICY", "passive", 0);
    setenv("OMP_NUM_THREADS", "1", 0);
    setenv("OPENBLAS_NUM_THREADS", "1", 0);
    execv("/proc/self/exe", argv);
}

int main(int argc, char **argv) {
    ensure_passive_openmp(argv);
    if (argc < 2) {
        usage(stderr);
        return EXIT_USAGE;
    }
    if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "help")) {
        usage(stdout);
        return EXIT_SUCCESS;
    }
    for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
        if (strcmp(argv[1], commands[i]->name))
            continue;
        if (argc > 2 && !strcmp(argv[2], "--help")) {
            printf("usage: bonsai-worker %s %s\n%s\n", commands[i]->name, commands[i]->arguments,
                commands[i]->summary);
            if (commands[i]->help)
                commands[i]->help(stdout);
            return EXIT_SUCCESS;
        }
        return commands[i]->run(argc - 1, argv + 1);
    }
    fprintf(stderr, "bonsai-worker: there is no command '%s'; see bonsai-worker --help\n", argv[1]);
    return EXIT_USAGE;
}
