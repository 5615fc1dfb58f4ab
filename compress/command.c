#include "compress/command.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "compress/job_io.h"

#define JSON_FILE_MAX (64u << 20)

int command_print(json_t *j) {
    int r = j ? json_dumpf(j, stdout, JSON_COMPACT | JSON_REAL_PRECISION(9)) : -1;

    json_decref(j);
    if (r < 0 || putchar('\n') == EOF || fflush(stdout) == EOF)
        return EXIT_FAILURE;
    return EXIT_SUCCESS;
}

int command_fail(const struct error *err) {
    command_print(json_pack("{s:s, s:s}", "error", err->text, "code", job_error_code(err)));
    return EXIT_FAILURE;
}

int command_usage(const struct command *c) {
    fprintf(stderr, "usage: bonsai-worker %s %s\n%s\n", c->name, c->arguments, c->summary);
    return EXIT_USAGE;
}

int command_read_file(const char *path, size_t max, void **ret, size_t *ret_size, struct error *err) {
    _cleanup_(fclosep) FILE *f = fopen(path, "rbe");
    _cleanup_(freep) char *data = NULL;
    struct stat st;

    if (!f || fstat(fileno(f), &st) < 0)
        return error_errno(err, "'%s'", path);
    if (!S_ISREG(st.st_mode) || st.st_size < 0 || (size_t)st.st_size > max)
        return error_set(err, -EFBIG, "'%s' is not a regular file of at most %zu bytes", path, max);
    data = malloc((size_t)st.st_size + 1);
    if (!data)
        return error_oom(err);
    if (fread(data, 1, (size_t)st.st_size, f) != (size_t)st.st_size)
        return error_set(err, -EIO, "'%s' could not be read whole", path);
    data[st.st_size] = 0;
    *ret_size = (size_t)st.st_size;
    *ret = TAKE(data);
    return 0;
}

int command_read_json(const char *path, json_t **ret, struct error *err) {
    _cleanup_(freep) void *data = NULL;
    json_error_t where;
    size_t size;
    int r = command_read_file(path, JSON_FILE_MAX, &data, &size, err);

    if (r < 0)
        return r;
    *ret = json_loadb(data, size, JSON_REJECT_DUPLICATES, &where);
    if (!*ret)
        return error_code(err, -EINVAL, "bad_json", "'%s', line %d: %s", path, where.line, where.text);
    return 0;
}

int command_number(const char *option, const char *text, long min, long max, long *ret, struct error *err) {
    char *end;
    long v;

    errno = 0;
    v = strtol(text, &end, 10);
    if (errno || end == text || *end || v < min || v > max)
        return error_set(err, -EINVAL, "--%s: '%s' is not a number from %ld to %ld", option, text, min, max);
    *ret = v;
    return 0;
}
