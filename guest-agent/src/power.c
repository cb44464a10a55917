/* poweroff: the machine is ended in the way of whoever is process 1, or at once. */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent.h"
#include "child.h"

enum { MOST_HOW = 3 };

static void run_if_there(const char *path, const char *name, const char *argument) {
    const char *argv[] = {name, argument, NULL};
    const char *environment[] = {"PATH=/usr/sbin:/usr/bin:/sbin:/bin", NULL};
    if (is_program(path))
        execve(path, (char **)argv, (char **)environment);
}

static void now(bool reboots) {
    sync();
    reboot(reboots ? RB_AUTOBOOT : RB_POWER_OFF);
}

/* The result is told first: it has begun, and nobody may be there to tell it later. */
void run_poweroff(struct reader *request) {
    uint8_t how = take_u8(request);
    char name[64];
    struct stat about;
    struct result result;
    bool reboots = how & 1;
    if (how > MOST_HOW)
        report_failure(BAD_REQUEST, 0, "no such way to end the machine");
    enter_image();
    if (geteuid() != 0)
        report_failure(FAILED, EPERM, "the agent is not root");
    begin_result(&result, OK, 0, "");
    tell(&result);
    const char *verb = reboots ? "reboot" : "poweroff";
    if (how < 2) {
        if (stat("/run/systemd/system", &about) == 0) {
            run_if_there("/usr/bin/systemctl", "systemctl", verb);
            run_if_there("/bin/systemctl", "systemctl", verb);
        }
        /* banger's own process 1 heeds the signals of busybox's init */
        if (read_file(PROC_FD, "1/comm", name, sizeof name) > 0 && !strcmp(name, "start\n")) {
            kill(1, reboots ? SIGTERM : SIGUSR2);
            _exit(0);
        }
        run_if_there(reboots ? "/sbin/reboot" : "/sbin/poweroff", verb, NULL);
        run_if_there(reboots ? "/usr/sbin/reboot" : "/usr/sbin/poweroff", verb, NULL);
    }
    now(reboots);
    _exit(0);
}
