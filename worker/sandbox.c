/* sandbox: see sandbox.h. Calls are named by what needs them; whatever is not named is forbidden. */
#include "worker/sandbox.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/landlock.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/must.h"

/* ---- rights ---- */

enum { FIRST_OTHER_DESCRIPTOR = 3, CAPABILITIES_MOST = 64 };

static bool set_capabilities(uint32_t permitted, uint32_t effective)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {{.permitted = permitted, .effective = effective}};
    return syscall(SYS_capset, &header, data) == 0;
}

static bool can_read(const char *path)
{
    return syscall(SYS_faccessat2, AT_FDCWD, path, R_OK, AT_EACCESS) == 0;
}

enum err sandbox_drop_rights(const char *model, struct why *why)
{
    tzset(); /* for the log's clock: its file cannot be opened later */
    if (syscall(SYS_close_range, FIRST_OTHER_DESCRIPTOR, ~0u, 0) != 0 && errno != ENOSYS)
        return because_errno(why, ERR_IO, "could not close inherited descriptors");
    const uint32_t read_all = 1u << CAP_DAC_READ_SEARCH;
    bool readable = model && can_read(model);
    for (unsigned long c = 0; c < CAPABILITIES_MOST; c++)
        prctl(PR_CAPBSET_DROP, c, 0, 0, 0); /* refused to who has none: as good */
    bool kept = readable && set_capabilities(read_all, 0) && !can_read(model);
    if (!set_capabilities(kept ? read_all : 0, kept ? read_all : 0))
        return because_errno(why, ERR_IO, "could not give up capabilities");
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
        return because_errno(why, ERR_IO, "could not give up the way to new privileges");
    return OK;
}

/* ---- files ---- */

/* What the kernel's version of Landlock knows of; all of it is forbidden but for the rules below. */
static uint64_t known_rights(long version)
{
    uint64_t rights = (1ull << 13) - 1; /* version 1: from EXECUTE to MAKE_SYM */
    if (version >= 2)
        rights |= 1ull << 13; /* REFER */
    if (version >= 3)
        rights |= 1ull << 14; /* TRUNCATE */
    return rights;
}

/* Takes fd. */
static bool allow(int ruleset, int fd, uint64_t rights)
{
    if (fd < 0)
        return false;
    struct landlock_path_beneath_attr rule = {.allowed_access = rights, .parent_fd = fd};
    long rc = syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &rule, 0);
    close(fd);
    return rc == 0;
}

static bool allow_segment(int ruleset, const struct arena *a, const char *what)
{
    return allow(ruleset, segment_open_file(&a->home, what, O_RDWR),
                 LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_WRITE_FILE);
}

static bool allow_numbered(int ruleset, const struct arena *a, const char *kind, uint32_t count)
{
    bool all = true;
    for (uint32_t i = 0; i < count; i++) {
        char what[SEGMENT_WHAT_MAX];
        snprintf(what, sizeof what, "%s.%u", kind, i);
        all &= allow_segment(ruleset, a, what);
    }
    return all;
}

/* A directory with all that is in it; hubs keep links there to files that lie elsewhere. */
static void allow_model(int ruleset, const char *model)
{
    allow(ruleset, open(model, O_PATH | O_CLOEXEC), LANDLOCK_ACCESS_FS_READ_FILE);
    DIR *directory = opendir(model); /* NULL: a file */
    const struct dirent *entry;
    while (directory && (entry = readdir(directory)))
        if (entry->d_type == DT_LNK)
            allow(ruleset, openat(dirfd(directory), entry->d_name, O_PATH | O_CLOEXEC), LANDLOCK_ACCESS_FS_READ_FILE);
    if (directory)
        closedir(directory);
}

