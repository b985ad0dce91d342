"""The pages of the docs site that are made from the packages themselves."""

from pathlib import Path

import pytest

site = pytest.importorskip("docs.site", reason="an image has no docs")


def test_every_package_has_its_fields_command_line_library_and_claims(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(site, "OUT", tmp_path / "docs")
    site.main()
    for package in site.PACKAGES:
        at = tmp_path / "docs" / package
        assert "name = " in (at / "fields.md").read_text()
        commands = (at / "cli.md").read_text()
        assert all(
            f"## {verb}\n\n```text\nUsage: {package} {verb} " in commands for verb in site.VERBS
        )
        library = (at / "library.md").read_text()
        assert all(f"`{name}(" in library for name in site.NAMES)
        assert (at / "tutorial.ipynb").is_file()
        figures = list((at / "docs").glob("*.svg"))
        assert len(figures) >= 2  # those that the README shows came along
