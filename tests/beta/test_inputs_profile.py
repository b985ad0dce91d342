"""Profiles: the shipped one, our format and the original's."""

import math
from pathlib import Path

import pytest

from beta.inputs.cluster import Cluster
from beta.inputs.convert import read_original_tsv
from beta.inputs.model import MIX, mixed_types, models_of, slo_of
from beta.inputs.profile import SINGLE, Config, read_profiles, write_profiles
from common.errors import InputError
from tests.beta.golden_inputs import GOLDEN

HEAD = "model,op,pp,batch,stage,latency_s,weight_bytes,act_bytes\n"
TSV = (
    "ModelName\tBS\t#Microbatch\tDP\tOP\tPP\tMeanTime\tStageWeights(B)\tStagePeakMem(B)\t"
    "StageLatencies(s)\n"
)


def test_shipped_profile_has_the_papers_latencies():
    found = read_profiles()
    milliseconds = {name: round(found[name].single_s * 1000) for name in MIX}
    assert milliseconds == {
        **{"bert-6.7b": 395, "moe-5.3b": 234, "bert-2.6b": 238},
        **{"moe-2.4b": 171, "bert-1.3b": 151, "moe-1.3b": 150},
    }
    configs = {Config(op, pp) for op in (1, 2, 4, 8) for pp in (1, 2, 4, 8) if op * pp <= 8}
    assert all(set(found[name].records) == configs for name in MIX)
    assert set(found["moe-7.1b"].records) == configs - {SINGLE}


def test_heaviest_stage_counts_as_memory():
    found = read_profiles()["bert-2.6b"]
    assert found.memory_bytes(Config(4, 2)) / 2**30 == pytest.approx(2.149, abs=5e-4)
    assert found.memory_bytes(Config(1, 16)) == math.inf


def test_unmeasured_weights_fit_nowhere():
    early = read_profiles(GOLDEN / "profile_early_bert13b.csv")["bert-1.3b"]
    assert early.memory_bytes(SINGLE) == math.inf
    assert sorted(early.records[SINGLE].stage_s) == [1, 2, 4, 8, 16]


def test_written_profiles_read_back_equal(tmp_path: Path):
    for profiles in (read_profiles(), read_profiles(GOLDEN / "profile_early_bert13b.csv")):
        write_profiles(profiles, tmp_path / "p.csv", source="two\nlines")
        assert read_profiles(tmp_path / "p.csv") == profiles


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model,op\n", "no column pp"),
        (HEAD, "no profile"),
        (HEAD + "a,1,2,1,0,0.1,,\n", r"needs stages 0\.\.1"),
        (HEAD + "a,1,1,1,0,0.1,,\n" * 2, "appears twice"),
        (HEAD + "a,1,1,1,0,fast,,\n", "line 2"),
        (HEAD + "a,1,1,1,0,-1,,\n", "be positive"),
        (HEAD + ",1,1,1,0,1,,\n", "must be named"),
        (HEAD + "a,1,1,1,0,1,-5,\n", "bytes must be 0 or more"),
        (HEAD + "a,1,1,1,0,1,nan,\n", "bytes must be 0 or more"),
        (HEAD + "a,1,1,1,0,1,,inf\n", "bytes must be 0 or more"),
    ],
)
def test_mistakes_in_a_profile_are_named(tmp_path: Path, text: str, message: str):
    (tmp_path / "p.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        read_profiles(tmp_path / "p.csv")


def test_files_of_another_kind_are_no_profiles(tmp_path: Path):
    (tmp_path / "p").write_bytes(bytes(range(128, 256)))
    for read in (read_profiles, read_original_tsv):
        with pytest.raises(InputError, match="no column"):
            read(tmp_path / "p")


def test_original_tsv_keeps_the_faster_of_two_lines(tmp_path: Path):
    line = "m\t1\t1\t1\t1\t2\t0.3\t[10, 12]\t[15, 20]\t[{}, 0.1]\n"
    (tmp_path / "p.tsv").write_text(TSV + line.format(0.2) + line.format(0.15) + line.format(0.3))
    record = read_original_tsv(tmp_path / "p.tsv")["m"].records[Config(1, 2)]
    assert record.stage_s == {1: (0.15, 0.1)}
    assert record.weight_bytes == (10, 12)
    assert record.act_bytes == {1: (5, 8)}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("m\t1\t1\t1\t1\t2\t0.3\t[10]\t[15]\t[1]\n", "needs 2 entries"),
        ("m\t1\t1\t2\t1\t1\t0.3\t[10]\t[15]\t[1]\n", "DP must be 1"),
        ("m\t1\t1\t1\t1\t1\t0.3\t[10]\t[10]\t[1]\n", "not above weights"),
        ("m\t1\t1\t1\t1\t1\t0.3\t[10]\t[10]\topen('x')\n", "line 2"),
    ],
)
def test_mistakes_in_a_tsv_are_named(tmp_path: Path, line: str, message: str):
    (tmp_path / "p.tsv").write_text(TSV + line)
    with pytest.raises(InputError, match=message):
        read_original_tsv(tmp_path / "p.tsv")


def test_slo_is_a_multiple_of_the_latency_on_one_device():
    profiles = read_profiles()
    (model,) = models_of(["bert-1.3b"], profiles, rates=[1], cv=1, slo_scale=5)
    assert model.slo_s == 5 * profiles["bert-1.3b"].single_s
    with pytest.raises(InputError, match=r"moe-7\.1b"):
        slo_of(profiles["moe-7.1b"], 1)


def test_mix_goes_round_the_types():
    assert [name for name, _ in mixed_types(8)][5:] == ["moe-1.3b-0", "bert-6.7b-1", "moe-5.3b-1"]


def test_mistakes_in_models_and_clusters_are_named():
    with pytest.raises(InputError, match="no profile of gpt"):
        models_of(["gpt"], read_profiles(), rates=[1], cv=1, slo_scale=1)
    with pytest.raises(InputError, match="must be positive"):
        Cluster(devices=0)
