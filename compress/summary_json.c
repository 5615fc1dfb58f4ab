#include "compress/summary_json.h"

static json_t *shape_json(const struct shape *s) {
    json_t *list = json_array();

    for (int i = 0; list && i < s->rank; i++)
        json_array_append_new(list, json_integer(s->dim[i]));
    return list;
}

static json_t *values_json(const struct summary_value *v, size_t n) {
    json_t *list = json_array();

    for (size_t i = 0; list && i < n; i++) {
        const struct dtype_info *t = dtype_info(v[i].dtype);

        json_array_append_new(list, json_pack("{s:s, s:s?, s:o}", "name", v[i].name, "datatype",
                                        t ? t->v2 : NULL, "shape", shape_json(&v[i].shape)));
    }
    return list;
}

static json_t *operators_json(const struct summary *s) {
    json_t *o = json_object();

    for (size_t i = 0; o && i < s->n_ops; i++)
        json_object_set_new(o, s->ops[i].op_type, json_integer((json_int_t)s->ops[i].count));
    return o;
}

static json_t *count_json(int64_t n) {
    return n < 0 ? json_null() : json_integer((json_int_t)n);
}

static json_t *layers_json(const struct summary *s) {
    json_t *list = json_array();

    for (size_t i = 0; list && i < s->n_layers; i++) {
        const struct summary_layer *l = &s->layers[i];

        json_array_append_new(list,
            json_pack("{s:s, s:s, s:o, s:I, s:o, s:I, s:I, s:s?}", "id", l->id, "op", l->op_type, "shape",
                shape_json(&l->shape), "params", (json_int_t)l->params, "nonzero", count_json(l->nonzero),
                "macs", (json_int_t)l->macs, "bytes", (json_int_t)l->bytes, "form", l->form));
    }
    return list;
}

json_t *summary_json(const struct summary *s) {
    return json_pack("{s:o, s:o, s:o, s:I, s:o, s:I, s:I, s:I, s:I, s:s?, s:o}", "inputs",
        values_json(s->inputs, s->n_inputs), "outputs", values_json(s->outputs, s->n_outputs), "operators",
        operators_json(s), "parameters", (json_int_t)s->parameters, "nonzero", count_json(s->nonzero), "macs",
        (json_int_t)s->macs, "bytes", (json_int_t)s->bytes, "opset", (json_int_t)s->opset, "ir_version",
        (json_int_t)s->ir_version, "producer", s->producer, "layers", layers_json(s));
}
