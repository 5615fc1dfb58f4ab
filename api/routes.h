/* The files' arrays of routes, for routes.c alone. */
#ifndef API_ROUTES_H
#define API_ROUTES_H

#include "api/route.h"

extern const struct route bench_routes[];
extern const struct route compare_routes[];
extern const struct route comparison_routes[];
extern const struct route datasets_routes[];
extern const struct route events_routes[];
extern const struct route health_routes[];
extern const struct route jobs_routes[];
extern const struct route metrics_routes[];
extern const struct route models_routes[];
extern const struct route openapi_routes[];
extern const struct route page_routes[];
extern const struct route variant_import_routes[];
extern const struct route variants_routes[];
extern const struct route system_routes[];
extern const struct route v2_infer_routes[];
extern const struct route v2_repository_routes[];
extern const struct route v2_routes[];
extern const struct route v2_stats_routes[];

#endif
