"""Cache geometry: as it is written, as sysfs tells it, as presets name it."""

from __future__ import annotations

import pytest

from spatialconv.study import cache
from spatialconv.study.cache import Level


def test_levels_are_read_as_they_are_written():
    levels = cache.parse("48K/12/64,2M/16/64, 105M/15/64")
    assert levels == (Level("L1", 64, 12, 64), Level("L2", 2048, 16, 64), Level("L3", 114_688, 15, 64))
    assert [level.size for level in levels] == [48 * 2**10, 2 * 2**20, 105 * 2**20]
    assert cache.parse(cache.spelled(levels)) == levels
    assert cache.parse("1152/3/64")[0] == Level("L1", 6, 3, 64)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("32K", "expected host"),
        ("zen9", "zen3"),
        ("32K/8", "SIZE/WAYS/LINE"),
        ("32K/8/64,", "SIZE/WAYS/LINE"),
        ("32K/7/64", "multiple"),
        ("0K/8/64", "multiple"),
        ("32K/0/64", "multiple"),
        ("24K/8/96", "lines of 16"),
        ("32K/8/8", "lines of 16"),
        ("1M/8/64,32K/8/64", "grow outwards"),
    ],
)
def test_other_texts_are_refused_with_a_reason(text, words):
    with pytest.raises(ValueError, match=words):
        cache.read(text)


def test_a_level_without_sets_is_refused():
    with pytest.raises(ValueError, match="sets of at least 1, got 0"):
        Level("L1", 0, 8, 64)


@pytest.mark.parametrize("name", cache.PRESETS)
def test_every_preset_is_a_cache(name):
    levels, source = cache.read(name)
    assert levels == cache.parse(cache.PRESETS[name]) and name in source


def index(folder, number: int, **facts: object) -> None:
    (folder / f"index{number}").mkdir(parents=True)
    for name, value in facts.items():
        (folder / f"index{number}" / name).write_text(f"{value}\n")


def facts(level: int, kind: str, sets: object, ways: int) -> dict[str, object]:
    return {
        "level": level, "type": kind, "number_of_sets": sets, "ways_of_associativity": ways,
        "coherency_line_size": 64,
    }  # fmt: skip


def test_sysfs_tells_data_caches_only(tmp_path):
    index(tmp_path, 0, **facts(1, "Data", 64, 12))
    index(tmp_path, 1, **facts(1, "Instruction", 64, 8))
    index(tmp_path, 2, **facts(2, "Unified", 2048, 16))
    index(tmp_path, 3, **facts(3, "Unified", 114_688, 15))
    assert cache.from_sysfs(tmp_path) == cache.parse("48K/12/64,2M/16/64,105M/15/64")


def test_what_sysfs_leaves_out_ends_the_levels(tmp_path):
    index(tmp_path, 0, **facts(1, "Data", 64, 8))
    index(tmp_path, 1, **facts(2, "Unified", "", 8))
    assert cache.from_sysfs(tmp_path) == cache.parse("32K/8/64")
    assert cache.from_sysfs(tmp_path / "none") == ()


def test_a_machine_that_tells_nothing_gets_a_preset_and_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "SYSFS", tmp_path)
    monkeypatch.setattr(cache.platform, "system", lambda: "Plan9")
    cache._host.cache_clear()
    try:
        levels, source = cache.read("host")
    finally:
        cache._host.cache_clear()
    assert levels and "does not tell" in source and "preset" in source


def test_macos_tells_sizes_by_sysctl(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "SYSFS", tmp_path)
    monkeypatch.setattr(cache.platform, "system", lambda: "Darwin")
    told = {"hw.cachelinesize": 128, "hw.l1dcachesize": 65_536, "hw.l2cachesize": 4_194_304}
    monkeypatch.setattr(cache, "_sysctl", lambda name: told.get(name, 0))
    cache._host.cache_clear()
    try:
        levels, source = cache.read("host")
    finally:
        cache._host.cache_clear()
    assert levels == cache.parse("64K/8/128,4M/8/128") and "assumed" in source
