#include "engine/onednn.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

/* libgomp's; declared here so that no OpenMP compiler flag is needed */
void omp_set_num_threads(int n);

void onednn_enter(void) {
    omp_set_num_threads(1);
}

int onednn_error(struct error *err, dnnl_status_t st, const char *what) {
    if (st == dnnl_out_of_memory)
        return error_oom(err);
    if (st == dnnl_unimplemented || st == dnnl_invalid_arguments)
        return error_set(err, -EOPNOTSUPP, "oneDNN has no %s for this shape", what);
    return error_set(err, -EIO, "oneDNN failed in %s (status %d)", what, (int)st);
}

int onednn_new(struct onednn **ret, struct error *err) {
    struct onednn *o = calloc(1, sizeof(*o));
    dnnl_status_t st;

    if (!o)
        return error_oom(err);
    onednn_enter();
    st = dnnl_engine_create(&o->engine, dnnl_cpu, 0);
    if (st == dnnl_success)
        st = dnnl_stream_create(&o->stream, o->engine, dnnl_stream_default_flags);
    if (st != dnnl_success) {
        onednn_free(o);
        return onednn_error(err, st, "engine");
    }
    *ret = o;
    return 0;
}

struct onednn *onednn_free(struct onednn *o) {
    if (!o)
        return NULL;
    if (o->stream)
        dnnl_stream_destroy(o->stream);
    if (o->engine)
        dnnl_engine_destroy(o->engine);
    free(o);
    return NULL;
}

static dnnl_data_type_t data_type(enum dtype t) {
    static const struct {
        enum dtype dtype;
        dnnl_data_type_t type;
    } types[] = {
        {DT_F32, dnnl_f32},
        {DT_U8, dnnl_u8},
        {DT_S8, dnnl_s8},
        {DT_S32, dnnl_s32},
        {DT_BF16, dnnl_bf16},
    };

    for (size_t i = 0; i < sizeof(types) / sizeof(*types); i++) {
        if (types[i].dtype == t)
            return types[i].type;
    }
    return dnnl_data_type_undef;
}

bool onednn_desc(const struct shape *s, enum dtype t, enum layout l, dnnl_memory_desc_t *ret) {
    static const dnnl_format_tag_t plain[] = {
        0, dnnl_a, dnnl_ab, dnnl_abc, dnnl_abcd, dnnl_abcde, dnnl_abcdef};
    static const dnnl_format_tag_t last[] = {0, dnnl_a, dnnl_ab, dnnl_acb, dnnl_acdb, dnnl_acdeb};
    dnnl_format_tag_t tag = dnnl_format_tag_undef;
    dnnl_dims_t dims = {0};

    if (s->rank < 1 || s->rank > 6 || data_type(t) == dnnl_data_type_undef)
        return false;
    if (l == LAYOUT_PLAIN)
        tag = plain[s->rank];
    else if (l == LAYOUT_NHWC && s->rank <= 5)
        tag = last[s->rank];
    else if (l == LAYOUT_nChw16c && s->rank == 4)
        tag = dnnl_aBcd16b;
    if (tag == dnnl_format_tag_undef)
        return false;
    for (int i = 0; i < s->rank; i++)
        dims[i] = s->dim[i];
    return dnnl_memory_desc_init_by_tag(ret, s->rank, dims, data_type(t), tag) == dnnl_success;
}

/* The memory objects of one run in progress. The library binds addresses to them, so that each thread needs
 * its own; they go back to the list when the run is over. */
struct onednn_args {
    struct onednn_args *next;
    dnnl_exec_arg_t arg[ONEDNN_MAX_ARGS + 1]; /* the last: scratchpad */
};

struct onednn_prim {
    dnnl_primitive_t primitive;
    dnnl_primitive_desc_t pd;
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    atomic_size_t *n_alive; /* the engine's count */
    int n_args;
    int args[ONEDNN_MAX_ARGS];
    const dnnl_memory_desc_t *desc[ONEDNN_MAX_ARGS];
    dnnl_memory_desc_t post_desc[ONEDNN_MAX_ARGS];
    size_t scratch;
    char *name;

    pthread_mutex_t mutex; /* protects the list */
    pthread_cond_t given_back;
    struct onednn_args *free_args;
};

static void args_free(struct onednn_args *a) {
    if (!a)
        return;
    for (int i = 0; i <= ONEDNN_MAX_ARGS; i++) {
        if (a->arg[i].memory)
            dnnl_memory_destroy(a->arg[i].memory);
    }
    free(a);
}

static struct onednn_args *args_new(const struct onednn_prim *p) {
    struct onednn_args *a = calloc(1, sizeof(*a));
    dnnl_status_t st = dnnl_success;

    if (!a)
        return NULL;
    for (int i = 0; st == dnnl_success && i < p->n_args; i++) {
        a->arg[i].arg = p->args[i];
        st = dnnl_memory_create(&a->arg[i].memory, p->desc[i], p->engine, DNNL_MEMORY_NONE);
    }
    if (st == dnnl_success && p->scratch) {
        a->arg[p->n_args].arg = DNNL_ARG_SCRATCHPAD;
        st = dnnl_memory_create(&a->arg[p->n_args].memory,
            dnnl_primitive_desc_query_md(p->pd, dnnl_query_scratchpad_md, 0), p->engine, DNNL_MEMORY_NONE);
    }
    if (st != dnnl_success) {
        args_free(a);
        return NULL;
    }
    return a;
}

