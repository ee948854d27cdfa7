/* quire: one program, its first word says what it does. */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/fault.h"
#include "coordinator/command.h"
#include "coordinator/version.h"

struct command {
    const char *word;
    int (*run)(int argc, char **argv);
    const char *help;
};

static const struct command commands[] = {
    {"serve", command_serve, "serves a model over HTTP"},
    {"run", command_run, "answers one prompt, or chats when there is a terminal"},
    {"bench", command_bench, "measures the engine without HTTP"},
    {"audit", command_audit, "measures where the time of prefill and decode goes"},
    {"score", command_score, "says how probable a text is: log-probabilities and perplexity"},
    {"inspect", command_inspect, "shows the shared memory of a live or dead server"},
    {"fsck", command_fsck, "checks the shared memory of a live or dead server"},
    {"clear", command_clear, "removes shared memory that no process holds"},
    {"convert", command_convert, "writes a model as one GGUF file, its weights as they are or quantised"},
    {"tokenize", command_tokenize, "reads texts, writes token ids"},
    {"template", command_template, "reads a conversation, writes the prompt that the model sees"},
};
enum { COMMAND_COUNT = sizeof commands / sizeof *commands };

static void print_commands(FILE *to)
{
    fprintf(to, "usage: quire COMMAND [options]\n\n");
    for (size_t i = 0; i < COMMAND_COUNT; i++)
        fprintf(to, "  %-10s %s\n", commands[i].word, commands[i].help);
    fprintf(to, "  %-10s %s\n", "help", "says more of a COMMAND");
}

static const struct command *find(const char *word)
{
    for (size_t i = 0; i < COMMAND_COUNT; i++)
        if (strcmp(commands[i].word, word) == 0)
            return &commands[i];
    return NULL;
}

static int print_help_of(const struct command *command)
{
    char word[16], option[] = "--help";
    snprintf(word, sizeof word, "%s", command->word);
    char *words[] = {word, option, NULL};
    return command->run(2, words);
}

static bool is_help(const char *word)
{
    return strcmp(word, "help") == 0 || strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0;
}

static int help(int argc, char **argv)
{
    const struct command *command = argc > 1 ? find(argv[1]) : NULL;
    if (argc > 1 && is_help(argv[1]))
        argc = 1;
    if (argc > 1 && !command) {
        fprintf(stderr, "quire: there is no command \"%.60s\"\n", argv[1]);
        return 2;
    }
    if (argc > 2) {
        fprintf(stderr, "quire: help is given on one command at a time, and \"%.60s\" is one word too many\n", argv[2]);
        return 2;
    }
    if (!command) {
        print_commands(stdout);
        return 0;
    }
    return print_help_of(command);
}

/* Among the words of a command, wherever they stand; behind "--" everything is somebody's text. */
static bool asks_for_help(int argc, char **argv)
{
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++)
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
            return true;
    return false;
}

/* What could not be written was not done, whatever the command thinks. */
static int done(int status)
{
    bool written = fflush(stdout) == 0 && !ferror(stdout);
    if (status == 0 && !written)
        fprintf(stderr, "quire: could not write to the standard output: %s\n", strerror(errno));
    return status == 0 && !written ? 1 : status;
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        print_commands(stderr);
        return 2;
    }
    if (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0) {
        if (argc > 2) {
            fprintf(stderr, "quire: nothing is wanted behind %s, but there is \"%.60s\"\n", argv[1], argv[2]);
            return 2;
        }
        printf("quire %s\n", QUIRE_VERSION);
        return done(0);
    }
    if (is_help(argv[1]))
        return done(help(argc - 1, argv + 1));
    fault_open(UINT32_MAX, 0);
    const struct command *command = find(argv[1]);
    if (!command) {
        fprintf(stderr, "quire: there is no command \"%.60s\"; quire help lists them\n", argv[1]);
        return 2;
    }
    if (asks_for_help(argc - 1, argv + 1))
        return done(print_help_of(command));
    return done(command->run(argc - 1, argv + 1));
}
