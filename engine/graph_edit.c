#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "engine/graph.h"
#include "engine/graph_store.h"

const char *graph_unique_name(struct graph *g, const char *base) {
    size_t size = strlen(base) + 24;
    char *name = graph_alloc(g, size);

    if (!name)
        return NULL;
    snprintf(name, size, "%s", base);
    /* terminates: there are at most GRAPH_MAX_COUNT values */
    for (unsigned i = 1; graph_find_value(g, name) >= 0; i++)
        snprintf(name, size, "%s_%u", base, i);
    return name;
}

int graph_add_named(struct graph *g, const char *name) {
    int r = graph_grow(&g->values, &g->store->cap_values, g->n_values, sizeof(*g->values));

    if (r == 0)
        r = name_index_add(&g->store->names, name, (int)g->n_values);
    if (r < 0)
        return r;
    g->values[g->n_values] = (struct value){.name = name, .shape.rank = -1, .producer = -1};
    return (int)g->n_values++;
}

int graph_add_value(struct graph *g, const char *name, enum dtype t, const struct shape *shape) {
    const char *copy = graph_strdup(g, name, strlen(name));
    int id = copy ? graph_add_named(g, copy) : -ENOMEM;

    if (id < 0)
        return id;
    g->values[id].dtype = t;
    if (shape)
        g->values[id].shape = *shape;
    return id;
}

static int append_id(int **list, size_t *n, size_t *cap, int id) {
    int r = graph_grow(list, cap, *n, sizeof(**list));

    if (r == 0)
        (*list)[(*n)++] = id;
    return r;
}

int graph_add_input(struct graph *g, int value) {
    struct graph_store *s = g->store;
    int r = append_id(&s->listed, &s->n_listed, &s->cap_listed, value);

    if (r == 0)
        r = append_id(&g->inputs, &g->n_inputs, &s->cap_inputs, value);
    if (r == 0)
        g->values[value].is_input = true;
    return r;
}

int graph_add_output(struct graph *g, int value) {
    int r = append_id(&g->outputs, &g->n_outputs, &g->store->cap_outputs, value);

    if (r == 0)
        g->values[value].is_output = true;
    return r;
}

int graph_add_init_id(struct graph *g, int value) {
    struct graph_store *s = g->store;

    return append_id(&s->inits, &s->n_inits, &s->cap_inits, value);
}

int graph_set_init(struct graph *g, int value, const struct tensor *init) {
    struct tensor *t = graph_alloc(g, sizeof(*t));
    bool is_listed = g->values[value].init != NULL;

    if (!t)
        return -ENOMEM;
    if (!is_listed) {
        int r = graph_add_init_id(g, value);

        if (r < 0)
            return r;
    }
    *t = *init;
    g->values[value].init = t;
    g->values[value].dtype = t->dtype;
    g->values[value].shape = t->shape;
    return 0;
}

int graph_set_copy(struct graph *g, int value, const struct tensor *init) {
    struct tensor t = *init;
    size_t size;

    if (!shape_bytes(&t.shape, t.dtype, &size))
        return -ENOMEM;
    t.data = graph_alloc(g, size + 1);
    if (!t.data)
        return -ENOMEM;
    memcpy(t.data, init->data, size);
    return graph_set_init(g, value, &t);
}

int graph_add_init(struct graph *g, const char *name, const struct tensor *t, bool data_lives) {
    struct tensor copy = *t;
    size_t size;
    int id, r;

    if (!shape_bytes(&t->shape, t->dtype, &size))
        return -EINVAL;
    if (!data_lives) {
        copy.data = graph_alloc(g, size);
        if (!copy.data)
            return -ENOMEM;
        if (size)
            memcpy(copy.data, t->data, size);
    }
    id = graph_add_value(g, name, t->dtype, &t->shape);
    if (id < 0)
        return id;
    r = graph_set_init(g, id, &copy);
    return r < 0 ? r : id;
}

