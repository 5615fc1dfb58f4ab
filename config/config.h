/* The daemon's options: one struct, one table (config_table), four sources. Flags override BONSAID_*
 * variables, which override the file, which overrides the table's defaults.
 *
 * The file: `name = value`, one a line; '#' starts a comment at the start of a line or after a blank. Lists
 * are separated by commas or blanks; sizes may end in K, M or G (powers of 1024). An option stands there
 * once. The shipped config/bonsaid.conf shows every option with its default. */
#ifndef CONFIG_CONFIG_H
#define CONFIG_CONFIG_H

#include "config/param.h"

enum config_log { CONFIG_LOG_DEBUG, CONFIG_LOG_INFO, CONFIG_LOG_WARNING, CONFIG_LOG_ERROR };
enum config_mode { CONFIG_LATENCY, CONFIG_THROUGHPUT };

struct config {
    /* where and with what */
    char *state; /* after config_load never NULL */
    char **listen;
    int threads; /* after config_load at least 1 */
    int mode;    /* enum config_mode */
    int64_t memory;
    int log; /* enum config_log */
    bool serve_only, insecure;
    char *worker; /* NULL: bonsai-worker beside the daemon */

    /* access */
    char *tls_cert, *tls_key, *client_ca, *token_file; /* paths */
    char **server_names, **cors_origins;
    bool metrics_open, triton_metrics;

    /* limits of what comes in */
    int64_t max_model_bytes, max_dataset_bytes, max_dataset_members, max_body_bytes;
    int max_json_depth, max_picture_megapixels, max_jpeg_scans;
    double max_disk_share;
    int max_uploads, max_event_streams, max_connections;

    /* connections */
    int headers_ms, idle_ms, body_grace_ms, body_rate, drain_grace_ms, drain_timeout_ms;

    /* inference */
    int queue, max_batch, batch_delay_us, timeout_ms;
    bool tune, deterministic;
    int64_t queue_bytes;

    /* jobs */
    int jobs_parallel, jobs_queue, job_nice, job_threads, job_seconds;
    int64_t job_memory, picture_cache;
};

extern const struct param_table config_table;

/* What the command line asks for. */
enum config_action { CONFIG_RUN, CONFIG_CHECK, CONFIG_HELP, CONFIG_VERSION };

/* Reads all sources (`env` as environ(7)) and checks what options demand of each other. Errors name file and
 * line, variable or flag. On success config_done() is due, on failure nothing. For CONFIG_HELP and
 * CONFIG_VERSION only the defaults are filled in. */
int config_load(int argc, char *const *argv, char *const *env, struct config *ret,
    enum config_action *ret_action, struct error *err);
void config_done(struct config *c);

/* The lines of a configuration file into `ret`, which holds defaults. `name` is for messages. */
int config_read(const char *text, const char *name, struct config *ret, struct error *err);

/* All options as a file that config_read takes. */
int config_print(const struct config *c, struct buf *ret);

/* Text of --help, from the table. */
int config_help(struct buf *ret);

#endif
