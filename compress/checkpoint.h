/* Where a long computation stands, in one file that is replaced as a whole (replace_file.h): a JSON object
 * with numbers and lists, and blocks of bytes. A file that is cut short, damaged or of another computation is
 * none.
 *
 * Layout: "bonsaick", length of the head (8 bytes, little-endian), the head as JSON ({"key", "state",
 * "blocks": [bytes…]}), the blocks one after the other, SHA-256 of all that is before it. */
#ifndef COMPRESS_CHECKPOINT_H
#define COMPRESS_CHECKPOINT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

struct checkpoint_block {
    void *data;
    size_t size; /* bytes */
};

/* `key` says what is computed, of what (a digest). Errors: disk_budget; the old file is then still good. */
int checkpoint_write(const char *path, const char *key, const json_t *state,
    const struct checkpoint_block *block, size_t n, struct error *err);

/* True: *ret is the state (new reference) and the blocks, which must be of the sizes in the file, are filled.
 * False: there is no such file, or it is not whole, or of another key; nothing was touched. */
bool checkpoint_read(
    const char *path, const char *key, const struct checkpoint_block *block, size_t n, json_t **ret);

#endif
