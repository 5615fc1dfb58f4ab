/* Who asks, and what they may: bearer tokens, and the peer of a Unix socket.
 *
 * The token file (option token_file), one token a line; '#' starts a comment:
 *
 *     NAME  SCOPE[,SCOPE…]  sha256:HEX
 *
 * NAME follows the name pattern and shows in logs; scopes are read, infer, upload, compress, route, feedback,
 * admin, or "all"; HEX is the SHA-256 of the token, so the file never holds one:
 *
 *     token=$(openssl rand -hex 32); printf %s "$token" | sha256sum
 *
 * A client certificate that an authority of the option client_ca has signed, and whose common name is NAME,
 * has the scopes of that line as well; "-" in place of the digest makes a line for a certificate only.
 *
 * The file must not be readable or writable by others. Without a file, loopback TCP has every scope but
 * admin. */
#ifndef API_AUTH_H
#define API_AUTH_H

#include <stdbool.h>
#include <sys/types.h>

#include "api/request.h"

struct auth;

/* The scopes named in "read,infer"; 0: an unknown word. */
unsigned auth_parse_scopes(const char *s, size_t size);

/* `path` NULL: no token file. Errors name the line, not the path. */
int auth_new(const char *path, struct auth **ret, struct error *err);

/* From the text of a token file. */
int auth_parse(const char *text, struct auth **ret, struct error *err);
void auth_free(struct auth *a);
bool auth_has_tokens(const struct auth *a);

struct auth_peer {
    bool is_unix;
    uid_t uid;                             /* of a Unix peer */
    bool in_group;                         /* a Unix peer in the daemon's group */
    char cert_name[REQUEST_PRINCIPAL_MAX]; /* common name of a verified certificate, "": none */
};

/* Sets r->scopes and r->principal. An Authorization header always decides alone, when there is a token file.
 * Error: unauthorized for a token that is not known or a header that is not Bearer; none when nothing was
 * sent: then the scopes are those of the peer (may be 0). */
int auth_identify(const struct auth *a, const struct auth_peer *peer, struct request *r, struct error *err);

/* unauthorized when nobody was identified, forbidden when they lack all of `need`. */
int auth_check(const struct request *r, unsigned need, struct error *err);

#endif
