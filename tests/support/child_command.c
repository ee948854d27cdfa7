/* child_command: see child_command.h. */
#include "tests/support/child_command.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static void read_back(FILE *file, char *text, size_t room)
{
    rewind(file);
    text[fread(text, 1, room - 1, file)] = '\0';
    fclose(file);
}

struct command_result child_command(int (*command)(int, char **), const char *const *arguments, const char *input)
{
    /* files, not pipes: neither side ever waits for the other */
    FILE *in = tmpfile(), *out = tmpfile(), *error = tmpfile();
    assert_true(in && out && error);
    assert_int_equal(fwrite(input, 1, strlen(input), in), strlen(input));
    rewind(in);
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        char *copies[16] = {0};
        int count = 0;
        for (; arguments[count] && count < 15; count++)
            copies[count] = strdup(arguments[count]);
        dup2(fileno(in), 0);
        dup2(fileno(out), 1);
        dup2(fileno(error), 2);
        int code = command(count, copies);
        fflush(NULL);
        _exit(code);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    struct command_result result = {.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : -1};
    fclose(in);
    read_back(out, result.out, sizeof result.out);
    read_back(error, result.error, sizeof result.error);
    return result;
}
