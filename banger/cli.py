"""The command line: which verbs there are, and how one of them is loaded and run.

The tree is written down here, so that help and completion need not import what every verb imports. The summary of
a verb is the first line of its function's docstring; a test holds the two together.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Annotated, Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup, TyperOption
from typer.exceptions import TyperException
from typer.main import get_command

from banger.commands import vocabulary
from banger.commands.hints import exists, meant_command, swapped_words, typed
from banger.commands.session import CliSession
from banger.commands.vocabulary import ELSEWHERE
from banger.core.errors import BangerError, ErrorKind


class Verb(NamedTuple):
    """A command: ``module:function`` below ``banger.commands``, and its line in the help of its noun."""

    target: str
    summary: str
    hidden: bool = False


class Noun(NamedTuple):
    """A group of verbs. ``target`` is a function that takes the noun's own options."""

    summary: str
    verbs: Mapping[str, Verb | Noun]
    target: str = ""


_RUN = Verb("run:run", "Run a command in a new VM, and exit with its status.")
_TAKE_SNAPSHOT = Verb("snapshot:create", "Take a snapshot of a VM: memory and disk of one instant.")
_LIST_VMS = Verb("listing:list_vms", "List VMs.")

TREE: Mapping[str, Verb | Noun] = {
    "run": _RUN,
    "ps": _LIST_VMS,
    "vm": Noun(
        "Create, run and manage VMs.",
        {
            "run": _RUN,
            "create": Verb("vm:create", "Create a VM without running a command in it."),
            "start": Verb("vm:start", "Start stopped and suspended VMs."),
            "stop": Verb("vm:stop", "Shut VMs down, and kill those that take too long."),
            "restart": Verb("vm:restart", "Restart VMs; stopped ones are started."),
            "pause": Verb("vm:pause", "Pause VMs, keeping their memory."),
            "resume": Verb("vm:resume", "Resume paused VMs."),
            "suspend": Verb(
                "vm:suspend", "Save VMs to disk and free their memory; they go on when they are started or used."
            ),
            "kill": Verb("vm:kill", "Kill VMs immediately, as if the power were cut."),
            "delete": Verb("vm:delete", "Delete VMs and their disks."),
            "list": _LIST_VMS,
            "show": Verb("show:show_vms", "Show details of VMs."),
            "stats": Verb("stats:stats", "Show what running VMs use, live."),
            "why": Verb("why:why", "Show why a VM stopped or failed, and what to do next."),
            "snapshot": Noun(
                "Take snapshots of VMs.",
                {"create": _TAKE_SNAPSHOT},
            ),
            "restore": Verb("snapshot:restore", "Create a VM that goes on from a snapshot."),
            "rewind": Verb("snapshot:rewind", "Take a VM back, in its place, to a snapshot of it."),
            "fork": Verb("snapshot:fork", "Create running copies of a VM, which keeps running, or of a snapshot."),
            "grow": Verb("vm:grow", "Grow the disk of a stopped VM."),
            "exec": Verb("run:exec_", "Run a command in a running VM."),
            "ssh": Verb("ssh:ssh", "Log in to a VM with your own ssh."),
            "cp": Verb("copy:cp", "Copy files between this host and a VM, or between two VMs."),
            "logs": Verb("vm:logs", "Show the console output of a VM."),
            "wait": Verb("vm:wait", "Wait until VMs are stopped or running."),
            "prune": Verb("prune:prune_vms", "Delete all stopped VMs."),
        },
    ),
    "snapshot": Noun(
        "VMs of one instant: memory and disk.",
        {
            "create": _TAKE_SNAPSHOT,
            "list": Verb("snapshot:list_snapshots", "List snapshots."),
            "show": Verb("show:show_snapshots", "Show details of snapshots."),
            "delete": Verb("snapshot:delete", "Delete snapshots; VMs that were made from them stay."),
            "export": Verb("snapshot_files:export_snapshot", "Export a snapshot to a file, for another host."),
            "import": Verb("snapshot_files:import_snapshot", "Import a snapshot from a file; trust whoever made it."),
            "prune": Verb(
                "prune_snapshots:prune_snapshots",
                "Delete checkpoints of VMs that are gone, or snapshots by age or number.",
            ),
        },
    ),
    "image": Noun(
        "Root file systems that VMs boot from.",
        {
            "pull": Verb("image:pull", "Fetch an image from a registry or the catalog."),
            "register": Verb("image:register", "Use an existing ext4 file as an image, in place."),
            "promote": Verb("image:promote", "Copy registered images into banger's own store."),
            "commit": Verb("image:commit", "Create an image from a stopped VM's disk."),
            "list": Verb("listing:list_images", "List images."),
            "show": Verb("show:show_images", "Show details of images."),
            "tag": Verb("image:tag", "Add a name to an image."),
            "lint": Verb("lint:lint", "Check an image for problems before booting it."),
            "export": Verb("outgoing:export_image", "Export an image to a file, for banger or for other tools."),
            "push": Verb("outgoing:push_image", "Upload an image to a registry."),
            "delete": Verb("image:delete", "Delete images that no VM uses."),
            "prune": Verb("prune:prune_images", "Delete images and downloads that are no longer needed."),
        },
    ),
    "kernel": Noun(
        "Kernels that VMs boot.",
        {
            "pull": Verb("kernel:pull", "Fetch kernels from the catalog, a registry, a URL or the distribution."),
            "import": Verb("kernel:import_", "Import a kernel from local files."),
            "push": Verb("outgoing:push_kernel", "Upload a kernel to a registry."),
            "list": Verb("listing:list_kernels", "List kernels."),
            "show": Verb("show:show_kernels", "Show details of kernels."),
            "delete": Verb("kernel:delete", "Delete kernels that no VM uses."),
            "prune": Verb("prune:prune_kernels", "Delete kernels that are no longer needed."),
        },
    ),
    "home": Noun(
        "Home disks, which can outlive their VMs.",
        {
            "list": Verb("listing:list_homes", "List home disks."),
            "delete": Verb("home:delete", "Delete home disks that no VM uses."),
        },
    ),
    "driver": Noun(
        "The VMMs that run VMs.",
        {
            "install": Verb("driver:install", "Download a VMM, verified against a known checksum, and install it."),
            "list": Verb("driver:list_drivers", "List the VMMs on this host."),
            "remove": Verb("driver:remove", "Remove a VMM that was installed, and that no VM runs on."),
        },
    ),
    "catalog": Noun(
        "Images and kernels that can be pulled by a short name.",
        {
            "list": Verb("listing:list_catalog", "List the images and kernels in the catalog."),
            "refresh": Verb("catalog:refresh", "Fetch a catalog, verified against a pinned digest."),
        },
    ),
    "daemon": Noun(
        "The background process that manages VMs.",
        {
            "run": Verb("daemon:run", "Run the daemon in the foreground."),
            "start": Verb("daemon:start", "Start the daemon in the background."),
            "stop": Verb("daemon:stop", "Stop the daemon; VMs keep running."),
            "status": Verb("daemon:status", "Show the status of the daemon."),
            "install": Verb("service:install", "Install the daemon as a systemd service."),
            "uninstall": Verb("service:uninstall", "Remove the daemon's systemd service."),
            "logs": Verb("daemon:logs", "Show the daemon's log."),
        },
        target="daemon:daemon",
    ),
    "op": Noun(
        "Long-running operations, current and past.",
        {
            "list": Verb("listing:list_operations", "List operations."),
            "show": Verb("show:show_operation", "Show an operation and its steps."),
            "follow": Verb("op:follow", "Follow an operation until it finishes."),
            "cancel": Verb("op:cancel", "Cancel operations."),
        },
    ),
    "system": Noun(
        "Repair, disk usage and cleanup of the installation.",
        {
            "reconcile": Verb("system:reconcile", "Compare banger's records with the host and repair differences."),
            "df": Verb("system:df", "Show disk usage."),
            "prune": Verb(
                "prune:prune_system", "Delete images, kernels, templates and downloads that are no longer needed."
            ),
        },
    ),
    "config": Noun(
        "Settings and where they come from.",
        {
            "show": Verb("config:show", "Print every setting, its value and its origin."),
            "path": Verb("config:path", "Print the paths of this installation."),
        },
    ),
    "ssh-config": Verb("ssh_config:ssh_config", "Print or install the OpenSSH configuration for `ssh NAME.vm`."),
    "doctor": Verb("doctor:doctor", "Check whether this host can run VMs, and what to do if not."),
    "completion": Verb("completion:completion", "Print a shell completion script."),
    "version": Verb("system:version", "Print the version."),
    "inspect": Verb("show:inspect", "Show all that is known about VMs, images or kernels.", hidden=True),
    "ssh-proxy": Verb(
        "ssh_proxy:ssh_proxy", "Connect to a VM for ssh, as its ProxyCommand with ProxyUseFdpass.", hidden=True
    ),
    "__complete": Verb("completion:complete", "Print completions of a command line.", hidden=True),
}


