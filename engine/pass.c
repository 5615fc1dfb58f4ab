#include "engine/pass.h"

/* Identities go first: initialisers shared through Identity are then one value, not copies. */
static const struct pass widen = {"widen", true, pass_widen};
static const struct pass remove_identities = {"remove_identities", true, pass_remove_identities};
static const struct pass fold_constants = {"fold_constants", true, pass_fold_constants};
static const struct pass expand_qlinear = {"expand_qlinear", true, pass_expand_qlinear};
static const struct pass global_pools = {"global_pools", true, pass_global_pools};
static const struct pass merge_pads = {"merge_pads", true, pass_merge_pads};
static const struct pass fold_batch_norm = {"fold_batch_norm", true, pass_fold_batch_norm};
static const struct pass match_weights = {"match_weights", false, pass_match_weights};
static const struct pass qdq = {"qdq", false, pass_qdq};
static const struct pass fuse = {"fuse", false, pass_fuse};
static const struct pass sign = {"sign", false, pass_sign};

const struct pass *const pass_table[] = {
    &widen,
    &remove_identities,
    &expand_qlinear,
    &fold_constants,
    &global_pools,
    &merge_pads,
    &fold_batch_norm,
    &match_weights,
    &qdq,
    &fuse,
    &sign,
};
const size_t pass_table_size = sizeof(pass_table) / sizeof(*pass_table);
