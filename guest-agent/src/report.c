/* What a request's own process tells the agent: how it went, once. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "agent.h"
#include "child.h"

uint16_t request_flags;

/* The size comes first: of a process that is killed meanwhile, half a result must not be taken for a whole one. */
void tell(const struct result *result) {
    uint8_t size[REPORT_HEAD];
    set_u32(size, (uint32_t)result->size);
    struct iovec parts[2] = {{size, sizeof size}, {(void *)result->bytes, result->size}};
    ssize_t written = writev(STATUS_FD, parts, 2);
    if (written >= (ssize_t)sizeof size)
        write_all(STATUS_FD, result->bytes + written - sizeof size, result->size + sizeof size - (size_t)written);
}

void report(const struct result *result) {
    if (result->full)
        report_failure(FAILED, EOVERFLOW, "what there is to say does not fit into an answer");
    tell(result);
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
