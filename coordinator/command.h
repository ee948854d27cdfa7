/* command: the words of the command line. argv[0] is the command's word; gives the exit code: 0 done, 1 it failed, 2 wrong usage. */
#ifndef QUIRE_COORDINATOR_COMMAND_H
#define QUIRE_COORDINATOR_COMMAND_H

int command_template(int argc, char **argv);
int command_tokenize(int argc, char **argv);

#endif
