/* Feeds the agent's readers with nonsense, under the sanitizers, for a time: fuzz SECONDS SEED DIRECTORY.
 *
 * The session runs whole, in this process, but nothing of the machine is touched: no process gets further than its
 * start, connections lead to this program, clocks stay. Archives are unpacked below DIRECTORY, chrooted (as root only).
 * The same seed makes the same nonsense. What a finding has read last is in DIRECTORY/last.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "agent.h"
#include "child.h"
#include "spawn.h"
#include "tar.h"

enum { MOST_PEERS = 64, INPUT_BYTES = 1 << 17, TURNS = 40 };

static uint64_t state;
static uint8_t input[INPUT_BYTES];
static int peers[MOST_PEERS];
static const char *directory;

static uint32_t chance(uint32_t below) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state >> 33) % below;
}

static void noise(uint8_t *bytes, size_t size) {
    for (size_t i = 0; i < size; i++)
        bytes[i] = (uint8_t)chance(256);
}

/* -- in place of the machine */

/* A process that writes something somewhere and ends, or none. */
pid_t spawn_into(int cgroup) {
    (void)cgroup;
    uint8_t words[64];
    uint32_t code = chance(256), size = chance(sizeof words);
    noise(words, sizeof words);
    if (size >= REPORT_HEAD && chance(4)) /* as a report has it */
        set_u32(words, size - REPORT_HEAD);
    errno = EAGAIN;
    if (chance(8))
        return -1;
    pid_t pid = fork();
    if (pid != 0)
        return pid;
    for (int fd = 3; fd < 64; fd++) {
        struct stat about;
        if (fstat(fd, &about) == 0 && S_ISFIFO(about.st_mode)) {
            fcntl(fd, F_SETFL, O_NONBLOCK);
            if (write(fd, words, size) < 0)
                continue;
        }
    }
    _exit((int)code);
}

int fuzz_socket(int family, int type, int protocol);
int fuzz_connect(int fd, const struct sockaddr *address, socklen_t size);
int fuzz_clock_settime(clockid_t clock, const struct timespec *now);

int fuzz_socket(int family, int type, int protocol) {
    int ends[2];
    (void)family, (void)protocol;
    if (socketpair(AF_UNIX, SOCK_STREAM | (type & (SOCK_CLOEXEC | SOCK_NONBLOCK)), 0, ends) < 0)
        return -1;
    int *peer = &peers[chance(MOST_PEERS)];
    if (*peer > 0)
        close(*peer);
    fcntl(ends[1], F_SETFL, O_NONBLOCK);
    *peer = ends[1];
    return ends[0];
}

int fuzz_connect(int fd, const struct sockaddr *address, socklen_t size) {
    (void)fd, (void)address, (void)size;
    errno = chance(2) ? EINPROGRESS : ECONNREFUSED;
    return chance(2) ? 0 : -1;
}

int fuzz_clock_settime(clockid_t clock, const struct timespec *now) {
    (void)clock, (void)now;
    return 0;
}

void fuzz_sync(void);
int fuzz_syncfs(int fd);

void fuzz_sync(void) {
}

int fuzz_syncfs(int fd) {
    (void)fd;
    return 0;
}

static void stir_peers(void) {
    uint8_t bytes[4096];
    int *peer = &peers[chance(MOST_PEERS)];
    if (*peer <= 0)
        return;
    uint32_t what = chance(4);
    if (what == 0 && write(*peer, bytes, chance(sizeof bytes)) < 0)
        return;
    if (what == 1 && read(*peer, bytes, sizeof bytes) < 0)
        return;
    if (what == 2) {
        close(*peer);
        *peer = 0;
    }
    if (what == 3)
        shutdown(*peer, SHUT_WR);
}

/* -- what a host sends */

static size_t put_text(uint8_t *at, size_t most) {
    static const char *const texts[] = {"", "/", "/etc", "root", "daemon:7", "A=1", "127.0.0.1", "::1", "/tmp/s", "sh", "-c"};
    uint32_t which = chance(14);
    uint32_t size = which < 11 ? (uint32_t)strlen(texts[which]) : chance(64);
    if (size + 5 > most)
        return 0;
    set_u32(at, size);
    if (which < 11)
        memcpy(at + 4, texts[which], size);
    else
        noise(at + 4, size);
    at[4 + size] = 0;
    return size + 5;
}

