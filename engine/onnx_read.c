/* ModelProto and GraphProto. */
#include "engine/onnx.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "engine/onnx_proto.h"
#include "engine/onnx_read.h"

#define IR_MIN 3
#define IR_MAX 13

struct read_model {
    struct graph *g;
    const char *producer, *producer_version;
    bool has_ir, has_graph;
};

static int append_id(int **list, size_t *n, size_t *cap, int id, struct error *err) {
    int r = graph_grow(list, cap, *n, sizeof(**list));

    if (r == -EFBIG)
        return error_code(
            err, -EBADMSG, "invalid_model", "more than %u graph inputs or outputs", GRAPH_MAX_COUNT);
    if (r < 0)
        return error_oom(err);
    (*list)[(*n)++] = id;
    return 0;
}

static int read_initializer(
    struct graph *g, const struct wire *w, const struct wire_field *f, struct error *err) {
    struct value_kept *kept = graph_alloc(g, sizeof(*kept));
    struct tensor *t = graph_alloc(g, sizeof(*t));
    struct wire in;
    const char *name;
    struct value *v;
    int id, r = wire_enter(&in, w, f, err);

    if (r < 0)
        return r;
    if (!kept || !t)
        return error_oom(err);
    r = onnx_read_tensor_proto(g, in, "initialiser", &name, t, err);
    if (r < 0)
        return r;
    if (!name[0])
        return error_code(
            err, -EBADMSG, "invalid_model", "the initialiser at byte %zu has no name", f->offset);
    r = onnx_value_id(g, name, &id, err);
    if (r < 0)
        return r;
    v = &g->values[id];
    if (v->init)
        return error_code(err, -EBADMSG, "invalid_model", "initialiser '%.100s' is defined twice", name);
    *kept = v->kept ? *v->kept : (struct value_kept){.name = v->name, .shape.rank = -1};
    kept->init = f->bytes;
    kept->read = t;
    v->kept = kept;
    v->init = t;
    return graph_add_init_id(g, id) < 0 ? error_oom(err) : 0;
}

static int read_input(struct graph *g, const struct wire *w, const struct wire_field *f, struct error *err) {
    struct graph_store *s = g->store;
    int id, r = onnx_read_value_info(g, w, f, &id, err);

    if (r < 0)
        return r;
    if (g->values[id].is_input)
        return error_code(
            err, -EBADMSG, "invalid_model", "graph input '%.100s' is listed twice", g->values[id].name);
    g->values[id].is_input = true;
    return append_id(&s->listed, &s->n_listed, &s->cap_listed, id, err);
}

static int read_output(struct graph *g, const struct wire *w, const struct wire_field *f, struct error *err) {
    int id, r = onnx_read_value_info(g, w, f, &id, err);

    if (r < 0)
        return r;
    if (g->values[id].is_output)
        return error_code(
            err, -EBADMSG, "invalid_model", "graph output '%.100s' is listed twice", g->values[id].name);
    g->values[id].is_output = true;
    return append_id(&g->outputs, &g->n_outputs, &g->store->cap_outputs, id, err);
}

static int keep(struct graph *g, bool is_graph, struct bytes whole, struct error *err) {
    struct graph_store *s = g->store;
    int r = is_graph ? graph_put_bytes(&s->kept_graph, &s->n_kept_graph, &s->cap_kept_graph, whole)
                     : graph_put_bytes(&s->kept_model, &s->n_kept_model, &s->cap_kept_model, whole);

    if (r == -EFBIG)
        return error_code(err, -EBADMSG, "invalid_model", "more than %u fields", GRAPH_MAX_COUNT);
    return r < 0 ? error_oom(err) : 0;
}

static int read_graph_field(
    struct graph *g, const struct wire *w, const struct wire_field *f, struct error *err) {
    int unused;

    switch (f->number) {
    case G_NODE: return onnx_read_node(g, w, f, err);
    case G_NAME: return onnx_read_name(g, w, f, &g->name, err);
    case G_INITIALIZER: return read_initializer(g, w, f, err);
    case G_INPUT: return read_input(g, w, f, err);
    case G_OUTPUT: return read_output(g, w, f, err);
    case G_VALUE_INFO: return onnx_read_value_info(g, w, f, &unused, err);
    case G_SPARSE_INITIALIZER:
        return error_code(
            err, -EBADMSG, "invalid_model", "the sparse initialiser at byte %zu is not supported", f->offset);
    default: return keep(g, true, f->whole, err);
    }
}

