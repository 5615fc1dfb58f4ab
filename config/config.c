#include "config/config.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

#define FILE_MAX ((size_t)1 << 20)

/* Options of the command line that are none of the table. */
static const struct {
    const char *flag, *doc;
    enum config_action action;
} actions[] = {
    {"--check-config", "reads and checks the configuration, prints it and ends", CONFIG_CHECK},
    {"--help", "this text", CONFIG_HELP},
    {"--version", "the version", CONFIG_VERSION},
};

static int read_file(const char *path, struct buf *ret, struct error *err) {
    _cleanup_(closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
    char chunk[4096];
    ssize_t n;

    if (fd < 0)
        return error_errno(err, "%s", path);
    while ((n = read(fd, chunk, sizeof(chunk))) > 0)
        if (buf_append(ret, chunk, (size_t)n) < 0)
            return error_set(err, -EFBIG, "%s: longer than %zu bytes", path, FILE_MAX);
    if (n < 0)
        return error_errno(err, "%s", path);
    return 0;
}

/* Ends the line at its comment and takes the blanks off both ends. */
static char *strip(char *s) {
    char *end;

    for (char *p = s; *p; p++)
        if (*p == '#' && (p == s || isblank((unsigned char)p[-1]))) {
            *p = 0;
            break;
        }
    s += strspn(s, " \t\r");
    for (end = s + strlen(s); end > s && isspace((unsigned char)end[-1]);)
        *--end = 0;
    return s;
}

static int read_line(char *line, bool *seen, struct config *ret, struct error *err) {
    char *eq = strchr(line, '=');
    const struct param *p;
    size_t row;

    if (!eq)
        return error_set(err, -EINVAL, "'%.64s' is not of the form name = value", line);
    *eq = 0;
    line = strip(line);
    p = param_find(&config_table, line);
    if (!p)
        return error_set(err, -EINVAL, "there is no option '%.64s'", line);
    row = (size_t)(p - config_table.param);
    if (seen[row])
        return error_set(err, -EINVAL, "%s is set a second time", p->name);
    seen[row] = true;
    return param_set_text(p, strip(eq + 1), ret, err);
}

int config_read(const char *text, const char *name, struct config *ret, struct error *err) {
    _cleanup_(freep) bool *seen = calloc(config_table.n, sizeof(*seen));
    _cleanup_(freep) char *copy = strdup(text);
    unsigned number = 0;
    int r;

    if (!seen || !copy)
        return error_oom(err);
    for (char *next = copy, *line; (line = strsep(&next, "\n"));) {
        number++;
        line = strip(line);
        r = *line ? read_line(line, seen, ret, err) : 0;
        if (r < 0)
            return error_prefix(err, r, "%s:%u", name, number);
    }
    return 0;
}

/* "--name" of the row with dashes, or "BONSAID_NAME". */
static void spell(const struct param *p, const char *prefix, bool is_variable, char *ret, size_t size) {
    int n = snprintf(ret, size, "%s%s", prefix, p->name);

    for (int i = (int)strlen(prefix); i < n && (size_t)i < size; i++)
        ret[i] = is_variable ? (char)toupper((unsigned char)ret[i]) : ret[i] == '_' ? '-' : ret[i];
}

static const char *variable(char *const *env, const char *name) {
    size_t size = strlen(name);

    for (; *env; env++)
        if (!strncmp(*env, name, size) && (*env)[size] == '=')
            return *env + size + 1;
    return NULL;
}

static int read_env(char *const *env, struct config *ret, struct error *err) {
    for (size_t i = 0; i < config_table.n; i++) {
        const char *value = NULL;
        char name[64];
        int r;

        spell(&config_table.param[i], "BONSAID_", true, name, sizeof(name));
        value = variable(env, name);
        r = value ? param_set_text(&config_table.param[i], value, ret, err) : 0;
        if (r < 0)
            return error_prefix(err, r, "environment variable %s", name);
    }
    return 0;
}

/* One flag in argv[i]: how many arguments it took, with its row and value; -EINVAL. A bool needs no value
 * (--insecure), but takes one after '='. */
static int parse_flag(
    int argc, char *const *argv, int i, const struct param **ret, const char **ret_value, struct error *err) {
    const char *arg = argv[i], *eq = strchr(arg, '=');
    char name[64];
    size_t size = eq ? (size_t)(eq - arg) : strlen(arg);

    if (strncmp(arg, "--", 2) || size < 3 || size - 2 >= sizeof(name))
        return error_set(err, -EINVAL, "'%.64s' is not an option; see --help", arg);
    memcpy(name, arg + 2, size - 2);
    name[size - 2] = 0;
    *ret = param_find(&config_table, name);
    if (!*ret && strcmp(name, "config"))
        return error_set(err, -EINVAL, "'%.64s' is not an option; see --help", arg);
    if (eq) {
        *ret_value = eq + 1;
        return 1;
    }
    if (*ret && (*ret)->type == PARAM_BOOL) {
        *ret_value = "true";
        return 1;
    }
    if (i + 1 >= argc)
        return error_set(err, -EINVAL, "--%s needs a value", name);
    *ret_value = argv[i + 1];
    return 2;
}

/* A list that is given several times grows. */
static int add_to_list(
    const struct param *p, const char *value, struct buf *all, struct config *ret, struct error *err) {
    if ((all->size && buf_puts(all, ",") < 0) || buf_puts(all, value) < 0)
        return error_oom(err);
    return param_set_text(p, all->data, ret, err);
}

static void free_lists(struct buf *lists) {
    for (size_t i = 0; i < config_table.n; i++)
        buf_done(&lists[i]);
}

static int set_flag(
    const struct param *p, const char *value, struct buf *lists, struct config *ret, struct error *err) {
    int r = p->type == PARAM_LIST ? add_to_list(p, value, &lists[p - config_table.param], ret, err)
                                  : param_set_text(p, value, ret, err);

    return r < 0 ? error_prefix(err, r, "command line") : 0;
}

static int read_flags(int argc, char *const *argv, struct config *ret, struct error *err) {
    _cleanup_(freep) struct buf *lists = calloc(config_table.n, sizeof(*lists));
    int r = 0;

    if (!lists)
        return error_oom(err);
    for (size_t i = 0; i < config_table.n; i++)
        buf_init(&lists[i], FILE_MAX);
    for (int i = 1; i < argc && r == 0;) {
        const struct param *p = NULL;
        const char *value = NULL;

        if (!strcmp(argv[i], "--check-config")) {
            i++;
            continue;
        }
        r = parse_flag(argc, argv, i, &p, &value, err);
        if (r > 0) {
            i += r;
            r = p ? set_flag(p, value, lists, ret, err) : 0;
        }
    }
    free_lists(lists);
    return r;
}

/* Only what decides before all else: the action, and the last --config. */
static enum config_action scan(int argc, char *const *argv, const char **ret_file) {
    enum config_action action = CONFIG_RUN;

    for (int i = 1; i < argc; i++) {
        for (size_t k = 0; k < sizeof(actions) / sizeof(actions[0]); k++)
            if (!strcmp(argv[i], actions[k].flag) && actions[k].action > action)
                action = actions[k].action;
        if (!strncmp(argv[i], "--config=", 9))
            *ret_file = argv[i] + 9;
        else if (!strcmp(argv[i], "--config") && i + 1 < argc)
            *ret_file = argv[++i];
    }
    return action;
}

static int default_state(char *const *env, struct config *c, struct error *err) {
    const char *dir = variable(env, "STATE_DIRECTORY"), *xdg = variable(env, "XDG_STATE_HOME"),
               *home = variable(env, "HOME");
    int r = 0;

    if (c->state)
        return 0;
    if (dir && *dir) /* systemd joins several with ':'; the first is ours */
        r = asprintf(&c->state, "%.*s", (int)strcspn(dir, ":"), dir);
    else if (xdg && *xdg)
        r = asprintf(&c->state, "%s/bonsaid", xdg);
    else if (home && *home)
        r = asprintf(&c->state, "%s/.local/state/bonsaid", home);
    else
        return error_set(
            err, -EINVAL, "no state folder: set --state, STATE_DIRECTORY, XDG_STATE_HOME or HOME");
    if (r < 0) {
        c->state = NULL;
        return error_oom(err);
    }
    return 0;
}

static void default_threads(struct config *c) {
    cpu_set_t set;

    if (!c->threads && sched_getaffinity(0, sizeof(set), &set) == 0)
        c->threads = CPU_COUNT(&set);
    if (!c->threads)
        c->threads = 1;
}

/* What options demand of each other. */
static int check(const struct config *c, struct error *err) {
    if (!c->tls_cert != !c->tls_key)
        return error_set(err, -EINVAL, "%s is set but %s is not", c->tls_cert ? "tls_cert" : "tls_key",
            c->tls_cert ? "tls_key" : "tls_cert");
    if (c->client_ca && !c->tls_cert)
        return error_set(err, -EINVAL, "client_ca needs tls_cert and tls_key");
    for (char *const *o = c->cors_origins; o && *o; o++)
        if (strncmp(*o, "https://", 8) && strncmp(*o, "http://", 7))
            return error_set(
                err, -EINVAL, "cors_origins: '%.64s' does not start with https:// or http://", *o);
    return 0;
}

static int read_sources(
    int argc, char *const *argv, char *const *env, const char *file, struct config *ret, struct error *err) {
    struct buf text;
    int r;

    buf_init(&text, FILE_MAX);
    r = file ? read_file(file, &text, err) : 0;
    if (r == 0 && text.size)
        r = config_read(text.data, file, ret, err);
    buf_done(&text);
    if (r == 0)
        r = read_env(env, ret, err);
    if (r == 0)
        r = read_flags(argc, argv, ret, err);
    if (r == 0)
        r = default_state(env, ret, err);
    if (r == 0)
        r = check(ret, err);
    if (r == 0)
        default_threads(ret);
    return r;
}

int config_load(int argc, char *const *argv, char *const *env, struct config *ret,
    enum config_action *ret_action, struct error *err) {
    const char *file = variable(env, "BONSAID_CONFIG");
    enum config_action action = scan(argc, argv, &file);
    struct config c = {0};
    int r = param_defaults(&config_table, &c, err);

    if (r == 0 && (action == CONFIG_RUN || action == CONFIG_CHECK))
        r = read_sources(argc, argv, env, file, &c, err);
    if (r < 0) {
        config_done(&c);
        return r;
    }
    *ret = c;
    *ret_action = action;
    return 0;
}

void config_done(struct config *c) {
    param_done(&config_table, c);
}

int config_print(const struct config *c, struct buf *ret) {
    int r = 0;

    for (size_t i = 0; i < config_table.n && r == 0; i++) {
        r = buf_printf(ret, "%s = ", config_table.param[i].name);
        if (r == 0)
            r = param_print(&config_table.param[i], c, ret);
        if (r == 0)
            r = buf_puts(ret, "\n");
    }
    return r;
}

/* The text of an option in lines of at most 78 columns, six blanks in. */
static int print_doc(const char *doc, struct buf *ret) {
    int r = 0;

    while (*doc && r == 0) {
        size_t size = strlen(doc), cut = size;

        if (size > 72)
            for (cut = 72; cut && doc[cut] != ' ';)
                cut--;
        r = buf_printf(ret, "      %.*s\n", (int)(cut ? cut : size), doc);
        doc += cut ? cut : size;
        doc += strspn(doc, " ");
    }
    return r;
}

static int print_option(const struct param *p, struct buf *ret) {
    static const char *const values[] = {
        [PARAM_BOOL] = "",
        [PARAM_INT] = " N",
        [PARAM_SIZE] = " N[K|M|G]",
        [PARAM_REAL] = " X",
        [PARAM_STRING] = " TEXT",
        [PARAM_LIST] = " A,B",
        [PARAM_PAIR] = " N,N",
        [PARAM_OBJECT] = "",
        [PARAM_OBJECTS] = "",
    };
    char flag[64];
    int r;

    spell(p, "--", false, flag, sizeof(flag));
    r = buf_printf(ret, "  %s%s", flag, p->type == PARAM_ENUM ? "" : values[p->type]);
    for (size_t i = 0; p->type == PARAM_ENUM && p->choices[i] && r == 0; i++)
        r = buf_printf(ret, "%s%s", i ? "|" : " ", p->choices[i]);
    if (r == 0 && p->dflt && p->type != PARAM_BOOL)
        r = buf_printf(ret, "  (%s)", p->dflt);
    if (r == 0)
        r = buf_puts(ret, "\n");
    return r == 0 ? print_doc(p->doc, ret) : r;
}

int config_help(struct buf *ret) {
    int r = buf_puts(ret,
        "usage: bonsaid [OPTION]…\n\n"
        "Serves neural networks over HTTP and compresses them. Every option may also stand in the file of\n"
        "--config (name = value) or in the environment (BONSAID_NAME).\n\n"
        "  --config FILE\n      Configuration file.\n");

    for (size_t i = 0; i < sizeof(actions) / sizeof(actions[0]) && r == 0; i++)
        r = buf_printf(ret, "  %s\n      %s\n", actions[i].flag, actions[i].doc);
    for (size_t i = 0; i < config_table.n && r == 0; i++)
        r = print_option(&config_table.param[i], ret);
    return r;
}