/* A connection that can be made, in place of one whose fields would hardly ever fit. */
static size_t put_dial(uint8_t *at) {
    static const char *const addresses[] = {"127.0.0.1", "::1", "/tmp/s"};
    static const uint8_t families[] = {DIAL_TCP4, DIAL_TCP6, DIAL_UNIX};
    uint32_t which = chance(3);
    size_t size = strlen(addresses[which]);
    set_u16(at, OP_DIAL);
    set_u16(at + 2, 0);
    set_u32(at + 4, chance(1 << 20));
    at[8] = families[which];
    at[9] = 0;
    set_u16(at + 10, (uint16_t)(1 + chance(65535)));
    set_u32(at + 12, (uint32_t)size);
    memcpy(at + 16, addresses[which], size + 1);
    return 17 + size;
}

/* A request with the fields that its operation has, more or less. */
static size_t put_request(uint8_t *at, size_t most) {
    static const char *const fields[] = {"", "IIHHTTTLL", "T", "T", "TT", "TT", "TTI", "TT", "TTT", "TTQQ", "TTQI", "BBHT",
                                         "", "B", "Q", "T", "HT", "IL", "", "T", "TTTTTTH", ""};
    const uint32_t known = sizeof fields / sizeof *fields;
    uint32_t op = chance(known + 1);
    if (chance(5) == 0)
        return put_dial(at);
    set_u16(at, (uint16_t)op);
    set_u16(at + 2, (uint16_t)(chance(3) ? 0 : chance(8)));
    set_u32(at + 4, chance(3) ? chance(1 << 20) : (uint32_t)state);
    size_t size = 8;
    for (const char *field = fields[op < known ? op : 0]; *field && size + 600 < most; field++) {
        static const char kinds[] = "BHIQ";
        const char *number = strchr(kinds, *field);
        uint32_t count = *field == 'L' ? chance(5) : 1;
        if (number) {
            size_t width = (size_t)1 << (number - kinds);
            memset(at + size, 0, width);
            at[size] = (uint8_t)chance(chance(2) ? 8 : 256);
            size += width;
            continue;
        }
        if (*field == 'L') {
            set_u32(at + size, count);
            size += 4;
        }
        while (count--)
            size += put_text(at + size, 200);
    }
    return size;
}

static size_t put_frame(uint8_t *at, uint32_t tag, uint32_t *newest) {
    static const uint8_t kinds[] = {OPEN, OPEN, OPEN, DATA, DATA, DATA, CREDIT, CREDIT, CANCEL, SIGNAL, RESIZE, PING};
    uint32_t kind = chance(30) ? kinds[chance(sizeof kinds)] : chance(256);
    uint32_t stream = *newest ? 1 + chance(*newest) : 1;
    uint8_t *payload = at + HEADER_BYTES, flags = (uint8_t)(chance(20) ? 0 : chance(4));
    size_t size = 0;
    switch (kind) {
    case OPEN:
        stream = chance(50) ? ++*newest : stream;
        size = put_request(payload, 4096);
        flags = (uint8_t)(chance(12) == 0);
        break;
    case DATA:
        size = chance(4) ? chance(300) : chance(MAX_PAYLOAD);
        noise(payload, size < 64 ? size : 64);
        flags = (uint8_t)(chance(6) == 0);
        break;
    case CREDIT:
        set_u32(payload, chance(20) ? chance(70000) : (uint32_t)state);
        size = 4;
        stream = chance(3) ? stream : 0;
        break;
    case SIGNAL:
        payload[0] = (uint8_t)chance(4);
        payload[1] = (uint8_t)(chance(2) ? SIGHUP : SIGKILL);
        size = 2;
        break;
    case RESIZE:
        size = 4;
        set_u32(payload, (uint32_t)state);
        break;
    case PING:
        size = chance(70);
        noise(payload, size);
        stream = 0;
        break;
    default:
        break;
    }
    set_u32(at, (uint32_t)size);
    set_u32(at + 4, stream);
    set_u32(at + 8, tag);
    at[12] = (uint8_t)kind;
    at[13] = flags;
    set_u16(at + 14, 0);
    set_u32(payload + size, tag);
    return HEADER_BYTES + size + TRAILER_BYTES;
}

static size_t put_hello(uint8_t *at) {
    memset(at, 0, HELLO_BYTES);
    memcpy(at, MAGIC, MAGIC_BYTES);
    set_u16(at + 16, (uint16_t)(chance(20) == 0 ? chance(4) : 1));
    set_u16(at + 18, (uint16_t)(chance(20) == 0 ? chance(4) : 1));
    set_u32(at + 20, chance(20) ? MIN_SESSION_WINDOW + chance(1 << 18) : (uint32_t)state);
    noise(at + 24, NONCE_BYTES);
    return HELLO_BYTES;
}

