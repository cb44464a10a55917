#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "agent.h"
#include "child.h"

uint16_t request_flags;

void report(const struct result *result) {
    write_all(STATUS_FD, result->bytes, result->size);
    _exit(0);
}

void report_failure(enum status status, int error, const char *format, ...) {
    char message[512];
    struct result result;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    begin_result(&result, status, error, message);
    report(&result);
}

/* What failed, and why: the errno of now. */
void report_errno(const char *what) {
    int error = errno;
    report_failure(FAILED, error, "%s: %s", what, strerror(error));
}

void report_ok(void) {
    struct result result;
    begin_result(&result, OK, 0, "");
    report(&result);
}