/* A set nobody uses: from the list, else a new one, else (out of memory) the first that comes back. There is
 * always one, made with the primitive. */
static struct onednn_args *args_take(struct onednn_prim *p) {
    struct onednn_args *a;

    pthread_mutex_lock(&p->mutex);
    a = p->free_args;
    if (a)
        p->free_args = a->next;
    pthread_mutex_unlock(&p->mutex);
    if (a)
        return a;
    a = args_new(p);
    if (a)
        return a;
    pthread_mutex_lock(&p->mutex);
    while (!p->free_args)
        pthread_cond_wait(&p->given_back, &p->mutex);
    a = p->free_args;
    p->free_args = a->next;
    pthread_mutex_unlock(&p->mutex);
    return a;
}

static void args_give(struct onednn_prim *p, struct onednn_args *a) {
    pthread_mutex_lock(&p->mutex);
    a->next = p->free_args;
    p->free_args = a;
    pthread_cond_signal(&p->given_back);
    pthread_mutex_unlock(&p->mutex);
}

static dnnl_status_t describe_args(
    struct onednn_prim *p, const int *args, int n_args, const dnnl_memory_desc_t *post_desc) {
    int n_post = 0;

    p->n_args = n_args;
    for (int i = 0; i < n_args; i++) {
        p->args[i] = args[i];
        if (args[i] >= DNNL_ARG_ATTR_MULTIPLE_POST_OP_BASE) {
            p->post_desc[n_post] = post_desc[n_post];
            p->desc[i] = &p->post_desc[n_post++];
        } else {
            p->desc[i] = dnnl_primitive_desc_query_md(p->pd, dnnl_query_exec_arg_md, args[i]);
        }
        if (!p->desc[i])
            return dnnl_invalid_arguments;
    }
    return dnnl_success;
}

/* Takes `pd`. */
static int prim_from_pd(const struct onednn *o, dnnl_primitive_desc_t pd, const int *args, int n_args,
    const dnnl_memory_desc_t *post_desc, struct onednn_prim **ret, struct error *err) {
    struct onednn_prim *p = calloc(1, sizeof(*p));
    const char *name = NULL;
    dnnl_status_t st;

    if (!p) {
        dnnl_primitive_desc_destroy(pd);
        return error_oom(err);
    }
    pthread_mutex_init(&p->mutex, NULL);
    pthread_cond_init(&p->given_back, NULL);
    p->pd = pd;
    p->engine = o->engine;
    p->stream = o->stream;
    dnnl_primitive_desc_query(pd, dnnl_query_impl_info_str, 0, &name);
    p->name = strdup(name ? name : "");
    if (!p->name || strstr(p->name, "ref")) {
        onednn_prim_free(p);
        return onednn_error(
            err, name && strstr(name, "ref") ? dnnl_unimplemented : dnnl_out_of_memory, "fast code");
    }
    st = describe_args(p, args, n_args, post_desc);
    if (st == dnnl_success)
        st = dnnl_primitive_create(&p->primitive, pd);
    if (st == dnnl_success) {
        p->scratch = dnnl_memory_desc_get_size(dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0));
        p->free_args = args_new(p);
    }
    if (!p->free_args) {
        onednn_prim_free(p);
        return onednn_error(err, st == dnnl_success ? dnnl_out_of_memory : st, "primitive");
    }
    p->n_alive = &((struct onednn *)(uintptr_t)o)->n_prims;
    atomic_fetch_add(p->n_alive, 1);
    *ret = p;
    return 0;
}

static int make_prim(const struct onednn *o, const void *op_desc, const_dnnl_primitive_attr_t attr,
    const_dnnl_primitive_desc_t hint, const int *args, int n_args, const dnnl_memory_desc_t *post_desc,
    struct onednn_prim **ret, struct error *err) {
    dnnl_primitive_attr_t own = NULL;
    dnnl_primitive_desc_t pd;
    dnnl_status_t st;

    if (n_args > ONEDNN_MAX_ARGS)
        return error_set(err, -EOPNOTSUPP, "too many arguments of a primitive");
    onednn_enter();
    st = attr ? dnnl_primitive_attr_clone(&own, attr) : dnnl_primitive_attr_create(&own);
    if (st == dnnl_success)
        st = dnnl_primitive_attr_set_scratchpad_mode(own, dnnl_scratchpad_mode_user);
    if (st == dnnl_success)
        st = dnnl_primitive_desc_create(&pd, op_desc, own, o->engine, hint);
    if (own)
        dnnl_primitive_attr_destroy(own);
    if (st != dnnl_success)
        return onednn_error(err, st, "primitive");
    return prim_from_pd(o, pd, args, n_args, post_desc, ret, err);
}

