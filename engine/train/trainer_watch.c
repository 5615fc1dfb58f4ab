/* Where the time of a step goes. */
#include <errno.h>
#include <stdlib.h>

#include "engine/train/trainer_priv.h"

int trainer_watch(struct trainer *t, struct error *err) {
    free(t->us);
    t->us = calloc(t->options.lanes * t->tape.n_items + 1, sizeof(*t->us));
    return t->us ? 0 : error_oom(err);
}

size_t trainer_n_steps(const struct trainer *t) {
    return (size_t)t->tape.n_steps;
}

void trainer_step(const struct trainer *t, size_t i, struct trainer_step *ret) {
    const struct tape_step *s = &t->tape.step[i];

    *ret = (struct trainer_step){.kernel = s->kernel->name, .op = s->node->op_type, .id = s->node->id};
    for (size_t k = 0; t->us && k < t->options.lanes * t->tape.n_items; k++) {
        const struct tape_item *item = &t->tape.program[k % t->tape.n_items];

        if (item->pass == TAPE_LOSS || item->step != (int)i)
            continue;
        *(item->pass == TAPE_FORWARD ? &ret->forward_us : &ret->backward_us) += t->us[k];
    }
}
