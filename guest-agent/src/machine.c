/* What concerns the machine as a whole and takes no time: its clock, and its randomness. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>

#include "agent.h"

/* linux/random.h */
struct pool_info {
    int entropy_count, buffer_size;
    uint8_t buffer[512];
};
#define RNDADDENTROPY _IOW('R', 0x03, int[2])
#define RNDRESEEDCRNG _IO('R', 0x07)

void clock_begin(struct stream *stream, struct reader *request) {
    int64_t wanted = (int64_t)take_u64(request);
    struct timespec now;
    struct result result;
    clock_gettime(CLOCK_REALTIME, &now);
    if (stream->flags & CLOCK_STEP) {
        struct timespec set = {.tv_sec = wanted / 1000000000, .tv_nsec = wanted % 1000000000};
        if (wanted <= 0 || clock_settime(CLOCK_REALTIME, &set) < 0) {
            stream_fail(stream, wanted <= 0 ? BAD_REQUEST : FAILED, wanted <= 0 ? 0 : errno, "the clock cannot be set");
            return;
        }
    }
    begin_result(&result, OK, 0, "");
    put_u64(&result, (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec);
    stream_finish(stream, &result);
}

/* Both calls are needed: what is credited reaches the generator that answers only when that is seeded again. */
void entropy_begin(struct stream *stream, struct reader *request) {
    struct pool_info pool;
    size_t size;
    const uint8_t *seed = take_bytes(request, &size);
    if (size < 32 || size > sizeof pool.buffer) {
        stream_fail(stream, BAD_REQUEST, 0, "a seed has 32 to 512 bytes");
        return;
    }
    pool.entropy_count = (int)size * 8;
    pool.buffer_size = (int)size;
    memcpy(pool.buffer, seed, size);
    if (ioctl(around.random, RNDADDENTROPY, &pool) < 0 || ioctl(around.random, RNDRESEEDCRNG) < 0)
        stream_fail(stream, FAILED, errno, "the kernel does not take the seed");
    else
        stream_fail(stream, OK, 0, "");
    explicit_bzero(&pool, sizeof pool);
}
