#include "compress/learn_state.h"

#include <errno.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "compress/feed.h"

/* ---- the key ---- */

static bool add_bytes(EVP_MD_CTX *md, const void *data, size_t size) {
    return EVP_DigestUpdate(md, data, size);
}

static bool add_json(EVP_MD_CTX *md, const json_t *j) {
    _cleanup_(freep) char *text = j ? json_dumps(j, JSON_COMPACT | JSON_SORT_KEYS | JSON_ENCODE_ANY) : NULL;

    return !j || (text && add_bytes(md, text, strlen(text) + 1));
}

static bool add_pictures(EVP_MD_CTX *md, const struct pack *p) {
    struct pack_item item;

    for (uint32_t split = 0; split < pack_n_splits(p); split++)
        for (uint64_t i = 0; i < pack_count(p, split); i++) {
            pack_item(p, split, i, &item);
            if (!add_bytes(md, item.sha256, sizeof(item.sha256)) ||
                !add_bytes(md, &item.label, sizeof(item.label)))
                return false;
        }
    return true;
}

static bool add_params(EVP_MD_CTX *md, const struct trainer *t) {
    for (size_t i = 0; i < trainer_n_params(t); i++) {
        const struct train_param *p = trainer_param(t, i);

        if (!add_bytes(md, p->name, strlen(p->name) + 1) ||
            !add_bytes(md, p->data, (size_t)p->n * sizeof(float)))
            return false;
    }
    return true;
}

static bool add_distil(EVP_MD_CTX *md, const struct learn_distil *d) {
    return !d || (add_bytes(md, &d->weight, sizeof(d->weight)) &&
                     add_bytes(md, &d->temperature, sizeof(d->temperature)) &&
                     add_bytes(md, &d->labels, sizeof(d->labels)));
}

static bool add_hook(EVP_MD_CTX *md, const struct learn_run *run) {
    const char *key = run->transforms_key;

    return (!key || add_bytes(md, key, strlen(key) + 1)) &&
           (!run->hook || add_bytes(md, run->hook->state, run->hook->state_bytes));
}

static int make_key(struct learn_state *s, const struct learn_run *run, const struct learn_options *o,
    int parts, struct error *err) {
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    json_t *options = param_json(&learn_table, o);
    unsigned char digest[EVP_MAX_MD_SIZE];
    bool ok = md && options && EVP_DigestInit_ex(md, EVP_sha256(), NULL) && add_json(md, options) &&
              add_distil(md, run->distil) && add_hook(md, run) &&
              add_bytes(md, &run->seed, sizeof(run->seed)) && add_bytes(md, &parts, sizeof(parts)) &&
              add_json(md, run->source->preprocess) && add_json(md, run->source->labels) &&
              add_pictures(md, run->source->pack) && add_params(md, s->trainer) &&
              EVP_DigestFinal_ex(md, digest, NULL);

    EVP_MD_CTX_free(md);
    json_decref(options);
    for (int i = 0; ok && i < 32; i++)
        snprintf(s->key + 2 * i, 3, "%02x", digest[i]);
    return ok ? 0 : error_oom(err);
}

/* ---- blocks and numbers ---- */

static int make_blocks(struct learn_state *s, const struct learn_hook *hook, struct error *err) {
    size_t n = trainer_n_params(s->trainer);

    s->block = calloc(n + 3, sizeof(*s->block));
    if (!s->block)
        return error_oom(err);
    for (size_t i = 0; i < n; i++) {
        const struct train_param *p = trainer_param(s->trainer, i);

        s->block[s->n_blocks++] = (struct checkpoint_block){p->data, (size_t)p->n * sizeof(float)};
    }
    s->block[s->n_blocks++] = (struct checkpoint_block){
        s->optim->moment, (size_t)s->optim->n * s->optim->kind->n_moments * sizeof(float)};
    if (s->average)
        s->block[s->n_blocks++] =
            (struct checkpoint_block){s->average->data, (size_t)s->average->n * sizeof(float)};
    if (hook && hook->state_bytes)
        s->block[s->n_blocks++] = (struct checkpoint_block){hook->state, hook->state_bytes};
    return 0;
}

static size_t blocks_size(const struct learn_state *s) {
    size_t size = 0;

    for (size_t i = 0; i < s->n_blocks; i++)
        size += s->block[i].size;
    return size;
}

static json_t *numbers(const struct learn_state *s) {
    const struct learn_place *p = s->place;
    json_t *report = json_deep_copy(s->report);

    return json_pack("{s:i, s:I, s:I, s:f, s:I, s:f, s:f, s:I, s:o}", "epoch", p->epoch, "minibatch",
        (json_int_t)p->minibatch, "step", (json_int_t)p->step, "loss", p->loss, "correct",
        (json_int_t)p->correct, "rate", p->rate, "seconds", p->seconds, "moves", (json_int_t)s->optim->step,
        "report", report);
}

