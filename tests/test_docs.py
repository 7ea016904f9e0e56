"""The documentation says what is so: examples run, commands parse, names exist, tables are those of the code."""

from __future__ import annotations

import doctest
import importlib
import importlib.util
import inspect
import pkgutil
import re
import shlex
import types
from pathlib import Path
from typing import NamedTuple

import pytest

import tal_postproc
from tal_postproc import cli, config, diagnosis, distributed, evaluation, formats, plotting, presets, synthetic, tuning

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [
    *sorted(DOCS.glob("*.md")),
    *sorted((DOCS / "howto").glob("*.md")),
    *sorted((DOCS / "tutorials").glob("*.md")),
    ROOT / "README.md",
]
EXECUTED_COMMANDS = {
    "detect_and_evaluate.md",
    "large_data.md",
    "pictures.md",
    "pseudo_labels.md",
    "report.md",
}  # they run on the file of the first block
OPTIONS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS

ROOMS = (config, diagnosis, distributed, evaluation, formats, plotting, presets, synthetic, tuning)
MODULES = [
    "tal_postproc",
    *(module.name for module in pkgutil.walk_packages(tal_postproc.__path__, "tal_postproc.")),
]


# ------------------------------------------------------------------ examples in docstrings
@pytest.mark.parametrize("name", MODULES)
def test_examples_of_docstrings(name):
    if name.startswith(("tal_postproc.torch", "tal_postproc.examples.", "tal_postproc.compat.")):
        pytest.importorskip("torch")
    if name.endswith("._triton"):
        pytest.importorskip("triton")
    module = importlib.import_module(name)
    if ".plotting" in name:
        pytest.importorskip("matplotlib")
    if name.endswith(".distributed"):
        pytest.importorskip("pyarrow")
    result = doctest.testmod(module, optionflags=OPTIONS)
    assert result.failed == 0


# ------------------------------------------------------------------ examples on pages
class Block(NamedTuple):
    """A fenced block of a page; `line` is the line of its first line of content."""

    language: str
    text: str
    line: int


def blocks_of(page: Path) -> list[Block]:
    found, opened = [], None
    lines = page.read_text(encoding="utf-8").split("\n")
    for number, line in enumerate(lines):
        fence = re.match(r"```\s*(.*)", line)
        if fence and opened is None:
            opened = number, fence[1]
        elif fence and opened is not None:
            start, language = opened
            found.append(Block(language, "\n".join(lines[start + 1 : number]) + "\n", start + 2))
            opened = None
    assert opened is None, f"{page}: the fence in line {opened} is not closed"
    return found


def commands_of(block: Block) -> list[list[str]]:
    """Arguments of every call of tal-postproc in a console block."""
    if block.language != "console":
        return []
    text = block.text.replace("\\\n", " ")
    parts = [part for line in text.splitlines() for part in re.split(r"&&|\||;", line)]
    words = [shlex.split(part, comments=True) for part in parts]
    return [list(line[1:]) for line in words if line[:1] == ["tal-postproc"]]


def run_python(block: Block, namespace: dict[str, object], page: Path) -> None:
    if ">>>" in block.text:
        test = doctest.DocTestParser().get_doctest(block.text, namespace, page.name, str(page), block.line - 1)
        output: list[str] = []
        doctest.DocTestRunner(optionflags=OPTIONS).run(test, out=output.append, clear_globs=False)
        assert not output, "".join(output)
        namespace.update(test.globs)
    else:
        exec(compile("\n" * (block.line - 1) + block.text, str(page), "exec"), namespace)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_examples_of_pages(page, tmp_path, monkeypatch, capsys):
    if not page.exists():
        pytest.skip(f"{page.name} is not here")
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "__main__"}
    printed = None
    for block in blocks_of(page):
        if block.language == "python":
            if "plotting" in block.text:
                pytest.importorskip("matplotlib")
            if "pyarrow" in block.text:
                pytest.importorskip("pyarrow")
            if "torch" in block.text:
                pytest.importorskip("torch")
            run_python(block, namespace, page)
            capsys.readouterr()
        elif page.name in EXECUTED_COMMANDS and commands_of(block):
            for arguments in commands_of(block):
                assert cli.main(arguments) == 0, arguments
            printed = capsys.readouterr().out
        elif block.language == "text" and printed is not None:
            assert doctest.OutputChecker().check_output(block.text, printed, OPTIONS), printed


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_of_pages_are_understood(page):
    if not page.exists():
        pytest.skip(f"{page.name} is not here")
    for block in blocks_of(page):
        for arguments in commands_of(block):
            args = cli._parser().parse_args(arguments)
            preset = getattr(args, "preset", None) or (
                getattr(args, "name", None) if args.command == "presets" else None
            )
            if preset is not None and not preset.endswith(".json"):
                presets.get(preset)
            protocol = getattr(args, "protocol", "all")
            assert protocol == "all" or protocol in evaluation.PROTOCOLS, arguments


