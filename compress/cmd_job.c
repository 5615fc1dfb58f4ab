/* bonsai-worker job: one job from standard input, JSON lines out; how the daemon runs everything foreign. */
#include <errno.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "compress/check.h"
#include "compress/command.h"
#include "compress/compress_job.h"
#include "compress/job_kinds.h"
#include "compress/recipe.h"
#include "compress/sandbox.h"

/* sorted by name */
static const struct job_kind *const kinds[] = {
    &job_check,
    &job_compress,
    &job_dataset,
    &job_evaluate,
    &job_methods,
    &job_plan,
    &job_sensitivity,
    &job_train,
};

static const struct job_kind *kind_of(const json_t *job) {
    const char *name = json_string_value(json_object_get(job, "kind"));

    for (size_t i = 0; name && i < sizeof(kinds) / sizeof(kinds[0]); i++)
        if (!strcmp(kinds[i]->name, name))
            return kinds[i];
    return NULL;
}

#define MAX_PATHS 64

/* Paths of the job's members: those it reads, the folder of what it writes and those for checkpoints and
 * decoded pictures. */
struct paths {
    const char *read[MAX_PATHS + 1], *write[MAX_PATHS + 1];
    size_t n_read, n_write;
    char folder[4096];
};

static void collect_paths(const json_t *job, struct paths *p) {
    static const char *const reads[] = {"input", "pack", "old_pack"};
    const char *output = json_string_value(json_object_get(job, "output"));
    const char *checkpoint = json_string_value(json_object_get(job, "checkpoint"));
    const char *cache = job_cache(job).folder;
    const json_t *variants = json_object_get(job, "variants");

    for (size_t i = 0; i < sizeof(reads) / sizeof(reads[0]); i++) {
        const char *s = json_string_value(json_object_get(job, reads[i]));

        if (s)
            p->read[p->n_read++] = s;
    }
    for (size_t i = 0; i < json_array_size(variants) && p->n_read < MAX_PATHS; i++) {
        const char *s = json_string_value(json_object_get(json_array_get(variants, i), "path"));

        if (s)
            p->read[p->n_read++] = s;
    }
    if (output && strlen(output) < sizeof(p->folder)) {
        strcpy(p->folder, output);
        p->write[p->n_write++] = dirname(p->folder);
    }
    if (checkpoint)
        p->write[p->n_write++] = checkpoint;
    if (cache)
        p->write[p->n_write++] = cache;
}

static int run_job(json_t *job, struct job_io *io, json_t **ret, struct error *err) {
    const struct job_kind *kind = kind_of(job);
    const json_t *limit = json_object_get(json_object_get(job, "limits"), "memory_bytes");
    struct paths paths = {0};
    int r;

    if (!kind)
        return error_set(err, -EOPNOTSUPP, "this worker has no jobs of that kind");
    collect_paths(job, &paths);
    r = job_io_follow(io, job, err);
    if (r == 0)
        r = sandbox_limit_memory((uint64_t)json_integer_value(limit), err);
    if (r == 0)
        r = sandbox_enter(paths.read, paths.write, err);
    if (r == 0)
        r = job_io_listen(io, err);
    if (r == 0)
        r = kind->run(job, io, ret, err);
    if (r == -ENOMEM && json_is_integer(limit) && !strstr(err->text, "bytes"))
        error_prefix(err, r, "within the job's %lld bytes (limits.memory_bytes)",
            (long long)json_integer_value(limit));
    return r;
}

static int run(int argc, char **argv) {
    struct error err = {0};
    json_t *job = NULL, *result = NULL;
    struct job_io io;
    int r;

    (void)argv;
    if (argc != 1)
        return command_usage(&command_job);
    job_io_init(&io, 1);
    r = sandbox_enter_early(&err);
    if (r == 0)
        r = job_io_read(&job, &err);
    if (r == 0)
        r = run_job(job, &io, &result, &err);
    json_decref(job);
    return r < 0 ? job_io_fail(&err) : job_io_done(result);
}

const struct command command_job = {
    .name = "job",
    .arguments = "",
    .summary = "Runs the job that one JSON line on standard input describes; for the daemon.",
    .run = run,
};
