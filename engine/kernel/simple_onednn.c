#include "engine/kernel/simple_onednn.h"

#include <stdlib.h>

struct kernel_state {
    struct onednn_prim *prim;
};

struct kernel_state *simple_onednn_done(struct kernel_state *s) {
    if (s)
        onednn_prim_free(s->prim);
    free(s);
    return NULL;
}

int simple_onednn_prepare(const struct layer *l, const void *op_desc, struct kernel_state **ret,
    size_t *ret_scratch, struct error *err) {
    static const int args[] = {DNNL_ARG_SRC, DNNL_ARG_DST};
    struct kernel_state *s = calloc(1, sizeof(*s));
    int r;

    if (!s)
        return error_oom(err);
    r = onednn_prim_new(l->onednn, op_desc, NULL, args, 2, NULL, &s->prim, err);
    if (r < 0) {
        simple_onednn_done(s);
        return r;
    }
    *ret_scratch = onednn_prim_scratch(s->prim);
    *ret = s;
    return 0;
}

void simple_onednn_run(const struct kernel_state *s, const struct run_io *io) {
    void *data[] = {(void *)(uintptr_t)io->in[0], io->out[0]};

    onednn_prim_run(s->prim, data, io->scratch);
}
