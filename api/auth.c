#include "api/auth.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "base/buf.h"
#include "base/cleanup.h"

#define DIGEST_SIZE    32
#define MAX_TOKENS     1000
#define TOKEN_FILE_MAX (1 << 20)
#define LOCAL_SCOPES   (SCOPE_ALL & ~SCOPE_ADMIN)
#define GROUP_SCOPES   (SCOPE_READ | SCOPE_INFER | SCOPE_FEEDBACK)

struct token {
    char name[REQUEST_PRINCIPAL_MAX];
    unsigned scopes;
    bool has_digest; /* else for a client certificate only */
    unsigned char digest[DIGEST_SIZE];
};

struct auth {
    bool has_file;
    struct token *tokens;
    size_t n_tokens;
};

DEFINE_CLEANUP(struct auth *, auth_free)

static const struct {
    const char *word;
    unsigned scope;
} scope_words[] = {
    {"admin", SCOPE_ADMIN},
    {"all", SCOPE_ALL},
    {"compress", SCOPE_COMPRESS},
    {"feedback", SCOPE_FEEDBACK},
    {"infer", SCOPE_INFER},
    {"read", SCOPE_READ},
    {"route", SCOPE_ROUTE},
    {"upload", SCOPE_UPLOAD},
};

unsigned auth_parse_scopes(const char *s, size_t size) {
    unsigned scopes = 0;

    while (size) {
        const char *comma = memchr(s, ',', size);
        size_t n = comma ? (size_t)(comma - s) : size;
        unsigned one = 0;

        for (size_t i = 0; i < sizeof(scope_words) / sizeof(scope_words[0]); i++)
            if (strlen(scope_words[i].word) == n && !memcmp(scope_words[i].word, s, n))
                one = scope_words[i].scope;
        if (!one)
            return 0;
        scopes |= one;
        s += n + (comma != NULL);
        size -= n + (comma != NULL);
    }
    return scopes;
}

static bool parse_hex(const char *hex, unsigned char out[DIGEST_SIZE]) {
    if (strspn(hex, "0123456789abcdef") != 2 * DIGEST_SIZE || hex[2 * DIGEST_SIZE])
        return false;
    for (size_t i = 0; i < DIGEST_SIZE; i++) {
        unsigned v;

        if (sscanf(hex + 2 * i, "%2x", &v) != 1)
            return false;
        out[i] = (unsigned char)v;
    }
    return true;
}

/* `line` is cut at its end and writable. An empty one is no token: *ret stays. */
static int parse_line(char *line, unsigned no, struct auth *a, struct error *err) {
    struct token t = {0};
    char *save = NULL;
    char *name, *scopes, *digest;

    line[strcspn(line, "#")] = 0;
    name = strtok_r(line, " \t\r", &save);
    if (!name)
        return 0;
    scopes = strtok_r(NULL, " \t\r", &save);
    digest = strtok_r(NULL, " \t\r", &save);
    if (!scopes || !digest || strtok_r(NULL, " \t\r", &save))
        return error_set(err, -EINVAL, "token file, line %u: want NAME SCOPES sha256:HEX", no);
    if (!request_is_name(name))
        return error_code(err, -EINVAL, "bad_name", "token file, line %u: the first word is not a name", no);
    t.scopes = auth_parse_scopes(scopes, strlen(scopes));
    if (!t.scopes)
        return error_set(err, -EINVAL, "token file, line %u: unknown scope in '%.64s'", no, scopes);
    t.has_digest = strcmp(digest, "-") != 0;
    if (t.has_digest && (strncmp(digest, "sha256:", 7) != 0 || !parse_hex(digest + 7, t.digest)))
        return error_set(
            err, -EINVAL, "token file, line %u: want sha256: and 64 lower-case hexadecimal digits", no);
    if (a->n_tokens == MAX_TOKENS)
        return error_set(err, -EINVAL, "token file: more than %d tokens", MAX_TOKENS);
    memcpy(t.name, name, strlen(name) + 1);
    a->tokens[a->n_tokens++] = t;
    return 0;
}

int auth_parse(const char *text, struct auth **ret, struct error *err) {
    _cleanup_(auth_freep) struct auth *a = calloc(1, sizeof(*a));
    _cleanup_(freep) char *copy = strdup(text);
    char *line = copy;

    if (!a || !copy)
        return error_oom(err);
    a->has_file = true;
    a->tokens = calloc(MAX_TOKENS, sizeof(*a->tokens));
    if (!a->tokens)
        return error_oom(err);
    for (unsigned no = 1; line; no++) {
        char *end = strchr(line, '\n');
        int rc;

        if (end)
            *end = 0;
        rc = parse_line(line, no, a, err);
        if (rc)
            return rc;
        line = end ? end + 1 : NULL;
    }
    *ret = TAKE(a);
    return 0;
}

