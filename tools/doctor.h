/* `parapet doctor`: what this computer can run, and what is missing. */
#ifndef PARAPET_TOOLS_DOCTOR_H
#define PARAPET_TOOLS_DOCTOR_H

/*
 * Looks and prints; the first argument is the word "doctor". 0 if the demo guest can run, else 2.
 */
int doctor_command(int count, char **arguments);

#endif
