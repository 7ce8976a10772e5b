# ruff: noqa: E501, RUF001 - patterns in a table, with digits of other scripts
"""What is accepted, by a pattern of the case's name, and why that is right."""

from __future__ import annotations

import re

from .bench import Case

ACCEPTED: dict[str, str] = {
    r"run ": "report shows what can be read, and says on the page what was left out",
    r"embeddings doubled|gallery items.parquet doubled": "parquet is read from its end: all there",
    r"embeddings turned at|gallery items.parquet turned at": "a byte that nothing is read from: "
    "the statistics, of which a reader makes no use",
    r"embeddings \w+_id of (huge|null)": "ids of 64 bits; null is an id that is not known",
    r"gallery index.faiss (turned at|doubled|last byte gone)": "FAISS keeps no checksum: another "
    "byte is another vector, and it reads no further than its own end",
    r"gallery meta.json (last byte gone|turned at)": "the last byte is a new line; a recall of "
    "another digit, or space",
    r"gallery recall None": "of an index that is searched whole",
    r"checkpoint of \w+: turned at": "torch reads no checksum: a byte of a tensor is another weight",
    r"checkpoint of weights: ": "reads the weights, which are whole, and not the other fields",
    r"checkpoint of (export|predict|search|convert): (?!weights|state_dict|option)": "reads weights "
    "and options, which are whole, and not the fields of training",
    r"checkpoint of (fit|validate): (option|network|preprocessing|hparams_name|hyper_parameters)": "the "
    "options of the command line count, and those of the checkpoint do not",
    r"picture of predict: ": "predict leaves out what is no image and names it, with its number",
    r"picture of \w+: (JPEG flipped|PNG flipped|surplus|GIF|CMYK|one pixel|a long stripe|no "
    r"transparency)": "a picture that every viewer shows; JPEG keeps no checksum",
    r"table (BOM|spaces|carriage returns|CRLF|floats|blank lines)": "as spreadsheets and pandas write",
    r"table (of fit )?(negative|other digits|blank ids)": "ids below 0 and empty ones are not known; "
    "digits of any script are a number",
    r"table surplus row": "predict warns of rows of no image",
    r"table of fit (huge|words)": "fit numbers ids that are no numbers",
    r"config unknown section": "it is empty: nothing of it is passed over",
    r"line index: .*--memory_limit=inf": "a memory without limit",
    r"line index: .*--probes=９９": "digits of any script are a number",
    r"line labels: .*--k1=null": "the grid's own values",
    r"crops (spaces|other digits)": "some trackers write spaces; digits of any script are a number",
    r"crops (outside|left of it)": "one box of many is left out, as a tracker's guess",
    r"crops huge box": "it is left out, for its shape",
    r"crops with --first_frame=7": "of a video file; images in a folder have their numbers",
    r"line search: .*--sheet=": "the picture is a PNG whatever its name",
    r"line (export|predict): .*(1 1|.1,1.)": "a size that this network takes",
    r"line predict: .*--data.pattern=": "a pattern that finds a digit in every name",
    r"option (data.num_workers|data.padding|model.network.num_parts)=0": "none is a number of them",
    r"option \S+=null$": "the option may be left out, and its default is null, or Lightning's is",
    r"option optimizer.(lr|weight_decay)=1e400": "infinite: the first step is not finite, and stops "
    "the run with a line that names optimizer.lr",
    r"class \w+: as it is": "the good command line, of which each of the others spoils an option",
    r"class (KMeans|SyntheticReID): seed=0": "a seed like any other",
    r"line labels: .*--(k1|eps)=.(3,3|0.5,0.5)": "a setting that is given twice is labelled once",
    r"line labels: .*--image_size=.1,1.": "a size that this network takes",
    r"picture of fit: folder": "a folder is no image, whatever its name",
    r"picture of search: last byte gone": "its pixels are all there; what is gone is a checksum and "
    "the mark of the end",
    r"checkpoint of (export|predict|search|convert): option aals ": "of the losses, which are not "
    "computed",
    r"class PPLRModule: aals_start_epoch=0": "AALS from the first epoch on",
}


def reason(case: Case) -> str | None:
    """Tells why a case may be accepted, if it may."""
    return next((why for pattern, why in ACCEPTED.items() if re.match(pattern, case.name)), None)
