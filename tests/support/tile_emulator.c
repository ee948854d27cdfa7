#include "tests/support/tile_emulator.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>
#include <unistd.h>

#if defined(__x86_64__)

#include "model/kernels/sets.h"

enum { TILES = 8, ROWS = 16, ROW_BYTES = 64 };

/* One thread's tile registers. */
static _Thread_local struct {
    bool configured;
    struct tile {
        uint8_t rows, row_bytes;
        uint8_t byte[ROWS][ROW_BYTES];
    } tile[TILES];
} unit;

static void refuse(const char *why)
{
    static const char who[] = "tile_emulator: a processor would refuse this: ";
    (void)!write(STDERR_FILENO, who, sizeof who - 1);
    (void)!write(STDERR_FILENO, why, strlen(why));
    (void)!write(STDERR_FILENO, "\n", 1);
    abort();
}

/* Bytes 0 palette, 1 start row, 2..15 zero, 16..47 bytes a row (16 x u16), 48..63 rows. */
static void load_config(const uint8_t *config)
{
    memset(&unit, 0, sizeof unit);
    if (config[0] == 0)
        return;
    if (config[0] != 1 || config[1] != 0)
        refuse("palette or start row");
    for (int i = 2; i < 16; i++)
        if (config[i])
            refuse("reserved bytes of the configuration");
    for (int i = 0; i < 16; i++) {
        uint16_t row_bytes;
        uint8_t rows = config[48 + i];
        memcpy(&row_bytes, config + 16 + 2 * i, sizeof row_bytes);
        if (row_bytes > ROW_BYTES || rows > ROWS || (rows == 0) != (row_bytes == 0) || (i >= TILES && rows))
            refuse("the shape of a tile");
        if (i < TILES)
            unit.tile[i] = (struct tile){.rows = rows, .row_bytes = (uint8_t)row_bytes};
    }
    unit.configured = true;
}

static struct tile *configured_tile(unsigned index)
{
    if (!unit.configured || index >= TILES || unit.tile[index].rows == 0)
        refuse("a tile without a shape");
    return &unit.tile[index];
}

static void load_tile(struct tile *t, const uint8_t *from, ptrdiff_t stride)
{
    memset(t->byte, 0, sizeof t->byte);
    for (int row = 0; row < t->rows; row++)
        memcpy(t->byte[row], from + row * stride, t->row_bytes);
}

static void store_tile(const struct tile *t, uint8_t *to, ptrdiff_t stride)
{
    for (int row = 0; row < t->rows; row++)
        memcpy(to + row * stride, t->byte[row], t->row_bytes);
}

/* to += a x b, whose bytes are signed or not; rows of b are 4 of k. */
static void multiply(struct tile *to, const struct tile *a, bool a_signed, const struct tile *b, bool b_signed)
{
    if (to == a || to == b || a == b)
        refuse("one tile named twice");
    if (to->rows != a->rows || to->row_bytes != b->row_bytes || a->row_bytes != b->rows * 4 || to->row_bytes % 4)
        refuse("tiles whose shapes do not fit");
    for (int m = 0; m < to->rows; m++) {
        for (int n = 0; n < to->row_bytes / 4; n++) {
            uint32_t sum;
            memcpy(&sum, to->byte[m] + 4 * n, sizeof sum);
            for (int k = 0; k < a->row_bytes; k++) {
                uint8_t x = a->byte[m][k], y = b->byte[k / 4][4 * n + k % 4];
                sum += (uint32_t)((a_signed ? (int8_t)x : x) * (b_signed ? (int8_t)y : y));
            }
            memcpy(to->byte[m] + 4 * n, &sum, sizeof sum);
        }
    }
}

/* ---- machine code: VEX.128 of three bytes, map 0F 38, W 0 ---- */

struct instruction {
    const uint8_t *at; /* behind what has been read of it */
    greg_t *registers;
    unsigned prefix;           /* 0: none, 1: 66, 2: F3, 3: F2 */
    unsigned reg, other, base; /* ModRM.reg; VEX.vvvv; ModRM.rm */
    unsigned mod, high_base, high_index;
};

