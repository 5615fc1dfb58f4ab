/* Layers make new channels; elementwise operators, norms and pools pass them on. */
#include <errno.h>
#include <string.h>

#include "compress/coupling_priv.h"

static const char is_encoded[] = "weights of a layer behind it are encoded or computed";
static const char has_odd_axis[] = "a layer behind it reads its channels along another axis";

static bool is_float(const struct tensor *t) {
    return t && t->dtype == DT_F32;
}

static bool is_vector(const struct tensor *t, int64_t n) {
    return t && t->shape.rank == 1 && t->shape.dim[0] == n;
}

/* The bias of new or passed channels: a vector, a scalar for all, or none; anything else keeps them. */
static int couple_bias(
    struct coupler *k, const struct node *n, int input, int64_t channels, const int *unit) {
    const struct tensor *t = coupler_init(k, n, input);
    int64_t count = 0;

    if (n->n_in <= input || n->in[input] < 0)
        return 0;
    if (t && shape_count(&t->shape, &count) && count == 1)
        return 0;
    if (t && count == channels && t->shape.dim[t->shape.rank - 1] == channels)
        return coupler_site(k, n, input, t->shape.rank - 1, COUPLING_PARAM, channels, unit);
    for (int64_t i = 0; i < channels; i++)
        coupler_keep(k, unit[i], is_encoded);
    coupler_keep_value(k, n->in[input], is_encoded);
    return 0;
}

/* The channels that a layer reads, `channels` of them along `axis`; NULL: they are not followed, or had to be
 * kept. */
static const struct coupling_value *read_channels(
    struct coupler *k, const struct node *n, int axis, int64_t channels) {
    const struct coupling_value *x = coupler_value(k, n->in[0]);

    if (!x)
        return NULL;
    if (x->first == axis && x->last == axis && x->n == channels)
        return x;
    coupler_keep_value(k, n->in[0], has_odd_axis);
    return NULL;
}

/* Input and outputs of a group are one channel: weights are rows of it, there are no columns. */
static int couple_depthwise(
    struct coupler *k, const struct node *n, const struct coupling_value *x, int64_t in, int64_t out) {
    const struct tensor *w = coupler_init(k, n, 1);
    int *unit;
    int r;

    if (!x)
        return 0;
    unit = coupler_room(k, out);
    if (!unit)
        return -ENOMEM;
    for (int64_t i = 0; i < out; i++)
        unit[i] = x->channel[i / (out / in)];
    coupler_set(k, n->out[0], 1, 1, out, unit);
    r = coupler_site(k, n, 1, 0, COUPLING_ROW, w->shape.dim[0], w->shape.dim[0] == out ? unit : x->channel);
    return r < 0 ? r : couple_bias(k, n, 2, out, unit);
}

/* Place p of each group: inputs go together, and outputs. */
static int couple_groups(struct coupler *k, const struct node *n, const struct coupling_value *x, int64_t in,
    int64_t out, int64_t groups, int row_axis) {
    int64_t n_row = out / groups, n_column = in / groups;
    int *unit = coupler_room(k, out), *row = coupler_new(k, n_row);
    int r = 0;

    if (!unit || !row)
        return -ENOMEM;
    for (int64_t i = 0; i < out; i++)
        unit[i] = row[i % n_row];
    for (int64_t i = n_column; x && i < in; i++)
        coupler_tie(k, x->channel[i % n_column], x->channel[i]);
    coupler_set(k, n->out[0], 1, 1, out, unit);
    if (row_axis == 0) { /* W[out][in / groups] */
        r = coupler_site(k, n, 1, 0, COUPLING_ROW, out, unit);
        if (r == 0 && x)
            r = coupler_site(k, n, 1, 1, COUPLING_COLUMN, n_column, x->channel);
    } else { /* W[in][out / groups] */
        r = coupler_site(k, n, 1, 1, COUPLING_ROW, n_row, row);
        if (r == 0 && x)
            r = coupler_site(k, n, 1, 0, COUPLING_COLUMN, in, x->channel);
    }
    return r < 0 ? r : couple_bias(k, n, 2, out, unit);
}

