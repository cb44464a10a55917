/* How processes are started. */
#ifndef SPAWN_H
#define SPAWN_H

#include "agent.h"

/* The process's ends of things; -1 for none. extra and keys are not closed. */
struct spawn {
    int in, out, err, status, cgroup, extra, keys;
    uint16_t flags;
};

pid_t spawn_into(int cgroup);
bool spawn_child(struct stream *stream, struct spawn *spawn, child_body *body, const struct reader *request);
void child_attach(struct stream *stream, struct spawn *spawn, int ends[3], child_body *body,
                  const struct reader *request);

#endif
