"""Experiments from names, files and overrides; what is said when they are wrong."""

import math
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.case import case_id, read_toml, resolve, to_toml
from common.errors import InputError
from common.names import near


class Machine(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    gpu: str
    gpus: Annotated[int, msgspec.Meta(ge=1)] = 8
    memory: float = 80.0


class Training(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    steps: int
    rate: float | None = None


class Experiment(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: str
    layers: int = 10
    method: Literal["metis", "stratified"] = "metis"
    exact: bool = False
    limit: int | str = 1
    machines: tuple[Machine, ...] = ()
    by_host: dict[str, Machine] | None = {}
    shares: dict[int, float] = {}
    training: Training | None = None
    grid: tuple[tuple[int, ...], ...] = ()

    def __post_init__(self) -> None:
        if self.layers < 2:
            raise ValueError(f"layers is {self.layers}, give at least 2")


ROW1 = Experiment(name="row1", machines=(Machine(gpu="A100"), Machine(gpu="V100", gpus=4)))
NAMED = {"table1-row1": ROW1, "table1-row2": Experiment(name="row2", layers=20)}


def ask(text: str, tmp_path: Path, *overrides: str) -> Experiment:
    (tmp_path / "my.toml").write_text(text)
    return resolve(str(tmp_path / "my.toml"), NAMED, Experiment, overrides)


def complaint(*overrides: str, of: str = "table1-row1") -> str:
    with pytest.raises(InputError) as error:
        resolve(of, NAMED, Experiment, overrides)
    return str(error.value)


def test_a_name_gives_its_experiment():
    assert resolve("table1-row1", NAMED, Experiment) == ROW1


def test_a_path_gives_the_file(tmp_path: Path):
    found = ask('name = "own"\nlayers = 28\n[[machines]]\ngpu = "T4"\ngpus = 4\n', tmp_path)
    assert found == Experiment(name="own", layers=28, machines=(Machine(gpu="T4", gpus=4),))


def test_a_file_may_lack_its_suffix_and_begin_with_a_byte_order_mark(tmp_path: Path):
    path = tmp_path / "mine"
    path.write_bytes(b"\xef\xbb\xbfname = 'own'\n")
    assert resolve(str(path), NAMED, Experiment).name == "own"


def test_an_unknown_name_is_answered_with_close_ones():
    said = complaint(of="table1-row")
    assert "'table1-row' is neither an experiment nor a TOML file" in said
    assert "did you mean table1-row" in said


def test_a_beginning_is_answered_with_what_begins_so():
    assert near("multi", ["metis", "multilingual-8"]) == "; did you mean multilingual-8?"


def test_a_name_unlike_all_is_answered_with_all_or_of_many_with_the_nearest():
    assert complaint(of="zzz").endswith("; known: table1-row1, table1-row2")
    many = [f"row{i}" for i in range(40)]
    assert near("quux", many).startswith("; the nearest are row")
    assert near("quux", many).count("row") == 3


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("name = 'x'\nlayers =\n", ["line 2"]),
        ("name = 'x'\nname = 'y'\n", ["line 2"]),
        ("name = 'x\n", ["(at "]),
        ("", ["Object missing required field `name`"]),
        ("name = 'x'\nlayer = 3\n", ["unknown field `layer`; did you mean layers?"]),
        ("name = 'x'\nqqq = 3\n", ["unknown field `qqq`"]),
        ("name = 3\n", [": name: Expected `str`, got `int`"]),
        ("name = 'x'\nlayers = '3'\n", [": layers: Expected `int`, got `str`"]),
        ("name = 'x'\nlayers = 3.5\n", [": layers: Expected `int`, got `float`"]),
        ("name = 'x'\nexact = 1\n", [": exact: Expected `bool`, got `int`"]),
        ("name = 'x'\nlayers = 1\n", [": layers is 1, give at least 2"]),
        ("name = 'x'\nmethod = 'metsi'\n", [": method: ", "'metsi'; did you mean metis?"]),
        ("name = 'x'\nlimit = 1.5\n", [": limit: Expected `int | str`"]),
        ("name = 'x'\ntraining = 3\n", [": training: Expected `object | null`"]),
        ("name = 'x'\n[training]\nrate = 1\n", [": training: ", "required field `steps`"]),
        ("name = 'x'\n[training]\nsteps = 1\nrat = 1\n", [": training: ", "did you mean rate?"]),
        ("name = 'x'\n[[machines]]\n", [": machines.0: ", "required field `gpu`"]),
        (
            "name = 'x'\n[[machines]]\ngpu = 'A'\n[[machines]]\ngpu = 'B'\ngpus = 0\n",
            [": machines.1.gpus: Expected `int` >= 1"],
        ),
        ("name = 'x'\n[by_host.b]\ngpu = 4\n", [": by_host.*.gpu: Expected `str`, got `int`"]),
        ("name = 'x'\nshares = {a = 0.5}\n", [": shares: Expected `int`, got `str`"]),
        ("name = 'x'\ngrid = [[1], [2, 'a']]\n", [": grid.1.1: Expected `int`, got `str`"]),
        ("name = 1979-05-27\n", [": name: Expected `str`"]),
    ],
)
def test_a_malformed_file_is_told_in_one_line_by_its_place(
    text: str, parts: list[str], tmp_path: Path
):
    with pytest.raises(InputError) as error:
        ask(text, tmp_path)
    said = str(error.value)
    assert said.startswith(f"{tmp_path / 'my.toml'}: ")
    assert "\n" not in said
    for part in parts:
        assert part in said


def test_a_missing_file_is_told(tmp_path: Path):
    assert "No such file" in complaint(of=str(tmp_path / "none.toml"))


def test_a_folder_is_not_a_file(tmp_path: Path):
    folder = tmp_path / "folder.toml"
    folder.mkdir()
    assert f"{folder}: Is a directory" in complaint(of=str(folder))


def test_binary_content_is_told(tmp_path: Path):
    path = tmp_path / "my.toml"
    path.write_bytes(b"name = '\xff\xfe'\n")
    assert "utf-8" in complaint(of=str(path))


@pytest.mark.parametrize(
    ("override", "field", "value"),
    [
        ("layers=3", "layers", 3),
        ("name=other", "name", "other"),
        ("name='8'", "name", "8"),
        ("name=", "name", ""),
        ("name=a=b", "name", "a=b"),
        ("method=stratified", "method", "stratified"),
        ("exact=true", "exact", True),
        ("limit=3", "limit", 3),
        ("limit=many", "limit", "many"),
        ("limit='3'", "limit", "3"),
        ("machines.1.gpus=2", "machines", (Machine(gpu="A100"), Machine(gpu="V100", gpus=2))),
        (
            "machines.0.memory=inf",
            "machines",
            (Machine(gpu="A100", memory=math.inf), ROW1.machines[1]),
        ),
        ("machines=[{gpu='T4'}]", "machines", (Machine(gpu="T4"),)),
        ("shares.3=0.5", "shares", {3: 0.5}),
        ("by_host.a={gpu='T4'}", "by_host", {"a": Machine(gpu="T4")}),
        ("training={steps=5}", "training", Training(steps=5)),
        ("grid=[[1, 2], [3]]", "grid", ((1, 2), (3,))),
    ],
)
def test_an_override_sets_one_place(override: str, field: str, value: object):
    changed = resolve("table1-row1", NAMED, Experiment, [override])
    assert changed == msgspec.structs.replace(ROW1, **{field: value})


def test_overrides_are_applied_in_order_and_to_files_too(tmp_path: Path):
    found = ask("name = 'x'\n", tmp_path, "training={steps=5}", "training.rate=1", "layers=4")
    assert found == Experiment(name="x", layers=4, training=Training(steps=5, rate=1.0))


def test_null_takes_an_optional_value_away(tmp_path: Path):
    assert ask("name = 'x'\n[training]\nsteps = 2\n", tmp_path, "training=null").training is None


def test_overrides_leave_the_named_experiment_as_it_was():
    resolve("table1-row1", NAMED, Experiment, ["machines.0.gpus=2", "by_host.a={gpu='T4'}"])
    assert NAMED["table1-row1"].machines[0].gpus == 8
    assert ROW1.by_host == {}


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("layers", ["--set layers: write path=value"]),
        ("=3", ["unknown field ``"]),
        ("layer=3", ["unknown field `layer`; did you mean layers?"]),
        ("layers=many", ["layers: Expected `int`, got `str`"]),
        ("layers=1", ["layers is 1, give at least 2"]),
        ("machines.0.gpus=0", ["machines.0.gpus: Expected `int` >= 1"]),
        ("machines.2.gpus=1", ["with a path that is there"]),
        ("machines.first.gpus=1", ["with a path that is there"]),
        ("layers.x=1", ["with a path that is there"]),
        ("name.x=1", ["with a path that is there"]),
        ("training.rate=1", ["with a path that is there"]),
        ("method=stratifie", ["method: Invalid enum value", "did you mean stratified"]),
        ("name=8", ["name: Expected `str`, got `int`"]),
        ("layers=null", ["layers: Expected `int`, got `null`"]),
    ],
)
def test_a_wrong_override_is_told_as_it_was_given(override: str, parts: list[str]):
    said = complaint(override)
    assert f"--set {override}" in said
    for part in parts:
        assert part in said


