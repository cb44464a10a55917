/* The numbers of the protocol (docs/agent.md), and reading and writing them in bytes. */
#ifndef WIRE_H
#define WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    PROTOCOL = 1,
    PADDING_BYTES = 32768,
    MAX_FRAME = 32768,
    HEADER_BYTES = 16,
    TRAILER_BYTES = 4,
    MAX_PAYLOAD = MAX_FRAME - HEADER_BYTES - TRAILER_BYTES,
    MAX_REQUEST = 1 << 20,
    MAX_RESULT = 16384,
    MAX_PING = 64,
    MAX_STREAMS = 256,
    MAX_DIALS = 2048, /* the same, of a channel that only dials */
    MAX_CHANNELS = 8,
    INPUT_WINDOW = 65536,
    MAX_INPUT_WINDOW = 1 << 20,
    EXTRA_WINDOWS = 8 << 20,
    MIN_SESSION_WINDOW = 32768,
    MAX_SESSION_WINDOW = 1 << 24,
    MAGIC_BYTES = 16,
    NONCE_BYTES = 16,
    HELLO_BYTES = 48,
    WELCOME_BYTES = 96,
    VERSION_BYTES = 16,
    VSOCK_PORT = 1024,
    VSOCK_DIALS_PORT = 1025,
};

extern const uint8_t MAGIC[MAGIC_BYTES];

enum kind { OPEN = 1, DATA, CREDIT, CANCEL, SIGNAL, RESIZE, PING, PONG, STARTED, STOP, RESULT };
enum { FLAG_MORE = 1, FLAG_END = 1, FLAG_ERR = 2 };
enum reason { GREETED, AGENT_STARTED, BAD_FRAME, NO_PROTOCOL, BAD_HELLO };
enum { FEATURE_CGROUPS = 1, FEATURE_NO_INPUT = 2 };

enum op {
    OP_EXEC = 1, OP_GET, OP_PUT, OP_STAT, OP_LIST, OP_MKDIR, OP_REMOVE, OP_RENAME, OP_READ, OP_WRITE, OP_DIAL,
    OP_FACTS, OP_POWEROFF, OP_CLOCK, OP_ENTROPY, OP_IDENTITY, OP_FREEZE, OP_RUNS, OP_END, OP_NETWORK, OP_WHOAMI,
};

enum status {
    OK, BAD_REQUEST, UNSUPPORTED, BUSY, NO_USER, NO_GROUP, NO_DIRECTORY, NOT_FOUND, NOT_EXECUTABLE, FAILED, CANCELLED,
    REFUSED,
};

enum { EXEC_TTY = 1, EXEC_KEPT = 2, EXEC_SESSION_ENV = 4, EXEC_NO_INPUT = 8 };
enum { MKDIR_PARENTS = 1 };
enum { REMOVE_TREE = 1 };
enum { WRITE_CREATE = 1, WRITE_TRUNCATE = 2, WRITE_EXCLUSIVE = 4, WRITE_APPEND = 8, WRITE_DURABLE = 16 };
enum { CLOCK_STEP = 1 };
enum { HOSTNAME = 1, MACHINE_ID, BOOT_ID, HOST_KEY, VM_ID, SEEDS }; /* what of an identity */
enum { FREEZE_THAW = 1 };
enum { DIAL_MACHINE = 0, DIAL_UNIX = 1, DIAL_TCP4 = 4, DIAL_TCP6 = 6 };
enum { DIAL_DATAGRAMS = 1 };
enum { TARGET_PROCESS, TARGET_GROUP, TARGET_ALL };
enum { BY_ITSELF, BY_TIMEOUT, BY_CANCEL };

uint16_t get_u16(const uint8_t *at);
uint32_t get_u32(const uint8_t *at);
void set_u16(uint8_t *at, uint16_t value);
void set_u32(uint8_t *at, uint32_t value);
void set_u64(uint8_t *at, uint64_t value);

/* Takes fields off the front of a request. What is not there reads as 0 or "", and sets bad. */
struct reader {
    const uint8_t *at, *end;
    bool bad;
};

uint8_t take_u8(struct reader *reader);
uint16_t take_u16(struct reader *reader);
uint32_t take_u32(struct reader *reader);
uint64_t take_u64(struct reader *reader);
/* Bytes that are followed by a zero, where they lie. */
const uint8_t *take_bytes(struct reader *reader, size_t *size);
/* The same for text: a zero byte in it is bad. */
const char *take_text(struct reader *reader);
/* Skips a counted list of texts and returns a reader of them; count is their number. */
struct reader take_texts(struct reader *reader, uint32_t *count);
bool at_end(const struct reader *reader);

/* The payload of a RESULT, put together field by field. What does not fit is left out, and sets full. Of one that is
   kept, there may be no more of the bytes than its size. */
struct result {
    size_t size;
    bool full;
    uint8_t bytes[MAX_RESULT];
};

void begin_result(struct result *result, enum status status, int error, const char *message);
void put_u8(struct result *result, uint8_t value);
void put_u32(struct result *result, uint32_t value);
void put_u64(struct result *result, uint64_t value);
void put_string(struct result *result, const void *bytes, size_t size);

#endif
