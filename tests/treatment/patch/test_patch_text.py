"""Diffs that git takes, on every kind of text; and sources in odd formattings."""

from __future__ import annotations

import difflib
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from patching import RELU_HE, git_apply, of, patch_text, text_of

from unvanish.treatment.patch.rehearsal import losses_patched
from unvanish.treatment.patch.text import PatchError, decode, diff

LINES = st.lists(
    st.sampled_from(["a", "b", "", "  x = 1", "\ttab", "# é ü", "\x0c", "end ", "\u2028 no line"]),
    max_size=12,
)
ENDINGS = st.sampled_from(["\n", "\r\n"])


@settings(max_examples=30, deadline=None)
@given(old=LINES, new=LINES, ending=ENDINGS, last=st.booleans(), other=st.booleans())
def test_git_makes_the_new_text_of_the_old_one_by_any_diff(
    old: list[str], new: list[str], ending: str, last: bool, other: bool
) -> None:
    before = ending.join(old) + (ending if last else "")
    after = ending.join(new) + (ending if other else "")
    if not before or not after or before == after:
        return
    files = {"dir/a file.py": before.encode()}
    with tempfile.TemporaryDirectory() as folder:
        made = diff(files, {"dir/a file.py": after.encode()})
        assert git_apply(Path(folder), made, files) == {"dir/a file.py": after.encode()}


@pytest.mark.parametrize("path", ["a b.py", "ä.py", 'quo"te.py', "tab\there.py", "deep/er/x.py"])
def test_git_finds_the_file_whatever_its_name(path: str, tmp_path: Path) -> None:
    files = {path: b"x = 1\ny = 2"}
    made = diff(files, {path: b"x = 1\ny = 3\n"})
    assert git_apply(tmp_path, made, files) == {path: b"x = 1\ny = 3\n"}


@pytest.mark.parametrize(
    "raw",
    [
        b"\xef\xbb\xbfx = '\xc3\xa9'\n",
        "# coding: latin-1\nx = 'é'\n".encode("latin-1"),
        b"x = 1\r\ny = 2",
        b"",
    ],
)
def test_every_encoding_comes_back_byte_by_byte(raw: bytes) -> None:
    text = decode("x.py", raw)
    assert text.encoded(text.text) == raw


@pytest.mark.parametrize("raw", [b"\xff\xfe\x00", b"# coding: none-such\n", b"# coding: ascii\n'\xc3\xa9'\n"])
def test_what_is_no_text_is_refused(raw: bytes) -> None:
    with pytest.raises(PatchError) as caught:
        decode("x.py", raw)
    assert caught.value.place == "x.py:1"


# --- formattings ------------------------------------------------------------------------------------------------

HEADS = {
    "nn": "import torch\nfrom torch import nn\n",
    "as": "import torch, torch.nn as nn\n",
    "bare": "import torch\nfrom torch.nn import (\n    Linear,\n    Module, Sequential,\n    Sigmoid\n)\nimport torch.nn\n",
    "doc": '"""A docstring."""\n\nfrom __future__ import annotations\n\nimport torch\nimport torch.nn as N\n',
}
BODIES = {
    "one line": "model = {nn}Sequential({nn}Linear(4, 6), {nn}Sigmoid(), {nn}Linear(6, 6), {nn}Sigmoid(), {nn}Linear(6, 2))",
    "a line each": "model = {nn}Sequential(\n    {nn}Linear(4, 6),{c}\n    {nn}Sigmoid(),\n\n    {nn}Linear(6, 6),\n    {nn}Sigmoid(),{c}\n    {nn}Linear(6, 2){t}\n)",
    "hanging": "model = {nn}Sequential({nn}Linear(4, 6), {nn}Sigmoid(),\n                      {nn}Linear( 6,6 ) , ({nn}Sigmoid()) ,{c}\n                      {nn}Linear(6, 2){t})",
    "loop": "parts = [{nn}Linear(4, 6), {nn}Sigmoid()]\nfor _ in range(2):\n    parts += [{nn}Linear(6, 6), {nn}Sigmoid()]{c}\nmodel = {nn}Sequential(*parts, {nn}Linear(6, 2))",
    "class": "class Net({nn}Module):\n    def __init__(self):\n        super().__init__()\n        self.a = {nn}Linear(4, 6){c}\n        self.b = {nn}Linear(6, 6)\n        self.c = {nn}Linear(6, 2)\n        self.act = {nn}Sigmoid()\n\n    def forward(self, x):\n        x = self.act(self.a(x)){c}\n        return self.c(  self.act( self.b(x) )  )\nmodel = Net()",
    "functional": "class Net({nn}Module):\n    def __init__(self):\n        super().__init__()\n        self.a, self.b = {nn}Linear(4, 6), {nn}Linear(6, 6)\n        self.c = {nn}Linear(6, 2)\n    def forward(self, x):\n        x = torch.sigmoid(  self.a(x)){c}\n        x = (self\n             .b(x)\n             .sigmoid())\n        return self.c(x)\nmodel = Net()",
}
TAIL = """
opt = torch.optim.SGD(model.parameters(), lr = 0.1){c}
for step in range(9):
    x = torch.randn(8, 4)
    loss = torch.nn.functional.cross_entropy(model(x), (x[:, 0] > 0).long())
    opt.zero_grad(); loss.backward(){c}
    opt.step()"""
