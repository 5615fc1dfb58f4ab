#include "compress/graph_cut.h"

#include <errno.h>
#include <openssl/evp.h>
#include <string.h>

struct cut_place {
    struct cut_digest digest;
    int value;
};

struct cut_constant {
    const void *data;
    struct cut_digest digest;
};

/* ---- digests ---- */

static void md_freep(EVP_MD_CTX **md) {
    EVP_MD_CTX_free(*md);
}

/* Everything goes in with its size before it: no two sequences look alike. */
static void put(EVP_MD_CTX *md, const void *data, size_t size) {
    uint64_t n = size;

    EVP_DigestUpdate(md, &n, sizeof(n));
    EVP_DigestUpdate(md, data, size);
}

static void put_text(EVP_MD_CTX *md, const char *s) {
    put(md, s ? s : "", s ? strlen(s) : 0);
}

static void put_number(EVP_MD_CTX *md, int64_t v) {
    put(md, &v, sizeof(v));
}

static void end(EVP_MD_CTX *md, struct cut_digest *ret) {
    uint8_t whole[EVP_MAX_MD_SIZE];

    EVP_DigestFinal_ex(md, whole, NULL);
    memcpy(ret->byte, whole, sizeof(ret->byte));
}

static void put_tensor(EVP_MD_CTX *md, const struct tensor *t) {
    size_t size = 0;

    put_number(md, t->dtype);
    put(md, t->shape.dim, (size_t)(t->shape.rank > 0 ? t->shape.rank : 0) * sizeof(t->shape.dim[0]));
    if (shape_bytes(&t->shape, t->dtype, &size) && t->data)
        put(md, t->data, size);
}

static void put_attr(EVP_MD_CTX *md, const struct attr *a) {
    put_text(md, a->name);
    put_number(md, a->type);
    switch (a->type) {
    case ATTR_FLOAT: put(md, &a->f, sizeof(a->f)); break;
    case ATTR_INT: put_number(md, a->i); break;
    case ATTR_STRING: put(md, a->s.data, a->s.size); break;
    case ATTR_TENSOR: put_tensor(md, a->t); break;
    case ATTR_FLOATS: put(md, a->floats, a->n * sizeof(*a->floats)); break;
    case ATTR_INTS: put(md, a->ints, a->n * sizeof(*a->ints)); break;
    case ATTR_STRINGS:
        for (size_t i = 0; i < a->n; i++)
            put(md, a->strings[i].data, a->strings[i].size);
        break;
    case ATTR_GRAPH:
    case ATTR_OTHER:
    default: put(md, a->raw.data, a->raw.size);
    }
}

static int by_address(const void *a, const void *b) {
    const struct cut_constant *x = a, *y = b;

    return (x->data > y->data) - (x->data < y->data);
}

static int by_digest(const void *a, const void *b) {
    const struct cut_place *x = a, *y = b;
    int c = memcmp(x->digest.byte, y->digest.byte, sizeof(x->digest.byte));

    return c ? c : (x->value > y->value) - (x->value < y->value);
}

static void digest_constant(
    EVP_MD_CTX *md, const struct tensor *t, const struct cut_digests *like, struct cut_digest *ret) {
    const struct cut_constant *known = like ? bsearch(&(struct cut_constant){.data = t->data}, like->constant,
                                                  like->n_constants, sizeof(*like->constant), by_address)
                                            : NULL;

    EVP_DigestInit_ex(md, EVP_sha256(), NULL);
    if (known) {
        *ret = known->digest;
        return;
    }
    put_text(md, "constant");
    put_tensor(md, t);
    end(md, ret);
}