def test_read_toml_serves_any_kind(tmp_path: Path):
    path = tmp_path / "claims.toml"
    path.write_text("[[machine]]\ngpu = 'A'\n")
    assert read_toml(path, dict[str, list[Machine]]) == {"machine": [Machine(gpu="A")]}


words = st.text(max_size=12)
machines = st.builds(
    Machine,
    gpu=words,
    gpus=st.integers(1, 2**40),
    memory=st.floats(allow_nan=False),
)
experiments = st.builds(
    Experiment,
    name=words,
    layers=st.integers(2, 99),
    method=st.sampled_from(["metis", "stratified"]),
    exact=st.booleans(),
    limit=st.integers(-9, 9) | words,
    machines=st.lists(machines, max_size=3).map(tuple),
    by_host=st.dictionaries(words, machines, max_size=3),
    shares=st.dictionaries(st.integers(-9, 9), st.floats(allow_nan=False), max_size=3),
    training=st.none()
    | st.builds(Training, steps=st.integers(0, 9), rate=st.none() | st.floats(0, 1)),
    grid=st.lists(st.lists(st.integers(0, 9), max_size=3).map(tuple), max_size=3).map(tuple),
)


@given(experiments)
def test_what_to_toml_writes_resolves_to_an_equal_experiment(experiment: Experiment):
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "printed.toml")
        path.write_text(to_toml(experiment), encoding="utf-8", newline="\n")
        assert resolve(str(path), {}, Experiment) == experiment


