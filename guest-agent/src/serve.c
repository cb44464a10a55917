/* The agent's loop, a turn at a time. */
#include "agent.h"

enum { LONGEST_SLEEP_MS = 60000 };

struct surroundings around = {.proc = -1, .random = -1, .null = -1, .cgroups = -1, .freezable = -1, .key_dir = -1, .oom = -1,
                              .environment = ""};

/* How long the loop may sleep; -1 for as long as nothing happens. */
static int timeout(void) {
    int64_t deadline = children_next_deadline(), accepting = accept_deadline();
    if (accepting && (!deadline || accepting < deadline))
        deadline = accepting;
    for (const struct channel *channel = channels; channel; channel = channel->next)
        if (channel->silent_until && (!deadline || channel->silent_until < deadline))
            deadline = channel->silent_until;
    if (!deadline)
        return -1;
    int64_t left = deadline - now_ms();
    return left < 0 ? 0 : left > LONGEST_SLEEP_MS ? LONGEST_SLEEP_MS : (int)left;
}

static bool is_busy(void) {
    for (const struct channel *channel = channels; channel; channel = channel->next)
        if (channel_is_busy(channel))
            return true;
    return streams_are_busy();
}

/* One turn: what has come in, what it leads to, what goes out. */
void serve_turn(void) {
    bool busy = is_busy();
    bool idle = !loop_turn(busy || spare_is_due() ? 0 : timeout()) && !busy;
    accept_vsock();
    if (loop_child_ended())
        children_reap();
    children_look_at_clock();
    for (struct channel *channel = channels; channel; channel = channel->next) {
        channel_read(channel);
        channel_look_at_clock(channel);
    }
    freezer_settle();
    streams_settle();
    for (struct channel *channel = channels; channel; channel = channel->next) {
        session_fill(channel);
        channel_write(channel);
    }
    streams_sweep();
    channels_sweep();
    if (idle)
        spare_make();
}

