#include "compress/samples.h"

#include <stddef.h>

void samples_done(struct samples *s) {
    if (s->done)
        s->done(s->owner);
    *s = (struct samples){0};
}
