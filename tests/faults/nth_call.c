/*
 * nth_call: a library for LD_PRELOAD that stands between quire's programs and libc, and lets the nth call of a kind fail.
 *
 * A test maps the board (NTH_BOARD in the environment names its file), writes what is to fail, and reads how many calls were
 * counted and which one failed; tests/faults/run_faults is that test. The programs are those that are shipped. Counted are
 * calls from the program's own C code and, for kinds that say so, from libevent, jansson, PCRE2 and protobuf-c. Not
 * counted: Rust (its library ends the process when there is no memory, by design; the board names its code) and libzmq
 * (its own assertions do the same).
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <pthread.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

/* run_faults has the same names in the same order. */
enum kind {
    KIND_NONE,
    KIND_MEMORY,
    KIND_LIBRARY_MEMORY,
    KIND_OPEN,
    KIND_MAP,
    KIND_START,
    KIND_SEND,
    KIND_RECEIVE,
    KIND_QUEUE_SEND,
    KIND_QUEUE_RECEIVE,
};
enum { RANGES_MOST = 200, SITES_MOST = 64 };

struct range {
    uint64_t from, to; /* offsets in the program; of code that is not ours */
};

/* Writes: the test, kind last, when nobody counts. counted, fired, sites: whoever calls. */
struct nth_board {
    _Atomic uint32_t kind;
    uint32_t nth, times, error;
    _Atomic uint32_t counted, fired;
    char program[32];           /* whose calls: "quire" or "quire-worker" */
    uint64_t sites[SITES_MOST]; /* offsets of calls that failed, the first ones */
    uint32_t range_count, padding;
    struct range ranges[RANGES_MOST];
};

static struct nth_board *board; /* NULL: nothing is counted here */
static uintptr_t program_from, program_to;
static struct range libraries[8]; /* addresses */
static uint32_t library_count;

void *__libc_malloc(size_t bytes);
void *__libc_calloc(size_t count, size_t bytes);
void *__libc_realloc(void *memory, size_t bytes);
void *__libc_memalign(size_t alignment, size_t bytes);

static int note_object(struct dl_phdr_info *info, size_t size, void *arg)
{
    (void)size, (void)arg;
    static const char *const counted[] = {"libevent", "libjansson", "libpcre2", "libprotobuf-c"};
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *part = &info->dlpi_phdr[i];
        uintptr_t from = info->dlpi_addr + part->p_vaddr, to = from + part->p_memsz;
        if (part->p_type != PT_LOAD || !(part->p_flags & PF_X))
            continue;
        if (!info->dlpi_name[0] && !program_to) { /* the first one is the program */
            program_from = info->dlpi_addr;
            program_to = to;
        }
        for (size_t k = 0; k < sizeof counted / sizeof *counted; k++)
            if (strstr(info->dlpi_name, counted[k]) && library_count < 8)
                libraries[library_count++] = (struct range){from, to};
    }
    return 0;
}

__attribute__((constructor)) static void map_board(void)
{
    const char *path = getenv("NTH_BOARD");
    if (!path)
        return;
    int fd = open(path, O_RDWR | O_CLOEXEC);
    void *at = fd >= 0 ? mmap(NULL, sizeof *board, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) : MAP_FAILED;
    if (at == MAP_FAILED) {
        fprintf(stderr, "NTH_BOARD=\"%s\" is no board\n", path);
        _exit(99);
    }
    close(fd);
    dl_iterate_phdr(note_object, NULL);
    struct nth_board *b = at;
    if (strcmp(program_invocation_short_name, b->program) == 0)
        board = b;
}

static bool is_ours(uintptr_t at)
{
    if (at < program_from || at >= program_to)
        return false;
    uint64_t offset = at - program_from;
    for (uint32_t i = 0; i < board->range_count && i < RANGES_MOST; i++)
        if (offset >= board->ranges[i].from && offset < board->ranges[i].to)
            return false;
    return true;
}

static bool is_librarys(uintptr_t at)
{
    for (uint32_t i = 0; i < library_count; i++)
        if (at >= libraries[i].from && at < libraries[i].to)
            return true;
    return false;
}