def test_to_toml_reads_as_a_person_writes_it():
    text = to_toml(
        Experiment(
            name="x", machines=(Machine(gpu="T4"), Machine(gpu="A")), training=Training(steps=5)
        )
    )
    assert text.startswith('name = "x"\nlayers = 10\n')
    assert '\n\n[[machines]]\ngpu = "T4"\ngpus = 8\nmemory = 80.0\n\n[[machines]]\n' in text
    assert text.endswith("\n\n[training]\nsteps = 5\n")


def test_to_toml_indents_lists():
    text = to_toml(Experiment(name=" " * 100, grid=((1,), (2,))))
    assert "grid = [\n    [\n        1,\n    ],\n    [\n        2,\n    ],\n]\n" in text
    assert f'name = "{" " * 100}"' in text


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    rate: float | None = None


class Choice(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    options: Options
    by_name: dict[str, Options]


def test_a_required_table_without_values_is_written_too(tmp_path: Path):
    choice = Choice(options=Options(), by_name={"a": Options(), "b": Options(rate=0.5)})
    (tmp_path / "choice.toml").write_text(to_toml(choice))
    assert read_toml(tmp_path / "choice.toml", Choice) == choice


def test_to_toml_refuses_a_none_that_it_would_lose():
    class Holes(msgspec.Struct):
        holes: tuple[int | None, ...]

    with pytest.raises(TypeError, match="None"):
        to_toml(Holes(holes=(1, None)))


@given(st.dictionaries(words, st.integers() | words | st.floats(allow_nan=False) | st.none()))
def test_a_case_id_ignores_the_order_of_keys(config: dict[str, object]):
    assert case_id(config) == case_id(dict(reversed(config.items())))


def test_a_case_id_is_16_hex_digits_and_changes_with_any_value():
    ids = [
        case_id(value)
        for value in (
            ROW1,
            NAMED["table1-row2"],
            {"a": 1},
            {"a": "1"},
            {"a": None},
            {"a": math.inf},
        )
    ]
    assert len(set(ids)) == len(ids)
    assert all(len(name) == 16 and int(name, 16) >= 0 for name in ids)


def test_a_case_id_is_that_of_every_machine_and_run():
    assert case_id({"b": [1, 2.5], "a": "x"}) == "66efddae6a975003"


def test_struct_and_its_plain_form_have_one_case_id():
    assert case_id(ROW1) == case_id(msgspec.to_builtins(ROW1))
