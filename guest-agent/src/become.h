#ifndef BECOME_H
#define BECOME_H

/* The last step of a command that a script has prepared: argv as of "become". */
_Noreturn void become_program(char **argv);

#endif
