/* What `parapet help` prints. Text only. */
#ifndef PARAPET_TOOLS_HELP_H
#define PARAPET_TOOLS_HELP_H

#include <stdio.h>

/* The commands; how to use `parapet run`; how to use `parapet doctor`. */
void help_print(FILE *out);
void help_print_run(FILE *out);
void help_print_doctor(FILE *out);

#endif
