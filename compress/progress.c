#include "compress/progress.h"

#include <errno.h>
#include <stddef.h>

int progress_at(const struct progress *p, double fraction, const char *message, struct error *err) {
    if (!p)
        return 0;
    if (p->report)
        p->report(p->ctx, fraction, message);
    if (p->is_cancelled && p->is_cancelled(p->ctx))
        return error_code(err, -ECANCELED, "cancelled", "cancelled");
    return 0;
}
