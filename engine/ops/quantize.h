#ifndef ENGINE_OPS_QUANTIZE_H
#define ENGINE_OPS_QUANTIZE_H

#include <stdint.h>

struct quantize_param {
    int64_t axis;  /* of per-axis and block scales */
    int64_t block; /* elements of the axis that share a scale; 0: none */
};

#endif
