"""Figures 8 to 12 and table 3 from the runs' means; logs read, and what is wrong with them."""

from pathlib import Path

import pytest

from common.errors import InputError
from puzzle.paper.anomalies import anomalies
from puzzle.paper.logs import read_folder, read_log
from puzzle.paper.publishing import (
    figure_8,
    figure_9,
    figure_10,
    figure_11,
    figure_12,
    published_metrics,
    table_3,
)
from puzzle.run.step_log import latency_line, step_line, switch_line


def pair(row: dict[str, str]) -> str:
    return f"{row['actor']}/{row['critic']}".upper()


def test_figure_8(golden):
    ours = {(b.cluster, b.pair, b.system): b.printed for b in figure_8()}
    rows = golden("figure8")
    assert len(ours) == len(rows) == 24
    for row in rows:
        key = row["cluster"], pair(row), row["system"]
        assert ours[key] == pytest.approx(float(row["e2e_s_per_step"]), abs=1e-4)
    (mended,) = [b for b in figure_8() if b.printed != b.corrected]
    assert (mended.key, mended.system, mended.corrected) == ("orion-33b-7b", "PUZZLE", 32.0076)


def test_figure_9(golden):
    ours = {(b.cluster, b.pair, b.system): b.printed for b in figure_9()}
    names = {"PUZZLE w/o ts": "sequential", "PUZZLE w/ ts": "merged"}
    for row in golden("figure9"):
        key = row["cluster"], pair(row), names[row["mode"]]
        assert ours[key] == pytest.approx(float(row["stage3_train_s"]), abs=1e-4)


def test_figure_10(golden):
    for cell, row in zip(figure_10(), golden("figure10"), strict=True):
        assert cell.ratio == pytest.approx(float(row["speedup"]), abs=1e-4)
        assert cell.equal_cost == pytest.approx(float(row["equal_cost_bubble_formula"]), abs=1e-4)
        assert cell.constant == float(row["theoretical_hardcoded"])


def test_figure_11(golden):
    ours = {(b.cluster, b.pair, b.system): b.printed for b in figure_11()}
    rows = golden("figure11")
    assert len(ours) == len(rows) == 18
    for row in rows:
        key = row["cluster"], pair(row), row["plan"]
        assert ours[key] == pytest.approx(float(row["e2e_s"]), abs=1e-4)


def test_figure_12(golden):
    kept = ("cluster", "system", "component", "seconds_as_plotted", "seconds_corrected")
    assert figure_12() == [{k: row[k] for k in kept} for row in golden("figure12")]


def test_table_3(golden):
    ours = {(b.cluster, b.pair, b.system): (b.printed, b.corrected) for b in table_3()}
    rows = golden("table3")
    assert len(ours) == len(rows) == 12
    for row in rows:
        printed, corrected = ours[row["cluster"], pair(row), row["system"]]
        assert printed == pytest.approx(float(row["comm_s_mean"]), abs=1e-4)
        assert corrected == pytest.approx(float(row["comm_s_best_estimate"]), abs=1e-4)


def test_metrics_have_names_of_their_own():
    names = [metric.name for metric in published_metrics()]
    assert len(set(names)) == len(names)


FIELDS = {"average_reward": -0.4, "act_loss": 7.5, "cri_loss": 9.75}


def write(folder: Path, name: str, *, switch: float | None = 0.08, head: str = "", damage=False):
    lines = [head]
    for step, seconds in enumerate((20.0, 12.0, 14.0)):
        if switch is not None:
            lines.append(f"(pid=7) \x1b[36m{switch_line(switch + step / 100)}\x1b[0m")
        line = step_line(0, step, 239, 256, FIELDS, (1e3 * seconds, 3e3, 8e3))
        lines.append(line.replace("2(infer.)", "12infer.") if damage else line)
    path = folder / name
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_step_line_reads_back(tmp_path):
    log = read_log(write(tmp_path, "llama_7b_7b_opt_2024-04-29T21:08:54+0800.log"))
    assert [step.stages for step in log.steps] == [
        (20.0, 3.0, 8.0),
        (12.0, 3.0, 8.0),
        (14.0, 3.0, 8.0),
    ]
    assert log.means() == (13.0, 3.0, 8.0, 24.0)
    assert log.switch() == pytest.approx(0.095)
    assert log.steps[0].fields == FIELDS


def test_a_short_switch_reads_back(tmp_path):
    log = read_log(write(tmp_path, "llama_7b_7b_opt_2024.log", switch=0.000034))
    assert log.steps[0].switch == pytest.approx(0.000034)