static void digest_node(EVP_MD_CTX *md, const struct graph *g, const struct node *n, struct cut_digests *d) {
    struct cut_digest all;

    EVP_DigestInit_ex(md, EVP_sha256(), NULL);
    put_text(md, n->domain);
    put_text(md, n->op_type);
    put_number(md, g->opset);
    for (size_t i = 0; i < n->n_attr; i++)
        put_attr(md, &n->attr[i]);
    for (int i = 0; i < n->n_in; i++)
        put(md, n->in[i] < 0 ? "" : (const char *)d->value[n->in[i]].byte, n->in[i] < 0 ? 0 : sizeof(all));
    end(md, &all);
    for (int k = 0; k < n->n_out; k++) {
        if (n->out[k] < 0)
            continue;
        EVP_DigestInit_ex(md, EVP_sha256(), NULL);
        put(md, all.byte, sizeof(all.byte));
        put_number(md, k);
        end(md, &d->value[n->out[k]]);
    }
}

static void digest_all(
    EVP_MD_CTX *md, const struct graph *g, const struct cut_digests *like, struct cut_digests *d) {
    for (size_t i = 0; i < g->n_inputs; i++) {
        EVP_DigestInit_ex(md, EVP_sha256(), NULL);
        put_text(md, "input");
        put_number(md, (int64_t)i);
        end(md, &d->value[g->inputs[i]]);
    }
    for (size_t v = 0; v < g->n_values; v++) {
        const struct tensor *t = g->values[v].init;

        if (!t)
            continue;
        digest_constant(md, t, like, &d->value[v]);
        if (t->data)
            d->constant[d->n_constants++] = (struct cut_constant){t->data, d->value[v]};
    }
    for (size_t i = 0; i < g->n_nodes; i++)
        digest_node(md, g, &g->nodes[i], d);
}

/* Two views of different types or shapes of one piece of memory are no constant to look up. */
static void keep_unique(struct cut_digests *d) {
    size_t n = 0;

    qsort(d->constant, d->n_constants, sizeof(*d->constant), by_address);
    for (size_t i = 0, next; i < d->n_constants; i = next) {
        bool same = true;

        for (next = i + 1; next < d->n_constants && d->constant[next].data == d->constant[i].data; next++)
            same =
                same && !memcmp(&d->constant[next].digest, &d->constant[i].digest, sizeof(struct cut_digest));
        if (same)
            d->constant[n++] = d->constant[i];
    }
    d->n_constants = n;
}

int cut_digests_new(
    const struct graph *g, const struct cut_digests *like, struct cut_digests *ret, struct error *err) {
    _cleanup_(cut_digests_done) struct cut_digests d = {.n = g->n_values,
        .value = calloc(g->n_values + 1, sizeof(*d.value)),
        .place = calloc(g->n_values + 1, sizeof(*d.place)),
        .constant = calloc(g->n_values + 1, sizeof(*d.constant))};
    _cleanup_(md_freep) EVP_MD_CTX *md = EVP_MD_CTX_new();

    if (!d.value || !d.place || !d.constant || !md)
        return error_oom(err);
    digest_all(md, g, like, &d);
    keep_unique(&d);
    for (size_t v = 0; v < d.n; v++)
        d.place[v] = (struct cut_place){d.value[v], (int)v};
    qsort(d.place, d.n, sizeof(*d.place), by_digest);
    *ret = d;
    d = (struct cut_digests){0};
    return 0;
}

void cut_digests_done(struct cut_digests *d) {
    free(d->value);
    free(d->place);
    free(d->constant);
    *d = (struct cut_digests){0};
}

int cut_digests_find(const struct cut_digests *d, const struct cut_digest *digest) {
    static const struct cut_digest none;
    size_t low = 0, high = d->n;

    if (!memcmp(digest, &none, sizeof(none)))
        return -1;
    while (low < high) {
        size_t mid = low + (high - low) / 2;

        if (memcmp(d->place[mid].digest.byte, digest->byte, sizeof(digest->byte)) < 0)
            low = mid + 1;
        else
            high = mid;
    }
    return low < d->n && !memcmp(d->place[low].digest.byte, digest->byte, sizeof(digest->byte))
               ? d->place[low].value
               : -1;
}

/* ---- cuts ---- */

void cut_done(struct cut *c) {
    graph_free(c->graph);
    free(c->in);
    *c = (struct cut){0};
}

static bool is_graph_input(const struct graph *g, int value) {
    for (size_t i = 0; i < g->n_inputs; i++)
        if (g->inputs[i] == value)
            return true;
    return false;
}

