"""Words and options of other tools: they work, or the answer is the whole command that was probably meant."""

from __future__ import annotations

import shlex
from typing import Any

import pytest

from banger.cli import COMMANDS, TREE, aliases, member
from banger.commands import vocabulary
from banger.commands.hints import exists, meant_command
from tests.support.cli import Cli
from tests.support.fake_api import FakeApi, image_json, kernel_json, vm_json

pytest_plugins = ("tests.support.cli_fixtures",)


@pytest.fixture
def daemon(api: FakeApi) -> FakeApi:
    api.on("GET", "/v1/vms", [vm_json()])
    api.on("GET", "/v1/vms/web", vm_json())
    api.on("GET", "/v1/images", [image_json()])
    api.on("GET", "/v1/images/debian", image_json())
    api.on("GET", "/v1/kernels", [kernel_json()])
    api.on("GET", "/v1/kernels/debian-cloud", kernel_json())
    for action in ("stop", "start", "kill", "restart"):
        api.long("POST", f"/v1/vms/web/{action}", vm_json())
    api.long("DELETE", "/v1/vms/web", {"id": "0a1b2c3d4e5f", "name": "web"})
    api.long("DELETE", "/v1/images/debian", {"id": "aaaaaaaaaaaa", "name": "debian"})
    api.long("POST", "/v1/images/pull", image_json())
    api.on("GET", "/v1/vms/web/logs", data=b"console\n")
    return api


@pytest.mark.parametrize(
    ("typed", "ours"),
    [
        ("ls", "vm list"), ("list -q", "vm list -q"), ("ps -a", "vm list"), ("ps -aq", "vm list -q"),
        ("vm ls", "vm list"), ("vm ps --all", "vm list"), ("container ls -a", "vm list"),
        ("vm inspect web", "vm show web"), ("inspect web", "vm show web"), ("show web", "vm show web"),
        ("vm info web --json", "vm show web --json"), ("stop web", "vm stop web"), ("stop -t 5 web", "vm stop --timeout 5 web"),
        ("start web", "vm start web"), ("kill web", "vm kill web"), ("rm -f web", "vm delete --force web"),
        ("delete web", "vm delete web"), ("vm rm web", "vm delete web"), ("logs web", "vm logs web"),
        ("logs --tail 3 web", "vm logs -n 3 web"), ("images", "image list"), ("images -a", "image list"),
        ("image ls", "image list"), ("image rm debian", "image delete debian"), ("rmi debian", "image delete debian"),
        ("image inspect debian", "image show debian"), ("pull debian", "image pull debian"), ("kernel ls", "kernel list"),
        ("kernels", "kernel list"), ("help vm stop", "vm stop --help"), ("help", "--help"), ("-v", "--version"), ("restart web", "vm restart web"),
    ],
)  # fmt: skip
def test_words_of_other_tools_do_what_ours_do(daemon: FakeApi, cli: Cli, typed: str, ours: str) -> None:
    def done(line: str) -> tuple[Any, ...]:
        daemon.calls.clear()
        ended = cli(*line.split())
        out = ended.out.replace("banger " + " ".join(line.split()[:2]), "")
        return (
            ended.code,
            out if "--help" not in ours else "",
            ended.err,
            [(c.method, c.path, c.query) for c in daemon.calls],
        )

    ended = done(typed)
    assert ended[0] == 0
    assert ended == done(ours)


def test_inspect_finds_whatever_has_the_name(daemon: FakeApi, cli: Cli) -> None:
    assert cli("inspect", "debian", "--json").json == image_json()
    assert [item["name"] for item in cli("inspect", "web", "debian-cloud", "--json").json] == ["web", "debian-cloud"]
    ended = cli("inspect", "nope")
    assert (ended.code, ended.err) == (3, 'error: no route "GET /v1/vms/nope"\n')


def test_aliases_stand_apart_in_the_help(cli: Cli) -> None:
    commands, _, others = cli("--help").out.partition("\nAliases:\n")
    assert "\n  exec" not in commands
    for line in ("  exec, shell          vm exec\n", "  images               image list\n", "  inspect "):
        assert line in others
    assert "  ls, ps         list\n" in cli("vm", "--help").out


def test_every_other_word_leads_to_a_command_there_is() -> None:
    for word in [*vocabulary.INSTEAD, *vocabulary.NOUNS, *vocabulary.COMMANDS]:
        if word in aliases(TREE):
            continue
        meant = meant_command([*word.split(), "list"], COMMANDS)
        assert meant is not None, word
        assert exists(" ".join(meant[:2]), COMMANDS), (word, meant)
        assert len(meant) > 1, (word, meant)
    for word in aliases(TREE):
        assert member(TREE, word) is not None, word


