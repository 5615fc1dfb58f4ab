#include "engine/ops.h"

#include <string.h>

/* sorted by name */
const struct op *const op_table[] = {
    NULL,
};
const size_t op_table_size = sizeof(op_table) / sizeof(op_table[0]) - 1;

const struct op *op_find(const char *domain, const char *name) {
    for (size_t i = 0; i < op_table_size; i++)
        if (strcmp(op_table[i]->name, name) == 0 && strcmp(op_table[i]->domain, domain) == 0)
            return op_table[i];
    return NULL;
}