static int couple_window(struct coupler *k, const struct node *n, bool is_turned) {
    const struct tensor *w = coupler_init(k, n, 1);
    int64_t groups = node_attr_int(n, "group", 1), in, out;
    const struct coupling_value *x;

    if (!is_float(w)) {
        coupler_keep_value(k, n->in[0], is_encoded);
        return 0;
    }
    in = is_turned ? w->shape.dim[0] : w->shape.dim[1] * groups;
    out = is_turned ? w->shape.dim[1] * groups : w->shape.dim[0];
    x = read_channels(k, n, 1, in);
    if (groups > 1 && groups == in)
        return couple_depthwise(k, n, x, in, out);
    return couple_groups(k, n, x, in, out, groups, is_turned ? 1 : 0);
}

int couple_conv(struct coupler *k, const struct node *n) {
    return couple_window(k, n, false);
}

int couple_conv_transpose(struct coupler *k, const struct node *n) {
    return couple_window(k, n, true);
}

/* Gemm and MatMul with a constant second operand: features are the last axis. */
int couple_gemm(struct coupler *k, const struct node *n) {
    const struct tensor *w = coupler_init(k, n, 1);
    bool is_turned = node_attr_int(n, "transB", 0) != 0;
    int last = coupler_shape(k, n->in[0])->rank - 1, r;
    const struct coupling_value *x;
    int64_t in, out;
    int *unit;

    if (!is_float(w) || w->shape.rank != 2 || last < 1 || node_attr_int(n, "transA", 0)) {
        coupler_keep_inputs(k, n, is_encoded);
        return 0;
    }
    in = w->shape.dim[is_turned ? 1 : 0];
    out = w->shape.dim[is_turned ? 0 : 1];
    x = read_channels(k, n, last, in);
    unit = coupler_new(k, out);
    if (!unit)
        return -ENOMEM;
    coupler_set(k, n->out[0], last, last, out, unit);
    r = coupler_site(k, n, 1, is_turned ? 0 : 1, COUPLING_ROW, out, unit);
    if (r == 0 && x)
        r = coupler_site(k, n, 1, is_turned ? 1 : 0, COUPLING_COLUMN, in, x->channel);
    return r < 0 ? r : couple_bias(k, n, 2, out, unit);
}

/* ---- one value in, the same channels out ---- */

static bool is_one_of(const struct node *n, const char *const *names) {
    for (; *names; names++)
        if (!strcmp(n->op_type, *names))
            return true;
    return false;
}

/* Vectors of a number a channel beside the value. */
static int couple_vectors(struct coupler *k, const struct node *n, const struct coupling_value *x) {
    static const char *const has_vectors[] = {
        "BatchNormalization", "DequantizeLinear", "InstanceNormalization", "QuantizeLinear", NULL};
    int r = 0;

    for (int i = 1; i < n->n_in && r == 0 && is_one_of(n, has_vectors); i++)
        if (is_vector(coupler_init(k, n, i), x->n) && x->n > 1)
            r = coupler_site(k, n, i, 0, COUPLING_PARAM, x->n, x->channel);
        else if (n->in[i] >= 0 && !coupler_init(k, n, i))
            coupler_keep_value(k, n->in[0], is_encoded);
    return r;
}

/* What else a node gives (indices of a pool, a mask of Dropout) is not followed. */
static bool has_other_readers(const struct coupler *k, const struct node *n) {
    for (int i = 1; i < n->n_out; i++)
        if (n->out[i] >= 0 && graph_consumers(k->g, n->out[i], NULL, 0) > 0)
            return true;
    return false;
}

