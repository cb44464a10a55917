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

/* Takes the descriptor over. What it is ready for is found out by trying. */
void loop_watch(struct watch *watch, int fd) {
    *watch = (struct watch){.fd = fd, .readable = true, .writable = true};
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = watch};
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event); /* fails for plain files, which are always ready */
}

/* The removal is explicit: a child that has not executed yet may hold a copy, which would keep the events coming. */
void loop_close(struct watch *watch) {
    if (watch->fd < 0)
        return;
    epoll_ctl(epoll_fd, EPOLL_CTL_DEL, watch->fd, NULL);
    close(watch->fd);
    *watch = (struct watch){.fd = -1};
}

void loop_turn(int timeout_ms) {
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
}

bool loop_child_ended(void) {
    if (!signals.readable)
        return false;
    struct signalfd_siginfo information;
    while (read(signals.fd, &information, sizeof information) > 0)
        ;
    signals.readable = false;
    return true;
}
