#include "compress/compress_job.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "compress/halves.h"
#include "compress/recipe.h"
#include "compress/variant_file.h"
#include "engine/onnx.h"

static void work_done(struct work *w) {
    graph_free(w->graph);
}

int compress_job_run(const struct compress_job *job, struct job_io *io, json_t **ret, struct error *err) {
    _cleanup_(recipe_freep) struct recipe *recipe = NULL;
    _cleanup_(work_done) struct work work = {.samples = job->samples,
        .progress = &io->progress,
        .seed = job->seed,
        .checkpoint = job->checkpoint,
        .checkpoint_seconds = job->checkpoint_seconds,
        .memory_bytes = job->memory_bytes};
    _cleanup_(closep) int fd = open(job->input, O_RDONLY | O_CLOEXEC);
    _cleanup_(halves_done) struct halves halves = {0};
    json_t *steps = NULL, *layers = NULL;
    int r;

    if (fd < 0)
        return error_errno(err, "the model file cannot be opened");
    if (job->checkpoint && mkdir(job->checkpoint, 0700) < 0 && errno != EEXIST)
        return error_errno(err, "the folder for checkpoints");
    r = recipe_new(job->steps, &recipe, err);
    if (r == 0)
        r = onnx_read_fd(fd, &work.graph, err);
    if (r == 0)
        r = halves_widen(work.graph, &halves, err);
    if (r == 0)
        r = recipe_run(recipe, &work, io, &steps, err);
    if (r == 0)
        r = halves_restore(work.graph, &halves, err);
    if (r == 0)
        r = variant_describe(work.graph, job->steps, job->parent_digest, err);
    if (r == 0)
        r = variant_write(work.graph, job->output, err);
    if (r == 0 && !(layers = variant_layers(work.graph, err)))
        r = error_oom(err);
    if (r < 0) {
        json_decref(steps);
        return r;
    }
    *ret = json_pack("{s:o, s:o}", "layers", layers, "steps", steps);
    return *ret ? 0 : error_oom(err);
}