int couple_same(struct coupler *k, const struct node *n) {
    const struct coupling_value *x = coupler_value(k, n->in[0]);
    const struct shape *in = coupler_shape(k, n->in[0]), *out = coupler_shape(k, n->out[0]);
    bool has_computed_sizes = !strcmp(n->op_type, "Resize") && n->n_in > 3 && n->in[3] >= 0 &&
                              !coupler_init(k, n, 3) && !k->trusts_computed;

    if (!x)
        return 0;
    if (in->rank != out->rank || (!n->op->is_unary && (x->first != 1 || x->last != 1)) ||
        in->dim[x->first] != out->dim[x->first]) {
        coupler_keep_value(k, n->in[0], has_odd_axis);
        return 0;
    }
    if (has_computed_sizes)
        coupler_keep_value(k, n->in[0], coupling_computed);
    if (has_other_readers(k, n))
        coupler_keep_value(k, n->in[0], coupling_mixed);
    coupler_set(k, n->out[0], x->first, x->last, x->n, x->channel);
    return couple_vectors(k, n, x);
}

/* ---- operands that meet element by element ---- */

/* Where operand i's first dimension stands in the output. */
static int offset_of(const struct coupler *k, const struct node *n, int input) {
    int rank = coupler_shape(k, n->out[0])->rank, own = coupler_shape(k, n->in[input])->rank;

    if (!strcmp(n->op_type, "PRelu") && k->g->opset < 7 && input == 1 && own == 1)
        return 1;
    return rank - own;
}

/* The elements of operand `input` along the output's axes first .. last: 1: it is broadcast along them. */
static int64_t extent_of(const struct coupler *k, const struct node *n, int input, int first, int last) {
    const struct shape *s = coupler_shape(k, n->in[input]);
    int offset = offset_of(k, n, input);
    int64_t count = 1;

    for (int d = first; d <= last; d++)
        count *= d >= offset && d - offset < s->rank ? s->dim[d - offset] : 1;
    return count;
}

/* The operand whose channels the output has; -1: none. */
static int find_main(const struct coupler *k, const struct node *n, int *ret_first, int *ret_last) {
    for (int i = 0; i < n->n_in; i++) {
        const struct coupling_value *x = coupler_value(k, n->in[i]);
        int first = x ? x->first + offset_of(k, n, i) : 0, last = x ? x->last + offset_of(k, n, i) : 0;
        int64_t count = 1;

        for (int d = first; x && d <= last; d++)
            count *= coupler_shape(k, n->out[0])->dim[d];
        if (x && count == x->n) {
            *ret_first = first;
            *ret_last = last;
            return i;
        }
    }
    return -1;
}

/* Operand i meets the main one's channels. */
static int join(
    struct coupler *k, const struct node *n, int i, int first, int last, const struct coupling_value *main) {
    const struct coupling_value *x = coupler_value(k, n->in[i]);
    const struct tensor *t = coupler_init(k, n, i);
    int offset = offset_of(k, n, i);
    int64_t extent = extent_of(k, n, i, first, last);

    if (x && x->first + offset == first && x->last + offset == last && x->n == main->n) {
        for (int64_t c = 0; c < x->n; c++)
            coupler_tie(k, main->channel[c], x->channel[c]);
        return 0;
    }
    coupler_keep_value(k, n->in[i], coupling_unlike);
    if (extent == 1)
        return 0;
    if (t && first == last && extent == main->n)
        return coupler_site(k, n, i, first - offset, COUPLING_PARAM, main->n, main->channel);
    for (int64_t c = 0; c < main->n; c++)
        coupler_keep(k, main->channel[c], coupling_unlike);
    return 0;
}

int couple_join(struct coupler *k, const struct node *n) {
    struct coupling_value main;
    int first = 0, last = 0, at = find_main(k, n, &first, &last), r = 0;

    if (at < 0) {
        coupler_keep_inputs(k, n, coupling_unlike);
        return 0;
    }
    main = *coupler_value(k, n->in[at]);
    for (int i = 0; i < n->n_in && r == 0; i++)
        if (i != at && n->in[i] >= 0 && n->in[i] != n->in[at])
            r = join(k, n, i, first, last, &main);
    coupler_set(k, n->out[0], first, last, main.n, main.channel);
    return r;
}
