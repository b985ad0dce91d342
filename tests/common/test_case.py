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


def test_a_name_unlike_all_is_answered_with_all():
    assert complaint(of="zzz").endswith("known are table1-row1, table1-row2")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("name = 'x'\nlayers =\n", ["line 2"]),
        ("name = 'x'\nname = 'y'\n", ["line 2"]),
        ("name = 'x\n", ["(at "]),
        ("", ["missing field `name`"]),
        ("layers = 3\n", ["missing field `name`"]),
        ("name = 'x'\nlayer = 3\n", ["unknown field 'layer'", "did you mean layers?"]),
        ("name = 'x'\nqqq = 3\n", ["unknown field 'qqq'", "known are name, layers"]),
        ("name = 3\n", ["name: found 3", "expected `str`"]),
        ("name = 'x'\nlayers = '3'\n", ["layers: found '3'", "expected `int`"]),
        ("name = 'x'\nlayers = 3.5\n", ["layers: found 3.5", "expected `int`"]),
        ("name = 'x'\nexact = 1\n", ["exact: found 1", "expected `bool`"]),
        ("name = 'x'\nlayers = 1\n", ["layers is 1, give at least 2"]),
        ("name = 'x'\nmethod = 'metsi'\n", ["method: found 'metsi'", "did you mean metis?"]),
        ("name = 'x'\nmethod = 'q'\n", ["method: found 'q'", "known are metis, stratified"]),
        ("name = 'x'\nlimit = 1.5\n", ["limit: found 1.5", "expected `int | str`"]),
        ("name = 'x'\nmachines = 3\n", ["machines: found 3", "expected `array`"]),
        ("name = 'x'\ntraining = 3\n", ["training: found 3", "expected `table | null`"]),
        ("name = 'x'\n[training]\nrate = 1\n", ["training: missing field `steps`"]),
        ("name = 'x'\n[training]\nsteps = 1\nrat = 1\n", ["training: unknown field 'rat'", "rate"]),
        ("name = 'x'\n[[machines]]\n", ["machines.0: missing field `gpu`"]),
        (
            "name = 'x'\n[[machines]]\ngpu = 'A'\n[[machines]]\ngpu = 'B'\ngpus = 0\n",
            ["machines.1.gpus: found 0", "expected `int` >= 1"],
        ),
        (
            "name = 'x'\n[[machines]]\ngpu = 'A'\ngpu_s = 2\n",
            ["machines.0: unknown field 'gpu_s'", "did you mean gpus or gpu?"],
        ),
        (
            "name = 'x'\n[by_host.'10.0.0.1']\ngpu = 'A'\n[by_host.'10.0.0.2']\ngpu = 4\n",
            ["by_host.10.0.0.2.gpu: found 4", "expected `str`"],
        ),
        (
            "name = 'x'\n[by_host.a]\ngpu = 'A'\n[by_host.b]\ngpu = 'A'\nmem = 3\n",
            ["by_host.b: unknown field 'mem'", "did you mean memory?"],
        ),
        ("name = 'x'\nshares = {a = 0.5}\n", ["shares: ", "expected `int`"]),
        ("name = 'x'\nshares = {1 = 'a'}\n", ["shares.1: found 'a'", "expected `float`"]),
        ("name = 'x'\ngrid = [[1], [2, 'a']]\n", ["grid.1.1: found 'a'", "expected `int`"]),
        ("name = 1979-05-27\n", ["name: found ", "1979", "expected `str`"]),
    ],
)
def test_a_malformed_file_is_told_by_place_found_and_expected(
    text: str, parts: list[str], tmp_path: Path
):
    with pytest.raises(InputError) as error:
        ask(text, tmp_path)
    said = str(error.value)
    assert said.startswith(f"{tmp_path / 'my.toml'}: ")
    assert "\n" not in said
    for part in parts:
        assert part in said


def test_a_long_value_is_cut_short(tmp_path: Path):
    with pytest.raises(InputError) as error:
        ask(f"name = {list(range(1000))}\n", tmp_path)
    assert len(str(error.value)) < len(str(tmp_path)) + 160


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
        ("name=8", "name", "8"),
        ("name=true", "name", "true"),
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
        ("by_host.a.gpu=T4", "by_host", {"a": Machine(gpu="T4")}),
        ('by_host."10.0.0.1".gpu=T4', "by_host", {"10.0.0.1": Machine(gpu="T4")}),
        ("shares.3=0.5", "shares", {3: 0.5}),
        ("training.steps=5", "training", Training(steps=5)),
        ("grid=[[1, 2], [3]]", "grid", ((1, 2), (3,))),
    ],
)
def test_an_override_sets_one_place(override: str, field: str, value: object):
    changed = resolve("table1-row1", NAMED, Experiment, [override])
    assert changed == msgspec.structs.replace(ROW1, **{field: value})


def test_overrides_are_applied_in_order_and_to_files_too(tmp_path: Path):
    found = ask("name = 'x'\n", tmp_path, "training.steps=5", "training.rate=1", "layers=4")
    assert found == Experiment(name="x", layers=4, training=Training(steps=5, rate=1.0))


def test_null_takes_an_optional_value_away(tmp_path: Path):
    assert ask("name = 'x'\n[training]\nsteps = 2\n", tmp_path, "training=null").training is None


def test_overrides_leave_the_named_experiment_as_it_was():
    resolve("table1-row1", NAMED, Experiment, ["machines.0.gpus=2", "by_host.a.gpu=T4"])
    assert NAMED["table1-row1"].machines[0].gpus == 8
    assert ROW1.by_host == {}


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("layers", ["--set layers: write path=value"]),
        ("=3", ["--set =3: write path=value"]),
        ("layer=3", ["unknown field 'layer'", "did you mean layers?"]),
        ("layers=many", ["layers: found 'many'", "expected `int`"]),
        ("layers=1", ["layers is 1, give at least 2"]),
        ("machines.0.gpus=0", ["machines.0.gpus: found 0", "expected `int` >= 1"]),
        ("machines.2.gpus=1", ["no place 'machines.2.gpus'"]),
        ("machines.first.gpus=1", ["no place 'machines.first.gpus'"]),
        ("layers.x=1", ["no place 'layers.x'"]),
        ("name.x=1", ["no place 'name.x'"]),
        ("method=nearly", ["method: found 'nearly'", "known are metis, stratified"]),
        ("training.rate=1", ["training: missing field `steps`"]),
        ("layers=null", ["layers: found None", "expected `int`"]),
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


def test_to_toml_reads_like_the_overrides():
    text = to_toml(Experiment(name="x", training=Training(steps=5), machines=(Machine(gpu="T4"),)))
    assert 'name = "x"\n' in text
    assert "training.steps = 5\n" in text
    assert '    {gpu = "T4", gpus = 8, memory = 80.0},\n' in text


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

    with pytest.raises(ValueError, match="None"):
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
