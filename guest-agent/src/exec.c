/* A command of the user's, in its own process: environment, account, directory, program. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "agent.h"
#include "child.h"

#define PLAIN_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#define TOOLBOX "/run/banger"

/* Variables, each once: the last that was set counts. Found by a hash of the name. */
struct environment {
    char **list;
    size_t count, slots;
    uint32_t *table; /* place in the list + 1 */
};

static void *allocate(size_t count, size_t size) {
    void *memory = calloc(count ? count : 1, size);
    if (!memory)
        report_failure(BUSY, ENOMEM, "not enough memory");
    return memory;
}

static void set(struct environment *environment, char *assignment) {
    size_t name = strcspn(assignment, "=");
    uint32_t hash = 2166136261u;
    for (size_t i = 0; i < name; i++)
        hash = (hash ^ (uint8_t)assignment[i]) * 16777619u;
    size_t slot = hash % environment->slots;
    for (; environment->table[slot]; slot = (slot + 1) % environment->slots) {
        char **known = &environment->list[environment->table[slot] - 1];
        if (!strncmp(*known, assignment, name + 1)) {
            *known = assignment;
            return;
        }
    }
    environment->list[environment->count++] = assignment;
    environment->table[slot] = (uint32_t)environment->count;
}

static void set_value(struct environment *environment, const char *name, const char *value) {
    size_t size = strlen(name) + strlen(value) + 2;
    char *assignment = allocate(size, 1);
    snprintf(assignment, size, "%s=%s", name, value);
    set(environment, assignment);
}

static const char *value_of(const struct environment *environment, const char *name) {
    size_t size = strlen(name);
    for (size_t i = 0; i < environment->count; i++)
        if (!strncmp(environment->list[i], name, size) && environment->list[i][size] == '=')
            return environment->list[i] + size + 1;
    return "";
}

static size_t count_texts(const char *texts, size_t size) {
    size_t count = 0;
    for (size_t i = 0; i < size; i++)
        count += !texts[i];
    return count;
}

/* A base, then what the VM's configuration says, then the request's. */
static void build_environment(struct environment *environment, const struct account *account, struct reader *own,
                              uint32_t count) {
    size_t given = request_flags & EXEC_SESSION_ENV ? count_texts(around.environment, around.environment_size) : 0;
    size_t most = count + given + 8;
    environment->list = allocate(most + 1, sizeof *environment->list);
    environment->slots = 2 * most;
    environment->table = allocate(environment->slots, sizeof *environment->table);
    set(environment, "PATH=" PLAIN_PATH);
    set_value(environment, "USER", account->user);
    set_value(environment, "LOGNAME", account->user);
    set_value(environment, "HOME", account->home);
    set(environment, "LANG=C.UTF-8");
    const char *at = around.environment;
    for (size_t i = 0; i < given; i++, at += strlen(at) + 1)
        if (strchr(at, '=') && *at != '=')
            set(environment, (char *)at);
    for (uint32_t i = 0; i < count; i++) {
        char *assignment = (char *)take_text(own);
        if (*assignment == '=' || !strchr(assignment, '='))
            report_failure(BAD_REQUEST, 0, "a variable is NAME=VALUE");
        set(environment, assignment);
    }
}

bool is_program(const char *path) {
    struct stat about;
    return stat(path, &about) == 0 && S_ISREG(about.st_mode) && about.st_mode & 0111;
}

/* Finds the program first, so that every failure has its own status. */
static char *find_program(const char *name, const char *path) {
    if (strchr(name, '/')) {
        if (is_program(name))
            return strdup(name);
        if (access(name, F_OK) < 0)
            report_failure(NOT_FOUND, errno, "command \"%.300s\" not found", name);
        report_failure(NOT_EXECUTABLE, EACCES, "\"%.300s\" cannot be executed", name);
    }
    char *found = NULL;
    struct stat about;
    for (const char *directory = path; *name; directory++) {
        size_t size = strcspn(directory, ":");
        char *candidate = allocate(size + strlen(name) + 3, 1);
        sprintf(candidate, "%.*s/%s", size ? (int)size : 1, size ? directory : ".", name);
        if (stat(candidate, &about) == 0 && S_ISREG(about.st_mode)) {
            if (about.st_mode & 0111)
                return candidate;
            found = candidate;
        }
        directory += size;
        if (!*directory)
            break;
    }
    if (!found)
        report_failure(NOT_FOUND, ENOENT, "command \"%.300s\" not found", name);
    report_failure(NOT_EXECUTABLE, EACCES, "\"%.300s\" cannot be executed", name);
}