@pytest.mark.parametrize(
    ("typed", "hint"),
    [
        ("vm lst", "vm list"), ("vm xec web -- ls -l", "vm exec web -- ls -l"), ("imag", "image list"),
        ("imag lst --json", "image list --json"), ("Run debian", "run debian"), ("rn -d debian", "run -d debian"),
        ("stpo web", "vm stop web"), ("deamon strt", "daemon start"), ("doktor", "doctor"), ("ssh-confg", "ssh-config"),
        ("vm pull alpine", "image pull alpine"), ("image exec web ls", "vm exec web ls"), ("grow web --disk 4G", "vm grow web --disk 4G"),
        ("delete image debian", "image delete debian"), ("list vms", "vm list"), ("images list", "image list"),
        ("start daemon", "daemon start"), ("get vms", "vm list"), ("describe vm web", "vm show web"),
        ("launch debian --name x", "run -d debian --name x"), ("vm launch debian", "run -d debian"), ("up web", "vm start web"),
        ("destroy web", "vm delete web"), ("image destroy debian", "image delete debian"), ("halt", "vm stop NAME"),
        ("sandbox kill web", "vm kill web"), ("machine start default", "vm start default"), ("transfer a web:/b", "vm cp a web:/b"),
        ("op stop 0p", "op cancel 0p"), ("kernel add x", "kernel import x"), ("config set", "config path"),
        ("login", "docker login HOST"), ("alpine:3 ls -l", "run alpine:3 ls -l"),
        ("top web", "exec NAME top"), ("create --name x debian sleep 5", "run -d --name x debian sleep 5"), ("qqqq", "banger --help"), ("vm qqqq", "banger vm --help"),
        ("vm list --jsno", "vm list --json"), ("run --memroy=2G debian", "run --memory=2G debian"),
        ("run --net none debian", "run --network none debian"), ("run -name web debian", "run --name web debian"),
        ("run -v ./src:/w:ro debian", "vm cp ./src NAME:/w"), ("run --name web --volume=/a:/w debian", "vm cp /a web:/w"),
        ("run --mount type=bind,src=./x,dst=/y debian", "vm cp ./x NAME:/y"), ("run -itv .:/w debian", "vm cp . NAME:/w"),
        ("create -v data:/var/lib debian", "create debian"),
        ("run --cap-add NET_ADMIN --rm debian bash", "run --rm debian bash"), ("run --gpus=all debian", "run debian"),
        ("run --ulimit nofile=9 debian", "run debian"), ("run -P debian", "run debian"),
        ("run --rm=true debian", "run --rm debian"), ("run --rm=false debian", "run debian"),
        ("run --platform linux/arm64 alpine", "image pull --platform linux/arm64 IMAGE"),
        ("ps --format json", "ps --json"), ("ps --format={{.Names}} -q", "ps -q"), ("ps --no-trunc", "ps"),
        ("ps --filter status=running -q", "ps --state running -q"), ("ps -f label=a=b", "ps --label a=b"),
        ("rm -fv web", "rm -f web"), ("start -ai web", "start web"), ("vm cp -r a web:/b", "vm cp a web:/b"),
        ("kill -s HUP web", "kill web"), ("run --name a_b debian -- true", "run --name a-b debian -- true"),
        ("run --name=Web debian", "run --name=web debian"), ("vm create --name 9.x debian", "vm create --name vm-9-x debian"),
        ("run -m 536870912 debian", "write 512M"), ("run --network bridge debian", "use user, tap, slirp, none"),
        ("run --init debian bash", "use auto, image, none"),
    ],
)  # fmt: skip
def test_wrong_word_is_answered_with_the_command_that_was_meant(api: FakeApi, cli: Cli, typed: str, hint: str) -> None:
    ended = cli(*typed.split(), "--json") if "--" not in typed.split() else cli("--json", *typed.split())
    assert ended.code == 2
    given = ended.json["error"]["hint"].replace(" --json", "")
    wanted = hint.replace(" --json", "")
    assert given in (f"banger {wanted}", wanted) or given.startswith(f"{wanted};")
    assert api.calls == []


def test_hint_quotes_what_a_shell_would_take_apart(cli: Cli) -> None:
    ended = cli("vm", "xec", "web", "--", "sh", "-c", "echo $HOME")
    assert ended.err.splitlines()[1] == "  hint: banger vm exec web -- sh -c 'echo $HOME'"
    assert shlex.split(ended.err.partition("hint: ")[2])[-1] == "echo $HOME"


def test_hint_stays_readable_however_much_was_typed(cli: Cli) -> None:
    ended = cli("vm", "xec", "web", "--", "sh", "-c", "x" * 5000)
    assert ended.err.splitlines()[1] == "  hint: banger vm exec --help"


def test_image_that_is_called_like_a_noun_can_be_run(api: FakeApi, cli: Cli) -> None:
    specs: list[str] = []

    def talk(session: Any) -> None:
        specs.append(session.config["spec"]["image"])
        session.exit(0)

    api.on("POST", "/v1/vms/run", talk=talk)
    assert (cli("run", "vm", "ls").code, cli("run", "daemon").code, specs) == (0, 0, ["vm", "daemon"])


def test_options_that_docker_has_are_taken(api: FakeApi, cli: Cli) -> None:
    configs: list[dict[str, Any]] = []

    def talk(session: Any) -> None:
        configs.append(session.config)
        session.exit(0)

    api.on("POST", "/v1/vms/run", talk=talk)
    line = (
        "run --rm -it --name web -p 8080:80 -e A=B -w /srv -u nobody -m 512m --cpus 2 --privileged --hostname h "
        "--entrypoint sh --pull missing --network none -l k=v debian -c id"
    )
    assert cli(*line.split()).code == 0
    config = configs[0]
    spec = config["spec"]
    assert (config["name"], config["exec"]["argv"], spec["entrypoint"]) == ("web", ["-c", "id"], ["sh"])
    assert (spec["memory_mib"], spec["cpus"], spec["network"], spec["hostname"]) == (512, 2, "none", "h")
    assert (spec["ephemeral"], spec["labels"], spec["user"], spec["workdir"]) == (True, {"k": "v"}, "nobody", "/srv")
    for size in ("512mb", "512MiB", "512M", "0.5g", "512"):
        assert cli("run", "--memory", size, "debian").code == 0
        assert configs[-1]["spec"]["memory_mib"] == 512
