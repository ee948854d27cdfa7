/* command: the words of the command line. argv[0] is the command's word; gives the exit code: 0 done, 1 it failed, 2 wrong usage. */
#ifndef QUIRE_COORDINATOR_COMMAND_H
#define QUIRE_COORDINATOR_COMMAND_H

int command_audit(int argc, char **argv);
int command_bench(int argc, char **argv);
int command_clear(int argc, char **argv);
int command_convert(int argc, char **argv);
int command_fsck(int argc, char **argv);
int command_inspect(int argc, char **argv);
int command_run(int argc, char **argv);
int command_score(int argc, char **argv);
int command_serve(int argc, char **argv);
int command_template(int argc, char **argv);
int command_tokenize(int argc, char **argv);

#endif
