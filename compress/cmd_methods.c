/* bonsai-worker methods: what the API shows as /api/v1/methods and /api/v1/recipes. */
#include "compress/command.h"
#include "compress/job_kinds.h"

static int run(int argc, char **argv) {
    (void)argv;
    if (argc != 1)
        return command_usage(&command_methods);
    return command_print(methods_json());
}

const struct command command_methods = {
    .name = "methods",
    .arguments = "",
    .summary =
        "Prints every method with its options as JSON Schema, the networks of the zoo, and the named recipes.",
    .run = run,
};
