#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clients/cli/cli.h"

static const struct cli_command *const groups[] = {
    models_commands,
    datasets_commands,
    jobs_commands,
    variants_commands,
    infer_commands,
};

#define N_GROUPS (sizeof(groups) / sizeof(groups[0]))

static void print_usage(const struct cli_command *c, FILE *to) {
    fprintf(to, "usage: bonsai %s%s%s%s\n\n%s\n", c->name, *c->args ? " " : "", c->args,
        c->n_options ? " [OPTION]…" : "", c->summary);
    for (size_t i = 0; i < c->n_options; i++) {
        const struct cli_option *o = &c->options[i];
        int width = 24 - (int)strlen(o->name) - (o->value ? (int)strlen(o->value) + 1 : 0);

        fprintf(to, "%s  %s%s%s%*s%s\n", i ? "" : "\n", o->name, o->value ? " " : "",
            o->value ? o->value : "", width > 1 ? width : 1, "", o->doc);
    }
}

static void print_help(FILE *to) {
    fputs(
        "usage: bonsai [--json] COMMAND [ARGUMENT]…\n\nThe client of bonsaid: models in, smaller models out.\n\n",
        to);
    for (size_t g = 0; g < N_GROUPS; g++)
        for (const struct cli_command *c = groups[g]; c->name; c++)
            fprintf(to, "  %-11s %-20s %s\n", c->name, c->args, c->summary);
    fputs(
        "\n`bonsai COMMAND --help` shows the options of a command. --json prints the server's documents.\n\n"
        "environment:\n"
        "  BONSAI_URL     http://HOST:PORT, https://… or unix:PATH (http://127.0.0.1:8080)\n"
        "  BONSAI_TOKEN   bearer token\n"
        "  BONSAI_CACERT  PEM file of the authority that signed the server's certificate\n\n"
        "exit status: 0 done, 1 the server refused, 2 wrong command line or file, 3 no answer,\n"
        "             4 the job that was watched failed or was cancelled\n",
        to);
}

static const struct cli_command *find_command(const char *name) {
    for (size_t g = 0; g < N_GROUPS; g++)
        for (const struct cli_command *c = groups[g]; c->name; c++)
            if (!strcmp(c->name, name))
                return c;
    return NULL;
}

/* The option that argv[i] names: how many arguments it took. Both "--steps X" and "--steps=X". */
static int take_option(
    const struct cli_command *c, int argc, char **argv, int i, struct cli_args *a, struct error *err) {
    const char *eq = strchr(argv[i], '=');
    size_t size = eq ? (size_t)(eq - argv[i]) : strlen(argv[i]);

    for (size_t k = 0; k < c->n_options; k++) {
        const struct cli_option *o = &c->options[k];

        if (strncmp(o->name, argv[i], size) || o->name[size])
            continue;
        if (!o->value && eq)
            return error_set(err, -EINVAL, "%s takes no value", o->name);
        if (o->value && !eq && i + 1 >= argc)
            return error_set(err, -EINVAL, "%s needs a value: %s", o->name, o->value);
        a->option[k] = !o->value ? "" : eq ? eq + 1 : argv[i + 1];
        return o->value && !eq ? 2 : 1;
    }
    return error_set(err, -EINVAL, "bonsai %s has no option %.*s; see bonsai %s --help", c->name, (int)size,
        argv[i], c->name);
}

/* Everything behind the command's name. 1: --help was asked for. */
static int parse(const struct cli_command *c, int argc, char **argv, struct cli *cli, struct cli_args *ret,
    struct error *err) {
    for (int i = 0; i < argc;) {
        int r = 1;

        if (!strcmp(argv[i], "--help"))
            return 1;
        if (!strcmp(argv[i], "--json"))
            cli->is_json = true;
        else if (argv[i][0] == '-' && argv[i][1])
            r = take_option(c, argc, argv, i, ret, err);
        else if (ret->n >= c->max_args)
            return error_set(err, -EINVAL, "'%s' is one argument too many; usage: bonsai %s %s", argv[i],
                c->name, c->args);
        else
            ret->arg[ret->n++] = argv[i];
        if (r < 0)
            return r;
        i += r;
    }
    if (ret->n < c->min_args)
        return error_set(err, -EINVAL, "usage: bonsai %s %s", c->name, c->args);
    return 0;
}

static int status_of(const struct error *err) {
    switch (err->err) {
    case -EPROTO: return EXIT_REFUSED;
    case -ECONNREFUSED: return EXIT_NO_ANSWER;
    case -ECANCELED: return EXIT_JOB;
    default: return EXIT_USAGE;
    }
}

static int fail(const struct error *err) {
    fflush(stdout);
    fprintf(stderr, "bonsai: %s\n", err->text);
    return status_of(err);
}

static int run(const struct cli_command *c, int argc, char **argv, struct cli *cli, struct error *err) {
    _cleanup_(http_freep) struct http *http = NULL;
    struct cli_args args = {0};
    const char *url = getenv("BONSAI_URL");
    int r = parse(c, argc, argv, cli, &args, err);

    if (r > 0)
        print_usage(c, stdout);
    if (r != 0)
        return r < 0 ? r : 0;
    r = http_new(url && *url ? url : "http://127.0.0.1:8080", getenv("BONSAI_TOKEN"), getenv("BONSAI_CACERT"),
        &http, err);
    if (r < 0)
        return r;
    cli->http = http;
    r = c->run(cli, &args, err);
    cli->http = NULL;
    return r;
}

int main(int argc, char **argv) {
    struct cli cli = {0};
    struct error err = {0};
    const struct cli_command *c;
    int i = 1;

    for (; i < argc && !strcmp(argv[i], "--json"); i++)
        cli.is_json = true;
    if (i < argc && (!strcmp(argv[i], "--help") || !strcmp(argv[i], "help"))) {
        print_help(stdout);
        return EXIT_SUCCESS;
    }
    if (i < argc && !strcmp(argv[i], "--version")) {
        puts("bonsai " BONSAI_VERSION);
        return EXIT_SUCCESS;
    }
    if (i >= argc) {
        print_help(stderr);
        return EXIT_USAGE;
    }
    c = find_command(argv[i]);
    if (!c) {
        fprintf(stderr, "bonsai: there is no command '%s'; see bonsai --help\n", argv[i]);
        return EXIT_USAGE;
    }
    if (run(c, argc - i - 1, argv + i + 1, &cli, &err) < 0)
        return fail(&err);
    return EXIT_SUCCESS;
}
