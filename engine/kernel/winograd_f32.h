/* Winograd's convolutions F(4x4, 3x3) and F(2x2, 3x3) on floats, channels last (Lavin and Gray 2015): 36
 * multiplications an input channel for 16 outputs instead of 144, or 16 for 4 instead of 36.
 *
 *   tile of 6x6 input pixels d  →  V = B^T d B       36 matrices V[p][tile][ic]
 *   filter of 3x3 taps g        →  U = G g G^T       36 matrices U[p][ic][oc], packed once
 *                                  M[p] = V[p] U[p]  36 products of matrices
 *   tile of 4x4 outputs         =  A^T M A + bias, posts
 *
 * (4x4 input pixels and 16 matrices for tiles of 2x2.) A block of tiles goes through all of it before the
 * next one, so that V and M stay in the second-level cache. Nothing but channels-last memory is read or
 * written. The small tiles need more multiplications but only 16/9 of the filters' memory, not 4 times as
 * much: they win where there are few pixels and many channels. */
#ifndef ENGINE_KERNEL_WINOGRAD_F32_H
#define ENGINE_KERNEL_WINOGRAD_F32_H

#include "engine/kernel/conv_geometry.h"
#include "engine/kernel/post_f32.h"

struct winograd {
    int m; /* outputs of a tile in each direction: 4 or 2; m + 2 input pixels */
    struct conv_geometry g;
    struct post_f32 post;
    int64_t tiles_y, tiles_x;
    int64_t block;  /* tiles of a block, at most */
    int64_t v_step; /* elements from one of the (m + 2)^2 matrices to the next, in scratch */
    int64_t m_step;
    int64_t lanes_u; /* columns of a panel of U */
    int64_t u_step;  /* elements of one packed matrix */
    const float *u, *bias;
};

/* Tiles first to last - 1 (of all images, row by row), output channels oc to oc_end - 1 (multiples of a
 * panel). */
struct winograd_job {
    const float *x;
    float *y;
    const void *const *residual;
    float *v, *m;
    int64_t first, last, oc, oc_end;
};

void winograd_f32_avx512(const struct winograd *w, const struct winograd_job *j);
void winograd_f32_avx2(const struct winograd *w, const struct winograd_job *j);

#endif
