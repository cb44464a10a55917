"""The table of settings in docs/cli.md, made from the settings themselves. Prints it; a test compares."""

from __future__ import annotations

from banger.config import KEYS


def rows() -> list[str]:
    """One Markdown table row per setting."""
    return [f"| `{key.name}` | {_default(key.default)} | {_meaning(key.help, key.choices)} |" for key in KEYS]


def _default(value: object) -> str:
    return f"`{value}`" if value != "" else ""


def _meaning(text: str, choices: tuple[str, ...]) -> str:
    return f"{text} ({', '.join(f'`{choice}`' for choice in choices)})" if len(choices) > 1 else text


if __name__ == "__main__":
    print("\n".join(rows()))