int onednn_prim_new(const struct onednn *o, const void *op_desc, const_dnnl_primitive_attr_t attr,
    const int *args, int n_args, const dnnl_memory_desc_t *post_desc, struct onednn_prim **ret,
    struct error *err) {
    return make_prim(o, op_desc, attr, NULL, args, n_args, post_desc, ret, err);
}

int onednn_prim_new_backward(const struct onednn *o, const void *op_desc, const struct onednn_prim *forward,
    const int *args, int n_args, struct onednn_prim **ret, struct error *err) {
    return make_prim(o, op_desc, NULL, forward->pd, args, n_args, NULL, ret, err);
}

int onednn_reorder_new(const struct onednn *o, const dnnl_memory_desc_t *from, const dnnl_memory_desc_t *to,
    struct onednn_prim **ret, struct error *err) {
    static const int args[] = {DNNL_ARG_FROM, DNNL_ARG_TO};
    dnnl_primitive_attr_t attr = NULL;
    dnnl_primitive_desc_t pd;
    dnnl_status_t st;

    onednn_enter();
    st = dnnl_primitive_attr_create(&attr);
    if (st == dnnl_success)
        st = dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user);
    if (st == dnnl_success)
        st = dnnl_reorder_primitive_desc_create(&pd, from, o->engine, to, o->engine, attr);
    if (attr)
        dnnl_primitive_attr_destroy(attr);
    if (st != dnnl_success)
        return onednn_error(err, st, "reorder");
    return prim_from_pd(o, pd, args, 2, NULL, ret, err);
}

struct onednn_prim *onednn_prim_free(struct onednn_prim *p) {
    if (!p)
        return NULL;
    while (p->free_args) {
        struct onednn_args *a = p->free_args;

        p->free_args = a->next;
        args_free(a);
    }
    if (p->primitive)
        dnnl_primitive_destroy(p->primitive);
    if (p->n_alive)
        atomic_fetch_sub(p->n_alive, 1);
    if (p->pd)
        dnnl_primitive_desc_destroy(p->pd);
    pthread_cond_destroy(&p->given_back);
    pthread_mutex_destroy(&p->mutex);
    free(p->name);
    free(p);
    return NULL;
}

size_t onednn_prim_scratch(const struct onednn_prim *p) {
    return p->scratch;
}

const char *onednn_prim_name(const struct onednn_prim *p) {
    return p->name;
}

const dnnl_memory_desc_t *onednn_prim_desc(const struct onednn_prim *p, int arg) {
    for (int i = 0; i < p->n_args; i++) {
        if (p->args[i] == arg)
            return p->desc[i];
    }
    return NULL;
}

void onednn_prim_run(const struct onednn_prim *p, void *const *data, void *scratch) {
    struct onednn_prim *m = (struct onednn_prim *)(uintptr_t)p; /* its list */
    struct onednn_args *a = args_take(m);

    for (int i = 0; i < p->n_args; i++)
        dnnl_memory_set_data_handle(a->arg[i].memory, data[i]);
    if (p->scratch)
        dnnl_memory_set_data_handle(a->arg[p->n_args].memory, scratch);
    if (dnnl_primitive_execute(p->primitive, p->stream, p->n_args + (p->scratch != 0), a->arg) !=
        dnnl_success)
        abort(); /* every argument was checked when the primitive was made */
    args_give(m, a);
}

int onednn_reorder(const struct onednn *o, const dnnl_memory_desc_t *from_desc, const void *from,
    const dnnl_memory_desc_t *to_desc, void *to, struct error *err) {
    dnnl_primitive_desc_t pd = NULL;
    dnnl_primitive_t prim = NULL;
    dnnl_memory_t in = NULL, out = NULL;
    dnnl_status_t st;

    onednn_enter();
    st = dnnl_reorder_primitive_desc_create(&pd, from_desc, o->engine, to_desc, o->engine, NULL);
    if (st == dnnl_success)
        st = dnnl_primitive_create(&prim, pd);
    if (st == dnnl_success)
        st = dnnl_memory_create(&in, from_desc, o->engine, (void *)(uintptr_t)from);
    if (st == dnnl_success)
        st = dnnl_memory_create(&out, to_desc, o->engine, to);
    if (st == dnnl_success) {
        dnnl_exec_arg_t args[] = {{DNNL_ARG_FROM, in}, {DNNL_ARG_TO, out}};

        st = dnnl_primitive_execute(prim, o->stream, 2, args);
    }
    if (in)
        dnnl_memory_destroy(in);
    if (out)
        dnnl_memory_destroy(out);
    if (prim)
        dnnl_primitive_destroy(prim);
    if (pd)
        dnnl_primitive_desc_destroy(pd);
    return st == dnnl_success ? 0 : onednn_error(err, st, "reorder");
}

void onednn_product(const struct onednn_matrix *a, const struct onednn_matrix *b, float alpha, float beta,
    int64_t m, int64_t k, int64_t n, float *y) {
    if (dnnl_sgemm(a->is_transposed ? 'T' : 'N', b->is_transposed ? 'T' : 'N', m, n, k, alpha, a->data,
            a->row, b->data, b->row, beta, y, n) != dnnl_success)
        abort(); /* the sizes were checked when the layer was made */
}
