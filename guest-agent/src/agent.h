/* What the agent's own process is made of: channels, their streams, and one loop that waits for all of them. */
#ifndef AGENT_H
#define AGENT_H

#include <sys/stat.h>
#include <sys/types.h>

#include "wire.h"

/* One descriptor that the loop waits for, edge by edge: readable and writable stay set until a call says EAGAIN. */
struct watch {
    int fd; /* -1: closed */
    bool readable, writable, broken;
    bool awaited; /* false: the loop does not wait for it (yet) */
};

/* Input that its reader has not taken yet: a ring that grows to the stream's window. */
struct backlog {
    uint8_t *bytes;
    size_t start, size, capacity;
};

struct stream {
    struct stream *next; /* of all of them */
    struct channel *channel; /* NULL: its session is over */
    uint32_t id;
    enum op op;
    uint16_t flags;

    struct watch in, out, err, status;
    int writers[2]; /* of out and err; -1: not held */
    struct backlog backlog;
    uint32_t window, consumed; /* of the input: what the host may have under way, and what CREDIT has not told yet */
    int64_t credit, input_left; /* of the output; and of the input, until the host has none left */
    uint64_t received;
    uint32_t heaviness; /* recent output, and when that was last looked at */
    int64_t weighed;
    bool ended, end_done; /* the host's END; it has been passed on */
    bool want_started, want_stop, deaf, said_end, muted;

    pid_t pid; /* 0: none, or reaped */
    bool child, reaped;
    int wait_status;
    uint64_t user_us, system_us, resident_kib;
    int64_t out_left, err_left; /* after the end of a command: what it had written by then; -1: all there is */
    int cause;
    uint32_t grace_ms;
    int64_t deadline, started; /* ms; 0: none */
    int64_t unhurried; /* ms: until then nobody waits to hear that the command runs; 0: somebody does */
    bool hung_up;
    char run[65]; /* an exec's ID */
    bool picked; /* the agent's own choice */
    struct dial *dial;
    struct freeze *freeze;

    struct result *report; /* of the child, as far as it has come */
    uint32_t report_size, report_head; /* of all of it; and how many bytes of that number have come */
    struct result *result; /* NULL: not known yet */
    bool connecting, dead;
};

/* Streams over the limit, until they have been told so; and all streams there can be, with those that were kept. */
enum { REFUSED_STREAMS = 64, ALL_STREAMS = 3072, REPORT_HEAD = 4 };

struct channel {
    struct channel *next;
    struct watch port;
    bool ends; /* a connection: it is over for good when its other end is closed */
    bool dials; /* it serves nothing but dial */
    bool in_session, gone, unfinished; /* unfinished: the last turn has left something that could be sent now */
    bool answered; /* the session's greeting */
    int64_t silent_until; /* ms: then, if the other end is still closed, the session is over; 0: it is not closed */
    uint32_t tag, highest;
    int64_t credit, reserve; /* of the session's output; what bulk data leaves of it */
    uint8_t *in;
    size_t in_start, in_end;
    uint8_t *out;
    size_t out_start, out_end;
    uint8_t *request; /* of several frames, or NULL */
    size_t request_size;
    bool in_request, request_lost; /* its last frame has not come; there was no memory for it */
    uint32_t request_stream;
    unsigned count, turn, ended; /* ended: by what came before the greeting that is waited for */
    uint8_t pong[MAX_PING];
    int pong_size; /* -1: none to send */
    int announcement; /* a reason, or -1 */
    struct stream *streams[MAX_DIALS + REFUSED_STREAMS];
};

/* What the agent found where it started, and keeps open whatever becomes of the place. */
#define OOM_SPARED "-1000" /* none of the OOM killer's */

struct surroundings {
    int proc; /* /proc; -1: none */
    int random, null; /* /dev/urandom, /dev/null */
    int cgroups; /* the directory in which each command gets one; -1: none */
    int freezable; /* the file system below the root, if the root itself cannot be frozen; -1: none */
    int key_dir; /* where the host key of banger's own ssh server is; -1: none */
    int oom; /* this process's own oom_score_adj, which is OOM_SPARED; -1: it is spared nothing */
    struct stat mounts; /* the namespace of its mounts; no st_ino: not known */
    bool confined; /* this process's root is not the image's */
    const char *environment; /* of the VM's configuration: NAME=VALUE, a zero after each */
    size_t environment_size;
    uint8_t boot[NONCE_BYTES];
};

extern struct surroundings around;

