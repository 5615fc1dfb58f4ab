/* The parts of the daemon a handler may use; filled in by daemon/main.c, immutable while the server runs. */
#ifndef API_API_H
#define API_API_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

struct auth;
struct judge;
struct store;
struct residency;
struct scheduler;
struct jobs;

struct config;
struct events;

struct api_limits {
    uint64_t model_bytes, dataset_bytes, dataset_members;
    uint64_t body_bytes;   /* JSON and infer bodies */
    uint64_t bodies_bytes; /* all bodies in memory together */
    unsigned json_depth;
    unsigned uploads, streams, connections;
    uint64_t picture_pixels;
};

struct api {
    struct api_limits limits;
    uv_loop_t *loop;
    const struct config *config;
    struct events *events;
    struct store *store;
    struct residency *residency;
    struct scheduler *scheduler;
    struct jobs *jobs;
    struct judge *judge;
    atomic_bool is_ready; /* start-up loads are done */
    atomic_bool is_draining;
    atomic_bool is_benching;  /* POST …/bench: one at a time */
    uint64_t started_ns;      /* CLOCK_MONOTONIC */
    void (*drain)(void *ctx); /* begins the orderly end, from the loop */
    void *drain_ctx;
    atomic_uint n_streams, n_uploads, n_connections;
    atomic_uint_fast64_t body_bytes;   /* in memory now */
    atomic_uint_fast64_t n_answers[6]; /* by class of status: [2] is 2xx */
};

#endif
