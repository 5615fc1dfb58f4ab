/* A node's posts as sparse.h does them on floats. */
#ifndef ENGINE_KERNEL_SPARSE_POST_H
#define ENGINE_KERNEL_SPARSE_POST_H

#include "engine/kernel/sparse.h"

bool sparse_posts_fit(const struct layer *l);

/* Returns how many. */
int sparse_posts_init(const struct layer *l, struct sparse_post ret[NODE_MAX_POSTS]);

#endif
