#include "daemon/store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>

#include "daemon/store_priv.h"

static const char *const table_names[STORE_TABLES] = {
    [STORE_MODEL] = "model",
    [STORE_VARIANT] = "variant",
    [STORE_DATASET] = "dataset",
    [STORE_JOB] = "job",
    [STORE_EVALUATION] = "evaluation",
    [STORE_IDEMPOTENCY] = "idempotency",
};

/* Each entry brings the schema from its index to the next version (PRAGMA user_version). */
static const char *const migrations[] = {
    "CREATE TABLE model(key TEXT PRIMARY KEY, doc TEXT NOT NULL) WITHOUT ROWID;"
    "CREATE TABLE variant(key TEXT PRIMARY KEY, doc TEXT NOT NULL) WITHOUT ROWID;"
    "CREATE TABLE dataset(key TEXT PRIMARY KEY, doc TEXT NOT NULL) WITHOUT ROWID;"
    "CREATE TABLE job(key TEXT PRIMARY KEY, doc TEXT NOT NULL) WITHOUT ROWID;"
    "CREATE TABLE evaluation(key TEXT PRIMARY KEY, doc TEXT NOT NULL) WITHOUT ROWID;"
    "CREATE TABLE idempotency(key TEXT PRIMARY KEY, doc TEXT NOT NULL) WITHOUT ROWID;"
    "CREATE TABLE event(job TEXT NOT NULL, id INTEGER NOT NULL, type TEXT NOT NULL, data TEXT NOT NULL,"
    " PRIMARY KEY(job, id)) WITHOUT ROWID;",
};
#define SCHEMA_VERSION ((int)(sizeof(migrations) / sizeof(migrations[0])))

static int db_error(struct store *s, const char *what, struct error *err) {
    int full = sqlite3_errcode(s->db) == SQLITE_FULL;

    return error_code(err, full ? -ENOSPC : -EIO, full ? "disk_budget" : "internal", "the store: %s: %s",
        what, sqlite3_errmsg(s->db));
}

static int db_exec(struct store *s, const char *sql, struct error *err) {
    return sqlite3_exec(s->db, sql, NULL, NULL, NULL) == SQLITE_OK ? 0
                                                                   : db_error(s, "a statement failed", err);
}

static void finalizep(sqlite3_stmt **st) {
    sqlite3_finalize(*st);
}

static int db_prepare(struct store *s, const char *sql, sqlite3_stmt **ret, struct error *err) {
    return sqlite3_prepare_v2(s->db, sql, -1, ret, NULL) == SQLITE_OK
               ? 0
               : db_error(s, "a statement is wrong", err);
}

static int db_version(struct store *s, int *ret, struct error *err) {
    _cleanup_(finalizep) sqlite3_stmt *st = NULL;
    int r = db_prepare(s, "PRAGMA user_version", &st, err);

    if (r < 0)
        return r;
    if (sqlite3_step(st) != SQLITE_ROW)
        return db_error(s, "no schema version", err);
    *ret = sqlite3_column_int(st, 0);
    return 0;
}

static int migrate(struct store *s, struct error *err) {
    char pragma[64];
    int version = 0, r = db_version(s, &version, err);

    if (r < 0)
        return r;
    if (version > SCHEMA_VERSION)
        return error_set(err, -EINVAL,
            "the state was written by a newer version (schema %d, this one knows %d)", version,
            SCHEMA_VERSION);
    for (; version < SCHEMA_VERSION; version++) {
        snprintf(pragma, sizeof(pragma), "PRAGMA user_version=%d", version + 1);
        r = db_exec(s, "BEGIN IMMEDIATE", err);
        if (r == 0)
            r = db_exec(s, migrations[version], err);
        if (r == 0)
            r = db_exec(s, pragma, err);
        if (r == 0)
            r = db_exec(s, "COMMIT", err);
        if (r < 0)
            return r;
    }
    return 0;
}

