/* sandbox: children that shut themselves in and then try what they may and what they may not. */
#include "worker/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/support/small_arena.h"

enum { GOOD = 42, REFUSED = 43, UNSUPPORTED = 44 };

/* Sanitizers make calls of their own in every process. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define WATCHED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define WATCHED 1
#endif
#endif
#ifndef WATCHED
#define WATCHED 0
#endif

/* The wait status of a child that does this; its number is for the exit status. */
static int status_of(int (*child)(void *), void *arg)
{
    pid_t pid = fork();
    if (pid == 0) {
        signal(SIGABRT, SIG_DFL); /* cmocka catches it */
        _exit(child(arg));
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

static void assert_ends_with(int status, int expected)
{
    if (WIFEXITED(status) && WEXITSTATUS(status) == UNSUPPORTED)
        skip();
    if (!WIFEXITED(status) || WEXITSTATUS(status) != expected)
        fail_msg("wait status %#x where exit %d was expected", (unsigned)status, expected);
}

static void assert_killed_by(int status, int expected)
{
    if (WIFEXITED(status) && WEXITSTATUS(status) == UNSUPPORTED)
        skip();
    if (!WIFSIGNALED(status) || WTERMSIG(status) != expected)
        fail_msg("wait status %#x where signal %d was expected", (unsigned)status, expected);
}

/* ---- rights ---- */

static int drop_and_look(void *model)
{
    struct why why;
    int inherited = open("/dev/null", O_RDONLY);
    if (inherited < 3 || sandbox_drop_rights(model, &why) != OK)
        return 1;
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3];
    if (syscall(SYS_capget, &header, data) != 0 || data[0].permitted || data[1].permitted || data[0].effective ||
        data[1].effective)
        return 2;
    if (prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1)
        return 3;
    return fcntl(inherited, F_GETFD) < 0 ? GOOD : 4;
}

static void no_capability_and_no_descriptor_is_left(void **state)
{
    (void)state;
    assert_ends_with(status_of(drop_and_look, NULL), GOOD);
    char anyone[] = "/proc/version";
    assert_ends_with(status_of(drop_and_look, anyone), GOOD);
}

/* ---- files ---- */

struct place {
    struct arena *arena;
    char model[64], other[64];
};

static void make_file(char path[64])
{
    strcpy(path, "/tmp/quire-test-sandbox-XXXXXX");
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
}

static int make_place(void **state)
{
    struct place *p = calloc(1, sizeof *p);
    assert_non_null(p);
    p->arena = small_arena();
    make_file(p->model);
    make_file(p->other);
    *state = p;
    return 0;
}

static int remove_place(void **state)
{
    struct place *p = *state;
    unlink(p->model);
    unlink(p->other);
    small_arena_close(p->arena);
    free(p);
    return 0;
}

static bool opens(const char *path, int flags)
{
    int fd = open(path, flags, 0600);
    if (fd >= 0)
        close(fd);
    return fd >= 0;
}

static int close_files_and_open(void *arg)
{
    struct place *p = arg;
    struct why why;
    if (sandbox_drop_rights(p->model, &why) != OK)
        return 1;
    enum err err = sandbox_close_files(p->arena, p->model, &why);
    if (err != OK)
        return err == ERR_UNSUPPORTED ? UNSUPPORTED : 2;
    if (!opens(p->model, O_RDONLY))
        return 3;
    if (opens(p->model, O_WRONLY) || opens(p->other, O_RDONLY) || opens("/etc/passwd", O_RDONLY) ||
        opens("/tmp", O_RDONLY | O_DIRECTORY))
        return 4;
    if (opens("/tmp/quire-test-sandbox-new", O_CREAT | O_WRONLY))
        return 5;
    int fd = segment_open_file(&p->arena->home, "pages.0", O_RDWR);
    return fd >= 0 ? GOOD : 6;
}

/* A directory as a hub's cache has one: a file, and a link to one that lies elsewhere. */
static int close_files_and_open_directory(void *arg)
{
    struct place *p = arg;
    struct why why;
    char inside[128], link[128];
    unlink(p->model);
    snprintf(inside, sizeof inside, "%s/config.json", p->model);
    snprintf(link, sizeof link, "%s/model.safetensors", p->model);
    if (mkdir(p->model, 0700) != 0 || close(open(inside, O_CREAT | O_WRONLY, 0600)) != 0 ||
        symlink(p->other, link) != 0)
        return 1;
    enum err err = sandbox_close_files(p->arena, p->model, &why);
    bool closed = err == OK;
    bool good =
        opens(inside, O_RDONLY) && opens(link, O_RDONLY) && !opens(link, O_WRONLY) && !opens("/etc/passwd", O_RDONLY);
    return err == ERR_UNSUPPORTED ? UNSUPPORTED : closed && good ? GOOD : 2;
}

static void a_model_directory_opens_with_what_its_links_lead_to(void **state)
{
    struct place *p = *state;
    char path[128];
    int status = status_of(close_files_and_open_directory, *state);
    snprintf(path, sizeof path, "%s/config.json", p->model);
    unlink(path);
    snprintf(path, sizeof path, "%s/model.safetensors", p->model);
    unlink(path);
    rmdir(p->model);
    assert_ends_with(status, GOOD);
}

static void only_the_model_and_the_segments_open(void **state)
{
    assert_ends_with(status_of(close_files_and_open, *state), GOOD);
}

/* ---- calls ---- */

static int close_calls(int (*then)(void))
{
    struct why why;
    if (sandbox_drop_rights(NULL, &why) != OK)
        return 1;
    return sandbox_close_calls(&why) == OK ? then() : UNSUPPORTED;
}

static int work(void)
{
    char *memory = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *more = malloc(1 << 22);
    if (memory == MAP_FAILED || !more)
        return 1;
    memset(memory, 1, 1 << 20);
    memset(more, 1, 1 << 22);
    free(more);
    if (munmap(memory, 1 << 20) != 0)
        return 2;
    int fd = open("/proc/version", O_RDONLY); /* the files are left to Landlock */
    if (fd < 0 || close(fd) != 0)
        return 3;
    return write(2, "", 0) == 0 ? GOOD : 4;
}

/* More than qsort sorts on its stack: glibc then asks how much memory there is. */
static int compare_bytes(const void *a, const void *b)
{
    return *(const char *)a - *(const char *)b;
}

static int sort_much(void)
{
    enum { MUCH = 1 << 20 };
    char *bytes = calloc(MUCH, 16);
    if (!bytes)
        return 1;
    qsort(bytes, MUCH, 16, compare_bytes);
    free(bytes);
    return GOOD;
}

static int ask_what_nobody_foresaw(void)
{
    return syscall(SYS_getpriority, 0, 0) == -1 && errno == ENOSYS ? GOOD : 1;
}

static int open_socket(void)
{
    return socket(AF_INET, SOCK_STREAM, 0);
}

static int open_unix_socket(void)
{
    return socket(AF_UNIX, SOCK_STREAM, 0);
}

static int run_program(void)
{
    return execl("/bin/true", "true", (char *)NULL);
}

static int start_process(void)
{
    return fork() < 0;
}

static int map_code(void)
{
    return mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED;
}

static int make_a_file(void)
{
    return open("/tmp/quire-test-sandbox-new", O_CREAT | O_WRONLY, 0600) < 0;
}

static int signal_the_parent(void)
{
    return (int)syscall(SYS_tgkill, getppid(), getppid(), 0);
}

static int give_up(void)
{
    abort();
}

static int in_child(void *then)
{
    int (*what)(void);
    memcpy(&what, &then, sizeof what);
    return close_calls(what);
}

static int status_after(int (*what)(void))
{
    void *arg;
    memcpy(&arg, &what, sizeof arg);
    return status_of(in_child, arg);
}

static void who_works_and_waits_is_left_alone(void **state)
{
    (void)state;
    if (WATCHED)
        skip();
    assert_ends_with(status_after(work), GOOD);
    assert_ends_with(status_after(sort_much), GOOD);
    assert_ends_with(status_after(ask_what_nobody_foresaw), GOOD);
    assert_killed_by(status_after(give_up), SIGABRT);
}

static void whoever_tries_more_dies_of_it(void **state)
{
    (void)state;
    if (WATCHED)
        skip();
    int (*const forbidden[])(void) = {open_socket, open_unix_socket, run_program,      start_process,
                                      map_code,    make_a_file,      signal_the_parent};
    for (size_t i = 0; i < sizeof forbidden / sizeof forbidden[0]; i++)
        assert_killed_by(status_after(forbidden[i]), SIGSYS);
}

static atomic_bool go;

static void *wait_and_open(void *arg)
{
    while (!atomic_load(&go))
        sched_yield();
    open_socket();
    return arg;
}

static int close_calls_above_a_thread(void *arg)
{
    struct why why;
    pthread_t thread;
    if (sandbox_drop_rights(NULL, &why) != OK || pthread_create(&thread, NULL, wait_and_open, arg) != 0)
        return 1;
    if (sandbox_close_calls(&why) != OK)
        return UNSUPPORTED;
    atomic_store(&go, true);
    pthread_join(thread, NULL);
    return 2;
}

static void threads_that_are_there_already_are_shut_in_too(void **state)
{
    (void)state;
    if (WATCHED)
        skip();
    assert_killed_by(status_of(close_calls_above_a_thread, NULL), SIGSYS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_capability_and_no_descriptor_is_left),
        cmocka_unit_test_setup_teardown(only_the_model_and_the_segments_open, make_place, remove_place),
        cmocka_unit_test_setup_teardown(a_model_directory_opens_with_what_its_links_lead_to, make_place, remove_place),
        cmocka_unit_test(who_works_and_waits_is_left_alone),
        cmocka_unit_test(whoever_tries_more_dies_of_it),
        cmocka_unit_test(threads_that_are_there_already_are_shut_in_too),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
