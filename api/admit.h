/* Who may go on, decided from the headers: host, origin, authorisation, route, limits, in that order, so that
 * nobody learns from a refusal what they may not know (api.md 8: authorisation comes before look-up). */
#ifndef API_ADMIT_H
#define API_ADMIT_H

#include "api/exchange.h"

/* 0: x->limit, coding, cors_origin and req.route are set, or x->reply answers at once (a preflight). */
int admit_request(struct exchange *x, const struct auth_peer *peer, struct error *err);

#endif
