# ruff: noqa: E501, RUF001 - tables of input, in other scripts, too
"""Command lines of the commands with options of their own."""

from __future__ import annotations

from collections.abc import Iterator

from .bench import Bench, Case


def word_cases(bench: Bench) -> Iterator[Case]:
    """Command lines of the commands with options of their own."""
    ckpt, emb, gal = bench.checkpoint, bench.embeddings, bench.gallery
    query = next(bench.few.iterdir())
    export = ["export", f"--ckpt_path={ckpt}"]
    serve = ["serve", f"--index={gal}", f"--ckpt_path={ckpt}"]
    out = str(bench.new())
    lines: dict[str, list[list[str]]] = {
        "nothing": [["nope"], ["Fit"], ["fitt"], ["ﬁt"], [" "], ["index", "new"]],
        "index": [
            ["index"], ["index", f"--embeddings={emb}"], ["index", f"--index={gal}"],
            ["index", f"--embeddings={emb}", f"--index={gal}"],
            ["index", f"--embeddings={emb}", f"--out={gal}"],
            *(
                ["index", f"--embeddings={emb}", f"--out={out}/{n}", *more]
                for n, more in enumerate((
                    ["--kind=nope"], ["--kind="], ["--memory_limit=nan"], ["--memory_limit=-1"],
                    ["--memory_limit=0"], ["--memory_limit=inf"], ["--memory_limit=much"],
                    ["--probes=0"], ["--probes=-3"], ["--probes=1.5"], ["--probes=９９"],
                    ["--probes=9999999999999999999999", "--kind=ivfsq"], ["--kind=ivfpq"],
                    ["--kind=ivfsq"], ["--add", str(emb)], ["--nope"], ["surplus"],
                ))
            ),
            ["index", f"--index={gal}", "--remove", "nope.png", f"--out={out}/r1"],
            ["index", f"--index={gal}", "--remove", "", f"--out={out}/r2"],
            ["index", f"--index={gal}", "--remove", "\udcff.png", f"--out={out}/r3"],
            ["index", f"--index={gal}", f"--add={emb}", f"--out={out}/a1"],
            ["index", f"--index={gal}", "--add=nope.parquet", f"--out={out}/a2"],
            ["index", f"--index={gal}", "--probes=3", f"--add={emb}"],
            ["index", f"--embeddings={emb}", "--out="],
            ["index", f"--embeddings={emb}", f"--out={'x' * 300}"],
            ["index", f"--embeddings={emb}", f"--out={emb}/below"],
            ["index", f"--embeddings={emb}", "--out=/proc/nope/gallery"],
        ],
        "search": [
            ["search"], ["search", f"--index={gal}"], bench.search("--top=0"),
            bench.search("--top=-1"), bench.search("--top=all"), bench.search("--top=1e400"),
            bench.search("--top=99999999999999999999"), bench.search("--weights", "1", "2"),
            bench.search("--weights", "nan"), bench.search("--weights", "much"),
            bench.search("--weights"), bench.search("--without_cameras", "first"),
            bench.search("--without_cameras", "99999999999999999999999"),
            bench.search("--without_cameras", *map(str, range(20))),
            bench.search("--sheet=/"), bench.search("--sheet=sheet.nope"),
            bench.search("--sheet=/proc/nope/sheet.png"), bench.search("--sheet="),
            bench.search("--sheet=sheet"), bench.search("--nope"), bench.search("--rerank=maybe"),
            bench.search("--query", "nope.png"), bench.search("--query", "/"),
            bench.search("--query", ""),
            bench.search("--rerank", "--top=0"), bench.search("--rerank", "--weights", "nan"),
            bench.search("--rerank", "--without_cameras", "99"), bench.search("--rerank", "200"),
            bench.search("--rerank=true"), bench.search("--rerank", "--query", "nope.png"),
            bench.search("--rerank", "--index=nope"), bench.search("--rerank", "--sheet=/"),
            bench.search("--query", "/dev/zero"), bench.search(f"--ckpt_path={query}"),
            bench.search("--ckpt_path="), bench.search("--index="), bench.search("--index=/"),
        ],
        "labels": [
            ["labels"], ["labels", "--data.root=nope"], ["labels", f"--out={out}/l0"],
            ["labels", f"--out={out}/l1", "--data.root=nope"],
            *(
                bench.labels(*more)
                for more in (
                    *([f"--k1={value}"] for value in ("[]", "[0]", "[-1]", "[1.5]", "[nan]", "", "x",
                      "null", "3", "[[3]]", "[99999999999999999999]", "[3,3]", "[1e400]")),
                    *([f"--k2={value}"] for value in ("[]", "[0]", "[-1]", "x", "2", "[1.5]")),
                    *([f"--eps={value}"] for value in ("[]", "[0]", "[-0.5]", "[nan]", "[2]", "",
                      "half", "null", "0.5", "[1e400]", "[0.5,0.5]")),
                    *([f"--min_samples={value}"] for value in ("[]", "[0]", "[-1]", "[nan]", "two",
                      "null", "[99999999999999999999]")),
                    *([f"--images_per_person={value}"] for value in ("0", "-1", "nan", "inf", "x")),
                    *([f"--weights={value}"] for value in ("nope", "nope.ckpt", "", "/", "/dev/zero",
                      query, "[]", "resnet50.nope")),
                    *([f"--image_size={value}"] for value in ("64", "[0,0]", "[64]", "[-1,32]",
                      "[1e9,1e9]", "64x32", "[]", "[1,1]")),
                    *([f"--batch_size={value}"] for value in ("0", "-1", "nan", "")),
                    *([f"--num_workers={value}"] for value in ("-1", "99999999", "x")),
                    *([f"--bad_images={value}"] for value in ("", "nope", "null")),
                    *([f"--out={value}"] for value in ("", "/", "/proc/nope/l", "x" * 300, ckpt,
                      f"{ckpt}/below")),
                    *([f"--data.root={value}"] for value in ("", "nope", ckpt, "/proc/nope")),
                    *([f"--data={value}"] for value in ("Nope", "os.system", "[]", "3")),
                    ["--data.pattern=("], ["--data.pattern=x"], ["--data.table=nope.csv"],
                    ["--data.nope=1"], ["--nope=1"], ["surplus"], ["--config=nope.yaml"],
                    [f"--weights={query}", "--backbone=nope"], ["--weights=pretrained", "--backbone=nope"],
                    ["--weights=pretrained", "--backbone=test_resnet", "--last_stride=3"],
                    ["--weights=pretrained", "--backbone=test_resnet", "--last_stride=x"],
                )
            ),
        ],
        "export": [
            ["export"], export, [*export, "--format=onnx"], [*export, "--format=nope", "--out=a.pt2"],
            *(
                [*export, "--format=torch", *more]
                for more in (
                    ["--out=a.onnx"], ["--out=a"], ["--out="], ["--out=/"], ["--out=nope/a.pt2"],
                    ["--out=/proc/a.pt2"], [f"--out={'x' * 300}.pt2"],
                    ["--out=a.pt2", "--image_size", "64"], ["--out=a.pt2", "--image_size", "0", "0"],
                    ["--out=a.pt2", "--image_size", "-1", "4"],
                    ["--out=a.pt2", "--image_size", "1", "1"],
                    ["--out=a.pt2", "--image_size", "9999999", "4"],
                    ["--out=a.pt2", "--image_size", "nan", "4"],
                    ["--out=a.pt2", "--image_size", "64", "32", "3"], ["--out=a.pt2", "surplus"],
                )
            ),
        ],
        "convert": [
            ["convert"], ["convert", str(ckpt)], ["convert", "nope.pth", "o.ckpt"],
            ["convert", str(ckpt), str(ckpt)], ["convert", "/", "o.ckpt"],
            ["convert", str(ckpt), "/proc/nope/o.ckpt"], ["convert", str(ckpt), "o", "surplus"],
            ["convert", str(query), "o.ckpt"], ["convert", "/dev/null", "o.ckpt"],
            ["convert", str(ckpt), "o", "--backbone=nope"], ["convert", "", "o"],
            ["convert", str(ckpt), f"{'x' * 300}"],
        ],
        "report": [
            ["report"], ["report", "nope"], ["report", str(ckpt)], ["report", "/"],
            ["report", str(bench.few)], ["report", ""], ["report", "a", "b", "c"],
            ["report", str(bench.run_folder), "nope"],
            ["report", str(bench.run_folder), "--output=/"],
            ["report", str(bench.run_folder), "--output="],
            ["report", str(bench.run_folder), "--output=/proc/nope/a.html"],
            ["report", str(bench.run_folder), f"--output={'x' * 300}"],
            ["report", str(bench.run_folder), f"--output={ckpt}/a.html"],
        ],
        "serve": [
            ["serve"], ["serve", f"--index={gal}"], [*serve, "--port=-1"], [*serve, "--port=99999"],
            [*serve, "--port=http"], [*serve, "--host=0.0.0.0"], [*serve, "--host=::"],
            [*serve, "--host="], [*serve, "--host=nope.invalid"], [*serve, "--host=256.1.1.1"],
            [*serve, "--host=é" * 40], [*serve, "--port=1.5"],
            [*serve, "--nope"],
            ["serve", "--index=nope", f"--ckpt_path={ckpt}", "--port=0"],
            ["serve", f"--index={gal}", "--ckpt_path=nope", "--port=0"],
        ],
        "demo": [
            ["demo", "--seed=-1"], ["demo", "--seed=nan"], ["demo", "--seed=99999999999999999999"],
            ["demo", "--configs=nope"], ["demo", f"--configs={ckpt}"], ["demo", "--nope"],
            ["demo", "--weights=nope.pth"], ["demo", f"--runs={ckpt}"], ["demo", "surplus"],
            ["demo", "--weights=/dev/zero"],
        ],
        "predict": [
            bench.predict(*more)
            for more in (
                ["--data.batch_size=0"], ["--data.batch_size=nan"], ["--data.num_workers=-1"],
                ["--data.num_workers=99999999"], ["--data.image_size=[0,0]"],
                ["--data.image_size=64"], ["--features=nope"], ["--features="], ["--features=null"],
                ["--data.pattern=("], ["--data.pattern=x"], ["--data.pattern=(?P<camera>zz)"],
                ["--data.pattern=(?P<camera>.)"], ["--data.table=nope.csv"], ["--data.table=/"],
                ["--data.table="], ["--data.root=nope"], ["--data.root="],
                [f"--data.root={ckpt}"], ["--trainer.accelerator=nope"], ["--trainer.devices=0"],
                ["--trainer.devices=99"], ["--trainer.precision=8"], ["--trainer.num_nodes=-1"],
                ["--trainer.strategy=nope"], ["--out="], ["--out=/"], ["--out=/proc/nope/a.parquet"],
                [f"--out={'x' * 300}"], [f"--out={ckpt}"], [f"--out={ckpt}/a.parquet"],
                ["--ckpt_path="], ["--ckpt_path=/"], ["--ckpt_path=nope"], ["--nope=1"], ["surplus"],
                ["--data.image_size=[1,1]"],
            )
        ],
    }  # fmt: skip
    for command, words in lines.items():
        for one in words:
            *_, option = (
                one[0] if len(one) < 2 else one[-1].partition("=")[0].lstrip("-").rsplit(".", 1)
            )
            tail = " ".join(one[-2:]).replace(str(bench.folder), "")[-60:]
            named = [word.partition("=")[2] or word for word in one[-3:]]
            named = [name for name in (*named, option) if name] + [
                f"--{option}",
                "COMMAND",
                "required",
            ]
            named += [
                "following arguments are required",
                "for building a gallery",
                "usage",
                "''",
                "in the gallery",
                "no run's folder",
                ". is there already",
                ".: the folder",
            ]
            yield Case(f"line {command}: {tail!r}", one, tuple(named))
