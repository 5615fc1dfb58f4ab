#include "config/config.h"

/* One row an option, in the order of the shipped file; tests/unit/test_config.c holds the two together. */
#define AT(member)  .at = offsetof(struct config, member)
#define GIB         (1024.0 * 1024 * 1024)
#define MANY        1e9
#define BYTES_LIMIT 9e15

static const char *const log_levels[] = {"debug", "info", "warning", "error", NULL};
static const char *const modes[] = {"latency", "throughput", NULL};

static const struct param rows[] = {
    {"state", PARAM_STRING, AT(state),
        .doc = "Folder of everything that is kept: models, data sets, jobs. Default: $STATE_DIRECTORY, else "
               "$XDG_STATE_HOME/bonsaid, else ~/.local/state/bonsaid."},
    {"listen", PARAM_LIST, AT(listen),
        .doc = "Addresses: ADDR:PORT, [V6]:PORT or unix:PATH. Default: 127.0.0.1:8080 and a Unix socket "
               "bonsaid.sock in $RUNTIME_DIRECTORY or $XDG_RUNTIME_DIR. Port 0 picks a free one."},
    {"threads", PARAM_INT, AT(threads), .min = 0, .max = 1024,
        .doc = "Threads for inference. 0: one for each processor this process may use."},
    {"mode", PARAM_ENUM, AT(mode), .choices = modes, .dflt = "throughput",
        .doc =
            "throughput: each request runs on one thread, many at once. latency: one request at a time has all "
            "threads."},
    {"memory", PARAM_SIZE, AT(memory), .min = 0, .max = BYTES_LIMIT,
        .doc =
            "Bytes that loaded variants may take together. 0: half of the machine's memory, or of the control "
            "group's limit."},
    {"log", PARAM_ENUM, AT(log), .choices = log_levels, .dflt = "info",
        .doc = "Least important messages that are still written."},
    {"serve_only", PARAM_BOOL, AT(serve_only), .dflt = "false",
        .doc = "No uploads and no jobs: only what is there already is served."},
    {"insecure", PARAM_BOOL, AT(insecure), .dflt = "false",
        .doc =
            "Allows addresses that are not loopback without TLS and tokens. Anyone who reaches them may then do "
            "anything."},
    {"worker", PARAM_STRING, AT(worker),
        .doc = "Path of the bonsai-worker program. Default: the one beside this program."},

    {"tls_cert", PARAM_STRING, AT(tls_cert), .doc = "PEM file with the certificate chain. Needs tls_key."},
    {"tls_key", PARAM_STRING, AT(tls_key), .doc = "PEM file with the private key."},
    {"client_ca", PARAM_STRING, AT(client_ca),
        .doc = "PEM file with the authorities whose client certificates are accepted. Needs tls_cert."},
    {"token_file", PARAM_STRING, AT(token_file),
        .doc =
            "File of hashed tokens, one a line: NAME SCOPE,SCOPE sha256:HEX. Scopes: read infer upload compress "
            "route feedback admin all. With it, requests without a token see only health, page and openapi.json."},
    {"server_names", PARAM_LIST, AT(server_names),
        .doc =
            "Names by which clients may call this server (header Host), beside IP addresses and localhost."},
    {"cors_origins", PARAM_LIST, AT(cors_origins),
        .doc = "Origins of foreign pages that may use this server from a browser: https://app.example."},
    {"metrics_open", PARAM_BOOL, AT(metrics_open), .dflt = "false",
        .doc = "Shows /metrics to clients without a token."},
    {"triton_metrics", PARAM_BOOL, AT(triton_metrics), .dflt = "false",
        .doc = "Adds nv_inference_* names to /metrics, for dashboards made for Triton."},

    {"max_model_bytes", PARAM_SIZE, AT(max_model_bytes), .min = 1024, .max = BYTES_LIMIT, .dflt = "4G",
        .doc = "Largest ONNX file that is taken."},
    {"max_dataset_bytes", PARAM_SIZE, AT(max_dataset_bytes), .min = 1024, .max = BYTES_LIMIT, .dflt = "16G",
        .doc = "Largest data set, as uploaded and as expanded."},
    {"max_dataset_members", PARAM_SIZE, AT(max_dataset_members), .min = 1, .max = MANY, .dflt = "1000000",
        .doc = "Most files in an archive."},
    {"max_body_bytes", PARAM_SIZE, AT(max_body_bytes), .min = 1024, .max = 16 * GIB, .dflt = "64M",
        .doc = "Largest body of JSON and of inference requests, expanded."},
    {"max_json_depth", PARAM_INT, AT(max_json_depth), .min = 8, .max = 1000, .dflt = "64",
        .doc = "Deepest nesting of JSON bodies."},
    {"max_picture_megapixels", PARAM_INT, AT(max_picture_megapixels), .min = 1, .max = 1000, .dflt = "50",
        .doc = "Largest picture, known before it is decoded."},
    {"max_jpeg_scans", PARAM_INT, AT(max_jpeg_scans), .min = 1, .max = 10000, .dflt = "100",
        .doc = "Most scans of a progressive JPEG."},
    {"max_disk_share", PARAM_REAL, AT(max_disk_share), .min = 0.01, .max = 1, .dflt = "0.8",
        .doc = "Share of the state folder's disk that may be full after an upload."},
    {"max_uploads", PARAM_INT, AT(max_uploads), .min = 1, .max = 1000, .dflt = "4",
        .doc = "Uploads at the same time."},
    {"max_event_streams", PARAM_INT, AT(max_event_streams), .min = 1, .max = 100000, .dflt = "64",
        .doc = "Event streams at the same time."},
    {"max_connections", PARAM_INT, AT(max_connections), .min = 4, .max = 100000, .dflt = "1024",
        .doc = "Connections at the same time, for each listener."},

    {"headers_ms", PARAM_INT, AT(headers_ms), .min = 100, .max = MANY, .dflt = "15000",
        .doc = "A client must have sent its headers within this time."},
    {"idle_ms", PARAM_INT, AT(idle_ms), .min = 100, .max = MANY, .dflt = "75000",
        .doc = "A connection without a request is closed after this time."},
    {"body_grace_ms", PARAM_INT, AT(body_grace_ms), .min = 100, .max = MANY, .dflt = "30000",
        .doc = "After this time a body must have come at body_rate on average."},
    {"body_rate", PARAM_INT, AT(body_rate), .min = 0, .max = MANY, .dflt = "1024",
        .doc = "Bytes a second; slower clients are cut."},
    {"drain_grace_ms", PARAM_INT, AT(drain_grace_ms), .min = 0, .max = MANY, .dflt = "0",
        .doc = "Between \"not ready\" and the refusal of new requests, for load balancers to notice."},
    {"drain_timeout_ms", PARAM_INT, AT(drain_timeout_ms), .min = 0, .max = MANY, .dflt = "20000",
        .doc = "Requests that run at a stop get this long to end."},

    {"queue", PARAM_INT, AT(queue), .min = 1, .max = 1000000, .dflt = "256",
        .doc = "Waiting requests of a variant; more are answered 429. Models may set their own."},
    {"max_batch", PARAM_INT, AT(max_batch), .min = 1, .max = 4096, .dflt = "64",
        .doc = "Items that run together at most. Models may set their own."},
    {"batch_delay_us", PARAM_INT, AT(batch_delay_us), .min = 0, .max = 1000000, .dflt = "0",
        .doc = "How long a free slot waits for more requests to run together. 0: never."},
    {"timeout_ms", PARAM_INT, AT(timeout_ms), .min = 0, .max = MANY, .dflt = "60000",
        .doc =
            "Longest time in the queue when the request names none. 0: no limit. Models may set their own."},
    {"tune", PARAM_BOOL, AT(tune), .dflt = "true",
        .doc =
            "Measures kernels while nothing else is to do, and from then on runs each layer with the one that is "
            "surely the fastest. Times are kept in the state folder."},
    {"deterministic", PARAM_BOOL, AT(deterministic), .dflt = "false",
        .doc =
            "The fixed table of kernels alone decides, whatever was measured: the same bits at every start."},
    {"queue_bytes", PARAM_SIZE, AT(queue_bytes), .min = 1024 * 1024, .max = BYTES_LIMIT, .dflt = "1G",
        .doc = "Bodies of all waiting requests together."},

    {"jobs_parallel", PARAM_INT, AT(jobs_parallel), .min = 1, .max = 64, .dflt = "1",
        .doc = "Jobs that run at the same time."},
    {"jobs_queue", PARAM_INT, AT(jobs_queue), .min = 1, .max = 100000, .dflt = "100",
        .doc = "Jobs that may wait; more are answered 429."},
    {"job_nice", PARAM_INT, AT(job_nice), .min = 0, .max = 19, .dflt = "19", .doc = "Nice value of workers."},
    {"job_threads", PARAM_INT, AT(job_threads), .min = 0, .max = 1024,
        .doc =
            "Threads of a job while nobody asks for inference. 0: all; it falls to one while requests run."},
    {"job_seconds", PARAM_INT, AT(job_seconds), .min = 0, .max = MANY,
        .doc = "Longest time of a job that names none. 0: no limit."},
    {"job_memory", PARAM_SIZE, AT(job_memory), .min = 0, .max = BYTES_LIMIT,
        .doc = "Address space of a worker in bytes. 0: what the machine has."},
    {"picture_cache", PARAM_SIZE, AT(picture_cache), .min = 0, .max = BYTES_LIMIT, .dflt = "4G",
        .doc =
            "Bytes that decoded pictures may take in the state folder, so that jobs that learn decode each once; "
            "the ones not used for longest go first. 0: none are kept."},
};

const struct param_table config_table = {rows, sizeof(rows) / sizeof(rows[0])};