PLANS = {
    "relu_he": RELU_HE,
    "norm_rate": of("batchnorm") + of("learning_rate", factor=0.5),
    "skip": of("residual") + of("clip", norm=1.0),
}


@st.composite
def sources(draw: st.DrawFn) -> bytes:
    head = draw(st.sampled_from(sorted(HEADS)))
    body = BODIES[draw(st.sampled_from(sorted(BODIES)))]
    text = HEADS[head] + draw(st.sampled_from(["", "\n", "\n\n# a comment\n\n"])) + body + TAIL
    text = text.replace("{c}", draw(st.sampled_from(["", "  # note", " # ):,(é"])))
    text = text.replace("{t}", draw(st.sampled_from(["", ","])))
    text = text.replace("{nn}", {"bare": "", "doc": "N."}.get(head, "nn."))
    text = text.replace("    ", draw(st.sampled_from(["    ", "\t", "  "])))
    text += draw(st.sampled_from(["", "\n", "\n\n", "\n# the end"]))
    text = text.replace("\n", draw(ENDINGS))
    mark = draw(st.sampled_from([b"", b"\xef\xbb\xbf"]))
    return mark + text.encode()


@settings(max_examples=25, deadline=None)
@given(raw=sources(), plan=st.sampled_from(sorted(PLANS)))
def test_only_what_must_change_changes_in_every_formatting(raw: bytes, plan: str) -> None:
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        patch = patch_text(folder, raw, PLANS[plan])
        assert patch.why_not is None, (patch.why_not, raw.decode())
        (new,) = patch.files.values()
        assert git_apply(folder / "git", patch.diff, {"script.py": raw}) == {"script.py": new}
        old_lines, new_lines = raw.split(b"\n"), new.split(b"\n")
        match = difflib.SequenceMatcher(None, old_lines, new_lines, autojunk=False)
        touched = [
            old_lines[i] for tag, a, b, _, _ in match.get_opcodes() if tag != "equal" for i in range(a, b)
        ]
        allowed = (
            b"Linear",
            b"Sigmoid",
            b"sigmoid",
            b"self.b",
            b"self\r",
            b"self",
            b"lr = ",
            b"step()",
            b"import",
            b")",
            b"",
        )
        assert all(any(word and word in line for word in allowed) or not line.strip() for line in touched)
        ending = b"\r\n" if b"\r\n" in raw else b"\n"
        assert new.count(b"\n") == new.count(ending)
        losses = losses_patched(folder / "script.py", folder, patch.files, steps=3)
        assert len(losses) == 3


def test_tabs_and_windows_lines_are_kept_where_something_is_inserted(tmp_path: Path) -> None:
    text = HEADS["nn"] + BODIES["class"].replace("{nn}", "nn.").replace("{c}", "") + TAIL.replace("{c}", "")
    raw = text.replace("    ", "\t").replace("\n", "\r\n").encode()
    new = text_of(patch_text(tmp_path, raw, of("batchnorm") + of("init", scheme="xavier")))
    assert "\t\tself.a = nn.Linear(4, 6)\r\n\t\tself.a_norm = nn.BatchNorm1d(6)\r\n" in new
    assert "\r\n\tgenerator = torch.Generator()" in new
    assert "\n" not in new.replace("\r\n", "")