/* Walks back from what is wanted to what is given; fills c->in. */
static int walk(const struct graph *g, const int *wanted, size_t n_wanted,
    bool (*is_given)(void *ctx, int value), void *ctx, struct cut *c, struct error *err) {
    enum { UNSEEN, SEEN, WANTED };
    _cleanup_(freep) char *seen = calloc(g->n_values + 1, sizeof(*seen));
    _cleanup_(freep) int *stack = calloc(g->n_values + 1, sizeof(*stack));
    size_t n = 0;

    c->in = calloc(g->n_values + 1, sizeof(*c->in));
    if (!seen || !stack || !c->in)
        return error_oom(err);
    for (size_t i = 0; i < n_wanted; i++) {
        if (seen[wanted[i]] == UNSEEN)
            stack[n++] = wanted[i];
        seen[wanted[i]] = WANTED;
    }
    while (n > 0) {
        int v = stack[--n];
        const struct value *value = &g->values[v];

        if (value->init)
            continue;
        if (is_graph_input(g, v) || (seen[v] != WANTED && value->producer >= 0 && is_given(ctx, v))) {
            c->in[c->n_in++] = v;
            continue;
        }
        if (value->producer < 0)
            return error_set(err, -EBADMSG, "value '%s' comes from nowhere", value->name);
        for (int i = 0; i < g->nodes[value->producer].n_in; i++) {
            int in = g->nodes[value->producer].in[i];

            if (in < 0 || seen[in] != UNSEEN)
                continue;
            seen[in] = SEEN;
            stack[n++] = in;
        }
    }
    return 0;
}

static int by_number(const void *a, const void *b) {
    return (*(const int *)a > *(const int *)b) - (*(const int *)a < *(const int *)b);
}

/* The value becomes an input of its own. */
static int start_at(struct graph *g, int v, const struct shape *shape, bool is_free, struct error *err) {
    struct shape declared = *shape;
    const char *name = graph_unique_name(g, "cut");
    int value;

    if (is_free && declared.rank > 0)
        declared.dim[0] = -1;
    value = name ? graph_add_value(g, name, DT_F32, &declared) : -ENOMEM;
    if (value < 0 || graph_add_input(g, value) < 0)
        return error_oom(err);
    graph_replace_value(g, v, value);
    return 0;
}

int cut_new(const struct graph *g, const int *wanted, size_t n_wanted, bool (*is_given)(void *ctx, int value),
    const struct shape *(*shape_of)(void *ctx, int value), void *ctx, struct cut *ret, struct error *err) {
    bool is_free = g->n_inputs > 0 && g->values[g->inputs[0]].shape.rank > 0 &&
                   g->values[g->inputs[0]].shape.dim[0] <= 0;
    _cleanup_(cut_done) struct cut c = {0};
    int r = graph_clone(g, &c.graph, err);

    if (r == 0)
        r = walk(g, wanted, n_wanted, is_given, ctx, &c, err);
    if (r < 0)
        return r;
    qsort(c.in, c.n_in, sizeof(*c.in), by_number);
    for (size_t i = 0; i < c.graph->n_outputs; i++)
        c.graph->values[c.graph->outputs[i]].is_output = false;
    for (size_t i = 0; i < c.graph->n_inputs; i++)
        c.graph->values[c.graph->inputs[i]].is_input = false;
    c.graph->n_outputs = c.graph->n_inputs = 0;
    for (size_t i = 0; r == 0 && i < c.n_in; i++)
        r = is_graph_input(g, c.in[i]) ? graph_add_input(c.graph, c.in[i])
                                       : start_at(c.graph, c.in[i], shape_of(ctx, c.in[i]), is_free, err);
    for (size_t i = 0; r == 0 && i < n_wanted; i++)
        r = graph_add_output(c.graph, wanted[i]);
    if (r < 0 || graph_drop_unused(c.graph) < 0)
        return error_oom(err);
    r = graph_finish(c.graph, err);
    if (r < 0)
        return r;
    *ret = c;
    c = (struct cut){0};
    return 0;
}
