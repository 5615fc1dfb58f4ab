/* Small nets from one line of text, for tests of kernels and plans:
 *
 *   "Conv x=1x3x8x8 w=16x3x3x3 b=16 pads=1,1,1,1; Add $ x2=1x16x8x8; Relu $"
 *
 * Nodes are separated by ";". "x…=SHAPE" is a graph input, other "name=SHAPE" a constant with random numbers,
 * "name:VALUE" a constant scalar (an integer with "i" behind it: int64, "u": uint8, "b": int8; with commas
 * a vector of floats, or int64 with "i" at the end), "$" the output of the node before, "_" an input left
 * out,
 * ">3" the number of outputs, a bare name a value named before (a node's output is y0, y1, …); the (a name
 * that begins with q: int8, r: int32, p: small positive floats, as scales are; z: floats, nine tenths of them
 * zero; h: 0.5 or -0.5); the rest are attributes, with
 * names of three letters or more, or with a point before: "pads=1,1,1,1", "axis=1", "alpha=0.5",
 * "auto_pad=VALID", ".p=1". "opset 18;" at the beginning chooses another opset than 13. */
#ifndef TESTS_UNIT_NET_TEXT_H
#define TESTS_UNIT_NET_TEXT_H

#include "engine/net.h"

#define NET_TEXT_MAX_INPUTS 4

struct net_text {
    struct graph *graph; /* taken by net_new */
    size_t n_inputs;
    struct shape input[NET_TEXT_MAX_INPUTS];
};

/* Fails the test on a mistake in the text. */
struct net_text net_text_read(const char *text);

/* Numbers in [-1, 1) from a counter-based generator. */
void net_text_fill(float *x, int64_t n, uint32_t seed);

#endif
