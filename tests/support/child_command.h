/* child_command: runs a command of quire in a child process, with a text as its standard input. */
#ifndef QUIRE_TESTS_CHILD_COMMAND_H
#define QUIRE_TESTS_CHILD_COMMAND_H

struct command_result {
    int exit_code;               /* -1: it died */
    char out[4096], error[4096]; /* terminated; longer ones are cut */
};

/* `arguments` ends with NULL; the first one is the command's word. */
struct command_result child_command(int (*command)(int, char **), const char *const *arguments, const char *input);

#endif
