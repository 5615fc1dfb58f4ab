#include "compress/check.h"

#include <fcntl.h>

#include "base/cleanup.h"
#include "compress/model_props.h"
#include "compress/summary_json.h"
#include "engine/onnx.h"
#include "engine/summary.h"

int check_model(const char *path, json_t **ret, struct error *err) {
    _cleanup_(summary_freep) struct summary *s = NULL;
    _cleanup_(graph_freep) struct graph *g = NULL;
    _cleanup_(closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
    json_auto_t *labels = NULL, *preprocess = NULL;
    int r;

    if (fd < 0)
        return error_errno(err, "the model file cannot be opened");
    r = onnx_read_fd(fd, &g, err);
    if (r == 0)
        r = summary_new(g, &s, err);
    if (r < 0)
        return r;
    *ret = summary_json(s);
    if (!*ret)
        return error_oom(err);
    model_props_read(g, &labels, &preprocess);
    if (labels)
        json_object_set(*ret, "labels", labels);
    if (preprocess)
        json_object_set(*ret, "preprocess", preprocess);
    return 0;
}
