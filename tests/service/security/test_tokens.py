from __future__ import annotations

import os

import pytest

from service.config import ConfigError
from service.security.tokens import LOOK_EVERY_S, TokenFile


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def path(tmp_path):
    return tmp_path / "tokens"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def tokens(path, clock) -> TokenFile:
    path.write_text("# who may\n\nalice:aaa.b-c_d~e+f/g==\n  plain  \n")
    return TokenFile("inference_tokens", path, clock=clock)


def test_a_token_has_the_name_of_its_line_or_its_place(tokens) -> None:
    assert tokens.name_of("aaa.b-c_d~e+f/g==") == "alice"
    assert tokens.name_of("plain") == "token 2"


@pytest.mark.parametrize("token", ["", "aaa", "alice", "alice:aaa.b-c_d~e+f/g==", "plain ", "Plain", "# who may", "ä"])
def test_what_is_no_token_is_nobodys(tokens, token) -> None:
    assert tokens.name_of(token) is None


def test_a_changed_file_is_read_again_within_a_second(tokens, path, clock) -> None:
    path.write_text("bob:new\n")
    assert tokens.name_of("plain") == "token 2"
    clock.now_s += LOOK_EVERY_S
    assert tokens.name_of("plain") is None
    assert tokens.name_of("new") == "bob"


def test_a_file_of_the_same_size_and_time_that_was_put_in_its_place_is_read_again(tokens, path, clock) -> None:
    before = path.stat()
    text = path.read_text().replace("plain", "other")
    new = path.with_name("new")
    new.write_text(text)
    os.utime(new, ns=(before.st_atime_ns, before.st_mtime_ns))
    new.replace(path)
    clock.now_s += LOOK_EVERY_S
    assert tokens.name_of("other") == "token 2"


def test_a_link_that_is_turned_is_followed(tmp_path, clock) -> None:
    # As Kubernetes rotates a mounted secret.
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "tokens").write_text(f"{name}\n")
    link, spare = tmp_path / "current", tmp_path / "spare"
    link.symlink_to(tmp_path / "one")
    tokens = TokenFile("control_tokens", link / "tokens", clock=clock)
    assert tokens.name_of("one") is not None
    spare.symlink_to(tmp_path / "two")
    spare.replace(link)
    clock.now_s += LOOK_EVERY_S
    assert (tokens.name_of("one"), tokens.name_of("two")) == (None, "token 1")


def test_what_cannot_be_read_again_leaves_the_tokens_and_is_said_once(tokens, path, clock, caplog) -> None:
    text = path.read_text()
    path.write_text("two words\n")
    for _ in range(3):
        clock.now_s += LOOK_EVERY_S
        assert tokens.name_of("plain") == "token 2"
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    path.unlink()
    clock.now_s += LOOK_EVERY_S
    assert tokens.name_of("plain") == "token 2"
    path.write_text(text + "more\n")
    clock.now_s += LOOK_EVERY_S
    assert tokens.name_of("more") == "token 3"


def test_an_emptied_file_lets_nobody_in(tokens, path, clock) -> None:
    path.write_text("# none\n")
    clock.now_s += LOOK_EVERY_S
    assert tokens.name_of("plain") is None


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "cannot be read: No such file"),
        (b"", "has no token; one a line is expected"),
        (b"# nothing\n", "has no token"),
        (b"good\nsecret word\n", "line 2: expected TOKEN or NAME:TOKEN"),
        (b"a:b:secret\n", "line 1: expected TOKEN"),
        ("sécret\n".encode(), "has characters that are not ASCII"),
        (b"#" * ((1 << 20) + 1), "has more than 1048576 bytes"),
    ],
)
def test_an_unusable_file_is_refused_at_the_start_and_never_quoted(path, content, says) -> None:
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError) as failure:
        TokenFile("inference_tokens", path)
    assert str(failure.value).startswith(f"inference_tokens: {str(path)!r} ")
    assert says in str(failure.value)
    assert "cret" not in repr(failure.value) + repr(failure.value.__cause__)


def test_tokens_are_kept_as_hashes(tokens) -> None:
    assert "aaa.b" not in repr(vars(tokens))
