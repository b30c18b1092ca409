from __future__ import annotations

import functools
import json
import multiprocessing
import operator
from pathlib import Path
from typing import Any

import pytest

from genai_operators.exceptions import LedgerConflict, LedgerCorrupt
from genai_operators.release.ledger import Action, Ledger
from genai_operators.store import Store

RACERS, ROUNDS = 4, 6


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


@pytest.fixture
def ledger(store: Store) -> Ledger:
    return Ledger(store, "bot", clock=iter(range(1_000, 2_000)).__next__)


def write(ledger: Ledger, action: Action, version: int, **changes: Any):
    entry = {
        "actor": "dag/run/task",
        "reason": "a test",
        "evidence": {"release": f"r{version}"},
        "expected_epoch": ledger.epoch(),
        **changes,
    }
    return ledger.append(action, version, f"digest-{version}", **entry)


class TestChampion:
    def test_an_empty_ledger_has_none(self, ledger):
        assert ledger.champion() is None
        assert ledger.previous_champion() is None
        assert ledger.epoch() == 0

    def test_the_last_promotion_reigns_and_survives_a_new_reader(self, ledger, store):
        write(ledger, Action.PROMOTE, 1)
        write(ledger, Action.PROMOTE, 2)
        champion = Ledger(store, "bot").champion()
        assert (champion.version, champion.digest, champion.epoch) == (2, "digest-2", 2)

    def test_two_rollbacks_go_back_two_champions(self, ledger):
        for version in (1, 2, 3):
            write(ledger, Action.PROMOTE, version)
        write(ledger, Action.ROLLBACK, ledger.previous_champion().version)
        assert ledger.champion().version == 2
        write(ledger, Action.ROLLBACK, ledger.previous_champion().version)
        assert ledger.champion().version == 1
        assert ledger.previous_champion() is None

    def test_a_retired_version_is_never_returned_to(self, ledger):
        for version in (1, 2, 3):
            write(ledger, Action.PROMOTE, version)
        write(ledger, Action.RETIRE, 2)
        assert ledger.champion().version == 3
        assert ledger.previous_champion().version == 1

    def test_the_champion_cannot_be_retired(self, ledger):
        write(ledger, Action.PROMOTE, 1)
        with pytest.raises(ValueError, match="v1 is the champion"):
            write(ledger, Action.RETIRE, 1)

    def test_models_do_not_share_a_ledger(self, ledger, store):
        write(ledger, Action.PROMOTE, 1)
        assert Ledger(store, "bot2").champion() is None


class TestCompareAndSwap:
    def test_a_stale_epoch_is_refused_and_says_who_was_first(self, ledger):
        write(ledger, Action.PROMOTE, 1)
        with pytest.raises(LedgerConflict, match="expected epoch 0, found epoch 1: promote v1 by dag/run/task"):
            write(ledger, Action.PROMOTE, 2, expected_epoch=0)
        assert len(ledger.entries()) == 1

    def test_of_processes_that_race_exactly_one_wins_each_epoch(self, store):
        context = multiprocessing.get_context("spawn")
        barrier, queue = context.Barrier(RACERS), context.Queue()
        racers = [context.Process(target=race, args=(store.uri, number, barrier, queue)) for number in range(RACERS)]
        for racer in racers:
            racer.start()
        wins = functools.reduce(operator.iadd, (queue.get(timeout=120) for _ in racers), [])
        for racer in racers:
            racer.join()
        assert sorted(wins) == list(range(1, ROUNDS + 1))
        assert [entry.epoch for entry in Ledger(store, "bot").verify()] == list(range(1, ROUNDS + 1))


def race(uri: str, number: int, barrier: Any, queue: Any) -> None:
    ledger = Ledger(Store.open(uri), "bot")
    wins = []
    for expected in range(ROUNDS):
        barrier.wait(60)
        try:
            entry = write(ledger, Action.PROMOTE, number, expected_epoch=expected)
        except LedgerConflict:
            continue
        finally:
            barrier.wait(60)
        wins.append(entry.epoch)
    queue.put(wins)


class TestVerify:
    @pytest.fixture
    def three(self, ledger):
        for version in (1, 2, 3):
            write(ledger, Action.PROMOTE, version)
        return ledger

    def path(self, epoch: int) -> str:
        return f"ledger/bot/{epoch:08d}.json"

    def test_an_untouched_chain_passes(self, three):
        assert [entry.version for entry in three.verify()] == [1, 2, 3]

    def test_an_edit_is_named_by_the_entry_that_no_longer_follows(self, three, store):
        record = store.get_json(self.path(2))
        store.put_json(self.path(2), {**record, "version": 9})
        with pytest.raises(LedgerCorrupt, match=r"00000003\.json: it does not follow the entry before it"):
            three.verify()

    def test_a_broken_chain_names_no_champion_and_takes_no_entry(self, three, store):
        path = self.path(1)
        store.put_json(path, {**store.get_json(path), "digest": "digest-9"})
        for use in (three.champion, three.previous_champion, lambda: write(three, Action.PROMOTE, 4)):
            with pytest.raises(LedgerCorrupt, match="00000002"):
                use()
        assert three.epoch() == 3

    def test_a_gap_is_named(self, three, store):
        store.delete(self.path(2))
        with pytest.raises(LedgerCorrupt, match=r"00000002\.json: the entry is missing"):
            three.verify()

    @pytest.mark.parametrize("data", [b"", b"not json", b"[]", json.dumps({"schema": 99}).encode()])
    def test_an_unreadable_entry_is_named(self, three, store, data):
        store.put(self.path(2), data)
        with pytest.raises(LedgerCorrupt, match=r"00000002\.json"):
            three.verify()

    def test_nothing_is_appended_to_an_unreadable_ledger(self, three, store):
        store.put(self.path(3), b"{}")
        with pytest.raises(LedgerCorrupt):
            write(three, Action.PROMOTE, 4)
        assert not store.exists(self.path(4))
