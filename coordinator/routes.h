/*
 * routes: who may ask for what. One table names every path, its methods, whether a key is wanted, and who answers.
 */
#ifndef QUIRE_COORDINATOR_ROUTES_H
#define QUIRE_COORDINATOR_ROUTES_H

#include "coordinator/server.h"

/* The callbacks that server.c gives to http_server_open; arg is the server. */
struct http_callbacks routes_callbacks(void);

#endif
