/* The kernels' rows, for the table of kernel.c alone. */
#ifndef ENGINE_KERNEL_ROWS_H
#define ENGINE_KERNEL_ROWS_H

#include "engine/kernel/kernel.h"

extern const struct kernel kernel_convert_any;
extern const struct kernel kernel_reference;

#endif
