/* bonsai-worker check: the summary of an ONNX file. */
#include <stdlib.h>

#include "compress/check.h"
#include "compress/command.h"

static int run(int argc, char **argv) {
    struct error err = {0};
    json_t *summary;

    if (argc != 2)
        return command_usage(&command_check);
    if (check_model(argv[1], &summary, &err) < 0)
        return command_fail(&err);
    return command_print(summary);
}

const struct command command_check = {
    .name = "check",
    .arguments = "FILE",
    .summary = "Prints what an ONNX file holds as JSON, or why it is refused.",
    .run = run,
};
