/* A net with one plan, one arena and room for its outputs: what one thread of the worker runs. */
#ifndef COMPRESS_SESSION_H
#define COMPRESS_SESSION_H

#include "engine/net.h"

struct session {
    struct net *net; /* owned reference */
    struct plan *plan;
    struct arena arena;
    struct tensor *out; /* [n_out], data owned by the session */
    size_t n_out;
    unsigned threads;
    struct pool *pool; /* NULL: one thread */
};

/* Opens a file. `o` without its cpu; NULL: the default. */
int session_open_file(
    const char *path, const struct net_options *o, unsigned threads, struct session *ret, struct error *err);

/* Takes the graph, also on failure. */
int session_open_graph(struct graph *g, struct session *ret, struct error *err);
void session_done(struct session *s);

/* Plans for these input shapes unless the present plan is for them already. */
int session_plan(struct session *s, const struct shape *inputs, size_t n, struct error *err);

/* in[]: as plan_run. */
void session_run(struct session *s, const struct tensor *in);

/* Memory for `size` bytes, aligned to 64; NULL: out of memory. free() it. */
void *alloc_aligned(size_t size);

#endif