/* True: the call is to fail; errno says why. */
static bool fails(enum kind kind, const void *from)
{
    /* acquire: pairs with the test's last store, of kind */
    uint32_t armed = board ? atomic_load_explicit(&board->kind, memory_order_acquire) : KIND_NONE;
    bool library = kind == KIND_MEMORY && armed == KIND_LIBRARY_MEMORY;
    if (armed == KIND_NONE || (armed != kind && !library))
        return false;
    if (library ? !is_librarys((uintptr_t)from) : !is_ours((uintptr_t)from))
        return false;
    uint32_t counted = atomic_fetch_add_explicit(&board->counted, 1, memory_order_relaxed) + 1; /* a counter */
    if (counted < board->nth || counted - board->nth >= board->times)
        return false;
    uint32_t fired = atomic_fetch_add_explicit(&board->fired, 1, memory_order_relaxed); /* a counter */
    if (fired < SITES_MOST)
        board->sites[fired] = library || (uintptr_t)from == program_to - 1 ? 0 : (uintptr_t)from - program_from;
    errno = (int)board->error;
    return true;
}

#define HERE __builtin_return_address(0)
/* The libc function behind ours. */
#define NEXT(name)                 \
    static __typeof__(&name) next; \
    if (!next)                     \
    *(void **)&next = dlsym(RTLD_NEXT, #name)

/* ---- memory ---- */

void *malloc(size_t bytes)
{
    return fails(KIND_MEMORY, HERE) ? NULL : __libc_malloc(bytes);
}

void *calloc(size_t count, size_t bytes)
{
    return fails(KIND_MEMORY, HERE) ? NULL : __libc_calloc(count, bytes);
}

void *realloc(void *memory, size_t bytes)
{
    return fails(KIND_MEMORY, HERE) ? NULL : __libc_realloc(memory, bytes);
}

void *aligned_alloc(size_t alignment, size_t bytes)
{
    return fails(KIND_MEMORY, HERE) ? NULL : __libc_memalign(alignment, bytes);
}

int posix_memalign(void **out, size_t alignment, size_t bytes)
{
    void *got = fails(KIND_MEMORY, HERE) ? NULL : __libc_memalign(alignment, bytes);
    if (!got)
        return ENOMEM;
    *out = got;
    return 0;
}

char *strdup(const char *text)
{
    size_t bytes = strlen(text) + 1;
    char *copy = fails(KIND_MEMORY, HERE) ? NULL : __libc_malloc(bytes);
    return copy ? memcpy(copy, text, bytes) : NULL;
}

/* ---- descriptors ---- */

static mode_t mode_of(int flags, va_list more)
{
    return flags & (O_CREAT | __O_TMPFILE) ? va_arg(more, mode_t) : 0;
}

#define OPEN(name)                                  \
    int name(const char *path, int flags, ...)      \
    {                                               \
        if (fails(KIND_OPEN, HERE))                 \
            return -1;                              \
        va_list more;                               \
        va_start(more, flags);                      \
        mode_t mode = mode_of(flags, more);         \
        va_end(more);                               \
        return openat(AT_FDCWD, path, flags, mode); \
    }
OPEN(open)
OPEN(open64)

int shm_open(const char *name, int flags, mode_t mode)
{
    NEXT(shm_open);
    return fails(KIND_OPEN, HERE) ? -1 : next(name, flags, mode);
}

FILE *fopen(const char *path, const char *how)
{
    NEXT(fopen);
    return fails(KIND_OPEN, HERE) ? NULL : next(path, how);
}

int socket(int domain, int type, int protocol)
{
    NEXT(socket);
    return fails(KIND_OPEN, HERE) ? -1 : next(domain, type, protocol);
}

int accept4(int fd, struct sockaddr *peer, socklen_t *bytes, int flags)
{
    NEXT(accept4);
    /* whoever calls: libevent accepts for us */
    if (board && fails(KIND_OPEN, is_librarys((uintptr_t)HERE) ? (const void *)(program_to - 1) : HERE))
        return -1;
    return next(fd, peer, bytes, flags);
}

int eventfd(unsigned count, int flags)
{
    NEXT(eventfd);
    return fails(KIND_OPEN, HERE) ? -1 : next(count, flags);
}

int pipe2(int fds[2], int flags)
{
    NEXT(pipe2);
    return fails(KIND_OPEN, HERE) ? -1 : next(fds, flags);
}

/* ---- mappings and the memory behind them ---- */

#define MMAP(name)                                                                              \
    void *name(void *at, size_t bytes, int rights, int flags, int fd, off_t offset)             \
    {                                                                                           \
        NEXT(name);                                                                             \
        return fails(KIND_MAP, HERE) ? MAP_FAILED : next(at, bytes, rights, flags, fd, offset); \
    }
MMAP(mmap)
MMAP(mmap64)

#define FTRUNCATE(name)                                      \
    int name(int fd, off_t bytes)                            \
    {                                                        \
        NEXT(name);                                          \
        return fails(KIND_MAP, HERE) ? -1 : next(fd, bytes); \
    }
FTRUNCATE(ftruncate)
FTRUNCATE(ftruncate64)

int posix_fallocate(int fd, off_t from, off_t bytes)
{
    NEXT(posix_fallocate);
    return fails(KIND_MAP, HERE) ? errno : next(fd, from, bytes);
}

int madvise(void *at, size_t bytes, int advice)
{
    NEXT(madvise);
    return fails(KIND_MAP, HERE) ? -1 : next(at, bytes, advice);
}

/* ---- processes and threads ---- */

int posix_spawn(pid_t *pid, const char *path, const posix_spawn_file_actions_t *files, const posix_spawnattr_t *how,
                char *const argv[], char *const environment[])
{
    NEXT(posix_spawn);
    return fails(KIND_START, HERE) ? errno : next(pid, path, files, how, argv, environment);
}

int pthread_create(pthread_t *thread, const pthread_attr_t *how, void *(*run)(void *), void *arg)
{
    NEXT(pthread_create);
    return fails(KIND_START, HERE) ? errno : next(thread, how, run, arg);
}

/* pidfd_open is reached by its number. */
long syscall(long number, ...)
{
    va_list more;
    va_start(more, number);
    long a[6];
    for (int i = 0; i < 6; i++)
        a[i] = va_arg(more, long);
    va_end(more);
    if (number == SYS_pidfd_open && fails(KIND_START, HERE))
        return -1;
    NEXT(syscall);
    return next(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

/* ---- what is said to others, and heard ---- */

/*
 * Of clients' sockets, which libevent writes, as well. Not of what a process has for itself, where these calls cannot fail: the
 * pair of sockets by which libevent hears of signals, the eventfd by which helper threads wake the loop.
 */
static bool talk_fails(enum kind kind, int fd, const void *from)
{
    int domain = AF_UNSPEC;
    socklen_t bytes = sizeof domain;
    struct stat status;
    if (!board)
        return false;
    if (is_librarys((uintptr_t)from))
        return getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &bytes) == 0 && domain == AF_INET &&
               fails(kind, (const void *)(program_to - 1));
    return fstat(fd, &status) == 0 && (status.st_mode & S_IFMT) != 0 && fails(kind, from);
}

ssize_t send(int fd, const void *bytes, size_t count, int flags)
{
    NEXT(send);
    return talk_fails(KIND_SEND, fd, HERE) ? -1 : next(fd, bytes, count, flags);
}

ssize_t write(int fd, const void *bytes, size_t count)
{
    NEXT(write);
    return talk_fails(KIND_SEND, fd, HERE) ? -1 : next(fd, bytes, count);
}

ssize_t writev(int fd, const struct iovec *parts, int count)
{
    NEXT(writev);
    return talk_fails(KIND_SEND, fd, HERE) ? -1 : next(fd, parts, count);
}

ssize_t recv(int fd, void *bytes, size_t count, int flags)
{
    NEXT(recv);
    return talk_fails(KIND_RECEIVE, fd, HERE) ? -1 : next(fd, bytes, count, flags);
}

ssize_t read(int fd, void *bytes, size_t count)
{
    NEXT(read);
    return talk_fails(KIND_RECEIVE, fd, HERE) ? -1 : next(fd, bytes, count);
}

ssize_t readv(int fd, const struct iovec *parts, int count)
{
    NEXT(readv);
    return talk_fails(KIND_RECEIVE, fd, HERE) ? -1 : next(fd, parts, count);
}

ssize_t pread64(int fd, void *bytes, size_t count, off_t from)
{
    NEXT(pread64);
    return talk_fails(KIND_RECEIVE, fd, HERE) ? -1 : next(fd, bytes, count, from);
}

int zmq_send(void *to, const void *bytes, size_t count, int flags);
int zmq_send(void *to, const void *bytes, size_t count, int flags)
{
    enum { SNDMORE = 2 };
    static _Thread_local bool begun; /* the rest of a message is never refused: it goes where its beginning went */
    NEXT(zmq_send);
    if (!begun && fails(KIND_QUEUE_SEND, HERE))
        return -1;
    begun = flags & SNDMORE;
    return next(to, bytes, count, flags);
}

int zmq_recv(void *from, void *bytes, size_t count, int flags);
int zmq_recv(void *from, void *bytes, size_t count, int flags)
{
    NEXT(zmq_recv);
    return fails(KIND_QUEUE_RECEIVE, HERE) ? -1 : next(from, bytes, count, flags);
}
