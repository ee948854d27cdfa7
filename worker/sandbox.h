/*
 * sandbox: takes from a worker what it does not need, so that a model file or a plan that gets the better of its code
 * gets nothing else. Three steps, since each must come at its own time; each is for good and is inherited by threads.
 *
 *   sandbox_drop_rights   first thing, before there are threads: no capabilities, no way to gain any, no descriptor but 0 to 2
 *   sandbox_close_files   with the memory attached, before libzmq's threads: only the model and this server's segments open (Landlock)
 *   sandbox_close_calls   with the socket connected: only the calls that computing, waiting and messages need (seccomp)
 *
 * After the last one a forbidden call ends the process with SIGSYS: for the supervisor a death like any other.
 */
#ifndef QUIRE_WORKER_SANDBOX_H
#define QUIRE_WORKER_SANDBOX_H

#include "base/err.h"
#include "shm/arena.h"

/*
 * model: the file or directory that this process is to read, or NULL. When a capability is what makes it readable (root and another
 * user's folder), CAP_DAC_READ_SEARCH stays.
 */
enum err sandbox_drop_rights(const char *model, struct why *why);

/* a is attached. ERR_UNSUPPORTED: this kernel cannot, nothing has changed. */
enum err sandbox_close_files(const struct arena *a, const char *model, struct why *why);

/* For all threads of the process. ERR_UNSUPPORTED: this kernel or its container cannot, nothing has changed. */
enum err sandbox_close_calls(struct why *why);

#endif