static int load_table(struct store *s, enum store_table t, struct error *err) {
    _cleanup_(finalizep) sqlite3_stmt *st = NULL;
    char sql[64];
    int r, step;

    snprintf(sql, sizeof(sql), "SELECT key, doc FROM %s", table_names[t]);
    r = db_prepare(s, sql, &st, err);
    if (r < 0)
        return r;
    s->table[t] = json_object();
    if (!s->table[t])
        return error_oom(err);
    while ((step = sqlite3_step(st)) == SQLITE_ROW) {
        const char *key = (const char *)sqlite3_column_text(st, 0);
        json_t *doc = json_loads((const char *)sqlite3_column_text(st, 1), 0, NULL);

        if (!doc || json_object_set_new(s->table[t], key, doc) < 0)
            return error_set(err, -EIO, "the store: %s '%s' is damaged", table_names[t], key);
    }
    return step == SQLITE_DONE ? 0 : db_error(s, "reading", err);
}

static int make_path(char **ret, const char *dir, const char *name, bool is_folder, struct error *err) {
    if (asprintf(ret, "%s/%s", dir, name) < 0) {
        *ret = NULL;
        return error_oom(err);
    }
    if (is_folder && mkdir(*ret, 0700) < 0 && errno != EEXIST)
        return error_errno(err, "the state directory");
    return 0;
}

/* The state directory and its parents. */
static int make_folders(const char *dir, struct error *err) {
    _cleanup_(freep) char *path = strdup(dir);

    if (!path)
        return error_oom(err);
    for (char *p = path + 1; *p; p++) {
        if (*p != '/')
            continue;
        *p = 0;
        if (mkdir(path, 0755) < 0 && errno != EEXIST)
            return error_errno(err, "cannot make '%s'", path);
        *p = '/';
    }
    if (mkdir(path, 0700) < 0 && errno != EEXIST)
        return error_errno(err, "cannot make '%s'", path);
    return 0;
}

