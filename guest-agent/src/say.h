/* Lines of text as a request's output. */
#ifndef SAY_H
#define SAY_H

#include <stddef.h>

void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
void say_name(const char *name, size_t size);
void say_named(const char *what, const char *name);
void say_all(void);

#endif
