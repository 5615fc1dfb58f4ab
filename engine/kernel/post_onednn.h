/* A node's posts as oneDNN post-operations. */
#ifndef ENGINE_KERNEL_POST_ONEDNN_H
#define ENGINE_KERNEL_POST_ONEDNN_H

#include "engine/kernel/kernel.h"
#include "engine/onednn.h"

/* Can oneDNN do them all on floats? */
bool post_onednn_fits(const struct layer *l);

struct post_onednn {
    dnnl_primitive_attr_t attr;
    int n_binary;             /* residuals read from elsewhere (not in place) */
    int arg[NODE_MAX_POSTS];  /* DNNL_ARG_… of each */
    int post[NODE_MAX_POSTS]; /* which post's residual it is */
    dnnl_memory_desc_t desc[NODE_MAX_POSTS];
};

/* `out`: shape of the result, or of the part of it that is computed. */
int post_onednn_init(
    const struct layer *l, const struct shape *out, struct post_onednn *ret, struct error *err);
void post_onednn_done(struct post_onednn *p);

/* Of the elementwise operator itself: algorithm of `op_type`, 0: oneDNN has none. */
dnnl_alg_kind_t eltwise_onednn(const char *op_type);

#endif
