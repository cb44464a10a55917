"""A guest's files by its agent, as :class:`banger.core.ports.GuestFiles`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable
from dataclasses import dataclass

from banger.agent import messages
from banger.agent.asking import Asker
from banger.agent.messages import Entry, EntryReader, FileKind, PathInfo, Request, WriteFlag, read_u64
from banger.agent.processes import AgentProcess, status_of_copy
from banger.agent.wire import WireError
from banger.core.errors import BangerError, ErrorKind
from banger.core.names import check_guest_path
from banger.core.ports import EntryKind, GuestEntry, GuestPath, WriteOptions

#: How long a file that was written may take to be on the guest's disk.
_WRITTEN_TIMEOUT_S = 600.0
_KINDS = {FileKind.NOTHING: "missing", FileKind.FILE: "file", FileKind.DIRECTORY: "directory"}
_ENTRY_KINDS = {
    FileKind.FILE: EntryKind.FILE,
    FileKind.DIRECTORY: EntryKind.DIRECTORY,
    FileKind.LINK: EntryKind.LINK,
    FileKind.CHARACTER_DEVICE: EntryKind.CHARACTER_DEVICE,
    FileKind.BLOCK_DEVICE: EntryKind.BLOCK_DEVICE,
    FileKind.PIPE: EntryKind.PIPE,
    FileKind.SOCKET: EntryKind.SOCKET,
}
_FLAGS = {
    "create": WriteFlag.CREATE,
    "exclusive": WriteFlag.EXCLUSIVE,
    "truncate": WriteFlag.TRUNCATE,
    "append": WriteFlag.APPEND,
    "durable": WriteFlag.DURABLE,
}
#: No kernel gives these; a caller may make a path of a name.
_NO_NAMES = (b"", b".", b"..")
_MOST_OFFSET = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class AgentFiles:
    """Implements :class:`banger.core.ports.GuestFiles`."""

    asker: Asker

    async def entry(self, path: str, user: str = "") -> GuestEntry:
        """What is there."""
        entry = (await self._stat(path, user)).entry
        if entry.kind == FileKind.NOTHING:
            raise BangerError(ErrorKind.NOT_FOUND, f'the guest has no "{path}"', subject=path)
        return _entry(entry)

    async def list(self, path: str, user: str = "") -> AsyncGenerator[GuestEntry]:
        """The entries of a directory."""
        reader = EntryReader()
        output = self.asker.bytes_of(messages.list_directory(check_guest_path(path), _user(user)), f'list "{path}"')
        try:
            async for piece in output:
                for entry in reader.feed(piece):
                    if b"/" in entry.name or entry.name in _NO_NAMES:
                        raise WireError("a name that no file has")  # noqa: TRY301  # as any other nonsense
                    yield _entry(entry)
            reader.close()
        except WireError as error:
            raise self._nonsense(path, error) from error
        finally:
            await output.aclose()

    async def mkdir(self, path: str, mode: int = 0o755, *, parents: bool = False, user: str = "") -> None:
        """Make a directory."""
        request = messages.mkdir(check_guest_path(path), mode & 0o7777, parents=parents, user=_user(user))
        await self.asker.ask(request, f'make the directory "{path}"')

    async def remove(self, path: str, *, tree: bool = False, user: str = "") -> None:
        """Remove a file, an empty directory, or a tree; that may take as long as it likes."""
        stream = await self.asker.link.open(messages.remove(check_guest_path(path), tree=tree, user=_user(user)))
        await self.asker.answer(stream, f'remove "{path}"', _WRITTEN_TIMEOUT_S)

    async def rename(self, source: str, target: str, user: str = "") -> None:
        """Give a file another name."""
        request = messages.rename(check_guest_path(source), check_guest_path(target), _user(user))
        await self.asker.ask(request, f'rename "{source}" to "{target}"')

    def read(self, path: str, offset: int = 0, length: int | None = None, user: str = "") -> AsyncGenerator[bytes]:
        """The bytes of a file."""
        most = messages.TO_THE_END if length is None else _checked(length)
        request = messages.read(check_guest_path(path), _checked(offset), most, _user(user))
        return self.asker.bytes_of(request, f'read "{path}"')

    async def write(
        self, path: str, data: AsyncIterable[bytes], options: WriteOptions | None = None, user: str = ""
    ) -> int:
        """Write into a file as ``data`` comes."""
        how, flags = options or WriteOptions(), WriteFlag.NONE
        for name, flag in _FLAGS.items():
            flags |= flag if getattr(how, name) else WriteFlag.NONE
        request = messages.write(check_guest_path(path), _checked(how.offset), how.mode & 0o7777, flags, _user(user))
        stream = await self.asker.link.open(request)
        try:
            async for piece in data:
                if not await stream.write(piece):
                    break
            stream.write_eof()
            result = await self.asker.answer(stream, f'write "{path}"', _WRITTEN_TIMEOUT_S)
            return read_u64(result.fields)
        except WireError as error:
            raise self._nonsense(path, error) from error
        finally:
            stream.cancel()

    # -- whole trees -----------------------------------------------------------------------------------

    async def stat(self, path: str) -> GuestPath:
        """What ``path`` is."""
        found = await self._stat(path)
        kind = _KINDS.get(FileKind(found.leads_to), "other") if found.leads_to in set(FileKind) else "other"
        is_link = found.entry.kind == FileKind.LINK
        return GuestPath(kind, is_link, found.real_path.decode(errors="replace") if is_link else "")

    async def put(self, directory: str) -> AgentProcess:
        """Unpack a tar archive there."""
        return await self._copy(messages.put(check_guest_path(directory)))

    async def get(self, path: str) -> AgentProcess:
        """Pack it as a tar archive."""
        return await self._copy(messages.get(check_guest_path(path)))

    async def _copy(self, request: Request) -> AgentProcess:
        return AgentProcess(self.asker.vm_id, await self.asker.link.open(request), status_of_copy)

    async def _stat(self, path: str, user: str = "") -> PathInfo:
        result = await self.asker.ask(messages.stat(check_guest_path(path), _user(user)), f'look at "{path}"')
        try:
            return PathInfo.decode(result.fields)
        except WireError as error:
            raise self._nonsense(path, error) from error

    def _nonsense(self, path: str, error: WireError) -> BangerError:
        message = "the guest's answer makes no sense"
        return BangerError(ErrorKind.UNAVAILABLE, message, subject=path, cause=str(error))


def _user(user: str) -> str:
    if "\0" in user:
        raise BangerError(ErrorKind.USAGE, "a user name cannot hold a NUL character")
    return user


def _checked(place: int) -> int:
    if not 0 <= place <= _MOST_OFFSET:
        raise BangerError(ErrorKind.USAGE, f"{place} is no place in a file")
    return place


def _entry(entry: Entry) -> GuestEntry:
    kind = _ENTRY_KINDS.get(FileKind(entry.kind)) if entry.kind in set(FileKind) else None
    return GuestEntry(
        entry.name.decode(errors="surrogateescape"),
        kind or EntryKind.UNKNOWN,
        entry.mode,
        entry.uid,
        entry.gid,
        entry.links,
        entry.size,
        entry.inode,
        entry.modified_ns,
        entry.target.decode(errors="surrogateescape"),
    )
