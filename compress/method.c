#include "compress/method.h"

#include <string.h>

#include "compress/encode.h"
#include "compress/finetune.h"
#include "compress/lowrank.h"
#include "compress/prune.h"
#include "compress/quantize.h"

/* sorted by name */
const struct method *const method_table[] = {
    &method_encode,
    &method_finetune,
    &method_lowrank,
    &method_prune,
    &method_quantize,
};
const size_t method_table_size = sizeof(method_table) / sizeof(method_table[0]);

const struct method *method_find(const char *name) {
    for (size_t i = 0; i < method_table_size; i++)
        if (!strcmp(method_table[i]->name, name))
            return method_table[i];
    return NULL;
}
