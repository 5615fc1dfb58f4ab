/* Gradients of operators that move elements without computing. */
#include "engine/ops/common.h"
#include "engine/ops/grad.h"

void view_backward(const struct node *n, const struct tensor *const *in, const struct tensor *out,
    const struct tensor *d_out, struct tensor *const *d_in, void *scratch) {
    int64_t count = op_count(in[0]);

    (void)n;
    (void)out;
    (void)scratch;
    for (int64_t i = 0; d_in[0] && i < count; i++)
        ((float *)d_in[0]->data)[i] += ((const float *)d_out[0].data)[i];
}

static bool moves_input(const struct node *n, int i) {
    return i == 0 || n->op->couple == OP_COUPLE_CONCAT;
}

/* Forward runs on the inputs' elements numbered from 1; 0 then stands where no element came from. */
size_t move_backward_scratch(const struct node *n, const struct tensor *const *in, const struct tensor *out) {
    size_t count = 0, tensors = (size_t)n->n_in * sizeof(struct tensor *) +
                                (size_t)(n->n_in + n->n_out) * sizeof(struct tensor);

    for (int i = 0; i < n->n_in; i++)
        if (moves_input(n, i))
            count += (size_t)op_count(in[i]);
    for (int i = 0; i < n->n_out; i++)
        count += (size_t)op_count(&out[i]);
    return count * sizeof(int64_t) + tensors;
}

/* Element `number` (from 1) of the inputs that are moved, one after the other. */
static void add(const struct node *n, const struct tensor *const *in, struct tensor *const *d_in,
    int64_t number, float v) {
    for (int i = 0; i < n->n_in; i++) {
        int64_t count = op_count(in[i]);

        if (number <= count) {
            if (d_in[i])
                ((float *)d_in[i]->data)[number - 1] += v;
            return;
        }
        number -= count;
    }
}

void move_backward(const struct node *n, const struct tensor *const *in, const struct tensor *out,
    const struct tensor *d_out, struct tensor *const *d_in, void *scratch) {
    const struct tensor **from = scratch;
    struct tensor *numbered = (struct tensor *)(void *)(from + n->n_in), *to = numbered + n->n_in;
    int64_t *next = (int64_t *)(void *)(to + n->n_out), number = 0;

    for (int i = 0; i < n->n_in; i++) {
        from[i] = in[i];
        if (!moves_input(n, i)) {
            if (in[i] && in[i]->dtype == DT_F32) /* what Pad fills with: 0 here */
                from[i] = NULL;
            continue;
        }
        numbered[i] = (struct tensor){.dtype = DT_S64, .shape = in[i]->shape, .data = next};
        from[i] = &numbered[i];
        for (int64_t k = op_count(in[i]); k > 0; k--)
            *next++ = ++number;
    }
    for (int o = 0; o < n->n_out; o++) {
        to[o] = (struct tensor){.dtype = DT_S64, .shape = out[o].shape, .data = next};
        next += op_count(&out[o]);
    }
    n->op->forward(n, from, to, NULL);
    for (int o = 0; o < n->n_out; o++) {
        int64_t count = op_count(&out[o]);

        for (int64_t i = 0; d_out[o].data && i < count; i++) {
            int64_t k = ((const int64_t *)to[o].data)[i];

            if (k)
                add(n, in, d_in, k, ((const float *)d_out[o].data)[i]);
        }
    }
}