int graph_insert_node(struct graph *g, size_t before, const char *op_type, const char *name, const int *in,
    int n_in, const int *out, int n_out) {
    struct node n = {.n_in = n_in, .n_out = n_out, .domain = ""};
    int r;

    n.op_type = graph_strdup(g, op_type, strlen(op_type));
    n.name = graph_strdup(g, name, strlen(name));
    n.in = graph_alloc(g, ((size_t)n_in + (size_t)n_out) * sizeof(*n.in));
    if (!n.op_type || !n.name || !n.in)
        return -ENOMEM;
    n.out = n.in + n_in;
    memcpy(n.in, in, (size_t)n_in * sizeof(*n.in));
    memcpy(n.out, out, (size_t)n_out * sizeof(*n.out));
    r = graph_grow(&g->nodes, &g->store->cap_nodes, g->n_nodes, sizeof(*g->nodes));
    if (r < 0)
        return r;
    memmove(&g->nodes[before + 1], &g->nodes[before], (g->n_nodes - before) * sizeof(*g->nodes));
    g->nodes[before] = n;
    g->n_nodes++;
    for (size_t v = 0; before + 1 < g->n_nodes && v < g->n_values; v++)
        if (g->values[v].producer >= (int)before)
            g->values[v].producer++;
    for (int i = 0; i < n_out; i++)
        g->values[out[i]].producer = (int)before;
    return (int)before;
}

void graph_remove_node(struct graph *g, size_t index) {
    memmove(&g->nodes[index], &g->nodes[index + 1], (g->n_nodes - index - 1) * sizeof(*g->nodes));
    g->n_nodes--;
    for (size_t v = 0; v < g->n_values; v++) {
        struct value *value = &g->values[v];

        if (value->producer == (int)index)
            value->producer = -1;
        else if (value->producer > (int)index)
            value->producer--;
    }
}

void graph_replace_value(struct graph *g, int from, int to) {
    for (size_t i = 0; i < g->n_nodes; i++)
        for (int k = 0; k < g->nodes[i].n_in; k++)
            if (g->nodes[i].in[k] == from)
                g->nodes[i].in[k] = to;
    for (size_t i = 0; i < g->n_outputs; i++) {
        if (g->outputs[i] != from)
            continue;
        g->outputs[i] = to;
        g->values[from].is_output = false;
        g->values[to].is_output = true;
    }
}

/* Marks what the graph outputs need, backwards. Node indices are a work list: every node enters it once. */
static void mark_needed(const struct graph *g, bool *need_value, bool *need_node, int *work) {
    size_t n_work = 0;

    for (size_t i = 0; i < g->n_outputs; i++) {
        int p = g->values[g->outputs[i]].producer;

        need_value[g->outputs[i]] = true;
        if (p >= 0 && !need_node[p]) {
            need_node[p] = true;
            work[n_work++] = p;
        }
    }
    while (n_work) {
        const struct node *n = &g->nodes[work[--n_work]];

        for (int k = 0; k < n->n_in + n->n_post; k++) {
            int v = k < n->n_in ? n->in[k] : n->post[k - n->n_in].other, p;

            if (v < 0)
                continue;
            need_value[v] = true;
            p = g->values[v].producer;
            if (p >= 0 && !need_node[p]) {
                need_node[p] = true;
                work[n_work++] = p;
            }
        }
    }
}

/* `moved` is room for n_nodes + 1 numbers. */
static void keep_nodes(struct graph *g, const bool *keep, int *moved) {
    size_t n = 0;

    for (size_t i = 0; i < g->n_nodes; i++) {
        moved[i] = keep[i] ? (int)n : -1;
        if (keep[i])
            g->nodes[n++] = g->nodes[i];
    }
    g->n_nodes = n;
    for (size_t v = 0; v < g->n_values; v++)
        if (g->values[v].producer >= 0)
            g->values[v].producer = moved[g->values[v].producer];
}

