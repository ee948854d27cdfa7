/*
 * exp_constants: the one exponential of all kernel sets.
 *
 *   x clamped to [LO, HI];  n = nearest integer of x / ln 2 (by adding SHIFT);  r = x - n ln 2 in two steps;
 *   p = 1 + r (1 + r (C2 + r (C3 + ...)));  result = p * 2^(n / 2) * 2^(n - n / 2)
 * in two steps, so that neither factor overflows and a subnormal result is rounded once.
 *
 * Polynomial of degree 6 on [-ln 2 / 2, ln 2 / 2]: the first two coefficients held at 1, so that exp(0) = 1; the others
 * make (exp(r) - 1 - r) / r^2 exact at the five Chebyshev nodes. Off by 1.3 units in the last place at most.
 */
#ifndef QUIRE_MODEL_KERNELS_EXP_CONSTANTS_H
#define QUIRE_MODEL_KERNELS_EXP_CONSTANTS_H

#define EXP_LO -104.0f /* below: 0 */
#define EXP_HI 89.0f   /* above: infinity */
#define EXP_LOG2E 0x1.715476p+0f
#define EXP_SHIFT 0x1.8p+23f
#define EXP_LN2_HI 0x1.62e4p-1f /* 14 bits: n times it is exact */
#define EXP_LN2_LO 0x1.7f7d1cp-20f
#define EXP_C2 0x1.000000p-1f
#define EXP_C3 0x1.5554dcp-3f
#define EXP_C4 0x1.555518p-5f
#define EXP_C5 0x1.120be2p-7f
#define EXP_C6 0x1.6d117cp-10f

/* GELU, see kernels.h: -2 sqrt(2 / pi), and that times 0.044715. */
#define GELU_LINE -1.5957691216057308f
#define GELU_CUBE -0.07135481627259990f

#endif