/* util.c */
int64_t now_ms(void);
ssize_t read_file(int directory, const char *path, char *buffer, size_t size);
bool write_file(int directory, const char *path, const char *text);
void write_all(int fd, const void *bytes, size_t size);
void fill_random(void *bytes, size_t size);
void complain(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* loop.c */
extern int64_t loop_now; /* ms, of this turn */
void loop_start(void);
void loop_take(struct watch *watch, int fd);
void loop_await(struct watch *watch);
void loop_watch(struct watch *watch, int fd);
void loop_close(struct watch *watch);
bool loop_turn(int timeout_ms);
bool loop_child_ended(void);
void loop_default_signals(void);

/* backlog.c */
bool backlog_add(struct backlog *backlog, const uint8_t *bytes, size_t size);
ssize_t backlog_write(struct backlog *backlog, int fd);
bool backlog_look(const struct backlog *backlog, size_t offset, uint8_t *bytes, size_t size);
void backlog_drop(struct backlog *backlog, size_t size);
void backlog_free(struct backlog *backlog);

/* transport.c */
void open_inherited(int fd, bool dials);
bool ports_are_known(void);
void open_ports(void);
void open_vsock(void);
void begin_channels(void);
void accept_vsock(void);
int64_t accept_deadline(void);

/* channel.c */
extern struct channel *channels;
struct channel *channel_open(int fd, bool ends, bool dials);
unsigned channel_most_streams(const struct channel *channel);
void channel_read(struct channel *channel);
void channel_write(struct channel *channel);
void channel_look_at_clock(struct channel *channel);
void channel_fault(struct channel *channel, enum reason reason);
bool channel_has_room(const struct channel *channel);
uint8_t *channel_payload(struct channel *channel);
void channel_send(struct channel *channel, uint32_t stream, enum kind kind, unsigned flags, size_t size);
bool channel_is_busy(const struct channel *channel);
void channels_sweep(void);

/* session.c */
bool session_frame(struct channel *channel, const uint8_t *header, const uint8_t *payload, size_t size);
void session_end(struct channel *channel);
void session_fill(struct channel *channel);

/* stream.c */
extern struct stream *streams;
struct stream *stream_new(struct channel *channel, uint32_t id);
void stream_input(struct stream *stream, const uint8_t *bytes, size_t size, bool end);
void stream_pass_on(struct stream *stream);
void stream_leave(struct stream *stream);
void stream_fail(struct stream *stream, enum status status, int error, const char *message);
bool stream_news(struct stream *stream);
bool stream_output(struct stream *stream, bool bulk_too);
void stream_resize(struct stream *stream, uint16_t rows, uint16_t columns);
void stream_finish(struct stream *stream, const struct result *result);
void stream_mute(struct stream *stream);
void streams_settle(void);
void streams_sweep(void);
bool streams_are_busy(void);

/* serve.c */
void serve_turn(void);

/* requests.c */
void request_begin(struct stream *stream, struct reader *reader);

/* children.c */
typedef void child_body(struct reader *request);
void child_start(struct stream *stream, child_body *body, const struct reader *request, bool input, bool output);
void exec_start(struct stream *stream, const struct reader *request);
void child_settle(struct stream *stream);
void children_reap(void);
void child_hang_up(struct stream *stream, int cause);
void child_kill(struct stream *stream);
int64_t children_next_deadline(void);
void children_look_at_clock(void);
void run_signal(struct stream *stream, unsigned target, int number);

/* spare.c */
bool spare_take(struct stream *stream, const struct reader *request);
void spare_ended(pid_t pid);
void spare_expect(void);
bool spare_is_due(void);
void spare_make(void);
void spare_leave(void);

/* cgroups.c */
void cgroups_open(void);
bool cgroup_make(const char *run, int *directory);
void cgroup_drop(const char *run);
bool cgroup_reuse(char run[65], int *directory);
bool cgroup_keep(const char *run);
bool cgroup_kill(const char *run);
bool cgroup_signal(const char *run, int number);
void kill_session(pid_t leader);

/* freezer.c */
void freeze_begin(struct stream *stream, struct reader *reader);
void freeze_free(struct stream *stream);
void freezer_cancel(const struct channel *channel, uint32_t id);
void freezer_leave(const struct channel *channel);
void freezer_let_go(struct stream *stream);
void freezer_ended(struct stream *stream);
void freezer_settle(void);

/* dial.c */
void dial_begin(struct stream *stream, struct reader *reader);
void dial_progress(struct stream *stream);
void dial_broken(struct stream *stream);
bool dial_was_reset(const struct stream *stream);
void dial_abort(struct stream *stream);
void dial_free(struct stream *stream);
bool dial_takes_datagrams(const struct stream *stream);
void dial_send(struct stream *stream);
ssize_t dial_receive(struct stream *stream, uint8_t *bytes, size_t size);

/* supervise.c */
void supervise(void);

/* machine.c */
void clock_begin(struct stream *stream, struct reader *reader);
void entropy_begin(struct stream *stream, struct reader *reader);

#endif
