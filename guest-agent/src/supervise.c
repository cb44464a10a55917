/* Who starts the agent again when it dies: a process that does nothing else, and so has little to die of. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent.h"

/* An agent that lived so long has not died of what made the one before it die. */
enum { FIRST_PAUSE_MS = 50, LONGEST_PAUSE_MS = 10000, LONG_LIFE_MS = 60000 };

static int wait_for(pid_t agent) {
    int status = 0;
    while (waitpid(agent, &status, 0) < 0 && errno == EINTR)
        ;
    return status;
}

/* Returns in the process that is to serve; the one that was called stays, and ends with the first that ends well. What
   has been opened stays open here, so the host sees no end of a port, but the new agent's word that it has started. */
void supervise(void) {
    int64_t pause_ms = FIRST_PAUSE_MS;
    sigset_t all, before;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, &before); /* they mean services, or all that is left of an image's */
    for (;;) {
        int64_t started = now_ms();
        pid_t agent = fork();
        if (agent == 0) {
            sigprocmask(SIG_SETMASK, &before, NULL);
            return;
        }
        int status = agent < 0 ? -1 : wait_for(agent);
        if (agent > 0 && WIFEXITED(status) && !WEXITSTATUS(status))
            exit(0);
        if (now_ms() - started >= LONG_LIFE_MS)
            pause_ms = FIRST_PAUSE_MS;
        complain("the agent ended with status %#x, and is started again", (unsigned)status);
        usleep((useconds_t)pause_ms * 1000);
        pause_ms = pause_ms * 2 < LONGEST_PAUSE_MS ? pause_ms * 2 : LONGEST_PAUSE_MS;
    }
}
