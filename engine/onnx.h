/* ONNX files in and out. Reader: over the mapped file, zero-copy, bounds-checked, depth-limited; nothing is
 * allocated from a claimed size before it is checked against the file. IR 3 to 13.
 *
 * Errors of onnx_read: bad_request 400 "not protobuf …" (with the byte offset) for bytes that are no
 * ModelProto; invalid_model 422 for a model that breaks its own rules or limits (offset past the end, claimed
 * shape, cycle, missing initialiser, duplicate output, external data); unsupported_operator 422 naming node,
 * operator, domain. */
#ifndef ENGINE_ONNX_H
#define ENGINE_ONNX_H

#include "engine/graph.h"

/* Maps the file behind `fd` (private, read-only; the caller keeps fd) and reads it; calls graph_finish. */
int onnx_read_fd(int fd, struct graph **ret, struct error *err);

/* Over memory that must outlive the graph (tests, fuzzing). */
int onnx_read(const void *data, size_t size, struct graph **ret, struct error *err);

/* Writes the model; the file is complete and flushed (not fsynced) on success. Everything the reader kept is
 * written again: opset imports, value_info, metadata, initialisers byte for byte. */
int onnx_write_fd(const struct graph *g, int fd, struct error *err);

/* A TensorProto alone (test cases' *.pb). The tensor's data is allocated in `g`'s arena when it has to be
 * converted. */
int onnx_read_tensor(struct graph *g, const void *data, size_t size, const char **ret_name,
    struct tensor *ret, struct error *err);

#endif
