#include "engine/pass.h"

static const struct pass match_weights = {"match_weights", false, pass_match_weights};
static const struct pass qdq = {"qdq", false, pass_qdq};

const struct pass *const pass_table[] = {
    &match_weights,
    &qdq,
};
const size_t pass_table_size = sizeof(pass_table) / sizeof(*pass_table);
