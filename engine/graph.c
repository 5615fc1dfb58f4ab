#include "engine/graph.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "engine/graph_store.h"

#define CHUNK_SIZE ((size_t)64 << 10)

static struct graph_mem *mem_new(void) {
    struct graph_mem *m = calloc(1, sizeof(*m));

    if (m)
        atomic_init(&m->n_refs, 1);
    return m;
}

static void mem_unref(struct graph_mem *m) {
    while (m && atomic_fetch_sub(&m->n_refs, 1) == 1) {
        struct graph_mem *base = m->base;

        for (struct graph_chunk *c = m->chunks, *next; c; c = next) {
            next = c->next;
            free(c);
        }
        if (m->map)
            munmap(m->map, m->map_size);
        free(m);
        m = base;
    }
}

struct graph *graph_new(void) {
    _cleanup_(graph_freep) struct graph *g = calloc(1, sizeof(*g));

    if (!g)
        return NULL;
    g->store = calloc(1, sizeof(*g->store));
    if (!g->store)
        return NULL;
    name_index_init(&g->store->names);
    g->store->mem = mem_new();
    if (!g->store->mem)
        return NULL;
    g->name = g->producer = "";
    return TAKE(g);
}

struct graph *graph_free(struct graph *g) {
    struct graph_store *s = g ? g->store : NULL;

    if (s) {
        mem_unref(s->mem);
        name_index_done(&s->names);
        free(s->listed);
        free(s->inits);
        free(s->imports);
        free(s->kept_model);
        free(s->kept_graph);
        free(s);
    }
    if (g) {
        free(g->values);
        free(g->nodes);
        free(g->inputs);
        free(g->outputs);
        free(g->props);
        free(g);
    }
    return NULL;
}

void *graph_alloc(struct graph *g, size_t size) {
    struct graph_mem *m = g->store->mem;
    struct graph_chunk *c = m->chunks;
    size_t align = size >= 64 ? 64 : 16, at = c ? (c->used + align - 1) & ~(align - 1) : 0;

    if (!c || at > c->size || size > c->size - at) {
        size_t want = size > CHUNK_SIZE / 4 ? size : CHUNK_SIZE, total;

        if (__builtin_add_overflow(want, sizeof(*c), &total) ||
            __builtin_add_overflow(total, (size_t)63, &total))
            return NULL;
        c = aligned_alloc(64, total & ~(size_t)63);
        if (!c)
            return NULL;
        *c = (struct graph_chunk){.size = want, .is_single = size > CHUNK_SIZE / 4};
        at = 0;
        /* a big block goes behind the open chunk, whose room is still good */
        if (size > CHUNK_SIZE / 4 && m->chunks) {
            c->next = m->chunks->next;
            m->chunks->next = c;
        } else {
            c->next = m->chunks;
            m->chunks = c;
        }
    }
    c->used = at + size;
    if (size)
        memset(c->data + at, 0, size);
    return c->data + at;
}

const char *graph_strdup(struct graph *g, const char *s, size_t size) {
    char *p = size < SIZE_MAX ? graph_alloc(g, size + 1) : NULL;

    if (p && size)
        memcpy(p, s, size);
    return p;
}

int graph_grow(void *array_ptr, size_t *cap, size_t n, size_t element) {
    size_t more = *cap ? *cap * 2 : 16;
    void *old, *p;

    if (n < *cap)
        return 0;
    if (n >= GRAPH_MAX_COUNT)
        return -EFBIG;
    memcpy(&old, array_ptr, sizeof(old));
    p = reallocarray(old, more, element);
    if (!p)
        return -ENOMEM;
    memcpy(array_ptr, &p, sizeof(p));
    *cap = more;
    return 0;
}

int graph_put_bytes(struct bytes **list, size_t *n, size_t *cap, struct bytes b) {
    int r = graph_grow(list, cap, *n, sizeof(**list));

    if (r < 0)
        return r;
    (*list)[(*n)++] = b;
    return 0;
}

