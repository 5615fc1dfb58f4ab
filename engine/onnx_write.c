/* ModelProto and GraphProto. What was read and still says the same is written byte for byte; fields go out in
 * the order of their numbers as far as the reader knows them, so the same graph gives the same bytes. */
#include <errno.h>
#include <string.h>

#include "engine/onnx.h"
#include "engine/onnx_proto.h"
#include "engine/onnx_write.h"

static void index_donep(struct name_index *x) {
    name_index_done(x);
}

static void put_import(struct wire_sink *s, const void *arg) {
    const struct opset_import *i = arg;

    if (i->read.size)
        wire_put_raw(s, i->read.data, i->read.size);
    else {
        wire_put_string(s, OPSET_DOMAIN, i->domain);
        wire_put_int(s, OPSET_VERSION, i->version);
    }
}

static void put_imports(struct wire_sink *s, const struct graph *g) {
    bool has_onnx = false;

    for (size_t i = 0; i < g->store->n_imports; i++) {
        struct opset_import import = g->store->imports[i];

        if (!import.domain[0] || strcmp(import.domain, "ai.onnx") == 0) {
            has_onnx = true;
            if (import.version != g->opset) {
                import.version = g->opset;
                import.read.size = 0;
            }
        }
        wire_put_message(s, M_OPSET_IMPORT, put_import, &import);
    }
    if (!has_onnx)
        wire_put_message(
            s, M_OPSET_IMPORT, put_import, &(struct opset_import){.domain = "", .version = g->opset});
}

static void put_kept(struct wire_sink *s, const struct bytes *kept, size_t n, uint64_t first, uint64_t last) {
    for (size_t i = 0; i < n; i++) {
        struct reader r;
        uint64_t tag;

        reader_init(&r, kept[i].data, kept[i].size);
        if (reader_varint(&r, &tag) && tag >> 3 >= first && tag >> 3 <= last)
            wire_put_raw(s, kept[i].data, kept[i].size);
    }
}

/* A value has an entry of its own when a node makes it, or when the file had one for an initialiser. */
static bool has_info(const struct value *v) {
    if (v->is_input || v->is_output)
        return false;
    if (v->init)
        return v->kept && v->kept->info.size && v->kept->read == v->init;
    return v->producer >= 0 && v->dtype != DT_NONE && (v->shape.rank >= 0 || (v->kept && v->kept->info.size));
}

static void put_inputs(struct wire_sink *s, const struct graph *g) {
    const struct graph_store *store = g->store;

    for (size_t i = 0; i < store->n_listed; i++)
        if (g->values[store->listed[i]].is_input)
            wire_put_message(s, G_INPUT, onnx_put_value_info, &g->values[store->listed[i]]);
    /* before IR 4 every initialiser is an input too */
    for (size_t i = 0; i < store->n_inits && g->ir_version < 4; i++)
        if (!g->values[store->inits[i]].is_input)
            wire_put_message(s, G_INPUT, onnx_put_value_info, &g->values[store->inits[i]]);
}

static void put_graph(struct wire_sink *s, const void *arg) {
    const struct write_model *m = arg;
    const struct graph *g = m->g;
    const struct graph_store *store = g->store;

    for (size_t i = 0; i < g->n_nodes; i++)
        wire_put_message(s, G_NODE, onnx_put_node, &(struct write_node){.m = m, .n = &g->nodes[i]});
    wire_put_string(s, G_NAME, g->name[0] ? g->name : "graph");
    for (size_t i = 0; i < store->n_inits; i++)
        wire_put_message(s, G_INITIALIZER, onnx_put_initializer, &g->values[store->inits[i]]);
    put_kept(s, store->kept_graph, store->n_kept_graph, 0, G_INPUT - 1);
    put_inputs(s, g);
    for (size_t i = 0; i < g->n_outputs; i++)
        wire_put_message(s, G_OUTPUT, onnx_put_value_info, &g->values[g->outputs[i]]);
    for (size_t i = 0; i < g->n_values; i++)
        if (has_info(&g->values[i]))
            wire_put_message(s, G_VALUE_INFO, onnx_put_value_info, &g->values[i]);
    put_kept(s, store->kept_graph, store->n_kept_graph, G_INPUT, UINT64_MAX);
}

static void put_layer_prop(struct wire_sink *s, const void *arg) {
    const struct write_node *w = arg;
    const char *out = w->m->g->values[w->n->out[0]].name;

    wire_put_strings(s, P_KEY, ONNX_LAYER_KEY ":", out);
    wire_put_string(s, P_VALUE, w->n->id);
}

static void put_props(struct wire_sink *s, const struct write_model *m) {
    const struct graph *g = m->g;

    for (size_t i = 0; i < g->n_props; i++)
        wire_put_message(s, M_METADATA, onnx_put_prop, &g->props[i]);
    for (size_t i = 0; i < g->n_nodes && g->ir_version < ONNX_IR_NODE_METADATA; i++) {
        const struct node *n = &g->nodes[i];

        if (onnx_needs_layer_id(m, n) && n->n_out > 0 && n->out[0] >= 0)
            wire_put_message(s, M_METADATA, put_layer_prop, &(struct write_node){.m = m, .n = n});
    }
}

static void put_model(struct wire_sink *s, const struct write_model *m) {
    const struct graph *g = m->g;
    const struct graph_store *store = g->store;

    wire_put_int(s, M_IR_VERSION, g->ir_version);
    if (!store->n_kept_model && g->producer[0])
        wire_put_string(s, M_PRODUCER_NAME, g->producer);
    put_kept(s, store->kept_model, store->n_kept_model, 0, M_GRAPH - 1);
    wire_put_message(s, M_GRAPH, put_graph, m);
    put_imports(s, g);
    put_props(s, m);
    put_kept(s, store->kept_model, store->n_kept_model, M_GRAPH, UINT64_MAX);
}

/* Node names to 1, or 2 where several nodes have it. */
static int count_names(const struct graph *g, struct name_index *names) {
    int r = 0, n;

    for (size_t i = 0; i < g->n_nodes && r >= 0; i++) {
        if (name_index_find(names, g->nodes[i].name, &n))
            name_index_set(names, g->nodes[i].name, 2);
        else
            r = name_index_add(names, g->nodes[i].name, 1);
    }
    return r;
}

int onnx_write_fd(const struct graph *g, int fd, struct error *err) {
    _cleanup_(index_donep) struct name_index names = {0};
    _cleanup_(wire_sink_done) struct wire_sink s = {.fd = -1};
    struct write_model m = {.g = g, .names = &names};
    int r;

    name_index_init(&names);
    if (count_names(g, &names) < 0 || wire_sink_init(&s, fd) < 0)
        return error_oom(err);
    put_model(&s, &m);
    r = wire_sink_flush(&s);
    if (r < 0)
        return error_set(err, r, "writing the model: %s", strerrordesc_np(-r));
    return 0;
}