/* Every listed input is a tensor; those with initialisers are constants (IR 3). */
static int take_inputs(struct graph *g, struct error *err) {
    struct graph_store *s = g->store;

    for (size_t i = 0; i < s->n_listed; i++) {
        const struct value *v = &g->values[s->listed[i]];
        int r;

        if (v->init)
            continue;
        if (!dtype_info(v->dtype))
            return error_code(err, -EBADMSG, "invalid_model",
                "graph input '%.100s' is not a tensor of a supported type", v->name);
        r = append_id(&g->inputs, &g->n_inputs, &s->cap_inputs, s->listed[i], err);
        if (r < 0)
            return r;
    }
    return 0;
}

/* The initialiser is the truth about its type and shape, whatever is declared. */
static int check_inits(struct graph *g, struct error *err) {
    struct graph_store *s = g->store;

    for (size_t i = 0; i < s->n_inits; i++) {
        struct value *v = &g->values[s->inits[i]];

        if (v->dtype != DT_NONE && v->dtype != v->init->dtype)
            return error_code(err, -EBADMSG, "invalid_model",
                "initialiser '%.100s' is declared with another element type", v->name);
        v->dtype = v->init->dtype;
        v->shape = v->init->shape;
    }
    return 0;
}

static int read_graph(
    struct read_model *m, const struct wire *w, const struct wire_field *f, struct error *err) {
    struct wire in;
    struct wire_field d;
    int r = wire_enter(&in, w, f, err);

    if (r < 0)
        return r;
    if (m->has_graph)
        return error_code(err, -EBADMSG, "invalid_model", "the model has two graphs");
    m->has_graph = true;
    while (r >= 0 && (r = wire_next(&in, &d, err)) > 0)
        r = read_graph_field(m->g, &in, &d, err);
    if (r == 0)
        r = take_inputs(m->g, err);
    return r < 0 ? r : check_inits(m->g, err);
}

static int read_opset(struct graph *g, const struct wire *w, const struct wire_field *f, struct error *err) {
    struct opset_import import = {.domain = "", .read = f->bytes};
    struct graph_store *s = g->store;
    struct wire in;
    struct wire_field d;
    int r = wire_enter(&in, w, f, err);

    while (r >= 0 && (r = wire_next(&in, &d, err)) > 0) {
        if (d.number == OPSET_DOMAIN)
            r = onnx_read_name(g, &in, &d, &import.domain, err);
        else if (d.number == OPSET_VERSION)
            r = wire_get_int(&in, &d, &import.version, err);
    }
    if (r < 0)
        return r;
    if (graph_grow(&s->imports, &s->cap_imports, s->n_imports, sizeof(*s->imports)) < 0)
        return error_oom(err);
    s->imports[s->n_imports++] = import;
    if (!import.domain[0] || strcmp(import.domain, "ai.onnx") == 0)
        g->opset = import.version;
    return 0;
}

static int read_model_prop(
    struct graph *g, const struct wire *w, const struct wire_field *f, struct error *err) {
    struct prop p;
    int r = onnx_read_prop(g, w, f, &p, err);

    if (r < 0)
        return r;
    if (graph_grow(&g->props, &g->store->cap_props, g->n_props, sizeof(*g->props)) < 0)
        return error_oom(err);
    g->props[g->n_props++] = p;
    return 0;
}

static int read_model_field(
    struct read_model *m, const struct wire *w, const struct wire_field *f, struct error *err) {
    int r;

    switch (f->number) {
    case M_IR_VERSION: m->has_ir = true; return wire_get_int(w, f, &m->g->ir_version, err);
    case M_GRAPH: return read_graph(m, w, f, err);
    case M_OPSET_IMPORT: return read_opset(m->g, w, f, err);
    case M_METADATA: return read_model_prop(m->g, w, f, err);
    case M_FUNCTIONS:
        return error_code(
            err, -EBADMSG, "invalid_model", "the function at byte %zu is not supported", f->offset);
    case M_PRODUCER_NAME:
        r = onnx_read_name(m->g, w, f, &m->producer, err);
        return r < 0 ? r : keep(m->g, false, f->whole, err);
    case M_PRODUCER_VERSION:
        r = onnx_read_name(m->g, w, f, &m->producer_version, err);
        return r < 0 ? r : keep(m->g, false, f->whole, err);
    default: return keep(m->g, false, f->whole, err);
    }
}