static int read_file(const char *path, struct buf *b, struct error *err) {
    _cleanup_(closep) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    struct stat st;
    char chunk[4096];
    ssize_t n;

    if (fd < 0 || fstat(fd, &st))
        return error_errno(err, "token file");
    if (!S_ISREG(st.st_mode) || (st.st_mode & 07))
        return error_set(
            err, -EPERM, "the token file must be a regular file closed to others (chmod o= FILE)");
    while ((n = read(fd, chunk, sizeof(chunk))) > 0) {
        int rc = buf_append(b, chunk, (size_t)n);

        if (rc)
            return error_set(err, rc, "the token file is too large");
    }
    return n < 0 ? error_errno(err, "token file") : 0;
}

int auth_new(const char *path, struct auth **ret, struct error *err) {
    _cleanup_(buf_done) struct buf b;
    struct auth *a;
    int rc;

    buf_init(&b, TOKEN_FILE_MAX);
    if (path) {
        rc = read_file(path, &b, err);
        return rc ? rc : auth_parse(b.data ? b.data : "", ret, err);
    }
    a = calloc(1, sizeof(*a));
    if (!a)
        return error_oom(err);
    *ret = a;
    return 0;
}

void auth_free(struct auth *a) {
    if (!a)
        return;
    free(a->tokens);
    free(a);
}

bool auth_has_tokens(const struct auth *a) {
    return a->has_file;
}

static void identify_as(struct request *r, const struct token *t) {
    r->scopes = t->scopes;
    memcpy(r->principal, t->name, sizeof(r->principal));
}

static void identify_certificate(const struct auth *a, const char *name, struct request *r) {
    for (size_t i = 0; i < a->n_tokens; i++)
        if (!strcmp(a->tokens[i].name, name))
            identify_as(r, &a->tokens[i]);
}

static int identify_token(const struct auth *a, const char *header, struct request *r, struct error *err) {
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned n = 0;
    const char *token = header + 7;

    if (strncasecmp(header, "Bearer ", 7) != 0)
        return error_code(err, -EACCES, "unauthorized", "Authorization must be a bearer token");
    if (!EVP_Digest(token, strlen(token), digest, &n, EVP_sha256(), NULL) || n != DIGEST_SIZE)
        return error_set(err, -EIO, "cannot hash the token");
    for (size_t i = 0; i < a->n_tokens; i++) {
        if (!a->tokens[i].has_digest || CRYPTO_memcmp(digest, a->tokens[i].digest, DIGEST_SIZE) != 0)
            continue;
        identify_as(r, &a->tokens[i]);
        return 0;
    }
    return error_code(err, -EACCES, "unauthorized", "the token is not known");
}

int auth_identify(const struct auth *a, const struct auth_peer *peer, struct request *r, struct error *err) {
    const char *header = request_header(r, "Authorization");

    r->scopes = 0;
    r->principal[0] = 0;
    if (header && a->has_file)
        return identify_token(a, header, r, err);
    if (peer->cert_name[0])
        identify_certificate(a, peer->cert_name, r);
    if (r->principal[0])
        return 0;
    if (peer->is_unix) {
        if (!peer->uid || peer->uid == geteuid())
            r->scopes = SCOPE_ALL;
        else if (peer->in_group)
            r->scopes = GROUP_SCOPES;
        snprintf(r->principal, sizeof(r->principal), "unix:%u", (unsigned)peer->uid);
    } else if (!a->has_file) {
        r->scopes = LOCAL_SCOPES;
        snprintf(r->principal, sizeof(r->principal), "local");
    }
    return 0;
}

/* Any of `need` would do; the administrator's is named only where it is the only one. */
static const char *scope_word(unsigned need) {
    const char *word = "all";

    for (size_t i = sizeof(scope_words) / sizeof(scope_words[0]); i-- > 0;)
        if (scope_words[i].scope & need && (need == SCOPE_ADMIN || !(scope_words[i].scope & SCOPE_ADMIN)))
            word = scope_words[i].word;
    return word;
}

int auth_check(const struct request *r, unsigned need, struct error *err) {
    if (need == SCOPE_OPEN || (r->scopes & need))
        return 0;
    if (!r->principal[0])
        return error_code(
            err, -EACCES, "unauthorized", "this needs a bearer token in the Authorization header");
    return error_code(
        err, -EACCES, "forbidden", "'%s' does not have the scope '%s'", r->principal, scope_word(need));
}