int graph_drop_unused(struct graph *g) {
    _cleanup_(freep) bool *need_value = calloc(g->n_values + 1, sizeof(*need_value));
    _cleanup_(freep) bool *need_node = calloc(g->n_nodes + 1, sizeof(*need_node));
    _cleanup_(freep) int *work = calloc(g->n_nodes + 1, sizeof(*work));
    struct graph_store *s = g->store;
    size_t n = 0;

    if (!need_value || !need_node || !work)
        return -ENOMEM;
    mark_needed(g, need_value, need_node, work);
    keep_nodes(g, need_node, work);
    for (size_t i = 0; i < s->n_inits; i++) {
        struct value *v = &g->values[s->inits[i]];

        if (need_value[s->inits[i]]) {
            s->inits[n++] = s->inits[i];
            continue;
        }
        v->init = NULL;
        v->is_input = false;
    }
    s->n_inits = n;
    return 0;
}

static struct attr *find_or_add_attr(struct graph *g, struct node *n, const char *name) {
    struct attr *more;

    n->is_parsed = false;
    for (size_t i = 0; i < n->n_attr; i++)
        if (strcmp(n->attr[i].name, name) == 0)
            return &n->attr[i];
    more = graph_alloc(g, (n->n_attr + 1) * sizeof(*more));
    if (!more)
        return NULL;
    if (n->n_attr)
        memcpy(more, n->attr, n->n_attr * sizeof(*more));
    more[n->n_attr].name = graph_strdup(g, name, strlen(name));
    if (!more[n->n_attr].name)
        return NULL;
    n->attr = more;
    return &n->attr[n->n_attr++];
}

/* Puts `v` (without name) in place of what the attribute was. */
static int set_attr(struct graph *g, struct node *n, const char *name, struct attr v) {
    struct attr *a = find_or_add_attr(g, n, name);

    if (!a)
        return -ENOMEM;
    v.name = a->name;
    *a = v;
    return 0;
}

int graph_set_attr_int(struct graph *g, struct node *n, const char *name, int64_t v) {
    return set_attr(g, n, name, (struct attr){.type = ATTR_INT, .i = v});
}

int graph_set_attr_float(struct graph *g, struct node *n, const char *name, float v) {
    return set_attr(g, n, name, (struct attr){.type = ATTR_FLOAT, .f = v});
}

int graph_set_attr_ints(struct graph *g, struct node *n, const char *name, const int64_t *v, size_t count) {
    int64_t *copy = graph_alloc(g, count * sizeof(*copy));

    if (!copy)
        return -ENOMEM;
    memcpy(copy, v, count * sizeof(*copy));
    return set_attr(g, n, name, (struct attr){.type = ATTR_INTS, .n = count, .ints = copy});
}

int graph_set_attr_string(struct graph *g, struct node *n, const char *name, const char *v) {
    size_t size = strlen(v);
    const char *copy = graph_strdup(g, v, size);

    if (!copy)
        return -ENOMEM;
    return set_attr(
        g, n, name, (struct attr){.type = ATTR_STRING, .s = {.data = (const uint8_t *)copy, .size = size}});
}

int graph_set_attr_tensor(struct graph *g, struct node *n, const char *name, const struct tensor *t) {
    struct tensor *copy = graph_alloc(g, sizeof(*copy));

    if (!copy)
        return -ENOMEM;
    *copy = *t;
    return set_attr(g, n, name, (struct attr){.type = ATTR_TENSOR, .t = copy});
}

int graph_set_prop(struct graph *g, const char *key, const char *value) {
    const char *v = graph_strdup(g, value, strlen(value)), *k;
    int r;

    if (!v)
        return -ENOMEM;
    for (size_t i = 0; i < g->n_props; i++) {
        if (strcmp(g->props[i].key, key) == 0) {
            g->props[i].value = v;
            return 0;
        }
    }
    k = graph_strdup(g, key, strlen(key));
    r = k ? graph_grow(&g->props, &g->store->cap_props, g->n_props, sizeof(*g->props)) : -ENOMEM;
    if (r < 0)
        return r;
    g->props[g->n_props++] = (struct prop){.key = k, .value = v};
    return 0;
}
