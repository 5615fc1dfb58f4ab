/* A compressed network as training sees it, and back.
 *
 *   encoded                                         to train
 *   W: codes, scales, places        ─open──>        float latent weights + weight transforms
 *   x ─ Quantize ─ Dequantize ─ …                   x + activation transform
 *                                   <──close─       the same forms with the trained numbers
 *
 * What a form means while it learns (engine/train/transform.h):
 *   sparse, block, nm, and float weights of which a fifth and more is zero: a mask, zeros stay
 *   s8, s4: fake-quantised by their scales    lut: a tied codebook, codes stay    bit: sign    trit: ternary
 * and several of them together, the mask last. Latent weights end with the training: what is kept is what the
 * file holds. */
#ifndef COMPRESS_TRAINABLE_H
#define COMPRESS_TRAINABLE_H

#include "base/cleanup.h"
#include "compress/learn.h"

/* Float weights are taken for pruned ones, whose zeros stay, from this share of zeros on. */
#define TRAINABLE_SPARSE_FROM 0.2

struct trainable;

struct trainable_options {
    /* Where layers (by id) have float weights of the same shape, latents start from them: the graph before
     * the step that encoded it. NULL: from what the codes stand for. */
    const struct graph *latents;
    bool learns_scales; /* those of s8 and s4 weights, and of values that share theirs with no other, are
                           learned (Esser 2020) */
};

/* `g` stays as it is. Errors: method_not_applicable naming the layer whose form cannot be trained. */
int trainable_open(
    const struct graph *g, const struct trainable_options *o, struct trainable **ret, struct error *err);
struct trainable *trainable_free(struct trainable *t);
DEFINE_CLEANUP(struct trainable *, trainable_free)

/* To be trained; the trainable's. */
struct graph *trainable_graph(struct trainable *t);

/* Are there forms or quantised values, or is it an ordinary float network? */
bool trainable_is_encoded(const struct trainable *t);
/* Are there transforms that a batch norm could not be folded through (all but masks)? */
bool trainable_fixes_scales(const struct trainable *t);

/* Puts transforms, key and, if scales are learned, a hook, and what is judged between epochs, into a run. */
void trainable_run(struct trainable *t, struct learn_run *run);

/* `trained`: trainable_graph() or a copy of it with new parameters. *ret: the encoded network with them,
 * finished. */
int trainable_close(struct trainable *t, const struct graph *trained, struct graph **ret, struct error *err);

#endif
