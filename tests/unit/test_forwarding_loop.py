"""The loop of a forwarder."""

from __future__ import annotations

import os
import socket

from banger.forwarding.loop import READ, Loop


def test_loop_tells_a_descriptor_nothing_that_was_meant_for_the_one_before_it_of_that_number() -> None:
    loop, told = Loop(), list[int]()
    first, old = socket.socketpair(), socket.socketpair()
    number = old[0].fileno()

    def replace(_: int) -> None:
        """What happens in a busy round: one connection ends and the next one gets its number."""
        first[0].recv(1)
        loop.forget(number)
        old[0].close()
        os.dup2(quiet[0].fileno(), number)
        loop.watch(number, READ, told.append)
        loop.later(0.0, loop.stop)

    quiet = socket.socketpair()
    loop.watch(first[0].fileno(), READ, replace)
    loop.watch(number, READ, replace)
    for stream in (first[1], old[1]):  # both are ready in the same round, this one first
        stream.send(b"x")
    loop.run()
    assert told == []
    os.close(number)
    for stream in (*first, old[1], *quiet):
        stream.close()
