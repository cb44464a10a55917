/* What runs in a process of its own for one request. It reports once and ends; standard streams are the stream's. */
#ifndef CHILD_H
#define CHILD_H

#include <sys/types.h>

#include "wire.h"

enum { STATUS_FD = 3, PROC_FD = 4, EXTRA_FD = 5, KEYS_FD = 6, FIRST_OTHER_FD = 7 };
enum { MAX_GROUPS = 1024, MAX_STRING = 131071 };

struct account {
    char user[256], home[1024], shell[1024];
    uid_t uid;
    gid_t gid;
    gid_t groups[MAX_GROUPS];
    size_t count; /* of the supplementary groups */
};

extern uint16_t request_flags;

void tell(const struct result *result);
_Noreturn void report(const struct result *result);
_Noreturn void report_failure(enum status status, int error, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
_Noreturn void report_errno(const char *what);
_Noreturn void report_ok(void);

/* enter.c */
void enter_image(void);
void find_account(struct account *account, const char *wanted);
bool take_credentials(const struct account *account, bool own_group);
void give_streams(const struct account *account);
void become_user(const char *wanted);

/* lines.c: text files of the image, a line at a time, whatever is in them */
struct lines {
    int fd;
    size_t start, end;
    bool over;
    char bytes[8192];
};
bool open_lines(struct lines *lines, const char *path);
char *next_line(struct lines *lines);
void close_lines(struct lines *lines);
char *next_field(char **rest);
bool parse_number(const char *text, uint32_t *number);

/* exec.c */
void run_exec(struct reader *request);
const char *why_not_executed(int error);
bool is_program(const char *path);

/* files.c */
void run_stat(struct reader *request);
void run_list(struct reader *request);
void run_mkdir(struct reader *request);
void run_remove(struct reader *request);
void run_rename(struct reader *request);
void run_read(struct reader *request);
void run_write(struct reader *request);

/* pack.c, unpack.c */
void run_get(struct reader *request);
void run_put(struct reader *request);

/* facts.c */
void run_facts(struct reader *request);
void run_runs(struct reader *request);
void say_addresses(const char *only);

/* power.c, freeze.c, network.c, whoami.c */
void run_poweroff(struct reader *request);
extern uint32_t stood_still; /* of what a thaw concerns, until it was asked for */
void run_freeze(struct reader *request);
void run_network(struct reader *request);
void run_whoami(struct reader *request);

/* identity.c */
void run_identity(struct reader *request);
void replace_file(int directory, const char *path, const void *bytes, size_t size, mode_t mode);
pid_t ssh_server(void);
bool has_disk_below(void);

/* hosts.c, seeds.c */
size_t rename_hosts(const char *in, size_t size, char *out, size_t most, const char *old, const char *fresh);
void each_seed(void (*take)(const char *path));

#endif
