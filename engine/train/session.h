/* The graph that a training session runs: a copy that begins at a cut and ends at a tap, with a node wherever
 * an activation is transformed. Values keep their numbers; those that are added come behind them. */
#ifndef ENGINE_TRAIN_SESSION_H
#define ENGINE_TRAIN_SESSION_H

#include "engine/graph.h"
#include "engine/train/trainer.h"

/* *ret is NULL when `g` itself does. `item`: of what is fed. Errors: invalid_model (no such value, or the tap
 * depends on more than the cut), those of the transforms. */
int session_graph_new(const struct graph *g, const struct shape *item, const struct trainer_options *o,
    struct graph **ret, struct error *err);

/* What a node of the operator "ActivationTransform" does; its `param`. in[1], if there, is the learned
 * number. */
struct session_activation {
    const struct activation *row;
    const void *param;
};

extern const struct op session_activation_op;

#endif