enum err sandbox_close_files(const struct arena *a, const char *model, struct why *why)
{
    long version = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
    if (version < 1)
        return because_errno(why, ERR_UNSUPPORTED, "files are not closed off (Landlock)");
    struct landlock_ruleset_attr all = {.handled_access_fs = known_rights(version)};
    int ruleset = (int)syscall(SYS_landlock_create_ruleset, &all, sizeof all.handled_access_fs, 0);
    if (ruleset < 0)
        return because_errno(why, ERR_IO, "could not close off files");
    const struct arena_geometry *g = &a->geometry;
    bool good = allow_segment(ruleset, a, "table") && allow_segment(ruleset, a, "sessions") &&
                allow_segment(ruleset, a, "slots") && allow_numbered(ruleset, a, "pages", g->nodes) &&
                allow_numbered(ruleset, a, "weights", g->nodes) && allow_numbered(ruleset, a, "work", g->groups);
    if (good && model) /* gone by now: weights that stand need no file, and who builds says so */
        allow_model(ruleset, model);
    good = good && syscall(SYS_landlock_restrict_self, ruleset, 0) == 0;
    enum err err = good ? OK : because_errno(why, ERR_IO, "could not close off files");
    close(ruleset);
    return err;
}

/* ---- calls ---- */

#if defined(__x86_64__)
#define ARCHITECTURE AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define ARCHITECTURE AUDIT_ARCH_AARCH64
#endif

#ifdef ARCHITECTURE

static const int allowed_calls[] = {
    /* computing and waiting */
    SYS_futex, SYS_sched_yield, SYS_clock_gettime, SYS_gettimeofday, SYS_clock_nanosleep, SYS_nanosleep,
    SYS_restart_syscall, SYS_sched_setaffinity, SYS_sched_getaffinity, SYS_set_mempolicy, SYS_get_mempolicy, SYS_getcpu,
    SYS_membarrier,
    /* a libzmq thread that starts late asks for its scheduling and sets it to the same: refused, it aborts */
    SYS_sched_getparam, SYS_sched_getscheduler, SYS_sched_setscheduler,
    /* memory; mmap and mprotect stand below */
    SYS_munmap, SYS_mremap, SYS_madvise, SYS_brk, SYS_getrandom, SYS_sysinfo, /* the last one by qsort() of much */
    /* messages: libzmq and its threads */
    SYS_read, SYS_write, SYS_readv, SYS_writev, SYS_recvfrom, SYS_recvmsg, SYS_sendto, SYS_sendmsg, SYS_shutdown,
    SYS_getsockopt, SYS_ppoll, SYS_epoll_pwait, SYS_epoll_ctl,
#ifdef SYS_poll /* the older calls, where they exist */
    SYS_poll, SYS_epoll_wait,
#endif
    /* the model and segments of other groups; openat stands below */
    SYS_pread64, SYS_lseek, SYS_fstat, SYS_fstatfs, SYS_newfstatat, SYS_close, SYS_getuid, SYS_sysinfo,
    /* the end, a good one or abort(); tgkill stands below */
    SYS_exit, SYS_exit_group, SYS_rt_sigreturn, SYS_rt_sigprocmask, SYS_rt_sigaction, SYS_getpid, SYS_gettid,
    SYS_set_robust_list, SYS_rseq, SYS_sigaltstack, /* the last one by AddressSanitizer for each thread */
#ifdef QUIRE_FAULTS
    SYS_kill, /* of itself */
#endif
};

/*
 * What a worker tries only when it is no longer ours. Any other call that is not allowed fails as if this kernel did not have it: a C
 * library asks the system one thing or another (glibc 2.36: qsort, how much memory there is), and does without an answer.
 */
static const int deadly_calls[] = {
    SYS_socket,
    SYS_socketpair,
    SYS_connect,
    SYS_bind,
    SYS_listen,
    SYS_accept4,
    SYS_execve,
    SYS_execveat,
    SYS_clone,
    SYS_clone3,
    SYS_ptrace,
    SYS_process_vm_readv,
    SYS_process_vm_writev,
    SYS_tkill,
    SYS_pidfd_send_signal,
    SYS_unshare,
    SYS_setns,
    SYS_bpf,
    SYS_mount,
    SYS_init_module,
    SYS_finit_module,
    SYS_keyctl,
#ifdef SYS_fork
    SYS_fork,
    SYS_vfork,
#endif
#ifndef QUIRE_FAULTS
    SYS_kill,
#endif
};