/* Layer ids that older IRs keep in the model's metadata. */
static void take_layer_ids(struct graph *g) {
    static const char prefix[] = ONNX_LAYER_KEY ":";
    size_t n = 0;

    for (size_t i = 0; i < g->n_nodes; i++)
        for (int k = 0; k < g->nodes[i].n_out; k++)
            if (g->nodes[i].out[k] >= 0)
                g->values[g->nodes[i].out[k]].producer = (int)i;
    for (size_t i = 0; i < g->n_props; i++) {
        const struct prop *p = &g->props[i];
        int v, node;

        if (strncmp(p->key, prefix, sizeof(prefix) - 1) != 0) {
            g->props[n++] = *p;
            continue;
        }
        v = graph_find_value(g, p->key + sizeof(prefix) - 1);
        node = v < 0 ? -1 : g->values[v].producer;
        if (node >= 0 && p->value[0] && !g->nodes[node].id)
            g->nodes[node].id = p->value;
    }
    g->n_props = n;
}

static int check_model(struct read_model *m, struct error *err) {
    struct graph *g = m->g;
    size_t size = strlen(m->producer) + strlen(m->producer_version) + 2;
    char *producer;

    if (!m->has_ir && !m->has_graph)
        return error_code(err, -EINVAL, "bad_request", "not protobuf of an ONNX model: no version, no graph");
    if (!m->has_graph)
        return error_code(err, -EBADMSG, "invalid_model", "the model has no graph");
    if (g->ir_version < IR_MIN || g->ir_version > IR_MAX)
        return error_code(err, -EBADMSG, "invalid_model", "IR version %lld: versions %d to %d are supported",
            (long long)g->ir_version, IR_MIN, IR_MAX);
    if (g->opset < 1)
        return error_code(
            err, -EBADMSG, "invalid_model", "the model imports no version of the ONNX operators");
    producer = graph_alloc(g, size);
    if (!producer)
        return error_oom(err);
    snprintf(producer, size, "%s%s%s", m->producer, m->producer_version[0] ? " " : "", m->producer_version);
    g->producer = producer;
    return 0;
}

static int read_model(struct graph *g, const void *data, size_t size, struct error *err) {
    struct read_model m = {.g = g, .producer = "", .producer_version = ""};
    struct wire w, again;
    struct wire_field f;
    int r;

    if (size == 0)
        return error_code(err, -EINVAL, "bad_request", "not protobuf: the file is empty");
    wire_init(&w, data, size);
    /* the outermost message whole, before anything is made of it: a file that is cut off is 'not protobuf' */
    again = w;
    while ((r = wire_next(&again, &f, err)) > 0)
        ;
    while (r >= 0 && (r = wire_next(&w, &f, err)) > 0)
        r = read_model_field(&m, &w, &f, err);
    if (r == 0)
        r = check_model(&m, err);
    if (r == 0)
        take_layer_ids(g);
    return r;
}

int onnx_parse(const void *data, size_t size, struct graph **ret, struct error *err) {
    _cleanup_(graph_freep) struct graph *g = graph_new();
    int r = g ? read_model(g, data, size, err) : error_oom(err);

    if (r < 0)
        return r;
    *ret = TAKE(g);
    return 0;
}

int onnx_read(const void *data, size_t size, struct graph **ret, struct error *err) {
    _cleanup_(graph_freep) struct graph *g = NULL;
    int r = onnx_parse(data, size, &g, err);

    if (r == 0)
        r = graph_finish(g, err);
    if (r < 0)
        return r;
    *ret = TAKE(g);
    return 0;
}

int onnx_read_fd(int fd, struct graph **ret, struct error *err) {
    _cleanup_(graph_freep) struct graph *g = graph_new();
    struct stat st;
    void *map;
    int r;

    if (!g)
        return error_oom(err);
    if (fstat(fd, &st) < 0)
        return error_errno(err, "model file");
    if (!S_ISREG(st.st_mode))
        return error_set(err, -EINVAL, "the model is not a regular file");
    if (st.st_size > 0) {
        map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (map == MAP_FAILED)
            return error_errno(err, "map model file");
        g->store->mem->map = map;
        g->store->mem->map_size = (size_t)st.st_size;
    }
    r = read_model(g, g->store->mem->map, (size_t)st.st_size, err);
    if (r == 0)
        r = graph_finish(g, err);
    if (r < 0)
        return r;
    *ret = TAKE(g);
    return 0;
}