#: Nouns with their verbs, and what stands alone, for the hints.
COMMANDS = {name: tuple(entry.verbs) if isinstance(entry, Noun) else () for name, entry in TREE.items()}


def _common_options() -> list[TyperOption]:
    """The flags that every command takes, in any place before ``--``."""

    def remember(ctx: Any, param: Any, value: bool) -> bool:
        if value:
            setattr(ctx.obj, param.name, True)
        return value

    return [
        TyperOption(param_decls=declarations, is_flag=True, expose_value=False, callback=remember, help=text)
        for declarations, text in (
            (["--json"], "Print JSON."),
            (["--quiet", "-q"], "Print IDs only; no progress."),
            (["--debug"], "Show tracebacks of errors."),
        )
    ]


def load_verb(name: str, verb: Verb) -> TyperCommand:
    """Import a verb's function and make it a command."""
    module_name, _, function_name = verb.target.partition(":")
    function = getattr(import_module(f"banger.commands.{module_name}"), function_name)
    app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False)
    app.command(name, cls=getattr(function, "command_class", None), hidden=verb.hidden)(function)
    command = get_command(app)
    assert isinstance(command, TyperCommand)
    command.params += _common_options()
    return command


def load_noun(name: str, noun: Noun) -> LazyGroup:
    """Make the group of a noun, importing none of its verbs."""
    app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False)
    if noun.target:
        module_name, _, function_name = noun.target.partition(":")
        function = getattr(import_module(f"banger.commands.{module_name}"), function_name)
        app.callback(cls=LazyGroup, invoke_without_command=True, help=noun.summary)(function)
    else:
        app.callback(cls=LazyGroup, help=noun.summary)(_no_options)
    group = get_command(app)
    assert isinstance(group, LazyGroup)
    group.name, group.tree = name, noun.verbs
    group.params += _common_options()
    return group


