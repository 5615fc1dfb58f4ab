#include "compress/zoo.h"

#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "compress/zoo_rows.h"

const struct zoo_net *const zoo_table[] = {
    &zoo_lenet300,
    &zoo_lenet5,
    &zoo_mobilenet_v1,
    &zoo_mobilenet_v2,
    &zoo_resnet20,
    &zoo_resnet32,
    &zoo_resnet56,
    &zoo_shufflenet_v2,
    &zoo_squeezenet,
    &zoo_vgg8,
};
const size_t zoo_table_size = sizeof(zoo_table) / sizeof(zoo_table[0]);

const struct zoo_net *zoo_find(const char *name) {
    for (size_t i = 0; i < zoo_table_size; i++)
        if (!strcmp(zoo_table[i]->name, name))
            return zoo_table[i];
    return NULL;
}

static int check_factor(const char *path, const char *key, double v, double min, double max,
    const struct zoo_net *net, struct error *err) {
    if (v >= min && v <= max)
        return 0;
    if (min == max)
        return error_set(err, -EINVAL, "%s.%s: '%s' has only %g", path, key, net->name, min);
    return error_set(
        err, -EINVAL, "%s.%s: %g is not from %g to %g, as '%s' has it", path, key, v, min, max, net->name);
}

int zoo_check(const struct zoo_net *net, double width, double depth, const char *path, struct error *err) {
    int r = check_factor(path, "width", width, net->min_width, net->max_width, net, err);

    return r < 0 ? r : check_factor(path, "depth", depth, net->min_depth, net->max_depth, net, err);
}

static int check_pictures(const struct zoo_net *net, const struct zoo_spec *s, struct error *err) {
    int64_t least = s->height < s->width_px ? s->height : s->width_px,
            most = s->height < s->width_px ? s->width_px : s->height;

    if (least < net->min_side || most > ZOO_MAX_SIDE)
        return error_code(err, -EBADMSG, "method_not_applicable",
            "network '%s' takes pictures with sides of %d to %d pixels, not %lld x %lld", net->name,
            net->min_side, ZOO_MAX_SIDE, (long long)s->height, (long long)s->width_px);
    if (s->channels != 1 && s->channels != 3)
        return error_code(err, -EBADMSG, "method_not_applicable", "pictures have 1 or 3 channels, not %lld",
            (long long)s->channels);
    if (s->n_classes < 2 || s->n_classes > ZOO_MAX_CLASSES)
        return error_code(err, -EBADMSG, "method_not_applicable",
            "a classifier has 2 to %d classes, not %lld", ZOO_MAX_CLASSES, (long long)s->n_classes);
    return 0;
}

/* The network ends here; its author called the output `logits`. */
static int set_logits(struct graph *g, int value, int64_t n_classes) {
    g->values[value].shape = (struct shape){.rank = 2, .dim = {-1, n_classes}};
    return graph_add_output(g, value);
}

int zoo_new(const struct zoo_net *net, const struct zoo_spec *s, struct graph **ret, struct error *err) {
    _cleanup_(graph_freep) struct graph *g = NULL;
    struct zoo_maker m = {
        .err = err, .seed = s->seed, .width = s->width, .depth = s->depth, .n_classes = s->n_classes};
    struct zoo_map x = {.c = s->channels, .h = s->height, .w = s->width_px};
    int r = zoo_check(net, s->width, s->depth, "network", err);

    if (r == 0)
        r = check_pictures(net, s, err);
    if (r < 0)
        return r;
    m.graph = g = graph_new();
    if (!g)
        return error_oom(err);
    g->name = net->name;
    g->producer = "bonsaid";
    g->ir_version = 7;
    g->opset = 13;
    x.value = graph_add_value(g, "input", DT_F32, &(struct shape){.rank = 4, .dim = {-1, x.c, x.h, x.w}});
    if (x.value < 0 || graph_add_input(g, x.value) < 0)
        return error_oom(err);
    x = net->build(&m, x);
    if (m.failed)
        return m.failed;
    if (set_logits(g, x.value, s->n_classes) < 0)
        return error_oom(err);
    r = graph_finish(g, err);
    if (r == 0)
        *ret = TAKE(g);
    return r;
}

json_t *zoo_list(void) {
    json_t *list = json_array();

    for (size_t i = 0; i < zoo_table_size; i++) {
        const struct zoo_net *n = zoo_table[i];

        json_array_append_new(list,
            json_pack("{s:s, s:s, s:s, s:[f, f], s:[f, f], s:i, s:o}", "name", n->name, "summary", n->summary,
                "source", n->source, "width", n->min_width, n->max_width, "depth", n->min_depth, n->max_depth,
                "min_side", n->min_side, "defaults", json_loads(n->defaults, 0, NULL)));
    }
    return list;
}
