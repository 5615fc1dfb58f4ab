/* An uploaded data set: imported into a pack that must open again. Limits are small, so that a bomb is
 * refused early. */
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "compress/dataset.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct dataset_options o = {.max_bytes = 1 << 20, .max_members = 200, .max_pixels = 100000};
    _cleanup_(closep) int in = memfd_create("archive", MFD_CLOEXEC), out = memfd_create("pack", MFD_CLOEXEC);
    struct error err = {0};
    json_t *summary = NULL;

    if (in < 0 || out < 0 || write(in, data, size) != (ssize_t)size || lseek(in, 0, SEEK_SET) != 0)
        return 0;
    if (size % 3 == 1)
        o.split = "test";
    if (dataset_import(in, out, &o, NULL, &summary, &err) == 0) {
        _cleanup_(pack_freep) struct pack *pack = NULL;

        /* what was written is what is read, and something is in it */
        if (pack_open(out, &pack, NULL) < 0 || json_integer_value(json_object_get(summary, "count")) < 1)
            abort();
    } else if (!err.err) {
        abort(); /* a refusal says why */
    }
    json_decref(summary);
    return 0;
}
