/* What the host asks for: checked in full before anything is done, then given to who does it. */
#include <stdlib.h>
#include <string.h>

#include "agent.h"
#include "child.h"

/* Fields: B, H, I, Q numbers of 1, 2, 4 and 8 bytes; T text; X bytes; L a counted list of texts. */
struct operation {
    const char *fields;
    uint16_t flags;
    child_body *body; /* in a process of its own */
    void (*here)(struct stream *stream, struct reader *request); /* or in this one; the stream has the flags */
    bool input, output;
};

static void end_begin(struct stream *stream, struct reader *request) {
    struct result result;
    begin_result(&result, OK, 0, "");
    put_u32(&result, cgroup_kill(take_text(request)));
    stream_finish(stream, &result);
}

static void exec_begin(struct stream *stream, struct reader *request) {
    exec_start(stream, request);
}

static const struct operation operations[] = {
    [OP_EXEC] = {"IIHHTTTLL", EXEC_TTY | EXEC_KEPT | EXEC_SESSION_ENV | EXEC_NO_INPUT, NULL, exec_begin, true, true},
    [OP_GET] = {"T", 0, run_get, NULL, false, true},
    [OP_PUT] = {"T", 0, run_put, NULL, true, false},
    [OP_STAT] = {"TT", 0, run_stat, NULL, false, false},
    [OP_LIST] = {"TT", 0, run_list, NULL, false, true},
    [OP_MKDIR] = {"TTI", MKDIR_PARENTS, run_mkdir, NULL, false, false},
    [OP_REMOVE] = {"TT", REMOVE_TREE, run_remove, NULL, false, false},
    [OP_RENAME] = {"TTT", 0, run_rename, NULL, false, false},
    [OP_READ] = {"TTQQ", 0, run_read, NULL, false, true},
    [OP_WRITE] = {"TTQI", WRITE_CREATE | WRITE_TRUNCATE | WRITE_EXCLUSIVE | WRITE_APPEND | WRITE_DURABLE, run_write,
                  NULL, true, false},
    [OP_DIAL] = {"BBHT", DIAL_DATAGRAMS, NULL, dial_begin, true, true},
    [OP_FACTS] = {"", 0, run_facts, NULL, false, true},
    [OP_POWEROFF] = {"B", 0, run_poweroff, NULL, false, false},
    [OP_CLOCK] = {"Q", CLOCK_STEP, NULL, clock_begin, false, false},
    [OP_ENTROPY] = {"X", 0, NULL, entropy_begin, false, false},
    [OP_IDENTITY] = {"HX", 0, run_identity, NULL, false, false},
    [OP_FREEZE] = {"IL", FREEZE_THAW, NULL, freeze_begin, false, false},
    [OP_RUNS] = {"", 0, run_runs, NULL, false, true},
    [OP_END] = {"T", 0, NULL, end_begin, false, false},
    [OP_NETWORK] = {"TTTTTTH", 0, run_network, NULL, false, false},
    [OP_WHOAMI] = {"", 0, run_whoami, NULL, false, true},
};

static bool has_fields(struct reader reader, const char *fields) {
    for (; *fields; fields++) {
        size_t size;
        uint32_t count;
        switch (*fields) {
        case 'B': take_u8(&reader); break;
        case 'H': take_u16(&reader); break;
        case 'I': take_u32(&reader); break;
        case 'Q': take_u64(&reader); break;
        case 'T': take_text(&reader); break;
        case 'X': take_bytes(&reader, &size); break;
        default: take_texts(&reader, &count); break;
        }
    }
    return at_end(&reader);
}

/* Who does it reads the fields; a process of its own finds the flags in request_flags. */
void request_begin(struct stream *stream, struct reader *reader) {
    if (stream->result)
        return;
    uint16_t op = take_u16(reader), flags = take_u16(reader);
    stream->credit = take_u32(reader);
    if (reader->bad) {
        stream_fail(stream, BAD_REQUEST, 0, "a request without a head");
        return;
    }
    if (op == 0 || op >= sizeof operations / sizeof *operations) {
        stream_fail(stream, UNSUPPORTED, 0, "an operation that this agent does not know");
        return;
    }
    if (stream->channel->dials && op != OP_DIAL) {
        stream_fail(stream, UNSUPPORTED, 0, "this channel does nothing but dial");
        return;
    }
    const struct operation *operation = &operations[op];
    if (stream->credit > INT32_MAX || flags & ~operation->flags || !has_fields(*reader, operation->fields)) {
        stream_fail(stream, BAD_REQUEST, 0, "a request with other fields or flags than its operation has");
        return;
    }
    stream->op = op;
    stream->flags = flags;
    stream->deaf = !operation->input;
    if (operation->here)
        operation->here(stream, reader);
    else
        child_start(stream, operation->body, reader, operation->input, operation->output);
}