/* One call whose argument decides: allowed when (argument & mask) == value. */
static const struct {
    int call;
    uint32_t argument, mask, value;
} judged_calls[] = {
    {SYS_mmap, 2, PROT_EXEC, 0},
    {SYS_mprotect, 2, PROT_EXEC, 0},
    {SYS_openat, 2, O_CREAT | O_TRUNC, 0},
};

enum {
    ALLOWED = sizeof allowed_calls / sizeof allowed_calls[0],
    DEADLY = sizeof deadly_calls / sizeof deadly_calls[0],
    JUDGED = sizeof judged_calls / sizeof judged_calls[0],
    FILTER_MOST = 8 + 2 * ALLOWED + 2 * DEADLY + 6 * (JUDGED + 1),
};

struct filter {
    struct sock_filter code[FILTER_MOST];
    unsigned short length;
};

static void put(struct filter *f, struct sock_filter instruction)
{
    must(f->length < FILTER_MOST);
    f->code[f->length++] = instruction;
}

static void load(struct filter *f, size_t offset)
{
    put(f, (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)offset));
}

static void end_with(struct filter *f, uint32_t verdict)
{
    put(f, (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, verdict));
}

/* Goes on behind the next `skip` instructions unless the loaded word is this. */
static void unless_equal(struct filter *f, uint32_t value, uint8_t skip)
{
    put(f, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, 0, skip));
}

static void judge(struct filter *f, int call, uint32_t argument, uint32_t mask, uint32_t value)
{
    unless_equal(f, (uint32_t)call, 5);
    load(f, offsetof(struct seccomp_data, args) + 8 * argument); /* the low half: these are ints, little-endian */
    put(f, (struct sock_filter)BPF_STMT(BPF_ALU | BPF_AND | BPF_K, mask));
    unless_equal(f, value, 1);
    end_with(f, SECCOMP_RET_ALLOW);
    end_with(f, SECCOMP_RET_KILL_PROCESS);
}

static void write_filter(struct filter *f)
{
    f->length = 0;
    load(f, offsetof(struct seccomp_data, arch));
    put(f, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ARCHITECTURE, 1, 0));
    end_with(f, SECCOMP_RET_KILL_PROCESS);
    load(f, offsetof(struct seccomp_data, nr)); /* x32 calls have a bit of their own: none of them is equal to ours */
    for (size_t i = 0; i < ALLOWED; i++) {
        unless_equal(f, (uint32_t)allowed_calls[i], 1);
        end_with(f, SECCOMP_RET_ALLOW);
    }
    for (size_t i = 0; i < DEADLY; i++) {
        unless_equal(f, (uint32_t)deadly_calls[i], 1);
        end_with(f, SECCOMP_RET_KILL_PROCESS);
    }
    for (size_t i = 0; i < JUDGED; i++)
        judge(f, judged_calls[i].call, judged_calls[i].argument, judged_calls[i].mask, judged_calls[i].value);
    judge(f, SYS_tgkill, 0, UINT32_MAX, (uint32_t)getpid()); /* abort() of this process, no signal to another */
    end_with(f, SECCOMP_RET_ERRNO | ENOSYS);
}

enum err sandbox_close_calls(struct why *why)
{
    struct filter filter;
    write_filter(&filter);
    struct sock_fprog program = {.len = filter.length, .filter = filter.code};
    long rc = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program);
    if (rc == 0)
        return OK;
    if (rc > 0) /* a thread that has a filter of its own */
        return because(why, ERR_UNSUPPORTED, "system calls are not closed off (seccomp): thread %ld refuses", rc);
    return because_errno(why, ERR_UNSUPPORTED, "system calls are not closed off (seccomp)");
}

#else

enum err sandbox_close_calls(struct why *why)
{
    return because(why, ERR_UNSUPPORTED,
                   "system calls are not closed off: nobody has written down those of this processor");
}

#endif