/* A malloc'ed copy of `n` elements; *ret NULL for none. */
static int copy_array(const void *from, size_t n, size_t element, void *ret_ptr, size_t *cap) {
    void *p = NULL;

    if (n) {
        p = reallocarray(NULL, n, element);
        if (!p)
            return -ENOMEM;
        memcpy(p, from, n * element);
    }
    memcpy(ret_ptr, &p, sizeof(p));
    if (cap)
        *cap = n;
    return 0;
}

static int copy_store(const struct graph_store *from, struct graph_store *to) {
    name_index_done(&to->names);
    if (name_index_copy(&from->names, &to->names) < 0 ||
        copy_array(from->listed, from->n_listed, sizeof(int), &to->listed, &to->cap_listed) < 0 ||
        copy_array(from->inits, from->n_inits, sizeof(int), &to->inits, &to->cap_inits) < 0 ||
        copy_array(from->imports, from->n_imports, sizeof(*to->imports), &to->imports, &to->cap_imports) <
            0 ||
        copy_array(from->kept_model, from->n_kept_model, sizeof(struct bytes), &to->kept_model,
            &to->cap_kept_model) < 0 ||
        copy_array(from->kept_graph, from->n_kept_graph, sizeof(struct bytes), &to->kept_graph,
            &to->cap_kept_graph) < 0)
        return -ENOMEM;
    to->n_listed = from->n_listed;
    to->n_inits = from->n_inits;
    to->n_imports = from->n_imports;
    to->n_kept_model = from->n_kept_model;
    to->n_kept_graph = from->n_kept_graph;
    return 0;
}

/* Attributes and links of a node are edited in place: each clone has its own. */
static int copy_node(struct graph *to, struct node *n) {
    int *links = graph_alloc(to, ((size_t)n->n_in + (size_t)n->n_out) * sizeof(*links));
    struct attr *attr = graph_alloc(to, n->n_attr * sizeof(*attr));

    if (!links || !attr)
        return -ENOMEM;
    if (n->n_in)
        memcpy(links, n->in, (size_t)n->n_in * sizeof(*links));
    if (n->n_out)
        memcpy(links + n->n_in, n->out, (size_t)n->n_out * sizeof(*links));
    if (n->n_attr)
        memcpy(attr, n->attr, n->n_attr * sizeof(*attr));
    n->in = links;
    n->out = links + n->n_in;
    n->attr = attr;
    return 0;
}

int graph_clone(const struct graph *g, struct graph **ret, struct error *err) {
    _cleanup_(graph_freep) struct graph *c = graph_new();
    const struct graph_store *s = g->store;
    int r;

    if (!c)
        return error_oom(err);
    atomic_fetch_add(&s->mem->n_refs, 1);
    c->store->mem->base = s->mem;
    c->name = g->name;
    c->producer = g->producer;
    c->ir_version = g->ir_version;
    c->opset = g->opset;
    r = copy_store(s, c->store);
    if (r == 0)
        r = copy_array(g->values, g->n_values, sizeof(*g->values), &c->values, &c->store->cap_values);
    if (r == 0)
        r = copy_array(g->nodes, g->n_nodes, sizeof(*g->nodes), &c->nodes, &c->store->cap_nodes);
    if (r == 0)
        r = copy_array(g->inputs, g->n_inputs, sizeof(int), &c->inputs, &c->store->cap_inputs);
    if (r == 0)
        r = copy_array(g->outputs, g->n_outputs, sizeof(int), &c->outputs, &c->store->cap_outputs);
    if (r == 0)
        r = copy_array(g->props, g->n_props, sizeof(*g->props), &c->props, &c->store->cap_props);
    if (r < 0)
        return error_oom(err);
    c->n_values = g->n_values;
    c->n_nodes = g->n_nodes;
    c->n_inputs = g->n_inputs;
    c->n_outputs = g->n_outputs;
    c->n_props = g->n_props;
    for (size_t i = 0; i < c->n_nodes; i++)
        if (copy_node(c, &c->nodes[i]) < 0)
            return error_oom(err);
    *ret = TAKE(c);
    return 0;
}

