/* Models and variants as documents, and what a request means by their names.
 *
 * model
 * {"name","digest","created","description","labels":[…]|null,"preprocess":{…}|null,"limits":{those of
 * max_batch, queue, timeout_ms that are its own},"pinned","summary":{…of the check},"next_number","bytes"}
 * variant
 * {"model","name","number","parent":name|null,"steps":[…],"digest","created","aliases":[…],"pinned","policy",
 *           "note","bytes_file","bytes_file_compressed"|null,"summary":{…},"layers":[{id,form}],"evaluation":{…}|null,
 *           "latency":{…}|null,"layer_us":{id: microseconds} once evaluated,"verdicts":[…],
 *           "is_unloaded":bool (by request),"job":id|null}
 */
#ifndef DAEMON_MODELS_H
#define DAEMON_MODELS_H

#include "daemon/store.h"

#define NAME_MAX_SIZE 65

/* ^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$ */
bool name_is_valid(const char *s);
/* bad_name naming the field, also for what is reserved in it. */
int name_check_model(const char *name, struct error *err);
int name_check_variant(const char *name, struct error *err); /* variants and aliases */
int name_check(const char *name, const char *what, struct error *err);

/* The variant a request means: `name` is a model or "model~variant" (name, alias or number); `version`
 * (digits) or NULL. Without either the model's route: `original`. New reference to the variant's document.
 * Errors: not_found. */
int models_resolve(struct store *s, const char *name, const char *version, json_t **ret, struct error *err);

/* A variant by model and name, alias or number. */
int models_variant(struct store *s, const char *model, const char *variant, json_t **ret, struct error *err);

/* All variants of a model by number. New array. */
json_t *models_variants(struct store *s, const char *model);

/* Users of a model that forbid its removal: unfinished jobs and, when asked, variants other than original:
 * [{"kind","id"}]. New array, maybe empty. */
json_t *models_users(struct store *s, const char *model, bool with_variants);

/* Does the job read from this model, or make it, or a variant of it? */
bool models_job_uses(const json_t *job, const char *model);

/* Neither a model nor an unfinished training but `but_job` (NULL: none) has the name; else name_taken. */
int models_check_free(struct store *s, const char *name, const char *but_job, struct error *err);

/* The two documents of a new model from a checked file; its metadata's labels and preprocess are the model's.
 */
int models_documents(const char *name, const char *digest, uint64_t bytes, const json_t *summary,
    json_t **ret_model, json_t **ret_original, struct error *err);

/* A new model from a checked file whose blob is kept. 201: *ret_is_new; the same content: false. Errors:
 * exists, name_taken. */
int models_create(struct store *s, const char *name, const char *digest, uint64_t bytes, json_t *summary,
    bool *ret_is_new, struct error *err);
int models_replace(struct store *s, const char *name, const char *digest, uint64_t bytes, json_t *summary,
    bool cascade, struct error *err);
int models_delete(struct store *s, const char *name, bool cascade, json_t **ret_users, struct error *err);

/* The next free number of a model, counted up durably by the change it is used in: adds the model's document
 * to `ret_model` (new reference) with next_number raised. */
int models_take_number(struct store *s, const char *model, int *ret, json_t **ret_model, struct error *err);

/* "model/number" */
void variant_key(const char *model, int number, char *ret, size_t size);

/* RFC 3339, UTC, milliseconds. */
#define TIME_TEXT_MAX 32
void time_text(char ret[static TIME_TEXT_MAX]);

#endif