static void damage(uint8_t *bytes, size_t size) {
    for (uint32_t times = 1 + chance(4); times && size; times--) {
        size_t at = chance((uint32_t)size);
        switch (chance(4)) {
        case 0: bytes[at] ^= (uint8_t)(1u << chance(8)); break;
        case 1: bytes[at] = (uint8_t)chance(256); break;
        case 2: bytes[at] = 0xff; break;
        default:
            if (size > MAGIC_BYTES && at < size - MAGIC_BYTES)
                memcpy(bytes + at, MAGIC, MAGIC_BYTES);
        }
    }
}

/* -- sessions */

/* What the agent sends has to be greetings and frames of its session; returns the tag of the last greeting. */
struct listener {
    uint8_t bytes[4 * MAX_FRAME];
    size_t size;
    uint32_t tag;
};

static void check(bool right, const char *what) {
    if (!right) {
        fprintf(stderr, "fuzz: the agent sends %s\n", what);
        abort();
    }
}

static void listen_to(struct listener *ear, int fd) {
    ssize_t got = read(fd, ear->bytes + ear->size, sizeof ear->bytes - ear->size);
    if (got > 0)
        ear->size += (size_t)got;
    size_t at = 0;
    while (ear->size - at >= HEADER_BYTES) {
        const uint8_t *frame = ear->bytes + at;
        if (!memcmp(frame, MAGIC, MAGIC_BYTES)) {
            if (ear->size - at < WELCOME_BYTES)
                break;
            ear->tag = get_u32(frame + 40);
            at += WELCOME_BYTES;
            continue;
        }
        uint32_t length = get_u32(frame);
        check(length <= MAX_PAYLOAD, "a frame that is too long");
        check(ear->tag && get_u32(frame + 8) == ear->tag, "a frame of another session");
        check(frame[12] == DATA || frame[12] == CREDIT || (frame[12] >= PONG && frame[12] <= RESULT), "an odd kind");
        if (ear->size - at < HEADER_BYTES + length + TRAILER_BYTES)
            break;
        check(get_u32(frame + HEADER_BYTES + length) == ear->tag, "a wrong trailer");
        at += HEADER_BYTES + length + TRAILER_BYTES;
    }
    memmove(ear->bytes, ear->bytes + at, ear->size - at);
    ear->size -= at;
}

static void remember(size_t size) {
    static int fd = -1;
    char path[512];
    snprintf(path, sizeof path, "%s/last", directory);
    if (fd < 0)
        fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd >= 0 && (ftruncate(fd, 0) < 0 || pwrite(fd, input, size, 0) < 0))
        fd = -1;
}

static void fuzz_session(void) {
    static struct listener ear;
    int ends[2];
    uint32_t newest = 0;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) < 0 || !channel_open(ends[0], true, chance(4) == 0))
        abort();
    ear.size = 0;
    ear.tag = 0;
    bool deaf = chance(10) == 0, bad = chance(3) == 0;
    for (unsigned turns = 0; turns < TURNS; turns++) {
        size_t size = 0;
        if (turns == 0 || chance(60) == 0) {
            size_t zeros = chance(4) ? 0 : chance(PADDING_BYTES);
            memset(input, 0, zeros);
            size = zeros + put_hello(input + zeros);
            newest = 0;
        } else {
            for (uint32_t frames = 1 + chance(6); frames && size < INPUT_BYTES - 2 * MAX_FRAME; frames--)
                size += put_frame(input + size, ear.tag ? ear.tag : (uint32_t)state, &newest);
        }
        if (bad && chance(8) == 0)
            damage(input, size);
        if (bad && chance(20) == 0)
            size = chance((uint32_t)size + 1);
        remember(size);
        for (size_t at = 0; at < size;) {
            size_t piece = chance(3) ? size - at : 1 + chance((uint32_t)(size - at));
            ssize_t sent = write(ends[1], input + at, piece);
            at += sent > 0 ? (size_t)sent : 0;
            if (sent < 0 && errno != EAGAIN)
                break;
            stir_peers();
            serve_turn();
            if (!deaf)
                listen_to(&ear, ends[1]);
            if (sent < 0 && deaf)
                break;
        }
    }
    close(ends[1]);
    for (int turns = 0; (channels || streams) && turns < 1000; turns++)
        serve_turn();
    if (channels || streams) {
        fprintf(stderr, "fuzz: something is left of a session that has ended\n");
        abort();
    }
}

/* -- text files and archives */

static void fuzz_lines(void) {
    static struct lines lines;
    char path[512], *line;
    size_t size = chance(30000);
    for (size_t i = 0; i < size; i++)
        input[i] = chance(8) ? (uint8_t)"a:,0\n\r7"[chance(7)] : (uint8_t)chance(256);
    snprintf(path, sizeof path, "%s/lines", directory);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, input, size) < 0 || close(fd) < 0 || !open_lines(&lines, path))
        return;
    while ((line = next_line(&lines)) != NULL) {
        uint32_t number;
        for (int fields = 0; fields < 8; fields++)
            parse_number(next_field(&line), &number);
    }
    close_lines(&lines);
}