const char *graph_prop(const struct graph *g, const char *key) {
    for (size_t i = 0; i < g->n_props; i++)
        if (strcmp(g->props[i].key, key) == 0)
            return g->props[i].value;
    return NULL;
}

int graph_find_value(const struct graph *g, const char *name) {
    int id;

    return name_index_find(&g->store->names, name, &id) ? id : -1;
}

int graph_find_node(const struct graph *g, const char *id) {
    for (size_t i = 0; i < g->n_nodes; i++)
        if (g->nodes[i].id && strcmp(g->nodes[i].id, id) == 0)
            return (int)i;
    return -1;
}

/* Big blocks have a chunk to themselves (graph_alloc). One that many small blocks fill to the last byte has
 * not. */
static bool is_only_block(const struct graph_chunk *c, const void *data) {
    return c->data == data && c->is_single;
}

static bool drop_init(struct graph_mem *m, const void *data) {
    for (struct graph_chunk **c = &m->chunks; *c; c = &(*c)->next) {
        struct graph_chunk *gone = *c;

        if (!is_only_block(gone, data))
            continue;
        *c = gone->next;
        free(gone);
        return true;
    }
    return false;
}

void graph_drop_constants(struct graph *g) {
    for (size_t i = 0; i < g->n_values; i++) {
        struct value *v = &g->values[i];

        if (v->init && v->init->data && drop_init(g->store->mem, v->init->data))
            v->init = NULL;
    }
}

size_t graph_count_bytes(const struct graph *g) {
    const struct graph_store *s = g->store;
    size_t sum = sizeof(*g) + s->cap_values * sizeof(*g->values) + s->cap_nodes * sizeof(*g->nodes);

    for (const struct graph_chunk *c = s->mem->chunks; c; c = c->next)
        sum += c->size;
    return sum;
}

void graph_release_pages(const struct graph *g) {
    for (const struct graph_mem *m = g->store->mem; m; m = m->base) {
        if (m->map)
            (void)madvise(m->map, m->map_size, MADV_DONTNEED);
    }
}

size_t graph_consumers(const struct graph *g, int value, int *ret, size_t max) {
    size_t n = 0;

    for (size_t i = 0; i < g->n_nodes; i++) {
        const struct node *node = &g->nodes[i];
        bool reads = false;

        for (int k = 0; k < node->n_in && !reads; k++)
            reads = node->in[k] == value;
        for (int k = 0; k < node->n_post && !reads; k++)
            reads = node->post[k].other == value;
        if (!reads)
            continue;
        if (n < max)
            ret[n] = (int)i;
        n++;
    }
    return n;
}

const char *graph_node_label(const struct graph *g, const struct node *n) {
    if (n->name && n->name[0])
        return n->name;
    if (n->id)
        return n->id;
    return n->n_out > 0 && n->out[0] >= 0 ? g->values[n->out[0]].name : n->op_type;
}

const struct attr *node_attr(const struct node *n, const char *name) {
    for (size_t i = 0; i < n->n_attr; i++)
        if (strcmp(n->attr[i].name, name) == 0)
            return &n->attr[i];
    return NULL;
}

int64_t node_attr_int(const struct node *n, const char *name, int64_t dflt) {
    const struct attr *a = node_attr(n, name);

    return a && a->type == ATTR_INT ? a->i : dflt;
}

float node_attr_float(const struct node *n, const char *name, float dflt) {
    const struct attr *a = node_attr(n, name);

    return a && a->type == ATTR_FLOAT ? a->f : dflt;
}

const char *node_attr_string(const struct node *n, const char *name, const char *dflt) {
    const struct attr *a = node_attr(n, name);

    /* the reader copies strings with a zero behind them */
    return a && a->type == ATTR_STRING ? (const char *)a->s.data : dflt;
}
