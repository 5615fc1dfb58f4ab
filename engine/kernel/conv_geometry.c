#include "engine/kernel/conv_geometry.h"

#include "engine/kernel/window.h"

bool conv_geometry_init(const struct layer *l, const struct shape *weight, struct conv_geometry *ret) {
    const struct shape *x = &l->in[0]->shape, *y = &l->out[0].shape;
    struct kernel_window w;
    struct conv_geometry g = {.n = x->dim[0], .c = x->dim[1], .oc = y->dim[1]};
    int last;

    if (!kernel_window_read(l->node, x, y, weight, &w) || w.rank > 2)
        return false;
    last = w.rank - 1;
    g.h = g.oh = g.kh = g.sh = g.dh = 1;
    if (w.rank == 2) {
        g.h = x->dim[2];
        g.oh = y->dim[2];
        g.kh = w.kernel[0];
        g.sh = w.stride[0];
        g.dh = w.dilation[0];
        g.pt = w.begin[0];
    }
    g.w = x->dim[x->rank - 1];
    g.ow = y->dim[y->rank - 1];
    g.kw = w.kernel[last];
    g.sw = w.stride[last];
    g.dw = w.dilation[last];
    g.pl = w.begin[last];
    *ret = g;
    return g.n > 0 && g.c > 0 && g.oc > 0 && g.oh > 0 && g.ow > 0 && g.pt >= 0 && g.pl >= 0;
}

double conv_geometry_macs(const struct conv_geometry *g, int64_t ic) {
    return (double)(g->n * g->oh * g->ow * g->oc) * (double)ic * (double)g->kh * (double)g->kw;
}
