"""What a guest reaches, asked from inside a real one: one command for all questions, in any image that has busybox.

A question is ``KIND/ADDRESS/PORT``, where ``gateway`` and ``gateway6`` stand for the guest's own gateways:

- ``tcp``: connect, and hear something;
- ``udp``: send a datagram that holds the last part, ``udp/IPV4/PORT/LABEL``; whether it arrives, its receiver knows;
- ``ping``: an echo; a port means nothing;
- ``name``: look a name up, and connect to what it stands for; asked after all of the above;
- ``loopback``: as root of the guest, send what is for 127.0.0.0/8 to the gateway, and connect; asked last.

All times are long: only what is never answered takes them, and a guest that is emulated on a busy host is slow.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_SCRIPT = r"""
set -f
mkfifo /tmp/open
TRIES='15 15 30'
gateway=$(ip route | sed -n 's/^default via \([^ ]*\).*/\1/p')
gateway6=$(ip -6 route | sed -n 's/^default via \([^ ]*\).*/\1/p')

# pasta of 2023 loses the answer to whoever has closed his side of a connection, so the input never ends. And it resets or
# forgets connections that an emulated guest is too slow for, while whatever refuses them says so: those are tried again.
connect() {
    for seconds in $3; do
        said=$(timeout "$seconds" nc -w "$seconds" "$1" "$2" 0<>/tmp/open 2>&1)
        case $said in '' | *reset*) ;; nc:*) return 1 ;; *) return 0 ;; esac
    done
    return 1
}

connect_by_name() {
    said=$(timeout 20 nslookup -type=a "$1" 2>&1 | sed -n '/^Name:/,$ s/^Address: //p; /can.t find/ p' | head -n 1)
    case $said in [0-9]*) connect "$said" "$2" "$TRIES" ;; *) return 1 ;; esac
}

ask() {
    question=$1
    IFS=/
    set -- $1
    unset IFS
    case $2 in gateway | gateway6) eval "address=\${$2:-none}" ;; *) address=$2 ;; esac
    case $1 in
        tcp) connect "$address" "$3" "$TRIES" ;;
        loopback) connect "$address" "$3" 5 ;;
        udp) said=$(timeout 10 nslookup -type=a "$4" "$address:$3" 2>&1) ;;
        ping) said=$(ping -c 1 -W 20 "$address" 2>&1) ;;
        name) connect_by_name "$address" "$3" ;;
    esac
    code=$?
    echo "$question $code" $said
}

for one; do case $one in name/* | loopback/*) ;; *) ask "$one" & ;; esac; done
wait
for one; do case $one in name/*) ask "$one" & ;; esac; done
wait
ip addr del 127.0.0.1/8 dev lo 2>/dev/null
ip route add 127.0.0.0/8 via "$gateway" 2>/dev/null
for one; do case $one in loopback/*) ask "$one" & ;; esac; done
wait
"""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a question; ``words`` are those of the program that asked."""

    reached: bool
    words: str


def command(questions: Iterable[str]) -> list[str]:
    """The command that asks all of them at once."""
    return ["sh", "-c", _SCRIPT, "ask", *questions]


def answers(output: str) -> dict[str, Answer]:
    """What such a command printed."""
    lines = (line.split(" ", 2) for line in output.splitlines())
    return {question: Answer(code == "0", "".join(words)) for question, code, *words in lines}


def reached(given: dict[str, Answer], questions: Sequence[str]) -> list[str]:
    """Those of the questions that were answered; each must have been asked."""
    return [one for one in questions if given[one].reached]
