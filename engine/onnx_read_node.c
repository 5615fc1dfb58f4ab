/* NodeProto and StringStringEntryProto. */
#include <errno.h>
#include <string.h>

#include "engine/onnx_proto.h"
#include "engine/onnx_read.h"

#define MAX_NODE_IO 4096
#define MAX_ATTRS   256

struct read_node {
    struct graph *g;
    struct node n;
    size_t n_in, n_out, n_attr, n_kept;
    struct bytes *kept;
};

int onnx_read_prop(
    struct graph *g, const struct wire *w, const struct wire_field *f, struct prop *ret, struct error *err) {
    struct prop p = {.key = "", .value = ""};
    struct wire in;
    struct wire_field d;
    int r = wire_enter(&in, w, f, err);

    while (r >= 0 && (r = wire_next(&in, &d, err)) > 0) {
        if (d.number == P_KEY)
            r = onnx_read_name(g, &in, &d, &p.key, err);
        else if (d.number == P_VALUE)
            r = onnx_read_name(g, &in, &d, &p.value, err);
    }
    if (r == 0)
        *ret = p;
    return r;
}

/* First walk: names and counts. */
static int read_head(
    struct read_node *r, const struct wire *w, const struct wire_field *f, struct error *err) {
    switch (f->number) {
    case N_INPUT: r->n_in++; return 0;
    case N_OUTPUT: r->n_out++; return 0;
    case N_ATTRIBUTE: r->n_attr++; return 0;
    case N_NAME: return onnx_read_name(r->g, w, f, &r->n.name, err);
    case N_OP_TYPE: return onnx_read_name(r->g, w, f, &r->n.op_type, err);
    case N_DOMAIN: return onnx_read_name(r->g, w, f, &r->n.domain, err);
    default: r->n_kept++; return 0;
    }
}

static int read_value_name(
    struct read_node *r, const struct wire *w, const struct wire_field *f, int *ret, struct error *err) {
    const char *name;
    int rc = onnx_read_name(r->g, w, f, &name, err);

    return rc < 0 ? rc : onnx_value_id(r->g, name, ret, err);
}

/* Metadata is kept for the writer; of ours, the layer id is taken. */
static int read_metadata(
    struct read_node *r, const struct wire *w, const struct wire_field *f, struct error *err) {
    struct prop p;
    int rc = onnx_read_prop(r->g, w, f, &p, err);

    if (rc < 0)
        return rc;
    if (strcmp(p.key, ONNX_LAYER_KEY) == 0 && p.value[0])
        r->n.id = p.value;
    else
        r->kept[r->n.n_kept++] = f->whole;
    return 0;
}

/* Second walk: links and attributes. */
static int read_body(
    struct read_node *r, const struct wire *w, const struct wire_field *f, struct error *err) {
    struct node *n = &r->n;
    int rc;

    switch (f->number) {
    case N_INPUT: return read_value_name(r, w, f, &n->in[n->n_in++], err);
    case N_OUTPUT: return read_value_name(r, w, f, &n->out[n->n_out++], err);
    case N_ATTRIBUTE:
        rc = onnx_read_attr(r->g, w, f, &n->attr[n->n_attr], err);
        if (rc < 0)
            return error_prefix(err, rc, "node '%.100s'", n->name[0] ? n->name : n->op_type);
        if (node_attr(n, n->attr[n->n_attr].name))
            return error_code(err, -EBADMSG, "invalid_model",
                "node '%.100s': attribute '%.100s' is there twice", n->name[0] ? n->name : n->op_type,
                n->attr[n->n_attr].name);
        n->n_attr++;
        return 0;
    case N_NAME:
    case N_OP_TYPE:
    case N_DOMAIN: return 0;
    case N_METADATA: return read_metadata(r, w, f, err);
    default: r->kept[n->n_kept++] = f->whole; return 0;
    }
}

static int make_room(struct read_node *r, struct error *err) {
    struct node *n = &r->n;

    if (r->n_in > MAX_NODE_IO || r->n_out > MAX_NODE_IO || r->n_attr > MAX_ATTRS)
        return error_code(err, -EBADMSG, "invalid_model",
            "node '%.100s': more than %d inputs or outputs, or %d attributes",
            n->name[0] ? n->name : n->op_type, MAX_NODE_IO, MAX_ATTRS);
    n->in = graph_alloc(r->g, (r->n_in + r->n_out) * sizeof(*n->in));
    n->attr = graph_alloc(r->g, r->n_attr * sizeof(*n->attr));
    r->kept = graph_alloc(r->g, r->n_kept * sizeof(*r->kept));
    if (!n->in || !n->attr || !r->kept)
        return error_oom(err);
    n->out = n->in + r->n_in;
    n->kept = r->kept;
    return 0;
}

int onnx_read_node(struct graph *g, const struct wire *w, const struct wire_field *f, struct error *err) {
    struct read_node r = {.g = g, .n = {.name = "", .op_type = "", .domain = ""}};
    struct wire in, again;
    struct wire_field d;
    int rc = wire_enter(&in, w, f, err);

    if (rc < 0)
        return rc;
    again = in;
    while (rc >= 0 && (rc = wire_next(&again, &d, err)) > 0)
        rc = read_head(&r, &again, &d, err);
    if (rc < 0)
        return rc;
    if (!r.n.op_type[0])
        return error_code(err, -EBADMSG, "invalid_model", "the node at byte %zu has no operator", f->offset);
    rc = make_room(&r, err);
    while (rc >= 0 && (rc = wire_next(&in, &d, err)) > 0)
        rc = read_body(&r, &in, &d, err);
    if (rc < 0)
        return rc;
    rc = graph_grow(&g->nodes, &g->store->cap_nodes, g->n_nodes, sizeof(*g->nodes));
    if (rc == -EFBIG)
        return error_code(err, -EBADMSG, "invalid_model", "more than %u nodes", GRAPH_MAX_COUNT);
    if (rc < 0)
        return error_oom(err);
    g->nodes[g->n_nodes++] = r.n;
    return 0;
}
