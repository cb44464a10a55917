#include "say.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "agent.h"

static char said[16384];
static size_t said_size;

void say_all(void) {
    write_all(STDOUT_FILENO, said, said_size);
    said_size = 0;
}

/* Lines are short: there is always room for one. */
void say(const char *format, ...) {
    va_list arguments;
    if (sizeof said - said_size < 4096)
        say_all();
    va_start(arguments, format);
    int size = vsnprintf(said + said_size, sizeof said - said_size, format, arguments);
    va_end(arguments);
    if (size > 0 && (size_t)size < sizeof said - said_size)
        said_size += (size_t)size;
}

/* Names are the guest's: what would break the line is written as in /proc/self/mounts. */
void say_name(const char *name, size_t size) {
    for (size_t i = 0; i < size && name[i]; i++) {
        unsigned char byte = (unsigned char)name[i];
        if (byte <= ' ' || byte == '\\' || byte == 0x7f)
            say("\\%03o", byte);
        else
            say("%c", byte);
    }
}

void say_named(const char *what, const char *name) {
    say("%s ", what);
    say_name(name, strcspn(name, "\n"));
    say("\n");
}
