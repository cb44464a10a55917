#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "agent.h"

enum { SIGNALS = 64 };

/* What rt_sigaction(2) takes, with room for those of every architecture. */
struct kernel_action {
    void (*handler)(int);
    unsigned long rest[7];
};

int64_t loop_now;
static int epoll_fd;
static uint64_t ignored; /* signals, by who started this process */
static struct watch signals = {.fd = -1};

/* Signals are none of this process's business: they mean services, or all that is left of an image's. Blocked, they cost
   a new process one system call. By system calls, as the C library keeps some signals to itself, and who started the
   agent may have ignored those. */
void loop_start(void) {
    static const uint64_t all = ~UINT64_C(0);
    for (int number = 1; number <= SIGNALS; number++) {
        struct kernel_action action;
        if (syscall(SYS_rt_sigaction, number, NULL, &action, sizeof all) == 0 && action.handler == SIG_IGN)
            ignored |= UINT64_C(1) << (number - 1);
    }
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, NULL, sizeof all);
    sigset_t child;
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    int fd = signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK);
    if (epoll_fd < 0 || fd < 0) {
        complain("no epoll or signalfd in this kernel");
        exit(1);
    }
    loop_watch(&signals, fd);
}

/* What a new process does first: none of its signals is blocked, and none ignored. */
void loop_default_signals(void) {
    static const struct kernel_action by_default;
    static const uint64_t none;
    for (int number = 1; number <= SIGNALS; number++)
        if (ignored >> (number - 1) & 1)
            syscall(SYS_rt_sigaction, number, &by_default, NULL, sizeof none);
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &none, NULL, sizeof none);
}

/* Takes a descriptor over that no call waits for. What it is ready for is found out by trying. */
void loop_take(struct watch *watch, int fd) {
    *watch = (struct watch){.fd = fd, .readable = true, .writable = true};
}

/* What it will be ready for wakes the loop. */
void loop_await(struct watch *watch) {
    if (watch->fd < 0 || watch->awaited)
        return;
    watch->awaited = true;
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = watch};
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, watch->fd, &event); /* fails for plain files, which are always ready */
}

/* Takes any descriptor over, and waits for it. */
void loop_watch(struct watch *watch, int fd) {
    fcntl(fd, F_SETFL, O_NONBLOCK);
    loop_take(watch, fd);
    loop_await(watch);
}

/* The removal is explicit: a child that has not executed yet may hold a copy, which would keep the events coming. */
void loop_close(struct watch *watch) {
    if (watch->fd < 0)
        return;
    if (watch->awaited)
        epoll_ctl(epoll_fd, EPOLL_CTL_DEL, watch->fd, NULL);
    close(watch->fd);
    *watch = (struct watch){.fd = -1};
}

/* True if anything has happened. */
bool loop_turn(int timeout_ms) {
    struct epoll_event events[64];
    int count = epoll_wait(epoll_fd, events, 64, timeout_ms);
    loop_now = now_ms();
    for (int i = 0; i < count; i++) {
        struct watch *watch = events[i].data.ptr;
        uint32_t what = events[i].events;
        watch->readable |= (what & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0;
        watch->writable |= (what & (EPOLLOUT | EPOLLHUP | EPOLLERR)) != 0;
        watch->broken |= (what & EPOLLERR) != 0;
    }
    return count > 0;
}

bool loop_child_ended(void) {
    if (!signals.readable)
        return false;
    struct signalfd_siginfo information; /* one stands for all: it is no queue */
    ssize_t got = read(signals.fd, &information, sizeof information);
    (void)got;
    signals.readable = false;
    return true;
}
