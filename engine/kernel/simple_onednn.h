/* A oneDNN primitive with inputs and one output and nothing packed. */
#ifndef ENGINE_KERNEL_SIMPLE_ONEDNN_H
#define ENGINE_KERNEL_SIMPLE_ONEDNN_H

#include "engine/kernel/kernel.h"
#include "engine/onednn.h"

/* `op_desc` has one source and one destination. */
int simple_onednn_prepare(const struct layer *l, const void *op_desc, struct kernel_state **ret,
    size_t *ret_scratch, struct error *err);
void simple_onednn_run(const struct kernel_state *s, const struct run_io *io);
struct kernel_state *simple_onednn_done(struct kernel_state *s);

#endif
