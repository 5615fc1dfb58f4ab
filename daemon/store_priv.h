/* What store.c and blob.c share. */
#ifndef DAEMON_STORE_PRIV_H
#define DAEMON_STORE_PRIV_H

#include <pthread.h>
#include <sqlite3.h>

#include "daemon/store.h"

struct store {
    char *dir, *tmp, *blobs;
    int lock_fd;
    double disk_share;
    sqlite3 *db;
    pthread_mutex_t write;       /* recursive: one writer; protects db */
    pthread_rwlock_t read;       /* protects table[] */
    json_t *table[STORE_TABLES]; /* {key: document} */
};

/* Removes files in tmp/ and blobs no document names. */
int store_sweep(struct store *s, struct error *err);

/* Drops the checkpoints that no job can go on from. */
void store_checkpoint_sweep(struct store *s);

/* Decoded pictures: those of a file that is gone, and at start those of all that are. */
void store_pictures_drop(struct store *s, const char *digest);
void store_pictures_sweep(struct store *s);

/* Does a model, variant or data set own the file? */
bool store_blob_is_named(struct store *s, const char *digest);

#endif