/* The doubles come back as they were: 17 digits were written. */
static void take_numbers(struct learn_state *s, const json_t *state) {
    json_t *report = json_deep_copy(json_object_get(state, "report"));

    *s->place = (struct learn_place){
        .epoch = (int)json_integer_value(json_object_get(state, "epoch")),
        .minibatch = json_integer_value(json_object_get(state, "minibatch")),
        .step = json_integer_value(json_object_get(state, "step")),
        .loss = json_number_value(json_object_get(state, "loss")),
        .correct = json_integer_value(json_object_get(state, "correct")),
        .rate = json_number_value(json_object_get(state, "rate")),
        .seconds = json_number_value(json_object_get(state, "seconds")),
    };
    s->optim->step = json_integer_value(json_object_get(state, "moves"));
    trainer_set_step_count(s->trainer, (uint64_t)s->optim->step);
    json_object_update(s->report, report);
    json_decref(report);
}

int learn_state_init(struct learn_state *s, const struct learn_run *run, const struct learn_options *o,
    int parts, struct error *err) {
    int r = make_key(s, run, o, parts, err);

    s->path = run->checkpoint;
    s->every_s = run->checkpoint_seconds;
    s->written_s = clock_now_s();
    return r == 0 ? make_blocks(s, run->hook, err) : r;
}

void learn_state_done(struct learn_state *s) {
    free(s->block);
    free(s->memory);
    json_decref(s->memory_state);
}

size_t learn_state_bytes(const struct learn_state *s) {
    return s->path ? 0 : blocks_size(s);
}

/* ---- the two places ---- */

static const char *name_of(const struct learn_state *s, const char *end, char ret[4096]) {
    return snprintf(ret, 4096, "%s.%s", s->path, end) < 4096 ? ret : NULL;
}

static int write_file(struct learn_state *s, const char *end, struct error *err) {
    char buf[4096];
    const char *name = name_of(s, end, buf);
    json_t *state = numbers(s);
    int r;

    if (!name || !state)
        return error_oom(err);
    r = checkpoint_write(name, s->key, state, s->block, s->n_blocks, err);
    json_decref(state);
    s->written_s = clock_now_s();
    return r;
}

static bool read_file(struct learn_state *s, const char *end) {
    char buf[4096];
    const char *name = name_of(s, end, buf);
    json_t *state = NULL;

    if (!name || !checkpoint_read(name, s->key, s->block, s->n_blocks, &state))
        return false;
    take_numbers(s, state);
    json_decref(state);
    return true;
}

/* A step's file is younger than its epoch's, unless the end came before it was removed. */
bool learn_state_load(struct learn_state *s) {
    bool has_epoch = s->path && read_file(s, "epoch");
    int64_t at = has_epoch ? s->place->step : 0;

    if (!s->path || !read_file(s, "step"))
        return has_epoch;
    return s->place->step >= at || read_file(s, "epoch");
}

static int copy_to_memory(struct learn_state *s, struct error *err) {
    char *p = s->memory ? s->memory : malloc(blocks_size(s) + 1);

    s->memory = p;
    json_decref(s->memory_state);
    s->memory_state = numbers(s);
    if (!p || !s->memory_state)
        return error_oom(err);
    for (size_t i = 0; i < s->n_blocks; p += s->block[i++].size)
        memcpy(p, s->block[i].data, s->block[i].size);
    return 0;
}

int learn_state_keep_epoch(struct learn_state *s, struct error *err) {
    char buf[4096];
    const char *name;
    int r;

    if (!s->path)
        return copy_to_memory(s, err);
    r = write_file(s, "epoch", err);
    name = r == 0 ? name_of(s, "step", buf) : NULL;
    if (name)
        unlink(name);
    return r;
}

int learn_state_keep_step(struct learn_state *s, struct error *err) {
    return s->path ? write_file(s, "step", err) : 0;
}

bool learn_state_is_due(const struct learn_state *s) {
    return s->path && clock_now_s() - s->written_s >= s->every_s;
}

int learn_state_go_back(struct learn_state *s, struct error *err) {
    const char *p = s->memory;

    if (s->path)
        return read_file(s, "epoch") ? 0 : error_code(err, -EIO, "internal", "the checkpoint is gone");
    for (size_t i = 0; i < s->n_blocks; p += s->block[i++].size)
        memcpy(s->block[i].data, p, s->block[i].size);
    take_numbers(s, s->memory_state);
    return 0;
}
