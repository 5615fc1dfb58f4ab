/* Listening sockets: from an address of the configuration, or inherited from systemd. */
#ifndef API_LISTENER_H
#define API_LISTENER_H

#include <stdbool.h>

#include "base/error.h"

struct listener {
    int fd; /* owned */
    bool is_unix, is_loopback;
    char *unlink_path; /* owned: of a Unix socket we made */
    char url[160];     /* "http://127.0.0.1:8080", "unix:PATH" */
};

/* "ADDR:PORT", "[V6]:PORT", "unix:PATH"; port 0 picks one. */
int listener_open(const char *spec, bool is_tls, struct listener *ret, struct error *err);

/* A socket that is listening already. Takes fd. */
int listener_adopt(int fd, bool is_tls, struct listener *ret, struct error *err);
void listener_done(struct listener *l);

/* Sockets handed over by systemd (sd_listen_fds(3)): their number, the first is descriptor 3. Clears the
 * variables, so that children see none. */
int listener_inherited(void);

#endif