def test_the_page_tests_can_fail(tmp_path):
    """A wrong example, a wrong option and an open fence are seen."""
    page = tmp_path / "page.md"
    page.write_text("```python\n>>> 1 + 1\n3\n```\n\n```console\npip install x && tal-postproc demo --vidoes 3\n```\n")
    example, command = blocks_of(page)
    with pytest.raises(AssertionError, match="Expected"):
        run_python(example, {}, page)
    with pytest.raises(SystemExit):
        cli._parser().parse_args(commands_of(command)[0])
    page.write_text("```python\n1\n")
    with pytest.raises(AssertionError, match="not closed"):
        blocks_of(page)


# ------------------------------------------------------------------ docstrings
def public_names() -> list[str]:
    """``nms``, ``formats.read_tcams``, ...: the public list, and that of every public module."""
    own = [name for name in tal_postproc.__all__ if not isinstance(getattr(tal_postproc, name), types.ModuleType)]
    listed = [f"{room.__name__.rpartition('.')[2]}.{name}" for room in ROOMS for name in room.__all__]
    return own + [name for name in listed if name.rpartition(".")[2] not in own]


def find(name: str) -> object:
    """The object of a dotted name below the package."""
    thing: object = tal_postproc
    for part in name.split("."):
        thing = getattr(thing, part)
    return thing


def has_section(text: str, section: str) -> bool:
    return re.search(rf"^{section}\n-+$", text, re.MULTILINE) is not None


@pytest.mark.parametrize("name", [name for name in public_names() if callable(find(name))])
def test_docstrings_have_what_they_need(name):
    thing = find(name)
    text = inspect.getdoc(thing) or ""
    summary = text.split("\n\n")[0]
    assert summary.endswith((".", ":")), f"{name}: no summary"
    example = ">>>" in text
    if inspect.isclass(thing):
        return
    if "." not in name:
        assert example, f"{name}: no example"
    signature = inspect.signature(thing)
    if not signature.parameters or (example and len(text.splitlines()) <= 12):  # a small function, a small docstring
        return
    for parameter in signature.parameters:
        assert re.search(rf"\b{parameter}\b", text), f"{name}: {parameter!r} is not described"
    assert has_section(text, "Parameters"), name
    assert has_section(text, "Returns") or signature.return_annotation in (None, "None"), name


# ------------------------------------------------------------------ pages against the code
def test_api_pages_show_every_public_name():
    text = "".join(page.read_text(encoding="utf-8") for page in (DOCS / "api").glob("*.md"))
    shown = set(re.findall(r"auto(?:function|class|exception|data|module):: tal_postproc\.([\w.]+)", text))
    for module, members in re.findall(r"automodule:: tal_postproc\.(\w+)\n((?: +:.*\n)+)", text):
        listed = re.search(r":members:(.*)", members)
        assert listed, f"automodule {module} shows no members"
        names = listed[1].replace(",", " ").split() or importlib.import_module(f"tal_postproc.{module}").__all__
        shown |= {f"{module}.{name}" for name in names}
    shown |= {name for name in tal_postproc.__all__ if any(one.startswith(f"{name}.") for one in shown)}
    missing = [name for name in {*public_names(), *tal_postproc.__all__} if name not in shown]
    assert not missing
    for name in shown:
        if name.startswith("torch.") and importlib.util.find_spec("torch") is None:
            continue
        find(name) if "." not in name else importlib.import_module(f"tal_postproc.{name.split('.')[0]}")


def test_tests_and_functions_named_in_theory_exist():
    text = (DOCS / "theory.md").read_text(encoding="utf-8")
    named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", text)
    assert len(named) > 15
    for file, test in named:
        assert re.search(rf"^def {test}\(", (ROOT / "tests" / file).read_text(encoding="utf-8"), re.MULTILINE), test
    tables = [line for line in text.splitlines() if line.startswith("|")]
    rows = [line.split(" | ") for line in tables if "::test_" in line or line.endswith("| the same |")]
    for *_, functions, _ in rows:
        for function in re.findall(r"`([a-z_]\w*(?:\.\w+)?)[`(]", functions):
            assert function in presets.aliases() or callable(find(function)), function


def test_the_table_of_presets_is_that_of_the_code():
    spec = importlib.util.spec_from_file_location("preset_table", DOCS / "preset_table.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made = module.table()
    assert made in (DOCS / "presets.md").read_text(encoding="utf-8"), "run: python docs/preset_table.py"
    assert all(f"`{name}`" in made for name in presets.names())


def test_links_between_pages_lead_somewhere():
    for page in [*PAGES, *(DOCS / "api").glob("*.md")]:
        if page.exists():
            for target in re.findall(r"\]\(([^)#:\s]+)(?:#[\w-]+)?\)", page.read_text(encoding="utf-8")):
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_changelog_knows_this_version():
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert newest is not None
    assert newest[1] == tal_postproc.__version__
