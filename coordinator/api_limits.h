/* api_limits: the body of POST /quire/limits. */
#ifndef QUIRE_COORDINATOR_API_LIMITS_H
#define QUIRE_COORDINATOR_API_LIMITS_H

#include <stddef.h>
#include <stdint.h>

#include "coordinator/api_error.h"

/* {"max_sessions": 1..session_slots}. Anything else is refused with the field and both numbers. */
enum err api_limits_parse(const char *body, size_t length, uint32_t session_slots, uint32_t *max_sessions,
                          struct api_error *e);

#endif
