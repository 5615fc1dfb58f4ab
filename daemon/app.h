/* The daemon's parts wired together: opened in order, closed in the reverse. main.c's business. */
#ifndef DAEMON_APP_H
#define DAEMON_APP_H

#include <pthread.h>
#include <uv.h>

#include "api/api.h"
#include "api/auth.h"
#include "api/server.h"
#include "config/config.h"
#include "daemon/jobs.h"
#include "daemon/judge.h"
#include "daemon/residency.h"
#include "daemon/scheduler.h"
#include "daemon/store.h"
#include "daemon/tuning.h"

struct app {
    struct config config;
    uv_loop_t loop;
    uv_signal_t on_term, on_int, on_hup;
    uv_timer_t watchdog, ready;
    struct api api;
    struct auth *auth;
    struct server *server;
    struct store *store;
    struct residency *residency;
    struct activity *activity;
    struct scheduler *scheduler;
    struct tuner *tuner;
    struct tuning *tuning;
    struct judge *judge;
    struct jobs *jobs;
    struct events *events;
    char *cert, *key, *client_ca; /* PEM texts */
    pthread_t restorer;
    bool has_restorer, is_ending;
};

/* Everything but the listeners. */
int app_open(struct app *a, struct error *err);
/* Listens; the loaded set comes back on a thread of its own. */
int app_listen(struct app *a, struct error *err);
void app_close(struct app *a);

#endif