def test_damaged_stage_names_are_read_by_their_order(tmp_path):
    log = read_log(write(tmp_path, "llama_7b_350m_base_2024-04-27T14.log", damage=True))
    assert log.corrupt == 3
    assert log.means() == (13.0, 3.0, 8.0, 24.0)


def test_deepspeed_chats_lines_are_read(tmp_path):
    line = (
        "|E2E latency=25.04s |Gather latency=1.13s (4.52%) |Generate time=16.06s (64.13%)"
        " |Training time=6.44s (25.72%) |Others=2.54 (10.15%)|CurSamplesPerSec=5.11"
    )
    path = tmp_path / "llama_7b_350m_dschat_2024-01-12T00.log"
    path.write_text(f"Critic Model Parameters => 0.304 B\n{line}\n{line}\n")
    log = read_log(path)
    assert log.deepspeed
    assert log.means() == (16.06, 2.54, 6.44, 25.04)
    assert log.switch() == 1.13


def test_what_does_not_fit_together_is_said(tmp_path):
    world = (
        "using world size: 32, data-parallel-size: 1, tensor-model-parallel size: 2,"
        " pipeline-model-parallel size: 16"
    )
    head = f"{world}\n  use_shadow ......... False"
    write(tmp_path, "llama_33b_7b_opt_2024-04-30T11.log", switch=None, head=head)
    write(tmp_path, "llama_7b_7b_128_8_1_2_w_bulk_2024-05-05T16.log", head=world)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    write(tmp_path / "a", "llama_7b_350m_opt_2024-04-29T20.log")
    write(tmp_path / "b", "llama_7b_7b_opt_2024-04-29T20.log")
    write(tmp_path, "llama_13b_350m_opt_2024-04-29T21.log", switch=0.18)
    (tmp_path / "cut.log").write_text("begun\n")
    found = "\n".join(anomalies(*read_folder(tmp_path)))
    assert "cut.log: no step lines" in found
    assert "ran without the switch (16-1-2)" in found
    assert "named P-D-T 8-1-2, ran 16-1-2" in found
    assert "one log under unlike names" in found
    assert "3 of its 3 switch times moved by +0.100 s" in found
    assert "one run under several names: 1" in found


def test_what_deepspeed_chats_logs_tell_of_themselves_is_said(tmp_path):
    def chat(name: str, head: str) -> None:
        line = latency_line(1.0, 8.0, 4.0, 2.0, batch=128)
        (tmp_path / name).write_text(f"{head}\n{line}\n{line}\n")

    chat("llama_13b_350m_dschat_2024-01-12T00.log", "cmd = main.py --offload --lr 1")
    chat(
        "llama_7b_350m_dschat_2024-04-12T00.log",
        "cmd = main.py --offload_reference_model\nCritic Model Parameters => 0.591 B",
    )
    chat("llama_7b_7b_dschat_2024-04-13T00.log", "Critic Model Parameters => 6.607 B")
    chat("llama_33b_7b_dschat_2024-04-14T00.log", "Critic Model Parameters => 0.304 B")
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    for where, size in (("a", 16), ("b", 64)):
        head = f"  ar_stage_mbs .......... {size}\n# {where}"
        write(tmp_path / where, "llama_7b_7b_base_2024-04-27T14.log", switch=None, head=head)
    found = anomalies(*read_folder(tmp_path))
    told = "\n".join(found)
    assert "dschat_2024-01-12T00.log: ran with --offload" in told
    assert "350m critic, which has 0.591 billion" in told
    assert "7b critic, which has 0.304 billion" in told
    assert "unlike months: 2024-01: 13b/350m; 2024-04: 33b/7b, 7b/350m, 7b/7b" in told
    assert "7b/7b base decodes in unlike micro-batches: 16 in" in told
    assert len(found) == 5


def test_a_run_that_was_ended_while_it_wrote_keeps_its_whole_steps(tmp_path):
    path = write(tmp_path, "llama_7b_7b_opt_2024-04-29T20.log")
    whole = read_log(path)
    line = step_line(0, 3, 239, 256, FIELDS, (9e3, 3e3, 8e3))
    for end in (line.index("stage 2"), line.index("e2e_time") + 9, len(line) - 1):
        path.write_text(path.read_text() + line[:end].rstrip("0123456789.") + "\n")
    found = read_log(path)
    assert found.steps == whole.steps
    assert found.cut == 3
    assert any("3 step lines lack some of their times" in a for a in anomalies([found]))


def test_a_folder_without_logs_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"no \.log files"):
        read_folder(tmp_path)
    (tmp_path / "x.log").write_text("nothing\n")
    with pytest.raises(InputError, match="no step lines"):
        read_folder(tmp_path)
