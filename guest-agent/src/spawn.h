/* How processes are started. */
#ifndef SPAWN_H
#define SPAWN_H

#include "agent.h"
#include "child.h"

/* The process's ends of things; -1 for none. extra and keys are not closed. With held, the agent keeps out and err open as well:
   nobody needs to hear that a process which is waited for has closed them. */
struct spawn {
    int in, out, err, status, cgroup, extra, keys;
    uint16_t flags;
    bool held;
};

#define NO_SPAWN {.in = -1, .out = -1, .err = -1, .status = -1, .cgroup = -1, .extra = -1, .keys = -1}

/* A process that was started, and the agent's ends of things; -1 for none. */
struct started {
    pid_t pid;
    int in, out, err, status;
    int writers[2]; /* of out and err, if they are held */
};

#define NOT_STARTED {.in = -1, .out = -1, .err = -1, .status = -1, .writers = {-1, -1}}

/* clone.c */
pid_t spawn_into(int cgroup);

/* spawn.c */
bool open_pipes(struct spawn *spawn, struct started *started, bool input, bool output);
bool spawn_child(struct spawn *spawn, struct started *started, child_body *body, const struct reader *request);
void close_started(const struct started *started);

/* children.c */
void child_attach(struct stream *stream, struct spawn *spawn, struct started *started, child_body *body,
                  const struct reader *request);
void child_adopt(struct stream *stream, const struct started *started);

/* commands.c */
void pick_run(char run[65], int *cgroup);

#endif
