/* fault: see fault.h. Empty without QUIRE_FAULTS. */
#include "base/fault.h"

#ifdef QUIRE_FAULTS

#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

static const char *const point_names[FAULTS] = {
#define X(id, name, can_fail, where) [FAULT_##id] = name,
#include "base/faults.def"
#undef X
};

static const char *const action_names[FAULT_ACTIONS] = {
    [FAULT_KILL] = "kill", [FAULT_STOP] = "stop", [FAULT_ABORT] = "abort",         [FAULT_SEGV] = "segv",
    [FAULT_EXIT] = "exit", [FAULT_SPIN] = "spin", [FAULT_FORBIDDEN] = "forbidden", [FAULT_FAIL] = "fail",
};

static struct fault_board own_board; /* of QUIRE_FAULT */
static struct fault_board *boards[2];
static uint32_t own_slot = UINT32_MAX, own_generation;

static _Noreturn void refuse(const char *variable, const char *value)
{
    fprintf(stderr, "%s=\"%s\" arms nothing: see base/fault.h\n", variable, value);
    exit(2);
}

static uint32_t index_of(const char *const *names, uint32_t count, const char *name)
{
    uint32_t i = 0;
    while (i < count && strcmp(names[i], name) != 0)
        i++;
    return i;
}

/* "name:action:nth[:slot[.generation]]" */
static void arm_from(const char *text)
{
    char name[64], action[16];
    unsigned nth, slot = 0, generation = 0;
    int read = sscanf(text, "%63[^:]:%15[^:]:%u:%u.%u", name, action, &nth, &slot, &generation);
    struct fault_arm *arm = &own_board.arms[0];
    uint32_t point = read < 3 ? FAULTS : index_of(point_names, FAULTS, name);
    arm->action = read < 3 ? FAULT_ACTIONS : index_of(action_names, FAULT_ACTIONS, action);
    if (point == FAULTS || arm->action == FAULT_ACTIONS || nth == 0)
        refuse("QUIRE_FAULT", text);
    arm->slot = read > 3 ? slot + 1 : 0;
    arm->generation = generation;
    arm->nth = nth;
    arm->times = 1;
    atomic_store_explicit(&arm->point, point + 1, memory_order_relaxed); /* no other thread is there yet */
    boards[0] = &own_board;
}

static void map_board(const char *path)
{
    int fd = open(path, O_RDWR | O_CLOEXEC);
    void *at = fd >= 0 ? mmap(NULL, FAULT_BOARD_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) : MAP_FAILED;
    if (at == MAP_FAILED)
        refuse("QUIRE_FAULT_BOARD", path);
    close(fd);
    boards[1] = at;
}

void fault_open(uint32_t slot, uint32_t generation)
{
    own_slot = slot;
    own_generation = generation;
    const char *armed = getenv("QUIRE_FAULT"), *path = getenv("QUIRE_FAULT_BOARD");
    if (armed)
        arm_from(armed);
    if (path)
        map_board(path);
}

static void act(enum fault_action action)
{
    volatile uintptr_t nowhere = 8; /* what the compiler does not know it does not refuse */
    switch (action) {
    case FAULT_KILL:
        kill(getpid(), SIGKILL);
        break;
    case FAULT_STOP:
        kill(getpid(), SIGSTOP);
        break;
    case FAULT_ABORT:
        abort();
    case FAULT_SEGV:
        *(volatile int *)nowhere = 0;
        break;
    case FAULT_EXIT:
        _exit(1);
    case FAULT_SPIN:
        for (volatile uint64_t turns = 0;; turns++)
            continue;
    case FAULT_FORBIDDEN:
        close(socket(AF_INET, SOCK_STREAM, 0));
        break;
    case FAULT_FAIL:
    case FAULT_ACTIONS:
        break;
    }
}

/* Whether this passing fires it. */
static bool fires(struct fault_board *board, struct fault_arm *arm, enum fault which)
{
    uint32_t point = atomic_load_explicit(&arm->point, memory_order_acquire); /* after all that the test stored first */
    if (point != which + 1u)
        return false;
    if ((arm->slot && arm->slot != own_slot + 1) || (arm->generation && arm->generation != own_generation))
        return false;
    /* relaxed, both: they are counters, and only one passing gets each number */
    if (arm->after &&
        !atomic_load_explicit(&board->arms[(arm->after - 1) % FAULT_ARMS].fired, memory_order_relaxed)) /* see above */
        return false;
    uint32_t passed = atomic_fetch_add_explicit(&arm->passed, 1, memory_order_relaxed) + 1; /* see above */
    return passed >= arm->nth && passed - arm->nth < arm->times;
}

bool fault_point(enum fault which)
{
    bool fail = false;
    for (int i = 0; i < 2; i++) {
        struct fault_board *board = boards[i];
        if (!board)
            continue;
        atomic_fetch_add_explicit(&board->passed[which], 1, memory_order_relaxed); /* a counter */
        for (struct fault_arm *arm = board->arms; arm < board->arms + FAULT_ARMS; arm++)
            if (fires(board, arm, which)) {
                atomic_fetch_add_explicit(&arm->fired, 1, memory_order_relaxed); /* a counter; we may be dead at once */
                act((enum fault_action)arm->action);
                fail |= arm->action == FAULT_FAIL;
            }
    }
    return fail;
}

#endif
