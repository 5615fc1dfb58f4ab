/* The reader, and everything an upload's check does with what it accepts. */
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "engine/onnx.h"
#include "engine/onnx_read.h"
#include "engine/pass.h"
#include "engine/summary.h"
#include "tests/fuzz/fuzz.h"

static void write_away(const struct graph *g) {
    int fd = memfd_create("model", MFD_CLOEXEC);

    if (fd < 0)
        return;
    /* whatever was read can be written */
    if (onnx_write_fd(g, fd, NULL) < 0)
        abort();
    close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    _cleanup_(graph_freep) struct graph *g = NULL, *finished = NULL;
    _cleanup_(summary_freep) struct summary *s = NULL;
    struct error e = {0};

    if (onnx_parse(data, size, &g, &e) == 0)
        write_away(g);
    else if (!e.err || !e.text[0])
        abort();
    error_clear(&e);
    if (onnx_read(data, size, &finished, &e) < 0)
        return 0;
    if (summary_new(finished, &s, &e) < 0)
        return 0;
    if (pass_merge_pads(finished, &e) == 0 && pass_fold_batch_norm(finished, &e) == 0)
        write_away(finished);
    return 0;
}
