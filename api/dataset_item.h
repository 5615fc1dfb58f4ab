/* One item of a pack as a PNG reply. */
#ifndef API_DATASET_ITEM_H
#define API_DATASET_ITEM_H

#include <stdint.h>

#include "api/reply.h"

/* fd: the pack (kept by the caller). `split` NULL: the first. Errors: not_found. */
int dataset_item_reply(int fd, const char *split, uint64_t index, struct reply *p, struct error *err);

#endif
