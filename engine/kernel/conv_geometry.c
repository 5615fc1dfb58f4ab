#include "engine/kernel/conv_geometry.h"

#include <string.h>

/* The attribute's numbers for two dimensions: {fill, x} where the node has one. */
static void read_ints(const struct node *n, const char *name, int spatial, int64_t fill, int64_t ret[2]) {
    const struct attr *a = node_attr(n, name);

    ret[0] = ret[1] = fill;
    if (!a || a->type != ATTR_INTS || a->n < (size_t)spatial)
        return;
    for (int i = 0; i < spatial; i++)
        ret[2 - spatial + i] = a->ints[i];
}

/* auto_pad: SAME_* share what the output needs, the odd one behind (UPPER) or before (LOWER). */
static int64_t auto_pad(
    const char *mode, int64_t in, int64_t out, int64_t kernel, int64_t stride, int64_t dilation) {
    int64_t total = (out - 1) * stride + (kernel - 1) * dilation + 1 - in;

    if (strcmp(mode, "VALID") == 0 || total <= 0)
        return 0;
    return strcmp(mode, "SAME_LOWER") == 0 ? (total + 1) / 2 : total / 2;
}

bool conv_geometry_init(const struct layer *l, const int64_t *kernel, struct conv_geometry *ret) {
    const struct shape *x = &l->in[0]->shape, *y = &l->out[0].shape;
    int spatial = x->rank - 2;
    const char *mode = node_attr_string(l->node, "auto_pad", "NOTSET");
    struct conv_geometry g = {.n = x->dim[0], .c = x->dim[1], .h = 1, .oh = 1, .kh = 1};
    int64_t strides[2], dilations[2], pads[2];

    if (spatial != 1 && spatial != 2)
        return false;
    g.w = x->dim[x->rank - 1];
    g.oc = y->dim[1];
    g.ow = y->dim[y->rank - 1];
    g.kw = kernel[spatial - 1];
    if (spatial == 2) {
        g.h = x->dim[2];
        g.oh = y->dim[2];
        g.kh = kernel[0];
    }
    read_ints(l->node, "strides", spatial, 1, strides);
    read_ints(l->node, "dilations", spatial, 1, dilations);
    read_ints(l->node, "pads", spatial, 0, pads); /* all begins, then all ends */
    g.sh = strides[0];
    g.sw = strides[1];
    g.dh = dilations[0];
    g.dw = dilations[1];
    g.pt = pads[0];
    g.pl = pads[1];
    if (strcmp(mode, "NOTSET") != 0) {
        g.pt = auto_pad(mode, g.h, g.oh, g.kh, g.sh, g.dh);
        g.pl = auto_pad(mode, g.w, g.ow, g.kw, g.sw, g.dw);
    }
    if (spatial == 1)
        g.pt = 0;
    *ret = g;
    return true;
}