static uint64_t value_of(const struct instruction *i, unsigned number)
{
    static const int place[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                  REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
    return (uint64_t)i->registers[place[number]];
}

/* The address in memory; with an index register its value times its scale goes to *stride. */
static uint64_t address(struct instruction *i, ptrdiff_t *stride)
{
    unsigned base = i->base, index = 4, scale = 0;
    bool without_base = false;
    if (base == 4) {
        uint8_t sib = *i->at++;
        base = sib & 7, index = (sib >> 3 & 7) | i->high_index, scale = sib >> 6;
    }
    int32_t offset = 0;
    if (i->mod == 0 && base == 5) {
        without_base = true;
        memcpy(&offset, i->at, sizeof offset);
        i->at += sizeof offset;
    } else if (i->mod == 1) {
        offset = (int8_t)*i->at++;
    } else if (i->mod == 2) {
        memcpy(&offset, i->at, sizeof offset);
        i->at += sizeof offset;
    }
    *stride = index == 4 ? 0 : (ptrdiff_t)(value_of(i, index) << scale);
    uint64_t start = without_base ? i->base == 5 ? (uint64_t)(uintptr_t)i->at : 0 : value_of(i, base | i->high_base);
    return start + (uint64_t)(int64_t)offset;
}

/* Whether it is one of AMX int8; if so it has been done, and i->at stands behind it. */
static bool emulate(struct instruction *i, uint8_t opcode)
{
    ptrdiff_t stride;
    bool registers_only = i->mod == 3;
    if (opcode == 0x49 && i->prefix == 0 && !registers_only && i->reg == 0) {
        load_config((const uint8_t *)(uintptr_t)address(i, &stride));
    } else if (opcode == 0x49 && i->prefix == 0 && registers_only && i->reg == 0 && i->base == 0) {
        memset(&unit, 0, sizeof unit); /* TILERELEASE */
    } else if (opcode == 0x49 && i->prefix == 3 && registers_only) {
        struct tile *t = configured_tile(i->reg);
        memset(t->byte, 0, sizeof t->byte);
    } else if (opcode == 0x4b && (i->prefix == 3 || i->prefix == 1) && !registers_only &&
               i->base == 4) { /* TILELOADD, TILELOADDT1 */
        const uint8_t *from = (const uint8_t *)(uintptr_t)address(i, &stride);
        load_tile(configured_tile(i->reg), from, stride);
    } else if (opcode == 0x4b && i->prefix == 2 && !registers_only && i->base == 4) {
        uint8_t *to = (uint8_t *)(uintptr_t)address(i, &stride);
        store_tile(configured_tile(i->reg), to, stride);
    } else if (opcode == 0x5e && registers_only) { /* TDPBUUD, TDPBUSD, TDPBSUD, TDPBSSD */
        multiply(configured_tile(i->reg), configured_tile(i->base), i->prefix & 2, configured_tile(i->other),
                 i->prefix & 1);
    } else {
        return false;
    }
    return true;
}

static void on_unknown_instruction(int signal, siginfo_t *info, void *context)
{
    (void)signal, (void)info;
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    const uint8_t *code = (const uint8_t *)(uintptr_t)registers[REG_RIP];
    if (code[0] != 0xc4 || (code[1] & 0x1f) != 2 || code[2] & 0x84)
        refuse("an unknown instruction");
    uint8_t modrm = code[4];
    struct instruction i = {
        .at = code + 5,
        .registers = registers,
        .prefix = code[2] & 3,
        .reg = modrm >> 3 & 7,
        .other = ~(unsigned)code[2] >> 3 & 15,
        .base = modrm & 7,
        .mod = modrm >> 6,
        .high_index = code[1] & 0x40 ? 0 : 8,
        .high_base = code[1] & 0x20 ? 0 : 8,
    };
    if (!emulate(&i, code[3]))
        refuse("an unknown instruction of the map 0F 38");
    registers[REG_RIP] = (greg_t)(uintptr_t)i.at;
}

static void stand_in(void)
{
    struct sigaction action = {.sa_sigaction = on_unknown_instruction, .sa_flags = SA_SIGINFO | SA_NODEFER};
    if (sigaction(SIGILL, &action, NULL) != 0)
        abort();
}

const struct kernels *const *kernels_with_emulated(uint32_t *count)
{
    const struct kernels *const *sets = kernels_runnable(count);
    if (sets[*count - 1] != &kernels_avx512)
        return sets;
    stand_in();
    ++*count;
    if (sets[*count - 1] != &kernels_amx || !amx_agrees())
        abort();
    return sets;
}

bool tiles_are_released(void)
{
    return !unit.configured;
}

#else

const struct kernels *const *kernels_with_emulated(uint32_t *count)
{
    return kernels_runnable(count);
}

bool tiles_are_released(void)
{
    return true;
}

#endif
