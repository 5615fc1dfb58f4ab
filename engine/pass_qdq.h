/* Private to pass_qdq*.c. */
#ifndef ENGINE_PASS_QDQ_H
#define ENGINE_PASS_QDQ_H

#include "engine/graph.h"

struct qdq {
    struct graph *g;
    int *code; /* [value]: the quantised value that a float value stands for, -1: none */
    size_t n;  /* entries of code */
};

/* Scale and zero point of a QuantizeLinear or DequantizeLinear per tensor with constants. */
bool qdq_read_params(const struct graph *g, const struct node *n, struct quant *ret, enum dtype *ret_type);

/* A new value of type `t` with `q`; its id or a negative errno. */
int qdq_add_value(struct qdq *c, const char *base, enum dtype t, struct quant q);

/* Makes node `n` a look-up table from quantised value `from` to `to` (both of one byte): `real` maps real
 * numbers, NULL: the identity. Its name and place stay. */
int qdq_make_table(struct qdq *c, struct node *n, int from, int to, const float real[256], struct error *err);

/* If QuantizeLinear `n` reads an elementwise function of one quantised value, `n` becomes the table of it.
 * 1: done, 0: not such a function, negative errno. */
int qdq_table_of_chain(struct qdq *c, struct node *n, struct error *err);

/* Values y[i] of a one-input elementwise node (constants scalar) for x[i], i < count <= 256; false: its
 * operator cannot say. */
bool qdq_eval_unary(const struct graph *g, const struct node *n, const float *x, float *y, int count);

#endif
