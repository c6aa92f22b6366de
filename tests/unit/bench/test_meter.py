"""The kernel's accounting of a process tree."""

import os

from bench import meter
from bench.meter import Stat


def test_stat_is_read_past_a_command_name_with_brackets_and_spaces() -> None:
    fields = ["S", "7", "12", "12"] + ["0"] * 7 + ["100", "50", "30", "20"] + ["0"] * 30
    assert meter.parse_stat(f"12 (a) (b c) {' '.join(fields)}", ticks=100) == Stat(12, "S", 7, 12, 2.0)


def test_the_tree_holds_descendants_and_orphans_of_the_session_and_nobody_else() -> None:
    root, child, grandchild = Stat(10, "S", 1, 10, 0), Stat(11, "S", 10, 10, 0), Stat(12, "S", 11, 12, 0)
    orphan, stranger = Stat(13, "S", 1, 10, 0), Stat(14, "S", 1, 14, 0)
    picked = meter.select_tree([stranger, orphan, grandchild, child, root], 10)
    assert [stat.pid for stat in picked] == [10, 11, 12, 13]


def test_our_own_tree_is_found_and_has_used_cpu_time() -> None:
    assert os.getpid() in {stat.pid for stat in meter.tree(os.getpid())}
    assert meter.cpu_seconds(os.getpid()) > 0


def test_memory_is_read_in_bytes() -> None:
    text = "5574-7ffc ---p 00000000 00:00 0    [rollup]\nRss:      100 kB\nPss:       40 kB\nPrivate_Dirty: 8 kB\n"
    assert meter.parse_rollup(text) == {"Rss": 102400, "Pss": 40960, "Private_Dirty": 8192}
