#include "api/routes.h"

/* Every file that answers requests. A file's rows stand at its end. */
const struct route *const route_files[] = {
    bench_routes,
    compare_routes,
    comparison_routes,
    datasets_routes,
    events_routes,
    health_routes,
    jobs_routes,
    metrics_routes,
    models_routes,
    openapi_routes,
    page_routes,
    system_routes,
    v2_infer_routes,
    v2_repository_routes,
    v2_routes,
    v2_stats_routes,
    variant_import_routes,
    variants_routes,
};
const size_t route_files_size = sizeof(route_files) / sizeof(route_files[0]);
