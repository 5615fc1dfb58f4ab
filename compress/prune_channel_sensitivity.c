/* How much the answers change when a part of one family's channels goes and nothing else (sensitivity.h; Li
 * et al. 2017, section 3.2, measures accuracy instead, which needs labels and says less from few samples). */
#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "compress/prune_channel.h"
#include "compress/prune_remove.h"
#include "compress/sensitivity.h"

#define SAMPLES 128

/* With the first `n` of the family's channels gone. */
static int measure(const struct channel_net *net, struct sensitivity *judge, const struct channel_family *of,
    int n, double *ret, struct error *err) {
    _cleanup_(freep) bool *goes = calloc((size_t)net->c.n + 1, sizeof(*goes));
    _cleanup_(sensitivity_damage_done) struct sensitivity_damage d = {0};
    _cleanup_(graph_freep) struct graph *copy = NULL;
    int r = goes ? graph_clone(net->g, &copy, err) : error_oom(err);

    for (int i = 0; r == 0 && i < n; i++)
        goes[of->order[i]] = true;
    if (r == 0)
        r = prune_remove(copy, &net->c, goes, err);
    if (r == 0)
        r = sensitivity_judge(judge, 0, copy, &d, err);
    if (r == 0)
        *ret = sensitivity_cost(&d);
    return r;
}

int channel_sensitivity(struct channel_net *net, struct work *work, double **ret, struct error *err) {
    size_t n = (size_t)net->n_families * CHANNEL_STEPS;
    _cleanup_(freep) double *all = malloc((n + 1) * sizeof(*all));
    const struct sensitivity_options options = {.samples = SAMPLES, .progress = work->progress};
    _cleanup_(sensitivity_freep) struct sensitivity *judge = NULL;
    int r = all ? channel_sort(net, err) : error_oom(err);

    if (r == 0)
        r = sensitivity_open(net->g, work->samples, &options, &judge, err);
    for (int f = 0; f < net->n_families && r == 0; f++) {
        const struct channel_family *of = &net->of[f];

        r = progress_at(work->progress, (double)f / net->n_families, "measuring sensitivity", err);
        for (int step = 0; step < CHANNEL_STEPS && r == 0; step++) {
            int gone = of->n * (step + 1) / CHANNEL_STEPS;
            double *at = &all[f * CHANNEL_STEPS + step], least = step ? at[-1] : 0;

            *at = 1e30;
            if (gone == 0)
                *at = 0;
            else if (gone <= of->n_free && gone < of->n) {
                struct error e = {0};

                r = measure(net, judge, of, gone, at, &e);
                if (r == -ESTALE)
                    r = 0; /* a value without channels */
                else if (r < 0)
                    error_copy(err, &e);
            }
            *at = *at < least ? least : *at;
        }
    }
    if (r == 0)
        *ret = TAKE(all);
    return r;
}
