/* `parapet run`: prepares a run, watches it, tells how it went. */
#ifndef PARAPET_TOOLS_RUN_H
#define PARAPET_TOOLS_RUN_H

/*
 * Runs the command; the first argument is the word "run". Returns the exit status of the contract.
 */
int run_command(int count, char **arguments);

#endif
