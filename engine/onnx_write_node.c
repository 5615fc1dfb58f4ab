/* NodeProto, AttributeProto, TensorProto, ValueInfoProto. */
#include <string.h>

#include "engine/onnx_proto.h"
#include "engine/onnx_write.h"

void onnx_put_prop(struct wire_sink *s, const void *arg) {
    const struct prop *p = arg;

    wire_put_string(s, P_KEY, p->key);
    wire_put_string(s, P_VALUE, p->value);
}

bool onnx_needs_layer_id(const struct write_model *m, const struct node *n) {
    const char *out = n->n_out > 0 && n->out[0] >= 0 ? m->g->values[n->out[0]].name : "";
    size_t size = strlen(n->op_type);
    int uses = 2;

    if (!n->id)
        return false;
    if (n->name[0] && name_index_find(m->names, n->name, &uses) && uses == 1)
        return strcmp(n->id, n->name) != 0;
    return strncmp(n->id, n->op_type, size) != 0 || n->id[size] != '_' || strcmp(n->id + size + 1, out) != 0;
}

struct named_tensor {
    const char *name; /* NULL: none */
    const struct tensor *t;
};

static void put_tensor(struct wire_sink *s, const void *arg) {
    const struct named_tensor *n = arg;
    size_t size = 0;

    for (int i = 0; i < n->t->shape.rank; i++)
        wire_put_int(s, T_DIMS, n->t->shape.dim[i]);
    wire_put_int(s, T_DATA_TYPE, (int64_t)n->t->dtype);
    if (n->name)
        wire_put_string(s, T_NAME, n->name);
    if (n->t->data && shape_bytes(&n->t->shape, n->t->dtype, &size))
        wire_put_bytes(s, T_RAW_DATA, n->t->data, size);
}

void onnx_put_initializer(struct wire_sink *s, const void *arg) {
    const struct value *v = arg;
    const struct value_kept *kept = v->kept;

    if (kept && kept->init.size && kept->read == v->init && strcmp(kept->name, v->name) == 0)
        wire_put_raw(s, kept->init.data, kept->init.size);
    else
        put_tensor(s, &(struct named_tensor){.name = v->name, .t = v->init});
}

static void put_attr_value(struct wire_sink *s, const struct attr *a) {
    switch (a->type) {
    case ATTR_FLOAT: wire_put_float(s, A_F, a->f); return;
    case ATTR_INT: wire_put_int(s, A_I, a->i); return;
    case ATTR_STRING: wire_put_bytes(s, A_S, a->s.data, a->s.size); return;
    case ATTR_TENSOR: wire_put_message(s, A_T, put_tensor, &(struct named_tensor){.t = a->t}); return;
    case ATTR_FLOATS:
        for (size_t i = 0; i < a->n; i++)
            wire_put_float(s, A_FLOATS, a->floats[i]);
        return;
    case ATTR_INTS:
        for (size_t i = 0; i < a->n; i++)
            wire_put_int(s, A_INTS, a->ints[i]);
        return;
    case ATTR_STRINGS:
        for (size_t i = 0; i < a->n; i++)
            wire_put_bytes(s, A_STRINGS, a->strings[i].data, a->strings[i].size);
        return;
    case ATTR_GRAPH:
    case ATTR_OTHER: return; /* never made by us: always raw */
    }
}

static void put_attr(struct wire_sink *s, const void *arg) {
    const struct attr *a = arg;

    if (a->raw.size) {
        wire_put_raw(s, a->raw.data, a->raw.size);
        return;
    }
    wire_put_string(s, A_NAME, a->name);
    put_attr_value(s, a);
    wire_put_int(s, A_TYPE, (int64_t)a->type);
}

void onnx_put_node(struct wire_sink *s, const void *arg) {
    const struct write_node *w = arg;
    const struct graph *g = w->m->g;
    const struct node *n = w->n;

    for (int i = 0; i < n->n_in; i++)
        wire_put_string(s, N_INPUT, n->in[i] < 0 ? "" : g->values[n->in[i]].name);
    for (int i = 0; i < n->n_out; i++)
        wire_put_string(s, N_OUTPUT, n->out[i] < 0 ? "" : g->values[n->out[i]].name);
    if (n->name[0])
        wire_put_string(s, N_NAME, n->name);
    wire_put_string(s, N_OP_TYPE, n->op_type);
    for (size_t i = 0; i < n->n_attr; i++)
        wire_put_message(s, N_ATTRIBUTE, put_attr, &n->attr[i]);
    if (n->domain[0])
        wire_put_string(s, N_DOMAIN, n->domain);
    for (size_t i = 0; i < n->n_kept; i++)
        wire_put_raw(s, n->kept[i].data, n->kept[i].size);
    if (g->ir_version >= ONNX_IR_NODE_METADATA && onnx_needs_layer_id(w->m, n))
        wire_put_message(s, N_METADATA, onnx_put_prop, &(struct prop){.key = ONNX_LAYER_KEY, .value = n->id});
}

struct dim {
    int64_t value;
    const char *param;
};

static void put_dim(struct wire_sink *s, const void *arg) {
    const struct dim *d = arg;

    if (d->value >= 0)
        wire_put_int(s, DIM_VALUE, d->value);
    else if (d->param)
        wire_put_string(s, DIM_PARAM, d->param);
}

static void put_shape(struct wire_sink *s, const void *arg) {
    const struct value *v = arg;

    for (int i = 0; i < v->shape.rank; i++)
        wire_put_message(s, SHAPE_DIM, put_dim,
            &(struct dim){.value = v->shape.dim[i], .param = v->dim_param ? v->dim_param[i] : NULL});
}

static void put_tensor_type(struct wire_sink *s, const void *arg) {
    const struct value *v = arg;

    wire_put_int(s, TT_ELEM_TYPE, (int64_t)v->dtype);
    if (v->shape.rank >= 0)
        wire_put_message(s, TT_SHAPE, put_shape, v);
}

static void put_type(struct wire_sink *s, const void *arg) {
    wire_put_message(s, TYPE_TENSOR, put_tensor_type, arg);
}

void onnx_put_value_info(struct wire_sink *s, const void *arg) {
    const struct value *v = arg;
    const struct value_kept *kept = v->kept;

    /* an initialiser's own type and shape stand over what was declared, and were checked against it */
    if (kept && kept->info.size && strcmp(kept->name, v->name) == 0 &&
        (v->init ? v->init == kept->read : kept->dtype == v->dtype && shape_equal(&kept->shape, &v->shape))) {
        wire_put_raw(s, kept->info.data, kept->info.size);
        return;
    }
    wire_put_string(s, V_NAME, v->name);
    if (v->dtype != DT_NONE)
        wire_put_message(s, V_TYPE, put_type, v);
}