def _no_options() -> None:
    """Stand in for the options of a noun that has none."""


class LazyGroup(TyperGroup):
    """A group whose members are imported when they are used; help is made from their summaries alone."""

    tree: Mapping[str, Verb | Noun] = {}

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002  # the base class decides the signature
        """Every member, hidden ones too."""
        return list(self.tree)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002  # the base class decides the signature
        """Load a member, by its name or another word for it; ``None`` if there is none."""
        entry = member(self.tree, cmd_name)
        if entry is None:
            return None
        return load_noun(cmd_name, entry) if isinstance(entry, Noun) else load_verb(cmd_name, entry)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the group's own options; typed with nothing behind it, it shows its help."""
        return super().parse_args(ctx, args or ["--help"])

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002  # the base class decides it
        """Write the members' summaries without loading them."""
        rows = [
            (name, entry.summary)
            for name, entry in self.tree.items()
            if isinstance(entry, Noun) or not entry.hidden
        ]  # fmt: skip
        with formatter.section("Commands"):
            formatter.write_dl(rows)
        targets: dict[str, list[str]] = {}
        for alias, target in aliases(self.tree).items():
            targets.setdefault(target, []).append(alias)
        words = [(", ".join(names), target) for target, names in targets.items()]
        if self.tree is TREE:
            words.append(("inspect", "vm show, image show or kernel show"))
        if words:
            with formatter.section("Aliases"):
                formatter.write_dl(words)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the member that is meant; an unknown one is answered with the command that probably is."""
        if args[0].startswith("-"):
            return super().resolve_command(ctx, args)
        typed_words = list(ctx.find_root().obj.arguments)
        words = typed_words[-len(args) :] if ctx.parent is None else [ctx.info_name, *args]
        swapped = swapped_words(words, COMMANDS) if ctx.parent is None and args[0] not in self.tree else None
        if member(self.tree, args[0]) is not None and not swapped:
            return super().resolve_command(ctx, args)
        raise _unknown_word(ctx.command_path, args[0], swapped or meant_command(words, COMMANDS))


def _unknown_word(place: str, word: str, meant: list[str] | None) -> BangerError:
    cause, hint = (
        ELSEWHERE.get(word, ("", f"{place} --help")) if meant is None or word in ELSEWHERE else ("", typed(meant))
    )
    return BangerError(ErrorKind.USAGE, f'{place} has no command "{word}"', subject=word, cause=cause, hint=hint)


def member(tree: Mapping[str, Verb | Noun], word: str) -> Verb | Noun | None:
    """The member of a group that a word means: by its name, or by another word for it that works."""
    if word in tree:
        return tree[word]
    path = aliases(tree).get(word, "").split()
    found: Verb | Noun | None = None
    for part in path:
        found = (found.verbs if isinstance(found, Noun) else tree)[part]
    return found


def aliases(tree: Mapping[str, Verb | Noun]) -> dict[str, str]:
    """Other words for the members of a group (or, at the top, of a noun): the words that they stand for."""
    words = {**vocabulary.COMMANDS, **vocabulary.NOUNS} if tree is TREE else vocabulary.VERBS
    here = COMMANDS if tree is TREE else dict.fromkeys(tree, ())
    return {alias: path for alias, path in words.items() if alias not in tree and exists(path, here)}


def _show_version(value: bool) -> None:
    if value:
        from banger import __version__

        sys.stdout.write(f"banger {__version__}\n")
        raise typer.Exit


def _banger(
    version: Annotated[
        bool, typer.Option("--version", "-v", is_eager=True, callback=_show_version, help="Print the version.")
    ] = False,
) -> None:
    """Disposable Linux machines on your own host."""


def root() -> LazyGroup:
    """The ``banger`` command."""
    app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False)

    app.callback(cls=LazyGroup, context_settings={"help_option_names": ["--help", "-h"]})(_banger)
    group = get_command(app)
    assert isinstance(group, LazyGroup)
    group.tree = TREE
    group.params += _common_options()
    return group


def run(arguments: list[str], session: CliSession) -> int:
    """Parse and run one command line; the exit code.

    Raises:
        BangerError: also for what is wrong with the command line (``usage``).
    """
    if arguments[:1] == ["help"]:
        arguments = [*arguments[1:], "--help"]
    session.arguments = tuple(arguments)
    group = root()
    try:
        with group.make_context("banger", arguments, obj=session) as context:
            code = group.invoke(context)
    except typer.Exit as done:
        return done.exit_code
    except TyperException as error:
        raise _usage_error(error, arguments) from None
    return code if isinstance(code, int) else 0


def _usage_error(error: TyperException, arguments: Sequence[str]) -> BangerError:
    """The parser's complaint in our own form, with the command that was probably meant."""
    context = getattr(error, "ctx", None)
    message = error.format_message().replace("'", '"').rstrip(".")
    hint, cause = f"{context.command_path} --help" if context else "banger --help", ""
    if option := getattr(error, "option_name", ""):
        from banger.commands.foreign_options import what_to_type, without_value

        meant = without_value(arguments, option) if "does not take a value" in message else None
        if message.startswith("No such option") and context is not None:
            message = f"no such option: {option}"
            known = [name for param in context.command.params for name in (*param.opts, *param.secondary_opts)]
            cause, meant = what_to_type(arguments, str(context.info_name), option, known)
        hint = typed(meant) if meant else hint
    elif "unexpected extra argument" in message and "create" in arguments[:2]:
        behind = list(arguments[arguments.index("create") + 1 :])
        cause, hint = "a VM that is only made runs nothing", typed(["run", "-d", *behind])
    return BangerError(ErrorKind.USAGE, message[:1].lower() + message[1:], cause=cause, hint=hint)