/* What comes out fits, or nothing does; and a name that was there is the fresh one then, so once more changes nothing. */
static void fuzz_hosts(void) {
    static char once[4096], twice[4096];
    size_t size = chance(300), most = chance(600);
    for (size_t i = 0; i < size; i++)
        input[i] = chance(8) ? (uint8_t)"a.b# \t\n\n1:"[chance(10)] : (uint8_t)chance(256);
    size_t written = rename_hosts((const char *)input, size, once, most, "a.b", "b");
    check(written <= most, "more lines of hosts than fit");
    if (written)
        check(rename_hosts(once, written, twice, sizeof twice, "a.b", "b") == written && !memcmp(once, twice, written),
              "another name the second time");
}

static size_t put_archive(void) {
    size_t size = 0;
    for (uint32_t members = chance(6); members; members--) {
        static struct member member;
        memset(&member, 0, sizeof member);
        member.type = "0123456LKxg7S"[chance(13)];
        member.mode = chance(512);
        member.size = chance(3) ? chance(600) : chance(5000);
        snprintf(member.path, sizeof member.path, "%s%u/%u", chance(9) ? "d" : "../", chance(3), chance(4));
        snprintf(member.link, sizeof member.link, "%s%u", chance(2) ? "d1/" : "/", chance(4));
        tar_write_header(input + size, &member);
        size += TAR_BLOCK;
        uint64_t data = (member.size + TAR_BLOCK - 1) / TAR_BLOCK * TAR_BLOCK;
        memset(input + size, 'x', data);
        if (member.type == 'x')
            snprintf((char *)input + size, 512, "%u path=%s\n%u mtime=%u.5\n", 13 + chance(3), "abcd", 14, chance(99));
        size += data;
    }
    memset(input + size, 0, 1024);
    return size + 1024;
}

static void fuzz_archive(void) {
    static struct announced announced;
    static struct member member;
    size_t size = put_archive();
    if (chance(2))
        damage(input, size);
    remember(size);
    for (size_t at = 0; at + TAR_BLOCK <= size; at += TAR_BLOCK) {
        memset(&announced, 0, sizeof announced);
        if (tar_read_header(input + at, &member))
            tar_apply(&announced, &member);
        char *records = malloc(TAR_BLOCK + 1);
        if (!records)
            return;
        memcpy(records, input + at, TAR_BLOCK);
        records[TAR_BLOCK] = 0;
        if (tar_read_pax(records, TAR_BLOCK, &announced))
            tar_apply(&announced, &member);
        free(records);
    }
}

/* In a process of its own, which sees nothing but the directory. */
static void fuzz_unpacking(void) {
    int ends[2], status = 0;
    size_t size = put_archive();
    if (chance(2))
        damage(input, size);
    remember(size);
    if (geteuid() != 0 || pipe2(ends, O_CLOEXEC) < 0)
        return;
    pid_t pid = fork();
    if (pid == 0) {
        uint8_t request[8] = {1, 0, 0, 0, '/', 0};
        struct reader reader = {request, request + 6, false};
        int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
        close(ends[1]);
        dup2(ends[0], STDIN_FILENO);
        dup2(null, STATUS_FD);
        close(PROC_FD);
        if (chroot(directory) < 0 || chdir("/") < 0)
            _exit(0);
        run_put(&reader);
    }
    close(ends[0]);
    for (size_t at = 0; pid > 0 && at < size;) {
        ssize_t sent = write(ends[1], input + at, size - at);
        if (sent <= 0)
            break;
        at += (size_t)sent;
    }
    close(ends[1]);
    if (pid > 0 && waitpid(pid, &status, 0) == pid && status != 0) {
        fprintf(stderr, "fuzz: unpacking ended with the status %#x\n", (unsigned)status);
        abort();
    }
}

int main(int argc, char **argv) {
    if (argc != 4)
        return 2;
    int64_t until = now_ms() + atoll(argv[1]) * 1000;
    state = (uint64_t)atoll(argv[2]);
    directory = argv[3];
    around.null = around.random = open("/dev/null", O_RDWR | O_CLOEXEC);
    loop_start();
    unsigned long rounds = 0;
    for (; now_ms() < until; rounds++) {
        fuzz_session();
        fuzz_lines();
        fuzz_hosts();
        fuzz_archive();
        if (rounds % 8 == 0)
            fuzz_unpacking();
    }
    printf("%lu rounds\n", rounds);
    return 0;
}
