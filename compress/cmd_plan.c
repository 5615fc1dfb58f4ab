/* bonsai-worker plan: the dry run of a job. */
#include <stdlib.h>

#include "compress/command.h"
#include "compress/job_kinds.h"

static int run(int argc, char **argv) {
    struct error err = {0};
    json_auto_t *job = NULL;
    json_t *result = NULL;
    struct job_io io;

    if (argc != 2)
        return command_usage(&command_plan);
    job_io_init(&io, 1);
    if (command_read_json(argv[1], &job, &err) < 0 || job_plan.run(job, &io, &result, &err) < 0)
        return command_fail(&err);
    return command_print(result);
}

const struct command command_plan = {
    .name = "plan",
    .arguments = "JOB.json",
    .summary = "Checks a job ({\"input\": FILE, \"steps\": […]}) and prints what it would do to each layer.",
    .run = run,
};
