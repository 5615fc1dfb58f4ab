#include "compress/train_spec.h"

#include <errno.h>
#include <stdio.h>

static const struct param network_rows[] = {
    {
        .name = "zoo",
        .type = PARAM_STRING,
        .at = offsetof(struct train_network, zoo),
        .doc = "which network, of those listed as networks",
    },
    {
        .name = "width",
        .type = PARAM_REAL,
        .at = offsetof(struct train_network, width),
        .min = 0.01,
        .max = 16,
        .dflt = "1",
        .doc = "factor on its channels",
    },
    {
        .name = "depth",
        .type = PARAM_REAL,
        .at = offsetof(struct train_network, depth),
        .min = 0.01,
        .max = 16,
        .dflt = "1",
        .doc = "factor on its blocks",
    },
    {
        .name = "size",
        .type = PARAM_INT,
        .at = offsetof(struct train_network, size),
        .min = 0,
        .max = ZOO_MAX_SIDE,
        .dflt = "0",
        .doc = "sides of its square input; 0: those of the pictures, up to 256, or a square that fits them",
    },
};
static const struct param_table network_table = {
    network_rows, sizeof(network_rows) / sizeof(network_rows[0])};

static const struct param rows[] = {
    {
        .name = "network",
        .type = PARAM_OBJECT,
        .at = offsetof(struct train_spec, network),
        .table = &network_table,
        .given_at = offsetof(struct train_spec, has_network),
        .doc = "a network to make, with random weights",
    },
    {
        .name = "from",
        .type = PARAM_STRING,
        .at = offsetof(struct train_spec, from),
        .doc =
            "a network to go on with, in place of `network`: a model or model~variant; offline an ONNX file",
    },
    {
        .name = "minutes",
        .type = PARAM_REAL,
        .at = offsetof(struct train_spec, minutes),
        .min = 0,
        .max = 100000,
        .dflt = "0",
        .doc = "time after which it ends, the learning rate at its end too; 0: when all epochs are done. "
               "What is learnt then depends on the machine",
    },
    {
        .name = "seed",
        .type = PARAM_SIZE,
        .at = offsetof(struct train_spec, seed),
        .min = 0,
        .max = 9e15,
        .dflt = "0",
        .doc = "of the first weights, the order of pictures and all that is random",
    },
};
static const struct param_table table = {rows, sizeof(rows) / sizeof(rows[0])};

#define MAX_KEYS 64

/* The names of a table's rows, for the other table to leave alone. */
static void names_of(const struct param_table *t, const char *ret[static MAX_KEYS + 1]) {
    size_t n = 0;

    for (; n < t->n && n < MAX_KEYS; n++)
        ret[n] = t->param[n].name;
    ret[n] = NULL;
}

static int find_network(struct train_spec *s, struct error *err) {
    char list[512] = "";
    size_t at = 0;

    if (!s->network.zoo)
        return error_set(err, -EINVAL, "network.zoo is missing");
    s->net = zoo_find(s->network.zoo);
    if (s->net)
        return zoo_check(s->net, s->network.width, s->network.depth, "network", err);
    for (size_t i = 0; i < zoo_table_size && at < sizeof(list); i++)
        at += (size_t)snprintf(list + at, sizeof(list) - at, "%s%s", i ? ", " : "", zoo_table[i]->name);
    return error_set(
        err, -EINVAL, "network.zoo: there is no network '%.64s'; there are %s", s->network.zoo, list);
}

/* Defaults: finetune's, over them the network's, then what the spec says. */
static int read_learn(const json_t *j, const char *const *own, struct learn_options *ret,
    const struct zoo_net *net, struct error *err) {
    json_auto_t *defaults = net ? json_loads(net->defaults, 0, NULL) : NULL;
    int r = param_defaults(&learn_table, ret, err);

    if (r == 0 && defaults)
        r = param_set_json(&learn_table, defaults, NULL, net->name, ret, err);
    return r < 0 ? r : param_set_json(&learn_table, j, own, "", ret, err);
}

int train_spec_read(const json_t *j, struct train_spec *ret, struct error *err) {
    const char *learn_keys[MAX_KEYS + 1], *own_keys[MAX_KEYS + 1];
    int r;

    *ret = (struct train_spec){0};
    names_of(&learn_table, learn_keys);
    names_of(&table, own_keys);
    if (!json_is_object(j))
        return error_set(err, -EINVAL, "the training's specification is not an object");
    r = param_defaults(&table, ret, err);
    if (r == 0)
        r = param_set_json(&table, j, learn_keys, "", ret, err);
    if (r == 0 && ret->has_network == (ret->from != NULL))
        r = error_set(err, -EINVAL, "exactly one of network and from is needed");
    if (r == 0 && ret->has_network)
        r = find_network(ret, err);
    return r < 0 ? r : read_learn(j, own_keys, &ret->learn, ret->net, err);
}

void train_spec_done(struct train_spec *s) {
    param_done(&table, s);
    param_done(&learn_table, &s->learn);
}

json_t *train_spec_schema(void) {
    json_t *schema = param_schema(&table), *learn = param_schema(&learn_table);

    json_object_update(json_object_get(schema, "properties"), json_object_get(learn, "properties"));
    json_decref(learn);
    return schema;
}
