/* version: what this program calls itself. */
#ifndef QUIRE_COORDINATOR_VERSION_H
#define QUIRE_COORDINATOR_VERSION_H

#define QUIRE_VERSION "0.1.0"

#endif
