/* A file of VGG-16's size (138 million parameters, 553 MB) with random weights, written as ONNX by hand in
 * one stream, without holding it in memory: make_vgg16 FILE
 *
 * Field numbers: onnx.proto. Lengths are known before contents are written, which is all that protobuf asks
 * for. */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/cleanup.h"

#define MAX_HEAD (1u << 16)

struct layer {
    uint32_t out, in, side; /* side 0: Gemm */
    int pool_after;
};

static const struct layer layers[] = {{64, 3, 3, 0}, {64, 64, 3, 1}, {128, 64, 3, 0}, {128, 128, 3, 1},
    {256, 128, 3, 0}, {256, 256, 3, 0}, {256, 256, 3, 1}, {512, 256, 3, 0}, {512, 512, 3, 0},
    {512, 512, 3, 1}, {512, 512, 3, 0}, {512, 512, 3, 0}, {512, 512, 3, 1}, {4096, 25088, 0, 0},
    {4096, 4096, 0, 0}, {1000, 4096, 0, 0}};

#define N_LAYERS (sizeof(layers) / sizeof(layers[0]))

__attribute__((noreturn)) static void die(const char *what) {
    fprintf(stderr, "make_vgg16: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void put(struct buf *b, const void *data, size_t n) {
    if (buf_append(b, data, n))
        die("buffer");
}

static void put_varint(struct buf *b, uint64_t v) {
    do {
        uint8_t byte = (uint8_t)((v & 127) | (v > 127 ? 128 : 0));

        put(b, &byte, 1);
        v >>= 7;
    } while (v);
}

static void put_int(struct buf *b, unsigned field, uint64_t v) {
    put_varint(b, field << 3);
    put_varint(b, v);
}

static void put_bytes(struct buf *b, unsigned field, const void *data, size_t n) {
    put_varint(b, field << 3 | 2);
    put_varint(b, n);
    put(b, data, n);
}

static void put_text(struct buf *b, unsigned field, const char *text) {
    put_bytes(b, field, text, strlen(text));
}

static void put_message(struct buf *b, unsigned field, struct buf *message) {
    put_bytes(b, field, message->data, message->size);
    buf_done(message);
}

static void put_ints(struct buf *node, const char *name, const int *v, size_t n) {
    struct buf a;

    buf_init(&a, MAX_HEAD);
    put_text(&a, 1, name);
    for (size_t i = 0; i < n; i++)
        put_int(&a, 8, (uint64_t)v[i]);
    put_int(&a, 20, 7); /* INTS */
    put_message(node, 5, &a);
}

/* Takes x's name and gives the output's. */
static void put_node(
    struct buf *graph, const char *op, char x[static 16], const struct layer *l, unsigned i) {
    static unsigned n_values;
    const int pads[] = {1, 1, 1, 1}, two[] = {2, 2};
    struct buf node;
    char name[16];

    buf_init(&node, MAX_HEAD);
    put_text(&node, 1, x);
    if (l) {
        snprintf(name, sizeof(name), "w%u", i);
        put_text(&node, 1, name);
        snprintf(name, sizeof(name), "b%u", i);
        put_text(&node, 1, name);
    }
    snprintf(x, 16, "v%u", n_values++);
    put_text(&node, 2, x);
    put_text(&node, 3, x);
    put_text(&node, 4, op);
    if (l && l->side) {
        put_ints(&node, "pads", pads, 4);
    } else if (l) {
        struct buf a;

        buf_init(&a, MAX_HEAD);
        put_text(&a, 1, "transB");
        put_int(&a, 3, 1);
        put_int(&a, 20, 2); /* INT */
        put_message(&node, 5, &a);
    } else if (!strcmp(op, "MaxPool")) {
        put_ints(&node, "kernel_shape", two, 2);
        put_ints(&node, "strides", two, 2);
    }
    put_message(graph, 1, &node);
}

static void put_port(struct buf *graph, unsigned field, const char *name, const int *dims, size_t n) {
    struct buf port, type, tensor, shape;

    buf_init(&port, MAX_HEAD);
    buf_init(&type, MAX_HEAD);
    buf_init(&tensor, MAX_HEAD);
    buf_init(&shape, MAX_HEAD);
    for (size_t i = 0; i < n; i++) {
        struct buf dim;

        buf_init(&dim, MAX_HEAD);
        if (dims[i] < 0)
            put_text(&dim, 2, "n");
        else
            put_int(&dim, 1, (uint64_t)dims[i]);
        put_message(&shape, 1, &dim);
    }
    put_int(&tensor, 1, 1); /* FLOAT */
    put_message(&tensor, 2, &shape);
    put_message(&type, 1, &tensor);
    put_text(&port, 1, name);
    put_message(&port, 2, &type);
    put_message(graph, field, &port);
}

static void put_graph(struct buf *graph) {
    const int in[] = {-1, 3, 224, 224}, out[] = {-1, 1000};
    char x[16] = "x";

    for (unsigned i = 0; i < N_LAYERS; i++) {
        const struct layer *l = &layers[i];

        if (!l->side && layers[i - 1].side)
            put_node(graph, "Flatten", x, NULL, 0);
        put_node(graph, l->side ? "Conv" : "Gemm", x, l, i);
        if (i + 1 < N_LAYERS)
            put_node(graph, "Relu", x, NULL, 0);
        if (l->pool_after)
            put_node(graph, "MaxPool", x, NULL, 0);
    }
    put_text(graph, 2, "vgg16");
    put_port(graph, 11, "x", in, 4);
    put_port(graph, 12, x, out, 2);
}

/* The head of weight (part 0) or bias (part 1) i: all of the tensor but its data. Returns the data's bytes.
 */
static uint64_t put_tensor_head(struct buf *b, unsigned i, int part) {
    const struct layer *l = &layers[i];
    uint64_t n = l->out;
    char name[16];

    put_int(b, 1, l->out);
    if (!part) {
        put_int(b, 1, l->in);
        n *= l->in;
        for (int k = 0; l->side && k < 2; k++) {
            put_int(b, 1, l->side);
            n *= l->side;
        }
    }
    put_int(b, 2, 1); /* FLOAT */
    snprintf(name, sizeof(name), "%c%u", part ? 'b' : 'w', i);
    put_text(b, 8, name);
    put_varint(b, 9 << 3 | 2); /* raw_data */
    put_varint(b, n * 4);
    return n * 4;
}

static void write_values(FILE *f, const struct layer *l, uint64_t bytes) {
    static float block[1u << 16];
    static uint32_t seed = 1;
    const float gain =
        3.0f / (float)(l->in * (l->side ? l->side * l->side : 1)); /* about He's, spread evenly */

    for (uint64_t left = bytes / 4; left;) {
        size_t n = left < 1u << 16 ? (size_t)left : 1u << 16;

        for (size_t k = 0; k < n; k++) {
            seed = seed * 1664525u + 1013904223u;
            block[k] = ((float)(seed >> 8) / 8388608.0f - 1.0f) * gain * 4;
        }
        if (fwrite(block, 4, n, f) != n)
            die("write");
        left -= n;
    }
}

/* One initialiser; NULL as file: only its bytes. */
static uint64_t write_tensor(FILE *f, unsigned i, int part) {
    _cleanup_(buf_done) struct buf tensor, head;
    uint64_t data;

    buf_init(&tensor, MAX_HEAD);
    buf_init(&head, MAX_HEAD);
    data = put_tensor_head(&tensor, i, part);
    put_varint(&head, 5 << 3 | 2); /* GraphProto.initializer */
    put_varint(&head, tensor.size + data);
    if (!f)
        return head.size + tensor.size + data;
    if (fwrite(head.data, 1, head.size, f) != head.size ||
        fwrite(tensor.data, 1, tensor.size, f) != tensor.size)
        die("write");
    write_values(f, &layers[i], data);
    return head.size + tensor.size + data;
}

static void write_model(FILE *f) {
    _cleanup_(buf_done) struct buf model, graph, opset;
    uint64_t size;

    buf_init(&model, MAX_HEAD);
    buf_init(&graph, MAX_HEAD);
    buf_init(&opset, MAX_HEAD);
    put_graph(&graph);
    size = graph.size;
    for (unsigned i = 0; i < 2 * N_LAYERS; i++)
        size += write_tensor(NULL, i / 2, i % 2);
    put_int(&model, 1, 8); /* ir_version */
    put_int(&opset, 2, 13);
    put_bytes(&model, 8, opset.data, opset.size);
    put_varint(&model, 7 << 3 | 2);
    put_varint(&model, size);
    if (fwrite(model.data, 1, model.size, f) != model.size ||
        fwrite(graph.data, 1, graph.size, f) != graph.size)
        die("write");
    for (unsigned i = 0; i < 2 * N_LAYERS; i++)
        write_tensor(f, i / 2, i % 2);
}

int main(int argc, char **argv) {
    FILE *f = argc == 2 ? fopen(argv[1], "wbe") : NULL;

    if (!f)
        die("usage: make_vgg16 FILE");
    write_model(f);
    if (fclose(f))
        die("close");
    return 0;
}