/* A shell that can be logged in with, of the account's or any. */
static char *find_shell(const struct account *account, struct environment *environment) {
    const char *base = strrchr(account->shell, '/');
    bool refuses = !*account->shell || (base && (!strcmp(base, "/nologin") || !strcmp(base, "/false")));
    const char *candidates[] = {refuses ? "/bin/bash" : account->shell, "/bin/bash", "/bin/sh"};
    for (size_t i = 0; i < 3; i++)
        if (is_program(candidates[i]))
            return strdup(candidates[i]);
    const char *path = value_of(environment, "PATH");
    char *longer = allocate(strlen(path) + sizeof ":" TOOLBOX "/bin", 1);
    sprintf(longer, "%s:" TOOLBOX "/bin", path);
    set_value(environment, "PATH", longer);
    return strdup(TOOLBOX "/bin/sh");
}

static void take_terminal(const struct account *account) {
    ioctl(STDIN_FILENO, TIOCSCTTY, 0);
    if (fchown(STDIN_FILENO, account->uid, 5) == 0)
        fchmod(STDIN_FILENO, 0620);
}

/* A command without input has what it would have in a container: some read a pipe, if it is empty too, in place of the
   files that they would look for. What is no such device is the image's own affair. */
static void take_no_input(void) {
    struct stat about;
    int null = open("/dev/null", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (null < 0)
        return;
    if (fstat(null, &about) == 0 && S_ISCHR(about.st_mode) && about.st_rdev == makedev(1, 3))
        dup2(null, STDIN_FILENO);
    close(null);
}

static void enter_directory(const char *wanted, const struct account *account, bool login) {
    if (*wanted) {
        if (chdir(wanted) < 0)
            report_failure(NO_DIRECTORY, errno, "cannot enter the directory \"%.300s\"", wanted);
    } else if (login && chdir(account->home) < 0 && chdir("/") < 0) {
        report_errno("cannot enter the root directory");
    }
}

const char *why_not_executed(int error) {
    switch (error) {
    case ENOENT: return "no such file or directory (its interpreter or loader?)";
    case E2BIG: return "argument list too long";
    case ENOEXEC: return "exec format error";
    case ENOMEM: return "not enough memory";
    case EACCES: return "permission denied";
    case ETXTBSY: return "text file busy";
    default: return strerror(error);
    }
}

void run_exec(struct reader *request) {
    static struct account account;
    struct environment environment = {0};
    take_u32(request);
    take_u32(request);
    take_u16(request);
    take_u16(request);
    const char *user = take_text(request), *directory = take_text(request);
    take_text(request);
    uint32_t argument_count, variable_count;
    struct reader arguments = take_texts(request, &argument_count);
    struct reader variables = take_texts(request, &variable_count);
    enter_image();
    find_account(&account, user);
    build_environment(&environment, &account, &variables, variable_count);
    enter_directory(directory, &account, argument_count == 0);
    char **argv = allocate(argument_count + 2, sizeof *argv), *program;
    if (argument_count) {
        for (uint32_t i = 0; i < argument_count; i++)
            argv[i] = (char *)take_text(&arguments);
        program = find_program(argv[0], value_of(&environment, "PATH"));
    } else {
        program = find_shell(&account, &environment);
        set_value(&environment, "SHELL", program);
        const char *base = strrchr(program, '/');
        argv[0] = allocate(strlen(program) + 2, 1);
        sprintf(argv[0], "-%s", base ? base + 1 : program);
    }
    if (request_flags & EXEC_TTY)
        take_terminal(&account);
    else
        give_streams(&account);
    if (request_flags & EXEC_NO_INPUT)
        take_no_input();
    if (!take_credentials(&account, true))
        report_failure(FAILED, errno, "cannot become this user");
    execve(program, argv, environment.list);
    int error = errno;
    report_failure(error == ENOENT ? NOT_FOUND : NOT_EXECUTABLE, error, "cannot execute \"%.300s\": %s", program,
                   why_not_executed(error));
}
