/* daemon/: what the server knows and does, without HTTP. Uses engine/, config/, base/; never compress/ (other
 * than by running bonsai-worker) and never api/ (main.c excepted, which wires the two).
 *
 *   store.h                 what is known (SQLite) and what is big (files named by their digest)
 *   models.h                models and variants: names, numbers, aliases, what a request means by them
 *   residency.h             which variants are in memory, under a budget
 *   scheduler.h             slots, queues, batches, deadlines
 *   jobs.h spawn.h          jobs as a state table; one process at a time
 *   judge.h                 live statistics
 *   log.h notify.h          stderr and systemd
 *
 * Start at main.c.
 *
 * The store: documents (JSON objects) in a few tables, all of them also in memory, so that look-ups never
 * touch the disk. A document is immutable: changing one means putting another in its place. Changes are
 * applied several at a time in one SQLite transaction (WAL, synchronous=FULL): a kill leaves all of them or
 * none. Files are written and fsynced before the document that names them; files that no document names are
 * swept when the store opens. */
#ifndef DAEMON_STORE_H
#define DAEMON_STORE_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/error.h"

struct store;

enum store_table {
    STORE_MODEL,       /* key: name */
    STORE_VARIANT,     /* key: model/number */
    STORE_DATASET,     /* key: name */
    STORE_JOB,         /* key: id */
    STORE_EVALUATION,  /* key: model/number/dataset/split */
    STORE_IDEMPOTENCY, /* key: principal/Idempotency-Key */
    STORE_TABLES,
};

struct store_change {
    enum store_table table;
    const char *key;
    json_t *doc; /* borrowed; NULL: delete */
};

/* `disk_share`: of the file system that may be full after an upload (0.8). Takes a lock on the folder: -EBUSY
 * when another daemon has it. */
int store_open(const char *dir, double disk_share, struct store **ret, struct error *err);
struct store *store_free(struct store *s);
DEFINE_CLEANUP(struct store *, store_free)

/* New reference, or NULL. Any thread. */
json_t *store_get(struct store *s, enum store_table table, const char *key);

/* New array of all documents whose key starts with `prefix` (NULL: all), by key. */
json_t *store_list(struct store *s, enum store_table table, const char *prefix);

/* New array of the keys that start with `prefix`. */
json_t *store_keys(struct store *s, enum store_table table, const char *prefix);

/* All or nothing; durable on success. Blocks for the disk: pool threads only. */
int store_apply(struct store *s, const struct store_change *changes, size_t n, struct error *err);

/* Read, decide, apply as one step against other writers: store_apply may be called inside. Never held by
 * readers. */
void store_lock(struct store *s);
void store_unlock(struct store *s);

/* An Idempotency-Key holds for a day; removes the older ones, which would only grow in number. */
#define STORE_KEY_SECONDS (24 * 3600)
int store_forget_keys(struct store *s, struct error *err);

/* Events of jobs: ids rise per job and survive restarts. store_event_add returns the id, or a negative errno.
 */
int64_t store_event_add(struct store *s, const char *job, const char *type, const json_t *data);
/* New array of {"id","type","data"} after `since`, at most `max`. */
json_t *store_events(struct store *s, const char *job, int64_t since, size_t max);
void store_events_drop(struct store *s, const char *job);

/* Files. A digest is "sha256:" and 64 hexadecimal digits. */
#define DIGEST_MAX 80
void digest_text(const uint8_t sha256[32], char ret[static DIGEST_MAX]);
bool digest_is_valid(const char *digest);

/* The folder of temporary files (on the same file system). */
const char *store_tmp(const struct store *s);

/* Makes the temporary file (fd; `path` or NULL for O_TMPFILE) the blob of this digest: fsync, link, fsync
 * folder. One that is there already is as good. The caller keeps fd. */
int store_blob_keep(struct store *s, int fd, const char *path, const char *digest, struct error *err);

/* Digests a file first; fills digest and size. */
int store_blob_keep_path(
    struct store *s, const char *path, char digest[static DIGEST_MAX], uint64_t *ret_size, struct error *err);

/* O_RDONLY; -ENOENT. */
int store_blob_open(struct store *s, const char *digest, struct error *err);
/* Path for the worker. */
void store_blob_path(struct store *s, const char *digest, char *ret, size_t size);
/* Removes the file unless a document still names it (documents are searched for the digest). */
void store_blob_release(struct store *s, const char *digest);

/* The folder in which the job's worker may keep what it can go on from, made if it is not there; dropped with
 * what is in it. At start those of jobs that are gone or have succeeded are dropped. */
int store_checkpoint_open(struct store *s, const char *id, char *ret, size_t size, struct error *err);
void store_checkpoint_drop(struct store *s, const char *id);

/* Tells a worker's request that reads a data set (`pack`) of the folder where decoded pictures are kept, in
 * `cache`: {"folder", "owner", "bytes"}. Those of a data set go with its pack's file. */
void store_pictures_offer(struct store *s, uint64_t bytes, json_t *request);

/* disk_budget (507) unless `bytes` more fit. */
int store_check_disk(struct store *s, uint64_t bytes, struct error *err);
/* As df counts: what the file system keeps back is neither used nor to be had. */
void store_disk(struct store *s, uint64_t *ret_used, uint64_t *ret_budget);

#endif
