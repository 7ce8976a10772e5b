from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from pplr_lightning.data import LSVID, MARS
from pplr_lightning.data.datasets import first_frames

from .trees import ids, touch

pytestmark = pytest.mark.filterwarnings("ignore:.*as published has")


def tracklets(samples) -> list[tuple[int, int]]:
    return ids(first_frames(samples))


class TestMARS:
    TRACKS = {
        "train": [("0001", 1, 2), ("0001", 2, 1), ("0003", 6, 3)],
        "test": [("00-1", 1, 1), ("0000", 3, 2), ("0002", 1, 2), ("0002", 2, 1), ("0004", 5, 1)],
    }

    @pytest.fixture
    def root(self, tmp_path) -> Path:
        (tmp_path / "info").mkdir()
        for part, tracks in self.TRACKS.items():
            names, rows = [], []
            for number, (person, camera, length) in enumerate(tracks, 1):
                first = len(names) + 1
                names += [f"{person}C{camera}T{number:04d}F{f + 1:03d}.jpg" for f in range(length)]
                rows.append([first, len(names), int(person.replace("00-1", "-1")), camera])
            touch(*(tmp_path / f"bbox_{part}/{name[:4]}/{name}" for name in names))
            (tmp_path / f"info/{part}_name.txt").write_text("\n".join(names))
            savemat(
                tmp_path / f"info/tracks_{part}_info.mat",
                {f"track_{part}_info": np.array(rows, dtype=np.int16)},
            )
        # Unsigned, in which 0 - 1 is 255.
        savemat(tmp_path / "info/query_IDX.mat", {"query_IDX": np.array([[3, 5]], np.uint8)})
        return tmp_path

    def test_both_galleries(self, root):
        both = {one: MARS(root, gallery=one) for one in ("all", "without_queries")}
        splits = {one: dataset.load() for one, dataset in both.items()}
        for one in splits.values():
            assert tracklets(one.train) == [(1, 1), (1, 2), (3, 6)]
            assert [Path(s.path).name for s in one.train[:2]] == [
                "0001C1T0001F001.jpg", "0001C1T0001F002.jpg"
            ]  # fmt: skip
            assert tracklets(one.query) == [(2, 1), (4, 5)]
        # Without junk; 0 are distractors.
        assert tracklets(splits["all"].gallery) == [(0, 3), (2, 1), (2, 2), (4, 5)]
        assert tracklets(splits["without_queries"].gallery) == [(0, 3), (2, 2)]
        assert [one.variant for one in both.values()] == [
            "MARS, gallery with the queries", "MARS, gallery without the queries"
        ]  # fmt: skip
        with pytest.raises(ValueError, match="gallery='none': MARS has 'all' and 'without_quer"):
            MARS(root, gallery="none")

    def test_counts_tracklets(self, root):
        with pytest.warns(UserWarning, match=r"3 \+ 2 \+ 2 tracklets .* 8,298 \+ 1,980 \+ 9,330"):
            MARS(root, gallery="without_queries").load()

    def test_frame_that_is_not_there(self, root):
        (root / "bbox_test/0002/0002C1T0003F002.jpg").unlink()
        with pytest.raises(FileNotFoundError, match=r"T0003F002.jpg: no such file, which .* row 3"):
            MARS(root).load()

    @pytest.mark.parametrize(
        ("file", "key", "value", "message"),
        [
            ("tracks_test_info", "track_test_info", [[1, 99, 0, 1]], "row 1: lines 1 to 99"),
            ("tracks_test_info", "track_test_info", [[2, 3, 0, 4]], "row 1: is of person 0 under"),
            ("tracks_train_info", "track_test_info", [[1, 1, 0, 1]], "has no track_train_info"),
            ("query_IDX", "query_IDX", [[6]], "names tracklets beyond the 5 of the test"),
        ],
    )
    def test_lists_that_do_not_fit(self, root, file, key, value, message):
        savemat(root / f"info/{file}.mat", {key: np.array(value)})
        with pytest.raises(ValueError, match=rf"{file}.mat.*{message}"):
            MARS(root).load()


class TestLSVID:
    @pytest.fixture
    def root(self, tmp_path) -> Path:
        h5py = pytest.importorskip("h5py")
        lists = {"train": [(f"tracklet_train/0000/0000_000_{n}", 0) for n in ("01_0303", "15")]}
        lists["test"] = [
            (f"tracklet_test/{person:04d}/{person:04d}_{n:03d}_{n + 1:02d}", person)
            for person in (5, 7)
            for n in (0, 1)
        ]
        folder = tmp_path / "info/list_sequence"
        folder.mkdir(parents=True)
        for part, lines in lists.items():
            text = "".join(f"{prefix} {person}\n" for prefix, person in lines)
            (folder / f"list_seq_{part}.txt").write_text(text)
            touch(*(tmp_path / f"{prefix}_f{n}.jpg" for prefix, _ in lines for n in (2, 1)))
        (tmp_path / "info/data").mkdir()
        with h5py.File(tmp_path / "info/data/info_test.mat", "w") as file:
            file["query"] = np.array([[1.0, 4.0]])
        return tmp_path

    def test_reads_the_lists(self, root):
        splits = LSVID(root).load()
        assert tracklets(splits.train) == [(0, 1), (0, 15)]
        assert tracklets(splits.query) == [(5, 1), (7, 2)]
        assert tracklets(splits.gallery) == [(5, 2), (7, 1)]
        assert [sample.path[-6:] for sample in splits.query[:2]] == ["f1.jpg", "f2.jpg"]

    def test_line_of_no_frames(self, root):
        path = root / "info/list_sequence/list_seq_test.txt"
        for line in ("tracklet_test/0009/0009_000_01 9", "tracklet_test/0005/ 5", "nothing"):
            path.write_text(f"tracklet_test/0005/0005_000_01 5\n{line}\n")
            with pytest.raises(ValueError, match=r"list_seq_test.txt, line 2: .* names no frames"):
                LSVID(root).load()

    @pytest.mark.parametrize("absolute", [True, False])
    def test_line_that_leads_elsewhere(self, root, tmp_path_factory, absolute):
        other = tmp_path_factory.mktemp("other")
        touch(other / "0009_000_01_f1.jpg")
        name = other / "0009_000_01" if absolute else f"../{other.name}/0009_000_01"
        (root / "info/list_sequence/list_seq_test.txt").write_text(f"{name} 9\n")
        with pytest.raises(ValueError, match=r"list_seq_test.txt, line 1: .* leads out of"):
            LSVID(root).load()

    def test_other_mat_file(self, root):
        (root / "info/data/info_test.mat").write_bytes(b"no HDF5")
        with pytest.raises(ValueError, match=r"info_test.mat: holds no query"):
            LSVID(root).load()