static int take_folder(struct store *s, const char *dir, struct error *err) {
    _cleanup_(freep) char *lock = NULL;
    int r = make_folders(dir, err);

    if (r == 0 && !(s->dir = strdup(dir)))
        r = error_oom(err);
    if (r == 0)
        r = make_path(&s->tmp, dir, "tmp", true, err);
    if (r == 0)
        r = make_path(&s->blobs, dir, "blobs", true, err);
    if (r == 0)
        r = make_path(&lock, dir, "lock", false, err);
    if (r < 0)
        return r;
    s->lock_fd = open(lock, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (s->lock_fd < 0)
        return error_errno(err, "the state directory's lock");
    if (flock(s->lock_fd, LOCK_EX | LOCK_NB) < 0)
        return error_set(err, -EBUSY, "another bonsaid uses the state directory '%s'", dir);
    return 0;
}

static int open_db(struct store *s, struct error *err) {
    _cleanup_(freep) char *path = NULL;
    int r = make_path(&path, s->dir, "bonsaid.db", false, err);

    if (r < 0)
        return r;
    if (sqlite3_open_v2(path, &s->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_FULLMUTEX,
            NULL) != SQLITE_OK)
        return db_error(s, "cannot open", err);
    sqlite3_busy_timeout(s->db, 5000);
    r = db_exec(s, "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON", err);
    return r < 0 ? r : migrate(s, err);
}

int store_open(const char *dir, double disk_share, struct store **ret, struct error *err) {
    _cleanup_(store_freep) struct store *s = calloc(1, sizeof(*s));
    pthread_mutexattr_t recursive;
    int r;

    if (!s)
        return error_oom(err);
    s->lock_fd = -1;
    s->disk_share = disk_share;
    pthread_mutexattr_init(&recursive);
    pthread_mutexattr_settype(&recursive, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(&s->write, &recursive);
    pthread_mutexattr_destroy(&recursive);
    pthread_rwlock_init(&s->read, NULL);
    r = take_folder(s, dir, err);
    if (r == 0)
        r = open_db(s, err);
    for (int t = 0; r == 0 && t < STORE_TABLES; t++)
        r = load_table(s, (enum store_table)t, err);
    if (r == 0)
        r = store_forget_keys(s, err);
    if (r == 0)
        r = store_sweep(s, err);
    if (r < 0)
        return r;
    store_checkpoint_sweep(s);
    store_pictures_sweep(s);
    *ret = TAKE(s);
    return 0;
}

struct store *store_free(struct store *s) {
    if (!s)
        return NULL;
    for (int t = 0; t < STORE_TABLES; t++)
        json_decref(s->table[t]);
    sqlite3_close(s->db);
    if (s->lock_fd >= 0)
        close(s->lock_fd);
    pthread_mutex_destroy(&s->write);
    pthread_rwlock_destroy(&s->read);
    free(s->dir);
    free(s->tmp);
    free(s->blobs);
    free(s);
    return NULL;
}

const char *store_tmp(const struct store *s) {
    return s->tmp;
}

void store_lock(struct store *s) {
    pthread_mutex_lock(&s->write);
}

void store_unlock(struct store *s) {
    pthread_mutex_unlock(&s->write);
}

json_t *store_get(struct store *s, enum store_table table, const char *key) {
    json_t *doc;

    pthread_rwlock_rdlock(&s->read);
    doc = json_incref(json_object_get(s->table[table], key));
    pthread_rwlock_unlock(&s->read);
    return doc;
}

static int by_key(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

json_t *store_list(struct store *s, enum store_table table, const char *prefix) {
    json_t *list = json_array(), *doc;
    _cleanup_(freep) const char **keys = NULL;
    size_t n = 0, size = prefix ? strlen(prefix) : 0;
    const char *key;

    pthread_rwlock_rdlock(&s->read);
    keys = calloc(json_object_size(s->table[table]) + 1, sizeof(*keys));
    json_object_foreach(s->table[table], key, doc) if (keys && (!size || !strncmp(key, prefix, size)))
        keys[n++] = key;
    if (keys)
        qsort(keys, n, sizeof(*keys), by_key);
    for (size_t i = 0; list && i < n; i++)
        json_array_append(list, json_object_get(s->table[table], keys[i]));
    pthread_rwlock_unlock(&s->read);
    return list;
}

json_t *store_keys(struct store *s, enum store_table table, const char *prefix) {
    json_t *list = json_array(), *doc;
    const char *key;

    pthread_rwlock_rdlock(&s->read);
    json_object_foreach(s->table[table], key, doc) if (!strncmp(key, prefix, strlen(prefix)))
        json_array_append_new(list, json_string(key));
    pthread_rwlock_unlock(&s->read);
    return list;
}

static int write_change(struct store *s, const struct store_change *c, struct error *err) {
    _cleanup_(finalizep) sqlite3_stmt *st = NULL;
    _cleanup_(freep) char *text = c->doc ? json_dumps(c->doc, JSON_COMPACT) : NULL;
    char sql[96];
    int r;

    if (c->doc && !text)
        return error_oom(err);
    snprintf(sql, sizeof(sql),
        c->doc ? "INSERT OR REPLACE INTO %s(key, doc) VALUES(?1, ?2)" : "DELETE FROM %s WHERE key=?1",
        table_names[c->table]);
    r = db_prepare(s, sql, &st, err);
    if (r < 0)
        return r;
    sqlite3_bind_text(st, 1, c->key, -1, SQLITE_STATIC);
    if (text)
        sqlite3_bind_text(st, 2, text, -1, SQLITE_STATIC);
    return sqlite3_step(st) == SQLITE_DONE ? 0 : db_error(s, "writing", err);
}

static void remember(struct store *s, const struct store_change *changes, size_t n) {
    pthread_rwlock_wrlock(&s->read);
    for (size_t i = 0; i < n; i++) {
        if (changes[i].doc)
            json_object_set(s->table[changes[i].table], changes[i].key, changes[i].doc);
        else
            json_object_del(s->table[changes[i].table], changes[i].key);
    }
    pthread_rwlock_unlock(&s->read);
}

int store_apply(struct store *s, const struct store_change *changes, size_t n, struct error *err) {
    int r;

    store_lock(s);
    r = db_exec(s, "BEGIN IMMEDIATE", err);
    for (size_t i = 0; r == 0 && i < n; i++)
        r = write_change(s, &changes[i], err);
    if (r == 0)
        r = db_exec(s, "COMMIT", err);
    if (r < 0)
        sqlite3_exec(s->db, "ROLLBACK", NULL, NULL, NULL);
    else
        remember(s, changes, n);
    store_unlock(s);
    return r;
}

int store_forget_keys(struct store *s, struct error *err) {
    json_int_t since = (json_int_t)time(NULL) - STORE_KEY_SECONDS;
    _cleanup_(freep) struct store_change *old = NULL;
    json_t *all, *doc;
    const char *key;
    size_t n = 0;
    int r = 0;

    store_lock(s); /* only writers change the table */
    all = s->table[STORE_IDEMPOTENCY];
    old = calloc(json_object_size(all) + 1, sizeof(*old));
    if (old)
        json_object_foreach(all, key, doc) if (json_integer_value(json_object_get(doc, "at")) < since)
            old[n++] = (struct store_change){STORE_IDEMPOTENCY, key, NULL};
    if (n)
        r = store_apply(s, old, n, err);
    store_unlock(s);
    return old ? r : error_oom(err);
}

int64_t store_event_add(struct store *s, const char *job, const char *type, const json_t *data) {
    _cleanup_(freep) char *text = json_dumps(data, JSON_COMPACT | JSON_ENCODE_ANY);
    sqlite3_stmt *st = NULL;
    int64_t id = -ENOMEM;

    if (!text)
        return id;
    store_lock(s);
    id = -EIO;
    if (db_prepare(s,
            "INSERT INTO event SELECT ?1, COALESCE(MAX(id), 0) + 1, ?2, ?3 FROM event WHERE job=?1 RETURNING id",
            &st, NULL) == 0) {
        sqlite3_bind_text(st, 1, job, -1, SQLITE_STATIC);
        sqlite3_bind_text(st, 2, type, -1, SQLITE_STATIC);
        sqlite3_bind_text(st, 3, text, -1, SQLITE_STATIC);
        if (sqlite3_step(st) == SQLITE_ROW)
            id = sqlite3_column_int64(st, 0);
        while (sqlite3_step(st) == SQLITE_ROW)
            ;
    }
    sqlite3_finalize(st);
    store_unlock(s);
    return id;
}

json_t *store_events(struct store *s, const char *job, int64_t since, size_t max) {
    json_t *list = json_array();
    sqlite3_stmt *st = NULL;

    store_lock(s);
    if (db_prepare(s, "SELECT id, type, data FROM event WHERE job=?1 AND id>?2 ORDER BY id LIMIT ?3", &st,
            NULL) == 0) {
        sqlite3_bind_text(st, 1, job, -1, SQLITE_STATIC);
        sqlite3_bind_int64(st, 2, since);
        sqlite3_bind_int64(st, 3, (sqlite3_int64)max);
        while (sqlite3_step(st) == SQLITE_ROW)
            json_array_append_new(
                list, json_pack("{s:I, s:s, s:o}", "id", (json_int_t)sqlite3_column_int64(st, 0), "type",
                          sqlite3_column_text(st, 1), "data",
                          json_loads((const char *)sqlite3_column_text(st, 2), JSON_DECODE_ANY, NULL)));
    }
    sqlite3_finalize(st);
    store_unlock(s);
    return list;
}

void store_events_drop(struct store *s, const char *job) {
    sqlite3_stmt *st = NULL;

    store_lock(s);
    if (db_prepare(s, "DELETE FROM event WHERE job=?1", &st, NULL) == 0) {
        sqlite3_bind_text(st, 1, job, -1, SQLITE_STATIC);
        sqlite3_step(st);
    }
    sqlite3_finalize(st);
    store_unlock(s);
}
