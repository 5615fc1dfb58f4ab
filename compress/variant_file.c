#include "compress/variant_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "engine/onnx.h"
#include "engine/ops.h"
#include "engine/weight.h"

json_t *variant_layers(struct graph *g, struct error *err) {
    json_t *list = json_array();

    for (size_t i = 0; list && i < g->n_nodes; i++) {
        const struct node *n = &g->nodes[i];
        const struct weight *w = NULL;

        if (n->op->couple != OP_COUPLE_FREE || n->n_in < 2)
            continue;
        if (weight_match(g, n->in[1], &w, NULL, err) < 0) {
            json_decref(list);
            return NULL;
        }
        if (w)
            json_array_append_new(list, json_pack("{s:s, s:s}", "id", n->id, "form", weight_form_name(w)));
    }
    return list;
}

int variant_describe(struct graph *g, const json_t *steps, const char *parent_digest, struct error *err) {
    _cleanup_(freep) char *recipe = json_dumps(steps, JSON_COMPACT | JSON_SORT_KEYS), *forms = NULL;
    json_t *layers = variant_layers(g, err);

    if (layers)
        forms = json_dumps(layers, JSON_COMPACT);
    json_decref(layers);
    if (!recipe || !forms)
        return error_oom(err);
    if (graph_set_prop(g, "bonsai.recipe", recipe) < 0 || graph_set_prop(g, "bonsai.layers", forms) < 0 ||
        (parent_digest && graph_set_prop(g, "bonsai.parent", parent_digest) < 0))
        return error_oom(err);
    return 0;
}

static int sync_directory(const char *path, struct error *err) {
    _cleanup_(freep) char *dir = strdup(path);
    _cleanup_(closep) int fd = -1;
    char *slash;

    if (!dir)
        return error_oom(err);
    slash = strrchr(dir, '/');
    if (slash)
        *slash = 0;
    fd = open(slash ? (*dir ? dir : "/") : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || fsync(fd) < 0)
        return error_errno(err, "the result's directory");
    return 0;
}

int variant_write(const struct graph *g, const char *path, struct error *err) {
    char temporary[4096];
    _cleanup_(closep) int fd = -1;
    int r;

    if (snprintf(temporary, sizeof(temporary), "%s.tmp", path) >= (int)sizeof(temporary))
        return error_set(err, -ENAMETOOLONG, "the result's path is too long");
    fd = open(temporary, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return error_errno(err, "the result cannot be written");
    r = onnx_write_fd(g, fd, err);
    if (r == 0 && (fsync(fd) < 0 || rename(temporary, path) < 0))
        r = error_errno(err, "the result cannot be written");
    if (r < 0) {
        unlink(temporary);
        return r;
    }
    return sync_directory(path, err);
}
