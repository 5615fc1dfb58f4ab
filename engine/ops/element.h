/* Elements of any type, one at a time: for operators whose speed does not matter in types other than float.
 */
#ifndef ENGINE_OPS_ELEMENT_H
#define ENGINE_OPS_ELEMENT_H

#include "engine/tensor.h"

/* Element i as a real number; 64-bit integers beyond 2^53 lose their low bits. */
double element_get(const struct tensor *t, int64_t i);

/* Element i as an integer: uint64 as its bits, floats cut off and saturated, NaN 0. */
int64_t element_get_int(const struct tensor *t, int64_t i);

/* Rounds to nearest even into floats; cuts off and saturates at int64, then wraps, into integers; true if not
 * 0 into bool. Elements that share a byte keep their neighbours. */
void element_set(struct tensor *t, int64_t i, double v);

/* Wraps into narrower integers. */
void element_set_int(struct tensor *t, int64_t i, int64_t v);

/* n numbers from element `first` on between float16, bfloat16 or float and float, rounded as element_set
 * does; false: another type. */
bool element_read_floats(const struct tensor *t, int64_t first, int64_t n, float *ret);
bool element_write_floats(struct tensor *t, int64_t first, int64_t n, const float *x);

/* Floats, integers and bool of 2 to 64 bits. */
bool element_is_known(enum dtype t);
bool element_is_float(enum dtype t);
bool element_is_half(enum dtype t); /* float16, bfloat16 */

#endif
